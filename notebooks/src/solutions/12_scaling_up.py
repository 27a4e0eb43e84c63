# %% [markdown] slideshow={"slide_type": "slide"}
# # 12 Scaling up: solutions
#
# Worked solutions to the exercises of [chapter 12](../12_scaling_up.ipynb#Exercises). Try them yourself first:
# `check` tells you more about your own mistake than this page can.

# %% slideshow={"slide_type": "skip"}
import torch
from torch.nn.functional import softplus

from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# ### Exercise 12.1 (★, 8 minutes)
# The GPU computes for $\sum_iw_i$, and is done at $e_n$. The recursion of Eq. (12.6) is a loop; the closed form of
# Eq. (12.7) would do as well.

# %%
def my_share(asked, work):
    end = 0.0
    for s, w in zip(asked, work):
        end = max(float(s), end) + float(w)                                          # Eq. (12.6)
    return work.sum() / end

check("12.1", my_share)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 12.2 (★, 8 minutes)
# The right side of Eq. (12.2) with `softplus`, which is $\log(1+e^a)$ and neither overflows nor loses a small value. A
# formula with $\log\rho$ would meet $\log 0$ at logits like these.

# %%
def my_log_prob(grey, logits):
    return (grey / 255 * logits - softplus(logits)).sum(1)                           # Eq. (12.2)

check("12.2", my_log_prob)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 12.3 (★★, 10 minutes)
# The weights $N_p/N$ add up to one. With equal sizes they are $1/P$, which is all that DDP knows.

# %%
def my_gradient(gradients, sizes):
    weights = sizes.double() / sizes.sum()
    return weights @ gradients.double()                                              # Eq. (12.11)

check("12.3", my_gradient)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 12.4 (★★, 15 minutes)
# Sum over the processes first, Eq. (12.10); all divisions come after it.

# %%
def my_m_step(counts, sums, squares):
    counts, sums, squares = counts.sum(0), sums.sum(0), squares.sum(0)               # Eq. (12.10)
    means = sums / counts[:, None]
    outer = means[:, :, None] * means[:, None, :]
    return counts / counts.sum(), means, squares / counts[:, None, None] - outer     # Eq. (2.26)

check("12.4", my_m_step)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 12.5 (★★★, 15 minutes)
# One function for the recursion, two ways to ask. One by one, operation $i$ has been asked for at $i\tau$. Recorded,
# all $n$ operations of step $t$ have been asked for at $t\tau$.

# %%
def last_end(asked, work):
    end = 0.0
    for s in asked:
        end = max(s, end) + work                                                     # Eq. (12.6)
    return end

def my_times(ask, work, n, steps):
    each = [ask * (i + 1) for i in range(n * steps)]
    recorded = [ask * (t + 1) for t in range(steps) for _ in range(n)]
    return torch.tensor([last_end(asked, w)
                         for asked in (each, recorded) for w in (work, work / 2)])

check("12.5", my_times)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **With numbers like the GPU's of the chapter** (45 µs to ask, 5 µs to compute, 78 operations, 235 steps), half
# precision gains nothing as long as operations are asked for one by one, and recording gains a factor of $\tau/w$:

# %%
plain, half, recorded, both = (1e-6 * my_times(45.0, 5.0, 78, 235)).tolist()
print(f"as it is {plain:.2f} s, half precision {half:.2f} s")
print(f"recorded {recorded:.2f} s, both {both:.2f} s")
