"""Exercises of notebook 03, first part: the law of training masks, and the two averages of what hidden genes cost."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cdt_lite.teaching.check import Answer, Pair, exercise
from cdt_lite.teaching.compare import type_name


@exercise(
    "3.1", "The law of training masks", difficulty=2, minutes=8,
    objective="draw masks that give every share of hidden genes the same weight",
    misconception="a batch can share one mask ratio, or hide each gene with the same probability",
    hints=("torch.randperm(n_cells, generator=generator) gives each cell its own slice of [0, 1).",
           "share = (slice + a random number in [0, 1)) / n_cells; k = floor(share * n_genes) + 1.",
           "torch.rand(...).argsort(-1).argsort(-1) ranks the genes of each cell at random; hidden is rank < k."),
)
def masks_by_cell(n_cells: int, n_genes: int, generator: torch.Generator) -> Bool[Tensor, "n_cells n_genes"]:
    """Hides k genes of each cell (True), k uniform on 1..n_genes and stratified over the cells.

    Which k genes of a cell are hidden is random; so is which cell gets which k. All chance comes from the generator.
    """
    places = torch.randperm(n_cells, generator=generator) + torch.rand(n_cells, generator=generator)
    k = (places / n_cells * n_genes).long().clamp(max=n_genes - 1) + 1
    rank = torch.rand(n_cells, n_genes, generator=generator).argsort(-1).argsort(-1)
    return rank < k[:, None]


def _masks(fn: Answer, n_cells: int, n_genes: int, seed: int = 0) -> Tensor:
    return fn(n_cells, n_genes, torch.Generator().manual_seed(seed))

@masks_by_cell.requires("a bool tensor (n_cells, n_genes)")
def _(fn: Answer) -> Pair:
    """Return one truth value a gene: compare turn < k."""
    return "tensor of bool (5, 7)", type_name(_masks(fn, 5, 7))

@masks_by_cell.requires("k runs from 1 to n_genes")
def _(fn: Answer) -> Pair:
    """Your k can be 0, or is never n_genes: sampling begins with all hidden. Draw from 0..G-1 and add 1."""
    k = _masks(fn, 400, 4).sum(-1)
    faults = {"You hide one gene too many: ranks run from 0, so rank < k, not <=.": [2, 4],
              "Add 1 to k: it can be 0. Or your mask is the wrong way round: it is True where rank < k.": [0, 3]}
    return [1, 4], [k.min(), k.max()], faults

@masks_by_cell.requires("cells of one batch differ in k")
def _(fn: Answer) -> Pair:
    """You drew one share for the whole batch, as v1 does, or rounded too early: k = floor(share * n_genes) + 1."""
    return True, len(_masks(fn, 60, 40).sum(-1).unique()) > 5

@masks_by_cell.requires("300 cells of 3 genes: 100 with each k")
def _(fn: Answer) -> Pair:
    """Your k are not stratified: a cell takes its share from its own of n_cells slices, and hides exactly k genes."""
    k = _masks(fn, 300, 3).sum(-1)
    rounded = "You rounded: the lowest k has half its due, the highest half more. Take floor(share * n_genes) + 1."
    return [100, 100, 100], torch.bincount(k, minlength=4)[1:4], {rounded: [50, 100, 150]}

@masks_by_cell.requires("1 cell of 4 genes, 300 times: each k occurs")
def _(fn: Answer) -> Pair:
    """If only this row fails: your k is fixed by the slice. Take a random place in it, not its middle or its edge.

    Or you made a generator of your own, which begins anew each time: all chance comes from the one that is given.
    """
    generator = torch.Generator().manual_seed(0)
    return [1, 2, 3, 4], sorted({int(fn(1, 4, generator).sum()) for _ in range(300)})

@masks_by_cell.requires("each gene is hidden equally often")
def _(fn: Answer) -> Pair:
    """You always hide the same genes of a cell: rank random numbers, and hide the k lowest ranks."""
    often = _masks(fn, 6000, 5).float().mean(0)
    return True, bool((often.max() - often.min()) < 0.05)  # of genes beside one another: a wrong k is no fault here

@masks_by_cell.requires("6 genes: all 63 masks occur")
def _(fn: Answer) -> Pair:
    """You hide a run of neighbours, or one mask shifted from cell to cell: choose k genes at random each time."""
    return 63, len(set((_masks(fn, 6000, 6).long() @ 2 ** torch.arange(6)).tolist()) - {0})

@masks_by_cell.requires("a cell's mask says nothing about the next cell's")
def _(fn: Answer) -> Pair:
    """You deal the genes of one shuffled deck to cell after cell: rank new random numbers for each."""
    mask = _masks(fn, 6000, 6).float()
    k = mask.sum(-1)
    shared = (mask[1:] * mask[:-1]).sum(-1) - k[1:] * k[:-1] / 6  # more than chance would have it
    return True, bool(shared.mean().abs() < 0.05)

@masks_by_cell.requires("a cell's place says nothing about its k")
def _(fn: Answer) -> Pair:
    """Your slices follow the order of the cells, so the first are always the easy ones: use torch.randperm."""
    k = _masks(fn, 500, 50).sum(-1).float()
    correlation = torch.corrcoef(torch.stack([k, torch.arange(500.0)]))[0, 1]
    return True, bool(correlation.nan_to_num().abs() < 0.3)  # NaN: k is constant

@masks_by_cell.requires("same generator, same masks")
def _(fn: Answer) -> Pair:
    """You drew from the global generator: pass generator=generator to every random call."""
    return True, torch.equal(_masks(fn, 30, 9, seed=5), _masks(fn, 30, 9, seed=5))


@exercise(
    "3.2", "What is trained, and what is judged by", difficulty=3, minutes=10,
    objective="turn logits into the loss that trains and into an unbiased negative ELBO per gene",
    misconception="the mean over all hidden genes is the NELBO, or its weight is to be counted twice",
    hints=("logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0] is log p of every gene's true token.",
           "(nll * mask).sum(-1) is the cost of each cell's hidden genes, mask.sum(-1) their number k.",
           "Trained: all costs over all k. Judged by: divide within each cell, then average over cells."),
)
def losses(logits: Float[Tensor, "cells G K"], tokens: Int[Tensor, "cells G"], mask: Bool[Tensor, "cells G"]
           ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Returns two averages of -log p(true token) over hidden genes, nats per gene; mask is True where one is hidden.

    First what is trained, the mean over all hidden genes of the batch; then what models are judged by, the mean within
    each cell over its own hidden genes, and then over cells: the NELBO per gene, where k was uniform.
    """
    nll = -logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0] * mask
    return nll.sum() / mask.sum(), (nll.sum(-1) / mask.sum(-1)).mean()


