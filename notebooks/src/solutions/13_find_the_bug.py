# %% [markdown] slideshow={"slide_type": "slide"}
# # 13 Find the bug: solutions
#
# What was wrong in each case of [chapter 13](../13_find_the_bug.ipynb), why nobody noticed, and the corrected code. Look here after you have explained the failing test yourself: the explanation is the exercise, the repair is one line.

# %% slideshow={"slide_type": "-"}
import math

import torch
from scipy.optimize import linear_sum_assignment
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from gmvae_lib.exercises import check

LOG_2PI = math.log(2 * math.pi)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Densities and mixtures
#
# ### Exercise 13.1 (★, 5 minutes)
# The bracket closes too late: in Eq. (5.6) only the square is divided by the variance, the logarithms are not. With $\sigma^2=1$ dividing changes nothing, and so every test with unit variances passes, and a network whose log-variances start near zero shows nothing at first.
# In general the snippet is $\sigma^2=1$'s formula with $(\log2\pi+\log\sigma^2)/\sigma^2$ for a constant. In two dimensions its exponential integrates to $2\pi\sigma^2\cdot(2\pi\sigma^2)^{-1/\sigma^2}$: 0.32 for $\sigma^2=\frac12$, 3.54 for 2. An optimizer that may choose
# $\sigma$ likes what integrates to more than one.

# %%
def my_log_normal(z, mean, log_var):
    return -0.5 * (LOG_2PI + log_var + (z - mean) ** 2 / log_var.exp()).sum(-1)  # Eq. (5.6)

check("13.1", my_log_normal)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.2 (★, 5 minutes)
# `log_var.exp()` is $\sigma^2$, and the noise must be multiplied by $\sigma=e^{\frac12\log\sigma^2}$, Eq. (5.7). At $\sigma=1$ the two are equal. Below one, the draws are too narrow: a point that was said to lie within $\sigma$ lies within the smaller $\sigma^2$, so the decoder
# gets a sharper code than the rate has paid for, and the bound looks too good. That is the side on which trained encoders are, and chapter 5 has measured it: more than ten nats. (In the test, the density finds its own draws likelier, or less likely, than they can be on average.)

# %%
def my_draw(mean, log_var, eps):
    return mean + (0.5 * log_var).exp() * eps                                  # Eq. (5.7)

check("13.2", my_draw)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.3 (★★, 10 minutes)
# The logarithm of the weight stands inside the sum over dimensions, so it is added $d$ times, and the weight becomes $\pi_k^d$. The density integrates to $\sum_k\pi_k^d$: for ten twins in the plane to $10\cdot10^{-2}=0.1$, in 64 dimensions to $10^{-63}$. With $d=1$ or with $K=1$ nothing is
# wrong. With equal weights the density is only scaled, and neither responsibilities nor gradients notice, except those of the weights. With unequal ones, the weights count $d$ times as much as they should, and rare components die.

# %%
def my_log_mixture(z, weights, means, log_var):
    log_normal = -0.5 * (LOG_2PI + log_var + (z.unsqueeze(1) - means) ** 2 / log_var.exp())
    return torch.logsumexp(weights.log() + log_normal.sum(-1), 1)              # Eq. (8.4)

check("13.3", my_log_mixture)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.4 (★★, 10 minutes)
# `MixtureSameFamily` was given $d$ mixtures on a line, one for each coordinate. Their product lets each coordinate choose a component of its own: $\prod_i\sum_k\pi_k\,\mathcal N(z_i|\mu_{ki},\sigma_{ki}^2)$, with $K^d$ bumps. That would be $10^{10}$ for ten components in ten dimensions, nearly
# all of them in places where no image is coded, and samples drawn from the true mixture never go there. It is a density, it integrates to one, its marginals are right, its mean and its variances are right. Only where a *combination* of coordinates is asked for does it
# fail, and in one dimension there is no combination. `Independent(..., 1)` says that the last axis is one draw. One number for each dimension where one for each point was expected had been the warning.

# %%
def my_log_prior(z, weights, means, std):
    components = Independent(Normal(means, std), 1)
    return MixtureSameFamily(Categorical(weights), components).log_prob(z)

