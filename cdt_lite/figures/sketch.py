"""Pictures as plain data: boxes and links become DOT text, SVG or PNG, and alt text. Knows nothing of any model."""

import html
import re
import shutil
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from graphviz import Source
from graphviz.backend import dot_command
from PIL import Image

from cdt_lite.errors import CDTError
from cdt_lite.figures.plots import DARK, INK, PALETTE, PAPER, SOFT, tint

LINKS = {"stream": (PALETTE["token"], 3.5), "condition": (PALETTE["condition"], 1.8),
         "control": (PALETTE["control"], 1.8), "plain": (SOFT, 1.2)}  # kind -> colour, width
FONTS = "Helvetica, Arial, Arimo, Liberation Sans, DejaVu Sans, sans-serif"  # one of them is on any machine


@dataclass
class Diagram:
    """Boxes with a title, lines and a colour group, and links between them.

    Args:
        name: Name of its files.
        title: First sentence of its alt text.
        direction: "TB" or "LR".
        note: A sentence that the alt text adds.
    """

    name: str
    title: str
    direction: str = "TB"
    note: str = ""
    boxes: dict[str, dict[str, Any]] = field(default_factory=dict)
    links: list[dict[str, str]] = field(default_factory=list)
    ranks: list[list[str]] = field(default_factory=list)

    def box(self, key: str, title: str, *lines: str, group: str = "other", rows: list[list[str]] | None = None) -> None:
        """Adds a box: a bold title, small lines under it, then the rows of a table; no title makes it a point."""
        self.boxes[key] = {"title": title, "lines": list(lines), "group": group, "rows": rows or []}

    def link(self, *keys: str, kind: str = "plain", label: str = "", **attributes: str) -> None:
        """Joins boxes, each to the next. `flip` draws the arrow from right to left in a rank, so that order stays."""
        self.links += [{"from": a, "to": b, "kind": kind, "label": label, **attributes}
                       for a, b in pairwise(keys)]

    @property
    def data(self) -> dict[str, Any]:
        """Everything the picture says, ready for JSON."""
        return {"name": self.name, "title": self.title, "alt": self.alt, "boxes": self.boxes, "links": self.links}

    @property
    def alt(self) -> str:
        """Alt text, made from the boxes and links."""
        named = [box for box in self.boxes.values() if box["title"]]
        said = "; ".join(": ".join(filter(None, [box["title"], ", ".join(box["lines"])])) for box in named)
        arrows = sum(link.get("style") != "invis" for link in self.links)
        return f"{self.title}. {self.note} A diagram of {len(named)} boxes and {arrows} arrows: {said}."

    @property
    def table(self) -> list[list[str]]:
        """The picture's content as rows, the first the heads of the columns."""
        rows = [["box", "says"]]
        for box in self.boxes.values():
            if box["title"]:
                told = [cell.rpartition("|")[2] for row in box["rows"] if not row[0].startswith("#") for cell in row]
                rows.append([box["title"], "; ".join([*box["lines"], *told])])
        return rows

    @property
    def dot(self) -> str:
        """The picture in the DOT language."""
        font = f'fontname="Helvetica", fontcolor="{INK}"'
        out = [f'digraph "{self.name}" {{',
               f'  graph [rankdir={self.direction}, bgcolor="{PAPER}", pad=0.2, nodesep=0.25, ranksep=0.3]',
               f'  node [shape=box, style="rounded,filled", {font}, fontsize=12, margin="0.10,0.05", penwidth=1.4]',
               f'  edge [fontname="Helvetica", fontcolor="{SOFT}", fontsize=10, arrowsize=0.7]']
        out += [f'  "{key}" [{_box(box)}]' for key, box in self.boxes.items()]
        for keys in self.ranks:
            out.append("  { rank=same; " + " ".join(f'"{key}";' for key in keys) + " }")
        return "\n".join([*out, *(f"  {_link(link)}" for link in self.links), "}"]) + "\n"


