# %% [markdown] slideshow={"slide_type": "slide"}
# # 13 Find the bug
#
# **Would you have noticed?**
#
# Six programs have each drawn a picture. All of them run, none prints a warning, and five of them are wrong. Which one is right?
#
# A is the density of two equal components with the centers at the crosses. B is the log-likelihood during expectation–maximization (EM). C shows draws from a Gaussian, and its outline at two standard deviations.
# D and E ask which of two components owns a point on a line: in D they are equally wide, with centers at $\pm4$; in E they share a center, and one is three times as wide as the other. F is the rate of a mixture prior while its weights are trained.

# %% slideshow={"slide_type": "-"}
import torch

from gmvae_lib import figures

torch.set_num_threads(1)  # everything here is small
torch.set_default_dtype(torch.float64)  # double precision, 16 digits, throughout
figures.six_programs()

# %% [markdown] slideshow={"slide_type": "subslide"}
# Take a minute. The answer is in the chapter, in the [last look at the picture](#The-picture-again), and by then you will not need it.
#
# Programs like these stand in tutorials, articles and repositories that many people have read, and that work, in the sense that something comes out. A wrong formula in a probabilistic model seldom crashes. It trains, it
# draws pictures, it reports numbers, often better ones than the right formula would. What finds it is a test: a question to which the answer is known before the program has run.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What you will be able to do
#
# - find nineteen bugs like those that have been published, each by a test that fails in a way that anybody can see;
# - acquit the one suspect among twenty that is innocent;
# - say for each why it was not noticed: the special case in which the wrong formula is right;
# - tell which of your tests could have found it, and which could not;
# - carry ten tests away, which together find every one of them.
#
# **You need** [chapter 1, mixtures](01_gaussian_mixtures.ipynb), [chapter 2, EM](02_expectation_maximization.ipynb), [chapter 5, the VAE](05_variational_autoencoder.ipynb) and [chapter 8, the mixture-prior VAE](08_mixture_prior_vae.ipynb), or as many of them as your cases need. **It takes** 40 minutes to read and run, and about three
# hours to repair everything. The cases do not build on each other: take those that you like.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How to play
#
# Each case has a snippet or a formula after a published one, shortened, with names adapted to this course. Nineteen of the twenty are wrong. Say where, and when it would be right, before you go on: then comes a test, which fails. *Explain the failure in one sentence* before you
# repair the snippet: a repair that one cannot explain is another bug. **One snippet is right**, and what its test shows has another cause: find it, and leave it as it is. `check` knows the bugs, the usual wrong repairs, and what one does to the innocent. The [notebook with the solutions](solutions/13_find_the_bug.ipynb) has a paragraph for each case.
#
# For one evening or one lecture take cases 1, 4, 6, 10, 12, 15, 16, 18 and 20, and the failure lab. In a class: a minute to look, a vote on the line, the test, and only then the argument.
#
# Everything that the earlier chapters built may be imported:

# %%
import math

from gmvae_lib.exercises import check
from gmvae_lib.gaussian import LOG_2PI, log_prob_diag

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Densities and mixtures
#
# ### Case 1: three terms and a bracket
#
# The log-density of a Gaussian with diagonal covariance, with a network's `log_var` as its logarithm of variances:

# %%
def log_normal(z, mean, log_var):
    return (-0.5 * (LOG_2PI + log_var + (z - mean) ** 2) / log_var.exp()).sum(-1)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** A density adds up to one. In the plane, a sum over small squares:

# %%
line = torch.arange(-10, 10, 0.1) + 0.05
plane, area = torch.cartesian_prod(line, line), 0.1**2

def total(log_density, *parameters):
    return float(log_density(plane, *parameters).exp().sum() * area)

