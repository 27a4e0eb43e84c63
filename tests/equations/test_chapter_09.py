"""Chapter 9's equations, as written there, against enumeration, quadrature, autograd, scipy and scikit-learn."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, special, stats
from sklearn import metrics
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from gmvae_lib.clustering import DenoisingAutoencoder
from gmvae_lib.evaluation import clustering_accuracy, homogeneity, nmi, purity
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.prior import MixturePrior
from gmvae_lib.vae import VAE

RNG = np.random.default_rng(0)


def clustered(n=60, classes=4, clusters=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    return y, np.where(rng.random(n) < 0.6, (y + 1) % clusters, rng.integers(clusters, size=n))


def test_eq_9_1_accuracy_is_the_best_of_all_one_to_one_maps():
    for seed, clusters in ((0, 4), (1, 6), (2, 3)):
        y, c = clustered(clusters=clusters, seed=seed)
        size = max(y.max(), c.max()) + 1
        best = max(np.mean([sigma[k] == j for k, j in zip(c, y, strict=True)]) for sigma in permutations(range(size)))
        assert clustering_accuracy(y, c) == pytest.approx(best)
        assert clustering_accuracy(y, (c + 1) % clusters) == pytest.approx(best)  # names do not matter


def information(y, c):
    """I, H(y), H(c) by loops over the table of shares."""
    p = metrics.cluster.contingency_matrix(y, c) / len(y)
    rows, columns = p.sum(1), p.sum(0)
    shared = sum(p[j, k] * math.log(p[j, k] / (rows[j] * columns[k])) for j, k in zip(*p.nonzero(), strict=True))
    return shared, stats.entropy(rows), stats.entropy(columns)


def test_eq_9_2_normalized_mutual_information():
    for seed, clusters in ((0, 4), (1, 6), (2, 3)):
        y, c = clustered(clusters=clusters, seed=seed)
        shared, h_y, h_c = information(y, c)
        assert 2 * shared / (h_y + h_c) == pytest.approx(metrics.normalized_mutual_info_score(y, c))
        assert nmi(y, c) == pytest.approx(metrics.normalized_mutual_info_score(y, c))
    assert nmi(y, (y + 2) % 4) == pytest.approx(1)


def test_eq_9_3_the_denoising_loss_scores_the_whole_image_given_the_damaged_one():
    torch.manual_seed(0)
    vae, x = VAE.build(12, 3, (8,)), torch.randint(0, 17, (6, 12)).float()
    loss = DenoisingAutoencoder(vae, 0.3).elbo(x, generator=torch.Generator().manual_seed(1))
    kept = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) >= 0.3
    assert 0 < (~kept).sum() < x.numel()
    share = vae.decoder(vae.encode(x * kept)[0]).sigmoid().detach().double().numpy()
    expected = -stats.binom.logpmf(x.numpy(), 16, share).sum(1)
    assert np.allclose(loss.distortion.detach(), expected, rtol=1e-5) and not loss.rate.any()


def groups(n=40, v=3, k=3, d=2, seed=0):
    """Groups (n, v, d), and a mixture's weights, means, covariances, in float64."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(n, v, d, generator=generator, dtype=torch.float64)
    factor = torch.randn(k, d, d, generator=generator, dtype=torch.float64)
    covariances = factor @ factor.mT + 0.4 * torch.eye(d)
    return 1.5 * draw, torch.tensor([0.5, 0.3, 0.2]).double()[:k] / sum([0.5, 0.3, 0.2][:k]), \
        torch.randn(k, d, generator=generator, dtype=torch.float64), covariances


def log_normals(z, means, covariances):
    """log N of each view under each component by scipy, (N, V, K)."""
    flat = z.flatten(0, 1).numpy()
    found = [stats.multivariate_normal(m, s).logpdf(flat)
             for m, s in zip(means.numpy(), covariances.numpy(), strict=True)]
    return np.stack(found, 1).reshape(*z.shape[:2], -1)


def fitted(weights, means, covariances):
    return GaussianMixture(len(weights), device="cpu").set_parameters(weights, means, covariances)


