"""Exercises of notebook 04: one vocabulary for two panels, the learning rate, averaged weights, a mean over cells."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cdt_lite.teaching.check import Exercise, Property
from cdt_lite.teaching.compare import type_name

Pair = tuple[Any, Any]
Batches = list[tuple[Float[Tensor, "_ G"], Bool[Tensor, "_ G"]]]  # _: batches differ in their number of cells


def join_panel(known: list[str], panel: list[str]) -> tuple[list[str], Int[np.ndarray, " G"]]:
    """Adds a file's genes to a vocabulary, and returns the file's gene ids.

    Args:
        known: Gene symbols so far; the place of a symbol is its id. Must not be changed.
        panel: Gene symbols of the file's columns, in order.

    Returns:
        The vocabulary with the new genes behind the old ones, and the id of each column's gene.
    """
    joined = known + [gene for gene in dict.fromkeys(panel) if gene not in set(known)]
    place = {gene: i for i, gene in enumerate(joined)}
    return joined, np.array([place[gene] for gene in panel], dtype=np.int64)


def rate(step: int, n_steps: int, peak: float, warmup: int) -> float:
    """Returns the learning rate of a step: a straight climb to the peak, then half a cosine down towards zero.

    Args:
        step: 0..n_steps - 1. The first step does not have rate zero: step 0 has peak / warmup.
        n_steps: Length of the run.
        peak: Largest learning rate, reached at step warmup - 1.
        warmup: Steps of the climb, fewer than n_steps. The cosine begins at step warmup, at the peak.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return float(peak * 0.5 * (1 + np.cos(np.pi * (step - warmup) / (n_steps - warmup))))


def moving_average(initial: Float[np.ndarray, " n"], steps: Float[np.ndarray, "T n"], decay: float
                   ) -> Float[np.ndarray, " n"]:
    """Returns the exponential moving average (EMA) of weights after T training steps.

    The average starts at the initial weights. At step i = 0, 1, ... a share d = min(decay, (1 + i) / (10 + i)) of it is
    kept, and a share 1 - d of the new weights comes in: a short memory while all is new.

    Args:
        initial: Weights before training.
        steps: Weights after each step.
        decay: Largest share kept.
    """
    average = initial
    for i, weights in enumerate(steps):
        d = min(decay, (1 + i) / (10 + i))
        average = d * average + (1 - d) * weights
    return average


def mean_cost(batches: Batches) -> float:
    """Returns the mean cost of a cell, nats per hidden gene, over all batches of a validation set.

    Args:
        batches: Pairs (nll, mask): -log p of every gene, and which genes were hidden. Batches may differ in size. A
            cell without any hidden gene has no cost and is left out.
    """
    costs = [cell[hidden].mean() for nll, mask in batches for cell, hidden in zip(nll, mask, strict=True)
             if hidden.any()]
    return float(torch.stack(costs).mean())


def _hand(fn: Callable) -> Pair:
    joined, ids = fn(["A", "B", "C"], ["C", "D", "A"])
    return [["A", "B", "C", "D"], [2, 3, 0]], [joined, [int(i) for i in ids]]


def _array(fn: Callable) -> Pair:
    return "array of integer (3,)", type_name(fn(["A", "B", "C"], ["C", "D", "A"])[1])


def _old_ids(fn: Callable) -> Pair:
    return ["ZAP70", "CD4", "ACTB"], fn(["ZAP70", "CD4", "ACTB"], ["AAAS", "CD4"])[0][:3]


def _once(fn: Callable) -> Pair:
    joined = fn(["ZAP70", "CD4"], ["CD4", "MYC", "ZAP70"])[0]
    return 3, len(joined)


def _shared(fn: Callable) -> Pair:
    ids = fn(["ZAP70", "CD4", "ACTB"], ["ACTB", "CD4"])[1]
    return [2, 1], [int(i) for i in ids]


