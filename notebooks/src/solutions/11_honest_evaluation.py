# %% [markdown] slideshow={"slide_type": "slide"}
# # 11 Honest evaluation: solutions
#
# Worked solutions to the exercises of [chapter 11](../11_honest_evaluation.ipynb#Exercises). Try them yourself first:
# `check` tells you more about your own mistake than this page can.

# %% slideshow={"slide_type": "skip"}
import math

import torch

from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# ### Exercise 11.1 (★, 10 minutes)
# Both are sums over the draws, in logarithms. The square of the sum is twice its logarithm, and the sum of squares is
# the logsumexp of twice the logarithms. Only their difference, between 0 and $\log S$, is safe to exponentiate.

# %%
def my_estimate(log_w):
    total = log_w.logsumexp(0)
    log_ess = 2 * total - (2 * log_w).logsumexp(0)                                   # Eq. (11.5)
    return total - math.log(len(log_w)), log_ess.exp()                               # Eq. (5.24)

check("11.1", my_estimate)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 11.2 (★★, 10 minutes)
# Subtract image by image. What makes an image hard for both models cancels; what is left is a sample of $N$ independent
# differences. Eq. (11.8) gives the same number by a longer way.

# %%
def my_comparison(a, b):
    better = b - a
    return better.mean(), better.std() / math.sqrt(len(better))                      # Eq. (11.8)

check("11.2", my_comparison)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 11.3 (★★, 15 minutes)
# Cut the images once, and let each half do one thing. The optimism is positive on average, and may well be negative in
# one case: the images that judge can be easier than those that chose.

# %%
def my_choice(scores, n):
    promised, kept = scores[:, :n].mean(1), scores[:, n:].mean(1)
    chosen = promised.argmax()
    return kept[chosen], promised[chosen] - kept[chosen]

check("11.3", my_choice)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 11.4 (★★, 15 minutes)
# Ask each time: what would be drawn anew? Images: the spread along a row. Trainings: average each row first, since the
# images stay, and take the spread of these $M$ means. Their mean is more certain by $\sqrt M$; a single new training
# is not.

# %%
def my_errors(scores):
    of_images = scores[0].std() / math.sqrt(scores.shape[1])                         # Eq. (11.7)
    trainings = scores.mean(1)
    return of_images, trainings.std() / math.sqrt(len(trainings)), trainings.std()

check("11.4", my_errors)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 11.5 (★★★, 20 minutes)
# The ratio divides by the density that the draws came from, here the mixture's, for *all* draws: it does not matter
# which of the two parts a draw came from. Where $q$ is tiny, the mixture is still $\alpha\,p(z)$, so the ratio is at
# most $p_\theta(x\mid z)/\alpha$. The price, where $q$ was good, is a share $\alpha$ of wasted draws.

# %%
def my_defence(log_given, log_prior, log_q, alpha):
    log_mixture = torch.logaddexp(math.log(1 - alpha) + log_q, math.log(alpha) + log_prior)
    log_w = log_given + log_prior - log_mixture
    return log_w.logsumexp(0) - math.log(len(log_w))                                 # Eq. (5.24)

check("11.5", my_defence)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **On the chapter's plane.** Its decoder is smooth and its latent space has two dimensions, so the grid of Eq. (11.1)
# knows the truth. (The prior is $\mathcal N(0,I)$; here the grid is coarser than the chapter's, good to some thousandths of
# a nat.)

# %%
from gmvae_lib import explorers
from gmvae_lib.data import load
from gmvae_lib.gaussian import log_prob_diag, sample_diag

torch.set_num_threads(1)
plane, x = explorers.quick_plane(load("digits").x[:1200]), load("digits", "test").x
axis = torch.linspace(-6, 6, 161)
grid = torch.cartesian_prod(axis, axis)
with torch.no_grad():
    params, log_prior = plane.decoder(grid), plane.prior.log_prob(grid)
    truth = torch.stack([(plane.likelihood.log_prob(image, params) + log_prior).logsumexp(0)
                         for image in x]) + 2 * (axis[1] - axis[0]).log()            # Eq. (11.1)

# %% [markdown] slideshow={"slide_type": "-"}
# These are draws from the mixture, with the three log-densities of each; $\alpha=0$ gives draws from $q$ alone:

# %%
@torch.no_grad()
def drawn(alpha, widen, n_draws=1000):  # three tables (S, N)
    generator, (mean, log_var) = torch.Generator().manual_seed(0), plane.encode(x)
    log_var, rows = log_var + 2 * math.log(widen), []
    for _ in range(n_draws):
        from_prior = torch.rand(len(x), 1, generator=generator) < alpha
        z = torch.where(from_prior, plane.prior.sample(len(x), generator=generator),
                        sample_diag(mean, log_var, generator))
        rows.append((plane.likelihood.log_prob(x, plane.decoder(z)), plane.prior.log_prob(z),
                     log_prob_diag(z, mean, log_var)))
    return [torch.stack(part) for part in zip(*rows)]

# %% [markdown] slideshow={"slide_type": "-"}
# A thousand draws an image: from $q$ as the encoder has it; from a $q$ four times as wide; and half of them from that,
# half from the prior. By how much does each miss the truth, on average?

# %%
def missed(widen):
    log_given, log_prior, log_q = drawn(0.0, widen)
    return float((truth - my_estimate(log_given + log_prior - log_q)[0]).mean())

tables = drawn(0.5, 4.0)
defended = torch.stack([my_defence(*(table[:, n] for table in tables), 0.5) for n in range(len(x))])
as_is, wide, defended = missed(1.0), missed(4.0), float((truth - defended).mean())
print("The encoder's q misses more than a nat:", as_is > 1)
print("The defensive mixture less than 0.2:   ", defended < 0.2)
print("It is the best of the three:           ", defended < min(as_is, wide))
