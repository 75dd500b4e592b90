"""What was found on a screen of one's own, in a sentence written from the numbers."""

from collections.abc import Collection, Mapping

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
    """Says which method of a table is best by a metric, or which share the best score, and what the next has.

    Args:
        scores: A row for each method and perturbation, as `evaluate` returns them; half against half is no rival.
        metric: Column of the scores.
    """
    means = summarise(scores, metrics=[metric]).set_index("method")["mean"]
    means = means.drop("ceiling", errors="ignore").dropna()
    ordered = means.sort_values(ascending=not METRICS[metric].higher_is_better)
    digits = DIGITS.get(metric, 2)
    called = [NAMES.get(name) or IN_WORDS.get(name, f"the {name}") for name in ordered.index]
    best = int(np.isclose(ordered, ordered.iloc[0], rtol=0, atol=1e-6).sum())
    value = number(ordered.iloc[0], digits)
    told = f"{called[0]} ({value}) is best"
    if best > 1:
        told = f"{listed(called[:best])} have one and the same score, the best ({value})"
    rest = f", then {called[best]} ({number(ordered.iloc[best], digits)})" if len(called) > best else ""
    return f"By {NAMES.get(metric, metric)} {told}{rest}."


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
    if len(close) == 1 and len(far):
        return (f"Of {what}, with {close.index[0]} cells, the most that were tried, drawn and computed power "
                f"differ by {close.max():.2f}, with fewer by up to {far.max():.2f}: whether they agree from there on "
                "is not shown.")
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
    named = (f"Of {n} {what if n > 1 else what.removesuffix('s')}, {ours} names {hits} first, which is {beats} luck "
             f"explains ({n / n_candidates:.1f} of {n} expected)")
    if places[theirs].isna().all():
        return f"{named}; {theirs} has no row for {'them' if n > 1 else 'it'}, and cannot be asked."
    only = int((first[ours] & ~first[theirs]).sum()), int((first[theirs] & ~first[ours]).sum())
    sure = sum(only) and stats.binomtest(only[0], sum(only)).pvalue < RARELY
    verdict = "too few to tell the two apart"
    if hits == rival:
        verdict = "both find as many"
    elif sure:
        verdict = f"{ours if hits > rival else theirs} is ahead"
    return f"{named}, and {theirs} {rival}: {verdict}."


def gives_away(ways: Mapping[str, pd.DataFrame]) -> str:
    """Says what is left of a search's success as genes are left out, and whose genes the success hung on.

    Args:
        ways: Three tables of `search`, by which genes were compared: all, all but each target's own, and all but those
            of every target; the first column is the model's.
    """
    hits = pd.DataFrame({way: (places <= 1).sum() for way, places in ways.items()})
    told = []
    for name, row in hits.iterrows():
        counts = listed([f"{count} ({way})" for way, count in row.items()])
        told.append(f"{name} names first {counts}")
    every, own, others = hits.iloc[0]
    moral = []
    if own < every:
        moral.append(f"{every - own} hung on the target's own mRNA")
    if others < own:
        moral.append(f"{own - others} on the genes of other targets, which are part of the response")
    if others > min(every, own) or own > every:
        moral.append("leaving genes out helped in part")
    end = f"Of the model's {every}, {listed(moral)}." if moral else "The model needed none of these genes."
    return f"Of {len(next(iter(ways.values())))}: {'; '.join(told)}. {end}"


def measured(changes: pd.DataFrame, targets: Collection[str]) -> str:
    """Says how many perturbations have their target's own gene among those that are compared.

    Args:
        changes: Perturbations x genes.
        targets: All of the screen.
    """
    asked = changes.index.get_level_values("target")
    own = sorted(set(asked[asked.isin(changes.columns)]))
    every = int(changes.columns.isin(list(targets)).sum())
    names = f" ({listed(own)})" if own else ""
    n = int(asked.isin(changes.columns).sum())
    return (f"Of {len(asked)} perturbations, {n} have their target's own gene on the panel{names}, which holds the "
            f"genes of {every} targets in all.")


def one_answer(table: pd.DataFrame) -> str:
    """Says how many different answers a model gives to the perturbations of a table.

    Args:
        table: Predicted mean changes, perturbations x genes.
    """
    values = table.to_numpy(float)
    n, different = len(values), len(np.unique(values.round(6), axis=0))
    gap = float(np.ptp(values, axis=0).max())
    if n == 1:
        return "There is one such perturbation: whether the model would answer another differently is not shown."
    if different == 1:
        return (f"The model gives all {n} one and the same answer (largest difference {gap:.1g}): it knows nothing of "
                "them that would tell them apart, and a search can only place them together.")
    if different < n:
        return f"The model gives the {n} of them {different} different answers: some it cannot tell apart."
    return (f"The model gives each of the {n} an answer of its own; in one gene or another they differ by up to "
            f"{gap:.2f}.")


def of_use(scores: pd.DataFrame, method: str) -> str:
    """Says whether a method's answers have anything to do with the truth: does the interval of its r leave out zero?

    Args:
        scores: A row for each method and perturbation.
        method: The one that is spoken of.
    """
    row = summarise(scores, metrics=["pearson_delta"]).set_index("method").loc[method]
    start = "It goes through the same doors, and gets an answer"
    if row["n"] < 2:
        return f"{start}; of a single perturbation nobody can say whether it is of use."
    if row["low"] > 0:
        return f"{start} that has to do with the truth."
    return f"{start}; whether that has anything to do with the truth, so few perturbations do not show."
