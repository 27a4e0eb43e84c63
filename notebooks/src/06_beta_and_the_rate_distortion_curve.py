# %% [markdown] slideshow={"slide_type": "slide"}
# # 06 β and the rate–distortion curve
#
# *What does β buy?*
#
# The picture below shows ten digits, and how one network draws them again, four times. What changes from row to row is
# a single number, $\beta$: the price of a nat in the code.

# %% slideshow={"slide_type": "subslide"}
import math

import torch
from torch import nn

from gmvae_lib import explorers, figures
from gmvae_lib.data import load
from gmvae_lib.pretrained import load_digits_gmvae

torch.set_num_threads(1)  # networks this small gain nothing from more
train, test = load("digits"), load("digits", "test")

# %% [markdown] slideshow={"slide_type": "fragment"}
# The network of chapter 0's widget has been trained for every $\beta$:

# %%
finished, _ = load_digits_gmvae()
prices, shown = (0.03, 10.0, 40.0, 100.0), test.x[20:30]
figures.images(
    torch.cat([shown, *(finished.reconstruct(shown, beta) for beta in prices)]), test.image_shape,
    "Ten digits, drawn again at four prices", row_labels=["image", *(f"β = {b:g}" for b in prices)],
    alt="Five rows of ten images: held-out digits, and how one network draws them again at four "
        "values of beta. At the smallest, every stroke is kept; then the hand is lost, bit by "
        "bit; at the largest, smooth grey shapes are left, and images of one digit look alike.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# With a cheap nat the network copies every quirk of the hand. As nats become dearer it gives up the quirks, then the
# slant and the width of the stroke, and at last it keeps little but the kind of digit. In what order, at what price
# each, and what is the best that anyone could do? Some networks go further and say nothing at all. Is that a decision,
# or an accident?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you will be able to do
#
# - place any VAE in the plane of rate and distortion, and say where no model can be;
# - read $\beta$ as a slope, and derive how rate and distortion answer to it;
# - compute one rate–distortion curve exactly, and see each latent dimension switch off at its own price;
# - predict at which $\beta$ a VAE says nothing at all, from a covariance matrix, before training it;
# - tell two kinds of posterior collapse apart, cure the one that is an accident, and leave the other alone;
# - train one network for every $\beta$, and check it against networks trained for one each.
#
# **You need** [chapter 5, the variational autoencoder](05_variational_autoencoder.ipynb): distortion, rate, and its
# training loop. **Time:** about 80 minutes to read and run, another 35 for the exercises.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The plane
#
# For a data set $x_1,\dots,x_N$, average chapter 5's two terms:
#
# $$D=\frac1N\sum_n\mathbb E_{q_\phi(z\mid x_n)}\big[-\log p_\theta(x_n\mid z)\big],\qquad R=\frac1N\sum_n\mathrm{KL}\big(q_\phi(z\mid x_n)\,\Vert\,p(z)\big). \tag{6.1}$$
#
# Every model, good or bad, is now a point $(R,D)$, and $D+R$ is its $-$ELBO. Two models with the same ELBO can be as
# different as day and night: one has $R=0$ and a decoder that needs no code, another pays for a long code and draws
# perfectly. The sum does not tell them apart; the plane does.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Where no model can be
#
# Let $\hat p(x)$ be the distribution of the data, and draw $x$ from it and then $z$ from the encoder. That gives a
# joint distribution, $q(x,z)=\hat p(x)\,q_\phi(z\mid x)$, whose marginal over $z$ is the *aggregate posterior*:
#
# $$q(z)=\sum_x\hat p(x)\,q_\phi(z\mid x). \tag{6.2}$$
#
# How much does such a $z$ tell about $x$? The *mutual information*
# $I=\mathbb E_{q(x,z)}\big[\log\frac{q(x,z)}{\hat p(x)\,q(z)}\big]$ counts it in nats: zero if $z$ knows nothing, and
# never more than the entropy $H=-\sum_x\hat p(x)\log\hat p(x)$. It depends on the data and the encoder alone. (The sums
# over $x$ say that $x$ is discrete, as our digits are: 64 counts. So $D\ge0$ as well.)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **The rate is at least the information.** Write $q_\phi(z\mid x)/p(z)$ as
# $\frac{q_\phi(z\mid x)}{q(z)}\cdot\frac{q(z)}{p(z)}$ and average the logarithm over $q(x,z)$. The first factor is $I$'s
# ratio $\frac{q(x,z)}{\hat p(x)\,q(z)}$, since $q(x,z)=\hat p(x)\,q_\phi(z\mid x)$:
#
# $$R=I+\mathrm{KL}\big(q(z)\,\Vert\,p(z)\big)\ \ge\ I. \tag{6.3}$$
#
# A nat of rate is a nat of information only if the prior is the aggregate posterior; whatever they differ by is paid
# for and carries nothing. (Chapter 7 is about that waste.)
#
# **The distortion is at least what the code leaves open.** By Bayes' rule the encoder's joint also has a conditional
# $q(x\mid z)=q(x,z)/q(z)$, and $\mathbb E_{q(x,z)}[-\log q(x\mid z)]=H-I$: the entropy that is left when $z$ is known.
# Write $-\log p_\theta(x\mid z)=-\log q(x\mid z)+\log\frac{q(x\mid z)}{p_\theta(x\mid z)}$ and average:
#
# $$D=H-I+\mathbb E_{q(z)}\big[\mathrm{KL}\big(q(x\mid z)\,\Vert\,p_\theta(x\mid z)\big)\big]\ \ge\ H-I. \tag{6.4}$$
#
# Together, with nothing assumed about encoder, decoder or prior:
#
# $$H-D\ \le\ I\ \le\ R. \tag{6.5}$$

# %% [markdown] slideshow={"slide_type": "subslide"}
# So $D+R\ge H$: a straight line that no model crosses. How far above it is a given model? Put chapter 2's identity,
# $\mathrm{ELBO}(x)=\log p_\theta(x)-\mathrm{KL}(q_\phi(z\mid x)\Vert p_\theta(z\mid x))$, into $D+R=-\mathbb E_{\hat p}[\mathrm{ELBO}(x)]$:
#
# $$D+R=H+\mathrm{KL}\big(\hat p(x)\,\Vert\,p_\theta(x)\big)+\mathbb E_{\hat p}\big[\mathrm{KL}\big(q_\phi(z\mid x)\,\Vert\,p_\theta(z\mid x)\big)\big]. \tag{6.6}$$
#
# On the line the model is the data's distribution and the encoder is its exact posterior. *Where* on the line is not
# said: from the **autodecoding limit** $R=0$, $D=H$, where the decoder knows the whole distribution and ignores $z$,
# to the **autoencoding limit** $R=H$, $D=0$, where $z$ says everything.

# %% [markdown] slideshow={"slide_type": "subslide"}
# Let us throw models at the plane. In a world of six images and four codes everything is a small table, and every
# sum can be done. A random model is three tables (and `sharp` says how decided it is):

# %%
def random_tables(n_models, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sharp = 4 * torch.rand(3, n_models, 1, 1, generator=generator)
    sizes = ((6, 4), (1, 4), (4, 6))  # q(z|x), p(z), p(x|z)
    return [(s * torch.randn(n_models, *size, generator=generator)).double().softmax(-1)
            for s, size in zip(sharp, sizes)]

# %% [markdown] slideshow={"slide_type": "fragment"}
# The data, and the models:

# %%
data = torch.tensor([0.3, 0.25, 0.2, 0.1, 0.1, 0.05], dtype=torch.float64)
entropy = -(data * data.log()).sum()
q_z_x, p_z, p_x_z = random_tables(5000)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Rate and distortion, from their definitions:

# %%
def rate_and_distortion(q_z_x, p_z, p_x_z):                                      # Eq. (6.1)
    joint = data[:, None] * q_z_x                                                # q(x, z)
    return (joint * (q_z_x / p_z).log()).sum((-1, -2)), -(joint * p_x_z.mT.log()).sum((-1, -2))

# %% [markdown] slideshow={"slide_type": "fragment"}
# For all models at once, with the information:

# %%
R, D = rate_and_distortion(q_z_x, p_z, p_x_z)
joint = data[:, None] * q_z_x
q_z = joint.sum(1, keepdim=True)                                                 # Eq. (6.2)
information = (joint * (q_z_x / q_z).log()).sum((1, 2))
assert (entropy - D <= information + 1e-12).all() and (information <= R + 1e-12).all()  # Eq. (6.5)

# %% [markdown] slideshow={"slide_type": "fragment"}
# And the two gaps, Eqs. (6.3) and (6.4), to the last digit:

# %%
waste = (q_z * (q_z / p_z).log()).sum((1, 2))                                    # KL(q(z) || p(z))
q_x_z = joint / q_z
clumsiness = (joint * (q_x_z / p_x_z.mT).log()).sum((1, 2))
assert torch.allclose(R, information + waste)
assert torch.allclose(D, entropy - information + clumsiness)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Both gaps can be closed: give each encoder the prior $p(z)=q(z)$ and the decoder $p(x\mid z)=q(x\mid z)$. What is
# left is its information, and the sum is the entropy:

# %%
best = rate_and_distortion(q_z_x, q_z, q_x_z.mT)
assert torch.allclose(best[0] + best[1], entropy)                                # Eq. (6.6), no gap

# %% [markdown] slideshow={"slide_type": "fragment"}
# Random models, none below the line (two in five lie outside the frame, above it or to its right), and the same
# encoders with nothing wasted, on the line:

# %%
tight = {"random": (R, D), "with the best decoder and prior": best}
figures.rate_plane(
    "Five thousand models of a world of six images", points=tight, small=True,
    bound=float(entropy), xlim=(0, 2.6), ylim=(0, 4),
    names={"autodecoding": (0.0, float(entropy)), "autoencoding": (float(entropy), 0.0)},
    alt="A cloud of points in the plane of rate and distortion. All lie above a falling straight "
        "line, which runs from the autodecoding limit on the distortion axis to the autoencoding "
        "limit on the rate axis; the region below it is shaded and empty. With the best "
        "decoder and prior, the points move onto the line.")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## β is a slope
#
# Which of the possible points do we want? Say what a nat of rate may cost, in nats of distortion. Call that price
# $\beta\ge0$, and among all models $m$ that we can build take the one that minimizes chapter 5's objective:
#
# $$J^*(\beta)=\min_m\big(D_m+\beta R_m\big). \tag{6.7}$$
#
# All points with the same $D+\beta R$ lie on a line of slope $-\beta$. Minimizing means to push this line down until
# it touches the set of possible points for the last time. So $\beta$ chooses the tangent, and the tangent chooses
# the point.

# %% [markdown] slideshow={"slide_type": "subslide"}
# **A higher price never buys a longer code.** Let $(R,D)$ be best for $\beta$ and $(R',D')$ for $\beta'$. Each is at
# least as good as the other at its own price: $D+\beta R\le D'+\beta R'$ and $D'+\beta'R'\le D+\beta'R$. Add the two
# and collect: $(\beta'-\beta)(R'-R)\le0$. The first inequality then also says $D'-D\ge\beta(R-R')$. So
#
# $$\beta'>\beta\quad\Longrightarrow\quad R'\le R\ \text{ and }\ D'\ge D. \tag{6.8}$$
#
# No derivative was needed, and no assumption about networks.
#
# **The slope.** Where the best point moves smoothly with $\beta$, differentiate $J^*(\beta)=D(\beta)+\beta R(\beta)$:
# $\frac{dJ^*}{d\beta}=\frac{dD}{d\beta}+\beta\frac{dR}{d\beta}+R$. At the minimum, moving along the curve does not
# change the objective to first order, so the first two terms cancel:
#
# $$\frac{dJ^*}{d\beta}=R(\beta),\qquad \frac{dD}{dR}=-\beta. \tag{6.9}$$
#
# At the point that $\beta$ chooses, one more nat of rate saves exactly $\beta$ nats of distortion. That is what
# $\beta$ buys. With $\beta=1$ the exchange is even, as the likelihood wants it.

# %% [markdown] slideshow={"slide_type": "subslide"}
# Among our random models, each price picks a corner of the cloud. The corners move as Eq. (6.8) says:

# %%
prices = torch.logspace(-1, 1, 50, dtype=torch.float64)
chosen = (D + prices[:, None] * R).argmin(1)                                     # Eq. (6.7)
assert (R[chosen].diff() <= 0).all() and (D[chosen].diff() >= 0).all()           # Eq. (6.8)
print("Different prices pick different models:", len(chosen.unique()) > 2)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Chapter 2's E-step, at another price
#
# For a fixed decoder and prior, which $q(z\mid x)$ minimizes $D+\beta R$? Point by point, we want the smallest
# $\mathbb E_q\big[-\log p_\theta(x\mid z)+\beta\log q(z)-\beta\log p(z)\big]$. Divide by $\beta$: it is
# $\mathrm{KL}\big(q\,\Vert\,\tilde q\big)$ plus a constant, where
#
# $$\tilde q(z\mid x)=\frac{p(z)\,p_\theta(x\mid z)^{1/\beta}}{\sum_{z'}p(z')\,p_\theta(x\mid z')^{1/\beta}}, \tag{6.10}$$
#
# so $q=\tilde q$ is best. With $\beta=1$ this is Bayes' rule, the E-step of chapter 2. A large $\beta$ flattens the
# likelihood until the prior alone is left; a small one sharpens it towards the best $z$. Against all five thousand
# encoders:

# %%
def cost(q_z_x, beta):  # D + beta R of an encoder, for the first model's prior and decoder
    rate, distortion = rate_and_distortion(q_z_x, p_z[0], p_x_z[0])
    return distortion + beta * rate

# %% [markdown] slideshow={"slide_type": "fragment"}
# At three prices:

# %%
for beta in (0.2, 1.0, 5.0):
    best = (p_z[0].log() + p_x_z[0].mT.log() / beta).softmax(-1)                 # Eq. (6.10)
    assert (cost(best, beta) <= cost(q_z_x, beta)).all()

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A curve that can be computed
#
# For the Gaussian data of chapter 5's linear VAE, the whole curve has a formula. Let the decoder's noise have a fixed
# variance $\sigma^2$, and look at one principal axis of the data, of variance $\lambda$; with Gaussian noise the axes
# do not interact. A code for it is $z=au+s\varepsilon$, with $u$ the coordinate and $\varepsilon\sim\mathcal N(0,1)$.
# Scale it so that $a^2\lambda+s^2=1$: then $q(z)$ is the standard normal prior, and by Eq. (6.3) nothing is wasted.
# The rate of Eq. (5.11), averaged over $u$, is $r=\frac12(a^2\lambda+s^2-1-\log s^2)=-\frac12\log s^2$.
#
# The best decoder is the regression of $u$ on $z$: its slope is $\mathrm{Cov}(u,z)/\mathrm{Var}(z)=a\lambda$, and the
# error that is left is $\lambda-(a\lambda)^2=\lambda(1-a^2\lambda)=\lambda s^2$. So $r$ nats buy an error of
#
# $$\mathbb E(u-\hat u)^2=\lambda\,e^{-2r}. \tag{6.11}$$
#
# Every $\log 2$ nats (one bit) halve the standard deviation of the error. And no code of any kind does better. With $h$
# for the entropy of a density, $I=h(u)-h(u\mid z)$. Given $z$, subtracting $\hat u(z)$ only shifts, and knowing $z$ can
# only lower an entropy, so $h(u\mid z)=h(u-\hat u\mid z)\le h(u-\hat u)$. Among all errors of a given variance a
# Gaussian one has the largest entropy, and $u$ is Gaussian. Together,
# $r\ge I\ge h(u)-h(u-\hat u)\ge\frac12\log\frac{\lambda}{\mathbb E(u-\hat u)^2}$.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How to spend the nats
#
# The distortion is the squared error over $2\sigma^2$ plus a constant. Minimize
# $\sum_i\frac{\lambda_i}{2\sigma^2}e^{-2r_i}+\beta\sum_ir_i$ over $r_i\ge0$: the derivative
# $-\frac{\lambda_i}{\sigma^2}e^{-2r_i}+\beta$ vanishes at $r_i=\frac12\log\frac{\lambda_i}{\beta\sigma^2}$, if that is
# positive; if not, zero is best.
#
# $$r_i(\beta)=\max\Big(0,\ \tfrac12\log\frac{\lambda_i}{\beta\sigma^2}\Big),\qquad \text{error}_i(\beta)=\min\big(\lambda_i,\ \beta\sigma^2\big). \tag{6.12}$$
#
# This is *reverse water-filling*, known since Shannon's theory of lossy coding. The price sets a water level
# $\beta\sigma^2$. An axis whose variance is under water is not coded at all; all others are coded down to the same
# error. So **each dimension has a price at which it switches off**, $\beta_i=\lambda_i/\sigma^2$, the smallest first.
# Nothing goes wrong there: the dimension is not worth its nats.

# %% slideshow={"slide_type": "fragment"}
def gaussian_curve(eigenvalues, sigma2, beta):
    level = beta * sigma2
    rates = 0.5 * (eigenvalues / level).log().clamp_min(0)                       # Eq. (6.12)
    errors = torch.minimum(eigenvalues, level)
    return rates.sum(-1), (errors / (2 * sigma2)).sum(-1)

# %% [markdown] slideshow={"slide_type": "fragment"}
# For the digits, as if they were Gaussian, with $\sigma^2=10$ (in squared grey levels; here and in the picture without
# the distortion's constant, $32\log(2\pi\sigma^2)\approx132$ nats):

# %%
centered = (train.x - train.x.mean(0)).double()
eigenvalues = torch.linalg.eigvalsh(centered.T @ centered / len(train)).flip(0)
sigma2 = torch.tensor(10.0, dtype=torch.float64)
betas = torch.logspace(-2, 2, 401, dtype=torch.float64)[:, None]
R, D = gaussian_curve(eigenvalues, sigma2, betas)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Its slope is $-\beta$ everywhere, Eq. (6.9):

# %%
betas = betas.ravel()
secant = D.diff() / R.diff()
middle = (betas[1:] * betas[:-1]).sqrt()
coded = R[1:] > 0
assert torch.allclose(secant[coded], -middle[coded], rtol=0.02)                  # Eq. (6.9)

# %% [markdown] slideshow={"slide_type": "fragment"}
# And no other way to spend the same 40 nats does better, of two thousand:

# %%
spread = 40 * torch.distributions.Dirichlet(torch.full((64,), 0.3)).sample((2000,)).double()
rival = (eigenvalues * (-2 * spread).exp()).sum(1) / (2 * sigma2)                # Eq. (6.11)
assert (rival > D[(R - 40).abs().argmin()] - 0.5).all()

# %% [markdown] slideshow={"slide_type": "fragment"}
# The curve, with two of its tangents:

# %%
tangents = {}
for beta in (1.0, 10.0):
    r, d = gaussian_curve(eigenvalues, sigma2, beta)
    reach = torch.tensor([-8.0, 8.0])
    tangents[f"slope −{beta:g}"] = (r + reach, d - beta * reach)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Each touches the curve in one point:

# %%
figures.rate_plane(
    "The digits as a Gaussian: the best possible, and two prices",
    curves={"reverse water-filling": (R, D)} | tangents, xlim=(0, 60), ylim=(0, 66),
    alt="A convex falling curve of distortion over rate, with two straight lines touching it: a "
        "steep one at a small rate, for beta 10, and a flat one further right, for beta 1.")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## When nothing is worth saying
#
# Does a nonlinear VAE switch off too? We can find the price at which the *first* nat is not worth it, for any
# decoder, from what happens near $R=0$. There the decoder draws one image for all, the mean image, with logits
# $a_0$ and pixel probabilities $\rho$. Let the encoder whisper: $q(z\mid x)=\mathcal N(v^\top(x-\bar x),1)$, with a
# small vector $v$ and one dimension. Let the decoder listen a little: logits $a_0+wz$, with a small vector $w$.
#
# Expand the Binomial's $-\log p$, Eq. (5.13), to second order in $wz$. With $n=16$ trials its first derivative in a
# logit is $n\rho_i-x_i$ and its second $n\rho_i(1-\rho_i)$. Write $C$ for the data's covariance and $S=\mathrm{diag}\big(n\rho_i(1-\rho_i)\big)$,
# the variances that the *decoder* expects. With $\mathbb E[z\mid x]=v^\top(x-\bar x)$ and $\mathbb E[z^2]\approx1$,
#
# $$D\approx D_0-w^\top Cv+\tfrac12w^\top Sw,\qquad R=\tfrac12v^\top Cv. \tag{6.13}$$
#
# The best $w$ is $S^{-1}Cv$, which leaves $D+\beta R\approx D_0-\frac12v^\top CS^{-1}Cv+\frac\beta2v^\top Cv$. With
# $y=C^{1/2}v$ this is $D_0+\frac12y^\top(\beta I-C^{1/2}S^{-1}C^{1/2})y$. It grows in every direction if $\beta$ is
# above
#
# $$\beta_c=\text{the largest eigenvalue of } S^{-1/2}\,C\,S^{-1/2}, \tag{6.14}$$
#
# (which has the eigenvalues of $C^{1/2}S^{-1}C^{1/2}$), and falls in some direction if $\beta$ is below. Above
# $\beta_c$, saying nothing is a local minimum of the objective: any whisper costs more than it brings. A Gaussian
# decoder expects the variance $\sigma^2$ everywhere: then $S=\sigma^2I$, and $\beta_c$ is the switch-off price
# $\lambda_1/\sigma^2$ of Eq. (6.12) again.

# %% [markdown] slideshow={"slide_type": "subslide"}
# No network has been trained yet, and we can say at which $\beta$ the digits' VAE will fall silent (pixels that are
# white in every image have no variance, and drop out):

# %%
rho = (train.x.double().mean(0) / 16).clamp(1e-3, 1 - 1e-3)
expected = (16 * rho * (1 - rho)).sqrt()                                         # the root of S
C = centered.T @ centered / len(train)
thresholds = torch.linalg.eigvalsh(C / expected[:, None] / expected).flip(0)
print(f"Predicted: silent above beta = {thresholds[0]:.0f}.")                    # Eq. (6.14)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Now train. `fit` is chapter 5's loop, and its `beta` is the weight of the rate. We take two prices, one on either
# side of the prediction. (Just below it a code pays, but so little that a short training hardly finds it.)

# %%
from gmvae_lib.evaluation import active_units, mean_elbo
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE


def train_vae(beta, seed=0, epochs=40, lr=2e-3, **settings):
    torch.manual_seed(seed)
    model = VAE.build(data_dim=64, latent_dim=8, hidden=(128, 128))
    fit(model, train, epochs=epochs, beta=beta, lr=lr, seed=seed, device="cpu", **settings)
    return model

# %% [markdown] slideshow={"slide_type": "fragment"}
# `mean_elbo` averages $D$ and $R$ over images and a few draws of $z$:

# %%
talking, silent = train_vae(30.0), train_vae(64.0, epochs=25)
for beta, model in ((30, talking), (64, silent)):
    _, rate = mean_elbo(model, train.x)
    print(f"beta = {beta}: the code carries something: {rate > 0.05}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# (The network of the first picture is not silent at $\beta=100$, and should be. It is another machine: its prior is a
# mixture, chapter 8's, and its gates start so flat that it follows a high price only part of the way. Its rate is
# still 7.7 nats there, for an objective of 930, where silence would cost 251. A picture of a high price need not show
# the best model at that price.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Failure lab: posterior collapse
#
# A latent dimension is *collapsed* if $q(z_i\mid x)$ is the prior for every $x$: it costs nothing and says nothing.
# The number that betrays it is the variance of its mean over the data. We call a unit **active** if that is above
# 0.01:

# %%
def active(model, x):
    with torch.no_grad():
        mean, _ = model.encode(x)
    return mean.var(0) > 0.01                                                    # (d,)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Above the threshold no unit is. (The library's `active_units` is the same.)

# %%
assert not active(silent, train.x).any()
assert active(silent, train.x).equal(active_units(silent, train.x))

# %% [markdown] slideshow={"slide_type": "subslide"}
# There are two reasons for collapse, and they call for opposite answers.
#
# **By decision.** The price is above what the dimension is worth, Eqs. (6.12) and (6.14). This is the optimum. The
# same happens at $\beta=1$ with a decoder so powerful that it needs no code: it sits at the autodecoding limit, on
# the line $D+R=H$, and nothing in the objective asks it to move.
#
# **By accident.** The dimension would be worth its price, and the training lost it. A dimension that is flat tells the
# decoder nothing, and a decoder that does not listen sends it no gradient: at $v=w=0$ in Eq. (6.13) both gradients
# vanish. Below the threshold this point is a saddle and no minimum, and small steps leave it again. What makes a
# dimension flat, and keeps it so? Two things together. The rate is due from the first step on, and presses every mean
# to 0 and every variance to 1, whether or not the decoder reads them well yet. And steps that are too large throw
# dimensions about, and hidden units out (a ReLU that is negative for all images has no gradient any more). What the
# few that are left cannot carry stays lost.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Reproduced
#
# At $\beta=1$ all eight dimensions are worth having: the eighth eigenvalue of Eq. (6.14) is far above one, and a
# training with chapter 5's steps uses them all.

# %%
def living(model):  # hidden units of the encoder's first layer that respond to some image
    return int((model.encoder.mlp.layers[0](train.x / 16) > 0).any(0).sum())

calm = train_vae(1.0)
assert thresholds[7] > 10 and active(calm, train.x).all() and living(calm) > 64

# %% [markdown] slideshow={"slide_type": "subslide"}
# Now take steps five times as large, from three starts, and count active units, living hidden units and the cost on
# held-out images:

# %%
def three(**settings):
    models = [train_vae(seed=seed, epochs=60, lr=1e-2, **settings) for seed in range(3)]
    units = [int(active(model, train.x).sum()) for model in models]
    costs = torch.tensor([sum(mean_elbo(model, test.x)) for model in models])
    return units, costs, [living(model) for model in models]

# %% [markdown] slideshow={"slide_type": "fragment"}
# Without a cure:

# %%
plain_units, plain_costs, plain_living = three(beta=1.0)
print("Dimensions were lost:", sum(plain_units) < 24)
print("Of 128 hidden units fewer than 32 live:", max(plain_living) < 32)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Cure 1: warm-up
#
# Let the price rise. A schedule starts at $\beta=0$, where nothing presses on the code and the decoder learns to read
# it, and reaches 1 after four fifths of the training:

# %%
def rising(progress):  # progress runs from 0 to 1
    return min(1.0, progress / 0.8)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The library's `warm_up` is this function for any price and share:

# %%
from gmvae_lib.training import warm_up

assert all(rising(p / 10) == warm_up(1.0, share=0.8)(p / 10) for p in range(11))
warm_units, warm_costs, _ = three(beta=warm_up(1.0, share=0.8))
print("Warm-up keeps more dimensions:", sum(warm_units) > sum(plain_units))
print("and saves 5 nats or more:", bool(warm_costs.mean() < plain_costs.mean() - 5))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Cure 2: free bits
#
# Or give every dimension an allowance of $\alpha$ nats. Only what it uses beyond is billed:
#
# $$R_\alpha=\sum_{i=1}^{d}\max\Big(\alpha,\ \frac1N\sum_nR_{ni}\Big),\qquad R_{ni}=\tfrac12\big(\mu_{ni}^2+\sigma_{ni}^2-1-\log\sigma_{ni}^2\big). \tag{6.15}$$
#
# The average over the batch comes *first*: an image may use more than its allowance if others use less. Below the
# allowance the gradient of the rate is zero, and nothing presses the dimension flat.

# %%
def free_bits_rate(mean, log_var, alpha):
    each = 0.5 * (mean.square() + log_var.exp() - 1 - log_var)                   # R_ni, (N, d)
    return each.mean(0).clamp_min(alpha).sum()                                   # Eq. (6.15)

# %% [markdown] slideshow={"slide_type": "fragment"}
# The library's `elbo` and `fit` take `free_bits`, with the same result:

# %%
with torch.no_grad():
    mean, log_var = silent.encode(train.x[:100])
    library = silent.elbo(train.x[:100], free_bits=0.5).rate.mean()
assert torch.isclose(free_bits_rate(mean, log_var, 0.5), library)

# %% [markdown] slideshow={"slide_type": "fragment"}
# With half a nat for each dimension:

# %%
free_units, free_costs, _ = three(beta=1.0, free_bits=0.5)
print("Every unit is active:", free_units == [8, 8, 8])

# %% [markdown] slideshow={"slide_type": "subslide"}
# The three trainings of each, judged by the true $D+R$ on held-out images (without any allowance):

# %%
figures.strip(
    {"plain": plain_costs, "warm-up": warm_costs, "free bits": free_costs},
    "Large steps at β = 1: three starts each", "−ELBO (nats per held-out image)",
    alt="Three rows of three dots on an axis of nats per image: plain training costs most, free "
        "bits lie in between, and warm-up costs least on average.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# A run of ours with six starts of each, 60 epochs, gave (ranges, and mean ± standard deviation over starts):
#
# | at $\beta=1$ | active units, of 8 | living hidden units, of 128 | $-$ELBO, held out |
# |---|---|---|---|
# | large steps | 4–7 | 6–14 | 123.0 ± 3.7 |
# | large steps, warm-up | 7–8 | 10–21 | 112.5 ± 1.7 |
# | large steps, free bits | 8 | 10–21 | 117.7 ± 1.4 |
# | chapter 5's steps | 8 | 78–97 | 113.8 ± 4.2 |
#
# Neither the price nor the steps do it alone: with small steps nothing is lost, nor with large ones while the price is
# low. Sixty more epochs with small steps brought none of the lost dimensions back. With free bits nothing presses a
# unit below its allowance, so all stay active, but "active" is not "useful": some just spend their allowance. And no
# cure saves the hidden units that large steps kill, so look at the steps before reaching for one. Count units to
# diagnose; judge by the bound.
#
# And where collapse is a decision, there is nothing to cure. Above $\beta_c$ warm-up only delays the silence, and free
# bits pay for a code that is not worth its price:

# %%
def judged(model, beta):  # D + beta R on the training images, and the active units
    distortion, rate = mean_elbo(model, train.x)
    return distortion + beta * rate, int(active(model, train.x).sum())

# %% [markdown] slideshow={"slide_type": "fragment"}
# At $\beta=64$:

# %%
quiet = judged(silent, 64)
late = judged(train_vae(warm_up(64.0, share=0.5), epochs=25), 64)
forced = judged(train_vae(64.0, epochs=15, free_bits=0.25), 64)
print("Active units: plain", quiet[1], "· warm-up", late[1], "· free bits", forced[1])
print("Free bits make the objective worse, by more than 20 nats:", forced[0] > quiet[0] + 20)

# %% [markdown] slideshow={"slide_type": "fragment"}
# (A third schedule warms up several times in one training. It serves where one warm-up loses dimensions that a second
# chance would win; here one is enough.)

# %%
from gmvae_lib.training import cyclic

twice = cyclic(1.0, cycles=2, share=0.5)
assert [twice(p) for p in (0, 0.125, 0.25, 0.49, 0.5, 0.625)] == [0, 0.5, 1, 1, 0, 0.5]

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One network for every β
#
# To draw the digits' curve we could train a network for each of many $\beta$. Or train one that is told $\beta$ and
# answers for all. What must it be able to do? Eq. (6.12) says: as $\beta$ rises, each thing that the code knows is
# turned down, and at its own price turned off. So give every hidden unit a dial that reads $\beta$: a **gate** that
# multiplies the unit's output by
#
# $$g_j(\beta)=\frac1{1+e^{-s_j(\log\beta-\log b_j)}}, \tag{6.16}$$
#
# with a slope $s_j$ and a turning point $b_j$ that are learnt with the weights. A negative slope turns the unit off
# as $\beta$ rises through $b_j$; a positive one turns it on, because a network that may say little needs other
# features than one that may say much. This is the *multi-rate VAE* of Bae and coauthors.

# %%
class PlainGate(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.slope = nn.Parameter(2 * torch.randn(size))
        turns = math.log(0.03) + torch.rand(size) * math.log(100 / 0.03)             # log b
        self.offset = nn.Parameter(1 - self.slope.detach() * turns)                  # -s log b

    def forward(self, beta):                                           # (N, 1) -> (N, size)
        return torch.sigmoid(self.slope * beta.log() + self.offset)                  # Eq. (6.16)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The turning points start spread over the whole range of prices (the 1 leaves units a little more on than off), and
# the slopes start steep, so that at any two prices different sets of units are at work. Put gates behind the hidden
# layers of chapter 5's networks, and nothing else changes:

# %%
class GatedNetwork(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.gates = nn.ModuleList(PlainGate(size) for size in sizes[1:-1])

    def forward(self, x, beta):
        for layer, gate in zip(self.layers, self.gates):
            x = torch.relu(layer(x)) * gate(beta)
        return self.layers[-1](x)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A loss for all prices
#
# Every image of a batch gets a price of its own, spread evenly on a logarithmic scale, and the loss is the plain mean
#
# $$\mathcal L=\mathbb E_{\log\beta\sim\mathcal U(\log\beta_{\min},\,\log\beta_{\max})}\big[D(\beta)+\beta R(\beta)\big]. \tag{6.17}$$
#
# Where each term of a sum can be made small by itself, minimizing the sum minimizes each: a network that could hold
# all the separate ones would have to equal every one of them. "Spread evenly" can be taken literally: one price from
# each of $B$ equal parts of the range, for a batch of $B$ images, in random order.

# %%
def spread_prices(n, low, high, generator):
    part = torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)
    return (math.log(low) + part / n * math.log(high / low)).exp().unsqueeze(1)      # (n, 1)

# %% [markdown] slideshow={"slide_type": "fragment"}
# A hundred of them, one in each hundredth of the range:

# %%
prices = spread_prices(100, 0.1, 10.0, torch.Generator().manual_seed(0))
assert torch.histc(prices.log10(), 100, -1, 1).tolist() == [1] * 100

# %% [markdown] slideshow={"slide_type": "subslide"}
# And one step of training is chapter 5's, with $\beta$ handed to both networks:

# %%
from gmvae_lib.gaussian import kl_standard, sample_diag
from gmvae_lib.likelihood import Binomial


def gated_loss(x, encoder, decoder, low, high, generator):
    beta = spread_prices(len(x), low, high, generator)
    mean, log_var = encoder(x / 16, beta).chunk(2, dim=-1)
    z = sample_diag(mean, log_var, generator)
    distortion = -Binomial(16).log_prob(x, decoder(z, beta))
    return (distortion + beta.squeeze(1) * kl_standard(mean, log_var)).mean()        # Eq. (6.17)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The library has the same behind `VAE.build(..., gated=...)`, and `fit` takes a pair $(\beta_{\min},\beta_{\max})$ in
# place of one $\beta$. We copy its first weights into our networks, take three steps with both, and compare:

# %%
torch.manual_seed(0)
model = VAE.build(data_dim=64, latent_dim=8, hidden=(128, 128), gated=2.0)
encoder, decoder = GatedNetwork((64, 128, 128, 16)), GatedNetwork((8, 128, 128, 64))
for ours, theirs in ((encoder, model.encoder.mlp), (decoder, model.decoder.mlp)):
    ours.load_state_dict(theirs.state_dict())

# %% [markdown] slideshow={"slide_type": "fragment"}
# Our steps, each on the whole data set:

# %%
generator = torch.Generator().manual_seed(1)
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
for _ in range(3):
    order = torch.randperm(len(train), generator=generator)
    loss = gated_loss(train.x[order], encoder, decoder, 0.1, 10.0, generator)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %% [markdown] slideshow={"slide_type": "fragment"}
# The library's, with the whole data set as one batch:

# %%
fit(model, train, epochs=3, beta=(0.1, 10.0), batch_size=len(train), seed=1, device="cpu")
pairs = zip([*encoder.parameters(), *decoder.parameters()], model.parameters())
print("Every weight agrees:", all(torch.allclose(*pair, atol=1e-4) for pair in pairs))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The training, and why each part is needed
#
# The obvious recipe (one $\beta$ per batch, the loss divided by $1+\beta$ to keep it in bounds, gates that start
# nearly flat) serves low prices well and fails at high ones: at $\beta=64$ it cost two fifths more than a network of
# its own. Four changes mend it, and each has a reason that this chapter has given:
#
# - **A price for each image**, in place of one for each batch. Every step then sees the whole range, and its gradient
#   is not thrown about by the price of the day.
# - **No divisor.** At $\beta=64$ a needless nat of rate costs the objective 64 nats; divided by 65 it is felt as one.
#   The plain mean counts what is lost at every price in the same unit.
# - **Steep gates with spread turning points.** Dimensions switch off at sharp prices, Eq. (6.12), all over the range;
#   gates that start flat and alike have to travel there first.
# - **Warm-up, for a range.** High prices in the first steps flatten dimensions for good, low prices included (without
#   this change a run of ours lost one of six at every price). So the upper end of the range starts at 1 and rises.
#
# Two smaller things. The prices lean to the high end: with $u$ uniform, $\log\beta$ moves up its range as $u^{0.45}$
# (four in five prices are then in the upper half), because the curve bends most between $\beta=4$ and the threshold.
# And in the last third of the training the steps of Adam shrink to nothing (`decay`), so that the noise of all these
# draws averages out.

# %%
from gmvae_lib.training import decay


def widening(progress):  # lowest and highest price, and how they lean to the high end
    return 0.01, 80 ** min(1.0, progress / 0.2), 0.45

# %% [markdown] slideshow={"slide_type": "fragment"}
# Six dimensions, 600 epochs:

# %%
torch.manual_seed(0)
every = VAE.build(data_dim=64, latent_dim=6, hidden=(128, 128), gated=2.0)
history = fit(every, train, epochs=600, beta=widening, lr=decay(3e-3), device="cpu")

# %% [markdown] slideshow={"slide_type": "subslide"}
# That took some ten or twenty seconds, and is a whole curve. We read it off on held-out images; `rate_distortion`
# calls `mean_elbo` and `active_units` at each price.

# %%
from gmvae_lib.evaluation import rate_distortion

grid = torch.logspace(-2, 2, 25)
curve = rate_distortion(every, test.x, grid)

# %% [markdown] slideshow={"slide_type": "fragment"}
# It is what we would have written, and its rate falls as $\beta$ rises, Eq. (6.8). (The distortion need not follow:
# Eq. (6.8) is about the images that are trained on. On held-out ones the curve turns up at its right end, since at the
# smallest prices the network overfits.)

# %%
alone = [mean_elbo(every, test.x, beta=float(beta)) for beta in grid[:2]]
assert torch.allclose(torch.stack([curve.distortion, curve.rate], 1)[:2], torch.tensor(alone))
assert curve.rate.sort(descending=True).values.allclose(curve.rate, atol=0.3)        # Eq. (6.8)
print("Silent at beta = 100:", bool(curve.rate[-1] < 0.2))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Against networks for one β each
#
# Is it as good as networks that serve one price only? Those take some minutes to train, eighteen of them: six
# prices, three seeds, the same sizes and epochs. So we trained them beforehand, with
# `python -m gmvae_lib.pretrained.rate_distortion`, which also trains the gated network from three seeds; their
# numbers come with the course. The gated network that we compare here is the one you have just trained.

# %%
from gmvae_lib.pretrained.rate_distortion import BETAS, load_comparison

single = {beta: [row[5:7] for row in load_comparison() if row[0] == "single" and row[2] == beta]
          for beta in BETAS}                                # (distortion, rate) on held-out images

# %% [markdown] slideshow={"slide_type": "fragment"}
# The objective, ours against the mean of theirs:

# %%
ours = rate_distortion(every, test.x, BETAS)
theirs = [sum(d + beta * r for d, r in rows) / len(rows) for beta, rows in single.items()]
excess = ours.objective / torch.tensor(theirs) - 1
print("At most 6 % dearer than its own network, at every price:", bool((excess < 0.06).all()))

# %% [markdown] slideshow={"slide_type": "fragment"}
# The curve and the points, three seeds each:

# %%
pairs = torch.tensor([row for rows in single.values() for row in rows])
names = {f"β = {beta:g}": (rows[0][1], rows[0][0]) for beta, rows in single.items()}

# %% [markdown] slideshow={"slide_type": "fragment"}
# In the plane:

# %%
figures.rate_plane(
    "Held-out digits: one network for all prices, and one for each",
    curves={"one network, every β": (curve.rate, curve.distortion)},
    points={"trained for one β": (pairs[:, 1], pairs[:, 0])}, names=names,
    size=(8.4, 4.4), xlim=(-1, 30), ylim=(75, 270),
    alt="A convex curve falls from the left, where the rate is zero, to the right, where it levels "
        "off and turns up a little. Clusters of three squares, for networks trained for one beta "
        "each, lie on it or close to it, in order of beta from the lower right to the upper left; "
        "those of beta 0.1 lie beyond its right end.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# The same from the shipped trainings, in the objective's own unit, means of three seeds on held-out images; the last
# row is what the gated network costs more (+) or less (−):
#
# | $\beta$ | 0.1 | 0.5 | 1 | 4 | 16 | 64 |
# |---|---|---|---|---|---|---|
# | trained for one $\beta$ | 94.0 ± 1.0 | 98.9 ± 1.2 | 104.4 ± 0.8 | 132.5 ± 1.0 | 194.8 ± 0.6 | 251.1 ± 0.0 |
# | one network for every $\beta$ | 89.4 ± 0.4 | 95.5 ± 0.5 | 102.1 ± 0.6 | 131.7 ± 0.4 | 199.4 ± 0.7 | 252.7 ± 0.6 |
# | difference | −5.0 % | −3.5 % | −2.2 % | −0.7 % | +2.3 % | +0.6 % |
#
# So one network stands in for all of them: at no price is it more than 3 % dearer. Read the signs with care. At small
# $\beta$ it is even cheaper on *held-out* images, because the separate networks overfit: on the training images they
# are ahead at every price, by 15 % at $\beta=0.1$. (Being asked for every price at once is a restraint, and here a
# healthy one.) From $\beta=16$ on, where little can be overfitted, they are ahead on both.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Choose the price yourself
#
# Move $\beta$ with the slider (click it, then use the arrow keys), or type it. The point moves along the curve with
# its tangent; the map shows two of the codes' coordinates (choose others in the menus); on the right, held-out
# digits are drawn again from their codes, above samples from the prior.
#
# Look for three things. At which price does the hand go, and at which the digit? What happens to the samples as
# reconstructions get better? And when does the map shrink to a point?

# %%
explorers.BetaExplorer(every, test)

# %% [markdown] slideshow={"slide_type": "fragment"}
# At small $\beta$ reconstructions are faithful and samples are poor: the codes are so sharp that they leave most of the
# prior's space empty, and a sample falls between them. As $\beta$ rises, the codes blur until they fill the prior, and
# samples look as good as reconstructions, which are by then no longer faithful. A single $\beta$ cannot have both;
# that is the prior's doing, and [chapter 7](07_the_prior_is_the_problem.ipynb)'s subject.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Watch a training
#
# Press Start and move $\beta$ while it trains. Raise it far above the threshold of Eq. (6.14) and the rate falls to
# zero; lower it again, and the code comes back: below the threshold silence is a saddle and no minimum, and these steps
# are small enough to leave the hidden units alive. (The loss jumps whenever the price does.) The training runs in the background; Stop keeps the model as it is.

# %%
explorers.LiveTraining(train)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Each stub runs as it is and says "not attempted yet". Replace `raise NotImplementedError` by your code and run the
# cell again. Worked solutions are in [the solutions of chapter 6](solutions/06_beta_and_the_rate_distortion_curve.ipynb).

# %% slideshow={"slide_type": "skip"}
from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 6.1 (★, 5 minutes)
# Return the mutual information $I$, in nats, of a table `joint` of probabilities $q(x,z)$, all positive: one number.

# %%
def my_information(joint):
    raise NotImplementedError

check("6.1", my_information)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 6.2 (★★, 10 minutes)
# Return the rate and the distortion (without its constant) of Gaussian data with these `eigenvalues`, a vector, for the
# decoder's noise variance `sigma2` and the price `beta`: a pair of numbers.

# %%
def my_curve(eigenvalues, sigma2, beta):
    raise NotImplementedError

check("6.2", my_curve)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 6.3 (★★, 10 minutes)
# A code with $K$ values: from `log_prior` $(K,)$ and `log_likelihood` $(N, K)$, the logarithms of $p(z)$ and
# $p_\theta(x_n\mid z)$, return the best $q(z\mid x_n)$ at the price `beta`: $(N, K)$. Some of the log-likelihoods are
# below $-3000$.

# %%
def my_e_step(log_prior, log_likelihood, beta):
    raise NotImplementedError

check("6.3", my_e_step)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 6.4 (★★, 10 minutes)
# Return the rate with free bits, Eq. (6.15), of a batch with `mean` and `log_var` $(N, d)$ and the allowance `alpha`
# for each dimension: one number.

# %%
def my_free_bits(mean, log_var, alpha):
    raise NotImplementedError

check("6.4", my_free_bits)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Summary
#
# - Every model is a point in the plane of rate and distortion, and none lies below $D+R=H$. The ELBO tells how far
#   above the line it is; it does not tell where.
# - $\beta$ is a price. It picks the point whose tangent has the slope $-\beta$: one more nat of rate would save exactly
#   $\beta$ nats of distortion. A higher price never buys a longer code.
# - Each dimension has a price at which it switches off. For Gaussian data the formula is reverse water-filling; for
#   any VAE, silence is a local minimum above a price that is the largest eigenvalue of a scaled covariance.
# - Collapse by decision is the optimum, and no schedule changes it. Collapse by accident comes from large steps on a code
#   that is pressed from the start; warm-up cures most of it, free bits some, and smaller steps avoid it.
# - One gated network serves every price, if every batch sees all prices, no price is discounted, the gates are ready
#   to switch, and high prices wait until the code stands.
#
# **You may now import** `network.Gate`, `training.warm_up`, `cyclic` and `decay`, `fit` with a pair for `beta` or with
# `free_bits`, `prior.with_free_bits`, `evaluation.mean_elbo`, `active_units` and `rate_distortion`.
#
# **Where this leads.** Eq. (6.3) says that rate is wasted wherever the prior is not the aggregate posterior. How much
# is that, and what does it do to samples? That is [chapter 7, The prior is the problem](07_the_prior_is_the_problem.ipynb).
# [Chapter 8, the mixture-prior VAE](08_mixture_prior_vae.ipynb), learns a prior that wastes less.

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Sources
#
# - Alexander Alemi, Ben Poole, Ian Fischer, Joshua Dillon, Rif Saurous and Kevin Murphy (2018). *Fixing a Broken
#   ELBO.* ICML.
# - Irina Higgins and coauthors (2017). *beta-VAE: Learning Basic Visual Concepts with a Constrained Variational
#   Framework.* ICLR.
# - Thomas Cover and Joy Thomas (2006). *Elements of Information Theory*, 2nd edition, chapter 10. Wiley.
# - Samuel Bowman and coauthors (2016). *Generating Sentences from a Continuous Space.* CoNLL. (Warm-up.)
# - Diederik Kingma, Tim Salimans and coauthors (2016). *Improved Variational Inference with Inverse Autoregressive
#   Flow.* NeurIPS. (Free bits.)
# - Hao Fu and coauthors (2019). *Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing.* NAACL.
# - James Lucas, George Tucker, Roger Grosse and Mohammad Norouzi (2019). *Don't Blame the ELBO! A Linear VAE
#   Perspective on Posterior Collapse.* NeurIPS.
# - Yuri Burda, Roger Grosse and Ruslan Salakhutdinov (2016). *Importance Weighted Autoencoders.* ICLR. (Active units.)
# - Juhan Bae and coauthors (2023). *Multi-Rate VAE: Train Once, Get the Full Rate-Distortion Curve.* ICLR.
