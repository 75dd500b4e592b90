"""Exercises of notebook 04: one vocabulary for two panels, the learning rate, averaged weights, a mean over cells."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cdt_lite.teaching.check import Answer, Pair, exercise
from cdt_lite.teaching.compare import type_name

Batches = list[tuple[Float[Tensor, "_ G"], Bool[Tensor, "_ G"]]]  # _: batches differ in their number of cells


@exercise(
    "4.1", "One vocabulary for two panels", difficulty=2, minutes=6,
    objective="join files whose gene panels differ, so that a gene keeps one id",
    misconception="the number of a column can stand for the gene",
    hints=("First the genes that are not known, in the order of the panel, behind the known ones.",
           "{gene: i for i, gene in enumerate(joined)} finds a place without searching a list."),
)
def join_panel(known: list[str], panel: list[str]) -> tuple[list[str], Int[np.ndarray, " G"]]:
    """Adds a file's genes to a vocabulary, and returns the file's gene ids.

    The place of a symbol in the vocabulary is its id. New genes come behind the known ones; the panel's columns get one
    id each.
    """
    joined = list(dict.fromkeys(known + panel))
    place = dict(zip(joined, range(len(joined)), strict=True))
    return joined, np.array([place[gene] for gene in panel], dtype=np.int64)

@join_panel.requires("A B C joined by C D A")
def _(fn: Answer) -> Pair:
    """Compare by hand: C is known (2), D is new and comes last (3), A is known (0)."""
    return [["A", "B", "C", "D"], [2, 3, 0]], fn(["A", "B", "C"], ["C", "D", "A"])

@join_panel.requires("old genes keep their places")
def _(fn: Answer) -> Pair:
    """An id was changed: a trained vector would now belong to another gene. Append new genes, and sort nothing."""
    return ["ZAP70", "CD4", "ACTB"], fn(["ZAP70", "CD4", "ACTB"], ["AAAS", "CD4"])[0][:3]

@join_panel.requires("new genes come in the order of the panel")
def _(fn: Answer) -> Pair:
    """New genes were sorted, or came out of a set, which has no order: go through the panel as it stands."""
    panel = ["MYC", "AAAS", "ZNF1", "BRCA1", "CD8A", "TP53", "CD4"]
    return ["CD4", *panel[:-1]], fn(["CD4"], panel)[0]

@join_panel.requires("a gene stands in it once")
def _(fn: Answer) -> Pair:
    """You appended genes that were known already: then one gene has two vectors."""
    return 3, len(fn(["ZAP70", "CD4"], ["CD4", "MYC", "ZAP70"])[0])

@join_panel.requires("a shared gene has its old id")
def _(fn: Answer) -> Pair:
    """You returned the number of the column (or of the new gene): look up each symbol's place in the vocabulary."""
    return [2, 1], fn(["ZAP70", "CD4", "ACTB"], ["ACTB", "CD4"])[1]

@join_panel.requires("the ids are an array of whole numbers")
def _(fn: Answer) -> Pair:
    """Return the ids as a NumPy array, np.array([...]): cells below compare all of them at once."""
    return "array of integer (3,)", type_name(fn(["A", "B", "C"], ["C", "D", "A"])[1])

@join_panel.requires("an empty vocabulary takes the panel")
def _(fn: Answer) -> Pair:
    """It fails for the first file, where nothing is known yet: the panel itself is the vocabulary."""
    return [["B", "A"], [0, 1]], fn([], ["B", "A"])


