# %% [markdown] slideshow={"slide_type": "slide"}
# # 09 Clustering with the GMVAE: solutions
#
# Worked solutions to the exercises of [chapter 9](../09_clustering_with_the_gmvae.ipynb#Exercises). Try them yourself
# first: `check` tells you more about your own mistake than this page can.

# %% slideshow={"slide_type": "skip"}
import torch
from scipy.optimize import linear_sum_assignment

from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# ### Exercise 9.1 (★, 10 minutes)
# Count first: how often does class $j$ meet cluster $k$? A one-to-one map picks at most one entry in each row and column,
# and the assignment finds the picks with the largest sum. If there are more clusters than classes, some stay without a
# class, and their images count as wrong.

# %%
def my_accuracy(y, c):
    table = torch.zeros(int(y.max()) + 1, int(c.max()) + 1)
    for a, b in zip(y, c):
        table[a, b] += 1
    classes, clusters = linear_sum_assignment(table, maximize=True)
    return table[classes, clusters].sum() / len(y)                                   # Eq. (9.1)

check("9.1", my_accuracy)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 9.2 (★★, 10 minutes)
# The views' densities are multiplied, so their logarithms are summed, over $v$, before anything is normalized. The weight
# enters once, since the component is chosen once. A softmax over $k$ normalizes without leaving log space.

# %%
def my_group_responsibilities(log_normal, weights):
    return (weights.log() + log_normal.sum(1)).softmax(1)                            # Eq. (9.5)

check("9.2", my_group_responsibilities)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 9.3 (★★, 10 minutes)
# The same with $-\mathrm{KL}_k^{(v)}$ in the place of the log-densities. The logarithm of the sum is the whole group's,
# so the division by $V$ comes last.

# %%
def my_group_rate(kl, weights):
    whole = -(weights.log() - kl.sum(1)).logsumexp(1)
    return whole / kl.shape[1]                                                       # Eq. (9.15)

check("9.3", my_group_rate)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 9.4 (★★★, 20 minutes)
# In logarithms the product over views becomes a sum of $\log r_k(z_v)-\log\pi_k$. One more $\log\pi_k$ stands in front, and
# the sum over $k$ is a logsumexp. For $V=1$ everything cancels and $A=\log\sum_kr_k=0$: alone, nobody can disagree.

# %%
def my_agreement(resp, weights):
    log_odds = (resp.log() - weights.log()).sum(1)
    return (weights.log() + log_odds).logsumexp(1)                                   # Eq. (9.9)

check("9.4", my_agreement)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 9.5 (★★, 15 minutes)
# Purity needs, for each cluster, the count of its commonest class. Permuting the labels, and not the clusters, breaks
# every connection between the two while both keep their sizes. What is left is what chance gives.

# %%
def my_chance_purity(y, c, orders):
    rounds = []
    for order in orders:
        label = y[order]
        largest = sum(label[c == k].bincount().max() for k in c.unique())
        rounds.append(largest / len(y))                                              # Eq. (9.19)
    return torch.stack(rounds).mean()

check("9.5", my_chance_purity)
