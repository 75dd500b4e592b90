"""What was found on a screen of one's own, in a sentence written from the numbers."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cdt_lite.evaluation.metrics import METRICS
from cdt_lite.evaluation.summary import summarise
from cdt_lite.teaching.sentences import DIGITS, NAMES, listed, number

AGREE = 0.05  # largest difference of two powers that is none


def leader(scores: pd.DataFrame, metric: str) -> str:
    """Says which method of a table is best by a metric, and what the second has.

    Args:
        scores: A row for each method and perturbation, as `evaluate` returns them; half against half is no rival.
        metric: Column of the scores.
    """
    means = summarise(scores, metrics=[metric]).set_index("method")["mean"].drop("ceiling", errors="ignore").dropna()
    ordered = means.sort_values(ascending=not METRICS[metric].higher_is_better)
    digits = DIGITS.get(metric, 2)
    told = [f"{NAMES.get(name, f'the {name}')} ({number(value, digits)})" for name, value in ordered.items()]
    rest = f", then {told[1]}" if len(told) > 1 else ""
    return f"By {NAMES.get(metric, metric)} {told[0]} is the one to beat{rest}."


def agree(curves: Mapping[str, pd.DataFrame]) -> str:
    """Says whether drawn cells and the closed form tell the same power.

    Args:
        curves: From `power_curve`, by name.
    """
    gap = {name: float((curve["drawn"] - curve["closed form"]).abs().max()) for name, curve in curves.items()}
    worst = max(gap, key=lambda name: gap[name])
    where = curves[worst]
    n = (where["drawn"] - where["closed form"]).abs().idxmax()
    moral = "they agree" if gap[worst] <= AGREE else "they do not agree there"
    return (f"Drawn and computed power differ by {gap[worst]:.3f} at most ({worst}, {n} cells: {where['drawn'][n]:.2f} "
            f"drawn, {where['closed form'][n]:.2f} computed): {moral}.")


def cells_for(needed: float, change: float, cells: pd.Series) -> str:
    """Says how many cells a change takes, and how many targets of a screen have them.

    Args:
        needed: From `cells_needed`; may be infinite.
        change: log1p units.
        cells: Number of cells of each target.
    """
    if np.isinf(needed):
        return f"A change of {change:g} in the median gene is out of reach: the control cells are too few for it."
    n = int((cells >= needed).sum())
    return (f"A change of {change:g} in the median gene takes {needed:,.0f} cells; {n} of {len(cells)} targets have so "
            f"many (median {cells.median():,.0f}).")


def gives_away(seen: Mapping[str, int], blind: Mapping[str, int], n: int) -> str:
    """Says how much of a search's success is the targets' own mRNA.

    Args:
        seen: How many targets come first by each method, all genes compared.
        blind: The same without the targets' own genes.
        n: Number of perturbations that were looked for.
    """
    told = [f"{name} {seen[name]} of {n}, without the targets' own genes {blind[name]}" for name in seen]
    lost = any(blind[name] < seen[name] for name in seen)
    moral = "part of the success is the missing mRNA itself" if lost else "the missing mRNA itself adds nothing"
    return f"First come, by {listed(told)}: {moral}."


def searched(rates: Mapping[str, float], chance: float, what: str, n: int) -> str:
    """Says whether a search beats chance and its rival, in hits.

    Args:
        rates: Share of queries whose right target comes first: of the model, then of its rival.
        chance: The same by luck.
        what: What was looked for, after the number.
        n: Number of queries.
    """
    (ours, own), (theirs, other) = rates.items()
    hits, rival = round(own * n), round(other * n)
    luck = f"by chance {chance * n:.1f} would"
    verdict = "level" if hits == rival else f"{ours} is ahead" if hits > rival else f"{theirs} is ahead"
    beats = "more than chance" if hits >= chance * n + 1 else "no more than chance"
    return (f"Of {n} {what}, {hits} come first by {ours} and {rival} by {theirs}; {luck}. The model finds {beats}; "
            f"beside its rival: {verdict}.")
