"""Boxes and links become DOT, SVG and PNG that any machine shows alike."""

import io
import re
import xml.etree.ElementTree as ET

import pytest
from PIL import Image

from cdt_lite.errors import CDTError
from cdt_lite.figures import sketch
from cdt_lite.figures.diagrams import DIAGRAMS
from cdt_lite.figures.plots import DARK, PAPER
from cdt_lite.model.config import PRESETS


@pytest.fixture
def picture() -> sketch.Diagram:
    d = sketch.Diagram("demo", "A & B < C", "LR", note="Two boxes.")
    d.box("a", "Cells & genes", "x < 3", "2,000 × 512", group="token",
          rows=[["left", "what", "7"], ["p|framed", "q", "8"]])
    d.box("b", "Out", group="head", rows=[["port|one"]])
    d.box("dot", "", group="control")
    d.link("a:p", "dot", "b:port", kind="control", label="goes")
    d.ranks.append(["a", "dot"])
    return d


def test_svg_is_well_formed_and_says_what_it_shows(picture):
    root = ET.fromstring(sketch.render(picture))
    assert root.get("role") == "img"
    assert root[0].text == "A & B < C" and root[1].text == picture.alt
    assert "2 boxes and 2 arrows" in picture.alt and "Cells & genes: x < 3, 2,000 × 512" in picture.alt


def test_every_text_is_held_to_its_own_width(picture):
    svg = sketch.render(picture).decode()
    texts = re.findall(r"<text [^>]*>", svg)
    assert texts and all("textLength=" in text and sketch.FONTS in text for text in texts)


def test_helvetica_is_measured():
    found = sketch.any_font('<text x="0" font-size="10.00">iiW</text>')
    assert 'textLength="13.9"' in found  # 222 + 222 + 944 thousandths of 10
    bold = sketch.any_font('<text font-weight="bold" font-size="10.00">iiW</text>')
    assert 'textLength="15.0"' in bold  # 278 + 278 + 944


def test_png_has_200_dots_an_inch(picture):
    image = Image.open(io.BytesIO(sketch.render(picture, "png")))
    assert round(image.info["dpi"][0]) == 200 and image.width > 300


def test_dark_paper_changes_paper_and_ink(picture):
    light, dark = (Image.open(io.BytesIO(sketch.render(picture, "png", dark=d))).convert("RGB") for d in (False, True))
    assert light.getpixel((1, 1)) == (255, 255, 255) and light.size == dark.size
    assert "#{:02X}{:02X}{:02X}".format(*dark.getpixel((1, 1))) == DARK[PAPER]


@pytest.mark.parametrize("name", [n for n in DIAGRAMS if n != "diffusion_process"])  # its squares hold no text
def test_every_fill_that_holds_text_is_dark_on_dark_paper(name):
    dot = sketch.on_dark_paper(DIAGRAMS[name](PRESETS["lite"]).dot)
    fills = set(re.findall(r'(?:fillcolor|bgcolor)="(#\w{6})"', dot))
    assert len(fills) > 3
    for fill in fills:
        brightness = sum(w * int(fill[i: i + 2], 16) for w, i in zip((0.299, 0.587, 0.114), (1, 3, 5), strict=True))
        assert brightness < 128, fill


def test_the_systems_dot_comes_first_then_the_packages(monkeypatch):
    monkeypatch.setattr(sketch.shutil, "which", {"dot": "/a/dot", "graphviz-pure": "/b/graphviz-pure"}.get)
    assert sketch.binary() == "/a/dot"
    monkeypatch.setattr(sketch.shutil, "which", {"graphviz-pure": "/b/graphviz-pure"}.get)
    assert sketch.binary() == "/b/graphviz-pure"


def test_without_either_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(sketch.shutil, "which", lambda name: None)
    monkeypatch.setattr(sketch.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(CDTError, match="pip install graphviz-pure"):
        sketch.binary()


def test_stacked_pictures_share_one_width(picture):
    svg, png = sketch.layout(picture, "svg").decode(), sketch.layout(picture, "png")
    root = ET.fromstring(sketch.stack_svg([svg, svg]))
    inner = root.findall("{http://www.w3.org/2000/svg}svg")
    assert len(inner) == 2 and inner[0].get("width") == inner[1].get("width")
    assert float(inner[1].get("y")) > float(inner[0].get("height"))
    one, two = Image.open(io.BytesIO(png)), Image.open(io.BytesIO(sketch.stack_png([png, png])))
    assert two.width == one.width and two.height > 2 * one.height
    assert sketch.stack_svg([svg]) is svg and sketch.stack_png([png]) is png


def test_the_table_repeats_the_picture(picture):
    told = "x < 3; 2,000 × 512; left; what; 7; framed; q; 8"
    assert picture.table == [["box", "says"], ["Cells & genes", told], ["Out", "one"]]
