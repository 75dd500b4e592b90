"""Every exercise: right answers pass, each typical wrong one fails and is told its own misconception."""

import importlib.util
import inspect
import re
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from cdt_lite.teaching import catch_up, check
from cdt_lite.teaching.check import all_exercises, examine, passes, report
from cdt_lite.teaching.compare import compare
from cdt_lite.teaching.guard import own_chance

FOLDER = Path(__file__).parent / "exercises"
EXERCISES = {exercise.number: exercise for exercise in all_exercises()}


def variants(number):
    """The functions accepted_* and wrong_* of one exercise, by name."""
    path = FOLDER / f"ex_{number.replace('.', '_')}.py"
    spec = importlib.util.spec_from_file_location(f"variants_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: f for name, f in vars(module).items() if name.startswith(("accepted_", "wrong_")) and callable(f)}


FILES = sorted(path.stem[3:].replace("_", ".") for path in FOLDER.glob("ex_*.py"))
VARIANTS = {number: variants(number) for number in FILES if number in EXERCISES}
PAIRS = [(number, name) for number in VARIANTS for name in VARIANTS[number]]
NUMBERS = pytest.mark.parametrize("number", EXERCISES)


@pytest.fixture(autouse=True)
def own_progress(monkeypatch, tmp_path):
    """No test writes into a learner's record, and none is strict unless it says so."""
    monkeypatch.setenv("CDT_LITE_PROGRESS", str(tmp_path))
    monkeypatch.delenv("CDT_STRICT", raising=False)


def plain(text):
    return " ".join(text.split())


@pytest.mark.parametrize("notebook, least, most", [("0", 1, 2), *((str(n), 3, 7) for n in range(1, 10))])
def test_every_notebook_has_its_share_of_exercises(notebook, least, most):
    numbers = [number for number in EXERCISES if number.split(".")[0] == notebook]
    assert least <= len(numbers) <= most, numbers
    assert numbers == [f"{notebook}.{i}" for i in range(1, len(numbers) + 1)]


def test_there_are_at_least_thirty_four_from_warm_ups_to_one_of_twenty_minutes():
    assert len(EXERCISES) >= 34
    minutes = [exercise.minutes for exercise in EXERCISES.values()]
    assert len(all_exercises()) == len(EXERCISES), "no number stands twice"
    assert min(minutes) <= 5 and max(minutes) >= 20
    assert {exercise.difficulty for exercise in EXERCISES.values()} >= {1, 2, 3, 4}


def test_exercises_and_files_of_variants_belong_together():
    assert set(FILES) == set(EXERCISES)


@NUMBERS
def test_an_exercise_says_all_that_its_card_needs(number):
    exercise = EXERCISES[number]
    assert 1 <= exercise.difficulty <= 5 and 1 <= exercise.minutes <= 25
    assert all(len(text.split()) >= n for text, n in ((exercise.title, 2), (exercise.objective, 3),
                                                      (exercise.misconception, 4)))
    assert 2 <= len(exercise.hints) <= 3 and len(set(exercise.hints)) == len(exercise.hints)
    hints = [prop.hint for prop in exercise.properties]
    assert len(hints) >= 2 and len(set(hints)) == len(hints) and min(len(hint.split()) for hint in hints) >= 5
    claims = [prop.claim for prop in exercise.properties]
    assert len(set(claims)) == len(claims)
    assert inspect.getdoc(exercise.reference)
    unknown = [p for p in inspect.signature(exercise.reference).parameters.values() if p.annotation is p.empty]
    assert not unknown, "the stub's arguments carry their types and shapes"


@NUMBERS
def test_there_are_two_accepted_and_five_wrong_variants_or_more(number):
    names = VARIANTS.get(number, {})
    assert sum(name.startswith("accepted_") for name in names) >= 2
    assert sum(name.startswith("wrong_") for name in names) >= 5


@pytest.mark.parametrize("number, name", [pair for pair in PAIRS if pair[1].startswith("accepted_")])
def test_every_accepted_variant_passes(number, name, capsys):
    assert check(number, VARIANTS[number][name]), capsys.readouterr().out


@pytest.mark.parametrize("number, name", [pair for pair in PAIRS if pair[1].startswith("wrong_")])
def test_every_wrong_variant_fails_with_its_own_hint(number, name, capsys):
    wrong = VARIANTS[number][name]
    own = plain(wrong.__doc__ or "")
    assert len(own.split()) >= 3, "its docstring is the part of the hint that a learner must see"
    assert not check(number, wrong)
    printed = plain(capsys.readouterr().out)
    assert own in printed


@NUMBERS
def test_wrong_variants_are_told_apart(number):
    wrong = [f for name, f in VARIANTS.get(number, {}).items() if name.startswith("wrong_")]
    hints = {next(row.hint for row in examine(number, f) if not row.holds) for f in wrong}
    assert len(hints) >= 2, "all wrong variants lead to one and the same hint"


@NUMBERS
def test_the_reference_passes_within_two_seconds(number):
    examine(number, EXERCISES[number].reference)  # imports and first calls are not the check's time
    begin = time.process_time()
    rows = examine(number, EXERCISES[number].reference)
    assert passes(rows), report(EXERCISES[number], rows)
    assert time.process_time() - begin < 2


class Nothing:
    """A value that equals no answer."""


@NUMBERS
def test_no_property_holds_for_a_function_that_returns_nonsense(number):
    reference = EXERCISES[number].reference

    def nonsense(*given):
        return Nothing()

    nonsense.__signature__ = inspect.signature(reference)
    held = [row.claim for row in examine(number, nonsense) if row.holds]
    assert not held


@NUMBERS
def test_what_is_expected_does_not_depend_on_the_answer(number):
    """Else the learner would be compared with himself."""
    for prop in EXERCISES[number].properties:
        with own_chance():
            wanted, *_ = prop.run(EXERCISES[number].reference)
        for name, variant in VARIANTS.get(number, {}).items():
            with own_chance():
                try:
                    expected, *_ = prop.run(variant)
                except Exception:  # the wrong answer broke before it could be compared
                    continue
            assert compare(wanted, expected)[0], f"{prop.claim}: expected changes with {name}"


@NUMBERS
def test_an_untouched_stub_is_not_attempted_and_raises_nothing(number, capsys):
    def stub(*given):
        return ...

    stub.__signature__ = inspect.signature(EXERCISES[number].reference)
    assert check(number, stub) is False
    assert "not attempted yet" in capsys.readouterr().out
    assert catch_up(number, stub) is EXERCISES[number].reference


def test_no_hint_or_text_gives_a_machine_away_or_leaves_a_blank():
    for exercise in EXERCISES.values():
        texts = [exercise.title, exercise.objective, exercise.misconception, *exercise.hints,
                 *(text for prop in exercise.properties for text in (prop.claim, prop.hint))]
        for text in texts:
            assert text == text.strip() and not re.search(r"TODO|FIXME|/home/|/work/|\?\?", text), text


def test_trying_all_schedules_is_told_apart_from_an_endless_loop_of_later_cells(capsys):
    """It is right for small cases, and would hang the cell that asks for 300 genes."""

    def best_of_all(h, n_steps):
        def cost(cuts):
            counts = np.diff([0, *cuts, len(h)])
            return counts @ h[len(h) - (np.cumsum(counts) - counts) - 1]

        best = min(combinations(range(1, len(h)), n_steps - 1), key=cost)
        return np.diff([0, *best, len(h)])

    assert not check("3.4", best_of_all, seconds=2.0)
    printed = capsys.readouterr().out
    assert "NO   H(k) = k, 120 genes, 8 steps" in printed and printed.count("NO ") == 1
