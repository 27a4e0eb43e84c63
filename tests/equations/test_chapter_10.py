"""Chapter 10's equations, as written there, against enumeration of small discrete worlds, quadrature and autograd."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from gmvae_lib.latent_class import LatentClassVAE
from gmvae_lib.likelihood import Gaussian

X, Z, K, W = 4, 5, 3, 2
RNG = np.random.default_rng(0)


def table(*shape):
    values = np.exp(RNG.standard_normal(shape))
    return values / values.sum(-1, keepdims=True)


PI, P_Z, P_W = table(K), table(Z), table(W)
P_Z_C, P_Z_WC, P_X_Z, P_X_ZC = table(K, Z), table(W, K, Z), table(Z, X), table(K, Z, X)
Q_Z_X, Q_C_X, Q_W_X, Q_Z_XC = table(X, Z), table(X, K), table(X, W), table(X, K, Z)


def kl(q, p):
    return (q * np.log(q / p)).sum(-1)


def enumerated(x, joint, q, *sizes):
    """The bound, log p(x) and KL(q(h|x) || p(h|x)), one configuration of the latents at a time."""
    cells = list(itertools.product(*map(range, sizes)))
    evidence = sum(joint(x, *h) for h in cells)
    bound = sum(q(x, *h) * math.log(joint(x, *h) / q(x, *h)) for h in cells)
    gap = sum(q(x, *h) * math.log(q(x, *h) / (joint(x, *h) / evidence)) for h in cells)
    assert sum(q(x, *h) for h in cells) == pytest.approx(1)
    assert bound == pytest.approx(math.log(evidence) - gap)
    return bound


def chain(x, z, c):
    return PI[c] * P_Z_C[c, z] * P_X_Z[z, x]


def total(joint, *sizes):
    return sum(joint(x, *h) for x in range(X) for h in itertools.product(*map(range, sizes)))


def p_c_given_z():
    """(Z, K), by Bayes' rule."""
    return np.array([[PI[c] * P_Z_C[c, z] / sum(PI[k] * P_Z_C[k, z] for k in range(K)) for c in range(K)]
                     for z in range(Z)])


def mixture_bound(x):
    return Q_Z_X[x] @ np.log(P_X_Z[:, x]) - kl(Q_Z_X[x], PI @ P_Z_C)


def vade_bound(x, q_c):
    return Q_Z_X[x] @ np.log(P_X_Z[:, x]) - q_c @ kl(Q_Z_X[x], P_Z_C) - kl(q_c, PI)



def test_eq_10_1_the_bound_is_the_evidence_minus_a_divergence():
    q = table(X, Z * K).reshape(X, Z, K)
    for x in range(X):
        enumerated(x, chain, lambda x, z, c: q[x, z, c], Z, K)  # asserts it, cell by cell
        evidence = math.log(sum(chain(x, z, c) for z in range(Z) for c in range(K)))
        assert enumerated(x, chain, lambda x, z, c: q[x, z, c], Z, K) < evidence
        posterior = {(z, c): chain(x, z, c) / math.exp(evidence) for z in range(Z) for c in range(K)}
        assert enumerated(x, chain, lambda x, *h, p=posterior: p[h], Z, K) == pytest.approx(evidence)


def test_eq_10_2_a_further_latent_costs_how_wrong_we_are_about_it():
    q_c_z = table(X, Z, K)
    for x in range(X):
        both = enumerated(x, chain, lambda x, z, c: Q_Z_X[x, z] * q_c_z[x, z, c], Z, K)
        alone = enumerated(x, lambda x, z: sum(chain(x, z, c) for c in range(K)), lambda x, z: Q_Z_X[x, z], Z)
        wrong = sum(Q_Z_X[x, z] * kl(q_c_z[x, z], np.array([chain(x, z, c) for c in range(K)])
                                     / sum(chain(x, z, c) for c in range(K))) for z in range(Z))
        assert both == pytest.approx(alone - wrong)
        assert wrong > 0.01


def test_eq_10_3_the_chain_is_a_distribution_in_which_x_depends_on_c_through_z():
    assert total(chain, Z, K) == pytest.approx(1)
    for x, z in itertools.product(range(X), range(Z)):
        given = [chain(x, z, c) / sum(chain(y, z, c) for y in range(X)) for c in range(K)]
        assert np.ptp(given) < 1e-12


