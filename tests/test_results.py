"""The report of all tasks: who is in the table, what is refused, and what is written down."""

import json
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import opened, tiny
from scipy.sparse import csr_matrix

from cdt_lite.cli import main
from cdt_lite.data.batches import SetSampler
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.data.splits import named_split
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.report import results as r
from cdt_lite.report import tasks
from cdt_lite.training.effects import effect_table
from cdt_lite.training.predict import predict_mean
from cdt_lite.training.start import start
from cdt_lite.training.train import train

NAME = "simulated regulatory 12 targets"


@pytest.fixture(scope="module")
def screen():
    return simulate_screen(n_genes=32, n_targets=12, n_cells=900, seed=3, n_batches=2)


@pytest.fixture(scope="module")
def model(screen):
    """A tiny stand-in, a few steps old, that knows the split."""
    cells = screen[named_split(screen) == "train"].copy()
    checkpoint = start(tiny(n_genes=32, n_total_genes=120), cells)
    checkpoint.vocabulary = checkpoint.vocabulary.extended(sorted(set(screen.obs["target_gene"]) - {"non-targeting"}))
    store = TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary)
    for _ in train(checkpoint, SetSampler(store, checkpoint.config.finetune), steps=3):
        pass
    checkpoint.card["data"] = [store.digest()]
    opened(checkpoint.model)
    return checkpoint


@pytest.fixture(scope="module")
def report(screen, model):
    return tasks.report_tasks(screen, model, seeds=(0, 1), n_cells=24)


def test_every_method_stands_in_one_table_of_every_task(report, screen):
    assert list(report.tables) == ["task 1: seen perturbations, held-out replicate", "task 3: unseen perturbations"]
    side = named_split(screen)
    common = {"capsule", "capsule, change", "capsule, change, magnitude told", "control", "perturbed mean", "linear",
              "kNN", "table alone", "ceiling"}
    for table, tested in zip(report.tables.values(), ("held_out", "unseen"), strict=True):
        only_here = {"held_out": "replicate mean", "unseen": "capsule, change, as the average"}[tested]
        assert set(table["method"]) == common | {only_here}
        assert set(table["target"]) == set(screen.obs["target_gene"][side == tested])
        assert set(table["seed"]) == {0, 1}
        measured = table.groupby("target")["measured"].first()
        assert {t: t in screen.var_names for t in measured.index} == measured.to_dict()
    nulls = screen.uns["truth"]["perturbations"]
    known = {(t, s) for t, s, null in zip(nulls["target_gene"], nulls["sign"], nulls["null"], strict=True) if null}
    found = {(t, s) for table in report.tables.values() for t, s, null in
             zip(table["target"], table["sign"], table["null"], strict=True) if null}
    assert found and found <= known
    assert report.facts["checkpoints"][0]["split_verified"].startswith("hash of its training cells")
    assert report.facts["seeds_are"].startswith("sampling seeds of one trained model")


def test_the_table_is_told_nothing_of_the_controls_that_the_truth_subtracts(screen, model):
    train_cells = screen[named_split(screen) == "train"].copy()
    truth = tasks.control_halves(screen, seed=0)[0]
    marked, counts = train_cells.copy(), train_cells.X.toarray()
    counts[marked.obs_names.isin(truth.obs_names)] = 7  # whatever these cells hold
    marked.X = csr_matrix(counts)
    plain, other = (tasks.with_clean_table(model, cells, truth).model for cells in (train_cells, marked))
    torch.testing.assert_close(other.embed.effect.effect, plain.embed.effect.effect)
    torch.testing.assert_close(other.embed.effect.shares, plain.embed.effect.shares)
    clean = effect_table(TokenStore.from_adata(train_cells[~train_cells.obs_names.isin(truth.obs_names)].copy(),
                                               model.tokenizer, model.vocabulary), model.tokenizer)
    np.testing.assert_allclose(plain.embed.effect.effect, clean.effect, atol=1e-6)
    torch.testing.assert_close(plain.head.weight, model.model.head.weight)
    assert plain is not model.model


def test_several_checkpoints_are_training_seeds(screen, model):
    several = tasks.report_tasks(screen, [model, model], seeds=(5,), n_cells=12)
    assert several.facts["seeds_are"] == "training seeds"
    table = several.tables["task 3: unseen perturbations"].set_index(["method", "target", "sign"])
    one, two = (table[table["seed"] == i]["mae"] for i in (0, 1))
    pd.testing.assert_series_equal(one, two)  # the same weights and sampling seed twice


