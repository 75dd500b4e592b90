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
    said = [e.text for e in ET.fromstring(sketch.render(picture)).iter() if e.tag.endswith(("title", "desc"))]
    assert said[:2] == ["A & B < C", picture.alt]
    assert "2 boxes and 2 arrows" in picture.alt and "Cells & genes: x < 3, 2,000 × 512" in picture.alt


def test_every_text_names_fonts_of_one_width(picture):
    texts = re.findall(r"<text [^>]*>", sketch.render(picture).decode())
    assert texts and all(f'font-family="{sketch.FONTS}"' in text for text in texts)


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
    here = {"dot": "/a/dot", "graphviz-pure": "/b/graphviz-pure"}
    monkeypatch.setattr(sketch.shutil, "which", lambda name, path=None: here.get(name))
    assert sketch.binary() == "/a/dot"
    del here["dot"]
    assert sketch.binary() == "/b/graphviz-pure"


def test_the_package_is_found_beside_python_when_it_is_not_on_the_path(monkeypatch, tmp_path):
    program = tmp_path / "graphviz-pure"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.setattr(sketch.sys, "executable", str(tmp_path / "python"))
    assert sketch.binary() == str(program)


def test_without_either_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(sketch.shutil, "which", lambda name, path=None: None)
    monkeypatch.setattr(sketch.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(CDTError, match="pip install graphviz-pure"):
        sketch.binary()


def test_the_table_repeats_the_picture(picture):
    told = "x < 3; 2,000 × 512; left; what; 7; framed; q; 8"
    assert picture.table == [["box", "says"], ["Cells & genes", told], ["Out", "one"]]
