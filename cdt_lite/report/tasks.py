"""The tasks of a report, each on one side of a screen's named split, with every method in one table.

The rivals of a discrimination score are all perturbations of the test side, of whose cells no training has seen any.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData, concat
from jaxtyping import Bool

from cdt_lite.data.expression import dense
from cdt_lite.data.layout import CONTROL, read_labels
from cdt_lite.data.splits import named_split
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError, require_whole
from cdt_lite.evaluation.baselines import BASELINES
from cdt_lite.evaluation.cells import Changes
from cdt_lite.evaluation.evaluate import CEILING, control_halves, evaluate
from cdt_lite.evaluation.metrics import METRICS
from cdt_lite.evaluation.suites import suite_scores
from cdt_lite.training.changes import mean_changes, sampled_cells, table_changes, wanted_cells, with_clean_table
from cdt_lite.training.checkpoint import Checkpoint

CONDITION = ["target_gene", "sign"]
SHIPPED = "capsule"  # what a model that ships with the package is called
CHANGE = "{}, change"
TOLD = "{}, change, magnitude told"
TRAINING_CELLS = "training cells"  # real ones of the same perturbation, handed in as a prediction
PREDICTED = "predicted"  # what uns["cdt_lite"]["controls"] says of a file whose control cells are a method's own
RANDOM = "task 1: seen perturbations, random cells held out"
CONTEXT = "task 5: seen perturbations, an unseen context"  # known by its control cells alone
Runs = list[tuple[Checkpoint, int]]  # a model and a sampling seed


@dataclass(frozen=True)
class ReportOptions:
    """What a report is made of, beside the screen and the models."""

    name: str = SHIPPED  # of the model, in every table
    others: Mapping[str, AnnData] = field(default_factory=dict)  # predicted cells of others, by name (`by_method`)
    suites: Sequence[str] = ()  # the field's own tools to score with, too: "cell-eval", "cell-eval2"
    seeds: int = 3  # sampling seeds, each with its own split of the controls; of several models each gets one
    n_cells: int = 256  # sampled of every perturbation and seed; the one-step rows ("change") have no sampling noise

    def __post_init__(self) -> None:
        require_whole("seeds", self.seeds, 1)
        require_whole("n_cells", self.n_cells, 1)


@dataclass(frozen=True)
class Task:
    """One question: real cells that no model has seen, and what there was to learn from."""

    title: str
    seen: bool  # whether the tested perturbations are in training, in other replicates
    train: AnnData  # training side of the screen
    asked: AnnData  # cells of the tested perturbations, in the tested replicates
    real: AnnData  # all test cells of these replicates, and their controls


def tasks_of(screen: AnnData) -> Iterator[Task]:
    """Yields the tasks that a screen's named split has cells for; `left_out` says which it has not."""
    side = named_split(screen)
    train = screen[side == "train"].copy()
    is_real = (side != "train") | (screen.obs["target_gene"] == CONTROL)
    number = 3 if "truth" in screen.uns else 2
    for tested, title in (
        ("held_out", "task 1: seen perturbations, held-out replicate"),
        ("unseen", f"task {number}: unseen perturbations"),
    ):
        asked = screen[side == tested].copy()
        here = screen.obs["batch"].isin(asked.obs["batch"])
        if set(places_of(asked)) & set(places_of(train)):
            title = RANDOM
        elif tested == "held_out" and "contexts" in screen.uns.get("screen", {}):
            title = CONTEXT
        if asked.n_obs:
            yield Task(title, tested == "held_out", train, asked, screen[here & is_real].copy())


def left_out(tasks: Sequence[Task]) -> list[str]:
    """Says which tasks a report leaves out, and why.

    Raises:
        CDTError: All of them.
    """
    if not tasks:
        raise CDTError("nothing to report on: the split withholds no cells. Choose another (--unseen, --hold-out) and "
                       "train with it")
    reasons = []
    if tasks[0].title == RANDOM:
        reasons.append("held-out replicates: no tested perturbation keeps another replicate to train on, so random "
                       "cells of seen ones are held out instead")
    if not tasks[0].seen:
        reasons.append("tasks 1 and 4, seen perturbations: the split holds out no cells of trained ones")
    if tasks[-1].seen:
        reasons.append("unseen perturbations: the split withholds no target altogether")
    return reasons


def places_of(cells: AnnData) -> list[str]:
    """Returns the perturbation and the replicate of every cell, in words."""
    return (cells.obs["target_gene"].astype(str) + " in " + cells.obs["batch"].astype(str)).tolist()


