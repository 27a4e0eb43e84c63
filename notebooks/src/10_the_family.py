# %% [markdown] slideshow={"slide_type": "slide"}
# # 10 The family
#
# *Which GMVAE is this?*
#
# Who says "Gaussian-mixture VAE" may mean any of several models. Six of them, near relatives included, share a class $c$, a code $z$
# and an image $x$, and papers draw them much alike. Here they are side by side. Black arrows say how each makes an image, dashed and dotted ones how it finds out, from an
# image, what made it. Which arrow is missing where?

# %% slideshow={"slide_type": "-"}
import torch

from gmvae_lib import explorers, figures

torch.set_num_threads(1)
figures.six_models()

# %% [markdown] slideshow={"slide_type": "fragment"}
# By the end you will read such a picture as a loss function, and the other way round. Six losses will turn out to be one bound,
# taken with different answers to two questions: *how does the class reach the image*, and *who tells the class*.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What this chapter gives you
#
# By its end you can
#
# - write down the bound of M2, VaDE, Dilokthanakul's and Shu's GMVAE, the plain mixture prior and the VampPrior, and check each by counting;
# - say what one has to pay for inferring a class, and when it is free;
# - recognize each model under its paper's own letters, and compose it from `gmvae_lib` in a line or two;
# - build a network that names classes, a prior that moves and the VampPrior, and report honestly what each gains on few images;
# - take the gradient of a discrete choice in three ways, and say from their bias and variance which to use.
#
# **You need** the mixture-prior VAE ([chapter 8](08_mixture_prior_vae.ipynb)), the aggregate posterior
# ([chapter 7](07_the_prior_is_the_problem.ipynb)), and of [chapter 4](04_when_the_e_step_is_impossible.ipynb) the section on gradients without integrals.
# **Time:** about 90 minutes to read and run, another 50 for the exercises. *A discrete choice, three ways* makes a second sitting.

# %%
import math

from gmvae_lib.data import load
from gmvae_lib.gaussian import entropy_diag, kl_diag, kl_standard, log_prob_diag, sample_diag
from gmvae_lib.likelihood import Binomial
from gmvae_lib.network import MLP, Decoder, Encoder
from gmvae_lib.prior import MixturePrior
from gmvae_lib.training import decay, fit, warm_up
from gmvae_lib.vae import VAE

digits, held_out = load("digits"), load("digits", "test")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## One bound for all of them
#
# Let $h$ stand for everything that is not seen: $(z,c)$, or $(z,c,w)$, or $z$ alone. For any distribution $q(h|x)$, chapter 2's bound reads
#
# $$\mathcal L=\mathbb E_{q(h|x)}\Big[\log\frac{p(x,h)}{q(h|x)}\Big]=\log p(x)-\mathrm{KL}\big(q(h|x)\,\Vert\,p(h|x)\big). \tag{10.1}$$
#
# A model of the family is a choice of the joint $p(x,h)$, a choice of how $q(h|x)$ falls into factors, and whatever of $\mathcal L$ can then be done in
# closed form.
#
# ### A world small enough to count
# To check six bounds we need the truth. So we make a world in which everything is a table: $x$ has four values, $z$ five, $c$ three, and a
# further variable $w$, needed only once, two. Sums replace integrals, and $p(x)$ is a sum of 15 numbers, or of 30 with $w$. A formula that holds here for
# random tables holds for Gaussians too: its derivation asks only that the factors are distributions.

# %%
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
X, Z, K, W = 4, 5, 3, 2
x = 2                                                                   # the image that we look at

def table(*shape):
    """A random table whose last axis sums to one."""
    return torch.randn(*shape).softmax(-1)

pi, p_z_c, p_x_z = table(K), table(K, Z), table(Z, X)                   # p(c), p(z|c), p(x|z)
log_px_z = p_x_z[:, x].log()                                            # log p(x|z) of our image

# %% [markdown] slideshow={"slide_type": "-"}
# The bound, by counting every cell, and the divergence that everything else is made of:

# %%
def count(q, joint):
    """The bound of Eq. (10.1): q(h|x) and p(x, h) as tables over all h."""
    return (q * (joint / q).log()).sum()

def kl(q, p):
    """KL along the last axis."""
    return (q * (q / p).log()).sum(-1)

# %% [markdown] slideshow={"slide_type": "-"}
# First for $p(x,z,c)=\pi_c\,p(z|c)\,p(x|z)$ and a $q$ without any structure:

# %%
joint = pi[:, None] * p_z_c * p_x_z[:, x]                               # (K, Z)
log_evidence = joint.sum().log()
q = table(K * Z).reshape(K, Z)
posterior = joint / joint.sum()
gap = kl(q.ravel(), posterior.ravel())
assert torch.isclose(count(q, joint), log_evidence - gap)               # Eq. (10.1)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What one more latent costs
# Split $h$ into two parts, $h=(a,b)$, and let $q$ infer $a$ first, then $b$: $q(a|x)\,q(b|a,x)$. Split the joint likewise, $p(x,a,b)=p(x,a)\,p(b|a,x)$.
# The logarithm of the ratio falls into two, and the second has a KL as its mean:
#
# $$\mathcal L_{ab}=\underbrace{\mathbb E_{q(a|x)}\Big[\log\frac{p(x,a)}{q(a|x)}\Big]}_{\mathcal L_a,\text{ with } b \text{ summed out}}
# -\;\mathbb E_{q(a|x)}\Big[\mathrm{KL}\big(q(b|a,x)\,\Vert\,p(b|a,x)\big)\Big]. \tag{10.2}$$
#
# So inferring $b$ as well can only lower the bound, and we know exactly by how much: by how wrong we are about $b$, once $a$ is known. **A latent that is inferred by
# Bayes' rule is free.** Eqs. (10.6) and (10.19) will be nothing but this line. With $a=z$, $b=c$:

# %%
q_z, q_c_z = table(Z), table(Z, K)                                      # q(z|x), q(c|z,x)
p_c_z = (joint / joint.sum(0)).T                                        # p(c|z,x): Bayes, (Z, K)
wrong_about_c = q_z @ kl(q_c_z, p_c_z)
with_c, without_c = count(q_z * q_c_z.T, joint), count(q_z, joint.sum(0))
assert torch.isclose(with_c, without_c - wrong_about_c)                 # Eq. (10.2)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The class makes the code
#
# Four of the six make an image in a chain, $c\to z\to x$:
#
# $$p(x,z,c)=\pi_c\;p(z|c)\;p_\theta(x|z),\qquad p(z|c)=\mathcal N(z|\mu_c,\Sigma_c). \tag{10.3}$$
#
# The image knows its class only through the code, so $p(c|z,x)=p(c|z)$. They differ in who tells the class.
#
# ### The plain mixture prior: nobody
# If we only infer the code, $q_\phi(z|x)$, the class is summed out, and what remains is a VAE whose prior is a mixture:
#
# $$\mathcal L_{\text{mix}}=\mathbb E_{q_\phi(z|x)}\big[\log p_\theta(x|z)\big]-\mathrm{KL}\Big(q_\phi(z|x)\,\Big\Vert\,\sum_c\pi_c\,p(z|c)\Big). \tag{10.4}$$
#
# This is chapter 8's exact rate. By Eq. (10.2) we may infer $c$ as well, at no cost, if we take $p(c|z)\propto\pi_c\,p(z|c)$ for it:
# hence the dotted arrow in the picture.

# %%
mix = q_z @ log_px_z - kl(q_z, pi @ p_z_c)                              # Eq. (10.4)
assert torch.isclose(mix, count(q_z * p_c_z.T, joint))                  # c by Bayes' rule: free

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### VaDE: the image, directly
# *Variational deep embedding* infers both from the image, independently of each other: $q(z,c|x)=q_\phi(z|x)\,q(c|x)$. The joint KL falls apart, as in Eq. (8.13):
#
# $$\mathcal L_{\text{VaDE}}=\mathbb E_{q_\phi(z|x)}\big[\log p_\theta(x|z)\big]-\sum_cq(c|x)\,\mathrm{KL}\big(q_\phi(z|x)\,\Vert\,p(z|c)\big)-\mathrm{KL}\big(q(c|x)\,\Vert\,\pi\big). \tag{10.5}$$
#
# All KLs are now closed forms. The price is what Eq. (10.2) says for $a=z$, $b=c$ and a $q(c|z,x)$ that is the same $q(c|x)$ for all codes. With $c$ summed out $\mathcal L_a$ is $\mathcal L_{\text{mix}}$, hence
#
# $$\mathcal L_{\text{mix}}-\mathcal L_{\text{VaDE}}=\mathbb E_{q_\phi(z|x)}\Big[\mathrm{KL}\big(q(c|x)\,\Vert\,p(c|z)\big)\Big]. \tag{10.6}$$

# %%
def vade(q_c):
    """Eq. (10.5), for any q(c|x)."""
    return q_z @ log_px_z - q_c @ kl(q_z, p_z_c) - kl(q_c, pi)


# %% [markdown] slideshow={"slide_type": "-"}
# For any $q(c|x)$ the bound must be the counted one, and the gap what Eq. (10.6) says:

# %%
q_c = table(K)
assert torch.isclose(vade(q_c), count(q_c[:, None] * q_z, joint))
assert torch.isclose(mix - vade(q_c), q_z @ kl(q_c, p_c_z))             # Eq. (10.6)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Which $q(c|x)$?** The authors argue: Eq. (10.6) would vanish for $q(c|x)=p(c|z)$. It cannot for every $z$ at once, and they take the mean,
# estimated from a draw of $z$:
#
# $$q_{\text{mean}}(c|x)=\mathbb E_{q_\phi(z|x)}\big[p(c|z)\big]. \tag{10.7}$$
#
# Chapter 8 asked for the best one instead. As a function of $q(c|x)$, Eq. (10.6) is $\sum_cq(c|x)\big(\log q(c|x)-\mathbb E_{q_\phi(z|x)}\log p(c|z)\big)$. That is, up to a constant, the KL from $q(c|x)$ to the distribution proportional to $\exp\mathbb E\log p(c|z)$, and a KL is least where the two are equal:
#
# $$q^\star(c|x)\;\propto\;\exp\,\mathbb E_{q_\phi(z|x)}\big[\log p(c|z)\big]\;\propto\;\pi_c\,e^{-\mathrm{KL}(q_\phi(z|x)\Vert p(z|c))}, \tag{10.8}$$
#
# where the second form is Eq. (8.15): $\log p(c|z)=\log\pi_c+\log p(z|c)-\log p(z)$, and $\mathbb E\log p(z|c)$ is $-\mathrm{KL}(q_\phi(z|x)\Vert p(z|c))$ less an entropy without $c$. Logarithms are averaged, not probabilities: it is a *geometric* mean, where VaDE takes the *arithmetic* one.

# %%
arithmetic = q_z @ p_c_z                                                # Eq. (10.7)
geometric = (q_z @ p_c_z.log()).softmax(0)                              # Eq. (10.8)
assert torch.allclose(geometric, (pi.log() - kl(q_z, p_z_c)).softmax(0))
print("geometric above arithmetic:", bool(vade(geometric) > vade(arithmetic)))
print("both below the plain bound:", bool(vade(geometric) < mix))

# %% [markdown] slideshow={"slide_type": "-"}
# Where the encoder has settled in one component the two means agree. Where its codes fall partly to one and partly to another they
# need not, and the geometric mean's bound is the higher one; it is nowhere the lower. Neither needs a network for $c$: both follow from $q_\phi(z|x)$ and the prior (the picture's arrow
# from $x$ to $c$ goes through them).
#
# In `gmvae_lib` Eq. (10.5) at $q^\star$ is `method="collapsed"`. Any other $q(c|x)$, a network's for
# example (`Classifier`, below), goes in as `prior.rate(mean, log_var, "joint", resp=q_c)`.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### VampPrior: the encoder is the prior
# The best prior is the aggregate posterior, the average of all the encoder's Gaussians ([chapter 7](07_the_prior_is_the_problem.ipynb)). With $N$
# images that is a mixture of $N$ components, which knows the training images by heart. The *variational mixture of posteriors* keeps the
# idea and takes few: $K$ learnt *pseudo-inputs* $u_1,\dots,u_K$, which look like images to the encoder,
#
# $$p(z)=\frac1K\sum_{k=1}^Kq_\phi(z|u_k). \tag{10.9}$$
#
# The bound is Eq. (10.4), with $\pi_c=\frac1K$ and $p(z|c)=q_\phi(z|u_c)$: means and variances are not free but the encoder's, at inputs that are trained. In the table world
# inputs are values of $x$, and we take two of them:

# %%
q_z_x = table(X, Z)                                                     # q(z|x) for every x
vamp = q_z_x[[0, 3]].mean(0)                                            # Eq. (10.9), u = (0, 3)
bound_vamp = q_z_x[x] @ log_px_z - kl(q_z_x[x], vamp)                   # Eq. (10.4)
joint_vamp = 0.5 * q_z_x[[0, 3]] * p_x_z[:, x]
by_bayes = joint_vamp / joint_vamp.sum(0)
assert torch.isclose(bound_vamp, count(q_z_x[x] * by_bayes, joint_vamp))

# %% [markdown] slideshow={"slide_type": "subslide"}
# Two facts say what such a prior can charge. If every image is its own pseudo-input, $K=N$ and $u_n=x_n$, the prior *is* the aggregate posterior $q(z)$, and the misfit of Eq. (7.4) is
# zero. The mean rate is then the mutual information of image and code, which by Eq. (7.6) is at most $\log N$, the price of naming one of $N$ images:
#
# $$\frac1N\sum_{n=1}^N\mathrm{KL}\big(q_\phi(z|x_n)\,\Vert\,q(z)\big)\;\le\;\log N. \tag{10.10}$$
#
# And for any pseudo-inputs: a sum is at least as large as each of its terms, $p(z)\ge\frac1Kq_\phi(z|u_k)$, so that $\log\frac{q}{p}\le\log K+\log\frac{q}{q_\phi(\cdot|u_k)}$, whose mean under $q_\phi(z|x)$ is
#
# $$R(x)\;\le\;\log K+\min_k\mathrm{KL}\big(q_\phi(z|x)\,\Vert\,q_\phi(z|u_k)\big). \tag{10.11}$$
#
# An image that is like a pseudo-input pays at most $\log K$, however far from zero its code lies and however narrow it is.

# %%
to_each = kl(q_z_x[:, None], q_z_x)                                     # (X, X), row to column
assert kl(q_z_x, q_z_x.mean(0)).mean() <= math.log(X)                   # Eq. (10.10)
assert (kl(q_z_x, vamp) <= math.log(2) + to_each[:, [0, 3]].amin(1)).all()      # Eq. (10.11)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The class first, then the code
#
# The next two infer in the other order: $q(z,c|x)=q(c|x)\,q_\phi(z|x,c)$. A network, $q(c|x)$, names the class; a second one reads image *and* class and infers the code. Given $c$
# everything is an ordinary VAE, and for $K$ classes we can afford $K$ of them.
#
# ### M2: the class beside the code
# M2 was made for learning with few labels. Class and code are independent beforehand, and the decoder reads both:
#
# $$p(x,z,c)=\pi_c\;p(z)\;p_\theta(x|z,c),\qquad p(z)=\mathcal N(0,I). \tag{10.12}$$
#
# The class is *what*, the code is *how*: a 3 in a slanted hand and a 7 in the same hand may share their code. In Eq. (10.1) the logarithm splits into one ELBO for each class, and the price of the choice:
#
# $$\mathcal L_{\text{M2}}=\sum_cq(c|x)\,\underbrace{\Big\{\mathbb E_{q_\phi(z|x,c)}\big[\log p_\theta(x|z,c)\big]-\mathrm{KL}\big(q_\phi(z|x,c)\,\Vert\,p(z)\big)\Big\}}_{A_c(x)}-\mathrm{KL}\big(q(c|x)\,\Vert\,\pi\big). \tag{10.13}$$

# %%
p_z, p_x_zc, q_z_xc = table(Z), table(K, Z, X), table(K, Z)             # q(z|x,c) at our x
log_px_zc = p_x_zc[..., x].log()                                        # (K, Z)
A = (q_z_xc * log_px_zc).sum(1) - kl(q_z_xc, p_z)
m2 = q_c @ A - kl(q_c, pi)                                              # Eq. (10.13)
joint_m2 = pi[:, None] * p_z * p_x_zc[..., x]                           # Eq. (10.12)
assert torch.isclose(m2, count(q_c[:, None] * q_z_xc, joint_m2))

# %% [markdown] slideshow={"slide_type": "fragment"}
# Where a label is known, there is nothing to choose, and the bound on the joint is one term:
#
# $$\log p(x,c)\;\ge\;A_c(x)+\log\pi_c. \tag{10.14}$$
#
# Labelled images give Eq. (10.14), the others Eq. (10.13). In the former $q(c|x)$ does not occur, so labels would never teach it; the paper therefore adds $\alpha\log q(c|x)$ for labelled images, a
# classifier's loss, which is not part of any bound.

# %%
assert (A + pi.log() <= joint_m2.sum(1).log()).all()                    # Eq. (10.14), each label

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Shu's: the class before the code
# M2 without labels has no reason to use the class for what *we* would call a class. Shu's GMVAE puts it back at the top of the chain, Eq. (10.3), and keeps M2's inference (whether that helps, we shall measure):
#
# $$\mathcal L_{\text{Shu}}=\sum_cq(c|x)\Big\{\mathbb E_{q_\phi(z|x,c)}\big[\log p_\theta(x|z)\big]-\mathrm{KL}\big(q_\phi(z|x,c)\,\Vert\,p(z|c)\big)\Big\}-\mathrm{KL}\big(q(c|x)\,\Vert\,\pi\big). \tag{10.15}$$
#
# Two changes in the braces: the decoder does not see $c$, the prior does. If $q_\phi(z|x,c)$ ignores $c$, this *is* VaDE's bound, Eq. (10.5).
# So with networks that are flexible enough Shu's can do whatever VaDE can, and more: its $q(z|x)=\sum_cq(c|x)\,q_\phi(z|x,c)$ is itself a mixture.

# %%
def shu(q_z_xc):
    """Eq. (10.15), for q(z|x,c) as a (K, Z) table."""
    A = (q_z_xc * log_px_z).sum(1) - kl(q_z_xc, p_z_c)
    return q_c @ A - kl(q_c, pi)

assert torch.isclose(shu(q_z_xc), count(q_c[:, None] * q_z_xc, joint))
assert torch.isclose(shu(q_z.expand(K, Z)), vade(q_c))                  # q(z|x,c) = q(z|x): VaDE

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### What the network q(c|x) learns
# Both bounds read $\sum_cq(c|x)A_c-\mathrm{KL}(q(c|x)\Vert\pi)$. Let $q^\star(c|x)=\pi_ce^{A_c}/\sum_j\pi_je^{A_j}$, and put $A_c+\log\pi_c=\log q^\star(c|x)+\log\sum_j\pi_je^{A_j}$ into it:
#
# $$\mathcal L=\log\sum_c\pi_c\,e^{A_c}-\mathrm{KL}\big(q(c|x)\,\Vert\,q^\star(c|x)\big). \tag{10.16}$$
#
# It is Eq. (8.17) again. The network learns to guess a softmax that we could have computed, since all $A_c$ are there anyway for the exact sum over $c$. Its use is at test time,
# where one pass of $q(c|x)$ replaces $K$ decodings; its price, the KL, is an amortization gap (chapter 4).

