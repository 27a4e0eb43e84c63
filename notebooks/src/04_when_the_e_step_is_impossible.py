# %% [markdown] slideshow={"slide_type": "slide"}
# # 04 When the E-step is impossible
#
# **What if the posterior has no formula?**
#
# A number $z$ is drawn from the standard normal distribution and hidden from us. What we see is $x=f(z)+\text{noise}$, with
# $f(z)=z/4+z^2/2$ and noise of standard deviation 0.3. Given $x$, what do we know about $z$?

# %% slideshow={"slide_type": "-"}
import math

import torch
from torch import nn
from torch.distributions import Normal

from gmvae_lib import figures

torch.set_num_threads(1)  # all is small: a second thread would only be waited for
torch.set_default_dtype(torch.float64)


def f(z):
    return z / 4 + z.square() / 2


def log_joint(x, z):                                                       # log p(x|z) + log p(z)
    return Normal(f(z), 0.3).log_prob(x) + Normal(0.0, 1.0).log_prob(z)

# %% [markdown]
# Three values of $x$, and what each of them says:

# %% slideshow={"slide_type": "-"}
z, heights = torch.linspace(-3.5, 3.5, 351), torch.linspace(-0.8, 3.2, 201)
figures.joint_slices(
    z, heights, log_joint(heights[:, None], z).exp(), at=(0.0, 0.4, 1.6), curve=f(z),
    alt="On the left the joint density of z and x, a blurred parabola, cut by three horizontal "
        "lines. On the right the three cuts as densities of z: the lowest is one broad hump, the "
        "middle one lopsided with two heads, the highest two separate humps of unequal height.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The curves on the right are posteriors, and the E-step of expectation–maximization (EM) needs one for every point. In chapter 2 a posterior was a row of $K$ responsibilities; here it is a whole
# curve, and each $x$ has a curve of another shape. None of them has a formula. We could draw them because a single $z$ can be tried out on a grid. With ten
# hidden numbers and a hundred grid points for each, that would be $10^{20}$ evaluations for every $x$.
#
# What can we do, if the E-step cannot be carried out? Take the best substitute from a family that we can handle. This chapter does so, and measures,
# with exact answers beside it, what the substitute costs.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you will be able to do
#
# - write chapter 2's bound for a continuous latent variable, and say what is lost when $q$ is restricted;
# - derive the Kullback–Leibler divergence of two Gaussians, and with it every quantity of the linear-Gaussian model in closed form;
# - predict how a fitted Gaussian will be wrong: too narrow, on one hump, or stretched over all of them;
# - estimate the gradient of an average in two ways, and say what each costs in variance;
# - train a network to do the E-step, and split what it loses into two parts, one for the family and one for the network;
# - recognize five failures that such methods do not report.
#
# **You need** [chapter 1](01_gaussian_mixtures.ipynb) (the Gaussian by Cholesky) and [chapter 2](02_expectation_maximization.ipynb) (the bound); eigenvalues, and PyTorch as far as
# `nn.Linear` and `backward()`. **It takes** about 90 minutes, and an hour more for the exercises.
#
# Notation: data $x\in\mathbb R^D$, latent $z\in\mathbb R^d$, prior $p(z)$. $\mathbb E_q$ is the average over $z\sim q$; integrals run over all of $\mathbb R^d$; log-densities come in nats.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The same bound, with an integral
#
# ### What is missing
#
# Chapter 1's two steps remain: first $z$ from $p(z)$, then $x$ from $p(x|z)$. Only the sum over components becomes an integral:
#
# $$p(x)=\int p(x|z)\,p(z)\,dz. \tag{4.1}$$
#
# By Bayes' rule, as in Eq. (1.16), the posterior is the joint density divided by this number:
#
# $$p(z|x)=\frac{p(x|z)\,p(z)}{p(x)}. \tag{4.2}$$
#
# The numerator is two lines of code. All the trouble is in the denominator. For a single hidden number we can replace the integral by a sum over a grid of points $z_j$, a distance $h$ apart:
#
# $$\log p(x)\approx\log\sum_jh\,p(x,z_j). \tag{4.3}$$

# %%
grid = torch.linspace(-8, 8, 401)
step = grid[1] - grid[0]


def log_evidence(x, grid):
    h = grid[1] - grid[0]
    return (log_joint(x[..., None], grid) + h.log()).logsumexp(-1)         # Eq. (4.3)

# %% [markdown] slideshow={"slide_type": "subslide"}
# How far can we trust the sum? Refine the grid and see whether anything changes. For smooth functions that vanish at both ends with all their derivatives (ours do, to within rounding), such a sum converges faster than any power of $h$:

# %%
some = heights[::10]
finest = log_evidence(some, torch.linspace(-8, 8, 12_801))
for n in (51, 101, 201, 401):
    error = (log_evidence(some, torch.linspace(-8, 8, n)) - finest).abs().max()
    print(f"{n} points: off by less than 1e-8 nats:", bool(error < 1e-8))

# %% [markdown]
# (The part of the integral outside $\pm8$ is less than $10^{-14}$: the prior's part is about $10^{-15}$, and $p(x|z)$ is at most 1.33.) From 201 points on the sum *is* the truth for our purposes, and everything that follows is measured against it. One point, its evidence, its posterior:

# %%
x = torch.tensor(1.2)
joint = log_joint(x, grid)
log_px = log_evidence(x, grid)
log_posterior = joint - log_px                                             # Eq. (4.2)
assert torch.isclose(log_posterior.exp().sum() * step, torch.tensor(1.0))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The bound
#
# Let $q(z)$ be any density. Jensen's inequality, Eq. (2.3), came from averaging the tangent's inequality with weights $q_k$. Averaged with a density $q(z)$, it says in the same way that
# $\mathbb E_q[\log a(z)]\le\log\mathbb E_q[a(z)]$ for every positive function $a.$ With $a=p(x,z)/q(z)$ the right side is $\log p(x)$ (or less, if $q$ is zero somewhere, so that the inequality stands):
#
# $$\mathcal L(q)=\mathbb E_q\big[\log p(x,z)-\log q(z)\big]\;\le\;\log p(x). \tag{4.4}$$
#
# This is the evidence lower bound (ELBO) of Eq. (2.4). And what it loses is found as before: write $p(x,z)=p(z|x)\,p(x)$ inside the bound. The factor $p(x)$ does not depend on $z$ and comes out:
#
# $$\log p(x)=\mathcal L(q)+\mathrm{KL}\big(q\Vert p(z|x)\big),\qquad \mathrm{KL}(q\Vert p)=\mathbb E_q\Big[\log\frac{q(z)}{p(z)}\Big]\ge0. \tag{4.5}$$
#
# Letter for letter chapter 2's identity, Eq. (2.6), with the Kullback–Leibler divergence (KL) as an integral, which is never negative for the reason given with Eq. (2.5). It holds for every $q$, so let us try three that have nothing to do with the posterior, a wide Gaussian, a narrow one and a lopsided density:

# %%
def average(log_q, values):                                                # E_q, on the grid
    return (log_q.exp() * values).sum(-1) * step


for q in (Normal(0.5, 1.0), Normal(-1.0, 0.2), torch.distributions.Gumbel(0.0, 0.4)):
    log_q = q.log_prob(grid)
    elbo = average(log_q, joint - log_q)                                   # Eq. (4.4)
    gap = average(log_q, log_q - log_posterior)
    assert gap > 0 and torch.isclose(elbo + gap, log_px)                   # Eq. (4.5)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A restricted E-step
#
# Chapter 2 could set $q$ to the posterior. Here we choose a family $\mathcal F$ of densities that we can handle, Gaussians say, and take its best member. Since the left side of Eq. (4.5) does not depend on $q$, highest bound and
# smallest divergence are the same thing:
#
# $$q^*=\arg\max_{q\in\mathcal F}\mathcal L(q)=\arg\min_{q\in\mathcal F}\mathrm{KL}\big(q\Vert p(z|x)\big),\qquad \log p(x)-\mathcal L(q^*)=\min_{q\in\mathcal F}\mathrm{KL}\big(q\Vert p(z|x)\big). \tag{4.6}$$
#
# This is *variational inference*. It turns an integral that we cannot compute into a maximization that we may be able to carry out. Note what makes it possible: $\mathcal L$ contains the joint density only. The posterior, which we do not have, is never asked for.
#
# For our point, let $\mathcal F$ be all Gaussians, and try 61 means with 40 standard deviations:

# %%
means, sds = torch.linspace(-3, 3, 61)[:, None, None], torch.linspace(0.05, 2, 40)[:, None]
log_q = Normal(means, sds).log_prob(grid)
bounds = average(log_q, joint - log_q)
i, j = divmod(int(bounds.argmax()), 40)
best_mean, best_sd = means.ravel()[i], sds.ravel()[j]
print(f"the best of them falls short of log p(x) by {log_px - bounds.max():.1f} nats")

# %% [markdown]
# The picture of what was found:

# %%
shown = grid.abs() < 3.2
figures.curves(
    grid[shown], {"posterior $p(z|x)$": log_posterior.exp()[shown],
                  "best Gaussian $q^*(z)$": Normal(best_mean, best_sd).log_prob(grid).exp()[shown],
                  "prior $p(z)$": Normal(0.0, 1.0).log_prob(grid).exp()[shown]},
    "x = 1.2: what is known, and the best Gaussian", "$z$", "density", markers=False,
    alt="Densities over z. The posterior has two humps, the right one higher. The best Gaussian "
        "covers the right hump and leaves the left one out. The prior is wide and low.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The best Gaussian has picked one of the humps. This is no accident of our search, and the loss of 0.4 nats is no accident either: we shall see both explained.
#
# Three questions are now open. What does $\mathcal L$ look like where it has a formula, so that we can see the gap in clean conditions? In which way is $q^*$ wrong? And how is $\mathcal L$ maximized where neither grid nor formula is available?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The divergence of two Gaussians
#
# Gaussians will stand on both sides of the divergence, so we need it in closed form. The one tool is the average of a quadratic. Let $z$ have mean $m$ and covariance $V$, let $A$ be a symmetric matrix and $\mu$ a point. Write
# $z-\mu=(z-m)+(m-\mu)$ and multiply out. The mixed terms average to zero, because $\mathbb E[z-m]=0$. In the first term use $u^\top Au=\operatorname{tr}(A\,uu^\top)$, as in chapter 2, and $\mathbb E[(z-m)(z-m)^\top]=V$:
#
# $$\mathbb E\big[(z-\mu)^\top A\,(z-\mu)\big]=\operatorname{tr}(AV)+(m-\mu)^\top A\,(m-\mu). \tag{4.7}$$
#
# *First half.* The *entropy* of $q=\mathcal N(m,V)$ is $-\mathbb E_q[\log q(z)]$. By Eq. (1.5), $-\log q(z)=\frac12\big(d\log2\pi+\log\det V+(z-m)^\top V^{-1}(z-m)\big)$, and by Eq. (4.7) the last term averages to $\operatorname{tr}(V^{-1}V)=d$:
#
# $$-\mathbb E_q[\log q(z)]=\frac12\big(d\log2\pi+\log\det V+d\big). \tag{4.8}$$

# %% [markdown] slideshow={"slide_type": "subslide"}
# *Second half.* For $p=\mathcal N(\mu,\Sigma)$, the same step with $A=\Sigma^{-1}$ gives $-\mathbb E_q[\log p(z)]=\frac12\big(d\log2\pi+\log\det\Sigma+\operatorname{tr}(\Sigma^{-1}V)+(m-\mu)^\top\Sigma^{-1}(m-\mu)\big)$.
#
# *Together.* $\mathrm{KL}(q\Vert p)$ is the second minus the first; $d\log2\pi$ cancels:
#
# $$\mathrm{KL}(q\Vert p)=\frac12\Big(\operatorname{tr}(\Sigma^{-1}V)+(m-\mu)^\top\Sigma^{-1}(m-\mu)-d+\log\det\Sigma-\log\det V\Big). \tag{4.9}$$
#
# Read it term by term: $q$ pays for being wide where $p$ is narrow, for standing in the wrong place, and, through $-\log\det V$, for being narrow. If both covariances are diagonal, with variances $v_i$ and $s_i^2$, it falls apart into dimensions:
#
# $$\mathrm{KL}=\frac12\sum_{i=1}^d\Big(\frac{v_i}{s_i^2}+\frac{(m_i-\mu_i)^2}{s_i^2}-1+\log s_i^2-\log v_i\Big). \tag{4.10}$$

# %%
def gaussian_kl(m, V, mu, Sigma):
    trace = torch.linalg.solve(Sigma, V).diagonal(dim1=-2, dim2=-1).sum(-1)
    off = m - mu
    distance = (off * torch.linalg.solve(Sigma, off[..., None])[..., 0]).sum(-1)
    return 0.5 * (trace + distance - m.shape[-1] + Sigma.logdet() - V.logdet())  # Eq. (4.9)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The library has it for the cases that the course needs: a diagonal $q$ against a diagonal or a full $p$, with Cholesky factors as in chapter 1. All of them agree, and so does PyTorch:

# %%
from gmvae_lib import gaussian

torch.manual_seed(0)
(m, mu), (log_v, log_s2) = torch.randn(2, 3), torch.randn(2, 3)
root = torch.randn(3, 5)
V, S2, Sigma = log_v.exp().diag(), log_s2.exp().diag(), root @ root.T / 5
assert torch.isclose(gaussian_kl(m, V, mu, S2), gaussian.kl_diag(m, log_v, mu, log_s2))
L = torch.linalg.cholesky(Sigma)
theirs = gaussian.kl_diag_full(m[None], log_v[None], mu, L)
assert torch.isclose(gaussian_kl(m, V, mu, Sigma), theirs)
entropy = 0.5 * (3 * math.log(2 * math.pi) + V.logdet() + 3)               # Eq. (4.8)
assert torch.isclose(entropy, gaussian.entropy_diag(log_v))
p, q = (torch.distributions.MultivariateNormal(*args) for args in ((mu, Sigma), (m, V)))
assert torch.isclose(gaussian_kl(m, V, mu, Sigma), torch.distributions.kl_divergence(q, p))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A model with all the answers
#
# Take the nonlinearity out: let $x=Wz+b+\text{noise}$, with a $D\times d$ matrix $W$, $p(z)=\mathcal N(0,I)$, and independent noise of variance $\sigma^2$ on each of the $D$ coordinates. This is *probabilistic principal component analysis* (pPCA), and
# everything about it has a formula: the ideal place for looking at the bound. As a sum of independent Gaussians, $x$ is Gaussian, and the covariances of $Wz$ and of the noise add up:
#
# $$p(x)=\mathcal N(x|b,C),\qquad C=WW^\top+\sigma^2I. \tag{4.11}$$
#
# Here are five measurements of two hidden causes that act very much alike, and 500 points:

# %%
W = torch.tensor([[1.0, 0.9], [0.8, 1.0], [0.9, 0.7], [0.2, 0.3], [0.0, 0.4]])
b, sigma2 = torch.tensor([1.0, 0.0, -1.0, 0.0, 2.0]), torch.tensor(0.25)
(D, d), N = W.shape, 500
data = torch.randn(N, d) @ W.T + b + sigma2.sqrt() * torch.randn(N, D)
C = W @ W.T + sigma2 * torch.eye(D)
log_p = gaussian.log_prob_full(data, b, torch.linalg.cholesky(C))          # Eq. (4.11)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Its posterior, by completing the square
#
# As a function of $z$, and with $\Lambda=I+W^\top W/\sigma^2$, the log of the joint density is
#
# $$\log p(x,z)=-\frac{\lVert x-b-Wz\rVert^2}{2\sigma^2}-\frac{\lVert z\rVert^2}2+\text{const}=-\frac12\Big(z^\top\Lambda z-2z^\top\frac{W^\top(x-b)}{\sigma^2}\Big)+\text{const}.$$
#
# A Gaussian with mean $\mu$ and *precision matrix* $\Lambda$ (the inverse of its covariance) has the exponent $-\frac12(z^\top\Lambda z-2z^\top\Lambda\mu)+\text{const}$. Comparing the terms, the posterior is that Gaussian with $\Lambda\mu=W^\top(x-b)/\sigma^2$.
# With $M=W^\top W+\sigma^2I=\sigma^2\Lambda$,
#
# $$p(z|x)=\mathcal N\big(z|\mu(x),\Lambda^{-1}\big),\qquad\mu(x)=M^{-1}W^\top(x-b),\qquad\Lambda=M/\sigma^2. \tag{4.12}$$
#
# The mean is linear in $x$; the covariance does not depend on $x$ at all.

# %%
M = W.T @ W + sigma2 * torch.eye(d)
Lambda = M / sigma2
mu = torch.linalg.solve(M, W.T @ (data - b).T).T                           # Eq. (4.12)
Sigma = torch.linalg.inv(Lambda)

# %% [markdown]
# Is it the posterior? Bayes' rule, Eq. (4.2), must hold at *every* $z$, so any $z$ will do as a test:

# %%
z = torch.randn(N, d)
prior = gaussian.log_prob_diag(z, torch.zeros(d), torch.zeros(d))
likelihood = gaussian.log_prob_diag(data, z @ W.T + b, sigma2.log().expand(D))
posterior = gaussian.log_prob_full(z - mu, torch.zeros(d), torch.linalg.cholesky(Sigma))
assert torch.allclose(likelihood + prior - posterior, log_p)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Small matrices in place of large ones
#
# $C$ is $D\times D$, while $M$ is only $d\times d$. A formula named after Woodbury trades one for the other:
#
# $$C^{-1}=\frac1{\sigma^2}\big(I-WM^{-1}W^\top\big). \tag{4.13}$$
#
# To prove it, multiply. $(WW^\top+\sigma^2I)(I-WM^{-1}W^\top)=WW^\top+\sigma^2I-W\,(W^\top W+\sigma^2I)\,M^{-1}W^\top$. The bracket is $M$ and cancels with $M^{-1}$; what is left is $\sigma^2I$.
#
# And the determinant: the matrices $WW^\top$ and $W^\top W$ have the same eigenvalues, except that the larger one (we let $d\le D$) has $D-d$ further zeros. Adding $\sigma^2I$ adds $\sigma^2$ to each. So
#
# $$\log\det C=(D-d)\log\sigma^2+\log\det M. \tag{4.14}$$

# %%
woodbury = (torch.eye(D) - W @ torch.linalg.solve(M, W.T)) / sigma2        # Eq. (4.13)
assert torch.allclose(woodbury @ C, torch.eye(D))
assert torch.isclose(C.logdet(), (D - d) * sigma2.log() + M.logdet())      # Eq. (4.14)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The bound in closed form
#
# Let $q=\mathcal N(m,V)$ be any Gaussian. Split $\log p(x,z)=\log p(x|z)+\log p(z)$ in Eq. (4.4). In the first part write $x-b-Wz=(x-b-Wm)-W(z-m)$. The mixed terms of its square average to zero, and $\lVert W(z-m)\rVert^2$ to $\operatorname{tr}(W^\top WV)$, by Eq. (4.7). The second part together with $-\log q$ is minus the divergence from the prior:
#
# $$\mathcal L(q)=-\frac D2\log2\pi\sigma^2-\frac{\lVert x-b-Wm\rVert^2+\operatorname{tr}(W^\top WV)}{2\sigma^2}-\mathrm{KL}\big(q\Vert p(z)\big), \tag{4.15}$$
#
# where Eq. (4.9) with $\mu=0$, $\Sigma=I$ gives $\mathrm{KL}(q\Vert p(z))=\frac12\big(\operatorname{tr}V+\lVert m\rVert^2-d-\log\det V\big)$.

# %%
def pca_elbo(x, m, V, W):
    trace = (W.T @ W @ V).trace()
    residual = (x - b - m @ W.T).square().sum(-1)
    fit = -0.5 * D * (2 * math.pi * sigma2).log() - (residual + trace) / (2 * sigma2)
    return fit - 0.5 * (V.trace() + m.square().sum(-1) - d - V.logdet())   # Eq. (4.15)

# %% [markdown]
# Now the identity can be checked with formulas on all sides: the log-likelihood from Eq. (4.11), the bound from Eq. (4.15), the divergence from Eq. (4.9). We ask for ten digits, from an arbitrary $q$ and from the posterior, where the gap must vanish:

# %%
some_m, some_V = mu + torch.tensor([0.3, -0.5]), torch.tensor([[0.4, 0.1], [0.1, 0.2]])
gap = log_p - pca_elbo(data, some_m, some_V, W)
error = gap - gaussian_kl(some_m, some_V, mu, Sigma)
assert error.abs().max() < 1e-10                                           # Eq. (4.5)
assert (log_p - pca_elbo(data, mu, Sigma, W)).abs().max() < 1e-10          # nothing is lost

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Coordinates that do not talk to each other
#
# Now restrict $q$. A very common family makes the coordinates of $z$ independent: $q=\mathcal N(m,\operatorname{diag}(v_1,\dots,v_d))$, a *diagonal* Gaussian. With the posterior's precision $\Lambda$ the divergence of Eq. (4.9) is
# $\frac12\big(\sum_i\Lambda_{ii}v_i+(m-\mu)^\top\Lambda(m-\mu)-d-\log\det\Lambda-\sum_i\log v_i\big)$. The mean's part is zero at $m=\mu$ and positive elsewhere; the derivative with respect to $v_i$ is $\frac12(\Lambda_{ii}-1/v_i)$. So
#
# $$m=\mu,\qquad v_i=\frac1{\Lambda_{ii}}. \tag{4.16}$$
#
# Inserted, $\sum_i\Lambda_{ii}v_i=d$, and what remains of the gap is
#
# $$\min_{m,v}\mathrm{KL}=\frac12\Big(\sum_{i}\log\Lambda_{ii}-\log\det\Lambda\Big)\;\ge\;0. \tag{4.17}$$

# %%
best_V = (1 / Lambda.diagonal()).diag()                                    # Eq. (4.16)
gap = log_p - pca_elbo(data, mu, best_V, W)
closed = 0.5 * (Lambda.diagonal().log().sum() - Lambda.logdet())           # Eq. (4.17)
assert (gap - closed).abs().max() < 1e-10
print(f"lost at every point: {closed:.2f} nats")

# %% [markdown] slideshow={"slide_type": "subslide"}
# How wrong is this $q$? Its mean is right. Its variances are not: $1/\Lambda_{ii}$ is what remains uncertain about $z_i$ when all other coordinates are *known* (as a function of $z_i$ alone, the exponent $-\frac12(z-\mu)^\top\Lambda(z-\mu)$ has the coefficient $-\frac12\Lambda_{ii}$ at $z_i^2$), while $\Sigma_{ii}$ is what is uncertain about it altogether. The first is never larger. For with a symmetric square root $R$ of $\Lambda$ and the unit vector $e_i$,
# the inequality of Cauchy and Schwarz gives $1=(e_i^\top e_i)^2=\big((Re_i)^\top(R^{-1}e_i)\big)^2\le\Lambda_{ii}\,\Sigma_{ii}$:
#
# $$\frac1{\Lambda_{ii}}\le\Sigma_{ii}. \tag{4.18}$$

# %%
ratio = (1 / Lambda.diagonal()) / Sigma.diagonal()
assert (ratio <= 1).all()                                                  # Eq. (4.18)
print("variances, as a share of the true ones:", [f"{r:.2f}" for r in ratio.tolist()])

# %% [markdown]
# The best independent $q$ gives each cause a quarter of its true variance: it claims to know it twice as exactly as anybody can. The two causes act so alike that only a combination of them is seen well, and a $q$ without correlations cannot say "one or the other". Remember this when a variational method reports error bars.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One coordinate at a time
#
# For the diagonal Gaussian we had formulas. There is an older way to fit independent coordinates, which needs no family at all beyond $q(z)=\prod_iq_i(z_i)$; it is called *mean field*. Hold all factors but $q_i$ fixed, and collect what contains $q_i$ in the bound. With $\mathbb E_{-i}$ the average over all other coordinates,
#
# $$\mathcal L=\mathbb E_{q_i}\Big[\underbrace{\mathbb E_{-i}\log p(x,z)}_{=:\,\log\tilde q_i(z_i)}-\log q_i(z_i)\Big]+\text{const}=-\mathrm{KL}\big(q_i\Vert\tilde q_i/\textstyle\int\tilde q_i\big)+\text{const}.$$
#
# A divergence is smallest where its two arguments agree:
#
# $$\log q_i(z_i)=\mathbb E_{-i}\big[\log p(x,z)\big]+\text{const}. \tag{4.19}$$
#
# Update the factors in turn, and the bound never falls, for the same reason as in EM, Eq. (2.22): each update maximizes it in one of its arguments.

# %% [markdown] slideshow={"slide_type": "subslide"}
# For a Gaussian posterior, $\log p(x,z)$ contains $z_i$ in $-\frac12\Lambda_{ii}(z_i-\mu_i)^2-(z_i-\mu_i)\sum_{j\ne i}\Lambda_{ij}(z_j-\mu_j)$. Averaging replaces $z_j$ by its mean $m_j$. What results is again a quadratic in $z_i$: nobody asked for a Gaussian, but $q_i$ is one, with variance $1/\Lambda_{ii}$, as in Eq. (4.16), and mean
#
# $$m_i=\mu_i-\frac1{\Lambda_{ii}}\sum_{j\ne i}\Lambda_{ij}(m_j-\mu_j). \tag{4.20}$$

# %%
def sweep(m, mu, Lambda):
    path = [m]
    for i in range(len(m)):
        m = m.clone()
        m[i] -= (Lambda[i] @ (m - mu)) / Lambda[i, i]                      # Eq. (4.20)
        path.append(m)
    return path

# %% [markdown]
# (In code, $m_i$ minus the whole sum over $j$ divided by $\Lambda_{ii}$: the term $j=i$ takes the old value away.) Forty sweeps for one point, from a poor start:

# %%
center, path = mu[0], [mu[0] + torch.tensor([-1.1, 1.6])]
for _ in range(40):
    path += sweep(path[-1], center, Lambda)[1:]
bounds = torch.stack([pca_elbo(data[:1], m, best_V, W)[0] for m in path])
assert (bounds.diff() >= -1e-12).all()                                     # never falls
print("now at the posterior's mean:", torch.allclose(path[-1], center, atol=1e-3))

# %% [markdown]
# The stairs, the posterior, and what mean field makes of it:

# %%
figures.gaussian_outlines(
    {"posterior": (center, Sigma), "mean field": (center, best_V)},
    "Coordinate by coordinate", path=torch.stack(path),
    alt="A long, slanted ellipse, the posterior, and about the same center a small, nearly round "
        "one, the mean field: much shorter, but reaching beyond the long one on both of its sides. "
        "A staircase of horizontal and vertical steps leads along the long ellipse to the center.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Two directions
#
# ### The other divergence
#
# $\mathrm{KL}(q\Vert p)$ is not symmetric. Why this direction and not the other? Because it is an average over $q$, from which we can draw. The other one, $\mathrm{KL}(p\Vert q)$, is an average over the posterior, the very thing that we do not have. But where both can be computed they tell a good deal about each other. For a Gaussian $q=\mathcal N(m,v)$,
# $\mathrm{KL}(p\Vert q)=\text{const}+\frac12\big(\log2\pi v+\mathbb E_p(z-m)^2/v\big)$, and by Eq. (4.7) $\mathbb E_p(z-m)^2=\operatorname{Var}_pz+(\mathbb E_pz-m)^2$. This is smallest at $m=\mathbb E_pz$; then $\log v+\operatorname{Var}_pz/v$ is smallest at $v=\operatorname{Var}_pz$, as in Eq. (2.19):
#
# $$\arg\min_{m,v}\mathrm{KL}\big(p\Vert\mathcal N(m,v)\big)=\big(\mathbb E_pz,\ \operatorname{Var}_pz\big). \tag{4.21}$$
#
# The *forward* divergence matches the moments, whatever the shape. It must cover all of $p$: where $p$ has mass and $q$ has none, $\log(p/q)$ is huge. The *reverse* divergence, variational inference's own, must only avoid places where $p$ has none. For two humps, $p=\sum_k\pi_kp_k$, it can sit down on one of them at a bounded price: since $p\ge\pi_kp_k$ everywhere,
#
# $$\mathrm{KL}(p_k\Vert p)=\mathbb E_{p_k}\Big[\log\frac{p_k(z)}{p(z)}\Big]\le-\log\pi_k, \tag{4.22}$$
#
# however far apart the humps are. Half of the mass ignored costs at most $\log2=0.69$ nats.

# %% [markdown]
# A mixture of two humps of weights 0.6 and 0.4, further and further apart; reverse and forward divergence of two Gaussians, the one that sits on the heavier hump, and the one with the moments of the whole:

# %%
def two_humps(a):
    return Normal(-a, 0.6).log_prob(grid), Normal(a, 0.6).log_prob(grid)


def humps_and_fits(a):
    left, right = two_humps(a)
    log_p = torch.logaddexp(math.log(0.6) + left, math.log(0.4) + right)
    mean = average(log_p, grid)
    sd = average(log_p, (grid - mean).square()).sqrt()
    return log_p, {"on one hump": left, "matched moments": Normal(mean, sd).log_prob(grid)}

# %% [markdown]
# Both divergences of both Gaussians:

# %%
apart = torch.linspace(0, 4, 21)
reverse = {"on one hump": [], "matched moments": []}
forward = {"on one hump": [], "matched moments": []}
for a in apart:
    log_p, fits = humps_and_fits(a)
    for name, log_q in fits.items():
        reverse[name].append(average(log_q, log_q - log_p))
        forward[name].append(average(log_p, log_p - log_q))
assert max(reverse["on one hump"]) <= -math.log(0.6) + 1e-9                # Eq. (4.22)
assert all(a < b + 1e-9 for a, b in zip(forward["matched moments"], forward["on one hump"]))

# %% [markdown]
# Reverse, on the left, soon prefers one hump; forward, on the right, prefers the matched moments at every distance:

# %%
figures.curve_panels(
    apart, {"reverse, KL(q‖p)": reverse, "forward, KL(p‖q)": forward},
    "half the distance between the humps", "nats", ylim=(0, 3.2),
    alt="Two panels over the distance of the humps. Reverse: the Gaussian on one hump levels off "
        "at half a nat, while the matched moments keep rising and cross it. Forward: the matched "
        "moments rise slowly, while the Gaussian on one hump leaves the picture at once.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Move it yourself
#
# Here $q$ is yours. Move its mean and its width, by slider or by number. On the left are target and $q$; the two maps show each divergence for *every* mean and width (dark is low), with a cross where your $q$ stands and a ring at the lowest place. The buttons optimize from where $q$ stands. Things to try:
#
# - Put $q$ on the right hump and press *Optimize KL(q‖p)*. Then start from the left. Which of the two is better, and would $q$ find out by itself?
# - Press *Optimize KL(p‖q)*, then move the humps apart. What becomes of $q$'s density between them?
# - Bring the humps closer until the reverse map has a single lowest place.
# - Make $q$ very narrow, anywhere. Which of the divergences hardly minds, and why?

# %%
from gmvae_lib.explorers import DivergenceExplorer

DivergenceExplorer()

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Gradients without integrals
#
# A grid of ten dimensions is out of reach, and closed forms end where the model bends. What remains is to draw from $q$, and to average. (In this section $f$ is any function that we want to average, not the model's curve.) For the *value* of $\mathcal L$ that is easy. For its *gradient* with respect to $q$'s parameters $\phi$ there is a catch: the average is taken over a distribution that itself depends on $\phi$. Two ways around it are in use.
#
# ### By the score
#
# Write the average as an integral, and use $\nabla q=q\,\nabla\log q$ (which is the derivative of the logarithm):
#
# $$\nabla_\phi\,\mathbb E_{q_\phi}[f(z)]=\int f(z)\,\nabla_\phi q_\phi(z)\,dz=\mathbb E_{q_\phi}\big[f(z)\,\nabla_\phi\log q_\phi(z)\big]. \tag{4.23}$$
#
# The vector $\nabla_\phi\log q_\phi(z)$ is called the *score*, hence *score-function estimator*. It asks of $f$ only that the averages exist, not even that it be continuous: draws with a high $f$ are made more probable. Take $f=1$, whose average never changes:
#
# $$\mathbb E_{q_\phi}\big[\nabla_\phi\log q_\phi(z)\big]=\nabla_\phi 1=0. \tag{4.24}$$
#
# So we may replace $f$ by $f-c$ with any constant $c$, a *baseline*: the average stays, the variance does not. (The bound's own $f=\log p(x,z)-\log q_\phi(z)$ contains $\phi$ too. Its derivative there is minus the score, which averages to zero and may be dropped.)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### By the path
#
# The other way takes the chance out of $q$'s hands. A draw from $\mathcal N(m,s^2)$ can be made from a standard normal one:
#
# $$z=m+s\,\varepsilon,\qquad\varepsilon\sim\mathcal N(0,1). \tag{4.25}$$
#
# Now the distribution that we average over contains no parameter, and for an $f$ with a bounded derivative (or one that grows no faster than polynomials) the gradient may move inside:
#
# $$\nabla_\phi\,\mathbb E_{q_\phi}[f(z)]=\mathbb E_\varepsilon\big[\nabla_\phi f(m+s\varepsilon)\big]. \tag{4.26}$$
#
# This is *reparameterization*. It uses the slope of $f$ along the path that each draw takes when the parameters move. (Where $f$ itself contains $\phi$, as the bound's does, the derivative goes through both places.)
#
# For our nonlinear model, the derivative of the bound with respect to $q$'s mean, by each. The score of a Gaussian's mean is $(z-m)/s^2$, Eq. (1.5):

# %%
def value(z, mean, sd):                                                    # f(z) of the bound
    return log_joint(x, z) - Normal(mean, sd).log_prob(z)


def score_gradients(mean, sd, n, baseline=0.0):
    z = mean + sd * torch.randn(n)
    return (value(z, mean, sd) - baseline) * (z - mean) / sd**2            # Eq. (4.23)


def path_gradients(mean, sd, n):
    means = mean.expand(n).clone().requires_grad_()                        # one for each draw
    z = means + sd * torch.randn(n)                                        # Eq. (4.25)
    return torch.autograd.grad(value(z, means, sd).sum(), means)[0]        # Eq. (4.26)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The truth comes from the grid: autograd through the integral. And as a baseline we take the average of $f$, the bound itself, which in practice one estimates from other draws.

# %%
mean, sd = torch.tensor(0.9, requires_grad=True), torch.tensor(0.3)
log_q = Normal(mean, sd).log_prob(grid)
bound = average(log_q, joint - log_q)
truth, = torch.autograd.grad(bound, mean)
bound, mean = bound.detach(), mean.detach()

# %% [markdown]
# *Bias.* 409,600 draws each. An unbiased estimate lies within a few standard errors of the truth:

# %%
torch.manual_seed(1)
draws = {"score": score_gradients(mean, sd, 409_600),
         "score, baseline": score_gradients(mean, sd, 409_600, baseline=bound),
         "path": path_gradients(mean, sd, 409_600)}
for name, g in draws.items():
    errors = (g.mean() - truth).abs() / (g.std() / len(g)**0.5)
    print(f"{name}: within 4 standard errors of the truth:", bool(errors < 4))

# %% [markdown] slideshow={"slide_type": "subslide"}
# *Variance.* An average of $S$ independent draws has
#
# $$\operatorname{Var}\Big[\frac1S\sum_{s}g_s\Big]=\frac{\operatorname{Var}[g]}S, \tag{4.27}$$
#
# a line of slope $-1$ where both axes are logarithmic. We cut the draws into averages of $S$ and look:

# %%
sizes = [1, 4, 16, 64, 256, 1024]
spread = {name: torch.stack([g.reshape(-1, S).mean(1).var() for S in sizes])
          for name, g in draws.items()}
log_sizes = torch.tensor(sizes).double().log()
for name, values in spread.items():
    slope = torch.stack([log_sizes, values.log()]).cov()[0, 1] / log_sizes.var()
    print(f"{name}: slope {slope:.1f}")                                    # Eq. (4.27)

# %% [markdown]
# The slopes are equal; the heights are not:

# %%
figures.curves(
    sizes, spread, "Variance of the estimated gradient", "draws $S$", "variance",
    log_x=True, log_y=True,
    alt="Three parallel falling lines on logarithmic axes: the variance of the score function "
        "highest, with a baseline lower, of the path lowest.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# What matters is the vertical distance: it says how many times more draws the score needs for the same noise as the path.

# %%
one = {name: float(values[0]) for name, values in spread.items()}
print("without a baseline, more than five times:", one["score"] > 5 * one["path"])
print("with one, less than three times:", one["score, baseline"] < 3 * one["path"])

# %% [markdown]
# It depends on $q$: the narrower $q$, the larger its score, while the slopes along the path do not grow. The same with a $q$ half as wide:

# %%
half = sd / 2
log_q = Normal(mean, half).log_prob(grid)
bound = average(log_q, joint - log_q)
by_score = score_gradients(mean, half, 100_000, baseline=bound).var()
by_path = path_gradients(mean, half, 100_000).var()
print("with a baseline, now more than twenty times:", bool(by_score > 20 * by_path))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Over dimensions
#
# One dimension flatters the score function. Take $f(z)=\lVert z\rVert^2$ and $q=\mathcal N(m,I)$ in $d$ dimensions, and the derivative with respect to $m_1$ at $m=0$. There $z=\varepsilon$, and the score is $\varepsilon_1$. Write $\lVert\varepsilon\rVert^2=\varepsilon_1^2+R$, where $R$ collects the other coordinates, with $\mathbb E R=d-1$ and $\mathbb E R^2=3(d-1)+(d-1)(d-2)=d^2-1$. The moments $1,3,15$ of $\varepsilon_1^2,\varepsilon_1^4,\varepsilon_1^6$ give
# $\mathbb E[(\varepsilon_1^2+R)^2\varepsilon_1^2]=15+6(d-1)+d^2-1$. With the baseline $d=\mathbb E f$ we subtract $2d\,\mathbb E[f\varepsilon_1^2]-d^2=2d(d+2)-d^2$. The path's gradient is $2\varepsilon_1$. All have the mean zero, so these are the variances:
#
# $$\text{score: }(d+2)(d+4),\qquad\text{with baseline: }2d+8,\qquad\text{path: }4. \tag{4.28}$$
#
# Each coordinate's gradient carries the noise of all others, unless one follows the path.

# %%
dims = torch.tensor([1, 2, 4, 8, 16, 32, 64])
measured = []
for d_ in dims.tolist():
    eps = torch.randn(100_000, d_)
    f_values, score = eps.square().sum(1), eps[:, 0]
    measured.append([(f_values * score).var(), ((f_values - d_) * score).var(), (2 * score).var()])
measured = torch.tensor(measured)
exact = torch.stack([(dims + 2) * (dims + 4), 2 * dims + 8, torch.full((7,), 4)], 1)  # (4.28)
print("all measured within 10 %:", torch.allclose(measured, exact.double(), rtol=0.1))

# %% [markdown]
# On logarithmic axes:

# %%
figures.curves(
    dims, dict(zip(("score", "score, baseline", "path"), measured.T)),
    "Variance of one draw's gradient, f = ‖z‖²", "dimensions $d$", "variance",
    log_x=True, log_y=True,
    alt="Three lines over the number of dimensions, on logarithmic axes. The path's variance is "
        "constant; for large d the baseline's grows in proportion to it, the plain score's to its "
        "square.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# So whenever $f$ is smooth and $q$ can be reparameterized, the path is the first choice, and chapter 5 builds on it. It is not a law: for a wildly oscillating $f$ slopes are large and values are not, and the score wins (exercise 4.6). And for discrete latents there is no path at all; that case returns in [chapter 10](10_the_family.ipynb).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The work shared out
#
# ### One network for all points
#
# For each new $x$ we would now run an optimization of its own. The alternative is to *learn* the answer as a function of $x$: a network with parameters $\phi$ that reads $x$ and puts out the mean and the log standard deviation of $q_\phi(z|x)$. It is trained on the average of the bounds,
#
# $$\mathcal J(\phi)=\frac1N\sum_{n}\mathcal L\big(q_\phi(\cdot|x_n)\big), \tag{4.29}$$
#
# by drawing $z$ along the path. This is called *amortized* inference: expensive once, in training, and then one pass through the network for any $x$. In chapter 5 it will be the encoder. Here the model is known and fixed, so that only the encoder is on trial, and we can draw fresh data at every step.

# %%
def encoder(width, seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
                         nn.Linear(width, 2))

# %% [markdown]
# The training loop; the learning rate rises to 0.03 and falls again. With the path inserted, $\log q=-\log s-\frac12\varepsilon^2-\frac12\log2\pi$, in which only $-\log s$ depends on $\phi$:

# %%
def train(network, steps=1000, batch=100):
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.03, total_steps=steps)
    for _ in range(steps):
        x = f(torch.randn(batch)) + 0.3 * torch.randn(batch)
        mean, log_sd = network(x[:, None]).unbind(1)
        z = mean + log_sd.exp() * torch.randn(batch)                       # Eq. (4.25)
        log_p = -0.5 * ((x - f(z)) / 0.3).square() - 0.5 * z.square()      # and a constant
        loss = -(log_p + log_sd).mean()                                    # Eq. (4.29)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network

# %% [markdown] slideshow={"slide_type": "subslide"}
# A roomy encoder with 32 hidden units and a cramped one with 4, each from three random starts:

# %%
encoders = {width: [train(encoder(width, seed)) for seed in (1, 2, 3)] for width in (32, 4)}

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Two gaps
#
# Let $q^*_x$ be the best Gaussian for the point $x$ alone. What the network loses at $x$ has two parts:
#
# $$\log p(x)-\mathcal L\big(q_\phi(\cdot|x)\big)=\underbrace{\log p(x)-\mathcal L(q^*_x)}_{\text{approximation gap}}+\underbrace{\mathcal L(q^*_x)-\mathcal L\big(q_\phi(\cdot|x)\big)}_{\text{amortization gap}}. \tag{4.30}$$
#
# Neither is negative. The first is the family's fault, by Eq. (4.6): no network can mend it. The second is the network's. Here both can be computed: $\log p(x)$ and $\mathcal L$ on the grid, $q^*_x$ by an optimization for every $x$. Since there may be several local optima, we start from three places and keep the best.

# %%
points = torch.linspace(-0.8, 3.2, 101)
joints, evidence = log_joint(points[:, None], grid), log_evidence(points, grid)


def bounds_of(mean, log_sd):
    log_q = Normal(mean[..., None], log_sd.exp()[..., None]).log_prob(grid)
    return average(log_q, joints - log_q)

# %% [markdown]
# All 303 optimizations at once, by a quasi-Newton method (L-BFGS: with limited memory, after Broyden, Fletcher, Goldfarb and Shanno):

# %%
means = torch.tensor([-1.5, -0.25, 1.5])[:, None].repeat(1, 101).requires_grad_()
log_sds = torch.full((3, 101), -1.0, requires_grad=True)
optimizer = torch.optim.LBFGS([means, log_sds], max_iter=200, line_search_fn="strong_wolfe")


def minus_bounds():
    optimizer.zero_grad()
    loss = -bounds_of(means, log_sds).sum()
    loss.backward()
    return loss


optimizer.step(minus_bounds)
per_point = bounds_of(means, log_sds).detach().amax(0)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Then the two gaps:

# %%
approximation = evidence - per_point
with torch.no_grad():
    amortization = {width: [per_point - bounds_of(*network(points[:, None]).unbind(1))
                            for network in networks] for width, networks in encoders.items()}
assert approximation.min() > 0
assert min(gap.min() for gaps in amortization.values() for gap in gaps) > -1e-6

# %% [markdown]
# The two gaps, stacked; the amortization gap is, at each $x$, the median of the three starts:

# %%
figures.stacked_panels(
    points, {f"{width} hidden units": {"approximation gap": approximation,
                                       "amortization gap": torch.stack(gaps).median(0)[0]}
             for width, gaps in amortization.items()},
    "$x$", "nats lost",
    alt="Two panels with areas stacked over x. The lower area, the approximation gap, is the same "
        "in both: almost nothing on the left, a steep rise to a peak about x = 0.6, then a slow "
        "descent. The amortization gap on top of it is thin for the large encoder, except at "
        "the peak and the left end, and thicker for the small one."
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Read it from left to right. For small $x$ the posterior is one broad hump, and a Gaussian does. Then the hump splits, and the gap climbs to half a nat. There the best Gaussian *jumps*: on the left of the peak it spans both humps, on the right it sits on one. By Eq. (4.22), nearly an equality where humps hardly overlap, leaving out the other hump costs minus the logarithm of the share that is kept; what the kept hump's own shape adds is small. At $x=1.2$, the point of our first search, about two thirds are kept, and $-\log\frac23$ is the 0.4 nats that we lost. The share grows with $x$, so the gap shrinks:

# %%
kept = (joints - evidence[:, None]).exp()[:, grid > -0.25].sum(1) * step       # right of the valley
excess = (approximation + kept.log())[points > 1.2]
print("for x > 1.2 the gap exceeds -log of the share kept, by less than 0.05 nats:",
      bool((excess > 0).all() and (excess < 0.05).all()))

# %% [markdown]
# A network is a continuous function and cannot jump. So even the large encoder pays where the best answer changes abruptly. It pays once more at the left end, where training has shown it hardly any data.

# %%
with torch.no_grad():
    best_mean = means.gather(0, bounds_of(means, log_sds).argmax(0)[None])[0]
assert best_mean.diff().max() > 0.5                      # between points 0.04 apart
jump, beyond = best_mean.diff().argmax(), (points - 1.5).abs().argmin()
at_jump, later = (max(gap[at - 5:at + 5].max() for gap in amortization[32])
                  for at in (jump, beyond))
print("the large encoders' gap at the jump is at least three times that at x = 1.5:",
      bool(at_jump > 3 * later))

# %% [markdown]
# Averaged over data from the model (98 % of which lie between our points):

# %%
weight = evidence.exp() / evidence.exp().sum()
family = float(weight @ approximation)
network = {width: [float(weight @ gap) for gap in gaps] for width, gaps in amortization.items()}
print(f"the family loses {family:.1f} nats")
print("each large encoder adds less than a tenth of that:", max(network[32]) < 0.1 * family)
print("each small one adds more than every large one:", min(network[4]) > max(network[32]))

# %% [markdown]
# The network's part can be bought off with a larger network and longer training. The family's cannot: it takes a richer $q$, or a model whose posteriors are simpler. The second happens by itself when model and encoder are trained together, as in chapter 5: of two models that fit equally well, the bound prefers the one whose posterior the encoder can match. The failure lab shows the other side of that preference.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Failure lab
#
# ### The score without a baseline
#
# For an image of 800 pixels, $\log p(x,z)$ is about minus several hundred, whatever $z$. We imitate that: subtract 100 from $f$. The gradient does not change, Eq. (4.24). We fit $q$ by 300 steps of Adam with ten draws each, from $m=1.5;$ with a baseline for each draw, the average of the other nine:

# %%
def fit_q(method, steps=300, n=10, seed=0):
    torch.manual_seed(seed)
    phi = torch.tensor([1.5, -0.5], requires_grad=True)                    # mean, log sd
    optimizer = torch.optim.Adam([phi], lr=0.03)
    for _ in range(steps):
        q = Normal(phi[0], phi[1].exp())
        z = q.rsample((n,)) if method == "path" else q.sample((n,))
        gain = log_joint(x, z) - q.log_prob(z) - 100
        if method != "path":
            others = (gain.sum() - gain) / (n - 1) if "baseline" in method else 0
            gain = (gain - others).detach() * q.log_prob(z)                # Eq. (4.23)
        optimizer.zero_grad()
        (-gain.mean()).backward()
        optimizer.step()
    log_q = Normal(phi[0], phi[1].exp()).log_prob(grid).detach()
    return average(log_q, log_q - log_posterior)                           # the gap

# %% [markdown]
# Three runs each; the best gap that a Gaussian can reach here is 0.41:

# %%
gaps = {method: torch.stack([fit_q(method, seed=seed) for seed in range(3)])
        for method in ("path", "score with baseline", "score")}
for method, values in gaps.items():
    print(f"{method}: all gaps below 0.6:", bool((values < 0.6).all()),
          "| all above 1:", bool((values > 1).all()))

# %% [markdown] slideshow={"slide_type": "fragment"}
# *Symptom.* The loss falls on average and never settles; from one seed to another the results differ. *Diagnosis.* Every gain is about $-100$, so that each draw pushes $q$ away from itself, whether it was good or bad; only the average of many pushes is right. *Cure.* A baseline, always. It leaves only the differences between draws.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A step has no slope
#
# Let $f(z)$ be the sign of $z$, one decision, yes or no, and $q=\mathcal N(m,1)$. The average is $P(z>0)-P(z<0)$, and it certainly changes with $m$:

# %%
m = torch.tensor(0.5, requires_grad=True)
eps = torch.randn(1_000_000)
by_path, = torch.autograd.grad(torch.sign(m + eps).mean(), m)              # Eq. (4.26)
by_score = (torch.sign(m + eps) * eps).mean().detach()                     # Eq. (4.23)
exact = 2 * Normal(0.0, 1.0).log_prob(m).exp().detach()
print("by the path:", float(by_path))
print("by the score, right to 1 %:", bool((by_score / exact - 1).abs() < 0.01))

# %% [markdown]
# *Symptom.* None: autograd returns a zero, and training does not move. *Diagnosis.* Eq. (4.26) needs an $f$ without jumps. Along each path the sign is constant, except at the instant where it jumps, and no finite number of draws ever sees that. *Cure.* The score, which does not ask for a slope. (`round`, `argmax`, `sample` and comparisons are steps, too.)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The standard deviation as a free parameter
#
# Gradient ascent on the bound, by the grid and so without any noise, with $s$ itself as the parameter; the mean stays at 1.23, near its best. It starts at $s=2$ and takes one modest step:

# %%
def slope_of(parameter, to_sd):
    parameter = parameter.clone().requires_grad_()
    log_q = Normal(1.23, to_sd(parameter)).log_prob(grid)
    return torch.autograd.grad(average(log_q, joint - log_q), parameter)[0]


s = torch.tensor(2.0)
s = s + 0.02 * slope_of(s, lambda s: s)
print("after one step, s is positive:", bool(s > 0))

# %% [markdown]
# *Diagnosis.* Far from the optimum the bound is steep, and nothing keeps $s$ above zero; the next `log` is `nan` (PyTorch's `Normal` refuses such an $s$; a formula of one's own does not). *Cure.* Let the parameter be $\log s$ (or $\log s^2$), which may be any number. A step multiplies $s$ by a positive factor, however large the step. Here the same steps settle (the slope is limited to 50, so that $s$ does not shrink below what our grid resolves on the way):

# %%
log_s = torch.tensor(2.0).log()
for _ in range(300):
    log_s = log_s + 0.02 * slope_of(log_s, torch.exp).clamp(-50, 50)
print(f"s settles at {log_s.exp():.1f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Comparing models by their bounds
#
# Three models for the same data: the true $W$; the true $W$ with its latent axes rotated, which gives $x$ the same density; and the rotated one, shrunk to 80 %, which is wrong. For each, the exact log-likelihood and the bound with the best diagonal $q$:

# %%
def exact_and_bound(W):
    M = W.T @ W + sigma2 * torch.eye(d)
    m = torch.linalg.solve(M, W.T @ (data - b).T).T                        # Eq. (4.12)
    C = torch.linalg.cholesky(W @ W.T + sigma2 * torch.eye(D))
    bound = pca_elbo(data, m, (sigma2 / M.diagonal()).diag(), W)           # Eqs. (4.15), (4.16)
    return float(gaussian.log_prob_full(data, b, C).mean()), float(bound.mean())


rotated = W @ torch.linalg.svd(W).Vh.T                                     # orthogonal columns
models = {"true": W, "rotated": rotated, "shrunk": 0.8 * rotated}
exact, bound = zip(*map(exact_and_bound, models.values()))
print("true and rotated have the same likelihood:", abs(exact[0] - exact[1]) < 1e-9)
print("by likelihood, true is better than shrunk:", exact[0] > exact[2])
print("by the bound, true is better than shrunk: ", bound[0] > bound[2])

# %% [markdown]
# *Diagnosis.* A difference of bounds is a difference of likelihoods *minus a difference of gaps*, Eq. (4.5). With the columns of the rotated $W$ orthogonal, $\Lambda$ is diagonal and the gap of Eq. (4.17) vanishes; the true $W$ pays 0.68 nats for the same density. *Consequences.* A bound is no likelihood, and should not be called one. And where parameters are trained on a bound with a restricted $q$, they are drawn towards posteriors that $q$ can match; sometimes that is what we want, but it is not maximum likelihood: the shrunk $W$ has a higher bound than the true one, and a lower likelihood. *Cure.* Compare bounds that are tight enough for the difference at hand. Chapter 11 will estimate gaps.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Weights from a narrow q
#
# A fitted $q$ is also used to correct itself: draw from $q$, weigh each draw by $w=p(x,z)/q(z)$, and the mean weight is an unbiased estimate of $p(x)$, for every $q$ that is nowhere zero. But its variance depends on $\mathbb E_q[w^2]$. For two Gaussians with the same mean, in one dimension, the exponent of $p^2/q$ is $-\frac12z^2(2/s_p^2-1/s_q^2)$, and the integral is
#
# $$\mathbb E_q\Big[\frac{p(z)^2}{q(z)^2}\Big]=\frac{s_q^2}{s_p\sqrt{2s_q^2-s_p^2}}\quad\text{if }s_q^2>\tfrac12s_p^2,\qquad\text{and infinite otherwise.} \tag{4.31}$$
#
# Too wide is cheap; too narrow by a factor of two in the variance is a catastrophe. And mean field *is* too narrow, Eq. (4.18). We weigh draws for one point of the linear model, from the mean field and from a cautious $q$ with one and a half times the true variances. We divide by $p(x)$, which we know here, so that the mean weight should be one. The *effective sample size* $(\sum w)^2/\sum w^2$ says how many equally weighted draws the weights are worth:

# %%
def weigh(V, n=10_000):                                    # effective share, mean weight
    z = mu[0] + V.diagonal().sqrt() * torch.randn(n, d)
    log_w = gaussian.log_prob_full(z, mu[0], torch.linalg.cholesky(Sigma))
    log_w = log_w - gaussian.log_prob_diag(z, mu[0], V.diagonal().log())
    share = (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp() / n
    return torch.stack([share, log_w.exp().mean()])


torch.manual_seed(2)
cautious = (1.5 * Sigma.diagonal()).diag()
for name, V in {"mean field": best_V, "cautious": cautious}.items():
    shares, estimates = torch.stack([weigh(V) for _ in range(20)], 1)
    print(f"{name}: usually less than a tenth of the draws count:", bool(shares.median() < 0.1))
    print(f"{name}: all estimates within 5 %:", bool(((estimates - 1).abs() < 0.05).all()))

# %% [markdown]
# *Symptom.* Most estimates are too low, until a single draw in the neglected tail arrives with a weight as large as thousands of others together. *Cure.* Look at the effective sample size; widen $q$, or give it heavier tails, before using it as a source of weights.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Fill in a function, run its cell, and `check` says what it found. Worked solutions are in the
# [notebook with the solutions](solutions/04_when_the_e_step_is_impossible.ipynb).

# %%
from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 4.1 (★, 10 minutes)
#
# The divergence of two Gaussians, Eq. (4.9). Given mean `m` $(d,)$ and covariance `V` $(d,d)$ of $q$, and `mu`, `Sigma` of $p$, return $\mathrm{KL}(q\Vert p)$ in nats.

# %%
def kl_of_gaussians(m, V, mu, Sigma):
    raise NotImplementedError


check("4.1", kl_of_gaussians)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 4.2 (★★, 15 minutes)
#
# A linear-Gaussian model whose prior is not standard: $z\sim\mathcal N(0,\tau^2I)$, $x=Wz+b+\text{noise}$ with variance $\sigma^2$. Complete the square again. Given `x` $(N,D)$, `W` $(D,d)$, `b` $(D,)$ and the numbers `sigma2` and `tau2` (variances), return the posterior's means $(N,d)$ and its covariance $(d,d)$, as a pair.

# %%
def posterior_of(x, W, b, sigma2, tau2):
    raise NotImplementedError


check("4.2", posterior_of)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 4.3 (★, 10 minutes)
#
# Given a posterior's covariance `Sigma` $(d,d)$, return the variances $(d,)$ of the best diagonal Gaussian twice: for the reverse divergence, Eq. (4.16), and for the forward one, $\mathrm{KL}(p\Vert q)$. (For the second: each coordinate of $q$ is fitted on its own. What does Eq. (4.21) say?)

# %%
def two_best_variances(Sigma):
    raise NotImplementedError


check("4.3", two_best_variances)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 4.4 (★★, 15 minutes)
#
# A baseline from the draws themselves. Given `values` $f(z_s)$ $(S,)$ and `scores` $\nabla_\phi\log q(z_s)$ $(S,P)$, return the score-function estimate $(P,)$ in which each draw's baseline is the average of the *other* draws' values. Why would the average of all of them not do?

# %%
def leave_one_out(values, scores):
    raise NotImplementedError


check("4.4", leave_one_out)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 4.5 (★★, 15 minutes)
#
# Given the log of the joint density at equally spaced points `z` $(G,)$, as `log_joint` $(G,)$, return $\log p(x)$, the posterior's mean and its standard deviation, as a tuple of three numbers. In one case the log-joint is about $-2000$ everywhere.

# %%
def by_quadrature(log_joint, z):
    raise NotImplementedError


check("4.5", by_quadrature)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 4.6 (★★★, 25 minutes)
#
# A case for the score. Let $f(z)=\sin(\omega z)$ and $q=\mathcal N(0,1)$, and consider the derivative of $\mathbb E_q f$ with respect to $q$'s mean. Return the variances of one draw's gradient, by the score (without baseline) and by the path, as a pair, for any number `omega`. (You need $\mathbb E\cos(t\varepsilon)=e^{-t^2/2}$, its second derivative with respect to $t$, and $\sin^2a=\frac12(1-\cos2a)$.) From which $\omega$ on does the score win?

# %%
def variances_for_a_sine(omega):
    raise NotImplementedError


check("4.6", variances_for_a_sine)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Summary
#
# - Chapter 2's bound and its identity hold for any latent variable: $\log p(x)=\mathcal L(q)+\mathrm{KL}(q\Vert p(z|x))$. Variational inference takes the highest bound within a family of $q$; what it loses is the smallest divergence within that family.
# - Where everything has a formula, everything can be measured. For pPCA the posterior is in the family of Gaussians, and the gap is zero; with independent coordinates it is $\frac12(\sum_i\log\Lambda_{ii}-\log\det\Lambda)$, and the variances come out too small.
# - The reverse divergence can settle on one of several distant humps, at a price of at most $-\log\pi_k$ if that hump is in the family; the forward one covers them all.
# - A gradient of an average can be had from values (score: any $f$, needs a baseline, its noise grows with the dimension) or from slopes (path: smooth $f$, far less noise). Both are unbiased, and their variances fall like $1/S$.
# - A network can learn to do the E-step. What it loses splits into the family's gap and its own.
# - A bound is not a likelihood.
#
# **May now be imported:** `kl_diag`, `kl_diag_full` and `entropy_diag` from `gmvae_lib.gaussian`.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Where this leads
#
# Here the model was given, and only the encoder was learnt. [Chapter 5, the variational autoencoder](05_variational_autoencoder.ipynb), learns both at once, on the same bound: the encoder is this chapter's network, its gradient the path's, its divergence from the prior a special case of Eq. (4.10).
#
# The two humps return too. In [chapter 8, the mixture-prior VAE](08_mixture_prior_vae.ipynb), a discrete component stands beside the continuous $z,$ and for that part the E-step is possible again.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Sources
#
# - M. I. Jordan, Z. Ghahramani, T. S. Jaakkola and L. K. Saul (1999). An introduction to variational methods for graphical models.
# - C. M. Bishop (2006). Pattern Recognition and Machine Learning, chapter 10. (Mean field; the two directions.)
# - M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
# - L. N. Trefethen and J. A. C. Weideman (2014). The exponentially convergent trapezoidal rule.
# - R. J. Williams (1992). Simple statistical gradient-following algorithms for connectionist reinforcement learning. (The score function and baselines.)
# - D. P. Kingma and M. Welling (2014). Auto-encoding variational Bayes. D. J. Rezende, S. Mohamed and D. Wierstra (2014). Stochastic backpropagation and approximate inference in deep generative models. (The path.)
# - S. Mohamed, M. Rosca, M. Figurnov and A. Mnih (2020). Monte Carlo gradient estimation in machine learning.
# - C. Cremer, X. Li and D. Duvenaud (2018). Inference suboptimality in variational autoencoders. (The two gaps.)
# - R. E. Turner and M. Sahani (2011). Two problems with variational expectation maximisation for time series models. (What a bound does to parameters.)
