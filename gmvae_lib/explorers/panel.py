"""What every widget is made of: controls, a picture that follows them, and a caption."""

import html
import traceback

import ipywidgets as widgets
from matplotlib.figure import Figure

from gmvae_lib.figures import (
    Picture,
)


class Panel:
    """Controls, a picture, and a caption that says in words what the controls changed.

    Subclasses set up what they need, then call `super().__init__(controls, title)`, and implement `draw`.
    controls: widgets, or lists of widgets (a list becomes a row). Those with a value redraw the picture when it moves.
    """

    def __init__(self, controls, title):
        self.title = title
        # Its own size: stretched to the cell's width, it would be blurred.
        self.image = widgets.Image(format="png", layout={"align_self": "flex-start", "max_width": "100%"})
        self.image.add_class("gmvae-picture")
        self.status = widgets.HTML()
        self.status.add_class("gmvae-status")
        rows = [widgets.HBox(row, layout=widgets.Layout(flex_flow="row wrap")) if isinstance(row, list) else row
                for row in controls]
        self.box = widgets.VBox([*rows, self.image, self.status])
        self.box.add_class("gmvae-panel")
        self._quiet, self.picture = False, None
        for row in controls:
            for control in row if isinstance(row, list) else [row]:
                if isinstance(control, widgets.HBox):  # a slider with its number box, which follows it
                    control = control.children[0]
                if hasattr(control, "value") and not isinstance(control, widgets.HTML):
                    control.observe(self.refresh, "value")
        self.refresh()

    def draw(self):
        """Returns (Picture, caption) for the controls' present values. The picture's figure may be kept and reused."""
        raise NotImplementedError

    def refresh(self, change=None):
        """Draws again. An error is shown in the panel, since nobody sees what a callback raises."""
        if self._quiet:
            return
        try:
            picture, caption = self.draw()
        except Exception as error:  # shown to the reader, in the panel
            self.error = error
            lines = traceback.format_exception_only(error)
            self.status.value = f"<p role='alert'><b>This did not work.</b> {html.escape(lines[-1].strip())}</p>"
            return
        self.error = None
        self.picture = picture
        self.image.value = picture.png()
        self.status.value = f"<p role='status'>{caption}</p>"

    def set_quietly(self, **values):
        """Sets several controls (attributes of this panel) and draws once."""
        self._quiet = True
        try:
            for name, value in values.items():
                getattr(self, name).value = value
        finally:
            self._quiet = False
        self.refresh()

    def close(self):
        """Takes the panel off the page and forgets its widgets, so that its memory can be freed."""
        left = [self.box]
        while left:
            widget = left.pop()
            left += getattr(widget, "children", ())
            left += [getattr(widget, name) for name in ("layout", "style") if widget.has_trait(name)]  # widgets too
            widget.close()

    def _repr_mimebundle_(self, include=None, exclude=None):
        figure = self.picture.figure if self.picture else Figure(figsize=(6, 1))  # blank, where nothing could be drawn
        data, metadata = Picture(figure, self.title)._repr_mimebundle_()
        view = self.box._repr_mimebundle_()
        return data | {key: value for key, value in view.items() if key.startswith("application/")}, metadata


def with_box(slider):
    """The slider with a number box beside it, for readers who would rather type; the two follow each other."""
    whole, logarithmic = isinstance(slider, widgets.IntSlider), isinstance(slider, widgets.FloatLogSlider)
    low, high = (slider.base**slider.min, slider.base**slider.max) if logarithmic else (slider.min, slider.max)
    kind = widgets.BoundedIntText if whole else widgets.BoundedFloatText

    def shown(value):
        return value if whole else float(f"{value:.3g}")

    # Its label has no width: it is for screen readers, since the slider's stands beside it.
    box = kind(shown(slider.value), min=low, max=high, step=0.01 if logarithmic else slider.step,
               description=slider.description, style={"description_width": "0px"}, layout={"width": "6em"})
    widgets.dlink((slider, "description"), (box, "description"))

    def type_into_slider(change):
        if change["new"] != shown(slider.value):  # else the box only shows, rounded, what the slider has
            slider.value = change["new"]

    slider.observe(lambda change: box.set_trait("value", shown(change["new"])), "value")
    box.observe(type_into_slider, "value")
    return widgets.HBox([slider, box])


def signed(value, digits):
    """A number with `digits` decimals and a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")
