"""The widgets of chapter 6: one network for every beta, and a training to watch."""

import gc
import threading
import time
import weakref

import numpy as np
import psutil
import pytest
import torch
from jupyter_client.manager import start_new_kernel

from gmvae_lib.data import Dataset, load
from gmvae_lib.evaluation import rate_distortion
from gmvae_lib.explorers import BetaExplorer, LiveTraining
from gmvae_lib.explorers.chapter_06 import tile, worth
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE


@pytest.fixture(scope="module")
def data():
    digits = load("digits", "test")
    return Dataset(digits.x[:120], digits.y[:120], digits.image_shape, digits.name)


@pytest.fixture(scope="module")
def model(data):
    torch.manual_seed(0)
    model = VAE.build(64, 4, (32,), gated=2.0)
    fit(model, load("digits"), epochs=15, beta=(0.01, 100.0), lr=5e-3, device="cpu")
    return model


@pytest.fixture
def panel(model, data):
    return BetaExplorer(model, data)


def test_moving_beta_changes_the_picture_and_the_words(panel):
    picture, words = panel.image.value, panel.status.value
    panel.beta.value = 10.0
    assert panel.error is None
    assert panel.image.value != picture and panel.status.value != words
    assert "β = 10." in panel.status.value and "β rose: the code became" in panel.status.value
    assert "nats shorter" in panel.status.value


def test_the_point_is_the_model_s_rate_and_distortion(panel, model, data):
    panel.beta.value = 2.0
    curve = rate_distortion(model, data.x, [2.0], n_samples=64)
    rate, distortion = (float(value[0]) for value in panel._point.get_data())
    assert rate == pytest.approx(float(curve.rate), rel=1e-4)
    assert distortion == pytest.approx(float(curve.distortion), rel=0.02)
    (r0, r1), (d0, d1) = panel._tangent.get_data()
    assert (d1 - d0) / (r1 - r0) == pytest.approx(-2.0)
    assert f"{int(curve.active[0])} of 4 units" in panel.status.value


def test_every_beta_works_and_a_move_draws_once(panel, monkeypatch):
    calls = []
    monkeypatch.setattr(panel, "draw", lambda: calls.append(1) or BetaExplorer.draw(panel))
    for beta in (0.01, 0.5, 100.0):
        panel.beta.value = beta
        assert panel.error is None
    assert len(calls) == 3
    panel.box.children[0].children[0].children[1].value = 5.0  # the number box
    assert panel.beta.value == 5.0 and len(calls) == 4


def test_the_map_shows_the_chosen_coordinates(panel, model, data):
    panel.across.value, panel.up.value = 3, 1
    with torch.no_grad():
        codes = model.encode(data.x, panel.beta.value)[0].numpy()
    shown = np.concatenate([np.stack(cloud.get_data(), 1) for cloud in panel._clouds])
    assert sorted(map(tuple, shown.round(4).tolist())) == sorted(map(tuple, codes[:, [3, 1]].round(4).tolist()))
    assert panel._labels[0].get_text() == "$z_{4}$"


def test_the_static_picture_has_a_description(panel):
    bundle, metadata = panel._repr_mimebundle_()
    assert bundle["image/png"] and bundle["text/plain"].startswith("A widget: ")


def test_what_a_rate_is_worth_in_words():
    assert worth(0.0).startswith("nothing")
    assert worth(3.0) == "enough to tell about 20 images apart"
    assert "e<sup>11</sup>" in worth(11.2)


def test_tiles_are_row_by_row():
    tiled = tile(np.arange(8.0).reshape(4, 2), (1, 2), 2)
    assert tiled.shape == (3, 5)
    assert tiled[0, [0, 1, 3, 4]].tolist() == [0, 1, 2, 3] and np.isnan(tiled[1]).all()


# The training to watch


@pytest.fixture
def live():
    panel = LiveTraining(load("digits"), latent_dim=2, epochs=1000, seconds=0.05)
    yield panel
    panel.stop()


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "live training"]