def test_a_change_is_perturbed_minus_control_in_the_same_draws(screen, model):
    controls = screen[(screen.obs["target_gene"] == "non-targeting").to_numpy()].copy()
    wanted = pd.Series({("SIM00002", -1, "rep_1"): 30, ("SIM00002", -1, "rep_2"): 10})
    found = tasks.mean_changes(model, controls, wanted, 16, seed=4)
    change = {}
    for batch in ("rep_1", "rep_2"):
        here = controls[(controls.obs["batch"] == batch).to_numpy()]
        change[batch] = (predict_mean(model, here, "SIM00002", -1, n_cells=16, seed=4)
                         - predict_mean(model, here, "non-targeting", 0, n_cells=16, seed=4))
    np.testing.assert_allclose(found.loc[("SIM00002", -1)], 0.75 * change["rep_1"] + 0.25 * change["rep_2"], atol=1e-6)
    unknown = pd.Series(np.nan, index=wanted.index)
    assert len(tasks.mean_changes(model, controls, wanted, 16, 4, unknown)) == 0  # nothing to tell, no row


def test_sampled_cells_are_spread_over_replicates_as_the_real_ones_are(screen, model):
    controls = screen[(screen.obs["target_gene"] == "non-targeting").to_numpy()].copy()
    wanted = pd.Series({("SIM00002", -1, "rep_1"): 30, ("SIM00002", -1, "rep_2"): 10})
    cells = tasks.sampled_cells(model, controls, wanted, 40, seed=0)
    assert cells.obs["batch"].value_counts().to_dict() == {"rep_1": 30, "rep_2": 10}
    assert cells.obs_names.is_unique and (cells.X.data % 1 == 0).all()


def test_a_test_perturbation_in_training_is_refused_by_name(screen, model):
    side = named_split(screen)
    leaked = str(screen.obs["target_gene"][side == "unseen"].iloc[0])
    cheat = replace(model, trained_targets=[*model.trained_targets, leaked])
    with pytest.raises(CDTError, match=rf"was trained on perturbations of \['{leaked}'\]"):
        tasks.report_tasks(screen, cheat)
    pairs = {f"{t} in {b}" for t, b in zip(screen.obs["target_gene"][side == "held_out"],
                                           screen.obs["batch"][side == "held_out"], strict=True)}
    with pytest.raises(CDTError, match=f"did not withhold .*{sorted(pairs)[0]}"):
        tasks.report_tasks(screen, replace(model, card={"held_out": sorted(pairs)[1:]}))
    assert tasks.check_split(replace(model, card={"held_out": sorted(pairs)}), screen, side).startswith("by the names")
    assert tasks.check_split(replace(model, card={}), screen, side).startswith("not: its card")


def test_the_file_holds_numbers_intervals_and_the_command(report, tmp_path):
    path = tmp_path / "figures" / "results.json"
    page = r.add_entry(r.to_entry(report, "cdt-lite evaluate --tasks", n_boot=50), path)
    entry = json.loads(path.read_text())[NAME]
    assert entry["command"] == "cdt-lite evaluate --tasks" and entry["seconds"] >= 0
    assert entry["versions"].keys() >= {"cdt_lite", "torch", "numpy"} and entry["split"]["unseen"]
    task = entry["tasks"]["task 1: seen perturbations, held-out replicate"]["groups"]["all"]
    table = report.tables["task 1: seen perturbations, held-out replicate"]
    mean, low, high, n = task["summary"]["control"]["mae"]
    assert mean == pytest.approx(table[table["method"] == "control"]["mae"].mean(), rel=1e-3) and low <= mean <= high
    assert n == task["n"] == table.groupby(["target", "sign"]).ngroups
    difference = task["capsule, change, minus"]["control"]["mae"][0]
    ours = table[table["method"] == "capsule, change"]["mae"].mean()
    assert difference == pytest.approx(ours - table[table["method"] == "control"]["mae"].mean(), rel=1e-2, abs=1e-4)
    assert task["summary"]["control"]["pearson_delta"][0] is None  # no change has no direction
    text = page.read_text()
    assert "sampling seeds of one trained model" in text and "(null)" in text and "negative binomial" in text
    assert not list(path.parent.glob(".*"))
    larger = {"name": "simulated", "options": {"world": "regulatory", "n_targets": "104"}}  # another screen, other key
    r.add_entry(dict(r.to_entry(report, "larger", n_boot=10), screen=larger), path)
    other = dict(r.to_entry(report, "again", n_boot=10), screen={"name": "another"}, note="Made on a train.")
    assert "\n\nMade on a train.\n" in r.add_entry(other, path).read_text(encoding="utf-8")
    names = {NAME, "simulated regulatory 104 targets", "another"}  # beside, not instead of
    assert set(json.loads(path.read_text())) == names
    path.write_text("not json")
    with pytest.raises(CDTError, match="is not a results file"):
        r.add_entry(other, path)
    assert path.read_text() == "not json"


