"""The report of all tasks: who is in the table, what is refused, and what is written down."""

import copy
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import opened, tiny
from scipy.sparse import csr_matrix

from benchmarks.worlds import by_cell_type
from cdt_lite.data.batches import SetSampler
from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.data.splits import choose_split, named_split
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.report import results as r
from cdt_lite.report import tasks
from cdt_lite.report.page import markdown
from cdt_lite.training.capsule import CAPSULES
from cdt_lite.training.changes import mean_changes, sampled_cells, with_clean_table
from cdt_lite.training.effects import effect_table
from cdt_lite.training.predict import predict_mean
from cdt_lite.training.start import start
from cdt_lite.training.train import train

NAME = "simulated regulatory 12 targets"
KEYS = ["target_gene", "sign"]
SEEN, UNSEEN = "task 1: seen perturbations, held-out replicate", "task 3: unseen perturbations"


@pytest.fixture(scope="module")
def screen():
    return simulate_screen(n_genes=32, n_targets=12, n_cells=900, seed=3, design=ScreenDesign(n_batches=2))


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
def folder(model, tmp_path_factory):
    return model.save(tmp_path_factory.mktemp("models") / "a")


def written(screen, folders, tmp_path, **options):
    """Reports into a file of its own; returns the entry and the page."""
    path = tmp_path / "figures" / "results.json"
    page = r.write_report(screen, folders, tasks.ReportOptions(**options), path=path, command="typed", say=print)
    return json.loads(path.read_text())[NAME], page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report(screen, folder, tmp_path_factory):
    return written(screen, [folder], tmp_path_factory.mktemp("report"), seeds=2, n_cells=24)


