# %% [markdown] slideshow={"slide_type": "slide"}
# # Appendix: notation and glossary
#
# **What was that again?**
#
# The symbols that chapters share, with the equation in which each first appears; the names of the library that a chapter has built; words and acronyms; and answers to the three questions with which the course began. Nothing on this page is new. It is kept true by
# `tests/unit/test_appendix.py`: each symbol does stand in the equation that is named here and in none before it, each name exists in `gmvae_lib` and cites its equation, each acronym is used and spelled out in the chapter that is named.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Symbols
#
# Logarithms are natural, so that everything with a logarithm comes in *nats*. Sums over $n$ run over the points, over $k$ over the components, over $i$ over coordinates. (Chapter 0 shows some of the symbols in advance.)
#
# The number before the dot is the chapter's: 1 [Gaussian mixtures](01_gaussian_mixtures.ipynb), 2 [Expectation–maximization](02_expectation_maximization.ipynb), 3 [Choosing K](03_choosing_k.ipynb), 4 [When the E-step is impossible](04_when_the_e_step_is_impossible.ipynb),
# 5 [The variational autoencoder](05_variational_autoencoder.ipynb), 6 [β and the rate–distortion curve](06_beta_and_the_rate_distortion_curve.ipynb), 7 [The prior is the problem](07_the_prior_is_the_problem.ipynb), 8 [The mixture-prior VAE](08_mixture_prior_vae.ipynb),
# 9 [Clustering with the GMVAE](09_clustering_with_the_gmvae.ipynb), 10 [The family](10_the_family.ipynb), 11 [Honest evaluation](11_honest_evaluation.ipynb), 12 [Scaling up](12_scaling_up.ipynb).
#
# ### Points, Gaussians, mixtures
#
# | symbol | meaning | in code | first in |
# |---|---|---|---|
# | $D$ | dimensions of a point: features, pixels | `data_dim` | Eq. (1.1) |
# | $\varepsilon$ | standard normal noise | `eps` | Eq. (1.1) |
# | $x$ | a point in $\mathbb R^D$; $x_n$ is one of $N$ | `x`, shape `(N, D)` | Eq. (1.2) |
# | $\mu$ | mean | `mean` | Eq. (1.2) |
# | $\Sigma$ | covariance matrix | `covariances` | Eq. (1.2) |
# | $L$ | Cholesky factor: $\Sigma=LL^\top$ | `scale_tril` | Eq. (1.2) |
# | $\mathcal N(x\mid\mu,\Sigma)$ | Gaussian density | `log_prob_full`, its logarithm | Eq. (1.4) |
# | $\sigma_i^2$ | variance of one coordinate | `log_var`, its logarithm | Eq. (1.7) |
# | $K$ | number of components | `n_components` | Eq. (1.8) |
# | $\pi_k$ | weight of component $k$ | `weights` | Eq. (1.8) |
# | $\mu_k$ | mean of component $k$ | `means` | Eq. (1.8) |
# | $\Sigma_k$ | covariance of component $k$ | `covariances` | Eq. (1.8) |
# | $c$ | the component that a point comes from | `component` | Eq. (1.10) |
# | $r_k(x)$ | responsibility of component $k$ for $x$ | `predict_proba` | Eq. (1.16) |
# | $\theta$ | all parameters of a mixture; later of a decoder | | Eq. (1.21) |
# | $\ell(\theta)$ | log-likelihood of all points | `log_likelihood_`, per point | Eq. (1.21) |

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Expectation–maximization, and choosing K
#
# | symbol | meaning | in code | first in |
# |---|---|---|---|
# | $N_k$ | how many points component $k$ claims | `counts` | Eq. (1.27) |
# | $S_k$ | scatter of component $k$'s points | | Eq. (1.27) |
# | $r_{nk}$ | responsibility of component $k$ for point $n$ | `resp`, shape `(N, K)` | Eq. (2.2) |
# | $q_k$ | a guess at the probabilities of the components | | Eq. (2.3) |
# | $\mathcal L(q,\theta)$ | the bound, ELBO | | Eq. (2.4) |
# | $\mathrm{KL}(q\Vert p)$ | Kullback–Leibler divergence | `kl_diag` and others | Eq. (2.5) |
# | $\mathcal Q(\theta)$ | expected complete log-likelihood | | Eq. (2.8) |
# | $\phi(x)$ | features, whose sums are all that EM needs | `features` | Eq. (2.23) |
# | $\Lambda$ | precision: inverse of a covariance | `precisions_` | Eq. (2.24) |
# | $\hat\theta$ | the parameters that maximize the likelihood | | Eq. (3.7) |
# | $I$ | identity matrix; from chapter 6 on, mutual information too | | Eq. (3.13) |
# | $P$ | number of free parameters | | Eq. (3.13) |
# | $H(r_n)$ | entropy of a point's responsibilities | | Eq. (3.22) |

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The bound, the VAE, its price
#
# | symbol | meaning | in code | first in |
# |---|---|---|---|
# | $z$ | latent variable: the code of a point | `z`, shape `(N, d)` | Eq. (4.1) |
# | $p(z)$ | prior | `prior` | Eq. (4.1) |
# | $q(z)$ | an approximate posterior; averaged over the data, the aggregate posterior | | Eq. (4.4) |
# | $d$ | dimensions of $z$ | `latent_dim` | Eq. (4.8) |
# | $W$ | linear decoder | | Eq. (4.11) |
# | $p_\theta(x\mid z)$ | the decoder's distribution | `decoder`, `likelihood` | Eq. (5.1) |
# | $D(x)$ | distortion | `distortion` | Eq. (5.3) |
# | $R(x)$ | rate | `rate` | Eq. (5.3) |
# | $\beta$ | the rate's price | `beta` | Eq. (5.4) |
# | $q_\phi(z\mid x)$ | the encoder's Gaussian | `encoder` | Eq. (5.5) |
# | $\mu_\phi(x)$ | its mean | `mean` | Eq. (5.5) |
# | $\rho_i$ | probability of a dark pixel | | Eq. (5.12) |
# | $a_i$ | its logit | `logits`, `params` | Eq. (5.12) |
# | $\hat x$ | the decoder's mean image | `reconstruct` | Eq. (5.14) |
# | $\mathcal L_S(x)$ | importance-weighted bound, with $S$ draws | `log_likelihood` | Eq. (5.24) |
# | $w_s$ | ratio $p_\theta(x,z_s)/q_\phi(z_s\mid x)$ of a draw | | Eq. (5.24) |
# | $\beta_c$ | the price above which nothing is said | | Eq. (6.14) |
# | $g_j(\beta)$ | gate of a hidden unit | `Gate` | Eq. (6.16) |

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The prior, and the mixture
#
# | symbol | meaning | in code | first in |
# |---|---|---|---|
# | $q(n\mid z)$ | which image a code may have come from | | Eq. (7.5) |
# | $r(z)$ | another prior, put behind the same decoder | | Eq. (7.9) |
# | $G(r)$ | what it gains | | Eq. (7.10) |
# | $\mathrm H[q]$ | entropy of the encoder's Gaussian | `entropy_diag` | Eq. (8.7) |
# | $R_{\text{exact}}$ | rate: $\mathrm{KL}(q_\phi(z\mid x)\Vert p(z))$ | `method="exact"` | Eq. (8.8) |
# | $\mathrm{KL}_k$ | divergence from the encoder's Gaussian to component $k$ | `component_kl` | Eq. (8.11) |
# | $R_\gamma$ | rate that charges for the component too | `method="joint"` | Eq. (8.13) |
# | $\gamma_k$ | share of component $k$ in an image: $q(c\mid x)$ | `resp` | Eq. (8.13) |
# | $\gamma_k^\star$ | the best shares | `responsibilities` | Eq. (8.15) |
# | $R_{\text{coll}}$ | rate with the best shares put in | `method="collapsed"` | Eq. (8.16) |
# | $\mathrm{acc}$ | clustering accuracy, clusters and classes matched one to one | `clustering_accuracy` | Eq. (9.1) |
# | $z_v$ | code of one of several views of the same thing | `n_views` | Eq. (9.4) |
# | $u_k$ | pseudo-input of a VampPrior | `pseudo_inputs` | Eq. (10.9) |
# | $A_c(x)$ | one ELBO for each class | `class_elbos` | Eq. (10.13) |
# | $p(w)$ | prior of the style $w$, which moves a mixture | `style_dim`, its dimensions | Eq. (10.17) |
# | $\tau$ | temperature of a relaxed choice | `temperature` | Eq. (10.25) |
# | $\mathrm{ESS}$ | effective sample size of the draws | | Eq. (11.5) |
# | $A_i$ | nats that dimension $i$ of a code would carry | | Eq. (11.9) |

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Letters with two meanings
#
# The alphabet is short. Where a letter has two meanings, they never meet in one formula without a word about it.
#
# | letter | first | later |
# |---|---|---|
# | $D$ | dimensions of $x$ (chapter 1) | distortion: $D(x)$ or $D_n$ of a point (chapter 5), $D$ on average (chapter 6) |
# | $S$ | scatter $S_k$ (chapter 1) | number of draws (chapters 4, 5, 11); a matrix (chapters 6, 8) |
# | $L$ | Cholesky factor (chapter 1) | number of draws (chapters 7, 8) |
# | $I$ | identity matrix (chapter 1) | mutual information (chapters 6, 7) |
# | $\theta$ | a mixture's parameters (chapters 1 to 3) | the decoder's parameters, as an index (chapter 5) |
# | $\phi$ | features $\phi(x)$ (chapter 2) | the encoder's parameters, as an index (chapter 5) |
# | $r$ | responsibilities $r_{nk}$ of points (chapter 2); for images they are $\gamma_{nk}$ (chapter 8) | nats per axis, $r_i$ (chapter 6); another prior, $r(z)$ (chapter 7) |
# | $P$ | number of parameters (chapter 3) | probability (chapter 5); number of processes (chapter 12) |
# | $q(z)$ | an approximate posterior of one point (chapter 4) | the aggregate posterior (chapter 6) |
# | $V$ | covariance of $q$ (chapter 4) | number of views (chapter 9) |
# | $\rho$ | probability of a dark pixel (chapter 5) | correlation (chapter 11) |
# | $w$ | ratios $w_s$ of draws (chapter 5) | style (chapter 10) |
# | $A$ | gain of views that agree (chapter 9) | $A_c(x)$, ELBO of a class (chapter 10); $A_i$, activity (chapter 11) |
# | $\tau$ | temperature (chapter 10) | $\tau_n^2$, variance over draws (chapter 11) |

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Names in the library
#
# What the chapters built and then imported. Their docstrings cite the equations that the code computes.
#
# | name | what it computes | equation | built in chapter |
# |---|---|---|---|
# | `gaussian.log_prob_full` | log-density of a Gaussian, by Cholesky | Eq. (1.4) | 1 |
# | `gaussian.log_prob_diag` | the same for a diagonal covariance | Eq. (1.7) | 1 |
# | `gaussian.kl_standard` | KL from a Gaussian to $\mathcal N(0,I)$ | Eq. (5.11) | 5 |
# | `gaussian.kl_diag` | KL of two diagonal Gaussians | Eq. (4.10) | 4 |
# | `gaussian.kl_diag_full` | KL from a diagonal to a full Gaussian | Eq. (4.9) | 4 |
# | `gaussian.entropy_diag` | entropy of a diagonal Gaussian | Eq. (4.8) | 4 |
# | `gaussian.sample_diag` | a reparameterized draw | Eq. (5.7) | 5 |
# | `mixture.GaussianMixture` | a Gaussian mixture, fitted by EM | | 2 |
# | `likelihood.Bernoulli` | black or white pixels | Eq. (5.12) | 5 |
# | `likelihood.DynamicBernoulli` | grey pixels as the chance of ink | Eq. (12.2) | 12 |
# | `likelihood.Binomial` | grey pixels that count | Eq. (5.13) | 5 |
# | `likelihood.Gaussian` | real-valued pixels, learnt noise | Eq. (5.14) | 5 |
# | `network.Encoder` | image to mean and log-variance | Eq. (5.5) | 5 |
# | `network.Decoder` | code to the likelihood's parameters | | 5 |
# | `network.Gate` | a hidden unit's dependence on $\beta$ | Eq. (6.16) | 6 |
# | `prior.StandardNormal` | the prior $\mathcal N(0,I)$ | Eq. (5.11) | 5 |
# | `prior.MixturePrior` | a mixture whose parameters are learnt | | 8 |
# | `prior.MixturePrior.log_prob` | its log-density | Eq. (8.4) | 8 |
# | `prior.MixturePrior.rate` | its three rates | Eq. (8.16) | 8 |
# | `prior.MixturePrior.responsibilities` | the best shares of the components | Eq. (8.15) | 8 |
# | `prior.VampPrior` | the encoder's own Gaussians at learnt inputs | Eq. (10.9) | 10 |
# | `prior.with_free_bits` | a rate with an allowance | Eq. (6.15) | 6 |
# | `vae.VAE` | encoder, decoder, likelihood and prior together | | 5 |
# | `vae.VAE.elbo` | distortion and rate of each point | | 5 |
# | `latent_class.Classifier` | $q(c\mid x)$ as a network | | 10 |
# | `latent_class.LatentClassVAE` | M2 and Shu's model: a class first, then a code | Eq. (10.15) | 10 |
# | `latent_class.LatentClassVAE.class_elbos` | one ELBO for each class, $A_c$ | Eq. (10.13) | 10 |
# | `moving_mixture.MovingMixture` | a mixture that moves with a style: Dilokthanakul's prior | Eq. (10.17) | 10 |
# | `moving_mixture.MovingMixture.rate` | its rate, and the style's price | Eq. (10.19) | 10 |
# | `training.fit` | one training loop for every model | | 5 |
# | `profiling.record` | where a program's time goes | | 12 |
# | `profiling.finish_times` | when a GPU is done with what it is asked for | Eq. (12.6) | 12 |
# | `evaluation.rate_distortion` | the curve of a network with gates | | 6 |
# | `evaluation.log_likelihood` | importance-weighted estimate of $\log p(x)$ | Eq. (5.24) | 5 |
# | `evaluation.active_units` | which latent dimensions carry anything | | 6 |
# | `evaluation.aggregate_log_prob` | log-density of the aggregate posterior | Eq. (7.3) | 7 |
# | `evaluation.elbo_surgery` | splits the rate into information and misfit | | 7 |
# | `evaluation.Surgery` | its result: what the rate is spent on | Eq. (7.4) | 7 |
# | `evaluation.confusion` | counts of classes against clusters | | 8 |
# | `evaluation.clustering_accuracy` | agreement under the best matching | Eq. (9.1) | 9 |
# | `evaluation.nmi` | nats that clusters say of classes, as a share | Eq. (9.2) | 9 |
# | `evaluation.ari` | agreement over pairs, chance taken off | Eq. (3.25) | 3 |
# | `evaluation.purity` | majority vote | Eq. (9.19) | 9 |
# | `evaluation.homogeneity` | how much of the class a cluster tells | Eq. (9.20) | 9 |

