"""Pictures as plain data: boxes and links become DOT text, SVG or PNG, and alt text. Knows nothing of any model."""

import html
import re
import shutil
import sys
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from graphviz import Source
from graphviz.backend import dot_command
from PIL import Image

from cdt_lite.errors import CDTError
from cdt_lite.figures.plots import DARK, INK, PALETTE, PAPER, SOFT, tint

LINKS = {"stream": (PALETTE["token"], 3.5), "condition": (PALETTE["condition"], 1.8),
         "control": (PALETTE["control"], 1.8), "plain": (SOFT, 1.2)}  # kind -> colour, width
FONTS = "Helvetica, Arial, Liberation Sans, Arimo, Nimbus Sans, DejaVu Sans Condensed, sans-serif"  # equally wide
HEAD = f"""digraph {{name}} {{{{
  graph [rankdir={{direction}}, bgcolor="{PAPER}", pad=0.2, nodesep=0.25, ranksep=0.3]
  node [shape=box, style="rounded,filled", fontname="Helvetica", fontcolor="{INK}", fontsize=12, \
margin="0.10,0.05", penwidth=1.4]
  edge [fontname="Helvetica", fontcolor="{SOFT}", fontsize=10, arrowsize=0.7]"""


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
        """Adds a box: a bold title, small lines under it, then the rows of a table; no title makes it a point.

        A cell "#rrggbb" is a square; "port|text" and "port|#rrggbb|text" are framed, and links can end at their port.
        """
        self.boxes[key] = {"title": title, "lines": list(lines), "group": group, "rows": rows or []}

    def link(self, *keys: str, kind: str = "plain", label: str = "", look: dict[str, str] | None = None) -> None:
        """Joins boxes, each to the next.

        Args:
            keys: Boxes, or "box:port" or "box:port:side".
            kind: One of LINKS.
            label: Text beside the arrow.
            look: Attributes of Graphviz. "flip" draws the arrow from right to left in a rank, so that order stays.
        """
        for a, b in pairwise(keys):
            self.links.append({"from": a, "to": b, "kind": kind, "label": label} | (look or {}))

    @property
    def data(self) -> dict[str, Any]:
        """Everything the picture says, ready for JSON."""
        return {"name": self.name, "title": self.title, "alt": self.alt, "boxes": self.boxes, "links": self.links}

    @property
    def alt(self) -> str:
        """Alt text, made from the boxes and links."""
        said = []
        for box in self.boxes.values():
            if box["title"]:
                said.append(": ".join(filter(None, [box["title"], ", ".join(box["lines"])])))
        arrows = sum(link.get("style") != "invis" for link in self.links)
        what = f"A diagram of {len(said)} boxes and {arrows} arrows"
        return f"{self.title}. {self.note} {what}: {'; '.join(said)}."

    @property
    def table(self) -> list[list[str]]:
        """The picture's content as rows, the first the heads of the columns."""
        rows = [["box", "says"]]
        for box in self.boxes.values():
            told = list(box["lines"])
            for row in box["rows"]:
                told += [cell.rpartition("|")[2].replace("\n", " ") for cell in row if not cell.startswith("#")]
            if box["title"]:
                rows.append([box["title"], "; ".join(told)])
        return rows

    @property
    def dot(self) -> str:
        """The picture in the DOT language."""
        lines = [HEAD.format(name=_quoted(self.name), direction=self.direction)]
        for key, box in self.boxes.items():
            lines.append(f"{_quoted(key)} [{_box(box)}]")
        for keys in self.ranks:
            same = "; ".join(map(_quoted, keys))
            lines.append(f"{{ rank=same; {same}; }}")
        lines += map(_link, self.links)
        return "\n  ".join(lines) + "\n}\n"


