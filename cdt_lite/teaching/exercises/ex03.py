"""Exercises of notebook 03, first part: the law of training masks, the NELBO weight, v1's reverse step."""

import numpy as np
import torch
from jaxtyping import Bool, Float
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
    return [1, 4], [k.min(), k.max()]

@masks_by_cell.requires("cells of one batch differ in k")
def _(fn: Answer) -> Pair:
    """You drew one share for the whole batch, as v1 does, or rounded too early: k = floor(share * n_genes) + 1."""
    return True, len(_masks(fn, 60, 40).sum(-1).unique()) > 5

@masks_by_cell.requires("300 cells of 3 genes: 100 with each k")
def _(fn: Answer) -> Pair:
    """Your k are not stratified: a cell takes its share from its own of n_cells slices, and hides exactly k genes."""
    k = _masks(fn, 300, 3).sum(-1)
    return [100, 100, 100], torch.bincount(k, minlength=4)[1:4]

@masks_by_cell.requires("1 cell of 4 genes, 300 times: each k occurs")
def _(fn: Answer) -> Pair:
    """If only this row fails: your k is fixed by the slice. Take a random place in it, not its middle or its edge."""
    generator = torch.Generator().manual_seed(0)
    return [1, 2, 3, 4], sorted({int(fn(1, 4, generator).sum()) for _ in range(300)})

@masks_by_cell.requires("each gene is hidden equally often")
def _(fn: Answer) -> Pair:
    """You always hide the same genes of a cell: rank random numbers, and hide the k lowest ranks."""
    often = _masks(fn, 6000, 5).float().mean(0)
    return True, bool((often.max() - often.min()) < 0.05)  # of genes beside one another: a wrong k is no fault here

@masks_by_cell.requires("neighbours are hidden together no more than others")
def _(fn: Answer) -> Pair:
    """You hide a run of genes beside one another, or a mask shifted from cell to cell: choose k at random each time."""
    hidden = _masks(fn, 6000, 6).float()
    near = (hidden * hidden.roll(1, -1)).mean()
    far = (hidden * hidden.roll(3, -1)).mean()
    return True, bool((near - far).abs() < 0.03)

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
    "3.2", "The weight of the NELBO", difficulty=2, minutes=6,
    objective="turn costs of hidden genes into an unbiased negative ELBO per gene",
    misconception="the mean over hidden genes still has to be weighted by 1/t",
    hints=("Three steps: blank what is visible, one number a cell, one number a batch.",
           "(nll * mask).sum(-1) is the cost of each cell's hidden genes, mask.sum(-1) their number k."),
)
def nelbo_per_gene(nll: Float[Tensor, "cells G"], mask: Bool[Tensor, "cells G"]) -> Float[Tensor, ""]:
    """Estimates the negative ELBO, nats per gene, from cells whose number of hidden genes was uniform on 1..G.

    nll is -log p of the true token of every gene, hidden or not; mask is True where a gene is hidden.
    """
    return ((nll * mask).sum(-1) / mask.sum(-1)).mean()

@nelbo_per_gene.requires("all genes hidden: the plain mean")
def _(fn: Answer) -> Pair:
    """You give nats per cell: the answer is per gene, so a sum with weight 1/t still wants / G."""
    return 3.0, fn(torch.tensor([[1.0, 2.0, 3.0, 6.0]]), torch.full((1, 4), True))

@nelbo_per_gene.requires("1 of 10 hidden counts no more than its cost")
def _(fn: Answer) -> Pair:
    """Dividing by k and weighting by 1/t counts the same weight twice (t = k/G): take one of them."""
    return 1.0, max(1.0, fn(torch.ones(1, 10), torch.arange(10)[None] == 4))

@nelbo_per_gene.requires("1 of 10 hidden counts no less than its cost")
def _(fn: Answer) -> Pair:
    """You divided by G without any weight, so that cells with little hidden hardly count: divide by each cell's k."""
    return 1.0, min(1.0, fn(torch.ones(1, 10), torch.arange(10)[None] == 4))

