"""Every explorer of the course, and readers who move everything in it at random, for a moment or for hours.

The widgets are real ipywidgets without a page: what a slider's move sets off in the kernel is the same.
"""

import gc
import random
import threading
import time
import weakref

import comm
import ipywidgets as widgets
import psutil
import torch
from ipywidgets.widgets import widget as registry
from matplotlib import pyplot

from gmvae_lib import explorers
from gmvae_lib.data import load
from gmvae_lib.evaluation import log_likelihood
from gmvae_lib.pretrained import digits_model
from gmvae_lib.vae import VAE

STILL = (widgets.HTML, widgets.Image, widgets.IntProgress, widgets.Box)  # what nobody can move


def exported():
    """The names of all explorers."""
    return {name for name in explorers.__all__ if name != "Panel" and isinstance(getattr(explorers, name), type)
            and issubclass(getattr(explorers, name), explorers.Panel)}


def build(name):
    """A new panel of the class called `name`, over models that have hardly been trained: they answer as fast as good
    ones."""
    torch.manual_seed(0)
    train, test = load("digits"), load("digits", "test")
    plane = VAE.build(64, 2, (32,))
    offers = torch.tensor([[3.0, 0.0], [1.0, 4.0], [0.0, 1.0]])
    partitions = torch.arange(len(train)) % torch.arange(1, 21).unsqueeze(1)
    builders = {
        "GMVAEExplorer": lambda new: new(digits_model().eval(), partitions, train, test),
        "KExplorer": lambda new: new(toys=["moons"]),
        "LatentExplorer": lambda new: new(plane, test),
        "BetaExplorer": lambda new: new(VAE.build(64, 4, (32,), gated=2.0), test),
        "LiveTraining": lambda new: new(train, latent_dim=2, epochs=30, seconds=0.02),
        "HoleExplorer": lambda new: new(plane, train.x[:300], test.x[:100], largest=4),
        "GumbelExplorer": lambda new: new(torch.tensor([0.5, 0.3, 0.2]).log(), lambda y: (y @ offers).square().sum(1)),
        "TimelineExplorer": lambda new: new(two_milliseconds()),
        "BoundExplorer": lambda new: new(plane, test.x[:40], log_likelihood(plane, test.x[:40], 100), n_images=4,
                                         draws=2000),
    }
    return builders.get(name, lambda new: new())(getattr(explorers, name))


def two_milliseconds():
    """Rows as the profile of chapter 12 has them, each loop's hundred steps taking 0.2 s."""
    from gmvae_lib.pretrained.speed import LOOPS

    return [{"loop": loop, "seconds": 0.2 - 0.01 * i} for i, loop in enumerate(LOOPS)]


def controls(panel):
    """All widgets of a panel that a reader can move."""
    found, left = [], [panel.box]
    while left:
        widget = left.pop()
        left += getattr(widget, "children", ())
        found += [] if isinstance(widget, STILL) else [widget]
    return found


def move(widget, draw):
    """Does with a widget what a reader might: sets it anywhere within its bounds, or presses it."""
    if isinstance(widget, widgets.Button):
        if not widget.disabled:
            widget.click()
    elif isinstance(widget, widgets.IntSlider | widgets.BoundedIntText):
        widget.value = draw.randint(widget.min, widget.max)
    elif isinstance(widget, widgets.FloatLogSlider):
        widget.value = widget.base ** step(widget, draw)
    elif isinstance(widget, widgets.FloatSlider):
        widget.value = step(widget, draw)
    elif isinstance(widget, widgets.BoundedFloatText):
        widget.value = draw.choice([widget.min, widget.max, round(draw.uniform(widget.min, widget.max), 3)])
    elif isinstance(widget, widgets.Dropdown | widgets.SelectionSlider | widgets.ToggleButtons):
        widget.index = draw.randrange(len(widget.options))
    elif isinstance(widget, widgets.Checkbox | widgets.ToggleButton):
        widget.value = not widget.value
    else:
        raise TypeError(f"nobody here knows how to move a {type(widget).__name__}")


def step(slider, draw):
    """A value that the slider can have, ends included."""
    return min(slider.max, slider.min + slider.step * draw.randint(0, round((slider.max - slider.min) / slider.step)))


def counts():
    """What must not grow: threads (but for the one by which tqdm watches all its bars), ipywidgets' widgets, open
    comms, figures that pyplot keeps."""
    threads = [thread for thread in threading.enumerate() if thread.name != "tqdm_monitor"]
    return {"threads": len(threads), "widgets": len(registry._instances),
            "comms": len(comm.get_comm_manager().comms), "figures": len(pyplot.get_fignums())}


def grown(before):
    """What has grown since `counts` gave `before`."""
    return {name: (before[name], count) for name, count in counts().items() if count > before[name]}


def memory():
    """Resident memory of this process in MB, garbage collected."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


def play(name, moves, seed=0, each=None):
    """Builds a panel, moves its controls at random, and closes it. Returns a weak reference to it, which is dead after
    the next garbage collection if nothing holds the panel any more.

    each: a function, called after each move with its number.
    Asserts that no move ends in an error, that there always is a picture, that nothing which `counts` counts grows
    while the panel lives, and that after it is closed nothing is left of it.
    """
    draw, before = random.Random(seed), counts()
    panel = build(name)
    alive, movable = counts(), controls(panel)
    for n in range(moves):
        widget = draw.choice(movable)
        move(widget, draw)
        if name == "LiveTraining" and draw.random() < 0.3:
            time.sleep(draw.uniform(0, 0.05))  # so that trainings are stopped at any stage
        assert panel.error is None, (name, type(widget).__name__, getattr(widget, "value", None), panel.error)
        assert bytes(panel.image.value[:4]) == b"\x89PNG"
        training = {"threads": 1} if getattr(panel, "running", False) else {}
        assert not grown({key: alive[key] + training.get(key, 0) for key in alive}), (name, grown(alive))
        if each is not None:
            each(n)
    panel.close()
    assert not grown(before), (name, grown(before))
    return weakref.ref(panel)
