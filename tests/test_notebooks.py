"""The tracked notebooks keep every house rule, and every rule notices the notebook that breaks it."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import notebook_rules as rules
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cdt_lite.teaching.check import Exercise, Property, all_exercises
from tools.copies import sources

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in sources()}


@pytest.mark.parametrize("rule", rules.RULES)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_keeps_the_rule(name, rule):
    wrong = rules.RULES[rule](NOTEBOOKS[name])
    assert not wrong, "\n".join([inspect.getdoc(rules.RULES[rule]), *wrong])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_is_valid_and_its_name_fits_its_title(name):
    nbformat.validate(NOTEBOOKS[name])
    assert rules.number_of(NOTEBOOKS[name]) == name[:2]
    ids = [cell.id for cell in NOTEBOOKS[name].cells]
    assert len(set(ids)) == len(ids)


# ---- spelling

NAMES = "theis"  # of people and genes, which look like misspelt words


def misspelt(text):
    """What codespell finds in a text: "line: word ==> better word"."""
    done = subprocess.run([sys.executable, "-m", "codespell_lib", "-L", NAMES, "-"], input=text, capture_output=True,
                          text=True, cwd=ROOT, encoding="utf-8", check=False)
    assert done.returncode in (0, 65), done.stderr
    return [line for line in done.stdout.splitlines() if "==>" in line]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_prose_is_spelt_right(name):
    cells = [cell.source for cell in NOTEBOOKS[name].cells if cell.cell_type == "markdown"]
    assert not misspelt(re.sub(r"https?://\S+|doi:\S+", "", "\n".join(cells)))


def test_exercises_and_workshop_pages_are_spelt_right():
    texts = [text for e in all_exercises() for text in (e.title, e.objective, e.misconception, *e.hints,
             *(t for p in e.properties for t in (p.claim, p.hint)))]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "workshop").glob("*.md")]
    assert not misspelt("\n".join(texts))


def test_the_spelling_check_can_fail():
    assert misspelt("we recieve the seperate cells") and not misspelt("we receive the separate cells of colour")


# ---- the rules themselves, tried on a small notebook that keeps them all, and on one spoilt copy for each


def scale(x: int, n: int) -> int:
    """Returns x times n."""
    return x * n


DEMO = Exercise("1.1", "Scale it", 1, 2, "scale a number", "that n is always two", scale,
                [Property("two times", lambda f: (4, f(2, 2)), "You forgot n.")], ("Multiply.", "Write x * n."))
CARD = """### Exercise 1.1: Scale it
Difficulty 1 of 5 · 2 minutes · scale a number

