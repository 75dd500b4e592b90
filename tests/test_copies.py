"""Student copy, instructor copy and slides: made from the tracked notebook, the same again each time."""

import ast
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import run
from cdt_lite.teaching.check import Exercise, Property, all_exercises
from tools import copies, environment
from tools.slides import deck


def scale(x: int, n: int) -> int:
    """Returns x times n."""
    return x * n


DEMO = Exercise("1.1", "Scale it", 2, 7, "scale a number", "that n is two", scale,
                (Property("a | b", lambda f: (4, f(2, 2)), "You forgot n."),), ("a", "b"))
ANSWER = 'def scale(x, n):\n    """Doc."""\n    # solution\n    y = x\n\n    return y * n\n' \
         "    # end of solution\n\nz = 1"


def notebook():
    shown = new_code_cell("lesson.show(f)", metadata={"tags": ["slide"]}, execution_count=3)
    shown.outputs = [new_output("display_data", {"image/png": "aGk=\n", "text/plain": "x"},
                                metadata={"image/png": {"alt": 'Bars: "1" & 2'}}),
                     new_output("stream", name="stdout", text="a < b"),
                     new_output("display_data", {"text/html": "<details><table></table></details><script>x</script>"})]
    return new_notebook(cells=[
        new_markdown_cell("# 01 · Bins *here*\n[home](../README.md) [next](02_a.ipynb) ![a map](../figures/a.png)\n"
                          "The outputs below: profile laptop.\n",
                          metadata={"tags": ["slide"]}),
        new_code_cell(ANSWER, metadata={"tags": ["exercise"], "exercise": "1.1", "jupyter": {"source_hidden": True}}),
        new_code_cell('check("1.1", scale)', metadata={"tags": ["check", "subslide"], "exercise": "1.1"}),
        new_markdown_cell("*Instructor:* wait.", metadata={"tags": ["instructor"]}),
        new_markdown_cell("## Look"), shown, new_markdown_cell("More.", metadata={"tags": ["fragment"]}),
    ])


def test_the_stub_keeps_signature_docstring_and_what_follows():
    assert copies.stub(ANSWER) == 'def scale(x, n):\n    """Doc."""\n    return ...  # your code here\n\nz = 1'


@pytest.mark.parametrize("source", ["x = 1", "# solution\nx", "x\n# end of solution",
                                    "# solution\n# solution\n# end of solution", "# end of solution\n# solution"])
def test_a_stub_without_both_marks_is_refused(source):
    with pytest.raises(ValueError, match="solution"):
        copies.stub(source)