def test_eq_10_4_mixture_prior_with_the_class_by_bayes():
    bayes = p_c_given_z()
    for x in range(X):
        alone = enumerated(x, lambda x, z: sum(chain(x, z, c) for c in range(K)), lambda x, z: Q_Z_X[x, z], Z)
        both = enumerated(x, chain, lambda x, z, c: Q_Z_X[x, z] * bayes[z, c], Z, K)
        assert mixture_bound(x) == pytest.approx(alone)
        assert mixture_bound(x) == pytest.approx(both)


def test_eq_10_5_vade():
    for x in range(X):
        counted = enumerated(x, chain, lambda x, z, c: Q_Z_X[x, z] * Q_C_X[x, c], Z, K)
        assert vade_bound(x, Q_C_X[x]) == pytest.approx(counted)


def test_eq_10_6_what_vade_pays_for_one_class_for_all_codes():
    for x in range(X):
        gap = Q_Z_X[x] @ kl(Q_C_X[x], p_c_given_z())
        assert mixture_bound(x) - vade_bound(x, Q_C_X[x]) == pytest.approx(gap)
        assert gap > 0.01


def test_eq_10_7_the_arithmetic_mean_is_a_distribution_but_not_the_best():
    for x in range(X):
        mean = Q_Z_X[x] @ p_c_given_z()
        drawn = np.random.default_rng(x).choice(Z, 200_000, p=Q_Z_X[x])
        assert np.allclose(p_c_given_z()[drawn].mean(0), mean, atol=5e-3)
        best = optimize.minimize(lambda a, x=x: -vade_bound(x, np.exp(a) / np.exp(a).sum()), np.zeros(K))
        assert -best.fun > vade_bound(x, mean) + 1e-6


def test_eq_10_8_the_best_class_is_a_geometric_mean():
    for x in range(X):
        best = optimize.minimize(lambda a, x=x: -vade_bound(x, np.exp(a) / np.exp(a).sum()), np.zeros(K), tol=1e-10)
        found = np.exp(best.x) / np.exp(best.x).sum()
        geometric = np.exp(Q_Z_X[x] @ np.log(p_c_given_z()))
        by_kl = PI * np.exp(-kl(Q_Z_X[x], P_Z_C))
        assert np.allclose(geometric / geometric.sum(), found, atol=1e-4)
        assert np.allclose(by_kl / by_kl.sum(), found, atol=1e-4)


