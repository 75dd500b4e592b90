"""Reports: averages with intervals as JSON, several screens in one file, and a page to read beside it."""

import json
import platform
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from anndata import AnnData

from cdt_lite import __version__
from cdt_lite.data.layout import CONTROL
from cdt_lite.data.splits import named_split
from cdt_lite.errors import CDTError
from cdt_lite.evaluation.evaluate import evaluate
from cdt_lite.evaluation.metrics import METRICS
from cdt_lite.evaluation.suites import suite_scores
from cdt_lite.evaluation.summary import compare, summarise
from cdt_lite.files import in_markdown, write_atomically
from cdt_lite.report.quality import quality
from cdt_lite.report.tasks import CELLS, CHANGE, ReportOptions, check_split, score_task, suite_means, tasks_of
from cdt_lite.training.checkpoint import Checkpoint, read_verified

SHORT = {
    "pearson_delta": "Pearson of change",
    "pearson_delta_shared": "the same, shared controls (trap)",
    "mae": "MAE",
    "systema_pearson": "Systema-Pearson",
    "discrimination_score_l1": "PDS l1",
    "discrimination_score_cosine": "PDS cosine",
    "overlap_at_n": "DE overlap",
    "energy_distance": "energy distance",
    "two_sample_auc": "two-sample AUC",
    "cell_sd_ratio": "cell sd ratio",
    "significant_gene_ratio": "significant-gene ratio",
    "library_size_sd_ratio": "library-size sd ratio",
}
OF_MEANS, OF_CELLS = list(SHORT)[:6], list(SHORT)[6:]
PER_TARGET = {
    "pearson_delta": [CHANGE, CELLS, "perturbed mean", "replicate mean", "linear", "ceiling"],
    "mae": [CHANGE, "control", "perturbed mean"],
}
INNERMOST = re.compile(r"[\[{][^\[\]{}]*[\]}]")  # list or dictionary in JSON: it takes one line
HEAD = """# Results

Mean over perturbations [95 % interval: bootstrap over perturbations and seeds; of fewer than six perturbations it \
holds less than 95 %]. The ceiling is a second half of the real cells; correlations and MAE are corrected to full \
size. A prediction without noise may pass it. Methods that predict means are given control cells moved to them. Own \
gene left out everywhere, controls split in halves."""
MODEL = "{name} (weights {sha256:.12}, split: {split_verified})"
FACTS = """Split {split[name]}. Model: {models}. Seeds {seeds}: {seeds_are}. {cells_per_perturbation} sampled cells a \
perturbation and seed. {seconds} s. {packages}."""
SUITE = """Its own names and conventions; real controls on both sides, so their shared noise is in it. Rivals are real \
training cells: controls, and those of the same perturbation (unseen: of all others of its sign)."""


def write_report(screen: AnnData, checkpoints: Sequence[str | Path], options: ReportOptions, *,
                 path: str | Path, command: str, say: Callable[[str], None]) -> Path:
    """Reports on tasks 1 to 4 of a screen's named split, and adds that to a file of results; see `add_entry`.

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
    runs = [(models[0], seed) for seed in range(options.seeds)]
    seeds_are = "sampling seeds of one trained model, each with its own split of the controls"
    if len(models) > 1:
        runs = [(model, seed) for seed, model in enumerate(models)]
        seeds_are = "training seeds"
    entry = {"command": command, **_facts(screen), "checkpoints": [], "seeds_are": seeds_are}
    for model, folder in zip(models, map(Path, checkpoints), strict=True):
        about = {"name": folder.name, "sha256": read_verified(folder)[0]["sha256"]}
        entry["checkpoints"].append(about | {"split_verified": check_split(model, screen)})
    entry |= {"seeds": list(range(len(runs))), "cells_per_perturbation": options.n_cells}
    entry |= {"tasks": {}, "quality": {}, "suites": {}}
    for task in tasks_of(screen):
        say(f"{task.title}: {len(runs)} runs")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the notes are kept
            table, cells = score_task(task, runs, options)
        entry["tasks"][task.title] = averaged(table, apart=not task.seen)
        if task.seen:
            entry["quality"] = quality(*runs[0], task.train, task.asked, cells)
        for suite in options.suites:
            scores = entry["suites"].setdefault(suite, {"version": version(suite), "tasks": {}})
            scores["tasks"][task.title] = suite_means(task, suite, cells, options.n_cells)
    return add_entry(entry | {"seconds": round(time.perf_counter() - began)}, path)


def _facts(screen: AnnData) -> dict[str, Any]:
    known = dict(screen.uns.get("screen", {}))
    kept = ("name", "version", "sha256", "options")
    versions = {package: version(package) for package in ("torch", "numpy", "scipy", "anndata")}
    return {
        "screen": {key: known[key] for key in kept if key in known},
        "split": {"name": f"named_split({known.get('name', 'screen')})"},
        "versions": {"cdt_lite": __version__, "python": platform.python_version(), **versions},
    }


def averaged(table: pd.DataFrame, apart: bool) -> dict[str, Any]:
    """Returns averages and differences with intervals, and a row per perturbation; `apart` groups measured targets."""
    groups = {"all": table}
    if apart:
        where = table["measured"].map({True: "measured in the panel", False: "not measured"})
        groups |= dict(iter(table.groupby(where)))
    metrics = [*METRICS, "pearson_delta_shared"]
    averages = {}
    for name, rows in groups.items():
        rivals = [m for m in rows["method"].unique() if m != "ceiling" and not m.startswith(CELLS)]
        averages[name] = {"n": rows.groupby(["target", "sign"]).ngroups}
        averages[name]["summary"] = _nested(summarise(rows, metrics=metrics), "mean")
        for ours in (CHANGE, CELLS):
            gaps = compare(rows, ours, rivals, metrics)
            averages[name][f"{ours}, minus"] = _nested(gaps, "difference")
    columns = ["n_real", "n_changed", "measured", "null", *metrics]
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
        screen: Raw counts, in the layout of `load_screen`.
        predicted: Predicted cells by method.
        side: "held_out" or "unseen".
        suites: "cell-eval", "cell-eval2": in place of `evaluate`.
        seed: Same seed, same table.
    """
    sides = named_split(screen)
    test = screen[(sides == side) | (screen.obs["target_gene"] == CONTROL)].copy()
    if suites:
        return pd.concat([suite_scores(suite, test, predicted) for suite in suites], ignore_index=True)
    return evaluate(test, predicted, train=screen[sides == "train"].copy(), seed=seed)


