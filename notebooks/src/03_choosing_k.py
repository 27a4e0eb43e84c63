# %% [markdown] slideshow={"slide_type": "slide"}
# # 03 Choosing K
#
# **How many clusters are there?**
#
# Below are 300 points, three times the same. EM has fitted a mixture to them: of two components, of four, and of nine. Above each
# panel stands the number that EM maximizes, the mean log-likelihood of the points.

# %% slideshow={"slide_type": "-"}
import warnings

import torch
from torch import distributions

from gmvae_lib import figures
from gmvae_lib.data import load
from gmvae_lib.mixture import GaussianMixture

torch.set_num_threads(1)  # the data are small: a second thread would only be waited for
weights = torch.tensor([0.3, 0.3, 0.25, 0.15]).double()
means = torch.tensor([[-3.0, 0.0], [0.5, 2.5], [3.0, -0.5], [-0.5, -3.0]]).double()
factors = torch.tensor([[[0.6, 0.0], [0.8, 0.6]], [[1.1, 0.0], [0.4, 0.5]],
                        [[0.7, 0.0], [-0.7, 0.6]], [[0.5, 0.0], [0.0, 0.5]]]).double()
components = distributions.MultivariateNormal(means, scale_tril=factors)
truth = distributions.MixtureSameFamily(distributions.Categorical(weights), components)
torch.manual_seed(3)
x = truth.sample((300,))

# %% [markdown]
# We drew the points ourselves, so we know the answer: four groups. Our fits take the best of several starts, as chapter 2 taught us to, and keep
# each variance above a small floor, as chapter 1 did. The library warns of components that lie on the floor. Here we ask for too many components on purpose,
# so we switch the warning off; the failure lab comes back to it.

# %%
warnings.filterwarnings("ignore", "Component .* has collapsed")


usual = {"n_init": 3, "tol": 1e-4, "max_iter": 500, "reg_covar": 1e-3}


def fitted(x, n_components, **settings):
    return GaussianMixture(n_components, **usual | settings).fit(x)


