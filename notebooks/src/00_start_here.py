# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] slideshow={"slide_type": "slide"}
# # Start here
#
# **What will you be able to build?**
#
# A program that looks at 1,437 small pictures of handwritten digits, is never told which digit is which, and comes back
# with groups that are the digits, nearly, a map on which similar digits lie close together, and the ability to draw new
# ones, group by group. It is called a *Gaussian mixture variational autoencoder* (GMVAE): a neural network that
# compresses images into short codes, together with a mixture of Gaussians that says how the codes are distributed.
#
# By the end of the course you will have written every line of it, and checked every formula behind it.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One minute with a finished one
#
# Run the two cells below: click the first one, then press **Shift + Enter** twice. The first loads a model that was
# trained for this page.

# %% slideshow={"slide_type": "-"}
from gmvae_lib.data import load
from gmvae_lib.explorers import GMVAEExplorer
from gmvae_lib.pretrained import load_digits_gmvae

train, test = load("digits", "train"), load("digits", "test")
model, partitions = load_digits_gmvae()

# %% [markdown] slideshow={"slide_type": "subslide"}
# The second one shows it. Drag a slider, or focus it with Tab and use the arrow keys, or type into the box beside it. The
# line under the picture says what your last move did. Look at the upper half first: on the left a map with one dot for each
# image, coloured by the group that the model put it in; on the right what the model draws when asked for each group.

# %% slideshow={"slide_type": "-"}
GMVAEExplorer(model, partitions, train, test)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Three things to try:
#
# 1. **Set K to 2, then raise it step by step.** K is the number of *components*, the groups that the model may use. The
#    columns of samples show what each has claimed; in the table below, each row says into which components a digit went.
#    Which digits stay together the longest? From ten on, which come in two styles?
# 2. **Move β from 0.01 to 100.** β weighs how much a code may cost. Watch the reconstructions lose the hand that wrote
#    them, and the groups on the map shrink: where codes are dear, a code says which digit it is, and little more.
# 3. **Set K to 1.** The mixture is gone; one Gaussian has to cover all the codes. Compare its samples with those of ten
#    components: this is what a mixture is for.
#
# The rest of the lower half is for later. Chapter 9 explains the scores, and chapters 3 and 11 the curve on the right, by
# which one would choose K without looking at any label. All numbers are measured on 360 images that the model was not
# trained on. Labels were used for the table and the scores, and for nothing else: not for training, and not for
# choosing between models.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The one objective
#
# What β trades against each other are two costs. Call an image $x$ and its code $z$. The *encoder* network turns $x$ into a
# distribution over codes, $q_\phi(z|x)$; the *decoder* network turns $z$ back into a distribution over images,
# $p_\theta(x|z)$; and $p(z)$, the *prior*, says which codes are usual. The subscripts $\phi$ and $\theta$ stand for the
# two networks' weights. Then
#
# $$D=-\mathbb E_{q_\phi(z|x)}\log p_\theta(x|z),\qquad R=\mathrm{KL}\big(q_\phi(z|x)\,\|\,p(z)\big), \tag{0.1}$$
#
# are the *distortion*, the cost of drawing the image once its code is known, and the *rate*, the cost of the code: the
# Kullback–Leibler divergence (KL), which measures how far a distribution is from another. $\mathbb E$ is an average, here
# over codes from the encoder. Training minimizes
#
# $$D+\beta R, \tag{0.2}$$
#
# averaged over the images. At $\beta=1$, $-(D+R)$ is the *evidence lower bound* (ELBO): it never exceeds
# $\log p(x)$, the logarithm of the probability that the whole model gives to the image. All logarithms are natural, so
# costs come in *nats*.

# %% [markdown] slideshow={"slide_type": "subslide"}
# Nothing here needs to be clear yet. But it is a promise: the bound that fits mixtures in chapter 2, the one that trains
# autoencoders in chapter 5, and the one that does both at once in chapter 8 are this same expression. In code it is one
# call, and its two parts trade against each other as they should:

