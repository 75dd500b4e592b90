"""Reports: averages with intervals as JSON, several screens in one file, and a page to read beside it."""

import json
import platform
import re
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from anndata import AnnData

from cdt_lite import __version__
from cdt_lite.data.blocks import in_memory, part_of
from cdt_lite.data.layout import CONTROL, Columns
from cdt_lite.data.splits import CHOSEN, named_split
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.evaluation.baselines import BASELINES
from cdt_lite.evaluation.cells import read_predictions, read_screen
from cdt_lite.evaluation.evaluate import CEILING, evaluate
from cdt_lite.evaluation.guides import guide_effects
from cdt_lite.evaluation.metrics import METRICS
from cdt_lite.evaluation.suites import suite_scores
from cdt_lite.evaluation.summary import OWN, compare, summarise
from cdt_lite.files import named, write_atomically
from cdt_lite.model.config import DiffusionConfig
from cdt_lite.report.page import markdown
from cdt_lite.report.quality import over_models, quality
from cdt_lite.report.tasks import (
    CHANGE,
    SHIPPED,
    TOLD,
    ReportOptions,
    Runs,
    Task,
    by_method,
    check_split,
    left_out,
    places_of,
    score_means,
    score_task,
    suite_means,
    tasks_of,
    without_guides,
)
from cdt_lite.training.capsule import CAPSULES
from cdt_lite.training.checkpoint import Checkpoint, read_verified

ANY_RUN: dict[str, Any] = {"seed": 0, "precision": "auto", "compile": False}  # what runs of one recipe may differ in
INNERMOST = re.compile(r"[\[{][^\[\]{}]*[\]}]")  # list or dictionary in JSON: it takes one line


def write_report(screen: AnnData, checkpoints: Sequence[str | Path], options: ReportOptions, *,
                 path: str | Path, command: str, say: Callable[[str], None]) -> Path:
    """Reports on the tasks of a screen's named split, and adds that to a file of results; see `add_entry`.

    Args:
        screen: Raw counts, in the layout of `load_screen`.
        checkpoints: Folders of models trained on its training side; several: training seeds of one recipe.
        options: Seeds, cells, and who else is in the table.
        path: The JSON file.
        command: What was typed to make the report.
        say: Is told what is going on.

    Raises:
        CDTError: A test perturbation was in training, or the screen does not fit the model.
    """
    began = time.perf_counter()
    models = [Checkpoint.load(folder) for folder in checkpoints]
    runs, seeds_are = _runs(models, options)
    entry = {"command": command, **_facts(screen), "checkpoints": [], "seeds_are": seeds_are}
    for model, folder in zip(models, map(Path, checkpoints), strict=True):
        about = {"name": folder.name, "sha256": read_verified(folder)[0]["sha256"]}
        entry["checkpoints"].append(about | {"split_verified": check_split(model, screen)})
    entry["gene_sets"] = models[0].prior is not None
    entry |= {"seeds": list(range(len(runs))), "cells_per_perturbation": options.n_cells}
    tasks = list(tasks_of(screen))
    guides = guide_effects(screen) if "guide" in screen.obs else None
    entry |= {"tasks": {}, "quality": {}, "suites": {}, "left_out": left_out(tasks)}
    options = replace(options, name=model_name(checkpoints, by_method(options.others)))
    entry["model"] = options.name
    for reason in entry["left_out"]:
        say(f"left out: {reason}")
    real = read_screen(screen, "the screen", Columns())
    read_predictions(options.others, Columns(), real, models[0].tokenizer.target_depth)  # before anything is sampled
    for task in tasks:
        say(f"{task.title}: {len(runs)} runs")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the notes are kept
            table, cells = score_task(task, runs, options)
        entry["tasks"][task.title] = averaged(table, apart=not task.seen, name=options.name)
        if guides is not None:
            entry["tasks"][task.title]["without duds"] = _without_duds(task, runs, options, guides)
        if task.seen:
            entry["quality"] = _quality(task, runs[: len(models)], cells, options.name)
        for suite in options.suites:
            scores = entry["suites"].setdefault(suite, {"version": version(suite), "tasks": {}})
            scores["tasks"][task.title] = suite_means(task, suite, cells[0], options)
    if guides is not None:
        entry["guides"] = guides[guides["told"].fillna(False).astype(bool)].to_dict("records")
    return add_entry(entry | {"seconds": round(time.perf_counter() - began)}, path)


