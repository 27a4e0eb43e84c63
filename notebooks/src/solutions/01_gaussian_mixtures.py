# %% [markdown] slideshow={"slide_type": "slide"}
# # 01 Gaussian mixtures: solutions
#
# Worked solutions to the [exercises of chapter 01](../01_gaussian_mixtures.ipynb#Exercises). Try them yourself first; a wrong
# attempt teaches more than a right one that was read.

# %%
import math

import torch

from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# ### Exercise 1.1 (★, 10 minutes)
#
# A point comes from *one* component, with all its coordinates. So within each component we first add up the dimensions, Eq. (1.7), then add the log-weight, and only then sum over the components. The other order
# would let each coordinate choose a component of its own. Broadcasting `x[:, None]` against the means gives a table of shape $(N,K,D)$.

# %%
def log_density(x, weights, means, variances):
    squares = (x[:, None] - means).square() / variances
    log_normals = -0.5 * (math.log(2 * math.pi) + variances.log() + squares).sum(2)
    return (weights.log() + log_normals).logsumexp(1)


check("1.1", log_density)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 1.2 (★, 5 minutes)
#
# Within plus between, Eq. (1.13). (Eq. (1.12) gives the same, but subtracts two numbers that are large if the data lie far from the origin.)

# %%
def moments(weights, means, covariances):
    apart = means - weights @ means
    within = (weights[:, None, None] * covariances).sum(0)
    return weights @ means, within + apart.T @ (weights[:, None] * apart)


check("1.2", moments)

# %% [markdown]
# Two unit Gaussians at −1 and 1 with equal weights: variance 1 within, 1 between.

# %%
mean, covariance = moments(torch.ones(2) / 2, torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1, 1))
print(mean, covariance)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 1.3 (★★, 10 minutes)
#
# Each point needs the factor of its own component: `factors[c]` has the shape $(N,D,D)$. A batched product needs columns, so the noise becomes $(N,D,1)$ for a moment. (Any other root of $\Sigma$ draws from the same density, but makes other points of the same noise.)

# %%
def from_noise(c, eps, means, covariances):
    factors = torch.linalg.cholesky(covariances)
    return means[c] + (factors[c] @ eps[:, :, None]).squeeze(2)


check("1.3", from_noise)

# %% [markdown]
# The same as a sum over named indices:

# %%
def by_einsum(c, eps, means, covariances):
    factors = torch.linalg.cholesky(covariances)
    return means[c] + torch.einsum("nij,nj->ni", factors[c], eps)


check("1.3", by_einsum)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 1.4 (★★, 15 minutes)
#
# The log-likelihood of the points is $-\frac N2\big(\log\det\Sigma+\operatorname{tr}(\Sigma^{-1}S)\big)$ and the log-prior $-\frac{\nu+D+1}2\log\det\Sigma-\frac12\operatorname{tr}(\Psi\Sigma^{-1})$, both up to constants. Added up, $\log\det\Sigma$ has the
# factor $-\frac12(N+\nu+D+1)$, and the trace contains $NS+\Psi$. By Eq. (1.26) the best $\Sigma$ is the ratio of the two. It exists for any number of points, since $\Psi$ is positive definite.

# %%
def map_covariance(x, mean, psi, nu):
    n, d = x.shape
    deltas = x - mean
    return (deltas.T @ deltas + psi) / (n + nu + d + 1)


check("1.4", map_covariance)

# %% [markdown]
# A single point has no spread of its own, and yet there is an answer:

# %%
print(map_covariance(torch.zeros(1, 2), torch.zeros(2), torch.eye(2), 4.0).diagonal() > 0)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 1.5 (★★★, 25 minutes)
#
# Within component $k$, $x=\mu+Lw$ reads $x_1=\mu_1+L_{11}w_1$ and $x_2=\mu_2+L_{21}w_1+L_{22}w_2$. So $x_1$ tells $w_1=(x_1-\mu_1)/L_{11}$, and says nothing about $w_2$, which is independent of $w_1$ with mean zero:
# $\mathbb E[x_2|x_1,c{=}k]=\mu_2+L_{21}w_1$.
#
# Which component? Bayes' rule, with what we know: $p(c{=}k|x_1)\propto\pi_k\,\mathcal N(x_1|\mu_{k1},L_{k11}^2)$, responsibilities of a mixture on the line. Averages are taken act by act: $\mathbb E[x_2|x_1]=\sum_kp(c{=}k|x_1)\,\mathbb E[x_2|x_1,c{=}k]$.

# %%
def second_given_first(first, weights, means, covariances):
    factors = torch.linalg.cholesky(covariances)
    w1 = (first[:, None] - means[:, 0]) / factors[:, 0, 0]                 # (N, K)
    resp = (weights.log() - 0.5 * w1.square() - factors[:, 0, 0].log()).softmax(1)
    return (resp * (means[:, 1] + factors[:, 1, 0] * w1)).sum(1)


check("1.5", second_given_first)

# %% [markdown]
# (The constant $-\frac12\log2\pi$ is the same for all components and cancels in the softmax.) Each component contributes a straight line in $x_1$. Their average, with weights that change from place to place, is a curve:
# mixtures can do regression, too.
