"""The runs of the whole less one part look at no test cell and are never made twice; the recorded ones can be read."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks import one_out
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.data.splits import named_split

SCREEN = simulate_screen(n_genes=96, n_targets=12, n_cells=1500, seed=3)
FOLDER = Path(one_out.__file__).parent


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """A small screen, and a folder of its own."""
    monkeypatch.setattr(one_out, "FOLDER", tmp_path / "one_out")
    monkeypatch.setattr(one_out.cdt, "simulate_screen", lambda n_genes: SCREEN)
    one_out.sides.cache_clear()


def test_every_run_lacks_one_thing_of_the_recipe():
    whole = asdict(one_out.RECIPES["nothing"])
    for part, config in one_out.RECIPES.items():
        other = asdict(config)
        changed = [name for name, value in whole.items() if other[name] != value]
        if part in ("nothing", "learned schedule"):  # the latter is learned at the end of training
            assert changed == []
        elif changed == ["finetune"]:
            fields = [name for name, value in whole["finetune"].items() if other["finetune"][name] != value]
            assert len(fields) == 1, part
        else:
            assert len(changed) == 1, part


def test_validation_cells_are_of_the_training_side_and_not_trained_on():
    training, validation = one_out.sides("simulated")
    allowed = set(SCREEN.obs_names[named_split(SCREEN) == "train"])
    assert set(training.obs_names) | set(validation.obs_names) <= allowed
    perturbed = validation.obs["sign"] != 0
    assert perturbed.any() and not set(validation.obs_names[perturbed]) & set(training.obs_names)
    assert len(set(validation.obs["batch"])) == 1
    assert len(set(validation.obs["target_gene"][perturbed])) <= 6


def test_without_signs_all_perturbed_cells_look_alike():
    cells = one_out.blind("sign", SCREEN)
    perturbed = (SCREEN.obs["sign"] != 0).to_numpy()
    assert set(SCREEN.obs["sign"][perturbed]) == {-1, 1} and set(cells.obs["sign"][perturbed]) == {-1}
    assert (cells.obs["sign"][~perturbed] == 0).all()
    assert one_out.blind("nothing", SCREEN).obs["sign"].equals(SCREEN.obs["sign"])


@pytest.mark.slow
@pytest.mark.parametrize("part", ["controls", "table of mean effects", "sign", "learned schedule"])
def test_a_run_is_trained_and_judged(part):
    training, validation = one_out.sides("simulated")
    told = one_out.blind(part, training)
    checkpoint = one_out.trained(part, told, seed=0, steps=2)
    empty = part == "table of mean effects"
    assert (len(checkpoint.model.effect.target) == 0) == empty
    schedule = "cosine" if part == "learned schedule" else "learned"
    assert checkpoint.process.config.sampling_schedule == schedule and sum(checkpoint.process.counts(96)) == 96
    scores = one_out.judge(part, checkpoint, told, validation, seed=0)
    assert set(scores) == {"bits_per_gene", "bits_all_hidden", "pearson_change", *one_out.METRICS}
    assert np.isfinite(list(scores.values())).all() and 0 < scores["bits_per_gene"] < 20


def test_a_run_whose_file_is_there_is_not_made_again(monkeypatch):
    made = []
    monkeypatch.setattr(one_out, "trained", lambda part, *rest: made.append(part))
    monkeypatch.setattr(one_out, "judge", lambda *rest: {"mae": 1.0})
    one_out.make(["simulated"], [0], steps=1)
    assert made == list(one_out.RECIPES)
    files = sorted(one_out.FOLDER.glob("*.json"))
    assert len(files) == len(made) and json.loads(files[0].read_text())["seed"] == 0
    files[3].unlink()
    one_out.make(["simulated"], [0], steps=1)
    assert made[len(files):] == [made[3]]


def test_the_runs_of_the_first_edition_are_there_with_what_each_changed():
    recorded = json.loads((FOLDER / "ladder.json").read_text(encoding="utf-8"))
    assert recorded["commit"] == "4c1e37f"
    for part, n_runs, n_switches in (("ladder", 90, 16), ("one_out", 60, 10)):
        runs = recorded[part]
        assert len(runs) == n_runs and {run["seed"] for run in runs} == {0, 1, 2}
        assert set(recorded[f"{part}_changes"]) == {run["switch"] for run in runs}
        table = one_out.averages(runs)
        assert len(table) == len({(run["screen"], run["switch"]) for run in runs})
        assert len(set(table.index.get_level_values("switch"))) == n_switches
        assert {"bits_per_gene", "pearson_change", "energy_distance"} <= set(table.columns.get_level_values(0))
    pretraining = json.loads((FOLDER / "pretraining.json").read_text(encoding="utf-8"))
    assert len(pretraining["runs"]) == 12 and pretraining["commit"] == "4c1e37f"