fits = {K: fitted(x, K) for K in range(1, 10)}
figures.fit_panels(
    {f"K = {K}: {fits[K].score(x):.2f} nats per point": (x, fits[K]) for K in (2, 4, 9)},
    "Three panels with the same points. With two components, each covers two groups; with four, "
    "each group has its own; with nine, most groups are cut into pieces.",
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Nine components score best, and ninety would score better still. Nobody who looks at the picture would say nine,
# but most data cannot be looked at, and then a number must speak. Which one?
#
# In short: it depends on what we want $K$ for. *How many components describe the density best?* and *how many
# clusters are there?* are two questions, with different criteria and sometimes different answers.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you will be able to do
#
# - prove that the training likelihood always asks for more components, and measure by how much it flatters;
# - estimate the expected log score by held-out points and by cross-validation, with error bars that compare like with like;
# - derive AIC, BIC and ICL, and say which of their assumptions a mixture breaks;
# - test whether a clustering would come back on other data, and let a prior switch components off;
# - recognize when the criteria disagree, and explain why to somebody who hoped for one number.
#
# **You need** chapters [01](01_gaussian_mixtures.ipynb) and [02](02_expectation_maximization.ipynb); Taylor's formula in several
# variables; expectation and variance. **It takes** about 90 minutes, and an hour more for the exercises.
#
# Notation as before: $N$ points $x_n\in\mathbb R^D$, $X$ for all of them together, parameters $\theta$, responsibilities $r_{nk}$,
# and natural logarithms, so that log-likelihoods come in nats. New: $p^*$ is the density that the points were drawn from, which
# nobody knows except in exercises like this one.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## More is always more
#
# Let $\Theta_K$ be the set of all parameters of a mixture with $K$ components (and variances above the floor), and
#
# $$\hat\ell_K=\max_{\theta\in\Theta_K}\ell(\theta),\qquad\ell(\theta)=\sum_{n}\log p(x_n|\theta), \tag{3.1}$$
#
# the best that $K$ components can do on the training points. Take any mixture of $K$ components and split one of them, say the last, into two with
# the same mean and covariance, which share its weight in some proportion $a:(1-a)$:
#
# $$\pi_K\,\mathcal N(x|\mu_K,\Sigma_K)=a\,\pi_K\,\mathcal N(x|\mu_K,\Sigma_K)+(1-a)\,\pi_K\,\mathcal N(x|\mu_K,\Sigma_K). \tag{3.2}$$
#
# The density has not changed, but it is now written with $K+1$ components. So everything that $K$ components can do, $K+1$ can do too: the models
# are *nested*, and a maximum over more possibilities cannot be lower:
#
# $$\hat\ell_{K+1}\;\ge\;\hat\ell_{K}. \tag{3.3}$$

# %%
from gmvae_lib.gaussian import log_prob_full


def log_density(x, weights, means, covariances):
    log_normal = log_prob_full(x, means, torch.linalg.cholesky(covariances))  # (K, N)
    return (weights.log()[:, None] + log_normal).logsumexp(0)

# %% [markdown]
# The fit with four components, its last one split in the proportion $0.3:0.7$:

# %%
four, twice = fits[4], [0, 1, 2, 3, 3]
shared = four.weights_[twice] * torch.tensor([1, 1, 1, 0.3, 0.7])
split = log_density(x, shared, four.means_[twice], four.covariances_[twice])
assert torch.allclose(split, four.score_samples(x))                        # Eq. (3.2)

# %% [markdown]
# And EM finds something to do with the fifth component: some chance lump in the points. Beside the fits we draw what the *true* density
# scores on the same points.

# %%
train, true = torch.tensor([g.score(x) for g in fits.values()]), truth.log_prob(x).mean()
figures.curves(
    list(fits), {"the fit": train, "the true density": true.expand(9)},
    "Mean log-likelihood of the training points", "components K", "nats per point",
    "The fit rises steeply up to four components, slowly ever after, and crosses the truth's line.",
)

# %% [markdown]
# Both observations in words:

# %%
print("rises with every K:", bool((train.diff() > 0).all()))
print("K = 4 scores higher than the truth:", bool(train[3] > true))

# %% [markdown]
# The second line is the more disturbing one. A fit that scores higher than the truth has learnt something about *these* points that is
# not so of others. We call what it gains by that the *optimism* of the training likelihood, and shall compute its size.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The right question for a density
#
# What should be high is not the score on the points we have, but on points to come. The *expected log score* of a density $p$ is
# the mean of $\log p(x)$ over all points that $p^*$ may yield. Add and subtract $\log p^*(x)$:
#
# $$-\mathbb E_{p^*}[\log p(x)]=\underbrace{-\mathbb E_{p^*}[\log p^*(x)]}_{H(p^*)}+\underbrace{\mathbb E_{p^*}\Big[\log\frac{p^*(x)}{p(x)}\Big]}_{\mathrm{KL}(p^*\Vert p)}. \tag{3.4}$$
#
# The first term, the *entropy* of $p^*$, is the same for every $p$. The second is the Kullback–Leibler divergence of chapter 2, with an integral in place of the
# sum, and is never negative for the same reason. So the expected log score is the right question, in two ways. No density scores higher than the truth. And the
# difference between two models' scores is exactly the difference between their divergences from the truth: the entropy, which nobody knows, drops out.
#
# Here we can play nature and draw 20,000 new points.

# %%
new = truth.sample((20_000,))
score = torch.tensor([fits[K].score(new) for K in fits])
divergence = truth.log_prob(new).mean() - score                            # Eq. (3.4)
print("every divergence is positive:", bool((divergence > 0).all()))
print("it is smallest at K =", 1 + int(divergence.argmin()))

# %% [markdown]
# Both curves together:

# %%
figures.curves(
    list(fits), {"300 training points": train, "20,000 new points": score},
    "The score on old and on new points", "components K", "nats per point",
    "Both curves rise together up to four components. Then the training curve goes on rising "
    "while the curve of new points slowly falls; the gap between them widens.",
)

# %% [markdown]
# The two curves part where the fit begins to describe the sample instead of its source. All criteria for a density are ways to get at the second curve with the
# first curve's data.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Points held out
#
# ### One split
#
# The most direct way: keep some points back. Fit on 200, and average the log score over the $M=100$ others, whose scores we call $s_1,\dots,s_M$. They are
# independent draws of $\log p(x)$, so their mean is an unbiased estimate of the expected log score of this fit, with a standard error (SE) that can be estimated too:
#
# $$\bar s=\frac1M\sum_{m=1}^{M}s_m,\qquad\mathrm{SE}(\bar s)=\frac1{\sqrt M}\sqrt{\frac1{M-1}\sum_{m=1}^{M}(s_m-\bar s)^2}. \tag{3.5}$$

# %%
held = torch.stack([fitted(x[:200], K).score_samples(x[200:]) for K in fits])  # (9, 100)
error = held.std(1) / 100**0.5                                             # Eq. (3.5)
fall = held[3].mean() - held[4].mean()                                     # from K = 4 to K = 5
print("the score falls by less than its own error:", bool(0 < fall < error[4]))

# %% [markdown]
# The error is larger than the difference that we want to judge. Hopeless?
#
# ### Pairs
#
# No, because the models are scored on the *same* points. A point far out is unlikely under each of them. Let $s_m$ and $t_m$ be two models' scores; we want to
# know the mean of the differences $d_m=s_m-t_m$, and its standard error is that of Eq. (3.5) with $d$ in place of $s$. Since
#
# $$\operatorname{Var}(d)=\operatorname{Var}(s)+\operatorname{Var}(t)-2\operatorname{Cov}(s,t), \tag{3.6}$$
#
# and the covariance is nearly as large as the variances, the difference is known far better than either score.

# %%
d = held[4] - held[3]                                                      # K = 5 against K = 4
covariance = torch.stack([held[4], held[3]]).cov()
assert torch.isclose(d.var(), covariance.trace() - 2 * covariance[0, 1])   # Eq. (3.6)
paired = d.std() / 100**0.5                                                # Eq. (3.5), with d
print("less than half of either score's error:", bool(paired < error[3:5].min() / 2))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Cross-validation
#
# One split wastes data twice: the fit sees 200 points, the score 100. *Cross-validation* deals the points into *folds*, here five, and holds out one after the
# other. Let $v(n)$ be the fold of point $n$, and $\hat\theta_K^{(-v)}$ the fit of $K$ components to all points outside fold $v$. Then every point is scored once, by a fit that has
# not seen it:
#
# $$S_{\text{cv}}(K)=\frac1N\sum_{n}\log p\big(x_n|\hat\theta_K^{(-v(n))}\big). \tag{3.7}$$
#
# Where many fits are needed, as here, one start must do: from k-means, which is rarely far from the best.

# %%
fold = torch.arange(len(x)) % 5                                            # x is in random order
quick = {"init": "k-means", "n_init": 1}


def cross_validate(x, n_components):
    scores = torch.empty(len(x)).double()
    for v in range(5):
        model = fitted(x[fold != v], n_components, **quick)
        scores[fold == v] = model.score_samples(x[fold == v])
    return scores                                                          # the terms of Eq. (3.7)


scores = torch.stack([cross_validate(x, K) for K in fits])                 # (9, 300)

# %% [markdown]
# It is what scikit-learn computes, fold by fold:

# %%
from sklearn.model_selection import PredefinedSplit, cross_val_score

model = GaussianMixture(4, **usual | quick)
theirs = cross_val_score(model, x.numpy(), cv=PredefinedSplit(fold.numpy()))
assert torch.isclose(scores[3].mean(), torch.tensor(theirs).mean())

# %% [markdown]
# Now the differences from the best $K$, with paired errors. If the true difference is zero, the estimate lies within one standard error about two times out of three. Hence
# the *one-standard-error rule*, a custom: of all $K$ that are not worse than the best by more than one standard error, take the smallest,
#
# $$\hat K=\min\big\{K:\ \bar d_K\le\mathrm{SE}(\bar d_K)\big\},\qquad d_{Kn}=s_{K_{\text{best}},n}-s_{K,n}. \tag{3.8}$$

# %%
best = int(scores.mean(1).argmax())
d = scores[best] - scores
mean, error = d.mean(1), d.std(1) / len(x)**0.5
print("the rule's K:", 1 + int((mean <= error).nonzero()[0]))              # Eq. (3.8)

# %% [markdown]
# By the paired bars, each $K$ above 4 is worse than 4 by more than one standard error. Each score's own error would hide that:

# %%
K = torch.arange(3, 10)
figures.curves(
    K, {"paired": -mean[2:], "each by itself": (K + 0.15, -mean[2:])},
    "Cross-validated score, against the best K's", "components K", "nats per point",
    "The score's difference from the best rises to zero at four components and falls slowly after. "
    "The paired error bars are small and the unpaired ones several times larger.",
    errors={"paired": error[2:], "each by itself": (scores.std(1) / len(x)**0.5)[2:]},
)

# %% [markdown]
# Two cautions. The fits see only 80 % of the points, so the scores are a little pessimistic, and more so for large $K$. And the folds share most of their training points, so the
# $s_n$ are not quite independent: the error bars are a little too short (no unbiased formula exists). Five or ten folds are a good compromise; with one point in each ("leave one out") the fits all but
# coincide, at the cost of $N$ runs of EM.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## AIC: what the training points overstate
#
# Cross-validation costs five fits for one. Can we compute the gap between the two curves instead, and subtract it? Under conditions that we shall spell out, yes, and the answer is
# simple.
#
# ### The two sides of a parabola
#
# Let $\theta$ consist of $P$ free parameters, let $L(\theta)=\mathbb E_{p^*}[\log p(x|\theta)]$ be the expected log score, and let $\theta^*$ be the parameters where it is largest: the best
# that the model can do. The fit $\hat\theta$ maximizes $\ell$ instead. The *optimism* is what the training likelihood overstates on average, over draws of the
# training set:
#
# $$\omega=\mathbb E\big[\ell(\hat\theta)-N\,L(\hat\theta)\big]. \tag{3.9}$$
#
# Write $\delta=\hat\theta-\theta^*$, and $J=-\nabla\nabla L(\theta^*)$, the matrix of second derivatives ($P\times P$), with its sign changed. For large $N$, $\delta$ is small and we expand to second order, both times about a
# maximum, where the first derivatives vanish: $L$ about $\theta^*$, and $\ell$ about $\hat\theta$. The second derivative of $\ell/N$ is an average over points, and tends to that of $L$:
#
# $$N L(\hat\theta)\approx N L(\theta^*)-\tfrac N2\delta^\top J\delta,\qquad\ell(\theta^*)\approx\ell(\hat\theta)-\tfrac N2\delta^\top J\delta. \tag{3.10}$$
#
# And because $\theta^*$ does not depend on the training points, $\mathbb E[\ell(\theta^*)]=N L(\theta^*)$. Put together: the fit is above $\theta^*$ on the old points by $\frac N2\delta^\top J\delta$, and below it on new points by as much again.
# So $\omega\approx N\,\mathbb E[\delta^\top J\delta]$.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How far the fit misses
#
# Expand the gradient too. At the fit it is zero: $0=\nabla\ell(\hat\theta)\approx\nabla\ell(\theta^*)-NJ\delta$. Hence
#
# $$\delta\approx J^{-1}\bar g,\qquad\bar g=\frac1N\sum_{n}\nabla\log p(x_n|\theta^*). \tag{3.11}$$
#
# $\bar g$ is an average of independent terms with mean $\nabla L(\theta^*)=0$ and some covariance matrix $V$, so that $\mathbb E[\bar g\bar g^\top]=V/N$. As in chapter 2, a number $v^\top Av$ is the trace
# $\operatorname{tr}(A\,vv^\top)$; and so
#
# $$\omega\approx N\,\mathbb E[\bar g^\top J^{-1}\bar g]=\operatorname{tr}\big(J^{-1}V\big). \tag{3.12}$$
#
# ### If the model contains the truth
#
# Then $p^*=p(\cdot|\theta^*)$, and $J$ and $V$ are the same matrix, *Fisher's information*. To see it, differentiate $\int p(x|\theta)\,dx=1$ twice. The first time, with $\nabla p=p\,\nabla\log p$, gives
# $\int p\,\nabla\log p\,dx=0$. The second time gives $\int p\,\big[\nabla\nabla\log p+(\nabla\log p)(\nabla\log p)^\top\big]dx=0$. At $\theta^*$ the first part of the integral is $-J$ and the second $V$:
#
# $$J=V,\qquad\text{hence}\qquad\omega\approx\operatorname{tr}(I)=P. \tag{3.13}$$
#
# The training log-likelihood overstates by *one nat for each free parameter*. Subtract that, and multiply by $-2$ (a convention from the theory of tests), and you have *Akaike's information criterion*, of which lower is
# better:
#
# $$\mathrm{AIC}=-2\,\ell(\hat\theta)+2P. \tag{3.14}$$

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Does it come out?
#
# Try it on a model that satisfies all the conditions: one Gaussian in three dimensions, with $P=3+6=9$ free parameters. We fit it to 100 points, two thousand times, and compute both
# scores exactly. With the truth $\mathcal N(0,I)$, the expected log score of $\mathcal N(m,C)$ follows from Eq. (1.5):
# $-\frac12\big(D\log2\pi+\log\det C+\operatorname{tr}C^{-1}+m^\top C^{-1}m\big)$, and on the training points, whose mean is $m$ and covariance $C$, the last two terms are $D$ and zero.

# %%
draws = torch.randn(2000, 100, 3).double()                                 # (fit, point, dimension)
m = draws.mean(1)
C = (draws - m[:, None]).mT @ (draws - m[:, None]) / 100
precision = torch.linalg.inv(C)
away = precision.diagonal(dim1=1, dim2=2).sum(1) + torch.einsum("si,sij,sj->s", m, precision, m)
luck = (300 - draws.square().sum((1, 2))) / 2                              # the truth's ℓ - N L
excess = 100 / 2 * (away - 3) - luck                                       # ℓ - N L, in pairs
print("optimism between 9 and 10:", 9 < float(excess.mean()) < 10, "| parameters: 9")  # Eq. (3.13)

# %% [markdown]
# (We subtract the same difference for the true density: its mean is zero, and the sampling noise that both share drops out.) The optimism is a little above nine, because the expansion is for large $N$: for this model it is exactly
# $P\,N/(N-D-2)\approx9.5$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## BIC: the evidence for a model
#
# ### Another question
#
# AIC asks how well the *fit* will predict. A Bayesian asks something else: how probable are the data under the *model*, with all its parameters averaged over a prior $p(\theta|K)$? This is the *evidence*, or marginal
# likelihood:
#
# $$p(X|K)=\int p(X|\theta)\,p(\theta|K)\,d\theta. \tag{3.15}$$
#
# It need not grow with $K$: a larger model spreads its prior over more possibilities, most of which do not fit, and the average suffers.
#
# ### Laplace's approximation
#
# With many points, the integrand has a single sharp peak, at $\hat\theta$ if the prior is not zero there. Expand the log-likelihood there to second order, with $H=-\nabla\nabla\ell(\hat\theta)$, and let the prior be constant across the narrow peak:
# $p(X|\theta)\,p(\theta|K)\approx p(X|\hat\theta)\,p(\hat\theta|K)\,e^{-\frac12(\theta-\hat\theta)^\top H(\theta-\hat\theta)}$. The exponential is a Gaussian density with covariance $H^{-1}$ without its factor, so by Eq. (1.5) it integrates to $(2\pi)^{P/2}(\det H)^{-1/2}$. So
#
# $$\log p(X|K)\approx\ell(\hat\theta)+\log p(\hat\theta|K)+\tfrac P2\log2\pi-\tfrac12\log\det H. \tag{3.16}$$
#
# Now count powers of $N$. As before, $H\approx NJ$; and a factor $N$ in each of $P$ rows of a determinant comes out as $N^P$:
#
# $$\log\det H\approx P\log N+\log\det J. \tag{3.17}$$
#
# $\ell(\hat\theta)$ grows like $N$, and $\frac P2\log N$ like $\log N$. All else stays bounded as $N$ grows, written $O(1)$: the log-prior, $\tfrac P2\log2\pi,$ and $\tfrac12\log\det J.$ Drop it, multiply by $-2$, and you have the *Bayesian information
# criterion*, with a fee of $\frac12\log N$ nats for each parameter in place of AIC's one nat:
#
# $$\mathrm{BIC}=-2\,\ell(\hat\theta)+P\log N=-2\log p(X|K)+O(1). \tag{3.18}$$
#
# From $N=8$ on, BIC charges more than AIC. With equal prior probabilities for the candidates, Bayes' rule turns it into probabilities:
#
# $$p(K|X)\approx\frac{e^{-\mathrm{BIC}_K/2}}{\sum_{K'}e^{-\mathrm{BIC}_{K'}/2}}, \tag{3.19}$$
#
# so a difference of 10 means odds of $e^5\approx150$ to one, as far as the dropped terms may be dropped.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What was dropped
#
# We check it on a model whose evidence can be computed by brute force: one Gaussian in one dimension with unknown $\mu$ and $\rho=\log\sigma$, and priors $\mathcal N(0,3^2)$ and $\mathcal N(0,1)$ for them. The log-likelihood needs only
# the mean and the variance of the points, and the integral is a sum over a fine grid.

# %%
import math

y = 1 + 1.5 * torch.randn(10_000).double()
sizes = [10, 30, 100, 300, 1000, 3000, 10_000]


def log_likelihood(mu, rho, y):
    spread = y.var(correction=0) + (y.mean() - mu)**2
    return -0.5 * len(y) * (math.log(2 * math.pi) + 2 * rho + spread * torch.exp(-2 * rho))


def log_prior(mu, rho):
    return distributions.Normal(0, 3).log_prob(mu) + distributions.Normal(0, 1).log_prob(rho)

# %% [markdown]
# The evidence, summed over a grid:

# %%
axis_mu, axis_rho = torch.arange(-3, 5, 0.016).double(), torch.arange(-1, 2, 0.008).double()
mu, rho = torch.meshgrid(axis_mu, axis_rho, indexing="ij")


def log_evidence(y):
    joint = log_likelihood(mu, rho, y) + log_prior(mu, rho)
    return joint.flatten().logsumexp(0) + math.log(0.016 * 0.008)          # Eq. (3.15)

# %% [markdown]
# Laplace's approximation, Eq. (3.16), with second derivatives by automatic differentiation:

# %%
def laplace(y):
    top = (y.mean(), y.std(correction=0).log())
    rows = torch.autograd.functional.hessian(lambda *theta: log_likelihood(*theta, y), top)
    H = -torch.tensor(rows)
    height = log_likelihood(*top, y) + log_prior(*top)
    return height + math.log(2 * math.pi) - 0.5 * H.logdet()               # Eq. (3.16), P = 2

# %% [markdown]
# How far does each lie from the exact value, as $N$ grows?

# %%
exact = torch.stack([log_evidence(y[:n]) for n in sizes])
by_laplace = torch.stack([laplace(y[:n]) for n in sizes])
tops = [log_likelihood(y[:n].mean(), y[:n].std(correction=0).log(), y[:n]) for n in sizes]
by_bic = torch.stack([top - math.log(n) for top, n in zip(tops, sizes)])   # -BIC / 2, P = 2
figures.curves(
    sizes, {"exact − Laplace": exact - by_laplace, "exact − (−BIC / 2)": exact - by_bic},
    "What the approximations leave out", "points N", "nats", log_x=True,
    alt="The difference between the exact evidence and Laplace's approximation goes to zero with "
    "growing N. The difference from BIC settles at a constant that is not zero.",
)

# %% [markdown]
# Laplace becomes exact. BIC is off by a constant, while the logarithm of the evidence goes to thousands of nats; the constant is the one that we dropped, with $J=\operatorname{diag}(\sigma^{-2},2)$:

# %%
at_truth = torch.tensor(1.0), torch.tensor(math.log(1.5))
dropped = log_prior(*at_truth) + math.log(2 * math.pi) - 0.5 * math.log(2 / 1.5**2)
assert abs(exact[-1] - by_laplace[-1]) < 0.001
assert abs(exact[-1] - by_bic[-1] - dropped) < 0.05                        # Eq. (3.18)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Where mixtures break the rules
#
# Both derivations asked for one peak, an invertible $J$, and parameters away from the border. A mixture violates all three, and it is better to know how.
#
# **Many peaks.** Renaming the components changes nothing, Eq. (1.22), so each peak comes $K!$ times. If they lie far apart, the integral (3.15) is $K!$ times the one around a single peak:
#
# $$\log p(X|K)\approx\log K!+\big[\text{Laplace around one peak}\big]. \tag{3.20}$$
#
# That does not grow with $N$, and BIC drops it with the rest. It is no small matter at $K=20$, where $\log K!\approx42$ nats.
#
# **Singular points.** Suppose that $K$ is larger than the true number. Then the truth is not one point $\theta^*$ but many: an empty component may have any mean and covariance, and two equal components may share their weight in any proportion. Along
# such directions $L$ does not change, so that $J$ has eigenvalues zero, $\log\det J=-\infty$, and $J^{-1}$ does not exist. In terms of the gradients whose covariance is $V$:
#
# $$\nabla_{\!\mu_k}\log p(x)=r_k(x)\,\Sigma_k^{-1}(x-\mu_k),\qquad\frac{\partial\log p(x)}{\partial\pi_k}=\frac{\mathcal N(x|\mu_k,\Sigma_k)}{p(x)}. \tag{3.21}$$
#
# If $\pi_k=0$, then $r_k=0$ and the first vanishes for every $x$. If components 1 and 2 are equal, the two first gradients are proportional to each other, and the two second ones are the same, so that moving weight from one to the other changes nothing. (The first is Eq. (2.2) for one point; the second is the derivative of a sum in which $\pi_k$ is a factor.)
#
# Count the independent directions for two components on a line. The five parameters are $\pi_1$ (with $\pi_2=1-\pi_1$), two means and two log-deviations:

# %%
line = torch.linspace(-4, 4, 200).double()


def log_p(theta):
    pi, mu, sigma = theta[0], theta[1:3], theta[3:5].exp()
    density = distributions.Normal(mu, sigma).log_prob(line[:, None]).exp()
    return (pi * density[:, 0] + (1 - pi) * density[:, 1]).log()


places = {"apart": [0.4, -1, 1, 0, 0.2], "equal": [0.4, 1, 1, 0, 0], "empty": [0, -1, 1, 0, 0]}
for name, theta in places.items():
    gradients = torch.autograd.functional.jacobian(log_p, torch.tensor(theta).double())
    print(name, "components:", int(torch.linalg.matrix_rank(gradients)), "directions of 5")

# %% [markdown]
# **At the border.** A weight of zero cannot fall any further, so the gradient need not vanish there.
#
# So how large is the optimism of a mixture, in truth? We can measure it: 12 training sets, each fit scored on 5,000 new points. (In pairs again: we
# subtract the same difference for the true density.)

# %%
def optimism(x, n_components):
    model = fitted(x, n_components, **quick)
    lead = model.score(x) - truth.log_prob(x).mean()
    return 300 * (lead - (model.score(more) - true_score))


samples, more = [truth.sample((300,)) for _ in range(12)], new[:5000]
true_score = truth.log_prob(more).mean()
measured = torch.tensor([[optimism(sample, K) for K in range(1, 8)] for sample in samples])

# %% [markdown]
# Against the number of parameters, $P=6K-1$:

# %%
parameters = torch.tensor([6 * K - 1 for K in range(1, 8)])
figures.curves(
    range(1, 8), {"measured optimism": measured.mean(0), "parameters P": parameters},
    "What the training likelihood overstates", "components K", "nats, all points together",
    "The measured optimism stays near the number of parameters up to four components and lies "
    "above it from there on, the more the larger K.",
    errors={"measured optimism": measured.std(0) / 12**0.5},
)

# %% [markdown]
# As long as there are no more components than groups, the count of parameters is a fair guess. (Below four the model does not contain the truth, so Eq. (3.12) holds but Eq. (3.13) need not.) Beyond four the optimism is larger than $P$: a superfluous component is free to go wherever the
# sample happens to have a lump, and picks the best of many places. AIC therefore charges mixtures too little, and tends to ask for too many:

# %%
over = (measured.mean(0) - parameters)[5:]
print("more than P for K = 6 and 7:", bool((over > 0).all()))

# %% [markdown]
# For the evidence the sign is the other way round. Where $J$ is singular, the peak is a ridge, wider than a Gaussian, and the evidence of a model with too many components is *larger* than BIC says: the fee should grow like $\lambda\log N$ with a $\lambda$ below $P/2$ (Watanabe, 2009). BIC is
# too strict with large $K$, and on the safe side: as $N$ grows it finds the true number, if the truth is a mixture of this family and the parameters are kept within bounds (Keribin, 2000). Both conditions matter, and the second is why we have a floor.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The criteria in code
#
# The number of free parameters was counted in Eq. (1.19). For full covariances in $D$ dimensions:

# %%
def count_parameters(n_components, dim):
    return n_components - 1 + n_components * dim + n_components * dim * (dim + 1) // 2


def aic(log_likelihood, n_parameters):
    return -2 * log_likelihood + 2 * n_parameters                          # Eq. (3.14)


def bic(log_likelihood, n_parameters, n_points):
    return -2 * log_likelihood + n_parameters * math.log(n_points)         # Eq. (3.18)

# %% [markdown]
# They agree with the library, and with scikit-learn when it is given the same parameters:

# %%
from sklearn import mixture

theirs = mixture.GaussianMixture(4)
theirs.weights_, theirs.means_ = four.weights_.numpy(), four.means_.numpy()
roots = torch.linalg.cholesky(four.covariances_)
theirs.precisions_cholesky_ = torch.linalg.inv(roots).mT.numpy()
ell, P = float(four.score_samples(x).sum()), count_parameters(4, 2)
assert P == four.n_parameters() == theirs._n_parameters()
assert math.isclose(aic(ell, P), four.aic(x))
assert math.isclose(bic(ell, P, 300), four.bic(x))
assert math.isclose(theirs.bic(x.numpy()), four.bic(x))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## ICL: clusters, not components
#
# ### A likelihood that sees the components
#
# BIC counts the components that a good density needs. But suppose that a single cluster is not Gaussian: bent, or heavy in its tails. A good density then needs several components for that one cluster, and they will overlap. To look for *clusters*, we should ask that the components be told apart.
#
# Chapter 02 has what we need. Where the bound is tight, it equals the log-likelihood; so, point by point, with $q=r$ in Eq. (2.4) and the entropy $H(r)=-\sum_kr_k\log r_k$ of the responsibilities,
#
# $$\ell(\theta)=\underbrace{\sum_{n}\sum_{k}r_{nk}\log p(x_n,c{=}k)}_{\mathcal Q(\theta)}+\sum_{n}H(r_n). \tag{3.22}$$
#
# $\mathcal Q$ is the log-likelihood of *points and components together*, averaged over what we believe about the components. It falls short of $\ell$ by the total doubt about who belongs where.
#
# ### The criterion
#
# Now take BIC's question with the components included: how probable are points *and* labels, $p(X,C|K)$? Were the labels $C$ known, the mixture would fall apart into $K$ Gaussians and one table of shares: a regular model, as long as no component is empty, without any of the troubles above. Its BIC is $-2\sum_n\log p(x_n,c_n|\hat\theta)+P\log N$. The labels are not
# known, so we put the expectation of the first term in its place, at the $\hat\theta$ that we have, and find with Eq. (3.22)
#
# $$\mathrm{ICL}=-2\,\mathcal Q(\hat\theta)+P\log N=\mathrm{BIC}+2\sum_{n}H(r_n), \tag{3.23}$$
#
# the *integrated completed likelihood*. Each point that cannot make up its mind costs up to $2\log K$. If the clusters stand apart, all entropies are near zero and ICL agrees with BIC.
#
# Its authors put each point's likeliest label in place of the expectation. Since $H(r)$ is the mean of $-\log r_k$, and none of these is smaller than $-\log\max_kr_k$, their version charges at most as much:
#
# $$-\log\max_{k}r_{nk}\;\le\;H(r_n)\;\le\;\log K. \tag{3.24}$$

# %%
def icl(log_likelihood, n_parameters, resp):
    doubt = -torch.xlogy(resp, resp).sum(1)                                # H(r), with 0 log 0 = 0
    hard = -resp.amax(1).log()
    assert (hard <= doubt + 1e-12).all()                                   # Eq. (3.24)
    return bic(log_likelihood, n_parameters, len(resp)) + 2 * float(doubt.sum())  # Eq. (3.23)


assert math.isclose(icl(ell, P, four.predict_proba(x)), four.icl(x))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### All in one picture
#
# Divided by $-2N$, every criterion becomes a score in nats per point. Higher is better, and it compares with the log-likelihood, being what is left of the training score after the fee. The rings mark each one's best $K$.

# %%
criteria = {"training": train, "cross-validation": scores.mean(1)}
for name in ("aic", "bic", "icl"):
    values = [getattr(fits[K], name)(x) for K in fits]
    criteria[name.upper()] = torch.tensor(values) / -600
figures.curves(
    list(fits), criteria, "The same data, five judges", "components K", "nats per point",
    "Training likelihood on top, rising to the end. Cross-validation, BIC and ICL have their "
    "best value, ringed, at four components; AIC, almost flat from there on, later.",
    best="max", size=(7, 4.2),
)

# %% [markdown]
# Where the groups stand apart, BIC and ICL agree:

# %%
print("BIC:", 1 + int(criteria["BIC"].argmax()), "| ICL:", 1 + int(criteria["ICL"].argmax()))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## When they disagree
#
# Those data were kind: groups apart, Gaussian, and enough points. Here are three unkind ones. Of each we draw ten data sets, and count how often each criterion chooses each $K$. "New points" is the log score of as many new points as there were for training.

# %%
def overlapping(n):
    return torch.randn(n, 2).double() + 3 * torch.randint(2, (n, 1)) * torch.tensor([1, 0])


def bent(n):
    u = torch.randn(n, 2).double()
    return torch.stack([u[:, 0], 0.5 * u[:, 0]**2 + 0.7 * u[:, 1]], 1)


def few(n):
    centers = torch.tensor([[-2.5, -1.0], [2.0, -1.5], [0.5, 2.5]]).double()
    return centers[torch.randint(3, (n,))] + 0.7 * torch.randn(n, 2)

# %% [markdown]
# One of each, with the fit that BIC prefers:

# %%
def best_by_bic(x):
    return min((fitted(x, K, **quick) for K in range(1, 5)), key=lambda g: g.bic(x))


cases = {"two that overlap, N = 500": (overlapping, 500), "one that is bent, N = 400": (bent, 400),
         "three, N = 40": (few, 40)}
shown = {title: draw(n) for title, (draw, n) in cases.items()}
figures.fit_panels(
    {title: (x, best_by_bic(x)) for title, x in shown.items()},
    "Three panels. Two round clouds that overlap, with two ellipses; a bent cloud, with "
    "three ellipses along it; three small clouds of few points.", share=False,
)

# %% [markdown]
# The judges, each as a score of which more is better:

# %%
JUDGES = {
    "new points": lambda g, x, new: g.score(new), "AIC": lambda g, x, new: -g.aic(x),
    "BIC": lambda g, x, new: -g.bic(x), "ICL": lambda g, x, new: -g.icl(x),
}

# %% [markdown]
# Each one's choice, in ten data sets of each kind:

# %%
def verdicts(draw, n):
    x, new = draw(n), draw(n)
    fits = [fitted(x, K, **quick, tol=5e-4) for K in range(1, 7)]
    scores = [[judge(g, x, new) for g in fits] for judge in JUDGES.values()]
    return 1 + torch.tensor(scores).argmax(1)                              # K, for each judge


votes = {title: torch.stack([verdicts(draw, n) for _ in range(10)])
         for title, (draw, n) in cases.items()}                            # (data set, judge)

# %% [markdown]
# Each row is a judge, each column a $K$, and each number says how many of the data sets ended there.

# %%
tables = {title: torch.nn.functional.one_hot(K, 7).sum(0)[:, 1:] for title, K in votes.items()}
figures.count_panels(
    tables, "chosen K", rows=list(JUDGES), columns=range(1, 7),
    alt="Three tables of counts. Overlapping pair: new points and BIC mostly choose two, ICL one. "
    "Bent cluster: BIC chooses three, ICL one. Few points: AIC chooses many.",
)

# %% [markdown]
# Is ten enough to say so? The judges saw the same data sets, so we compare them in pairs: does the mean difference exceed two of its standard errors?

# %%
def sees_fewer(title, a, b):
    d = (votes[title][:, names.index(b)] - votes[title][:, names.index(a)]).double()
    return bool(d.mean() > 2 * d.std() / 10**0.5)                          # Eq. (3.5)


names, (pair, crescent, small) = list(JUDGES), votes
print("overlapping: ICL sees fewer than BIC:", sees_fewer(pair, "ICL", "BIC"))
print("bent: ICL sees fewer than BIC:", sees_fewer(crescent, "ICL", "BIC"))
print("few points: BIC sees fewer than AIC:", sees_fewer(small, "BIC", "AIC"))

# %% [markdown]
# - *Two that overlap.* Two components describe the density better, and BIC and new points say so. But halfway between the centers nobody can tell to which a point belongs, so as *clusters* they are one: ICL says 1. Neither is wrong; they were asked different things.
# - *One that is bent.* No Gaussian is bent, so the density needs several: BIC says 3, and new points 3 to 6. They overlap, ICL charges for it, and mostly says 1. But do not trust it to see every shape: the two thin `moons`, in the widget below, are for ICL six or seven clusters. Pieces of a thin crescent hardly overlap, and no choice of $K$ makes a Gaussian
#   bend. (A cure is to fit BIC's density and then merge components into clusters; Baudry and others, 2010.)
# - *Few points.* AIC, whose derivation supposes many points for each parameter, hands out components freely. The score of 40 new points is honest on average, and noisy. BIC and ICL are strict, and here that is a virtue.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Would the clusters come back?
#
# A criterion of another kind needs no likelihood at all. If clusters are real, they should be found again in other data from the same source. Cut the data into random halves, fit each, let both fits label *all* points, and compare the two labellings.
#
# Names mean nothing, so we compare pairs: is a pair of points together in both? Let $n_{ij}$ be the number of points with label $i$ from the first fit and $j$ from the second, $a_i=\sum_jn_{ij}$, $b_j=\sum_in_{ij}$, and $\binom n2=n(n-1)/2$ the number of pairs among $n$. The number of pairs together in both is $T=\sum_{ij}\binom{n_{ij}}2$. If the second labels
# were shuffled, each of the $A=\sum_i\binom{a_i}2$ pairs of the first would be together in the second with probability $B/\binom N2$, where $B=\sum_j\binom{b_j}2$. The *adjusted Rand index* measures $T$ on a scale where that expectation is 0 and perfect agreement is 1:
#
# $$\mathrm{ARI}=\frac{T-E}{\frac12(A+B)-E},\qquad E=\frac{A\,B}{\binom N2}. \tag{3.25}$$

# %%
def adjusted_rand_index(first, second):
    def pairs(n):
        return (n * (n - 1) / 2).sum()

    table = torch.zeros(int(first.max()) + 1, int(second.max()) + 1).double()
    table.index_put_((first, second), torch.ones(len(first)).double(), accumulate=True)
    together, a, b = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    expected = a * b / pairs(torch.tensor(float(len(first))))
    return (together - expected) / ((a + b) / 2 - expected)                # Eq. (3.25)

# %% [markdown]
# It equals scikit-learn's, which the library's `ari` calls:

# %%
from gmvae_lib.evaluation import ari

first, second = fits[4].predict(x), fits[7].predict(x)
assert math.isclose(adjusted_rand_index(first, second), ari(first, second))

# %% [markdown]
# Six cuts into halves for every $K$:

# %%
def stability(x, n_components):
    order = torch.randperm(len(x))
    halves = (fitted(x[half], n_components, n_init=2) for half in order.chunk(2))
    return ari(*(model.predict(x) for model in halves))


again = torch.tensor([[stability(x, K) for K in range(2, 7)] for _ in range(6)])

# %% [markdown]
# The points are means, the bars standard deviations over the cuts.

# %%
figures.curves(
    range(2, 7), {"halves": again.mean(0)},
    "Do two halves of the data find the same clusters?", "components K", "adjusted Rand index",
    "Nearly one, with a short bar, at four components; widely spread below, declining above.",
    errors={"halves": again.std(0)}, ylim=(-0.2, 1.1),
)

# %% [markdown]
# Four groups come back nearly unchanged:

# %%
print("most stable K:", 2 + int(again.mean(0).argmax()))
print("its index is above 0.9:", bool(again.mean(0).max() > 0.9))

# %% [markdown]
# With too few components, it is a matter of chance which groups are joined; with too many, which group is cut. But be careful: stability is necessary for clusters to be real, not sufficient. $K=1$ is always perfectly stable, and a single long cloud is cut in two at the same place time and again.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Let the weights go out
#
# Everything so far fits many mixtures and compares them. Could one fit start with too many components and switch off those it does not need? Put a *Dirichlet* prior on the weights, $p(\pi)\propto\prod_k\pi_k^{\alpha-1}$, and maximize the posterior density instead of the likelihood (maximum a posteriori, MAP, as in chapter 1). In the M-step the log-prior joins what Eq. (2.10) maximizes:
#
# $$\mathcal J(\pi,\lambda)=\sum_{k}\big(N_k+\alpha-1\big)\log\pi_k+\lambda\Big(1-\sum_k\pi_k\Big). \tag{3.26}$$
#
# It is the same problem with $N_k+\alpha-1$ in place of $N_k$. For $\alpha<1$ each component pays a fee of $1-\alpha$ points. What if one cannot pay? Then its term is a negative number times $\log\pi_k$, and increases without limit as $\pi_k\to0$: the weight goes to zero, and the component is out for good. The others share the rest as before:
#
# $$\pi_k=\frac{\max(0,\,N_k+\alpha-1)}{\sum_{j}\max(0,\,N_j+\alpha-1)}. \tag{3.27}$$
#
# A proper Dirichlet needs $\alpha>0$, so its fee is at most one point, which is little. Figueiredo and Jain (2002) arrive by another road at half a point for each of a component's parameters (means and covariances, here 5): $\alpha=1-\frac52$. This prior cannot be normalized, but as a fee it makes sense. The log-prior is
# $-\frac52\sum_k\log\pi_k=-\sum_k\frac52\log(N\pi_k)+\frac52K\log N$. The last term does not depend on the weights, and the rest is BIC's fee of $\frac12\log N$ for each of the five parameters, only that each component pays according to its own number of points, $N\pi_k$.

# %%
def sparse_em(x, n_components, fee, steps=150):
    means = x[torch.randperm(len(x))[:n_components]]
    covariances = x.T.cov().expand(n_components, 2, 2) / n_components**0.5
    weights = torch.full((n_components,), 1 / n_components).double()
    for _ in range(steps):
        log_normal = log_prob_full(x, means, torch.linalg.cholesky(covariances))
        resp = (weights.log()[:, None] + log_normal).softmax(0)            # (K, N)
        weights = (resp.sum(1) - fee).clamp(min=0)                         # Eq. (3.27), 1 - α = fee
        resp, weights = resp[weights > 0], weights[weights > 0] / weights.sum()
        means = resp @ x / resp.sum(1, keepdim=True)
        deltas = x - means[:, None]
        scatter = torch.einsum("kn,kni,knj->kij", resp, deltas, deltas)
        covariances = scatter / resp.sum(1)[:, None, None] + 1e-3 * torch.eye(2)
    return weights, means, covariances

# %% [markdown]
# Without a fee this is chapter 2's EM. With one, how many components survive, from how many at the start? Three random starts each:

# %%
starts, fees = [5, 10, 20], [0, 0.99, 2.5, 8]
alive = torch.tensor([[[len(sparse_em(x, K, fee)[0]) for _ in range(3)] for K in starts]
                      for fee in fees]).double()
series = {f"fee 1 − α = {fee:g} points": alive[i].mean(1) for i, fee in enumerate(fees)}
figures.curves(
    starts, series, "Components that survive", "components at the start", "components at the end",
    "Without a fee all components survive; with a fee just below one point most of them; with two "
    "and a half points a few more than four; with eight points about four, from any start.",
    errors={name: alive[i].std(1) for i, name in enumerate(series)},
)

# %% [markdown]
# With a sufficient fee, the start does not matter:

# %%
print("no fee, all survive:", alive[0].mean(1).tolist() == starts)
print("a fee of eight points, from 10 and 20:", round(float(alive[3, 1:].mean())))

# %% [markdown]
# One fit in place of nine. What are the weaknesses? The fee is a new number to choose, and it takes over the role of $K$: nearly any answer can be had. Below one point it does little. For $\alpha<1$ the posterior density is infinite wherever a weight is zero, so "the maximum" means the one that
# EM happens to reach, and a small true group may be starved on the way. A full Bayesian treatment, which averages over the weights instead of maximizing, is better behaved (Rousseau and Mengersen, 2011).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The digits: ten classes, how many clusters?
#
# Real data, with classes that somebody assigned: 1,437 images of handwritten digits, 64 pixels each. We project them on their first principal axes (the directions of largest variance, found by principal component analysis, PCA), fit mixtures in 2 and in 10 dimensions, and ask every judge. The labels are used for scoring only.

# %%
from sklearn.decomposition import PCA

digits, test = load("digits"), load("digits", split="test")
pca = PCA(10).fit(digits.x.double().numpy())
codes, test_codes = (torch.tensor(pca.transform(d.x.double().numpy())) for d in (digits, test))

# %% [markdown]
# Three seeds for each, and two starts from k-means for each fit:

# %%
candidates = [1, 2, 3, 4, 6, 8, 10, 11, 12, 14, 20]
twice = {"init": "k-means", "n_init": 2, "tol": 1e-3, "reg_covar": 0.1}


def judge_digits(dim, seed):
    z, z_test = codes[:, :dim], test_codes[:, :dim]
    fits = [fitted(z, K, **twice, seed=seed) for K in candidates]
    rows = {name: [judge(g, z, z_test) for g in fits] for name, judge in JUDGES.items()}
    rows["agreement with classes"] = [ari(test.y, g.predict(z_test)) for g in fits]
    return torch.tensor(list(rows.values()))


dims = [2, 10]
results = torch.stack([torch.stack([judge_digits(dim, s) for s in range(3)]) for dim in dims])

# %% [markdown]
# What each judge prefers, by the number of axes. Where an entry has two numbers, the seeds differed. The last row is the $K$ where the agreement with the ten classes (adjusted Rand index on the test images) is best; no judge may look at it.

# %%
def interval(values):
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low}–{high}"