Scale x by n.
<details><summary>Hint 1</summary>Multiply.</details>
<details><summary>Hint 2</summary>Write x * n.</details>"""
ANSWER = 'def scale(x: int, n: int) -> int:\n    """Returns x times n."""\n    # solution\n    return x * n\n' \
         "    # end of solution"
SOLUTION = "<details><summary>One solution and an alternative</summary>\n\n```python\nx * n\n```\n" \
           "```python\nn * x\n```\n</details>"
QUIZ = "**Why?** A or B?\n<details><summary>Answer</summary>A, because B would need something that a cell does not " \
       "have at all.</details>"


def tagged(cell, *tags, exercise=""):
    cell.metadata["tags"] = list(tags)
    if exercise:
        cell.metadata["exercise"] = exercise
    return cell


def picture(alt="A bar chart of three counts: 1, 2 and 3.", table="<table><tr></tr><tr></tr></table>"):
    shown = new_output("display_data", {"image/png": "aGk=", "text/plain": "x"}, metadata={"image/png": {"alt": alt}})
    return [shown, new_output("display_data", {"text/html": f"<details><summary>s</summary>{table}</details>"})]


def good():
    """A notebook that keeps every rule."""
    hidden = tagged(new_code_cell(ANSWER), "exercise", exercise="1.1")
    hidden.metadata["jupyter"] = {"source_hidden": True}
    shown = new_code_cell("lesson.show(figure, text, table)")
    shown.outputs = picture()
    cells = [
        tagged(new_markdown_cell("# 01 · Tokenization\n" + "word " * 2000), "slide"),
        new_code_cell('from cdt_lite import teach\nlesson = teach.begin("01")'), new_markdown_cell("By hand."),
        new_code_cell("def encode_by_hand(x):\n    return x\nassert_close(encode_by_hand(1), 1)"), shown,
        tagged(new_markdown_cell(CARD), "exercise-card", "slide", exercise="1.1"), hidden,
        tagged(new_code_cell('check("1.1", scale)'), "check", exercise="1.1"),
        tagged(new_markdown_cell(SOLUTION), "exercise-solution", exercise="1.1"),
        *(tagged(new_markdown_cell(QUIZ), "quiz", "slide") for _ in range(3)),
        *(tagged(new_markdown_cell("A point."), "subslide") for _ in range(3)),
        *(new_markdown_cell("Its proof.") for _ in range(30)),
        new_markdown_cell("References: doi:10.1038/s41588-021-00778-2"), new_code_cell("lesson.report()"),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def of_tag(notebook, tag):
    return next(cell for cell in notebook.cells if tag in cell.metadata.get("tags", []))


def put(notebook, tag, old, new):
    cell = of_tag(notebook, tag)
    assert old in cell.source
    cell.source = cell.source.replace(old, new)


def output(notebook, *outputs):
    notebook.cells[4].outputs = list(outputs)


SPOILT = {
    "another kernel": ("kernel", lambda n: n.metadata.kernelspec.update(name="cdt")),
    "no title": ("frame", lambda n: n.cells.pop(0)),
    "no report": ("frame", lambda n: n.cells.pop()),
    "another number": ("frame", lambda n: n.cells[1].update(source='teach.begin("02")')),
    "no reference": ("frame", lambda n: n.cells.pop(-2)),
    "code alone": ("text_beside_code", lambda n: n.cells.extend(new_code_cell("x") for _ in range(60))),
    "a long cell": ("short_code", lambda n: n.cells[1].update(source="x = 1\n" * 16)),
    "long cells": ("short_code", lambda n: [c.update(source="x = 1\n" * 7) for c in n.cells if c.cell_type == "code"]),
    "a long line": ("short_code", lambda n: n.cells[1].update(source="x" * 101)),
    "a marathon": ("one_sitting", lambda n: n.cells.extend(new_markdown_cell("x") for _ in range(30))),
    "a shell": ("plain_python", lambda n: n.cells[1].update(source="!ls")),
    "a magic": ("plain_python", lambda n: n.cells[1].update(source="  %time x")),
    "no Python": ("plain_python", lambda n: n.cells[1].update(source="def f(:")),
    "raises-exception": ("known_tags", lambda n: tagged(n.cells[1], "raises-exception")),
    "a misspelt tag": ("known_tags", lambda n: tagged(n.cells[0], "slides")),
    "stderr": ("quiet_outputs", lambda n: output(n, new_output("stream", name="stderr", text="oh"))),
    "an error": ("quiet_outputs", lambda n: output(n, new_output("error", ename="E", evalue="", traceback=[]))),
    "a path": ("no_machine_path", lambda n: output(n, new_output("stream", name="stdout", text="in /home/me/x"))),
    "a Windows path": ("no_machine_path", lambda n: n.cells[2].update(source=r"C:\Users\me")),
    "too large": ("size", lambda n: n.cells[0].update(source="x" * 1_500_001)),
    "no alt text": ("figures", lambda n: output(n, *picture(alt=""))),
    "no table": ("figures", lambda n: output(n, picture()[0])),
    "an empty table": ("figures", lambda n: output(n, *picture(table="<table></table>"))),
    "a huge table": ("figures", lambda n: output(n, *picture(table="<table>" + "<tr></tr>" * 99 + "</table>"))),
    "a bare SVG": ("figures", lambda n: output(n, new_output("display_data", {"image/svg+xml": "<svg/>"}))),
    "plt.show": ("figures", lambda n: n.cells[4].update(source="plt.show()")),
    "a text's picture": ("figures", lambda n: n.cells[2].update(source="![](../figures/a.png)")),
    "an exercise lost": ("exercises", lambda n: [n.cells.remove(c) for c in list(n.cells) if "exercise" in c.metadata]),
    "no check": ("exercises", lambda n: n.cells.remove(of_tag(n, "check"))),
    "wrong order": ("exercises", lambda n: n.cells.append(n.cells.pop(n.cells.index(of_tag(n, "exercise-card"))))),
    "another title": ("exercises", lambda n: put(n, "exercise-card", "1.1: Scale it", "1.1: Scale")),
    "other minutes": ("exercises", lambda n: put(n, "exercise-card", "2 minutes", "3 minutes")),
    "another hint": ("exercises", lambda n: put(n, "exercise-card", "Write x * n.", "Write x.")),
    "an open solution": ("exercises", lambda n: put(n, "exercise-solution", "<details>", "")),
    "no alternative": ("exercises", lambda n: put(n, "exercise-solution", "```python\nn * x\n```", "")),
    "another check": ("exercises", lambda n: put(n, "check", '"1.1"', '"1.2"')),
    "code in sight": ("exercises", lambda n: of_tag(n, "exercise").metadata.pop("jupyter")),
    "no marks": ("exercises", lambda n: put(n, "exercise", "# solution", "# here")),
    "other arguments": ("exercises", lambda n: put(n, "exercise", "x: int, n: int", "x: int, k: int")),
    "no types": ("exercises", lambda n: put(n, "exercise", "x: int", "x")),
    "no docstring": ("exercises", lambda n: put(n, "exercise", '    """Returns x times n."""\n', "")),
    "two quiz items": ("quiz", lambda n: n.cells.remove(of_tag(n, "quiz"))),
    "no reasons": ("quiz", lambda n: put(n, "quiz", "because B would need something that a cell does not", "")),
    "a note for the instructor": ("known_tags", lambda n: n.cells.append(tagged(new_markdown_cell("x"), "instructor"))),
    "seven slides": ("slides", lambda n: n.cells.remove(of_tag(n, "subslide"))),
    "few words": ("words", lambda n: n.cells[0].update(source="# 01 · Tokenization")),
    "many words": ("words", lambda n: n.cells[2].update(source="word " * 601)),
    "not compared": ("by_hand", lambda n: n.cells[3].update(source="def encode_by_hand(x):\n    return x")),
    "nothing by hand": ("by_hand", lambda n: n.cells[3].update(source="x = 1")),
}


@pytest.fixture
def demo_exercise(monkeypatch):
    monkeypatch.setattr(rules, "all_exercises", lambda: (DEMO,))
    monkeypatch.setattr(rules, "find", {"1.1": DEMO}.__getitem__)


def test_a_good_notebook_breaks_no_rule(demo_exercise):
    broken = {name: rule(good()) for name, rule in rules.RULES.items() if rule(good())}
    assert not broken


@pytest.mark.parametrize("what", SPOILT)
def test_the_rule_notices(what, demo_exercise):
    rule, spoil = SPOILT[what]
    notebook = good()
    spoil(notebook)
    assert rules.RULES[rule](notebook)


def test_every_rule_is_tried():
    assert {rule for rule, _ in SPOILT.values()} == set(rules.RULES)
