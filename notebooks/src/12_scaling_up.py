# %% [markdown] slideshow={"slide_type": "slide"}
# # 12 Scaling up
#
# *From 1,800 digits to 70,000 images, one GPU, many: what changes, and what does not?*
#
# Here is one epoch of training, five times. The network is the same, the loss is the same, the 60,000 images are the
# same, and so is the graphics processor (GPU). Every program computes the same gradients, one of them with fewer
# digits. Otherwise only the way in which the work is handed to the GPU differs.

# %% slideshow={"slide_type": "subslide"}
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

from gmvae_lib import downloads, explorers, figures
from gmvae_lib.data import load
from gmvae_lib.pretrained.speed import LOOPS, load_speed

torch.set_num_threads(1)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The times were measured on a data-center GPU when this chapter was written (the first rows of
# `gmvae_lib/pretrained/speed.json`; `python -m gmvae_lib.pretrained.speed` measures yours):

# %%
speed = load_speed()
machines = list(dict.fromkeys(row["machine"] for row in speed))
gpu = [row for row in speed if row["machine"] == next(name for name in machines if "GPU" in name)]
epoch = {row["loop"]: row["seconds"] for row in gpu if "seconds" in row}

# %% [markdown] slideshow={"slide_type": "fragment"}
# Seconds for an epoch:

# %%
shown = [LOOPS[0], LOOPS[1], LOOPS[2], LOOPS[4], LOOPS[5]]
figures.bars(
    {name: epoch[name] for name in shown if name in epoch},
    "One epoch, one network, one GPU", "seconds",
    alt="Horizontal bars, seconds for an epoch. Two DataLoader loops take longest; with data on "
        "the device it is less, half precision changes little; the library's fit takes a small "
        "fraction of all the others.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The last bar is several times shorter than the one before it, and nothing about the mathematics has been touched. So
# what was the GPU doing all that time?

# %%
print("fit is more than 5 times as fast as the first:", epoch[LOOPS[0]] > 5 * epoch["fit"])

# %% [markdown] slideshow={"slide_type": "fragment"}
# It waited. This chapter makes things larger and faster: images with twelve times as many pixels, forty times as many
# of them, GPUs, several processes. At each step it asks the two questions of its title. What changes is where the time
# goes, and what the rounding does. What must not change is the model, and that we can test.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you will be able to do
#
# - load MNIST with a checksum, and work where there is no network;
# - say what the loss of grey pixels is a bound of, and how low it can possibly get;
# - profile a training step before changing it, and predict from two numbers which cure can help;
# - keep data on the device, record a step and replay it, and know what compiling and half precision are worth;
# - read a table of clusterings of MNIST, and choose among runs without labels;
# - fit a mixture to data that no memory holds;
# - split a training over processes so that the result is the one of a single process, and prove it.
#
# **You need** the variational autoencoder (VAE) and its evidence lower bound (ELBO) from [chapter
# 5](05_variational_autoencoder.ipynb), expectation–maximization (EM) by sufficient statistics from [chapter
# 2](02_expectation_maximization.ipynb), and from [chapter 9](09_clustering_with_the_gmvae.ipynb) the recipe for
# clusters with the GMVAE, the VAE whose prior is a Gaussian mixture. You do not need a GPU. **Time:** about 80 minutes
# to read and run, another 55 for the exercises.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The images, and whether they are here
#
# MNIST, handwriting that the US National Institute of Standards and Technology (NIST) collected, modified (M), has
# 60,000 training and 10,000 test images of 28 × 28 pixels, each a grey level from 0 to 255. The digits of the chapters
# before came with scikit-learn; MNIST does not. `load("mnist")` looks into the folder that the environment variable
# `GMVAE_DATA` names, or into your cache folder. What is not there it fetches, from the first of several mirrors that
# sends the right bytes: each file's SHA-256, a fingerprint of 256 bits, must be the known one. A file arrives whole or
# not at all.
#
# (`load("fashion-mnist")` fetches pictures of clothes in the same way; they come in the same format.) A chapter should
# not fetch anything unasked. So we say:

# %%
FETCH = False  # True fetches what is missing, once
print(f"Four files, {downloads.size('mnist') / 1e6:.1f} MB.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# All that follows runs with MNIST and without it. Where it is missing, we take the digits that you know, enlarged to
# 20 × 20 pixels in the middle of 28 × 28, which is how MNIST's digits lie in their frames. Real handwriting, but not
# the handwriting that the shipped model was trained on. Pictures then show those, and look a little worse.

# %%
def enlarged(x):  # (N, 64) of 0..16 -> (N, 784) of 0..255
    large = F.interpolate(x.reshape(-1, 1, 8, 8), size=(20, 20), mode="bicubic")
    sharp = (3 * (large / 16 - 0.5) + 0.5).clamp(0, 1)
    return (255 * F.pad(sharp, (4, 4, 4, 4))).round().flatten(1)

if FETCH or downloads.at_hand("mnist"):
    data = load("mnist", "test")
    images, labels, name = data.x, data.y, "MNIST's test images"
else:
    data = load("digits", "all")
    images, labels, name = enlarged(data.x), data.y, "scikit-learn's digits, enlarged"

# %% [markdown] slideshow={"slide_type": "fragment"}
# Either way these are grey images of 784 pixels, and the title of the picture says which:

# %%
assert images.shape[1] == 784 and images.min() == 0 and images.max() == 255
figures.images(
    images[:40], (28, 28), f"Forty of {name}", columns=20,
    alt="Forty handwritten digits of 28 by 28 grey pixels, in two rows of twenty.")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Grey pixels as bits to be drawn
#
# The 8 × 8 digits were counts of 16, the very values that a binomial has. What is a grey level of 255? Chapter 5
# showed a mistake: to put grey pixels into the Bernoulli's formula and to call the result a log-likelihood of the grey
# pixels. It is none, since over all grey values it does not add up to one.
#
# There is another way to read a grey pixel. Let $g_i\in[0,1]$ be the grey level of pixel $i$ divided by 255, and let it
# be the *probability* that this pixel is ink in an image of ink and paper, $b\in\{0,1\}^D$, that is drawn when we look.
# The data are then the drawn images. Their log-probability under the decoder, with $\rho_i$ for the decoder's
# probability of ink, is on average over the draws
#
# $$\mathbb E_{b\mid g}\log p_\theta(b\mid z)=\sum_{b\in\{0,1\}^D}\Big[\prod_{j}g_j^{b_j}(1-g_j)^{1-b_j}\Big]\sum_{i}\big[b_i\log\rho_i+(1-b_i)\log(1-\rho_i)\big]. \tag{12.1}$$
#
# A sum over $2^{784}$ images. But the inner sum is linear in each $b_i$, and the mean of $b_i$ is $g_i$. With logits
# $a_i$, $\rho_i=1/(1+e^{-a_i})$:
#
# $$\mathbb E_{b\mid g}\log p_\theta(b\mid z)=\sum_i\big[g_i\log\rho_i+(1-g_i)\log(1-\rho_i)\big]=\sum_i\big[g_i\,a_i-\log(1+e^{a_i})\big]. \tag{12.2}$$

# %% [markdown] slideshow={"slide_type": "fragment"}
# On an image of five pixels the sum over all 32 drawn images can be written out:

# %%
grey = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
logits = torch.tensor([-3.0, 0.4, 1.2, 2.0, -0.7], dtype=torch.float64)
bits = torch.cartesian_prod(*5 * [torch.tensor([0.0, 1.0], dtype=torch.float64)])   # all 32
chance = torch.where(bits == 1, grey, 1 - grey).prod(1)
log_prob = torch.where(bits == 1, F.logsigmoid(logits), F.logsigmoid(-logits)).sum(1)
by_sum = chance @ log_prob                                                           # Eq. (12.1)
in_one = (grey * logits - F.softplus(logits)).sum()                                  # Eq. (12.2)
assert torch.isclose(by_sum, in_one)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The right side is the very formula of the mistake. The numbers are the same; the *claim* is another. We do not say
# what the grey image costs. We say what the drawn images cost, on average. The library's `DynamicBernoulli` computes
# it, with pixels of 0..255:

# %%
from gmvae_lib.likelihood import DynamicBernoulli

assert torch.isclose(DynamicBernoulli().log_prob(255 * grey, logits), in_one)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What the training's bound is a bound of
#
# The encoder sees the grey image: $q_\phi(z\mid g)$. For every single drawn image $b$ the ELBO's inequality, Eq. (5.2),
# holds with *any* distribution of $z$, so also with one that was chosen before $b$ was drawn. Averaged over the draws,
#
# $$\mathbb E_{b\mid g}\log p_\theta(b)\ \ge\ \mathbb E_{q_\phi(z\mid g)}\big[\mathbb E_{b\mid g}\log p_\theta(b\mid z)\big]-\mathrm{KL}\big(q_\phi(z\mid g)\,\Vert\,p(z)\big), \tag{12.3}$$
#
# and what is lost is the average of the divergences that each draw's bound leaves,
#
# $$\text{left}-\text{right}=\mathbb E_{b\mid g}\,\mathrm{KL}\big(q_\phi(z\mid g)\,\Vert\,p_\theta(z\mid b)\big). \tag{12.4}$$
#
# It is a proper bound, of the mean log-probability of drawn bits. It is a looser one than an encoder that sees $b$
# could have. In return no draw is made in training, and the gradients are free of its noise.
#
# A latent of three states and the five pixels from above, so that everything can be enumerated:

# %%
dice = torch.Generator().manual_seed(0)
prior, q = torch.randn(2, 3, generator=dice, dtype=torch.float64).softmax(1)         # of z; q(z|g)
a = torch.randn(3, 5, generator=dice, dtype=torch.float64)                           # logits
given = bits @ a.T - F.softplus(a).sum(1)                              # log p(b|z), (32, 3)
evidence = (given + prior.log()).logsumexp(1)                                        # log p(b)
posterior = (given + prior.log() - evidence[:, None]).exp()

# %% [markdown] slideshow={"slide_type": "fragment"}
# Both sides, and the difference:

# %%
left = chance @ evidence
right = q @ (a @ grey - F.softplus(a).sum(1)) - (q * (q / prior).log()).sum()
lost = chance @ (q * (q / posterior).log()).sum(1)
assert left > right                                                                  # Eq. (12.3)
assert torch.isclose(left - right, lost)                                             # Eq. (12.4)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A floor under the loss
#
# However good a model is, it cannot foresee coins. By Gibbs' inequality, Eq. (2.5), the mean of $\log p_\theta(b)$ is
# at most the mean of the logarithm of the true probability of $b$ given $g$, and for independent coins that is minus
# the sum of their entropies $h$:
#
# $$-\,\mathbb E_{b\mid g}\log p_\theta(b)\ \ge\ \sum_ih(g_i),\qquad h(g)=-g\log g-(1-g)\log(1-g). \tag{12.5}$$

# %%
def coin_entropy(g):
    return -(torch.xlogy(g, g) + torch.xlogy(1 - g, 1 - g))                          # Eq. (12.5)

assert -left > coin_entropy(grey).sum()
floor = coin_entropy(images / 255).sum(1)
if name.startswith("MNIST"):
    assert 45 < floor.mean() < 46
figures.bars(
    {"mean": floor.mean(), "lowest tenth, up to": floor.quantile(0.1),
     "highest tenth, from": floor.quantile(0.9)},
    f"Nats that nobody can save: {name}", "nats an image", unit="nats", digits=0,
    alt="Three bars: the mean over the images of the entropy of their drawn bits, and the "
        "limits of the lowest and highest tenth. The mean is some dozens of nats.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# For MNIST's test images the mean is 46 nats. Read the losses of this chapter with this in mind: of some 105 nats more
# than two fifths are the coins'. No model gets down to the floor, either: it is the cost for one who knows $g$, and one
# $p_\theta$ has to serve all images. A likelihood, in contrast, is reported on bits that were drawn *once* and are the
# same for all models ("binarized once"); chapter 11's Failure 5 says why one must say so.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Profile first
#
# Before making anything faster, look where the time goes. Here is a training loop as one would write it first. Its
# images come from a `DataLoader`, are copied to the device, and the loss is read in every step:

# %%
from torch.utils.data import DataLoader, TensorDataset

from gmvae_lib.vae import VAE


def fresh(hidden=(500, 500)):
    torch.manual_seed(0)
    return VAE.build(784, 10, hidden, DynamicBernoulli())

# %% [markdown] slideshow={"slide_type": "-"}
# The loop itself:

# %%
def plain(model, x, order, seed=0):
    noise, total = torch.Generator().manual_seed(seed), 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for batch, in DataLoader(TensorDataset(x), 256, sampler=order.tolist()):
        batch = batch.to(model.device)
        loss = -model.elbo(batch, generator=noise, validate=False).value.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / math.ceil(len(order) / 256)

# %% [markdown] slideshow={"slide_type": "fragment"}
# (The order of the images is given from outside, so that other loops can take the same.) PyTorch's profiler notes each
# operation, with its time. The library's `record` runs it, keeps what it found as plain numbers, and mutes what it
# writes on the way. A thousand images are enough:

# %%
x = images[:1024]
order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))

# %% [markdown] slideshow={"slide_type": "-"}
# Four steps of it:

# %%
from gmvae_lib.profiling import record, totals

found = record(lambda: plain(fresh(), x, order))
by_name = totals(found)
print("More than 500 operations in four steps:", len(found) > 500)

# %% [markdown] slideshow={"slide_type": "fragment"}
# On this machine's processor the longest are:

# %%
total = sum(seconds for seconds, _ in by_name.values())
figures.bars(
    {f"{name.split('#')[0]} ({calls} calls)": 100 * seconds / total
     for name, (seconds, calls) in list(by_name.items())[:8]},
    "Four steps on a processor", "share of the time (%)", unit="%", digits=0,
    alt="Bars of the eight longest operations of four training steps on this machine's "
        "processor. Usually products of matrices, mm and addmm, take the largest share.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# On a processor it is mostly the products of matrices: little to gain, but by computing less, or with fewer bits. That
# is what a processor's profile looks like for networks of this size. And on the GPU? The same network, a hundred steps
# with all data on the device, has there:

# %%
profile, = [row for row in gpu if "gpu" in row]
figures.bars(
    {"the processor was busy asking": 1e3 * profile["cpu"],
     "the GPU was busy computing": 1e3 * profile["gpu"]},
    "A hundred steps, as the profiler saw them", "milliseconds", unit="ms", digits=0,
    alt="Two bars. In a hundred steps the processor is busy several times as long as the GPU.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# That is the answer to the question at the top of the page, in two numbers:

# %%
print("The GPU is idle more than half of the time:", profile["gpu"] < 0.5 * profile["cpu"])

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Two lanes
#
# A GPU computes what a processor asks for. Asking is cheap, and goes ahead while the GPU works: that is why a line such
# as `loss.backward()` returns before anything is computed. So there are two lanes. On the first, operation $i$ has been
# asked for at time $s_i$, with $0\le s_1\le s_2\le\dots$ On the second, the GPU takes the operations in their order. It begins each as soon as it has
# been asked for *and* the one before it is done; it needs $w_i$ for it, and is done at
#
# $$e_i=\max(s_i,\,e_{i-1})+w_i,\qquad e_0=0. \tag{12.6}$$
#
# Put the equation into itself: $e_n$ is the longest of all ways to wait for some operation $j$ to be asked for, and
# then to compute without a pause,
#
# $$e_n=\max_{1\le j\le n}\Big[s_j+\sum_{i=j}^nw_i\Big]. \tag{12.7}$$
#
# (By induction. For $n=1$ both say $s_1+w_1$. And if it holds for $e_{n-1}$, then $e_{n-1}+w_n$ is the maximum of the
# terms $j<n$, and $s_n+w_n$ is the term $j=n$.)

# %%
def finish(asked, work):
    done, end = [], 0.0
    for s, w in zip(asked, work):
        end = max(s, end) + w                                                        # Eq. (12.6)
        done.append(end)
    return done

asked, work = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.3, 0.3, 2.5, 0.3, 0.3, 0.3]
done = finish(asked, work)
assert math.isclose(done[-1], max(asked[j] + sum(work[j:]) for j in range(6)))       # Eq. (12.7)

# %% [markdown] slideshow={"slide_type": "fragment"}
# As a picture: one long operation in the middle, behind which the others queue.

# %%
figures.lanes(
    {"processor asks": [(i, 1.0, "asks") for i in range(6)],
     "GPU computes": [(end - w, w, "computes") for end, w in zip(done, work)]},
    "Six operations in two lanes", unit="units", scale=1,
    alt="Two lanes in time. Above, six requests follow each other without a gap. Below, the "
        "GPU computes six operations: short ones with gaps between them, a long one, and "
        "three short ones right behind it.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# If all operations are alike, each asked for in time $\tau$ and computed in $w$, then $s_i=i\tau$. The bracket of Eq.
# (12.7) is linear in $j$, hence largest at one of the ends:
#
# $$e_n=\max\big(n\tau+w,\ \tau+nw\big),\qquad\frac{nw}{e_n}\ \to\ \min\Big(1,\frac w\tau\Big)\quad\text{for many operations}. \tag{12.8}$$
#
# The second is the share of the time during which the GPU computes.

# %%
for tau, w in ((20.0, 2.0), (20.0, 19.0), (20.0, 60.0)):
    n = 50
    end = finish([tau * (i + 1) for i in range(n)], n * [w])[-1]
    assert math.isclose(end, max(n * tau + w, tau + n * w))                          # Eq. (12.8)

# %% [markdown] slideshow={"slide_type": "fragment"}
# This one line predicts what helps.
#
# | cure | what it makes smaller | helps where |
# |---|---|---|
# | data on the device | the time to ask for a step's images | $w<\tau$ |
# | a fused optimizer, compiling | the number $n$ of operations, on both sides | everywhere |
# | recording a step and replaying it | $n\tau$, to the time of one request | $w<\tau$ |
# | half precision | $w$ | $w>\tau$ |
# | larger batches | the number of steps, not of operations in a step | $w<\tau$, but see Failure 1 |
#
# The two bars of the GPU's profile are the $n\tau$ and the $nw$ of a hundred steps. So their ratio is $w/\tau$:

# %%
assert 0.1 < profile["gpu"] / profile["cpu"] < 0.2

# %% [markdown] slideshow={"slide_type": "fragment"}
# There half precision gains nothing, and recording gains nearly all. On a processor both lanes are one, times add up,
# and the table looks different. `profiling.finish_times` is `finish` without the loop:

# %%
import numpy as np

from gmvae_lib.profiling import finish_times

assert np.allclose(finish_times(asked, work), done)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The widget: where is the bottleneck?
#
# Below are two steps of our network on a GPU. It is a model: Eq. (12.6) for the 78 operations of a step. Three of its
# constants were set by times from the top of this page, the crosses at the right; the fourth is assumed, 2 µs for
# the smallest operation.

# %%
explorers.TimelineExplorer(gpu)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Things to try, by keyboard or mouse:
#
# - Move the batch up. When does the GPU's lane fill, and what does the curve do from there on?
# - Back at 256, ask by *one recording*. Then read the loss in every step. How much does that cost, in either case?
# - Let the images come through a DataLoader. Is there any batch size at which the GPU is busy?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The cures, one by one
#
# Each is a change of program that must not change the model. So each comes with a test.
#
# ### Data that stay on the device
#
# As floats, MNIST's training images take $60{,}000\cdot784\cdot4$ bytes, 188 MB. Every GPU has room for that. So copy
# them once, shuffle *there*, and take batches by index. The optimizer is `fused`: one operation for all of a network's
# weights. The loss is summed on the device and read once, at the end:

# %%
def resident(model, x, order, seed=0, dtype=None):
    noise = torch.Generator(model.device).manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    x, total = x.to(model.device), torch.zeros((), device=model.device)
    for index in order.to(model.device).split(256):
        with torch.autocast(model.device.type, dtype, enabled=dtype is not None):
            batch = x.index_select(0, index)
            loss = -model.elbo(batch, generator=noise, validate=False).value.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    return float(total) / math.ceil(len(order) / 256)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Same start, same order, same noise: the same loss, and the same weights, up to rounding.

# %%
one, two = fresh(), fresh()
losses = plain(one, x, order), resident(two, x, order)
assert math.isclose(*losses, rel_tol=1e-5)
assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(one.parameters(), two.parameters()))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### One recording
#
# The operations of a step are the same in every step; only the numbers in them differ. CUDA, NVIDIA's interface to its
# GPUs, can record the requests of a step as a *graph*, and be asked to replay the whole. In plain code:
#
# ```python
# batch = x[:256].clone()                          # where each step finds its images
# graph = torch.cuda.CUDAGraph()
# with torch.cuda.graph(graph):                    # after some steps that ran as they are
#     loss = step(batch)                           # asked for, noted, not computed
#
# for index in order.split(256):
#     batch.copy_(x.index_select(0, index))        # other numbers in the same place
#     graph.replay()                               # one request
# ```
#
# There are rules. A step must not look at values (`.item()`, `if loss > …`), since there are none while it is recorded.
# It must work in place, on the same memory each time, so shapes are fixed, and the last, shorter batch of an epoch runs
# as it is. And its random numbers must come from a generator that the graph knows. `gmvae_lib/replay.py` sees to these,
# and `fit` uses it on CUDA by itself. Then nothing is left to do but to compute: a step takes the GPU's own time.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What is worth compiling
#
# `torch.compile` reads a function, fuses neighbouring operations into new ones, and translates them for the machine. It
# needs a compiler, and its first call takes from seconds to a minute. Our step is mostly products of matrices, which
# come from libraries that no compiler beats. What it can fuse is the small change around them. It is worth it where
# profiles show many small operations *and* the training is long. It is not for a notebook's thirty seconds.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Half precision
#
# A bfloat16 has the range of a float32 but only 8 significant bits in the place of 24. A number format with $t$ bits
# rounds $x$ to $\mathrm{fl}(x)$, the nearest number that it has. In $[2^m,2^{m+1}]$ these lie $2^{m+1-t}$ apart, so
# that the error is at most half of it, $2^{m-t}$, and within the format's range
#
# $$\frac{|\mathrm{fl}(x)-x|}{|x|}\ \le\ 2^{-t}\qquad(t=8\text{ for bfloat16, }11\text{ for float16, }24\text{ for float32}). \tag{12.9}$$
#
# Networks bear it: their weights stay in float32, products of bfloat16 are added up in float32, and the noise of the
# batches is larger. Sums of log-probabilities do not bear it. Between 64 and 128 nats bfloat16's numbers lie half a nat
# apart, so the error is up to a quarter of a nat, which makes a factor of 1.3 in the probability; beyond 128 nats it is
# twice as much:

# %%
values = -100 - 30 * torch.rand(10_000, generator=torch.Generator().manual_seed(0))
error = (values.bfloat16().float() - values).abs()
assert (error <= 2**-8 * values.abs()).all()                                         # Eq. (12.9)
print(f"Largest error of log p, in bfloat16, above 0.2 nats: {bool(error.max() > 0.2)}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# So `fit(precision="bfloat16")` computes the *networks* by `torch.autocast`, and leaves it for distortions and rates.
# Then the loss is the same to a part in a hundred:

# %%
half = resident(fresh(), x, order, dtype=torch.bfloat16)
assert math.isclose(half, losses[0], rel_tol=0.01)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Whether it is faster depends on the machine: `precision="auto"` measures both on the first batch, and takes bfloat16
# where it is faster by a fifth.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What each is worth
#
# The measured times, and how many times as fast as the plain loop on the same machine. (The processor's are in
# processor time of one thread.)

# %%
times = {(row["loop"], row["machine"]): row["seconds"] for row in speed if "seconds" in row}

def cell(loop, machine):
    if (loop, machine) not in times:
        return "–"
    gain = times[LOOPS[0], machine] / times[loop, machine]
    return f"{times[loop, machine]:.2g} s  ({gain:.1f}×)"

figures.table(
    [machine.replace(" (", "\n(").replace(", ", ",\n") for machine in machines],
    {loop: [cell(loop, machine) for machine in machines] for loop in LOOPS},
    "One epoch of 60,000 images, 784-500-500-10, batch 256", size=(11.5, 4.8),
    alt="A table of ways to write the training loop against machines: seconds for an epoch, "
        "and the gain over the plain loop. On the GPU the recorded step of fit gains most; on "
        "the processor half precision does.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Read it with Eq. (12.8). On the GPU $\tau$ counts, so half precision gains next to nothing, compiling a little, and
# recording nearly all. On the processor there is only $w$; this one multiplies bfloat16 in hardware, and nothing else
# makes much of a difference. Eight workers take over the fetching of single images, but have to be started and to pass
# on their batches, which here costs as much. And how fast could a recorded step be? As fast as the GPU's bar in the
# profile, $nw$, which had been measured *before* the cure:

# %%
predicted = 235 / 100 * profile["gpu"]          # an epoch is 235 steps, the bar a hundred
print("fit's epoch is within a third of it:", abs(epoch["fit"] / predicted - 1) < 1 / 3)

# %% [markdown] slideshow={"slide_type": "-"}
# (It even took a fifth less: the profiled loop is not operation for operation that of `fit`. And in a recorded step it
# is $w$ that counts, so half precision should help there. It gained 4 %: at this size hardly more than nothing.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## MNIST, without labels
#
# Chapter 9's recipe, on MNIST: a denoising autoencoder, a mixture on groups of views, chosen by agreement, and from
# there the GMVAE, the VAE with that mixture as its prior. There are two sets of settings, a *short* one for processors
# and a *long* one for GPUs (`gmvae_lib/pretrained/mnist.py` has both, and makes all numbers of this section). Labels
# take no part in it, nor do the 10,000 test images, on which all scores are taken.

# %%
from gmvae_lib.pretrained.mnist import RECIPES, chosen, load_mnist_gmvae, load_mnist_results

results = load_mnist_results()
long = results["long"]

def over_seeds(rows, method):  # accuracy, NMI, ARI as mean ± sd
    found = torch.tensor([row["scores"][method] for row in rows if method in row["scores"]])
    if len(found) == 0:
        return None
    spread = found.std(0) if len(found) > 1 else torch.zeros(3)
    return [f"{m:.3f} ± {s:.3f}" for m, s in zip(found.mean(0), spread)]

# %% [markdown] slideshow={"slide_type": "fragment"}
# Accuracy is one to one, Eq. (9.1); NMI and ARI are normalized mutual information and the adjusted Rand index. (PCA is
# principal component analysis, to as many dimensions as the latents have.)

# %%
table = {}
for method in ("k-means on pixels", "PCA + mixture", "mixture on latents",
               "on groups, by likelihood", "on groups, by agreement"):
    rows = next(rows for rows in (long, results["short"]) if over_seeds(rows, method))
    table[method] = over_seeds(rows, method)
table |= {f"GMVAE, {recipe}": over_seeds(results[recipe], "GMVAE") for recipe in RECIPES}
figures.table(
    ["accuracy", "NMI", "ARI"], table,
    "MNIST, ten clusters, 10,000 held-out images (mean ± sd over seeds)",
    size=(11, 3.6),
    alt="A table of seven methods and three scores. k-means on pixels is near one half, a "
        "mixture on principal components above, the mixture on latents near nine tenths, on "
        "groups above that, and the GMVAE highest in all three.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Each line adds one idea of this course to the line above it: principal components and a mixture; a network that has
# learnt to repair; views that share a component; prior and encoder trained together. Only by which number the start is
# chosen makes no difference here: the likeliest is as good as the one that agrees most. On chapter 9's digits it
# mattered much.

# %%
accuracy = {recipe: [row["scores"]["GMVAE"][0] for row in rows]
            for recipe, rows in results.items()}
print("Every seed of both recipes above 0.96:", min(map(min, accuracy.values())) > 0.96)
assert all(row["scores"]["GMVAE"][0] > row["scores"]["on groups, by agreement"][0] for row in long)

# %% [markdown] slideshow={"slide_type": "fragment"}
# A run of the long recipe, from random weights to the trained GMVAE, takes less than a minute on this chapter's GPU, and
# minutes if it has to share that with other trainings, as one of the seeds had to. On one core of a processor it took
# 15 to 21 minutes, in bfloat16; the short recipe has some three tenths of that to do.

# %%
fastest = min(sum(row["seconds"].values()) for row in long)
print("The fastest run of the long recipe took less than a minute:", fastest < 60)

# %% [markdown] slideshow={"slide_type": "fragment"}
# For comparison: the best run that was published for the first model of this kind (VaDE, variational deep embedding,
# chapter 10) reached 0.945, trained and scored on all 70,000 images. It saw no views: that small moves do not matter is
# knowledge that our recipe was given.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Which of the runs?
#
# Ten seeds of the long recipe have been trained. Which model would you ship, if you had no labels? Three numbers are at
# hand. The *loss* is what the training minimized: over moved views, with $\beta$ above 1, averaged over the last
# epochs. The *bound* is chapter 11's: the ELBO of unmoved training images, at $\beta=1$. The *agreement* is Eq. (9.9),
# by which chapter 9 chooses among starts of EM, now of the finished model: how much better eight views of a training
# image are known together than apart, since they share a component.

# %%
reached = torch.tensor(accuracy["long"])
numbers = {by: torch.tensor([row[by] for row in long]) for by in ("loss", "bound", "agreement")}
best = {"loss": int(numbers["loss"].argmin()), "bound": long.index(chosen(long, "bound")),
        "agreement": long.index(chosen(long))}

# %% [markdown] slideshow={"slide_type": "-"}
# A dot is a run, with its seed, and its height is what labels say afterwards. The ring is around the run that the number
# would choose: seed 5 by loss and by bound, seed 8 by agreement:

# %%
figures.choices(
    {f"{by} (nats an image)": (numbers[by], best[by]) for by in numbers}, reached,
    [row["seed"] for row in long], "Which seed, without labels?", "held-out accuracy",
    alt="Three panels with ten numbered dots each: loss, bound and agreement against held-out "
        "accuracy. The dots form two groups, one near 0.971 and one near 0.983. Only along the "
        "agreement are the two groups apart, and its ring is in the upper one.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# All of them in numbers. Report them all, and say which number chose:

# %%
def nats(value):
    return f"{value:.3f}".replace("-", "−")

figures.table(
    ["loss", "bound at β = 1", "agreement", "accuracy"],
    {f"seed {row['seed']}": [*(nats(row[by]) for by in numbers),
                             f"{row['scores']['GMVAE'][0]:.4f}"] for row in long}
    | {f"chosen by the {by}": [nats(numbers[by][i]) if by == each else "" for each in numbers]
       + [f"{reached[i]:.4f}"] for by, i in best.items()},
    "The long recipe, seed by seed", size=(9.2, 5.2),
    alt="A table with the loss, the bound, the agreement and the accuracy of each seed, and the "
        "accuracy of the seeds that each of the three would choose.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# The runs form two groups, seven near 0.983 and three near 0.971. In their tables of digits against clusters, which are
# not on this page, one thing sets the groups apart: in the lower one more than 120 of the test images' sevens, those
# with a bar, lie with the fours; in the upper one none does. Neither loss nor bound notices. The lowest loss and the
# highest both belong to the lower group; of the bounds the highest does, too, and the lowest belongs to the upper. They
# were asked what images cost. The agreement was asked what we mean by a cluster: that views of one thing belong
# together. Its differences are small as well, two thousandths of its value, but the two groups do not overlap.
#
# How much is a rule worth that one has found by looking at labels? Ours was the bound at first, since it chose well
# among seeds 0 to 4. So we trained five more, and it failed, by seed 5. Then we turned to the number of which chapter 9
# says that it knows far better than the likelihood which start is right. We tried it on the runs whose models we had,
# seeds 0 to 3 and 5, and it had the two groups apart. Its values for the other five came afterwards, and there, too,
# the one run of the lower group, seed 6, agrees least. That is some evidence, not much: chance does as well one time
# in five. The short recipe's five form no groups. Agreement has the three best of them first, but would choose the
# second best, and the worst is not last. Here is how many of the pairs of runs with different accuracies each number
# puts in their order; one half is chance:

# %%
def in_order(rows, by):
    """The share of pairs of unlike runs that the number puts in the order of their accuracies."""
    value = torch.tensor([-row[by] if by == "loss" else row[by] for row in rows])
    score = torch.tensor([row["scores"]["GMVAE"][0] for row in rows])
    i, j = torch.triu_indices(len(rows), len(rows), offset=1)
    i, j = i[score[i] != score[j]], j[score[i] != score[j]]
    return float(((value[i] - value[j]).sign() == (score[i] - score[j]).sign()).float().mean())

for recipe, rows in results.items():
    print(f"{recipe:5}", *(f"  {by} {in_order(rows, by):.2f}" for by in numbers))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Within a group accuracies differ by a few of 10,000 images. So look at pairs with one run in each group:

# %%
upper = reached > 0.977
across = {by: float((value[upper, None] > value[~upper]).float().mean())
          for by, value in (numbers | {"loss": -numbers["loss"]}).items()}
print(f"Of {int(upper.sum() * (~upper).sum())} such pairs:",
      *(f"  {by} {share:.2f}" for by, share in across.items()))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Two groups are few, and these are ten runs on one data set. It is a good reason to look at the agreement next time
# (`cluster` returns it beside the model and its loss), and no proof. (On chapter 9's digits, while writing, agreement
# and loss chose the same of the five runs. Seeds 0 to 3 were trained on a GPU, the others on a processor, in bfloat16.
# Four draws of $z$ for each of 60,000 images leave the bounds a standard error of about 0.02 nats. Other moves shift all
# agreements together, by about a hundredth of a nat: compare them under the same ones. With two further sets of moves,
# five of the models kept to their groups.)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The likelihood
#
# The same models as densities: −$\mathcal L_S$ with 1,000 draws, Eq. (5.24), on 1,000 test images whose bits were drawn
# once for each seed. The error bar is that of other images, Eq. (11.7). A model that was trained at $\beta=3$ for its
# clusters is no champion of likelihood; that has its own recipe (chapter 11).

# %%
figures.intervals(
    {f"{recipe}, seed {row['seed']}": (row["NLL"][0], row["NLL"][1])
     for recipe, rows in results.items() for row in rows},
    "Negative log-likelihood, binarized test images",
    "nats an image (± standard error over images)",
    size=(8.4, 5.6),
    alt="One mark with an error bar for each seed of the two recipes. Within a recipe the "
        "seeds agree within their bars; the long recipe, with the larger beta, costs a few "
        "nats more.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How a training looks
#
# Distortion and rate over the epochs, of the seed that agreement chooses. During the warm-up $\beta$ rises, so the rate
# falls and the distortion rises: the model moves along its rate–distortion curve, and is not getting worse. Some epochs
# later the exchange is over, and both fall slowly.

# %%
distortion, rate, beta = torch.tensor(chosen(long)["curve"]).T
assert distortion[-1] < distortion[15] and rate[-1] < rate[15]
epochs = range(1, len(beta) + 1)
figures.curve_panels(
    epochs, {"Distortion": distortion, "Rate": rate, "β": beta}, "epoch",
    ["nats", "nats", "β"], size=(10.5, 3.2), ylim=(None, None),
    alt="Three panels over epochs. Distortion rises until shortly after the warm-up, then falls "
        "slowly; the rate falls steeply and levels off; beta rises in a line and stays.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The shipped model
#
# Of the long recipe's seeds the one that agreement chooses comes with the course, in half precision (2.6 MB). Ten
# clusters, twelve samples of each, at once on any machine:

# %%
model = load_mnist_gmvae()
dice = torch.Generator().manual_seed(0)
samples = torch.cat([model.sample(12, component=k, generator=dice) for k in range(10)])
figures.images(
    samples, (28, 28), "Samples of the ten components", columns=12,
    row_labels=[f"c = {k}" for k in range(10)],
    alt="Ten rows of twelve drawn digits. Nearly each row's digits are of one kind, in several "
        "hands.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# And where do real images go?

# %%
clusters = model.predict(images)
counts = torch.zeros(10, 10, dtype=torch.long)
counts.index_put_((labels, clusters), torch.ones_like(labels), accumulate=True)
columns = counts.argmax(0).argsort()
figures.counts(
    counts[:, columns], f"Where they went: {name}", xlabel="cluster", ylabel="digit",
    columns=columns.tolist(),
    alt="A table of digits against clusters. In most rows one cell holds nearly all of the "
        "digit's images; with MNIST's own images it is so in each.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# On its own test images the accuracy is that of the table. On scikit-learn's digits, which are other people's, scanned
# otherwise, and have 64 pixels, it falls to four fifths: most of their nines lie with the threes, and the ones are
# scattered. That is a useful thing to know before one applies a model to data that look the same:

# %%
from gmvae_lib.evaluation import clustering_accuracy

foreign = load("digits", "all")
elsewhere = clustering_accuracy(foreign.y, model.predict(enlarged(foreign.x)))
print("On the enlarged digits above one half, and below 0.9:", 0.5 < elsewhere < 0.9)
if downloads.at_hand("mnist"):
    found = clustering_accuracy(labels, clusters)
    assert math.isclose(found, chosen(long)["scores"]["GMVAE"][0], abs_tol=0.002)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Ways between clusters, from one mean to another in a straight line, decoded:

# %%
steps = torch.linspace(0, 1, 12)[:, None]
means = model.prior.means.detach()
pairs = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
with torch.no_grad():
    path = torch.cat([model.decode((1 - steps) * means[a] + steps * means[b]) for a, b in pairs])
figures.images(
    path, (28, 28), "From one component's mean to another's", columns=12,
    row_labels=[f"{a} → {b}" for a, b in pairs],
    alt="Five rows of twelve images. Each begins with one digit and ends with another; in the "
        "middle the strokes of one fade or bend into those of the other.")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## EM for data that no memory holds
#
# The EM of chapter 2 needs only sums, Eq. (2.27). So the mixture on MNIST's latents needs neither all images nor all
# latents at once: they can be encoded while EM asks for them, batch by batch.

# %%
def latents(size=250):  # a fresh sweep each time
    for part in images[:1500].split(size):
        with torch.no_grad():
            yield model.encode(part)[0].double()

# %% [markdown] slideshow={"slide_type": "fragment"}
# From the same start (five components here, their means at five of the codes), `fit_batches` gives what `fit` gives
# with all of them in memory:

# %%
from gmvae_lib.mixture import GaussianMixture

codes = torch.cat(list(latents()))
start = {"means_init": codes[::300], "max_iter": 10, "tol": 0.0, "reg_covar": 1e-2, "device": "cpu"}
stream = GaussianMixture(5, **start).fit_batches(latents)
whole = GaussianMixture(5, **start).fit(codes)
assert torch.allclose(stream.means_, whole.means_, atol=1e-6)
assert math.isclose(stream.lower_bound_, whole.lower_bound_, rel_tol=1e-9)

# %% [markdown] slideshow={"slide_type": "fragment"}
# This costs time in place of memory: every step of EM encodes all images anew. A file in between is often better:
# `np.load(path, mmap_mode="r")` opens an array on disk without reading it, and `fit` takes it as it is. A file of 21.5
# GB has been fitted in this way within 1 GiB of memory.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Many processes
#
# With several GPUs, or several machines, each runs a process of its own with its share of the data, and now and then
# they add something up: an *all-reduce*, after which every process has the sum of all. What is added up decides whether
# the result is that of one process.
#
# ### Sums of shares
#
# For EM it is the statistics. Let the data be split into shares $\mathcal S_1,\dots,\mathcal S_P$ of any sizes. Then,
# with the feature vectors $\phi(x_n)$ of Eq. (2.23),
#
# $$T_k=\sum_{n=1}^Nr_{nk}\,\phi(x_n)=\sum_{p=1}^P\ \sum_{n\in\mathcal S_p}r_{nk}\,\phi(x_n)=\sum_{p=1}^PT_k^{(p)}, \tag{12.10}$$
#
# and the M-step, Eq. (2.26), sees nothing but $T_k$. Every process does it for itself, with equal results. What travels
# is $K$ times as many numbers as $\phi$ has, however many points there are. In plain code, with weights, means and
# second moments of two components in the plane:

# %%
def statistics(x, resp):  # counts (K,), sums (K, D), squares (K, D, D)
    return resp.sum(0), resp.T @ x, torch.einsum("nk,ni,nj->kij", resp, x, x)

def m_step(counts, sums, squares):
    means = sums / counts[:, None]
    covariances = squares / counts[:, None, None] - means[:, :, None] * means[:, None, :]
    return counts / counts.sum(), means, covariances                                 # Eq. (2.26)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Three shares of unequal sizes, and all points at once:

# %%
points = load("cigars").x.double()
resp = torch.rand(len(points), 2, generator=torch.Generator().manual_seed(0)).double()
resp = resp / resp.sum(1, keepdim=True)
sizes = [50, 200, 350]
shares = [statistics(*part) for part in zip(points.split(sizes), resp.split(sizes))]
summed = [sum(parts) for parts in zip(*shares)]                                      # Eq. (12.10)
for ours, theirs in zip(m_step(*summed), m_step(*statistics(points, resp))):
    assert torch.allclose(ours, theirs)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Means of gradients
#
# For networks it is the gradients. The loss of a batch is a mean over its $N$ points, so its gradient is a mean, too.
# If process $p$ has $N_p$ of them and computes the gradient $g_p$ of *its* mean loss, then
#
# $$g=\frac1N\sum_{n=1}^N\nabla\ell_n=\sum_{p=1}^P\frac{N_p}N\,g_p,\qquad\text{and for equal shares}\quad g=\frac1P\sum_{p=1}^Pg_p. \tag{12.11}$$
#
# PyTorch's DistributedDataParallel (DDP) takes the plain mean, while the gradients are still being computed. So shares
# must be equal, or each process must multiply its loss by $PN_p/N$ first. Then every process makes the same step of
# Adam, and the models remain equal to the last bit without ever being compared.

# %%
def gradient(x, noise):  # of the mean loss of x, with given noise in z
    net = fresh(hidden=(40, 40)).double()
    mean, log_var = net.encode(x)
    params = net.decoder(mean + (0.5 * log_var).exp() * noise)
    distortion = -net.likelihood.log_prob(x, params)
    (distortion + net.prior.rate(mean, log_var)).mean().backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()])

# %% [markdown] slideshow={"slide_type": "fragment"}
# A batch of 48 images, in equal and in unequal shares:

# %%
batch = images[:48].double()
noise = torch.randn(48, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
together = gradient(batch, noise)
for sizes in ([16, 16, 16], [4, 12, 32]):
    parts = [gradient(*part) for part in zip(batch.split(sizes), noise.split(sizes))]
    weighted = sum(n / 48 * g for n, g in zip(sizes, parts))                         # Eq. (12.11)
    assert torch.allclose(weighted, together, atol=1e-9)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Two real processes
#
# Enough of lists. EM on a share of the data, as a function; with other processes about, it adds up the statistics
# before each M-step, and only by that does it differ from chapter 2's:

# %%
import torch.distributed as dist


def em_on_share(x, weights, means, covariances, steps=10):
    for _ in range(steps):
        normal = torch.distributions.MultivariateNormal(means, covariances)
        resp = (weights.log() + normal.log_prob(x[:, None])).softmax(1)              # E-step
        sums = statistics(x, resp)
        if dist.is_initialized():
            for part in sums:
                dist.all_reduce(part)                                                # Eq. (12.10)
        weights, means, covariances = m_step(*sums)
    return weights, means, covariances

# %% [markdown] slideshow={"slide_type": "fragment"}
# This notebook is process 0, with the first 200 points. We start another Python as process 1, with the other 400. Its
# program is the source of our three functions and a few lines; the two meet by way of a file, and talk over the
# machine's own loopback.

# %%
import inspect

program = "import sys, torch, torch.distributed as dist\n" + "".join(
    inspect.getsource(function) for function in (statistics, m_step, em_on_share)) + """
meeting, share = sys.argv[1:]
dist.init_process_group("gloo", store=dist.FileStore(meeting, 2), rank=1, world_size=2)
em_on_share(*torch.load(share))
dist.destroy_process_group()
"""

# %% [markdown] slideshow={"slide_type": "fragment"}
# All is ready. Process 1 is started with its share and the common start; then process 0 does its own part:

# %%
from datetime import timedelta

start = (torch.full((3,), 1 / 3).double(), points[[0, 250, 500]],
         torch.eye(2).double().repeat(3, 1, 1))
folder = tempfile.TemporaryDirectory()
meeting, share = (str(Path(folder.name) / name) for name in ("meeting", "share.pt"))
torch.save((points[200:], *start), share)
other = subprocess.Popen([sys.executable, "-c", program, meeting, share])
dist.init_process_group("gloo", store=dist.FileStore(meeting, 2), rank=0, world_size=2,
                        timeout=timedelta(seconds=90))
shared = em_on_share(points[:200], *start)
dist.destroy_process_group()

# %% [markdown] slideshow={"slide_type": "fragment"}
# Neither has seen the other's points, and process 0 has the fit of all 600, as a single process finds it:

# %%
alone = em_on_share(points, *start)
print("Process 1 ended well:", other.wait(timeout=60) == 0)
assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(shared, alone))

# %% [markdown] slideshow={"slide_type": "subslide"}
# One does not start processes by hand. `torchrun` does it, tells each who it is, and ends all if one fails:
#
# ```
# torchrun --standalone --nproc-per-node=4 my_script.py
# ```
#
# In `my_script.py` each process calls `dist.init_process_group()`, loads its share, and calls
# `GaussianMixture(..., distributed=True).fit(share)`, which does what `em_on_share` does. (The library's tests run it
# so, with two processes, shares of 250 and 650 points and all families of covariances: equal to one process to ten
# digits.)
#
# For a VAE it is `fit(model, share, distributed=True)`, and there is a command that does all of it:
#
# ```
# torchrun --standalone --nproc-per-node=4 -m gmvae_lib.train --data mnist --prior mixture \
#     --checkpoint model.safetensors
# ```
#
# It weighs unequal shares by Eq. (12.11) and adds up the statistics of the prior's M-step by Eq. (12.10). Every process
# draws noise of its own, by a seed that differs from process to process: with a common one, two processes would be one
# that counts twice. So the model is not that of one process to the last digit. It is that of another seed. The batch
# size counts the images of all processes together, so learning rates need not be changed. If a process dies, the others
# end with a message, and `--resume` goes on from the checkpoint, with any number of processes.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A class, a lab
#
# Many readers at once are another way to scale. On a JupyterHub everyone has an account and a kernel, with one copy of
# the environment for all. What that takes has been measured, with ten simulated students; [the page for
# lecturers](for_lecturers.md) has the table and the settings. In short:
#
# - **Memory**: about half a gigabyte for each student in a chapter such as the second, and below one in all of them.
# - **Processors**: 12 to 60 s of one core for a whole chapter. In between a kernel waits for its reader, so that a core
#   serves many.
# - `torch.set_num_threads(1)`, as in the first lines of this chapter: thirty kernels with eight threads each are slower
#   than with one.
# - **Data**: one folder for all, which `GMVAE_DATA` names; it may be read-only.
# - **No GPU.** The chapters' networks are too small for one, as Eq. (12.8) says. A lab with one GPU runs trainings on
#   it as jobs, one after the other, with `fit(checkpoint="run.safetensors", resume=True)`: what is stopped goes on.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Failure lab
#
# ### Failure 1: a larger batch, the same learning rate
#
# The widget says that larger batches are faster. So take 1,024 instead of 64, and the same number of epochs:

# %%
from gmvae_lib.training import fit

digits, test = load("digits"), load("digits", "test")

def trained(batch_size, lr, epochs=12):
    torch.manual_seed(0)
    net = VAE.build(64, 10, (128, 128))
    fit(net, digits, epochs=epochs, batch_size=batch_size, lr=lr, device="cpu")
    with torch.no_grad():
        return -float(net.elbo(test.x, generator=torch.Generator().manual_seed(0)).value.mean())

cost = {"64, lr 0.001": trained(64, 1e-3), "1024, lr 0.001": trained(1024, 1e-3),
        "1024, lr 0.004": trained(1024, 4e-3)}

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Symptom.* Each epoch has fewer steps, and the model is far worse:

# %%
figures.bars(
    cost, "−ELBO of held-out digits after 12 epochs", "nats an image", unit="nats", digits=0,
    alt="Three bars. With batches of 1024 and the same learning rate the cost is much higher "
        "than with batches of 64; with four times the learning rate a part of that is made up "
        "for.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# A longer step, four times as long, helps, but does not make up for all of it:

# %%
small, large, adapted = cost.values()
print("The larger batch is worse by more than 10 nats:", large > small + 10)
print("A larger step makes up for part of it:", adapted < large - 5)

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Diagnosis.* Far fewer steps, each of them no longer than before: the gradient is less noisy, not larger.

# %%
print("Steps:", {size: 12 * math.ceil(len(digits.x) / size) for size in (64, 1024)})

# %% [markdown] slideshow={"slide_type": "fragment"}
# Let $\ell_B$ be the mean loss of a batch $B$. Take two steps of gradient descent with rate $\eta$ and batches $B_1,B_2$
# of one size. The second gradient is taken at $\theta'$, which lies only $O(\eta)$ away from $\theta$, so it is
# $\nabla\ell_{B_2}(\theta)+O(\eta)$; and $\nabla\ell_{B_1}+\nabla\ell_{B_2}=2\nabla\ell_{B_1\cup B_2}$. To first order
# the two steps are one, with both batches together and rate $2\eta$:
#
# $$\theta'=\theta-\eta\nabla\ell_{B_1}(\theta),\qquad\theta'-\eta\nabla\ell_{B_2}(\theta')=\theta-2\eta\nabla\ell_{B_1\cup B_2}(\theta)+O(\eta^2). \tag{12.12}$$
#
# Hence the rule for gradient descent: $k$ times the batch, $k$ times the rate. Adam divides by the gradient's own size,
# noise included. Where noise dominates, $k$ times the batch makes that size $\sqrt k$ times smaller and the steps
# $\sqrt k$ times longer by itself, so that $\sqrt k$ is left to the rate: here $\sqrt{16}=4$. *Cure.* Adapt the rate, and
# compare at equal numbers of *steps*. There is a batch size beyond which nothing is gained but memory lost. Let us
# check the order of the error on a loss that is no parabola:

# %%
theta, b1, b2 = torch.tensor(0.7).double(), torch.tensor(1.5).double(), torch.tensor(-0.4).double()

def slope(t, b):
    return torch.sin(t - b) + (t - b) ** 3

def mismatch(eta):
    once = theta - eta * slope(theta, b1)
    twice = once - eta * slope(once, b2)
    return abs(twice - (theta - 2 * eta * (slope(theta, b1) + slope(theta, b2)) / 2))

assert math.isclose(mismatch(1e-3) / mismatch(5e-4), 4, rel_tol=0.02)                # Eq. (12.12)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Failure 2: a look in every step
#
# *Symptom.* `total += loss.item()`, a progress bar with the current loss, an `if loss.isnan()`. On a GPU it is slower,
# and the profiler shows a long `item`. *Diagnosis.* To read a number, the processor waits until the GPU has computed
# it. The lanes no longer overlap, so at worst their times add up: up to twice the longer one. In Eq. (12.6) the first request of a step
# then comes after the last $e_i$ of the step before:

# %%
def steps_with_look(tau, w, n=80, steps=10):
    clock = 0.0
    for _ in range(steps):
        clock = finish([clock + tau * (i + 1) for i in range(n)], n * [w])[-1]
    return clock

# %% [markdown] slideshow={"slide_type": "-"}
# And without a look, for operations that are short, as long as their request, and long:

# %%
def steps_without(tau, w, n=80, steps=10):
    return finish([tau * (i + 1) for i in range(n * steps)], n * steps * [w])[-1]

for w in (2, 20, 200):
    slower = steps_with_look(20, w) / steps_without(20, w)
    print(f"w/τ = {w / 20:4.2f}: a look in every step costs {100 * (slower - 1):.1f} %")

# %% [markdown] slideshow={"slide_type": "fragment"}
# For operations of equal length a look costs one $w$ or one $\tau$ a step, next to nothing! It is dear where long
# operations come *last*: the processor could have asked for the next step meanwhile.

# %%
def uneven(look, steps=10):
    work, clock, asked = 40 * [2.0] + 4 * [400.0], 0.0, []
    for _ in range(steps):
        asked += [clock + 20.0 * (i + 1) for i in range(44)]
        clock = finish(asked, len(asked) // 44 * work)[-1] if look else asked[-1]
    return finish(asked, steps * work)[-1]

# %% [markdown] slideshow={"slide_type": "-"}
# With forty short operations, and four long ones after them:

# %%
print(f"Long operations last: with a look {uneven(True) / uneven(False):.1f} times as long")

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Cure.* Add up on the device, read once an epoch. And a recorded step cannot contain a look at all. The same holds for
# `print(tensor)`, `.cpu()`, `.tolist()`, boolean indexing, and copies from ordinary memory in every step.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Failure 3: a sum that stops
#
# *Symptom.* With half precision the loss no longer falls below some value, or the mean of a million ones is a small
# number. Add ones in bfloat16:

# %%
total = torch.tensor(0.0, dtype=torch.bfloat16)
for _ in range(1000):
    total += 1
print("A thousand ones in bfloat16 add up to", int(total))

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Diagnosis.* With 8 significant bits the numbers from 256 to 512 lie 2 apart. So $256+1$ lies halfway between two of
# them, and of these the rule takes the one whose last bit is 0: 256, ever again. And responsibilities from
# log-joints that were rounded are another partition, not the same one with noise:

# %%
joint = -140 - 6 * torch.rand(1000, 10, generator=torch.Generator().manual_seed(0))
exact, rounded = joint.softmax(1), joint.bfloat16().float().softmax(1)
print("Responsibilities are off by more than 0.1:", bool((exact - rounded).abs().max() > 0.1))
print("Points whose likeliest component changes, more than one in twenty:",
      bool((exact.argmax(1) != rounded.argmax(1)).float().mean() > 0.05))

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Cure.* Networks in half precision, sums and logarithms in float32, EM in float64.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Failure 4: unequal shares, averaged as if equal
#
# *Symptom.* With several processes results differ a little from one process, more so with many processes and small
# data. The last share is smaller, and its gradient was averaged as if it were not:

# %%
sizes = [4, 12, 32]
parts = [gradient(*part) for part in zip(batch.split(sizes), noise.split(sizes))]
wrong = sum(parts) / 3
print("Relative error of the plain mean above 5 %:",
      bool((wrong - together).norm() > 0.05 * together.norm()))

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Diagnosis.* Images of the small share count eight times as much as those of the large one. For EM the same mistake is
# to average the shares' *parameters* in the place of their sums: the variance between the shares' means is then lost.

# %%
each = [m_step(*share) for share in shares]
averaged = sum(covariances for *_, covariances in each) / 3
true = m_step(*summed)[2]
print("Averaged covariances differ from the true ones by more than 1 %:",
      bool((averaged - true).norm() > 0.01 * true.norm()))

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Cure.* Add up sums and counts, divide once, at the end: Eqs. (12.10) and (12.11).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Each stub runs as it is and says "not attempted yet". Replace `raise NotImplementedError` by your code and run the
# cell again. Worked solutions are in [the solutions of chapter 12](solutions/12_scaling_up.ipynb).

# %% slideshow={"slide_type": "skip"}
from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 12.1 (★, 8 minutes)
# `asked` $(n,)$ holds when each operation has been asked for, `work` $(n,)$ how long the GPU needs for it. Return the
# share of the time, from 0 to the end of the last operation, during which the GPU computes: one number.

# %%
def my_share(asked, work):
    raise NotImplementedError

check("12.1", my_share)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 12.2 (★, 8 minutes)
# `grey` $(N,D)$ holds pixels of 0..255, `logits` $(N,D)$ the decoder's output. Return the mean log-probability of the
# drawn bits, $(N,)$. Some logits are near ±200.

# %%
def my_log_prob(grey, logits):
    raise NotImplementedError

check("12.2", my_log_prob)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 12.3 (★★, 10 minutes)
# $P$ processes have computed the gradients of their own mean losses, the rows of `gradients` $(P,M)$, on `sizes` $(P,)$
# points. Return the gradient of the mean loss over all points: $(M,)$.

# %%
def my_gradient(gradients, sizes):
    raise NotImplementedError

check("12.3", my_gradient)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 12.4 (★★, 15 minutes)
# Each of $P$ processes sends the statistics of its share: `counts` $(P,K)$, `sums` $(P,K,D)$ and `squares` $(P,K,D,D)$,
# where a square is $\sum_nr_{nk}x_nx_n^\top$. Return the M-step for all data: weights $(K,)$, means $(K,D)$,
# covariances $(K,D,D)$.

# %%
def my_m_step(counts, sums, squares):
    raise NotImplementedError

check("12.4", my_m_step)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 12.5 (★★★, 15 minutes)
# A training step is $n$ operations, each asked for in `ask` and computed in `work`, both in microseconds. Compare four
# programs for `steps` steps of $n$ operations: (a) as it is; (b) with half precision, `work` halved; (c) recorded, so
# that a step is asked for in one `ask`, and all its operations are then there; (d) both. Return the four times until
# the last operation is done, by Eq. (12.6): $(4,)$.

# %%
def my_times(ask, work, n, steps):
    raise NotImplementedError

check("12.5", my_times)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Summary
#
# - What does not change with scale: the bound, the M-step, the gradient. Each way to compute them faster was
#   held against the plain one, on this page.
# - What changes is where the time goes. Profile first. Small networks leave a GPU idle, because asking takes longer
#   than computing; then only fewer requests help. Two numbers, $\tau$ and $w$, say which cure will.
# - Half precision is for networks, not for sums of logarithms.
# - Grey pixels may be read as coins. The training's loss is then a bound of the drawn bits' mean log-probability, with
#   a floor that no model goes below.
# - On MNIST, the recipe of chapter 9 finds the ten digits without labels, above 0.96 for every seed. Of ten runs
#   neither loss nor bound told the better group from the other; the agreement of views did. Report all seeds.
# - Sums over shares are sums over the whole; means must be weighted. So processes can be many, and the result one.
#
# **You may now import** `likelihood.DynamicBernoulli`, `profiling` (`record`, `totals`, `finish_times`),
# `load("mnist")`, `fit` with `precision="auto"`, and `GaussianMixture` with `fit_batches` and `distributed=True`.
#
# **Where this leads.** Formulas and programs may be fast, and wrong: [chapter 13, Find the bug](13_find_the_bug.ipynb).

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Sources
#
# - Yann LeCun, Corinna Cortes and Christopher Burges (1998). *The MNIST database of handwritten digits.*
# - Han Xiao, Kashif Rasul and Roland Vollgraf (2017). *Fashion-MNIST.* arXiv:1708.07747.
# - Ruslan Salakhutdinov and Iain Murray (2008). *On the Quantitative Analysis of Deep Belief Networks.* ICML.
#   (Binarized MNIST.)
# - Zhuxi Jiang, Yin Zheng, Huachun Tan, Bangsheng Tang and Hanning Zhou (2017). *Variational Deep Embedding: An
#   Unsupervised and Generative Approach to Clustering.* IJCAI. (VaDE, and its 0.945.)
# - Paulius Micikevicius et al. (2018). *Mixed Precision Training.* ICLR.
# - Priya Goyal et al. (2017). *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour.* arXiv:1706.02677. (The
#   linear rule.)
# - Sadhika Malladi, Kaifeng Lyu, Abhishek Panigrahi and Sanjeev Arora (2022). *On the SDEs and Scaling Rules for
#   Adaptive Gradient Algorithms.* NeurIPS. (The square-root rule.)
# - Shen Li et al. (2020). *PyTorch Distributed: Experiences on Accelerating Data Parallel Training.* VLDB.
# - Nicholas Higham (2002). *Accuracy and Stability of Numerical Algorithms.* SIAM. (Eq. (12.9).)
# - Cheng-Tao Chu et al. (2006). *Map-Reduce for Machine Learning on Multicore.* NeurIPS. (Sums of statistics.)
# - PyTorch's documentation: *CUDA semantics*, sections on asynchronous execution and on CUDA graphs.