def _logits(costs: list[list[float]]) -> Tensor:
    """Logits of two bins in which token 0 costs as much as asked."""
    p = torch.exp(-torch.tensor(costs))
    return torch.stack([p, 1 - p], -1).log() + 3.0  # softmax undoes the 3

def _two(fn: Answer, logits: Tensor, mask: Tensor) -> list:
    return list(fn(logits, torch.zeros(mask.shape, dtype=torch.long), mask))

@losses.requires("two numbers come back")
def _(fn: Answer) -> Pair:
    """Return two: what is trained, then what is judged by."""
    return 2, len(_two(fn, torch.zeros(1, 3, 4), torch.full((1, 3), True)))

@losses.requires("knowing nothing, of 63 bins, costs log 63 in both")
def _(fn: Answer) -> Pair:
    """A model that gives each of 63 bins 1/63 must cost log 63 a gene, whatever is hidden: check the weight.

    mask is True where a gene is hidden, and only hidden genes cost.
    """
    mask = torch.arange(40) < torch.tensor([1, 3, 11, 38, 39])[:, None]
    t, nats = mask.float().mean(-1), float(np.log(63))
    faults = {
        "The logarithm of a probability is negative, its cost is not: change the sign.": [-nats, -nats],
        "Your softmax runs over genes: it is to run over the bins of a gene, the last axis.": [float(np.log(40))] * 2,
        "Your logarithm has base 2: losses are in nats.": [np.log2(63)] * 2,
        "Dividing by k and weighting by 1/t counts the same weight twice (t = k/G): take one of them.":
            [nats, float(nats / t.mean() * (t.mean() / t).mean())],
        "You give nats per cell: the answer is per gene, so a sum with weight 1/t still wants / G.": [nats, 40 * nats],
        "You divided by G without any weight, so that cells with little hidden hardly count: divide by each cell's k.":
            [nats, float(nats * t.mean())],
        "Logits are no log-probabilities yet: log_softmax first.": [0.0, 0.0],
    }
    return [nats, nats], _two(fn, torch.zeros(5, 40, 63), mask), faults

