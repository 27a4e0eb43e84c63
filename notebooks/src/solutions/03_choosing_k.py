# %% [markdown] slideshow={"slide_type": "slide"}
# # 03 Choosing K: solutions
#
# Worked solutions to the [exercises of chapter 03](../03_choosing_k.ipynb#Exercises). Try them yourself first; a wrong attempt teaches more
# than a right one that was read.

# %%
import math

import torch
from torch import distributions

from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# ### Exercise 3.1 (★, 5 minutes)
#
# Differences first. What makes a point unlikely under both models cancels before anything is squared.

# %%
def compare(s, t):
    d = s - t
    return d.mean(), d.std() / math.sqrt(len(d))                           # Eq. (3.5)


check("3.1", compare)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 3.2 (★, 10 minutes)
#
# The weights sum to one, so the last follows from the others. A covariance is symmetric: $D$ entries on the diagonal and $D(D-1)/2$ above it.

# %%
def free_parameters(n_components, dim, family):
    symmetric = dim * (dim + 1) // 2
    spread = {"full": n_components * symmetric, "diag": n_components * dim,
              "spherical": n_components, "tied": symmetric}
    return n_components - 1 + n_components * dim + spread[family]          # Eq. (1.19)


check("3.2", free_parameters)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 3.3 (★★, 10 minutes)
#
# `logsumexp` gives $\log p(x_n)$, `softmax` the responsibilities. `xlogy(r, r)` is $r\log r$, with its limit $0$ where $r$ has underflowed.

# %%
def completed(log_joint, n_parameters):
    ell = log_joint.logsumexp(1).sum()
    resp = log_joint.softmax(1)
    entropy = -torch.xlogy(resp, resp).sum()
    return -2 * ell + n_parameters * math.log(len(log_joint)) + 2 * entropy  # Eq. (3.23)


check("3.3", completed)

# %% [markdown]
# The same by the other side of Eq. (3.23): $-2\mathcal Q+P\log N$, with the expected log-joint in place of $\ell$. Here a responsibility of zero meets a log-joint that is very negative but finite, and the product is zero.

# %%
def by_expectation(log_joint, n_parameters):
    expected = (log_joint.softmax(1) * log_joint).sum()
    return -2 * expected + n_parameters * math.log(len(log_joint))


check("3.3", by_expectation)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 3.4 (★, 5 minutes)
#
# Take the fee from everybody, let those who cannot pay go, and share out what is left.

# %%
def map_weights(counts, alpha):
    paid = (counts + alpha - 1).clamp(min=0)
    return paid / paid.sum()                                               # Eq. (3.27)


check("3.4", map_weights)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 3.5 (★★, 15 minutes)
#
# The best row differs from itself by zero, with an error of zero, so the list of candidates is never empty. Row $i$ belongs to $K=i+1$.

# %%
def smallest_within_one_error(scores):
    best = scores[scores.mean(1).argmax()]
    d = best - scores
    error = d.std(1) / math.sqrt(scores.shape[1])
    return 1 + int((d.mean(1) <= error).nonzero()[0])                      # Eq. (3.8)


check("3.5", smallest_within_one_error)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 3.6 (★★★, 20 minutes)
#
# Write $x_n=\mu+\varepsilon_n$ with independent $\varepsilon_n\sim\mathcal N(0,1)$. All $x_n$ contain the same $\mu$, so they are jointly Gaussian with mean zero, $\operatorname{Var}(x_n)=1+\tau^2$ and $\operatorname{Cov}(x_n,x_m)=\tau^2$ for $n\ne m$.

# %%
def evidence(x, tau):
    covariance = torch.eye(len(x)).double() + tau**2
    return distributions.MultivariateNormal(torch.zeros_like(x), covariance).log_prob(x)


check("3.6", evidence)

# %% [markdown]
# By Laplace: the logarithm of likelihood times prior is $-\frac12\sum_n(x_n-\mu)^2-\frac1{2\tau^2}\mu^2$ and constants, a parabola with $-$second derivative $H=N+\tau^{-2}$ and its top at $\hat\mu=\sum_nx_n/H$. The integral of a Gaussian is exact, so nothing is approximated:

# %%
def by_laplace(x, tau):
    H = len(x) + tau**-2
    top = x.sum() / H
    height = distributions.Normal(top, 1).log_prob(x).sum()
    height = height + distributions.Normal(0, tau).log_prob(top)
    return height + 0.5 * math.log(2 * math.pi) - 0.5 * math.log(H)        # Eq. (3.16)


check("3.6", by_laplace)

# %% [markdown]
# For large $N$ the prior's $\tau^{-2}$ vanishes beside $N$, and what BIC drops is $\log p(\hat\mu)+\frac12\log2\pi$: a constant, which depends on the prior's width $\tau$. A very wide prior makes any model improbable, and that is the part of a Bayesian's answer that BIC cannot see.