# %%
best = (A + pi.log()).softmax(0)
assert torch.isclose(m2, torch.logsumexp(A + pi.log(), 0) - kl(q_c, best))      # Eq. (10.16)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Dilokthanakul's: a mixture that moves
#
# The sixth has one variable more. A style $w$ and a class together choose where the code comes from, by a network that gives each class its mean and variance:
#
# $$p(x,z,c,w)=p(w)\;\pi_c\;p(z|c,w)\;p_\theta(x|z), \tag{10.17}$$
#
# with $p(w)=\mathcal N(0,I)$ and $p(z|c,w)=\mathcal N\big(z|\mu_c(w),\Sigma_c(w)\big)$. For each fixed $w$ this is a Gaussian mixture; over all $w$, a class is a bent and curved thing. All three are inferred by $q(w|x)\,q_\phi(z|x)\,p(c|z,w)$, with Bayes' rule for the class. The bound has four terms:
#
# $$\begin{aligned}\mathcal L_{\text{D}}={}&\mathbb E_{q_\phi(z|x)}\big[\log p_\theta(x|z)\big]-\mathbb E_{q(w|x)q_\phi(z|x)}\Big[\sum_cp(c|z,w)\log\frac{q_\phi(z|x)}{p(z|c,w)}\Big]\\
# &-\mathrm{KL}\big(q(w|x)\Vert p(w)\big)-\mathbb E_{q(w|x)q_\phi(z|x)}\Big[\mathrm{KL}\big(p(c|z,w)\Vert\pi\big)\Big].\end{aligned} \tag{10.18}$$
#
# The paper calls them reconstruction, conditional prior, $w$-prior and (in our letters) $c$-prior term.

# %%
p_w, p_z_wc, q_w = table(W), table(W, K, Z), table(W)                   # p(w), p(z|w,c), q(w|x)
p_c_wz = pi[:, None] * p_z_wc
p_c_wz = p_c_wz / p_c_wz.sum(1, keepdim=True)                           # p(c|z,w), (W, K, Z)
q_wz = q_w[:, None] * q_z                                               # (W, Z)

# %% [markdown] slideshow={"slide_type": "-"}
# The two middle terms, the sum, and the count over all $w$, $c$ and $z$:

# %%
conditional = (q_wz[:, None] * p_c_wz * (q_z / p_z_wc).log()).sum()
c_prior = (q_wz * kl(p_c_wz.mT, pi)).sum()
dilo = q_z @ log_px_z - conditional - kl(q_w, p_w) - c_prior            # Eq. (10.18)
joint_d = p_w[:, None, None] * pi[:, None] * p_z_wc * p_x_z[:, x]       # Eq. (10.17)
assert torch.isclose(dilo, count(q_wz[:, None] * p_c_wz, joint_d))

# %% [markdown] slideshow={"slide_type": "subslide"}
# Back to Eq. (10.18). Its class was inferred by Bayes' rule and is free, so there has to be a shorter form in which it does not occur. There is: by Bayes' rule $\log\frac{p(c|z,w)}{\pi_c\,p(z|c,w)}=-\log\sum_j\pi_j\,p(z|j,w)$
# for every $c$, and the second and fourth term together are one rate:
#
# $$\begin{aligned}\mathcal L_{\text{D}}={}&\mathbb E_{q_\phi(z|x)}\big[\log p_\theta(x|z)\big]-\mathbb E_{q(w|x)}\Big[\mathrm{KL}\Big(q_\phi(z|x)\,\Big\Vert\,\sum_c\pi_c\,p(z|c,w)\Big)\Big]\\
# &-\mathrm{KL}\big(q(w|x)\,\Vert\,p(w)\big).\end{aligned} \tag{10.19}$$
#
# This is the plain mixture prior, with a mixture that moves with $w$, and a price for saying which $w$. It is Eq. (10.2) once more, with $a=(z,w)$ and $b=c$. If $w$ moves nothing, the price is least for $q(w|x)=p(w)$, where it is zero, and Eq. (10.4) is back.
# No draw of $c$ is ever needed.

# %%
moving = torch.einsum("c,wcz->wz", pi, p_z_wc)                          # the mixture for each w
short = q_z @ log_px_z - q_w @ kl(q_z, moving) - kl(q_w, p_w)           # Eq. (10.19)
assert torch.isclose(dilo, short)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Six models on one page
#
# | model | makes | infers | learns, besides encoder and decoder | its rate charges for |
# |---|---|---|---|---|
# | mixture prior, Eq. (10.4) | $c\to z\to x$ | $q(z\mid x)$ | $\pi,\mu_c,\Sigma_c$ | the code, exactly |
# | VaDE, Eq. (10.5) | $c\to z\to x$ | $q(z\mid x)\,q(c\mid x)$ | $\pi,\mu_c,\Sigma_c$ | the code, and one class for all codes |
# | VampPrior, Eq. (10.9) | $c\to z\to x$, components tied to the encoder | $q(z\mid x)$ | pseudo-inputs $u_k$ | the code, exactly |
# | M2, Eq. (10.13) | $c\to x\leftarrow z$ | $q(c\mid x)\,q(z\mid x,c)$ | a classifier | the class, and the code of each class |
# | Shu's, Eq. (10.15) | $c\to z\to x$ | $q(c\mid x)\,q(z\mid x,c)$ | a classifier, $\pi,\mu_c,\Sigma_c$ | the class, and the code of each class |
# | Dilokthanakul's, Eq. (10.19) | $w,c\to z\to x$ | $q(w\mid x)\,q(z\mid x)$ | $\pi$, networks for $\mu_c(w),\Sigma_c(w)$ and $q(w\mid x)$ | the style, and the code exactly |
#
# And as compositions of the library, with $D$ pixels, $d$ and $s$ dimensions of code and style. The next three sections build what is not there yet.
#
# | model | in `gmvae_lib` | `method=` |
# |---|---|---|
# | mixture prior | `VAE(encoder, decoder, likelihood, MixturePrior(K, d))` | `"exact"` |
# | VaDE | the same | `"collapsed"`: the best $q(c\mid x)$; or the prior's `"joint"` with one of your own |
# | VampPrior | `VAE(encoder, decoder, likelihood, VampPrior(K, encoder, x))` | `"exact"` |
# | M2 | `LatentClassVAE(classifier, encoder, Decoder(d + K, D), likelihood, prior)`, all components of its `MixturePrior` frozen at $\mathcal N(0,I)$ | `"exact"`, or `"gumbel"`, `"score"` |
# | Shu's | `LatentClassVAE(classifier, encoder, Decoder(d, D), likelihood, MixturePrior(K, d))` | `"exact"`, or `"gumbel"`, `"score"` |
# | Dilokthanakul's | `VAE(Encoder(D, d + s), CodeDecoder(d, D), likelihood, MovingMixture(K, d, s))` | `"exact"`, or `"collapsed"` |

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Whose z is this?
# Letters change from paper to paper, and a code called $x$ has confused many a reader. A concordance:
#
# | here | M2 (2014) | VaDE (2017) | Dilokthanakul (2016) | Shu (2016) | VampPrior (2018) |
# |---|---|---|---|---|---|
# | image $x$ | $x$ | $x$ | $y$ | $x$ | $x$ |
# | code $z$ | $z$ | $z$ | $x$ | $z$ | $z$ |
# | class $c$ | $y$ | $c$ | $z$ | $y$ | index $k$ of $u_k$ |
# | style $w$ | none | none | $w$ | none | none |
#
# So "the $z$-prior term" of one paper is the class term of another.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## M2 and Shu's, built
#
# From tables to networks, and from three classes to ten. A generator for each draw makes sure that two ways of computing something see the same noise:

# %%
torch.set_default_dtype(torch.float32)
torch.manual_seed(0)
K, likelihood = 10, Binomial(16)

def dice(seed=0):
    return torch.Generator().manual_seed(seed)

# %% [markdown] slideshow={"slide_type": "-"}
# $q(c|x)$ is a multilayer perceptron with a softmax, $q_\phi(z|x,c)$ an encoder that reads the image with a one-hot class beside it. We build Shu's: its decoder reads the code alone.

# %%
classifier, encoder = MLP((64, 64, K)), Encoder(64 + K, 10, (64,))     # q(c|x), q(z|x,c)
decoder, prior = Decoder(10, 64, (64,)), MixturePrior(K, 10)           # p(x|z), p(z|c)

# %% [markdown] slideshow={"slide_type": "-"}
# Each image goes through the networks once for each class that we try, as one batch of shape $(N,S,\cdot)$, where $S$ is the number of classes tried. `c` holds them, one-hot. The divergences to all components come out at once, and `c` picks the right one:

# %%
def given(x, c, generator):
    """Distortion and rate of x (N, D) given classes c (N, S, K), with one draw of z: (N, S)."""
    images = (x / 16)[:, None].expand(-1, c.shape[1], -1)
    mean, log_var = encoder(torch.cat([images, c], 2))                 # q(z|x,c), (N, S, d)
    z = sample_diag(mean, log_var, generator)
    distortion = -likelihood.log_prob(x[:, None], decoder(z))
    to_each = kl_diag(mean[:, :, None], log_var[:, :, None], *prior.components())
    return distortion, (c * to_each).sum(2)                            # KL(q(z|x,c) || p(z|c))

# %% [markdown] slideshow={"slide_type": "-"}
# For the exact sum all $K$ are tried. What is left is the average over $q(c|x)$, and the price of the choice:

# %%
def price(log_q):
    """KL(q(c|x) || pi), (N,)."""
    return (log_q.exp() * (log_q - prior.weights.log())).sum(1)

def exact_loss(x, generator):
    """Minus Eq. (10.15), (N,)."""
    log_q = classifier(x / 16).log_softmax(1)
    every_class = torch.eye(K).expand(len(x), K, K)
    distortion, rate = given(x, every_class, generator)
    return (log_q.exp() * (distortion + rate)).sum(1) + price(log_q)

# %% [markdown] slideshow={"slide_type": "-"}
# The library's `LatentClassVAE` is put together from the same four parts; its `Classifier` is our multilayer perceptron, and returns $\log q(c|x)$. Everything else comes from `VAE`.

# %%
from gmvae_lib.latent_class import Classifier, LatentClassVAE

named = Classifier(64, K, (64,))
named.mlp = classifier
shus = LatentClassVAE(named, encoder, decoder, likelihood, prior)

# %% [markdown] slideshow={"slide_type": "-"}
# On 64 images, with the same noise, both must give the same:

# %%
some = digits.x[:64]
assert torch.allclose(-shus.elbo(some, generator=dice()).value, exact_loss(some, dice()), rtol=1e-4)

# %% [markdown] slideshow={"slide_type": "subslide"}
# For M2 two parts are other ones. The decoder is told the class, so it has $K$ more inputs; and the prior is the same $\mathcal N(0,I)$ for all classes and learns nothing. (The library sees from the decoder's number of inputs whether it is `told` the class.)

# %%
same = MixturePrior(K, 10, spread=0.0).requires_grad_(False)           # all at N(0, I)
m2_model = LatentClassVAE(named, encoder, Decoder(10 + K, 64, (64,)), likelihood, same)
assert same.means.eq(0).all() and same.covariances.eq(1).all() and m2_model.told

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Dilokthanakul's, built
#
# By Eq. (10.19) all that it needs is a prior. The one trick is to let the encoder's Gaussian stand for $q(z|x)$ and $q(w|x)$ together: of its $d+s$ dimensions the first $d$ are the code, the last $s$ the style, and since it is diagonal they are independent.
# One network makes the means and log-variances of all components from $w$:

# %%
styles = MLP((4, 64, 2 * K * 10))                                      # s = 4, d = 10

def moving_rate(mean, log_var, generator):
    """The two rates of Eq. (10.19), with one draw of w and one of z: (N,)."""
    w = sample_diag(mean[:, 10:], log_var[:, 10:], generator)
    mu, log_s2 = styles(w).unflatten(1, (2, K, 10)).unbind(1)          # (N, K, d) each
    z = sample_diag(mean[:, :10], log_var[:, :10], generator)
    each = log_prob_diag(z[:, None], mu, log_s2)                       # log p(z|c,w), (N, K)
    log_mixture = torch.logsumexp(each - math.log(K), 1)               # equal weights
    of_code = -entropy_diag(log_var[:, :10]) - log_mixture             # as in Eq. (8.8)
    return of_code + kl_standard(mean[:, 10:], log_var[:, 10:])

# %% [markdown] slideshow={"slide_type": "-"}
# The library's `MovingMixture` does the same, with weights that are learnt, and has the three rates of chapter 8 for each $w$. `CodeDecoder` is a decoder that reads the first $d$ dimensions alone.

# %%
from gmvae_lib.moving_mixture import CodeDecoder, MovingMixture

moves = MovingMixture(K, 10, 4, (64,))
moves.mlp = styles
dilo_model = VAE(Encoder(64, 10 + 4, (64,)), CodeDecoder(10, 64, (64,)), likelihood, moves)

# %% [markdown] slideshow={"slide_type": "-"}
# Ours and the library's, with the same draws of $w$ and $z$:

# %%
q_of_zw = dilo_model.encode(some)
library = moves.rate(*q_of_zw, "exact", generator=dice())
assert torch.allclose(library, moving_rate(*q_of_zw, dice()), atol=1e-4)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The VampPrior, built and compared
#
# Density and rate are chapter 8's, with the encoder's Gaussians as components and equal weights. The pseudo-inputs `u` are trained, and live where the encoder's inputs live: here, pixels between 0 and 1. (The encoder belongs to the
# model, not to the prior: it is saved and counted once, and trained from both sides.)

# %%
def vamp_log_prob(z, encoder, u):
    """log p(z) of Eq. (10.9): z (N, d) to (N,)."""
    mean, log_var = encoder(u)                                          # (K, d)
    each = log_prob_diag(z.unsqueeze(1), mean, log_var)                 # (N, K)
    return torch.logsumexp(each, 1) - math.log(len(u))

def vamp_rate(mean, log_var, encoder, u, generator):
    """KL(q || p), estimated with one draw as in Eq. (8.8): (N,)."""
    z = sample_diag(mean, log_var, generator)
    return -entropy_diag(log_var) - vamp_log_prob(z, encoder, u)

# %% [markdown] slideshow={"slide_type": "-"}
# The library's `VampPrior` starts its pseudo-inputs at $K$ training images, drawn at random, and keeps them in the pixels' range by
# clamping, past which gradients are passed on, so that what has left the range can come back. It shares all its formulas with `MixturePrior`; only where means and variances come from is different.

# %%
from gmvae_lib.prior import VampPrior

torch.manual_seed(0)
model = VAE.build(64, 10, hidden=(64,))
model.prior = VampPrior(50, model.encoder, digits.x / 16)
u, (mean, log_var) = model.prior.pseudo_inputs, model.encode(held_out.x)
z = sample_diag(mean, log_var, dice())
assert torch.allclose(model.prior.log_prob(z), vamp_log_prob(z, model.encoder, u), atol=1e-4)
library = model.prior.rate(mean, log_var, "exact", generator=dice())
assert torch.allclose(library, vamp_rate(mean, log_var, model.encoder, u, dice()), atol=1e-4)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### A fair comparison
# Same networks, same epochs, same schedule, three seeds; only the prior differs: $\mathcal N(0,I)$, a mixture of 50 diagonal Gaussians, a VampPrior with 50 pseudo-inputs, and one with 300. All rates are the exact one.

# %%
def vamp_of(K, model, seed):
    return VampPrior(K, model.encoder, digits.x / 16, seed=seed)

PRIORS = {"N(0, I)": lambda model, seed: model.prior,
          "mixture, 50": lambda model, seed: MixturePrior(50, 10, seed=seed),
          "VampPrior, 50": lambda model, seed: vamp_of(50, model, seed),
          "VampPrior, 300": lambda model, seed: vamp_of(300, model, seed)}

def trained(name, seed):
    torch.manual_seed(seed)
    model = VAE.build(64, 10, hidden=(64,))
    model.prior = PRIORS[name](model, seed)
    fit(model, digits, epochs=40, lr=decay(3e-3), beta=warm_up(1.0, 0.5), batch_size=64,
        method="exact", seed=seed, device="cpu")
    return model

models = {name: [trained(name, seed) for seed in range(3)] for name in PRIORS}

# %% [markdown] slideshow={"slide_type": "-"}
# Their bounds on the training images and on held-out ones, averaged over eight draws of each code:

# %%
@torch.no_grad()
def bound(model, x):
    values = [model.elbo(x, method="exact", generator=dice(s)).value.mean() for s in range(8)]
    return torch.stack(values).mean()

bounds = {name: torch.tensor([[bound(m, data.x) for data in (digits, held_out)] for m in runs])
          for name, runs in models.items()}                             # (3 seeds, 2)
cells = {name: [f"−{-m:.1f} ± {s:.1f}" for m, s in zip(b.mean(0), b.std(0))]
         + [f"{(b[:, 0] - b[:, 1]).mean():.1f}"] for name, b in bounds.items()}
figures.table(["training", "held-out", "difference"], cells,
              "Bound in nats per image, mean ± sd over three seeds",
              "A table of the bound for four priors on training and held-out images. The three "
              "mixtures are a few nats above the standard normal; the VampPrior with 300 "
              "pseudo-inputs has the largest difference between training and held-out images.")

# %% [markdown] slideshow={"slide_type": "-"}
# The digits of that table depend on your processor. What does not:

# %%
normal, mixture, vamp, large = (b.mean(0) for b in bounds.values())
print("mixture and VampPrior above N(0, I) by more than a nat:",
      bool(mixture[1] > normal[1] + 1 and vamp[1] > normal[1] + 1))
print("mixture and VampPrior within three nats of each other: ",
      bool((mixture - vamp)[1].abs() < 3))
print("300 pseudo-inputs lose more on new images than 50:     ",
      bool(large[0] - large[1] > vamp[0] - vamp[1] + 0.5))

# %% [markdown] slideshow={"slide_type": "subslide"}
# **An honest reading.** A prior that can bend is worth several nats here. *Which* one hardly matters: over five seeds, while writing, held-out bounds were $-111.9\pm1.2$ for the normal, $-108.0\pm2.7$ for the mixture and $-108.1\pm2.1$ for the
# VampPrior. The last two differ far less than two seeds do. From 50 pseudo-inputs to 300 the bound rose by 1.9 nats on the training images and fell by 0.3 on held-out ones: 1,437 images are few, 300 pseudo-inputs begin to know
# them by heart, and Eq. (10.11) lets an image that resembles one of them pay only $\log300$. On MNIST, with fifty thousand images and 500 pseudo-inputs, its authors report about three nats of log-likelihood above the normal prior.
#
# A VampPrior cannot be left behind: it moves with the encoder, and no component can start where no code is. And one can look at it. The pseudo-inputs, before and after training:

# %%
shown = models["VampPrior, 50"][0].prior.pseudo_inputs.detach().clamp(0, 1)[:12]
start = VampPrior(50, model.encoder, digits.x / 16, seed=0).pseudo_inputs.detach()[:12]
figures.images(torch.cat([start, shown]), (8, 8), "Pseudo-inputs", columns=12, vmax=1,
               row_labels=["before", "after training"],
               alt="Two rows of twelve small images. Above, handwritten digits, from which the "
                   "pseudo-inputs started; below, what training made of them: much the same "
                   "digits, with grey specks at their borders, where digits have none.")

# %% [markdown] slideshow={"slide_type": "-"}
# Most have kept the digit that they began as, and have gained specks where no digit has ink: nobody asked them to look like images, only to be encoded where codes are.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## All six, trained
#
# Each of the six in a line, with the same hidden sizes, a code of ten dimensions, ten classes and random starts:

# %%
def with_vamp():
    model = VAE.build(64, 10, (64,))
    model.prior = VampPrior(10, model.encoder, digits.x / 16)
    return model

SIX = {"mixture prior": lambda: VAE.build(64, 10, (64,), prior=MixturePrior(10, 10)),
       "VaDE": lambda: VAE.build(64, 10, (64,), prior=MixturePrior(10, 10)),
       "VampPrior": with_vamp,
       "M2": lambda: LatentClassVAE.build(64, 10, 10, (64,), told=True),
       "Shu's": lambda: LatentClassVAE.build(64, 10, 10, (64,)),
       "Dilokthanakul's": lambda: VAE(Encoder(64, 14, (64,)), CodeDecoder(10, 64, (64,)),
                                      prior=MovingMixture(10, 10, 4))}

# %% [markdown] slideshow={"slide_type": "-"}
# To `fit`, each of them is a `VAE`. The first two differ in `method` alone:

# %%
def trained_six(name, make=None):
    torch.manual_seed(0)
    model = (make or SIX[name])()
    fit(model, digits, epochs=40, lr=decay(3e-3), beta=warm_up(1.0, 0.5), batch_size=64,
        method="collapsed" if name == "VaDE" else "exact", device="cpu")
    return model

six = {name: trained_six(name) for name in SIX}

# %% [markdown] slideshow={"slide_type": "-"}
# How much does the class say about a held-out image? That is the mutual information of $x$ and $c$ under $q(c|x)$ (the classifier's, or where there is none Eq. (10.8)'s, for Dilokthanakul's at the mean of $q(w|x)$): the entropy of the average less the average entropy, at most $\log10=2.3$ nats. It needs no labels. Accuracy, Eq. (9.1), does.

# %%
from gmvae_lib.evaluation import clustering_accuracy


def information(model):
    q = model.responsibilities(held_out.x)
    return float(torch.xlogy(q, q).sum(1).mean() - torch.xlogy(q.mean(0), q.mean(0)).sum())

# %% [markdown] slideshow={"slide_type": "-"}
# The bound as above, the mean over eight draws, in the form that the model was trained with:

# %%
@torch.no_grad()
def held_out_bound(model, method):
    values = [model.elbo(held_out.x, method=method, generator=dice(s)).value for s in range(8)]
    return float(torch.stack(values).mean())

says = {name: information(model) for name, model in six.items()}
reaches = {name: held_out_bound(model, "collapsed" if name == "VaDE" else "exact")
           for name, model in six.items()}

# %% [markdown] slideshow={"slide_type": "-"}
# All six in one table:

# %%
cells = {name: [f"−{-reaches[name]:.1f}", f"{says[name]:.2f}",
                f"{clustering_accuracy(held_out.y, model.predict(held_out.x)):.2f}"]
         for name, model in six.items()}
figures.table(["bound", "class, nats", "accuracy"], cells,
              "Ten classes, one start, held-out images",
              "A table with the bound, the nats that the class says and the accuracy of the six "
              "models. The bounds lie within a few nats of each other; the class of Shu's model "
              "says least, those of the VampPrior and of Dilokthanakul's model most.")

# %% [markdown] slideshow={"slide_type": "-"}
# What of it does not depend on your processor:

# %%
most = sorted(says, key=says.get)[-2:]
print("the class says most in:", " and ".join(sorted(most)))
print("and least in:          ", min(says, key=says.get))

# %% [markdown] slideshow={"slide_type": "subslide"}
# **An honest reading.** One start is an anecdote. Over five, while writing:
#
# | model | bound | class, nats | accuracy |
# |---|---|---|---|
# | mixture prior | −110.8 to −105.7 | 1.5 to 1.8 | 0.44 to 0.56 |
# | VaDE | −110.7 to −106.6 | 1.7 to 1.8 | 0.49 to 0.57 |
# | VampPrior | −111.4 to −105.4 | 2.0 to 2.1 | 0.67 to 0.79 |
# | M2 | −112.5 to −109.6 | 1.1 to 1.5 | 0.29 to 0.34 |
# | Shu's | −111.6 to −109.2 | 0.0 to 0.9 | 0.12 to 0.27 |
# | Dilokthanakul's | −110.3 to −105.1 | 2.1 to 2.2 | 0.72 to 0.83 |
#
# M2's and Shu's *bounds* lie low, by two or three nats. Each of the other four changes more from start to start than they differ from each other: five starts do not tell which of them to take. (Nor are all the same kind of number: VaDE's is Eq. (10.5), which is never above Eq. (10.4).)
#
# The *class* differs more. M2 uses it for something, but hardly for the digit. Shu's uses it least: at first no class is better than another, and a $q(c|x)$ that pays nothing for its choice is the nearest optimum. Accuracies like these differ by ten points from seed to seed, in papers as well.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### How well does q(c|x) guess?
# Eq. (10.16) says what the classifier should have said, and `class_elbos` gives the $A_c$. Each needs draws of $z$, and their noise makes the gap look larger, since the log-sum-exp is convex. We take the mean of 64:

# %%
@torch.no_grad()
def guess(model):
    """KL(q(c|x) || q*(c|x)), and how often both name the same class; held-out images."""
    draws = [model.class_elbos(held_out.x, generator=dice(s)).value for s in range(64)]
    log_best = (torch.stack(draws).mean(0) + model.prior.weights.log()).log_softmax(1)
    q = model.responsibilities(held_out.x)
    gap = (torch.xlogy(q, q) - q * log_best).sum(1).mean()
    return float(gap), float((q.argmax(1) == log_best.argmax(1)).float().mean())

# %% [markdown] slideshow={"slide_type": "-"}
# For the M2 above:

# %%
gap, agree = guess(six["M2"])
print("M2's classifier costs over half a nat:", gap > 0.5)
print("and often names another class than q*:", 0.4 < agree < 0.9)

# %% [markdown] slideshow={"slide_type": "-"}
# (In three starts, while writing, 1.0 to 1.4 nats, and the same class for about 65 in a hundred images.) Whoever can afford ten decodings at test time should take the softmax.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Was it the style?
# Dilokthanakul's classes are the best here. Does the style $w$ take over what does not belong in the class? Before writing so, cut the wire: the same model, in which the network does not look at $w$, and cannot learn to.

# %%
def deaf_to_style():
    model = SIX["Dilokthanakul's"]()
    first = model.prior.mlp.layers[0]
    with torch.no_grad():
        first.weight.zero_()
    first.weight.requires_grad_(False)
    return model

# %% [markdown] slideshow={"slide_type": "-"}
# Trained as before:

# %%
deaf = information(trained_six("Dilokthanakul's", deaf_to_style))
print("the class still says nearly as much:", deaf > says["Dilokthanakul's"] - 0.25)
print("more than with the plain mixture:   ", deaf > says["mixture prior"] + 0.1)

# %% [markdown] slideshow={"slide_type": "-"}
# By the nats, hardly: over five starts the deaf model's class said 2.1. Its accuracies, 0.67 to 0.75, are a few points lower; so much may be the style's. And the rest? The VampPrior's class says as much, and in both the components are the *outputs of a network*. Adam moves each weight by about its step size at a time. A mean that is itself a weight moves by that much;
# one that sums up dozens of hidden units moves much further. So we take the plain mixture, and let each step count ten times:

# %%
class Stretched(MixturePrior):
    """Ten times its parameters, means and logarithms alike: a step moves them ten times as far."""

    def components(self):
        return 10 * self.means, (20 * self.log_scale).clamp_min(-9)

def faster():
    return VAE.build(64, 10, (64,), prior=Stretched(10, 10, spread=0.1))

# %% [markdown] slideshow={"slide_type": "-"}
# It starts where the plain mixture does, and is trained as before:

# %%
stretched = information(trained_six("stretched", faster))
print("a plain mixture that moves faster says more:", stretched > says["mixture prior"] + 0.1)

# %% [markdown] slideshow={"slide_type": "-"}
# It says 2.1 nats too, in each of three starts, with accuracies of 0.62 to 0.69. Most of what looked like a better model was a faster optimizer. **How models start, and how far they can move, are part of comparing them.** [Chapter 9](09_clustering_with_the_gmvae.ipynb)'s way to classes that can be relied on works with the plain mixture.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A discrete choice, three ways
#
# The losses above sum over all $K$ classes. Papers with many classes, or several such choices at once, draw $c$ instead, and a gradient has to pass through the draw. What does that cost?
#
# One image, three classes, and a decoder without a code, so that nothing else is random: class $c$ offers a fixed image, the mean of the 3s, 8s or 9s (labels serve to make them, and for nothing else). Let $f_c=-\log p(x|c)$ be the distortions of our image, a 3,
# and $q=\mathrm{softmax}(a)$ the network's opinion, with logits $a$.

# %%
wanted = [digits.x[digits.y == c] for c in (3, 8, 9)]
share = torch.stack([(images.sum(0) + 8) / (16 * len(images) + 16) for images in wanted])
offers, image, likelihood = share.logit(), digits.x[278], Binomial(16)


