"""How good the shipped models are, in five lines: every number and every verdict from the records of results."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cdt_lite.report.tasks import CHANGE

REAL, SIMULATED = "papalexi2021", "simulated regulatory 30 targets"
CELL_TYPE = "simulated, an unseen cell type regulatory 30 targets"
PAIRS = "simulated, pairs of targets regulatory 30 targets"
SCORES = {  # what it is called, digits, whether more is better
    "pearson_delta": ("Pearson's r", 2, True),
    "mae": ("mean absolute error", 3, False),
    "systema_pearson": ("Systema's r", 2, True),
    "discrimination_score_l1": ("discrimination", 2, True),
}
RIVALS = {
    "replicate mean": "the mean of the other replicates",
    "perturbed mean": "the average knockout",
    "linear": "a linear model",
    "kNN": "kNN",
    "additive": "the sum of both measured changes",
}
AGREEMENT, ENERGY = "gene-gene correlations, agreement", "energy distance"
BY_GENE = "negative binomial, condition"


def how_good(results: Mapping[str, Any], densities: Mapping[str, Any]) -> str:
    """Returns the five lines, as a list in Markdown.

    Args:
        results: What `write_report` wrote, with the contexts and pairs of the benchmarks.
        densities: What `benchmarks.densities` wrote.
    """
    lines = [
        _seen(results[REAL]),
        _unseen(results[REAL]),
        _cells(results[REAL]),
        _simulated(results),
        _density(densities),
    ]
    return "".join(f"- {line}\n" for line in lines)


def number(value: float, digits: int) -> str:
    """Writes a number below 1 without its 0."""
    text = f"{abs(value):.{digits}f}"
    below = value < 0 and float(text) > 0
    return "−" * below + text.removeprefix("0")


def beside(task: Mapping[str, Any], model: str, rival: str, called: str | None = None) -> str:
    """Says in which scores a model's mean changes are ahead of a rival, level with it, or behind, by the interval.

    Args:
        task: Averages of a group of perturbations, with the model's differences.
        model: What the report calls it.
        rival: A row of the report.
        called: What the rival is called, if not as in `RIVALS`.
    """
    ours = CHANGE.format(model)
    places: dict[str, list[str]] = {"ahead of": [], "level with": [], "behind": []}
    for metric, (name, digits, more_is_better) in SCORES.items():
        _, low, high, *_ = task[f"{ours}, minus"][rival][metric]
        place = "level with"
        if low > 0 or high < 0:
            place = "ahead of" if (low > 0) == more_is_better else "behind"
        both = (number(task["summary"][row][metric][0], digits) for row in (ours, rival))
        places[place].append("{} ({} against {})".format(name, *both))
    said = [f"{place} it in {', '.join(names)}" for place, names in places.items() if names]
    return "; ".join(said).replace(" it in", f" {called or RIVALS[rival]} in", 1)


def _group(entry: Mapping[str, Any], begins: str) -> Mapping[str, Any]:
    (task,) = (task for title, task in entry["tasks"].items() if title.startswith(begins))
    return task["groups"]["all"]


def _models(*entries: Mapping[str, Any]) -> str:
    return " or ".join(_counted(n) for n in sorted({len(entry["checkpoints"]) for entry in entries}))


def _counted(n: int) -> str:
    return "one trained model" if n == 1 else f"{n} training seeds"


def _seen(entry: Mapping[str, Any]) -> str:
    task = _group(entry, "task 1")
    return (f"**Knockouts seen in other replicates** ({task['n']}, real cells, {_models(entry)}): "
            f"{beside(task, entry['model'], 'replicate mean')}.")


def _unseen(entry: Mapping[str, Any]) -> str:
    task, ours = _group(entry, "task 2"), CHANGE.format(entry["model"])
    (detail,) = (task for title, task in entry["tasks"].items() if title.startswith("task 2"))
    rows = pd.DataFrame(detail["perturbations"])
    mine = rows[rows["method"] == ours].sort_values("pearson_delta", ascending=False)
    each = [f"{target} {number(r, 2)}" for target, r in zip(mine["target"], mine["pearson_delta"], strict=True)]
    errors = {row: number(task["summary"][row]["mae"][0], 3) for row in ("control", "pathway neighbour")}
    return (f"**Knockouts nobody made** ({task['n']}, real cells, {_models(entry)}; r: {', '.join(each)}): "
            f"{beside(task, entry['model'], 'perturbed mean')}. No change errs by {errors['control']}, who names the "
            f"pathway by hand by {errors['pathway neighbour']}.")


def _cells(entry: Mapping[str, Any]) -> str:
    likeness, model = entry["quality"]["likeness"], entry["model"]
    agree, energy = likeness[AGREEMENT], likeness[ENERGY]
    summary = _group(entry, "task 1")["summary"]
    aucs = [number(summary[row]["two_sample_auc"][0], 2) for row in (model, "replicate mean", "ceiling")]
    return (f"**Cells, not only means**: genes vary together as in training cells to {number(agree[model][0], 2)} "
            f"(real cells {number(agree['real'][0], 2)}, made gene by gene {number(agree[BY_GENE][0], 2)}); "
            f"energy distance {number(energy[model][0], 3)} (real {number(energy['real'][0], 3)}, gene by gene "
            f"{number(energy[BY_GENE][0], 3)}); a classifier's AUC is {aucs[0]} (real {aucs[2]}, control cells moved "
            f"to the mean {aucs[1]}).")


def _simulated(results: Mapping[str, Any]) -> str:
    entry, cells, pairs = results[SIMULATED], results[CELL_TYPE], results[PAIRS]
    types = beside(_group(cells, "task 5"), cells["model"], "replicate mean", "changes carried over from other types")
    task = _group(entry, "task 3")
    ours = beside(task, entry["model"], "linear")
    return (f"**Simulated cells** ({_models(entry, cells, pairs)}): of {task['n']} knockouts never made, {ours}. "
            f"In a cell type known by its controls alone, {types}. Of pairs nobody made, "
            f"{beside(_group(pairs, 'task 3'), pairs['model'], 'additive')}.")


def _density(densities: Mapping[str, Any]) -> str:
    table = densities["table"]
    costs = {row["density"]: number(row["nats_per_gene"], 3) for row in table}
    scvi = next(row for row in table if row["density"] == "scVI")
    gap = [number(scvi[name], 3) for name in ("model_minus_it", "low", "high")]
    models = _counted(len(densities["model, by seed"]))
    return (f"**As a density** of held-out real cells ({models}): {costs['model']} nats a gene, scVI {costs['scVI']} "
            f"(difference {gap[0]} [{gap[1]}, {gap[2]}]), a negative binomial with factors "
            f"{costs['negative-binomial factors']}, one that knows the knockout alone {costs[BY_GENE]}.")
