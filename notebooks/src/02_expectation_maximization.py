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
torch.set_default_dtype(torch.float64)  # double precision, 16 digits, throughout
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
# - write EM in twenty lines and show that it agrees with `gmvae_lib` and with scikit-learn to nine digits;
# - run EM on data that do not fit into memory, or lie on several machines, and keep its digits wherever the data lie;
# - say what k-means leaves out, and how far one start can be trusted;
# - recognize its failures (poor starts, dead and collapsed components, underflow) and cure them.
#
# **You need** [chapter 1, Gaussian mixtures](01_gaussian_mixtures.ipynb); matrices, derivatives and Lagrange
# multipliers; Python with a little PyTorch. **It takes** about 90 minutes, and an hour more for the exercises.
#
# As in chapter 1, log-densities come in *nats*, $x_1,\dots,x_N$ are $N$ points in $\mathbb R^D$, and the components are
# numbered $k=1,\dots,K$. Sums over $n$ run over all points.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What we bring along
#
# In [chapter 1](01_gaussian_mixtures.ipynb) a point comes about in two steps, a component $c$ with probability $\pi_k$ and then $x$ from its
# Gaussian, so that $p(x,c{=}k)=\pi_k\,\mathcal N(x|\mu_k,\Sigma_k)$, Eq. (1.10), and $p(x)$ is the sum over $k$. The component is *latent*: part of
# the model, not of the data; what we can know of it are the *responsibilities* $r_{nk}=r_k(x_n)=p(c{=}k|x_n)$, Eq. (1.16), by which each point is shared
# out among the components.
#
# All parameters together (weights, means, covariances) are called $\theta$. The log of the joint density is an $(N,K)$ table, with the log-densities
# that chapter 1 built:

# %%
from gmvae_lib.gaussian import log_prob_full


def log_joint(x, weights, means, covariances):
    factors = torch.linalg.cholesky(covariances)
    return weights.log() + log_prob_full(x, means, factors).T              # log of Eq. (1.10)

# %% [markdown]
# We start where the picture started: three means set down by hand, equal weights, unit covariances.

# %%
weights = torch.ones(3) / 3
means = torch.tensor([[-3.0, 3.0], [0.0, -2.0], [3.0, 3.0]])
covariances = torch.eye(2).repeat(3, 1, 1)
joint = log_joint(x, weights, means, covariances)
joint.shape

# %% [markdown]
# Two lines turn the table into $\log p(x_n)$ and responsibilities, with the exponential taken last:

# %%
log_px = joint.logsumexp(1)                                                # Eq. (1.14)
resp = (joint - log_px[:, None]).exp()                                     # Eqs. (1.16), (1.17)
assert torch.allclose(resp.sum(1), torch.ones(len(x)))

# %% [markdown]
# The colours in the first picture are such numbers, after two and after thirty steps: each point's colour is mixed from its components' colours in the proportions $r_{nk}$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Why it is hard
#
# ### If we could see
#
# Suppose that the component $c_n$ of each point were known. The log-likelihood of points and components together is
#
# $$\sum_{n}\log p(x_n,c_n)=\sum_{k}\ \sum_{n:\,c_n=k}\big[\log\pi_k+\log\mathcal N(x_n|\mu_k,\Sigma_k)\big]. \tag{2.1}$$
#
# It falls apart into $K$ separate problems, each about one Gaussian and its own points. The answers are the ones everybody
# would guess: the share of the points, their average, their covariance. Our toy data come with the true components (which
# fitting never looks at), so we can note that answer, and compare EM's with it later:

# %%
c = load("cigars").y
seen = [x[c == k] for k in range(3)]
seen_means = torch.stack([points.mean(0) for points in seen])
seen_covariances = torch.stack([points.T.cov(correction=0) for points in seen])
seen_weights = torch.tensor([len(points) / len(x) for points in seen])

# %% [markdown]
# ### But we cannot
#
# Without the components, what we can maximize is the log-likelihood of the points alone, Eq. (1.21),
# $\ell(\theta)=\sum_n\log p(x_n)=\sum_n\log\sum_k\pi_k\,\mathcal N(x_n|\mu_k,\Sigma_k)$. Now the sum over $k$ stands *inside* the logarithm, and nothing falls apart. To see what that does, take the derivative
# with respect to one mean. By the chain rule the logarithm contributes $1/p(x_n)$, and the Gaussian returns itself times the
# derivative of its logarithm, which by Eq. (1.5) is $\Sigma_k^{-1}(x_n-\mu_k)$:
#
# $$\frac{\partial\ell}{\partial\mu_k}=\sum_{n}\frac{\pi_k\,\mathcal N(x_n|\mu_k,\Sigma_k)}{p(x_n)}\,\Sigma_k^{-1}(x_n-\mu_k)=\sum_{n}r_{nk}\,\Sigma_k^{-1}(x_n-\mu_k). \tag{2.2}$$

# %%
moving = means.clone().requires_grad_()
log_joint(x, weights, moving, covariances).logsumexp(1).sum().backward()
pull = (resp[:, :, None] * (x[:, None] - means)).sum(0)
assert torch.allclose(moving.grad, torch.linalg.solve(covariances, pull))  # Eq. (2.2)

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
# $$\sum_{k}q_k\log a_k\;\le\;\log\sum_{k}q_k a_k, \tag{2.3}$$
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
from torch import distributions

torch.manual_seed(0)
a, q = torch.rand(1000, 5), distributions.Dirichlet(torch.ones(5)).sample((1000,))
assert ((q * a.log()).sum(1) <= (q * a).sum(1).log()).all()               # Eq. (2.3)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The logarithm moves inside
#
# Fix one point $x$, and let $q_1,\dots,q_K$ be *any* probabilities over its components: a guess at where it came from. Multiply
# and divide each term of $p(x)$ by $q_k$, and apply Jensen's inequality to $a_k=p(x,c{=}k)/q_k$:
#
# $$\log p(x)=\log\sum_{k}q_k\,\frac{p(x,c{=}k)}{q_k}\;\ge\;\sum_{k}q_k\log\frac{p(x,c{=}k)}{q_k}=:\mathcal L(q,\theta). \tag{2.4}$$
#
# (A component with $q_k=0$ is left out of both sums. Then $\log p(x)$ is even larger than the expression in the middle, so the
# inequality stands.) The right side is called the
# *evidence lower bound*, or ELBO: "evidence" is another name for $p(x)$. Inside it, the logarithm has reached the
# single components, and that is what we were after. The price is that it is only a bound, one for every $q$. (In code, `xlogy(q, q)`
# is $q\log q$, and zero for $q=0$.)

# %%
def elbo(q, joint):
    return (q * joint - torch.xlogy(q, q)).sum(1)                      # Eq. (2.4)


