# %% [markdown] slideshow={"slide_type": "slide"}
# # 04 When the E-step is impossible: solutions
#
# Worked solutions to the [exercises of chapter 04](../04_when_the_e_step_is_impossible.ipynb#Exercises). Try them yourself first; a wrong attempt teaches more
# than a right one that was read.

# %%
import math

import torch

from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# ### Exercise 4.1 (★, 10 minutes)
#
# Four terms, with a linear solve in place of the inverse. $\operatorname{tr}(\Sigma^{-1}V)$ is the trace of the solution of $\Sigma Y=V$.

# %%
def kl_of_gaussians(m, V, mu, Sigma):
    trace = torch.linalg.solve(Sigma, V).trace()
    distance = (m - mu) @ torch.linalg.solve(Sigma, m - mu)
    return 0.5 * (trace + distance - len(m) + Sigma.logdet() - V.logdet())  # Eq. (4.9)


check("4.1", kl_of_gaussians)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 4.2 (★★, 15 minutes)
#
# The prior contributes $-\lVert z\rVert^2/2\tau^2$ to the exponent, so that $I$ becomes $I/\tau^2$ in the precision: $\Lambda=W^\top W/\sigma^2+I/\tau^2$. The term that is linear in $z$ is the same as before, and $\Lambda\mu=W^\top(x-b)/\sigma^2$.

# %%
def posterior_of(x, W, b, sigma2, tau2):
    precision = W.T @ W / sigma2 + torch.eye(W.shape[1]).double() / tau2
    means = torch.linalg.solve(precision, W.T @ (x - b).T / sigma2).T      # cf. Eq. (4.12)
    return means, torch.linalg.inv(precision)


check("4.2", posterior_of)

# %% [markdown]
# As $\tau^2\to\infty$ the prior vanishes, and the mean becomes $(W^\top W)^{-1}W^\top(x-b)$: least squares. As $\tau^2\to0$ it becomes zero, whatever $x$ says.

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 4.3 (★, 10 minutes)
#
# Reverse: one over the diagonal of the precision. Forward: with $q=\prod_iq_i$, $\mathrm{KL}(p\Vert q)=\text{const}-\sum_i\mathbb E_p\log q_i(z_i)$, so each coordinate is fitted to its own marginal distribution, whose variance is $\Sigma_{ii}$.

# %%
def two_best_variances(Sigma):
    reverse = 1 / torch.linalg.inv(Sigma).diagonal()                       # Eq. (4.16)
    return reverse, Sigma.diagonal()                                       # Eq. (4.21)


check("4.3", two_best_variances)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 4.4 (★★, 15 minutes)
#
# A baseline may be anything that does not depend on the draw itself; the others' average does not, so Eq. (4.24) still applies draw by draw. The average of *all* draws contains $f(z_s)/S$, which does depend on $z_s$: it takes $\frac1S$ of the gradient away.

# %%
def leave_one_out(values, scores):
    baseline = (values.sum() - values) / (len(values) - 1)
    return ((values - baseline)[:, None] * scores).mean(0)                 # Eqs. (4.23), (4.24)


check("4.4", leave_one_out)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 4.5 (★★, 15 minutes)
#
# `logsumexp` takes the largest term out before it exponentiates, and `softmax` never sees $p(x)$ at all: the step and the constant cancel in the posterior's weights.

# %%
def by_quadrature(log_joint, z):
    log_px = log_joint.logsumexp(0) + (z[1] - z[0]).log()                  # Eq. (4.3)
    weights = log_joint.softmax(0)                                         # Eq. (4.2)
    mean = weights @ z
    return log_px, mean, (weights @ (z - mean).square()).sqrt()


check("4.5", by_quadrature)

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Exercise 4.6 (★★★, 25 minutes)
#
# Both estimators average to the true derivative. By the path it is $\mathbb E[\omega\cos\omega\varepsilon]=\omega e^{-\omega^2/2}$, whose square we subtract from the mean squares. For those, differentiate $\mathbb E\cos(t\varepsilon)=e^{-t^2/2}$ twice: $\mathbb E[\varepsilon^2\cos t\varepsilon]=(1-t^2)e^{-t^2/2}$. With $t=2\omega$,
#
# $$\mathbb E[\varepsilon^2\sin^2\omega\varepsilon]=\tfrac12\big(1-(1-4\omega^2)e^{-2\omega^2}\big),\qquad\mathbb E[\omega^2\cos^2\omega\varepsilon]=\tfrac{\omega^2}2\big(1+e^{-2\omega^2}\big).$$

# %%
def variances_for_a_sine(omega):
    squared_mean = omega**2 * math.exp(-omega**2)
    score = 0.5 * (1 - (1 - 4 * omega**2) * math.exp(-2 * omega**2))
    path = 0.5 * omega**2 * (1 + math.exp(-2 * omega**2))
    return score - squared_mean, path - squared_mean


check("4.6", variances_for_a_sine)

# %% [markdown]
# The same by 400,000 draws, for one $\omega$:

# %%
eps = torch.randn(400_000, generator=torch.Generator().manual_seed(0)).double()
score, path = variances_for_a_sine(2.0)
print("score, to 2 %:", bool(abs(((2 * eps).sin() * eps).var() / score - 1) < 0.02))
print("path, to 2 %:", bool(abs((2 * (2 * eps).cos()).var() / path - 1) < 0.02))

# %% [markdown]
# For large $\omega$ the score's variance tends to $\frac12$, since values stay between $-1$ and $1$; the path's grows like $\omega^2/2$, since slopes do not. Where do they cross?

# %%
omega = 1.0
while variances_for_a_sine(omega)[0] > variances_for_a_sine(omega)[1]:
    omega += 0.01
print(f"the score wins from about omega = {omega:.1f} on")
