# %% [markdown] slideshow={"slide_type": "slide"}
# # 07 The prior is the problem: solutions
#
# Worked solutions to the exercises of [chapter 7](../07_the_prior_is_the_problem.ipynb#Exercises). Try them yourself
# first: `check` tells you more about your own mistake than this page can.

# %% slideshow={"slide_type": "skip"}
import math

import torch

from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# ### Exercise 7.1 (★, 10 minutes)
# Three axes: the points $z$, the images, the dimensions. The dimensions of one Gaussian are independent, so their
# logarithms are summed first. Only then do the images' densities add up, by logsumexp, and are divided by $N$.

# %%
def my_log_aggregate(z, mean, log_var):
    squared = (z.unsqueeze(1) - mean).square() / log_var.exp()                       # (M, N, d)
    log_q = -0.5 * (math.log(2 * math.pi) + log_var + squared).sum(-1)               # (M, N)
    return log_q.logsumexp(1) - math.log(len(mean))                                  # Eq. (7.3)

check("7.1", my_log_aggregate)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 7.2 (★★, 10 minutes)
# A softmax over each row gives $q(n\mid z)$, Eq. (7.5). The draw in row $n$ came from image $n$: its entry is on the
# diagonal. The information is the average of $\log N+\log q(n\mid z_n)$.

# %%
def my_information(log_q):
    log_index = log_q.log_softmax(1)                                                 # Eq. (7.5)
    return math.log(len(log_q)) + log_index.diagonal().mean()

check("7.2", my_information)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 7.3 (★★, 10 minutes)
# The law of total variance: the scatter of the means, over $N$ and not $N-1$ since these $N$ Gaussians are all there
# is, plus the mean of the variances on the diagonal.

# %%
def my_moments(mean, log_var):
    apart = mean - mean.mean(0)
    scatter = apart.T @ apart / len(mean)
    return mean.mean(0), scatter + torch.diag(log_var.exp().mean(0))                 # Eq. (7.13)

check("7.3", my_moments)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 7.4 (★★, 15 minutes)
# First the average over the draws of each image: it removes their noise. What is left are $N$ numbers, one for each
# image, and images are what we have independent draws of. Both priors saw the same $z$, so we take differences first:
# whether an image is hard for both cancels.

# %%
def my_gain(log_r, log_p):
    gains = (log_r - log_p).mean(0)                                                  # (N,)
    return gains.mean(), gains.std() / math.sqrt(len(gains))

check("7.4", my_gain)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 7.5 (★★★, 20 minutes)
# Since both densities have the mass one, $\int(q-p)\,dz=0$: where $q$ is larger it is so by as much in total as $p$ is
# elsewhere. Hence $\frac12\int|p-q|\,dz=\int\max(0,q-p)\,dz=\mathbb E_q\big[\max(0,1-p(z)/q(z))\big]$, an average over
# draws from $q$. The ratio is the exponential of a difference of logarithms, which neither $-2000$ nor $100$ can hurt.

# %%
def my_best_accuracy(log_q, log_p):
    variation = (1 - (log_p - log_q).exp()).clamp_min(0).mean()
    return 0.5 + 0.5 * variation                                                     # Eq. (7.2)

check("7.5", my_best_accuracy)