@pytest.fixture(scope="module")
def answers(screen, model):
    """Every task with its table, and the sampled cells of every run."""
    options = tasks.ReportOptions(n_cells=24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return {t.title: (t, *tasks.score_task(t, [(model, 0), (model, 1)], options)) for t in tasks.tasks_of(screen)}


def test_every_method_stands_in_one_table_of_every_task(answers, screen):
    assert list(answers) == [SEEN, UNSEEN]
    side = named_split(screen)
    common = {"capsule", "capsule, change", "capsule, change, magnitude told", "control", "perturbed mean", "linear",
              "kNN", "table alone", "pathway neighbour", "ceiling"}
    nulls = screen.uns["truth"]["perturbations"]
    known = {(t, s) for t, s, null in zip(nulls["target_gene"], nulls["sign"], nulls["null"], strict=True) if null}
    marked = set()
    for (title, (_, table, _)), tested in zip(answers.items(), ("held_out", "unseen"), strict=True):
        only_here = {SEEN: {"replicate mean", "training cells"}, UNSEEN: set()}[title]
        assert set(table["method"]) == common | only_here
        assert set(table["target"]) == set(screen.obs["target_gene"][side == tested])
        assert set(table["seed"]) == {0, 1}
        measured = table.groupby("target")["measured"].first()
        assert {t: t in screen.var_names for t in measured.index} == measured.to_dict()
        marked |= set(table[table["null"]][["target", "sign"]].itertuples(index=False, name=None))
    assert marked and marked <= known


def test_on_real_cells_a_null_target_is_one_that_shows_no_changed_gene(answers):
    task, table, _ = answers[SEEN]
    real = task.real.copy()
    del real.uns["truth"]
    null = tasks._null(real, table)
    assert (null == (table.groupby(["target", "sign"])["n_changed"].transform("max") == 0)).all()


def test_the_table_is_told_nothing_of_the_controls_that_the_truth_subtracts(screen, model):
    train_cells = screen[named_split(screen) == "train"].copy()
    truth = tasks.control_halves(screen, seed=0)[0]
    marked, counts = train_cells.copy(), train_cells.X.toarray()
    counts[marked.obs_names.isin(truth.obs_names)] = 7  # whatever these cells hold
    marked.X = csr_matrix(counts)
    plain, other = (with_clean_table(model, cells, truth).model for cells in (train_cells, marked))
    torch.testing.assert_close(other.effect.effect, plain.effect.effect)
    torch.testing.assert_close(other.effect.shares, plain.effect.shares)
    clean = effect_table(TokenStore.from_adata(train_cells[~train_cells.obs_names.isin(truth.obs_names)].copy(),
                                               model.tokenizer, model.vocabulary), model.tokenizer)
    np.testing.assert_allclose(plain.effect.effect, clean.effect, atol=1e-6)
    torch.testing.assert_close(plain.head.weight, model.model.head.weight)
    assert plain is not model.model


def test_several_checkpoints_are_training_seeds(screen, folder, tmp_path):
    entry, _ = written(screen, [folder, folder], tmp_path, seeds=3, n_cells=12)
    assert entry["seeds_are"] == "training seeds" and entry["seeds"] == [0, 1]
    assert [about["name"] for about in entry["checkpoints"]] == ["a", "a"]


def test_models_of_other_recipes_are_no_seeds_of_one(screen, model, folder, tmp_path):
    longer = replace(model, step=model.step + 1).save(tmp_path / "longer")
    with pytest.raises(CDTError, match="these differ in configuration, stage or steps: report on them one by one"):
        written(screen, [folder, longer], tmp_path)


def test_a_change_is_perturbed_minus_control_in_the_same_draws(screen, model):
    controls = screen[(screen.obs["target_gene"] == "non-targeting").to_numpy()].copy()
    wanted = pd.Series({("SIM00002", -1, "rep_1"): 30, ("SIM00002", -1, "rep_2"): 10})
    found = mean_changes(model, controls, wanted, 16, seed=4)
    change = {}
    for batch in ("rep_1", "rep_2"):
        here = controls[(controls.obs["batch"] == batch).to_numpy()]
        change[batch] = (predict_mean(model, here, "SIM00002", -1, n_cells=16, seed=4)
                         - predict_mean(model, here, "non-targeting", 0, n_cells=16, seed=4))
    np.testing.assert_allclose(found.loc[("SIM00002", -1)], 0.75 * change["rep_1"] + 0.25 * change["rep_2"], atol=1e-6)
    unknown = pd.Series(np.nan, index=wanted.index)
    assert len(mean_changes(model, controls, wanted, 16, 4, unknown)) == 0  # nothing to tell, no row


def test_sampled_cells_are_spread_over_replicates_as_the_real_ones_are(screen, model):
    controls = screen[(screen.obs["target_gene"] == "non-targeting").to_numpy()].copy()
    wanted = pd.Series({("SIM00002", -1, "rep_1"): 30, ("SIM00002", -1, "rep_2"): 10})
    cells = sampled_cells(model, controls, wanted, 40, seed=0)
    assert cells.obs["batch"].value_counts().to_dict() == {"rep_1": 30, "rep_2": 10}
    assert cells.obs_names.is_unique and (cells.X.data % 1 == 0).all()


def test_other_methods_are_scored_on_the_perturbations_of_each_task(screen, model):
    task = next(tasks.tasks_of(screen))
    theirs = screen[named_split(screen) != "train"].copy()  # the truth, of the other task's perturbations, too
    options = tasks.ReportOptions(others={"oracle": theirs}, n_cells=12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        table, _ = tasks.score_task(task, [(model, 0)], options)
    asked = task.asked.obs[["target_gene", "sign"]].drop_duplicates()
    found = table[table["method"] == "oracle"]
    assert set(found[["target", "sign"]].itertuples(index=False, name=None)) == set(
        asked.itertuples(index=False, name=None))


def test_rivals_are_training_cells_of_the_kind_that_was_asked_for(screen):
    for task in tasks.tasks_of(screen):
        rivals = tasks.rival_cells(task, 40)
        assert list(rivals) == ["control cells", "training cells"]
        known = {}
        for row, target, sign in zip(task.train.X.toarray(), *(task.train.obs[key] for key in KEYS), strict=True):
            known.setdefault(row.tobytes(), set()).add((target, sign))
        for kind, cells in rivals.items():
            for (target, sign), rows in cells.obs.groupby(KEYS, observed=True).indices.items():
                found = set.union(*(known[row.tobytes()] for row in cells.X[rows].toarray()))
                assert len(rows) == 40
                if kind == "control cells":
                    assert ("non-targeting", 0) in found
                elif task.seen:
                    assert (target, sign) in found
                else:  # never seen: all others of its sign
                    assert len(found) > 1 and target not in {t for t, _ in found} and sign in {s for _, s in found}


def test_a_test_perturbation_in_training_is_refused_by_name(screen, model):
    side = named_split(screen)
    leaked = str(screen.obs["target_gene"][side == "unseen"].iloc[0])
    cheat = replace(model, trained_targets=[*model.trained_targets, leaked])
    with pytest.raises(CDTError, match=rf"was trained on perturbations of \['{leaked}'\]"):
        tasks.check_split(cheat, screen)
    pairs = {f"{t} in {b}" for t, b in zip(screen.obs["target_gene"][side == "held_out"],
                                           screen.obs["batch"][side == "held_out"], strict=True)}
    with pytest.raises(CDTError, match=f"did not withhold .*{sorted(pairs)[0]}"):
        tasks.check_split(replace(model, card={"held_out": sorted(pairs)[1:]}), screen)
    assert tasks.check_split(model, screen).startswith("hash of its training cells")
    assert tasks.check_split(replace(model, card={"held_out": sorted(pairs)}), screen).startswith("by the names")
    assert tasks.check_split(replace(model, card={}), screen).startswith("not: its card")


def test_a_report_refuses_such_a_model_before_it_scores_anything(screen, model, tmp_path):
    leaked = str(screen.obs["target_gene"][named_split(screen) == "unseen"].iloc[0])
    cheat = replace(model, trained_targets=[leaked]).save(tmp_path / "cheat")
    with pytest.raises(CDTError, match="withheld as unseen"):
        written(screen, [cheat], tmp_path)


def test_the_file_holds_numbers_intervals_and_the_command(report, answers):
    entry, page = report
    assert entry["command"] == "typed" and entry["seconds"] >= 0 and entry["cells_per_perturbation"] == 24
    assert entry["versions"].keys() >= {"cdt_lite", "torch", "numpy"} and entry["split"]["name"]
    assert entry["seeds_are"].startswith("sampling seeds of one trained model") and entry["seeds"] == [0, 1]
    about = entry["checkpoints"][0]
    assert about["name"] == "a" and len(about["sha256"]) == 64 and about["split_verified"].startswith("hash")
    averages, table = entry["tasks"][SEEN]["groups"]["all"], answers[SEEN][1]
    mean, low, high, n = averages["summary"]["control"]["mae"]
    assert mean == pytest.approx(table[table["method"] == "control"]["mae"].mean(), rel=1e-3) and low <= mean <= high
    assert n == averages["n"] == table.groupby(["target", "sign"]).ngroups
    difference = averages["a, change, minus"]["control"]["mae"][0]
    ours = table[table["method"] == "capsule, change"]["mae"].mean()
    assert difference == pytest.approx(ours - table[table["method"] == "control"]["mae"].mean(), rel=1e-2, abs=1e-4)
    assert averages["summary"]["control"]["pearson_delta"][0] is None  # no change has no direction
    assert entry["model"] == "a" and "capsule" not in page  # a model is called by its folder
    assert "| a, change " in page and "| Pearson of change: a, change " in page and entry["left_out"] == []
    assert list(entry["tasks"][SEEN]["groups"]) == ["all"]
    assert set(entry["tasks"][UNSEEN]["groups"]) > {"all"}
    assert "sampling seeds of one trained model" in page and "(null)" in page and "negative binomial" in page


def own_gene_columns(page):
    """Perturbation -> its own gene's real and predicted change, as the page shows them."""
    found = {}
    for block in page.split("\n\n"):
        if block.startswith("| perturbation"):
            head, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()]
            for line in lines:
                shown = dict(zip(head, line, strict=True))
                found[line[0]] = [shown.get("own gene: real"), shown.get("own gene: a, change")]
    return found


def test_the_own_gene_stands_on_the_page_where_it_is_measured(report):
    entry, page = report
    shown = own_gene_columns(page)
    for task in entry["tasks"].values():
        for row in task["perturbations"]:
            if row["method"] == "a, change" and row["measured"]:
                name = f"{row['target']} {row['sign']:+d}"
                assert shown[name] == [f"{row['own_real']:.3f}", f"{row['own_predicted']:.3f}"]
    changed = copy.deepcopy(entry)
    rows = changed["tasks"][UNSEEN]["perturbations"]
    lost = f"{rows[0]['target']} {rows[0]['sign']:+d}"
    for row in rows:
        if f"{row['target']} {row['sign']:+d}" == lost:
            row |= {"own_real": None, "own_predicted": None, "measured": False}
    assert own_gene_columns(markdown({"x": changed}))[f"{lost}, not measured"] == ["", ""]
    for task in changed["tasks"].values():  # as in results of before
        for row in task["perturbations"]:
            del row["own_real"], row["own_predicted"]
    assert "own gene" not in markdown({"x": changed}) and "| changed genes" in markdown({"x": changed})


def test_models_are_called_by_their_folders(tmp_path):
    assert r.model_name([CAPSULES / "lite-simulated"]) == "capsule"
    assert r.model_name([tmp_path / "mine"]) == "mine"
    assert r.model_name([CAPSULES / "lite-simulated", tmp_path / "m1"]) == "capsule"  # other seeds of its recipe
    assert r.model_name([tmp_path / "m0", tmp_path / "m1"]) == "m0"
    assert r.model_name([tmp_path / "linear"]) == "linear (model)"
    assert r.model_name([tmp_path / "mine"], {"mine"}) == "mine (model)"


def test_one_replicate_is_reported_on_random_cells_and_that_is_said(screen, tmp_path, capsys):
    one = screen[(screen.obs["batch"] == "rep_1").to_numpy()].copy()
    side = named_split(one)
    cells = one[side == "train"].copy()
    checkpoint = start(tiny(n_genes=32, n_total_genes=120), cells)
    checkpoint.vocabulary = checkpoint.vocabulary.extended(sorted(set(one.obs["target_gene"]) - {"non-targeting"}))
    store = TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary)
    for _ in train(checkpoint, SetSampler(store, checkpoint.config.finetune), steps=1):
        pass
    checkpoint.card["data"] = [store.digest()]
    entry, page = written(one, [checkpoint.save(tmp_path / "one")], tmp_path, seeds=1, n_cells=12)
    assert list(entry["tasks"]) == [tasks.RANDOM, UNSEEN]
    rows = pd.DataFrame(entry["tasks"][tasks.RANDOM]["perturbations"])
    tested = one.obs["target_gene"][side == "held_out"].astype(str)
    assert set(rows["target"]) == set(tested) and set(tested) <= set(cells.obs["target_gene"])
    n = rows[rows["method"] == "control"].groupby("target")["n_real"].sum()
    assert n.to_dict() == tested.value_counts().to_dict()
    assert "random cells of seen ones are held out instead" in entry["left_out"][0]
    assert f"left out: {entry['left_out'][0]}" in capsys.readouterr().out
    assert f"Left out: {entry['left_out'][0]}." in page and "Random cells of seen perturbations" in page


