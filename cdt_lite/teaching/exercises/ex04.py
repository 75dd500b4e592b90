"""Exercises of notebook 04: one vocabulary for two panels, the learning rate, a training step, a mean over cells."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

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
    """New genes were sorted, or came out of a set, which has no order: go through the panel as it stands.

    And change no symbol: C1orf43 is not C1ORF43.
    """
    panel = ["MYC", "AAAS", "C1orf43", "BRCA1", "CD8A", "TP53", "CD4"]
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


def _fall(x: float) -> float:
    return float(1 + np.cos(np.pi * x)) / 2

@rate.requires("steps 0 and 4 of a climb of 10: 0.1, 0.5")
def _(fn: Answer) -> Pair:
    """The climb gives step s the share (s + 1) / warmup of the peak."""
    faults = {
        "Your first step has rate zero and teaches nothing: the share is (s + 1) / warmup.": [0.0, 0.4],
        "Divide by warmup, not by warmup + 1: its last step has the peak.": [1 / 11, 5 / 11],
        "You left the climb out: for step < warmup the rate is a straight line.": [_fall(-0.1), _fall(-0.06)],
        "You left the climb out, and begin the cosine at step 0.": [1.0, _fall(4 / 110)],
    }
    return [0.1, 0.5], [fn(0, 110, 1.0, 10), fn(4, 110, 1.0, 10)], faults

@rate.requires("the peak at steps warmup - 1 and warmup")
def _(fn: Answer) -> Pair:
    """Climb and cosine do not meet at the peak: the cosine is one of (step - warmup) / (n_steps - warmup).

    Warm-up ends at step warmup - 1; `peak` scales both.
    """
    return [0.02, 0.02], [fn(9, 210, 0.02, 10), fn(10, 210, 0.02, 10)]

@rate.requires("half way down, half the peak")
def _(fn: Answer) -> Pair:
    """Half way down the rate is peak / 2: take a cosine over half a turn (pi), scaled from [-1, 1] to [0, 1]."""
    long = "The cosine runs over the steps after the warm-up: divide by n_steps - warmup, not by n_steps."
    return 0.5, fn(60, 110, 1.0, 10), {long: _fall(50 / 110)}

@rate.requires("a quarter of the way down: 85 % of the peak")
def _(fn: Answer) -> Pair:
    """You fall along a straight line: a cosine stays high at first, (1 + cos(pi * x)) / 2."""
    return 0.8535534, fn(35, 110, 1.0, 10)

@rate.requires("near zero at the end, never negative")
def _(fn: Answer) -> Pair:
    """Your rate does not die out: at the last step the cosine is near -1, and (1 + cos) / 2 near 0."""
    return [True, True], [0 <= fn(100, 110, 1.0, 10) < 0.03, 0 <= fn(109, 110, 1.0, 10) < 0.001]


@exercise(
    "4.3", "A training step", difficulty=3, minutes=12,
    objective="write the step that every training loop repeats",
    misconception="gradients are gone once the optimiser has used them",
    hints=("In this order: loss, gradients, clipping, rate, update. Then clean up for the next step.",
           "loss.backward() adds to parameter.grad; torch.nn.utils.clip_grad_norm_(parameters, clip) shortens it.",
           "The rate stands in each dict of optimizer.param_groups, under \"lr\"; loss.item() is a plain number."),
)
def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Callable[[], Float[Tensor, ""]],
               rate: float, clip: float) -> float:
    """Changes the model's weights once, and returns the loss that it had before.

    The model may come in evaluation mode (dropout off), and leaves in training mode. `loss_of()` gives the loss of this
    step. A gradient (of all weights together) longer than `clip` is shortened to it. `rate` is this step's, for all
    weights. No gradient of one step enters the next.
    """
    model.train()
    loss = loss_of()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


class _Slope(nn.Module):
    """Weights 3 and 4, in two groups of an optimiser; their loss is half their squared length, their gradient they."""

    def __init__(self) -> None:
        super().__init__()
        self.three, self.four = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.tensor(4.0))
        self.modes: list[bool] = []
        self.eval()

    def loss(self) -> Float[Tensor, ""]:
        self.modes.append(self.training)
        return (self.three**2 + self.four**2) / 2

    def after(self, fn: Answer, rate: float, clip: float = 100.0, steps: int = 1, momentum: float = 0) -> list[float]:
        """Returns the weights after some steps of an answer; the optimiser's own rate, 1, would end at 0."""
        optimizer = torch.optim.SGD([{"params": [self.three]}, {"params": [self.four]}], 1.0, momentum)
        self.told = [fn(self, optimizer, self.loss, rate, clip) for _ in range(steps)]
        return [self.three.item(), self.four.item()]