q = distributions.Dirichlet(torch.ones(3)).sample((len(x),))
assert (elbo(q, joint) <= log_px).all()

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How much the bound loses, exactly
#
# The *Kullback–Leibler divergence* (KL) between two distributions over the components is
#
# $$\mathrm{KL}(q\Vert p)=\sum_{k}q_k\log\frac{q_k}{p_k}\;\ge\;0, \tag{2.5}$$
#
# with $0\log0=0$, which is the limit, and $\mathrm{KL}=\infty$ if some $p_k=0$ where $q_k>0$. It is never negative: by Jensen's inequality with $a_k=p_k/q_k$, $-\mathrm{KL}=\sum_kq_k\log(p_k/q_k)\le\log\sum_kp_k\le0$,
# where the sums run over the $k$ with $q_k>0$. And it is zero only if there all the ratios $p_k/q_k$ are equal and the $p_k$ sum to one, that is, if $q=p$.
#
# Now write $p(x,c{=}k)=p(c{=}k|x)\,p(x)$ in the bound. The factor $p(x)$ does not depend on $k$ and the $q_k$ sum to one, so
# $\mathcal L(q,\theta)=\log p(x)+\sum_kq_k\log\frac{p(c=k|x)}{q_k}$. The sum is minus a KL divergence:
#
# $$\log p(x)=\mathcal L(q,\theta)+\mathrm{KL}\big(q\,\Vert\,p(c|x)\big). \tag{2.6}$$
#
# This is no longer an inequality. It holds exactly, for every $q$ whatsoever, and it says what the bound loses: the
# divergence between our guess $q$ and the true posterior. Let us run it, with the arbitrary guess from above:

# %%
def kl(q, log_p):
    return (torch.xlogy(q, q) - q * log_p).sum(1)                          # Eq. (2.5)


log_posterior = joint - log_px[:, None]
assert torch.allclose(log_px, elbo(q, joint) + kl(q, log_posterior))       # Eq. (2.6)

# %% [markdown]
# Remember this identity. With a network in the place of $q$, it is what trains the variational autoencoder.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The E-step: make the bound tight
#
# The bound has two arguments, and we shall improve them in turn. First $q$, with $\theta$ held fixed. In Eq. (2.6) the left
# side does not depend on $q$; so the bound is largest where the divergence is smallest, and that is where it is zero:
#
# $$\arg\max_{q}\ \mathcal L(q,\theta)=p(c|x)=r,\qquad \mathcal L(r,\theta)=\log p(x). \tag{2.7}$$
#
# The best guess is the posterior, and with it the bound touches the log-likelihood. For every point that is one row of
# responsibilities, Eq. (1.16). A thousand other guesses do worse:

# %%
rivals = distributions.Dirichlet(torch.ones(3)).sample((1000, 1))
assert torch.allclose(elbo(resp, joint), log_px)                           # Eq. (2.7)
assert all((elbo(rival, joint) <= log_px).all() for rival in rivals)

# %% [markdown]
# A picture of what this buys. Along one parameter, the second coordinate of the second mean, we draw the log-likelihood per
# point. We stand at $-5$, make the bound tight there, and draw it. Then we move to its top, make a new bound, and so on.

# %%
def moved_to(value):
    elsewhere = means.clone()
    elsewhere[1, 1] = value
    return log_joint(x, weights, elsewhere, covariances)


heights, place = torch.linspace(-6, 8, 141), -5.0
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
# Now we hold $q=r$ fixed and choose new parameters. Split the logarithm in Eq. (2.4): the part $-\sum_k r_{nk}\log r_{nk}$ does not
# contain the parameters. What remains, summed over the points, is the *expected complete log-likelihood*
#
# $$\mathcal Q(\theta)=\sum_{n}\sum_{k}r_{nk}\big[\log\pi_k+\log\mathcal N(x_n|\mu_k,\Sigma_k)\big]. \tag{2.8}$$
#
# Compare it with Eq. (2.1), the problem that we could solve. It is the same, except that every point now belongs to every
# component, with the share $r_{nk}$. This is where EM has its name from: an *expectation* is taken over the latent components,
# then it is *maximized*.

# %%
def expected_log_likelihood(resp, weights, means, covariances):
    return (resp * log_joint(x, weights, means, covariances)).sum()        # Eq. (2.8)

# %% [markdown]
# One more abbreviation. The amount of data that component $k$ claims is
#
# $$N_k=\sum_{n}r_{nk},\qquad \sum_{k}N_k=N. \tag{2.9}$$

# %%
counts = resp.sum(0)                                                       # Eq. (2.9)
assert torch.isclose(counts.sum(), torch.tensor(600.0))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The weights
#
# The weights appear in $\mathcal Q$ as $\sum_kN_k\log\pi_k$. They must sum to one, so we maximize under that constraint, with a
# Lagrange multiplier $\lambda$:
#
# $$\mathcal J(\pi,\lambda)=\sum_{k}N_k\log\pi_k+\lambda\Big(1-\sum_{k}\pi_k\Big). \tag{2.10}$$
#
# Setting $\partial\mathcal J/\partial\pi_k=N_k/\pi_k-\lambda$ to zero gives $N_k=\lambda\pi_k$. Summing over $k$ gives
# $\lambda=N$, and hence
#
# $$\pi_k=\frac{N_k}{N}. \tag{2.11}$$
#
# A component's weight is the share of the data that it claims. Setting derivatives to zero finds a stationary point; that it is
# *the* maximum, over all weights, follows from what we know already. For any other weights $\pi'$,
#
# $$\sum_{k}N_k\log\pi_k-\sum_{k}N_k\log\pi'_k=N\sum_k\pi_k\log\frac{\pi_k}{\pi'_k}=N\,\mathrm{KL}(\pi\Vert\pi')\ge0. \tag{2.12}$$

# %%
new_weights = counts / len(x)                                              # Eq. (2.11)
rivals = distributions.Dirichlet(torch.ones(3)).sample((1000,))
loss = (counts * new_weights.log()).sum() - (counts * rivals.log()).sum(1)
assert (loss >= 0).all()
assert torch.allclose(loss, len(x) * kl(new_weights, rivals.log()))        # Eq. (2.12)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The means
#
# The derivative of $\log\mathcal N(x_n|\mu_k,\Sigma_k)$ with respect to $\mu_k$ is $\Sigma_k^{-1}(x_n-\mu_k)$, as before. Only component
# $k$ contains $\mu_k$, and this time the $r_{nk}$ are constants:
#
# $$\frac{\partial\mathcal Q}{\partial\mu_k}=\Sigma_k^{-1}\sum_{n}r_{nk}(x_n-\mu_k). \tag{2.13}$$
#
# Since $\Sigma_k^{-1}$ is invertible, this is zero if and only if $\sum_nr_{nk}x_n=N_k\mu_k$:
#
# $$\mu_k=\frac1{N_k}\sum_{n}r_{nk}\,x_n. \tag{2.14}$$
#
# The new mean is the average of all points, each counting with the share that the component claims of it. As a function of $\mu_k$,
# $\mathcal Q$ is a parabola that opens downwards (its second derivative is $-N_k\Sigma_k^{-1}$), so this is its maximum. And $\Sigma_k$ has
# dropped out: the best mean is the same for every covariance.

