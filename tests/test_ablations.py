"""The ablations go from v1 to the recipe, look at no test cell, and never make a run twice."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from benchmarks import ablations
from benchmarks.switches import LOST, tried
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.data.splits import named_split
from cdt_lite.model.cdt import CDT
from cdt_lite.model.config import PRESETS

SCREEN = simulate_screen(n_genes=120, n_targets=12, n_cells=1500, seed=3)


def test_the_ladder_starts_at_v1_and_ends_at_the_recipe():
    rungs = list(ablations.ladder(96).values())
    v1, first = PRESETS["v1"], rungs[0]
    assert (first.tokenizer, first.diffusion, first.gene_vectors) == (v1.tokenizer, v1.diffusion, v1.gene_vectors)
    sizes = ("dim", "n_head", "n_layer", "gene_embed_dim", "perturb_magnitude_dim", "control_set_encoder_layers",
             "control_set_dim_hidden", "control_set_n_head", "control_set_dim_out", "control_set_dropout", "n_genes")
    small = {name: getattr(first.model, name) for name in sizes}
    assert replace(v1.model, **small) == first.model
    last, end = rungs[-1], tried(96)
    assert (last.model, last.tokenizer, last.diffusion) == (end.model, end.tokenizer, end.diffusion)
    assert last.gene_vectors == end.gene_vectors and last.finetune == end.finetune


def test_what_was_tried_is_the_recipe_and_what_it_lost():
    """Each switch that was lost is one of the runs that take a switch out, and the recipe is what such a run has."""
    everything, recipe = tried(96), PRESETS["lite"]
    lost = {(part, name) for part, fields in LOST.items() for name in fields}
    for part in ("model", "finetune", "diffusion", "tokenizer"):
        for name, value in vars(getattr(recipe, part)).items():
            same = getattr(getattr(everything, part), name) == value
            assert same == ((part, name) not in lost) or name == "n_genes", (part, name)
    out = [replace(config, name="", model=replace(config.model, n_genes=recipe.model.n_genes))
           for config in ablations.without(96).values()]
    for part, name in lost:
        wanted = getattr(getattr(recipe, part), name)
        assert any(getattr(getattr(config, part), name) == wanted for config in out)


def test_no_rung_repeats_the_one_before():
    rungs = [replace(config, name="") for config in ablations.ladder(96).values()]
    assert all(a != b for a, b in pairwise(rungs))
    out = [replace(config, name="") for config in ablations.without(96).values()]
    assert out[0] == replace(tried(96), name="") and all(a != out[0] for a in out[1:])


def test_a_run_that_differs_in_the_sampler_alone_takes_the_model_before(monkeypatch):
    trained, kept = [], {}

    def train(config, *_):
        trained.append(config.name)
        return Trained(config), 1.0

    monkeypatch.setattr(ablations, "trained", train)
    monkeypatch.setattr(ablations, "judge", lambda checkpoint, *rest: checkpoint.config.diffusion.sampler)
    found = [ablations.one_run(c, SCREEN, SCREEN, 0, 5, "", kept)["metrics"] for c in ablations.without(96).values()]
    assert trained == [c.name for n, c in ablations.without(96).items() if n != "sampler"]
    assert found[:3] == ["fixed", "v1", "fixed"]


class Trained:
    """Stands in for a trained model: what a run asks of it beside its scores."""

    def __init__(self, config):
        self.config, self.vocabulary, self.model = config, [], CDT(replace(config.model, n_total_genes=100))


def test_validation_cells_are_of_the_training_side_and_not_trained_on():
    small = ablations.panel(SCREEN)
    assert small.n_vars == ablations.N_GENES
    assert {t for t in SCREEN.obs["target_gene"] if t in SCREEN.var_names} <= set(small.var_names)
    training, validation = ablations.validation_part(small)
    allowed = set(SCREEN.obs_names[named_split(SCREEN) == "train"])
    assert set(training.obs_names) | set(validation.obs_names) <= allowed
    perturbed = validation.obs["sign"] != 0
    assert perturbed.any() and not set(validation.obs_names[perturbed]) & set(training.obs_names)
    assert len(set(validation.obs["batch"])) == 1


@pytest.mark.parametrize("what, signs", [("sign", {-1}), ("magnitude", {-1, 1})])
def test_what_is_withheld_is_gone(what, signs):
    cells = ablations.withheld(SCREEN, what)
    perturbed = (SCREEN.obs["sign"] != 0).to_numpy()
    assert set(cells.obs["sign"][perturbed]) == signs and cells.obs["magnitude"][perturbed].isna().all()
    assert (cells.obs["sign"][~perturbed] == 0).all() and (cells.obs["magnitude"][~perturbed] == 0).all()


def test_a_run_whose_file_is_there_is_not_made_again(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(ablations, "FOLDER", tmp_path)
    monkeypatch.setattr(ablations, "load_screen", lambda name: SCREEN)
    scores = {"metrics": {"mae": 1.0}}
    monkeypatch.setattr(ablations, "one_run", lambda config, *rest: made.append(config.name) or scores)
    first = [path.name for path, _ in ablations.runs(["simulated"], [0], steps=1)]
    assert len(first) == len(made) == len(ablations.ladder(96)) + 2
    (tmp_path / first[3]).unlink()
    assert [path.name for path, _ in ablations.runs(["simulated"], [0], steps=1)] == [first[3]]
    assert json.loads((tmp_path / first[3]).read_text())["seed"] == 0
    assert len(ablations.table(tmp_path)) == len(first)