def test_what_a_split_does_not_withhold_is_said_to_be_left_out(screen):
    target, other = sorted(set(screen.obs["target_gene"].astype(str)) - {"non-targeting"})[:2]
    unseen = tasks.left_out(list(tasks.tasks_of(choose_split(screen, [target]))))
    assert len(unseen) == 1 and unseen[0].startswith("tasks 1 and 4")
    seen = tasks.left_out(list(tasks.tasks_of(choose_split(screen, [], [(other, "rep_2")]))))
    assert len(seen) == 1 and seen[0].startswith("unseen perturbations")
    with pytest.raises(CDTError, match="nothing to report on"):
        tasks.left_out([])


def test_other_methods_are_checked_before_anything_is_sampled(screen, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "sampled_cells", None)
    theirs = screen[named_split(screen) == "unseen", :30].copy()
    with pytest.raises(CDTError, match="prediction 'theirs' does not measure the genes of the real screen: 2 missing"):
        written(screen, [folder], tmp_path, others={"theirs": theirs})


def test_entries_stand_beside_each_other_and_a_foreign_file_is_left_alone(report, tmp_path):
    entry, _ = report
    path = tmp_path / "figures" / "results.json"
    r.add_entry(entry, path)
    larger = {"name": "simulated", "options": {"world": "regulatory", "n_targets": "104"}}  # another screen, other key
    r.add_entry(entry | {"screen": larger}, path)
    other = entry | {"screen": {"name": "another"}, "note": "Made on a train."}
    assert "\n\nMade on a train.\n" in r.add_entry(other, path).read_text(encoding="utf-8")
    assert set(json.loads(path.read_text())) == {NAME, "simulated regulatory 104 targets", "another"}
    assert not list(path.parent.glob(".*"))
    path.write_text("not json")
    with pytest.raises(CDTError, match="is not a results file"):
        r.add_entry(other, path)
    assert path.read_text() == "not json"