def test_eq_9_4_the_density_of_a_group():
    z, *parameters = groups()
    weights, log_normal = parameters[0].numpy(), log_normals(z, *parameters[1:])
    density = (weights * np.exp(log_normal).prod(1)).sum(1)
    assert np.allclose(fitted(*parameters).score_samples(z), np.log(density))
    # It is a density of all views together: in one dimension, two views, it integrates to one.
    _, pi, mu, sigma = groups(d=1, seed=3)
    line = torch.linspace(-14, 14, 401, dtype=torch.float64)
    pairs = torch.cartesian_prod(line, line).unsqueeze(-1)
    joint = fitted(pi, mu, sigma).score_samples(pairs).exp().reshape(401, 401)
    assert integrate.simpson(integrate.simpson(joint.numpy(), x=line), x=line) == pytest.approx(1, abs=1e-4)


def test_eq_9_5_the_responsibilities_of_a_group_are_bayes_rule():
    z, *parameters = groups()
    weights, log_normal = parameters[0].numpy(), log_normals(z, *parameters[1:])
    joint = weights * np.exp(log_normal).prod(1)
    assert np.allclose(fitted(*parameters).predict_proba(z), joint / joint.sum(1, keepdims=True))


def bound_of_groups(gamma, weights, log_normal):
    return (gamma * (np.log(weights) + log_normal.sum(1)) - special.xlogy(gamma, gamma)).sum()


def test_eq_9_6_the_bound_is_below_and_tight_at_the_responsibilities():
    z, *parameters = groups()
    weights, log_normal = parameters[0].numpy(), log_normals(z, *parameters[1:])
    truth = float(fitted(*parameters).score_samples(z).sum())
    best = fitted(*parameters).predict_proba(z).numpy()
    assert bound_of_groups(best, weights, log_normal) == pytest.approx(truth)
    for _ in range(20):
        assert bound_of_groups(RNG.dirichlet(np.ones(3), len(z)), weights, log_normal) < truth


def one_step(z, parameters):
    weights, means, covariances = parameters
    model = GaussianMixture(len(weights), tol=0, max_iter=1, reg_covar=0, weights_init=weights, means_init=means,
                            precisions_init=torch.linalg.inv(covariances), device="cpu")
    return model.fit(z)


@pytest.mark.filterwarnings("ignore")
def test_eq_9_7_weights_are_shares_of_groups():
    z, *parameters = groups()
    gamma = fitted(*parameters).predict_proba(z).numpy()
    weights = gamma.sum(0) / len(z)
    assert np.allclose(one_step(z, parameters).weights_, weights)
    log_normal = log_normals(z, *parameters[1:])
    best = bound_of_groups(gamma, weights, log_normal)
    for rival in RNG.dirichlet(40 * weights, 200):
        assert bound_of_groups(gamma, rival, log_normal) <= best


@pytest.mark.filterwarnings("ignore")
def test_eq_9_8_means_and_covariances_average_over_all_views():
    z, *parameters = groups()
    gamma, (n, v, d) = fitted(*parameters).predict_proba(z).numpy(), z.shape
    counts, z_ = gamma.sum(0), z.numpy()
    means = np.array([sum(gamma[i, k] * z_[i, j] for i in range(n) for j in range(v)) / (v * counts[k])
                      for k in range(3)])
    covariances = np.array([sum(gamma[i, k] * np.outer(z_[i, j] - means[k], z_[i, j] - means[k])
                                for i in range(n) for j in range(v)) / (v * counts[k]) for k in range(3)])
    stepped = one_step(z, parameters)
    assert np.allclose(stepped.means_, means) and np.allclose(stepped.covariances_, covariances)
    weights = gamma.mean(0)
    best = bound_of_groups(gamma, weights, log_normals(z, torch.tensor(means), torch.tensor(covariances)))
    for scale in (0.01, 0.1):
        for _ in range(20):
            shift = torch.tensor(means + scale * RNG.standard_normal(means.shape))
            factor = np.eye(d) + scale * RNG.standard_normal((3, d, d))
            rival = torch.tensor(factor @ covariances @ factor.transpose(0, 2, 1))
            assert bound_of_groups(gamma, weights, log_normals(z, shift, rival)) < best


def agreement(resp, weights):
    """A of Eq. (9.9) for responsibilities (N, V, K) of single views, as written."""
    return np.log((weights * (resp / weights).prod(1)).sum(1))


