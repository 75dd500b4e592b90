"""What scores say of a prediction and of its rivals, and who is not fooled by them, in sentences."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from cdt_lite.data.layout import neighbours
from cdt_lite.evaluation.metrics import pearson_delta
from cdt_lite.evaluation.summary import summarise
from cdt_lite.teaching.sentences import CLOSE, DIGITS, LITTLE, NAMES, goes_along, listed, number, what_it_does

ALIKE = 0.8  # r of two effects, from which one could have told the other
ROWS = {"capsule, change": "capsule (mean)", "capsule": "capsule (cells)", "table alone": "table alone",
        "scgen": "scGen", "state, change": "STATE", "state": "STATE, levels",
        **{name: NAMES.get(name, name) for name in ("replicate mean", "perturbed mean", "control")}
        }  # what results.json calls a row: what we call it
ERROR = "mean absolute error"
SCORES = {"pearson_delta": "Pearson's r", "mae": ERROR, "systema_pearson": "Systema",
          "discrimination_score_l1": "discrimination"}
TABLE_DIGITS = {ERROR: 3, "energy distance": 3, "bits a gene": 3}  # of others 2


def right_way(real: Mapping[str, pd.DataFrame], predicted: Mapping[str, pd.DataFrame],
              rival: Mapping[str, pd.DataFrame], n: int = 10) -> str:
    """Says how many of the genes that a perturbation moves most go the right way in the prediction.

    A predicted change that is written 0.00 goes no way.

    Args:
        real: Changes, perturbations x genes, by what the predictor knew of them, in words.
        predicted: The same of the prediction.
        rival: The same of what other perturbations do on average.
        n: Genes a perturbation.
    """
    said, others, right = [], [], {}
    for kind, table in real.items():
        easy = 0
        for name, row in table.iterrows():
            largest = row.loc[row.drop(name[0], errors="ignore").abs().nlargest(n).index]
            right[name], own = (int(goes_along(largest, guess[kind].loc[name, largest.index]).sum())
                                for guess in (predicted, rival))
            easy += own
        said.append(f"{np.mean([right[name] for name in table.index]):.1f} ({kind})")
        others.append(f"{easy / len(table):.1f}")
    ends = [[f"{name[0]} {name[1]:+d}" for name in right if right[name] == end(right.values())] for end in (max, min)]
    return (f"Of the {n} genes that a perturbation really moves most, the prediction moves "
            f"{listed(said)} the right way; what others do on average moves {listed(others)}. Most for "
            f"{listed(ends[0])} ({max(right.values())}), fewest for {listed(ends[1])} ({min(right.values())}).")


def told_apart(scores: pd.Series, method: str, by: str, higher_is_better: bool = True) -> str:
    """Says which answers a score cannot tell from a method's, and which it puts behind.

    An answer is as good if it is better, or worse by less than a twentieth.

    Args:
        scores: Of the method and of answers that know nothing of the target, by name; NaN: no score.
        method: The one that is spoken of.
        by: What to call the score, after "By".
        higher_is_better: Otherwise it is an error.
    """
    own = scores[method]
    lead = ((own - scores.drop(method)) * (1 if higher_is_better else -1)).sort_values()  # the best first
    digits = 2 if higher_is_better else 3
    names = {}
    for name in lead.dropna().index:
        names[name] = f"{NAMES.get(name, name)} ({number(scores[name], digits)})"
    good = [names[name] for name in names if lead[name] < LITTLE * abs(own)]
    behind = [names[name] for name in names if lead[name] >= LITTLE * abs(own)]
    none = [NAMES.get(name, name) for name in lead.index[lead.isna()]]
    said = [f"as good, or nearly: {listed(good)}" if good else "no other is as good"]
    said += [f"behind: {listed(behind)}"] if behind else []
    said += [f"without a score: {listed(none)}"] if none else []
    return f"By {by} the {method} has {number(own, digits)}; {'; '.join(said)}."


def silence(scores: pd.DataFrame, methods: Sequence[str]) -> str:
    """Says for how many perturbations no change errs less than each method.

    Args:
        scores: From `evaluate`, with rows "control".
        methods: Whom to compare.
    """
    error = scores.pivot_table("mae", ["target", "sign"], "method")
    said = []
    for method in methods:
        less = int((error["control"] < error[method]).sum())
        said.append(f"than the {method} for {less} of {int(error[method].notna().sum())}")
    return f"No change errs less {listed(said)} perturbations."


def leaders(scores: pd.DataFrame, methods: Sequence[str], metric: str = "pearson_delta") -> str:
    """Says for how many perturbations each of some methods has the best score, as it is written.

    Args:
        scores: From `evaluate`.
        methods: Who takes part.
        metric: "pearson_delta", or "mae", of which less is better.
    """
    table = scores[scores["method"].isin(methods)].pivot_table(metric, ["target", "sign"], "method")
    table = table.round(DIGITS.get(metric, 2)) * (-1 if metric == "mae" else 1)
    alone = table.eq(table.max(axis=1), axis=0).sum(axis=1) == 1
    counts = table.idxmax(axis=1).where(alone, "a tie").value_counts()
    return listed([f"{NAMES.get(name, name)} ({n})" for name, n in counts.items()])


def flattered(scores: pd.DataFrame, methods: Sequence[str]) -> str:
    """Says what sharing the controls with the truth adds to the correlation of each method.

    Args:
        scores: From `evaluate`, with the columns pearson_delta and pearson_delta_shared.
        methods: Baselines: of a model's table nobody knows on which controls it stands.
    """
    gains = scores.assign(gain=scores["pearson_delta_shared"] - scores["pearson_delta"])
    gain = gains.groupby("method")["gain"].mean().loc[list(methods)]
    said = listed([f"{number(value)} ({name})" for name, value in gain.items()])
    moral = "they flatter, whatever the method knows" if gain.min() > 0.01 else (
        "they do not flatter here" if gain.max() < 0.01 else "whom they flatter depends on what is predicted")
    if gain.abs().max() < 2 * CLOSE:
        moral = "on this screen they flatter little"
    return f"Shared controls add to Pearson's r: {said}. So {moral}."


def real_cells_score(scores: pd.DataFrame, copy: str) -> str:
    """Says what the real cells themselves score as a prediction, and who passes half against half.

    Args:
        scores: From `evaluate`, with rows "ceiling".
        copy: The method that handed in the real cells.
    """
    means = summarise(scores, metrics=["pearson_delta"]).set_index("method")["mean"].dropna()
    half = means.pop("ceiling")
    best = means.pop(copy)
    past = [f"the {name} ({number(value)})" for name, value in means.items() if value > half]
    verb = "pass" if len(past) > 1 else "passes"
    return (f"The real cells, handed in as a prediction of themselves, have r = {number(best)}: nobody gets there, for "
            f"their own noise stands on both sides. A repeat of the experiment would have {number(half)} (half against "
            f"half); {listed(past or ['nobody'])} {verb} it.")


def furthest(table: pd.DataFrame, method: str) -> tuple[str, int]:
    """Returns the perturbation, among those that can be judged, where a method stays furthest below half against half.

    Args:
        table: From `verdicts`.
        method: Judged there.
    """
    kept = table[table[method] != "cannot be judged"]
    gap = (kept["half against half, r"] - kept[f"{method}, r"]).idxmax()
    return str(gap[1]), int(gap[2])


def shown_before(name: tuple[str, int], change: pd.Series, trained: pd.DataFrame, r: float) -> str:
    """Says whether training held an effect like one that was predicted, and how the prediction did.

    Args:
        name: The perturbation.
        change: Its real change, by gene.
        trained: Mean changes in training, perturbations x genes.
        r: Pearson's r of its prediction.
    """
    own = [place for place, gene in enumerate(change.index) if gene == name[0]]
    others = trained[trained.index.get_level_values(0) != name[0]]
    like = others.apply(lambda row: pearson_delta(change.to_numpy(), row.to_numpy(), own), axis=1)
    best, nearest = like.max(), like.idxmax()[0]
    known = best >= ALIKE
    moral = "it could have been told from that" if known else "nothing in training showed it"
    verdict = "and its direction was" if r >= best - LITTLE else "and its direction was not"
    found = f", {verdict} (r = {number(r)})" if known else f" (prediction: r = {number(r)})"
    return (f"Of {len(others)} effects in training the one most like that of {name[0]} is that of "
            f"{nearest} (r = {number(best)}): {moral}{found}.")


def benchmark_table(path: Path) -> pd.DataFrame:
    """Returns the table of the field on the real screen, task 1: some methods, four scores, each with its interval.

    Args:
        path: figures/results.json, or a file like it.

    Returns:
        (method, "value" or "low" or "high") x scores; empty where there is no such file. Its attrs hold, as "minus",
        the differences of the capsule from others.
    """
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "papalexi2021" not in entries:
        return pd.DataFrame()
    found = next(iter(entries["papalexi2021"]["tasks"].values()))["groups"]["all"]
    summary, rows = found["summary"], {}
    for name, shown in ROWS.items():
        for i, part in enumerate(("value", "low", "high")):
            rows[shown, part] = {words: summary[name][metric][i] for metric, words in SCORES.items()}
    table = pd.DataFrame(rows).T.astype(float)
    table.attrs["minus"] = {ROWS[name]: gaps for name, gaps in found["capsule, change, minus"].items() if name in ROWS}
    return table


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a table of the field as it is read: "0.41 [0.17, 0.70]", methods x scores."""
    value, low, high = (table.xs(part, level=1).to_numpy() for part in ("value", "low", "high"))
    names = table.index.get_level_values(0).unique()
    shown = pd.DataFrame("", names, table.columns)
    for i, j in zip(*np.nonzero(~np.isnan(value)), strict=True):
        digits = TABLE_DIGITS.get(table.columns[j], 2)
        parts = [number(numbers[i, j], digits) for numbers in (value, low, high)]
        shown.iloc[i, j] = f"{parts[0]} [{parts[1]}, {parts[2]}]"
    return shown


