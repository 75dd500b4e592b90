"""The page of results: every number of a results file, in tables to read."""

from typing import Any

import pandas as pd

from cdt_lite.evaluation.summary import OWN
from cdt_lite.files import in_markdown
from cdt_lite.report.tasks import CHANGE, CONTEXT, RANDOM, SHIPPED

SHORT = {
    "pearson_delta": "Pearson of change",
    "pearson_delta_shared": "the same, shared controls (trap)",
    "pearson_composition": "the same, by size factors",
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
OF_MEANS, OF_CELLS = list(SHORT)[:7], list(SHORT)[7:]
SHORT["own_predicted"] = "own gene"
PER_TARGET = {  # {} is the model
    "pearson_delta": [CHANGE, "{}", "table alone", "pathway neighbour", "perturbed mean", "replicate mean", "linear",
                      "ceiling"],
    "mae": [CHANGE, "table alone", "pathway neighbour", "control", "perturbed mean"],
    "own_predicted": [CHANGE, "perturbed mean"],
}
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


GUIDES = """How much of the effect of its siblings (the other guides of its target) each guide has, over all \
replicates; targets whose guides do something. A dud surely does less than half."""


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
        blocks += [f"Left out: {reason}." for reason in entry.get("left_out", [])]
        for title, task in entry["tasks"].items():
            blocks += _task(title, task, entry.get("model", SHIPPED))
        for suite, scores in entry.get("suites", {}).items():
            blocks += _suite(suite, scores)
        if entry.get("guides"):
            blocks += ["### Guides", GUIDES, _guides(pd.DataFrame(entry["guides"]))]
        if entry["quality"]:
            titles = {RANDOM: "Random cells of seen perturbations", CONTEXT: "An unseen context"}
            tested = next((titles[title] for title in entry["tasks"] if title in titles), "Held-out replicates")
            blocks += _quality(tested, **entry["quality"])
    return "\n\n".join(blocks) + "\n"


def _grid(corner: str, table: pd.DataFrame) -> str:
    table = table.rename(columns=SHORT).rename_axis(corner).reset_index()
    return table.to_markdown(index=False, disable_numparse=True)


def _number(value: float | None) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


def _interval(numbers: list | float) -> str:
    if not isinstance(numbers, list):  # older results do not know this score
        return ""
    value, low, high = map(_number, numbers[:3])
    return f"{value} [{low}, {high}]" if value else ""


def _task(title: str, task: dict[str, Any], model: str) -> list[str]:
    blocks, change = [], CHANGE.format(model)
    for group, averages in task["groups"].items():
        blocks.append(f"### {title.capitalize()}: {group} (n = {averages['n']})")
        for corner, rows, scores in (
            ("method", "summary", OF_MEANS),
            ("method", "summary", OF_CELLS),
            (f"{change}, minus", f"{change}, minus", [OF_MEANS[0], *OF_MEANS[2:6]]),
            (f"{model}, minus", f"{model}, minus", OF_CELLS[:3]),
        ):
            shown = pd.DataFrame(averages[rows]).T.reindex(columns=scores).dropna(axis=1, how="all")
            blocks.append(_grid(corner, shown.map(_interval)))
    if spared := task.get("without duds"):
        table = pd.DataFrame(spared["summary"]).T.reindex(columns=OF_MEANS).dropna(axis=1, how="all")
        duds = ", ".join(map(in_markdown, spared["duds"]))
        blocks.append(f"The same without the cells of duds ({duds}), in training, truth and tables; the model was "
                      "trained with them:")
        blocks.append(_grid("method", table.map(_interval)))
    blocks += [f"Note: {note}." for note in task["notes"]]
    return [*blocks, _per_target(pd.DataFrame(task["perturbations"]), model)]


def _per_target(rows: pd.DataFrame, model: str) -> str:
    """A row a perturbation, the largest first: by what "no change" misses."""
    keys = ["target", "sign"]
    ours = rows[rows["method"] == CHANGE.format(model)].set_index(keys)
    if "mae" in rows:
        size = rows[rows["method"] == "control"].set_index(keys)["mae"].reindex(ours.index)
        ours = ours.loc[size.sort_values(ascending=False, kind="stable").index]
    table = pd.DataFrame({"cells": ours["n_real"].map("{:.0f}".format)})
    null = ours["null"].map({True: " (null)", False: ""})
    table["changed genes"] = ours["n_changed"].map(_number) + null
    if OWN[0] in rows:  # older results do not know it
        table["own gene: real"] = ours[OWN[0]].map(_number)
    for metric, methods in PER_TARGET.items():
        if metric not in rows:
            continue
        names = [method.format(model) for method in methods]
        shown = rows.pivot(index=keys, columns="method", values=metric).reindex(index=ours.index, columns=names)
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


def _guides(rows: pd.DataFrame) -> str:
    strengths = [_interval(list(numbers)) for numbers in zip(rows["strength"], rows["low"], rows["high"], strict=True)]
    table = pd.DataFrame({"cells": rows["cells"].map(str), "share of its siblings' effect": strengths,
                          "verdict": rows["dud"].map({True: "dud", False: ""})})
    return _grid("guide", table.set_axis([in_markdown(guide) for guide in rows["guide"]]))


def _quality(tested: str, bits: dict[str, list], curve: dict[str, list], likeness: dict[str, Any]) -> list[str]:
    rows = []
    for name, (cost, gap, low, high) in bits.items():
        against = "" if name == "model" else f"{gap:+.4f} [{low:+.4f}, {high:+.4f}]"
        rows.append([name, f"{cost:.4f}", against])
    heads = ["", "bits per gene, mean over cells", "model minus it, mean over perturbations"]
    points = map("{:.2f}: {:.3f}".format, curve["share_hidden"], curve["bits_per_hidden_gene"])
    return [
        f"### Task 4: do the cells look real? {tested}",
        _grid("density given depth", pd.DataFrame(rows, columns=heads).set_index("")),
        f"H curve, bits per hidden gene at a share of hidden genes: {', '.join(points)}.",
        _grid("statistic", pd.DataFrame(likeness).T.map(_interval)),
    ]