# %% [markdown] slideshow={"slide_type": "-"}
# The cost is defined for mixtures of the offers as well, which the third way will need. At the corners, one class each, it is $f$:

# %%
def cost(y):
    """-log p(x | y) where y (S, 3) mixes the three offers' logits; at a corner, one class."""
    return -likelihood.log_prob(image.expand(len(y), -1), y @ offers)

f, logits = cost(torch.eye(3)), torch.tensor([0.5, 0.3, 0.2]).log()
q = logits.softmax(0)
print("distortions of a 3, an 8 and a 9:", f.round().int().tolist())

# %% [markdown] slideshow={"slide_type": "-"}
# The image, the three offers, and an offer that no class can make: the decoder's answer to a point in the middle of the three.

# %%
middle = torch.full((1, 3), 1 / 3)
shown = torch.cat([image[None], likelihood.mean(torch.cat([offers, middle @ offers]))])
assert cost(middle) < f.min()                                           # it explains this 3 better
figures.images(shown, (8, 8), "Image · offers 3, 8, 9 · their mixture", columns=5, vmax=16,
               scale=0.9, alt="Five small images: a handwritten 3; the blurred mean 3, "
               "mean 8 and mean 9; and a mixture of the three, blurred too, with what they share.")

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### First way: the exact sum
# The quantity to minimize (the price $\mathrm{KL}(q\Vert\pi)$ is a closed form in any case, and left out) is $F(a)=\sum_cq_cf_c$. With the softmax's derivative, $\partial q_c/\partial a_j=q_c(\delta_{cj}-q_j)$, where $\delta_{cj}$ is 1 for $c=j$ and else 0,
#
# $$\frac{\partial F}{\partial a_j}=q_j\,(f_j-F),\qquad F=\sum_cq_cf_c. \tag{10.20}$$
#
# A class becomes likelier if it costs less than the average. No bias, no variance; $K$ decodings for each image.

# %%
exact = q * (f - q @ f)                                                 # Eq. (10.20)
a = logits.clone().requires_grad_()
assert torch.allclose(exact, torch.autograd.grad(a.softmax(0) @ f, a)[0], atol=1e-4)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Second way: the score function
# Chapter 4's estimator, Eq. (4.23), needs only a draw $c\sim q$. The score of a softmax is $\nabla_a\log q_c=e_c-q$, with $e_c$ the one-hot vector. Its mean is zero, so any constant $b$ may serve as a baseline:
#
# $$g=(f_c-b)\,(e_c-q),\qquad\mathbb E[g]=\nabla F\ \text{ for every } b. \tag{10.21}$$
#
# There are only $K$ possible draws, so its variance need not be measured. It can be counted:
#
# $$\sum_j\mathrm{Var}[g_j]=\sum_cq_c\,(f_c-b)^2\,\lVert e_c-q\rVert^2-\lVert\nabla F\rVert^2. \tag{10.22}$$
#
# That is a parabola in $b$. Its derivative vanishes at
#
# $$b^\star=\frac{\sum_cq_c\lVert e_c-q\rVert^2f_c}{\sum_cq_c\lVert e_c-q\rVert^2}, \tag{10.23}$$
#
# an average of the costs in which surprising classes count more. The plain average $F$ does most of the same, and is what one estimates in practice.

# %%
scores = torch.eye(3) - q                                               # row c: e_c - q
squares = scores.square().sum(1)

def sd_of_score(b):
    """Square root of Eq. (10.22)."""
    return float((q @ ((f - b) ** 2 * squares) - exact.square().sum()).sqrt())


# %% [markdown] slideshow={"slide_type": "-"}
# With no baseline, with the plain average, and with the best one:

# %%
best_b = q @ (squares * f) / (q @ squares)                              # Eq. (10.23)
assert torch.allclose(q @ ((f - best_b)[:, None] * scores), exact, atol=1e-4)   # Eq. (10.21)
sds = {"no baseline": sd_of_score(0), "b = F": sd_of_score(q @ f), "b*": sd_of_score(best_b)}
print("standard deviation:", {name: round(sd, 1) for name, sd in sds.items()})
print("length of the gradient:", round(float(exact.norm()), 1))

# %% [markdown] slideshow={"slide_type": "-"}
# Without a baseline the noise is more than forty times the gradient. The costs are all near two hundred nats, and the estimator cannot know that two hundred is normal.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Third way: Gumbel-softmax
# The path needs a draw that is a smooth function of $a$. Let $\xi_1,\dots,\xi_K$ be independent Gumbel noises, $\xi_j=-\log(-\log v_j)$ with $v_j$ uniform in $(0,1)$. Add them to the logits and take the largest: that is an exact draw from $q$,
#
# $$P\big(\arg\max_j(a_j+\xi_j)=c\big)=q_c. \tag{10.24}$$
#
# (Why: $a_j+\xi_j\le t$ has the probability $\exp(-e^{a_j-t})$. Its density for $j=c$, times the probabilities of all others being below, is $e^{a_c-t}\exp(-e^{-t}\sum_je^{a_j})$, and its integral over $t$ is $e^{a_c}/\sum_je^{a_j}$. In code, $-\log v_j$ is drawn as what it is, an exponential waiting time.)
#
# The maximum has no gradient. Gumbel-softmax replaces it by a softmax with *temperature* $\tau>0$:
#
# $$y=\mathrm{softmax}\big((a+\xi)/\tau\big),\qquad y\to e_c\ \text{ as }\tau\to0. \tag{10.25}$$

# %%
def gumbel(*shape, generator):
    return -torch.empty(shape).exponential_(generator=generator).log()

noise = gumbel(20_000, 3, generator=dice())
drawn = (logits + noise).argmax(1).bincount() / len(noise)
assert torch.allclose(drawn, q, atol=0.015)                             # Eq. (10.24)

# %% [markdown] slideshow={"slide_type": "-"}
# Relaxed draws live on a triangle whose corners are the three classes. This is what the temperature does to them:

# %%
panels = {f"τ = {tau}": ((logits + noise[:500]) / tau).softmax(1) for tau in (0.1, 1, 5)}
figures.simplex_panels(panels, ("3", "8", "9"),
                       "Three triangles with 500 points each. At temperature 0.1 nearly all sit "
                       "in the corners; at 1 they are spread over the triangle, denser toward "
                       "the corners; at 5 they crowd around its middle.")

# %% [markdown] slideshow={"slide_type": "-"}
# A point inside the triangle is no class. The decoder is asked for a mixture of offers, and answers with an image that no class can paint, such as the last of the five small ones above. The third estimator is $g=\nabla_a f(y)$, where $f$ at a point inside is whatever the decoder says there. For any of the three, average $S$ independent draws to $\hat g$. Its mean squared error from the true gradient is
#
# $$\mathbb E\big\lVert\hat g-\nabla F\big\rVert^2=\underbrace{\big\lVert\mathbb E[g]-\nabla F\big\rVert^2}_{\text{bias}^2}+\frac1S\sum_j\mathrm{Var}[g_j]. \tag{10.26}$$
#
# Draws buy off the second term, never the first.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### All three on one page

# %%
def gumbel_gradients(tau):
    """The gradient of cost(y) by the logits, for each noise: (S, 3)."""
    a = logits.expand(len(noise), 3).clone().requires_grad_()
    return torch.autograd.grad(cost(((a + noise) / tau).softmax(1)).sum(), a)[0]

# %% [markdown] slideshow={"slide_type": "-"}
# At nine temperatures, twenty thousand draws each:

# %%
taus = torch.logspace(-1, 1, 9)
measured = [gumbel_gradients(tau) for tau in taus]
bias = torch.stack([(g.mean(0) - exact).norm() for g in measured])
sd = torch.stack([g.var(0).sum().sqrt() for g in measured])

# %% [markdown] slideshow={"slide_type": "-"}
# On the left one draw, over temperatures; on the right $S$ draws averaged, by Eq. (10.26):

# %%
S, ends = torch.logspace(0, 4, 9), (0.1, 10)
by_score = {"score function": sds["no baseline"], "score, baseline": sds["b = F"]}
lines = {"Gumbel: noise": (taus, sd), "Gumbel: bias": (taus, bias)}
lines |= {name: (ends, (value, value)) for name, value in by_score.items()}
errors = {f"Gumbel, τ = {tau}": (S, (bias[i]**2 + sd[i]**2 / S).sqrt())
          for tau, i in ((0.1, 0), (1, 4))}                             # Eq. (10.26)
errors |= {name: (S, value / S.sqrt()) for name, value in by_score.items()}
figures.log_panels({"One draw": ("temperature τ", "bias, standard deviation", lines),
                    "S draws": ("draws S", "root mean squared error", errors)},
                   "Two panels with logarithmic axes. Left: as the temperature rises the noise of "
                   "the Gumbel-softmax falls and its bias rises, then stays; the score function "
                   "lies high above without a baseline and low with one. Right: over the number "
                   "of draws the score function's errors fall along straight lines; the "
                   "Gumbel-softmax's level off at the bias, at temperature 1 early and high.")

# %% [markdown] slideshow={"slide_type": "-"}
# What the picture shows, in words that your machine must agree with:

# %%
first = int(exact[0].sign()), int(measured[4].mean(0)[0].sign())
error = (bias**2 + sd**2).sqrt()
print("τ = 0.1: over 5 times the noise of the score, baseline:", bool(sd[0] > 5 * sds["b = F"]))
print("signs of the first entry, exact and at τ = 1:          ", first)
print("at no τ an error below the score's with a baseline:    ", bool((error > sds["b = F"]).all()))
print("from τ = 0.32 to 0.1 the bias falls by 40 % or more:   ", bool(bias[0] < 0.6 * bias[2]))
print("and the noise grows, by a factor between 1.5 and 2.3:  ", bool(1.5 < sd[0] / sd[2] < 2.3))