check("13.4", my_log_prior)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Move it yourself
# With both centers at zero, the first wrong program is right: two equal components are one. With unit variance, the bracket and the sampler are. The weights inside the sum hide nowhere, since two components in the plane are neither $K=1$ nor $d=1$. All hiding places are the round numbers that one
# tries first. The first program is noticed by one test only, the draws. And the order: no bug here depends on it, but a wrong index does, or a loop that forgets the last component.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Expectation–maximization
#
# ### Exercise 13.5 (★, 5 minutes)
# A unit Gaussian has fallen to $10^{-10}$ at a distance of less than seven standard deviations, since $\frac12\cdot6.8^2\approx23=\log10^{10}$. From there on only the constant is left, equal for all. A smaller one only moves the distance: $10^{-300}$ to 37. Without it, zero is divided by zero. And there is
# nothing to doubt: at $x=16$ the log-odds are $8\cdot16=128$ nats. Subtract the largest exponent first, or let `softmax` do it, Eq. (1.17).

# %%
def my_responsibilities(log_joint):
    return (log_joint - log_joint.logsumexp(1, keepdim=True)).exp()            # Eq. (1.17)

check("13.5", my_responsibilities)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.6 (★★, 10 minutes)
# The headings are exchanged: averages with given weights are an M-step, and $w$ is what an E-step computes. Then: $w_k$ has no index $i$, so it can be taken out of both sums and cancels. What remains is $\mu_k=\frac1N\sum_ix_i$, the mean of all points, for every $k$ and whatever the start was. So
# all components are equal after one step, and stay so. A responsibility is one number for each point *and* component, and the average over points, which the last of the four formulas takes, must not be taken there. The labels' order of steps is harmless, since the two alternate;
# the index is not.

# %%
def my_new_means(x, weights, means, sds):
    resp = my_e_step(x, weights, means, sds)
    return (resp * x[:, None]).sum(0) / resp.sum(0)                            # Eq. (2.14)

def my_e_step(x, weights, means, sds):
    log_normal = -0.5 * (LOG_2PI + ((x[:, None] - means) / sds) ** 2) - sds.log()
    return (weights.log() + log_normal).softmax(1)                             # Eq. (1.16)

check("13.6", my_new_means)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.7 (★★, 10 minutes)
# Bayes' rule has the prior probability in it: $r_{ik}\propto\alpha_k\,\mathcal N(x_i|\mu_k,\Sigma_k)$, Eq. (1.16). In the published formula the weights are computed and then used nowhere. A common and a rare component count the same, the rare one takes over points that are not its own, widens, and takes more: its weight
# went from 0.03 to one half. With equally common groups, or with groups so far apart that the densities alone decide, nobody notices. The E-step is no longer the posterior, so the bound is not tight, Eq. (2.7), and nothing promises that the likelihood rises. It did not.

# %%
check("13.7", my_e_step)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.8 (★, 5 minutes)
# `resp / resp.sum(0)` makes each *column* sum to one, and the mean of a column over $N$ points is then $1/N$, whatever the responsibilities are. The weights sum to $K/N$: for 3 components and 50 points, 0.06. If they are normalized again later on, or put through a softmax, they are all equal,
# and the mistake is hidden behind plausible numbers. The weight is the share of the points that a component claims, Eq. (2.11). (The published sum runs over components, and the responsibilities of a point sum to one already: that division is harmless, and nobody could tell what it is for. Hence the trap.)

# %%
def my_weights(resp):
    return resp.sum(0) / len(resp)                                             # Eq. (2.11)

check("13.8", my_weights)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.9 (★★, 10 minutes)
# Around $10^8$ the squares are around $10^{16}$, where neighbouring numbers in double precision are 2 apart: the digits that hold a variance of $\frac14$ have been rounded away before the subtraction, and what comes out is a multiple of 2, possibly a negative one. On paper
# $\mathbb E[x^2]-(\mathbb E\,x)^2$ is right. Subtract the mean first; then the squares are small, and nothing cancels. To clip the result at a small positive number is no cure: it hides the only symptom.