@nelbo_per_gene.requires("costs 4 and (1, 1, 1) in two cells: 2.5")
def _(fn: Answer) -> Pair:
    """You pooled the hidden genes of the batch, so that a cell counts by its k: average within each cell first."""
    nll = torch.tensor([[4.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    return 2.5, fn(nll, nll > 0)

@nelbo_per_gene.requires("what is visible costs nothing")
def _(fn: Answer) -> Pair:
    """Visible genes entered your sum: multiply nll by mask before summing."""
    mask = torch.tensor([[True, True, False], [True, False, False]])
    return 0.0, fn(torch.where(mask, 1.0, 50.0), mask) - fn(torch.where(mask, 1.0, 2.0), mask)

@nelbo_per_gene.requires("knowing nothing costs log 63")
def _(fn: Answer) -> Pair:
    """A model that gives each of 63 bins 1/63 must cost log 63, whatever is hidden: check the weight."""
    mask = torch.arange(40) < torch.tensor([1, 3, 11, 39, 40])[:, None]
    return float(np.log(63)), fn(torch.full((5, 40), 63.0).log(), mask)


@exercise(
    "3.3", "v1's reverse step", difficulty=2, minutes=8,
    objective="work out how many genes each step of v1's sampler reveals",
    misconception="a step reveals the share p[t] - p[t - 1] of all genes",
    hints=("Keep a number `hidden`, at first n_genes, and go through t = T - 1, ..., 1.",
           "Each step reveals hidden * (1 - p[t - 1] / p[t]); then lower `hidden`."),
)
def expected_groups(p: Float[np.ndarray, " T"], n_genes: int) -> Float[np.ndarray, " T_1"]:
    """Returns how many genes v1's sampler reveals, in expectation, at each of its T - 1 steps, in its order.

    All genes are hidden at first. Steps run from t = T - 1 down to t = 1, and at step t each gene that is still hidden
    is revealed with probability 1 - p[t - 1] / p[t]. p increases from p[0] = 0.
    """
    groups = []
    hidden = float(n_genes)
    for t in range(len(p) - 1, 0, -1):
        groups.append(hidden * (1 - p[t - 1] / p[t]))
        hidden -= groups[-1]
    return np.array(groups)

@expected_groups.requires("the first group belongs to the last t")
def _(fn: Answer) -> Pair:
    """Your groups start at t = 1: the sampler goes from the last timestep down."""
    return 80.0, fn(np.array([0.0, 0.2, 1.0]), 100)[0]

@expected_groups.requires("p = 0, 0.5, 1: half, then the other half")
def _(fn: Answer) -> Pair:
    """You let every step choose among all genes: only those that are still hidden can be revealed."""
    return np.array([4.0, 4.0]), fn(np.array([0.0, 0.5, 1.0]), 8)

@expected_groups.requires("0.3 p gives the groups of p")
def _(fn: Answer) -> Pair:
    """You used p[t] - p[t - 1] as a share of all genes. All are hidden at first: only p[t - 1] / p[t] matters."""
    return np.array([80.0, 20.0]), fn(np.array([0.0, 0.06, 0.3]), 100)

@expected_groups.requires("the step to t = 0 leaves nothing hidden")
def _(fn: Answer) -> Pair:
    """p[t - 1] / p[t] is the probability to stay hidden; a gene is revealed with 1 minus that."""
    return True, fn(np.array([0.0, 0.2, 1.0]), 100)[-1] > 1

@expected_groups.requires("v1's nine groups for 2,000 genes")
def _(fn: Answer) -> Pair:
    """If only this row fails: an expectation is not a whole number: do not round. The first group is 143.3616."""
    alpha = np.cos((np.arange(10) / 10 + 0.008) / 1.008 * np.pi / 2) ** 2  # the original's cosine schedule
    groups = [143.3616, 223.5371, 282.1744, 313.6236, 314.8546, 285.7488, 229.1105, 150.397, 57.1924]
    return np.array(groups), fn(1 - alpha / alpha[0], 2000)