def test_the_page_is_made_of_tables_with_one_width(report):
    _, page = report
    for block in page.split("\n\n"):
        lines = block.splitlines()
        if block.startswith("|"):
            assert len({line.count("|") for line in lines}) == 1 and set(lines[1]) <= set("|:-")
    assert page.count("### Task 1") == 1 and page.count("### Task 4") == 1 and page.startswith("# Results\n")


def test_the_committed_page_is_what_the_committed_file_says():
    folder = Path(__file__).parents[1] / "figures"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (folder / "results.md").read_text(encoding="utf-8") == markdown(results)


def test_why_numbers_are_missing_is_written_down(folder, screen, tmp_path):
    side = named_split(screen)
    poor = str(screen.obs["target_gene"][side == "held_out"].iloc[0])
    spare = np.flatnonzero((side == "held_out") & (screen.obs["target_gene"] == poor).to_numpy())[5:]
    cut = screen[np.setdiff1d(np.arange(screen.n_obs), spare)].copy()
    entry, page = written(cut, [folder], tmp_path, seeds=1, n_cells=12)
    rows = pd.DataFrame(entry["tasks"][SEEN]["perturbations"])
    assert rows[rows["target"] == poor]["energy_distance"].isna().all()
    assert not rows[rows["target"] != poor]["mae"].isna().any()  # the rest is reported
    notes = [note for task in entry["tasks"].values() for note in task["notes"]]
    assert any(note.startswith("fewer than") and f"'{poor}'" in note for note in notes)
    assert all(f"\nNote: {note}.\n" in page for note in notes)


