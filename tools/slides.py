"""Slides from a notebook: one HTML file that holds its pictures, style and script, and asks nothing of a network."""

import html
import re
from pathlib import Path

from nbconvert.filters import markdown2html
from nbformat import NotebookNode

TEMPLATE = Path(__file__).with_name("slides.html")
PICTURES = ("image/png", "image/gif")
STARTS = {"slide", "subslide"}


def deck(notebook: NotebookNode) -> str:
    """Returns the slides of a notebook.

    A cell tagged `slide` or `subslide` begins a slide; one tagged `fragment` goes on the slide before. A slide without
    a heading of its own says under which heading of the notebook it stands.
    """
    heading, title, slides = "", "", []
    for cell in notebook.cells:
        tags = set(cell.metadata.get("tags", []))
        own = re.findall(r"^#{1,3} +(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        title = title or (_plain(own[0]) if own else "")
        if tags & STARTS:
            where = "" if own or not heading else f'<p class="where">{html.escape(heading)}</p>\n'
            slides.append(where + _content(cell))
        elif "fragment" in tags and slides:
            slides[-1] += _content(cell)
        heading = _plain(own[-1]) if own else heading
    sections = [f'<section tabindex="-1" aria-label="Slide {i} of {len(slides)}">\n{slide}\n</section>'
                for i, slide in enumerate(slides, 1)]
    text = TEMPLATE.read_text(encoding="utf-8").replace("{{title}}", html.escape(title))
    return text.replace("{{slides}}", "\n".join(sections))


def _plain(heading: str) -> str:
    return re.sub(r"[*_`]|<[^>]+>", "", heading).strip()


def _content(cell: NotebookNode) -> str:
    """Returns one cell as HTML; code steps back behind a fold where it made a picture."""
    if cell.cell_type == "markdown":
        return _self_contained(markdown2html(cell.source))
    code = f"<pre><code>{html.escape(cell.source)}</code></pre>"
    shown = "\n".join(_output(output) for output in cell.get("outputs", []))
    if any(kind in output.get("data", {}) for output in cell.get("outputs", []) for kind in PICTURES):
        return f"{shown}\n<details><summary>Code</summary>{code}</details>"
    return f"{code}\n{shown}"


def _output(output: NotebookNode) -> str:
    """Returns one output as HTML: a picture with its alt text, a table, or plain text."""
    if output.output_type == "stream":
        return f"<pre>{html.escape(output.text)}</pre>" if output.name == "stdout" else ""
    data = output.get("data", {})
    for kind in PICTURES:
        if kind in data:
            alt = html.escape(output.metadata.get(kind, {}).get("alt", ""), quote=True)
            picture = "".join(data[kind].split())
            return f'<img alt="{alt}" src="data:{kind};base64,{picture}">'
    if "text/html" in data:
        return _self_contained(data["text/html"])
    if "text/markdown" in data:
        return _self_contained(markdown2html(data["text/markdown"]))
    return f"<pre>{html.escape(data['text/plain'])}</pre>" if "text/plain" in data else ""


def _self_contained(text: str) -> str:
    """Takes out of HTML what would run or be fetched: scripts, style sheets, pictures that are not in the file."""
    text = re.sub(r"<(script|style|iframe)\b.*?</\1\s*>", "", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(r"<link\b[^>]*>", "", text, flags=re.IGNORECASE)
    text = re.sub(r'<a class="anchor-link"[^>]*>.*?</a>', "", text)
    outside = r"""<img\b(?=[^>]*\bsrc=["']?(?!data:))(?:[^>]*\balt=["']([^"']*)["'])?[^>]*>"""
    return re.sub(outside, lambda found: f"<em>[{found[1] or 'picture'}]</em>", text, flags=re.IGNORECASE)