def _quoted(text: str) -> str:
    """Returns a text as a string of the DOT language, which shows it as it is written."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _box(box: dict[str, Any]) -> str:
    color, rows = PALETTE[box["group"]], box["rows"]
    if not box["title"]:
        return f'shape=point, width=0.09, color="{color}"'
    columns = max([len(row) for row in rows], default=1)
    title = f"<b>{html.escape(box['title'])}</b>"
    head = [f'<td colspan="{columns}">{title}</td>']
    for line in box["lines"]:
        head.append(f'<td colspan="{columns}">{_small(line, SOFT)}</td>')
    body = []
    for row in rows:
        span = columns if len(row) == 1 else 1
        body.append("".join(_cell(cell, i, color, span) for i, cell in enumerate(row)))
    if len(rows) == 1 and len(head) == 1:  # one row alone: the title stands at its left
        table = [f"<td>{title}&nbsp;</td>{body[0]}"]
    elif len(rows) == 2 and "|" in rows[0][0]:  # parts that arrows run down to stand on top
        table = body + head
    else:
        table = head + body
    inside = "".join(f"<tr>{row}</tr>" for row in table)
    return (f'label=<<table border="0" cellborder="0" cellspacing="0" cellpadding="2">{inside}</table>>, '
            f'fillcolor="{tint(color, 0.14)}", color="{color}"')


def _small(text: str, color: str = INK) -> str:
    broken = html.escape(text).replace("\n", "<br/>") or "&nbsp;"  # Graphviz takes no empty text
    return f'<font point-size="10.5" color="{color}">{broken}</font>'


def _cell(cell: str, column: int, color: str, span: int) -> str:
    if cell.startswith("#"):
        return f'<td bgcolor="{cell}" width="9" height="13" fixedsize="true" border="1" color="{PAPER}"></td>'
    if "|" not in cell:
        side = "left" if column < 2 else "right"
        return f'<td align="{side}">{_small(cell)}&nbsp;&nbsp;</td>'
    port, *fill, text = cell.split("|")
    paper = fill[0] if fill else PAPER
    return (f'<td port="{port}" colspan="{span}" border="1" color="{color}" bgcolor="{paper}" cellpadding="5">'
            f"{_small(text)}</td>")


def _link(link: dict[str, str]) -> str:
    color, width = LINKS[link["kind"]]
    drawn = {"color": color, "penwidth": str(width)}
    drawn |= {key: link[key] for key in list(link)[4:] if key != "flip"}
    if link["label"]:
        drawn["label"] = link["label"]
    ends = []
    for end in (link["from"], link["to"]):
        box, *port = end.split(":")
        ends.append(":".join([_quoted(box), *port]))
    if "flip" in link:
        ends.reverse()
        drawn["dir"] = "back"
    look = ", ".join(f"{key}={_quoted(value)}" for key, value in drawn.items())
    return f"{' -> '.join(ends)} [{look}]"


def binary() -> str:
    """Returns the program that lays pictures out: the system's dot, else the one in the PyPI package graphviz-pure.

    Raises:
        CDTError: Neither is there.
    """
    beside = Path(sys.executable).parent
    found = shutil.which("dot") or shutil.which("graphviz-pure") or shutil.which("graphviz-pure", path=beside)
    if found is None:
        raise CDTError("no program lays out diagrams: install Graphviz (its 'dot'), or pip install graphviz-pure. "
                       "Their DOT text and JSON need neither.")
    return found


def render(diagram: Diagram, form: str = "svg", dark: bool = False) -> bytes:
    """Lays a diagram out and returns an SVG with title and description, or a PNG at 200 dpi, on light or dark paper."""
    dot_command.DOT_BINARY = Path(binary())
    source = on_dark_paper(diagram.dot) if dark else diagram.dot
    if form == "png":
        source = source.replace("graph [", "graph [dpi=200, ", 1)
        return small_png(Source(source).pipe(format="png", quiet=True))
    svg = Source(source).pipe(format="svg", encoding="utf-8", quiet=True)
    said = f"<title>{html.escape(diagram.title)}</title>\n<desc>{html.escape(diagram.alt)}</desc>"
    svg = re.sub("<title>.*?</title>", lambda _: said, svg, count=1)
    return svg.replace("Helvetica,sans-Serif", FONTS).encode()


def on_dark_paper(dot: str) -> str:
    """Returns the DOT text with ink, paper and the tints of boxes (0.14) and of what they share (0.3) made dark."""
    for color in PALETTE.values():
        for share, darker in ((0.14, 0.28), (0.3, 0.45)):
            dot = dot.replace(tint(color, share), tint(color, darker, DARK[PAPER]))
    for color, other in DARK.items():
        dot = dot.replace(color, other)
    return dot


def small_png(png: bytes) -> bytes:
    """Returns the picture with a palette of 256 colours: a quarter of the size, and no visible loss in a diagram."""
    image, out = Image.open(BytesIO(png)), BytesIO()
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, "png", optimize=True, dpi=(200, 200))
    return out.getvalue()
