"""The README's lines on how good the model is: what they say when the numbers say the opposite."""

import copy
import json
from pathlib import Path

import pytest

from cdt_lite.report.front import CELL_TYPE, PAIRS, REAL, SIMULATED, beside, how_good, number

ROOT = Path(__file__).parents[1]
RESULTS, DENSITIES = (json.loads((ROOT / name).read_text(encoding="utf-8"))
                      for name in ("figures/results.json", "benchmarks/densities.json"))


def planted(pearson, mae):
    """A task in which the model differs from its rival by these intervals."""
    values = {"pearson_delta": [0.5, *pearson], "mae": [0.02, *mae], "systema_pearson": [0.1, -1, 1],
              "discrimination_score_l1": [0.9, -1, 1]}
    rows = {name: {metric: [0.25, 0, 1, 7] for metric in values} for name in ("m, change", "linear")}
    return {"n": 7, "summary": rows, "m, change, minus": {"linear": values}}


@pytest.mark.parametrize(
    ("pearson", "mae", "said"),
    [
        ((0.1, 0.2), (-0.2, -0.1), "ahead of a linear model in Pearson's r (.25 against .25), mean absolute error"),
        ((-0.2, -0.1), (0.1, 0.2), "behind it in Pearson's r (.25 against .25), mean absolute error"),
        ((-0.1, 0.1), (-0.1, 0.1), "level with a linear model in Pearson's r (.25 against .25), mean absolute error"),
    ],
)
def test_who_is_ahead_hangs_on_the_interval_and_on_which_way_is_better(pearson, mae, said):
    text = beside(planted(pearson, mae), "m", "linear")
    assert said in text
    assert "Systema's r" in text.split("level with")[1]


def test_a_number_has_no_zero_before_its_point_and_no_sign_when_it_is_nothing():
    assert [number(0.04, 3), number(-0.25, 2), number(1.0, 2), number(-0.0001, 3)] == [".040", "−.25", "1.00", ".000"]


def test_the_lines_follow_the_records():
    lines = how_good(RESULTS, DENSITIES).splitlines()
    assert len(lines) == 5
    changed = copy.deepcopy(RESULTS)
    n_models = len(changed[REAL]["checkpoints"])
    assert n_models > 1 and f"real cells, {n_models} training seeds" in lines[0]
    del changed[REAL]["checkpoints"][1:]
    assert "real cells, one trained model" in how_good(changed, DENSITIES).splitlines()[0]
    changed = copy.deepcopy(RESULTS)
    changed[SIMULATED]["checkpoints"] = [{}]
    changed[PAIRS]["checkpoints"] = changed[CELL_TYPE]["checkpoints"] = [{}, {}]
    assert "(one trained model or 2 training seeds)" in how_good(changed, DENSITIES).splitlines()[3]
    changed = copy.deepcopy(RESULTS)
    (task,) = (task for title, task in changed[REAL]["tasks"].items() if title.startswith("task 1"))
    model = changed[REAL]["model"]
    task["groups"]["all"][f"{model}, change, minus"]["replicate mean"]["mae"][1:3] = [0.001, 0.002]
    assert "behind it in mean absolute error" in how_good(changed, DENSITIES).splitlines()[0]
    assert how_good(changed, DENSITIES).splitlines()[1:] == lines[1:]
