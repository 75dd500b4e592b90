"""Student copy, instructor copy and slides: made from the tracked notebook, the same again each time."""

import ast
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cdt_lite.teaching.check import Exercise, Property
from tools import copies, pages


def scale(x: int, n: int) -> int:
    """Returns x times n."""
    return x * n


DEMO = Exercise("1.1", "Scale it", 2, 7, "scale a number", "that n is two", scale,
                [Property("a | b", lambda f: (4, f(2, 2)), "You forgot n.")], ("a", "b"))
ANSWER = 'def scale(x, n):\n    """Doc."""\n    # solution\n    y = x\n\n    return y * n\n' \
         "    # end of solution\n\nz = 1"


def notebook():
    shown = new_code_cell("lesson.show(f)", metadata={"tags": ["slide"]}, execution_count=3)
    shown.outputs = [new_output("display_data", {"image/png": "aGk=\n", "text/plain": "x"},
                                metadata={"image/png": {"alt": 'Bars: "1" & 2'}}),
                     new_output("stream", name="stdout", text="a < b"),
                     new_output("display_data", {"text/html": "<details><table></table></details><script>x</script>"})]
    return new_notebook(cells=[
        new_markdown_cell("# 01 · Bins here\n[home](../README.md) [next](02_a.ipynb) ![a map](../figures/a.png)\n"
                          "The outputs below: profile laptop.\n",
                          metadata={"tags": ["slide"]}),
        new_code_cell(ANSWER, metadata={"tags": ["exercise"], "exercise": "1.1", "jupyter": {"source_hidden": True}}),
        new_code_cell('check("1.1", scale)', metadata={"tags": ["check", "subslide"], "exercise": "1.1"}),
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
    told = copies.notes("# 01\n\n## Look\n\nWait.\n\nAsk.\n\n## Bins\n\nHands up.\n")
    assert told == {"Look": "Wait.\n\nAsk.", "Bins": "Hands up."}
    copy = copies.instructor(notebook(), (DEMO,), {"Look": told["Look"]})
    nbformat.validate(copy)
    sources = [cell.source for cell in copy.cells]
    assert "y * n" in sources[2] and sources[sources.index("## Look") + 1] == "**Instructor.** Wait.\n\nAsk."
    with pytest.raises(ValueError, match=r"does not have: \['Bins'\]"):
        copies.instructor(notebook(), (DEMO,), told)
    front = copy.cells[1].source
    assert "1 exercise, 7 minutes" in front
    assert "| 1.1 Scale it | scale a number | that n is two | 2 of 5 | 7 |" in front


def test_making_a_copy_leaves_the_source_alone():
    source = notebook()
    before = nbformat.writes(source)
    copies.student(source)
    copies.instructor(source, (DEMO,), {"Look": "Wait."})
    copies.slides(source)
    assert nbformat.writes(source) == before


# ---- slides

OUTSIDE = r"<(?:script|img|iframe|source|video|embed)\b[^>]*\bsrc=(?![\"']?data:)|<link\b|@import|url\((?![\"']?data:)"


@pytest.mark.parametrize(("page", "found"), [
    ('<img alt="a" src="data:image/png;base64,AA">', False),
    ('<img src="https://a.example/b.png">', True),
    ("<script src='x.js'>", True),
    ('<link rel="a" href="x.css">', True),
    ("<style>@import 'a.css';</style>", True),
    ("<style>a { background: url(a.png) }</style>", True),
])
def test_what_a_browser_would_fetch_is_recognised(page, found):
    assert bool(re.search(OUTSIDE, page)) == found


def test_slides_hold_tagged_cells_only_in_order():
    page = copies.slides(notebook())
    parts = re.findall(r"<section.*?</section>", page, re.DOTALL)
    assert len(parts) == 3 and "<title>01 · Bins here</title>" in page
    assert "<h1>01" in parts[0] and "check" in parts[1] and "More." in parts[2]
    assert not re.search("Instructor|solution", "".join(parts))
    assert re.search(r'class="where"><p>Look</p>', parts[2])  # a slide without a heading says where it stands


def test_slides_show_pictures_with_alt_text_and_fold_their_code():
    page = copies.slides(notebook())
    assert re.search(r"""<img alt='Bars: "1" &amp; 2' src="data:image/png;base64,aGk=""", page)
    assert page.count("<summary>Code</summary>") == 1 and "a &lt; b" in page


@pytest.mark.parametrize("path", copies.sources(), ids=lambda path: path.stem)
def test_slides_open_without_a_network(path):
    shown = nbformat.read(path, as_version=4)
    shown.cells[0].source += "\n\n" + pages.LOOKS.badges("some-one/cells", path.name)  # as with an address
    page = copies.slides(shown)
    assert not re.search(OUTSIDE, page) and 'lang="en-GB"' in page and "ArrowRight" in page
    assert page.count("<section>") == page.count("</section>") >= 4
    assert not re.search(r"<img\b(?![^>]*\balt=)", page) and "No description" not in page


# ---- what is tracked


def test_the_tracked_copies_are_those_of_the_notebooks():
    """`python3 run.py copies` writes them again."""
    stale = [str(path.relative_to(copies.ROOT)) for path, text in copies.tracked_copies().items()
             if not path.is_file() or path.read_text(encoding="utf-8") != text]
    assert not stale, f"not up to date: {', '.join(stale)}; run: python3 run.py copies"


def test_the_badges_of_a_copy_open_the_copy(tmp_path, monkeypatch):
    notebook = nbformat.read(copies.sources()[0], as_version=4)
    name = copies.sources()[0].name
    notebook.cells[0].source += "\n\n" + pages.LOOKS.badges("some-one/cells", f"notebooks/{name}")
    nbformat.write(notebook, tmp_path / name)
    monkeypatch.setattr(copies, "sources", lambda: [tmp_path / name])
    monkeypatch.setattr(pages, "pages", lambda cards: {})
    made = copies.tracked_copies()
    assert len(made) == 2
    for path, text in made.items():
        assert f"/main/workshop/{path.parent.name}/{name})" in text and f"lab/tree/workshop/{path.parent.name}/" in text
        assert f"/notebooks/{name}" not in text


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


def test_a_copy_that_was_worked_in_is_kept_before_it_is_written_anew(tmp_path):
    path = tmp_path / "student" / "03_diffusion.ipynb"
    path.parent.mkdir()
    assert not copies.set_aside(path, tmp_path / "answers")
    cell = new_code_cell("mine")
    nbformat.write(new_notebook(cells=[cell]), path)
    assert not copies.set_aside(path, tmp_path / "answers")
    cell.outputs = [new_output("stream", text="done")]
    nbformat.write(new_notebook(cells=[cell]), path)
    assert copies.set_aside(path, tmp_path / "answers")
    assert (tmp_path / "answers" / path.name).read_bytes() == path.read_bytes()