def _box(box: dict[str, Any]) -> str:
    color, rows = PALETTE[box["group"]], box["rows"]
    if not box["title"]:
        return f'shape=point, width=0.09, color="{color}"'
    title, span = f"<b>{html.escape(box['title'])}</b>", max([len(row) for row in rows], default=1)
    lines = "".join(f'<tr><td colspan="{span}">{_small(line, SOFT)}</td></tr>' for line in box["lines"])
    table = ["".join(_cell(cell, i, color, span if len(row) == 1 else 1) for i, cell in enumerate(row)) for row in rows]
    head, body = f'<tr><td colspan="{span}">{title}</td></tr>{lines}', "".join(f"<tr>{row}</tr>" for row in table)
    if len(rows) == 1 and not lines:  # one row alone: the title stands at its left
        body = f"<tr><td>{title}&nbsp;</td>{table[0]}</tr>"
    else:  # parts that arrows run down to stand on top
        body = body + head if len(rows) == 2 and "|" in rows[0][0] else head + body
    return (f'label=<<table border="0" cellborder="0" cellspacing="0" cellpadding="2">{body}</table>>, '
            f'fillcolor="{tint(color, 0.14)}", color="{color}"')


def _small(text: str, color: str = INK) -> str:
    return f'<font point-size="10.5" color="{color}">{html.escape(text).replace(chr(10), "<br/>")}</font>'


def _cell(cell: str, column: int, color: str, span: int) -> str:
    """One cell: "#rrggbb" is a square, "port|text" or "port|#rrggbb|text" is framed and can be linked to."""
    if cell.startswith("#"):
        return f'<td bgcolor="{cell}" width="9" height="13" fixedsize="true" border="1" color="{PAPER}"></td>'
    port, *fill, text = ["", *cell.split("|")][-max(2, cell.count("|") + 1):]
    if port:
        return (f'<td port="{port}" colspan="{span}" border="1" color="{color}" bgcolor="{fill[0] if fill else PAPER}" '
                f'cellpadding="5">{_small(text)}</td>')
    return f'<td align="{"left" if column < 2 else "right"}">{_small(text)}&nbsp;&nbsp;</td>'


def _link(link: dict[str, str]) -> str:
    color, width = LINKS[link["kind"]]
    ends = [link["from"], link["to"]]
    more = {key: value for key, value in link.items() if key not in ("from", "to", "kind", "label", "flip")}
    if link["label"]:
        more["label"] = link["label"]
    if "flip" in link:
        ends, more["dir"] = ends[::-1], "back"
    a, b = (":".join([f'"{name}"', *port]) for name, *port in (end.split(":") for end in ends))
    drawn = {"color": color, "penwidth": str(width)} | more
    return f"{a} -> {b} [" + ", ".join(f'{key}="{value}"' for key, value in drawn.items()) + "]"


def binary() -> str:
    """Returns the program that lays pictures out: the system's dot, else the one in the PyPI package graphviz-pure.

    Raises:
        CDTError: Neither is there.
    """
    beside = Path(sys.executable).with_name("graphviz-pure" + (".exe" if sys.platform == "win32" else ""))
    found = shutil.which("dot") or shutil.which("graphviz-pure") or (str(beside) if beside.is_file() else None)
    if found is None:
        raise CDTError("no program lays out diagrams: install Graphviz (its 'dot'), or pip install graphviz-pure. "
                       "Their DOT text and JSON need neither.")
    return found


def render(diagram: Diagram, form: str = "svg", dark: bool = False) -> bytes:
    """Lays a diagram out and returns an SVG with title and description, or a PNG at 200 dpi, on light or dark paper."""
    picture = layout(diagram, form, dark)
    return small_png(picture) if form == "png" else with_text(picture.decode(), diagram.title, diagram.alt).encode()


def layout(diagram: Diagram, form: str, dark: bool = False) -> bytes:
    """Lays a diagram out: the bare SVG or PNG."""
    dot_command.DOT_BINARY = Path(binary())
    source = on_dark_paper(diagram.dot) if dark else diagram.dot
    if form == "png":
        source = source.replace("graph [", "graph [dpi=200, ", 1)
    picture = Source(source).pipe(format=form, quiet=True)
    return picture if form == "png" else any_font(picture.decode()).encode()


