# %% [markdown] slideshow={"slide_type": "slide"}
# # 05 The variational autoencoder
#
# *How does a network learn to encode?*
#
# Each image in the picture below was drawn by a network that was told two numbers: where on the plane the image
# stands. The network had seen 1,437 handwritten digits, without their labels, and had been asked for one thing only:
# make these images likely.

# %% slideshow={"slide_type": "subslide"}
import math

import torch
from torch import nn

from gmvae_lib import explorers, figures
from gmvae_lib.data import load

torch.set_num_threads(1)  # networks this small gain nothing from more
train, test = load("digits"), load("digits", "test")
preview = explorers.quick_vae(train, epochs=40)  # what this chapter builds, in a few seconds
figures.latent_plane(
    preview.decode, train.image_shape, "What a trained decoder draws at each point of its plane",
    "A grid of small images of digits over the latent plane. Neighbours look alike: each kind of "
    "digit has a region of its own, and one kind turns into the next without a jump.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Walk across this plane and one digit turns into another, through shapes that were never in the data. Nobody arranged
# the regions.
#
# To train such a decoder we would have to know which point of the plane belongs to which image, and no data set says
# so. So a second network, the *encoder*, must find the place of each image, while the decoder is still learning what
# to draw there. What should an encoder aim for, when there is no right answer to learn from? The answer is the bound
# of chapter 2, and nothing else.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you will be able to do
#
# - split the evidence lower bound (ELBO) into a *distortion* and a *rate*, and say what each costs, in nats;
# - send gradients through a random draw, and derive the rate of a Gaussian encoder line by line;
# - choose a likelihood that fits the data, and say what a "reconstruction error" silently assumes;
# - write a variational autoencoder (VAE) and its training loop in about thirty lines, and show that the library
#   computes the same;
# - judge it on held-out images, beside baselines in the same unit, and say which likelihoods' numbers may be compared;
# - compute the bound by three routes, and watch it rise from the ELBO towards $\log p(x)$;
# - recognize four bugs that do not crash, each by a number that betrays it.
#
# **You need** the bound of [chapter 2, expectation–maximization](02_expectation_maximization.ipynb) and its continuation
# in [chapter 4, when the E-step is impossible](04_when_the_e_step_is_impossible.ipynb), and PyTorch as far as `nn.Linear`
# and `loss.backward()`.
# **Time:** about 90 minutes to read and run, another 70 for the exercises.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A model whose posterior has no formula
#
# In chapter 1 a point came about in two steps: choose one of $K$ components, then draw $x$ from that component. We
# keep the two steps and replace the finite choice by a continuous one. First a *latent* point $z\in\mathbb R^d$ is
# drawn from the *prior* $p(z)=\mathcal N(z\mid 0,I)$. Then a network with parameters $\theta$, the *decoder*, turns
# $z$ into a distribution $p_\theta(x\mid z)$ over data $x\in\mathbb R^D$. The density of $x$ collects the
# contributions of all $z$:
#
# $$p_\theta(x)=\int p_\theta(x\mid z)\,p(z)\,dz. \tag{5.1}$$
#
# The mixture's sum over $K$ terms has become an integral, with a network inside. It has no formula, and neither has
# the *posterior* $p_\theta(z\mid x)=p_\theta(x\mid z)\,p(z)/p_\theta(x)$, which chapter 1 called responsibilities.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A toy with all answers
#
# As in chapter 4, we take a toy along in which a fine grid can stand in for every integral: $d=1$, two "pixels", a bent
# decoder $f(z)=(z/4,\ z^2/2)$, and Gaussian noise of standard deviation 0.3. What this section and the next say can be
# tried on it, against the exact value.

# %% slideshow={"slide_type": "fragment"}
from torch.distributions import Normal


def toy_log_likelihood(x, z):                              # log p(x|z): x (2,), z (...) -> (...)
    pixels = torch.stack([z / 4, z.square() / 2], -1)
    return Normal(pixels, 0.3).log_prob(x).sum(-1)

prior = Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)

# %% [markdown] slideshow={"slide_type": "subslide"}
# For one point $x$, the integral of Eq. (5.1) becomes a sum over the grid:

# %%
point = torch.tensor([0.1, 0.8], dtype=torch.float64)
grid = torch.linspace(-8, 8, 8001, dtype=torch.float64)
step = grid[1] - grid[0]
log_joint = toy_log_likelihood(point, grid) + prior.log_prob(grid)
log_evidence = torch.logsumexp(log_joint + step.log(), 0)                 # log p(x), Eq. (5.1)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Chapter 4 has shown what such posteriors look like (this one has two humps), and what the best Gaussian makes of them
# (it covers one).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The bound, once more
#
# Let $q(z)$ be any density. For every $z$, $\log p_\theta(x)=\log p_\theta(x,z)-\log p_\theta(z\mid x)$. Add and
# subtract $\log q(z)$, and average over $z\sim q$; the left side does not depend on $z$ and stays as it is:
#
# $$\log p_\theta(x)=\underbrace{\mathbb E_{q}\big[\log p_\theta(x,z)-\log q(z)\big]}_{\text{ELBO}}+\underbrace{\mathbb E_{q}\big[\log q(z)-\log p_\theta(z\mid x)\big]}_{\mathrm{KL}(q(z)\,\Vert\,p_\theta(z\mid x))\ \ge\ 0}. \tag{5.2}$$
#
# This is chapter 2's identity, and Eq. (4.5). In chapter 2 the E-step set $q$ to the posterior and the gap, the
# Kullback–Leibler (KL) divergence, to zero. Here the posterior is out of reach. We take $q$ from a family that we can
# handle, and bring it as near as it will go.

# %% slideshow={"slide_type": "fragment"}
def toy_elbo(mean, sd):                                    # E_q[log p(x,z) - log q(z)], by the grid
    log_q = Normal(mean, sd).log_prob(grid)
    return (log_q.exp() * (log_joint - log_q)).sum() * step

def toy_gap(mean, sd):                                      # KL(q(z) || p(z|x)), by the grid
    log_q = Normal(mean, sd).log_prob(grid)
    return (log_q.exp() * (log_q - (log_joint - log_evidence))).sum() * step

for mean, sd in ((1.2, 0.25), (0.0, 1.0), (-1.0, 0.3)):
    assert torch.isclose(toy_elbo(mean, sd) + toy_gap(mean, sd), log_evidence)      # Eq. (5.2)
    assert toy_gap(mean, sd) > 0

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Distortion and rate
#
# Split the joint density, $\log p_\theta(x,z)=\log p_\theta(x\mid z)+\log p(z)$, and collect the two terms that do not
# describe the pixels:
#
# $$\text{ELBO}(x)=-\underbrace{\mathbb E_{q}\big[-\log p_\theta(x\mid z)\big]}_{\text{distortion } D(x)}-\underbrace{\mathbb E_{q}\big[\log q(z)-\log p(z)\big]}_{\text{rate } R(x)\,=\,\mathrm{KL}(q(z)\Vert p(z))}. \tag{5.3}$$
#
# Both have a plain meaning. The **distortion** is what it costs, in nats, to describe the pixels once $z$ is known.
# The **rate** is what it costs to say where $z$ lies, more precisely than the prior says already. A sharp $q$ buys a
# small distortion with a large rate. (The letter $D$ also counts pixels; a distortion carries its point, $D(x)$ or
# $D_n$, wherever the two could be confused.)

# %% slideshow={"slide_type": "fragment"}
q = Normal(torch.tensor(1.2, dtype=torch.float64), 0.25)
weight = q.log_prob(grid).exp() * step
distortion = -(weight * toy_log_likelihood(point, grid)).sum()
rate = (weight * (q.log_prob(grid) - prior.log_prob(grid))).sum()
assert torch.isclose(-(distortion + rate), toy_elbo(1.2, 0.25))                     # Eq. (5.3)
assert torch.isclose(rate, torch.distributions.kl_divergence(q, prior))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The objective
#
# For a data set $x_1,\dots,x_N$ with distortions $D_n$ and rates $R_n$ we minimize the average
#
# $$\mathcal J=\frac1N\sum_{n}\big(D_n+\beta R_n\big). \tag{5.4}$$
#
# With $\beta=1$, as everywhere in this chapter, $-\mathcal J$ is the ELBO, averaged over the data. Other weights are
# the subject of [chapter 6, β and the rate–distortion curve](06_beta_and_the_rate_distortion_curve.ipynb); we shall
# meet them here only by accident, as bugs.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The encoder
#
# Chapter 2 kept a table of responsibilities: a row for each point, recomputed in every E-step. A table can say
# nothing about a point that it does not contain. So we use a function: a network with parameters $\phi$, the
# **encoder**, that reads $x$ and puts out the mean $\mu_\phi(x)\in\mathbb R^d$ and the variances
# $\sigma_\phi^2(x)\in\mathbb R^d_{>0}$ of a Gaussian with independent coordinates:
#
# $$q_\phi(z\mid x)=\mathcal N\big(z\mid \mu_\phi(x),\ \mathrm{diag}\,\sigma^2_\phi(x)\big). \tag{5.5}$$
#
# This is the *amortized* inference of chapter 4: the work of finding $q$ is done once, in training, and shared by all
# points. An E-step on a new image is a pass through the network.

# %% [markdown] slideshow={"slide_type": "subslide"}
# The logarithm of such a density is a sum over the coordinates, because the coordinates are independent:
#
# $$\log\mathcal N(z\mid\mu,\mathrm{diag}\,\sigma^2)=-\frac12\sum_{i=1}^{d}\Big(\log 2\pi+\log\sigma_i^2+\frac{(z_i-\mu_i)^2}{\sigma_i^2}\Big). \tag{5.6}$$
#
# A network's outputs may be any real numbers, and a variance must be positive. So the second half of the encoder's
# outputs is read as $\log\sigma_i^2$, in code `log_var`: every real number is then allowed, and no variance can reach
# zero. Remember this convention; one of the bugs below forgets it.

# %% slideshow={"slide_type": "fragment"}
def log_normal(z, mean, log_var):
    squared = (z - mean).square() / log_var.exp()
    return -0.5 * (math.log(2 * math.pi) + log_var + squared).sum(-1)            # Eq. (5.6)

z, mean, log_var = torch.randn(3, 100, 4)
theirs = Normal(mean, (0.5 * log_var).exp()).log_prob(z).sum(-1)
assert torch.allclose(log_normal(z, mean, log_var), theirs, atol=1e-4)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A gradient through a random draw
#
# We want to lower $\mathcal J$ by gradient descent on $\theta$ and $\phi$. The distortion is an average over
# $z\sim q_\phi(z\mid x)$, estimated from a draw. But how does a draw depend on $\phi$? As PyTorch sees it, not at
# all:

