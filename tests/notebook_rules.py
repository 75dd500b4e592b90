"""The house rules for notebooks, one function each: it takes a notebook and returns what is wrong with it.

The tests apply every rule to every tracked notebook; each rule is itself tried on a notebook that breaks it.
"""

import ast
import inspect
import re
import statistics
from collections.abc import Callable
from typing import Any

import nbformat
from nbformat import NotebookNode

from cdt_lite.errors import CDTError
from cdt_lite.teaching.check import all_exercises, find
from tools.copies import NOT_YOURS, stub, tags
from tools.pages import words as count_words

KNOWN_TAGS = {"exercise-card", "exercise", "check", "exercise-solution", "quiz", "instructor", "slide", "subslide",
              "fragment"}
ORDER = ["exercise-card", "exercise", "check", "exercise-solution"]
PICTURES = ("image/png", "image/gif", "image/jpeg")
# a path from the root of some machine, Unix or Windows, in text or code
MACHINE_PATH = re.compile(r"(?<![\w.:/~-])/(?:home|work|Users|root|tmp|mnt|opt|usr|var|private|data)/\w|\b[A-Z]:\\\w")
LARGEST = 1_500_000  # bytes


def number_of(notebook: NotebookNode) -> str:
    """Returns "03", read from the title "# 03 · Diffusion" (empty if there is none)."""
    first = notebook.cells[0].source if notebook.cells else ""
    found = re.match(r"# (0\d)\b", first)
    return found[1] if found else ""


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _text(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def _name(cell: NotebookNode) -> str:
    line = next((line for line in cell.source.splitlines() if line.strip()), "(empty)")
    return f"the cell {line[:50]!r}"


def kernel(notebook: NotebookNode) -> list[str]:
    """The kernel is python3, which every installation has."""
    name = notebook.metadata.get("kernelspec", {}).get("name")
    return [] if name == "python3" else [f"the kernel is {name!r}, not 'python3'"]


def frame(notebook: NotebookNode) -> list[str]:
    """A title with the number, the one set-up cell, and the report at the end; references with DOI or arXiv."""
    code, number = _code(notebook), number_of(notebook)
    if not number or not code:
        return ["the first cell is not a title such as '# 03 · Diffusion'"]
    wrong = []
    if f'teach.begin("{number}")' not in code[0].source:
        wrong.append(f'the first code cell does not call teach.begin("{number}")')
    if "lesson.report()" not in code[-1].source:
        wrong.append("the last code cell does not call lesson.report()")
    if not any(re.search(r"\bdoi\b|doi\.org|arXiv", cell.source) for cell in _text(notebook)):
        wrong.append("no reference with a DOI or an arXiv number")
    return wrong


def text_beside_code(notebook: NotebookNode) -> list[str]:
    """At least one text cell per code cell."""
    n_code, n_text = len(_code(notebook)), len(_text(notebook))
    return [] if n_text >= n_code else [f"{n_code} code cells, but only {n_text} text cells"]


def short_code(notebook: NotebookNode) -> list[str]:
    """Code cells have 8 lines or fewer in the median, and never more than 25; empty lines do not count."""
    lines = {_name(cell): sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in _code(notebook)}
    wrong = [f"{name} has {n} lines of code" for name, n in lines.items() if n > 25]
    median = statistics.median(lines.values()) if lines else 0
    return wrong + ([f"the median code cell has {median:g} lines"] if median > 8 else [])


def plain_python(notebook: NotebookNode) -> list[str]:
    """No shell, no magic, no tag that hides an error; every code cell is valid Python."""
    wrong = [f"{_name(cell)} uses ! or %" for cell in _code(notebook)
             if re.search(r"^\s*(!|%)\S", cell.source, re.MULTILINE)]
    for cell in _code(notebook):
        try:
            ast.parse(cell.source)
        except SyntaxError as error:
            wrong.append(f"{_name(cell)}: {error.msg}")
    return wrong


def known_tags(notebook: NotebookNode) -> list[str]:
    """Only tags that something acts on: a misspelt one would be passed over in silence."""
    return [f"{_name(cell)} has the unknown tags {sorted(tags(cell) - KNOWN_TAGS)}" for cell in notebook.cells
            if tags(cell) - KNOWN_TAGS]


def quiet_outputs(notebook: NotebookNode) -> list[str]:
    """No output on stderr, and no error."""
    return [f"{_name(cell)} ended with {output.get('ename', 'text on stderr')}" for cell in _code(notebook)
            for output in cell.outputs if output.output_type == "error" or output.get("name") == "stderr"]


def no_machine_path(notebook: NotebookNode) -> list[str]:
    """No path of one machine, in text, code or output."""
    wrong = []
    for cell in notebook.cells:
        shown = [cell.source]
        for output in cell.get("outputs", []):
            shown += [output.get("text", ""), *output.get("traceback", [])]
            shown += [str(value) for kind, value in output.get("data", {}).items() if kind not in PICTURES]
        # pictures inside HTML are letters by chance
        shown = [re.sub(r"base64,[A-Za-z0-9+/=\s]+", "", text) for text in shown]
        found = [match[0] for text in shown for match in MACHINE_PATH.finditer(text)]
        wrong += [f"{_name(cell)} shows a path of a machine: {found[0]}..."] if found else []
    return wrong


def size(notebook: NotebookNode) -> list[str]:
    """The file has at most 1.5 MB."""
    n = len(nbformat.writes(notebook).encode())
    return [] if n <= LARGEST else [f"{n / 1e6:.2f} MB, more than {LARGEST / 1e6} MB"]


def figures(notebook: NotebookNode) -> list[str]:
    """Every picture carries alt text and is followed by the table of its numbers, folded; none is shown otherwise."""
    wrong = [f"{_name(cell)} has a picture without alt text" for cell in _text(notebook)
             if re.search(r"!\[\s*\]\(|<img\b(?![^>]*\balt=[\"'][^\"'])", cell.source)]
    for cell in _code(notebook):
        if re.search(r"\bplt\.show\(|\bSVG\(|\bImage\(", cell.source):
            wrong.append(f"{_name(cell)} shows a picture without lesson.show")
        for i, output in enumerate(cell.outputs):
            data = output.get("data", {})
            kind = next((k for k in (*PICTURES, "image/svg+xml") if k in data), None)
            if kind is None:
                continue
            if len(output.metadata.get(kind, {}).get("alt", "").split()) < 4:
                wrong.append(f"{_name(cell)} has a picture without alt text")
            after = cell.outputs[i + 1].get("data", {}).get("text/html", "") if i + 1 < len(cell.outputs) else ""
            if not ("<details>" in after and "<table" in after and 1 < after.count("<tr") <= 42):
                wrong.append(f"{_name(cell)} has a picture without a table of its numbers (1 to 40 rows) after it")
    return wrong


def exercises(notebook: NotebookNode) -> list[str]:
    """Every exercise of this notebook stands here once: card, code, check and solution, in that order."""
    marked = [(str(cell.metadata.get("exercise", "")), (tags(cell) & set(ORDER)).pop(), cell)
              for cell in notebook.cells if tags(cell) & set(ORDER)]
    own = [e.number for e in all_exercises() if e.number.split(".")[0].zfill(2) == number_of(notebook)]
    numbers = list(dict.fromkeys(number for number, _, _ in marked))
    wrong = [] if numbers == own else [f"exercises in the notebook {numbers}, in cdt_lite.teaching.exercises {own}"]
    for number in numbers:
        kinds = [kind for other, kind, _ in marked if other == number]
        if kinds != ORDER:
            wrong.append(f"exercise {number or '(no metadata.exercise)'} has the cells {kinds}, wanted {ORDER}")
            continue
        cells = {kind: cell for other, kind, cell in marked if other == number}
        try:
            wrong += [f"exercise {number}: {what}" for what in _one_exercise(number, cells)]
        except CDTError as error:
            wrong.append(str(error))
    return wrong


def _one_exercise(number: str, cells: dict[str, NotebookNode]) -> list[str]:
    """Compares the four cells of an exercise with its entry in the package."""
    exercise, card, solution = find(number), cells["exercise-card"].source, cells["exercise-solution"].source
    words = " ".join(card.split())
    told = f"Difficulty {exercise.difficulty} of 5 · {exercise.minutes} minutes · {exercise.objective}"
    wrong = [] if card.startswith(f"### Exercise {number}: {exercise.title}\n") else [
        f"the card does not begin with '### Exercise {number}: {exercise.title}'"]
    wrong += [] if told in words else [f"the card lacks the line '{told}'"]
    for i, hint in enumerate(exercise.hints, 1):
        if f"<summary>Hint {i}</summary>" not in card or " ".join(hint.split()) not in words:
            wrong.append(f"the card lacks hint {i} as the package has it")
    if "<details>" not in solution or "<summary>One solution and an alternative</summary>" not in solution:
        wrong.append("the solution is not folded under 'One solution and an alternative'")
    if solution.count("def ") + solution.count("lambda") < 2 and solution.count("```python") < 2:
        wrong.append("the solution shows no alternative")
    if f'check("{number}", ' not in cells["check"].source:
        wrong.append(f'the check cell does not call check("{number}", ...)')
    return wrong + _stubbed(cells["exercise"], exercise.reference)


def _stubbed(cell: NotebookNode, reference: Callable[..., Any]) -> list[str]:
    """Checks an exercise's code: folded, with both marks, a documented function with the reference's arguments."""
    wrong = [] if cell.metadata.get("jupyter", {}).get("source_hidden") else ["its code is not folded (source_hidden)"]
    try:
        tree = ast.parse(stub(cell.source))
    except (ValueError, SyntaxError) as error:
        return [*wrong, str(error)]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    answer = [f for f in functions if NOT_YOURS.split(" #")[0].strip() in ast.unparse(f)]
    if not answer:
        return [*wrong, "no function is left to fill in"]
    names = [a.arg for a in (*answer[0].args.posonlyargs, *answer[0].args.args, *answer[0].args.kwonlyargs)]
    wanted = list(inspect.signature(reference).parameters)
    wrong += [] if names == wanted else [f"its arguments are {names}, those of the reference {wanted}"]
    wrong += [] if ast.get_docstring(answer[0]) else ["its function has no docstring"]
    bare = [a.arg for a in answer[0].args.args if a.annotation is None]
    return wrong + ([f"{', '.join(bare)}: no type and shape"] if bare else [])


def quiz(notebook: NotebookNode) -> list[str]:
    """Three quiz items, each with a folded answer that gives reasons."""
    items = [cell for cell in notebook.cells if "quiz" in tags(cell)]
    wrong = [] if len(items) == 3 else [f"{len(items)} quiz items, not 3"]
    for cell in items:
        answer = re.search(r"<details>\s*<summary>Answer</summary>(.*?)</details>", cell.source, re.DOTALL)
        if not answer or len(answer[1].split()) < 12:
            wrong.append(f"{_name(cell)} has no folded answer with reasons")
    return wrong


def instructor_notes(notebook: NotebookNode) -> list[str]:
    """At least two notes for the instructor, all of them text."""
    notes = [cell for cell in notebook.cells if "instructor" in tags(cell)]
    wrong = [f"{_name(cell)} is code, and would be missing in the student copy" for cell in notes
             if cell.cell_type == "code"]
    return wrong + ([] if len(notes) >= 2 else [f"{len(notes)} notes for the instructor, fewer than 2"])


def slides(notebook: NotebookNode) -> list[str]:
    """Eight to fifteen slides (four at least in the short notebook 00)."""
    n = sum(bool(tags(cell) & {"slide", "subslide"}) for cell in notebook.cells)
    least = 4 if number_of(notebook) == "00" else 8
    return [] if least <= n <= 15 else [f"{n} slides, not {least} to 15"]


def words(notebook: NotebookNode) -> list[str]:
    """1,800 to 3,000 words of prose (00: at most 900), without the instructor's notes and without what is folded."""
    n = count_words(notebook)
    least, most = (0, 900) if number_of(notebook) == "00" else (1800, 3000)
    return [] if least <= n <= most else [f"{n} words, not {least} to {most}"]


def by_hand(notebook: NotebookNode) -> list[str]:
    """What is done by hand is compared with the package, in every notebook but 00."""
    source = "\n".join(cell.source for cell in _code(notebook))
    names = re.findall(r"def (\w+_by_hand)\(", source)
    if not names:
        return [] if number_of(notebook) == "00" else ["nothing is done by hand (a function named *_by_hand)"]
    compared = re.search(r"assert_close|assert_allclose|assert_array_equal|assert_equal|torch\.equal", source)
    return [] if compared else [f"{', '.join(names)}: never compared with the package"]


RULES: dict[str, Callable[[NotebookNode], list[str]]] = {rule.__name__: rule for rule in (
    kernel, frame, text_beside_code, short_code, plain_python, known_tags, quiet_outputs, no_machine_path, size,
    figures, exercises, quiz, instructor_notes, slides, words, by_hand)}
