"""MixtureExplorer follows its controls, says in words what they did, and its numbers are those of the mixture shown."""

import re

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from gmvae_lib.explorers import MixtureExplorer
from gmvae_lib.mixture import GaussianMixture


@pytest.fixture
def panel():
    return MixtureExplorer()


@pytest.fixture(scope="module")
def shared_panel():
    """For a test that sets whatever it looks at."""
    return MixtureExplorer()


def caption(panel):
    assert panel.error is None, panel.error
    return re.sub("<[^>]+>", "", panel.status.value)


def oracle(panel):
    """The log-likelihood, by torch.distributions."""
    weights, means, covariances = panel.parameters()
    mixture = MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances))
    return float(mixture.log_prob(panel._x).sum())


@pytest.mark.parametrize("family", MixtureExplorer.FAMILIES)
@pytest.mark.parametrize("data", MixtureExplorer.TOYS)
def test_every_choice_can_be_drawn_with_the_right_numbers(shared_panel, data, family):
    panel = shared_panel
    panel.set_quietly(data=data, family=family)
    for n_components in (1, 2, 4):
        panel.k.value = n_components
        panel.set_quietly(s1=-0.5, rho=0.5)
        assert panel.log_likelihood() == pytest.approx(oracle(panel))
        peer = GaussianMixture(n_components, covariance_type=family)
        peer.n_features_in_ = 2
        assert f"{peer.n_parameters()} parameters" in caption(panel)
        assert sum(name.get_visible() for name in panel._names) == n_components


def test_families_restrict_the_covariances(panel):
    panel.set_quietly(s1=-0.5, s2=0.25, rho=0.5)
    panel.s1.value = -0.25
    shapes = {family: panel.parameters(family)[2] for family in panel.FAMILIES}
    assert shapes["full"][0, 0, 1] != 0
    assert (shapes["diag"][:, 0, 1] == 0).all()
    assert shapes["diag"][0, 0, 0] != shapes["diag"][0, 1, 1]
    assert (shapes["spherical"][:, 0, 0] == shapes["spherical"][:, 1, 1]).all()
    assert (shapes["tied"] == shapes["tied"][0]).all()
    assert torch.allclose(shapes["tied"][0], shapes["full"].mean(0))  # the weights are equal


@pytest.mark.parametrize(("name", "value", "words"), [
    ("x1", 1.25, "Component 1's center is now at (1.25,"), ("x2", -1.5, ", −1.50)"),
    ("weight", 0.5, "weight is now 0.50"),
    ("s1", -1.0, "σ1 is now 0.1"), ("s2", 0.5, "σ2 is now 3.16"), ("rho", -0.5, "correlation is now −0.50")])
def test_each_slider_moves_its_parameter_and_says_so(panel, name, value, words):
    before, now = panel.image.value, panel.log_likelihood()
    getattr(panel, name).value = value
    assert words in caption(panel)
    assert panel.image.value != before
    assert panel.log_likelihood() == pytest.approx(oracle(panel))
    assert (", up by" in caption(panel)) == (panel.log_likelihood() > now)
    assert torch.isclose(panel._weights.sum(), torch.tensor(1.0).double())


def test_the_controls_show_the_chosen_component(panel):
    panel.component.value = 2
    assert "component 2, the one with the ochre ring" in caption(panel)
    assert [panel.x1.value, panel.x2.value] == panel._means[1].tolist()
    panel.x1.value = 3.0
    assert panel._means[1, 0] == 3 and panel._means[0, 0] != 3
    panel.k.value = 1
    assert panel.component.value == 1


def test_correlation_in_a_family_without_one_is_said_to_be_ignored(panel):
    panel.family.value = "diag"
    before = panel.log_likelihood()
    panel.rho.value = 0.5
    assert "which diag covariances ignore" in caption(panel)
    assert panel.log_likelihood() == before


def test_shrinking_onto_a_point_beats_every_honest_mixture_unless_a_prior_counts(panel):
    panel.k.value = 4
    panel.known.click()
    assert panel.log_likelihood() == pytest.approx(panel._goal, abs=5)
    panel.component.value = 4
    panel.onto.click()
    assert (panel._means[3] == panel._x).all(1).sum() == 1
    seen = []
    for _ in range(16):
        panel.shrink.click()
        seen.append(panel.log_likelihood())
    assert seen == sorted(seen) and seen[-1] > panel._goal
    assert seen[-1] - seen[-2] == pytest.approx(2 * 0.25 * 2.302585, abs=1e-3)  # D log of the factor, Eq. (1.23)
    assert "collapsed on a single point" in caption(panel)
    panel.prior.value = True
    assert panel.log_likelihood() < seen[0]
    assert "The prior makes it pay" in caption(panel)
    assert "components known" not in caption(panel) and not panel._dashed.get_visible()  # another quantity
    panel.prior.value = False
    assert "components known" in caption(panel) and panel._dashed.get_visible()


def test_known_components_are_those_of_the_labels(panel):
    panel.known.click()
    assert panel.log_likelihood() == pytest.approx(panel._goal) == pytest.approx(oracle(panel))


def test_the_penalty_is_the_inverse_wisharts(panel):
    """Differences of the penalized log-likelihood, against the density's formula, Eq. (1.25)."""
    panel.k.value = 2

    def penalized():
        panel.prior.value = True
        value = panel.log_likelihood()
        panel.prior.value = False
        return value - panel.log_likelihood()

    def formula():
        psi = panel._x.T.cov() / 2
        return sum(-0.5 * 7 * s.logdet() - 0.5 * torch.trace(psi @ torch.linalg.inv(s)) for s in panel.parameters()[2])

    first, second = penalized(), formula()
    panel.s1.value, panel.rho.value = -0.75, 0.5
    assert penalized() - first == pytest.approx(float(formula() - second))
    assert first < 0


def test_the_curve_passes_through_the_present_mixture(panel):
    panel.s1.value, panel.s2.value = -0.25, 0.25  # size 1
    sizes, values = panel._curve.get_data()
    assert float(values[(sizes - 1).abs().argmin()]) == pytest.approx(oracle(panel), abs=1.0)


def test_a_hopeless_mixture_still_stands_on_the_axis(panel):
    panel.k.value = 1
    panel.s1.value = panel.s2.value = -5.0
    assert caption(panel)
    low, high = panel._limits()
    assert low <= panel._now.get_ydata()[0] <= high


def test_reset_starts_over(panel):
    before = panel.image.value
    panel.x1.value = 4.0
    panel.again.click()
    assert panel.image.value == before


def test_an_error_is_shown_in_the_panel(panel):
    panel._draw_plane = None
    panel.x1.value = 3.0
    assert "This did not work" in panel.status.value


def test_the_static_picture_has_the_panels_description(panel):
    data, metadata = panel._repr_mimebundle_()
    assert data["text/plain"] == panel.title == metadata["image/png"]["alt"]
    assert data["image/png"].startswith(b"\x89PNG")