# %%
mean, log_var = torch.tensor(0.5, requires_grad=True), torch.tensor(-1.0, requires_grad=True)
plain = Normal(mean, (0.5 * log_var).exp()).sample()
print("A plain draw carries a gradient:", plain.requires_grad)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The way out, chapter 4's path, is to separate the chance from the parameters. Draw $\varepsilon$ from a fixed
# distribution, then shift and stretch it, coordinate by coordinate:
#
# $$z=\mu_\phi(x)+\sigma_\phi(x)\odot\varepsilon,\qquad \varepsilon\sim\mathcal N(0,I), \tag{5.7}$$
#
# where $\odot$ multiplies coordinate by coordinate. The distribution that we average over no longer depends on $\phi$,
# so the gradient may move inside the average, Eq. (4.26) (for $f$ as smooth as networks and log-likelihoods are):
#
# $$\nabla_\phi\,\mathbb E_{q_\phi}\big[f(z)\big]=\mathbb E_{\varepsilon}\big[\nabla_\phi f(\mu_\phi+\sigma_\phi\odot\varepsilon)\big]. \tag{5.8}$$
#
# This is *reparameterization*. A single $\varepsilon$ per point gives a noisy gradient that is right on average,
# which is what stochastic gradient descent needs. (The decoder's parameters $\theta$ need no such care: the
# distribution of $z$ does not depend on them.)

# %% slideshow={"slide_type": "fragment"}
def draw(mean, log_var, generator=None):
    eps = torch.randn(mean.shape, generator=generator)
    return mean + (0.5 * log_var).exp() * eps                                        # Eq. (5.7)

print("A reparameterized draw carries a gradient:", draw(mean, log_var).requires_grad)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Let us hold Eq. (5.8) against a case that we can do by hand: $f(z)=z^2$. Its average is $\mu^2+\sigma^2$, so the
# derivatives are $2\mu$ with respect to $\mu$, and $\sigma^2$ with respect to $\log\sigma^2$.

# %%
torch.manual_seed(0)
z = draw(mean.expand(1_000_000), log_var.expand(1_000_000))
by_mean, by_log_var = torch.autograd.grad(z.square().mean(), (mean, log_var))  # Eq. (5.8)
assert torch.isclose(by_mean, 2 * mean, rtol=0.01)
assert torch.isclose(by_log_var, log_var.exp(), rtol=0.01)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The rate, in closed form
#
# The distortion has to be sampled. The rate does not: for a Gaussian encoder and a standard normal prior it is a
# formula, a special case of chapter 4's divergence of two Gaussians. Its two halves are the *entropy* of $q$, Eq. (4.8),
#
# $$-\mathbb E_q\big[\log q(z)\big]=\frac12\sum_{i=1}^d\big(\log 2\pi+\log\sigma_i^2+1\big), \tag{5.9}$$
#
# and, since $\mathbb E_q[z_i^2]=\sigma_i^2+\mu_i^2$, its *cross-entropy* with the prior:
#
# $$-\mathbb E_q\big[\log p(z)\big]=\frac12\sum_{i=1}^d\big(\log 2\pi+\mu_i^2+\sigma_i^2\big). \tag{5.10}$$
#
# The rate is the second minus the first, and $\log 2\pi$ cancels. It is Eq. (4.10) with $p$'s means zero and $p$'s
# variances one (there, $q$'s were called $m_i$ and $v_i$):
#
# $$R=\mathrm{KL}\big(\mathcal N(\mu,\mathrm{diag}\,\sigma^2)\,\Vert\,\mathcal N(0,I)\big)=\frac12\sum_{i=1}^d\big(\mu_i^2+\sigma_i^2-1-\log\sigma_i^2\big). \tag{5.11}$$

# %% slideshow={"slide_type": "fragment"}
def gaussian_rate(mean, log_var):
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)               # Eq. (5.11)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Both halves and the whole, against the averages over many draws:

# %%
mean, log_var = torch.tensor([1.0, -0.5]), torch.tensor([-2.0, 0.3])
z = draw(mean.expand(400_000, 2), log_var.expand(400_000, 2), torch.Generator().manual_seed(0))
entropy = -log_normal(z, mean, log_var).mean()
cross_entropy = -log_normal(z, torch.zeros(2), torch.zeros(2)).mean()
log_2pi = math.log(2 * math.pi)
first = 0.5 * (log_2pi + log_var + 1).sum()                                      # Eq. (5.9)
second = 0.5 * (log_2pi + mean**2 + log_var.exp()).sum()                         # Eq. (5.10)
assert torch.isclose(entropy, first, atol=0.01) and torch.isclose(cross_entropy, second, atol=0.01)
assert torch.isclose(cross_entropy - entropy, gaussian_rate(mean, log_var), atol=0.01)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The formula knows what precision costs. The rate is zero only at $\mu=0$, $\sigma=1$, where $q$ is the prior and
# says nothing about $x$. Each halving of a small $\sigma$ costs another $\log 2$ nats: one bit more of the
# coordinate.

# %%
def rate_of(mean, sigma):
    return gaussian_rate(torch.full((len(sigma), 1), mean), 2 * sigma.log().unsqueeze(1))

fine, coarse = rate_of(0.0, torch.tensor([0.01, 0.02]))
assert torch.isclose(fine - coarse, torch.tensor(2.0).log(), atol=1e-3)  # half: one bit more

# %% [markdown] slideshow={"slide_type": "fragment"}
# The rate over $\sigma$, for three means:

# %%
sigma = torch.linspace(0.02, 2.5, 200)
figures.curves(
    sigma, {f"$\\mu = {mean:.0f}$": rate_of(mean, sigma) for mean in (0.0, 1.0, 2.0)},
    "The rate of one coordinate", "standard deviation $\\sigma$ of the encoder", "rate (nats)",
    markers=False,
    alt="Three curves of the rate over sigma, for means 0, 1 and 2. Each has its minimum at "
        "sigma = 1 and rises steeply towards sigma = 0; larger means lie higher. Only the "
        "curve for mean 0 touches zero.")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The distortion is a log-likelihood
#
# The decoder's output must be turned into $\log p_\theta(x\mid z)$: a genuine log-probability of the pixels,
# for real numbers a log-density, normalized over all images that could have been. Three choices cover most data. In
# each, the pixels are independent given $z$, so that we sum over $i=1..D$.
#
# ### Black or white pixels
#
# If $x_i\in\{0,1\}$, the decoder puts out a *logit* $a_i$ for each pixel, any real number, and
# $\rho_i=1/(1+e^{-a_i})$ is the probability of a 1 (a Bernoulli distribution). Write
# $\mathrm{softplus}(a)=\log(1+e^a)$. Then $\log\rho=\log\frac{e^a}{1+e^a}=a-\mathrm{softplus}(a)$ and
# $\log(1-\rho)=-\mathrm{softplus}(a)$, hence
#
# $$\log p(x\mid z)=\sum_i\big[x_i\log\rho_i+(1-x_i)\log(1-\rho_i)\big]=\sum_i\big[x_ia_i-\mathrm{softplus}(a_i)\big]. \tag{5.12}$$
#
# The right-hand form never takes the logarithm of a rounded zero.

# %% slideshow={"slide_type": "subslide"}
from torch.nn.functional import softplus


def bernoulli_log_prob(x, logits):
    return (x * logits - softplus(logits)).sum(-1)                                   # Eq. (5.12)

# %% [markdown] slideshow={"slide_type": "fragment"}
# PyTorch's own Bernoulli agrees:

# %%
logits = 3 * torch.randn(50, 64)
bits = torch.bernoulli(logits.sigmoid())
theirs = torch.distributions.Bernoulli(logits=logits).log_prob(bits).sum(-1)
assert torch.allclose(bernoulli_log_prob(bits, logits), theirs, atol=1e-4)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Grey pixels that count
#
# A pixel of our digits is a count: each was made from a 4 × 4 block of black or white dots, and says how many of the
# $n=16$ were black. A *binomial* distribution is made for that: $n$ Bernoulli trials with one $\rho_i$, and
# $\binom{n}{x_i}$ ways to arrange $x_i$ successes:
#
# $$\log p(x\mid z)=\sum_i\Big[\log\tbinom{n}{x_i}+x_ia_i-n\,\mathrm{softplus}(a_i)\Big]. \tag{5.13}$$
#
# The first term does not depend on the network, so no gradient ever feels it. It still belongs there: without it the
# number is no log-probability, and may not be compared with anything.

# %% slideshow={"slide_type": "fragment"}
def binomial_log_prob(x, logits, n=16):
    log_choices = math.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)
    return (log_choices + x * logits - n * softplus(logits)).sum(-1)                 # Eq. (5.13)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Over all values that a pixel can take, the probabilities sum to one, whatever the logit:

# %%
counts = torch.arange(17.0).unsqueeze(1)  # all that one pixel can be
for a in (-3.0, 0.0, 2.0):
    total = binomial_log_prob(counts, torch.tensor([a])).exp().sum()
    assert torch.isclose(total, torch.tensor(1.0), atol=1e-5)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Summing to one is what makes a formula a probability. Here are three of the distributions. A binomial with a middling
# mean is a hump of fixed width: keep that in mind for the comparison with baselines.

# %%
shapes = {f"$\\rho = {rho}$": binomial_log_prob(counts, torch.logit(torch.tensor([rho]))).exp()
          for rho in (0.05, 0.5, 0.9)}