@train_step.requires("weights (3, 4), gradient (3, 4), rate 0.1: (2.7, 3.6)")
def _(fn: Answer) -> Pair:
    """Compare by hand: with plain gradient descent each weight loses rate * gradient."""
    late = "Your rate comes too late, or never (the optimiser used its own): set group['lr'] before optimizer.step()."
    group = "Your rate reaches one group of weights only: go through all of optimizer.param_groups."
    still = "No weight moved: loss.backward() makes gradients, and nothing may clear them before optimizer.step()."
    longer = "You scaled the gradient up to `clip`: only a longer one is changed."
    faults = {late: [0.0, 0.0], group: [2.7, 0.0], still: [3.0, 4.0], longer: [-3.0, -4.0]}
    return [2.7, 3.6], _Slope().after(fn, 0.1), faults

@train_step.requires("two such steps: (2.43, 3.24)")
def _(fn: Answer) -> Pair:
    """The second step does not do what the first did: each has its own gradient, and the rate that it was given."""
    added = "Gradients of the first step were still there, the second's came on top: optimizer.zero_grad() each time."
    return [2.43, 3.24], _Slope().after(fn, 0.1, steps=2), {added: [2.13, 2.84]}

@train_step.requires("two steps of an optimiser with momentum 0.5: (2.28, 3.04)")
def _(fn: Answer) -> Pair:
    """An optimiser may remember earlier gradients: let optimizer.step() move the weights, once."""
    own = "You moved the weights yourself: that is the optimiser's work, and it may remember: optimizer.step()."
    return [2.28, 3.04], _Slope().after(fn, 0.1, steps=2, momentum=0.5), {own: [2.43, 3.24]}

@train_step.requires("a gradient of length 5 is shortened to 1: (2.4, 3.2)")
def _(fn: Answer) -> Pair:
    """The gradient keeps its direction and gets length 1: (0.6, 0.8)."""
    unclipped = "The gradient was used at full length: clip after loss.backward() and before optimizer.step()."
    each = "You clipped each value by itself, which turns the gradient: shorten it as a whole (clip_grad_norm_)."
    return [2.4, 3.2], _Slope().after(fn, 1.0, clip=1.0), {unclipped: [0.0, 0.0], each: [2.0, 3.0]}

@train_step.requires("what comes back is the loss before the update: 12.5")
def _(fn: Answer) -> Pair:
    """The loss of weights (3, 4) is (9 + 16) / 2: return what loss_of() gave."""
    slope = _Slope()
    slope.after(fn, 0.1)
    return 12.5, slope.told[0], {"You asked for the loss again, after the update: keep the first answer.": 10.125}

@train_step.requires("it is a plain number")
def _(fn: Answer) -> Pair:
    """You returned a tensor: a list of such losses keeps the graph of every step in memory. Return loss.item()."""
    slope = _Slope()
    slope.after(fn, 0.1)
    return "float", type_name(slope.told[0])

@train_step.requires("the loss is asked for once, in training mode")
def _(fn: Answer) -> Pair:
    """Ask for the loss once a step: a second call may hide other genes."""
    slope = _Slope()
    slope.after(fn, 0.1)
    asleep = "The model came in evaluation mode, and stayed in it: model.train() switches dropout on, before the loss."
    return [True], slope.modes, {asleep: [False]}


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
    """Average within each cell first: 4 and 1. Then over the two."""
    faults = {"You pooled the hidden genes of all cells: average within each cell first.": 1.75,
              "You took the visible genes: mask is True where a gene is hidden.": 0.0,
              "You counted visible genes in: average over each cell's hidden ones.": 0.875,
              "You summed a cell's costs: a cell's cost is the mean over its hidden genes.": 3.5}
    return 2.5, fn([_batch([4.0, 0, 0, 0], [1.0, 1, 1, 0])]), faults

@mean_cost.requires("cells 1, 1, 1 and 5 in two batches: 2")
def _(fn: Answer) -> Pair:
    """You averaged the batches: one cell counts as much as the three of the other. Collect cells, and average once."""
    batches = [_batch([1.0, 0], [1.0, 0], [1.0, 0]), _batch([5.0, 0])]
    return 2.0, fn(batches), {"You stopped after the first batch: collect the cells of all.": 1.0}

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

@mean_cost.requires("hidden genes that cost 0 and 4: 2")
def _(fn: Answer) -> Pair:
    """The mask says what is hidden, not the cost."""
    sure = "You dropped a hidden gene that cost 0: the model was sure of it, and right. Pick by mask, not by cost."
    return 2.0, fn([(torch.tensor([[0.0, 4.0, 0.0]]), torch.tensor([[True, True, False]]))]), {sure: 4.0}

@mean_cost.requires("a Python float")
def _(fn: Answer) -> Pair:
    """Return a plain number: float(...) of the mean."""
    return "float", type_name(fn([_batch([1.0, 2.0])]))