# %%
new_means = (resp.T @ x / counts[:, None]).requires_grad_()                # Eq. (2.14)
value = expected_log_likelihood(resp, new_weights, new_means, covariances)
slope, = torch.autograd.grad(value, new_means)
assert slope.abs().max() < 1e-9 * len(x)
new_means = new_means.detach()

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The covariances: what is to be maximized
#
# Because the best mean is known whatever the covariance, we put it in, and look for the covariance that goes with it. For a
# vector $v$ and a matrix $A$, the number $v^\top Av$ equals the *trace* $\operatorname{tr}(A\,vv^\top)$, the sum of the
# diagonal: both are $\sum_{ij}A_{ij}v_iv_j$. So the part of $\mathcal Q$ that contains $\Sigma_k$ is, up to a constant,
#
# $$-\frac{N_k}2\Big(\log\det\Sigma_k+\operatorname{tr}\big(\Sigma_k^{-1}S_k\big)\Big),\qquad S_k=\frac1{N_k}\sum_{n}r_{nk}(x_n-\mu_k)(x_n-\mu_k)^\top, \tag{2.15}$$
#
# where $\mu_k$ is the *new* mean. $S_k$ is called the scatter matrix of the component. The points enter through it alone. We take it to be
# positive definite; a component for which it is not has collapsed, a case for the failure lab.

# %%
import math

A = torch.tensor([[2.0, 0.6], [0.6, 0.5]])                                 # any covariance will do
rivals = A.expand(3, 2, 2)
deltas = x - new_means[:, None]                                            # (K, N, D)
scatter = torch.einsum("nk,kni,knj->kij", resp, deltas, deltas) / counts[:, None, None]
whitened = torch.linalg.solve(rivals, scatter)                             # Σ⁻¹S
inside = rivals.logdet() + whitened.diagonal(dim1=1, dim2=2).sum(1)
constant = (counts * (new_weights.log() - math.log(2 * math.pi))).sum()    # D/2 = 1
whole = expected_log_likelihood(resp, new_weights, new_means, rivals)
assert torch.isclose(whole, constant - (counts / 2) @ inside)              # Eq. (2.15)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Two derivatives of matrices
#
# What happens to the determinant and to the inverse of $A$ when $A$ changes by a small $dA$?
#
# *The determinant.* Expand $\det(I+dB)$: the product of the diagonal gives $1+\sum_idB_{ii}$ plus terms of second order, and every
# other product of the expansion contains at least two small off-diagonal entries. So $\det(I+dB)=1+\operatorname{tr}dB$ to first
# order. With $A+dA=A(I+A^{-1}dA)$ and $\log(1+t)=t$ to first order,
#
# $$d\log\det A=\operatorname{tr}\big(A^{-1}dA\big). \tag{2.16}$$
#
# *The inverse.* Differentiate $AA^{-1}=I$ by the product rule: $dA\,A^{-1}+A\,d(A^{-1})=0$. Multiply by $A^{-1}$ from the left:
#
# $$d(A^{-1})=-A^{-1}\,dA\,A^{-1}. \tag{2.17}$$
#
# Both can be checked with a small change. What is left over must be of second order:

# %%
dA = 1e-6 * torch.tensor([[1.0, -2.0], [-2.0, 3.0]])
inverse, change = torch.linalg.inv(A), torch.linalg.inv(A + dA) - torch.linalg.inv(A)
assert abs((A + dA).logdet() - A.logdet() - (inverse @ dA).trace()) < 1e-9  # Eq. (2.16)
assert (change + inverse @ dA @ inverse).abs().max() < 1e-9                # Eq. (2.17)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The covariances: where the derivative vanishes
#
# For one component, and without the factor $-N_k/2$, the change of the bracket in Eq. (2.15) is
#
# $$\operatorname{tr}\big(\Sigma^{-1}d\Sigma\big)-\operatorname{tr}\big(\Sigma^{-1}d\Sigma\,\Sigma^{-1}S\big)=\operatorname{tr}(M\,d\Sigma),\qquad M=\Sigma^{-1}-\Sigma^{-1}S\,\Sigma^{-1}.$$
#
# We used that matrices may be moved around a circle inside a trace, $\operatorname{tr}(AB)=\operatorname{tr}(BA)$. At a stationary point this
# must vanish for every symmetric $d\Sigma$. $M$ is symmetric itself, so we may take $d\Sigma$ proportional to it; then
# $\operatorname{tr}(M^2)=\sum_{ij}M_{ij}^2=0$, and $M$ must be zero. Multiplying $M=0$ by $\Sigma$ from both sides gives $\Sigma=S$:
#
# $$\Sigma_k=S_k=\frac1{N_k}\sum_{n}r_{nk}(x_n-\mu_k)(x_n-\mu_k)^\top. \tag{2.18}$$

# %%
new_covariances = scatter.clone().requires_grad_()                         # Eq. (2.18)
value = expected_log_likelihood(resp, new_weights, new_means, new_covariances)
slope, = torch.autograd.grad(value, new_covariances)
assert slope.abs().max() < 1e-9 * len(x)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The covariances: why it is the maximum
#
# Let $f(\Sigma)=\log\det\Sigma+\operatorname{tr}(\Sigma^{-1}S)$ be the bracket; we want it small. Chapter 1 has compared it with its value at $S$,
# Eq. (1.26): with $S=LL^\top$ and the eigenvalues $\lambda_i>0$ of $L^\top\Sigma^{-1}L$,
#
# $$f(\Sigma)-f(S)=\sum_{i=1}^{D}\big(\lambda_i-1-\log\lambda_i\big)\;\ge\;0,$$
#
# by $\log a\le a-1$, our inequality once more, and with equality only if all $\lambda_i=1$, that is, $\Sigma=S$. No other covariance does as well:

