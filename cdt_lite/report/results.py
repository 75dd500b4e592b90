"""What is kept of a report: averages with intervals as JSON, several screens in one file, and a page to read."""

import json
import math
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd
from anndata import AnnData

from cdt_lite.data.screens import load_screen
from cdt_lite.data.splits import named_split
from cdt_lite.errors import CDTError, suggest
from cdt_lite.evaluation.evaluate import evaluate
from cdt_lite.evaluation.metrics import METRICS
from cdt_lite.evaluation.suites import suite_scores
from cdt_lite.evaluation.summary import compare, summarise
from cdt_lite.files import write_atomically
from cdt_lite.report.tasks import CELLS, CHANGE, Report, report_tasks
from cdt_lite.training.capsule import SIMULATED, capsule_folder

SCORES = [*METRICS, "pearson_delta_shared"]
OF_MEANS = ["pearson_delta", "pearson_delta_shared", "mae", "systema_pearson", "discrimination_score_l1",
            "discrimination_score_cosine"]
OF_CELLS = ["overlap_at_n", "energy_distance", "two_sample_auc", "cell_sd_ratio", "significant_gene_ratio",
            "library_size_sd_ratio"]
SHORT = {"pearson_delta": "Pearson of change", "pearson_delta_shared": "the same, shared controls (trap)", "mae": "MAE",
         "systema_pearson": "Systema-Pearson", "discrimination_score_l1": "PDS l1",
         "discrimination_score_cosine": "PDS cosine", "overlap_at_n": "DE overlap",
         "energy_distance": "energy distance", "two_sample_auc": "two-sample AUC", "cell_sd_ratio": "cell sd ratio",
         "significant_gene_ratio": "significant-gene ratio", "library_size_sd_ratio": "library-size sd ratio"}


def to_entry(report: Report, command: str, n_boot: int = 2000) -> dict[str, Any]:
    """Turns a report into plain data: facts, and for every task averages, differences and a row per perturbation.

    Args:
        report: From `report_tasks`.
        command: What was typed to make it.
        n_boot: Bootstrap redraws of perturbations and of seeds, the same for every method.
    """
    tasks = {}
    for title, table in report.tables.items():
        groups = {"all": table}
        if "unseen" in title:
            groups |= {name: table[table["measured"] == flag] for name, flag in
                       (("measured in the panel", True), ("not measured", False)) if (table["measured"] == flag).any()}
        tasks[title] = {"groups": {name: _averages(rows, n_boot) for name, rows in groups.items()},
                        "notes": report.notes.get(title, []), "perturbations": _per_perturbation(table)}
    return {"command": command, **report.facts, "tasks": tasks, "quality": report.quality}


def _averages(table: pd.DataFrame, n_boot: int) -> dict[str, Any]:
    summary = summarise(table, against=None, metrics=SCORES, n_boot=n_boot)
    methods = [m for m in table["method"].unique() if m != "ceiling" and not m.startswith(CELLS)]
    out: dict[str, Any] = {"n": int(table.groupby(["target", "sign"]).ngroups), "summary": _nested(summary, "mean")}
    for ours in (CHANGE, CELLS):
        out[f"{ours}, minus"] = _nested(compare(table, ours, methods, SCORES, n_boot=n_boot), "difference")
    return out


def _nested(rows: pd.DataFrame, value: str) -> dict[str, dict[str, list[Any]]]:
    """Rows as {method: {metric: [value, low, high, n]}}."""
    out: dict[str, dict[str, list[Any]]] = {}
    for row in rows.to_dict("records"):
        out.setdefault(row["method"], {})[row["metric"]] = [row[value], row["low"], row["high"], row["n"]]
    return out


