"""Exercises of notebook 09: whose sets, a mean over processes, what a process holds."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cdt_lite.teaching.check import Answer, Pair, exercise

AllReduce = Callable[[Tensor], Tensor]


@exercise(
    "9.1", "Whose sets are these?", difficulty=2, minutes=8,
    objective="cut a global batch into the parts of any number of processes",
    misconception="Each process draws a batch of its own; what does not divide evenly is dropped.",
    hints=("Process r begins where process r - 1 ends, and the last one ends at n_sets: one formula for both ends.",
           "r * n_sets // n_ranks is the first set of process r, for every r from 0 to n_ranks."),
)
def sets_of(rank: int, n_ranks: int, n_sets: int) -> list[int]:
    """Returns the numbers of the sets that one process takes of a batch.

    Laid end to end, in the order of the ranks, the parts of all are the batch; their sizes differ by one at most. Ranks
    and sets are counted from 0.
    """
    return list(range(rank * n_sets // n_ranks, (rank + 1) * n_sets // n_ranks))


def _parts(fn: Answer, n_ranks: int, n_sets: int) -> list[list[int]]:
    return [[int(number) for number in fn(rank, n_ranks, n_sets)] for rank in range(n_ranks)]

def _end_to_end(fn: Answer, n_ranks: int, n_sets: int) -> list[int]:
    return [number for part in _parts(fn, n_ranks, n_sets) for number in part]

@sets_of.requires("two processes, six sets: 0 1 2 and 3 4 5")
def _(fn: Answer) -> Pair:
    """Return the numbers of the sets, a list for each rank: here [0, 1, 2] for rank 0, [3, 4, 5] for rank 1."""
    return [[0, 1, 2], [3, 4, 5]], _parts(fn, 2, 6), {
        "You dealt them like cards: laid end to end, these parts are not the batch. Each takes neighbours.":
            [[0, 2, 4], [1, 3, 5]],
        "Every process takes all sets: the work would be done twice.": [list(range(6))] * 2,
        "The first rank is 0, not 1: rank 0 begins with set 0.": [[-3, -2, -1], [0, 1, 2]],
        "A set is in two parts: each part ends before the next begins.": [[0, 1, 2, 3], [3, 4, 5, 6]],
        "The last set of each part is missing: range(first, last) stops before last.": [[0, 1], [3, 4]],
        "Your parts come in the wrong order: rank 0 has the first.": [[3, 4, 5], [0, 1, 2]],
    }

@sets_of.requires("four processes, ten sets: each set once, in order")
def _(fn: Answer) -> Pair:
    """Every set belongs to one process: rank r ends exactly where rank r + 1 begins."""
    rest = "The remainder is dropped: cells that no process reads, in every batch. Ten sets are ten, for any number."
    both = "You round one end up and the other down: sets at the seams are in two parts."
    return list(range(10)), _end_to_end(fn, 4, 10), {
        rest: list(range(8)),
        both: [0, 1, 2, 2, 3, 4, 5, 6, 7, 7, 8, 9],
        "You filled up from the beginning, so that all have as many: those sets are read twice.":
            [*range(10), 0, 1],
    }

@sets_of.requires("of these, none has more than one set above another")
def _(fn: Answer) -> Pair:
    """All wait for the slowest process, so parts should be even: two or three sets each."""
    return [2, 2, 3, 3], sorted(map(len, _parts(fn, 4, 10))), {
        "You gave the remainder to one process: all others wait for it. Spread it.": [2, 2, 2, 4],
        "You rounded up: the last process has nearly nothing to do.": [1, 3, 3, 3],
    }

@sets_of.requires("six sets, five processes: nobody is without")
def _(fn: Answer) -> Pair:
    """A process without a set has no loss to go back from: with five for six sets, four have one and one has two."""
    return [1, 1, 1, 1, 2], sorted(map(len, _parts(fn, 5, 6)))

@sets_of.requires("one process has all seven")
def _(fn: Answer) -> Pair:
    """With one process nothing is cut: rank 0 of 1 takes every set."""
    return list(range(7)), _end_to_end(fn, 1, 7)

@sets_of.requires("fifteen sets over eleven processes, thirty over thirteen")
def _(fn: Answer) -> Pair:
    """Multiply first, then divide by //: a float may end just below a whole number, and a set is lost or moves."""
    return [list(range(15)), list(range(30))], [_end_to_end(fn, 11, 15), _end_to_end(fn, 13, 30)]

@sets_of.requires("any number of processes sees the same 24 sets")
def _(fn: Answer) -> Pair:
    """Try your formula with 7 processes: the parts of all, end to end, must be 0 to 23."""
    return [list(range(24))] * 24, [_end_to_end(fn, n_ranks, 24) for n_ranks in range(1, 25)]


