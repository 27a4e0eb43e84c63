# %% [markdown] slideshow={"slide_type": "slide"}
# # 02 Expectation–maximization
#
# **How do you fit what you cannot see?**
#
# The points on the left below came from three sources, but nobody wrote down which point came from which. If we knew, each
# source would be described by an average and a spread, and we would be done in a minute. And if we knew the sources, we could
# tell for each point which of them it probably came from. We know neither: each half of the answer waits for the other.
#
# *Expectation–maximization* (EM) starts with a poor guess of one half, works out the other, and goes back and forth. In the
# middle is its state after two rounds, where many points are still undecided; on the right it has settled.

# %% slideshow={"slide_type": "-"}
import torch

from gmvae_lib import figures
from gmvae_lib.data import load

torch.set_num_threads(1)  # the data are small: a second thread would only be waited for
x = load("cigars").x.double()
figures.em_stages(
    x, [[-3, 3], [0, -2], [3, 3]],
    {"What we are given": None, "On the way: two steps of EM": 2, "Settled: thirty steps": 30},
    "Three panels with the same points: first grey, in the shape of an arch; then in mixed "
    "colours, with three wide ellipses that overlap; then in three clear colours and markers, "
    "each group with a narrow ellipse along it.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Neither half of the procedure looks at how good the fit is, and yet the fit never gets worse, not in a single step. This chapter
# shows why. The reason is one inequality, and the same inequality will later carry the variational autoencoder.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you will be able to do
#
# - say why the likelihood of a mixture cannot be maximized in one go, and what a lower bound changes about that;
# - derive the whole of EM for Gaussian mixtures, each formula with its proof and with a check in code;
# - write EM in a dozen lines and show that it agrees with `gmvae_lib` and with scikit-learn to nine digits;
# - run EM on data that arrive in pieces or lie on several machines;
# - recognize its failures (poor starts, dead and collapsed components, underflow) and cure them.
#
# **You need** averages, covariances, conditional probabilities, matrices and their eigenvalues, derivatives and Lagrange
# multipliers; Python with a little PyTorch. **It takes** about 90 minutes, and an hour more for the exercises.
#
# Logarithms are natural, so that log-densities come in *nats*. Throughout, $x_1,\dots,x_N$ are $N$ points in $\mathbb R^D$,
# the components are numbered $k=1,\dots,K$, and sums over $n$ run over all points.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The model in a few lines
#
# The chapter on Gaussian mixtures is still to come (see the [map of the chapters](00_start_here.ipynb#The-map)). Here is what
# we need of it, in five short steps.
#
# ### One Gaussian
#
# A Gaussian (normal) density with mean $\mu\in\mathbb R^D$ and covariance $\Sigma$, a symmetric and positive definite
# $D\times D$ matrix, has the logarithm
#
# $$\log\mathcal N(x|\mu,\Sigma)=-\tfrac12\Big(D\log 2\pi+\log\det\Sigma+(x-\mu)^\top\Sigma^{-1}(x-\mu)\Big). \tag{2.1}$$
#
# We compute neither the inverse nor the determinant. The Cholesky factor $L$, lower triangular with $\Sigma=LL^\top$, gives
# both. If $w$ solves $Lw=x-\mu$, then
# $(x-\mu)^\top\Sigma^{-1}(x-\mu)=(Lw)^\top L^{-\top}L^{-1}(Lw)=w^\top w$; and the determinant of a triangular matrix is the
# product of its diagonal, so that $\log\det\Sigma=2\sum_i\log L_{ii}$. Hence
#
# $$\log\mathcal N(x|\mu,\Sigma)=-\tfrac12\big(D\log 2\pi+\Vert w\Vert^2\big)-\sum_{i=1}^{D}\log L_{ii},\qquad Lw=x-\mu. \tag{2.2}$$

# %%
import math


def log_normal(x, mean, covariance):
    factor = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(factor, (x - mean).T, upper=False)
    constant = len(mean) * math.log(2 * math.pi)
    return -0.5 * (constant + white.square().sum(0)) - factor.diagonal().log().sum()  # Eq. (2.2)

# %% [markdown]
# It agrees with PyTorch's own density, on a covariance picked at random:

# %%
from torch import distributions

mean = torch.tensor([1.0, -2.0]).double()
covariance = torch.tensor([[2.0, 0.6], [0.6, 0.5]]).double()
oracle = distributions.MultivariateNormal(mean, covariance)
assert torch.allclose(log_normal(x, mean, covariance), oracle.log_prob(x))

# %% [markdown]
# ### The mixture
#
# To make a point, first draw a component $c$: component $k$ with probability $\pi_k$, where the *weights* $\pi_k\ge0$ sum to
# one. Then draw $x$ from that component's Gaussian. Joint and marginal density are
#
# $$p(x,c{=}k)=\pi_k\,\mathcal N(x|\mu_k,\Sigma_k),\qquad p(x)=\sum_{k=1}^{K}\pi_k\,\mathcal N(x|\mu_k,\Sigma_k). \tag{2.3}$$
#
# We observe $x$. The component $c$ is *latent*: part of the model, but not of the data. All parameters together,
# weights, means and covariances, are called $\theta$. In code the log of the joint density is an $(N, K)$ table:

# %%
def log_joint(x, weights, means, covariances):
    columns = [log_normal(x, mean, covariance) for mean, covariance in zip(means, covariances)]
    return weights.log() + torch.stack(columns, dim=1)

# %% [markdown]
# We start where the picture started: three means set down by hand, equal weights, unit covariances.

# %%
weights = torch.ones(3).double() / 3
means = torch.tensor([[-3, 3], [0, -2], [3, 3]]).double()
covariances = torch.eye(2).double().repeat(3, 1, 1)
joint = log_joint(x, weights, means, covariances)
joint.shape

# %% [markdown]
# ### The logarithm of a sum of exponentials
#
# For $\log p(x)$ we must add $K$ densities whose logarithms $a_k$ we have. Densities far from their center are so small that
# `exp` returns zero. So we pull out the largest, $a^*=\max_k a_k$, before we leave the logarithms:
#
# $$\log\sum_{k}e^{a_k}=a^*+\log\sum_{k}e^{a_k-a^*}. \tag{2.4}$$
#
# One of the terms on the right is $e^0=1$, so the sum can neither underflow to zero nor overflow. This is `logsumexp`.

# %%
log_px = joint.logsumexp(1)                                                # Eq. (2.4)
gaussians = distributions.MultivariateNormal(means, covariances)
oracle = distributions.MixtureSameFamily(distributions.Categorical(weights), gaussians)
assert torch.allclose(log_px, oracle.log_prob(x))

# %% [markdown]
# ### Responsibilities
#
# Which component did $x_n$ come from? Bayes' rule answers with probabilities, the *responsibilities*:
#
# $$r_{nk}=p(c{=}k|x_n)=\frac{p(x_n,c{=}k)}{p(x_n)}=\frac{\pi_k\,\mathcal N(x_n|\mu_k,\Sigma_k)}{\sum_{j}\pi_j\,\mathcal N(x_n|\mu_j,\Sigma_j)}. \tag{2.5}$$
#
# Each row sums to one: every point is shared out completely among the components. The colours in the first picture are
# these numbers: each point's colour is mixed from its components' colours in the proportions $r_{nk}$.

# %%
resp = (joint - log_px[:, None]).exp()                                     # Eq. (2.5)
assert torch.allclose(resp.sum(1), torch.ones(len(x)).double())
assert torch.allclose(resp, joint.softmax(1))

# %% [markdown]
# The last line says that Eq. (2.5) is what machine learning calls a *softmax*, applied to the log-joint.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Why it is hard
#
# ### If we could see
#
# Suppose that the component $c_n$ of each point were known. The log-likelihood of points and components together is
#
# $$\sum_{n}\log p(x_n,c_n)=\sum_{k}\ \sum_{n:\,c_n=k}\big[\log\pi_k+\log\mathcal N(x_n|\mu_k,\Sigma_k)\big]. \tag{2.6}$$
#
# It falls apart into $K$ separate problems, each about one Gaussian and its own points. The answers are the ones everybody
# would guess: the share of the points, their average, their covariance. Our toy data come with the true components (which
# fitting never looks at), so we can see how good an answer that would be:

# %%
c = load("cigars").y
seen = [x[c == k] for k in range(3)]
seen_means = torch.stack([points.mean(0) for points in seen])
seen_covariances = torch.stack([points.T.cov(correction=0) for points in seen])
seen_weights = torch.tensor([len(points) / len(x) for points in seen]).double()

# %% [markdown]
# ### But we cannot
#
# Without the components, what we can maximize is the log-likelihood of the points alone,
#
# $$\ell(\theta)=\sum_{n}\log p(x_n)=\sum_{n}\log\sum_{k}\pi_k\,\mathcal N(x_n|\mu_k,\Sigma_k). \tag{2.7}$$
#
# Now the sum over $k$ stands *inside* the logarithm, and nothing falls apart. To see what that does, take the derivative
# with respect to one mean. By the chain rule the logarithm contributes $1/p(x_n)$, and the Gaussian returns itself times the
# derivative of its logarithm, which by Eq. (2.1) is $\Sigma_k^{-1}(x_n-\mu_k)$:
#
# $$\frac{\partial\ell}{\partial\mu_k}=\sum_{n}\frac{\pi_k\,\mathcal N(x_n|\mu_k,\Sigma_k)}{p(x_n)}\,\Sigma_k^{-1}(x_n-\mu_k)=\sum_{n}r_{nk}\,\Sigma_k^{-1}(x_n-\mu_k). \tag{2.8}$$

# %%
moving = means.clone().requires_grad_()
log_joint(x, weights, moving, covariances).logsumexp(1).sum().backward()
pull = (resp[:, :, None] * (x[:, None] - means)).sum(0)
assert torch.allclose(moving.grad, torch.linalg.solve(covariances, pull))  # Eq. (2.8)

# %% [markdown]
# Set it to zero and we seem to have an answer: $\mu_k=\sum_n r_{nk}x_n/\sum_n r_{nk}$, a weighted average. But it is no
# solution. The $r_{nk}$ on the right contain $\mu_k$, and all other parameters as well. It is an equation that the solution
# must satisfy, with the unknown on both sides.
#
# It does suggest a procedure: hold the $r_{nk}$ fixed, compute the averages, then compute the $r_{nk}$ again. That *is* EM.
# What we do not know yet is why it should lead anywhere. For that we need a function that does fall apart, and that tells us
# something about $\ell$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A bound to climb
#
# ### One inequality
#
# The logarithm is *concave*: its graph lies below each of its tangents. The tangent at $\bar a>0$ has the slope $1/\bar a$,
# so for every $a>0$ we have $\log a\le\log\bar a+(a-\bar a)/\bar a$, with equality at $a=\bar a$ only. (For $\bar a=1$ this
# reads $\log a\le a-1$, a form that we shall need again.)
#
# Now take positive numbers $a_1,\dots,a_K$ and weights $q_k\ge0$ that sum to one, let $\bar a=\sum_k q_k a_k$ be the
# weighted average, and average the inequality with these weights. The last term vanishes, because
# $\sum_k q_k(a_k-\bar a)=0$. What is left is *Jensen's inequality* for the logarithm:
#
# $$\sum_{k}q_k\log a_k\;\le\;\log\sum_{k}q_k a_k, \tag{2.9}$$
#
# with equality only if all $a_k$ with $q_k>0$ are equal. In words: the average of the logs lies below the log of the average.

# %%
figures.jensen(
    values=[0.4, 4.0], weights=[0.6, 0.4],
    alt="The curve of the logarithm with its tangent above it and a chord between two of its "
    "points below it. At the weighted mean of the two values a vertical bar joins the "
    "average of the logs, on the chord, to the log of the average, on the curve.",
)

# %% [markdown]
# The bar between the two marks is what the inequality loses. It shrinks to nothing when the two values come together.

# %%
torch.manual_seed(0)
a, q = torch.rand(1000, 5).double(), distributions.Dirichlet(torch.ones(5).double()).sample((1000,))
assert ((q * a.log()).sum(1) <= (q * a).sum(1).log()).all()               # Eq. (2.9)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The logarithm moves inside
#
# Fix one point $x$, and let $q_1,\dots,q_K$ be *any* probabilities over its components: a guess at where it came from. Multiply
# and divide each term of $p(x)$ by $q_k$, and apply Jensen's inequality to $a_k=p(x,c{=}k)/q_k$:
#
# $$\log p(x)=\log\sum_{k}q_k\,\frac{p(x,c{=}k)}{q_k}\;\ge\;\sum_{k}q_k\log\frac{p(x,c{=}k)}{q_k}=:\mathcal L(q,\theta). \tag{2.10}$$
#
# (A component with $q_k=0$ is left out of both sums. Then $\log p(x)$ is even larger than the expression in the middle, so the
# inequality stands.) The right side is called the
# *evidence lower bound*, or ELBO: "evidence" is another name for $p(x)$. Inside it, the logarithm has reached the
# single components, and that is what we were after. The price is that it is only a bound, one for every $q$. (In code, `xlogy(q, q)`
# is $q\log q$, and zero for $q=0$.)

# %%
def elbo(q, joint):
    return (q * joint - torch.xlogy(q, q)).sum(1)                      # Eq. (2.10)


q = distributions.Dirichlet(torch.ones(3).double()).sample((len(x),))
assert (elbo(q, joint) <= log_px).all()

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How much the bound loses, exactly
#
# The *Kullback–Leibler divergence* (KL) between two distributions over the components is
#
# $$\mathrm{KL}(q\Vert p)=\sum_{k}q_k\log\frac{q_k}{p_k}\;\ge\;0, \tag{2.11}$$
#
# with $0\log0=0$, which is the limit. It is never negative: by Jensen's inequality with $a_k=p_k/q_k$, $-\mathrm{KL}=\sum_kq_k\log(p_k/q_k)\le\log\sum_kp_k=0$.
# And it is zero only if all the ratios $p_k/q_k$ are equal, that is, if $q=p$.
#
# Now write $p(x,c{=}k)=p(c{=}k|x)\,p(x)$ in the bound. The factor $p(x)$ does not depend on $k$ and the $q_k$ sum to one, so
# $\mathcal L(q,\theta)=\log p(x)+\sum_kq_k\log\frac{p(c=k|x)}{q_k}$. The sum is minus a KL divergence:
#
# $$\log p(x)=\mathcal L(q,\theta)+\mathrm{KL}\big(q\,\Vert\,p(c|x)\big). \tag{2.12}$$
#
# This is no longer an inequality. It holds exactly, for every $q$ whatsoever, and it says what the bound loses: the
# divergence between our guess $q$ and the true posterior. Let us run it, with the arbitrary guess from above:

# %%
def kl(q, log_p):
    return (torch.xlogy(q, q) - q * log_p).sum(1)                          # Eq. (2.11)


log_posterior = joint - log_px[:, None]
assert torch.allclose(log_px, elbo(q, joint) + kl(q, log_posterior))       # Eq. (2.12)

# %% [markdown]
# Remember this identity. With a network in the place of $q$, it is what trains the variational autoencoder.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The E-step: make the bound tight
#
# The bound has two arguments, and we shall improve them in turn. First $q$, with $\theta$ held fixed. In Eq. (2.12) the left
# side does not depend on $q$; so the bound is largest where the divergence is smallest, and that is where it is zero:
#
# $$\arg\max_{q}\ \mathcal L(q,\theta)=p(c|x)=r,\qquad \mathcal L(r,\theta)=\log p(x). \tag{2.13}$$
#
# The best guess is the posterior, and with it the bound touches the log-likelihood. For every point that is one row of
# responsibilities, Eq. (2.5). A thousand other guesses do worse:

# %%
rivals = distributions.Dirichlet(torch.ones(3).double()).sample((1000, 1))
assert torch.allclose(elbo(resp, joint), log_px)                           # Eq. (2.13)
assert all((elbo(rival, joint) <= log_px).all() for rival in rivals)

# %% [markdown]
# A picture of what this buys. Along one parameter, the second coordinate of the second mean, we draw the log-likelihood per
# point. We stand at $-5$, make the bound tight there, and draw it. Then we move to its top, make a new bound, and so on.

# %%
def moved_to(value):
    elsewhere = means.clone()
    elsewhere[1, 1] = value
    return log_joint(x, weights, elsewhere, covariances)


heights, place = torch.linspace(-6, 8, 141).double(), -5.0
lines = {"log-likelihood": torch.stack([moved_to(v).logsumexp(1).mean() for v in heights])}
for label in ("first bound, tight at −5", "second, tight at the first's top", "third, and so on"):
    shares_there = moved_to(place).softmax(1)
    lines[label] = torch.stack([elbo(shares_there, moved_to(v)).mean() for v in heights])
    place = heights[lines[label].argmax()]

# %% [markdown]
# The log-likelihood is a wavy line, and each bound hangs below it, from the one point where it touches:

# %%
figures.curves(
    heights, lines, "Each bound touches the log-likelihood once",
    "second coordinate of the second mean", "nats per point",
    "A wavy log-likelihood curve with one high hill and three parabolas below it. The first "
    "parabola is flat and touches the curve far to the left; each next one touches it above "
    "the top of the one before, and the third has its top almost on the hill's.",
    markers=False, size=(7.5, 4.4), ylim=(-9, -3.8),
)

# %% [markdown]
# The bounds are parabolas, and the top of a parabola is easy to find. Since a bound lies below the log-likelihood everywhere and
# touches it where we stand, going up on the bound means going up on the log-likelihood, and by at least as much. Moreover, the
# two have the same slope where they touch: the gap between them is zero there and negative nowhere, so it is at its minimum.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The M-step: climb the bound
#
# Now we hold $q=r$ fixed and choose new parameters. Split the logarithm in Eq. (2.10): the part $-\sum_k r_{nk}\log r_{nk}$ does not
# contain the parameters. What remains, summed over the points, is the *expected complete log-likelihood*
#
# $$\mathcal Q(\theta)=\sum_{n}\sum_{k}r_{nk}\big[\log\pi_k+\log\mathcal N(x_n|\mu_k,\Sigma_k)\big]. \tag{2.14}$$
#
# Compare it with Eq. (2.6), the problem that we could solve. It is the same, except that every point now belongs to every
# component, with the share $r_{nk}$. This is where EM has its name: an *expectation* is taken over the latent components,
# then it is *maximized*.

# %%
def expected_log_likelihood(weights, means, covariances):
    return (resp * log_joint(x, weights, means, covariances)).sum()        # Eq. (2.14)

# %% [markdown]
# One more abbreviation. The amount of data that component $k$ claims is
#
# $$N_k=\sum_{n}r_{nk},\qquad \sum_{k}N_k=N. \tag{2.15}$$

# %%
counts = resp.sum(0)                                                       # Eq. (2.15)
assert torch.isclose(counts.sum(), torch.tensor(len(x)).double())

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The weights
#
# The weights appear in $\mathcal Q$ as $\sum_kN_k\log\pi_k$. They must sum to one, so we maximize under that constraint, with a
# Lagrange multiplier $\lambda$:
#
# $$\mathcal J(\pi,\lambda)=\sum_{k}N_k\log\pi_k+\lambda\Big(1-\sum_{k}\pi_k\Big). \tag{2.16}$$
#
# Setting $\partial\mathcal J/\partial\pi_k=N_k/\pi_k-\lambda$ to zero gives $N_k=\lambda\pi_k$. Summing over $k$ gives
# $\lambda=N$, and hence
#
# $$\pi_k=\frac{N_k}{N}. \tag{2.17}$$
#
# A component's weight is the share of the data that it claims. Setting derivatives to zero finds a stationary point; that it is
# *the* maximum, over all weights, follows from what we know already. For any other weights $\pi'$,
#
# $$\sum_{k}N_k\log\pi_k-\sum_{k}N_k\log\pi'_k=N\sum_k\pi_k\log\frac{\pi_k}{\pi'_k}=N\,\mathrm{KL}(\pi\Vert\pi')\ge0. \tag{2.18}$$

# %%
new_weights = counts / len(x)                                              # Eq. (2.17)
rivals = distributions.Dirichlet(torch.ones(3).double()).sample((1000,))
loss = (counts * new_weights.log()).sum() - (counts * rivals.log()).sum(1)
assert (loss >= 0).all()
assert torch.allclose(loss, len(x) * kl(new_weights, rivals.log()))        # Eq. (2.18)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The means
#
# The derivative of $\log\mathcal N(x_n|\mu_k,\Sigma_k)$ with respect to $\mu_k$ is $\Sigma_k^{-1}(x_n-\mu_k)$, as before. Only component
# $k$ contains $\mu_k$, and this time the $r_{nk}$ are constants:
#
# $$\frac{\partial\mathcal Q}{\partial\mu_k}=\Sigma_k^{-1}\sum_{n}r_{nk}(x_n-\mu_k). \tag{2.19}$$
#
# Since $\Sigma_k^{-1}$ is invertible, this is zero if and only if $\sum_nr_{nk}x_n=N_k\mu_k$:
#
# $$\mu_k=\frac1{N_k}\sum_{n}r_{nk}\,x_n. \tag{2.20}$$
#
# The new mean is the average of all points, each counting with the share that the component claims of it. As a function of $\mu_k$,
# $\mathcal Q$ is a parabola that opens downwards (its second derivative is $-N_k\Sigma_k^{-1}$), so this is its maximum. And $\Sigma_k$ has
# dropped out: the best mean is the same for every covariance.

# %%
new_means = (resp.T @ x / counts[:, None]).requires_grad_()                # Eq. (2.20)
value = expected_log_likelihood(new_weights, new_means, covariances)
slope, = torch.autograd.grad(value, new_means)
assert slope.abs().max() < 1e-9 * len(x)
new_means = new_means.detach()

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The covariances: what is to be maximized
#
# Because the best mean is known whatever the covariance, we put it in, and look for the covariance that goes with it. For a
# column vector $v$ and a matrix $A$, the number $v^\top Av$ equals the *trace* $\operatorname{tr}(A\,vv^\top)$, the sum of the
# diagonal: both are $\sum_{ij}A_{ij}v_iv_j$. So the part of $\mathcal Q$ that contains $\Sigma_k$ is, up to a constant,
#
# $$-\frac{N_k}2\Big(\log\det\Sigma_k+\operatorname{tr}\big(\Sigma_k^{-1}S_k\big)\Big),\qquad S_k=\frac1{N_k}\sum_{n}r_{nk}(x_n-\mu_k)(x_n-\mu_k)^\top, \tag{2.21}$$
#
# where $\mu_k$ is the *new* mean. $S_k$ is called the scatter matrix of the component. The points enter through it alone.

# %%
rivals = covariance.expand(3, 2, 2)                                        # any will do
deltas = x - new_means[:, None]                                            # (K, N, D)
scatter = torch.einsum("nk,kni,knj->kij", resp, deltas, deltas) / counts[:, None, None]
whitened = torch.linalg.solve(rivals, scatter)                             # Σ⁻¹S
inside = rivals.logdet() + whitened.diagonal(dim1=1, dim2=2).sum(1)
constant = (counts * (new_weights.log() - math.log(2 * math.pi))).sum()    # D/2 = 1
whole = expected_log_likelihood(new_weights, new_means, rivals)
assert torch.isclose(whole, constant - (counts / 2) @ inside)              # Eq. (2.21)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Two derivatives of matrices
#
# What happens to the determinant and to the inverse of $A$ when $A$ changes by a small $dA$?
#
# *The determinant.* Expand $\det(I+dB)$: the product of the diagonal gives $1+\sum_idB_{ii}$ plus terms of second order, and every
# other product of the expansion contains at least two small off-diagonal entries. So $\det(I+dB)=1+\operatorname{tr}dB$ to first
# order. With $A+dA=A(I+A^{-1}dA)$ and $\log(1+t)=t$ to first order,
#
# $$d\log\det A=\operatorname{tr}\big(A^{-1}dA\big). \tag{2.22}$$
#
# *The inverse.* Differentiate $AA^{-1}=I$ by the product rule: $dA\,A^{-1}+A\,d(A^{-1})=0$. Multiply by $A^{-1}$ from the left:
#
# $$d(A^{-1})=-A^{-1}\,dA\,A^{-1}. \tag{2.23}$$
#
# Both can be checked with a small change in a random direction. What is left over must be of second order:

# %%
A, dA = covariance, 1e-6 * torch.tensor([[1.0, -2.0], [-2.0, 3.0]]).double()
inverse, change = torch.linalg.inv(A), torch.linalg.inv(A + dA) - torch.linalg.inv(A)
assert abs((A + dA).logdet() - A.logdet() - (inverse @ dA).trace()) < 1e-9  # Eq. (2.22)
assert (change + inverse @ dA @ inverse).abs().max() < 1e-9                # Eq. (2.23)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The covariances: where the derivative vanishes
#
# For one component, and without the factor $-N_k/2$, the change of the bracket in Eq. (2.21) is
#
# $$\operatorname{tr}\big(\Sigma^{-1}d\Sigma\big)-\operatorname{tr}\big(\Sigma^{-1}d\Sigma\,\Sigma^{-1}S\big)=\operatorname{tr}(M\,d\Sigma),\qquad M=\Sigma^{-1}-\Sigma^{-1}S\,\Sigma^{-1}.$$
#
# We used that matrices may be moved around a circle inside a trace, $\operatorname{tr}(AB)=\operatorname{tr}(BA)$. At a stationary point this
# must vanish for every symmetric $d\Sigma$. $M$ is symmetric itself, so we may take $d\Sigma$ proportional to it; then
# $\operatorname{tr}(M^2)=\sum_{ij}M_{ij}^2=0$, and $M$ must be zero. Multiplying $M=0$ by $\Sigma$ from both sides gives $\Sigma=S$:
#
# $$\Sigma_k=S_k=\frac1{N_k}\sum_{n}r_{nk}(x_n-\mu_k)(x_n-\mu_k)^\top. \tag{2.24}$$

# %%
new_covariances = scatter.clone().requires_grad_()                         # Eq. (2.24)
value = expected_log_likelihood(new_weights, new_means, new_covariances)
slope, = torch.autograd.grad(value, new_covariances)
assert slope.abs().max() < 1e-9 * len(x)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The covariances: why it is the maximum
#
# Let $f(\Sigma)=\log\det\Sigma+\operatorname{tr}(\Sigma^{-1}S)$ be the bracket; we want it small. For $S=LL^\top$ positive definite, let
# $\lambda_1,\dots,\lambda_D$ be the eigenvalues of $L^\top\Sigma^{-1}L$, which are positive. Their sum is
# $\operatorname{tr}(L^\top\Sigma^{-1}L)=\operatorname{tr}(\Sigma^{-1}S)$ and their product is $\det S/\det\Sigma$. Since $f(S)=\log\det S+D$,
#
# $$f(\Sigma)-f(S)=\sum_{i=1}^{D}\big(\lambda_i-1-\log\lambda_i\big)\;\ge\;0, \tag{2.25}$$
#
# by $\log a\le a-1$, our inequality once more. Equality needs all $\lambda_i=1$, that is, $\Sigma=S$. No other covariance does as well.

# %%
noise = torch.randn(1000, 2, 4).double()
rivals = noise @ noise.mT / 4
S = scatter[0]
whitened = torch.linalg.solve(rivals, S)                                   # Σ⁻¹S
excess = rivals.logdet() + whitened.diagonal(dim1=1, dim2=2).sum(1) - S.logdet() - 2
eigenvalues = torch.linalg.eigvals(whitened).real                          # those of LᵀΣ⁻¹L
assert (excess >= 0).all()
assert torch.allclose(excess, (eigenvalues - 1 - eigenvalues.log()).sum(1))  # Eq. (2.25)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Three smaller families
#
# A full covariance has $D(D+1)/2$ free numbers for each component. With many dimensions and few points that is too many, so one restricts it.
#
# *Diagonal*, $\Sigma_k=\operatorname{diag}(\sigma^2_{k1},\dots,\sigma^2_{kD})$. The bracket in Eq. (2.21) becomes a sum over dimensions of
# $\log v+s/v$, with $v=\sigma^2_{ki}$ and $s=(S_k)_{ii}$. Its derivative $1/v-s/v^2$ is negative for $v<s$ and positive for $v>s$. So the
# minimum is at $v=s$:
#
# $$\sigma^2_{ki}=(S_k)_{ii}=\frac1{N_k}\sum_nr_{nk}(x_{ni}-\mu_{ki})^2. \tag{2.26}$$
#
# *Spherical*, $\Sigma_k=\sigma_k^2I$. The bracket is $D\log v+\operatorname{tr}(S_k)/v$, and the same argument gives the average of the variances:
#
# $$\sigma_k^2=\frac1D\operatorname{tr}S_k. \tag{2.27}$$
#
# *Tied*, one full $\Sigma$ for all. The brackets add up: $\sum_kN_k\big(\log\det\Sigma+\operatorname{tr}(\Sigma^{-1}S_k)\big)=N\big(\log\det\Sigma+\operatorname{tr}(\Sigma^{-1}\bar S)\big)$,
# where $\bar S=\sum_k\frac{N_k}NS_k$. This is the problem that we have just solved, with $\bar S$ in the place of $S$:
#
# $$\Sigma=\sum_{k}\frac{N_k}{N}\,S_k. \tag{2.28}$$

# %%
variances = scatter.diagonal(dim1=1, dim2=2)                               # Eq. (2.26)
variance = variances.mean(1)                                               # Eq. (2.27)
tied = (new_weights[:, None, None] * scatter).sum(0)                       # Eq. (2.28)

# %% [markdown]
# Each is stationary within its own family: with respect to its own free numbers, the derivative vanishes.

# %%
as_full = {
    "diag": (variances, torch.diag_embed),
    "spherical": (variance, lambda v: v[:, None, None] * torch.eye(2)),
    "tied": (tied, lambda s: s.expand(3, 2, 2)),
}
for family, (best, build) in as_full.items():
    best = best.clone().requires_grad_()
    slope, = torch.autograd.grad(expected_log_likelihood(new_weights, new_means, build(best)), best)
    assert slope.abs().max() < 1e-9 * len(x), family

# %% [markdown] slideshow={"slide_type": "slide"}
# ## EM, whole
#
# Nothing is missing any more. The E-step computes the responsibilities, and the log-likelihood on the way:

# %%
def e_step(x, weights, means, covariances):
    joint = log_joint(x, weights, means, covariances)
    log_px = joint.logsumexp(1)                                            # Eq. (2.4)
    return (joint - log_px[:, None]).exp(), log_px                         # Eq. (2.5)

# %% [markdown]
# The M-step computes counts, averages and covariances under these shares:

# %%
def m_step(x, resp):
    counts = resp.sum(0)                                                   # Eq. (2.15)
    means = resp.T @ x / counts[:, None]                                   # Eq. (2.20)
    deltas = x - means[:, None]
    scatter = torch.einsum("nk,kni,knj->kij", resp, deltas, deltas)
    return counts / len(x), means, scatter / counts[:, None, None]         # Eqs. (2.17) and (2.24)

# %% [markdown]
# And EM takes turns:

# %%
def fit_by_em(x, theta, steps):
    history = []
    for _ in range(steps):
        resp, log_px = e_step(x, *theta)
        history.append(log_px.mean())
        theta = m_step(x, resp)
    return theta, torch.stack(history)


start = (weights, means, covariances)
fitted, history = fit_by_em(x, start, steps=200)

# %% [markdown]
# How close does it come to the answer that we could give if we saw the components? The start decides which component takes
# which number, so we put the means in the right order before we compare. The centers of the clouds are about 4 apart:

# %%
print("EM's means are within 0.15 of those computed with the components known:",
      bool((fitted[1][[0, 2, 1]] - seen_means).abs().max() < 0.15))

# %% [markdown]
# To the points alone, EM's parameters give an even higher likelihood than those computed with the components known. They may
# well: that is what they were chosen for.

# %%
known = e_step(x, seen_weights, seen_means, seen_covariances)[1].mean()
assert known < e_step(x, *fitted)[1].mean()

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### It never goes down
#
# Let $\theta_t$ be the parameters after $t$ steps and $r_t$ the responsibilities computed from them. Then
#
# $$\ell(\theta_{t+1})\;\ge\;\mathcal L(r_t,\theta_{t+1})\;\ge\;\mathcal L(r_t,\theta_t)\;=\;\ell(\theta_t), \tag{2.29}$$
#
# where $\mathcal L$ is summed over the points. The first step holds because $\mathcal L$ is a bound, Eq. (2.10), for whatever $q$; the second
# because the M-step maximizes it; the last because the E-step has made it tight, Eq. (2.13). This is the whole proof. It never
# mentions Gaussians: EM ascends for every model with latent variables whose two steps can be carried out.

# %%
assert (history.diff() >= -1e-12).all()                                    # Eq. (2.29)

# %% [markdown]
# The inequalities can be watched. We run EM again and note the bound twice in each round: with the old responsibilities, after
# the M-step, and with the new ones, after the E-step.

# %%
theta, likelihood, when, bound = start, [], [], []
for t in range(13):
    joint = log_joint(x, *theta)
    if t > 0:
        when.append(t), bound.append(elbo(resp, joint).mean())             # after the M-step
    resp, log_px = e_step(x, *theta)
    when.append(t), bound.append(elbo(resp, joint).mean())                 # after the E-step: tight
    likelihood.append(log_px.mean())
    theta = m_step(x, resp)

# %% [markdown]
# On slopes the M-step climbs the bound; on vertical pieces the E-step closes the gap up to the log-likelihood.
# The height of a vertical piece is the KL divergence of Eq. (2.12).

# %%
figures.curves(
    None, {"log-likelihood": (range(1, 13), likelihood[1:]), "bound": (when[1:], bound[1:])},
    "The bound climbs to the log-likelihood, again and again", "step", "nats per point",
    "The log-likelihood rises step by step and flattens out. The bound, a staircase below it, "
    "rises along each step and then vertically until it touches the log-likelihood.",
    size=(7.5, 4.6), ylim=(-3.95, -2.5),
)

# %% [markdown]
# ### Where it stops
#
# A log-likelihood that only rises must level off, unless it can rise without limit (when it can, the failure lab shows). If the parameters come to rest as well, then the top of
# the bound is where we stand. The slope of the bound is zero there; and since bound and log-likelihood have the same slope where they
# touch, so is the slope of $\ell$. EM ends at a stationary point. After our 200 steps:

# %%
resting = [value.clone().requires_grad_() for value in fitted[1:]]
log_likelihood = log_joint(x, fitted[0], *resting).logsumexp(1).sum()
slopes = torch.autograd.grad(log_likelihood, resting)
assert all(slope.abs().max() < 1e-4 for slope in slopes)

# %% [markdown]
# EM has no step size to choose and no derivative to compute, but it can be slow: where components overlap, each step moves only
# by as much as the responsibilities change. And a stationary point need not be the highest. We come back to this.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The same, from two libraries
#
# We have built `GaussianMixture`, and may now import it. From our start, with `tol=0` so that it makes exactly 25 steps, it must follow the same
# path. `precisions_init` takes inverse covariances; ours are unit matrices. `reg_covar` we come to in the failure lab.

# %%
from gmvae_lib.mixture import GaussianMixture

settings = {"tol": 0, "max_iter": 25, "reg_covar": 0, "weights_init": weights, "means_init": means}
ours = GaussianMixture(3, precisions_init=covariances, **settings).fit(x)
assert torch.allclose(ours.log_likelihood_[:25], history[:25], rtol=1e-9)
assert all(torch.allclose(a, b) for a, b in zip(
    (ours.weights_, ours.means_, ours.covariances_), fit_by_em(x, start, 25)[0]))

# %% [markdown]
# scikit-learn's class has the same name and takes the same start. It warns if it has not converged, which after 25 steps with `tol=0` is
# what we asked for.

# %%
import warnings

from sklearn.mixture import GaussianMixture as SklearnMixture


def as_arrays(settings):
    return {name: v.numpy() if isinstance(v, torch.Tensor) else v for name, v in settings.items()}


with warnings.catch_warnings(action="ignore"):
    theirs = SklearnMixture(3, precisions_init=covariances.numpy(), **as_arrays(settings))
    theirs.fit(x.numpy())
assert abs(theirs.score(x.numpy()) - ours.score(x)) < 1e-9

# %% [markdown]
# The three other families agree as well, each with its own shape of precisions:

# %%
ones = {"diag": torch.ones(3, 2), "spherical": torch.ones(3), "tied": torch.eye(2)}
for family, precisions in ones.items():
    same = settings | {"covariance_type": family, "precisions_init": precisions}
    with warnings.catch_warnings(action="ignore"):
        theirs = SklearnMixture(3, **as_arrays(same)).fit(x.numpy()).score(x.numpy())
    ours = GaussianMixture(3, **same).fit(x).score(x)
    print(family, "agrees to nine digits:", abs(theirs - ours) < 1e-9)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## EM as sums
#
# Look again at the M-step. It needs the points only through three sums for each component: $\sum_nr_{nk}$, $\sum_nr_{nk}x_n$ and
# $\sum_nr_{nk}x_nx_n^\top$. Such sums are called *sufficient statistics*: whatever else is in the data, the M-step does not see it.
# The E-step has the same structure, and that makes EM fast, and lets it work on data that never are in one place.
#
# ### The E-step is a matrix product
#
# Collect, for each point, what a quadratic function can depend on:
#
# $$\phi(x)=\big((x_ix_j)_{i\le j},\;x_1,\dots,x_D,\;1\big)\in\mathbb R^F,\qquad \log p(x,c{=}k)=\theta_k^\top\phi(x), \tag{2.30}$$
#
# with $F=D(D+1)/2+D+1$. To find the vector $\theta_k$, write $\Lambda_k=\Sigma_k^{-1}$ for the *precision* and expand the square in Eq. (2.1):
# $(x-\mu_k)^\top\Lambda_k(x-\mu_k)=x^\top\Lambda_kx-2(\Lambda_k\mu_k)^\top x+\mu_k^\top\Lambda_k\mu_k$. A pair $i<j$ occurs twice in
# $x^\top\Lambda_kx$, a square once. Reading off the factors gives the *natural parameters*
#
# $$\theta_k=\Big(\big({-\tfrac12}\Lambda_{k,ii}\ \text{or}\ {-\Lambda_{k,ij}}\big)_{i\le j},\;\Lambda_k\mu_k,\;\log\pi_k-\tfrac12\big(\mu_k^\top\Lambda_k\mu_k+D\log2\pi-\log\det\Lambda_k\big)\Big). \tag{2.31}$$

# %%
i, j = torch.triu_indices(2, 2)


def phi(x):
    return torch.cat([x[:, i] * x[:, j], x, x.new_ones(len(x), 1)], dim=1)  # Eq. (2.30)

# %% [markdown]
# The natural parameters, with the inverse taken from the Cholesky factor:

# %%
def natural_parameters(weights, means, covariances):
    precision = torch.cholesky_inverse(torch.linalg.cholesky(covariances))
    quadratic = precision[:, i, j] * torch.where(i == j, -0.5, -1.0)
    linear = (precision @ means[:, :, None]).squeeze(2)
    square = (means * linear).sum(1)                                       # μᵀΛμ
    constant = weights.log() - 0.5 * (square + 2 * math.log(2 * math.pi) - precision.logdet())
    return torch.cat([quadratic, linear, constant[:, None]], dim=1)        # Eq. (2.31)


assert torch.allclose(phi(x) @ natural_parameters(*fitted).T, log_joint(x, *fitted))

# %% [markdown]
# One matrix product in place of $K$ triangular systems. (Families of densities whose logarithm is linear in some features of the data are called
# *exponential families*; everything in this section holds for all of them.)
#
# ### So is the M-step
#
# The sums that the M-step needs are again a product, of the responsibilities and the same features:
#
# $$T=R^\top\Phi,\qquad T_k=\sum_nr_{nk}\,\phi(x_n)\in\mathbb R^F, \tag{2.32}$$
#
# where $R$ is the $(N,K)$ table of responsibilities and $\Phi$ the $(N,F)$ table of features. From $T_k$ we read off $N_k$ (the sum of
# ones), then the mean, then the covariance, since the square in Eq. (2.24) can be multiplied out:
#
# $$\mu_k=\frac1{N_k}\sum_nr_{nk}x_n,\qquad \Sigma_k=\frac1{N_k}\sum_nr_{nk}\,x_nx_n^\top-\mu_k\mu_k^\top. \tag{2.33}$$

# %%
def m_step_from_sums(sums):
    products, first, counts = sums[:, :3], sums[:, 3:5], sums[:, 5]
    means = first / counts[:, None]
    second = products[:, [0, 1, 1, 2]].reshape(-1, 2, 2) / counts[:, None, None]
    outer = means[:, :, None] * means[:, None, :]
    return counts / counts.sum(), means, second - outer                    # Eq. (2.33)


resp, _ = e_step(x, *start)
sums = resp.T @ phi(x)                                                     # Eq. (2.32)
assert all(torch.allclose(a, b) for a, b in zip(m_step_from_sums(sums), m_step(x, resp)))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Sums can be added up anywhere
#
# A sum over all points is the sum over the first half plus the sum over the second. The halves may be read one after the other from a disk, or
# lie on two machines that never exchange a single point, only $K\times F$ numbers:

# %%
here, there = x[:300], x[300:]
parts = [e_step(part, *start)[0].T @ phi(part) for part in (here, there)]
assert torch.allclose(parts[0] + parts[1], sums)

# %% [markdown]
# A whole step of EM in one sweep over chunks, with memory for one chunk only, however many points there are:

# %%
def streamed_step(chunks, theta):
    natural, total = natural_parameters(*theta), 0
    for chunk in chunks:
        features = phi(chunk)
        resp = (features @ natural.T).softmax(1)                           # E-step
        total = total + resp.T @ features                                  # the M-step's sums
    return m_step_from_sums(total)


streamed = streamed_step(x.split(50), start)
assert all(torch.allclose(a, b) for a, b in zip(streamed, m_step(x, resp)))

# %% [markdown]
# This is how `gmvae_lib.em` works, and why it is several times faster than scikit-learn on large data (`make bench` measures it). Its `em_step` makes
# the same step:

# %%
from gmvae_lib import em

updated, _ = em.em_step(x, em.Parameters(*start), reg_covar=0)
assert all(torch.allclose(a, b) for a, b in zip(updated, streamed))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The trap: cancellation
#
# Eq. (2.33) subtracts two numbers that may be large and nearly equal. Numbers in double precision have 16 digits. If the data lie around
# $10^6$ (times in seconds, coordinates in metres), their squares lie around $10^{12}$, and of a variance near one only four digits are left:

# %%
def worst_error(covariances, reference):
    return float(((covariances - reference).abs().amax((1, 2)) / reference.amax((1, 2))).max())


far = x + 1e6
exact = m_step(far - 1e6, resp)[2]
error = worst_error(m_step_from_sums(resp.T @ phi(far))[2], exact)
print("Multiplied out, a covariance is off by more than one part in a million:", error > 1e-6)

# %% [markdown]
# The cure costs one line: subtract the mean of the data before forming products, and add it to the means afterwards. Covariances do not notice a
# shift. `gmvae_lib` always does so (and, where a component is so tight or so far out that even this would lose digits, falls back on differences from the
# component's own mean):

# %%
updated, _ = em.em_step(far, em.Parameters(weights, means + 1e6, covariances), reg_covar=0)
assert worst_error(updated.covariances, exact) < 1e-9

# %% [markdown]
# How does it grow with the offset? We fit a diagonal mixture in 20 steps at each offset, and compare its variances with those of a fit to the same points,
# moved back; beside it, the M-step from above, multiplied out. Another curve is scikit-learn, whose diagonal family uses $\mathbb E[x^2]-\mu^2$ in the version that this course is tested with. (Its full family takes
# differences from the mean, and keeps its digits.)

# %%
diagonal = settings | {"max_iter": 20, "covariance_type": "diag", "precisions_init": ones["diag"]}


def variances_at(offset, x, make):
    place = as_arrays(diagonal | {"means_init": means + offset})
    with warnings.catch_warnings(action="ignore"):
        return torch.as_tensor(make(3, **place).fit(x.numpy()).covariances_)

# %% [markdown]
# The points themselves lose digits when they are moved out, so each fit is compared with one to the points as they came back:

# %%
offsets = [10.0**power for power in range(1, 8)]
errors = {"gmvae_lib": [], "scikit-learn": [], "multiplied out": []}
for offset in offsets:
    far, back = x + offset, (x + offset) - offset
    reference = variances_at(0, back, GaussianMixture)
    for name, make in {"gmvae_lib": GaussianMixture, "scikit-learn": SklearnMixture}.items():
        relative = (variances_at(offset, far, make) - reference) / reference
        errors[name].append(float(relative.abs().max()))
    by_sums, exact = m_step_from_sums(resp.T @ phi(far))[2], m_step(back, resp)[2]
    errors["multiplied out"].append(worst_error(by_sums, exact))
assert max(errors["gmvae_lib"]) < 1e-7

# %% [markdown]
# Two straight lines go up: for each digit of offset, two digits of the variance are lost.

# %%
figures.curves(
    offsets, {name: [max(value, 1e-16) for value in values] for name, values in errors.items()},
    "Digits lost to cancellation", "offset of the data", "largest relative error of a variance",
    "Relative error against the offset on logarithmic axes. Two lines rise steeply and "
    "together, from far below one millionth to a tenth or more; the line for gmvae_lib stays "
    "near rounding error throughout.",
    log_x=True, log_y=True, size=(7.5, 4),
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## k-means is EM without doubt
#
# Take the smallest family there is: equal weights, and all covariances $\sigma^2I$ with a $\sigma$ that we set ourselves. Weights and normalizing
# constants cancel in Eq. (2.5), and only the distances are left:
#
# $$r_{nk}=\frac{\exp\big(-\Vert x_n-\mu_k\Vert^2/2\sigma^2\big)}{\sum_j\exp\big(-\Vert x_n-\mu_j\Vert^2/2\sigma^2\big)}\;\xrightarrow[\ \sigma\to0\ ]{}\;\begin{cases}1&\text{if }\mu_k\text{ is the nearest mean},\\0&\text{otherwise}.\end{cases} \tag{2.34}$$
#
# To see the limit, divide both by the term of the nearest mean (if there is one; a tie is shared): every other term becomes $\exp(-\text{something positive}/2\sigma^2)$, which goes to zero.

# %%
def shares(x, means, sigma):
    distance = (x[:, None] - means).square().sum(2)
    return (-distance / (2 * sigma**2)).softmax(1)                         # Eq. (2.34)

# %% [markdown]
# The means stay where they are in the three panels, only $\sigma$ shrinks:

# %%
placed = fitted[1]
circles = {s: (weights, placed, s**2 * covariances) for s in (2.0, 0.7, 0.1)}
figures.mixture_panels(
    x, {f"$\\sigma={s}$": (shares(x, placed, s), circle) for s, circle in circles.items()},
    "Three panels with the same points and centers. From left to right the circles around the "
    "centers shrink, and the mixed colours between the groups give way to sharp borders.",
    n_std=1,
)

# %% [markdown]
# In the limit, the E-step assigns each point to its nearest mean, and the M-step, Eq. (2.20), moves each mean to the average of its points. That is *k-means*,
# known since Lloyd (1957) without any probability. From the same start the two make the same steps:

# %%
soft = hard = means
for _ in range(10):
    resp = shares(x, soft, sigma=1e-4)
    soft = resp.T @ x / resp.sum(0)[:, None]
    nearest = (x[:, None] - hard).square().sum(2).argmin(1)
    hard = torch.stack([x[nearest == k].mean(0) for k in range(3)])        # Lloyd's algorithm
    assert torch.allclose(soft, hard)

# %% [markdown]
# So k-means makes two assumptions that it does not state: clusters are round and equally wide, and no point is in doubt. Where they hold, it is a fine
# method. Our three clouds are long and thin. On the left is k-means, started from the very centers that EM found, on the right EM:

# %%
from sklearn.cluster import KMeans

lloyd = KMeans(3, init=placed.numpy(), n_init=1).fit(x.numpy())
hard = torch.nn.functional.one_hot(torch.tensor(lloyd.labels_).long(), 3).double()
figures.mixture_panels(
    x, {"k-means": (hard, None), "EM, full covariances": (e_step(x, *fitted)[0], fitted)},
    "Two panels with the same arch of points. k-means cuts its legs off below the corners; EM "
    "gives each of the three straight pieces its own colour, marker and narrow ellipse.",
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Where to start
#
# EM climbs to the top of some hill near its start, and a mixture's likelihood has many hills. Nine round clouds on a grid show how much that matters:

# %%
import numpy as np

rng = np.random.default_rng(0)
centers = 4.0 * np.array([[row, column] for row in range(3) for column in range(3)])
grid = torch.tensor(centers[rng.integers(9, size=600)] + 0.6 * rng.standard_normal((600, 2)))

# %% [markdown]
# The obvious start, nine data points drawn at random, easily puts two means into one cloud and none into another, and EM cannot lift a mean
# across the empty space between. *k-means++* draws the points one after the other, each with a probability proportional to its squared distance from the nearest
# mean drawn so far. A cloud without a mean is far from all of them, and so is likely to be next:

# %%
def seed_means(x, n_components):
    chosen = [x[torch.randint(len(x), ())]]
    while len(chosen) < n_components:
        distance = (x[:, None] - torch.stack(chosen)).square().sum(2).amin(1)
        chosen.append(x[torch.multinomial(distance, 1)[0]])
    return torch.stack(chosen)


assert seed_means(grid, 9).shape == (9, 2)

# %% [markdown]
# `GaussianMixture` offers both, as `init="random"` and `init="k-means++"` (which at each draw tries a few candidates and keeps the best), and with
# `n_init` the plainest cure of all: several starts, of which it keeps the likeliest result. Thirty seeds for each:

# %%
def final(seed, **how):
    return GaussianMixture(9, seed=seed, tol=1e-5, max_iter=300, **how).fit(grid).lower_bound_


ways = {"random": {"init": "random"}, "k-means++": {}, "best of 5 k-means++": {"n_init": 5}}
finals = {way: torch.tensor([final(s, **how) for s in range(30)]) for way, how in ways.items()}

# %% [markdown]
# Each dot is the end of one run:

# %%
figures.strip(
    finals, "Where EM ends, for thirty seeds", "final log-likelihood (nats per point)",
    "Three rows of dots. From random points EM ends at many different log-likelihoods and "
    "seldom at the highest one; from k-means++ mostly at the highest; with the best of five "
    "starts all dots stand at the highest.",
)

# %% [markdown]
# How often does each reach the highest value that any of them found?

# %%
best = max(values.max() for values in finals.values())
share = {way: (values > best - 0.01).double().mean() for way, values in finals.items()}
print("from random points, fewer than half the seeds:", bool(share["random"] < 0.5))
print("from k-means++, more than half:", bool(share["k-means++"] > 0.5))
print("best of five, more than nine in ten:", bool(share["best of 5 k-means++"] > 0.9))

# %% [markdown]
# To choose among starts by the likelihood is fair: it looks at the data only, not at any labels. And it is as far as it goes: nobody can say, for real data, that the
# best start has been tried.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Move it yourself
#
# All of EM in one panel. *Step* and *Back* go through a run, or use the slider (with the arrow keys, too). Choose the data, the number of components and
# the covariance family; *Another start* draws new means; or choose one mean and move its start. The sentence below the picture says what each change did.
#
# Things to try: a mean that starts far from all the data. Two means that start in nearly the same place. `rings`, which no mixture of three can fit, with $K=8$.
# Step through the flat stretches of the curve: what is EM doing while the likelihood seems to stand still?

# %%
from gmvae_lib.explorers import EMExplorer

EMExplorer(means=means, step=5)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Failure lab
#
# We break EM in four ways, find out what happened, and mend it.
#
# ### A bad start
#
# Three clouds, three means; but two of them start in the same cloud.

# %%
blobs = load("blobs").x.double()
unlucky = [[-2.5, -2.0], [-2.5, 0.0], [1.5, 0.5]]
figures.em_stages(
    blobs, unlucky, {"Start": 0, "After 10 steps": 10, "After 200 steps": 200},
    "Three panels of three round clouds. Two centers start in the left cloud and share it to "
    "the end; the third center ends between the two other clouds, with one large ellipse "
    "around both.",
)

# %% [markdown]
# Nothing in the run itself looks wrong: the likelihood rises and settles. The symptom shows only next to other runs. That is why one start is never enough:

# %%
trapped = GaussianMixture(3, means_init=unlucky, tol=1e-6, max_iter=500).fit(blobs)
cured = GaussianMixture(3, n_init=5, tol=1e-6, max_iter=500).fit(blobs)
print("both converged:", trapped.converged_ and cured.converged_)
better = cured.score(blobs) - trapped.score(blobs)
print("the cure is better by more than 0.2 nats per point:", better > 0.2)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A dead component
#
# The third mean starts so far away that its share of every point underflows to zero. Then $N_3=0$, and Eq. (2.20) divides zero by zero:

# %%
lost = torch.tensor([[-2.5, -1.0], [2.0, -1.5], [1000.0, 1000.0]]).double()
broken, _ = fit_by_em(blobs, (weights, lost, covariances), steps=1)
print("Is the mean a number?", (~broken[1].isnan().any(1)).tolist())

# %% [markdown]
# The next E-step would spread that `nan` to every point. The library keeps such a component where it was, with weight zero, and says so (it counts
# components from zero):

# %%
with warnings.catch_warnings(record=True) as caught:
    em.em_step(blobs, em.Parameters(weights, lost, covariances))
print(caught[0].message)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A collapsed component
#
# Two groups of points; in the first all points are the same. (A sensor that was stuck; a value that was filled in.)

# %%
stuck = torch.cat([torch.tensor([[4.0, 4.0]]).double().repeat(50, 1), blobs[:200]])
try:
    GaussianMixture(2, reg_covar=0, means_init=[[4.0, 4.0], [0.0, 0.0]]).fit(stuck)
except ValueError as error:
    print(error)

# %% [markdown]
# The first component shrinks onto that one point. Its scatter $S_1$ tends to zero and its density there to infinity: the likelihood has *no* maximum, and EM is right to run
# after it. The error is honest, and the cure is to say what we consider possible: no variance below some floor. `reg_covar` adds a small number to every variance after
# each M-step, $10^{-6}$ by default. Choose it in the data's squared units, as the square of the finest detail that you believe in:

# %%
floored = GaussianMixture(2, reg_covar=1e-3, means_init=[[4.0, 4.0], [0.0, 0.0]]).fit(stuck)
print("converged:", floored.converged_, "| smallest variance is at the floor:",
      bool((floored.covariances_[0].diagonal() < 1.1e-3).all()))

# %% [markdown]
# (With the floor, the M-step no longer maximizes the bound to the last digit. By Eq. (2.25) it loses about $\tfrac14(\text{floor}/\text{variance})^2$ nats for each point
# and direction, which can be seen only where a component has all but collapsed.)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Densities in place of their logarithms
#
# Eq. (2.5) as it stands, with plain densities. For most points that works. One point lies a little further out:

# %%
outlier = torch.tensor([[60.0, 0.0]]).double()
densities = log_joint(outlier, *fitted).exp()
print("with densities:", densities / densities.sum(1, keepdim=True))

# %% [markdown]
# All three densities are smaller than the smallest number that a computer can hold in double precision, about $5\cdot10^{-324}$, and zero divided by zero is not a number. A widespread
# "cure" adds a small constant to the sum; then the point belongs to nobody and no error is shown. The real cure is never to leave the logarithms, Eq. (2.4):

# %%
resp, log_px = e_step(outlier, *fitted)
print("the shares sum to one:", abs(float(resp.sum()) - 1) < 1e-12)
print("log p(x) is finite:", bool(log_px.isfinite()))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Fill in a function, run its cell, and `check` says what it found. Worked solutions are in the
# [notebook with the solutions](solutions/02_expectation_maximization.ipynb).

# %%
from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 2.1 (★, 5 minutes)
#
# Write the E-step without leaving the logarithms too early. You are given the weights $(K,)$ and the log-densities $\log\mathcal N(x_n|\mu_k,\Sigma_k)$ as an
# $(N,K)$ tensor; return the responsibilities $(N,K)$. Some of the points lie very far out.

# %%
def responsibilities(weights, log_densities):
    raise NotImplementedError


check("2.1", responsibilities)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 2.2 (★, 5 minutes)
#
# The M-step for the means, Eq. (2.20). Given `x` $(N,D)$ and `resp` $(N,K)$, return the means $(K,D)$.

# %%
def update_means(x, resp):
    raise NotImplementedError


check("2.2", update_means)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 2.3 (★★, 10 minutes)
#
# The M-step for diagonal covariances, Eq. (2.26). Given `x` $(N,D)$, `resp` $(N,K)$ and the means $(K,D)$ from before this M-step, return the variances $(K,D)$. Not everything that
# one is handed is needed. In one of the cases the data lie around a million: your answer should keep its digits.

# %%
def update_variances(x, resp, old_means):
    raise NotImplementedError


check("2.3", update_variances)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 2.4 (★★, 15 minutes)
#
# A whole step of EM for the tied family, Eq. (2.28). Given `x` $(N,D)$, the weights $(K,)$, the means $(K,D)$ and the single covariance $(D,D)$, return the new weights, means and
# covariance as a tuple. You may use `log_normal` from above.

# %%
def tied_step(x, weights, means, covariance):
    raise NotImplementedError


check("2.4", tied_step)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 2.5 (★★★, 20 minutes)
#
# Two hospitals have each made an M-step on their own patients, with responsibilities from the same $\theta$. They may not share a single patient's data, and they have thrown away
# their sums: all that is left of each is its counts $N_k$ $(K,)$, means $(K,D)$ and covariances $(K,D,D)$. Compute the counts, means and covariances that an M-step on all patients together
# would have given. (A point's difference from the common mean is its difference from its hospital's mean, plus that mean's own. Square the sum: what becomes of the mixed term?)

# %%
def merge(counts_a, means_a, covariances_a, counts_b, means_b, covariances_b):
    raise NotImplementedError


check("2.5", merge)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Summary
#
# - A mixture's log-likelihood has a sum inside the logarithm, so its parameters cannot be found one by one.
# - Any guess $q$ about the latent components gives a lower bound, the ELBO, in which the logarithm has moved inside. What it loses is exactly $\mathrm{KL}(q\Vert p(c|x))$.
# - The E-step makes the bound tight: $q=r$, the posterior. The M-step climbs it: shares, averages and covariances, weighted with the responsibilities.
# - Hence the log-likelihood never falls. It may stop on a lower hill: use k-means++ and several starts.
# - Both steps need the data only through sums of $\phi(x)$: matrix products that can be computed in pieces, if the data are centered first.
# - k-means is the limit of EM without doubt, without shapes and without weights.
#
# One inequality, $\log a\le a-1$, was behind all of it: the bound, the KL divergence, the weights and the covariances.
#
# **May now be imported:** `log_prob_full` from `gmvae_lib.gaussian`, all of `gmvae_lib.em`, and `GaussianMixture` from `gmvae_lib.mixture`.

# %%
from gmvae_lib.gaussian import log_prob_full

factor = torch.linalg.cholesky(covariance)
assert torch.allclose(log_prob_full(x, mean, factor), log_normal(x, mean, covariance))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Where this leads
#
# We chose $K$ by looking at a picture. How to choose it when there is no picture is the next question on the [map of the chapters](00_start_here.ipynb#The-map).
#
# After that the latent variable becomes continuous. The posterior then has no formula, the E-step cannot make the bound tight any more, and a network takes its place. The
# identity Eq. (2.12) stays as it is. [The variational autoencoder](05_variational_autoencoder.ipynb) builds on it, and in
# [the mixture-prior VAE](08_mixture_prior_vae.ipynb) this chapter's mixture returns, as the prior of the latent space.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Sources
#
# - A. P. Dempster, N. M. Laird and D. B. Rubin (1977). Maximum likelihood from incomplete data via the EM algorithm.
# - R. M. Neal and G. E. Hinton (1998). A view of the EM algorithm that justifies incremental, sparse, and other variants. (EM as the ascent of one bound in two arguments.)
# - C. M. Bishop (2006). Pattern Recognition and Machine Learning, chapter 9.
# - S. P. Lloyd (1957, published 1982). Least squares quantization in PCM.
# - D. Arthur and S. Vassilvitskii (2007). k-means++: the advantages of careful seeding.
# - J. R. Magnus and H. Neudecker (1988). Matrix Differential Calculus. (The derivatives of determinant and inverse.)