def encoder(inputs):
    """Some Gaussians in two dimensions for inputs (N, 3)."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    mean, log_var = (inputs @ weights).chunk(2, 1)
    return 2 * mean, log_var


def inputs(n, seed=1):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussians(mean, log_var):
    return Independent(Normal(mean, (0.5 * log_var).exp()), 1)


def test_eq_10_9_vamp_prior_is_an_equal_mixture_and_its_bound_is_counted():
    pseudo = [0, 3]
    prior = np.mean([Q_Z_X[u] for u in pseudo], axis=0)
    for x in range(X):
        formula = Q_Z_X[x] @ np.log(P_X_Z[:, x]) - kl(Q_Z_X[x], prior)
        bayes = np.array([[Q_Z_X[u, z] / (2 * prior[z]) for u in pseudo] for z in range(Z)])
        counted = enumerated(x, lambda x, z, k: 0.5 * Q_Z_X[pseudo[k], z] * P_X_Z[z, x],
                             lambda x, z, k, b=bayes: Q_Z_X[x, z] * b[z, k], Z, 2)
        assert formula == pytest.approx(counted)
    mean, log_var = encoder(inputs(5))
    z = inputs(7, 2)[:, :2]
    average = sum(gaussians(mean[k], log_var[k]).log_prob(z).exp() for k in range(5)) / 5
    same = MixtureSameFamily(Categorical(torch.ones(5, dtype=torch.float64)), gaussians(mean, log_var))
    assert torch.allclose(average.log(), same.log_prob(z))


def test_eq_10_10_the_mean_rate_under_the_aggregate_posterior_is_at_most_log_n():
    aggregate = Q_Z_X.mean(0)
    rate = kl(Q_Z_X, aggregate).mean()
    joint = Q_Z_X / X  # of index and code
    information = sum(joint[n, z] * math.log(joint[n, z] / (joint[n].sum() * joint[:, z].sum()))
                      for n in range(X) for z in range(Z))
    assert rate == pytest.approx(information)
    assert rate <= math.log(X)
    apart = np.eye(4) * (1 - 4e-9) + 1e-9  # codes that never meet reach it
    assert kl(apart, apart.mean(0)).mean() == pytest.approx(math.log(4), abs=1e-6)


def test_eq_10_11_an_image_like_a_pseudo_input_pays_at_most_log_k():
    axis = torch.linspace(-14, 14, 561, dtype=torch.float64)
    grid, area = torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2
    pseudo, images = inputs(4, 3), torch.cat([inputs(3, 4), inputs(4, 3)[:1]])
    q, components = gaussians(*encoder(0.4 * images)), gaussians(*encoder(0.4 * pseudo))
    log_q = q.log_prob(grid.unsqueeze(1))
    prior = components.log_prob(grid.unsqueeze(1)).exp().mean(1, keepdim=True).log()
    rate = (log_q.exp() * (log_q - prior)).sum(0) * area
    to_each = torch.stack([kl_divergence(q, gaussians(*(v.expand(4, 2) for v in encoder(0.4 * pseudo[k:k + 1]))))
                           for k in range(4)], 1)
    assert (rate <= math.log(4) + to_each.amin(1) + 1e-9).all()
    assert rate[3] <= math.log(4) and to_each[3, 0] < 1e-12
    assert not (rate <= to_each.amin(1)).all()  # log K is needed


def m2(x, z, c):
    return PI[c] * P_Z[z] * P_X_ZC[c, z, x]


def a_of_m2(x):
    return np.array([Q_Z_XC[x, c] @ np.log(P_X_ZC[c, :, x]) - kl(Q_Z_XC[x, c], P_Z) for c in range(K)])


def test_eq_10_12_in_m2_class_and_code_are_independent_beforehand():
    assert total(m2, Z, K) == pytest.approx(1)
    marginal = np.array([[sum(m2(x, z, c) for x in range(X)) for c in range(K)] for z in range(Z)])
    assert np.allclose(marginal, np.outer(P_Z, PI))


def test_eq_10_13_m2():
    for x in range(X):
        formula = Q_C_X[x] @ a_of_m2(x) - kl(Q_C_X[x], PI)
        counted = enumerated(x, m2, lambda x, z, c: Q_C_X[x, c] * Q_Z_XC[x, c, z], Z, K)
        assert formula == pytest.approx(counted)


def test_eq_10_14_m2_with_a_label():
    for x, c in itertools.product(range(X), range(K)):
        bound = a_of_m2(x)[c] + math.log(PI[c])
        truth = sum(m2(x, z, c) for z in range(Z))
        posterior = np.array([m2(x, z, c) / truth for z in range(Z)])
        assert bound <= math.log(truth)
        assert bound == pytest.approx(math.log(truth) - kl(Q_Z_XC[x, c], posterior))


def test_eq_10_15_shu_and_vade_within():
    for x in range(X):
        braces = np.array([Q_Z_XC[x, c] @ np.log(P_X_Z[:, x]) - kl(Q_Z_XC[x, c], P_Z_C[c]) for c in range(K)])
        formula = Q_C_X[x] @ braces - kl(Q_C_X[x], PI)
        counted = enumerated(x, chain, lambda x, z, c: Q_C_X[x, c] * Q_Z_XC[x, c, z], Z, K)
        assert formula == pytest.approx(counted)
        same = np.array([Q_Z_X[x] @ np.log(P_X_Z[:, x]) - kl(Q_Z_X[x], P_Z_C[c]) for c in range(K)])
        assert Q_C_X[x] @ same - kl(Q_C_X[x], PI) == pytest.approx(vade_bound(x, Q_C_X[x]))


def test_eq_10_16_the_best_class_is_a_softmax_and_others_pay_a_divergence():
    for x in range(X):
        a = a_of_m2(x)
        star = PI * np.exp(a) / (PI * np.exp(a)).sum()
        counted = enumerated(x, m2, lambda x, z, c: Q_C_X[x, c] * Q_Z_XC[x, c, z], Z, K)
        assert counted == pytest.approx(math.log((PI * np.exp(a)).sum()) - kl(Q_C_X[x], star))
        at_best = enumerated(x, m2, lambda x, z, c, s=star: s[c] * Q_Z_XC[x, c, z], Z, K)
        assert at_best == pytest.approx(math.log((PI * np.exp(a)).sum()))


def moving(x, z, c, w):
    return P_W[w] * PI[c] * P_Z_WC[w, c, z] * P_X_Z[z, x]


def p_c_given_zw():
    joint = PI[:, None] * P_Z_WC
    return joint / joint.sum(1, keepdims=True)  # (W, K, Z)


def counted_dilokthanakul(x):
    bayes = p_c_given_zw()
    return enumerated(x, moving, lambda x, z, c, w: Q_W_X[x, w] * Q_Z_X[x, z] * bayes[w, c, z], Z, K, W)


def test_eq_10_17_the_moving_mixture_is_a_distribution_and_its_class_is_bayes():
    assert total(moving, Z, K, W) == pytest.approx(1)
    for x, z, w in itertools.product(range(X), range(Z), range(W)):
        cells = np.array([moving(x, z, c, w) for c in range(K)])
        assert np.allclose(cells / cells.sum(), p_c_given_zw()[w, :, z])
    assert P_W @ np.einsum("c,wcz->wz", PI, P_Z_WC) == pytest.approx(
        [sum(moving(x, z, c, w) for x in range(X) for c in range(K) for w in range(W)) for z in range(Z)])


def test_eq_10_18_four_terms_of_dilokthanakul():
    bayes = p_c_given_zw()
    for x in range(X):
        pairs = list(itertools.product(range(W), range(Z)))
        conditional = sum(Q_W_X[x, w] * Q_Z_X[x, z] * bayes[w, c, z] * math.log(Q_Z_X[x, z] / P_Z_WC[w, c, z])
                          for w, z in pairs for c in range(K))
        c_prior = sum(Q_W_X[x, w] * Q_Z_X[x, z] * kl(bayes[w, :, z], PI) for w, z in pairs)
        formula = Q_Z_X[x] @ np.log(P_X_Z[:, x]) - conditional - kl(Q_W_X[x], P_W) - c_prior
        assert formula == pytest.approx(counted_dilokthanakul(x))


def test_eq_10_18_printed_with_a_kl_is_lower_by_covariances():
    """The paper's second term averages log q / p over a z of its own; Cov(p(c|z,w), log p(c|z,w)) is the cost."""
    bayes = p_c_given_zw()
    for x in range(X):
        average = np.einsum("wcz,z->wc", bayes, Q_Z_X[x])
        printed = sum(Q_W_X[x, w] * average[w, c] * kl(Q_Z_X[x], P_Z_WC[w, c]) for w in range(W) for c in range(K))
        shared = sum(Q_W_X[x, w] * Q_Z_X[x, z] * bayes[w, c, z] * math.log(Q_Z_X[x, z] / P_Z_WC[w, c, z])
                     for w, c, z in itertools.product(range(W), range(K), range(Z)))
        covariances = np.array([[np.cov(bayes[w, c], np.log(bayes[w, c]), aweights=Q_Z_X[x], ddof=0)[0, 1]
                                 for c in range(K)] for w in range(W)])
        assert printed - shared == pytest.approx(Q_W_X[x] @ covariances.sum(1))
        assert (covariances > 0).all()


