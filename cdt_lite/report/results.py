"""What is kept of reports: averages with intervals as JSON, several screens in one file, and a page to read."""

import json
import platform
import re
import time
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
from cdt_lite.evaluation.suites import suite_scores
from cdt_lite.files import write_atomically
from cdt_lite.report.tasks import CELLS, CHANGE, ReportOptions, check_split, report_tasks
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
COMPARED = {CHANGE: [OF_MEANS[0], *OF_MEANS[2:5]], CELLS: OF_CELLS[:3]}
PER_TARGET = {
    "pearson_delta": [CHANGE, CELLS, "perturbed mean", "replicate mean", "linear", "ceiling"],
    "mae": [CHANGE, "control", "perturbed mean"],
}
HEAD = """# Results

Mean over perturbations [95 % interval: bootstrap over perturbations and seeds; of fewer than six perturbations it holds \
less than 95 %]. The ceiling is a second half of the real cells; correlations and MAE are corrected to full size. A \
prediction without noise may pass it. Methods that predict means are given control cells moved to them. Own gene left out \
everywhere, controls split in halves."""
MODEL = "{name} (weights {sha256:.12}, split: {split_verified})"
FACTS = """Split {split[name]}. Model: {models}. Seeds {seeds}: {seeds_are}. {cells_per_perturbation} sampled cells a \
perturbation and seed. {seconds} s. {packages}."""
SUITE = """Its own names and conventions; real controls on both sides, so their shared noise is in it. Rivals are real \
training cells: controls, and those of the same perturbation (unseen: of all others of its sign)."""


def write_report(
    screen: AnnData, checkpoints: Sequence[str | Path], options: ReportOptions, *,
    path: str | Path, command: str, say: Callable[[str], None],
) -> Path:
    """Reports on a screen with trained models, and adds that to a file of results; see `add_entry`.

    Args:
        screen: Raw counts, in the layout of `load_screen`.
        checkpoints: Folders of trained models; several: training seeds of one recipe.
        options: Seeds, cells, and who else is in the table.
        path: The JSON file.
        command: What was typed to make the report.
        say: Is told what is going on.

    Raises:
        CDTError: A test perturbation was in training, or the screen does not fit the model.
    """
    began, side = time.perf_counter(), named_split(screen)
    models, about = [], []
    for folder in map(Path, checkpoints):
        models.append(Checkpoint.load(folder))
        verified = check_split(models[-1], screen, side)
        digest = read_verified(folder)[0]["sha256"]
        about.append({"name": folder.name, "sha256": digest, "split_verified": verified})
    found = report_tasks(screen, side, models, options, say)
    known = dict(screen.uns.get("screen", {}))
    one = "sampling seeds of one trained model, each with its own split of the controls"
    entry = {
        "command": command,
        "screen": {key: known[key] for key in ("name", "version", "sha256", "options") if key in known},
        "split": {"name": f"named_split({known.get('name', 'screen')})"},
        "checkpoints": about,
        "seeds": list(range(len(models) if len(models) > 1 else options.seeds)),
        "seeds_are": "training seeds" if len(models) > 1 else one,
        "cells_per_perturbation": options.n_cells,
        "versions": {"cdt_lite": __version__, "python": platform.python_version()},
    }
    for package in ("torch", "numpy", "scipy", "anndata"):
        entry["versions"][package] = version(package)
    return add_entry({**entry, **found, "seconds": round(time.perf_counter() - began)}, path)


def score(
    screen: AnnData,
    predicted: Mapping[str, AnnData],
    *,
    side: str = "held_out",
    suites: Sequence[str] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """Scores predicted cells on one side of a screen's named split, by `evaluate` or by the field's own tools.

    Args:
        screen: Raw counts, in the layout of `load_screen`.
        predicted: Predicted cells by method.
        side: "held_out" or "unseen".
        suites: "cell-eval", "cell-eval2": in place of `evaluate`.
        seed: Same seed, same table.
    """
    sides = named_split(screen)
    is_control = (screen.obs["target_gene"] == CONTROL).to_numpy()
    test = screen[(sides == side) | is_control].copy()
    if suites:
        return pd.concat([suite_scores(suite, test, predicted) for suite in suites], ignore_index=True)
    return evaluate(test, predicted, train=screen[sides == "train"].copy(), seed=seed)


def add_entry(entry: dict[str, Any], path: str | Path) -> Path:
    """Puts an entry into a results file, beside those of other screens, and writes the page to read next to it.

    Raises:
        CDTError: The file is there but is no results file.
    """
    path, results = Path(path), {}
    if path.is_file():
        try:
            results = dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise CDTError(f"{path} is not a results file ({error}); name another with --results") from error
    results[_title(entry["screen"])] = _plain(entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1)
    text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda inner: re.sub(r"\s*\n\s*", " ", inner[0]), text)
    write_atomically(path, f"{text}\n".encode())
    page = path.with_suffix(".md")
    write_atomically(page, markdown(results).encode())
    return page


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """Numbers of four digits, and null where there is none."""
    return json.loads(
        json.dumps(entry),
        parse_float=lambda text: float(f"{float(text):.4g}"),
        parse_constant=lambda text: None,
    )