def test_it_starts_shows_what_happens_and_stops_with_the_model_kept(live):
    assert not live.running and "Not started" in live.status.value
    picture = live.image.value
    live.start_button.click()
    assert live.running and live.start_button.disabled and not live.stop_button.disabled
    wait_for(lambda: len(live.history) > 3)
    began = time.monotonic()
    live.stop_button.click()
    assert time.monotonic() - began < 2
    assert threads() == [] and not live.running and live.error is None
    assert "Stopped" in live.status.value and "The model is kept" in live.status.value
    assert live.image.value != picture
    assert live.progress.value == len(live.history)
    assert live.model.sample(3).isfinite().all()


def test_a_second_start_ends_the_first(live):
    live.start()
    wait_for(lambda: len(live.history) > 1)
    first = live.model
    live.start()
    assert len(threads()) == 1 and live.model is not first
    assert all(thread.daemon for thread in threads())


def test_beta_steers_the_training_while_it_runs(live):
    live.start()
    wait_for(lambda: len(live.history) > 1)
    live.beta.value = 50.0
    count = len(live.history)
    wait_for(lambda: len(live.history) > count + 2)
    assert live.history[-1][2] == 50.0 and "β = 50" in live.status.value


def test_closing_ends_the_thread_and_frees_the_panel():
    panels = [LiveTraining(load("digits"), latent_dim=2, epochs=10**6, seconds=0.05)]
    panels[0].start()
    wait_for(lambda: len(panels[0].history) > 1)
    thread, reference = panels[0].thread, weakref.ref(panels[0])
    panels[0].close()
    assert not thread.is_alive() and threads() == []
    panels.clear()
    gc.collect()
    assert reference() is None


def test_a_new_panel_ends_the_training_of_the_last_one(live):
    live.start()
    wait_for(lambda: len(live.history) > 1)
    other = LiveTraining(load("digits"), latent_dim=2, epochs=2)  # the cell run again
    assert threads() == [] and "Stopped" in live.status.value
    other.close()


def test_the_loss_is_drawn_with_the_beta_of_its_epoch(live):
    live.history, live.ended = [(100.0, 20.0, 0.5), (90.0, 10.0, 4.0)], True
    live.refresh()
    assert [line.get_ydata()[-1] for line in live._lines] == [90.0, 10.0, 130.0]
    assert live._lines[2].get_ydata()[0] == 110.0


TRAINING = """
import time
from gmvae_lib.data import load
from gmvae_lib.explorers import LiveTraining
panel = LiveTraining(load("digits"), latent_dim=2, epochs=10**6, seconds=0.05)
panel.start()
while len(panel.history) < 3: time.sleep(0.02)
assert panel.running
"""


def train_in(client):
    reply = client.execute_interactive(TRAINING, timeout=120, allow_stdin=False, output_hook=lambda message: None)
    assert reply["content"]["status"] == "ok", reply["content"]


def gone(process, seconds):
    return psutil.wait_procs([process], timeout=seconds)[0] == [process]


def test_a_kernel_that_is_training_restarts_and_shuts_down_at_once():
    manager, client = start_new_kernel(startup_timeout=120)
    try:
        train_in(client)
        first = psutil.Process(manager.provisioner.pid)
        began = time.monotonic()
        manager.restart_kernel()
        assert gone(first, 1) and time.monotonic() - began < 10
        client.wait_for_ready(timeout=120)
        train_in(client)
        second = psutil.Process(manager.provisioner.pid)
        assert second.pid != first.pid
        client.shutdown()  # asked, not killed: it must end by itself
        assert gone(second, 10)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_it_ends_by_itself():
    panel = LiveTraining(load("digits"), latent_dim=2, epochs=2)
    panel.start()
    wait_for(lambda: not panel.running)
    assert "Finished" in panel.status.value and not panel.start_button.disabled


def test_an_error_in_the_background_is_shown(live, monkeypatch):
    def broken(*_, **__):
        raise FloatingPointError("no longer finite")

    monkeypatch.setattr("gmvae_lib.explorers.chapter_06.fit", broken)
    live.start()
    wait_for(lambda: not live.running)
    assert "no longer finite" in live.status.value and not live.start_button.disabled
