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
    return torch.logsumexp(log_ratio, 0) - math.log(len(log_ratio))                  # Eq. (5.17)

check("5.5", my_bound)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 5.6 (★★★, 20 minutes)
# The entropy of $q$ is Eq. (5.9), as before. In the cross-entropy the prior is $\mathcal N(m,\mathrm{diag}\,s^2)$,
# and with $\mathbb E_q[(z_i-m_i)^2]=\sigma_i^2+(\mu_i-m_i)^2$,
#
# $$-\mathbb E_q[\log p(z)]=\frac12\sum_i\Big(\log2\pi+\log s_i^2+\frac{\sigma_i^2+(\mu_i-m_i)^2}{s_i^2}\Big).$$
#
# Subtract the entropy:
#
# $$\mathrm{KL}=\frac12\sum_i\Big(\log s_i^2-\log\sigma_i^2+\frac{\sigma_i^2+(\mu_i-m_i)^2}{s_i^2}-1\Big).$$

# %%
def my_kl(mean, log_var, mean_p, log_var_p):
    distance = log_var.exp() + (mean - mean_p).square()
    return 0.5 * (log_var_p - log_var + distance / log_var_p.exp() - 1).sum(-1)

check("5.6", my_kl)

# %% [markdown] slideshow={"slide_type": "fragment"}
# For $m=0$ and $s=1$ it is the rate of exercise 5.1:

# %%
mean, log_var = torch.randn(2, 10, 3)
zeros = torch.zeros(3)
assert torch.allclose(my_kl(mean, log_var, zeros, zeros), my_rate(mean, log_var), atol=1e-5)
