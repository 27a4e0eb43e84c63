# %% [markdown] slideshow={"slide_type": "slide"}
# # 06 β and the rate–distortion curve: solutions
#
# Worked solutions to the exercises of [chapter 6](../06_beta_and_the_rate_distortion_curve.ipynb#Exercises). Try them
# yourself first: `check` tells you more about your own mistake than this page can.

# %% slideshow={"slide_type": "skip"}
import torch

from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# ### Exercise 6.1 (★, 5 minutes)
# The information is the KL divergence between the joint and the product of its marginals: the average, over the
# joint, of $\log\frac{q(x,z)}{\hat p(x)q(z)}$.

# %%
def my_information(joint):
    product = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return (joint * (joint / product).log()).sum()

check("6.1", my_information)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 6.2 (★★, 10 minutes)
# The water level is $\beta\sigma^2$. What is under water costs no rate, and its whole variance as error; all else is
# coded down to the level. The distortion is the error over $2\sigma^2$.

# %%
def my_curve(eigenvalues, sigma2, beta):
    level = beta * sigma2
    rates = 0.5 * (eigenvalues / level).log().clamp_min(0)                       # Eq. (6.12)
    errors = eigenvalues.clamp_max(level)
    return rates.sum(), errors.sum() / (2 * sigma2)

check("6.2", my_curve)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 6.3 (★★, 10 minutes)
# The price divides the log-likelihood; the prior stays as it is. `softmax` subtracts the largest term before it
# exponentiates, so that nothing underflows.

# %%
def my_e_step(log_prior, log_likelihood, beta):
    return (log_prior + log_likelihood / beta).softmax(-1)                       # Eq. (6.10)

check("6.3", my_e_step)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 6.4 (★★, 10 minutes)
# The average over images comes first, then the allowance, then the sum over dimensions.

# %%
def my_free_bits(mean, log_var, alpha):
    each = 0.5 * (mean.square() + log_var.exp() - 1 - log_var)
    return torch.clamp(each.mean(0), min=alpha).sum()                            # Eq. (6.15)

check("6.4", my_free_bits)
