"""What was found on a screen of one's own, in a sentence written from the numbers."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from cdt_lite.evaluation.metrics import METRICS
from cdt_lite.evaluation.summary import summarise
from cdt_lite.teaching.sentences import DIGITS, NAMES, listed, number

IN_WORDS = {"linear": "the linear model", "kNN": "the mean of the nearest targets"}
RARELY = 0.05  # a chance that is called none
AGREE = 0.05  # largest difference of two powers that is none


def leader(scores: pd.DataFrame, metric: str) -> str:
    """Says which method of a table is best by a metric, and what the second has.

    Args:
        scores: A row for each method and perturbation, as `evaluate` returns them; half against half is no rival.
        metric: Column of the scores.
    """
    means = summarise(scores, metrics=[metric]).set_index("method")["mean"]
    means = means.drop("ceiling", errors="ignore").dropna()
    ordered = means.sort_values(ascending=not METRICS[metric].higher_is_better)
    digits = DIGITS.get(metric, 2)
    told = []
    for name, value in ordered.items():
        called = NAMES.get(name) or IN_WORDS.get(name, f"the {name}")
        told.append(f"{called} ({number(value, digits)})")
    rest = f", then {told[1]}" if len(told) > 1 else ""
    return f"By {NAMES.get(metric, metric)} {told[0]} is best{rest}."


def agree(curves: Mapping[str, pd.DataFrame], what: str) -> str:
    """Says from how many cells on drawn cells and the closed form tell the same power, and how far off they are below.

    Args:
        curves: From `power_curve`, by name; of the same numbers of cells.
        what: What they are of, after "Of".
    """
    gaps = {name: (curve["drawn"] - curve["closed form"]).abs() for name, curve in curves.items()}
    gap = pd.DataFrame(gaps).max(axis=1)
    near = gap[::-1].cummax()[::-1] <= AGREE  # there, and with more cells
    if not near.any():
        return (f"Of {what}, drawn and computed power do not agree: with {gap.index[-1]} cells "
                f"they still differ by {gap.iloc[-1]:.2f}.")
    far, close = gap[~near], gap[near]
    below = f" With fewer they differ by up to {far.max():.2f}." if len(far) else ""
    return (f"Of {what}, from {close.index[0]} cells on drawn and computed power differ by "
            f"{close.max():.2f} at most: they agree.{below}")


def cells_for(needed: float, change: float, cells: pd.Series, where: str) -> str:
    """Says how many cells a change takes, and how many targets of a screen have them.

    Args:
        needed: From `cells_needed`; may be infinite.
        change: log1p units.
        cells: Number of cells of each target.
        where: In which gene, after "in".
    """
    if np.isinf(needed):
        return (f"A change of {change:g} in {where} is out of reach: "
                "the control cells are too few for it.")
    n = int((cells >= needed).sum())
    return (f"A change of {change:g} in {where} takes {needed:,.0f} cells; {n} of {len(cells)} targets "
            f"have so many (median {cells.median():,.0f}).")


def searched(places: pd.DataFrame, n_candidates: int, what: str) -> str:
    """Says whether a search beats chance and its rival, in right answers that come first.

    More than chance: so many would come by luck in fewer than one case in twenty (binomial law). Ahead of the rival:
    likewise, among the queries that only one of both finds (sign test).

    Args:
        places: From `search`: of the model, then of its rival.
        n_candidates: Among how many the right one is looked for.
        what: What was looked for, after the number.
    """
    ours, theirs = places.columns
    first = places <= 1
    hits, rival, n = int(first[ours].sum()), int(first[theirs].sum()), len(places)
    luck = stats.binom.sf(hits - 1, n, 1 / n_candidates)
    beats = "more than" if luck < RARELY else "no more than"
    only = int((first[ours] & ~first[theirs]).sum()), int((first[theirs] & ~first[ours]).sum())
    sure = sum(only) and stats.binomtest(only[0], sum(only)).pvalue < RARELY
    verdict = "too few to tell the two apart"
    if hits == rival:
        verdict = "both find as many"
    elif sure:
        verdict = f"{ours if hits > rival else theirs} is ahead"
    return (f"Of {n} {what}, {ours} names {hits} first, which is {beats} chance ({n / n_candidates:.1f}), "
            f"and {theirs} {rival}: {verdict}.")


def gives_away(places: pd.DataFrame, blind: pd.DataFrame) -> str:
    """Says how much of a search's success is the targets' own mRNA.

    Args:
        places: From `search`, all genes compared.
        blind: The same without the targets' own genes.
    """
    seen, left = (places <= 1).sum(), (blind <= 1).sum()
    told = [f"{name} names {left[name]} instead of {seen[name]} first" for name in places]
    lost = (left < seen).any()
    what = "part of the success was" if lost else "nothing of the success was"
    moral = f"{what} the missing mRNA itself"
    return f"Without the targets' own genes {listed(told)} (of {len(places)}): {moral}."
