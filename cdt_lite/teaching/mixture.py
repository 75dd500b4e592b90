"""A law of cells made of real ones whose conditionals are known exactly: what a sampler loses shows in its cells."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Integer, Num
from torch import Tensor

from cdt_lite.model.diffusion import draw, random_turns, sample_steps
from cdt_lite.model.schedule import full_curve
from cdt_lite.model.v1 import V1Diffusion
from cdt_lite.teaching.bits import token_shares
from cdt_lite.teaching.masks import hidden_bits
from cdt_lite.teaching.sentences import listed

BLOCK = 250  # cells drawn at once
COMMON = 30  # genes whose correlations are compared
CLOSE = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 1.0)  # near 1: a few genes already tell the state
SURE = 0.01  # p of Welch's test
EXACT = 3000  # cells of the law itself, as the truth


class Mixture:
    """Cells of a few states (k-means), genes independent within a state: called, it is the perfect denoiser of its law.

    Args:
        tokens: Cells x genes.
        n_states: States.
    """

    def __init__(self, tokens: Integer[np.ndarray, "cells G"], n_states: int = 8) -> None:
        from sklearn.cluster import KMeans

        state = KMeans(n_states, n_init=1, random_state=0).fit_predict(np.log1p(tokens.astype(np.float32)))
        overall = token_shares(tokens, 0.1)
        laws = [token_shares(tokens[state == z], 10 * overall) for z in range(n_states)]
        self.in_state = torch.tensor(np.stack(laws)).float()  # (states, G, bins)
        self.weight = torch.tensor(np.bincount(state) / len(state)).float()

    def __call__(self, xt: Int[Tensor, "B S G"]) -> Float[Tensor, "B S G bins"]:
        """Returns log-probabilities: what is revealed tells the state, and the state what to expect of the others."""
        says = torch.nn.functional.pad(self.in_state.log(), (0, 1))  # a hidden gene is no evidence
        evidence = says[:, torch.arange(xt.shape[-1]), xt].sum(-1) + self.weight.log()[:, None, None]
        return torch.einsum("zbs,zgk->bsgk", evidence.softmax(0), self.in_state).log()

    def curve(self, n_cells: int, shares: Sequence[float] = CLOSE) -> Float[np.ndarray, " G"]:
        """Returns H(1) to H(G) of the law, bits: measured on cells of its own at some shares of hidden genes."""
        generator = torch.Generator().manual_seed(n_cells)
        tokens = self.cells(n_cells, generator)
        turn, n_genes = random_turns(tuple(tokens.shape), generator), tokens.shape[-1]
        hidden = [max(1, round(share * n_genes)) for share in shares]
        costs = [float(hidden_bits(self, tokens, turn < k, self.in_state.shape[-1]).mean()) / k for k in hidden]
        return full_curve([k / n_genes for k in hidden], costs, n_genes)

    def cells(self, n: int, generator: torch.Generator) -> Int[Tensor, "1 n G"]:
        """Draws cells from the law itself: a state, then every gene."""
        state = torch.multinomial(self.weight, n, replacement=True, generator=generator)
        return torch.cat([draw(self.in_state.log()[some], generator) for some in state.split(BLOCK)])[None]


def _correlations(logs: Float[np.ndarray, "cells g"]) -> Float[np.ndarray, "g g"]:
    """Correlates genes; one that does not vary among few cells goes with no other."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.corrcoef(logs.T))


def against_exact(counts: Num[np.ndarray, "cells G"], exact: Num[np.ndarray, "more G"]) -> dict[str, float]:
    """Compares cells with exact ones: errors of gene means (log1p) and correlations; ratios of depth and zeros."""
    common = np.argsort(-exact.mean(0), kind="stable")[:COMMON]
    logs, truth = np.log1p(counts), np.log1p(exact)
    correlations = _correlations(logs[:, common]) - _correlations(truth[:, common])
    return {
        "error of gene means": float(np.abs(logs.mean(0) - truth.mean(0)).mean()),
        "spread of depth": float(counts.sum(1).std() / exact.sum(1).std()),
        "error of correlations": float(np.abs(correlations).mean()),
        "share of zeros": float((counts == 0).mean() / (exact == 0).mean()),
    }