def without_guides(task: Task, guides: pd.DataFrame) -> Task | None:
    """Returns a task without the cells of some guides, on either side; None: it is the same task.

    Args:
        task: Of a screen with guides.
        guides: Target, sign and guide of each, as `guide_effects` returns them: names may stand for several targets.
    """
    sides, dropped = {}, pd.MultiIndex.from_frame(guides[["target", "sign", "guide"]].astype(str))
    for name in ("train", "asked", "real"):
        cells: AnnData = getattr(task, name)
        own = pd.MultiIndex.from_frame(cells.obs[[*CONDITION, "guide"]].astype(str))
        sides[name] = cells[~own.isin(dropped)].copy()
    if sides["asked"].n_obs == task.asked.n_obs and sides["train"].n_obs == task.train.n_obs:
        return None
    return replace(task, **sides)


def score_means(task: Task, runs: Runs, options: ReportOptions) -> pd.DataFrame:
    """Scores predicted mean changes and baselines alone, by what needs no cells, in every run (column seed)."""
    metrics = [name for name, metric in METRICS.items() if not metric.needs_cells]
    tables = []
    for i, (model, seed) in enumerate(runs):
        truth, controls = control_halves(task.real, seed=seed)
        told = with_clean_table(model, task.train, truth)
        predicted = _changes(told, task, controls, options, seed)
        depth = model.tokenizer.target_depth
        scored = evaluate(task.real, predicted, train=task.train, metrics=metrics, target_depth=depth, seed=seed)
        tables.append(scored.assign(seed=i))
    return pd.concat(tables, ignore_index=True)


def score_task(task: Task, runs: Runs, options: ReportOptions) -> tuple[pd.DataFrame, list[AnnData]]:
    """Scores every method in every run.

    Returns:
        The table of `evaluate` with columns seed (the run), measured and null; and every run's sampled cells.
    """
    wanted = wanted_cells(task.asked)
    asked = _names(task.asked)
    tables, sampled = [], []
    notes: dict[str, None] = {}
    for i, (model, seed) in enumerate(runs):
        truth, controls = control_halves(task.real, seed=seed)
        told = with_clean_table(model, task.train, truth)
        sampled.append(sampled_cells(told, controls, wanted, options.n_cells, seed))
        predicted: dict[str, Any] = {options.name: sampled[-1]}
        predicted |= _changes(told, task, controls, options, seed)
        if task.seen:
            predicted[TRAINING_CELLS] = rival_cells(task, options.n_cells)[TRAINING_CELLS]
        for name, seeds_of in by_method(options.others).items():
            cells = seeds_of[i % len(seeds_of)]
            here = np.isin(_names(cells), asked)
            if here.any():
                predicted[name] = cells[here]
            if here.any() and cells.uns.get("cdt_lite", {}).get("controls") == PREDICTED:
                predicted[CHANGE.format(name)] = Changes(own_changes(cells, here))
        depth = model.tokenizer.target_depth
        scored = evaluate(task.real, predicted, train=task.train, target_depth=depth, seed=seed)
        notes |= dict.fromkeys(scored.attrs["notes"])
        tables.append(scored.assign(seed=i))
    table = pd.concat(tables, ignore_index=True)
    genes = set(task.real.var_names)
    table["measured"] = [genes.issuperset(target.split("+")) for target in table["target"]]
    table["null"] = _null(task.real, table)
    table.attrs = {"notes": list(notes)}
    return table, sampled


def own_changes(cells: AnnData, asked: Bool[np.ndarray, " cells"]) -> pd.DataFrame:
    """Returns mean changes from the control cells that a method predicted itself: an error of both cancels.

    Args:
        cells: Predicted, in log1p, controls among them.
        asked: Those of the tested perturbations; each is compared with controls of its own replicate.
    """
    log1p, labels = dense(cells.X), read_labels(cells)
    plain, total = (labels.target == CONTROL), {}
    for target, sign in sorted(set(zip(labels.target[asked], labels.sign[asked], strict=True))):
        own = asked & (labels.target == target) & (labels.sign == sign)
        change = np.zeros(cells.n_vars)
        for batch in np.unique(labels.batch[own]):
            here = labels.batch == batch
            if not (plain & here).any():
                raise CDTError(f"a prediction says that its controls are its own, and has none in {batch!r}: add some")
            gap = log1p[own & here].mean(0) - log1p[plain & here].mean(0)
            change += gap * (own & here).sum() / own.sum()
        total[target, sign] = change
    return pd.DataFrame(total, cells.var_names).T


def by_method(others: Mapping[str, AnnData]) -> dict[str, list[AnnData]]:
    """Puts predictions of one method's training seeds together: NAME-seed0, NAME-seed1 and so on are those of NAME.

    Each run of a report scores the next of them. Raises CDTError for the name of a baseline.
    """
    methods: dict[str, list[AnnData]] = {}
    for name in sorted(others, key=lambda name: (len(name), name)):
        method = re.sub(r"-seed\d+$", "", name)
        if method in {*BASELINES, CEILING}:
            raise CDTError(f"a prediction has the name of a baseline, {method!r}; choose another")
        methods.setdefault(method, []).append(others[name])
    return methods