figures.curves(
    counts.ravel(), shapes, "What Binomial(16, ρ) expects of one pixel",
    "grey level (count of 16)", "probability",
    alt="Three distributions over the grey levels 0 to 16: one piled up at 0, one a "
        "symmetric hump around 8, one leaning on 16.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Real-valued pixels
#
# If $x_i$ is a real number, the decoder may put out its mean $\hat x_i$, with Gaussian noise of one standard
# deviation $\sigma$ around it. (This $\sigma$ belongs to the decoder and has no index; the encoder's is
# $\sigma_\phi(x)$.) From Eq. (5.6), with all variances equal,
#
# $$\log p(x\mid z)=-\frac{\lVert x-\hat x\rVert^2}{2\sigma^2}-D\log\sigma-\frac D2\log 2\pi. \tag{5.14}$$
#
# The noise can be learnt like any other parameter. Average over the data; the derivative with respect to $\sigma$ is
# $\frac1N\sum_n\lVert x_n-\hat x_n\rVert^2/\sigma^3-D/\sigma$. Setting it to zero gives
#
# $$\sigma^2=\frac1{ND}\sum_{n}\lVert x_n-\hat x_n\rVert^2, \tag{5.15}$$
#
# the mean squared error. So the best $\sigma$ tells how well the decoder does, in the unit of the pixels.

# %% slideshow={"slide_type": "fragment"}
def gaussian_log_prob(x, x_hat, sigma):
    squared_error = (x - x_hat).square().sum(-1)
    constants = sigma.log() + 0.5 * log_2pi
    return -squared_error / (2 * sigma**2) - x.shape[-1] * constants             # Eq. (5.14)

# %% [markdown] slideshow={"slide_type": "fragment"}
# No other $\sigma$ makes the data likelier than that of Eq. (5.15):

# %%
x, x_hat = torch.randn(2, 200, 10)
best = (x - x_hat).square().mean().sqrt()                                            # Eq. (5.15)
rivals = torch.linspace(0.5, 3, 100)
values = torch.stack([gaussian_log_prob(x, x_hat, rival).mean() for rival in rivals])
assert (gaussian_log_prob(x, x_hat, best).mean() >= values).all()

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What a "reconstruction error" assumes
#
# Many programs minimize a squared error plus a weighted KL term. Is that a VAE? Multiply the Gaussian's $D_n+R_n$ by
# $2\sigma^2$:
#
# $$2\sigma^2\,(D_n+R_n)=\lVert x_n-\hat x_n\rVert^2+2\sigma^2R_n+\text{const}. \tag{5.16}$$
#
# (For a single draw of $z$; the constant depends on $\sigma$ alone.) So "squared error plus $\lambda$ times the KL"
# is a VAE whose noise has been fixed at $\sigma^2=\lambda/2$. The unweighted sum, $\lambda=1$, has chosen
# $\sigma=0.71$, whatever the pixels' unit is. Scaling the error, choosing $\sigma$ and choosing $\beta$ are one and
# the same decision, and a reconstruction error that is no log-likelihood takes it without telling. Three losses, one
# direction of descent:

# %% slideshow={"slide_type": "subslide"}
lam = 0.3
mean, log_var = torch.randn(2, 20, 2).requires_grad_().unbind(0)
decoder, x = nn.Linear(2, 10), torch.randn(20, 10)
x_hat, rate = decoder(draw(mean, log_var)), gaussian_rate(mean, log_var)

def slopes(loss):  # with respect to the decoder and to the encoder's outputs
    gradients = torch.autograd.grad(loss.sum(), (decoder.weight, mean, log_var), retain_graph=True)
    return torch.cat([gradient.ravel() for gradient in gradients])

scaled_error = (x - x_hat).square().sum(-1) + lam * rate
chosen_sigma = -gaussian_log_prob(x, x_hat, torch.tensor(lam / 2).sqrt()) + rate  # σ² = λ/2
chosen_beta = -gaussian_log_prob(x, x_hat, torch.tensor(0.5).sqrt()) + lam * rate  # σ² = 1/2, β = λ
assert torch.allclose(slopes(scaled_error), lam * slopes(chosen_sigma), atol=1e-4)  # Eq. (5.16)
assert torch.allclose(slopes(scaled_error), slopes(chosen_beta), atol=1e-4)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The whole thing in plain code
#
# All parts are there. Two small networks: the encoder reads 64 pixels and puts out $2d$ numbers, $\mu$ and
# $\log\sigma^2$; the decoder reads $d$ numbers and puts out 64 logits.

# %%
def networks(d, seed=0):
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(),
                            nn.Linear(128, 2 * d))
    decoder = nn.Sequential(nn.Linear(d, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(),
                            nn.Linear(128, 64))
    return encoder, decoder

# %% [markdown] slideshow={"slide_type": "fragment"}
# The two terms of Eq. (5.3), for a batch $x$ of shape $(N, 64)$. The encoder sees pixels between 0 and 1; the
# likelihood sees the counts.

# %%
def elbo_parts(x, encoder, decoder, generator):
    mean, log_var = encoder(x / 16).chunk(2, dim=-1)        # Eq. (5.5)
    z = draw(mean, log_var, generator)                      # Eq. (5.7)
    distortion = -binomial_log_prob(x, decoder(z))          # Eq. (5.13)
    return distortion, gaussian_rate(mean, log_var)         # Eq. (5.11)

# %% [markdown] slideshow={"slide_type": "subslide"}
# And the training loop: shuffle, take batches of 128, one draw of $z$ for each image, one step of Adam (a gradient
# descent that adapts its step to each parameter). It returns the mean distortion and rate of each epoch, that is, of
# each pass through the data.

# %%
def train_plain(parts, encoder, decoder, x, epochs, lr=2e-3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=lr)
    history = []
    for _ in range(epochs):
        sums = torch.zeros(2)
        for index in torch.randperm(len(x), generator=generator).split(128):
            distortion, rate = parts(x[index], encoder, decoder, generator)
            loss = (distortion + rate).mean()               # Eq. (5.4), beta = 1
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sums += torch.stack([distortion.sum(), rate.sum()]).detach()
        history.append(sums / len(x))
    return torch.stack(history)

# %% [markdown] slideshow={"slide_type": "subslide"}
# That is the whole VAE. We train one with $d=2$ for 100 epochs.

# %%
encoder, decoder = networks(d=2)
history = train_plain(elbo_parts, encoder, decoder, train.x, epochs=100)
assert history[-1].sum() < history[0].sum() - 200           # more than 200 nats an image gained
assert history[-1, 1] > 4 > 1 > history[4, 1]  # and the rate has grown from next to nothing

# %% [markdown] slideshow={"slide_type": "fragment"}
# Both terms, epoch by epoch:

# %%
figures.curve_panels(
    range(1, 101), {"distortion": history[:, 0], "rate": history[:, 1]}, "epoch", "nats per image",
    alt="Two curves over 100 epochs, side by side. The distortion falls, rests on a plateau, "
        "and falls again; the rate is close to zero during the plateau, then rises steeply "
        "and levels off at a few nats.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Read the two curves together. In the first epochs the decoder learns the mean image, and the distortion rests there:
# after one false start the code says nothing, and costs nothing. Then the encoder finds that a nat of rate can save
# *many* nats of distortion, and the rate rises steeply. The encoder buys precision as long as one more nat of rate
# saves more than one nat of distortion.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### It equals the library
#
# The library holds the same in `VAE`, spread over five short files. With the same weights and the same random numbers
# it must give the same distortion, the same rate, and the same gradients. The function below puts our weights into the
# library's model; those that we have just trained go first.

# %%
from gmvae_lib.vae import VAE


def as_library(encoder, decoder):
    model = VAE.build(data_dim=64, latent_dim=decoder[0].in_features, hidden=(128, 128))
    for theirs, ours in ((model.encoder, encoder), (model.decoder, decoder)):
        theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values())))
    return model

flat = as_library(encoder, decoder)                         # d = 2, trained by our own code

# %% [markdown] slideshow={"slide_type": "fragment"}
# From a fresh start, distortion and rate of every image:

# %%
encoder, decoder = networks(d=2)
model = as_library(encoder, decoder)
distortion, rate = elbo_parts(train.x, encoder, decoder, torch.Generator().manual_seed(1))
elbo = model.elbo(train.x, generator=torch.Generator().manual_seed(1))
assert torch.allclose(elbo.distortion, distortion, rtol=1e-5)
assert torch.allclose(elbo.rate, rate, rtol=1e-4, atol=1e-5)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The gradients, parameter by parameter:

# %%
(distortion + rate).mean().backward()
(-elbo.value).mean().backward()
plain = [p.grad for network in (encoder, decoder) for p in network.parameters()]
pairs = list(zip(plain, (p.grad for p in model.parameters())))
print("Every gradient agrees:", all(torch.allclose(*pair, rtol=1e-3, atol=1e-4) for pair in pairs))

# %% [markdown] slideshow={"slide_type": "subslide"}
# Even whole trainings agree. `fit` draws its shuffles and its noise in the order of our loop, so the same seed leads
# to the same weights. (It is faster and has a progress bar, checkpoints, and more; none of that changes the result.
# Networks of this size gain nothing from a GPU, so every `fit` here names the CPU, where our own tensors are.)

# %%
from gmvae_lib.training import fit

encoder, decoder = networks(d=2)
model = as_library(encoder, decoder)
train_plain(elbo_parts, encoder, decoder, train.x, epochs=5)
fit(model, train, epochs=5, lr=2e-3, device="cpu")
trained = as_library(encoder, decoder)
pairs = list(zip(trained.parameters(), model.parameters()))
agree = all(torch.allclose(*pair, atol=1e-3) for pair in pairs)
print("Every weight agrees after five epochs:", agree)

# %% [markdown] slideshow={"slide_type": "fragment"}
# From here on, `VAE` and `fit` are imported. So are the formulas behind them, which we have now built:
# `gaussian.kl_standard`, `gaussian.log_prob_diag`, `likelihood.Bernoulli`, `Binomial` and `Gaussian`.

# %%
from gmvae_lib.gaussian import kl_standard, log_prob_diag
from gmvae_lib.likelihood import Bernoulli, Binomial, Gaussian

mean, log_var, z = torch.randn(3, 50, 4)
x, logits = train.x[:50], torch.randn(50, 64)
assert torch.allclose(kl_standard(mean, log_var), gaussian_rate(mean, log_var))
assert torch.allclose(log_prob_diag(z, mean, log_var), log_normal(z, mean, log_var))
assert torch.allclose(Binomial(16).log_prob(x, logits), binomial_log_prob(x, logits), rtol=1e-5)
bits, sigma = (x > 8).float(), torch.tensor(2.0)
assert torch.allclose(Bernoulli().log_prob(bits, logits), bernoulli_log_prob(bits, logits))
assert torch.allclose(Gaussian(sigma=2.0).log_prob(x, logits), gaussian_log_prob(x, logits, sigma))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Digits
#
# Two models: one with $d=2$ for seeing, which our own code has trained already, and one with $d=8$ for drawing better.
# Everything but $d$ is the same.

# %%
def trained_vae(seed=0, likelihood=None, x=train.x):        # by default Binomial(16)
    torch.manual_seed(seed)
    model = VAE.build(data_dim=64, latent_dim=8, hidden=(128, 128), likelihood=likelihood)
    fit(model, x, epochs=100, lr=2e-3, seed=seed, device="cpu")
    return model

deep = trained_vae()

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Reconstructions
#
# Held-out images go through the encoder, and their mean $\mu_\phi(x)$ through the decoder. Two numbers are not enough
# to tell a 5 from a 3 in every hand; eight keep much more of each stroke.