@exercise(
    "4.2", "Warm-up and cosine", difficulty=2, minutes=6,
    objective="write the learning rate of every step of a run",
    misconception="the cosine runs over the whole run, warm-up included",
    hints=("Two cases: step < warmup, and the rest.",
           "In the rest, x = (step - warmup) / (n_steps - warmup) runs from 0 to nearly 1."),
)
def rate(step: int, n_steps: int, peak: float, warmup: int) -> float:
    """Returns the learning rate of a step: a straight climb to the peak, then half a cosine down towards zero.

    Step 0 has peak / warmup, step warmup - 1 the peak; the cosine begins at step warmup, at the peak.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return float(peak * 0.5 * (1 + np.cos(np.pi * (step - warmup) / (n_steps - warmup))))

@rate.requires("steps 0 and 4 of a climb of 10: 0.1, 0.5")
def _(fn: Answer) -> Pair:
    """Your first step has rate zero and teaches nothing: the climb gives step s the share (s + 1) / warmup."""
    return [0.1, 0.5], [fn(0, 110, 1.0, 10), fn(4, 110, 1.0, 10)]

@rate.requires("the peak at steps warmup - 1 and warmup")
def _(fn: Answer) -> Pair:
    """Climb and cosine do not meet at the peak: the cosine is one of (step - warmup) / (n_steps - warmup).

    Warm-up ends at step warmup - 1; `peak` scales both.
    """
    return [0.02, 0.02], [fn(9, 210, 0.02, 10), fn(10, 210, 0.02, 10)]

@rate.requires("half way down, half the peak")
def _(fn: Answer) -> Pair:
    """Half way down the rate is peak / 2: take a cosine over half a turn (pi), scaled from [-1, 1] to [0, 1]."""
    return 0.5, fn(60, 110, 1.0, 10)

@rate.requires("a quarter of the way down: 85 % of the peak")
def _(fn: Answer) -> Pair:
    """You fall along a straight line: a cosine stays high at first, (1 + cos(pi * x)) / 2."""
    return 0.8535534, fn(35, 110, 1.0, 10)

@rate.requires("near zero at the end, never negative")
def _(fn: Answer) -> Pair:
    """Your rate does not die out: at the last step the cosine is near -1, and (1 + cos) / 2 near 0."""
    return [True, True], [0 <= fn(100, 110, 1.0, 10) < 0.03, 0 <= fn(109, 110, 1.0, 10) < 0.001]


@exercise(
    "4.3", "The moving average of weights", difficulty=2, minutes=6,
    objective="average the weights of a run so that noise of single steps cancels",
    misconception="a long memory is right from the first step on",
    hints=("Walk through the steps and hold one array, the average.",
           "average = d * average + (1 - d) * weights, with d computed anew at each step."),
)
def moving_average(initial: Float[np.ndarray, " n"], steps: Float[np.ndarray, "T n"], decay: float
                   ) -> Float[np.ndarray, " n"]:
    """Returns the exponential moving average (EMA) of weights after T training steps, from the initial weights on.

    At step i = 0, 1, ... a share d = min(decay, (1 + i) / (10 + i)) of it is kept, and a share 1 - d of the new weights
    comes in: a short memory while all is new.
    """
    average = initial
    for i, weights in enumerate(steps):
        d = min(decay, (1 + i) / (10 + i))
        average = d * average + (1 - d) * weights
    return average

@moving_average.requires("weights that never move stay")
def _(fn: Answer) -> Pair:
    """You started from zero: begin with the initial weights, else the average is too small for long."""
    weights = np.array([2.0, -1.0])
    return weights, fn(weights, np.tile(weights, (7, 1)), 0.99)

@moving_average.requires("decay 0 gives the last weights")
def _(fn: Answer) -> Pair:
    """You exchanged the shares, or take no notice of decay: with decay 0 nothing old stays."""
    return np.array([5.0]), fn(np.array([1.0]), np.array([[2.0], [9.0], [5.0]]), 0.0)

@moving_average.requires("one step from 0 to 1: 0.9")
def _(fn: Answer) -> Pair:
    """At i = 0 keep 1/10 of `initial`: min(decay, (1 + i) / (10 + i)), i from 0.

    0.01: Your memory is long from the start, so that random initial weights linger.
    """
    return np.array([0.9]), fn(np.array([0.0]), np.array([[1.0]]), 0.99)

@moving_average.requires("2,000 steps at 0, then one at 1: 0.01")
def _(fn: Answer) -> Pair:
    """All steps count alike in your average: a moving one forgets, each step lowers the weight of those before by d."""
    return np.array([0.01]), fn(np.zeros(1), np.append(np.zeros(2000), 1.0)[:, None], 0.99)

@moving_average.requires("steps 0, 2 from 0: 18/11")
def _(fn: Answer) -> Pair:
    """The second step keeps (1 + 1) / (10 + 1) = 2/11 of the average: i counts from 0."""
    return np.array([18 / 11]), fn(np.array([0.0]), np.array([[0.0], [2.0]]), 0.999)  # 2 * (1 - 2/11)


@exercise(
    "4.4", "A mean over cells", difficulty=3, minutes=8,
    objective="average a validation loss so that every cell counts the same",
    misconception="the mean of batch means is the mean",
    hints=("One list for the costs of all cells of all batches; one mean at the end.",
           "cell[hidden].mean() for each row, where hidden.any()."),
)
def mean_cost(batches: Batches) -> float:
    """Returns the mean cost of a cell, nats per hidden gene, over all batches of a validation set.

    Batches are pairs (nll, mask): -log p of every gene, and which genes were hidden. They may differ in size. A cell
    without any hidden gene has no cost and is left out.
    """
    costs = []
    for nll, mask in batches:
        for cell, hidden in zip(nll, mask, strict=True):
            if hidden.any():
                costs.append(cell[hidden].mean())
    return float(torch.stack(costs).mean())


def _batch(*rows: list[float | int]) -> tuple[Tensor, Tensor]:
    """Makes a batch from costs; 0 marks a visible gene."""
    nll = torch.tensor(rows)
    return nll, nll > 0

@mean_cost.requires("costs 4 and (1, 1, 1) in two cells: 2.5")
def _(fn: Answer) -> Pair:
    """You pooled hidden genes (1.75), counted visible ones (0.875) or summed (3.5): average within each cell first."""
    return 2.5, fn([_batch([4.0, 0, 0, 0], [1.0, 1, 1, 0])])

@mean_cost.requires("cells 1, 1, 1 and 5 in two batches: 2")
def _(fn: Answer) -> Pair:
    """You averaged the batches: one cell counts as much as the three of the other. Collect cells, and average once."""
    return 2.0, fn([_batch([1.0, 0], [1.0, 0], [1.0, 0]), _batch([5.0, 0])])

@mean_cost.requires("a cell with nothing hidden is left out")
def _(fn: Answer) -> Pair:
    """A cell with nothing hidden gave 0/0, or a cost of zero: it has no cost, leave it out."""
    return 3.0, fn([_batch([3.0, 3], [0.0, 0])])

@mean_cost.requires("cells 2 and 6; beside the first, two with nothing hidden: 4")
def _(fn: Answer) -> Pair:
    """You weighed each batch by its rows, and rows with nothing hidden counted: weigh by cells that have a cost."""
    return 4.0, fn([_batch([2.0, 0], [0.0, 0], [0.0, 0]), _batch([6.0, 0])])

@mean_cost.requires("what is visible costs nothing")
def _(fn: Answer) -> Pair:
    """Visible genes entered the cost: pick the hidden ones, nll[mask], in each cell."""
    nll, mask = _batch([2.0, 0, 0], [4.0, 4.0, 0])
    return 3.0, fn([(nll.masked_fill(~mask, 70.0), mask)])

@mean_cost.requires("a Python float")
def _(fn: Answer) -> Pair:
    """Return a plain number: float(...) of the mean."""
    return "float", type_name(fn([_batch([1.0, 2.0])]))
