"""What was found, in a sentence written from the numbers."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from cdt_lite.evaluation.metrics import METRICS
from cdt_lite.evaluation.summary import compare, summarise

NAMES = {"pearson_delta": "Pearson's r", "pearson_composition": "Pearson's r by quiet size factors",
         "mae": "the mean absolute error", "ceiling": "half against half", "control": "no change"}
DIGITS = {"mae": 3}  # of other scores 2
LITTLE = 0.05  # a share that is not worth a word
BETTER, LEVEL, WORSE = "better than", "level with", "worse than"
CLEARLY = 1.25  # as many genes again by a quarter
CLOSE = 0.02  # of one score that has no interval: no difference
STILL = 0.005  # change in log1p units that is written 0.00
FEW = 6  # perturbations, below which a bootstrap interval is too narrow


def listed(words: Sequence[str]) -> str:
    """Writes a list: "a", "a and b", "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def number(value: float, digits: int = 2) -> str:
    """Writes a number, and says where one that would look like zero is none."""
    if np.isnan(value):
        return "undefined"
    if value and abs(value) < 0.5 * 10**-digits:
        return "just above 0" if value > 0 else "just below 0"
    return f"{value:.{digits}f}".replace("-", "−")


def what_it_does(gene: str, screen: AnnData) -> str:
    """Says in a few words what a gene does, or what a simulated one was planted to do; nothing where it is not known.

    Source: summaries of NCBI Gene.
    """
    truth = screen.uns.get("truth")
    if truth is None:
        known = json.loads((Path(__file__).parent / "genes.json").read_text(encoding="utf-8"))
        return known.get(gene, "")
    place = np.flatnonzero(truth["genes"] == gene)
    loading = truth["loadings"][place[0]] if len(place) else np.zeros(1)
    if not loading.any():
        return "" if len(place) else "not measured"
    program = int(np.abs(loading).argmax())
    return f"{'rises' if loading[program] > 0 else 'falls'} with {truth['programs'][program]}"


def beside(scores: pd.DataFrame, method: str, rivals: Sequence[str], metric: str = "pearson_delta") -> str:
    """Says how a method fares beside its rivals, over the perturbations of a table of `evaluate`.

    Over several it is better or worse than a rival where the interval of their difference leaves out zero; of a single
    one there is no interval: a difference below `CLOSE`, of an error a tenth of it, is none. No score: passed over.

    Args:
        scores: A row for each method and perturbation.
        method: The one that is spoken of.
        rivals: The others.
        metric: Column of the scores.
    """
    digits = DIGITS.get(metric, 2)
    means = summarise(scores, metrics=[metric]).set_index("method")
    gaps = compare(scores, method, rivals, [metric]).set_index("method")
    n = int(means.loc[method, "n"])
    own = means.loc[method]
    said = []
    for rival in rivals:
        name = NAMES.get(rival, f"the {rival}")
        value = means.loc[rival, "mean"]
        if np.isnan(value):
            continue
        detail = number(value, digits)
        if means.loc[rival, "n"] < n:
            detail += f" over the {int(means.loc[rival, 'n'])} that it answers"
        if n > 1:
            gap = gaps.loc[rival]
            low, high = number(gap["low"], digits), number(gap["high"], digits)
            detail += f"; difference {number(gap['difference'], digits)} [{low}, {high}]"
        said.append(f"{_verdict(gaps.loc[rival], metric, n > 1).capitalize()} {name} ({detail}).")
    where = f"Over {n} held-out perturbations" if n > 1 else f"For {scores['target'].iloc[0]}"
    interval = f" [{number(own['low'], digits)}, {number(own['high'], digits)}]" if n > 1 else ""
    found = f"{NAMES.get(metric, metric)} of the {method} is {number(own['mean'], digits)}{interval}"
    narrow = f" (Over {n} perturbations intervals are too narrow.)" if 1 < n < FEW else ""
    return f"{where}, {found}. {' '.join(said)}{narrow}"


def in_short(scores: pd.DataFrame, method: str, rival: str) -> str:
    """Says in plain words whether a method beats its rival: in direction, and in error.

    Args:
        scores: A row for each method and perturbation.
        method: The one that is spoken of.
        rival: The other.
    """
    gaps = compare(scores, method, [rival], ["pearson_delta", "mae"]).set_index("metric")
    direction, error = (_verdict(gaps.loc[metric], metric) for metric in gaps.index)
    rank = [WORSE, LEVEL, BETTER].index
    total = rank(direction) + rank(error) - 2
    start = "yes" if total > 0 else "no" if total < 0 else "neither better nor worse"
    words = {BETTER: "better", LEVEL: "not surely better or worse", WORSE: "less well"}
    return (f"In short, beside the {rival}: {start}. Which genes move, and which way, it tells {words[direction]}; how "
            f"far, {words[error]}.")