# %% slideshow={"slide_type": "-"}
cheap, dear = model.elbo(test.x, beta=0.1), model.elbo(test.x, beta=10.0)
assert cheap.distortion.mean() < dear.distortion.mean()  # a low beta draws better ...
assert cheap.rate.mean() > dear.rate.mean()  # ... and pays for it in its codes

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The map
#
# Fourteen chapters in four parts, and an appendix. Each answers one question, and nearly all end with code that later
# ones import. Data, pictures, widgets, checks and finished models are given; of the methods, nothing is imported before
# you have built it.

# %% slideshow={"slide_type": "-"}
from gmvae_lib import figures

figures.course_map()

# %% [markdown] slideshow={"slide_type": "subslide"}
# Where a chapter needs something that a later one explains, it builds it in a few lines. The minutes are for reading and
# running; exercises take about an hour more, those of chapter 13 about three.
#
# | chapter | the question | minutes |
# |---|---|---|
# | [01 Gaussian mixtures](01_gaussian_mixtures.ipynb) | How can a density have several centers? | 75 |
# | [02 Expectation–maximization](02_expectation_maximization.ipynb) | How do you fit what you cannot see? | 90 |
# | [03 Choosing K](03_choosing_k.ipynb) | How many clusters are there? | 90 |
# | [04 When the E-step is impossible](04_when_the_e_step_is_impossible.ipynb) | What if the posterior has no formula? | 90 |
# | [05 The variational autoencoder](05_variational_autoencoder.ipynb) | How does a network learn to encode? | 90 |
# | [06 β and the rate–distortion curve](06_beta_and_the_rate_distortion_curve.ipynb) | What does β buy? | 80 |
# | [07 The prior is the problem](07_the_prior_is_the_problem.ipynb) | Why do samples from a VAE look worse than its reconstructions? | 75 |
# | [08 The mixture-prior VAE](08_mixture_prior_vae.ipynb) | Can prior and encoder be learnt together? | 90 |
# | [09 Clustering with the GMVAE](09_clustering_with_the_gmvae.ipynb) | Does it find the digits? | 90 |
# | [10 The family](10_the_family.ipynb) | Which GMVAE is this? | 90 |
# | [11 Honest evaluation](11_honest_evaluation.ipynb) | How good is it, really? | 80 |
# | [12 Scaling up](12_scaling_up.ipynb) | From 1,800 digits to 70,000 images, one GPU, many: what changes, and what does not? | 80 |
# | [13 Find the bug](13_find_the_bug.ipynb) | Would you have noticed? | 40 |
# | [Appendix: notation and glossary](appendix_notation_and_glossary.ipynb) | What was that again? | to look up |
#
# What you need to bring: Python with NumPy or PyTorch; derivatives, matrices and their eigenvalues; probability up to
# conditional densities and expectations. Neural networks are explained where they appear.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How to read, run and practise
#
# - **Run a chapter from top to bottom**, cell by cell with Shift + Enter, or all at once with *Run → Run All Cells*. Each
#   takes less than a minute on a laptop. If something looks odd, *Kernel → Restart Kernel and Run All Cells* starts afresh.
# - **Read the code beside the formula.** A line that computes an equation cites it: `# Eq. (2.7)`. A line that starts with
#   `assert` checks what the text just claimed, and stops the notebook if it were wrong.
# - **Change things.** Every number is yours to alter. What you break comes back with
#   *Kernel → Restart*, and the file with `git checkout -- ` and its name.
# - **Present it.** Each cell knows its place in a slide show: with the extension `jupyterlab-slideshow` installed, the
#   same notebook is a lecture.
#
# Exercises have a stub to fill and a check that tries to name your mistake. Here is one to see how that works.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 0.1 (★, 2 minutes)
#
# The data are a tensor with one image a row: shape $(N, D)$ with $N$ images of $D$ pixels. Write `mean_image`, which
# averages the images into one of shape $(D,)$. Then run the cell. Try to average over the wrong axis first, to see
# what the check says.

# %% slideshow={"slide_type": "-"}
from gmvae_lib.exercises import check


def mean_image(x):
    raise NotImplementedError  # replace this line


check("0.1", mean_image)

# %% [markdown] slideshow={"slide_type": "subslide"}
# A worked solution is in [the solutions' notebook of this chapter](solutions/00_start_here.ipynb), as for every chapter.
# Try first: what you find yourself stays.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data
#
# Most chapters use two kinds of data. *Toys* in the plane, drawn from mixtures that we know, are for seeing. The *digits*
# are real: images of 8 × 8 pixels, each pixel a count from 0 to 16, collected from 43 people. They come with scikit-learn,
# so that everything works offline.