chosen = torch.tensor(candidates)[results.argmax(3)]                       # (dims, seeds, judges)
names = [*JUDGES, "agreement with classes"]
figures.table(
    [f"{dim} axes" for dim in dims],
    {name: [interval(chosen[i, :, j]) for i in range(2)] for j, name in enumerate(names)},
    "The K that each judge prefers, for digits",
    "A table of preferred K. On ten axes AIC and new points prefer many, BIC and ICL about as many "
    "as there are classes. In the plane ICL prefers very few.",
    size=(7, 3),
)

# %% [markdown]
# In the plane:

# %%
z = codes[:, :2]
plane = {f"{name}: K = {K}": (z, fitted(z, K, **twice))
         for name, K in (("ICL", int(chosen[0, 0, 3])), ("BIC", int(chosen[0, 0, 2])))}
figures.fit_panels(
    plane | {"the ten classes (labels)": (z, digits.y)},
    "Three panels with the digits in the plane of two principal axes. ICL's few large clusters; "
    "BIC's smaller components; the ten true classes, which overlap heavily.",
)

# %% [markdown]
# Two regularities of the table. The second must hold: a smaller fee for each parameter can never lead to a smaller model.

# %%
icl_row, bic_row = chosen[:, :, 3].double().mean(1), chosen[:, :, 2].double().mean(1)
print("in the plane ICL sees fewer than BIC:", bool(icl_row[0] < bic_row[0]))
print("AIC never sees fewer than BIC:", bool((chosen[..., 1] >= chosen[..., 2]).all()))

