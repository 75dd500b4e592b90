"""The house rules for notebooks, one function each: it takes a notebook and returns what is wrong with it.

The tests apply every rule to every tracked notebook; each rule is itself tried on a notebook that breaks it.
"""

import ast
import functools
import inspect
import re
import statistics

import nbformat

from cdt_lite.errors import CDTError
from cdt_lite.teaching.check import all_exercises, find
from tools import pages
from tools.copies import END, NOT_YOURS, START, stub, tags
from tools.execute import code_cells

KNOWN_TAGS = {
    *("exercise-card", "exercise", "check", "exercise-solution", "quiz", "slide", "subslide", "fragment", "front")
}
ORDER = ["exercise-card", "exercise", "check", "exercise-solution"]
PICTURES = ("image/png", "image/gif", "image/jpeg")
# a path from the root of some machine, Unix or Windows, in text or code
MACHINE_PATH = re.compile(r"(?<![\w.:/~-])/(?:home|work|Users|root|tmp|mnt|opt|usr|var|private|data)/\w|\b[A-Z]:\\\w")
LARGEST = 1_500_000  # bytes
RULES = {}


def rule(check):
    """Makes a rule of a function that yields what is wrong."""

    @functools.wraps(check)
    def applied(notebook):
        return list(check(notebook))

    RULES[check.__name__] = applied
    return applied


def number_of(notebook):
    """Returns "03", read from the title "# 03 · Diffusion" (empty if there is none)."""
    first = notebook.cells[0].source if notebook.cells else ""
    found = re.match(r"# (0\d)\b", first)
    return found[1] if found else ""


def text_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def name_of(cell):
    line = next((line for line in cell.source.splitlines() if line.strip()), "(empty)")
    return f"the cell {line[:50]!r}"


@rule
def kernel(notebook):
    """The kernel is python3, which every installation has."""
    name = notebook.metadata.get("kernelspec", {}).get("name")
    if name != "python3":
        yield f"the kernel is {name!r}, not 'python3'"


@rule
def frame(notebook):
    """A title with the number, the one set-up cell, and the report at the end; references with DOI or arXiv."""
    code, number = code_cells(notebook), number_of(notebook)
    if not number or not code:
        yield "the first cell is not a title such as '# 03 · Diffusion'"
        return
    if f'teach.begin("{number}")' not in code[0].source:
        yield f'the first code cell does not call teach.begin("{number}")'
    if "lesson.report()" not in code[-1].source:
        yield "the last code cell does not call lesson.report()"
    if not any(re.search(r"\bdoi\b|doi\.org|arXiv", cell.source) for cell in text_cells(notebook)):
        yield "no reference with a DOI or an arXiv number"


@rule
def text_beside_code(notebook):
    """At least one text cell per code cell."""
    n_code, n_text = len(code_cells(notebook)), len(text_cells(notebook))
    if n_text < n_code:
        yield f"{n_code} code cells, but only {n_text} text cells"


@rule
def short_code(notebook):
    """Code cells have 6 lines or fewer in the median, never more than 15 (a solution: 20), and none of 100 characters.

    Empty lines and the marks of a solution do not count.
    """
    counts = []
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip() and line.strip() not in (START, END)]
        counts.append(len(lines))
        most = 20 if "exercise" in tags(cell) else 15
        if counts[-1] > most:
            yield f"{name_of(cell)} has {counts[-1]} lines of code"
        if max(map(len, lines), default=0) > 100:
            yield f"{name_of(cell)} has a line of more than 100 characters"
    if counts and statistics.median(counts) > 6:
        yield f"the median code cell has {statistics.median(counts):g} lines"


@rule
def one_sitting(notebook):
    """45 to 70 cells; in 00, which is a taste, at most 35."""
    least, most = (0, 35) if number_of(notebook) == "00" else (45, 70)
    if not least <= len(notebook.cells) <= most:
        yield f"{len(notebook.cells)} cells, not {least} to {most}"