def test_eq_9_9_a_group_is_its_views_and_their_agreement():
    z, *parameters = groups()
    theirs = SklearnMixture(3)  # the single views' densities and responsibilities by scikit-learn
    theirs.weights_, theirs.means_, theirs.covariances_ = (p.numpy() for p in parameters)
    theirs.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(theirs.covariances_))
    flat = z.flatten(0, 1).numpy()
    singles = theirs.score_samples(flat).reshape(z.shape[:2])
    resp = theirs.predict_proba(flat).reshape(*z.shape[:2], 3)
    group = fitted(*parameters).score_samples(z).numpy()
    assert np.allclose(group, singles.sum(1) + agreement(resp, theirs.weights_))


def test_eq_9_10_the_agreement_has_a_ceiling_that_is_reached():
    weights = np.array([0.5, 0.3, 0.2])
    for concentration in (0.05, 0.3, 1.0):
        resp = RNG.dirichlet(np.full(3, concentration), (300, 4)).clip(1e-12)
        resp /= resp.sum(-1, keepdims=True)
        assert (agreement(resp, weights) <= -3 * math.log(0.2) + 1e-9).all()
    rarest = np.tile([0.0, 0.0, 1.0], (1, 4, 1))
    assert agreement(rarest, weights)[0] == pytest.approx(-3 * math.log(0.2))


def test_eq_9_11_agreement_of_two_views_is_their_information_and_no_more_than_the_components():
    """One dimension, by quadrature: E[A], I(z1; z2), I(z1; c) and H(pi), for well and badly separated components."""
    z = np.linspace(-14, 16, 1501)
    area = (z[1] - z[0]) ** 2
    for spread in (0.7, 1.0, 2.5):
        pi, mu = np.array([0.6, 0.3, 0.1]), np.array([-3.0, 0.0, 4.0])
        log_given = stats.norm.logpdf(z[:, None], mu, spread)  # (Z, K)
        log_single = special.logsumexp(log_given, b=pi, axis=1)
        log_joint = special.logsumexp(log_given[:, None] + log_given, b=pi, axis=2)  # (Z, Z), z1 - c - z2
        log_ratio = log_joint - log_single[:, None] - log_single
        model = fitted(torch.tensor(pi), torch.tensor(mu)[:, None], torch.full((3, 1, 1), spread**2).double())
        i, j = RNG.integers(0, len(z), (2, 50))
        pairs = torch.tensor(np.stack([z[i], z[j]], 1))[..., None]
        a = model.score_samples(pairs) - model.score_samples(pairs.flatten(0, 1)).reshape(-1, 2).sum(1)
        assert np.allclose(a, log_ratio[i, j])
        resp = np.exp(log_given + np.log(pi) - log_single[:, None])[:, None]  # A as Eq. (9.9) writes it
        k = len(z) // 2 + np.arange(-300, 300, 100)
        written = agreement(np.concatenate([resp[k], resp[k + 40]], 1), pi)
        assert np.allclose(written, log_ratio[k, k + 40])
        shared = (np.exp(log_joint) * log_ratio).sum() * area
        named = sum(p * (np.exp(g) * (g - log_single)).sum() for p, g in zip(pi, log_given.T, strict=True)) * area**0.5
        assert 0 < shared <= named <= stats.entropy(pi) + 1e-9 <= math.log(3) + 1e-9


class Tiny:
    """One latent dimension, three components, two binary images x = (1, 0) of one pixel, p(1 | z) = sigmoid(2 z)."""

    pi, mu, sd = np.array([0.5, 0.3, 0.2]), np.array([-2.0, 0.5, 3.0]), np.array([0.7, 1.0, 0.5])
    q = [stats.norm(0.8, 0.9), stats.norm(-1.0, 0.6)]
    signs = (1, -1)

    def likelihood(self, v, z):
        return special.expit(2 * self.signs[v] * z)

    def evidence(self, v, k):
        return integrate.quad(lambda z: stats.norm.pdf(z, self.mu[k], self.sd[k]) * self.likelihood(v, z), -15, 15,
                              limit=200)[0]

    def kl(self, v, k):
        """KL(q_v ‖ N(mu_k, sd_k^2)) by quadrature."""
        return self._mean(v, lambda z: self.q[v].logpdf(z) - stats.norm.logpdf(z, self.mu[k], self.sd[k]))

    def kl_posterior(self, v, k):
        log_evidence = math.log(self.evidence(v, k))
        return self._mean(v, lambda z: self.q[v].logpdf(z) - stats.norm.logpdf(z, self.mu[k], self.sd[k])
                          - special.log_expit(2 * self.signs[v] * z) + log_evidence)

    def distortion(self, v):
        return -self._mean(v, lambda z: special.log_expit(2 * self.signs[v] * z))

    def _mean(self, v, f):
        return integrate.quad(lambda z: self.q[v].pdf(z) * f(z), self.q[v].mean() - 9, self.q[v].mean() + 9)[0]