# %%
noise = torch.randn(300, 3, 2, 4)
rivals = noise @ noise.mT / 4
best = expected_log_likelihood(resp, new_weights, new_means, scatter)
assert all(expected_log_likelihood(resp, new_weights, new_means, rival) < best for rival in rivals)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Three smaller families
#
# Chapter 1 has said what the families cost. In each of them, the scatter matrices are all that the M-step needs.
#
# *Diagonal*, $\Sigma_k=\operatorname{diag}(\sigma^2_{k1},\dots,\sigma^2_{kD})$. The bracket in Eq. (2.15) becomes a sum over dimensions of
# $\log v+s/v$, with $v=\sigma^2_{ki}$ and $s=(S_k)_{ii}$. Its derivative $1/v-s/v^2$ is negative for $v<s$ and positive for $v>s$. So the
# minimum is at $v=s$:
#
# $$\sigma^2_{ki}=(S_k)_{ii}=\frac1{N_k}\sum_nr_{nk}(x_{ni}-\mu_{ki})^2. \tag{2.19}$$
#
# *Spherical*, $\Sigma_k=\sigma_k^2I$. The bracket is $D\log v+\operatorname{tr}(S_k)/v$, and the same argument gives the average of the variances:
#
# $$\sigma_k^2=\frac1D\operatorname{tr}S_k. \tag{2.20}$$
#
# *Tied*, one full $\Sigma$ for all. The brackets add up: $\sum_kN_k\big(\log\det\Sigma+\operatorname{tr}(\Sigma^{-1}S_k)\big)=N\big(\log\det\Sigma+\operatorname{tr}(\Sigma^{-1}\bar S)\big)$,
# where $\bar S=\sum_k\frac{N_k}NS_k$. This is the problem that we have just solved, with $\bar S$ in the place of $S$:
#
# $$\Sigma=\sum_{k}\frac{N_k}{N}\,S_k. \tag{2.21}$$

# %%
variances = scatter.diagonal(dim1=1, dim2=2)                               # Eq. (2.19)
variance = variances.mean(1)                                               # Eq. (2.20)
tied = (new_weights[:, None, None] * scatter).sum(0)                       # Eq. (2.21)

# %% [markdown]
# Each is stationary within its own family: with respect to its own free numbers, the derivative vanishes. And the same shapes,
# a little larger or smaller, do worse:

# %%
as_full = {
    "diag": (variances, torch.diag_embed),
    "spherical": (variance, lambda v: v[:, None, None] * torch.eye(2)),
    "tied": (tied, lambda s: s.expand(3, 2, 2)),
}
for family, (best, build) in as_full.items():
    best = best.clone().requires_grad_()
    value = expected_log_likelihood(resp, new_weights, new_means, build(best))
    slope, = torch.autograd.grad(value, best)
    assert slope.abs().max() < 1e-9 * len(x), family
    for factor in (0.8, 0.99, 1.01, 1.25):
        rival = build(factor * best.detach())
        assert expected_log_likelihood(resp, new_weights, new_means, rival) < value, family

# %% [markdown] slideshow={"slide_type": "slide"}
# ## EM, whole
#
# Nothing is missing any more. The E-step computes the responsibilities, and the log-likelihood on the way:

# %%
def e_step(x, weights, means, covariances):
    joint = log_joint(x, weights, means, covariances)
    log_px = joint.logsumexp(1)                                            # Eq. (1.14)
    return (joint - log_px[:, None]).exp(), log_px                         # Eq. (1.16)

# %% [markdown]
# The M-step computes counts, averages and covariances under these shares:

# %%
def m_step(x, resp):
    counts = resp.sum(0)                                                   # Eq. (2.9)
    means = resp.T @ x / counts[:, None]                                   # Eq. (2.14)
    deltas = x - means[:, None]
    scatter = torch.einsum("nk,kni,knj->kij", resp, deltas, deltas)
    return counts / len(x), means, scatter / counts[:, None, None]         # Eqs. (2.11) and (2.18)

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
# $$\ell(\theta_{t+1})\;\ge\;\mathcal L(r_t,\theta_{t+1})\;\ge\;\mathcal L(r_t,\theta_t)\;=\;\ell(\theta_t), \tag{2.22}$$
#
# where $\mathcal L$ is summed over the points. The first step holds because $\mathcal L$ is a bound, Eq. (2.4), for whatever $q$; the second
# because the M-step maximizes it; the last because the E-step has made it tight, Eq. (2.7). This is the whole proof. It never
# mentions Gaussians: EM ascends for every model with latent variables whose two steps can be carried out.

# %%
assert (history.diff() >= -1e-12).all()                                    # Eq. (2.22)

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
# The height of a vertical piece is the KL divergence of Eq. (2.6), averaged over the points.

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
# Chapter 1 set the parameters of a `GaussianMixture` by hand. Now we have built its `fit` as well, and may use it. It stops when a step changes the log-likelihood per point by less than `tol`; with `tol=0`
# it makes all 25 steps that we allow, and from our start it must follow the same path. `precisions_init` takes inverse covariances; ours are unit matrices. `reg_covar` we come to in the failure lab.

# %%
from gmvae_lib.mixture import GaussianMixture

settings = {"tol": 0, "max_iter": 25, "reg_covar": 0, "weights_init": weights, "means_init": means}
ours = GaussianMixture(3, precisions_init=covariances, **settings).fit(x)
assert torch.allclose(ours.log_likelihood_[:25], history[:25], rtol=1e-9)
assert all(torch.allclose(a, b) for a, b in zip(
    (ours.weights_, ours.means_, ours.covariances_), fit_by_em(x, start, 25)[0]))

# %% [markdown]
# scikit-learn's class has the same name and takes the same start. The four families agree, each with its own shape of precisions. (scikit-learn
# warns that it has not converged. With `tol=0` that is what we asked for.)

# %%
import warnings

from sklearn.mixture import GaussianMixture as SklearnMixture


def as_arrays(settings):
    return {name: v.numpy() if isinstance(v, torch.Tensor) else v for name, v in settings.items()}


ones = {"full": covariances, "diag": torch.ones(3, 2), "spherical": torch.ones(3),
        "tied": torch.eye(2)}
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
# The E-step has the same structure. This makes EM fast, and lets it work on data that are never in one place.
#
# ### The E-step is a matrix product
#
# Collect, for each point, what a quadratic function can depend on:
#
# $$\phi(x)=\big((x_ix_j)_{i\le j},\;x_1,\dots,x_D,\;1\big)\in\mathbb R^F,\qquad \log p(x,c{=}k)=\theta_k^\top\phi(x), \tag{2.23}$$
#
# with $F=D(D+1)/2+D+1$. The vector $\theta_k$ holds the parameters of component $k$ in another form. To find it, write $\Lambda_k=\Sigma_k^{-1}$ for the *precision* and expand the square in Eq. (1.5):
# $(x-\mu_k)^\top\Lambda_k(x-\mu_k)=x^\top\Lambda_kx-2(\Lambda_k\mu_k)^\top x+\mu_k^\top\Lambda_k\mu_k$. A pair $i<j$ occurs twice in
# $x^\top\Lambda_kx$, a square once. Reading off the factors gives the *natural parameters*
#
# $$\theta_k=\Big(\big({-\tfrac12}\Lambda_{k,ii}\ \text{or}\ {-\Lambda_{k,ij}}\big)_{i\le j},\;\Lambda_k\mu_k,\;\log\pi_k-\tfrac12\big(\mu_k^\top\Lambda_k\mu_k+D\log2\pi-\log\det\Lambda_k\big)\Big). \tag{2.24}$$