# %% [markdown] slideshow={"slide_type": "subslide"}
# At $\tau=1$ the first entry of the average gradient, the right class's, has the *wrong sign*: it tells the network to give up the right class in favour of mixtures. Lowering $\tau$ mends the bias, at low temperatures roughly in proportion, and
# pays with noise that grows there roughly like $1/\sqrt\tau$: the gradient is of size $1/\tau$, but only in the share of draws, of size $\tau$, that have not decided. At $\tau=10$ $y$ hardly depends on $a$ any more: the gradient is nearly nothing, and the bias is the whole of the true one. The score function with a baseline errs less at every temperature.
#
# This is one image and three classes, and no law. With a code $z$ beside it, or hundreds of choices at once, the noise of all the others enters the score (as in Eq. (4.28)), and the relaxation may win. We shall see it come close in a moment. But **with one choice among a few classes, sum**:
# ten decodings cost less than the draws, or the care, that an estimator needs.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Try it
# Set the temperature and the number of draws. At which temperature is the Gumbel-softmax best for one draw? For a hundred? Can you find a setting in which it beats the score function with a baseline?

# %%
explorers.GumbelExplorer(logits, cost, ("3", "8", "9"))

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The same inside a model
# In M2 and Shu's nothing is fixed. The cost of a class is $f_c=-A_c(x)$, estimated with a draw of $z$ that differs each time, and encoder and decoder learn while the classifier does. For the score function we draw two classes for each image and give each draw *the other's* cost as its baseline: it does not depend on the draw itself, so the mean stays right.
# For the relaxation encoder and decoder read $y$ where they used to read a one-hot class, and the divergences are averaged with $y$:
#
# $$\tilde f(y)=\mathbb E_{q_\phi(z|x,y)}\big[-\log p_\theta(x|z,y)\big]+\sum_cy_c\,\mathrm{KL}\big(q_\phi(z|x,y)\,\Vert\,p(z|c)\big). \tag{10.27}$$
#
# At a corner, $y=e_c$, this is $-A_c(x)$. Inside, any other function that agrees at the corners would have been as good a choice, and has another bias.

# %%
def drawn_loss(x, method, generator, tau=0.5):
    """A loss (N,) with two draws of c for each image; it is made for its gradient."""
    log_q = classifier(x / 16).log_softmax(1)
    if method == "score":
        c = torch.multinomial(log_q.exp(), 2, replacement=True, generator=generator)
        c = torch.eye(K)[c]                                            # (N, 2, K)
    else:
        c = ((log_q[:, None] + gumbel(len(x), 2, K, generator=generator)) / tau).softmax(2)
    cost = sum(given(x, c, generator))                                 # Eq. (10.27)
    if method == "score":
        ahead = (cost - cost.flip(1)).detach()                         # of the other draw
        cost = cost + ahead * (c * log_q[:, None]).sum(2)              # Eq. (10.21)
    return cost.mean(1) + price(log_q)

# %% [markdown] slideshow={"slide_type": "-"}
# These are `method="score"` and `method="gumbel"` of a `LatentClassVAE`, which has a `temperature` and a number of draws, `n_draws`. Shu's networks from above are still there.

# %%
def gradient(loss, network):
    """The gradient of the mean loss by all weights of a network, as one vector."""
    return torch.cat([g.ravel() for g in torch.autograd.grad(loss.mean(), network.parameters())])

# %% [markdown] slideshow={"slide_type": "-"}
# The values differ, since the library keeps that of the draws; the gradients must agree:

# %%
for method in ("score", "gumbel"):
    ours = gradient(drawn_loss(some, method, dice()), classifier)
    library = -shus.elbo(some, method=method, generator=dice()).value
    assert torch.allclose(ours, gradient(library, classifier), rtol=1e-3, atol=1e-3)

# %% [markdown] slideshow={"slide_type": "-"}
# Now we measure on the M2 that we have trained. Two hundred gradients of its classifier for the same 64 images tell each estimator's mean and its noise; the mean of four hundred exact ones is the truth:

# %%
def gradients(method, times=200, n_draws=2, temperature=0.5, seed=1):
    """Gradients of the trained M2's classifier, (times, P)."""
    m2, generator = six["M2"], dice(seed)
    m2.n_draws, m2.temperature = n_draws, temperature
    return torch.stack([gradient(-m2.elbo(some, method=method, generator=generator).value,
                                 m2.classifier) for _ in range(times)])

# %% [markdown] slideshow={"slide_type": "-"}
# The estimators to compare:

# %%
truth = gradients("exact", 400, seed=2)
WAYS = {"exact sum": ("exact",), "score, 1 draw, no baseline": ("score", 200, 1),
        "score, 2 draws": ("score",), "Gumbel, τ = 0.1": ("gumbel", 200, 2, 0.1),
        "Gumbel, τ = 0.5": ("gumbel",), "Gumbel, τ = 1": ("gumbel", 200, 2, 1.0)}

# %% [markdown] slideshow={"slide_type": "-"}
# In units of the true gradient's length. From the measured squared bias we subtract what noise alone would add to it, and give the root of that as the bias's error:

# %%
def bias_and_noise(found):
    """Bias, noise of one gradient, and the error of the bias."""
    variance, left = found.var(0).sum() / len(found), truth.var(0).sum() / len(truth)
    squared = (found.mean(0) - truth.mean(0)).square().sum() - variance - left
    parts = squared.clamp_min(0), found.var(0).sum(), variance + left
    return [float(part.sqrt() / truth.mean(0).norm()) for part in parts]

# %% [markdown] slideshow={"slide_type": "-"}
# And their table:

# %%
inside = {name: bias_and_noise(gradients(*settings)) for name, settings in WAYS.items()}
figures.table(["bias", "noise"],
              {name: [f"{b:.1f} ± {e:.1f}", f"{n:.1f}"] for name, (b, n, e) in inside.items()},
              "In lengths of the true gradient",
              "A table of bias and noise of six gradient estimators. The exact sum has no bias; "
              "one draw without a baseline has by far the most noise; the Gumbel-softmax at "
              "temperatures of a half and one has less noise than two draws of the score "
              "function, and a bias that grows with the temperature.")

# %% [markdown] slideshow={"slide_type": "-"}
# What of it holds on every machine:

# %%
alone, pair = (inside[name][1] for name in ("score, 1 draw, no baseline", "score, 2 draws"))
bias_of_1, noise_of_1, _ = inside["Gumbel, τ = 1"]
print("a second draw takes nine tenths of the score's noise away:", pair < 0.1 * alone)
print("the Gumbel-softmax at τ = 1 has less noise than that:     ", noise_of_1 < pair)
print("and a bias of over a third of the gradient:               ", bias_of_1 > 0.33)

# %% [markdown] slideshow={"slide_type": "-"}
# The picture has changed in three ways.
#
# - *The exact sum has noise*, more than the gradient is long: that of the code $z$. Nothing that is done about $c$ removes it, so two draws of the score function are only about three times as noisy. Ten, which cost as much as the sum, are about as noisy as the sum (1.3 while writing).
# - *For a single step the warm Gumbel-softmax errs about as much as the sum*, by Eq. (10.26) at $\tau=1$, with two decodings in the place of ten. That is why people like it.
# - *Steps add up.* Over a hundred of them noise shrinks tenfold and the bias stays.
#
# Does it show in the end? Not in the bounds: M2, trained in the three ways from three starts while writing, stayed between −113.0 and −108.6, whichever way. Its class said 1.1 to 1.5 nats with the sum, 0.4 to 1.0 with the score, and 1.1 to 1.4 with Gumbel-softmax at $\tau=\frac12$. Drawing took about 0.6 of the sum's time.
# And at $\tau=1$ the relaxed loss looked two to three nats better than the bound of the very same model. It is no bound. (Maddison and others relax the model's own classes as well, and charge for $y$ by its density. That gives a bound again, but of a model without whole classes.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Failure lab
#
# Four ways to go wrong, the first two seen in published code.
#
# ### The divergence the wrong way round
# The price of the choice is $\mathrm{KL}(q\Vert\pi)$. With $U$ for equal weights, somebody writes $\mathrm{KL}(U\Vert q)$ instead: also a KL, also zero at the uniform distribution. What does a network learn from it? With $f_c$ for what class $c$ costs, it minimizes $\sum_cq_cf_c-\frac1K\sum_c\log q_c$ under $\sum_cq_c=1$. With a Lagrange multiplier
# $\lambda$ the derivative by $q_c$ is $f_c-\frac1{Kq_c}+\lambda=0$, so
#
# $$q_c=\frac1{K\,(f_c+\lambda)}, \tag{10.28}$$
#
# with the $\lambda$ that makes them sum to one. No exponential: a class that costs a hundred nats more should get $e^{-100}$, and gets about $\frac1{100K}$.

# %%
def best_wrong(f):
    """Eq. (10.28); lambda by bisection."""
    low, high = -f.min() + 1 / len(f), -f.min() + 1                  # sum(low) >= 1 >= sum(high)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 / (f + middle)).mean() > 1 else (low, middle)
    return 1 / (len(f) * (f + low))

costs = torch.tensor([0.0, 5.0, 100.0])
print("right:", [f"{value:.4f}" for value in (-costs).softmax(0)])
print("wrong:", [f"{value:.4f}" for value in best_wrong(costs)])