def tried(mixture: Mixture, schedules: Mapping[str, Sequence[int]], decode: Callable[[np.ndarray], np.ndarray],
          n_cells: int, n_seeds: int) -> pd.DataFrame:
    """Makes cells by several samplers that ask the perfect denoiser, and says how they differ from exact cells.

    Args:
        mixture: Denoiser and law.
        schedules: How many genes each step reveals, by name.
        decode: Tokens to counts.
        n_cells: To make, for each seed.
        n_seeds: Of chance in sampling.

    Returns:
        `against_exact` by sampler and seed; among the samplers are the law itself ("exact cells") and v1's coins.
    """
    n_genes, mask_id = mixture.in_state.shape[1:]
    shape, coins = (1, n_cells, n_genes), V1Diffusion(mask_id)
    exact = decode(mixture.cells(EXACT, torch.Generator().manual_seed(EXACT))[0].numpy())
    rows = {}
    for seed in range(n_seeds):
        made = {"exact cells": mixture.cells(n_cells, torch.Generator().manual_seed(seed))}
        for name, counts in schedules.items():
            generator = torch.Generator().manual_seed(seed)
            *_, made[name] = sample_steps(mixture, counts, shape, mask_id, generator)
        made["v1's coins"] = coins.sample(lambda xt, _: mixture(xt), shape, torch.Generator().manual_seed(seed))
        for name, tokens in made.items():
            rows[name, seed] = against_exact(decode(tokens[0].numpy()), exact)
    return pd.DataFrame(rows).T


def with_spread(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns "mean ± standard deviation" over seeds, of numbers indexed by name and seed."""
    by_name = rows.groupby(level=0, sort=False)
    mean, spread = by_name.mean(), by_name.std()
    return mean.map("{:.3f}".format) + " ± " + spread.map("{:.3f}".format)


def shows(rows: pd.DataFrame, column: str, exact: str = "exact cells") -> str:
    """Says which samplers one number tells from exact cells, by Welch's test over seeds, and which not.

    Args:
        rows: Indexed by sampler and seed, as `tried` returns them.
        column: The number.
        exact: The row of exact cells.
    """
    mean = rows[column].groupby(level=0, sort=False).mean()
    words: dict[bool, list[str]] = {True: [], False: []}
    for name in mean.index:
        if name != exact:
            words[_told(rows, column, name, exact)].append(f"{name} ({mean[name]:.2f})")
    apart = f"By the {column} one can tell {', '.join(words[True])} from exact cells ({mean[exact]:.2f})"
    level = f"not {', '.join(words[False])}"
    if not words[True]:
        return f"By the {column} none of the samplers can be told from exact cells ({mean[exact]:.2f})."
    return f"{apart}{'; ' + level if words[False] else ''}."


def lost(rows: pd.DataFrame, sampler: str, exact: str = "exact cells") -> str:
    """Says by which numbers a sampler's cells can be told from exact ones, and by which not.

    Args:
        rows: From `tried`.
        sampler: The one that is spoken of.
        exact: The row of exact cells.
    """
    by: dict[bool, list[str]] = {True: [], False: []}
    for column in rows:
        by[_told(rows, column, sampler, exact)].append(f"the {column}")
    shown = f"shows in {listed(by[True])}" if by[True] else "shows in none of these numbers"
    return f"What {sampler} loses {shown}{', not in ' + listed(by[False]) if by[True] and by[False] else ''}."


def _told(rows: pd.DataFrame, column: str, name: str, exact: str) -> bool:
    from scipy.stats import ttest_ind

    values = rows[column]
    return bool(ttest_ind(values[name], values[exact], equal_var=False).pvalue < SURE)