@losses.requires("costs 4 and (1, 1, 1) in two cells: 7/4, and 2.5")
def _(fn: Answer) -> Pair:
    """Trained: (4 + 1 + 1 + 1) / 4. Judged by: 4 in one cell and 1 in the other, 2.5 in the mean."""
    costs = [[4.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 2.0]]
    mask = torch.tensor([[True, False, False, False], [True, True, True, False]])
    faults = {
        "You exchanged the two: what is trained comes first.": [2.5, 1.75],
        "In both you pooled the hidden genes of the batch, so that a cell counts by its k: for the second, average "
        "within each cell first.": [1.75, 1.75],
        "In both you averaged within cells first: what is trained is one mean over all hidden genes.": [2.5, 2.5],
        "Visible genes entered your sums: multiply by mask before summing.": [12 / 8, (7 / 4 + 5 / 4) / 2],
        "You took the visible genes: mask is True where a gene is hidden.": [1.25, 1.5],
        "Logits are no log-probabilities yet: log_softmax first.": [7 / 4 - 3, 2.5 - 3],
    }
    return [1.75, 2.5], _two(fn, _logits(costs), mask), faults

@losses.requires("each gene costs what its own true token does")
def _(fn: Answer) -> Pair:
    """Gather at tokens, gene by gene: token 1 of a gene that is surely 0 costs much."""
    p = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]])
    found = fn(p.log(), torch.tensor([[1, 2]]), torch.full((1, 2), True))
    return [float(np.log(4) + np.log(1.25)) / 2] * 2, list(found)

@losses.requires("what is visible costs nothing")
def _(fn: Answer) -> Pair:
    """Visible genes entered your sums: multiply by mask before summing."""
    mask = torch.tensor([[True, True, False], [True, False, False]])
    dear, cheap = (_two(fn, _logits([[1.0, 1.0, x], [1.0, x, x]]), mask) for x in (9.0, 2.0))
    return [0.0, 0.0], [a - b for a, b in zip(dear, cheap, strict=True)]

@losses.requires("a logit of 1,000 is a number like others: sure and right costs 0")
def _(fn: Answer) -> Pair:
    """exp(1000) overflows, and inf / inf is no number: log_softmax subtracts the largest logit first."""
    logits = torch.tensor([[[1000.0, 0.0, 0.0]] * 2])
    return [0.0, 0.0], list(fn(logits, torch.zeros(1, 2, dtype=torch.long), torch.full((1, 2), True)))

@losses.requires("training can follow it: a gradient reaches the logits")
def _(fn: Answer) -> Pair:
    """Return tensors, not numbers of Python or NumPy: .item() and float() cut the gradient."""
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    fn(logits, torch.tensor([[1, 2]]), torch.full((1, 2), True))[0].backward()
    return True, bool(logits.grad is not None and logits.grad.any())