def _changes(model: Checkpoint, task: Task, controls: AnnData, options: ReportOptions, seed: int) -> dict[str, Changes]:
    """Mean changes without sampling noise: the model's, told more or less, and those it was told itself."""
    groups = task.asked.obs.groupby([*CONDITION, "batch"], observed=True)
    wanted = groups.size()
    n = max(16, options.n_cells // 2)  # of each replicate: the same draws stand in both means
    magnitudes = groups["magnitude"].first()
    tables = {
        CHANGE.format(options.name): mean_changes(model, controls, wanted, n, seed),
        TOLD.format(options.name): mean_changes(model, controls, wanted, n, seed, magnitudes),
        "table alone": table_changes(model, wanted),
    }
    return {name: Changes(table) for name, table in tables.items() if len(table)}


def _names(cells: AnnData) -> np.ndarray:
    """What to call the perturbation of every cell."""
    labels = read_labels(cells)
    return np.char.add(np.char.add(labels.target, " "), labels.sign.astype(str))


def _null(real: AnnData, table: pd.DataFrame) -> np.ndarray:
    """Marks targets whose perturbation changes nothing: planted ones, or those of which the real cells show no gene."""
    groups = table.groupby(["target", "sign"])
    if "truth" not in real.uns:
        return (groups["n_changed"].transform("max") < 1).to_numpy()
    planted = pd.DataFrame(real.uns["truth"]["perturbations"]).set_index(CONDITION)["null"]
    return groups["mae"].transform(lambda rows: planted[rows.name]).to_numpy(bool)


def suite_means(task: Task, suite: str, cells: AnnData, options: ReportOptions) -> dict[str, dict[str, list[float]]]:
    """Scores sampled cells, and rivals, with one of the field's tools: mean over targets, and how many have a score."""
    handed_in = {options.name: cells, **rival_cells(task, options.n_cells)}
    table = suite_scores(suite, task.real, handed_in).drop(columns="target").set_index("method")
    means = {}
    for method, rows in table.apply(pd.to_numeric, errors="coerce").groupby(level=0, sort=False):
        means[str(method)] = rows.dropna(axis=1, how="all").agg(["mean", "count"]).to_dict("list")
    return means


def rival_cells(task: Task, n_cells: int) -> dict[str, AnnData]:
    """Hands in real training cells as predictions, for tools that score cells: what a sampler has to beat.

    Controls, and cells of the same perturbation in training or, where it was never seen, of all others of its sign.
    """
    obs = task.train.obs
    made: dict[str, list[AnnData]] = {"control cells": [], "training cells": []}
    for (target, sign), asked in task.asked.obs.groupby(CONDITION, observed=True):
        places = asked["batch"].astype(str)  # the replicates that they are handed in for
        of_sign = obs[obs["sign"] == sign]
        own = of_sign[of_sign["target_gene"] == target]
        pools = {"control cells": obs[obs["sign"] == 0], TRAINING_CELLS: own if len(own) else of_sign}
        for kind, pool in pools.items():
            drawn = pool.sample(n_cells, replace=len(pool) < n_cells, random_state=0).index
            names = [f"{target} {sign} {i}" for i in range(n_cells)]
            labels = pd.DataFrame({"target_gene": target, "sign": sign}, index=names)
            labels["batch"] = places.sample(n_cells, replace=True, random_state=0).to_numpy()
            made[kind].append(AnnData(task.train[drawn].X, labels, task.train.var[[]]))
    return {kind: concat(cells) for kind, cells in made.items()}


def check_split(checkpoint: Checkpoint, screen: AnnData) -> str:
    """Refuses a model that was trained on what it will be tested on; returns how far that could be verified.

    Raises:
        CDTError: A test perturbation, or a held-out replicate of one, was in its training; the message names it.
    """
    side = named_split(screen)
    unseen = set(screen.obs["target_gene"][side == "unseen"])
    if leaked := sorted(unseen.intersection(checkpoint.trained_targets)):
        raise CDTError(
            f"the checkpoint was trained on perturbations of {leaked}, withheld as unseen in this split; "
            "evaluate a model trained on the training side of named_split(screen)"
        )
    train = screen[side == "train"]
    store = TokenStore.from_adata(train, checkpoint.tokenizer, checkpoint.vocabulary)
    if store.digest() in checkpoint.card.get("data", []):
        return "hash of its training cells is that of this split"
    if "held_out" not in checkpoint.card:
        return "not: its card names no training cells"
    tested = set(places_of(screen[side == "held_out"]))
    if leaked := sorted(tested.difference(checkpoint.card["held_out"])):
        raise CDTError(f"the checkpoint did not withhold {leaked}, which this split tests as held-out replicates")
    return "by the names on its card only"