# %% [markdown]
# And with diagonal covariances, on ten axes:

# %%
few, many = (fitted(codes, K, **twice, covariance_type="diag").bic(codes) for K in (12, 20))
print("BIC prefers 20 components to 12:", many < few)

# %% [markdown]
# What to make of it?
#
# - In the plane the ten classes overlap. No method could tell them apart there, and ICL is right to report the few masses that can be told apart. BIC uses more components, as the density is not a mixture of few Gaussians.
# - In more dimensions the classes separate, entropies vanish, and ICL agrees with BIC. Both say something near ten. That is encouraging, and partly luck: with diagonal covariances BIC asks for more, because a tilted class then takes several upright components. $K$ is a property of the data *and the family*.
# - New points, here images, prefer more: there are sevens with a bar and without, and always another fine detail for a density to gain from. As long as $N$ grows, so will the best $K$. There is no "true" number for a density that is not a mixture of this family.
# - Nothing here knows that the images are digits. If the ten classes are what you want, use labels; clustering finds what is dense and apart, whether or not it has a name.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Move it yourself
#
# Choose $K$ with the slider or the box, and a data set and a family beside it. On the right are all scores, with each one's best $K$ ringed; on the left is the fit. The caption says what changed.
#
# Things to try: on `four groups`, walk from 4 to 5 and watch which group is cut, and what ICL thinks of it. The same with `spherical` covariances: why does BIC now ask for so many? On `moons`, find the $K$ of each judge, and ask which of them you would call the number of clusters. On `digits`, start at ICL's choice and go up: which masses are divided first? (The fits are quick ones, so a curve may have a dent.)

