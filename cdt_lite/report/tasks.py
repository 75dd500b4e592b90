"""The report on a screen's named split: every method in one table, on every task of the series.

Task 1: seen perturbations in a replicate that was held out. Task 2, or 3 on a simulated screen: perturbations that were
never seen, those whose gene the panel measures apart. Task 4: whether generated cells look real (`quality`). The rivals
of a discrimination score are all perturbations of the test side, of whose cells no training has seen any.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from cdt_lite.data.layout import CONTROL
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.evaluation.cells import Changes
from cdt_lite.evaluation.evaluate import control_halves, evaluate
from cdt_lite.evaluation.metrics import METRICS
from cdt_lite.evaluation.suites import suite_scores
from cdt_lite.evaluation.summary import compare, summarise
from cdt_lite.report.quality import bits_per_gene, independent_cells, likeness
from cdt_lite.training.changes import mean_changes, sampled_cells, table_changes, wanted_cells, with_clean_table
from cdt_lite.training.checkpoint import Checkpoint

CELLS = "capsule"
CHANGE = "capsule, change"
TOLD = "capsule, change, magnitude told"
AVERAGE = "capsule, change, as the average"  # an unseen target of the panel, without what its co-expression suggests
TABLE = "table alone"  # what the network is told of mean effects, before it says anything itself
SCORES = [*METRICS, "pearson_delta_shared"]
N_BOOT = 2000  # redraws of perturbations and of seeds, the same for every method


@dataclass(frozen=True)
class ReportOptions:
    """What a report is made of, beside the screen and the models."""

    others: Mapping[str, AnnData] = field(default_factory=dict)  # predicted cells of other methods, by name
    suites: Sequence[str] = ()  # the field's own tools to score with, too: "cell-eval", "cell-eval2"
    seeds: int = 3  # sampling seeds, each with its own split of the controls; of several models each gets one
    n_cells: int = 256  # sampled of every perturbation and seed; the one-step rows ("change") have no sampling noise


def report_tasks(
    screen: AnnData, side: np.ndarray, models: list[Checkpoint], options: ReportOptions, say: Callable[[str], None]
) -> dict[str, Any]:
    """Reports tasks 1 to 4 for trained models, as plain data.

    Args:
        screen: Raw counts, in the layout of `load_screen`.
        side: From `named_split`.
        models: Trained on its training side; several: training seeds of one recipe.
        options: Seeds, cells, and who else is in the table.
        say: Is told what is going on.
    """
    runs = [(models[0], seed) for seed in range(options.seeds)]
    if len(models) > 1:
        runs = [(model, seed) for seed, model in enumerate(models)]
    found: dict[str, Any] = {"tasks": {}, "quality": {}, "suites": {}}
    for suite in options.suites:
        found["suites"][suite] = {"version": version(suite), "tasks": {}}
    number = 3 if "truth" in screen.uns else 2
    train = screen[side == "train"].copy()
    for tested, title in (
        ("held_out", "task 1: seen perturbations, held-out replicate"),
        ("unseen", f"task {number}: unseen perturbations"),
    ):
        if not (side == tested).any():
            continue
        say(f"{title}: {len(runs)} runs")
        asked = screen[side == tested].copy()
        real = _test_cells(screen, side, tested)
        with warnings.catch_warnings():  # the notes are kept; a measured magnitude may point against its sign
            warnings.simplefilter("ignore", UserWarning)
            table, cells = score_runs(train, asked, real, runs, options)
        table = table.assign(measured=table["target"].isin(screen.var_names), null=_null(screen, table))
        found["tasks"][title] = _averaged(table, tested == "unseen")
        if tested == "held_out":
            found["quality"] = _quality(*runs[0], train, asked, cells)
        for suite, scores in found["suites"].items():
            handed_in = {CELLS: cells, **rival_cells(train, asked, options.n_cells)}
            scores["tasks"][title] = _suite_means(suite, real, handed_in)
    return found


def score_runs(
    train: AnnData, asked: AnnData, real: AnnData, runs: list[tuple[Checkpoint, int]], options: ReportOptions
) -> tuple[pd.DataFrame, AnnData]:
    """Scores every method in every run.

    Args:
        train: Training cells.
        asked: Cells of the tested perturbations, in the tested replicates.
        real: All test cells of these replicates, and their controls.
        runs: Models and sampling seeds.
        options: Cells to sample, and other methods.

    Returns:
        The table of `evaluate` with a column "seed" (the run), its notes in `attrs`; the first run's sampled cells.
    """
    wanted = wanted_cells(asked)
    tables, notes, sampled = [], {}, []
    for i, (model, seed) in enumerate(runs):
        truth, controls = control_halves(real, seed=seed)
        told = with_clean_table(model, train, truth)
        cells = sampled_cells(told, controls.copy(), wanted, options.n_cells, seed)
        predicted = {CELLS: cells, **_changes(told, asked, controls.copy(), options.n_cells, seed)}
        for name, other in options.others.items():
            here = np.isin(_names(other), _names(asked))
            if here.any():
                predicted[name] = other[here]
        scored = evaluate(real, predicted, train=train, target_depth=model.tokenizer.target_depth, seed=seed)
        notes |= dict.fromkeys(scored.attrs["notes"])
        tables.append(scored.assign(seed=i))
        sampled.append(cells)
    table = pd.concat(tables, ignore_index=True)
    table.attrs = {"notes": list(notes)}
    return table, sampled[0]


def _changes(model: Checkpoint, asked: AnnData, controls: AnnData, n_cells: int, seed: int) -> dict[str, Changes]:
    """The model's mean changes, without sampling noise: as it is, and told more or less than that."""
    wanted = wanted_cells(asked)
    n = max(16, n_cells // 2)  # of each replicate: the same draws stand in both means, so few are enough
    magnitudes = asked.obs.groupby(["target_gene", "sign", "batch"], observed=True)["magnitude"].first()
    tables = {
        CHANGE: mean_changes(model, controls, wanted, n, seed),
        TOLD: mean_changes(model, controls, wanted, n, seed, magnitudes),
        AVERAGE: mean_changes(model, controls, wanted, n, seed, unseen="average"),
        TABLE: table_changes(model, wanted),
    }
    return {name: Changes(table) for name, table in tables.items() if len(table)}


def _names(cells: AnnData) -> np.ndarray:
    """What to call the perturbation of every cell."""
    return (cells.obs["target_gene"].astype(str) + cells.obs["sign"].astype(int).map(" {:+d}".format)).to_numpy(str)


def _test_cells(screen: AnnData, side: np.ndarray, tested: str) -> AnnData:
    """The test side in the replicates of the tested cells, and their controls."""
    here = screen.obs["batch"].isin(set(screen.obs["batch"][side == tested])).to_numpy()
    is_control = (screen.obs["target_gene"] == CONTROL).to_numpy()
    return screen[here & ((side != "train") | is_control)].copy()


def _null(screen: AnnData, table: pd.DataFrame) -> np.ndarray:
    """Marks targets whose perturbation changes nothing: planted ones, or those of which the real cells show no gene."""
    if "truth" not in screen.uns:
        return (table.groupby(["target", "sign"])["n_changed"].transform("max") < 1).to_numpy()
    planted = pd.DataFrame(screen.uns["truth"]["perturbations"]).set_index(["target_gene", "sign"])["null"]
    return table.set_index(["target", "sign"]).index.map(planted).to_numpy(bool)


def _averaged(table: pd.DataFrame, unseen: bool) -> dict[str, Any]:
    """Averages and differences with intervals, of all and of groups of perturbations, and a row per perturbation."""
    groups = {"all": table}
    if unseen:
        for name, rows in table.groupby(table["measured"].map({True: "measured in the panel", False: "not measured"})):
            groups[str(name)] = rows
    averages = {}
    for name, rows in groups.items():
        rivals = [m for m in rows["method"].unique() if m != "ceiling" and not m.startswith(CELLS)]
        summary = summarise(rows, against=None, metrics=SCORES, n_boot=N_BOOT)
        averages[name] = {"n": rows.groupby(["target", "sign"]).ngroups, "summary": _nested(summary, "mean")}
        for ours in (CHANGE, CELLS):
            gaps = compare(rows, ours, rivals, SCORES, n_boot=N_BOOT)
            averages[name][f"{ours}, minus"] = _nested(gaps, "difference")
    columns = ["n_real", "n_changed", "measured", "null", *SCORES]
    rows = table.groupby(["target", "sign", "method"], sort=False)[columns].mean().reset_index()
    rows = rows.astype({"measured": bool, "null": bool})
    return {"groups": averages, "notes": table.attrs["notes"], "perturbations": rows.to_dict("records")}


def _nested(rows: pd.DataFrame, value: str) -> dict[str, dict[str, list[Any]]]:
    """Rows as {method: {metric: [value, low, high, n]}}."""
    nested: dict[str, dict[str, list[Any]]] = {}
    for row in rows.to_dict("records"):
        nested.setdefault(row["method"], {})[row["metric"]] = [row[value], row["low"], row["high"], row["n"]]
    return nested


def _quality(model: Checkpoint, seed: int, train: AnnData, asked: AnnData, cells: AnnData) -> dict[str, Any]:
    bits, curve = bits_per_gene(model, train, asked, seed)
    generated = {CELLS: cells, "negative binomial, condition": independent_cells(model, train, asked, seed)}
    found = likeness(asked, generated, model.tokenizer.target_depth, seed)
    return {"bits": bits, "curve": curve, "likeness": found}


def rival_cells(train: AnnData, asked: AnnData, n_cells: int) -> dict[str, AnnData]:
    """Hands in real training cells as predictions, for tools that score cells: what a sampler has to beat.

    Controls, and cells of the same perturbation in training or, where it was never seen, of all others of its sign.
    """
    rng = np.random.default_rng(0)
    name, sign = _names(train), train.obs["sign"].to_numpy(int)
    wanted = asked.obs[["target_gene", "sign"]].assign(name=_names(asked)).drop_duplicates()
    rows: dict[str, list[np.ndarray]] = {"control cells": [], "training cells": []}
    for one, its_sign in zip(wanted["name"], wanted["sign"], strict=True):
        own = name == one if one in name else sign == its_sign
        for kind, pool in (("control cells", sign == 0), ("training cells", own)):
            rows[kind].append(rng.choice(np.flatnonzero(pool), n_cells, replace=pool.sum() < n_cells))
    obs = wanted.loc[wanted.index.repeat(n_cells)].reset_index(drop=True).rename(index=str)
    handed_in = {}
    for kind, chosen in rows.items():
        handed_in[kind] = AnnData(train.X[np.concatenate(chosen)], obs=obs.copy(), var=train.var[[]])
    return handed_in


def _suite_means(suite: str, real: AnnData, cells: dict[str, AnnData]) -> dict[str, dict[str, list[Any]]]:
    """A tool's scores of each method's cells, as it names them: mean over targets, and how many targets have one."""
    table = suite_scores(suite, real, cells).drop(columns="target").set_index("method")
    means = {}
    for method, rows in table.apply(pd.to_numeric, errors="coerce").groupby(level=0, sort=False):
        means[str(method)] = rows.dropna(axis=1, how="all").agg(["mean", "count"]).to_dict("list")
    return means


def check_split(checkpoint: Checkpoint, screen: AnnData, side: np.ndarray) -> str:
    """Refuses a model that was trained on what it will be tested on; returns how far that could be verified.

    Raises:
        CDTError: A test perturbation, or a held-out replicate of one, was in its training; the message names it.
    """
    obs = screen.obs[side == "held_out"].astype(str)
    tested = set(obs["target_gene"] + " in " + obs["batch"])
    withheld = checkpoint.card.get("held_out")
    if leaked := sorted(set(screen.obs["target_gene"][side == "unseen"]) & set(checkpoint.trained_targets)):
        raise CDTError(f"the checkpoint was trained on perturbations of {leaked}, withheld as unseen in this split; "
                       "evaluate a model trained on the training side of named_split(screen)")
    if withheld is not None and (leaked := sorted(tested - set(withheld))):
        raise CDTError(f"the checkpoint did not withhold {leaked}, which this split tests as held-out replicates")
    store = TokenStore.from_adata(screen[side == "train"], checkpoint.tokenizer, checkpoint.vocabulary)
    if store.digest() in checkpoint.card.get("data", []):
        return "hash of its training cells is that of this split"
    return "not: its card names no training cells" if withheld is None else "by the names on its card only"