@pytest.fixture(scope="module")
def tiny():
    """Everything that the bound is made of: evidences, KLs (V, K), distortions (V,), log p(x1, x2)."""
    model = Tiny()
    table = {name: np.array([[getattr(model, name)(v, k) for k in range(3)] for v in range(2)])
             for name in ("evidence", "kl", "kl_posterior")}
    table["distortion"] = np.array([model.distortion(v) for v in range(2)])
    table["log_px"] = math.log((model.pi * table["evidence"].prod(0)).sum())
    return model, table


def test_eq_9_12_views_are_independent_given_the_component(tiny):
    """By integrating over both codes at once, and by drawing from the model."""
    model, table = tiny
    z = np.linspace(-12, 12, 1201)
    joint = sum(p * np.outer(*[stats.norm.pdf(z, m, s) * model.likelihood(v, z) for v in range(2)])
                for p, m, s in zip(model.pi, model.mu, model.sd, strict=True))
    assert math.log(integrate.simpson(integrate.simpson(joint, x=z), x=z)) == pytest.approx(table["log_px"], abs=1e-6)
    c = RNG.choice(3, 400_000, p=model.pi)
    codes = model.mu[c][:, None] + model.sd[c][:, None] * RNG.standard_normal((len(c), 2))
    pixels = RNG.random((len(c), 2)) < special.expit(2 * codes)
    assert np.mean(pixels[:, 0] & ~pixels[:, 1]) == pytest.approx(math.exp(table["log_px"]), abs=0.003)


def joint_rate(gamma, pi, kl):
    return (gamma * kl.sum(0)).sum() + special.rel_entr(gamma, pi).sum()


def test_eq_9_13_the_bound_is_below_for_every_gamma(tiny):
    model, table = tiny
    for gamma in [*RNG.dirichlet(np.ones(3), 50), *np.eye(3)]:
        assert -table["distortion"].sum() - joint_rate(gamma, model.pi, table["kl"]) < table["log_px"]
    # The rate is the KL of the joints q(z1) q(z2) gamma_c and p(c, z1, z2), by Monte Carlo.
    gamma, n = np.array([0.02, 0.96, 0.02]), 200_000
    c = RNG.choice(3, n, p=gamma)
    z = np.stack([q.rvs(n, random_state=RNG) for q in model.q], 1)
    log_q = np.log(gamma[c]) + sum(model.q[v].logpdf(z[:, v]) for v in range(2))
    log_p = np.log(model.pi[c]) + stats.norm.logpdf(z, model.mu[c][:, None], model.sd[c][:, None]).sum(1)
    estimate = (log_q - log_p).mean()
    assert joint_rate(gamma, model.pi, table["kl"]) == pytest.approx(estimate, abs=0.15)


def test_eq_9_14_the_best_gamma_minimizes_the_rate(tiny):
    model, kl = tiny[0], tiny[1]["kl"] / 5  # so that no component is all but certain
    start = np.zeros(3)
    found = optimize.minimize(lambda a: joint_rate(special.softmax(a), model.pi, kl), start, tol=1e-12)
    weight = model.pi * np.exp(-kl.sum(0))
    assert np.allclose(special.softmax(found.x), weight / weight.sum(), atol=1e-4)