def test_eq_10_19_dilokthanakul_is_a_mixture_prior_that_moves():
    for x in range(X):
        rate = sum(Q_W_X[x, w] * kl(Q_Z_X[x], PI @ P_Z_WC[w]) for w in range(W))
        formula = Q_Z_X[x] @ np.log(P_X_Z[:, x]) - rate - kl(Q_W_X[x], P_W)
        assert formula == pytest.approx(counted_dilokthanakul(x))


LOGITS = torch.tensor([0.4, -0.3, 1.1, -1.0], dtype=torch.float64)
COSTS = torch.tensor([12.0, 9.0, 15.0, 4.0], dtype=torch.float64)
Q = LOGITS.softmax(0)
SCORES = torch.eye(4, dtype=torch.float64) - Q


def true_gradient():
    a = LOGITS.clone().requires_grad_()
    return torch.autograd.grad(a.softmax(0) @ COSTS, a)[0]


def test_eq_10_20_exact_gradient():
    assert torch.allclose(Q * (COSTS - Q @ COSTS), true_gradient())


def test_eq_10_21_score_function_is_unbiased_for_every_baseline():
    for c in range(4):
        a = LOGITS.clone().requires_grad_()
        assert torch.allclose(torch.autograd.grad(a.log_softmax(0)[c], a)[0], SCORES[c])
    for b in (0.0, 9.0, -100.0):
        mean = sum(Q[c] * (COSTS[c] - b) * SCORES[c] for c in range(4))
        assert torch.allclose(mean, true_gradient())


