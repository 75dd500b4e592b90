"""The simplest model of a cell, and how a trained one fares beside it: on the same cells, under the same masks."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cdt_lite.data.batches import Batch, SetSampler
from cdt_lite.data.store import TokenStore
from cdt_lite.model.diffusion import SHARES, Denoiser, hide, loss_curve, random_turns, token_nats
from cdt_lite.teaching.bits import token_shares

Pairs = list[tuple[Float[Tensor, "cells G"], Bool[Tensor, "cells G"]]]  # -log p of every gene, and which were hidden
AFTER = 10**9  # number of the first batch that no training draws
LOOKS = 12345  # seed of the masks of `validation_curve`
LIKE_ALL = 20  # cells that each depth's histogram borrows from that of all depths


class Histograms(NamedTuple):
    """How often a gene has each token in cells of one depth; what other genes of the cell show is not looked at."""

    edges: Float[np.ndarray, " edges"]  # log depths between the groups
    log_share: Float[Tensor, "groups G bins"]

    def given(self, batch: Batch) -> Denoiser:
        """Returns log-probabilities for the cells of a batch, whatever is visible of them."""
        group = torch.from_numpy(np.digitize(batch.log_depth.numpy(), self.edges))
        return lambda _: self.log_share[group]


def histograms(store: TokenStore, n_bins: int, n_groups: int = 1) -> Histograms:
    """Counts the tokens of each gene in groups of equally many cells by depth; one group: depth makes no difference."""
    edges = np.quantile(store.log_depth, np.arange(1, n_groups) / n_groups)
    group = np.digitize(store.log_depth, edges)
    shares = token_shares(store.tokens, n_bins=n_bins)
    tables = [token_shares(store.tokens[group == i], LIKE_ALL * shares, n_bins) for i in range(n_groups)]
    return Histograms(edges, torch.from_numpy(np.log(tables)).float())


@torch.no_grad()
def asked(data: SetSampler, models: Mapping[str, Callable[[Batch], Denoiser]], mask_id: int, n_batches: int,
          shares: Sequence[float] = SHARES) -> dict[tuple[float, str], Pairs]:
    """Asks models for the hidden genes of batches that no training draws, at several shares of hidden genes.

    Args:
        data: Cells to judge on.
        models: By name; each takes a batch and returns a denoiser.
        mask_id: The id of [MASK].
        n_batches: How many.
        shares: Of hidden genes.

    Returns:
        Costs in nats, a pair for each batch, by share and model.
    """
    costs: dict[tuple[float, str], Pairs] = {(share, name): [] for share in shares for name in models}
    for i in range(n_batches):
        batch = data.batch(AFTER + i)
        turn = random_turns(tuple(batch.tokens.shape), torch.Generator().manual_seed(i))
        guesses = {name: model(batch) for name, model in models.items()}
        for share in shares:
            mask = turn < max(1, round(share * turn.shape[-1]))
            for name, guess in guesses.items():
                nats = token_nats(guess(hide(batch.tokens, mask, mask_id)), batch.tokens)
                costs[share, name].append((nats.flatten(0, 1), mask.flatten(0, 1)))
    return costs


@torch.no_grad()
def at_looks(data: SetSampler, model: Callable[[Batch], Denoiser], mask_id: int, n_batches: int = 4) -> float:
    """Returns what a model would have cost at the looks of a capsule's training: the same cells, masks and shares.

    Args:
        data: Held-out cells, as the capsule's training had them.
        model: Takes a batch and returns a denoiser.
        mask_id: The id of [MASK].
        n_batches: Of a look.

    Returns:
        Nats per hidden gene, the mean over the six shares.
    """
    costs = []
    for i in range(n_batches):
        batch, generator = data.batch(AFTER + i), torch.Generator().manual_seed(LOOKS + i)
        costs.append(loss_curve(model(batch), batch.tokens, mask_id, generator, SHARES))
    return float(torch.stack(costs).mean())


def saved(costs: Mapping[tuple[float, str], Pairs], mean: Callable[[Pairs], float], name: str, rival: str
          ) -> pd.DataFrame:
    """Returns the bits per hidden gene that a model saves against a rival, batches x shares of hidden genes.

    Args:
        costs: From `asked`.
        mean: Of the costs of some batches, nats.
        name: The model.
        rival: The other.
    """
    table = {}
    for share in dict.fromkeys(share for share, _ in costs):
        pairs = zip(costs[share, rival], costs[share, name], strict=True)
        table[share] = [(mean([theirs]) - mean([ours])) / np.log(2) for theirs, ours in pairs]
    return pd.DataFrame(table).rename_axis(columns="share hidden")
