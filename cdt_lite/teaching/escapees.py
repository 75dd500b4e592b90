"""Which cells answered to their perturbation: a score for each, and the share of escapees with its interval."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Shaped

from cdt_lite.data.expression import dense, log1p_counts
from cdt_lite.teaching.held_out import HeldOut

SURE = 3.0  # standard errors: genes that surely change in training
ROUNDS = 50

Estimate = Callable[[np.ndarray, np.ndarray, np.ndarray, int], dict[str, float]]


def answers(found: HeldOut, kinds: Mapping[str, AnnData]) -> dict[str, Float[np.ndarray, " cells"]]:
    """Scores how far each cell answers to the strongest perturbation: 0 is as controls, 1 as its mean training cell.

    A sum over the genes that surely change in training cells, the target left out, each with its change over its
    variance in controls as weight (linear discriminant analysis, genes taken as independent). No scored cell has a say.

    Args:
        found: The held-out cells; whose training side the weights come from.
        kinds: Cells by what to call them; the zero is the mean of found.truth.
    """
    target, sign = found.strongest
    obs = found.train.obs
    log1p = dense(log1p_counts(found.train.X, found.depth))
    is_own = ((obs["target_gene"] == target) & (obs["sign"] == sign)).to_numpy()
    is_control = (obs["sign"] == 0).to_numpy()
    changes, errors = [], []
    for batch in obs["batch"][is_own].unique():  # a replicate's cells against its own controls
        here = (obs["batch"] == batch).to_numpy()
        own, plain = log1p[is_own & here], log1p[is_control & here]
        changes.append(own.mean(0) - plain.mean(0))
        errors.append(own.var(0) / len(own) + plain.var(0) / len(plain))
    change = np.mean(changes, axis=0)
    error = np.sqrt(np.sum(errors, axis=0)) / len(errors)
    sure = (np.abs(change) > SURE * error) & (found.train.var_names != target)
    weight = sure * change / (log1p[is_control].var(0) + 1e-3)
    weight /= weight @ change
    zero = found.mean(found.truth) @ weight
    return {kind: dense(log1p_counts(cells.X, found.depth)) @ weight - zero for kind, cells in kinds.items()}


def shares_with_intervals(estimate: Estimate, score: Float[np.ndarray, " cells"],
                          guide: Shaped[np.ndarray, " cells"], control: Float[np.ndarray, " controls"],
                          n_draws: int = 200) -> pd.DataFrame:
    """Estimates the share of escapees of each guide, and of all its cells, with a 95 % interval.

    It is the bootstrap's, and at least as wide as if each cell's fate had been seen (Agresti and Coull 1998,
    doi:10.1080/00031305.1998.10480550): five cells that all escaped look alike in every redraw, and are five cells.

    Args:
        estimate: From score, guide, control scores and a number of rounds to a share for each guide.
        score: Of perturbed cells.
        guide: Of each of them.
        control: Scores of control cells.
        n_draws: Redraws, of each guide's cells and of the controls.

    Returns:
        A row a guide and "all"; columns cells, share, low, high.
    """
    rng = np.random.default_rng(0)
    names, counts = np.unique(guide, return_counts=True)
    rows = [np.flatnonzero(guide == name) for name in names]
    drawn = []
    for draw in range(n_draws + 1):
        chosen = np.concatenate([rng.choice(own, len(own)) if draw else own for own in rows])
        plain = rng.choice(control, len(control)) if draw else control
        shares = pd.Series(estimate(score[chosen], guide[chosen], plain, ROUNDS))[names]
        shares["all"] = shares.to_numpy() @ counts / counts.sum()
        drawn.append(shares)
    table = pd.DataFrame(drawn[1:])
    cells = np.array([*counts, counts.sum()])
    middle = (drawn[0] * cells + 2) / (cells + 4)
    half = 1.96 * np.sqrt(middle * (1 - middle) / (cells + 4))
    ends = {"low": np.clip(np.minimum(table.quantile(0.025), middle - half), 0, 1),
            "high": np.clip(np.maximum(table.quantile(0.975), middle + half), 0, 1)}
    return pd.DataFrame({"cells": cells, "share": drawn[0], **ends}, drawn[0].index)