def _per_perturbation(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Means over seeds, one row per perturbation and method."""
    first = table[table["method"] != "ceiling"].groupby(["target", "sign"])["n_changed"].mean()
    columns = ["n_real", "measured", "null", *SCORES]
    mean = table.groupby(["target", "sign", "method"], sort=False)[columns].mean().reset_index()
    mean["n_changed"] = [first[t, s] for t, s in zip(mean["target"], mean["sign"], strict=True)]
    mean = mean.astype({"measured": bool, "null": bool})
    return mean.to_dict("records")


def _plain(value: Any) -> Any:
    """Numbers of four digits, and null where there is none."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return None if not math.isfinite(value) else float(f"{value:.4g}")
    return value


def simulation(words: Sequence[str]) -> dict[str, Any]:
    """Reads options of a simulated screen, such as n_targets=120 and world=linear. Raises CDTError for another."""
    out: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in SIMULATED or not value or (name != "world" and not value.isdigit()):
            raise CDTError(f"expected OPTION=VALUE with one of {SIMULATED}, got {word!r}{suggest(name, SIMULATED)}")
        out[name] = value if name == "world" else int(value)
    return out


def command_of(args: Namespace) -> str:
    """Returns the command that was typed, as far as it matters for the report."""
    lists = {k: " ".join(map(str, getattr(args, k))) for k in ("checkpoint", "simulated", "predicted", "suite")}
    chosen = {"screen": args.screen} | lists | {"seeds": args.seeds, "cells": args.cells, "results": args.results}
    return "cdt-lite evaluate --tasks " + " ".join(f"--{k} {v}" for k, v in chosen.items() if v != "")


def write_results(args: Namespace, say: Callable[[str], None]) -> Path:
    """Does what `cdt-lite evaluate --tasks` asks: reports on a screen, by default with its capsule; see `add_entry`."""
    screen = load_screen(args.screen, **simulation(args.simulated))
    folders: list[str | Path] = list(args.checkpoint) or [capsule_folder(screen)]
    report = report_tasks(screen, folders, seeds=range(args.seeds), n_cells=args.cells, say=say,
                          others={Path(p).stem: _read(p) for p in args.predicted})
    entry = to_entry(report, command_of(args))
    entry["suites"] = {suite: {"version": version(suite), "tasks": {
        title: _suite_means(suite, *cells) for title, cells in report.cells.items()}} for suite in args.suite}
    return add_entry(entry, args.results)


def _suite_means(suite: str, real: AnnData, cells: dict[str, AnnData]) -> dict[str, dict[str, list[Any]]]:
    """A tool's scores of each method's cells, as it names them: mean over targets, and how many targets have one."""
    out = {}
    for method, rows in suite_scores(suite, real, cells).groupby("method", sort=False):
        scores = rows.drop(columns=["method", "target"]).apply(pd.to_numeric, errors="coerce").dropna(axis=1, how="all")
        out[str(method)] = {name: [float(column.mean()), int(column.count())] for name, column in scores.items()}
    return out


def score_files(args: Namespace) -> pd.DataFrame:
    """Does what `cdt-lite evaluate` asks without --tasks: scores files of predicted cells on one side of the split."""
    if not args.predicted:
        raise CDTError("nothing to score: name --predicted files, or pass --tasks to report on a trained model")
    screen, predicted = load_screen(args.screen, **simulation(args.simulated)), {Path(p).stem: _read(p)
                                                                                for p in args.predicted}
    side = named_split(screen)
    test = screen[(side == args.side) | (screen.obs["target_gene"] == "non-targeting").to_numpy()].copy()
    if args.suite:
        return pd.concat([suite_scores(suite, test, predicted) for suite in args.suite], ignore_index=True)
    return evaluate(test, predicted, train=screen[side == "train"].copy(), seed=args.seed)


def _read(path: str) -> AnnData:
    try:
        return ad.read_h5ad(path)
    except Exception as error:  # h5py and anndata raise many kinds
        raise CDTError(f"{path} cannot be read as an .h5ad file: {error}") from error


def add_entry(entry: dict[str, Any], path: str | Path) -> Path:
    """Puts an entry into a results file, beside those of other screens, and writes the page to read next to it.

    Returns:
        The path of the page. Raises CDTError if the file is there but is no results file.
    """
    path, results = Path(path), {}
    if path.is_file():
        try:
            results = dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise CDTError(f"{path} is not a results file ({error}); name another with --results") from error
    results[_title(entry["screen"])] = _plain(entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda m: re.sub(r"\s*\n\s*", " ", m[0]), json.dumps(results, indent=1))
    write_atomically(path, (text + "\n").encode())
    page = path.with_suffix(".md")
    write_atomically(page, markdown(results).encode())
    return page


def _title(screen: dict[str, Any]) -> str:
    """A screen's name; of a simulated one, its world and number of targets, too."""
    options = screen.get("options", {})
    words = [screen.get("name", "screen"), options.get("world", "")]
    words += [f"{options['n_targets']} targets"] if "n_targets" in options else []
    return " ".join(word for word in words if word)


def markdown(results: dict[str, Any]) -> str:
    """Renders a results file as a page: for every screen its facts, its tables and the command that made them."""
    lines = ["# Results", "", "Mean over perturbations [95 % interval: bootstrap over perturbations and seeds; of "
             "fewer than six perturbations it holds less than 95 %]. "
             "The ceiling is a second half of the real cells; correlations and MAE are corrected to full size. A "
             "prediction without noise may pass it. Methods that predict means are given control cells moved to them. "
             "Own gene left out everywhere, controls split in halves."]
    for name, entry in results.items():
        checkpoints = "; ".join(f"{c.get('name', c['preset'])} (weights {c.get('sha256', 'in memory')[:12]}, split: "
                                f"{c['split_verified']})" for c in entry["checkpoints"])
        lines += ["", f"## {name}", "", f"    {entry['command']}", "",
                  f"Split {entry['split']['name']}. Model: {checkpoints}. Seeds {entry['seeds']}: {entry['seeds_are']}."
                  f" {entry['cells_per_perturbation']} sampled cells a perturbation and seed. {entry['seconds']} s. "
                  + ", ".join(f"{k} {v}" for k, v in entry["versions"].items()) + "."]
        lines += ["", entry["note"]] if "note" in entry else []
        for title, task in entry["tasks"].items():
            for group, averages in task["groups"].items():
                lines += ["", f"### Task {title.removeprefix('task ')}: {group} (n = {averages['n']})"]
                for columns in (OF_MEANS, OF_CELLS):
                    lines += _table("method", averages["summary"], columns)
                for ours in (CHANGE, CELLS):
                    lines += _table(f"{ours}, minus", averages[f"{ours}, minus"], OF_MEANS[:1] + OF_MEANS[2:5]
                                    if ours == CHANGE else OF_CELLS[:3])
            lines += [line for note in task.get("notes", []) for line in ("", f"Note: {note}.")]
            lines += _targets(task["perturbations"])
        lines += [line for suite in entry.get("suites", {}).items() for line in _suite(*suite)]
        lines += _quality(entry["quality"])
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _table(corner: str, rows: dict[str, dict[str, list]], columns: Sequence[str]) -> list[str]:
    lines = ["", "| " + " | ".join([corner, *(SHORT[c] for c in columns)]) + " |", "|---" * (len(columns) + 1) + "|"]
    for method, row in rows.items():
        cells = [f"{_number(v[0])} [{_number(v[1])}, {_number(v[2])}]" if v[0] is not None else "" for v in
                 (row[c] for c in columns)]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def _suite(name: str, suite: dict[str, Any]) -> list[str]:
    lines = ["", f"### {name} {suite['version']} on cells of the first seed", "",
             "Its own names and conventions; real controls on both sides, so their shared noise is in it. Rivals are "
             "real training cells: controls, and those of the same perturbation (unseen: of all others of its sign)."]
    for title, methods in suite["tasks"].items():
        lines += ["", "| " + " | ".join([f"{title}: mean over targets (targets)", *methods]) + " |",
                  "|---" * (len(methods) + 1) + "|"]
        for score in dict.fromkeys(name for scores in methods.values() for name in scores):
            cells = [f"{_number(s[score][0])} ({s[score][1]})" if score in s else "" for s in methods.values()]
            lines.append(f"| {score} | " + " | ".join(cells) + " |")
    return lines


def _targets(rows: list[dict[str, Any]]) -> list[str]:
    by: dict[tuple[str, int], dict[str, dict]] = {}
    for row in rows:
        by.setdefault((row["target"], row["sign"]), {})[row["method"]] = row
    shown = [(m, s) for s, methods in (("pearson_delta", [CHANGE, CELLS, "perturbed mean", "replicate mean", "linear",
                                                          "ceiling"]), ("mae", [CHANGE, "control", "perturbed mean"]))
             for m in methods if any(m in methods_of for methods_of in by.values())]
    head = ["perturbation", "cells", "changed genes", *(f"{SHORT[s]}: {m}" for m, s in shown)]
    lines = ["", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for (target, sign), methods in by.items():
        one = methods[CHANGE]
        changed = _number(one["n_changed"]) + (" (null)" if one["null"] else "")
        scores = [_number(methods.get(m, {}).get(s)) for m, s in shown]
        lines.append("| " + " | ".join([f"{target} {sign:+d}" + ("" if one["measured"] else ", not measured"),
                                        f"{one['n_real']:.0f}", changed, *scores]) + " |")
    return lines


def _quality(quality: dict[str, Any]) -> list[str]:
    if not quality:
        return []
    lines = ["", "### Task 4: do the cells look real? Held-out replicates", "",
             "| density given depth | bits per gene, mean over cells | model minus it, mean over perturbations |",
             "|---|---|---|"]
    for name, (bits, difference, low, high) in quality["bits"].items():
        gap = "" if name == "model" else f"{difference:+.4f} [{low:+.4f}, {high:+.4f}]"
        lines.append(f"| {name} | {bits:.4f} | {gap} |")
    curve = zip(quality["curve"]["share_hidden"], quality["curve"]["bits_per_hidden_gene"], strict=True)
    lines += ["", "H curve, bits per hidden gene at a share of hidden genes: "
              + ", ".join(f"{share:.2f}: {bits:.3f}" for share, bits in curve) + "."]
    methods = list(next(iter(quality["likeness"].values())))
    lines += ["", "| statistic | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for statistic, row in quality["likeness"].items():
        cells = [f"{v[0]:.3f} [{v[1]:.3f}, {v[2]:.3f}]" for v in row.values()]
        lines.append(f"| {statistic} | " + " | ".join(cells) + " |")
    return lines
