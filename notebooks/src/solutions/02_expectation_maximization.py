# %% [markdown] slideshow={"slide_type": "slide"}
# # 02 Expectation–maximization: solutions
#
# Worked solutions to the [exercises of chapter 02](../02_expectation_maximization.ipynb#Exercises). Try them yourself first; a wrong
# attempt teaches more than a right one that was read.

# %%
import torch

from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# ### Exercise 2.1 (★, 5 minutes)
#
# In each term of the bound the logarithm of the quotient is a difference, $q_k\log p(x,c{=}k)-q_k\log q_k$. The second part is what `xlogy` computes, with the limit zero where $q_k=0$.

# %%
def mean_bound(q, log_joint):
    terms = q * log_joint - torch.xlogy(q, q)
    return terms.sum(1).mean()


check("2.1", mean_bound)

# %% [markdown]
# In words, the bound is the average log-joint plus the *entropy* of $q$, $-\sum_kq_k\log q_k$, which `torch.distributions` knows:

# %%
from torch.distributions import Categorical

check("2.1", lambda q, joint: ((q * joint).sum(1) + Categorical(q).entropy()).mean())

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 2.2 (★, 5 minutes)
#
# The sum over $n$ of $r_{nk}x_n$, for all $k$ at once, is a matrix product: $(K,N)$ times $(N,D)$. Each row is divided by its own $N_k$.

# %%
def update_means(x, resp):
    counts = resp.sum(0)
    return resp.T @ x / counts[:, None]


check("2.2", update_means)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 2.3 (★★, 10 minutes)
#
# The scatter is taken about the *new* means, so the old ones are not needed. Taking differences first and squaring them afterwards keeps the digits, wherever the
# data lie; $\mathbb E[x^2]-\mu^2$ would subtract two numbers around $10^{12}$.

# %%
def update_variances(x, resp, old_means):
    means = update_means(x, resp)
    squares = (x[:, None] - means).square()                                # (N, K, D)
    return (resp[:, :, None] * squares).sum(0) / resp.sum(0)[:, None]


check("2.3", update_variances)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 2.4 (★★, 15 minutes)
#
# E-step as always, with one covariance for all. In the M-step the weighted average of the components' covariances is
# $\sum_k\frac{N_k}N\cdot\frac1{N_k}\sum_nr_{nk}(x_n-\mu_k)(x_n-\mu_k)^\top$: the $N_k$ cancel, and one sum over points and components, divided by $N$, is left.

# %%
def tied_step(x, weights, means, covariance):
    gaussians = torch.distributions.MultivariateNormal(means, covariance)  # one for each mean
    resp = (weights.log() + gaussians.log_prob(x[:, None])).softmax(1)
    means = update_means(x, resp)
    deltas = x[:, None] - means
    covariance = torch.einsum("nk,nki,nkj->ij", resp, deltas, deltas) / len(x)
    return resp.mean(0), means, covariance


check("2.4", tied_step)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 2.5 (★★★, 20 minutes)
#
# Let $a=N_k^A/(N_k^A+N_k^B)$ be the first hospital's share in component $k$, and $b=1-a$. Sums add up, so the common mean is $\mu=a\mu^A+b\mu^B$. For the spread about
# it, write $x-\mu=(x-\mu^A)+(\mu^A-\mu)$ for the first hospital's patients and multiply out. The mixed terms vanish, since $\sum_nr_{nk}(x_n-\mu^A)=0$. What is left is
#
# $$\Sigma=a\big[\Sigma^A+(\mu^A-\mu)(\mu^A-\mu)^\top\big]+b\big[\Sigma^B+(\mu^B-\mu)(\mu^B-\mu)^\top\big].$$
#
# With $\mu^A-\mu=b(\mu^A-\mu^B)$ and $\mu^B-\mu=-a(\mu^A-\mu^B)$, the two outer products combine into $ab\,(\mu^A-\mu^B)(\mu^A-\mu^B)^\top$, because $ab^2+ba^2=ab$.
# The spread *between* the hospitals adds to the spread *within*.

# %%
def merge(counts_a, means_a, covariances_a, counts_b, means_b, covariances_b):
    counts = counts_a + counts_b
    a = (counts_a / counts)[:, None]
    b = 1 - a
    apart = means_a - means_b
    between = (a * b)[:, :, None] * apart[:, :, None] * apart[:, None, :]
    within = a[:, :, None] * covariances_a + b[:, :, None] * covariances_b
    return counts, a * means_a + b * means_b, within + between


check("2.5", merge)

# %% [markdown]
# No large squares are subtracted here, so this way of merging is also the one that keeps its digits. It is how running variances are computed in practice
# (Chan, Golub and LeVeque, 1983).