@exercise(
    "9.2", "An all-reduced mean", difficulty=3, minutes=10,
    objective="write a loss whose parts, over all processes, sum to that of the whole batch",
    misconception="The mean over processes of their means is the mean.",
    hints=("Everyone must divide by the same number: how many genes are hidden in the whole batch?",
           "all_reduce(hidden.sum()) is that number, in every process. The numerator stays each one's own."),
)
def part_of_loss(nats: Float[Tensor, "S G"], hidden: Bool[Tensor, "S G"], all_reduce: AllReduce) -> Float[Tensor, ""]:
    """Returns what a process adds to the mean cost of a hidden gene, over all hidden genes of the whole batch.

    `nats` and `hidden` are those of its own cells. `all_reduce(x)` returns the sum of every process's x; it waits until
    all have called it, and gradients do not flow through it.
    """
    own = (nats * hidden).sum()
    return own / all_reduce(hidden.sum())


class _Asks(BaseException):
    """A process has come to an all_reduce whose sum is not known yet."""

    def __init__(self, value: Any) -> None:
        self.value = torch.as_tensor(value).detach()


def _together(fn: Answer, ranks: list[tuple[Tensor, Tensor]]) -> list[Any]:
    """Runs an answer as several processes would: each goes on once all have asked for the same sum."""
    known: list[Tensor] = []
    for _ in range(9):
        asked, done = [], []
        for nats, hidden in ranks:
            sums = iter(known)

            def all_reduce(value: Any, sums: Any = sums) -> Tensor:
                for total in sums:
                    return total.clone()
                raise _Asks(value)

            try:
                done.append(fn(nats, hidden, all_reduce))
            except _Asks as waits:
                asked.append(waits.value)
        if not asked:
            return done
        if done:
            raise RuntimeError("one process has ended without an all_reduce that the others called: they would wait "
                               "for it for ever")
        if len({value.shape for value in asked}) > 1:
            raise RuntimeError("all_reduce adds up what is equally large, and processes need not hold equally many "
                               "cells: hand in one number, hidden.sum()")
        known.append(torch.stack(asked).sum(0))
    raise RuntimeError("more than eight sums")