# %%
i, j = torch.triu_indices(2, 2)


def phi(x):
    return torch.cat([x[:, i] * x[:, j], x, x.new_ones(len(x), 1)], dim=1)  # Eq. (2.23)

# %% [markdown]
# The natural parameters, with the inverse taken from the Cholesky factor:

# %%
def natural_parameters(weights, means, covariances):
    precision = torch.cholesky_inverse(torch.linalg.cholesky(covariances))
    quadratic = precision[:, i, j] * torch.where(i == j, -0.5, -1.0)
    linear = (precision @ means[:, :, None]).squeeze(2)
    square = (means * linear).sum(1)                                       # μᵀΛμ
    constant = weights.log() - 0.5 * (square + 2 * math.log(2 * math.pi) - precision.logdet())
    return torch.cat([quadratic, linear, constant[:, None]], dim=1)        # Eq. (2.24)


assert torch.allclose(phi(x) @ natural_parameters(*fitted).T, log_joint(x, *fitted))

# %% [markdown]
# One matrix product in place of $K$ triangular systems. (Families of densities whose logarithm is linear in some features of the data are called
# *exponential families*; the two matrix products and their sums serve for all of them, only Eqs. (2.24) and (2.26) are the Gaussian's own.)
#
# ### So is the M-step
#
# The sums that the M-step needs are again a product, of the responsibilities and the same features:
#
# $$T=R^\top\Phi,\qquad T_k=\sum_nr_{nk}\,\phi(x_n)\in\mathbb R^F, \tag{2.25}$$
#
# where $R$ is the $(N,K)$ table of responsibilities and $\Phi$ the $(N,F)$ table of features. From $T_k$ we read off $N_k$ (the sum of
# ones), then the mean, then the covariance, since the square in Eq. (2.18) can be multiplied out:
#
# $$\mu_k=\frac1{N_k}\sum_nr_{nk}x_n,\qquad \Sigma_k=\frac1{N_k}\sum_nr_{nk}\,x_nx_n^\top-\mu_k\mu_k^\top. \tag{2.26}$$

# %%
def m_step_from_sums(sums):
    products, first, counts = sums[:, :3], sums[:, 3:5], sums[:, 5]
    means = first / counts[:, None]
    second = products[:, [0, 1, 1, 2]].reshape(-1, 2, 2) / counts[:, None, None]
    outer = means[:, :, None] * means[:, None, :]
    return counts / counts.sum(), means, second - outer                    # Eq. (2.26)


resp, _ = e_step(x, *start)
sums = resp.T @ phi(x)                                                     # Eq. (2.25)
assert all(torch.allclose(a, b) for a, b in zip(m_step_from_sums(sums), m_step(x, resp)))

# %% [markdown]
# (The smaller families need fewer products: diagonal covariances the squares $x_i^2$ alone, spherical ones only their sum $\Vert x\Vert^2$, and a tied covariance the products of all points, once for all components.)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Sums can be added up anywhere
#
# A sum over all points is the sum over the points here plus the sum over the points there. Cut the data into batches $b=1,2,\dots$, with tables $R_b$ and $\Phi_b$ of their own;
# then
#
# $$T=\sum_{b}T^{(b)},\qquad T^{(b)}=R_b^\top\Phi_b. \tag{2.27}$$
#
# The batches may come from a disk, one after the other. Or they may lie on two machines that never exchange a single point, only $K\times F$ numbers:

# %%
here, there = x[:200], x[200:]
parts = [e_step(part, *start)[0].T @ phi(part) for part in (here, there)]
assert torch.allclose(parts[0] + parts[1], sums)                           # Eq. (2.27)

# %% [markdown]
# So a step of EM needs one sweep over the data, with memory for one batch only, and it is not an approximation: the result is that of all points at once. (To update the parameters after each batch is possible too. It is no longer EM, and need not ascend, but it serves
# where each batch is seen only once: *online EM*, `partial_fit` in the library.) And a point that counts as $w_n$ points enters all sums with $w_nr_{nk}$ in the place of $r_{nk}$.

# %%
def streamed_step(batches, theta):
    natural, total = natural_parameters(*theta), 0
    for batch in batches:
        features = phi(batch)
        resp = (features @ natural.T).softmax(1)                           # E-step
        total = total + resp.T @ features                                  # Eq. (2.27)
    return m_step_from_sums(total)

# %% [markdown]
# Let us do it from a file that is never read as a whole. NumPy's `mmap_mode` opens it without loading it, and a batch is read when it is touched:

# %%
import tempfile
from pathlib import Path

import numpy as np

folder = tempfile.TemporaryDirectory()  # goes when the kernel does
path = Path(folder.name) / "points.npy"
np.save(path, x.numpy())


def batches(size=50):
    file = np.load(path, mmap_mode="r")
    for first in range(0, len(file), size):
        yield torch.tensor(file[first:first + size])

# %% [markdown]
# Every sweep asks for the batches again. After 25 steps we are where `fit_by_em` is with all points at hand:

# %%
theta = start
for _ in range(25):
    theta = streamed_step(batches(), theta)
whole, _ = fit_by_em(x, start, steps=25)
assert all(torch.allclose(a, b) for a, b in zip(theta, whole))

# %% [markdown]
# The library's `fit_batches` takes anything that can be gone through again and again: a list, a PyTorch `DataLoader`, or a function like ours. (Points that count as $w_n$ are given by
# `fit(x, sample_weight=w)`; with `distributed=True`, processes that were started with `torchrun` add up the sums of their shares of the data.)

# %%
stream = GaussianMixture(3, precisions_init=covariances, **settings).fit_batches(batches)
found = stream.weights_, stream.means_, stream.covariances_
assert all(torch.allclose(a, b) for a, b in zip(found, whole))

# %% [markdown]
# `gmvae_lib.em` works like this even when all data are in memory: it sweeps them in batches that fit the processor's cache, two matrix products each. That is why it is
# several times faster than scikit-learn on large data (`make bench` measures it).

# %%
from gmvae_lib import em