# %%
def my_variances(x, resp):
    counts = resp.sum(0)[:, None]
    centered = x[:, None] - resp.T @ x / counts                                # (N, K, D)
    return (resp[:, :, None] * centered**2).sum(0) / counts                    # Eq. (2.19)

check("13.9", my_variances)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The bound of the VAE
#
# ### Exercise 13.10 (★★, 10 minutes)
# If the prior is the encoder's output, it is $q_\phi(z|x)$ itself. The last two terms of the snippet cancel, and the rate is zero for every encoder: every code is free, however sharp. The "bound" is then the average log-likelihood of a reconstruction, and it exceeds $\log p(x)$ as far as one likes. Such a model
# cannot even be drawn from: to draw $z$ one would need the $x$ that one wants to make. The prior's mean and covariance are the same for all $x$ (zero and one, or a mixture's); the encoder's output is the mean and covariance of $q_\phi(z|x)$.

# %%
def normal(x, mean, log_var):
    return -0.5 * (LOG_2PI + log_var + (x - mean) ** 2 / log_var.exp())

def my_elbo(x, mean, log_var, eps):
    z, zero = mean + (0.5 * log_var).exp() * eps, torch.zeros(())
    log_joint = normal(x, z, torch.tensor(0.25).log()) + normal(z, zero, zero)
    return log_joint - normal(z, mean, log_var)                                # Eq. (4.4)

check("13.10", my_elbo)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.11 (★, 5 minutes)
# PyTorch's losses take the *mean* over everything unless told otherwise. Divided by $D$, the distortion weighs $1/D$ of what it should beside a rate that is summed: by chapter 5's first failure the same as $\beta=D$, 64 for our digits, 784 for images of $28\times28$. A single image shows nothing, since there is nothing to compare with; two
# do. Sum over pixels, and average over images only at the end.

# %%
def my_distortion(x, logits):
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)

check("13.11", my_distortion)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.12 (★★, 10 minutes)
# Over black and white the formula sums to one. Over 17 grey levels it sums to 8.5 at $\rho=\frac12$ and to less towards the ends, and what a formula sums to acts as a bonus: it pays the decoder for staying near the middle, so that reconstructions are washed out. And its "log-likelihood" is too large by up to
# $\log8.5$ nats a pixel, 137 nats an image, with which no honest model can be compared. Dividing by the sum over the levels, pixel by pixel, makes it a distribution. In the logarithms that is a logsumexp.

# %%
def my_grey_log_prob(x, logits):
    levels = torch.arange(17) / 16
    log_total = torch.logsumexp(logits[:, :, None] * levels.to(logits), 2)
    return (x * logits - log_total).sum(1)

check("13.12", my_grey_log_prob)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.13 (★, 5 minutes)
# The second line was copied and one name not changed: `log_var` is computed from `w_mean`, and `w_var` is connected to nothing. The model trains, because the mean is free to be useful, and the bias can still choose one common width. But the log-variance is the mean up to a constant: codes far to the one side are vague, and on the other
# side sharp, whether the images deserve it or not. A gradient that is zero for a whole matrix is the sign; an optimizer passes over it in silence.

# %%
def my_heads(h, w_mean, b_mean, w_var, b_var):
    return h @ w_mean + b_mean, h @ w_var + b_var

check("13.13", my_heads)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The VAE with a mixture prior
#
# ### Exercise 13.14 (★★, 10 minutes)
# The first program has $\log\frac1K$ written as $\log0.1$, right for ten components, one for each digit, and for no other number. Who then compares values of $K$ compares wrong numbers. The second is $\mathrm{KL}(U\Vert q)=\frac1K\sum_k\log\frac{1/K}{q_k}$, the other way round. It is zero where $q$ is uniform, as it should be, and
# there it is usually tested, at the start of a training. But it charges infinity for being sure, and so keeps a clustering from ever deciding. The divergence that the bound asks for averages over $q$: $\sum_kq_k\log\frac{q_k}{1/K}$, Eq. (2.5), between 0 and $\log K$.

# %%
def my_price(q):
    return math.log(q.shape[1]) + torch.xlogy(q, q).sum(1)                     # Eq. (2.5)

