"""Training on groups: a transform that returns views, which share a component."""

import pytest
import torch

from gmvae_lib.data import load, random_affine, views
from gmvae_lib.prior import MixturePrior
from gmvae_lib.training import fit, one_cycle
from gmvae_lib.vae import VAE

X = load("digits").x[:200]


def model(seed=0):
    torch.manual_seed(seed)
    return VAE.build(64, 4, (16,), prior=MixturePrior(5, 4, "full"))


def same(x, generator=None):
    return x


def test_views_are_transformed_each_by_itself_and_stand_together():
    grouped = views(random_affine((8, 8)), 3)(X, torch.Generator().manual_seed(0))
    assert grouped.shape == (200, 3, 64)
    assert not torch.equal(grouped[:, 0], grouped[:, 1])
    assert torch.equal(views(same, 3)(X), X[:, None].expand(-1, 3, -1))


@pytest.mark.parametrize("prior_update", ["gradient", "em"])
def test_one_view_is_the_usual_training(prior_update, device):
    models = model(), model()
    settings = {"epochs": 3, "prior_update": prior_update, "progress": False, "device": device}
    histories = [fit(m, X, transform=t, **settings) for m, t in zip(models, (views(same, 1), same), strict=True)]
    assert histories[0].distortion == pytest.approx(histories[1].distortion, rel=1e-5)
    assert histories[0].rate == pytest.approx(histories[1].rate, rel=1e-4)
    assert torch.allclose(models[0].prior.means, models[1].prior.means, atol=1e-4)


def test_the_prior_s_m_step_sees_groups(monkeypatch, device):
    seen = []
    update = MixturePrior.update
    monkeypatch.setattr(MixturePrior, "update", lambda self, *q, **_: (seen.append([v.shape for v in q]),
                                                                       update(self, *q)))
    history = fit(model(), X, 2, transform=views(random_affine((8, 8)), 3), prior_update="em", progress=False,
                  device=device)
    assert seen == [[(200, 3, 4)] * 2] * 2
    assert len(history) == 2


def test_the_history_is_in_nats_per_view(device):
    """An untrained model's distortion is the same for one view of an image and for five."""
    histories = [fit(model(), X, 1, lr=1e-9, transform=t, progress=False, device=device)
                 for t in (same, views(same, 5))]
    assert histories[0].distortion == pytest.approx(histories[1].distortion, rel=0.02)


def test_one_cycle_rises_to_its_peak_and_falls_to_nothing():
    lr = one_cycle(2e-3, 0.25)
    values = [lr(i / 100) for i in range(101)]
    assert max(values) == lr(0.25) == pytest.approx(2e-3)
    assert values[:26] == sorted(values[:26]) and values[25:] == sorted(values[25:], reverse=True)
    assert lr(0.0) == 0 and lr(1.0) == pytest.approx(0, abs=1e-12)