def _verdict(gap: pd.Series, metric: str, has_interval: bool = True) -> str:
    """Better than, worse than, or level with: by the interval, or for one perturbation by the difference itself."""
    low, high = gap["low"], gap["high"]
    if not has_interval:
        close = CLOSE if METRICS[metric].higher_is_better else CLOSE / 10  # errors are that much smaller
        low, high = gap["difference"] - close, gap["difference"] + close
    if low <= 0 <= high:
        return LEVEL
    return BETTER if (low > 0) == bool(METRICS[metric].higher_is_better) else WORSE


def goes_along(real: pd.Series, predicted: pd.Series) -> pd.Series:
    """Marks the genes that a prediction moves the way they really go, and not by less than `STILL`."""
    return (np.sign(real) == np.sign(predicted)) & (predicted.abs() >= STILL)


def moved(real: pd.Series, predicted: pd.Series) -> str:
    """Says how many of some genes a prediction moves the way they really go, and how far.

    Args:
        real: Change of each gene, by name.
        predicted: The same.
    """
    right = goes_along(real, predicted)
    wrong = listed(real.index[~right].tolist()) if (~right).any() else ""
    size = predicted.abs().mean() / real.abs().mean()
    falling = int((real < 0).sum())
    start = f"Of these {len(real)} genes {falling} fall and {len(real) - falling} rise; "
    way = "all go the right way in the prediction"
    if wrong:
        way = f"{int(right.sum())} go the right way in the prediction, not so, or by less than {STILL}, {wrong}"
    return f"{start}{way}, {size:.0%} as far on average."


def levels(means: pd.DataFrame, knockout: str) -> str:
    """Says what a knockout leaves of some genes in real and in generated cells, as a share of the control cells' level.

    Args:
        means: Mean counts at one depth, genes x ("control", "real", "generated").
        knockout: What to call it, first in the sentence.
    """
    said = []
    for gene, row in means.iterrows():
        left = row / row["control"]
        said.append(f"{gene} at {left['real']:.0%} (generated: {left['generated']:.0%})")
    return f"{knockout} leaves {listed(said)} of the level in control cells."


def explained(values: pd.Series, groups: pd.Series) -> float:
    """Returns the share of a variable's variance that lies between groups, 0 to 1 (eta squared)."""
    between = values.groupby(groups, observed=True).transform("mean")
    return float(between.var(ddof=0) / values.var(ddof=0))


def explains(shares: pd.DataFrame) -> str:
    """Says what explains most of each component.

    Args:
        shares: Of a component's variance, causes x components.
    """
    said = []
    for component, column in shares.items():
        most = column.max()
        cause = f"{column.idxmax()} explains the largest part of {component} ({most:.0%} of its variance)"
        said.append(cause if most >= LITTLE else f"none of them explains {component} (at most {most:.0%})")
    return f"Of {listed(shares.index.tolist())}, {listed(said)}."


def tipped(names: Sequence[str], before: tuple[int, int], after: tuple[int, int]) -> str:
    """Says how many genes rise and fall before and after loud ones are left out of the depth, and what that changes.

    Args:
        names: Of the genes left out.
        before: Numbers of genes that rise and that fall.
        after: The same, without them in the depth.
    """
    (risen, fallen), (risen_now, fallen_now) = before, after
    if risen > fallen and risen_now < fallen_now / CLEARLY:
        moral = "the knockout seemed to switch genes on, and switches them off"
    elif risen - risen_now > LITTLE * risen:
        moral = f"{risen - risen_now} of the genes that rose did so by arithmetic"
    else:
        moral = "here composition moves little"
    now = f"{risen_now} genes rise and {fallen_now} fall"
    return f"With {listed(names)} left out of the depth, {now}; before, {risen} rose and {fallen} fell: {moral}."


def apart(within: float, between: float, effect: float, name: str) -> str:
    """Says whether replicates differ beyond noise, beside the effect of a perturbation.

    Args:
        within: Difference of two halves of the controls of a replicate.
        between: Of controls of two replicates.
        effect: Mean absolute change that the perturbation makes.
        name: The perturbation.
    """
    beyond = between > 1.2 * within
    moral = (f"unmatched controls would add {between / effect:.0%} of that, noise included, to an effect" if beyond else
             "controls of another replicate would do as well here")
    return (f"Averaged over genes, controls of two replicates differ by {between:.3f}, and halves of one by "
            f"{within:.3f}, which is noise; {name} changes {effect:.3f}: {moral}.")


def dud_guides(target: str, failed: Sequence[str], table: pd.DataFrame) -> str:
    """Says which guides of a target failed by a learner's rule, and which of all by the package.

    Args:
        target: Whose guides were judged.
        failed: By the learner's rule.
        table: From `guide_effects`.
    """
    duds = table["guide"][table["dud"]].tolist()
    named = f": {listed(duds[:3])}{' among them' if len(duds) > 3 else ''}" if duds else ""
    return (f"Of {target}, {listed(failed or ['no guide'])} failed by your rule. By the package {len(duds)} guides of "
            f"{len(table)} surely do less than half of what their siblings do{named}.")
