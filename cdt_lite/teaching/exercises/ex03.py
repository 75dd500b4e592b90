"""Exercises of notebook 03, first part: the law of training masks, the NELBO weight, v1's reverse step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cdt_lite.model.config import PRESETS
from cdt_lite.model.diffusion import mask_probabilities
from cdt_lite.teaching.check import Exercise, Property

Pair = tuple[Any, Any]


def masks_by_cell(n_cells: int, n_genes: int, generator: torch.Generator) -> Bool[Tensor, "n_cells n_genes"]:
    """Hides k genes of each cell, k uniform on 1..n_genes and stratified over the cells.

    Args:
        n_cells: Cells of the batch.
        n_genes: G.
        generator: Source of every random number.

    Returns:
        True where a gene is hidden. Which k genes of a cell are hidden is random; so is which cell gets which k.
    """
    share = (torch.randperm(n_cells, generator=generator) + torch.rand(n_cells, generator=generator)) / n_cells
    k = (share * n_genes).long().clamp(max=n_genes - 1) + 1
    turn = torch.rand(n_cells, n_genes, generator=generator).argsort(-1).argsort(-1)
    return turn < k[:, None]


def nelbo_per_gene(nll: Float[Tensor, "cells G"], mask: Bool[Tensor, "cells G"]) -> Float[Tensor, ""]:
    """Estimates the negative ELBO per gene from cells whose k hidden genes were drawn with k uniform on 1..G.

    Args:
        nll: -log p of the true token, nats, of every gene, hidden or not.
        mask: True where a gene is hidden; at least one in each cell.

    Returns:
        Nats per gene, a scalar.
    """
    return ((nll * mask).sum(-1) / mask.sum(-1)).mean()


def expected_groups(p: Float[np.ndarray, " T"], n_genes: int) -> Float[np.ndarray, " T_1"]:
    """Returns how many genes v1's sampler reveals, in expectation, at each step.

    All genes are hidden at first. Steps run from t = T - 1 down to t = 1, and at step t each gene that is still hidden
    is revealed with probability 1 - p[t - 1] / p[t].

    Args:
        p: Mask probability of each timestep, increasing; p[0] = 0.
        n_genes: G.

    Returns:
        T - 1 expected numbers, in the order in which the sampler goes.
    """
    groups, hidden = [], float(n_genes)
    for t in range(len(p) - 1, 0, -1):
        groups.append(hidden * (1 - p[t - 1] / p[t]))
        hidden -= groups[-1]
    return np.array(groups)


def _hidden(fn: Callable, n_cells: int, n_genes: int, seed: int = 0) -> Tensor:
    mask = fn(n_cells, n_genes, torch.Generator().manual_seed(seed))
    assert mask.shape == (n_cells, n_genes), f"the shape must be {(n_cells, n_genes)}, not {tuple(mask.shape)}"
    return mask


def _kind(fn: Callable) -> Pair:
    mask = fn(5, 7, torch.Generator().manual_seed(1))
    return [(5, 7), "torch.bool"], [tuple(mask.shape), str(mask.dtype)]


def _range(fn: Callable) -> Pair:
    k = _hidden(fn, 400, 4).sum(-1)
    return [1, 4], [int(k.min()), int(k.max())]


def _one_batch(fn: Callable) -> Pair:
    return True, len(_hidden(fn, 60, 40).sum(-1).unique()) > 5


def _strata(fn: Callable) -> Pair:
    k = _hidden(fn, 300, 3).sum(-1)
    return [100, 100, 100], torch.bincount(k, minlength=4)[1:4].tolist()


def _jitter(fn: Callable) -> Pair:
    generator = torch.Generator().manual_seed(0)
    return [1, 2, 3, 4], sorted({int(fn(1, 4, generator).sum()) for _ in range(300)})


def _places(fn: Callable) -> Pair:
    often = _hidden(fn, 6000, 5).float().mean(0)  # genes beside one another: a wrong k is no fault here
    return [True] * 5, [abs(float(x - often.mean())) < 0.05 for x in often]


def _cells_shuffled(fn: Callable) -> Pair:
    k = _hidden(fn, 500, 50).sum(-1).float()
    return True, not bool(torch.corrcoef(torch.stack([k, torch.arange(500.0)]))[0, 1].abs() >= 0.3)  # NaN: k constant


def _seeded(fn: Callable) -> Pair:
    return True, bool((_hidden(fn, 30, 9, 5) == _hidden(fn, 30, 9, 5)).all())


def _all_hidden(fn: Callable) -> Pair:
    nll = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    return torch.tensor(3.0), fn(nll, torch.ones(1, 4, dtype=torch.bool))


def _one_of_ten(fn: Callable, clip: Callable[[float, float], float]) -> Pair:
    mask = torch.arange(10)[None] == 4
    return torch.tensor(1.0), clip(float(fn(torch.ones(1, 10), mask)), 1.0)


def _two_cells(fn: Callable) -> Pair:
    nll = torch.tensor([[4.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    return torch.tensor(2.5), fn(nll, nll > 0)


def _visible(fn: Callable) -> Pair:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    one = torch.ones(2, 3)
    return torch.tensor(0.0), fn(one.masked_fill(~mask, 50.0), mask) - fn(one.masked_fill(~mask, 2.0), mask)


def _knows_nothing(fn: Callable) -> Pair:
    mask = torch.arange(40) < torch.tensor([1, 3, 11, 39, 40])[:, None]
    return torch.tensor(np.log(63.0)).float(), fn(torch.full((5, 40), float(np.log(63))), mask)


def _halves(fn: Callable) -> Pair:
    return np.array([4.0, 4.0]), fn(np.array([0.0, 0.5, 1.0]), 8)


def _from_the_top(fn: Callable) -> Pair:
    return 80.0, float(fn(np.array([0.0, 0.2, 1.0]), 100)[0])


def _scaled(fn: Callable) -> Pair:
    return np.array([80.0, 20.0]), fn(np.array([0.0, 0.06, 0.3]), 100)


def _last(fn: Callable) -> Pair:
    return True, float(fn(np.array([0.0, 0.2, 1.0]), 100)[-1]) > 1


def _v1(fn: Callable) -> Pair:
    told = np.array([143.3616, 223.5371, 282.1744, 313.6236, 314.8546, 285.7488, 229.1105, 150.397, 57.1924])
    return told, fn(mask_probabilities(PRESETS["v1"].diffusion).numpy(), 2000)  # counted from the original's schedule


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "3.1", "The law of training masks", 2, 8,
        "draw masks that give every share of hidden genes the same weight",
        "a batch can share one mask ratio, or hide each gene with the same probability",
        masks_by_cell,
        (
            Property("a bool tensor (n_cells, n_genes)", _kind, "Return one truth value a gene: compare turn < k."),
            Property("k runs from 1 to n_genes", _range,
                     "Your k can be 0, or is never n_genes. A cell with nothing hidden teaches nothing, and sampling "
                     "begins with all hidden: draw from 0..G-1 and add 1."),
            Property("cells of one batch differ in k", _one_batch,
                     "You drew one share for the whole batch, as v1 does, or rounded it too early: each cell has a "
                     "share, and k = floor(share * n_genes) + 1."),
            Property("300 cells of 3 genes: 100 with each k", _strata,
                     "Your k are not stratified: cell i of a shuffled order takes its share from slice i of n_cells "
                     "equal slices of [0, 1), and hides exactly k genes."),
            Property("1 cell of 4 genes, 300 times: each k occurs", _jitter,
                     "If only this row fails: your k is fixed by the slice. Take a random place in it (torch.rand), "
                     "not its middle or its edge; with one cell, any k from 1 to n_genes can come."),
            Property("each gene is hidden equally often", _places,
                     "You always hide the same genes of a cell: rank random numbers, and hide the k lowest ranks."),
            Property("a cell's place says nothing about its k", _cells_shuffled,
                     "Your slices follow the order of the cells, so the first set of each batch is always the easy "
                     "one: shuffle them (torch.randperm)."),
            Property("same generator, same masks", _seeded,
                     "You drew from the global generator: pass generator=generator to every random call."),
        ),
        ("torch.randperm(n_cells, generator=generator) gives each cell its own slice of [0, 1).",
         "share = (slice + a random number in [0, 1)) / n_cells; k = floor(share * n_genes) + 1.",
         "torch.rand(...).argsort(-1).argsort(-1) ranks the genes of each cell at random; hidden is rank < k."),
    ),
    Exercise(
        "3.2", "The weight of the NELBO", 2, 6,
        "turn costs of hidden genes into an unbiased negative ELBO per gene",
        "the mean over hidden genes still has to be weighted by 1/t",
        nelbo_per_gene,
        (
            Property("all genes hidden: the plain mean", _all_hidden,
                     "You give nats per cell: the answer is per gene, so a sum with weight 1/t still wants / G."),
            Property("1 of 10 hidden counts no more than its cost",
                     lambda fn: _one_of_ten(fn, max),
                     "Dividing by k and weighting by 1/t counts the same weight twice (t = k/G): take one of them."),
            Property("1 of 10 hidden counts no less than its cost",
                     lambda fn: _one_of_ten(fn, min),
                     "You divided by G without any weight, so that cells with little hidden hardly count: divide by "
                     "each cell's own k."),
            Property("costs 4 and (1, 1, 1) in two cells: 2.5", _two_cells,
                     "You pooled the hidden genes of the batch, so that a cell counts by its k: average within each "
                     "cell first, then over cells."),
            Property("what is visible costs nothing", _visible,
                     "Visible genes entered your sum: multiply nll by mask before summing."),
            Property("knowing nothing costs log 63", _knows_nothing,
                     "A model that gives each of 63 bins 1/63 must cost log 63, whatever is hidden: check the weight."),
        ),
        ("Three steps: blank what is visible, one number a cell, one number a batch.",
         "(nll * mask).sum(-1) is the cost of each cell's hidden genes, mask.sum(-1) their number k."),
    ),
    Exercise(
        "3.3", "v1's reverse step", 2, 8,
        "work out how many genes each step of v1's sampler reveals",
        "a step reveals the share p[t] - p[t - 1] of all genes",
        expected_groups,
        (
            Property("the first group belongs to the last t", _from_the_top,
                     "Your groups start at t = 1: the sampler goes from the last timestep down."),
            Property("p = 0, 0.5, 1: half, then the other half", _halves,
                     "You let every step choose among all genes: only those that are still hidden can be revealed."),
            Property("0.3 p gives the groups of p", _scaled,
                     "You used p[t] - p[t - 1] as a share of all genes. v1 starts with everything hidden although p "
                     "ends at 0.3, so only the ratio p[t - 1] / p[t] matters."),
            Property("the step to t = 0 leaves nothing hidden", _last,
                     "p[t - 1] / p[t] is the probability to stay hidden; a gene is revealed with 1 minus that."),
            Property("v1's nine groups for 2,000 genes", _v1,
                     "Compare your first group: 143.3616 of 2,000 genes. If only this row fails: an expectation is not "
                     "a whole number: do not round."),
        ),
        ("Keep a number `hidden`, at first n_genes, and go through t = T - 1, ..., 1.",
         "Each step reveals hidden * (1 - p[t - 1] / p[t]); then lower `hidden`."),
    ),
)