updated, _ = em.em_step(x, em.Parameters(*start), reg_covar=0)
assert all(torch.allclose(a, b) for a, b in zip(updated, m_step(x, resp)))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The trap: cancellation
#
# Eq. (2.26) subtracts two numbers that may be large and nearly equal. Numbers in double precision have 16 digits. If the data lie around
# $10^6$ (times in seconds, coordinates in metres), their squares lie around $10^{12}$, and of a variance near one only four digits are left:

# %%
far = x + 1e6
by_sums, exact = m_step_from_sums(resp.T @ phi(far))[2], m_step(far - 1e6, resp)[2]
print("Multiplied out, a covariance is off by more than one part in a million:",
      bool(((by_sums - exact).abs() > 1e-6 * exact.abs()).any()))

# %% [markdown]
# The cure is to measure from a point $a$ among the data. Differences from the mean do not change when everything moves by $a$, so Eq. (2.26) holds for $x_n-a$ and $\mu_k-a$ as it does for
# $x_n$ and $\mu_k$:
#
# $$\Sigma_k=\frac1{N_k}\sum_nr_{nk}\,(x_n-a)(x_n-a)^\top-(\mu_k-a)(\mu_k-a)^\top\qquad\text{for every }a\in\mathbb R^D. \tag{2.28}$$
#
# With the mean of the data for $a$, no coordinate of $\mu_k-a$ is larger than the range of the data, wherever they lie:

# %%
a = far.mean(0)
by_sums = m_step_from_sums(resp.T @ phi(far - a))[2]                       # Eq. (2.28)
assert torch.allclose(by_sums, exact, rtol=1e-8)

# %% [markdown]
# `gmvae_lib` always does so. There remain components so tight, or so far from the others, that their squares still cancel. The E-step
# rounds each term of $x^\top\Lambda_kx$ by a share of $\epsilon=2^{-52}$, which may add up to $\epsilon\,|x|^\top|\Lambda_k||x|$ (absolute values, entry by entry). Where this exceeds $10^{-7}$ nats
# one standard deviation away from some $\mu_k$, the library whitens differences from the means instead, by Eq. (1.4): slower, but exact. (With `dtype=torch.float32` it sweeps in single precision, in units near the data's range, with $10^{-3}$ for the limit, and in double beyond.)
#
# How much all this matters shows when the data are moved further and further out. At each offset we fit a mixture in 20 steps, and compare its
# log-likelihood with that of a fit to the same points, moved back. scikit-learn's full family takes differences; its diagonal one multiplies out, in
# the version that this course is tested with:

# %%
def score_at(offset, x, make, family):
    place = settings | {"max_iter": 20, "means_init": means + offset}
    place = as_arrays(place | {"covariance_type": family, "precisions_init": ones[family]})
    with warnings.catch_warnings(action="ignore"):
        return float(make(3, **place).fit(x.numpy()).score(x.numpy()))

# %% [markdown]
# (The points themselves lose digits when they are moved out, so they are compared as they came back.)

# %%
offsets, errors = [10.0**power for power in range(1, 8)], {}
for name, make, family in (("gmvae_lib, diagonal", GaussianMixture, "diag"),
                           ("scikit-learn, full", SklearnMixture, "full"),
                           ("scikit-learn, diagonal", SklearnMixture, "diag")):
    errors[name] = []
    for offset in offsets:
        far, back = x + offset, (x + offset) - offset
        truth = score_at(0, back, GaussianMixture, family)
        error = abs(score_at(offset, far, make, family) / truth - 1)
        errors[name].append(max(error, 1e-16))

# %% [markdown]
# One line goes straight up: two digits of the log-likelihood are lost for each digit of the offset.

# %%
figures.curves(
    offsets, errors, "Digits lost to cancellation", "offset of the data",
    "relative error of the log-likelihood",
    "Relative error against the offset on logarithmic axes. The lines for gmvae_lib and for "
    "scikit-learn's full family stay low; the line for scikit-learn's diagonal family rises "
    "steeply, from rounding error to about a hundredth.",
    log_x=True, log_y=True, size=(7.5, 4),
)

# %% [markdown]
# For data around a million:

# %%
million = {name: values[5] for name, values in errors.items()}
print("gmvae_lib, diagonal: error below 1e-7:", million["gmvae_lib, diagonal"] < 1e-7)
print("scikit-learn, diagonal: error above 1e-5:", million["scikit-learn, diagonal"] > 1e-5)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## k-means is EM without doubt
#
# Take the smallest family there is: equal weights, and all covariances $\sigma^2I$ with a $\sigma$ that we set ourselves. Weights and normalizing
# constants cancel in Eq. (1.16), and only the distances are left:
#
# $$r_{nk}=\frac{\exp\big(-\Vert x_n-\mu_k\Vert^2/2\sigma^2\big)}{\sum_j\exp\big(-\Vert x_n-\mu_j\Vert^2/2\sigma^2\big)}\;\xrightarrow[\ \sigma\to0\ ]{}\;\begin{cases}1&\text{if }\mu_k\text{ is the nearest mean},\\0&\text{otherwise}.\end{cases} \tag{2.29}$$
#
# To see the limit, divide numerator and denominator by the term of the nearest mean (if there is one; a tie is shared): every other term becomes $\exp(-\text{something positive}/2\sigma^2)$, which goes to zero.

# %%
def shares(x, means, sigma):
    distance = (x[:, None] - means).square().sum(2)
    return (-distance / (2 * sigma**2)).softmax(1)                         # Eq. (2.29)

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
# In the limit, the E-step assigns each point to its nearest mean, and the M-step, Eq. (2.14), moves each mean to the average of its points. That is *k-means*,
# known since Lloyd (1957) without any probability. From the same start the two make the same steps:

# %%
soft = hard = means
for _ in range(10):
    doubtless = shares(x, soft, sigma=1e-4)
    soft = doubtless.T @ x / doubtless.sum(0)[:, None]                     # Eq. (2.14)
    nearest = (x[:, None] - hard).square().sum(2).argmin(1)
    hard = torch.stack([x[nearest == k].mean(0) for k in range(3)])        # Lloyd's algorithm
    assert torch.allclose(soft, hard)

# %% [markdown]
# And what becomes of the quantity that EM raises? Leave out the constants of the log-likelihood, and multiply by $-2\sigma^2$. A logarithm of a sum of $K$ exponentials is at least the largest of the exponents and exceeds it by at most $\log K$, Eq. (1.15). The largest exponent belongs to the nearest mean. So with
#
# $$J=\sum_n\min_k\Vert x_n-\mu_k\Vert^2\qquad\text{and}\qquad J_\sigma=-2\sigma^2\sum_n\log\sum_ke^{-\Vert x_n-\mu_k\Vert^2/2\sigma^2},$$
#
# $$0\;\le\;J-J_\sigma\;\le\;2\sigma^2N\log K. \tag{2.30}$$
#
# As $\sigma$ vanishes, to raise the likelihood is to lower $J$, the sum of squared distances to the nearest mean. That no step of EM lowers the one, Eq. (2.22), becomes the well-known fact that no step of k-means
# raises the other.