@rule
def plain_python(notebook):
    """No shell, no magic, no tag that hides an error; every code cell is valid Python."""
    for cell in code_cells(notebook):
        if re.search(r"^\s*(!|%)\S", cell.source, re.MULTILINE):
            yield f"{name_of(cell)} uses ! or %"
        try:
            ast.parse(cell.source)
        except SyntaxError as error:
            yield f"{name_of(cell)}: {error.msg}"


@rule
def known_tags(notebook):
    """Only tags that something acts on: a misspelt one would be passed over in silence."""
    for cell in notebook.cells:
        unknown = tags(cell) - KNOWN_TAGS
        if unknown:
            yield f"{name_of(cell)} has the unknown tags {sorted(unknown)}"


@rule
def quiet_outputs(notebook):
    """No output on stderr, and no error."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                yield f"{name_of(cell)} ended with {output.get('ename', 'text on stderr')}"


@rule
def no_machine_path(notebook):
    """No path of one machine, in text, code or output."""
    for cell in notebook.cells:
        shown = [cell.source]
        for output in cell.get("outputs", []):
            shown += [output.get("text", ""), *output.get("traceback", [])]
            shown += [str(value) for kind, value in output.get("data", {}).items() if kind not in PICTURES]
        # pictures inside HTML are letters by chance
        text = re.sub(r"base64,[A-Za-z0-9+/=\s]+", "", "\n".join(shown))
        found = MACHINE_PATH.search(text)
        if found:
            yield f"{name_of(cell)} shows a path of a machine: {found[0]}..."


@rule
def size(notebook):
    """The file has at most 1.5 MB."""
    n = len(nbformat.writes(notebook).encode())
    if n > LARGEST:
        yield f"{n / 1e6:.2f} MB, more than {LARGEST / 1e6} MB"


@rule
def figures(notebook):
    """Every picture carries alt text and is followed by the table of its numbers, folded; none is shown otherwise."""
    for cell in text_cells(notebook):
        if re.search(r"!\[\s*\]\(|<img\b(?![^>]*\balt=[\"'][^\"'])", cell.source):
            yield f"{name_of(cell)} has a picture without alt text"
    for cell in code_cells(notebook):
        if re.search(r"\bplt\.show\(|\bSVG\(|\bImage\(", cell.source):
            yield f"{name_of(cell)} shows a picture without lesson.show"
        for output, following in zip(cell.outputs, [*cell.outputs[1:], {}], strict=False):
            kinds = [kind for kind in (*PICTURES, "image/svg+xml") if kind in output.get("data", {})]
            if not kinds:
                continue
            if len(output.metadata.get(kinds[0], {}).get("alt", "").split()) < 4:
                yield f"{name_of(cell)} has a picture without alt text"
            after = following.get("data", {}).get("text/html", "")
            if not ("<details>" in after and "<table" in after and 1 < after.count("<tr") <= 42):
                yield f"{name_of(cell)} has a picture without a table of its numbers (1 to 40 rows) after it"


@rule
def exercises(notebook):
    """Every exercise of this notebook stands here once: card, code, check and solution, in that order."""
    found = {}
    for cell in notebook.cells:
        for kind in tags(cell) & set(ORDER):
            found.setdefault(str(cell.metadata.get("exercise", "")), []).append((kind, cell))
    own = [e.number for e in all_exercises() if e.number.split(".")[0].zfill(2) == number_of(notebook)]
    if list(found) != own:
        yield f"exercises in the notebook {list(found)}, in cdt_lite.teaching.exercises {own}"
    for number, cells in found.items():
        kinds = [kind for kind, _ in cells]
        if kinds != ORDER:
            yield f"exercise {number or '(no metadata.exercise)'} has the cells {kinds}, wanted {ORDER}"
            continue
        try:
            for what in one_exercise(find(number), dict(cells)):
                yield f"exercise {number}: {what}"
        except CDTError as error:
            yield str(error)


def one_exercise(exercise, cells):
    """Compares the four cells of an exercise with its entry in the package."""
    card, solution = cells["exercise-card"].source, cells["exercise-solution"].source
    number, words = exercise.number, " ".join(card.split())
    told = f"Difficulty {exercise.difficulty} of 5 · {exercise.minutes} minutes · {exercise.objective}"
    if not card.startswith(f"### Exercise {number}: {exercise.title}\n"):
        yield f"the card does not begin with '### Exercise {number}: {exercise.title}'"
    if told not in words:
        yield f"the card lacks the line '{told}'"
    for i, hint in enumerate(exercise.hints, 1):
        if f"<summary>Hint {i}</summary>" not in card or " ".join(hint.split()) not in words:
            yield f"the card lacks hint {i} as the package has it"
    if "<details>" not in solution or "<summary>One solution and an alternative</summary>" not in solution:
        yield "the solution is not folded under 'One solution and an alternative'"
    if solution.count("def ") + solution.count("lambda") < 2 and solution.count("```python") < 2:
        yield "the solution shows no alternative"
    if f'check("{number}", ' not in cells["check"].source:
        yield f'the check cell does not call check("{number}", ...)'
    yield from stubbed(cells["exercise"], exercise.reference)


def stubbed(cell, reference):
    """Checks an exercise's code: folded, with both marks, a documented function with the reference's arguments."""
    if not cell.metadata.get("jupyter", {}).get("source_hidden"):
        yield "its code is not folded (source_hidden)"
    try:
        tree = ast.parse(stub(cell.source))
    except (ValueError, SyntaxError) as error:
        yield str(error)
        return
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    unwritten = NOT_YOURS.partition(" #")[0].strip()
    answer = next((function for function in functions if unwritten in ast.unparse(function)), None)
    if answer is None:
        yield "no function is left to fill in"
        return
    arguments = [*answer.args.posonlyargs, *answer.args.args, *answer.args.kwonlyargs]
    names, wanted = [each.arg for each in arguments], list(inspect.signature(reference).parameters)
    if names != wanted:
        yield f"its arguments are {names}, those of the reference {wanted}"
    if not ast.get_docstring(answer):
        yield "its function has no docstring"
    for each in answer.args.args:
        if each.annotation is None:
            yield f"{each.arg}: no type and shape"


@rule
def quiz(notebook):
    """Three quiz items, each with a folded answer that gives reasons."""
    items = [cell for cell in notebook.cells if "quiz" in tags(cell)]
    if len(items) != 3:
        yield f"{len(items)} quiz items, not 3"
    for cell in items:
        answer = re.search(r"<details>\s*<summary>Answer</summary>(.*?)</details>", cell.source, re.DOTALL)
        if not answer or len(answer[1].split()) < 12:
            yield f"{name_of(cell)} has no folded answer with reasons"


@rule
def slides(notebook):
    """Eight to fifteen slides (four at least in the short notebook 00)."""
    n = sum(bool(tags(cell) & {"slide", "subslide"}) for cell in notebook.cells)
    least = 4 if number_of(notebook) == "00" else 8
    if not least <= n <= 15:
        yield f"{n} slides, not {least} to 15"


@rule
def words(notebook):
    """1,800 to 2,600 words of prose (00: at most 900), without what is folded."""
    n = pages.words(notebook)
    least, most = (0, 900) if number_of(notebook) == "00" else (1800, 2600)
    if not least <= n <= most:
        yield f"{n} words, not {least} to {most}"


@rule
def by_hand(notebook):
    """What is done by hand is compared with the package, in every notebook but 00."""
    source = "\n".join(cell.source for cell in code_cells(notebook))
    names = re.findall(r"def (\w+_by_hand)\(", source)
    compared = re.search(r"assert_close|assert_allclose|assert_array_equal|assert_equal|torch\.equal", source)
    if names and not compared:
        yield f"{', '.join(names)}: never compared with the package"
    if not names and number_of(notebook) != "00":
        yield "nothing is done by hand (a function named *_by_hand)"