def _first(fn: Callable) -> Pair:
    joined, ids = fn([], ["B", "A"])
    return [["B", "A"], [0, 1]], [joined, [int(i) for i in ids]]


def _climb(fn: Callable) -> Pair:
    return [0.1, 0.5], [fn(s, 110, 1.0, 10) for s in (0, 4)]


def _join(fn: Callable) -> Pair:
    return [0.02, 0.02], [fn(s, 210, 0.02, 10) for s in (9, 10)]


def _half(fn: Callable) -> Pair:
    return 0.5, fn(60, 110, 1.0, 10)


def _quarter(fn: Callable) -> Pair:
    return 0.8535534, fn(35, 110, 1.0, 10)


def _end(fn: Callable) -> Pair:
    return [True, True], [bool(0 <= fn(s, 110, 1.0, 10) < bound) for s, bound in ((100, 0.03), (109, 0.001))]


def _constant(fn: Callable) -> Pair:
    w = np.array([2.0, -1.0])
    return w, fn(w, np.tile(w, (7, 1)), 0.99)


def _no_memory(fn: Callable) -> Pair:
    return np.array([5.0]), fn(np.array([1.0]), np.array([[2.0], [9.0], [5.0]]), 0.0)


def _first_step(fn: Callable) -> Pair:
    return np.array([0.9]), fn(np.array([0.0]), np.array([[1.0]]), 0.99)


def _recent(fn: Callable) -> Pair:
    steps = np.append(np.zeros(2000), 1.0)[:, None]
    return np.array([0.01]), fn(np.array([0.0]), steps, 0.99)


def _two_steps(fn: Callable) -> Pair:
    return np.array([18 / 11]), fn(np.array([0.0]), np.array([[0.0], [2.0]]), 0.999)  # 2 * (1 - 2/11)


def _cells(*rows: list[float | int]) -> tuple[Tensor, Tensor]:
    """A batch from costs; 0 marks a visible gene."""
    nll = torch.tensor(rows)
    return nll, nll > 0


def _within(fn: Callable) -> Pair:
    return 2.5, float(fn([_cells([4.0, 0, 0, 0], [1.0, 1, 1, 0])]))


def _sizes(fn: Callable) -> Pair:
    return 2.0, float(fn([_cells([1.0, 0], [1.0, 0], [1.0, 0]), _cells([5.0, 0])]))


def _empty(fn: Callable) -> Pair:
    return 3.0, float(fn([_cells([3.0, 3], [0.0, 0])]))


def _seen(fn: Callable) -> Pair:
    nll, mask = _cells([2.0, 0, 0], [4.0, 4.0, 0])
    return 3.0, float(fn([(nll.masked_fill(~mask, 70.0), mask)]))


