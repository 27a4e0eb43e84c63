# %% [markdown] slideshow={"slide_type": "slide"}
# # 08 The mixture-prior VAE: solutions
#
# Worked solutions to the exercises of [chapter 8](../08_mixture_prior_vae.ipynb). Look here after you have tried: a solution that one has looked for
# stays, one that one has read does not.

# %% slideshow={"slide_type": "-"}
import math

import torch

from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# ### Exercise 8.1 (★, 5 minutes)
# The weights and the exponentials of Eq. (8.15) are multiplied, so their logarithms are added. Normalizing a row of logarithms is what softmax does, and it subtracts the largest entry first:
# an encoder that is a thousand nats from everything still has a nearest component.

# %%
def my_responsibilities(kl, weights):
    return torch.softmax(torch.log(weights) - kl, dim=1)                        # Eq. (8.15)

check("8.1", my_responsibilities)

# %% [markdown] slideshow={"slide_type": "-"}
# In linear space $e^{-1000}$ is zero, and zero divided by zero is not a number. A small constant in the denominator hides the error and makes it worse: all components then look alike, just where
# they differ most.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 8.2 (★★, 10 minutes)
# Two prices: reaching the chosen component, and choosing it. `torch.xlogy(r, r)` is $r\log r$, with the limit $0$ at $r=0$.

# %%
def my_joint_rate(kl, weights, resp):
    reaching = (resp * kl).sum(1)
    choosing = (torch.xlogy(resp, resp) - resp * weights.log()).sum(1)          # KL(gamma || pi)
    return reaching + choosing                                                  # Eq. (8.13)

check("8.2", my_joint_rate)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 8.3 (★★, 10 minutes)
# The four terms of Eq. (8.11), one by one. `solve(sigma, b)` is $\Sigma^{-1}b$ without forming the inverse; the diagonal of $\Sigma^{-1}S$ needs the whole matrix.

# %%
def my_kl(mean, log_var, mu, sigma):
    apart, S = mean - mu, torch.diag(log_var.exp())
    log_dets = torch.logdet(sigma) - log_var.sum()
    distance = apart @ torch.linalg.solve(sigma, apart)
    trace = torch.linalg.solve(sigma, S).diagonal().sum()
    return 0.5 * (log_dets + distance + trace - len(mean))                      # Eq. (8.11)

check("8.3", my_kl)

# %% [markdown] slideshow={"slide_type": "-"}
# A quick test of one's own: the KL of a Gaussian to itself is zero, which needs all four terms, the $-d$ included.

# %%
width = torch.tensor([0.5, 2.0])
itself = my_kl(torch.ones(2), width.log(), torch.ones(2), torch.diag(width))
assert math.isclose(float(itself), 0.0, abs_tol=1e-6)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 8.4 (★★★, 15 minutes)
# Weights first, then means, then the scatter about the *new* means, dimension by dimension. Indices: $n$ for images, $k$ for components, $i$ for dimensions.

# %%
def my_m_step(mean, log_var, resp):
    counts = resp.sum(0)                                                        # N_k
    weights = counts / len(mean)                                                # Eq. (8.22)
    means = resp.T @ mean / counts[:, None]                                     # Eq. (8.23)
    squares = (mean[:, None, :] - means) ** 2 + log_var.exp()[:, None, :]       # (N, K, d)
    variances = torch.einsum("nk,nki->ki", resp, squares) / counts[:, None]     # Eq. (8.25)
    return weights, means, variances

check("8.4", my_m_step)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 8.5 (★★★, 20 minutes)
# For each draw, $\log p(c|z)$ is the log-softmax of $\log\pi_c+\log\mathcal N(z|\mu_c,\Sigma_c)$: chapter 2's responsibilities of the place. Then the KL from $\gamma^\star$, which is the same for all draws, to each of them; then
# the mean over draws, which stands for $\mathbb E_q$.

# %%
def my_gap(resp, z, weights, means, log_var):
    squares = (z[:, None] - means) ** 2 / log_var.exp()                         # (L, K, d)
    log_normal = -0.5 * (math.log(2 * math.pi) + log_var + squares)
    log_c = torch.log_softmax(weights.log() + log_normal.sum(-1), dim=1)        # log p(c|z), (L, K)
    kl = torch.xlogy(resp, resp).sum() - log_c @ resp                           # one for each draw
    return kl.mean()                                                            # Eq. (8.18)

check("8.5", my_gap)

# %% [markdown] slideshow={"slide_type": "-"}
# Two encoders with equal responsibilities can have very different gaps. If $q$ lies inside one region, all draws agree and the gap is near zero. If it straddles two, each draw is sure of another component.
