# %% [markdown] slideshow={"slide_type": "slide"}
# # 01 Gaussian mixtures
#
# **How can a density have several centers?**
#
# On the left below are six hundred points. We would like a formula that says where points like these lie: a *density*, high
# where they crowd, low where they are rare. The density that everybody knows is the Gaussian, the bell curve, and in the
# middle is the one with the points' own average and spread. It has one center, the cross, and puts it where there is hardly a point.
#
# On the right, three Gaussians have been added up.

# %% slideshow={"slide_type": "-"}
import torch

from gmvae_lib import figures
from gmvae_lib.data import load

torch.set_num_threads(1)  # the data are small: a second thread would only be waited for
torch.set_default_dtype(torch.float64)  # double precision, 16 digits, throughout
x = load("cigars").x.double()
weights = torch.tensor([0.40, 0.35, 0.25])
means = torch.tensor([[-2.0, 0.0], [2.0, 0.5], [0.0, 3.5]])
factors = torch.tensor([[[0.5, 0], [1.1, 0.45]], [[0.5, 0], [-1.2, 0.4]], [[1.5, 0], [0.3, 0.35]]])
covariances = factors @ factors.mT
single = (torch.ones(1), x.mean(0)[None], x.T.cov()[None])
figures.density_panels(
    x, {"Points": None, "One center": single, "Three centers": (weights, means, covariances)},
    "Three panels with the same points, in the shape of an arch. In the second a round bell lies "
    "over them, darkest in the arch's empty middle, where a cross marks its center. In the third "
    "the dark bands follow the arch's three straight pieces, with a cross on each.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The numbers of the right panel were not found by looking: they are the ones that the points were drawn from. How to find them
# from the points alone is the next chapter. This one is about what such a density *is*: how to compute it without losing
# it to rounding, how to draw from it, what it says about a single point, what it costs, and in which ways it can go wrong.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you will be able to do
#
# - derive the Gaussian density in several dimensions from plain noise, and compute it by Cholesky's factor;
# - write down a mixture of Gaussians, draw from it, and test that sampler and density agree;
# - compute, in logarithms, which component a point came from, even a thousand standard deviations away;
# - choose a covariance family and say what it costs;
# - explain why the likelihood of a mixture has many equal maxima and yet no maximum, and cure what can be cured.
#
# **You need** derivatives and integrals, matrices with their determinants and eigenvalues, conditional probability and
# expectation; Python with a little PyTorch. **It takes** about 75 minutes, and an hour more for the exercises.
#
# Logarithms are natural, so that log-densities come in *nats*. Throughout, $x_1,\dots,x_N$ are $N$ points in $\mathbb R^D$,
# and a mixture's components are numbered $k=1,\dots,K$. Where only one point $x$ is in view, $x_i$ is its $i$-th coordinate.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One Gaussian
#
# ### Noise
#
# We start with what a computer can draw: $D$ independent numbers $\varepsilon_1,\dots,\varepsilon_D$, each *standard normal*,
# that is, with the density $e^{-t^2/2}/\sqrt{2\pi}$. The $\sqrt{2\pi}$ makes it integrate to one. To see this, square the integral
# and go to polar coordinates, where a ring of radius $\rho$ and width $d\rho$ has the area $2\pi\rho\,d\rho$: $\iint e^{-(s^2+t^2)/2}\,ds\,dt=\int_0^\infty e^{-\rho^2/2}\,2\pi\rho\,d\rho=2\pi$.
#
# Densities of independent numbers multiply, so their logarithms add up. For the vector $\varepsilon\in\mathbb R^D$,
#
# $$\log p(\varepsilon)=-\tfrac12\big(D\log2\pi+\Vert\varepsilon\Vert^2\big). \tag{1.1}$$

# %%
import math


def log_noise(eps):
    return -0.5 * (eps.shape[-1] * math.log(2 * math.pi) + eps.square().sum(-1))  # Eq. (1.1)

# %% [markdown]
# In two dimensions we can check that it is a density. We cut the square from $-8$ to $8$ into small cells, and add up density
# times area (outside, nothing is left that would show):

# %%
line = torch.arange(-8, 8, 0.05) + 0.025                                   # midpoints of the cells
grid, area = torch.cartesian_prod(line, line), 0.05**2
assert abs(log_noise(grid).exp().sum() * area - 1) < 1e-9

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Stretch it, turn it, move it
#
# This noise is the same in all directions and sits at the origin. An invertible matrix $L$ stretches and turns it, a vector $\mu$ moves it:
# $x=\mu+L\varepsilon$. Noise has mean zero, and since its coordinates are independent with variance one,
# $\mathbb E[\varepsilon\varepsilon^\top]=I$, the identity matrix. Hence
#
# $$x=\mu+L\varepsilon:\qquad\mathbb E\,x=\mu,\qquad\operatorname{Cov}x=\mathbb E\big[L\varepsilon\varepsilon^\top L^\top\big]=LL^\top=:\Sigma. \tag{1.2}$$
#
# $\operatorname{Cov}x=\mathbb E[(x-\mu)(x-\mu)^\top]$ is the *covariance* matrix: variances on the diagonal, and beside it how
# two coordinates vary together.

# %%
torch.manual_seed(0)
mean, factor = torch.tensor([1.0, -2.0]), torch.tensor([[1.4, 0.0], [0.9, 0.5]])
covariance = factor @ factor.T
eps = torch.randn(100_000, 2)
cloud = mean + eps @ factor.T                                              # Eq. (1.2), row by row
assert (cloud.mean(0) - mean).abs().max() < 0.05
assert (cloud.T.cov() - covariance).abs().max() < 0.05

# %% [markdown]
# Points keep their colours and markers: circles around the origin become ellipses around $\mu$.

# %%
few = eps[:500]
figures.cloud_panels(
    {"Noise $\\varepsilon$": (few, torch.zeros(2), torch.eye(2)),
     "Stretched, $x=\\mu+L\\varepsilon$": (cloud[:500], mean, covariance)},
    few.norm(dim=1).floor().clamp_max(2),
    "Two clouds of the same points. On the left a round one with circles of radius 1 and 2, which "
    "sort the points into three rings; on the right the circles are slanted ellipses, and sort "
    "the points into the same three rings.",
    legend=["within 1 of the center", "between 1 and 2", "further out"],
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Its density
#
# How dense is the stretched cloud at $x$? Take a tiny cube of volume $v$ around $\varepsilon$. The map turns it into a tiny
# parallelepiped around $x$, of volume $|\det L|\,v$; that is what a determinant is. The same points lie in both, so both
# carry the same probability, $p(x)\,|\det L|\,v=p(\varepsilon)\,v$:
#
# $$p(x)=\frac{p(\varepsilon)}{|\det L|},\qquad L\varepsilon=x-\mu. \tag{1.3}$$
#
# Our cloud, counted: the share of its points in a small square around $\mu$, divided by the square's area, should be the density there.

# %%
share = ((cloud - mean).abs() < 0.1).all(1).double().mean()
at_center = log_noise(torch.zeros(2)).exp() / factor.det()                 # Eq. (1.3)
assert abs(share / 0.2**2 - at_center) < 0.05

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### By Cholesky's factor
#
# Now choose $L$ to be lower triangular, with zeros above the diagonal and positive numbers on it. Then two things become easy.
# The determinant is the product of the diagonal. And the noise that belongs to $x$, which we call $w$ from here on, is found from the top
# down: the first row of $Lw=x-\mu$ contains only $w_1$, the second only $w_1$ and $w_2$, and so on. With Eq. (1.1),
#
# $$\log\mathcal N(x|\mu,\Sigma)=-\tfrac12\big(D\log2\pi+\Vert w\Vert^2\big)-\sum_{i=1}^{D}\log L_{ii},\qquad Lw=x-\mu. \tag{1.4}$$
#
# This is the *Gaussian* or *normal* density, and $L$ is called the *Cholesky factor* of $\Sigma$. To go from $x$ back to $w$ is called *whitening*: read
# the picture above from right to left. The length $\Vert w\Vert$ is the distance of $x$ from $\mu$, counted in standard deviations.

# %%
def log_normal(x, mean, covariance):
    factor = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(factor, (x - mean).T, upper=False).T
    return log_noise(white) - factor.diagonal().log().sum()                # Eq. (1.4)

# %% [markdown]
# It integrates to one, and it is what SciPy computes:

# %%
from scipy import stats

assert abs(log_normal(grid, mean, covariance).exp().sum() * area - 1) < 1e-6
oracle = torch.from_numpy(stats.multivariate_normal(mean, covariance).logpdf(cloud))
assert torch.allclose(log_normal(cloud, mean, covariance), oracle)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The form in the books
#
# Put $w=L^{-1}(x-\mu)$ into $\Vert w\Vert^2=w^\top w$. This gives $(x-\mu)^\top L^{-\top}L^{-1}(x-\mu)$, where $L^{-\top}L^{-1}=(LL^\top)^{-1}=\Sigma^{-1}$. And
# $\det\Sigma=\det L\det L^\top=(\det L)^2$, so $\sum_i\log L_{ii}=\tfrac12\log\det\Sigma$. Hence
#
# $$\log\mathcal N(x|\mu,\Sigma)=-\tfrac12\Big(D\log2\pi+\log\det\Sigma+(x-\mu)^\top\Sigma^{-1}(x-\mu)\Big). \tag{1.5}$$
#
# Only $\Sigma$ is left in it. Another matrix with the same $LL^\top$ would have stretched the noise to a cloud of the same density.

# %%
delta = cloud[:100] - mean
square = (delta @ torch.linalg.inv(covariance) * delta).sum(1)             # (x-μ)ᵀ Σ⁻¹ (x-μ)
by_the_book = -0.5 * (2 * math.log(2 * math.pi) + covariance.det().log() + square)  # Eq. (1.5)
assert torch.allclose(by_the_book, log_normal(cloud[:100], mean, covariance))

# %% [markdown]
# It is the form to think with, not the one to compute with. An inverse takes more work than a factor and loses more digits. And a
# determinant leaves the range of a computer's numbers as soon as there are many dimensions:

# %%
narrow = 0.01 * torch.eye(400)  # 400 dimensions, standard deviation 0.1 in each
print("determinant:", float(narrow.det()))
log_det = 2 * torch.linalg.cholesky(narrow).diagonal().log().sum()
assert abs(log_det - 400 * math.log(0.01)) < 1e-9

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The factor, column by column
#
# For every symmetric $\Sigma$ that is *positive definite* ($v^\top\Sigma v>0$ for all $v\ne0$: there is some spread in every direction) there is exactly one Cholesky factor. To find it, write out
# $LL^\top=\Sigma$ on and below the diagonal: $\Sigma_{ij}=\sum_{k\le j}L_{ik}L_{jk}$ for $i\ge j$. In column $j$, the terms with $k<j$ come from columns further left. So we go from left to
# right, and in each column solve for the diagonal entry first:
#
# $$L_{jj}=\sqrt{\Sigma_{jj}-\sum_{k<j}L_{jk}^2},\qquad L_{ij}=\frac1{L_{jj}}\Big(\Sigma_{ij}-\sum_{k<j}L_{ik}L_{jk}\Big)\quad(i>j). \tag{1.6}$$

# %%
def cholesky(covariance):
    factor = torch.zeros_like(covariance)
    for j in range(len(covariance)):
        column = covariance[j:, j] - factor[j:, :j] @ factor[j, :j]
        factor[j:, j] = column / column[0].sqrt()                          # Eq. (1.6)
    return factor


root = torch.randn(5, 9)
some = root @ root.T
assert torch.allclose(cholesky(some), torch.linalg.cholesky(some))

# %% [markdown]
# The entries have a meaning. $x_j-\mu_j=\sum_{k<j}L_{jk}w_k+L_{jj}w_j$, and whoever knows $x_1,\dots,x_{j-1}$ knows $w_1,\dots,w_{j-1}$. So $L_{jj}$ is the standard deviation
# that is left to $x_j$ when the coordinates before it are known. Its square, the number under the root, is the variance $v^\top\Sigma v$ of a combination $v^\top x$ with $v_j=1$, and so it is positive. A program that
# meets a number there that is not has learnt that $\Sigma$ is not positive definite. It need not ask beforehand: it tries.
#
# ### Without correlations
#
# If $\Sigma$ is diagonal, with variances $\sigma_1^2,\dots,\sigma_D^2$, so is $L$. Then $w_i=(x_i-\mu_i)/\sigma_i$, and the Gaussian is a product of $D$ one-dimensional ones:
#
# $$\log\mathcal N\big(x|\mu,\operatorname{diag}(\sigma^2)\big)=-\tfrac12\sum_{i=1}^{D}\Big(\log2\pi+\log\sigma_i^2+\frac{(x_i-\mu_i)^2}{\sigma_i^2}\Big). \tag{1.7}$$

# %%
def log_normal_diag(x, mean, variance):
    inside = math.log(2 * math.pi) + variance.log() + (x - mean).square() / variance
    return -0.5 * inside.sum(-1)                                           # Eq. (1.7)


variance = torch.tensor([1.5, 0.2])
same = log_normal(x, mean, variance.diag())
assert torch.allclose(log_normal_diag(x, mean, variance), same)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Several centers
#
# ### Adding densities
#
# Take $K$ Gaussians and *weights* $\pi_k\ge0$ that sum to one, and average the densities:
#
# $$p(x)=\sum_{k=1}^{K}\pi_k\,\mathcal N(x|\mu_k,\Sigma_k). \tag{1.8}$$
#
# Nowhere negative, and it integrates to $\sum_k\pi_k\cdot1=1$: this is a density again. It is called a *mixture* of Gaussians, and its terms are the *components*. All its parameters together,
# weights, means and covariances, are called $\theta$. On a line, with two components:

# %%
def normal(t, mean, std):
    return stats.norm.pdf(t, mean, std)


t = torch.linspace(-5, 6, 221)
left, right = 0.7 * normal(t, -1.5, 0.8), 0.3 * normal(t, 2.5, 1.0)
average = normal(t, 0.7 * -1.5 + 0.3 * 2.5, math.hypot(0.7 * 0.8, 0.3 * 1.0))

# %% [markdown]
# A mixture is not the average of the *variables*. If $X_1$ and $X_2$ are the two Gaussian variables, drawn independently, then $0.7X_1+0.3X_2$ is Gaussian again
# (its variance is $0.7^2\cdot0.8^2+0.3^2\cdot1^2$), with a single center somewhere between. A mixture averages the densities: each draw is one *or* the other.

# %%
figures.curves(
    t, {"mixture": left + right, "0.7 × first": left, "0.3 × second": right,
        "average of the variables": average},
    "Two components, added", "$x$", "density",
    "A curve with a high peak on the left and a low one on the right, which is the sum of two bell "
    "curves below it. A fourth, dotted curve has a single peak between the two.",
    markers=False, size=(7.5, 3.9),
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A center need not be a peak
#
# Put two equal components at $-a$ and $a$, both with standard deviation $\sigma$. Differentiate the Gaussian twice: $\mathcal N'=-\frac{x-\mu}{\sigma^2}\mathcal N$, and so
# $\mathcal N''=\big(\frac{(x-\mu)^2}{\sigma^4}-\frac1{\sigma^2}\big)\mathcal N$. In the middle, at $x=0$, both components give the same:
#
# $$p''(0)=\frac{a^2-\sigma^2}{\sigma^4}\,\mathcal N(0|a,\sigma^2). \tag{1.9}$$
#
# By symmetry $p'(0)=0$. So the middle is a valley if $a>\sigma$ and a peak if $a<\sigma$. In the second case it is the only one: with the first derivatives, $p'(x)=0$ says $(x+a)\,e^{-ax/\sigma^2}=(a-x)\,e^{ax/\sigma^2}$, which is
# $x=a\tanh(ax/\sigma^2)$; and since $\tanh u<u$ for $u>0$, the right side is below $a^2x/\sigma^2<x$ for every $x>0$, and likewise on the left. So centers that are less than two standard deviations apart melt into one.

# %%
wide = torch.linspace(-4, 4, 401)


def pair(a):
    return torch.from_numpy(0.5 * normal(wide, -a, 1.0) + 0.5 * normal(wide, a, 1.0))


for a in (0.8, 1.2, 2.0):
    slope = pair(a).diff().sign()
    print(f"centers at ±{a}: {int((slope.diff() < 0).sum())} peak(s)")      # Eq. (1.9)

# %% [markdown]
# The broad first curve is made of two Gaussians, and yet nobody could point at them. Components are parts of a formula. Whether they are also groups in the
# data is a question about the data.

# %%
figures.curves(
    wide, {f"centers at ±{a}": pair(a) for a in (0.8, 1.2, 2.0)},
    "Two centers, one peak or two", "$x$, in standard deviations", "density",
    "Three curves, each the average of two equal bells. The closest pair makes one broad peak, the "
    "next one a peak with a shallow dent, the widest pair two separate peaks.",
    markers=False, size=(7.5, 3.6),
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The component that we do not see
#
# Read the average as a story in two acts. First a component $c$ is drawn: component $k$ with probability $p(c{=}k)=\pi_k$. Then the point is drawn from that component's Gaussian,
# $p(x|c{=}k)=\mathcal N(x|\mu_k,\Sigma_k)$. The probability of both is the product, and whoever sees only $x$ has to add up over the ways in which it can have come about:
#
# $$p(x,c{=}k)=\pi_k\,\mathcal N(x|\mu_k,\Sigma_k),\qquad p(x)=\sum_{k=1}^{K}p(x,c{=}k). \tag{1.10}$$
#
# The left is the *joint* density, the right the *marginal* density: the mixture, Eq. (1.8). The component is *latent*: part of the model, but not of the data. In code the logarithm of the joint density is
# a table with a row for each point and a column for each component:

# %%
def log_joint(x, weights, means, covariances):
    columns = [log_normal(x, mean, covariance) for mean, covariance in zip(means, covariances)]
    return weights.log() + torch.stack(columns, dim=1)                     # Eq. (1.10)


log_joint(x, weights, means, covariances).shape

# %% [markdown]
# To draw from a mixture we act out the story. (Drawing causes before effects is called *ancestral* sampling.)

# %%
def sample(weights, means, covariances, n):
    c = torch.multinomial(weights, n, replacement=True)
    eps = torch.randn(n, means.shape[1], 1)
    factors = torch.linalg.cholesky(covariances)
    return means[c] + (factors[c] @ eps).squeeze(2), c                     # Eq. (1.2)


theta = weights, means, covariances
drawn, c = sample(*theta, 20_000)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Do sampler and density agree?
#
# `sample` and `log_joint` were written apart, and either could be wrong. First, the density integrates to one:

# %%
density = log_joint(grid, *theta).exp().sum(1)                             # Eq. (1.8)
assert abs(density.sum() * area - 1) < 1e-6

# %% [markdown]
# Second, the points must fall where the density says. We cut the plane into 16 × 16 squares of side one. The density, added up over a square, gives its probability; the sampler fills it with points:

# %%
promised = density.reshape(16, 20, 16, 20).sum((1, 3)) * area


def count(points):
    column, row = (points + 8).floor().long().clamp(0, 15).T
    return torch.bincount(16 * column + row, minlength=256).reshape(16, 16)

# %% [markdown]
# The pictures agree:

# %%
corner = torch.arange(-8, 8) + 0.5
figures.heatmaps(
    corner, corner, {"promised by the density": promised.T, "drawn": count(drawn).T / len(drawn)},
    "Where the points fall", xlabel="$x_1$", ylabel="$x_2$", unit="share in a square",
    alt="Two maps of squares that look the same: an arch of bright squares on a dark ground.",
)

# %% [markdown]
# A picture convinces too easily. How far may a count be off? If a square has the probability $P$, then $n$ points put $nP$ into it on average, with a variance of $nP(1-P)$, or about $nP$ where $P$ is small. So the squared misfit
# $(\text{count}-nP)^2/nP$ should be about one, averaged over the squares (where at least ten points are expected):

# %%
def misfit(points):
    expected = len(points) * promised
    squares = (count(points) - expected).square() / expected
    return squares[expected > 10].mean()


print("a squared misfit of about one:", bool(0.5 < misfit(drawn) < 2))

# %% [markdown]
# Before we trust such a test we should see it fail. In the failure lab it will.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Mean and covariance of a mixture
#
# The third test compares averages, and for it we need those of the mixture. Averages over the story are taken act by act: for any function $g$,
# $\mathbb E\,g(x)=\sum_k\pi_k\,\mathbb E[g(x)|c{=}k]$. With $g(x)=x$ this gives the mean
#
# $$m=\mathbb E\,x=\sum_{k}\pi_k\,\mu_k. \tag{1.11}$$
#
# With $g(x)=xx^\top$: by the definition of a covariance, $\mathbb E[xx^\top]=\operatorname{Cov}x+(\mathbb E\,x)(\mathbb E\,x)^\top$. That holds for each component, where it gives $\Sigma_k+\mu_k\mu_k^\top$, and for the
# whole mixture. So
#
# $$\operatorname{Cov}x=\sum_{k}\pi_k\big(\Sigma_k+\mu_k\mu_k^\top\big)-mm^\top. \tag{1.12}$$
#
# Multiply out $\sum_k\pi_k(\mu_k-m)(\mu_k-m)^\top$. Since $\sum_k\pi_k\mu_k=m$, each of the two mixed terms is $-mm^\top$, and the last one is $+mm^\top$: what remains is $\sum_k\pi_k\mu_k\mu_k^\top-mm^\top$. Hence
#
# $$\operatorname{Cov}x=\underbrace{\sum_{k}\pi_k\,\Sigma_k}_{\text{within}}+\underbrace{\sum_{k}\pi_k(\mu_k-m)(\mu_k-m)^\top}_{\text{between}}. \tag{1.13}$$
#
# The spread of a mixture is the average spread within its components, plus the spread of their centers.

# %%
m = weights @ means                                                        # Eq. (1.11)
apart = means - m
within = (weights[:, None, None] * covariances).sum(0)
between = apart.T @ (weights[:, None] * apart)
whole = within + between                                                   # Eq. (1.13)

# %% [markdown]
# The density agrees to many digits, when we integrate $x$ and $(x-m)(x-m)^\top$ against it. The sampler agrees as well as a sample can:

# %%
mass = density * area
assert torch.allclose(mass @ grid, m, atol=1e-6)
assert torch.allclose((grid - m).T @ (mass[:, None] * (grid - m)), whole, atol=1e-5)
assert (drawn.mean(0) - m).abs().max() < 0.1
assert (drawn.T.cov() - whole).abs().max() < 0.2

# %% [markdown]
# A single Gaussian with this mean and this covariance is (up to chance) the bell in the middle of the first picture. Mean and covariance were right, and yet it missed the
# data: two numbers for each direction cannot say that there are several centers.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## In logarithms
#
# ### Where densities end
#
# The smallest positive number in double precision is about $5\cdot10^{-324}$, and its logarithm is $-744$. In single precision, which neural networks use, it is about $1.4\cdot10^{-45}$, with logarithm $-103$. What is smaller becomes
# zero. A standard normal on the line gets there at 38.6 and at 14.4 standard deviations.
#
# That may seem far out. But in many dimensions we need not go anywhere. The squared length of noise is $\sum_i\varepsilon_i^2$, on average $D$. So by Eq. (1.1) the log-density of a *typical* point is about
# $-\tfrac12D(\log2\pi+1)\approx-1.42\,D$. Images of $28\times28$ pixels have $D=784$:

# %%
typical = torch.randn(1000, 784)
vanished = (log_noise(typical).exp() == 0).sum()
print(f"of 1000 typical points, the density of {int(vanished)} is zero")
assert log_noise(typical).isfinite().all()

# %% [markdown]
# The logarithms are perfectly ordinary numbers. From here on we compute with them.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The logarithm of a sum of exponentials
#
# There is one obstacle: $p(x)$ is a *sum* of $K$ densities, and of each we have the logarithm $a_k=\log p(x,c{=}k)$. To add them we must leave the logarithms. So we first pull out the largest, $a^*=\max_ka_k$. In
# $\sum_ke^{a_k}=\sum_ke^{a^*}e^{a_k-a^*}=e^{a^*}\sum_ke^{a_k-a^*}$ take the logarithm of both ends:
#
# $$\log\sum_{k}e^{a_k}=a^*+\log\sum_{k}e^{a_k-a^*}. \tag{1.14}$$
#
# This is an identity, for every number in place of $a^*$. With the maximum it is also safe: one of the terms on the right is $e^0=1$ and no term is larger. The sum lies between 1 and $K$, and can neither overflow nor vanish. It also
# shows that the *logsumexp* is a maximum with its corners rounded off:
#
# $$\max_ka_k\;\le\;\log\sum_{k}e^{a_k}\;\le\;\max_ka_k+\log K. \tag{1.15}$$

# %%
def log_sum_exp(a):
    top = a.amax(1, keepdim=True)
    return (top + (a - top).exp().sum(1, keepdim=True).log()).squeeze(1)   # Eq. (1.14)


a = 1000 * torch.randn(100, 3)
assert torch.allclose(log_sum_exp(a), a.logsumexp(1))                      # PyTorch's own
assert (a.amax(1) <= log_sum_exp(a)).all()                                 # Eq. (1.15)
assert (log_sum_exp(a) <= a.amax(1) + math.log(3)).all()

# %% [markdown]
# We walk away from the two components on the line, and compute $\log p(x)$ in three ways:

# %%
away = torch.linspace(0, 60, 31)
pieces = torch.stack([math.log(w) + torch.from_numpy(stats.norm.logpdf(away, mu, s))
                      for w, mu, s in ((0.7, -1.5, 0.8), (0.3, 2.5, 1.0))], dim=1)
ways = {"logsumexp": log_sum_exp(pieces), "add densities, 64 bit": pieces.exp().sum(1).log(),
        "add densities, 32 bit": pieces.float().exp().sum(1).log()}

# %% [markdown]
# The three agree as long as all three have an answer. Then the two that add densities end, each where its numbers end; from there on they say $-\infty$.

# %%
figures.curves(
    away, ways, "The logarithm of a mixture's density, three ways", "$x$", "nats",
    "Points on a parabola that falls as x grows. Triangles, 32 bit, stop after about a quarter of "
    "the way; squares, 64 bit, after about two thirds; the circles of logsumexp go to the end.",
    size=(7.5, 3.8),
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Responsibilities
#
# We see a point. Which component did it come from? Bayes' rule answers with probabilities, the *responsibilities*: the joint density, divided by the marginal,
#
# $$r_k(x)=p(c{=}k|x)=\frac{p(x,c{=}k)}{p(x)}=\frac{\pi_k\,\mathcal N(x|\mu_k,\Sigma_k)}{\sum_j\pi_j\,\mathcal N(x|\mu_j,\Sigma_j)}. \tag{1.16}$$
#
# For the $n$-th point of the data we write $r_{nk}=r_k(x_n)$. Before we look at a point, our answer is $\pi_k$, the *prior*; afterwards it is $r_k(x)$, the *posterior*. In logarithms the division is a difference, with $a_k=\log\pi_k+\log\mathcal N(x|\mu_k,\Sigma_k)$ as before:
#
# $$\log r_k(x)=a_k-\log\sum_{j}e^{a_j}. \tag{1.17}$$
#
# We exponentiate at the very end. (Machine learning calls this map, from $a$ to $r$, the *softmax*.)

# %%
def responsibilities(x, *theta):
    joint = log_joint(x, *theta)
    return (joint - log_sum_exp(joint)[:, None]).exp()                     # Eq. (1.17)


resp = responsibilities(drawn, *theta)
assert torch.allclose(resp.sum(1), torch.ones(len(drawn)))
assert torch.allclose(resp, log_joint(drawn, *theta).softmax(1))

# %% [markdown]
# For points that we have drawn ourselves we know $c$. On the left it gives the colours. On the right they are mixed in the proportions $r_{nk}$, from the points alone (outlines at two standard deviations):

# %%
truth = torch.nn.functional.one_hot(c, 3).double()
figures.mixture_panels(
    drawn[:600], {"Where each point came from": (truth[:600], None),
                  "What the point itself can tell": (resp[:600], theta)},
    "Two panels of the same arch of points. On the left three clear colours and markers, on the "
    "right the same with mixed colours at the two corners, where the outlines of two "
    "components come close.",
    size=(9, 4.4),
)

# %% [markdown]
# At the corners the points are in doubt, and rightly so. Is the doubt of the right size? Among the points of which component 1 claims about one half, about half should have come from it. We draw many, because few are so unsure:

# %%
many, source = sample(*theta, 100_000)
claim = responsibilities(many, *theta)[:, 0]
unsure = (claim > 0.25) & (claim < 0.75)
claimed, came = claim[unsure].mean(), (source[unsure] == 0).double().mean()
print("claims and facts agree within a tenth:", bool(abs(claimed - came) < 0.1))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Where one component ends and the next begins
#
# The ratio of two responsibilities does not contain $p(x)$. Its logarithm is $a_1-a_2$, and if the two components have the same $\Sigma$, the squares $x^\top\Sigma^{-1}x$ in Eq. (1.5) cancel:
#
# $$\log\frac{r_1(x)}{r_2(x)}=(\mu_1-\mu_2)^\top\Sigma^{-1}x+\log\frac{\pi_1}{\pi_2}-\tfrac12\big(\mu_1^\top\Sigma^{-1}\mu_1-\mu_2^\top\Sigma^{-1}\mu_2\big). \tag{1.18}$$
#
# This is linear in $x$. The border, where it is zero, is a straight line (in $D$ dimensions a hyperplane). If there are only these two components, $r_1$ falls across it from one to zero in the shape of the logistic function $1/(1+e^{-u})$.

# %%
shared = covariances[0]
a = log_joint(x, weights[:2], means[:2], shared.expand(2, 2, 2))
first, second = torch.linalg.solve(shared, means[:2].T).T                  # Σ⁻¹μ₁, Σ⁻¹μ₂
offset = (weights[0] / weights[1]).log() - 0.5 * (means[0] @ first - means[1] @ second)
assert torch.allclose(a[:, 0] - a[:, 1], x @ (first - second) + offset)    # Eq. (1.18)

# %% [markdown]
# If the covariances differ, the squares stay, and the border is curved. Far away they decide alone, and the component that is wider in that direction wins, on whichever side its center is (here on a line, with equal weights):

# %%
def first_share(t, std_1, std_2):
    pieces = [stats.norm.logpdf(t, -1, std_1), stats.norm.logpdf(t, 1, std_2)]
    return torch.from_numpy(pieces[0] - pieces[1]).sigmoid()               # 1/(1+e^{-u})


figures.curves(
    t, {"both widths 1": first_share(t, 1, 1), "widths 1 and 2": first_share(t, 1, 2)},
    "The share of a component at −1, beside one at +1", "$x$", "share of the left one",
    "Two curves. With equal widths the share falls from one on the left to zero on the right. "
    "With a wider right component it is highest near the left center and falls on both sides.",
    markers=False, size=(7.5, 3.6),
)

# %% [markdown]
# So a point far to the *left* belongs to the wide component on the right. That is no paradox: for the narrow one it lies many more standard deviations away.
#
# All this holds at any distance, because we stay in the logarithms. A thousand units to the right of component 1, thousands of its standard deviations:

# %%
remote = means[:1] + torch.tensor([[1000.0, 0.0]])
print("shares:", responsibilities(remote, *theta).round(decimals=6).tolist())
print("log-density finite:", bool(log_sum_exp(log_joint(remote, *theta)).isfinite().all()))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Four families
#
# A full covariance has $D(D+1)/2$ free numbers: the diagonal, and one for each pair of coordinates. With $D$ in the hundreds that is a lot, so one often restricts it:
#
# | family | $\Sigma_k$ | outlines (all points with the same $\Vert w\Vert$) |
# |---|---|---|
# | full | any positive definite matrix | ellipses of any shape and direction |
# | tied | one matrix $\Sigma$ for all components | the same ellipse everywhere |
# | diagonal | $\operatorname{diag}(\sigma_{k1}^2,\dots,\sigma_{kD}^2)$ | ellipses along the axes |
# | spherical | $\sigma_k^2I$ | circles |
#
# ### How they look
#
# We drew the points, so we know their components, and may give each component the mean and the covariance of its own points. (No Gaussian fits them better: we shall show it at Eq. (1.26).) From the full covariances we make the others: their weighted average,
# their diagonals, the average of these:

# %%
groups = [drawn[:600][c[:600] == k] for k in range(3)]
full = torch.stack([points.T.cov(correction=0) for points in groups])
diagonal = full.diagonal(dim1=1, dim2=2)
families = {
    "full": full,
    "tied": (weights[:, None, None] * full).sum(0).expand(3, 2, 2),
    "diagonal": torch.diag_embed(diagonal),
    "spherical": diagonal.mean(1)[:, None, None] * torch.eye(2),
}

# %% [markdown]
# Colours are the responsibilities that each family gives; outlines are at two standard deviations.

# %%
centers = torch.stack([points.mean(0) for points in groups])
mixtures = {name: (weights, centers, spread) for name, spread in families.items()}
figures.mixture_panels(
    drawn[:600],
    {name: (responsibilities(drawn[:600], *mix), mix) for name, mix in mixtures.items()},
    "Four panels with the same arch of points. The full family's slanted ellipses follow its three "
    "pieces; the tied family has the same broad ellipse three times; the diagonal one "
    "upright and lying ellipses; the spherical one circles, which overlap.",
    columns=2, size=(8.6, 8.2),
)

# %% [markdown]
# Which of them describes the points best? By the mean of $\log p(x)$, measured on points that had no part in it:

# %%
fresh = drawn[600:]
fits = {name: log_sum_exp(log_joint(fresh, *mix)).mean() for name, mix in mixtures.items()}
print("from best to worst:", *sorted(fits, key=fits.get, reverse=True))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What they cost: numbers to be found
#
# All families have $K$ weights, of which $K-1$ are free because they sum to one, and $KD$ coordinates of the means. With the covariances the number of free parameters is
#
# $$(K-1)+KD+\begin{cases}K\,D(D+1)/2&\text{full}\\D(D+1)/2&\text{tied}\\KD&\text{diagonal}\\K&\text{spherical.}\end{cases} \tag{1.19}$$
#
# ### What they cost: work
#
# The work for one point is in the $K$ vectors $w$. To solve a triangular system takes one multiplication (or division) for each of the $D(D+1)/2$ entries on and below the diagonal, and $\Vert w\Vert^2$ takes $D$ more. With tied covariances the
# same $L$ serves all components: whiten the point once, and take its distances to the whitened means, with $D$ squares each. A diagonal family divides and squares each coordinate, a spherical one squares them and divides once. Multiplications for each point:
#
# $$\begin{cases}K\big(D(D+1)/2+D\big)&\text{full}\\D(D+1)/2+KD&\text{tied}\\2KD&\text{diagonal}\\K(D+1)&\text{spherical.}\end{cases} \tag{1.20}$$
#
# In words: of the order of $KD^2$ against $KD$. Compare with Eq. (1.19): each number of the means and covariances is used exactly once for each point. (The factors themselves cost about $KD^3/6$ multiplications, once for all points.)

# %%
def costs(k, d):
    pairs = d * (d + 1) // 2
    spread = {"full": k * pairs, "tied": pairs, "diagonal": k * d, "spherical": k}
    return {name: (k - 1 + k * d + numbers, k * d + numbers) for name, numbers in spread.items()}

# %% [markdown]
# Both equations, with ten components: in two dimensions, for images of 8 × 8 pixels, and of 28 × 28.

# %%
for d in (2, 64, 784):
    print(f"D = {d}")
    for name, (numbers, work) in costs(10, d).items():
        print(f"  {name:<10}{numbers:>10,} parameters {work:>10,} multiplications a point")

# %% [markdown]
# Three million parameters, and the usual collection of images of 28 × 28 pixels has 60,000 of them to find these from.
#
# Counting is not yet timing: a processor does more multiplications a second in long, even loops than in a triangular system. So we measure, too. We have built both densities, and may now import them: `log_prob_full` takes the
# Cholesky factor, of one Gaussian or of $K$ at once; `log_prob_diag` takes the logarithms of the variances.

# %%
from gmvae_lib.gaussian import log_prob_diag, log_prob_full

ours = torch.stack([log_normal(x, mu, spread) for mu, spread in zip(means, covariances)])
assert torch.allclose(log_prob_full(x, means, torch.linalg.cholesky(covariances)), ours)
assert torch.allclose(log_prob_diag(x, mean, variance.log()), log_normal_diag(x, mean, variance))

# %% [markdown]
# One Gaussian, two hundred points; the shortest of five runs counts:

# %%
from time import perf_counter


def microseconds(density, spread, n=200):
    points, durations = torch.randn(n, len(spread)), []
    for _ in range(5):
        start = perf_counter()
        density(points, points[0], spread)
        durations.append(perf_counter() - start)
    return 1e6 * min(durations) / n

# %% [markdown]
# On logarithmic axes a power law is a straight line, and its slope is the power. (On the left, calling the functions costs more than the arithmetic.)

# %%
sizes = [10, 30, 100, 300, 1000]
figures.curves(
    sizes, {"full": [microseconds(log_prob_full, torch.eye(d)) for d in sizes],
            "diagonal": [microseconds(log_prob_diag, torch.zeros(d)) for d in sizes]},
    "The work for one point and one component", "dimensions $D$", "microseconds",
    "Time against dimensions on logarithmic axes. Both lines rise, and that of the full family is "
    "steeper and ends far above the diagonal one.",
    log_x=True, log_y=True, size=(7.5, 3.9),
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The same, from other libraries
#
# Our `GaussianMixture` finds a mixture by itself, which is chapter 2's matter. But we may also hand it ours. The family is its `covariance_type`: `"full"`, `"tied"`, `"diag"` or `"spherical"`.

# %%
from gmvae_lib.mixture import GaussianMixture

gmm = GaussianMixture(3, covariance_type="full").set_parameters(*theta)
assert torch.allclose(gmm.score_samples(x), log_sum_exp(log_joint(x, *theta)))
assert torch.allclose(gmm.predict_proba(x), responsibilities(x, *theta))
assert 0.5 < misfit(gmm.sample(20_000)[0]) < 2
assert gmm.n_parameters() == costs(3, 2)["full"][0]

# %% [markdown]
# `torch.distributions` builds the same density from two parts. scikit-learn has a class of the same name as ours, and keeps what it has found in attributes that end in an underscore; we fill them in by hand:

# %%
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

parts = Categorical(weights), MultivariateNormal(means, covariances)
assert torch.allclose(MixtureSameFamily(*parts).log_prob(x), gmm.score_samples(x))

theirs = SklearnMixture(3)
theirs.weights_, theirs.means_ = weights.numpy(), means.numpy()
theirs.precisions_cholesky_ = torch.linalg.inv(torch.linalg.cholesky(covariances)).mT.numpy()
assert torch.allclose(torch.from_numpy(theirs.predict_proba(x.numpy())), gmm.predict_proba(x))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## No names
#
# How well does a mixture describe data? By the density that it gives to them: the *likelihood* of $\theta$. Points are drawn independently, so densities multiply, and the logarithm is a sum:
#
# $$\ell(\theta)=\sum_{n}\log p(x_n)=\sum_{n}\log\sum_{k}\pi_k\,\mathcal N(x_n|\mu_k,\Sigma_k). \tag{1.21}$$

# %%
def log_likelihood(x, *theta):
    return log_sum_exp(log_joint(x, *theta)).sum()                         # Eq. (1.21)


print("three centers beat one:", bool(log_likelihood(x, *theta) > log_likelihood(x, *single)))

# %% [markdown]
# The best $\theta$ is the one with the highest likelihood: *maximum likelihood*. That is how mixtures are fitted, and it sounds as if there were one such $\theta$. There is not.
#
# Number the components differently, by any permutation $\sigma$ of $1,\dots,K$. Let $\theta_\sigma$ have the weights $\pi_{\sigma(1)},\dots,\pi_{\sigma(K)}$, and means and covariances in the same order. The sum in Eq. (1.8) has the same terms in another order:
#
# $$p(x|\theta_\sigma)=p(x|\theta)\qquad\text{for each of the }K!\text{ permutations }\sigma. \tag{1.22}$$

# %%
from itertools import permutations

orders = [list(order) for order in permutations(range(3))]
values = [log_likelihood(x, *(value[order] for value in theta)) for order in orders]  # Eq. (1.22)
assert len(orders) == 6 and torch.allclose(torch.stack(values), values[0])

# %% [markdown]
# So every hill of the likelihood comes $K!$ times: 6 times for three components, 3,628,800 times for ten. With two components on a line, and all but their centers known, we can see it:

# %%
torch.manual_seed(1)
flat = torch.randn(300) + torch.where(torch.rand(300) < 0.5, -1.5, 1.5)
places = torch.linspace(-4, 4, 81)
log_bells = torch.from_numpy(stats.norm.logpdf(flat, places[:, None]))     # (81, 300)
surface = (torch.logaddexp(log_bells[:, None], log_bells[None]) - math.log(2)).mean(2)

# %% [markdown]
# (`logaddexp` is the logsumexp of two.) The landscape is its own mirror image in the diagonal:

# %%
best = divmod(int(surface.argmax()), len(places))
top = float(places[max(best)]), float(places[min(best)])
middle = (sum(top) / 2, sum(top) / 2)
assert surface[sum(best) // 2, sum(best) // 2] < surface.max() - 0.1       # their average is worse
figures.hills(
    places, places, surface,
    {"a top": top, "its mirror image": top[::-1], "their average": middle},
    "The log-likelihood of two centers", "first center $\\mu_1$", "second center $\\mu_2$",
    "A map with two equal hills on either side of the diagonal, mirror images of each other; marks "
    "stand on both tops and half-way between them, on the diagonal, in a dip between the hills.",
)

# %% [markdown]
# Two people who fit the same model to the same data may both be right and report different numbers. Three things follow. Component numbers mean nothing: compare fits by their densities, or match components before comparing. Never average parameters over fits: here the average
# lies in the dip between the hills, a model with a single center. And no fitting method can know which top to go to; where it starts decides.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## No maximum
#
# It gets worse. On that map the widths were known, and there was a top. As soon as the covariances may move, too, there is none.
#
# ### One point is enough
#
# In a mixture of two or more components, none of weight zero, let component 1 sit exactly on the first data point, $\mu_1=x_1$, with covariance $s^2I$, and let $s$ shrink. All else stays fixed. A sum of densities is no smaller than any of its terms, so
#
# - for the first point, $\log p(x_1)\ge\log\pi_1+\log\mathcal N(x_1|x_1,s^2I)=\log\pi_1-\tfrac D2\log2\pi-D\log s$;
# - for all others, $\log p(x_n)\ge\log\pi_2+\log\mathcal N(x_n|\mu_2,\Sigma_2)$, which does not contain $s$.
#
# Add them up:
#
# $$\ell(\theta)\;\ge\;-D\log s+\text{const}\;\longrightarrow\;\infty\qquad(s\to0). \tag{1.23}$$
#
# One point becomes infinitely likely, and the rest do not mind, because component 2 looks after them. That is what a single Gaussian lacks: as it shrinks onto $x_1$, the others' $-\Vert x_n-x_1\Vert^2/2s^2$ falls far faster than $-D\log s$ rises.
#
# On a line, with a data point at $x=1$: the density grows a needle there, and hardly changes elsewhere.

# %%
fine = torch.linspace(-5, 6, 1101)
bell = 0.9 * normal(fine, 0, 1.8)
figures.curves(
    fine, {f"$s={s}$": bell + 0.1 * normal(fine, 1, s) for s in (1, 0.2, 0.03)},
    "A component collapses on a point", "$x$", "density",
    "Three curves. All are the same low, wide bell but near x = 1, where the second has a small "
    "peak and the third a needle several times as high as the bell.",
    markers=False, size=(7.5, 3.4),
)

# %% [markdown]
# In the plane, with the first twenty of our points, of which the first one gets a component of its own:

# %%
some = x[:20]
share = torch.tensor([1, 19]) / 20                                         # one point of 20
two_means = torch.stack([some[0], some.mean(0)])


def collapsed(s):
    spreads = torch.stack([s**2 * torch.eye(2), some.T.cov()])
    return log_likelihood(some, share, two_means, spreads)


scales = torch.logspace(0.5, -8, 86)
gain = torch.stack([collapsed(s) for s in scales])

# %% [markdown]
# For each factor of ten in $s$, the log-likelihood gains $D\log10$ nats, for ever:

# %%
steps = gain[-40:].diff() / scales[-40:].log().diff()
assert torch.allclose(steps, torch.tensor(-2.0), atol=1e-3)                # Eq. (1.23), D = 2

# %% [markdown]
# Beside it, the single Gaussian, which shrinks onto the same point:

# %%
alone = torch.stack([log_normal(some, some[0], s**2 * torch.eye(2)).sum() for s in scales])
figures.curves(
    scales, {"a mixture's component": gain, "a single Gaussian": alone},
    "Shrinking onto one of twenty points", "standard deviation $s$", "log-likelihood (nats)",
    "Against s on a logarithmic axis: the mixture's curve falls in a straight line from the upper "
    "left to the lower right, so that it rises without end as s shrinks. The single Gaussian's "
    "curve plunges out of the picture.",
    log_x=True, ylim=(-160, -30), size=(7.5, 3.9), markers=False,
)

# %% [markdown]
# A model that ends there has learnt one point by heart. A full covariance can even collapse around several points: to be flat in one direction is enough, and through any $D$ points there is a plane (in two dimensions, a line through any two). (The tied family is safe, unless all the data lie on $K$ parallel planes: its one covariance has to
# serve all the points.)
#
# So "maximum likelihood" for mixtures cannot mean the highest value. It means a good *local* maximum, away from these poles, or it means a slightly different question. There are two such questions.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### First cure: a floor
#
# Say how fine a detail may be. If no covariance has an eigenvalue below $s_{\min}^2$, then $\det\Sigma_k\ge s_{\min}^{2D}$, and no component's density exceeds $(2\pi s_{\min}^2)^{-D/2}$. Neither does their average, and so
#
# $$\ell(\theta)\;\le\;-\frac{ND}2\log\big(2\pi s_{\min}^2\big). \tag{1.24}$$
#
# In `GaussianMixture`, `reg_covar` serves as the floor, a variance in the data's squared units: it is added to every variance.

# %%
def bound(floor):
    return -0.5 * len(some) * 2 * math.log(2 * math.pi * floor**2)         # Eq. (1.24)


for floor in (0.01, 0.1):
    allowed = scales[scales >= floor]
    assert max(collapsed(s) for s in allowed) <= bound(floor)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Second cure: a prior
#
# A floor is a wall. A prior is a slope: it says beforehand that tiny covariances are implausible, and lets the data argue. The usual choice is the *inverse-Wishart* density, with a positive definite matrix $\Psi$ and a number $\nu>D-1$:
#
# $$\log p(\Sigma)=-\tfrac12(\nu+D+1)\log\det\Sigma-\tfrac12\operatorname{tr}\big(\Psi\,\Sigma^{-1}\big)+\text{const}. \tag{1.25}$$
#
# The trace $\operatorname{tr}$ is the sum of the diagonal. In one dimension, with $\Sigma=v$, this is the *inverse-gamma* density, $v^{-(\alpha+1)}e^{-b/v}$ with $\alpha=\nu/2$ and $b=\Psi/2$. For $\Sigma=s^2I$ the last term is $-\operatorname{tr}\Psi/2s^2$: as $s\to0$, it
# falls much faster than the logarithms, in the first term and in Eq. (1.23), rise.
#
# We then maximize $\ell(\theta)+\sum_k\log p(\Sigma_k)$, which is, up to a constant, the logarithm of the parameters' density given the data, the *posterior* (by Bayes' rule; weights and means have a flat prior). This is called *maximum a posteriori*, MAP.

# %%
def log_inverse_wishart(covariance, psi, nu):
    d = len(psi)
    trace = torch.linalg.solve(covariance, psi).trace()                    # tr Ψ Σ⁻¹
    return -0.5 * (nu + d + 1) * covariance.logdet() - 0.5 * trace         # Eq. (1.25)


psi, nu = torch.eye(2), 4.0
penalty = torch.stack([log_inverse_wishart(s**2 * torch.eye(2), psi, nu) for s in scales])

# %% [markdown]
# The three questions in one picture (each curve is set to zero at its right end):

# %%
floored = torch.stack([collapsed(s.clamp_min(0.01)) for s in scales])
figures.curves(
    scales, {"likelihood": gain - gain[0], "with a floor at 0.01": floored - floored[0],
             "with a prior": gain + penalty - (gain + penalty)[0]},
    "Two cures for the collapse", "standard deviation $s$", "gained (nats)",
    "Three curves over s on a logarithmic axis. Towards small s the likelihood rises without end; "
    "with a floor it stays level below one hundredth; with a prior it rises to a top and then "
    "plunges.",
    log_x=True, ylim=(-20, 40), size=(7.5, 3.9), markers=False,
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The covariance that MAP chooses
#
# Suppose that $N_k$ points belong to component $k$, with the mean $\mu_k$ and the *scatter* $S_k=\frac1{N_k}\sum(x_n-\mu_k)(x_n-\mu_k)^\top$ about it. Since a number $v^\top Av$ equals $\operatorname{tr}(A\,vv^\top)$, the sum of their log-densities, Eq. (1.5), is, up to a constant,
# $-\frac{N_k}2\big(\log\det\Sigma+\operatorname{tr}(\Sigma^{-1}S_k)\big)$. No other center is better: about $\mu_k+d$ the scatter is $S_k+dd^\top$, and the trace grows by $d^\top\Sigma^{-1}d>0$. But which $\Sigma$ makes it largest?
#
# Let $f(\Sigma)=\log\det\Sigma+\operatorname{tr}(\Sigma^{-1}S)$ for a positive definite $S$ with Cholesky factor $L$. The eigenvalues $\lambda_1,\dots,\lambda_D$ of $L^\top\Sigma^{-1}L$ are positive. Their sum is the trace, $\operatorname{tr}(L^\top\Sigma^{-1}L)=\operatorname{tr}(\Sigma^{-1}LL^\top)=\operatorname{tr}(\Sigma^{-1}S)$. Their product is the determinant,
# $(\det L)^2/\det\Sigma=\det S/\det\Sigma$, so that $\log\det\Sigma=\log\det S-\sum_i\log\lambda_i$. At $\Sigma=S$, $f$ is $\log\det S+\operatorname{tr}I=\log\det S+D$. Subtract:
#
# $$f(\Sigma)-f(S)=\sum_{i=1}^{D}\big(\lambda_i-1-\log\lambda_i\big)\;\ge\;0. \tag{1.26}$$
#
# Indeed $\lambda-1-\log\lambda$ has the derivative $1-1/\lambda$: it falls until $\lambda=1$, where it is zero, and rises from there. So $f$ is smallest where all $\lambda_i=1$; then $L^\top\Sigma^{-1}L=I$, and $\Sigma=LL^\top=S$. So the likelihood alone chooses $\Sigma=S_k$, if that is positive definite: no Gaussian fits points better than the one with their own mean and covariance.
#
# With the prior, Eq. (1.25), the factor before $\log\det\Sigma$ becomes $-\frac12(N_k+\nu+D+1)$, and the trace contains $N_kS_k+\Psi$. That is $f$ again, with the ratio of the two as its $S$, and the maximum is there:
#
# $$\Sigma_k=\frac{N_k\,S_k+\Psi}{N_k+\nu+D+1}. \tag{1.27}$$

# %%
points = groups[0][:5]
S = points.T.cov(correction=0)
best = ((5 * S + psi) / (5 + nu + 3)).requires_grad_()                     # Eq. (1.27)
value = log_normal(points, points.mean(0), best).sum() + log_inverse_wishart(best, psi, nu)
slope, = torch.autograd.grad(value, best)
assert slope.abs().max() < 1e-9

# %% [markdown]
# It reads like an average: the prior counts as $\nu+D+1$ imaginary points whose summed squares are $\Psi$. Many real points outvote it. With few, or with none, $\Sigma_k$ does not become singular: no eigenvalue can fall below $\psi/(N_k+\nu+D+1)$, where $\psi$ is the smallest eigenvalue of $\Psi$.
#
# A common choice (Fraley and Raftery, 2007) is $\nu=D+2$ and $\Psi$ the covariance of all the data, divided by $K^{2/D}$, so that $K$ clouds of that size fill the data's volume.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The prior bounds what it should
#
# Is every way to collapse barred? A mixture is at most the largest of its components, and a Gaussian is highest at its center. So with the eigenvalues $\lambda_{ki}$ of $\Sigma_k$, and since a maximum of non-negative numbers is at most their sum,
#
# $$\log p(x_n)\le-\tfrac D2\log2\pi+\max_k\tfrac12\sum_i\log\frac1{\lambda_{ki}}\le-\tfrac D2\log2\pi+\tfrac12\sum_{k,i}\max\Big(0,\log\frac1{\lambda_{ki}}\Big).$$
#
# For the prior, write $\Sigma_k^{-1}=AA^\top$ with columns $a_i$: $\operatorname{tr}(\Psi\Sigma_k^{-1})=\sum_ia_i^\top\Psi a_i\ge\psi\sum_i\Vert a_i\Vert^2=\psi\sum_i1/\lambda_{ki}$. Now each eigenvalue enters on its own. One that is at least 1 contributes nothing positive. A smaller one contributes, to $N$ points and the prior together, at most
# $h(\lambda)=\frac M2\log\frac1\lambda-\frac\psi{2\lambda}$ with $M=N+\nu+D+1$, whose derivative $-\frac M{2\lambda}+\frac\psi{2\lambda^2}$ vanishes only at the top, $\lambda=\psi/M$. There $h=\frac M2\big(\log\frac M\psi-1\big)$. There are $KD$ eigenvalues:
#
# $$\ell(\theta)+\sum_k\log p(\Sigma_k)\;\le\;-\frac{ND}2\log2\pi+KD\,\max\Big(0,\frac M2\Big(\log\frac M\psi-1\Big)\Big), \tag{1.28}$$
#
# without the prior's constant. The right side does not contain $\theta$: it is a ceiling. Our collapsing mixture stays below it at every $s$:

# %%
M = len(some) + nu + 3                                                     # D = K = 2, and ψ = 1
ceiling = -len(some) * math.log(2 * math.pi) + 2 * 2 * M / 2 * (math.log(M) - 1)
other = log_inverse_wishart(some.T.cov(), psi, nu)
assert (gain + penalty + other <= ceiling).all()                           # Eq. (1.28)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Move it yourself
#
# A mixture to be fitted by hand, to a hundred points. Choose a component; move its weight, its center, its two standard deviations and its correlation; change $K$, the family and the data. On the left are the density and the points, coloured by responsibility; on the right is the log-likelihood, for
# every size that the chosen component could have, with the present one marked. The sentence below says what your last change did.
#
# Things to try:
#
# - How close do you come to the dashed line? It is reached with each component's mean and covariance computed from its own points, as we did above. (By hand it is tedious. Remember that for the next chapter.)
# - Give up: set $K=4$ and press *Components known*. Component 4 is one too many, spread over all the points. Choose it, move it *Onto a point*, and *Shrink* it until you have beaten the dashed line. Where does the curve on the right lead?
# - Tick *with a prior*, and look at the curve again. (The dashed line goes: it belongs to the likelihood alone.)
# - Go through the families. Which of them loses least of the fit? Which one cannot collapse?

# %%
from gmvae_lib.explorers import MixtureExplorer

MixtureExplorer()

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Failure lab
#
# We break three things, find out what happened, and mend them.
#
# ### The covariance in place of its factor
#
# A sampler that looks right: noise, times the spread, plus the mean.

# %%
def careless(weights, means, covariances, n):
    c = torch.multinomial(weights, n, replacement=True)
    return means[c] + (covariances[c] @ torch.randn(n, 2, 1)).squeeze(2)


wrong = careless(*theta, 20_000)
print("mean about right:", bool((wrong.mean(0) - m).abs().max() < 0.1))

# %% [markdown]
# The mean is right, and the picture would be an arch. But the noise was multiplied by $\Sigma$ where $L$ belongs, so that each cloud has the covariance $\Sigma\Sigma^\top$. The test of the squares sees it at once, and Eq. (1.13) as well:

# %%
print("squared misfit above ten:", bool(misfit(wrong) > 10))
print("covariance off by more than a tenth:", bool((wrong.T.cov() - whole).abs().max() > 0.1))

# %% [markdown]
# The cure is Eq. (1.2): multiply by a factor. The lesson is that a sampler needs a test of its spread. Means are the last to notice.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A small constant against zero
#
# Responsibilities from plain densities, Eq. (1.16) as it stands. "To be safe", a small number is added to each density, so that nothing is divided by zero:

# %%
def safe_looking(x, *theta):
    densities = log_joint(x, *theta).exp() + 1e-10
    return densities / densities.sum(1, keepdim=True)


outlier = torch.tensor([[9.0, -13.0]])
print("with the constant:  ", safe_looking(outlier, *theta).round(decimals=3).tolist())
print("in the logarithms:  ", responsibilities(outlier, *theta).round(decimals=3).tolist())

# %% [markdown]
# There is no error and no warning, and the rows sum to one. But far out only the constant is left, and every component gets the same share, whereas in truth the point is in no doubt at all. When a mixture is fitted, such a point pulls all the components. The cure: no constant, Eq. (1.17).

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Fewer points than dimensions
#
# One component in 64 dimensions, with 40 points of its own:

# %%
torch.manual_seed(2)
scarce = torch.randn(40, 64)
S = scarce.T.cov(correction=0)
print("rank of the 64 × 64 covariance:", int(torch.linalg.matrix_rank(S)))

# %% [markdown]
# Forty points, less their mean, span 39 directions. In the other 25 the scatter is zero. So $S$ is not positive definite, and there is no density: Eq. (1.6) takes the root of zero (or of a rounding error, which may be negative). To catch the error and go on would be to ignore that the question has no answer. The cures
# change the question: a floor, a prior, Eq. (1.27) (here with $\nu=D+2$ and $\Psi=\nu I$), or a family with fewer numbers.

# %%
D, nu, identity = 64, 66, torch.eye(64)
cures = {
    "floor": S + 0.01 * identity,
    "prior": (40 * S + nu * identity) / (40 + nu + D + 1),
    "diagonal": S.diagonal().diag(),
}
for name, cured in cures.items():
    finite = log_normal(scarce, scarce.mean(0), cured).isfinite().all()
    print(f"{name}: finite log-densities:", bool(finite))

# %% [markdown]
# All of them give a number, and they do not give the same. Which is best is judged on new points, drawn from the same source:

# %%
held_out = torch.randn(500, 64)
scores = {name: log_normal(held_out, scarce.mean(0), cured).mean() for name, cured in cures.items()}
print("from best to worst:", *sorted(scores, key=scores.get, reverse=True))

# %% [markdown]
# A floor of 0.01 allows standard deviations of a tenth in directions about which nothing is known. (That the prior and the diagonal family do well here is no wonder: the truth has independent coordinates, and both lean that way.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Fill in a function, run its cell, and `check` says what it found. Worked solutions are in the
# [notebook with the solutions](solutions/01_gaussian_mixtures.ipynb).

# %%
from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 1.1 (★, 10 minutes)
#
# The log-density of a mixture with diagonal covariances. Given `x` $(N,D)$, weights $(K,)$, means $(K,D)$ and variances $(K,D)$, return $\log p(x_n)$ as $(N,)$. Some points lie far out. Which comes first, the sum over dimensions or the sum over components?

# %%
def log_density(x, weights, means, variances):
    raise NotImplementedError


check("1.1", log_density)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 1.2 (★, 5 minutes)
#
# Given weights $(K,)$, means $(K,D)$ and covariances $(K,D,D)$, return the mean $(D,)$ and the covariance $(D,D)$ of the whole mixture, as a tuple.

# %%
def moments(weights, means, covariances):
    raise NotImplementedError


check("1.2", moments)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 1.3 (★★, 10 minutes)
#
# The sampler's second act. Somebody has drawn the components `c` $(N,)$, numbered from 0, and the noise `eps` $(N,D)$. Stretch it by the Cholesky factors, and return the points $(N,D)$.

# %%
def from_noise(c, eps, means, covariances):
    raise NotImplementedError


check("1.3", from_noise)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 1.4 (★★, 15 minutes)
#
# MAP for one component whose points are known, with the inverse-Wishart prior. Given `x` $(N,D)$, its mean, $\Psi$ $(D,D)$ and $\nu$, return the covariance that MAP chooses. In one case there are fewer points than dimensions.

# %%
def map_covariance(x, mean, psi, nu):
    raise NotImplementedError


check("1.4", map_covariance)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 1.5 (★★★, 25 minutes)
#
# A mixture in the plane, and somebody tells us the first coordinate only. What do we expect of the second? Given `first` $(N,)$, weights $(K,)$, means $(K,2)$ and covariances $(K,2,2)$, return $\mathbb E[x_2|x_1]$ as $(N,)$. Two questions to answer on the way: within one component,
# what does $x_1$ say about $w_1$, and $w_1$ about $x_2$? And what does $x_1$ say about $c$? (Some of the given coordinates lie far out.)

# %%
def second_given_first(first, weights, means, covariances):
    raise NotImplementedError


check("1.5", second_given_first)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Summary
#
# - A Gaussian is noise, stretched by $L$ and moved by $\mu$. Its log-density needs the whitened $w$ and the diagonal of $L$: no inverse, no determinant.
# - A mixture averages densities. Read as a story with a latent component $c$, it can be drawn from; read backwards by Bayes' rule, it gives each point its responsibilities.
# - Densities vanish in the computer, their logarithms do not. The logsumexp adds densities without leaving the logarithms.
# - The spread of a mixture is the spread within plus the spread between.
# - Full covariances cost about $KD^2/2$ numbers, and as many multiplications a point; diagonal ones $KD$ and $2KD$.
# - The likelihood has $K!$ copies of every hill, and no maximum: a component may collapse onto a point. A floor or a prior bounds it.
#
# **May now be imported:** `log_prob_full` and `log_prob_diag` from `gmvae_lib.gaussian`, and `GaussianMixture` from `gmvae_lib.mixture` with given parameters: its `set_parameters`, `score_samples`, `predict_proba`, `predict` and `sample`.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Where this leads
#
# We were given $\theta$, or put it together by hand. In practice there are only the points. If we knew the components, we could compute the parameters; if we knew the parameters, we could compute the responsibilities. The way out of this circle is
# [chapter 2, Expectation–maximization](02_expectation_maximization.ipynb).

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Sources
#
# - K. Pearson (1894). Contributions to the mathematical theory of evolution. (The first mixture: crabs from Naples, two Gaussians, fitted by moments.)
# - C. M. Bishop (2006). Pattern Recognition and Machine Learning, sections 2.3 and 9.2.
# - N. E. Day (1969). Estimating the components of a mixture of normal distributions. (The unbounded likelihood.)
# - C. Fraley and A. E. Raftery (2007). Bayesian regularization for normal mixture estimation and model-based clustering. (The prior, and MAP.)
# - G. H. Golub and C. F. Van Loan (2013). Matrix Computations, chapter 4. (Cholesky's factor.)
# - G. McLachlan and D. Peel (2000). Finite Mixture Models.