# %%
shown = test.x[:12]
coarse, fine = ((model.reconstruct(test.x) - test.x).square().mean() for model in (flat, deep))
assert fine < 0.7 * coarse                                  # mean squared errors
figures.images(
    torch.cat([shown, flat.reconstruct(shown), deep.reconstruct(shown)]), test.image_shape,
    "Held-out digits and their reconstructions", columns=12, row_labels=["image", "d = 2", "d = 8"],
    alt="Three rows of twelve digits: held-out images, their blurred and sometimes wrong "
        "reconstructions from two numbers, and closer ones from eight numbers.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Samples
#
# New images: draw $z$ from the prior and decode. The first two rows show the mean of $p_\theta(x\mid z)$, as is
# customary. The last is an honest draw of the pixels, which is what the model claims the data look like.

# %%
def sampled(model, noise=False):
    return model.sample(12, noise=noise, generator=torch.Generator().manual_seed(4))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Twelve of each:

# %%
figures.images(
    torch.cat([sampled(flat), sampled(deep), sampled(deep, noise=True)]), test.image_shape,
    "Images drawn from the prior", columns=12,
    row_labels=["d = 2, means", "d = 8, means", "d = 8, draws"],
    alt="Three rows of twelve generated digits: smooth ones from two latent dimensions, more "
        "varied ones from eight, some of them between two digits, and rougher ones where "
        "each pixel was drawn.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The samples with $d=8$ are livelier, and some of them are nothing in particular: the prior puts $z$ where no image
# was encoded. [Chapter 7](07_the_prior_is_the_problem.ipynb) takes up that thread, and [chapter
# 8](08_mixture_prior_vae.ipynb) learns a better prior.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The latent map
#
# With $d=2$ we can see where the encoder puts each image. The colours come from the labels, which the model has never
# seen.

# %%
with torch.no_grad():
    codes, log_var = flat.encode(test.x)
same = torch.cdist(codes, codes).fill_diagonal_(math.inf).argmin(1)
assert (test.y[same] == test.y).float().mean() > 0.6  # nearest neighbours are mostly the same digit

# %% [markdown] slideshow={"slide_type": "fragment"}
# On the map:

# %%
figures.scatter(
    codes, test.y, "Held-out digits on the latent plane", xlabel="$z_1$", ylabel="$z_2$",
    size=(6.6, 5), legend="digit",
    alt="A scatter of encoded held-out digits over the latent plane, with a marker for each "
        "digit. Most digits form clusters of their own around the origin; some clusters "
        "touch and mix.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Traversals
#
# Two ways from one image to another: mix the pixels, or walk in a straight line between their codes and decode on the
# way. Mixed pixels show two ghosts at once. The walk bends the stroke, and most of what it passes could have been
# written by someone.

# %%
share = torch.linspace(0, 1, 12).unsqueeze(1)
rows = []
for a, b in ((4, 3), (3, 6)):
    first, last = test.x[test.y == a][:1], test.x[test.y == b][:1]
    with torch.no_grad():
        walk = deep.decode(torch.lerp(deep.encode(first)[0], deep.encode(last)[0], share))
    rows += [torch.lerp(first, last, share), walk]

# %% [markdown] slideshow={"slide_type": "fragment"}
# From left to right, in twelve steps:

# %%
figures.images(
    torch.cat(rows), test.image_shape, "From a 4 to a 3, and from a 3 to a 6, two ways each",
    columns=12,
    row_labels=["pixels mixed", "latent walk"] * 2,
    alt="Four rows of twelve images, from a 4 to a 3 and from a 3 to a 6. Where pixels are "
        "mixed, one image fades into the other; on the latent walk the stroke itself changes "
        "shape.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Walk yourself
#
# Move the point with the two sliders (click one, then use the arrow keys). The picture shows where the point stands
# among the encoded held-out digits, what the decoder draws there, and the nearest image that was really encoded. Look
# for places where the decoder is sure of itself far away from any data.

# %%
explorers.LatentExplorer(flat, test)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How good is it?
#
# The next sections ask how good the model is and which such numbers may be compared, how far the bound lies below the
# truth, and whether training finds the best there is. We judge on the 360 held-out images, in nats per image.
#
# Such a number is uncertain in three ways, each of its own size: the draw of $z$ inside the bound, the random start and
# shuffling of the training, and the choice of test images. First the draws: 20 evaluations of the same model.

# %%
@torch.no_grad()
def held_out(model, x=test.x, draws=20):
    generator = torch.Generator().manual_seed(0)
    elbos = [model.elbo(x, generator=generator).value.mean() for _ in range(draws)]
    return -torch.stack(elbos)                              # nats per image, one for each draw

assert held_out(flat).std() < 1.0 and held_out(deep).std() < 1.0

# %% [markdown] slideshow={"slide_type": "fragment"}
# Less than one nat between draws, since each averages over 360 images already; the mean of 20 is sharper still. The
# spread between trainings is larger, so we train the deeper one twice more. (The other is so far away that its own
# spread, of about two nats, does not matter.)

# %%
scores = {2: [held_out(flat).mean()], 8: [held_out(deep).mean()]}
scores[8] += [held_out(trained_vae(seed)).mean() for seed in (1, 2)]
assert max(scores[8]) < scores[2][0] - 20                  # by far more than the spread

# %% [markdown] slideshow={"slide_type": "fragment"}
# And the images: another 360 would have another mean. Its standard error is the images' spread over $\sqrt{360}$:

# %%
with torch.no_grad():
    each = -deep.elbo(test.x).value
assert 0.8 < each.std() / math.sqrt(360) < 2               # about one nat

# %% [markdown] slideshow={"slide_type": "fragment"}
# So a difference of a nat or two between two models means nothing here, and one of ten means a great deal.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Baselines in the same unit
#
# A number of nats means little alone. What do models without any network reach? All of the following are
# probabilities of the same 17-level images, so they may be compared with each other and with the ELBO:
#
# - **uniform**: all 17 grey levels equally likely, which costs exactly $64\log 17$;
# - **the mean image**: an independent Binomial(16) for each pixel, with the pixel's mean in the training data;
# - **histograms**: for each pixel, the frequencies of its 17 levels in the training data (plus one half, so that none
#   is zero).

# %%
rates = (train.x.sum(0) + 0.5) / (16 * len(train) + 1)
levels = nn.functional.one_hot(train.x.long(), 17).sum(0) + 0.5                      # (64, 17)
histograms = (levels / levels.sum(1, keepdim=True)).log()
scores["uniform"] = [torch.tensor(64 * math.log(17))]
scores["mean image"] = [-binomial_log_prob(test.x, torch.logit(rates)).mean()]
scores["histograms"] = [-histograms[torch.arange(64), test.x.long()].sum(1).mean()]

# %% [markdown] slideshow={"slide_type": "fragment"}
# All of them on one axis; a dot is a training:

# %%
scores = dict(sorted(scores.items(), key=lambda item: -float(torch.stack(item[1]).mean())))
figures.strip(
    {name if isinstance(name, str) else f"VAE, d = {name}": torch.stack(values)
     for name, values in scores.items()},
    "Held-out digits: fewer nats are better", "−log p(x), or its bound −ELBO (nats per image)",
    alt="Dots for five models on an axis of nats per held-out image. The mean image costs "
        "the most, then the uniform guess, then the VAE with two dimensions; the histograms "
        "and the VAE with eight dimensions cost least and are close together.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Read it honestly. The mean image, at 251 nats, is *worse than knowing nothing*, which costs 181.3: a Binomial has a
# standard deviation of at most 2 levels, and pixels with a middling mean spread by more than 4. The histograms know
# that. With no idea of a digit they cost 107.5 nats, beat the two-dimensional VAE (about 153) by over 40, and come
# within a few nats of the other (about 104 ± 2 between trainings), which is hardly more than the uncertainties above.

# %%
middling = (train.x.mean(0) > 4) & (train.x.mean(0) < 12)
assert train.x.std(0)[middling].min() > 4
assert abs(scores["mean image"][0] - 251) < 1 and abs(scores["histograms"][0] - 107.5) < 0.3
assert all(abs(score - 153) < 8 for score in scores[2])
assert all(abs(score - 104) < 8 for score in scores[8])

# %% [markdown] slideshow={"slide_type": "fragment"}
# What the VAE adds to the mean image, about 100 or 150 nats, is all due to $z$: the Binomial's narrow hump is only
# right once the decoder knows *which* digit it is drawing, and how. And models with similar scores draw very different
# pictures:

# %%
drawn = torch.distributions.Categorical(logits=histograms).sample((12,)).float()
figures.images(
    torch.cat([drawn, sampled(deep, noise=True)]), test.image_shape,
    "Draws of two models with similar scores",
    columns=12, row_labels=["histograms", "VAE, d = 8"],
    alt="Two rows of twelve draws. The histograms' are specks without any shape; most of the "
        "VAE's are rough but recognizable digits.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Two lessons. A likelihood is chosen, and choosing it well can be worth as much as a network. And a held-out
# log-likelihood, indispensable as it is, does not say how the samples look.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Likelihoods in one unit
#
# The histograms did well because they know how widely grey levels spread. Would another likelihood than the Binomial
# serve the VAE better? We keep the networks, $d=8$ and the 100 epochs, and exchange the likelihood alone. And which of
# the numbers that come out may stand in one table?
#
# ### A density is not a probability
#
# Let us do what many programs do: divide the pixels by 16 and take the Gaussian of Eq. (5.14), with a learnt
# $\sigma$.

# %% slideshow={"slide_type": "fragment"}
gaussians = [trained_vae(seed, Gaussian(sigma=0.25), train.x / 16) for seed in (0, 1)]
densities = torch.stack([held_out(model, test.x / 16).mean() for model in gaussians])
print("−ELBO of the two trainings, below zero:", (densities < 0).tolist())

# %% [markdown] slideshow={"slide_type": "fragment"}
# An image would cost *less than nothing*. With a probability that cannot be: its logarithm is never positive. But a
# density may well exceed one, and its value depends on the unit. If $y=x/s$ has the density $p_y$, then a small cube of
# side $sh$ around $x$ is a cube of side $h$ around $y$, and both hold the same probability,
# $p(x)\,(sh)^D\approx p_y(x/s)\,h^D$, ever more exactly as $h\to0$; so $p(x)\,s^D=p_y(x/s)$, and
#
# $$\log p(x)=\log p_y(x/s)-D\log s. \tag{5.17}$$
#
# For $s=16$ and $D=64$ the last term is 177.4 nats. In grey levels the same two models cost about 150 nats an
# image; with grey levels sixteen times as fine, another 177 more. No figure is wrong, but which one belongs beside the
# Binomial's 104?

# %%
in_levels = densities + 64 * math.log(16)                                            # Eq. (5.17)
assert ((in_levels - 150).abs() < 6).all()

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Rounding makes a probability
#
# A pixel is a whole number. Let the Gaussian speak of a real number behind it, which is then rounded. Each grey level
# owns a bin of width one, and its probability is what the density holds there. With $\Phi$, the distribution function
# of the standard normal,
#
# $$P(x\mid z)=\prod_i\int_{-1/2}^{1/2}\mathcal N(x_i+u\mid\hat x_i,\sigma^2)\,du=\prod_i\Big[\Phi\Big(\frac{x_i+\frac12-\hat x_i}\sigma\Big)-\Phi\Big(\frac{x_i-\frac12-\hat x_i}\sigma\Big)\Big]. \tag{5.18}$$
#
# Where the density hardly changes within a bin, the bin holds the density times its width, which is one *in grey
# levels*: that answers which unit. How much is lost by taking the one for the other? The integral is an average over
# a $u$ that is uniform on $[-\frac12,\frac12]^D$, and by Jensen's inequality
#
# $$\log P(x\mid z)=\log\mathbb E_u\big[p(x+u\mid z)\big]\ \ge\ \mathbb E_u\big[\log p(x+u\mid z)\big]. \tag{5.19}$$

# %% [markdown] slideshow={"slide_type": "fragment"}
# The right side is what a program estimates that adds uniform noise to its pixels before it trains a density on them
# (*dequantization*): a lower bound on a log-probability. For the Gaussian the noise is not even needed. With
# $\mathbb E[u_i]=0$ and $\mathbb E[u_i^2]=\frac1{12}$, the squared error grows by $D/12$ on average, and
#
# $$\mathbb E_u\big[\log p(x+u\mid z)\big]=\log p(x\mid z)-\frac D{24\sigma^2}. \tag{5.20}$$
#
# With the $\sigma$ of about two grey levels that our models have learnt, the correction is less than a nat. So their
# 150 nats, with that nat added, bound a probability of the image, and may be compared.

# %%
sigmas = 16 * torch.stack([model.likelihood.sigma.detach() for model in gaussians])
dequantized = in_levels + 64 / (24 * sigmas**2)                                      # Eq. (5.20)
assert (dequantized - in_levels < 1).all()

# %% [markdown] slideshow={"slide_type": "subslide"}
# For Eq. (5.18) itself we need the logarithm of a difference of two $\Phi$, which is a rounded zero in the tails. As
# the normal is symmetric, we may move both to the left tail, where PyTorch knows $\log\Phi$:

# %%
def log_share(low, high, x_hat, sigma):                     # of N(x_hat, sigma²), pixel by pixel
    a, b = (low - x_hat) / sigma, (high - x_hat) / sigma
    a, b = torch.where(a + b > 0, -b, a), torch.where(a + b > 0, -a, b)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    return log_b + torch.log(-torch.expm1(log_a - log_b))   # log(Φ(b) - Φ(a))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Over all whole numbers the shares sum to one, and they obey the bound:

# %%
whole, x_hat, sigma = torch.arange(-60.0, 61), torch.tensor(3.3), torch.tensor(1.9)
rounded = log_share(whole - 0.5, whole + 0.5, x_hat, sigma)                          # Eq. (5.18)
bounds = Normal(x_hat, sigma).log_prob(whole) - 1 / (24 * sigma**2)                  # Eq. (5.20)
assert torch.isclose(rounded.exp().sum(), torch.tensor(1.0), atol=1e-5)
assert (bounds <= rounded + 1e-5).all()                                              # Eq. (5.19)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Clipping gives back what the edges lose
#
# That sum ran over *all* whole numbers, and no pixel is $-3$ or 20. Of what a Gaussian with $\hat x_i=0$ and $\sigma=2$
# holds, 40 % lies below $-\frac12$, and is spent on images that do not exist. So let the number be rounded, and then
# clipped to 0..16: the lowest level owns everything below $\frac12$, the highest everything above $15\frac12$. With the
# edges $b_0=-\infty$, $b_k=k-\frac12$ for $k=1..16$, and $b_{17}=\infty$,
#
# $$P(x\mid z)=\prod_i\Big[\Phi\Big(\frac{b_{x_i+1}-\hat x_i}\sigma\Big)-\Phi\Big(\frac{b_{x_i}-\hat x_i}\sigma\Big)\Big]. \tag{5.21}$$
#
# The 17 bins tile the line, so this sums to one over the images that do exist; and it is nowhere below Eq. (5.18). As
# a likelihood of our own for the library's `VAE` (a 1000 is as good as infinity, and keeps the gradients finite):

# %% slideshow={"slide_type": "fragment"}
class Clipped(Gaussian):                                    # params and sigma in units of 16 levels
    def log_prob(self, x, params):
        low, high = torch.where(x > 0, x - 0.5, -1e3), torch.where(x < 16, x + 0.5, 1e3)
        return log_share(low, high, 16 * params, 16 * self.sigma).sum(-1)            # Eq. (5.21)

    def sample(self, params, generator=None):
        return (16 * super().sample(params, generator)).round().clamp(0, 16)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Its probabilities sum to one, and its draws occur as often as they say:

# %%
likelihood, params = Clipped(sigma=0.25).requires_grad_(False), torch.full((100_000, 1), 0.1)
shares = likelihood.log_prob(counts, params[:17]).exp()
drawn = likelihood.sample(params, torch.Generator().manual_seed(0))
assert torch.isclose(shares.sum(), torch.tensor(1.0), atol=1e-5)
assert torch.allclose(drawn.ravel().long().bincount(minlength=17) / 100_000, shares, atol=0.01)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The mean may lie outside of 0..16. Then most of the probability piles up at one end:

# %%
shapes = {f"$\\hat x = {mean}$": likelihood.log_prob(counts, torch.tensor([[mean / 16]])).exp()
          for mean in (-6, 8, 18)}
figures.curves(
    counts.ravel(), shapes, "A Gaussian, rounded and clipped to 0..16 (σ = 4)",
    "grey level (count of 16)", "probability",
    alt="Three distributions over the grey levels 0 to 16: one with nearly all of its probability "
        "at 0, one a low, wide hump around 8, one rising towards 16 with a peak there.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The same networks, read in another way
#
# First the same encoders, decoders and $\sigma$, without any training, read as rounded *and clipped*. Then two models
# that are trained with Eq. (5.21) from the start. (With `scale=16` the encoder sees $x/16$, as before; `sigma` is where
# the learnt $\sigma$ starts.)

# %%
def as_clipped(model):
    likelihood = Clipped(sigma=float(model.likelihood.sigma.detach()), scale=16)
    return VAE(model.encoder, model.decoder, likelihood)

read_again = [held_out(as_clipped(model)).mean() for model in gaussians]

# %% [markdown] slideshow={"slide_type": "fragment"}
# The training, from the same seeds:

# %%
clipped = [trained_vae(seed, Clipped(sigma=0.25, scale=16)) for seed in (0, 1)]
learnt = [held_out(model).mean() for model in clipped]
assert max(learnt) < min(scores[8]) - 6 and max(scores[8]) + 2 < min(read_again)
assert max(read_again) < min(dequantized) - 30

# %% [markdown] slideshow={"slide_type": "fragment"}
# Merely to be read as what pixels are is worth more than 30 nats to the Gaussian. To be trained as such saves about
# 20 more, and now it is better than the Binomial, by far more than the spread between trainings. (Three times the
# epochs bring the Binomial to about 100, and leave it ten behind.) The two pictures of distributions show why.
# Binomial(16) has a standard deviation of at most 2, in the middle, and cannot admit that it knows less than that. The
# $\sigma$ here was learnt, and is larger; and the two ends take whatever lies beyond them, while a Binomial reaches 16
# surely only with $\rho=1$. It is seen in drawn pixels: 9 % of the data's are full, about 3 % of the Binomial's, again
# 9 % of the clipped Gaussian's.

# %%
def full(model):
    pixels = model.sample(2000, noise=True, generator=torch.Generator().manual_seed(0))
    return float((pixels == 16).float().mean())

assert all(16 * model.likelihood.sigma > 2 for model in clipped)
assert full(deep) < 0.055 and abs(full(clipped[0]) - (train.x == 16).float().mean()) < 0.02

# %% [markdown] slideshow={"slide_type": "fragment"}
# Twelve of each, beside held-out images:

# %%
figures.images(
    torch.cat([test.x[:12], sampled(deep, noise=True), sampled(clipped[0], noise=True)]),
    test.image_shape, "Data, and pixels drawn from two models", columns=12, vmax=16,
    row_labels=["data", "Binomial", "clipped Gaussian"],
    alt="Three rows of twelve images: held-out digits, with much full black; rough digits drawn "
        "from the Binomial model, in softer greys; rough digits drawn from the clipped Gaussian, "
        "with more full black.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Bits are other data
#
# A Bernoulli needs black or white. Let $b(x)$ be the image with $b_i=1$ where $x_i>8$:

# %%
bernoulli = trained_vae(0, Bernoulli(), (train.x > 8).float())
bits_cost = held_out(bernoulli, (test.x > 8).float()).mean()
assert abs(bits_cost - 18.4) < 1.5

# %% [markdown] slideshow={"slide_type": "fragment"}
# 18 nats, where the others take 90 and more! But the others say more. The bits follow from the grey levels, so
# every model of $x$ splits into two parts, exactly:
#
# $$\log P(x)=\log P\big(b(x)\big)+\log P\big(x\mid b(x)\big). \tag{5.22}$$
#
# The second term is never positive: whoever describes the grey levels has paid for the bits, too. Between 18 and 104
# there is no comparison until the second term is paid. We can pay it in the plainest way, with histograms
# again: for each pixel, the frequencies of the levels 0..8 among themselves, and of 9..16 among themselves.

# %%
dark = torch.arange(17) > 8
within = levels / torch.where(dark, (levels * dark).sum(1, True), (levels * ~dark).sum(1, True))
rest = -within.log()[torch.arange(64), test.x.long()].sum(1).mean()
from_bits = bits_cost + rest                                                         # Eq. (5.22)
assert abs(rest - 83) < 0.3

# %% [markdown] slideshow={"slide_type": "fragment"}
# The rest costs 83 nats, together 101: a probability of the 17-level image, like all the others. That may be set
# beside the Binomial's 104, and it says that the two are about equally good.

# %% [markdown] slideshow={"slide_type": "subslide"}
# Everything that is a probability of the same image, on one axis:

# %%
rows = {
    "Gaussian, rounded": dequantized, "the same, clipped": torch.stack(read_again),
    "histograms": torch.stack(scores["histograms"]), "Binomial": torch.stack(scores[8]),
    "bits, then histograms": from_bits.reshape(1), "trained clipped": torch.stack(learnt),
}
figures.strip(
    rows, "VAEs with d = 8, and the histograms, in one unit",
    "−log P(x), or its bound −ELBO (nats per image)",
    alt="Dots for six models on an axis of nats per held-out image. The rounded Gaussian costs by "
        "far the most; the same networks read as clipped much less; histograms, Binomial and bits "
        "followed by histograms lie close together; the Gaussian trained as clipped costs least.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# | likelihood ($d=8$, same networks, same epochs) | nats per held-out image | of what |
# |---|---|---|
# | Gaussian, pixels in 0..1 | about −28 | a density: its unit decides |
# | the same in grey levels | about 150 | a density, but less than a nat from a probability |
# | the same, rounded and clipped | about 112 | a probability of the 17-level image |
# | Binomial(16) | about 104 ± 2 | a probability of the 17-level image |
# | Bernoulli on bits | about 18 | a probability of another, coarser image |
# | the same, and histograms for the rest | about 101 | a probability of the 17-level image |
# | Gaussian, rounded and clipped, trained so | about 90 ± 1 | a probability of the 17-level image |
#
# Before two likelihoods are compared, two questions: is each a *probability* (or both densities, in one unit)? And of
# the *same data*?

# %%
for values, stated in ((densities, -28), (dequantized, 150.5), (read_again, 112), (learnt, 90.5)):
    assert all(abs(value - stated) < 6 for value in values)
assert abs(from_bits - 101.4) < 2

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One bound, three routes
#
# The VAEs' numbers are bounds. How far are they from $\log p_\theta(x)$? To see, we compute the bound in three ways: by
# a formula, where there is one; by draws, everywhere; and with several draws inside the logarithm, which raises it.
# First on the toy, where a grid knows the truth, and with two densities $q$: a *narrow* one,
# $\mathcal N(1.2,\,0.25^2)$, which fits one of the posterior's two humps, and a *broad* one, the prior itself.
#
# ### First: a formula
#
# The toy's decoder $(z/4,\ z^2/2)$ is a polynomial, so the average over $z=m+s\varepsilon$ needs a few moments only:
# $\mathbb E[z]=m$, $\mathbb E[z^2]=m^2+s^2$, and, since $\mathbb E[\varepsilon^4]=3$, $\mathbb E[z^4]=m^4+6m^2s^2+3s^4$.
# Expand the two squares and average:
#
# $$\mathbb E_q\lVert x-f(z)\rVert^2=x_1^2-\frac{x_1m}2+\frac{m^2+s^2}{16}+x_2^2-x_2(m^2+s^2)+\frac{m^4+6m^2s^2+3s^4}4. \tag{5.23}$$
#
# By Eq. (5.14) with two pixels, $D(x)=\mathbb E_q\lVert x-f(z)\rVert^2/2\sigma^2+\log2\pi\sigma^2$, where $\sigma=0.3$. The
# rate is Eq. (5.11).

# %% slideshow={"slide_type": "fragment"}
def toy_formula(m, s):
    (x1, x2), second, fourth = point, m**2 + s**2, m**4 + 6 * m**2 * s**2 + 3 * s**4
    squares = x1**2 - x1 * m / 2 + second / 16 + x2**2 - x2 * second + fourth / 4    # Eq. (5.23)
    distortion = squares / (2 * 0.09) + math.log(2 * math.pi * 0.09)                 # Eq. (5.14)
    return -(distortion + 0.5 * (second - 1) - math.log(s))                          # Eq. (5.11)

toy_q = {"narrow q": (1.2, 0.25), "broad q": (0.0, 1.0)}
assert all(torch.isclose(toy_formula(*q), toy_elbo(*q)) for q in toy_q.values())

# %% [markdown] slideshow={"slide_type": "fragment"}
# A formula has no noise. But it exists for polynomials and a few others; through a network there is none.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Second: draws
#
# Average over draws $z_s\sim q$. Either the distortion alone, with the rate in closed form, as we have done so far; or
# the whole of $\log p(x,z_s)-\log q(z_s)$, which needs no formula for the rate.

# %%
def toy_draws(mean, sd, size):                              # the two kinds
    z = mean + sd * torch.randn(size, dtype=torch.float64)                           # Eq. (5.7)
    log_p = toy_log_likelihood(point, z)
    split = log_p + 0.5 - 0.5 * (mean**2 + sd**2) + math.log(sd)                     # Eq. (5.11)
    return split, log_p + prior.log_prob(z) - Normal(mean, sd).log_prob(z)

torch.manual_seed(0)
split, whole = toy_draws(*toy_q["narrow q"], (1_000_000,))
assert abs(split.mean() - toy_formula(1.2, 0.25)) < 0.01 and abs(whole.mean() - split.mean()) < 0.01
print("The second kind is less noisy here:", bool(whole.std() < 0.9 * split.std()))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Both are right on average. The second is *less* noisy, although more of it is drawn: near the posterior,
# $\log p(x,z)$ and $\log q(z)$ rise and fall together, and if $q$ were the posterior, their difference would be
# $\log p(x)$ for whatever $z$, without any noise.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Third: several draws inside the logarithm
#
# For independent draws $z_s\sim q_\phi(z\mid x)$, each ratio $w_s=p_\theta(x,z_s)/q_\phi(z_s\mid x)$ has the mean
# $\int p_\theta(x,z)\,dz=p_\theta(x)$ (for a $q$ that is nowhere zero). Average $S$ such ratios *before* taking the
# logarithm, and you have the *importance-weighted* bound:
#
# $$\mathcal L_S(x)=\mathbb E\Big[\log\frac1S\sum_{s=1}^{S}w_s\Big]\ \le\ \log\mathbb E\Big[\frac1S\sum_{s=1}^{S}w_s\Big]=\log p_\theta(x). \tag{5.24}$$
#
# The inequality is Jensen's. $S=1$ is the ELBO. And more draws never hurt:
#
# $$\text{ELBO}(x)=\mathcal L_1(x)\ \le\ \mathcal L_2(x)\ \le\ \mathcal L_3(x)\ \le\ \dots\ \le\ \log p_\theta(x). \tag{5.25}$$

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Proof.* Take $S+1$ ratios, and let $\bar w_{-j}$ be the mean of all but the $j$-th. Each ratio is left out once, so
# the mean of all is the mean of the $\bar w_{-j}$. Jensen again:
#
# $$\log\frac1{S+1}\sum_{s=1}^{S+1}w_s=\log\frac1{S+1}\sum_{j=1}^{S+1}\bar w_{-j}\ \ge\ \frac1{S+1}\sum_{j=1}^{S+1}\log\bar w_{-j}.$$
#
# The average of the left side is $\mathcal L_{S+1}$. On the right, each $\bar w_{-j}$ is a mean of $S$ independent
# ratios, so every term averages to $\mathcal L_S$, and so does their mean. ∎ By the law of large numbers the mean
# ratio settles on $p_\theta(x)$, and the bound rises all the way to $\log p_\theta(x)$ (wherever the ELBO is finite).

# %% [markdown] slideshow={"slide_type": "subslide"}
# Both on the toy, for the two $q$; each bound is averaged over at least 400 repetitions:

# %%
def toy_bound(mean, sd, size):
    _, ratios = toy_draws(mean, sd, (size, 400_000 // size))
    return (torch.logsumexp(ratios, 0) - math.log(size)).mean()                      # Eq. (5.24)

sizes = (1, 3, 10, 30, 100, 300, 1000)
rising = {name: [float(toy_bound(*q, size)) for size in sizes] for name, q in toy_q.items()}
for name, q in toy_q.items():
    assert abs(rising[name][0] - toy_formula(*q)) < 0.1     # S = 1: the ELBO
    assert all(a < b + 0.02 for a, b in zip(rising[name], rising[name][1:]))         # Eq. (5.25)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Against the truth:

# %%
truth = {"log p(x), by the grid": [float(log_evidence)] * len(sizes)}
figures.curves(
    sizes, rising | truth, "From the ELBO towards log p(x)", "draws $S$",
    "$\\mathcal{L}_S$ (nats)", log_x=True,
    alt="Two rising curves and a horizontal line over the number of draws on a logarithmic axis. "
        "The broad q starts far lower, overtakes after a few draws and reaches the line, log p(x). "
        "The narrow q starts higher and creeps, still well below the line at the end.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The narrow $q$ has the better ELBO, and the broad one the better bound as soon as a few draws are taken. The narrow
# one hardly ever draws from the posterior's other hump. It knows one hump, 64 % of the posterior, and rests
# near $\log p(x)+\log0.64$ until a rare draw, with an enormous ratio, tells it of the rest. Eq. (5.25) promises that the
# bound rises, not when. (Eq. (4.31) has warned us: too narrow is worse than too wide.) Chapter 11 returns to this.

# %%
humps = (log_joint - log_evidence).exp() * step
known = humps[grid > 0].sum().log()                         # log 0.64
assert abs(rising["narrow q"][-1] - (log_evidence + known)) < 0.1
assert abs(rising["broad q"][-1] - log_evidence) < 0.02

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### On the digits
#
# The same for the library's VAE, for all images at once:

# %%
@torch.no_grad()
def importance_bound(model, x, n_samples):
    mean, log_var = model.encode(x)
    size, zero = (n_samples, *mean.shape), torch.zeros(())
    z = draw(mean.expand(size), log_var.expand(size), torch.Generator().manual_seed(0))
    log_p = model.likelihood.log_prob(x, model.decoder(z)) + log_normal(z, zero, zero)
    log_ratio = log_p - log_normal(z, mean, log_var)                                 # (S, N)
    return torch.logsumexp(log_ratio, 0) - math.log(n_samples)                       # Eq. (5.24)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The library's `log_likelihood` does the same, in chunks:

# %%
from gmvae_lib.evaluation import log_likelihood

some = test.x[:100]
theirs = log_likelihood(deep, some, n_samples=50)
assert torch.allclose(importance_bound(deep, some, 50), theirs, rtol=1e-4)

# %% [markdown] slideshow={"slide_type": "subslide"}
# On held-out images, one draw gives the ELBO again, by another path than that of `held_out`, and then the bound rises
# by several nats. For the Binomial with $d=8$ this puts the model clearly below the histograms, by several standard
# errors: part of what it seemed to lack was only the looseness of the ELBO.

# %%
def cost(model, size):
    return -float(log_likelihood(model, test.x, n_samples=size).mean())

models = {"Binomial": deep, "clipped Gaussian": clipped[0]}
costs = {name: [cost(model, size) for size in sizes[:-1]] for name, model in models.items()}
for name, model in models.items():
    assert abs(costs[name][0] - held_out(model).mean()) < 2
    assert all(b < a + 0.5 for a, b in zip(costs[name], costs[name][1:]))            # Eq. (5.25)
assert costs["Binomial"][-1] < scores["histograms"][0] - 3

# %% [markdown] slideshow={"slide_type": "fragment"}
# For one model of each likelihood:

# %%
figures.curves(
    sizes[:-1], costs, "The bound tightens with the number of draws (d = 8)", "draws $S$",
    "$-\\mathcal{L}_S$ (nats per image)", log_x=True,
    alt="Two falling curves over the number of draws on a logarithmic axis. The Binomial's lies "
        "higher and falls by several nats, the clipped Gaussian's by fewer; both fall more and "
        "more slowly.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The clipped Gaussian stays ahead, by less than its ELBO said: a difference of two ELBOs is a difference of
# log-likelihoods *minus* a difference of gaps, and the Binomial's gap was the larger.

# %%
lead = [a - b for a, b in zip(costs["Binomial"], costs["clipped Gaussian"])]
assert 5 < lead[-1] < lead[0] - 1

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A linear VAE is probabilistic PCA
#
# Does the whole machine, with its noisy gradients and its amortized encoder, find the optimum where one is known?
# Make the decoder linear, $f(z)=Wz+b$, with Gaussian noise of variance $\sigma^2$. Then the model is chapter 4's
# *probabilistic principal component analysis* (pPCA): its density is the Gaussian of Eq. (4.11), with the covariance
# $C=WW^\top+\sigma^2I$. The posterior, Eq. (4.12), has a mean that is linear in $x$ and the same covariance for all $x$: a
# linear encoder is enough.
#
# ### The best that can be reached
#
# Let $\hat\Sigma$ be the data's covariance (dividing by $N$), $\lambda_1\ge\dots\ge\lambda_D$ its eigenvalues, $U_d$ the
# eigenvectors of the $d$ largest, and $\Lambda_d$ their diagonal matrix. Tipping and Bishop showed that the
# likelihood is maximal for $b=\bar x$, the data's mean, and
#
# $$\sigma^2=\frac1{D-d}\sum_{i>d}\lambda_i,\qquad W=U_d(\Lambda_d-\sigma^2I)^{1/2}, \tag{5.26}$$
#
# up to a rotation of $z$. The reason in short: along an eigenvector in the span of $W$ the model's variance is exactly
# the data's, $\lambda_i$; along all others it can only be $\sigma^2$, whose best value is the average of the data's
# variances there. And the $d$ largest are kept: for a given $\sigma^2$, keeping direction $i$ gains
# $\frac12\big(\lambda_i/\sigma^2-1-\log(\lambda_i/\sigma^2)\big)$ nats, which grows with $\lambda_i\ge\sigma^2$;
# below $\sigma^2$ there is nothing to gain, since $WW^\top$ only adds variance.

# %% [markdown] slideshow={"slide_type": "subslide"}
# The maximum itself follows by insertion. The mean log-likelihood is
# $-\frac12\big(D\log2\pi+\log\det C+\mathrm{tr}(C^{-1}\hat\Sigma)\big)$. The eigenvalues of $C$ are
# $\lambda_1,\dots,\lambda_d$ and then $\sigma^2$, $D-d$ times; those of $C^{-1}\hat\Sigma$ are $1$, $d$ times, and then
# $\lambda_i/\sigma^2$, which sum to $D-d$. So the trace is $D$, and
#
# $$\frac1N\sum_n\log p(x_n)=-\frac12\Big(D\log2\pi+\sum_{i\le d}\log\lambda_i+(D-d)\log\sigma^2+D\Big). \tag{5.27}$$
#
# For the digits with $d=2$, pixels between 0 and 1, the likelihood twice: by Eq. (5.27), and from the density of
# Eq. (4.11), image by image.

# %%
images, center = (train.x / 16).double(), (train.x / 16).double().mean(0)
covariance = (images - center).T @ (images - center) / len(images)
eigenvalues, vectors = (part.flip(-1) for part in torch.linalg.eigh(covariance))
sigma2 = eigenvalues[2:].mean()                                                      # Eq. (5.26)
W = vectors[:, :2] * (eigenvalues[:2] - sigma2).sqrt()
logs = eigenvalues[:2].log().sum() + 62 * sigma2.log()
maximum = -0.5 * (64 * log_2pi + logs + 64)                                          # Eq. (5.27)
C = W @ W.T + sigma2 * torch.eye(64)                                                 # Eq. (4.11)
pca = torch.distributions.MultivariateNormal(center, C)
assert torch.isclose(pca.log_prob(images).mean(), maximum)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The bound can be tight
#
# The columns of this $W$ are orthogonal, so $M=W^\top W+\sigma^2I$ is diagonal, and the posterior's coordinates are
# independent: it lies within the encoder's family. We write it into a linear encoder. Then Eq. (5.2) leaves no gap,
# and a *single* draw of $z$ in Eq. (5.24), any draw, gives $\log p(x)$ without noise.

# %%
from gmvae_lib.network import Decoder, Encoder

likelihood = Gaussian(sigma=float(sigma2.sqrt()))
linear = VAE(Encoder(64, 2, hidden=()), Decoder(2, 64, hidden=()), likelihood)
m = eigenvalues[:2]                                         # the diagonal of M = (Λ − σ²I) + σ²I
to_z, to_x = linear.encoder.mlp.layers[0], linear.decoder.mlp.layers[0]
with torch.no_grad():
    to_x.weight.copy_(W)
    to_x.bias.copy_(center)
    to_z.weight.copy_(torch.cat([(W / m).T, torch.zeros(2, 64)]))                # Eq. (4.12), mean
    to_z.bias.copy_(torch.cat([-(W / m).T @ center, (sigma2 / m).log()]))        # and log-variance
single_draw = importance_bound(linear, images.float(), 1)
assert torch.allclose(single_draw.double(), pca.log_prob(images), atol=0.01)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Training finds it
#
# Now a linear VAE that starts at random and knows nothing of eigenvalues. We train on all images at once, first with
# large steps and then with small ones.

# %%
torch.manual_seed(0)
linear = VAE(Encoder(64, 2, hidden=()), Decoder(2, 64, hidden=()), Gaussian())
settings = {"batch_size": len(train), "device": "cpu"}
coarse = fit(linear, images, epochs=200, lr=5e-2, **settings)
fine = fit(linear, images, epochs=100, lr=5e-3, **settings)

# %% [markdown] slideshow={"slide_type": "fragment"}
# How far does its bound stay below the maximum? Here the first route is open: Eq. (4.15) is the ELBO of a linear
# decoder in closed form, and no draw blurs the answer. With $\mathrm{tr}(W^\top WV)=\sum_iv_i\lVert w_i\rVert^2$ for
# the encoder's variances $v_i$ and the columns $w_i$ of $W$:

# %%
@torch.no_grad()
def linear_elbo(model, x):
    mean, log_var = (part.double() for part in model.encode(x.float()))
    weight, bias = model.decoder.mlp.layers[0].weight.double(), model.decoder.mlp.layers[0].bias
    variance = model.likelihood.sigma.double() ** 2
    errors = (x - mean @ weight.T - bias).square().sum(1)
    errors = errors + (log_var.exp() * weight.square().sum(0)).sum(1)
    distortion = 32 * (2 * math.pi * variance).log() + errors / (2 * variance)
    return -(distortion + gaussian_rate(mean, log_var))                              # Eq. (4.15)

by_draws = torch.stack([linear.elbo(images).value.detach().mean() for _ in range(100)]).mean()
assert abs(linear_elbo(linear, images).mean() - by_draws) < 0.02

# %% [markdown] slideshow={"slide_type": "subslide"}
# The gap in nats, on the training images and on held-out ones. To quote it in per cent we must say of what: the
# logarithm of a density has no natural zero, Eq. (5.17). In 0..1 pPCA's happens to lie within a nat of zero; in grey
# levels it costs about 177 nats, nearly all of them the change of unit. Of these we take the per cent.

# %%
unseen = (test.x / 16).double()
for name, x in (("training", images), ("held-out", unseen)):
    exact = pca.log_prob(x).mean()
    gap = exact - linear_elbo(linear, x).mean()
    total = 64 * math.log(16) - exact                       # in grey levels, Eq. (5.17)
    print(f"{name} images: within 0.1 % of pPCA's log-likelihood:", bool(abs(gap) / total < 1e-3))
    assert abs(gap) < 0.08 and abs(total - 177.4) < 0.5

# %% [markdown] slideshow={"slide_type": "fragment"}
# It has found the same noise, too, and the same directions. The cosines of the angles between the plane spanned by
# the decoder's columns and the plane of the two leading eigenvectors:

# %%
plane = torch.linalg.qr(linear.decoder.mlp.layers[0].weight.detach().double()).Q
cosines = torch.linalg.svdvals(plane.T @ vectors[:, :2])
assert (cosines > 0.99).all()
assert torch.isclose(linear.likelihood.sigma.double(), sigma2.sqrt(), rtol=0.01)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The whole training, beside the closed form, in grey levels:

# %%
unit = 64 * math.log(16)                                                             # Eq. (5.17)
loss = [a + b + unit for run in (coarse, fine) for a, b in zip(run.distortion, run.rate)]
figures.curves(
    range(len(loss)),
    {"−ELBO of the linear VAE": loss, "−log p(x), pPCA's best": [unit - maximum] * len(loss)},
    "A linear VAE finds the principal components", "step", "nats per image",
    markers=False, ylim=(170, 230),
    alt="The training loss of a linear VAE falls and settles on a horizontal line: the "
        "negative log-likelihood of probabilistic PCA in closed form.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# So the machine is sound: where the answer is known, it finds it. (Eq. (5.26) holds up to a rotation of $z$. The
# encoder's independent coordinates prefer the one that makes the columns of $W$ orthogonal, that is, the principal axes
# themselves: Lucas and coauthors.) What remains is what one can do wrong with it.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Failure lab
#
# Four bugs, each easy to write. None crashes, and each gives a falling loss. For each: the broken line,
# the symptom, the number that betrays it, the cure.
#
# ### Failure 1: the mean over pixels
#
# `F.binary_cross_entropy(...)`, `F.mse_loss(...)` and their like take the *mean* by default. The rate is still summed
# over its dimensions. For 64 pixels,
#
# $$\tfrac1{64}D_n+R_n=\tfrac1{64}\big(D_n+64\,R_n\big): \tag{5.28}$$
#
# the same descent as $\beta=64$. No one has written a $\beta$ anywhere.

# %% slideshow={"slide_type": "fragment"}
def averaged_parts(x, encoder, decoder, generator):
    distortion, rate = elbo_parts(x, encoder, decoder, generator)
    return distortion / 64, rate                            # the mean over pixels

encoder, decoder = networks(d=8)
history = train_plain(averaged_parts, encoder, decoder, train.x, epochs=40)
broken = as_library(encoder, decoder)
assert history[-1].sum() < 5                                # "the loss is excellent"

# %% [markdown] slideshow={"slide_type": "subslide"}
# *Symptom.* The loss looks excellent, a few nats. Every sample is the same grey cloud. *Diagnosis.* Look at the rate
# by itself, and at the *active units*: latent dimensions whose mean $\mu_\phi(x)$ varies over the data at all
# (variance above 0.01).

# %%
with torch.no_grad():
    means = {"broken": broken.encode(test.x)[0], "sound": deep.encode(test.x)[0]}
    rate = broken.elbo(test.x).rate.mean()
    distortion = broken.elbo(test.x).distortion.mean()
active = {name: int((mean.var(0) > 0.01).sum()) for name, mean in means.items()}
print(f"Rate of the broken model: {rate:.1f} nats. Active units: {active['broken']} of 8.")
assert active["sound"] >= 6
assert abs(distortion - scores["mean image"][0]) < 3        # all that is left is the mean image

# %% [markdown] slideshow={"slide_type": "fragment"}
# The code carries nothing. This is *posterior collapse*: at that price of a nat, no pixel is worth knowing, and what
# is left of the model is the mean image of our baselines, to within three nats. *Cure.* Sum over pixels and over
# latent dimensions; average over points only. Chapter 6 returns to collapse with other causes.

# %%
figures.images(
    torch.cat([sampled(broken), sampled(deep)]), test.image_shape,
    "Samples: mean over pixels, and the cure",
    columns=12, vmax=16, row_labels=["mean", "sum"],
    alt="Two rows of twelve samples. In the upper row all are the same blurred cloud; in the "
        "lower row they are different digits.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Failure 2: the variance taken for the standard deviation
#
# The encoder puts out $\log\sigma^2$, and the draw needs $\sigma=\exp(\tfrac12\log\sigma^2)$. Without the half, the
# noise has the standard deviation $\sigma^2$:

# %%
def squared_sigma_parts(x, encoder, decoder, generator):
    mean, log_var = encoder(x / 16).chunk(2, dim=-1)
    z = mean + log_var.exp() * torch.randn(mean.shape, generator=generator)  # the half is missing
    return -binomial_log_prob(x, decoder(z)), gaussian_rate(mean, log_var)

# %% [markdown] slideshow={"slide_type": "fragment"}
# We train it from the start of `deep`, which is the sound model, and for as long. Then we ask both for their −ELBO on
# held-out images, the broken one as its own code computes it:

# %%
@torch.no_grad()
def reported(parts, encoder, decoder, draws=20):
    generator = torch.Generator().manual_seed(0)
    losses = [sum(parts(test.x, encoder, decoder, generator)).mean() for _ in range(draws)]
    return torch.stack(losses).mean()

encoder, decoder = networks(d=8)
train_plain(squared_sigma_parts, encoder, decoder, train.x, epochs=100)
claimed, sound = reported(squared_sigma_parts, encoder, decoder), held_out(deep).mean()

# %% [markdown] slideshow={"slide_type": "subslide"}
# *Symptom.* None: it trains, it reconstructs, and its reported ELBO is *better*. *Diagnosis.* Below one, a $\sigma$ is
# larger than its square: the decoder enjoys a precise $z$, while the rate bills a vague one. The number is no bound
# of anything. Draw from the $q$ that is billed, which is what the library does, and the advantage is gone:

# %%
honest = held_out(as_library(encoder, decoder)).mean()
print("The broken code reports the better bound:", bool(claimed < sound))
print("The library finds it worse by more than 10 nats:", bool(honest > claimed + 10))
print("And worse than the sound model:", bool(honest > sound))

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Cure.* Name it `log_var`, write `(0.5 * log_var).exp()`, and keep a test that the variance of many draws is
# `log_var.exp()`. Generally: a result that is too good deserves the first test.

# %%
z = draw(torch.zeros(200_000), torch.full((200_000,), -2.0), torch.Generator().manual_seed(0))
assert torch.isclose(z.var(), torch.tensor(-2.0).exp(), rtol=0.02)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Failure 3: the draw is forgotten
#
# Someone finds the noise a nuisance and decodes the mean:

# %%
def forgetful_parts(x, encoder, decoder, generator):
    mean, log_var = encoder(x / 16).chunk(2, dim=-1)
    return -binomial_log_prob(x, decoder(mean)), gaussian_rate(mean, log_var)        # z = mean

encoder, decoder = networks(d=8)
train_plain(forgetful_parts, encoder, decoder, train.x, epochs=60)
claimed, broken = reported(forgetful_parts, encoder, decoder), as_library(encoder, decoder)

# %% [markdown] slideshow={"slide_type": "subslide"}
# *Symptom.* A better loss than the sound model's, and faithful reconstructions. *Diagnosis.* Nothing in the distortion
# depends on $\sigma$ any more, so the rate sets it alone, to the prior's $\sigma=1$. The encoder *says* that it knows
# next to nothing, and pays very little, while it hands the decoder a code of unlimited precision. With $z$ drawn as
# billed, the decoder faces inputs that it has never seen:

# %%
with torch.no_grad():
    mean, log_var = broken.encode(test.x)
print(f"The encoder's median standard deviation: {(0.5 * log_var).exp().median():.1f}")
print("It reports a better bound than the sound model:", bool(claimed < sound))
honest = held_out(broken).mean()
print("The library finds it worse than the uniform guess:", bool(honest > scores["uniform"][0]))

# %% [markdown] slideshow={"slide_type": "fragment"}
# What the decoder makes of codes that are drawn as billed:

# %%
shown = test.x[:12]
with torch.no_grad():
    drawn = broken.decode(draw(mean[:12], log_var[:12], torch.Generator().manual_seed(0)))
figures.images(
    torch.cat([shown, broken.reconstruct(shown), drawn]), test.image_shape,
    "An encoder that forgot to draw",
    columns=12, row_labels=["image", "z = mean", "z drawn"],
    alt="Three rows of twelve images: held-out digits, their faithful reconstructions from "
        "the mean code, and what becomes of them when the code is drawn: mostly other "
        "shapes.")

# %% [markdown] slideshow={"slide_type": "fragment"}
# This is an autoencoder with a penalty on the size of its codes, which is a fine thing to be, but its loss bounds no
# likelihood. *Cure.* Draw; and whenever a loss looks good, evaluate the bound by a second path that shares no code
# with the training.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Failure 4: grey pixels under a Bernoulli
#
# Put a grey $x\in[0,1]$ into Eq. (5.12). It computes, and it trains. But it is a density of grey values only if it
# integrates to one, and with $\rho=1/(1+e^{-a})$, $a\ne0$,
#
# $$\int_0^1\rho^x(1-\rho)^{1-x}\,dx=(1-\rho)\int_0^1e^{ax}\,dx=(1-\rho)\,\frac{e^a-1}{a}=\frac{2\rho-1}{\log\rho-\log(1-\rho)}, \tag{5.29}$$
#
# where the last step uses $e^a=\rho/(1-\rho)$. For $a=0$ it is one half, elsewhere less:

# %%
rho = torch.linspace(0.01, 0.99, 98, dtype=torch.float64)   # 98 points: none is exactly 1/2
total = (2 * rho - 1) / torch.logit(rho)                                             # Eq. (5.29)
grey = torch.linspace(0, 1, 10_001, dtype=torch.float64).unsqueeze(1)
integral = torch.trapezoid(rho**grey * (1 - rho) ** (1 - grey), grey, dim=0)
assert torch.allclose(integral, total, rtol=1e-4)

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Symptom.* Reconstructions a little washed out, and "log-likelihoods" that no one can compare with anything.
# *Diagnosis.* The missing factor depends on $\rho$, so that it bends the gradients too: the formula pays the decoder
# for being undecided. And for counts out of 16 it is a sixteenth of Eq. (5.13), but for the first term: by Eq. (5.28),
# with 16 in the place of 64, the same descent as $\beta=16$. *Cure.* A likelihood for the data that one has: Binomial
# here, Gaussian for real values, or binarized pixels. The library insists:

# %%
grey_model = VAE.build(data_dim=64, latent_dim=2, likelihood=Bernoulli())
try:
    fit(grey_model, train.x / 16, epochs=1, device="cpu")
except ValueError as error:
    print(str(error).replace(": ", ":\n"))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Each stub runs as it is and says "not attempted yet". Replace `raise NotImplementedError` by your code and run the
# cell again. Worked solutions are in [the solutions of chapter 5](solutions/05_variational_autoencoder.ipynb).

# %% slideshow={"slide_type": "skip"}
from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 5.1 (★, 5 minutes)
# Write the rate of Eq. (5.11) for a batch, from memory: `mean` and `log_var` have shape $(N, d)$, the result $(N,)$.

# %%
def my_rate(mean, log_var):
    raise NotImplementedError

check("5.1", my_rate)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 5.2 (★, 10 minutes)
# Write $\log p(x\mid z)$ for grey pixels that count to `n`: `x` and `logits` have shape $(N, D)$, the result $(N,)$.
# `torch.lgamma(k + 1)` is $\log k!$.

# %%
def my_binomial(x, logits, n):
    raise NotImplementedError

check("5.2", my_binomial)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 5.3 (★★, 10 minutes)
# Return the $\sigma$ of a Gaussian decoder that makes the data `x` $(N, D)$ likeliest, given its means `x_hat`
# $(N, D)$: one number.

# %%
def my_sigma(x, x_hat):
    raise NotImplementedError

check("5.3", my_sigma)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 5.4 (★★, 10 minutes)
# Return the gradient of $\mathbb E_q[f(z)]$ with respect to `mean` and `log_var`, estimated by Eq. (5.8) with the
# given draws `eps` $(S,)$, for $f(z)=\sin z$ and scalars `mean` and `log_var`: a pair of numbers. Do it by hand or by
# autograd. (By hand: what is $\partial z/\partial\log\sigma^2$?)

# %%
def my_gradient(mean, log_var, eps):
    raise NotImplementedError

check("5.4", my_gradient)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 5.5 (★★, 15 minutes)
# From `log_ratio` $(S, N)$, the logarithms of $p_\theta(x_n,z_s)/q_\phi(z_s\mid x_n)$, return the importance-weighted
# bound of Eq. (5.24) for each point: $(N,)$. Some of the ratios are as small as $e^{-2000}$.

# %%
def my_bound(log_ratio):
    raise NotImplementedError

check("5.5", my_bound)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 5.6 (★★★, 20 minutes)
# Eq. (5.21) piles up at the ends what lies outside. One might as well throw it away: draw from the Gaussian, round,
# and draw again until the number is one of 0..16. Return this likelihood's $\log P(x\mid z)$: `x` and `x_hat` have
# shape $(N, D)$, `sigma` is a number, the result $(N,)$. By what must Eq. (5.18) be divided? (`log_share` is at
# hand, and safe in the tails.)

# %%
def my_truncated(x, x_hat, sigma):
    raise NotImplementedError

check("5.6", my_truncated)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Summary
#
# - A network learns to encode because a bound tells it what a code is worth. The encoder pays for precision by the
#   rate and earns it back in distortion; minus the sum of both is the ELBO, the bound of chapter 2.
# - The encoder's Gaussian replaces the E-step; a reparameterized draw lets the gradient through; the rate needs no
#   draw at all.
# - The distortion must be a log-likelihood. Scaling an error, choosing $\sigma$ and choosing $\beta$ are the same
#   decision.
# - Numbers may be compared if they are probabilities of the same data. A density becomes one when the pixels are
#   rounded; its value before that is a matter of the unit. On the digits, a likelihood's fit to the data matters as
#   much as the network.
# - The bound has a formula where the decoder is simple, an average of draws everywhere, and with several draws inside
#   the logarithm it rises towards $\log p(x)$. Where the answer is known, as in the linear case, training finds it.
# - Watch distortion and rate separately, evaluate by a second path, and compare with baselines in the same unit: bugs
#   in a VAE do not crash, they flatter.
#
# **You may now import** `gaussian.log_prob_diag`, `gaussian.kl_standard`, `likelihood.Bernoulli`,
# `likelihood.Binomial`, `likelihood.Gaussian`, `prior.StandardNormal`, `network.Encoder`, `network.Decoder`,
# `vae.VAE`, `training.fit` and `evaluation.log_likelihood`.
#
# **Where this leads.** What if a nat of rate had another price than a nat of distortion? That is [chapter
# 6](06_beta_and_the_rate_distortion_curve.ipynb). Why do samples look worse than reconstructions? That is [chapter
# 7](07_the_prior_is_the_problem.ipynb). And the latent map shows clusters that the prior knows nothing of: [chapter 8,
# the mixture-prior VAE](08_mixture_prior_vae.ipynb), gives the VAE a mixture for a prior, and chapter 2's EM comes back
# inside the network.

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Sources
#
# - Diederik Kingma and Max Welling (2014). *Auto-Encoding Variational Bayes.* ICLR.
# - Danilo Rezende, Shakir Mohamed and Daan Wierstra (2014). *Stochastic Backpropagation and Approximate Inference in
#   Deep Generative Models.* ICML.
# - Michael Tipping and Christopher Bishop (1999). *Probabilistic Principal Component Analysis.* Journal of the Royal
#   Statistical Society B 61(3).
# - James Lucas, George Tucker, Roger Grosse and Mohammad Norouzi (2019). *Don't Blame the ELBO! A Linear VAE
#   Perspective on Posterior Collapse.* NeurIPS.
# - Oleh Rybkin, Kostas Daniilidis and Sergey Levine (2021). *Simple and Effective VAE Training with Calibrated
#   Decoders.* ICML.
# - Gabriel Loaiza-Ganem and John Cunningham (2019). *The Continuous Bernoulli: Fixing a Pervasive Error in
#   Variational Autoencoders.* NeurIPS.
# - Lucas Theis, Aäron van den Oord and Matthias Bethge (2016). *A Note on the Evaluation of Generative Models.* ICLR.
# - Tim Salimans, Andrej Karpathy, Xi Chen and Diederik Kingma (2017). *PixelCNN++: Improving the PixelCNN with
#   Discretized Logistic Mixture Likelihood and Other Modifications.* ICLR.
# - Yuri Burda, Roger Grosse and Ruslan Salakhutdinov (2016). *Importance Weighted Autoencoders.* ICLR.
# - Alexander Alemi, Ben Poole, Ian Fischer, Joshua Dillon, Rif Saurous and Kevin Murphy (2018). *Fixing a Broken
#   ELBO.* ICML.