def counted_variance(b):
    estimates = torch.stack([(COSTS[c] - b) * SCORES[c] for c in range(4)])
    mean = sum(Q[c] * estimates[c] for c in range(4))
    return float(sum(Q[c] * (estimates[c] - mean).square() for c in range(4)).sum())


def test_eq_10_22_variance_of_the_score_function():
    for b in (0.0, 9.0, 14.0):
        formula = (Q * (COSTS - b).square() * SCORES.square().sum(1)).sum() - true_gradient().square().sum()
        assert float(formula) == pytest.approx(counted_variance(b))


def test_eq_10_23_best_baseline():
    weights = Q * SCORES.square().sum(1)
    found = optimize.minimize_scalar(counted_variance, bracket=(0, 20), tol=1e-10)
    assert found.x == pytest.approx(float((weights * COSTS).sum() / weights.sum()), abs=1e-4)


def test_eq_10_24_the_largest_of_logits_and_gumbels_is_a_draw():
    for c in range(4):
        others = [j for j in range(4) if j != c]

        def density(t, c=c, others=others):
            own = math.exp(float(LOGITS[c]) - t) * math.exp(-math.exp(float(LOGITS[c]) - t))
            return own * math.prod(math.exp(-math.exp(float(LOGITS[j]) - t)) for j in others)

        assert integrate.quad(density, -8, 40)[0] == pytest.approx(float(Q[c]), abs=1e-7)
    generator = torch.Generator().manual_seed(0)
    noise = -torch.log(-torch.log(torch.rand(400_000, 4, generator=generator, dtype=torch.float64)))
    assert torch.allclose((LOGITS + noise).argmax(1).bincount().double() / 400_000, Q, atol=3e-3)


def relaxed(tau, n=100_000):
    generator = torch.Generator().manual_seed(1)
    noise = -torch.log(-torch.log(torch.rand(n, 4, generator=generator, dtype=torch.float64)))
    a = LOGITS.expand(n, 4).clone().requires_grad_()
    return a, noise, ((a + noise) / tau).softmax(1)


def test_eq_10_25_the_relaxed_draw_becomes_a_class():
    _, noise, cold = relaxed(0.001)
    corners = torch.nn.functional.one_hot((LOGITS + noise).argmax(1), 4)
    assert (cold - corners).abs().max(1).values.gt(0.01).double().mean() < 0.01
    for tau in (0.3, 1.0, 3.0):
        y = relaxed(tau)[2]
        theirs = torch.distributions.RelaxedOneHotCategorical(torch.tensor(tau).double(), logits=LOGITS)
        torch.manual_seed(2)
        other = theirs.sample((100_000,))
        assert torch.allclose(y.mean(0), other.mean(0), atol=5e-3)
        assert torch.allclose(y.var(0), other.var(0), atol=5e-3)


def test_eq_10_26_mean_squared_error_is_bias_squared_plus_variance_over_draws():
    a, _, y = relaxed(1.0)
    offers = torch.tensor([[0.0, 2.0], [3.0, 1.0], [1.0, 1.0], [-2.0, 0.5]], dtype=torch.float64)

    def cost(y):
        return ((y @ offers) ** 2).sum(1)

    g, = torch.autograd.grad(cost(y).sum(), a)
    costs = cost(torch.eye(4, dtype=torch.float64))
    truth = Q * (costs - Q @ costs)
    bias, variance = (g.mean(0) - truth).square().sum(), g.var(0).sum()
    for draws in (1, 5, 50):
        errors = (g.reshape(-1, draws, 4).mean(1) - truth).square().sum(1)
        assert float(errors.mean()) == pytest.approx(float(bias + variance / draws), rel=0.05)
    assert bias > 0.01


