# %% [markdown] slideshow={"slide_type": "slide"}
# # 05 The variational autoencoder: solutions
#
# Worked solutions to the exercises of [chapter 5](../05_variational_autoencoder.ipynb#Exercises). Try them yourself
# first: `check` tells you more about your own mistake than this page can.

# %% slideshow={"slide_type": "skip"}
import math

import torch
from torch.nn.functional import softplus

from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# ### Exercise 5.1 (★, 5 minutes)
# `log_var` is $\log\sigma^2$, so $\sigma^2$ is its exponential. The sum runs over the last axis, the dimensions; one
# rate remains for each point.

# %%
def my_rate(mean, log_var):
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)               # Eq. (5.11)

check("5.1", my_rate)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 5.2 (★, 10 minutes)
# The logarithm of $\binom nx=\frac{n!}{x!\,(n-x)!}$ is a difference of `lgamma`s, which take $k+1$ for $k!$. With
# `softplus` no logarithm of a rounded zero can occur.

# %%
def my_binomial(x, logits, n):
    log_choices = math.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)
    return (log_choices + x * logits - n * softplus(logits)).sum(-1)                 # Eq. (5.13)

check("5.2", my_binomial)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 5.3 (★★, 10 minutes)
# The mean over points *and* pixels, since all share one $\sigma$; then the root. A constant error counts as an error,
# so nothing is subtracted: `(x - x_hat).std()` would forgive it.

# %%
def my_sigma(x, x_hat):
    return (x - x_hat).square().mean().sqrt()                                        # Eq. (5.15)

check("5.3", my_sigma)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 5.4 (★★, 10 minutes)
# With $\sigma=e^{\ell/2}$ for $\ell=\log\sigma^2$, the chain rule gives $\partial z/\partial\mu=1$ and
# $\partial z/\partial\ell=\tfrac12\sigma\varepsilon$. The outer derivative is $\cos z$ in both.

# %%
def my_gradient(mean, log_var, eps):
    sigma = (0.5 * log_var).exp()
    slope = (mean + sigma * eps).cos()
    return slope.mean(), (slope * 0.5 * sigma * eps).mean()                          # Eq. (5.8)

check("5.4", my_gradient)

# %% [markdown] slideshow={"slide_type": "fragment"}
# By autograd, the same:

# %%
def my_gradient(mean, log_var, eps):
    mean, log_var = mean.requires_grad_(), log_var.requires_grad_()
    return torch.autograd.grad((mean + (0.5 * log_var).exp() * eps).sin().mean(), (mean, log_var))

check("5.4", my_gradient)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 5.5 (★★, 15 minutes)
# The logarithm of a mean of exponentials: `logsumexp` over the draws, minus $\log S$. It pulls out the largest ratio
# first, so nothing underflows.

# %%
def my_bound(log_ratio):
    return torch.logsumexp(log_ratio, 0) - math.log(len(log_ratio))                  # Eq. (5.24)

check("5.5", my_bound)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 5.6 (★★★, 20 minutes)
# What is kept lies between $-\frac12$ and $16\frac12$. Its share is what Eq. (5.18) sums to over the 17 levels, for
# each pixel, and dividing by it makes the sum one again:
#
# $$P(x\mid z)=\prod_i\frac{\Phi\big((x_i+\frac12-\hat x_i)/\sigma\big)-\Phi\big((x_i-\frac12-\hat x_i)/\sigma\big)}{\Phi\big((16\frac12-\hat x_i)/\sigma\big)-\Phi\big((-\frac12-\hat x_i)/\sigma\big)}.$$
#
# `log_share` as in the chapter:

# %%
def log_share(low, high, x_hat, sigma):
    a, b = (low - x_hat) / sigma, (high - x_hat) / sigma
    a, b = torch.where(a + b > 0, -b, a), torch.where(a + b > 0, -a, b)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    return log_b + torch.log(-torch.expm1(log_a - log_b))

# %% [markdown] slideshow={"slide_type": "fragment"}
# With it, the answer takes two lines:

# %%
def my_truncated(x, x_hat, sigma):
    kept = log_share(torch.full_like(x, -0.5), torch.full_like(x, 16.5), x_hat, sigma)
    return (log_share(x - 0.5, x + 0.5, x_hat, sigma) - kept).sum(-1)                # Eq. (5.18)

check("5.6", my_truncated)

# %% [markdown] slideshow={"slide_type": "fragment"}
# One pixel's 17 probabilities sum to one, wherever the mean lies:

# %%
levels = torch.arange(17.0).unsqueeze(1)
for x_hat in (-20.0, 3.0, 40.0):
    total = my_truncated(levels, torch.tensor([[x_hat]]), 1.9).exp().sum()
    assert torch.isclose(total, torch.tensor(1.0), atol=1e-4)