def _title(screen: dict[str, Any]) -> str:
    """A screen's name; of a simulated one, its world and number of targets, too."""
    options = screen.get("options", {})
    words = [screen.get("name", "screen"), options.get("world", "")]
    if "n_targets" in options:
        words.append(f"{options['n_targets']} targets")
    return " ".join(filter(None, words))


def markdown(results: dict[str, Any]) -> str:
    """Renders a results file as a page: for every screen its facts, its tables and the command that made them."""
    blocks = [HEAD]
    for name, entry in results.items():
        models = "; ".join(MODEL.format(**about) for about in entry["checkpoints"])
        packages = ", ".join(f"{package} {version}" for package, version in entry["versions"].items())
        facts = FACTS.format(models=models, packages=packages, **entry)
        blocks += [f"## {name}", f"    {entry['command']}", facts]
        if "note" in entry:
            blocks.append(entry["note"])
        for title, task in entry["tasks"].items():
            blocks += _task(title, task)
        for suite, scores in entry["suites"].items():
            blocks += _suite(suite, scores)
        if entry["quality"]:
            blocks += _quality(**entry["quality"])
    return "\n\n".join(blocks) + "\n"


def _grid(table: pd.DataFrame, corner: str) -> str:
    return table.rename_axis(corner).reset_index().to_markdown(index=False, disable_numparse=True)


def _number(value: float | None) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


def _interval(numbers: list) -> str:
    value, low, high = map(_number, numbers[:3])
    return f"{value} [{low}, {high}]" if value else ""


def _task(title: str, task: dict[str, Any]) -> list[str]:
    blocks = []
    for group, averages in task["groups"].items():
        blocks.append(f"### T{title[1:]}: {group} (n = {averages['n']})")
        summary = pd.DataFrame(averages["summary"]).T.map(_interval).rename(columns=SHORT)
        for scores in (OF_MEANS, OF_CELLS):
            blocks.append(_grid(summary[[SHORT[name] for name in scores]], "method"))
        for ours, scores in COMPARED.items():
            gaps = pd.DataFrame(averages[f"{ours}, minus"]).T[scores].map(_interval)
            blocks.append(_grid(gaps.rename(columns=SHORT), f"{ours}, minus"))
    blocks += [f"Note: {note}." for note in task["notes"]]
    return [*blocks, _targets(pd.DataFrame(task["perturbations"]))]


def _targets(rows: pd.DataFrame) -> str:
    keys = ["target", "sign"]
    ours = rows[rows["method"] == CHANGE].set_index(keys)
    null = ours["null"].map({True: " (null)", False: ""})
    table = pd.DataFrame({"cells": ours["n_real"].map("{:.0f}".format)})
    table["changed genes"] = ours["n_changed"].map(_number) + null
    for metric, methods in PER_TARGET.items():
        by_method = rows.pivot(index=keys, columns="method", values=metric)
        for method in methods:
            if method in by_method:
                table[f"{SHORT[metric]}: {method}"] = by_method[method].map(_number)
    names = []
    for (target, sign), measured in ours["measured"].items():
        names.append(f"{target} {sign:+d}{'' if measured else ', not measured'}")
    return _grid(table.set_axis(names), "perturbation")


def _suite(name: str, suite: dict[str, Any]) -> list[str]:
    blocks = [f"### {name} {suite['version']} on cells of the first seed", SUITE]
    for title, methods in suite["tasks"].items():
        table = pd.DataFrame(methods).map(lambda found: f"{_number(found[0])} ({found[1]})", na_action="ignore")
        blocks.append(_grid(table.fillna(""), f"{title}: mean over targets (targets)"))
    return blocks


def _quality(bits: dict[str, list], curve: dict[str, list], likeness: dict[str, Any]) -> list[str]:
    rows = {}
    for name, (cost, gap, low, high) in bits.items():
        against = "" if name == "model" else f"{gap:+.4f} [{low:+.4f}, {high:+.4f}]"
        rows[name] = [f"{cost:.4f}", against]
    heads = ["bits per gene, mean over cells", "model minus it, mean over perturbations"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=heads)
    points = zip(curve["share_hidden"], curve["bits_per_hidden_gene"], strict=True)
    text = ", ".join(f"{share:.2f}: {cost:.3f}" for share, cost in points)
    return [
        "### Task 4: do the cells look real? Held-out replicates",
        _grid(table, "density given depth"),
        f"H curve, bits per hidden gene at a share of hidden genes: {text}.",
        _grid(pd.DataFrame(likeness).T.map(_interval), "statistic"),
    ]