check("13.14", my_price)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.15 (★, 5 minutes)
# Each doubling lowers the loss by $\log2$ for every image, and it ends nowhere: the "prior" integrates to more and more, and the rate is no KL divergence any more. It becomes obvious only when the loss is negative, and on images with a distortion of a hundred nats one may wait for long. Parameters that cannot leave the
# simplex end it: a softmax, in its logarithmic form, so that a weight of $e^{-2000}$ keeps its logarithm.

# %%
def my_log_weights(raw):
    return raw - torch.logsumexp(raw, 0)

check("13.15", my_log_weights)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.16 (★★, 10 minutes)
# This is the innocent one. A KL divergence is an *average* over $z$ of $\log q(z)-\log p(z)$, and what cannot be negative is the average: wherever the prior is denser than $q$ the term is below zero, and a single draw that falls there says so. That is Eq. (7.11) with one draw, unbiased as it stands (chapter 7 met the same minus signs
# in its third failure). Clipped at zero, or made positive in another way, the terms would have the wrong average, and the training would follow the wrong gradient. What the test knew beforehand was known of the average only. A test that asks the right thing compares the mean over many draws with a rate that is known, and says its error.

# %%
def my_rate(mean, log_var, eps, log_prior):
    z = mean + (0.5 * log_var).exp() * eps                                     # Eq. (5.7)
    log_q = -0.5 * (LOG_2PI + log_var + (z - mean) ** 2 / log_var.exp()).sum(-1)
    return log_q - log_prior(z)                                                # Eq. (7.11)

check("13.16", my_rate)

# %% [markdown] slideshow={"slide_type": "-"}
# The right test. One encoder, the prior of the case, many draws: on average the terms are the integral, negative or not.

# %%
def two_hills(z):
    square = (z.unsqueeze(1) - torch.tensor([[-1.0, 0.0], [1.0, 0.0]])).square().sum(-1)
    return (-0.5 * square).logsumexp(1) - math.log(2) - LOG_2PI

line = torch.arange(-9, 9, 0.05)
grid = torch.cartesian_prod(line, line)
log_q = -0.5 * grid.square().sum(1) - LOG_2PI                              # the encoder: N(0, I)
exact = float((log_q.exp() * (log_q - two_hills(grid))).sum() * 0.05**2)
torch.manual_seed(0)
zeros, eps = torch.zeros(100_000, 2), torch.randn(100_000, 2)
terms = my_rate(zeros, zeros, eps, two_hills)
error = float(terms.std() / math.sqrt(len(terms)))
off = abs(float(terms.mean()) - exact)
print("negative terms, more than a fifth:", bool((terms < 0).double().mean() > 0.2))
print("their mean is the integral, within four errors:", off < 4 * error)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.17 (★★, 15 minutes)
# There is nothing to learn. The data are independent standard normal numbers, so the best model is the standard normal, and no code can say anything about one column that helps with another. What the program learnt is to ignore its code, or to memorize a little, which costs on new data. Its prior is one Gaussian: nothing in the program is a
# mixture. And what it calls new data are the decoder's *means*, with a small part of the data's spread: without the noise of the likelihood these are no draws. A mixture, trained, new data: each of the three words would have fallen by one question. For a comparison, take differences image by image: what
# makes an image dear for both models cancels, and the standard error, Eq. (3.5), is the one of the differences, Eq. (3.6).

# %%
def my_gain(model, baseline):
    difference = baseline - model
    return difference.mean(), difference.std() / math.sqrt(len(difference))    # Eq. (3.5)

check("13.17", my_gain)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Evaluation and experiments
#
# ### Exercise 13.18 (★★, 10 minutes)
# A majority vote can only grow when clusters are split, and with a cluster for each point it is perfect. It is a fine number under its own name, purity, Eq. (9.19), and between clusterings of the same $K$. Called accuracy, it compares a method with 100 clusters to one with 10. The matching of Eq. (9.1) is one to one, so that clusters in excess of the classes
# count as wrong, and random ones get 0.14 with ten clusters (the matching has seen the labels, too), and 0.04 with a hundred. (For more clusters than classes, scores such as the adjusted Rand index are made.)