for variance in (1.0, 0.5, 2.0):
    log_var = torch.full((2,), variance).log()
    print(f"variance {variance}: adds up to {total(log_normal, 0.0, log_var):.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.1 (★, 5 minutes)
# Why is the first line right? Repair it: `z` is $(N,d)$, `mean` and `log_var` are $(d,)$, the result $(N,)$.

# %%
def my_log_normal(z, mean, log_var):
    raise NotImplementedError

check("13.1", my_log_normal)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Case 2: the noise
#
# A draw from the same Gaussian, reparameterized:

# %%
def draw(mean, log_var, eps):
    return mean + log_var.exp() * eps

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** What does the density say of the sampler's own draws? On average it must say minus the entropy, Eq. (4.8), whatever the parameters. For one coordinate:

# %%
torch.manual_seed(0)
eps = torch.randn(200_000, 1)
for variance in (1.0, 0.2, 4.0):
    log_var = torch.tensor([variance]).log()
    said = log_prob_diag(draw(0.0, log_var, eps), torch.zeros(1), log_var).mean()
    expected = -0.5 * (LOG_2PI + 1 + log_var)                                  # Eq. (4.8)
    print(f"variance {variance}: {float(said):.1f} nats, should be {float(expected):.1f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.2 (★, 5 minutes)
# At which of the two variances does the error make a model look too good? Repair the draw: `mean` and `log_var` are $(d,)$, `eps` is $(N,d)$.

# %%
def my_draw(mean, log_var, eps):
    raise NotImplementedError

check("13.2", my_draw)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Case 3: a weight for everybody
#
# The log-density of a mixture of $K$ diagonal Gaussians. Dimensions are summed first, as they should be, the components added by a log-sum-exp:

# %%
def log_mixture(z, weights, means, log_var):
    log_normal = -0.5 * (LOG_2PI + log_var + (z.unsqueeze(1) - means) ** 2 / log_var.exp())
    return (weights.log()[:, None] + log_normal).sum(-1).logsumexp(1)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** Twins. Replace a component by two copies of itself with half its weight each. Nothing has changed, Eq. (3.2), so the density may not change either:

# %%
one = torch.ones(1), torch.zeros(1, 2), torch.zeros(1, 2)                   # a single Gaussian
two = torch.full((2,), 0.5), torch.zeros(2, 2), torch.zeros(2, 2)           # the same, said twice
ten = torch.full((10,), 0.1), torch.zeros(10, 2), torch.zeros(10, 2)        # ... and ten times
for mixture in (one, two, ten):
    value = log_mixture(torch.zeros(1, 2), *mixture)
    print(f"{len(mixture[0]):2} components: log-density at the center {float(value):.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.3 (★★, 10 minutes)
# What does the density of ten twins add up to? And in a latent space of 64 dimensions? Repair it: `z` is $(N,d)$, `weights` $(K,)$, `means` and `log_var` $(K,d)$.

# %%
def my_log_mixture(z, weights, means, log_var):
    raise NotImplementedError

check("13.3", my_log_mixture)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Case 4: a prior from the toolbox
#
# Why write formulas, if `torch.distributions` has mixtures? A prior with `means` and standard deviations `std`, both $(K,d)$. The result has one number for each dimension, so they are summed, as always with independent coordinates:

# %%
from torch.distributions import Categorical, MixtureSameFamily, Normal


def log_prior(z, weights, means, std):
    choice = Categorical(weights.expand(means.shape[1], -1))
    return MixtureSameFamily(choice, Normal(means.T, std.T)).log_prob(z).sum(-1)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** Draws against density. Two components, at $(-3,-3)$ and $(3,3)$, drawn by hand: how many draws fall into the upper left quarter of the plane, and how many does the density promise? For any sampler that belongs to
# a density $p$, and any region $B$,
#
# $$P(z\in B)=\mathbb E\big[1_B(z)\big]=\int_Bp(z)\,dz,\qquad 1_B(z)=1\text{ if }z\in B,\text{ else }0. \tag{13.1}$$

# %%
pair = torch.tensor([0.5, 0.5]), torch.tensor([[-3.0, -3.0], [3.0, 3.0]]), torch.ones(2, 2)
chosen = torch.multinomial(pair[0], 20_000, replacement=True)
z = pair[1][chosen] + torch.randn(20_000, 2)
drawn = ((z[:, 0] < 0) & (z[:, 1] > 0)).double().mean()
corner = (plane[:, 0] < 0) & (plane[:, 1] > 0)
promised = log_prior(plane[corner], *pair).exp().sum() * area               # Eq. (13.1)
print(f"drawn {drawn:.2f}, promised {promised:.2f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# And at the one point $(-3,3)$, where there is no component, beside what the library says. (Adding up would not have found it.)

# %%
from gmvae_lib.mixture import GaussianMixture

there, library = torch.tensor([[-3.0, 3.0]]), GaussianMixture(2, covariance_type="diag")
library.set_parameters(pair[0], pair[1], pair[2] ** 2)
honest = library.score_samples(there)
print(f"{float(log_prior(there, *pair)):.2f}, and it should be {float(honest):.2f}")
print(f"the snippet adds up to {total(log_prior, *pair):.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.4 (★★, 10 minutes)
# How many bumps would ten components in ten dimensions have? Why would a test in one dimension not notice? Repair it, with or without `torch.distributions`: the arguments are those of `log_prior`, the result is $(N,)$.

# %%
def my_log_prior(z, weights, means, std):
    raise NotImplementedError

check("13.4", my_log_prior)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Move it yourself
#
# One of five programs for a mixture of two components in the plane, and six tests, run again whenever you move something. The sentence below says which of the tests notice. The five are the right program and cases 1 to 4.
#
# - For each wrong program, find a mixture for which *no* test notices. (For one of them there is none.) What do these mixtures have in common? Would you have chosen them for a test?
# - Which program does only one of the six tests ever notice?
# - One of the six tests never fails here. Is it useless? Think of a bug that it would find.

# %%
from gmvae_lib.explorers import BugExplorer

BugExplorer()

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Expectation–maximization
#
# ### Case 5: safety first
#
# Responsibilities from the log-joint $a_{nk}=\log\pi_k+\log\mathcal N(x_n|\mu_k,\Sigma_k)$. The small number is there so that nothing is divided by zero:

# %%
def responsibilities(log_joint):
    joint = log_joint.exp() + 1e-10
    return joint / joint.sum(1, keepdim=True)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** A limit. Two unit Gaussians at $\pm4$, and a point that moves out to the right. The further it goes, the surer it belongs to the right component:

# %%
for x in (1.0, 8.0, 16.0, 32.0):
    log_joint = -0.5 * (x - torch.tensor([[-4.0, 4.0]])) ** 2 - 0.5 * LOG_2PI + math.log(0.5)
    share = responsibilities(log_joint)[0, 1]
    print(f"x = {x:2.0f}: the right component's share is {float(share):.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.5 (★, 5 minutes)
# At which distance does it begin, and what would a smaller constant change? Repair it: `log_joint` and the result are $(N,K)$.

# %%
def my_responsibilities(log_joint):
    raise NotImplementedError

check("13.5", my_responsibilities)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Cases 6 to 8: an algorithm in four formulas
#
# EM for a Gaussian mixture with weights $\alpha_k$, as it stands in an article, complete. (The superscript counts steps, $i$ counts points.) *E-step:*
#
# $$\mu_k^{(t+1)}=\frac{\sum_{i=1}^Nw_k^{(t)}x_i}{\sum_{i=1}^Nw_k^{(t)}},\qquad \Sigma_k^{(t+1)}=\frac{\sum_{i=1}^Nw_k^{(t)}(x_i-\mu_k^{(t+1)})(x_i-\mu_k^{(t+1)})^\top}{\sum_{i=1}^Nw_k^{(t)}}.$$
#
# *M-step:*
#
# $$\alpha_k^{(t+1)}=\frac1N\sum_{i=1}^N\frac{w_k^{(t)}}{\sum_{j=1}^Kw_j^{(t)}},\qquad w_k^{(t+1)}=\frac1N\sum_{i=1}^N\frac{\mathcal N(x_i|\mu_k^{(t+1)},\Sigma_k^{(t+1)})}{\sum_{j=1}^K\mathcal N(x_i|\mu_j^{(t+1)},\Sigma_j^{(t+1)})}.$$
#
# Which of the four is an E-step? Which names are exchanged? Two more mistakes are in it, and a trap for those who write the program. Each of the three has a test.

# %% [markdown] slideshow={"slide_type": "fragment"}
# Here are the formulas for $w$ and $\mu$ in code, on a line. (Chapter 2 begins with responsibilities, and so do we.)

# %%
def log_normal_line(x, means, sds):
    return -0.5 * (LOG_2PI + ((x[:, None] - means) / sds) ** 2) - sds.log()  # (N, K)

def published_means(x, means, sds):
    w = log_normal_line(x, means, sds).softmax(1).mean(0)                   # w_k, (K,)
    return (w * x[:, None]).sum(0) / (w * torch.ones(len(x), 1)).sum(0)     # mu_k, (K,)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **The test for case 6.** Data whose answer is known: three groups on a line, far apart, and a start that is almost right. One step should leave the means about where they are:

# %%
torch.manual_seed(1)
places = torch.tensor([-10.0, 0.0, 10.0])
x = places.repeat_interleave(200) + torch.randn(600)
moved = published_means(x, places, torch.ones(3))
print("groups at", places.tolist())
print("means after one step:", [round(value, 1) for value in moved.tolist()])
print("the mean of all points:", f"{float(x.mean()):.1f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.6 (★★, 10 minutes)
# Cancel what can be cancelled in the formula for $\mu_k$. Which index is missing from $w_k^{(t)}$? Then write the step as it should be: from `x` $(N,)$, and weights, means and standard deviations $(K,)$, first the responsibilities, then the new means $(K,)$.

# %%
def my_new_means(x, weights, means, sds):
    raise NotImplementedError

check("13.6", my_new_means)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **The test for case 7.** We give $w$ its index $i$ back, $w_{ik}$, and change nothing else:

# %%
def e_step(x, weights, means, sds):
    return log_normal_line(x, means, sds).softmax(1)                        # (N, K)

# %% [markdown] slideshow={"slide_type": "fragment"}
# EM never lowers the likelihood, Eq. (2.22). So from where right EM has come to rest, on many points around zero with a few in a narrow group beside them, nothing may get worse:

# %%
x, *start = figures.unequal_pair()
rest, likelihoods = start, []
for _ in range(12):
    weights, means, sds = rest
    likelihoods.append((weights.log() + log_normal_line(x, means, sds)).logsumexp(1).sum())
    resp = e_step(x, *rest)
    counts = resp.sum(0)
    means = (resp * x[:, None]).sum(0) / counts
    rest = counts / len(x), means, ((resp * (x[:, None] - means) ** 2).sum(0) / counts).sqrt()
print("the first step loses more than ten nats:", bool(likelihoods[1] < likelihoods[0] - 10))
print(f"the rare group's weight, before: {start[0][1]:.2f}, after: {rest[0][1]:.1f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# Step by step:

# %%
figures.curves(
    range(12), {"log-likelihood": torch.stack(likelihoods)},
    "EM with responsibilities that lack something", "step", "log-likelihood (nats)",
    "A log-likelihood over twelve steps. It falls steeply for three steps, then rises slowly, and "
    "does not come back to where it began.", size=(7, 3.4))

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.7 (★★, 10 minutes)
# For which data would nobody ever notice? Write the E-step as it should be: the arguments are those of `e_step`, the result is $(N,K)$.

# %%
def my_e_step(x, weights, means, sds):
    raise NotImplementedError

check("13.7", my_e_step)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **The test for case 8.** What is left is $\alpha_k$. With $w_{ik}$ restored, its denominator $\sum_{j=1}^Kw_{ij}$ is one, and the division does nothing. Here is a program by somebody who thought that a division must be there for something, and took the sum over the points:

# %%
def new_weights(resp):
    return (resp / resp.sum(0)).mean(0)

# %% [markdown] slideshow={"slide_type": "fragment"}
# Two things are known beforehand. Weights sum to one. And with one component, $K=1$, all weight is its own:

# %%
torch.manual_seed(2)
three, alone = torch.randn(50, 3).softmax(1), torch.ones(50, 1)
print(f"three components: the weights sum to {float(new_weights(three).sum()):.2f}")
print(f"one component:    its weight is {float(new_weights(alone)):.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.8 (★, 5 minutes)
# Which numbers does `new_weights` return for *any* responsibilities? Repair it, Eq. (2.11): `resp` is $(N,K)$, the result $(K,)$.

# %%
def my_weights(resp):
    raise NotImplementedError

check("13.8", my_weights)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Case 9: a formula from school
#
# The M-step for diagonal covariances. The variance is the mean of the squares less the square of the mean:

# %%
def variances(x, resp):
    counts = resp.sum(0)[:, None]
    means = resp.T @ x / counts
    return resp.T @ x**2 / counts - means**2

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** Another origin. Move all data by the same amount: a variance must not change. (Time stamps in milliseconds are numbers of this kind, and so are coordinates on a map.)

# %%
torch.manual_seed(3)
cloud, everybody = 0.5 * torch.randn(1000, 1), torch.ones(1000, 1)
for offset in (0.0, 1e3, 1e8):
    close = abs(variances(cloud + offset, everybody) / cloud.var() - 1) < 0.1
    print(f"moved by {offset:.0e}: the variance is right to a tenth:", bool(close))

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.9 (★★, 10 minutes)
# The numbers are in double precision, with 16 digits. Where did they go? Repair it: `x` is $(N,D)$, `resp` $(N,K)$, the result $(K,D)$.

# %%
def my_variances(x, resp):
    raise NotImplementedError

check("13.9", my_variances)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The bound of the VAE
#
# ### Case 10: whose mean is it?
#
# The variational autoencoder (VAE), as the same article defines it: $p(x,z)=p(x|z)\,p(z)=\mathcal N(x|\mu_x(z),\Sigma_x(z))\,\mathcal N(z|\mu_z,\Sigma_z)$, "where $\mu_z$ is the output of the encoder, and $\Sigma_z$ its covariance". So for one
# coordinate, a decoder that passes $z$ on, and noise of variance $\frac14$:

# %%
def normal(x, mean, log_var):
    return -0.5 * (LOG_2PI + log_var + (x - mean) ** 2 / log_var.exp())

def elbo(x, mean, log_var, eps):
    z = mean + (0.5 * log_var).exp() * eps
    log_joint = normal(x, z, torch.tensor(0.25).log()) + normal(z, mean, log_var)
    return log_joint - normal(z, mean, log_var)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** A model with all the answers. With the prior $\mathcal N(0,1)$ we know $p(x)=\mathcal N(x|0,1+\frac14)$ exactly, Eq. (4.11), and a lower bound stays below it, on average over draws, for every encoder. We ask an encoder that is sure of itself:

# %%
for x in (0.5, 2.0, 5.0):
    x, log_var = torch.tensor(x), torch.tensor(-4.0)
    bound = elbo(x, x, log_var, eps[:, 0]).mean()
    truth = normal(x, 0.0, torch.tensor(1.25).log())
    print(f"x = {x:.1f}: the bound says {bound:.1f}, and log p(x) is {truth:.1f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.10 (★★, 10 minutes)
# What is the rate of this model? Which $z$ would you draw in order to make a new $x$? Repair the bound, with the prior $\mathcal N(0,1)$ and the same decoder: everything is $(N,)$; all three log-densities are taken at the one draw $z$.

# %%
def my_elbo(x, mean, log_var, eps):
    raise NotImplementedError

check("13.10", my_elbo)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Case 11: what an image costs
#
# The distortion of black and white images, by PyTorch's own loss:

# %%
from torch.nn import functional as F


def distortion(x, logits):
    return F.binary_cross_entropy_with_logits(logits, x)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** Two of anything. Paste two images side by side: with independent pixels their probabilities multiply, so that the costs of $x$ and $x'$ add up,
#
# $$D(x,x')=D(x)+D(x'), \tag{13.2}$$
#
# and that of an image beside itself is twice its own:

# %%
torch.manual_seed(4)
x, logits = (torch.rand(1, 64) < 0.5).double(), torch.randn(1, 64)
once = distortion(x, logits)
twice = distortion(torch.cat([x, x], 1), torch.cat([logits, logits], 1))
print(f"two images cost {float(twice / once):.1f} times as much as one")   # Eq. (13.2)

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.11 (★, 5 minutes)
# A rate, summed over latent dimensions, is added to it. Which $\beta$ is in this loss, for 64 pixels and for $28\times28$? Repair it: `x` and `logits` are $(N,D)$, the result is one number for each image, $(N,)$.

# %%
def my_distortion(x, logits):
    raise NotImplementedError

check("13.11", my_distortion)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Case 12: grey
#
# The same formula, now with one number for each image, and with the digits' pixels divided by 16, so that they lie between 0 and 1 "like probabilities":

# %%
def log_prob(x, logits):
    return (x * logits - F.softplus(logits)).sum(1)                        # Eq. (5.12)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** Count them all. A pixel has 17 grey levels, and one of them must occur:

# %%
levels = torch.linspace(0, 1, 17)[:, None]
for rho in (0.5, 0.9, 0.99):
    logit = torch.logit(torch.tensor(rho)).expand(17, 1)
    everything = log_prob(levels, logit).exp().sum()
    print(f"probability of a grey level, any at all, when rho = {rho}: {float(everything):.1f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.12 (★★, 10 minutes)
# Which $\rho$ does this "likelihood" pay for, and what will reconstructions look like? Keep the factor $e^{x_ia_i}$ of each pixel, and divide by what it adds up to over the 17 levels: a likelihood for grey pixels, a neighbour of chapter 5's Binomial. `x` $(N,D)$
# holds multiples of $\frac1{16}$, `logits` $(N,D)$ are the $a_i$, the result is $(N,)$.

# %%
def my_grey_log_prob(x, logits):
    raise NotImplementedError

check("13.12", my_grey_log_prob)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Case 13: two heads
#
# The last layer of an encoder, from the hidden units $h$ to a mean and a log-variance:

# %%
def heads(h, w_mean, b_mean, w_var, b_var):
    mean = h @ w_mean + b_mean
    log_var = h @ w_mean + b_var
    return mean, log_var

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** Push and see. Any smooth function $f$ of a parameter $t$ answers a small push $\delta$ by
#
# $$f'(t)=\frac{f(t+\delta)-f(t-\delta)}{2\delta}+O(\delta^2). \tag{13.3}$$
#
# This is how gradients are checked. It also shows what a parameter is connected to: we push all entries of one, and look at which output moves.

# %%
torch.manual_seed(5)
h, push = torch.randn(3, 4), 1e-4
parameters = [torch.randn(size) for size in ((4, 2), (2,), (4, 2), (2,))]
for i, name in enumerate(("w_mean", "b_mean", "w_var", "b_var")):
    up, down = (heads(h, *(p + s * push * (i == j) for j, p in enumerate(parameters)))
                for s in (1, -1))
    slopes = [(a - b).abs().max() / (2 * push) for a, b in zip(up, down)]   # Eq. (13.3)
    print(f"{name}: moves the mean {bool(slopes[0] > 0.1)}, log_var {bool(slopes[1] > 0.1)}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.13 (★, 5 minutes)
# Why does such a model train at all, and what can its encoder not say? Repair it: `h` is $(N,H)$, weights are $(H,d)$, biases $(d,)$; the result is a pair.

# %%
def my_heads(h, w_mean, b_mean, w_var, b_var):
    raise NotImplementedError

check("13.13", my_heads)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The VAE with a mixture prior
#
# ### Case 14: the price of a choice
#
# A mixture-prior VAE that infers a component pays for the choice: the Kullback–Leibler divergence (KL) from $q(c|x)$, here `q` $(N,K)$, to the uniform distribution $U$ over the components. Two programs, by two authors:

# %%
def first(q):
    return torch.xlogy(q, q).sum(1) - math.log(0.1)

def second(q):
    return -math.log(q.shape[1]) - q.log().mean(1)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** Cases that everybody can do in the head. Who has only one component chooses nothing, and pays nothing. Who is undecided among $K$ pays nothing either. Who is sure, one out of $K$, pays $\log K$: that is what a choice among $K$ says.

# %%
cases = {"one component": (torch.ones(1), 0.0), "undecided among 4": (torch.ones(4) / 4, 0.0),
         "sure, one of 4": (torch.tensor([1.0, 0, 0, 0]), math.log(4)),
         "sure, one of 10": (F.one_hot(torch.tensor(3), 10).double(), math.log(10))}
for name, (q, expected) in cases.items():
    one, other = (round(float(program(q[None])), 2) + 0.0 for program in (first, second))
    print(f"{name}: first {one:.2f}, second {other:.2f}, should be {expected:.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.14 (★★, 10 minutes)
# In which setting has each of them been tested by its author? Write it for any $K$, and for a `q` that may be sure: the result is $(N,)$.

# %%
def my_price(q):
    raise NotImplementedError

check("13.14", my_price)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Case 15: parameters that are weights
#
# The weights of the prior are parameters, so they are declared as such, and an optimizer may do with them what it likes. The rate is Eq. (8.16), with `kl` $(N,K)$:

# %%
def rate(kl, weights):
    return -torch.logsumexp(weights.log() - kl, 1)                         # Eq. (8.16)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** A sign. No rate is negative, because no KL is. What does an optimizer gain by making all weights larger?

# %%
kl = torch.tensor([[1.0, 6.0, 7.0], [5.0, 2.0, 6.0]])
for factor in (1, 2, 10, 1000):
    weights = factor * torch.ones(3) / 3
    print(f"weights that sum to {factor:4}: mean rate {float(rate(kl, weights).mean()):5.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.15 (★, 5 minutes)
# By how much does the loss fall for each doubling, and where does it end? Write `my_log_weights`: from any real numbers `raw` $(K,)$, also very unequal ones, to $\log\pi_k$, where the $\pi_k$ are proportional to $e^{\text{raw}_k}$ and sum to one.

# %%
def my_log_weights(raw):
    raise NotImplementedError

check("13.15", my_log_weights)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Case 16: a rate for every prior
#
# The rate under a mixture prior has no closed form. But it is an average over draws, and one draw for each image will do: the average over many images takes the noise away, and the gradient is right on average. So here is a program for any prior whose log-density is known, `log_prior`, a function from $(N,d)$ to $(N,)$:

# %%
def sampled_rate(mean, log_var, eps, log_prior):
    z = mean + (0.5 * log_var).exp() * eps
    return log_prob_diag(z, mean, log_var) - log_prior(z)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** A sign once more. No KL is negative, and so no rate is. We give the program 1,000 images, each with an encoder of its own, and a prior of two components:

# %%
def two_hills(z):
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    return log_prob_diag(z.unsqueeze(1), means, torch.zeros(2)).logsumexp(1) - math.log(2)

torch.manual_seed(8)
mean, log_var, eps = 0.5 * torch.randn(1000, 2), 0.3 * torch.randn(1000, 2), torch.randn(1000, 2)
rates = sampled_rate(mean, log_var, eps, two_hills)
print("smallest rate below -1:", bool(rates.min() < -1))
print("images with a negative rate, more than 200 of 1,000:", bool((rates < 0).sum() > 200))

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.16 (★★, 10 minutes)
# What do the minus signs say? What would you change before you train with it? Write it as it should be: `mean`, `log_var` and `eps` are $(N,d)$, the result is $(N,)$.

# %%
def my_rate(mean, log_var, eps, log_prior):
    raise NotImplementedError

check("13.16", my_rate)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Case 17: the whole program
#
# The same article has code, under the heading "a Gaussian-mixture VAE". It imports a module that was never part of any release of its library, so it cannot have been run. In our library it would read:

# %%
from gmvae_lib.likelihood import Gaussian
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE

torch.manual_seed(1)
data = torch.randn(1000, 10)                                               # some data
model = VAE.build(10, latent_dim=5, hidden=(100, 50), likelihood=Gaussian())  # the mixture VAE
fit(model, data, epochs=30, batch_size=32, device="cpu")
with torch.no_grad():
    new_data = model.decode(torch.randn(1000, 5))

# %% [markdown] slideshow={"slide_type": "fragment"}
# It runs now. **The test.** Questions to a program that claims to be a mixture, to have learnt something, and to make new data:

# %%
held_out = torch.randn(500, 10)
with torch.no_grad():
    bound = model.elbo(held_out)
    known = -log_prob_diag(held_out, data.mean(0), data.var(0).log())      # one plain Gaussian
print("components of the prior:", model.prior.n_components)
print("a tenth of a nat better than one plain Gaussian:",
      bool(-bound.value.mean() < known.mean() - 0.1))
print("codes that say half a nat:", bool(bound.rate.mean() > 0.5))
print("the new data spread less than a third of the data:", bool(new_data.std() < data.std() / 3))

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.17 (★★, 15 minutes)
# What is there to learn in these data, and what did the program learn? A model should be asked whether it beats one that knows next to nothing. Write the comparison: from the costs of the same $N$ held-out points under model and baseline, each
# $(N,)$ in nats, return the mean gain (positive if the model is better) and its standard error, as a pair.

# %%
def my_gain(model, baseline):
    raise NotImplementedError

check("13.17", my_gain)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Evaluation and experiments
#
# ### Case 18: accuracy
#
# How good is a clustering? Let each cluster vote for the class that most of its points have, and count the points that agree:

# %%
def accuracy(y, clusters):
    right = sum(torch.bincount(y[clusters == c]).max() for c in clusters.unique())
    return right / len(y)

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** Noise. Labels of ten classes and clusters that are drawn at random have nothing to do with each other. Whatever $K$ is, a score that calls itself accuracy should stay near a tenth, or below:

# %%
torch.manual_seed(6)
y = torch.randint(10, (1000,))
for n_clusters in (10, 100, 500):
    clusters = torch.randint(n_clusters, (1000,))
    print(f"{n_clusters} random clusters: accuracy {float(accuracy(y, clusters)):.2f}")
print(f"each point a cluster: accuracy {float(accuracy(y, torch.arange(1000))):.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.18 (★★, 10 minutes)
# Two studies report this number, one with $K=10$, the other with $K=100$. What would make them comparable? Write the accuracy in which each cluster is matched with at most one class and each class with at most one cluster, as well as possible
# (`scipy.optimize.linear_sum_assignment`): `y` and `clusters` are $(N,)$ whole numbers from 0.

# %%
def my_accuracy(y, clusters):
    raise NotImplementedError

check("13.18", my_accuracy)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Case 19: a sentence
#
# The article closes with questions and answers. *Should the KL divergence be minimal?* "Usually we want it to be as small as possible. However, **a KL divergence that is too small may lead to overfitting**."
#
# A sentence can be tested like a formula. Chapter 6 comes with eighteen VAEs of the digits, three for each of six $\beta$: their distortion and rate (which is this KL) on training and on held-out images.

# %%
from gmvae_lib.pretrained.rate_distortion import load_comparison

rows = [row for row in load_comparison() if row[0] == "single"]
betas = torch.tensor([row[2] for row in rows])
train_d, train_r, test_d, test_r = torch.tensor([row[3:7] for row in rows]).T

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** Do it. A model overfits if new images are dearer than those it was trained on. If the sentence is right, the gap is largest where the KL is smallest:

# %%
gap = (test_d + test_r) - (train_d + train_r)
by_beta = torch.stack([gap[betas == beta] for beta in betas.unique()], 1)   # (seeds, betas)
rates = torch.stack([train_r[betas == beta].mean() for beta in betas.unique()])
print("largest KL:  the gap is above 20 nats", bool((by_beta[:, 0] > 20).all()))
print("smallest KL: the gap is below 3 nats", bool((by_beta[:, -1].abs() < 3).all()))
figures.curves(
    rates, {"held-out less training images": by_beta.mean(0)}, "Who overfits?",
    "rate, the KL divergence (nats)", "gap (nats per image)", errors={
        "held-out less training images": by_beta.std(0)}, size=(7, 3.6),
    alt="The gap between the costs of held-out and of training images, over the rate, with small "
        "error bars. It is two nats below zero where the rate is about zero, and rises steadily "
        "to some thirty nats where the rate is largest.")

# %% [markdown] slideshow={"slide_type": "-"}
# (Below zero at the left: where all images are drawn alike nothing is learnt by heart, and these held-out images happen to be two nats cheaper.)

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.19 (★, 5 minutes)
# What happens when the KL is too small, and what is that called? Write the measure of overfitting: from distortions and rates of training images, $(N,)$ each, and of held-out ones, $(M,)$ each, the gap in nats per image.

# %%
def my_gap(train_distortion, train_rate, test_distortion, test_rate):
    raise NotImplementedError

check("13.19", my_gap)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Case 20: the best of fifty
#
# Clustering depends on its start, so one trains fifty times, and reports the best run:

# %%
def report(bounds, accuracies):
    return accuracies.max()

# %% [markdown] slideshow={"slide_type": "fragment"}
# **The test.** Shuffled labels. Fifty "runs" that know nothing: for each of 100 test images, each of them says one of two classes, by tossing a coin. An honest report is one half:

# %%
torch.manual_seed(7)
guesses, y = torch.randint(2, (50, 100)), torch.randint(2, (100,))
bounds = torch.randn(50)
accuracies = (guesses == y).double().mean(1)
print("reported is more than 0.58:", bool(report(bounds, accuracies) > 0.58))

# %% [markdown] slideshow={"slide_type": "fragment"}
# That was one set of images. Two hundred sets say what such a report is worth on average:

# %%
tosses = torch.randint(2, (200, 50, 100)).double().mean(2)                  # (sets, runs)
average = torch.stack([report(bounds, runs) for runs in tosses]).mean()
print(f"reported on average: {float(average):.2f}, known: 0.50")

# %% [markdown] slideshow={"slide_type": "subslide"}
# #### Exercise 13.20 (★, 5 minutes)
# How should the run be chosen, and why is it fair then to report its accuracy? Write the report: `bounds` (the evidence lower bound, ELBO, of each run on the *training* images) and `accuracies` (on the test images) are $(S,)$.

# %%
def my_report(bounds, accuracies):
    raise NotImplementedError

check("13.20", my_report)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Failure lab: a test that cannot fail
#
# The last bug is in the tests themselves. Here is one, for a sampler and a density, in a style that is seen often:

# %%
def test_sampler(sample, log_density):
    draws = sample(1000)
    print("mean of the draws:", draws.mean(0).round().abs().tolist())
    torch.allclose(draws.mean(0), torch.zeros(2), atol=0.2)

# %% [markdown] slideshow={"slide_type": "fragment"}
# We give it the four bumps of case 4 with draws from two:

# %%
def sample_pair(n):
    c = torch.multinomial(pair[0], n, replacement=True, generator=torch.Generator().manual_seed(0))
    return pair[1][c] + torch.randn(n, 2, generator=torch.Generator().manual_seed(1))

test_sampler(sample_pair, lambda z: log_prior(z, *pair))

# %% [markdown] slideshow={"slide_type": "fragment"}
# It is green. **Diagnosis:** nothing in it can fail. There is no `assert`, so that `allclose` says what it finds to nobody. The density is not used. And the mean, even if it were compared, is right for two bumps as for four. **Cure:** before you trust
# a test, break the program and watch it fail. That is how the tests of this course's equations are tried: a formula is changed by hand, to see the test fail.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 13.21 (★★★, 25 minutes)
# Write the test. You are given `sample`, which returns $n$ draws $(n,2)$ when called as `sample(n, generator)`, and `log_prob`, from $(N,2)$ to $(N,)$. Do they belong together, Eq. (13.1), and does the density add up to one? Return `True` or `False`. Nearly all of the mass lies between $-12$ and
# $12$. `check` has eight pairs for you, among them some that you have met. How many draws do you need, how small may your boxes be, and how large a difference is too large?

# %%
def belong_together(sample, log_prob):
    raise NotImplementedError

check("13.21", belong_together)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The picture again
#
# A is case 4, B is case 7, C is case 2, D is case 5 and F is case 15. E is right, though it may look the strangest: at the center the narrow component is the denser one, but far out, on *both* sides, the wide one is, because its tails fall off more slowly. What looks wrong
# and what is wrong are two things, and only one of them can be tested. (Among the twenty cases, too, one is right. If you repaired it, `check` has told you so.)
#
# Why had nobody noticed? Nearly every bug of this chapter is invisible in a special case: unit variance (1, 2), one component (3, 4), one dimension (3, 4), equal weights (7), data around zero (9), ten components (14). Those are the cases that
# one tries first, because they are easy. **Test where the numbers are unequal, unround and not one.**

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Ten tests that would have found them all
#
# | | the test | it asks | cases |
# |---|---|---|---|
# | 1 | add up | Does the density integrate to one, do all values that can occur sum to one, do the weights? | 1, 3, 8, 12, 15 |
# | 2 | draw and compare | Do the sampler's draws fall where the density says, and as wide? | 2, 4, 21 |
# | 3 | go to the limit | Far away, certain, undecided: is it what everybody would say? | 5, 14 |
# | 4 | one of anything | One component, one pixel, one class: is the simple formula back? | 8, 14 |
# | 5 | say it twice | Twins with half the weight, an image beside itself: does nothing change, or double? | 3, 11 |
# | 6 | move and rename | Another origin, another unit, another order: does the answer follow? | 9 |
# | 7 | sign and direction | Is a KL never negative, a bound below the truth, does EM climb? | 7, 10, 15 |
# | 8 | know the answer | Data, a model or a measurement whose truth is known: does it come out? | 6, 10, 19 |
# | 9 | push and see | Finite differences: is the gradient right, and is every parameter connected? | 13 |
# | 10 | shuffle | Labels, columns or clusters without any meaning: does the score say so, and is a baseline beaten? | 17, 18, 20 |
#
# Some bugs are found by several tests, and no test finds them all. (21 is the failure lab. One case is missing, and should be.) Each takes a few lines. Most of them stand, in one form or another, among the tests of the course's own library, in `tests/unit` and `tests/equations`.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Four more, without a snippet
#
# Which of the ten tests finds each of these? (Answers at the end of the [solutions](solutions/13_find_the_bug.ipynb).)
#
# - A table of "negative log-likelihoods" whose entries are $-$ELBO.
# - A clustering that is trained and scored on the same images, among them the test set.
# - A VAE that starts from a trained autoencoder, whose log-variance head was never trained and is still random.
# - A training that is stopped and started afresh until the accuracy after the first epoch is high.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Summary
#
# - Wrong formulas run, train and flatter. Nothing about the output says that they are wrong.
# - A test is a question whose answer is known beforehand: a sum, a limit, a symmetry, a bound, a baseline, noise.
# - A test that fails accuses the program or the tester. Ask what is known beforehand, exactly: of an average, or of each of its terms?
# - A test is worth what it can fail on. Unit variances, one dimension, equal weights and $K=10$ are where bugs hide.
# - Sampler, density and bound are written separately, so they can contradict each other. Let them.
# - Numbers about models are programs too: an accuracy, a "likelihood", the best of fifty runs, a sentence in a conclusion.
#
# **May now be imported:** nothing new. What you take along are the ten tests.
#
# **Where this leads.** To the [appendix, notation and glossary](appendix_notation_and_glossary.ipynb), where the article's other questions have their answers, and to your own code. Find the chapters that you have not read on [the map](00_start_here.ipynb#The-map).

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Sources
#
# - The snippets are adapted from published articles, tutorials and repositories on mixtures, EM, VAEs and their combinations, among them an article that this course grew from. We name no one: all of us have written some of these.
# - T. F. Chan, G. H. Golub and R. J. LeVeque (1983). Algorithms for computing the sample variance: analysis and recommendations. (Case 9.)
# - G. Loaiza-Ganem and J. Cunningham (2019). The Continuous Bernoulli: Fixing a Pervasive Error in Variational Autoencoders. (Case 12.)
# - J. Geweke (2004). Getting It Right: Joint Distribution Tests of Posterior Simulators. (Draws against densities, in general.)
# - T. Y. Chen, S. C. Cheung and S. M. Yiu (1998). Metamorphic Testing: A New Approach for Generating Next Test Cases. (Tests 5 and 6.)
# - R. Roelofs and others (2019). A Meta-Analysis of Overfitting in Machine Learning. (What choosing by test scores costs.)