# %%
from gmvae_lib.explorers import KExplorer

KExplorer({"four groups": (x, new[:1000])}, toys=["moons"], n_components=5)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Failure lab
#
# Three ways to get a wrong $K$ from the right formulas.
#
# ### One start is not enough
#
# All criteria suppose that $\hat\theta$ *is* the maximum. EM's first hill may be far below, and differently so for each $K$; then the criterion compares luck. BIC's choice on ten axes of the digits, with one random start for each $K$ (five seeds, and to save time only $K$ from 8 to 14), and from the table above (three seeds):

# %%
once = twice | {"init": "random", "n_init": 1}
by_luck = [min(candidates[5:10], key=lambda K: fitted(codes, K, **once, seed=seed).bic(codes))
           for seed in range(5)]
figures.strip(
    {"one random start": by_luck, "best of two k-means starts": chosen[1, :, 2].tolist()},
    "BIC's choice, seed by seed",
    "components K", "Two rows of dots. With one random start the chosen K is spread more widely "
    "than with the best of two starts from k-means.",
)

# %% [markdown]
# *Diagnosis*: plot the criterion over $K$ for several seeds; a curve that jumps up and down between neighbours is not one of maxima. *Cure*: more starts, the same number for all $K$; and never read a difference that is smaller than the differences between seeds.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A collapsed component wins
#
# Sixty points, and the floor all but removed:

# %%
small = samples[0][:60]
bare = [fitted(small, K, n_init=5, reg_covar=1e-12) for K in (1, 2, 3, 4, 5, 7, 9)]
winner = min(bare, key=lambda g: g.bic(small))
narrowest = torch.linalg.eigvalsh(winner.covariances_)[:, 0].argmin()
print("BIC wants more than six:", winner.n_components > 6)
print("the narrowest component is at the floor:",
      bool(torch.linalg.eigvalsh(winner.covariances_)[narrowest, 0] < 1e-11))
print("points in it:", "at most 4" if 60 * winner.weights_[narrowest] < 4.5 else "more")

# %% [markdown]
# A component that lies on one point, or on a few in a row, gains as many nats as the floor allows, Eq. (1.23), and no fee of $\frac12\log N$ per parameter can stop it. BIC was derived at a maximum in the interior, and this is none. *Diagnosis*: look at $N_k$ and at the smallest eigenvalues (the library does, and its warning says so). *Cure*: a floor (or chapter 1's prior) at a scale that means something:

# %%
sound = [fitted(small, K, reg_covar=0.01).bic(small) for K in (1, 2, 3, 4, 5, 7, 9)]
print("BIC wants at most five:", sound.index(min(sound)) <= 4)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Rounded data
#
# The 300 points of the beginning, recorded in whole units, as ages and prices often are. This time even *new* points, rounded likewise, vote for more:

# %%
def held_out_choice(x, new, floor):
    return max(range(1, 9), key=lambda K: fitted(x, K, reg_covar=floor).score(new))


rough, rough_new = x.round(), new[:2000].round()
print("K chosen by new points is more than six:", held_out_choice(rough, rough_new, 1e-6) > 6)

# %% [markdown]
# Held-out data protect against learning what is peculiar to a sample. But the grid is a property of the *source*: new points lie on it too, and a component that collapses onto a grid line is a better density, without limit. A rounded variable has no density. *Diagnosis*: count distinct values, `len(x.unique())`. *Cure*: undo the rounding with uniform noise of one unit's width,
# on old and new points alike, so that there is a density again; or model the counts as counts, as chapter 5 does with pixels.

# %%
smooth, smooth_new = (points + torch.rand_like(points) - 0.5 for points in (rough, rough_new))
print("K chosen now:", held_out_choice(smooth, smooth_new, 1e-3))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Fill in a function, run its cell, and `check` says what it found. Worked solutions are in the
# [notebook with the solutions](solutions/03_choosing_k.ipynb).

# %%
from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 3.1 (★, 5 minutes)
#
# Two models have scored the same $M$ held-out points: `s` and `t`, each $(M,)$, in nats. Return the mean difference $\bar d$ of $d=s-t$ and its standard error, Eq. (3.5), as a tuple.