def benchmark_summary(table: pd.DataFrame, method: str = "capsule (mean)") -> str:
    """Says who leads by each score of a table of the field, whether surely, and who is of no use.

    Args:
        table: From `benchmark_table`.
        method: The one whose differences from the others it holds.
    """
    if table.empty:
        return "figures/results.json is not here: cdt-lite evaluate --tasks makes it."
    value, gaps, said = table.xs("value", level=1), table.attrs["minus"], []
    for metric, name in SCORES.items():
        ranked = value[name].sort_values(ascending=name == ERROR).index
        best, rival = ranked[0], next(other for other in ranked if other in gaps)
        _, low, high, *_ = gaps[rival][metric]
        sure = "surely" if low > 0 or high < 0 else "not surely"
        led = number(value.loc[best, name], TABLE_DIGITS.get(name, 2))
        behind = rival if best == method else method
        said.append(f"by {name} {NAMES.get(best, f'the {best}')} leads ({led}; {sure} before the {behind})")
    useless = value.index[value[ERROR] > value.loc["no change", ERROR]].tolist()
    start = "; ".join(said)
    return f"{start[0].upper()}{start[1:]}." + (f" More error than no change: {listed(useless)}." if useless else "")


def explain_failure(name: tuple[str, int], screen: AnnData, trained: Sequence[str]) -> str:
    """Says what the perturbed gene does; of a simulated one, what was planted, and which training targets do the same.

    Args:
        name: Target and sign.
        screen: The whole screen.
        trained: Targets of the training side.
    """
    target, sign = name
    if "truth" not in screen.uns:
        return f"{target}: {what_it_does(target, screen) or 'nothing is known of it'}."
    planted = screen.uns["truth"]["perturbations"]
    row = planted[(planted["target_gene"] == target) & (planted["sign"] == sign)].iloc[0]
    if not row["gain"]:
        return f"The truth: {target} was planted to do nothing, so whatever is predicted is wrong."
    like = [gene for gene in neighbours(screen, [target]).get(target, []) if gene in trained]
    does = "so does" if len(like) == 1 else "so do"
    known = f"{does} {listed(like)}, of training" if like else "no target in training does"
    return f"The truth: {target} drives {row['program']}; {known}."