def test_the_student_copy_has_stubs_and_neither_answers_nor_outputs():
    copy = copies.student(notebook())
    nbformat.validate(copy)
    text = nbformat.writes(copy)
    assert "y * n" not in text and "Instructor" not in text and "your code here" in text
    assert "The outputs below" not in text  # it has none
    code = [cell for cell in copy.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert not any(cell.metadata.get("jupyter") for cell in code)  # what is to be filled in is in sight
    assert "](../../README.md)" in text and "](02_a.ipynb)" in text and "](../../figures/a.png)" in text
    assert [c.metadata.get("slideshow", {}).get("slide_type") for c in copy.cells] == [
        "slide", None, "subslide", None, "slide", None]


def test_the_instructor_copy_has_answers_notes_and_a_front_page():
    copy = copies.instructor(notebook(), [DEMO])
    nbformat.validate(copy)
    assert "y * n" in copy.cells[2].source and any("Instructor:" in cell.source for cell in copy.cells)
    front = copy.cells[1].source
    assert "1 exercise, 7 minutes" in front
    assert "| 1.1 Scale it | scale a number | that n is two | 2 of 5 | 7 |" in front


def test_making_a_copy_leaves_the_source_alone():
    source = notebook()
    before = nbformat.writes(source)
    copies.student(source), copies.instructor(source, [DEMO]), deck(source)
    assert nbformat.writes(source) == before


# ---- slides


def outside(page):
    """What a browser would fetch when it opens the page."""
    return re.findall(r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=(?![\"']?data:)[^>]*|<link\b[^>]*|"
                      r"@import[^;]*|url\((?![\"']?data:)[^)]*|\bimport\s*\([^)]*|fetch\([^)]*", page)


@pytest.mark.parametrize(("page", "found"), [
    ('<img alt="a" src="data:image/png;base64,AA">', 0), ("<img src=data:image/png;base64,AA>", 0),
    ('<img src="https://a.example/b.png">', 1), ("<script src='x.js'>", 1), ('<link rel="a" href="x.css">', 1)])
def test_what_a_browser_would_fetch_is_recognised(page, found):
    assert len(outside(page)) == found


def test_slides_hold_tagged_cells_only_in_order():
    page = deck(notebook())
    parts = re.findall(r"<section.*?</section>", page, re.DOTALL)
    assert len(parts) == 3 and 'aria-label="Slide 3 of 3"' in parts[2]
    assert "Bins" in parts[0] and "check(" in parts[1] and "More." in parts[2]
    assert "<title>01 · Bins here</title>" in page and "Instructor" not in page and "y * n" not in page
    assert '<p class="where">Look</p>' in parts[2]  # a slide without a heading says where it stands


def test_slides_show_pictures_with_alt_text_and_fold_their_code():
    page = deck(notebook())
    assert '<img alt="Bars: &quot;1&quot; &amp; 2" src="data:image/png;base64,aGk=">' in page
    assert "<details><summary>Code</summary>" in page and "<pre>a &lt; b</pre>" in page
    assert "<em>[a map]</em>" in page and "<script>x</script>" not in page


def test_the_search_for_outside_parts_can_fail():
    for text in ('<script src="https://cdn.example.org/reveal.js"></script>', '<link rel="stylesheet" href="x.css">',
                 "<img src='a.png'>", "<style>@import 'a.css';</style>", "<style>a { background: url(a.png) }</style>"):
        assert outside(text), text


@pytest.mark.parametrize("path", copies.sources(), ids=lambda path: path.stem)
def test_slides_open_without_a_network(path):
    page = deck(nbformat.read(path, as_version=4))
    assert not outside(page) and "http-equiv" not in page
    assert page.count("<section") == page.count("</section>") and "{{" not in page.split("<script>")[1]
    assert "ArrowRight" in page and 'lang="en-GB"' in page


def test_the_template_is_small():
    template = (copies.ROOT / "tools" / "slides.html").read_text(encoding="utf-8")
    assert template.count("\n") < 120 and not outside(template)


# ---- what is tracked


def test_the_tracked_copies_are_those_of_the_notebooks():
    """`python3 run.py copies` writes them again."""
    stale = [str(path.relative_to(copies.ROOT)) for path, text in copies.tracked_copies().items()
             if not path.is_file() or path.read_text(encoding="utf-8") != text]
    assert not stale, f"not up to date: {', '.join(stale)}; run: python3 run.py copies"


def test_no_copy_outlives_its_notebook():
    wanted = {path.name for path in copies.sources()}
    for kind in ("student", "instructor"):
        assert {path.name for path in (copies.ROOT / "workshop" / kind).glob("*.ipynb")} == wanted


def test_copies_are_the_same_each_time():
    assert copies.tracked_copies() == copies.tracked_copies()


@pytest.mark.parametrize("path", copies.sources(), ids=lambda path: path.stem)
def test_every_stub_is_valid_python(path):
    for cell in copies.student(nbformat.read(path, as_version=4)).cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)


def test_the_exercise_table_lists_every_exercise_once_and_stays_a_table():
    text = copies.exercise_table([*all_exercises(), DEMO], {"01": "01_tokenization.ipynb"})
    rows = [line for line in text.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == len(all_exercises()) + 1
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 8 for row in rows)
    assert "[01](../notebooks/01_tokenization.ipynb)" in rows[-1] and "a \\| b" in rows[-1]


def test_run_py_knows_the_command(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(environment, "set_up", lambda: tmp_path / "bin" / "python")
    monkeypatch.setattr(run.subprocess, "call", lambda command, **more: called.append(command) or 0)
    assert run.main(["copies"]) == 0
    assert called[0][1].endswith("copies.py")
