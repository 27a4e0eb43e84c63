"""The widget of chapter 12: two lanes in time, set by measured rows."""

import numpy as np
import pytest

from gmvae_lib.explorers import TimelineExplorer
from gmvae_lib.explorers.chapter_12 import step_operations
from gmvae_lib.pretrained.speed import BATCH, LOOPS, STEPS

ROWS = [{"machine": "GPU", "loop": name, "seconds": seconds}
        for name, seconds in ((LOOPS[0], 1.4), (LOOPS[2], 0.7), (LOOPS[5], 0.1))]


@pytest.fixture
def panel():
    return TimelineExplorer(ROWS)


def epoch(panel, batch=BATCH, asked="each operation", source="on the GPU", look=False):
    return panel.speed(batch, asked, source, look)[0] * STEPS


def test_the_model_gives_the_times_that_set_it(panel):
    assert epoch(panel) == pytest.approx(0.7, rel=0.01)
    assert epoch(panel, asked="one recording") == pytest.approx(0.1, rel=0.01)
    assert epoch(panel, source="through a DataLoader") == pytest.approx(1.4, rel=0.01)


def test_operations_are_those_of_the_network():
    kinds, flops = step_operations(1)
    weights = 784 * 500 + 500 * 500 + 500 * 20 + 10 * 500 + 500 * 500 + 500 * 784
    unneeded = 784 * 500  # gradients of the images
    assert flops.sum() == 6 * weights - 2 * unneeded
    assert flops[kinds == "forward"].sum() == 2 * weights
    assert (step_operations(7)[1] == 7 * flops).all()


@pytest.mark.parametrize("settings", [(256, "each operation", "on the GPU", False),
                                      (4096, "each operation", "on the GPU", True),
                                      (64, "one recording", "through a DataLoader", False)])
def test_the_gpu_never_begins_early_or_twice_at_once(panel, settings):
    _, asking, asked, begun, done = panel.timeline(*settings)
    assert (begun >= asked - 1e-12).all() and (asked >= asking).all()
    assert (begun.ravel()[1:] >= done.ravel()[:-1] - 1e-12).all()
    assert (asking[2:, 0] >= done[:-2, -1] - 1e-12).all()  # at most one step ahead
    if settings[3]:
        assert (asking[1:, 0] >= done[:-1, -1] - 1e-12).all()


def test_a_look_costs_and_larger_batches_save(panel):
    assert epoch(panel, 2048, look=True) > 1.1 * epoch(panel, 2048)
    epochs = [panel.speed(batch, "each operation", "on the GPU", False)[0] / batch for batch in panel.BATCHES]
    assert np.all(np.diff(epochs[:5]) < 0)


def test_every_control_changes_picture_and_words(panel):
    for name, value in (("batch", 512), ("asked", "one recording"), ("source", "through a DataLoader"), ("look", True)):
        picture, words = panel.image.value, panel.status.value
        getattr(panel, name).value = value
        assert panel.error is None and panel.image.value != picture and panel.status.value != words
    assert "512 images a step" in panel.status.value


def test_the_words_compare_with_before(panel):
    panel.asked.value = "one recording"
    assert "7.0 times as fast as before" in panel.status.value
    panel.asked.value = "each operation"
    assert "Before, it was 7.0 times as fast" in panel.status.value


def test_every_setting_works(panel):
    for batch in panel.BATCHES[::3]:
        for asked in panel.ASKED:
            for source in panel.SOURCES:
                panel.set_quietly(batch=batch, asked=asked, source=source, look=batch > 100)
                assert panel.error is None


def test_rows_without_the_needed_times_are_refused():
    with pytest.raises(ValueError, match="rows lack the times of 'fit'"):
        TimelineExplorer(ROWS[:2])


def test_the_static_picture_has_a_description(panel):
    bundle, metadata = panel._repr_mimebundle_()
    assert bundle["image/png"] and bundle["text/plain"].startswith("A widget: two lanes in time")
    assert metadata["image/png"]["alt"] == bundle["text/plain"]