def on_dark_paper(dot: str) -> str:
    """Returns the DOT text with ink, paper and the tints of boxes (0.14) and of what they share (0.3) made dark."""
    for color in PALETTE.values():
        for share, darker in ((0.14, 0.28), (0.3, 0.45)):
            dot = dot.replace(tint(color, share), tint(color, darker, DARK[PAPER]))
    for color, other in DARK.items():
        dot = dot.replace(color, other)
    return dot


def any_font(svg: str) -> str:
    """Names fall-back fonts, and gives each text the width it has in Helvetica, so that no other font spills over."""
    def fitted(found: re.Match[str]) -> str:
        size, text = float(found[2]), html.unescape(found[4])
        known = _widths("-Bold" if "bold" in found[0] else "")
        width = size / 1000 * sum(known.get(letter, 584) for letter in text)
        return (f'<text {found[1]}font-size="{found[2]}"{found[3]} textLength="{width:.1f}" '
                f'lengthAdjust="spacingAndGlyphs">{found[4]}</text>')
    svg = re.sub(r'font-family="Helvetica[^"]*"', f'font-family="{FONTS}"', svg)
    return re.sub(r'<text ([^>]*)font-size="([\d.]+)"([^>]*)>([^<]+)</text>', fitted, svg)


@lru_cache
def _widths(weight: str) -> dict[str, int]:
    """Letter -> width in Helvetica, thousandths of the size, from Adobe's metrics (they come with matplotlib)."""
    metrics = Path(mpl.get_data_path(), "fonts", "pdfcorefonts", f"Helvetica{weight}.afm").read_text(encoding="latin-1")
    return {chr(int(code)): int(width) for code, width in re.findall(r"^C (\d+) ; WX (\d+)", metrics, re.MULTILINE)}


def with_text(svg: str, title: str, description: str) -> str:
    """Returns the SVG with a <title> and a <desc> for those who cannot see it."""
    start = svg.index("<svg")
    end = svg.index(">", start)
    text = f"<title>{html.escape(title)}</title>\n<desc>{html.escape(description)}</desc>"
    return f'{svg[start:end].rstrip()} role="img">\n{text}{svg[end + 1:]}'


def small_png(png: bytes) -> bytes:
    """Returns the picture with a palette of 256 colours: a quarter of the size, and no visible loss in a diagram."""
    image, out = Image.open(BytesIO(png)), BytesIO()
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, "png", optimize=True, dpi=(200, 200))
    return out.getvalue()


def stack_svg(svgs: list[str], gap: float = 12) -> str:
    """Returns one SVG with the given ones below each other, scaled to one width."""
    if len(svgs) == 1:
        return svgs[0]
    bodies = [svg[svg.index("<svg"):] for svg in svgs]
    sizes = [[float(n) for n in body.split('viewBox="', 1)[1].split('"', 1)[0].split()] for body in bodies]
    width = max(size[2] for size in sizes)
    top, placed = 0.0, []
    for body, (_, _, w, h) in zip(bodies, sizes, strict=True):
        opening, rest = body.split(">", 1)
        opening = re.sub(r' (width|height|role)="[^"]*"', "", opening)
        placed.append(f'{opening} x="0" y="{top:.2f}" width="{width:.2f}" height="{h * width / w:.2f}">{rest}')
        top += h * width / w + gap
    return (f'<svg width="{width:.0f}pt" height="{top - gap:.0f}pt" viewBox="0 0 {width:.2f} {top - gap:.2f}" '
            f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">\n'
            f'<rect width="100%" height="100%" fill="{PAPER}"/>\n' + "\n".join(placed) + "</svg>\n")


def stack_png(pngs: list[bytes], gap: int = 30) -> bytes:
    """Returns one PNG with the given ones below each other, scaled to one width."""
    if len(pngs) == 1:
        return pngs[0]
    images = [Image.open(BytesIO(png)).convert("RGB") for png in pngs]
    width, out = max(image.width for image in images), BytesIO()
    images = [image.resize((width, image.height * width // image.width), Image.Resampling.LANCZOS) for image in images]
    whole = Image.new("RGB", (width, sum(image.height + gap for image in images) - gap), PAPER)
    for i, image in enumerate(images):
        whole.paste(image, (0, sum(other.height + gap for other in images[:i])))
    whole.save(out, "png")
    return out.getvalue()