# %%
def compare(s, t):
    raise NotImplementedError


check("3.1", compare)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 3.2 (★, 10 minutes)
#
# The number of free parameters of a mixture, for `family` equal to `"full"`, `"diag"`, `"spherical"` or `"tied"`.

# %%
def free_parameters(n_components, dim, family):
    raise NotImplementedError


check("3.2", free_parameters)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 3.3 (★★, 10 minutes)
#
# ICL from scratch. Given the log-joint $\log\pi_k\mathcal N(x_n|\mu_k,\Sigma_k)$ as an $(N,K)$ tensor and the number of parameters $P$, return ICL, Eq. (3.23). In some of the cases a point is so far from a component that its responsibility underflows to zero.

# %%
def completed(log_joint, n_parameters):
    raise NotImplementedError


check("3.3", completed)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 3.4 (★, 5 minutes)
#
# The M-step for the weights under a Dirichlet prior, Eq. (3.27). Given the counts $N_k$ $(K,)$ and $\alpha$, return the weights $(K,)$.

# %%
def map_weights(counts, alpha):
    raise NotImplementedError


check("3.4", map_weights)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 3.5 (★★, 15 minutes)
#
# The one-standard-error rule, Eq. (3.8). Row $i$ of `scores` $(K_{\max},N)$ holds every point's held-out score under a mixture with $K=i+1$ components. Return the chosen $K$.

# %%
def smallest_within_one_error(scores):
    raise NotImplementedError


check("3.5", smallest_within_one_error)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 3.6 (★★★, 20 minutes)
#
# A model whose evidence has a formula: $x_n\sim\mathcal N(\mu,1)$ for $n=1,\dots,N$, with the prior $\mu\sim\mathcal N(0,\tau^2)$. Given `x` $(N,)$ and `tau`, return $\log p(X)$, Eq. (3.15), exactly. (One way: the $x_n$ are jointly Gaussian; what are their mean and covariance? Another: the log-likelihood is a
# parabola in $\mu$, so Laplace's method, *with the log-prior inside the expansion*, is exact.)

# %%
def evidence(x, tau):
    raise NotImplementedError


check("3.6", evidence)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Summary
#
# | criterion | asks | fee, nats | watch out |
# |---|---|---|---|
# | training likelihood | nothing about $K$ | none | always says more |
# | held-out, cross-validation | how well will new points be predicted? | none needed | noisy: compare in pairs; fooled by rounding |
# | AIC | the same, by theory | $P$ | mixtures overstate more than $P$ |
# | BIC | how probable are the data under the model? | $\frac P2\log N$ | not regular if $K$ is too large, and then too strict |
# | ICL | the same, for points and labels | BIC's, plus the entropy | merges what overlaps |
# | stability | would the clusters come back? | none | $K=1$ is always stable |
# | Dirichlet MAP | which components can pay? | $1-\alpha$ points each | the fee decides |
#
# - The expected log score is minus the entropy of the truth minus the divergence from it. It is the right question for a *density*, and held-out points answer it.
# - How many *clusters* there are is another question. It includes what we call a cluster: ICL says "what can be told apart", stability says "what comes back".
# - Where the criteria agree, there is little to decide. Where they disagree, the disagreement tells you something about the data: overlap, a shape that is not Gaussian, too few points.
#
# **May now be imported:** `score`, `n_parameters`, `aic`, `bic` and `icl` of `GaussianMixture`, and `ari` from `gmvae_lib.evaluation`.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Where this leads
#
# This was the last chapter about mixtures of points that we see. In [chapter 4, When the E-step is impossible](04_when_the_e_step_is_impossible.ipynb), the latent variable becomes continuous; the evidence of Eq. (3.15) is then an integral that no grid can do, and a bound takes its place.
# [The variational autoencoder](05_variational_autoencoder.ipynb) scores by held-out bounds as we did by held-out points, and in [the mixture-prior VAE](08_mixture_prior_vae.ipynb) the question of $K$ returns, in a latent space where the digits are easier to tell apart.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Sources
#
# - H. Akaike (1974). A new look at the statistical model identification. K. Takeuchi (1976) gave the general form, Eq. (3.12).
# - G. Schwarz (1978). Estimating the dimension of a model.
# - C. Keribin (2000). Consistent estimation of the order of mixture models.
# - S. Watanabe (2009). Algebraic Geometry and Statistical Learning Theory. (Singular models.)
# - C. Biernacki, G. Celeux and G. Govaert (2000). Assessing a mixture model for clustering with the integrated completed likelihood.
# - J.-P. Baudry, A. E. Raftery, G. Celeux, K. Lo and R. Gottardo (2010). Combining mixture components for clustering.
# - L. Hubert and P. Arabie (1985). Comparing partitions. (The adjusted Rand index.)
# - M. A. T. Figueiredo and A. K. Jain (2002). Unsupervised learning of finite mixture models.
# - J. Rousseau and K. Mengersen (2011). Asymptotic behaviour of the posterior distribution in overfitted mixture models.
# - Y. Bengio and Y. Grandvalet (2004). No unbiased estimator of the variance of K-fold cross-validation.