# %% [markdown] slideshow={"slide_type": "subslide"}
# The other way round, from an equation to its code: this looks for its number in the library's files. Put in any that you meet.

# %%
from pathlib import Path

import gmvae_lib


def where(number):
    files = sorted(Path(gmvae_lib.__file__).parent.glob("*.py"))
    return [file.stem for file in files if f"({number})" in file.read_text(encoding="utf-8")]

# %% [markdown] slideshow={"slide_type": "-"}
# The rate of Eq. (5.11), for one, is a formula about Gaussians and a method of a prior:

# %%
assert {"gaussian", "prior"} <= set(where("5.11"))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Words and acronyms
#
# | acronym | in full | see chapter |
# |---|---|---|
# | AIC | Akaike information criterion | 3 |
# | ARI | adjusted Rand index | 3 |
# | AUC | area under the curve | 9 |
# | BIC | Bayesian information criterion | 3 |
# | ELBO | evidence lower bound | 2 |
# | EM | expectation–maximization | 2 |
# | ESS | effective sample size | 11 |
# | GMVAE | Gaussian-mixture VAE | 8 |
# | GPU | graphics processor | 12 |
# | ICL | integrated completed likelihood | 3 |
# | KL | Kullback–Leibler divergence | 2 |
# | MAP | maximum a posteriori | 1 |
# | NLL | negative log-likelihood | 11 |
# | NMI | normalized mutual information | 9 |
# | pPCA | probabilistic principal component analysis | 4 |
# | VAE | variational autoencoder | 5 |