# %%
distance = (x[:, None] - means).square().sum(2)
for sigma in (1.0, 0.1, 0.01):
    smooth = -2 * sigma**2 * (-distance / (2 * sigma**2)).logsumexp(1).sum()
    gap = distance.amin(1).sum() - smooth
    assert -1e-9 < gap <= 2 * sigma**2 * len(x) * math.log(3)              # Eq. (2.30)

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
rng = np.random.default_rng(0)
centers = 4.0 * np.array([[row, column] for row in range(3) for column in range(3)])
grid = torch.tensor(centers[rng.integers(9, size=600)] + 0.6 * rng.standard_normal((600, 2)))

# %% [markdown]
# The obvious start, nine data points drawn at random, easily puts two means into one cloud and none into another, and EM hardly ever moves the surplus mean across the empty space between. *k-means++* draws the points one after the other, each with a probability proportional to its squared distance from the nearest
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
# `GaussianMixture` offers both, as `init="random"` and `init="k-means++"` (which at each draw tries a few candidates and keeps the best). With `init="k-means"`, ten steps of k-means follow, and
# the best of three such attempts is the start. Fifty starts each (in a few of the bad ones a component collapses onto one or two points, of which the library warns; the failure lab comes to that):

# %%
def runs(init):
    settings = {"init": init, "tol": 1e-7, "max_iter": 1000}
    with warnings.catch_warnings(action="ignore"):
        return [GaussianMixture(9, seed=seed, **settings).fit(grid) for seed in range(50)]


fits = {init: runs(init) for init in ("random", "k-means++", "k-means")}
finals = {init: torch.tensor([fit.lower_bound_ for fit in found]) for init, found in fits.items()}

# %% [markdown]
# Where did they end? We sort them from the worst to the best:

# %%
figures.curves(
    range(1, 51), {init: values.sort().values for init, values in finals.items()},
    "Where EM ends, from fifty starts each", "rank of the start, from worst to best",
    "final log-likelihood (nats per point)",
    "Three rows of fifty marks, sorted. From random points the log-likelihood climbs slowly over "
    "many different values and reaches the highest only at the very end; from k-means++ it takes "
    "a few steps and then stays at the highest; from k-means it is there throughout.",
    size=(7.5, 4.2),
)

# %% [markdown]
# Each level is a hill (or a plateau so flat that a step gains less than our `tol`, $10^{-7}$ nats per point). What does a low one look like? Here are the worst and the best of the random starts:

# %%
ranked = sorted(fits["random"], key=lambda fit: fit.lower_bound_)
views = {"The worst of fifty": ranked[0], "The best": ranked[-1]}
figures.mixture_panels(
    grid, {title: (fit.predict_proba(grid), (fit.weights_, fit.means_, fit.covariances_))
           for title, fit in views.items()},
    "Two panels with nine round clouds on a grid. On the right each cloud has its own ellipse "
    "and colour. On the left some clouds are shared by several components, while elsewhere one "
    "wide ellipse covers several clouds.",
    size=(9.6, 4.8),
)

# %% [markdown]
# How often does each way reach the highest value that any found? And how often does the best of five starts?

# %%
top = max(values.max() for values in finals.values())
hits = {init: values > top - 0.01 for init, values in finals.items()}
print("random points, fewer than a quarter of the starts:", int(hits["random"].sum()) < 13)
print("k-means++, more than half:", int(hits["k-means++"].sum()) > 25)
print("k-means, at least nine in ten:", int(hits["k-means"].sum()) >= 45)
fives = hits["k-means++"].reshape(10, 5).any(1)
print("the best of five k-means++ starts, at least nine times in ten:", int(fives.sum()) >= 9)

# %% [markdown]
# If one start finds the top with probability $p$, then $m$ starts all miss it with probability $(1-p)^m$: for $p=0.8$ and five starts that is once in 3,000 times. `n_init=5` does just that: five
# starts, of which it keeps the likeliest result.
#
# To choose among starts by the likelihood is fair: it looks at the data only, not at any labels. And this is as far as it goes: nobody can say, for real data, that the
# best start has been tried. (Nor do k-means' starts always win. Here the clouds are what k-means assumes: round and equally wide.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Move it yourself
#
# All of EM in one panel, in half steps. After an M-step the outlines have moved, after an E-step the colours have changed; *Step* and *Back* go through a run, or the slider
# with the arrow keys. On the right are the two curves of this chapter. Above, the log-likelihood of the whole run; below, enlarged around the present, the staircase: an M-step lifts the bound, and
# the log-likelihood with it, by even more; an E-step lifts the bound alone, until they touch.
#
# Choose the data, the number of components and the covariance family. *Another start* draws new means; or choose a mean by its number and move its start with the two sliders. The sentence below the picture says what each change
# did. Things to try:
#
# - Choose `blobs`, go to the end of the run, and move the start of mean 1 to the right, bit by bit. For a while EM ends in the same place; then suddenly on another hill.
# - A mean that starts far from all the data; two means that start in nearly the same place.
# - `rings`, which no mixture of three can fit, with $K=8$.
# - Step through the flat stretches of the upper curve: what is EM doing while the likelihood seems to stand still?

# %%
from gmvae_lib.explorers import EMExplorer

EMExplorer(means=means, step=5)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Failure lab
#
# We break EM in four ways, find out what happened, and mend it.
#
# ### Components that start alike
#
# Is the center of all the data not a neutral place to start from? We put all three means there.

# %%
blobs = load("blobs").x.double()
alike = blobs.mean(0).repeat(3, 1)
equal, history = fit_by_em(blobs, (weights, alike, covariances), steps=10)
print("the three means are still the same:", torch.allclose(equal[1], equal[1][0].expand(3, 2)))

# %% [markdown]
# Components that are equal claim equal shares of every point, so the M-step makes them equal again. Together they are one Gaussian, and for EM that is a stationary point: the likelihood
# has stopped rising, and nothing in the run looks wrong. The same is true of the lower hills that we saw above. The symptom shows only beside other runs:

# %%
cured = GaussianMixture(3, n_init=5, tol=1e-6, max_iter=500).fit(blobs)
print("the rise of the last five steps is below 1e-9:", bool(history[-1] - history[-6] < 1e-9))
print("another start is better by more than 0.2 nats per point:",
      bool(cured.score(blobs) - history[-1] > 0.2))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A dead component
