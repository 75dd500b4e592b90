"""For which perturbations a prediction could stand in for an experiment: a rule on scores, and its answer in words."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from cdt_lite.evaluation.summary import summarise
from cdt_lite.teaching.held_out import HeldOut, held_out
from cdt_lite.teaching.sentences import NAMES, listed

REPEATABLE = 0.5  # r of half against half, below which the real cells do not agree with themselves
OF_DIRECTION = 0.8  # share of half against half's r that a prediction must reach
OF_SIZE = 0.5  # share of what half against half removes of the error of no change
SEEN, NEVER = "seen in other replicates", "never seen"  # what a predictor knew of a target
METRICS = ("pearson_delta", "pearson_composition", "mae", "systema_pearson",
           "discrimination_score_l1")
RIVALS = ("control", "perturbed mean", "linear", "kNN", "replicate mean", "pathway neighbour",
          "ceiling")
YES, DIRECTION, NO, UNKNOWN = "yes", "direction only", "no", "cannot be judged"


def questions(screen: AnnData) -> dict[str, HeldOut]:
    """Returns the two questions of a screen: of targets seen in other replicates, and of targets never seen."""
    return {SEEN: held_out(screen), NEVER: held_out(screen, "unseen")}


def all_scores(asked: Mapping[str, HeldOut], said: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Scores the capsule and every rival on every question: a table of `evaluate` with the column "asked".

    Args:
        asked: From `questions`.
        said: The capsule's mean changes, perturbations x genes, by question.
    """
    tables = [found.scores({"capsule": said[kind]}, METRICS, RIVALS).assign(asked=kind)
              for kind, found in asked.items()]
    return pd.concat(tables, ignore_index=True)


def averages(scores: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Averages Pearson's r over the perturbations of every question.

    Args:
        scores: From `all_scores`.
        methods: Whom to show, in this order; who has no answer is left out.

    Returns:
        (question, method) x mean, low, high (95 % interval) and n.
    """
    tables = {kind: summarise(table, metrics=["pearson_delta"]).set_index("method").reindex(methods)
              for kind, table in scores.groupby("asked", sort=False)}
    joined = pd.concat(tables, names=["asked", "method"])[["mean", "low", "high", "n"]].dropna()
    return joined.rename(index=NAMES, level="method")


def verdicts(scores: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Says of every perturbation and method whether the prediction could replace the experiment.

    "yes": the right genes (r at least `OF_DIRECTION` of what half against half reaches) and the right size (at least
    `OF_SIZE` of the error that can be removed is). "direction only": the first alone. "no": not even that. "cannot be
    judged": halves of the real cells do not agree (r below `REPEATABLE`), so nobody can be right or wrong.

    Args:
        scores: From `all_scores`.
        methods: Whom to judge; one that gives no answer for a perturbation gets "".

    Returns:
        A row a perturbation (asked, target, sign): cells, r and error of half against half and of every method, error
        of no change, and a column a method with the verdict.
    """
    index = ["asked", "target", "sign"]
    r, error = (scores.pivot_table(metric, index, "method") for metric in ("pearson_delta", "mae"))
    table = scores[scores["method"] == "control"].set_index(index)[["n_real"]]
    table = table.rename(columns={"n_real": "cells"})
    r, error = r.reindex(table.index), error.reindex(table.index)
    table["no change, error"] = error["control"]
    within_reach = error["control"] - error["ceiling"]
    for method in ("ceiling", *methods):
        name = "half against half" if method == "ceiling" else method
        table[f"{name}, r"] = r.get(method, np.nan)
        table[f"{name}, error"] = error.get(method, np.nan)
    for method in methods:
        own, removed = table[f"{method}, r"], error["control"] - table[f"{method}, error"]
        right = own >= OF_DIRECTION * r["ceiling"]
        far = removed >= OF_SIZE * within_reach
        answer = np.select([own.isna(), ~(r["ceiling"] >= REPEATABLE), right & far, right],
                           ["", UNKNOWN, YES, DIRECTION], NO)
        table[method] = answer
    return table


def judgeable(table: pd.DataFrame) -> str:
    """Says in how many perturbations the real cells agree with themselves, and names the others.

    Args:
        table: From `verdicts`.
    """
    r = table["half against half, r"]
    silent = _names(table[~(r >= REPEATABLE)])
    start = (f"In {len(table) - len(silent)} of {len(table)} perturbations one half of the real cells "
             f"tells what the other shows (r at least {REPEATABLE})")
    return f"{start}, all of them." if not silent else f"{start}; not in {listed(silent)}."


def plates(table: pd.DataFrame, method: str, rivals: Sequence[str]) -> str:
    """Says for which perturbations a method could save the experiment, and whether a rival that needs no model could.

    Args:
        table: From `verdicts`.
        method: The one that is spoken of.
        rivals: Judged in the same table.
    """
    yes, half, no, unknown = (_names(table[table[method] == word])
                              for word in (YES, DIRECTION, NO, UNKNOWN))
    said = [f"The {method} could save {f'a plate for {listed(yes)}' if yes else 'no plate'}"]
    for names, what in ((half, "it tells which genes, not how far"), (no, "not even which genes")):
        if names:
            said.append(f"for {listed(names)} {what}")
    if unknown:
        said.append(f"{listed(unknown)} cannot be judged")
    free = _names(table[(table[list(rivals)] == YES).any(axis=1)])
    alone = [name for name in yes if name not in free]
    missed = [name for name in free if name not in yes]
    saves = [f"none of {listed(alone)}"] if alone else ["the same"] if yes else []
    saves += [f"{listed(missed)} beside" if yes else listed(missed)] if missed else []
    others = listed([f"the {rival}" for rival in rivals])
    saved = listed(saves or ["none, either"])
    return f"{'; '.join(said)}. What needs no model, {others}, saves {saved}."


def _names(rows: pd.DataFrame) -> list[str]:
    """Targets of a table, with the sign where a target stands for two."""
    both = rows.reset_index()
    twice = both.duplicated("target", keep=False)
    return [f"{row.target} {row.sign:+d}" if two else str(row.target)
            for row, two in zip(both.itertuples(), twice, strict=True)]
