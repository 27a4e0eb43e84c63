"""Chapter 8's equations, as written there, against quadrature, torch.distributions, autograd and scikit-learn."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture as Reference
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

LOG_2PI = math.log(2 * math.pi)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MEANS = torch.tensor([[-2.0, 0.0], [1.5, 1.0], [1.0, -1.5]], dtype=torch.float64)
VARIANCES = torch.tensor([[0.5, 1.5], [0.6, 0.3], [0.3, 0.6]], dtype=torch.float64)
FULL = torch.tensor([[[1.0, 0.6], [0.6, 0.8]], [[0.5, -0.2], [-0.2, 0.4]], [[0.7, 0.1], [0.1, 0.3]]]).double()
M = torch.tensor([[-1.5, 0.3], [1.2, 0.0], [0.0, 0.0], [-2.0, 2.5]], dtype=torch.float64)  # the encoder's means
S = torch.tensor([[0.1, 0.2], [0.1, 0.3], [1.5, 1.0], [0.2, 0.1]], dtype=torch.float64)  # its variances
GAMMA = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.4, 0.3, 0.3], [0.7, 0.2, 0.1]], dtype=torch.float64)
AXIS = torch.linspace(-9, 9, 361, dtype=torch.float64)
GRID, AREA = torch.cartesian_prod(AXIS, AXIS), float(AXIS[1] - AXIS[0]) ** 2

COMPONENTS = MultivariateNormal(MEANS, FULL)
PRIOR = MixtureSameFamily(Categorical(WEIGHTS), COMPONENTS)
ENCODER = Independent(Normal(M, S.sqrt()), 1)
KL = kl_divergence(MultivariateNormal(M.unsqueeze(1), torch.diag_embed(S).unsqueeze(1)), COMPONENTS)  # (4, 3)
Q = ENCODER.log_prob(GRID.unsqueeze(1)).exp()  # q(z) of the four encoders on the grid, (grid, 4)


def expectation(values):
    """E_q of values (grid, 4) or (grid, 1), by quadrature."""
    return (Q * values).sum(0) * AREA


def exact():
    return expectation(ENCODER.log_prob(GRID.unsqueeze(1)) - PRIOR.log_prob(GRID).unsqueeze(1))


def collapsed(kl=KL, weights=WEIGHTS):
    return -torch.log((weights * torch.exp(-kl)).sum(1))


def joint(kl=KL, weights=WEIGHTS, gamma=GAMMA):
    return (gamma * kl).sum(1) + (gamma * torch.log(gamma / weights)).sum(1)


def best(kl=KL, weights=WEIGHTS):
    share = weights * torch.exp(-kl)
    return share / share.sum(1, keepdim=True)


def divergence(p, q):
    return (p * torch.log(p / q)).sum(-1)


def posterior():
    """p(c | z) on the grid, (grid, 3)."""
    return (WEIGHTS.log() + COMPONENTS.log_prob(GRID.unsqueeze(1)) - PRIOR.log_prob(GRID).unsqueeze(1)).exp()


def close(a, b, tolerance=1e-6):
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (a, b))
    return torch.allclose(a, b, atol=tolerance)


def test_eq_8_1_average_rate_is_information_plus_misfit():
    line = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    step = float(line[1] - line[0])
    log_q = Normal(torch.tensor([-2.0, 0.5, 0.8, 3.0]).double(), torch.tensor([0.4, 0.7, 0.3, 0.5]).double()).log_prob(
        line.unsqueeze(1))
    aggregate, log_p = log_q.exp().mean(1, keepdim=True).log(), Normal(0.0, 1.0).log_prob(line).unsqueeze(1)
    rates = (log_q.exp() * (log_q - log_p)).sum(0) * step
    information = (log_q.exp() * (log_q - aggregate)).sum(0) * step
    misfit = (aggregate.exp() * (aggregate - log_p)).sum() * step
    assert close(rates.mean(), information.mean() + misfit)
    assert information.mean() < math.log(4) and misfit > 0


def test_eq_8_2_joint_density_is_made_by_the_three_steps():
    # Sampling c, z, x in turn (1-D, p(x|z) = N(2z, 0.3²)): shares of boxes in (x, z, c) against the product of factors.
    generator = torch.Generator().manual_seed(0)
    pi, mu, sd = torch.tensor([0.7, 0.3]), torch.tensor([-1.0, 1.0]), torch.tensor([0.5, 0.8])
    c = torch.multinomial(pi, 400_000, replacement=True, generator=generator)
    z = mu[c] + sd[c] * torch.randn(len(c), generator=generator)
    x = 2 * z + 0.3 * torch.randn(len(c), generator=generator)
    t = (torch.arange(200) + 0.5) / 200
    for component, low_z, low_x in itertools.product((0, 1), (-1.5, -0.5, 0.5), (-2.0, 0.0)):
        zs, xs = (low_z + t).unsqueeze(1), (low_x + 2 * t).unsqueeze(0)
        log_density = Normal(mu[component], sd[component]).log_prob(zs) + Normal(2 * zs, 0.3).log_prob(xs)
        density = pi[component] * log_density.exp()
        inside = (c == component) & (z > low_z) & (z < low_z + 1) & (x > low_x) & (x < low_x + 2)
        assert abs(float(inside.float().mean()) - float(density.mean() * 2)) < 0.003


def test_eq_8_3_summing_out_the_component_leaves_a_mixture():
    total = sum(w * MultivariateNormal(m, s).log_prob(GRID).exp() for w, m, s in zip(WEIGHTS, MEANS, FULL, strict=True))
    assert close(total, PRIOR.log_prob(GRID).exp(), 1e-12)
    assert float(total.sum() * AREA) == pytest.approx(1, abs=1e-6)
    reference = Reference(3)
    reference.weights_, reference.means_ = WEIGHTS.numpy(), MEANS.numpy()
    reference.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(FULL.numpy()))
    assert close(total[::97].log(), reference.score_samples(GRID[::97].numpy()), 1e-8)
    # p(x) = ∫ p(z) p(x|z) dz, for p(x|z) = N(z, 0.5 I): a mixture with covariances Sigma_k + 0.5 I.
    x = torch.tensor([0.3, -0.4], dtype=torch.float64)
    marginal = (total * MultivariateNormal(x, 0.5 * torch.eye(2).double()).log_prob(GRID).exp()).sum() * AREA
    widened = MixtureSameFamily(Categorical(WEIGHTS), MultivariateNormal(MEANS, FULL + 0.5 * torch.eye(2)))
    assert close(marginal.log(), widened.log_prob(x))


def test_eq_8_4_sum_over_dimensions_stands_inside_the_log_sum_exp():
    log_normal = -0.5 * (LOG_2PI + VARIANCES.log() + (GRID.unsqueeze(1) - MEANS) ** 2 / VARIANCES)
    ours = logsumexp(WEIGHTS.log().numpy() + log_normal.sum(-1).numpy(), axis=1)
    oracle = MixtureSameFamily(Categorical(WEIGHTS), Independent(Normal(MEANS, VARIANCES.sqrt()), 1))
    assert close(ours, oracle.log_prob(GRID), 1e-10)
    two = torch.tensor([[-3.0, -3.0], [3.0, 3.0]])
    each = math.log(0.5) - 0.5 * (LOG_2PI + (torch.tensor([-3.0, 3.0]) - two) ** 2)  # (2 components, 2 dimensions)
    assert round(float(torch.logsumexp(each.sum(1) + math.log(2), 0)), 2) == -19.84
    assert round(float(torch.logsumexp(each, 0).sum()), 2) == -3.22  # the wrong order, of the failure lab


def test_eq_8_5_moments_of_a_mixture():
    mean = (WEIGHTS[:, None] * MEANS).sum(0)
    apart = MEANS - mean
    covariance = (WEIGHTS[:, None, None] * (FULL + apart[:, :, None] * apart[:, None, :])).sum(0)
    density = PRIOR.log_prob(GRID).exp() * AREA
    assert close(mean, density @ GRID)
    assert close(covariance, (density[:, None] * (GRID - mean)).T @ (GRID - mean))


def test_eq_8_6_bound_never_exceeds_the_log_likelihood():
    # p(x|z) = N(z, 0.5 I) again: log p(x) is known, and -D - R by quadrature must stay below it, for any q.
    x = torch.tensor([0.3, -0.4], dtype=torch.float64)
    log_px = MixtureSameFamily(Categorical(WEIGHTS), MultivariateNormal(MEANS, FULL + 0.5 * torch.eye(2))).log_prob(x)
    log_likelihood = MultivariateNormal(x, 0.5 * torch.eye(2).double()).log_prob(GRID).unsqueeze(1)
    assert (expectation(log_likelihood) - exact() < log_px).all()
    truth = (PRIOR.log_prob(GRID).unsqueeze(1) + log_likelihood - log_px).exp()  # the posterior makes it tight
    tight = (truth * (log_likelihood - truth.log() + PRIOR.log_prob(GRID).unsqueeze(1))).sum() * AREA
    assert close(tight, log_px)


def test_eq_8_7_entropy_of_a_diagonal_gaussian():
    ours = 0.5 * (1 + LOG_2PI + S.log()).sum(1)
    assert close(ours, ENCODER.entropy(), 1e-12)
    assert close(ours, -expectation(ENCODER.log_prob(GRID.unsqueeze(1))))


def test_eq_8_8_monte_carlo_estimates_the_exact_rate():
    eps = torch.randn(100_000, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = M + S.sqrt() * eps
    estimate = -0.5 * (1 + LOG_2PI + S.log()).sum(1) - PRIOR.log_prob(z).mean(0)
    assert close(estimate, exact(), 0.05)


def test_eq_8_9_expected_quadratic_form():
    precision = torch.linalg.inv(FULL[0])
    apart = GRID - MEANS[0]
    quadratic = torch.einsum("gi,ij,gj->g", apart, precision, apart)
    ours = torch.einsum("ni,ij,nj->n", M - MEANS[0], precision, M - MEANS[0]) + (precision.diagonal() * S).sum(1)
    assert close(ours, expectation(quadratic.unsqueeze(1)))


def bracket(full=FULL):
    """Distance and trace of Eqs. (8.10) and (8.11), each (4, 3), with explicit inverses."""
    precision = torch.linalg.inv(full)
    apart = M.unsqueeze(1) - MEANS
    return torch.einsum("nki,kij,nkj->nk", apart, precision, apart), S @ precision.diagonal(dim1=1, dim2=2).T


def test_eq_8_10_expected_log_density_of_a_component():
    distance, trace = bracket()
    ours = -0.5 * (2 * LOG_2PI + torch.linalg.det(FULL).log() + distance + trace)
    for k in range(3):
        assert close(ours[:, k], expectation(MultivariateNormal(MEANS[k], FULL[k]).log_prob(GRID).unsqueeze(1)))


def test_eq_8_11_kl_to_a_full_component():
    distance, trace = bracket()
    ours = 0.5 * (torch.linalg.det(FULL).log() - S.log().sum(1, keepdim=True) + distance + trace - 2)
    assert close(ours, KL, 1e-10)


def test_eq_8_12_kl_to_a_diagonal_component():
    m, s = M.unsqueeze(1), S.unsqueeze(1)
    ours = 0.5 * (VARIANCES.log() - s.log() + ((m - MEANS) ** 2 + s) / VARIANCES - 1).sum(-1)
    oracle = kl_divergence(Independent(Normal(m, s.sqrt()), 1), Independent(Normal(MEANS, VARIANCES.sqrt()), 1))
    assert close(ours, oracle, 1e-10)


def test_eq_8_13_joint_rate_is_the_kl_of_the_joints():
    brute = torch.zeros(4, dtype=torch.float64)
    for k in range(3):
        log_q = ENCODER.log_prob(GRID.unsqueeze(1)) + GAMMA[:, k].log()  # log q(z, c = k)
        log_p = MultivariateNormal(MEANS[k], FULL[k]).log_prob(GRID) + WEIGHTS[k].log()  # log p(z, c = k)
        brute += expectation(GAMMA[:, k] * (log_q - log_p.unsqueeze(1)))
    assert close(joint(), brute)


def test_eq_8_14_joint_rate_exceeds_the_exact_one_by_an_expected_kl():
    gap = expectation(divergence(GAMMA, posterior().unsqueeze(1)))
    assert close(joint(), exact() + gap)
    assert (gap > 0).all()


def test_eq_8_15_best_responsibilities_minimize_the_joint_rate():
    moderate = KL.clamp_max(4)  # so that the optimizer's steps can reach the minimum
    for n in range(4):
        kl, w = moderate[n].numpy(), WEIGHTS.numpy()

        def rate(logits, kl=kl, w=w):
            g = np.exp(logits - logsumexp(logits))
            return g @ kl + g @ (logits - logsumexp(logits) - np.log(w))

        logits = minimize(rate, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
        assert close(best(moderate)[n], np.exp(logits - logsumexp(logits)), 1e-5)
    rivals = torch.distributions.Dirichlet(torch.ones(3).double()).sample((1000, 4))
    assert ((rivals * (KL + torch.log(rivals / WEIGHTS))).sum(-1) >= joint(gamma=best())).all()


def test_eq_8_16_collapsed_rate_is_the_joint_one_at_its_best():
    assert close(collapsed(), joint(gamma=best()), 1e-12)


def test_eq_8_17_joint_rate_exceeds_the_collapsed_one_by_a_kl():
    assert close(joint(), collapsed() + divergence(GAMMA, best()), 1e-12)


def test_eq_8_18_the_three_rates_are_ordered_with_known_gaps():
    truth, gap = exact(), expectation(divergence(best().unsqueeze(0), posterior().unsqueeze(1)))
    assert close(collapsed(), truth + gap)
    assert (gap > 1e-9).all() and (truth < collapsed()).all() and (collapsed() <= joint()).all()


def test_eq_8_19_jensen_for_the_log_sum_exp():
    a = WEIGHTS.log() + COMPONENTS.log_prob(GRID.unsqueeze(1))  # log pi_k + log N_k, (grid, 3)
    a = a.unsqueeze(1) - ENCODER.log_prob(GRID.unsqueeze(1)).unsqueeze(2)  # minus log q, (grid, 4, 3)
    assert close(expectation(torch.logsumexp(a, 2)), -exact())
    means = torch.stack([expectation(a[:, :, k]) for k in range(3)], 1)
    assert close(means, WEIGHTS.log() - KL)
    assert close(torch.logsumexp(means, 1), -collapsed())
    assert (expectation(torch.logsumexp(a, 2)) >= torch.logsumexp(means, 1)).all()


def test_eq_8_20_collapsed_rate_is_at_most_the_price_of_one_component():
    kl = 20 * torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)).double()
    price = (kl - WEIGHTS.log()).amin(1)
    assert (collapsed(kl) <= price).all()
    assert (price - collapsed(kl) <= math.log(3)).all()  # K terms are at most K times the largest


def total(logits, means, roots, gamma=GAMMA):
    """The sum of R_gamma over the four encoders, for a prior that autograd can differentiate."""
    components = MultivariateNormal(means, scale_tril=roots.tril())
    kl = kl_divergence(MultivariateNormal(M.unsqueeze(1), torch.diag_embed(S).unsqueeze(1)), components)
    return joint(kl, logits.softmax(0), gamma).sum()


def update():
    counts = GAMMA.sum(0)
    means = torch.stack([sum(GAMMA[n, k] * M[n] for n in range(4)) / counts[k] for k in range(3)])
    scatter = [sum(GAMMA[n, k] * (torch.outer(M[n] - means[k], M[n] - means[k]) + torch.diag(S[n])) for n in range(4))
               for k in range(3)]
    return counts / len(M), means, torch.stack(scatter) / counts[:, None, None]


def gradients():
    """The gradients of the total joint rate at the update, by logits, means, and Cholesky factors."""
    weights, means, covariances = update()
    at = [p.requires_grad_() for p in (weights.log(), means, torch.linalg.cholesky(covariances))]
    return torch.autograd.grad(total(*at), at), [p.detach() for p in at]


def assert_no_better_rival(which):
    _, at = gradients()
    generator = torch.Generator().manual_seed(0)
    for step in (0.01, 0.1, 0.3):
        for _ in range(50):
            rival = list(at)
            rival[which] = at[which] + step * torch.randn(at[which].shape, generator=generator, dtype=torch.float64)
            assert total(*rival) > total(*at)


def test_eq_8_21_the_prior_enters_only_through_the_expected_complete_log_likelihood():
    def constant(weights, means, full):
        kl = kl_divergence(MultivariateNormal(M.unsqueeze(1), torch.diag_embed(S).unsqueeze(1)),
                           MultivariateNormal(means, full))
        log_density = torch.stack([expectation(MultivariateNormal(m, c).log_prob(GRID).unsqueeze(1))
                                   for m, c in zip(means, full, strict=True)], 1)
        return joint(kl, weights).sum() + (GAMMA * (weights.log() + log_density)).sum()

    other = torch.tensor([0.1, 0.6, 0.3]).double(), MEANS.flip(0) + 0.3, 1.5 * FULL.flip(0)
    assert close(constant(WEIGHTS, MEANS, FULL), constant(*other), 1e-5)


def test_eq_8_22_weights_are_shares():
    assert close(gradients()[0][0], torch.zeros(3), 1e-10)
    assert_no_better_rival(0)


def test_eq_8_23_means_are_weighted_means_of_the_encoders_means():
    assert close(gradients()[0][1], torch.zeros(3, 2), 1e-10)
    assert_no_better_rival(1)


def test_eq_8_24_covariances_add_each_points_own_variance():
    assert close(gradients()[0][2], torch.zeros(3, 2, 2), 1e-10)
    assert_no_better_rival(2)
    # An oracle: the covariance of a great many draws, each with its responsibility as weight.
    z = M + S.sqrt() * torch.randn(200_000, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, means, covariances = update()
    for k in range(3):
        apart = z - means[k]
        drawn = torch.einsum("n,lni,lnj->ij", GAMMA[:, k], apart, apart) / len(z) / GAMMA[:, k].sum()
        assert close(drawn, covariances[k], 0.02)


def test_eq_8_25_diagonal_components_keep_the_diagonal():
    counts, means = GAMMA.sum(0), update()[1]
    variances = torch.stack([sum(GAMMA[n, k] * ((M[n] - means[k]) ** 2 + S[n]) for n in range(4)) / counts[k]
                             for k in range(3)])
    log_var = variances.log().requires_grad_()
    q = Independent(Normal(M.unsqueeze(1), S.sqrt().unsqueeze(1)), 1)
    kl = kl_divergence(q, Independent(Normal(means, (0.5 * log_var).exp()), 1))
    (gradient,) = torch.autograd.grad(joint(kl).sum(), log_var)
    assert close(gradient, torch.zeros(3, 2), 1e-10)
    assert close(variances, update()[2].diagonal(dim1=1, dim2=2), 1e-12)


def test_eq_8_26_alternating_never_raises_the_collapsed_rate():
    m = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    s = torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.01
    q = MultivariateNormal(m.unsqueeze(1), torch.diag_embed(s).unsqueeze(1))
    weights, means, full = WEIGHTS, MEANS, FULL
    for _ in range(10):
        kl = kl_divergence(q, MultivariateNormal(means, full))
        old, gamma = collapsed(kl, weights).sum(), best(kl, weights)
        assert close(joint(kl, weights, gamma).sum(), old, 1e-8)
        counts = gamma.sum(0)
        weights, means = counts / 200, gamma.T @ m / counts[:, None]
        apart = m.unsqueeze(1) - means
        squares = apart.unsqueeze(3) * apart.unsqueeze(2) + torch.diag_embed(s).unsqueeze(1)
        full = torch.einsum("nk,nkij->kij", gamma, squares) / counts[:, None, None]
        kl = kl_divergence(q, MultivariateNormal(means, full))
        between = joint(kl, weights, gamma).sum()
        assert collapsed(kl, weights).sum() <= between + 1e-9 and between <= old + 1e-9
    assert collapsed(kl, weights).sum() < old + 1e-9


def test_eq_8_27_one_standard_component_is_the_standard_prior():
    standard = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    kl = kl_divergence(MultivariateNormal(M, torch.diag_embed(S)), standard)
    rate = -torch.log(torch.exp(-kl))
    assert close(rate, kl_divergence(ENCODER, Independent(Normal(torch.zeros(2).double(), 1.0), 1)), 1e-10)
    assert close(rate, expectation(ENCODER.log_prob(GRID.unsqueeze(1)) - standard.log_prob(GRID).unsqueeze(1)))


def test_eq_8_28_identity_decoder_gives_the_mixtures_log_likelihood():
    x, previous = M, None
    trace = torch.linalg.inv(FULL).diagonal(dim1=1, dim2=2).sum(1)
    log_component = COMPONENTS.log_prob(x.unsqueeze(1))
    for s in (0.3, 0.1, 0.01):
        # D by Gauss-Hermite quadrature, R_coll from torch's KL.
        nodes, quadrature = np.polynomial.hermite_e.hermegauss(5)
        one = (torch.tensor(quadrature / quadrature.sum()) * -Normal(0.0, s).log_prob(s * torch.tensor(nodes))).sum()
        q = MultivariateNormal(x.unsqueeze(1), s**2 * torch.eye(2).double())
        elbo = -2 * one - collapsed(kl_divergence(q, COMPONENTS))
        right = torch.log((WEIGHTS * torch.exp(log_component - 0.5 * s**2 * trace)).sum(1))
        assert close(elbo, right, 1e-8)
        gap = (PRIOR.log_prob(x) - elbo).max()
        assert previous is None or gap < previous
        previous = gap
    assert previous < 1e-3