# %% [markdown] slideshow={"slide_type": "-"}
# **Diagnosis:** the loss goes to infinity where a network is *sure*, although a sure $q$ costs $\log K$ and no more; so each class keeps a share in every image, however absurd. **Cure:** the distribution that one averages over comes first. A test with a one-hot row finds it.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Ten classes, for ever
# For $K=10$ equal weights, $-\log\pi_c=-\log0.1$, and so it stood in the code. Then somebody tries another $K$. Counting decides: with the best $q$, Eq. (10.1) is $\log p(x)$ itself, and no bound may exceed it.

# %%
def best_bound(K, log_weight):
    """The bound at its best q, for K classes that all explain the image with log p(x|c) = -3."""
    return math.log(K) + log_weight - 3                                 # logsumexp over classes

for K_ in (3, 10, 20):
    excess = best_bound(K_, math.log(0.1)) - best_bound(K_, -math.log(K_))
    print(f"K = {K_}: claimed minus true bound {round(excess, 2) + 0.0:+.2f} nats")

# %% [markdown] slideshow={"slide_type": "-"}
# **Diagnosis:** the gradient is right, training looks healthy, and every comparison between values of $K$ is off by $\log\frac K{10}$ in favour of more classes. **Cure:** write $\pi$ once, as a vector, and let it be tested with a $K$ that is not ten.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The temperature nobody looked at
# We train $q$ for our image alone, from equal logits, with the exact sum and with the Gumbel-softmax at two temperatures:

# %%
def train(tau, steps=300):
    """q after Adam on F + KL(q || uniform): by the exact sum, or by 16 relaxed draws a step."""
    a, generator = torch.zeros(3, requires_grad=True), dice()
    optimizer = torch.optim.Adam([a], lr=0.05)
    for _ in range(steps):
        y = ((a + gumbel(16, 3, generator=generator)) / tau).softmax(1) if tau else None
        distortion = cost(y).mean() if tau else a.softmax(0) @ f
        log_q = a.log_softmax(0)
        loss = distortion + (log_q.exp() * log_q).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return a.softmax(0).detach()

# %% [markdown] slideshow={"slide_type": "-"}
# What they find, and what the warm one believes its choice to cost:

# %%
summed, warm, cold = train(None), train(1.0), train(0.1)
believed = cost((warm.log() + noise).softmax(1)).mean()
print("exact sum: more than 0.95 on the right class:", bool(summed[0] > 0.95))
print("τ = 1: less than 0.6 on it:                  ", bool(warm[0] < 0.6))
print("τ = 0.1: more than at τ = 1:                 ", bool(cold[0] > warm[0] + 0.1))
print("τ = 1: relaxed cost below the best class's:  ", bool(believed < f.min() - 5))
print("       and its true cost above it:           ", bool(warm @ f > f.min() + 3))

# %% [markdown] slideshow={"slide_type": "-"}
# **Diagnosis:** at $\tau=1$ the loss goes *below* what any class can reach, and $q$ stays undecided. It looks like posterior collapse and is none: the relaxed loss is not the bound. Report the bound with whole classes, always; the gap between the two is the alarm.
# **Cure:** the exact sum while $K$ is small; else a temperature that is lowered in the course of training, with the true bound beside it.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### The prior, forgotten in the score
# Whoever draws $c$ may also draw the price: $f_c+\log q_c-\log\pi_c$. If $-\log\pi_c$ is left out, nothing happens while the weights are equal: a constant is a baseline. With unequal weights the estimator pulls toward another optimum, and its mean tells:

# %%
def mean_score(q, costs):
    """The mean of the score-function estimator, by counting."""
    return q @ (costs[:, None] * (torch.eye(3) - q))

for weights in (torch.ones(3) / 3, torch.tensor([0.7, 0.2, 0.1])):
    best_q = (weights.log() - costs / 50).softmax(0)                    # where the gradient is zero
    forgot = mean_score(best_q, costs / 50 + best_q.log())
    print("equal weights:" if weights[0] < 0.5 else "unequal weights:",
          "gradient at the optimum is zero:", bool(forgot.norm() < 1e-5))

# %% [markdown] slideshow={"slide_type": "-"}
# **Diagnosis:** an optimum is where the mean gradient vanishes, and by counting we have the mean. **Cure:** the estimator's $f$ is *everything* that depends on $c$; test it with unequal weights. A symmetric test case hides every mistake that is symmetric.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# Fill in the function, run the cell, and read what `check` says. Worked solutions are in the [notebook with solutions](solutions/10_the_family.ipynb).

# %%
from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 10.1 (★, 5 minutes)
# Write VaDE's bound, Eq. (10.5), in a world of tables: `log_px_z` $(Z,)$ holds $\log p(x|z)$, `q_z` $(Z,)$ and `q_c` $(K,)$ the two factors of $q$, `pi` $(K,)$ and `p_z_c` $(K,Z)$ the model. Return a number.

# %%
def my_vade(log_px_z, q_z, q_c, pi, p_z_c):
    raise NotImplementedError

check("10.1", my_vade)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 10.2 (★★, 10 minutes)
# Now Shu's, Eq. (10.15): `q_z_xc` $(K,Z)$ holds $q(z|x,c)$, the rest is as before.

# %%
def my_shu(log_px_z, q_z_xc, q_c, pi, p_z_c):
    raise NotImplementedError

check("10.2", my_shu)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 10.3 (★★, 10 minutes)
# Write the log-density of a VampPrior, Eq. (10.9), for `z` $(N,d)$, given what the encoder says at the pseudo-inputs, `mean` and `log_var` $(K,d)$. Return $(N,)$. Some points are far from everything.

# %%
def my_vamp(z, mean, log_var):
    raise NotImplementedError

check("10.3", my_vamp)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 10.4 (★★, 10 minutes)
# A baseline must not depend on the draw that it is subtracted from. With $S$ draws there is an honest one for nothing: for each draw, the mean cost of *the others*. Write the score-function gradient, Eq. (10.21), averaged over the draws, with this leave-one-out baseline: `c` $(S,)$ are the draws, `costs` $(S,)$ their $f_c$, `q` $(K,)$ the probabilities. Return $(K,)$.

# %%
def my_score_gradient(c, costs, q):
    raise NotImplementedError

check("10.4", my_score_gradient)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 10.5 (★★★, 15 minutes)
# In Eq. (10.11) the rate of an image is at most $\log K$ plus a divergence. Dilokthanakul's rate, the second and third term of Eq. (10.19), has such a bound too, by the same argument: replace the sum over $c$ by its best term, for each $w$. Write that upper bound of the rate in a world of tables: `q_z` $(Z,)$, `q_w` and `p_w` $(W,)$, `pi` $(K,)$, `p_z_wc` $(W,K,Z)$. Return a number.

# %%
def my_rate_bound(q_z, q_w, p_w, pi, p_z_wc):
    raise NotImplementedError

check("10.5", my_rate_bound)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Summary
#
# - Six models, one bound, Eq. (10.1). They differ in how the class reaches the image, through the code or beside it, and in who tells the class: nobody, Bayes' rule, the image.
# - A latent inferred by Bayes' rule is free; any other costs the KL from what it should have been, Eq. (10.2). So $\mathcal L_{\text{mix}}\ge\mathcal L_{\text{VaDE}}$, and Dilokthanakul's four terms are a moving mixture's three.
# - VaDE averages probabilities where the best $q(c|x)$ averages their logarithms. M2's and Shu's $q(c|x)$ learns to guess a softmax, and in M2 guesses it badly.
# - The VampPrior is a mixture whose components are the encoder's own. On 1,437 digits it and the free mixture beat the normal prior by several nats, neither beats the other, and many pseudo-inputs overfit.
# - M2 and Shu's are one `LatentClassVAE`, Dilokthanakul's is a `VAE` with a `MovingMixture`. On the digits the bounds of M2 and Shu's are a little lower, those of the other four cannot be told apart. Their classes can, and most of what sets Dilokthanakul's above the plain mixture's is how far a step of the optimizer moves a component.
# - For one choice among few classes the exact sum is best. The score function needs a baseline. The Gumbel-softmax trades noise for a bias that can have the wrong sign, and its loss is no bound.
#
# **May now be imported:** `gmvae_lib.prior.VampPrior`; `LatentClassVAE` and `Classifier` from `gmvae_lib.latent_class`; `MovingMixture` and `CodeDecoder` from `gmvae_lib.moving_mixture`.
#
# **Where this leads.** We compared bounds, and a bound is not a likelihood: the model with the better bound may be the worse one. Measuring properly is the question of [chapter 11, Honest evaluation](11_honest_evaluation.ipynb).

# %% [markdown] slideshow={"slide_type": "skip"}
# ## Sources
#
# - Diederik Kingma, Danilo Rezende, Shakir Mohamed and Max Welling (2014): *Semi-supervised Learning with Deep Generative Models*. (M2.)
# - Zhuxi Jiang, Yin Zheng, Huachun Tan, Bangsheng Tang and Hanning Zhou (2017): *Variational Deep Embedding: An Unsupervised and Generative Approach to Clustering*. (VaDE.)
# - Nat Dilokthanakul and others (2016): *Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders*.
# - Rui Shu (2016): *Gaussian Mixture VAE: Lessons in Variational Inference, Generative Models, and Deep Nets*. (A blog entry.)
# - Jakub Tomczak and Max Welling (2018): *VAE with a VampPrior*.
# - Eric Jang, Shixiang Gu and Ben Poole (2017): *Categorical Reparameterization with Gumbel-Softmax*.
# - Chris Maddison and others (2017): *The Concrete Distribution: A Continuous Relaxation of Discrete Random Variables*.
# - Wouter Kool, Herke van Hoof and Max Welling (2019): *Buy 4 REINFORCE Samples, Get a Baseline for Free!* (The other draws as baseline.)
# - Ronald Williams (1992): *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*. (The score function and its baseline.)