def test_eq_10_27_the_relaxed_cost_is_a_classs_own_at_the_corners():
    """With q(z|x,y), p(x|z,y) and p(z|c) Gaussian in one dimension, by quadrature: at e_c it is -A_c, the ELBO given c;
    between corners it is continuous, and not the average of theirs."""
    means, sds, x = np.array([-1.0, 0.5, 2.0]), np.array([0.5, 1.0, 0.8]), 0.7
    axis = np.linspace(-15, 15, 6001)

    def normal(z, mean, sd):
        return np.exp(-0.5 * ((z - mean) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))

    def parts(y):
        """q(z|x,y) and log p(x|z,y) on the axis, for networks that read any y."""
        q = normal(axis, y @ [0.3, -0.6, 1.0], 0.4 + 0.2 * y[1])
        return q, np.log(normal(x, np.tanh(axis) + y @ [0, 1, -1], 0.6))

    def step(values):
        return integrate.trapezoid(values, axis)

    def relaxed_cost(y):
        q, log_px = parts(y)
        kls = np.array([step(q * np.log(np.maximum(q, 1e-300) / normal(axis, m, s))) for m, s in zip(means, sds)])
        return -step(q * log_px) + y @ kls

    for c in range(3):
        q, log_px = parts(np.eye(3)[c])
        bound = step(q * (log_px + np.log(normal(axis, means[c], sds[c])) - np.log(np.maximum(q, 1e-300))))
        evidence = math.log(step(np.exp(log_px) * normal(axis, means[c], sds[c])))
        assert relaxed_cost(np.eye(3)[c]) == pytest.approx(-bound)
        assert bound < evidence
    corners = [relaxed_cost(np.eye(3)[c]) for c in range(3)]
    assert abs(relaxed_cost(np.full(3, 1 / 3)) - np.mean(corners)) > 0.1
    assert relaxed_cost(np.array([1 - 2e-6, 1e-6, 1e-6])) == pytest.approx(corners[0], abs=1e-4)


def test_eq_10_27_and_its_gradient_are_the_librarys():
    """The library's relaxed cost for one relaxed class, against the formula with torch.distributions."""
    torch.manual_seed(0)
    model = LatentClassVAE.build(6, 2, 3, (8,), Gaussian(0.5), told=True)
    model.prior.means.copy_(torch.randn(3, 2))
    x, generator = torch.randn(5, 6), torch.Generator().manual_seed(3)
    y = torch.randn(5, 4, 3).softmax(2).requires_grad_()
    ours = sum(model._given(x, y, 1.0, generator))
    mean, log_var = model.encoder(torch.cat([x.unsqueeze(1).expand(5, 4, 6), y], 2))
    q = Normal(mean, (0.5 * log_var).exp())
    z = mean + q.stddev * torch.randn(mean.shape, generator=generator.manual_seed(3))
    out = Normal(model.decoder(torch.cat([z, y], 2)), model.likelihood.sigma)
    components = Normal(model.prior.means, model.prior.log_scale.exp())
    kls = kl_divergence(Normal(mean.unsqueeze(2), q.stddev.unsqueeze(2)), components).sum(3)
    formula = -out.log_prob(x.unsqueeze(1)).sum(2) + (y * kls).sum(2)
    assert torch.allclose(ours, formula, rtol=1e-4)
    gradients = [torch.autograd.grad(value.sum(), y, retain_graph=True)[0] for value in (ours, formula)]
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4)


def test_eq_10_28_optimum_of_the_divergence_the_wrong_way_round():
    f = np.array([0.0, 5.0, 100.0, 2.0])

    def wrong(a):
        q = np.exp(a - a.max()) / np.exp(a - a.max()).sum()
        return q @ f + kl(np.full(4, 0.25), q)

    found = optimize.minimize(wrong, np.zeros(4), method="Nelder-Mead",
                              options={"xatol": 1e-10, "fatol": 1e-13, "maxiter": 20_000, "maxfev": 20_000})
    q = np.exp(found.x) / np.exp(found.x).sum()
    shift = optimize.brentq(lambda s: (1 / (4 * (f + s))).sum() - 1, 1e-6, 10)
    assert np.allclose(q, 1 / (4 * (f + shift)), rtol=1e-3)
