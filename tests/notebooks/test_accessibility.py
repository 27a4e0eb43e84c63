"""What can be told without a browser about who can read the course: contrast, colour blindness, white pictures."""

import base64
import io
import itertools
import re

import numpy as np
import pytest
from build import pairs
from PIL import Image
from pygments.styles import get_style_by_name
from slides import CODE_STYLE, DECK

from gmvae_lib.figures import COLORS, STYLE
from tests.notebooks.links import outside
from tests.notebooks.structure import Page

# What people without one kind of cones see, in linear RGB: Machado, Oliveira and Fernandes (2009), severity 1.
BLIND = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# Björn Ottosson's OKLab (2020): distances in it are about as large as they look.
CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])
OPPONENTS = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])


def linear(color):
    """The linear RGB of "#RRGGBB" or "#RGB"."""
    digits = color.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    values = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one, other="#FFFFFF"):
    """WCAG 2's contrast ratio, from 1 to 21."""
    low, high = sorted(linear(color) @ [0.2126, 0.7152, 0.0722] for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def difference(one, other, blindness):
    """How far apart two colours look: 1 is about the least that anybody sees side by side, 100 black and white."""
    seen = [np.clip(np.array(BLIND[blindness]) @ linear(color), 0, 1) for color in (one, other)]
    return 100 * np.linalg.norm(np.subtract(*[OPPONENTS @ np.cbrt(CONES @ color) for color in seen]))


def test_contrast_and_difference_of_known_colours():
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#767676") == pytest.approx(4.54, abs=0.01)  # WCAG's own lightest grey for text
    assert difference("#000000", "#FFFFFF", "none") == pytest.approx(100, abs=0.01)
    red_and_green = "#C83C3C", "#6E7B2A"
    assert difference(*red_and_green, "deuteranopia") < difference(*red_and_green, "none") / 2


@pytest.mark.parametrize("color", COLORS)
def test_every_colour_of_the_palette_stands_out_from_white(color):
    assert contrast(color) >= 3


@pytest.mark.parametrize("blindness", BLIND)
def test_colours_are_told_apart_without_some_cones(blindness):
    alike = [pair for pair in itertools.combinations(COLORS, 2) if difference(*pair, blindness) < 4.5]
    assert alike == []


def test_figures_are_white_and_their_text_keeps_matplotlibs_black():
    assert STYLE["figure.facecolor"] == STYLE["savefig.facecolor"] == "white"
    assert not [key for key in STYLE if key.endswith("color") and not key.endswith("facecolor")]


def test_code_and_text_of_decks_have_contrast():
    styles = (DECK / "deck.css").read_text(encoding="utf-8")
    behind_code = re.search(r"\.highlight \{[^}]*background: (#\w+)", styles)[1]
    code = {f"#{style['color']}" for _, style in get_style_by_name(CODE_STYLE) if style["color"]}
    assert [color for color in code if contrast(color, behind_code) < 4.5] == []
    text = re.findall(r"(?<![-\w])color: (#\w+)", styles)
    assert text and [color for color in text if contrast(color) < 4.5] == []


@pytest.mark.parametrize("path", [path for _, path in pairs()], ids=lambda path: "/".join(path.parts[-2:]))
def test_pictures_are_opaque_on_white(path):
    """A transparent picture would be black on black in a dark theme."""
    for number, output in Page.read(path).outputs():
        if data := output.get("data", {}).get("image/png"):
            picture = Image.open(io.BytesIO(base64.b64decode(data)))
            assert "transparency" not in picture.info and picture.mode in ("P", "RGB"), f"code cell {number}"
            assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255), f"code cell {number}"


def test_links_that_lead_outside_are_secure_and_listed(record_property):
    record_property("links that lead outside (python -m tests.notebooks.links lists them)", len(outside()))
    assert outside() and [address for address in outside() if not address.startswith("https://")] == []