def test_the_command_reports_and_says_what_was_typed(model, screen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.save("a")
    monkeypatch.setattr(r, "load_screen", lambda *a, **k: screen)
    assert main(["evaluate", "--tasks", "--screen", "screen.h5ad", "--checkpoint", "a", "--seeds", "1", "--cells", "12",
                 "--results", "out.json"]) == 0
    entry = json.loads((tmp_path / "out.json").read_text())[NAME]
    assert entry["command"] == ("cdt-lite evaluate --tasks --screen screen.h5ad --checkpoint a --seeds 1 --cells 12 "
                                "--results out.json")
    assert entry["checkpoints"][0]["sha256"] and (tmp_path / "out.md").is_file()


def test_why_numbers_are_missing_is_written_down(model, screen, tmp_path):
    side = named_split(screen)
    poor = str(screen.obs["target_gene"][side == "held_out"].iloc[0])
    spare = np.flatnonzero((side == "held_out") & (screen.obs["target_gene"] == poor).to_numpy())[5:]
    cut = screen[np.setdiff1d(np.arange(screen.n_obs), spare)].copy()
    short = tasks.report_tasks(cut, model, seeds=(0,), n_cells=12)
    title = "task 1: seen perturbations, held-out replicate"
    table = short.tables[title]
    assert table[table["target"] == poor]["energy_distance"].isna().all()
    assert not table[table["target"] != poor]["mae"].isna().any()  # the rest is reported
    assert any(note.startswith("fewer than") and f"'{poor}'" in note for note in short.notes[title])
    page = r.add_entry(r.to_entry(short, "again", n_boot=10), tmp_path / "results.json").read_text(encoding="utf-8")
    assert all(f"\nNote: {note}.\n" in page for notes in short.notes.values() for note in notes)


@pytest.mark.slow
@pytest.mark.parametrize("suite, module", [("cell-eval", "cell_eval"), ("cell-eval2", "cell_eval2")])
def test_the_fields_own_tools_stand_in_the_report(model, screen, tmp_path, monkeypatch, suite, module):
    pytest.importorskip(module, reason="extra [eval]")
    monkeypatch.chdir(tmp_path)
    model.save("a")
    monkeypatch.setattr(r, "load_screen", lambda *a, **k: screen)
    assert main(["evaluate", "--tasks", "--checkpoint", "a", "--seeds", "1", "--cells", "24", "--suite", suite,
                 "--results", "out.json"]) == 0
    entry = json.loads((tmp_path / "out.json").read_text())[NAME]
    assert list(entry["suites"]) == [suite] and f"--suite {suite}" in entry["command"]
    for title, methods in entry["suites"][suite]["tasks"].items():
        n = entry["tasks"][title]["groups"]["all"]["n"]
        assert list(methods) == ["capsule", "control cells", "training cells"]
        assert all(scores and all(0 < count <= n for _, count in scores.values()) for scores in methods.values())
    assert f"### {suite}" in (tmp_path / "out.md").read_text(encoding="utf-8")


def test_bad_options_are_refused(capsys, tmp_path):
    assert r.simulation(["n_targets=5", "world=linear"]) == {"n_targets": 5, "world": "linear"}
    for word, hint in (("n_target=5", "did you mean 'n_targets'"), ("n_targets=many", "OPTION=VALUE"),
                       ("world", "OPTION=VALUE")):
        with pytest.raises(CDTError, match=hint):
            r.simulation([word])
    assert main(["evaluate", "--screen", "simulated"]) == 2
    assert "name --predicted files" in capsys.readouterr().err
    (tmp_path / "x.h5ad").write_text("no cells")
    with pytest.raises(CDTError, match=r"x.h5ad cannot be read"):
        r.score_files(Namespace(predicted=[str(tmp_path / "x.h5ad")], simulated=[], screen="simulated"))