def add_entry(entry: dict[str, Any], path: str | Path) -> Path:
    """Puts an entry into a results file, beside those of other screens; returns the page that it writes next to it.

    Raises:
        CDTError: The file is there but is no results file.
    """
    path, results = Path(path), {}
    if path.is_file():
        try:
            results = dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise CDTError(f"{path} is not a results file ({error}); name another with --results") from error
    title = entry["screen"].get("name", "screen")
    if options := entry["screen"].get("options"):  # of a simulated one
        title += f" {options['world']} {options['n_targets']} targets"
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


def markdown(results: dict[str, Any]) -> str:
    """Renders a results file as a page: for every screen its facts, its tables and the command that made them."""
    blocks = [HEAD]
    for name, entry in results.items():
        models = "; ".join(MODEL.format(**about) for about in entry["checkpoints"])
        packages = ", ".join(map(" ".join, entry["versions"].items()))
        facts = FACTS.format(models=models, packages=packages, **entry)
        blocks += [f"## {in_markdown(name)}", f"    {entry['command']}", facts]
        if "note" in entry:
            blocks.append(entry["note"])
        for title, task in entry["tasks"].items():
            blocks += _task(title, task)
        for suite, scores in entry.get("suites", {}).items():
            blocks += _suite(suite, scores)
        if entry["quality"]:
            blocks += _quality(**entry["quality"])
    return "\n\n".join(blocks) + "\n"


def _grid(corner: str, table: pd.DataFrame) -> str:
    table = table.rename(columns=SHORT).rename_axis(corner).reset_index()
    return table.to_markdown(index=False, disable_numparse=True)


def _number(value: float | None) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


def _interval(numbers: list) -> str:
    value, low, high = map(_number, numbers[:3])
    return f"{value} [{low}, {high}]" if value else ""


def _task(title: str, task: dict[str, Any]) -> list[str]:
    blocks = []
    for group, averages in task["groups"].items():
        blocks.append(f"### {title.capitalize()}: {group} (n = {averages['n']})")
        for corner, rows, scores in (
            ("method", "summary", OF_MEANS),
            ("method", "summary", OF_CELLS),
            (f"{CHANGE}, minus", f"{CHANGE}, minus", [OF_MEANS[0], *OF_MEANS[2:5]]),
            (f"{CELLS}, minus", f"{CELLS}, minus", OF_CELLS[:3]),
        ):
            blocks.append(_grid(corner, pd.DataFrame(averages[rows]).T[scores].map(_interval)))
    blocks += [f"Note: {note}." for note in task["notes"]]
    return [*blocks, _per_target(pd.DataFrame(task["perturbations"]))]


def _per_target(rows: pd.DataFrame) -> str:
    keys = ["target", "sign"]
    ours = rows[rows["method"] == CHANGE].set_index(keys)
    table = pd.DataFrame({"cells": ours["n_real"].map("{:.0f}".format)})
    null = ours["null"].map({True: " (null)", False: ""})
    table["changed genes"] = ours["n_changed"].map(_number) + null
    for metric, methods in PER_TARGET.items():
        shown = rows.pivot(index=keys, columns="method", values=metric).reindex(columns=methods)
        for method, values in shown.dropna(axis=1, how="all").items():
            table[f"{SHORT[metric]}: {method}"] = values.map(_number)
    where = ours["measured"].map({True: "", False: ", not measured"})
    names = [f"{in_markdown(target)} {sign:+d}{words}" for (target, sign), words in where.items()]
    return _grid("perturbation", table.set_axis(names))


def _suite(name: str, suite: dict[str, Any]) -> list[str]:
    blocks = [f"### {name} {suite['version']} on cells of the first seed", SUITE]
    for title, methods in suite["tasks"].items():
        table = pd.DataFrame(methods).map(lambda x: f"{x[0]:.3f} ({x[1]:.0f})", na_action="ignore")
        blocks.append(_grid(f"{title}: mean over targets (targets)", table.fillna("")))
    return blocks


def _quality(bits: dict[str, list], curve: dict[str, list], likeness: dict[str, Any]) -> list[str]:
    rows = []
    for name, (cost, gap, low, high) in bits.items():
        against = "" if name == "model" else f"{gap:+.4f} [{low:+.4f}, {high:+.4f}]"
        rows.append([name, f"{cost:.4f}", against])
    heads = ["", "bits per gene, mean over cells", "model minus it, mean over perturbations"]
    points = map("{:.2f}: {:.3f}".format, curve["share_hidden"], curve["bits_per_hidden_gene"])
    return [
        "### Task 4: do the cells look real? Held-out replicates",
        _grid("density given depth", pd.DataFrame(rows, columns=heads).set_index("")),
        f"H curve, bits per hidden gene at a share of hidden genes: {', '.join(points)}.",
        _grid("statistic", pd.DataFrame(likeness).T.map(_interval)),
    ]