# %%
def my_accuracy(y, clusters):
    table = torch.zeros(int(clusters.max()) + 1, int(y.max()) + 1)
    for c, label in zip(clusters, y):
        table[c, label] += 1
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    return table[rows, columns].sum() / len(y)

check("13.18", my_accuracy)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.19 (★, 5 minutes)
# The sentence has it backwards. The rate is at least the information that the code carries about the image, Eq. (6.3). A model can only learn its training images by heart if their codes say which of them is meant, and that costs rate. At the smallest rates the code is silent (posterior collapse), all images are drawn alike, and new ones cost the same as
# old ones: that is *under*fitting. So the KL is not to be minimized, and not to be feared when it is small for this reason: it is one half of a sum. What measures overfitting is the gap between new and old images in the *whole* cost.

# %%
def my_gap(train_distortion, train_rate, test_distortion, test_rate):
    return (test_distortion + test_rate).mean() - (train_distortion + train_rate).mean()

check("13.19", my_gap)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.20 (★, 5 minutes)
# The largest of fifty noisy numbers is large because it is the largest. With 100 test images the standard deviation of a coin's accuracy is 0.05, and the best of fifty lies some two of them above one half. The test labels have chosen the run, so they can no longer judge it. Choose by something that has not seen them (the bound on
# the training images), and look at the test once: the accuracy of a run that was chosen blindly is an unbiased number. It is the same bug to stop unless the first epoch's accuracy is high, or to tune anything on what one reports.

# %%
def my_report(bounds, accuracies):
    return accuracies[bounds.argmax()]

check("13.20", my_report)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Failure lab: a test that cannot fail
#
# ### Exercise 13.21 (★★★, 25 minutes)
# Boxes of side 1, because the pairs differ on that scale: boxes as wide as a component would not see that it is too narrow. A share $s$ of $n$ draws has the standard deviation $\sqrt{s(1-s)/n}$, at most 0.004 for $n=20{,}000$, and among 576 boxes some are off by three or four of those. So a difference of 0.02 is never chance, and all the wrong
# pairs differ by more. (With boxes ten times smaller, each would hold a hundredth of the mass, and nothing would stand out from the noise.)

# %%
def belong_together(sample, log_prob):
    z = sample(20_000, torch.Generator().manual_seed(0))
    fine = torch.arange(-12, 12, 0.1, dtype=z.dtype) + 0.05
    grid = torch.cartesian_prod(fine, fine)
    mass = (log_prob(grid).exp() * 0.1**2).reshape(24, 10, 24, 10).sum((1, 3))  # boxes of side 1
    inside = z[(z.abs() < 12).all(1)]
    drawn = torch.histogramdd(inside, [24, 24], range=[-12.0, 12.0, -12.0, 12.0]).hist / len(z)
    return bool(abs(mass.sum() - 1) < 0.01 and (mass - drawn).abs().max() < 0.02)

check("13.21", belong_together)

# %% [markdown] slideshow={"slide_type": "-"}
# And it can fail: it has, on five of the eight pairs.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Four more, without a snippet
#
# - **$-$ELBO called a negative log-likelihood.** Know the answer (8): on a model whose likelihood is known the two differ by the gap of Eq. (4.5), and by a different one for each encoder. So a table of bounds may rank models wrongly; chapter 4's failure lab has two that it does. Report it as what it is, a bound.
# - **Trained and scored on the same images.** Shuffle (10), the images this time: score on some that were held out, and see whether the number stays. For clustering it often does, for a likelihood it does not (case 19), and before one has looked nobody knows.
# - **A random log-variance head.** Go to the limit (3), or draw and compare (2): the codes' noise should be small beside the spread of the codes, and a look at $\sigma_\phi(x)$ shows that it is about one everywhere. The first steps then train the decoder on noise, and what the autoencoder had learnt is gone. Set the head's weights to zero and its bias to $-3$.
# - **Started afresh until the first epoch is good.** Shuffle (10): with labels that mean nothing, this too finds runs that are better than chance. It is case 20 with another name, and it trains on the labels by selection.
