# %% [markdown] slideshow={"slide_type": "slide"}
# # 10 The family: solutions
#
# Worked solutions to the exercises of [chapter 10](../10_the_family.ipynb). Look here after you have tried: a solution that one has looked for stays, one that one has read does not.

# %% slideshow={"slide_type": "-"}
import math

import torch

from gmvae_lib.exercises import check


def kl(q, p):
    """KL along the last axis."""
    return (q * (q / p).log()).sum(-1)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# ### Exercise 10.1 (★, 5 minutes)
# Three terms, in the order of Eq. (10.5). `kl(q_z, p_z_c)` compares one distribution with $K$ rows, and gives all $K$ divergences at once; the average over classes is a scalar product.

# %%
def my_vade(log_px_z, q_z, q_c, pi, p_z_c):
    reached = q_z @ log_px_z
    components = q_c @ kl(q_z, p_z_c)
    return reached - components - kl(q_c, pi)                           # Eq. (10.5)

check("10.1", my_vade)

# %% [markdown] slideshow={"slide_type": "-"}
# Counting is the test that needs no thought: build the joint $\pi_c\,p(z|c)\,p(x|z)$ and $q(z)\,q(c)$ as tables, and take $\sum q\log\frac{p}{q}$ over all cells.

# %%
def rows(*shape):
    return torch.randn(*shape, dtype=torch.float64).softmax(-1)

q_z, q_c, pi, p_z_c, px_z = rows(4), rows(3), rows(3), rows(3, 4), rows(4, 6)[:, 0]
joint, q = pi[:, None] * p_z_c * px_z, q_c[:, None] * q_z
assert torch.isclose((q * (joint / q).log()).sum(), my_vade(px_z.log(), q_z, q_c, pi, p_z_c))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 10.2 (★★, 10 minutes)
# First one ELBO for each class, $A_c$, as $(K,)$; then their average, and the price of the choice. Averaging $q(z|x,c)$ over $c$ first would give VaDE's bound of an averaged code: a KL is not linear, so the order matters.

# %%
def my_shu(log_px_z, q_z_xc, q_c, pi, p_z_c):
    A = q_z_xc @ log_px_z - kl(q_z_xc, p_z_c)                           # one ELBO for each class
    return q_c @ A - kl(q_c, pi)                                        # Eq. (10.15)

check("10.2", my_shu)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 10.3 (★★, 10 minutes)
# Each coordinate's log-density, summed over dimensions to $(N,K)$; then the log-sum-exp over pseudo-inputs; then $-\log K$ for the equal weights. A point far from everything has densities that underflow to zero, but a log-density that does not.

# %%
def my_vamp(z, mean, log_var):
    apart = z[:, None, :] - mean                                        # (N, K, d)
    each = -0.5 * (math.log(2 * math.pi) + log_var + apart**2 / log_var.exp())
    return torch.logsumexp(each.sum(-1), dim=1) - math.log(len(mean))   # Eq. (10.9)

check("10.3", my_vamp)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 10.4 (★★, 10 minutes)
# The mean of the others follows from the sum of all. Each draw's baseline is independent of that draw, so by Eq. (10.21) the estimator stays unbiased. The mean of *all* draws would shrink it by the factor $\frac{S-1}S$, since each draw would subtract a share of itself.
# (With this baseline the weights of the scores sum to zero over the draws, so the $-q$ in $e_c-q$ could even be left out.)

# %%
def my_score_gradient(c, costs, q):
    baseline = (costs.sum() - costs) / (len(costs) - 1)                 # of the others
    scores = torch.eye(len(q), dtype=q.dtype)[c] - q                    # e_c - q
    return ((costs - baseline)[:, None] * scores).mean(0)               # Eq. (10.21)

check("10.4", my_score_gradient)

# %% [markdown] slideshow={"slide_type": "-"}
# That it is unbiased can be counted, not only estimated: two draws of three classes have nine outcomes.

# %%
q, f = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([199.0, 210.0, 213.0])
pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
mean = sum(q[c].prod() * my_score_gradient(c, f[c], q) for c in pairs)
assert torch.allclose(mean, q * (f - q @ f), atol=1e-4)                 # Eq. (10.20)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 10.5 (★★★, 15 minutes)
# For one $w$ the mixture is at least $\pi_c\,p(z|c,w)$, whichever $c$ we take, so its KL is at most $\mathrm{KL}(q(z|x)\Vert p(z|c,w))-\log\pi_c$. The best $c$ gives the smallest bound, and may be another for each $w$: the minimum stands inside the average. The price of $w$ is untouched.

# %%
def my_rate_bound(q_z, q_w, p_w, pi, p_z_wc):
    price = kl(q_z, p_z_wc) - pi.log()                                  # (W, K)
    return q_w @ price.amin(dim=1) + kl(q_w, p_w)

check("10.5", my_rate_bound)