def _cells(nats: list[int | float], hidden: list[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor([nats]), torch.tensor([hidden]) > 0

def _uneven() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(9)
    sizes = ((3, 0.9), (1, 0.2), (2, 0.5))  # cells, share of genes hidden
    return [(torch.rand(n, 7, generator=generator) * 4, torch.rand(n, 7, generator=generator) < p) for n, p in sizes]

ONE = _cells([1.0, 1, 1, 9], [1, 1, 1, 0])
OTHER = _cells([5.0, 7, 7, 7], [1, 0, 0, 0])

@part_of_loss.requires("hidden genes cost 1, 1, 1 here and 5 there: parts 0.75 and 1.25")
def _(fn: Answer) -> Pair:
    """Four genes are hidden in all, and their mean is 2: this process adds 3 / 4 to it, the other 5 / 4."""
    return [0.75, 1.25], [float(part) for part in _together(fn, [ONE, OTHER])], {
        "You divided by your own count: then a gene weighs less, the more are hidden beside it.": [1.0, 5.0],
        "That is the mean of two means, 3: where one hid three genes and the other one, the mean is 2.": [0.5, 2.5],
        "You counted genes that are visible, too: divide by the hidden ones of all processes.": [3 / 8, 5 / 8],
        "Genes that are visible cost nothing: sum over the hidden ones, nats * hidden.": [3.0, 6.5],
        "You returned the whole mean in each process: their sum is twice as much. The numerator is your own.":
            [2.0, 2.0],
        "You divided nothing: divide by the number of hidden genes in the whole batch.": [3.0, 5.0],
        "You multiplied by the number of processes, as a mean of gradients needs: here parts are summed.": [1.5, 2.5],
    }

@part_of_loss.requires("three processes: the parts sum to the mean over all hidden genes")
def _(fn: Answer) -> Pair:
    """Put all cells into one batch, take the mean over its hidden genes: that is what the parts must sum to."""
    ranks = _uneven()
    every = torch.cat([nats[hidden] for nats, hidden in ranks])
    return every.mean().item(), float(sum(float(part) for part in _together(fn, ranks)))

@part_of_loss.requires("a process with nothing hidden adds 0")
def _(fn: Answer) -> Pair:
    """It must call all_reduce all the same, since the others wait for it; and 0 / 4 is 0, where 0 / 0 is NaN."""
    empty = _cells([2.0, 2, 2, 2], [0, 0, 0, 0])
    return [0.75, 0.0, 1.25], [float(part) for part in _together(fn, [ONE, empty, OTHER])], {
        "You count one hidden gene where there is none: the others then divide by one too many.": [0.6, 0.0, 1.0],
    }

@part_of_loss.requires("what comes back is a tensor")
def _(fn: Answer) -> Pair:
    """A plain number has no gradient: keep the sum a tensor, without .item() and float()."""
    return [True, True], [isinstance(part, Tensor) for part in _together(fn, [ONE, OTHER])]

@part_of_loss.requires("its gradient: each hidden gene counts 1 / 4, in both")
def _(fn: Answer) -> Pair:
    """Gradients flow through your own costs alone: all_reduce counts, not costs, and detach nothing."""
    costs = [nats.clone().requires_grad_() for nats, _ in (ONE, OTHER)]
    parts = _together(fn, [(costs[0], ONE[1]), (costs[1], OTHER[1])])
    gradients = torch.autograd.grad(torch.stack([torch.as_tensor(part) for part in parts]).sum(), costs)
    return [0.25] * 3 + [0.0] + [0.25] + [0.0] * 3, torch.cat(gradients, 1)[0].tolist()


@exercise(
    "9.3", "What a process holds", difficulty=2, minutes=8,
    objective="count the memory of a training step before it is run, for any number of processes",
    misconception="A model takes as much memory as its weights; and two cards hold twice the model.",
    hints=("Of every weight four floats are kept: itself, its gradient, and AdamW's two running means.",
           "Copies: n_weights for each. Shards: -(-n_weights // n_processes), which rounds up. Cells likewise."),
)
def bytes_held(n_weights: int, n_processes: int, sharded: bool, n_cells: int, a_cell: int) -> int:
    """Returns the bytes that the fullest of some processes holds in a training step.

    Weights, gradients and AdamW's two running means are floats of 4 bytes; each process has all of them, or, sharded,
    its part. The cells of a batch are shared out, and a cell keeps `a_cell` bytes for the way back. Parts are rounded
    up to whole weights and whole cells.
    """
    own = -(-n_weights // n_processes) if sharded else n_weights
    return 16 * own + -(-n_cells // n_processes) * a_cell


V1_WEIGHTS = 27_374_473

@bytes_held.requires("v1's 27,374,473 weights, one process, no cells")
def _(fn: Answer) -> Pair:
    """Sixteen bytes a weight: 4 for itself, 4 for its gradient, 8 for AdamW's two running means."""
    return 16 * V1_WEIGHTS, fn(V1_WEIGHTS, 1, False, 0, 0), {
        "Those are the weights alone: training keeps a gradient and two running means of each.": 4 * V1_WEIGHTS,
        "You left AdamW's two running means out.": 8 * V1_WEIGHTS,
        "AdamW keeps two running means of every weight, not one.": 12 * V1_WEIGHTS,
        "A float has 4 bytes, not 8: 16 bytes a weight in all.": 32 * V1_WEIGHTS,
    }

@bytes_held.requires("copied to four processes: as much in each")
def _(fn: Answer) -> Pair:
    """Without shards every process holds the whole model: more processes make it faster, not smaller."""
    return 1600, fn(100, 4, False, 0, 0), {
        "You shared the weights out, though nothing is sharded: every process holds a copy of all.": 400,
        "That is what all four hold together: asked is what one holds.": 6400,
    }

@bytes_held.requires("cut into four shards: a quarter each")
def _(fn: Answer) -> Pair:
    """Shards cut all four floats of a weight: itself, its gradient, both running means."""
    return 400, fn(100, 4, True, 0, 0), {
        "You cut the weights, and left gradients and running means whole: all four are cut.": 1300,
        "Sharded, each process keeps its part alone: divide by n_processes.": 1600,
        "One too many where nothing is left over: -(-n // p) rounds up, n // p + 1 always adds one.": 416,
    }

@bytes_held.requires("twelve cells of 50 bytes, four processes: three cells each")
def _(fn: Answer) -> Pair:
    """The batch is shared out, sharded or not: each process keeps what its own cells need."""
    return [1750, 550], [fn(100, 4, sharded, 12, 50) for sharded in (False, True)], {
        "Every process keeps all cells: the batch is shared out.": [2200, 1000],
        "You shared cells out where weights are sharded only: the batch is shared out in any case.": [2200, 550],
        "You gave each process twelve cells of its own: n_cells is the whole batch.": [4000, 2800],
    }

@bytes_held.requires("ten weights and ten cells over four: three of each")
def _(fn: Answer) -> Pair:
    """The fullest process decides whether it fits: round up, both weights and cells."""
    return 48 + 3 * 50, fn(10, 4, True, 10, 50), {
        "You rounded down: the fullest process holds three.": 32 + 2 * 50,
        "There is no half a weight and no half a cell: round up.": 40 + 125,
        "Round the number of cells up, too.": 48 + 125,
    }