#
# The third mean starts so far away that its share of every point underflows to zero. Then $N_3=0$, and Eq. (2.14) divides zero by zero:

# %%
lost = torch.tensor([[-2.5, -1.0], [2.0, -1.5], [1000.0, 1000.0]])
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
stuck = torch.cat([torch.tensor([[4.0, 4.0]]).repeat(50, 1), blobs[:200]])
try:
    GaussianMixture(2, reg_covar=0, means_init=[[4.0, 4.0], [0.0, 0.0]]).fit(stuck)
except ValueError as error:
    print(error)

# %% [markdown]
# The first component shrinks onto that one point, and the likelihood has no maximum, as chapter 1 has shown, Eq. (1.23); EM is right to run after it. So the error is honest, and the cure is to
# say what we consider possible: no variance below some floor, Eq. (1.24). `reg_covar` adds a small number to every variance after each M-step, $10^{-6}$ by default. Choose it in the data's squared
# units, as the square of the finest detail that you believe in. (Chapter 1's other cure, a prior, fits into EM as well: the E-step stays, and the M-step's covariance becomes Eq. (1.27).)

# %%
import textwrap

floored = GaussianMixture(2, reg_covar=1e-3, means_init=[[4.0, 4.0], [0.0, 0.0]])
with warnings.catch_warnings(record=True) as caught:
    floored.fit(stuck)
print("converged:", floored.converged_, "| smallest variance is at the floor:",
      bool((floored.covariances_[0].diagonal() < 1.1e-3).all()))
print(textwrap.fill(str(caught[0].message), 90))

# %% [markdown]
# EM has come to rest, and the warning names the component that lives by the floor alone. Whether a stuck sensor deserves a component of its own is for us to decide.
#
# (With the floor, the M-step no longer maximizes the bound to the last digit. By Eq. (1.26) it loses about $\tfrac14(\text{floor}/\text{variance})^2$ nats for each point
# and direction, which can be seen only where a component has all but collapsed.)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Densities in place of their logarithms
#
# Chapter 1 warned of densities that underflow. In EM a single point is enough to spoil everything. We add one far out, and write the E-step as Eq. (1.16) stands:

# %%
outlier = torch.tensor([[60.0, 0.0]])
densities = log_joint(torch.cat([x, outlier]), *fitted).exp()
careless = densities / densities.sum(1, keepdim=True)
print("points without a number:", int(careless.isnan().any(1).sum()), "| means without one, next:",
      int(m_step(torch.cat([x, outlier]), careless)[1].isnan().any(1).sum()))

# %% [markdown]
# All three densities of that point are zero in double precision, and zero divided by zero is not a number. The M-step adds this one row to every sum. (A small constant in the denominator hides the
# error and does not mend it: then the point belongs to nobody.) The cure is never to leave the logarithms:

# %%
resp, log_px = e_step(outlier, *fitted)
print("the shares sum to one:", abs(float(resp.sum()) - 1) < 1e-12,
      "| log p(x) is finite:", bool(log_px.isfinite()))

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
# The bound, Eq. (2.4). Given any probabilities `q` $(N,K)$ and the log-joint $(N,K)$, return the ELBO's average over the points, in nats per point. Some of the $q$ are zero, where $0\log0=0$ is meant.

# %%
def mean_bound(q, log_joint):
    raise NotImplementedError


check("2.1", mean_bound)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 2.2 (★, 5 minutes)
#
# The M-step for the means, Eq. (2.14). Given `x` $(N,D)$ and `resp` $(N,K)$, return the means $(K,D)$.

# %%
def update_means(x, resp):
    raise NotImplementedError


check("2.2", update_means)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 2.3 (★★, 10 minutes)
#
# The M-step for diagonal covariances, Eq. (2.19). Given `x` $(N,D)$, `resp` $(N,K)$ and the means $(K,D)$ from before this M-step, return the variances $(K,D)$. Not everything that
# one is handed is needed. In one of the cases the data lie around a million: your answer should keep its digits.

# %%
def update_variances(x, resp, old_means):
    raise NotImplementedError


check("2.3", update_variances)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 2.4 (★★, 15 minutes)
#
# A whole step of EM for the tied family, Eq. (2.21). Given `x` $(N,D)$, the weights $(K,)$, the means $(K,D)$ and the single covariance $(D,D)$, return the new weights, means and
# covariance as a tuple. You may use `log_joint` from above.

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
# - Hence the log-likelihood never falls. It may stop on a lower hill: start with k-means++ or k-means, and more than once.
# - Both steps are matrix products with $\phi(x)$, and the M-step needs the data only through sums of it. The sums can be collected in batches, from a file or on several machines, and they keep their digits if they are taken about a point among the data.
# - k-means is the limit of EM without doubt, without shapes and without weights.
#
# One inequality, $\log a\le a-1$, was behind all of it: the bound, the KL divergence, the weights and the covariances.
#
# **May now be imported:** all of `gmvae_lib.em` and `gmvae_lib.families`, and all of `GaussianMixture` from `gmvae_lib.mixture`.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Where this leads
#
# We chose $K$ by looking at a picture. How to choose it when there is no picture is the question of [chapter 3, Choosing K](03_choosing_k.ipynb).
#
# After that the latent variable becomes continuous. The posterior then has, in general, no formula, and the E-step cannot make the bound tight any more: that is
# [chapter 4, When the E-step is impossible](04_when_the_e_step_is_impossible.ipynb), in which a network takes its place. The
# identity Eq. (2.6) stays as it is. [The variational autoencoder](05_variational_autoencoder.ipynb) builds on it, and in
# [the mixture-prior VAE](08_mixture_prior_vae.ipynb) this chapter's mixture returns, as the prior of the latent space.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Sources
#
# - A. P. Dempster, N. M. Laird and D. B. Rubin (1977). Maximum likelihood from incomplete data via the EM algorithm.
# - R. M. Neal and G. E. Hinton (1998). A view of the EM algorithm that justifies incremental, sparse, and other variants. (EM as the ascent of one bound in two arguments.)
# - C. M. Bishop (2006). Pattern Recognition and Machine Learning, chapter 9.
# - T. F. Chan, G. H. Golub and R. J. LeVeque (1983). Algorithms for computing the sample variance: analysis and recommendations. (Cancellation, and statistics of batches.)
# - O. Cappé and E. Moulines (2009). On-line expectation–maximization algorithm for latent data models.
# - S. P. Lloyd (1957, published 1982). Least squares quantization in PCM.
# - D. Arthur and S. Vassilvitskii (2007). k-means++: the advantages of careful seeding.
# - J. R. Magnus and H. Neudecker (1988). Matrix Differential Calculus. (The derivatives of determinant and inverse.)