# %% [markdown] slideshow={"slide_type": "subslide"}
# | word | what it means | see chapter |
# |---|---|---|
# | active units | latent dimensions whose mean varies over the data | 5 |
# | aggregate posterior | the encoder's Gaussians, averaged over all images | 6 |
# | amortized | one network does the E-step for all points | 4 |
# | autodecoding | the end of the curve where the code says nothing | 6 |
# | denoising autoencoder | learns codes by repairing damaged images | 9 |
# | distortion | what an image costs once its code is known | 5 |
# | E-step | make the bound tight: responsibilities | 2 |
# | effective sample size | how many equal ratios the draws are worth | 11 |
# | evidence | $p(x)$ under the whole model | 2 |
# | free bits | an allowance of nats on which nothing presses | 6 |
# | Gumbel-softmax | a choice made smooth by a temperature, so that gradients pass | 10 |
# | held-out | kept away from training, for judging | 3 |
# | hole | a place where the prior expects codes and none are | 7 |
# | importance-weighted bound | logarithm of a mean ratio; rises to $\log p(x)$ with the number of draws | 5 |
# | latent | part of the model, not of the data | 2 |
# | logsumexp | logarithm of a sum of exponentials: adds densities without leaving the logarithms | 1 |
# | M-step | climb the bound: weights, means, covariances | 2 |
# | mean field | an approximation whose coordinates are independent | 4 |
# | mutual information | nats that one variable tells of another | 6 |
# | nats | the unit of natural logarithms; $\log2$ of them are a bit | 1 |
# | optimism | what a score gains because it was fitted, or chosen by | 3 |
# | permutation | components can be renumbered: $K!$ equal optima | 1 |
# | posterior collapse | codes that carry nothing | 5 |
# | pseudo-inputs | learnt inputs whose codes make up the prior | 10 |
# | purity | share of points in their cluster's commonest class | 9 |
# | rate | what a code costs: a KL divergence | 5 |
# | reparameterization | noise first, parameters afterwards, so that gradients pass | 5 |
# | reverse water-filling | how nats are spent on axes of unequal variance | 6 |
# | sufficient statistics | the sums that are all an M-step needs | 2 |
# | VampPrior | a mixture of the encoder's own Gaussians, at learnt inputs | 10 |
# | views | several pictures of one thing, each with a code of its own | 9 |
# | warm-up | a price that rises from zero | 6 |
# | whitening | undoing a covariance: from $x$ back to noise | 1 |

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Three questions
#
# This course grew from an article that ended with three questions. They are good ones. Here are their answers, with the chapters that prove them.
#
# ### VAE or Gaussian mixture?
#
# They are one kind of model at two sizes. Both explain $x$ by something that is not seen, a component $c$ or a code $z$, and both are trained on the same bound, Eqs. (2.4) and (5.3). In a mixture the posterior has a formula, so the bound can be made tight: that is EM, [chapter 2](02_expectation_maximization.ipynb).
# In a VAE it has none, [chapter 4](04_when_the_e_step_is_impossible.ipynb), and a network stands in for it, [chapter 5](05_variational_autoencoder.ipynb). Nor need one choose: with a mixture for its prior, [chapter 8](08_mixture_prior_vae.ipynb), a VAE with one component, held at $\mathcal N(0,I)$, is the plain one, Eq. (8.27), and one whose
# decoder passes $z$ on is, in the limit of a sharp encoder, a Gaussian mixture, Eq. (8.28). Take the mixture where the points themselves form clouds and a density is wanted whose every number can be read; the VAE where images or the like have few degrees of freedom that pixels hide; both together where the codes form groups.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How many components?
#
# Never as many as fit the training data best: the best likelihood of the points that were fitted can only rise with $K$, Eq. (3.3). The article's own advice, to choose $K$ on the training set and evaluate it on a validation set, does just that, and then looks. Choose on points that were held out, by cross-validation and its standard errors,
# or by a criterion that charges for parameters: BIC for the number of components of a density, ICL for the number of groups that can be told apart. They answer different questions and may disagree honestly; where they do, say so, and look at several $K$. All of this is measured in [chapter 3](03_choosing_k.ipynb). With labels at hand for scoring, do not
# choose by them: case 20 of [chapter 13](13_find_the_bug.ipynb) shows what that is worth.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Should the KL be minimal?
#
# No. It is one of two costs, and what is to be minimized is their sum, Eq. (5.4). The KL is the rate: what the code costs, and at least what it says about the image, Eq. (6.3); what is above that is wasted on a prior that does not fit, [chapter 7](07_the_prior_is_the_problem.ipynb). Made as small as possible it is zero, the code says nothing, and all images are drawn alike: that is collapse, the opposite of overfitting. Where a code is too *long*, the model can learn its
# training images by heart. The gap between old and new images grows with the rate, as case 19 of [chapter 13](13_find_the_bug.ipynb) measures. How much rate is worth its price is decided by $\beta$: one more nat of rate saves $\beta$ nats of distortion, Eq. (6.9), and with $\beta=1$ minus the sum is a lower bound of the log-likelihood. [Chapter
# 6](06_beta_and_the_rate_distortion_curve.ipynb) draws the whole curve.

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Back
#
# All chapters are on [the map](00_start_here.ipynb#The-map).