# %% slideshow={"slide_type": "-"}
print(f"{len(train)} training and {len(test)} test images, {train.x.shape[1]} pixels from "
      f"{int(train.x.min())} to {int(train.x.max())}")
figures.images(train.x[:40], train.image_shape, "Forty of the digits", columns=20,
               alt="Forty handwritten digits of 8 by 8 grey pixels, in two rows of twenty.")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Is everything in place?
#
# The next cell says what the library computes on unless it is told otherwise: a graphics processor (GPU) where PyTorch
# finds one. None is needed: the chapters' small networks are told to stay on the main processor, and mixtures of few
# points stay there by themselves, since it is faster for both.

# %% slideshow={"slide_type": "-"} tags=["nbval-ignore-output"]
import platform

import torch

from gmvae_lib.data import pick_device

print(f"Python {platform.python_version()}, PyTorch {torch.__version__}: fine.")
print(f"Networks run on: {pick_device()}.")
print(f"Mixtures of many points, which need double precision, on: {pick_device(float64=True)}.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# If an import failed instead, the notebook runs outside the course's environment: close it and start JupyterLab with
# `make lab` in the course's folder, or choose its kernel under *Kernel → Change Kernel*.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Notation
#
# Symbols keep their meaning from chapter to chapter. The few letters with two meanings are listed in [the
# appendix](appendix_notation_and_glossary.ipynb).
#
# | symbol | in code | meaning |
# |---|---|---|
# | $x\in\mathbb R^D$, $n=1..N$ | `x`, shape `(N, D)` | data: $N$ points of $D$ features |
# | $z\in\mathbb R^d$ | `z`, shape `(N, d)` | latent variable: the code of a point |
# | $c\in\{1..K\}$ | `component` | component that a point comes from |
# | $\pi_k,\ \mu_k,\ \Sigma_k$ | `weights`, `means`, `covariances` | a mixture's weights, means and covariances |
# | $r_{nk}$ | `resp`, shape `(N, K)` | responsibility: the share of point $n$ that component $k$ claims |
# | $p_\theta(x\mid z)$ | `decoder`, `likelihood` | distribution of the image given its code |
# | $q_\phi(z\mid x)$ | `encoder` | distribution of the code given the image |
# | $p(z)$ | `prior` | distribution of the codes |
# | $D,\ R$ | `distortion`, `rate` | the two parts of the cost, in nats ($D$ also counts features: the context tells) |
# | $\beta$ | `beta` | the rate's weight |
# | $\mathcal N(x\mid\mu,\Sigma)$ | `gaussian` | density of a Gaussian |

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Where the model on this page comes from
#
# It was made by chapter 9's recipe. A *denoising autoencoder*, a pair of networks of 64 inputs, two layers of 256 units and
# 16 latent dimensions, learnt codes by repairing damaged images. For each K, mixtures were fitted to the codes from forty
# starts, in such a way that slightly moved copies of an image share a component, and the mixture under which the copies
# agree most was kept. Then networks and the mixture of ten were trained together, gated by β so that one network serves
# every β. The shipped file holds this network, and for each K a partition of the training images, from which the widget
# computes the mixture for your K and β by a few steps of chapter 2's algorithm. `make checkpoints` makes it anew in a few
# minutes; the recipe stands in full at the head of `gmvae_lib/pretrained/__main__.py`.
#
# With ten components it pairs 95 to 96 % of the held-out images with their digit, whatever β is. One training is one case:
# chapter 9 shows five.
#
# ## Go on
#
# Continue with [chapter 1, Gaussian mixtures](01_gaussian_mixtures.ipynb): what a density with several centers is, how to
# compute it and how to draw from it.
#
# **Sources.** Kingma and Welling (2014), *Auto-encoding variational Bayes*. Higgins et al. (2017), *beta-VAE*. Jiang et al.
# (2017), *Variational deep embedding*. Bae et al. (2023), *Multi-rate VAE*. The digits: Alpaydin and Kaynak (1998),
# *Optical recognition of handwritten digits*, UCI machine learning repository.