def _number(fn: Callable) -> Pair:
    return "float", type(fn([_cells([1.0, 2.0])])).__name__


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "4.1", "One vocabulary for two panels", 2, 6,
        "join files whose gene panels differ, so that a gene keeps one id",
        "the number of a column can stand for the gene",
        join_panel,
        (
            Property("A B C joined by C D A", _hand,
                     "Compare by hand: C is known (2), D is new and comes last (3), A is known (0)."),
            Property("old genes keep their places", _old_ids,
                     "An id was changed: a trained vector would now belong to another gene. Append new genes, and sort "
                     "nothing."),
            Property("a gene stands in it once", _once,
                     "You appended genes that were known already: then one gene has two vectors."),
            Property("a shared gene has its old id", _shared,
                     "You returned the number of the column (or of the new gene): look up each symbol's place in the "
                     "vocabulary."),
            Property("the ids are an array of whole numbers", _array,
                     "Return the ids as a NumPy array, np.array([...]): cells below compare all of them at once."),
            Property("an empty vocabulary takes the panel", _first,
                     "It fails for the first file, where nothing is known yet: the panel itself is the vocabulary."),
        ),
        ("First the genes that are not known, in the order of the panel, behind the known ones.",
         "{gene: i for i, gene in enumerate(joined)} finds a place without searching a list."),
    ),
    Exercise(
        "4.2", "Warm-up and cosine", 2, 6,
        "write the learning rate of every step of a run",
        "the cosine runs over the whole run, warm-up included",
        rate,
        (
            Property("steps 0 and 4 of a climb of 10: 0.1, 0.5", _climb,
                     "Your first step has rate zero and teaches nothing: the climb gives step s the share "
                     "(s + 1) / warmup."),
            Property("the peak at steps warmup - 1 and warmup", _join,
                     "Climb and cosine do not meet at the peak: measure the cosine from the end of the warm-up, "
                     "(step - warmup) / (n_steps - warmup); warm-up ends at step warmup - 1; `peak` scales both."),
            Property("half way down, half the peak", _half,
                     "Half way between warm-up and end the rate is peak / 2: a cosine over half a turn (pi), scaled "
                     "from [-1, 1] to [0, 1], of x = (step - warmup) / (n_steps - warmup)."),
            Property("a quarter of the way down: 85 % of the peak", _quarter,
                     "You fall along a straight line: a cosine stays high at first, (1 + cos(pi * x)) / 2."),
            Property("near zero at the end, never negative", _end,
                     "Your rate does not die out: at the last step the cosine is near -1, and (1 + cos) / 2 near 0."),
        ),
        ("Two cases: step < warmup, and the rest.",
         "In the rest, x = (step - warmup) / (n_steps - warmup) runs from 0 to nearly 1."),
    ),
    Exercise(
        "4.3", "The moving average of weights", 2, 6,
        "average the weights of a run so that noise of single steps cancels",
        "a long memory is right from the first step on",
        moving_average,
        (
            Property("weights that never move stay", _constant,
                     "You started from zero: begin with the initial weights, else the average is too small for long."),
            Property("decay 0 gives the last weights", _no_memory,
                     "With decay 0 nothing old stays: keep d = min(decay, ...) of the average, let in 1 - d. (You "
                     "exchanged the shares, or take no notice of decay.)"),
            Property("one step from 0 to 1: 0.9", _first_step,
                     "At i = 0 keep 1/10 of `initial`: min(decay, (1 + i) / (10 + i)), i from 0. (0.01: Your memory is "
                     "long from the start, so that random initial weights linger.)"),
            Property("2,000 steps at 0, then one at 1: 0.01", _recent,
                     "All steps count alike in your average: a moving one forgets, each step lowers the weight of "
                     "those before by d."),
            Property("steps 0, 2 from 0: 18/11", _two_steps,
                     "The second step keeps (1 + 1) / (10 + 1) = 2/11 of the average: i counts from 0."),
        ),
        ("Walk through the steps and hold one array, the average.",
         "average = d * average + (1 - d) * weights, with d computed anew at each step."),
    ),
    Exercise(
        "4.4", "A mean over cells", 3, 8,
        "average a validation loss so that every cell counts the same",
        "the mean of batch means is the mean",
        mean_cost,
        (
            Property("costs 4 and (1, 1, 1) in two cells: 2.5", _within,
                     "1.75: You pooled hidden genes, a cell with many of them counts more. 0.875: visible genes were "
                     "counted. 3.5: costs were summed. Average within each cell first."),
            Property("cells 1, 1, 1 and 5 in two batches: 2", _sizes,
                     "You averaged the batches: the one cell of the small batch counts as much as the three of the "
                     "other. Collect cells, and average once."),
            Property("a cell with nothing hidden is left out", _empty,
                     "A cell with nothing hidden gave 0/0, or a cost of zero: it has no cost, leave it out."),
            Property("what is visible costs nothing", _seen,
                     "Visible genes entered the cost: pick the hidden ones, nll[mask], in each cell."),
            Property("a Python float", _number, "Return a plain number: float(...) of the mean."),
        ),
        ("One list for the costs of all cells of all batches; one mean at the end.",
         "cell[hidden].mean() for each row, where hidden.any()."),
    ),
)
