"""What every picture is made of: a figure with its text alternative, the palette, and the style.

Colours are told apart by colour-blind readers too and stand out from white by a contrast of 3 or more (the first four
are Okabe and Ito's). They never stand alone: markers or line styles differ too.
"""

import io
from contextlib import contextmanager

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B48E4C", "#4491EC", "#6C43AA", "#7A3F16", "#333333", "#667070")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
LINES = ("-", "--", "-.", ":")
STYLE = {
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "lines.linewidth": 2,
    "legend.frameon": False,
    "image.cmap": "gray_r",
}


class Picture:
    """A figure with a text alternative `alt`: shown as an image where images can be shown, and as words elsewhere."""

    def __init__(self, figure, alt):
        self.figure, self.alt = figure, alt

    def png(self, dpi=100):
        """The picture as PNG bytes."""
        buffer = io.BytesIO()
        # The fastest compression: encoding is a third of what a slider's picture costs.
        self.figure.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
        return buffer.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        width = int(100 * self.figure.get_figwidth())
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=150)
        small = io.BytesIO()
        # 256 colours are enough for a figure, and make the notebooks that keep it three times lighter.
        Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        return ({"image/png": small.getvalue(), "text/plain": self.alt},
                {"image/png": {"alt": self.alt, "width": width}})


class Blitted(Picture):
    """A picture of which only some artists change: the rest is drawn once and kept, which makes `png` much faster."""

    def __init__(self, figure, artists, alt="", dpi=100):
        super().__init__(figure, alt)
        self.artists, self.dpi, self.palette = artists, dpi, None
        figure.set_dpi(dpi)
        self.canvas = FigureCanvasAgg(figure)
        for artist in artists:
            artist.set_animated(True)
        self.background = self.capture()
        figure.set_layout_engine("none")

    def capture(self):
        """Draws all the rest, as it is now, and returns it: to be kept as `background`."""
        self.canvas.draw()
        return self.canvas.copy_from_bbox(self.figure.bbox)

    def png(self, dpi=None):
        """The picture as PNG bytes, at the resolution it was made for."""
        self.canvas.restore_region(self.background)
        for artist in self.artists:
            artist.axes.draw_artist(artist)
        buffer = io.BytesIO()
        self._indexed().save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def keep_palette(self):
        """From now on pictures use the nearest of 256 colours: 192 of what the artists show now, and 64 greys. Choosing
        them for each picture anew costs more than all the rest of encoding it."""
        self.palette = None
        self.png()
        greys = [level for grey in range(64) for level in 3 * (255 * grey // 63,)]
        palette = Image.new("P", (1, 1))
        palette.putpalette(self._indexed(192).getpalette()[:3 * 192] + greys)
        self.palette = palette

    def _indexed(self, n_colors=256):
        """The canvas in 256 colours, which halve the time to encode, and the bytes on their way to the browser."""
        size = self.canvas.get_width_height()
        image = Image.frombuffer("RGBA", size, self.canvas.buffer_rgba(), "raw", "RGBA", 0, 1).convert("RGB")
        if self.palette is not None:
            return image.quantize(palette=self.palette, dither=Image.Dither.NONE)
        return image.quantize(n_colors, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


@contextmanager
def style():
    """The course's matplotlib settings; global ones stay as they were."""
    with matplotlib.rc_context(STYLE):
        yield


def subplots(rows=1, columns=1, size=(6, 4), **settings):
    """A new figure outside pyplot (nothing to close, safe in threads) and its axes, an array if there are several."""
    with style():
        figure = Figure(figsize=size, layout="constrained")
        return figure, figure.subplots(rows, columns, **settings)


def array(values):
    """A tensor or array as a NumPy array."""
    return values.numpy(force=True) if isinstance(values, torch.Tensor) else np.asarray(values)