def _quality(task: Task, runs: Runs, cells: Sequence[AnnData], name: str) -> dict[str, Any]:
    """Judges the sampled cells of every model: means over models, intervals that hold those of all."""
    judged = []
    for (model, seed), made in zip(runs, cells, strict=False):
        judged.append(quality(model, seed, task.train, task.asked, made, name))
    return over_models(judged)


def _without_duds(task: Task, runs: Runs, options: ReportOptions, guides: pd.DataFrame) -> dict[str, Any]:
    """Scores of means where cells of guides that do nothing are neither learned from nor taken for the truth."""
    duds = guides[guides["dud"]]
    spared = without_guides(task, duds)
    if spared is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        table = score_means(spared, runs, options)
    metrics = [name for name in METRICS if name in table]
    return {"duds": duds["guide"].tolist(), "summary": _nested(summarise(table, metrics=metrics), "mean")}


def _runs(models: Sequence[Checkpoint], options: ReportOptions) -> tuple[Runs, str]:
    """Returns which model samples by which seed, and what these are. Raises CDTError for models of two recipes."""
    if len(models) == 1:
        runs = [(models[0], seed) for seed in range(options.seeds)]
        return runs, "sampling seeds of one trained model, each with its own split of the controls"
    plain = []
    for model in models:
        stages = {name: replace(getattr(model.config, name), **ANY_RUN) for name in ("pretrain", "finetune")}
        plain.append(replace(model.config, diffusion=DiffusionConfig(), **stages))  # the schedule is learned
    for model, config in zip(models, plain, strict=True):
        if config != plain[0] or (model.stage, model.step) != (models[0].stage, models[0].step):
            raise CDTError("several --checkpoint are training seeds of one recipe, but these differ in configuration, "
                           "stage or steps: report on them one by one, to one --results each")
    return [(model, seed) for seed, model in enumerate(models)], "training seeds"


def model_name(folders: Sequence[str | Path], others: Collection[str] = ()) -> str:
    """Returns what a report calls the models, by the first one: "capsule" if it ships with the package, or its name."""
    first = Path(folders[0]).resolve()
    if first.parent == CAPSULES:
        return SHIPPED
    name = first.name
    if name in {*BASELINES, CEILING, *others}:
        name += " (model)"
    return name


def _facts(screen: AnnData) -> dict[str, Any]:
    known = dict(screen.uns.get("screen", {}))
    kept = ("name", "version", "sha256", "options")
    versions = {package: version(package) for package in ("torch", "numpy", "scipy", "anndata")}
    return {
        "screen": {key: known[key] for key in kept if key in known},
        "split": _split_facts(screen, known.get("name", "screen")),
        "versions": {"cdt_lite": __version__, "python": platform.python_version(), **versions},
    }


def _split_facts(screen: AnnData, name: str) -> dict[str, str]:
    if CHOSEN not in screen.obs:
        return {"name": f"named_split({name})"}
    withheld = []
    for side in ("unseen", "held_out"):
        places = sorted(set(places_of(screen[screen.obs[CHOSEN] == side])))
        withheld.append(f"{side}: {', '.join(places) or 'none'}")
    return {"name": f"chosen ({'; '.join(withheld)})"}