def encoded(n=30, v=4, d=3, k=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean, log_var = (torch.randn(n, v, d, generator=generator, dtype=torch.float64) for _ in range(2))
    prior = MixturePrior(k, d, "full", seed=seed).double()
    with torch.no_grad():
        prior.logits.copy_(torch.randn(k, generator=generator))
        prior.lower.copy_(0.4 * torch.randn(k, d, d, generator=generator))
    components = MultivariateNormal(prior.means, scale_tril=prior.scale_tril)
    q = Independent(Normal(mean.unsqueeze(2), (0.5 * log_var).exp().unsqueeze(2)), 1)
    full = MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    return mean, log_var, prior, kl_divergence(full, components).detach()


def test_eq_9_15_the_group_s_rate_is_the_least_joint_rate_per_view():
    mean, log_var, prior, kl = encoded()
    pi, kl_ = prior.weights.detach().numpy(), kl.numpy()
    written = -np.log((pi * np.exp(-kl_.sum(1))).sum(1)) / kl.shape[1]
    assert np.allclose(prior.rate(mean, log_var).detach(), written)
    for i in range(3):
        found = optimize.minimize(lambda a, i=i: joint_rate(special.softmax(a), pi, kl_[i]), np.zeros(5), tol=1e-12)
        assert found.fun / kl.shape[1] == pytest.approx(written[i], abs=1e-5)
    alone = prior.rate(mean[:, :1], log_var[:, :1]).detach()
    assert torch.allclose(alone, prior.rate(mean[:, 0], log_var[:, 0]).detach())  # V = 1 is Eq. (8.16)


def test_eq_9_16_the_gap_is_the_divergence_from_the_posterior(tiny):
    model, table = tiny
    weight = model.pi * table["evidence"].prod(0)
    posterior = weight / weight.sum()  # Bayes' rule over the three components, enumerated
    for gamma in RNG.dirichlet(np.ones(3), 10):
        gap = (gamma * table["kl_posterior"].sum(0)).sum() + special.rel_entr(gamma, posterior).sum()
        bound = -table["distortion"].sum() - joint_rate(gamma, model.pi, table["kl"])
        assert bound + gap == pytest.approx(table["log_px"], abs=1e-7) and gap > 0


def test_eq_9_17_the_group_s_rate_is_the_views_rates_less_their_agreement():
    mean, log_var, prior, kl = encoded()
    pi, n_views = prior.weights.detach().numpy(), kl.shape[1]
    singles = np.stack([prior.rate(mean[:, v], log_var[:, v]).detach() for v in range(n_views)], 1)
    gamma = np.stack([prior.responsibilities(mean[:, v], log_var[:, v]).detach() for v in range(n_views)], 1)
    whole = n_views * prior.rate(mean, log_var).detach().numpy()
    assert np.allclose(whole, singles.sum(1) - agreement(gamma, pi))


def test_eq_9_18_auc_is_the_area_under_the_curve():
    outside, inside = RNG.integers(0, 12, 80) + 2.0, RNG.integers(0, 12, 120).astype(float)
    pairs = [(a > b) + 0.5 * (a == b) for a in outside for b in inside]
    area = metrics.roc_auc_score([1] * 80 + [0] * 120, np.concatenate([outside, inside]))
    assert np.mean(pairs) == pytest.approx(area)


def test_eq_9_19_purity_cannot_fall_when_a_cluster_is_split():
    y, c = clustered(clusters=5, seed=4)
    by_hand = sum(max(sum((y == j) & (c == k)) for j in range(4)) for k in range(5)) / len(y)
    assert purity(y, c) == pytest.approx(by_hand)
    split = np.where((c == 1) & (RNG.random(len(c)) < 0.5), 9, c)
    assert purity(y, split) >= purity(y, c) >= clustering_accuracy(y, c)
    assert purity(y, np.arange(len(y))) == 1


def test_eq_9_20_homogeneity_is_the_share_of_the_class_s_entropy():
    y, c = clustered(clusters=5, seed=5)
    shared, h_y, _ = information(y, c)
    left = sum(np.mean(c == k) * stats.entropy(np.bincount(y[c == k]) / sum(c == k)) for k in np.unique(c))  # H(y | c)
    for written in (1 - left / h_y, shared / h_y, homogeneity(y, c)):
        assert written == pytest.approx(metrics.homogeneity_score(y, c))


def test_eq_9_21_a_weight_follows_the_share_that_it_claims():
    mean, log_var, prior, _ = encoded(v=1)
    mean, log_var = mean[:, 0], log_var[:, 0]
    prior.rate(mean, log_var).mean().backward()
    with torch.no_grad():
        written = prior.weights - prior.responsibilities(mean, log_var).mean(0)
        numeric = []
        for k in range(5):
            values = []
            for h in (1e-5, -1e-5):
                prior.logits[k] += h
                values.append(float(prior.rate(mean, log_var).mean()))
                prior.logits[k] -= h
            numeric.append((values[0] - values[1]) / 2e-5)
    assert torch.allclose(prior.logits.grad, written) and np.allclose(numeric, written, atol=1e-7)
