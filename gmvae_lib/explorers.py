"""The widgets. A `Panel` is a picture that follows its controls; each subclass says what to draw.

Before a cell is run, and where there is no kernel, readers see the panel's static picture; run, it becomes live. Pictures
go to a `widgets.Image`, which nbval and static viewers tolerate; errors are shown in the panel.
"""

import traceback

import ipywidgets as widgets

from gmvae_lib.figures import Picture


class Panel:
    """Controls, a picture, and a caption that says in words what the controls changed.

    Subclasses set up what they need, then call `super().__init__(controls, title)`, and implement `draw`.
    controls: widgets, or lists of widgets (a list becomes a row). Those with a value redraw the picture when it changes.
    """

    def __init__(self, controls, title):
        self.title = title
        self.image = widgets.Image(format="png")
        self.image.add_class("gmvae-picture")
        self.status = widgets.HTML()
        self.status.add_class("gmvae-status")
        rows = [widgets.HBox(row, layout=widgets.Layout(flex_flow="row wrap")) if isinstance(row, list) else row
                for row in controls]
        self.box = widgets.VBox([*rows, self.image, self.status])
        self.box.add_class("gmvae-panel")
        self._quiet = False
        for row in controls:
            for control in row if isinstance(row, list) else [row]:
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
            self.status.value = f"<p role='alert'><b>This did not work.</b> {lines[-1].strip()}</p>"
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

    def _repr_mimebundle_(self, include=None, exclude=None):
        data, metadata = Picture(self.picture.figure, self.title)._repr_mimebundle_()
        view = self.box._repr_mimebundle_()
        return data | {key: value for key, value in view.items() if key.startswith("application/")}, metadata
