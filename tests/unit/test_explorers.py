"""The panel that every widget is: it follows its controls, and shows what went wrong."""

import io

import ipywidgets as widgets
import pytest
from PIL import Image

from gmvae_lib.explorers import Panel, with_box
from gmvae_lib.figures import curves


class Line(Panel):
    """Draws a line of some slope; slope 3 is an error."""

    def __init__(self, slope=1):
        self.slope = widgets.IntSlider(slope, 0, 5, description="slope")
        self.height = widgets.FloatSlider(0.0, min=0, max=1, description="height")
        self.note = widgets.HTML("a note, not a control")
        self.drawn = 0
        super().__init__([[self.slope, self.note], self.height], "A line whose slope follows a slider.")

    def draw(self):
        self.drawn += 1
        if self.slope.value == 3:
            raise ValueError("slope 3 is <forbidden> & odd")
        y = [self.height.value, self.height.value + self.slope.value]
        return curves([0, 1], {"line": y}, "A line", "x", "y", "alt"), f"Slope {self.slope.value}."


def test_the_picture_and_the_caption_follow_the_controls():
    panel = Line()
    before = panel.image.value
    assert panel.drawn == 1 and "Slope 1." in panel.status.value and "role='status'" in panel.status.value
    panel.slope.value = 2
    assert panel.drawn == 2 and panel.image.value != before and "Slope 2." in panel.status.value
    assert Image.open(io.BytesIO(panel.image.value)).format == "PNG"
    panel.height.value = 0.5  # controls in a row and alone are both followed
    assert panel.drawn == 3
    panel.note.value = "what is only text redraws nothing"
    assert panel.drawn == 3


def test_an_error_is_shown_in_the_panel_and_gone_with_the_next_picture():
    panel = Line()
    before = panel.image.value
    panel.slope.value = 3
    assert isinstance(panel.error, ValueError) and panel.image.value == before
    assert "role='alert'" in panel.status.value
    assert "ValueError: slope 3 is &lt;forbidden&gt; &amp; odd" in panel.status.value  # else a browser would hide it
    panel.slope.value = 4
    assert panel.error is None and "Slope 4." in panel.status.value and "alert" not in panel.status.value


def test_several_controls_set_at_once_draw_once():
    panel = Line()
    panel.set_quietly(slope=2, height=0.5)
    assert panel.drawn == 2 and (panel.slope.value, panel.height.value) == (2, 0.5)
    with pytest.raises(Exception, match="expected an int"):
        panel.set_quietly(slope="steep")
    panel.slope.value = 4  # and after an error in setting it is not deaf
    assert panel.drawn == 3


def test_the_bundle_has_a_live_view_a_picture_and_fixed_words():
    panel = Line()
    data, metadata = panel._repr_mimebundle_()
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert data["text/plain"] == metadata["image/png"]["alt"] == "A line whose slope follows a slider."
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.box.model_id
    panel.slope.value = 2
    again, _ = panel._repr_mimebundle_()
    assert again["text/plain"] == data["text/plain"] and again["image/png"] != data["image/png"]


def test_a_panel_that_fails_from_the_start_is_still_shown():
    panel = Line(slope=3)
    data, _ = panel._repr_mimebundle_()
    assert data["text/plain"] == panel.title and "forbidden" in panel.status.value
    panel.slope.value = 1
    assert panel.error is None


def test_browser_tests_and_styles_find_their_hooks():
    panel = Line()
    assert [w._dom_classes for w in (panel.box, panel.image, panel.status)] == [
        ("gmvae-panel",), ("gmvae-picture",), ("gmvae-status",)]


@pytest.mark.parametrize("slider", [widgets.IntSlider(2, 0, 5), widgets.FloatSlider(0.5, min=0, max=1),
                                    widgets.FloatLogSlider(1.0, min=-2, max=2)])
def test_a_number_box_and_its_slider_follow_each_other(slider):
    box = with_box(slider).children[1]
    box.value = box.max
    assert slider.value == pytest.approx(box.max)
    slider.value = slider.value / 2 if not isinstance(slider, widgets.IntSlider) else 1
    assert box.value == pytest.approx(slider.value)