def test_predicted_cells_are_scored_on_one_side_of_the_split(screen):
    side = named_split(screen)
    unseen = screen[side == "unseen"].copy()
    table = r.score(screen, {"oracle": unseen}, side="unseen")
    assert {"oracle", "perturbed mean", "linear", "ceiling"} <= set(table["method"])
    assert set(table["target"]) == set(unseen.obs["target_gene"])
    assert (table[table["method"] == "oracle"]["mae"] < 1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize("suite, module", [("cell-eval", "cell_eval"), ("cell-eval2", "cell_eval2")])
def test_the_fields_own_tools_stand_in_the_report(folder, screen, tmp_path, suite, module):
    pytest.importorskip(module, reason="extra [eval]")
    entry, page = written(screen, [folder], tmp_path, seeds=1, n_cells=24, suites=[suite])
    assert list(entry["suites"]) == [suite]
    for title, methods in entry["suites"][suite]["tasks"].items():
        n = entry["tasks"][title]["groups"]["all"]["n"]
        assert list(methods) == ["a", "control cells", "training cells"]
        assert all(scores and all(0 < count <= n for _, count in scores.values()) for scores in methods.values())
    assert f"### {suite}" in page


def test_the_truth_is_told_with_and_without_the_cells_of_duds(screen, folder, tmp_path, monkeypatch):
    """Half of a held-out target's cells are made controls by a guide that does nothing: without it, more is changed."""
    mixed = screen.copy()
    counts = mixed.X.toarray()
    side, rng = named_split(mixed), np.random.default_rng(0)
    target = mixed.obs["target_gene"][side == "held_out"].iloc[0]
    own = np.flatnonzero((mixed.obs["target_gene"] == target).to_numpy())
    spoilt = own[::2]
    is_control = (mixed.obs["target_gene"] == "non-targeting").to_numpy()
    counts[spoilt] = counts[rng.choice(np.flatnonzero(is_control), len(spoilt))]
    mixed.X = csr_matrix(counts)
    mixed.obs["guide"] = mixed.obs["target_gene"].astype(str) + " a"
    mixed.obs.iloc[spoilt, mixed.obs.columns.get_loc("guide")] = f"{target} b"
    sign = mixed.obs["sign"].iloc[own[0]]
    duds = pd.DataFrame({"target": target, "sign": sign, "guide": [f"{target} a", f"{target} b"], "told": True,
                         "dud": [False, True], "strength": 0.5, "low": 0.4, "high": 0.6, "cells": 9})
    monkeypatch.setattr(r, "guide_effects", lambda _: duds)
    monkeypatch.setattr(r, "check_split", lambda *_: "as told")
    task = next(t for t in tasks.tasks_of(mixed) if t.seen)
    spared = tasks.without_guides(task, duds[1:])
    assert tasks.without_guides(task, duds[1:].assign(target="of another target, with the same name")) is None
    for name in ("train", "asked", "real"):
        before, after = getattr(task, name), getattr(spared, name)
        assert set(before.obs_names) - set(after.obs_names) == set(mixed.obs_names[spoilt]) & set(before.obs_names)
    entry, page = written(mixed, [folder], tmp_path, seeds=1, n_cells=16)
    without = entry["tasks"][SEEN]["without duds"]
    assert without["duds"] == [f"{target} b"] and f"without the cells of duds ({target} b)" in page
    asked = task.asked.obs.groupby(KEYS, observed=True).ngroups
    change = entry["tasks"][SEEN]["groups"]["all"]["summary"]
    assert without["summary"]["control"]["mae"][3] == change["control"]["mae"][3] == asked
    assert set(without["summary"]) >= {"control", "replicate mean", "a, change", "table alone"}
    assert without["summary"]["control"]["mae"] != change["control"]["mae"]


def test_a_context_of_which_training_has_controls_alone_is_a_task_of_its_own(screen):
    by_type = by_cell_type(screen)
    (task,) = tasks.tasks_of(by_type)
    assert task.title == tasks.CONTEXT and task.seen
    unseen = set(task.asked.obs["batch"])
    assert len(unseen) == 1 and unseen < set(by_type.obs["cell_type"].astype(str))
    here = task.train.obs[task.train.obs["batch"].isin(unseen)]
    assert len(here) and set(here["target_gene"]) == {"non-targeting"}
    assert {"unseen perturbations"} <= {reason.split(":")[0] for reason in tasks.left_out([task])}


def test_training_seeds_of_one_peer_are_one_method_and_take_turns(screen, model):
    task = next(t for t in tasks.tasks_of(screen) if t.seen)
    groups = task.train.obs.groupby(KEYS, observed=True).indices
    wanted = set(task.asked.obs[KEYS].itertuples(index=False, name=None))
    rows = np.concatenate([found for key, found in groups.items() if key in wanted])
    half = [task.train[rows[i::2]].copy() for i in (0, 1)]
    for cells in half:
        cells.obs_names = [f"x{i}" for i in range(cells.n_obs)]
        cells.obs["batch"] = task.asked.obs["batch"].iloc[0]
    options = tasks.ReportOptions(n_cells=16, others={f"peer-seed{i}": half[i] for i in (0, 1)} | {"alone": half[0]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        table, _ = tasks.score_task(task, [(model, 0), (model, 0)], options)
    mae = table.pivot_table(index="seed", columns="method", values="mae")
    assert mae.loc[0, "peer"] == mae.loc[0, "alone"] == mae.loc[1, "alone"] != mae.loc[1, "peer"]
