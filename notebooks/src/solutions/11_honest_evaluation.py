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