def averaged(table: pd.DataFrame, apart: bool, name: str = SHIPPED) -> dict[str, Any]:
    """Returns averages and differences with intervals, and a row per perturbation.

    Args:
        table: From `score_task`.
        apart: Whether measured targets are grouped apart from others, too.
        name: Of the model.
    """
    groups = {"all": table}
    if apart:
        where = table["measured"].map({True: "measured in the panel", False: "not measured"})
        groups |= dict(iter(table.groupby(where)))
    metrics = [*METRICS, "pearson_delta_shared"]
    averages = {}
    own = {name, *(row.format(name) for row in (CHANGE, TOLD))}
    for group, rows in groups.items():
        rivals = [method for method in rows["method"].unique() if method not in {CEILING, *own}]
        averages[group] = {"n": rows.groupby(["target", "sign"]).ngroups}
        averages[group]["summary"] = _nested(summarise(rows, metrics=metrics), "mean")
        for ours in (CHANGE.format(name), name):
            gaps = compare(rows, ours, rivals, metrics)
            averages[group][f"{ours}, minus"] = _nested(gaps, "difference")
    columns = ["n_real", "n_changed", *OWN, "measured", "null", *metrics]
    rows = table.groupby(["target", "sign", "method"], sort=False)[columns].mean().reset_index()
    rows = rows.astype({"measured": bool, "null": bool})
    return {"groups": averages, "notes": table.attrs["notes"], "perturbations": rows.to_dict("records")}


def _nested(rows: pd.DataFrame, value: str) -> dict[str, dict[str, list[Any]]]:
    """Rows as {method: {metric: [value, low, high, n]}}."""
    nested: dict[str, dict[str, list[Any]]] = {}
    for row in rows.to_dict("records"):
        scores = nested.setdefault(row["method"], {})
        scores[row["metric"]] = [row[value], row["low"], row["high"], row["n"]]
    return nested


def score(screen: AnnData, predicted: Mapping[str, AnnData], *, side: str = "held_out",
          suites: Sequence[str] = (), seed: int = 0) -> pd.DataFrame:
    """Scores predicted cells on one side of a screen's named split, by `evaluate` or by the field's own tools.

    Args:
        screen: Raw counts, in the layout of `load_screen`; they may be on the disk.
        predicted: Predicted cells by method.
        side: "held_out" or "unseen".
        suites: "cell-eval", "cell-eval2": in place of `evaluate`.
        seed: Same seed, same table.
    """
    sides = named_split(screen)
    if side not in sides:
        raise CDTError(f"this split has no {side} cells to score on: name another --side, or withhold some (--unseen, "
                       "--hold-out)")
    is_control = (screen.obs["target_gene"] == CONTROL).to_numpy()
    test = in_memory(part_of(screen, (sides == side) | is_control))
    asked = {name: _on_side(cells, test, name, side) for name, cells in predicted.items()}
    if suites:
        return pd.concat([suite_scores(suite, test, asked) for suite in suites], ignore_index=True)
    return evaluate(test, asked, train=in_memory(part_of(screen, sides == "train")), seed=seed)


def _on_side(cells: AnnData, test: AnnData, name: str, side: str) -> AnnData:
    """Predicted cells of what this side tests; the others are named, and left out: training cells judge nobody."""
    if "target_gene" not in cells.obs:
        return cells  # refused by name later
    targets = cells.obs["target_gene"].astype(str)
    tested = targets.isin(test.obs["target_gene"].astype(str))
    others = sorted(set(targets[~tested]))
    if not others or not (tested & (targets != CONTROL)).any():
        return cells
    warnings.warn(f"{name}: {len(others)} targets are not among the {side} cells, such as {others[:3]}: left out",
                  CDTWarning, stacklevel=3)
    return cells[tested.to_numpy()]


def add_entry(entry: dict[str, Any], path: str | Path) -> Path:
    """Puts an entry into a results file, beside those of other screens; returns the page that it writes next to it.

    Raises:
        CDTError: The file is there but is no results file.
    """
    path, results = named(path), {}
    if path.is_file():
        try:
            results = dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise CDTError(f"{path} is not a results file ({error}); name another with --results") from error
    title = entry["screen"].get("name", "screen")
    if options := entry["screen"].get("options"):  # of a simulated one
        title += f" {options['world']} {options['n_targets']} targets"
        title += " with gene sets" if entry.get("gene_sets") else ""
    results[title] = json.loads(
        json.dumps(entry, default=str),
        parse_float=lambda number: float(f"{float(number):.4g}"),
        parse_constant=lambda nan: None,
    )
    text = json.dumps(results, indent=1)
    text = INNERMOST.sub(lambda found: re.sub(r"\s*\n\s*", " ", found[0]), text)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{text}\n".encode())
    page = path.with_suffix(".md")
    write_atomically(page, markdown(results).encode())
    return page
