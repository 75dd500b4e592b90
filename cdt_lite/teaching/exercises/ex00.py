"""The exercise of notebook 00: what a knockout changes, on average."""

import numpy as np
from jaxtyping import Float

from cdt_lite.teaching.check import Answer, Pair, exercise


@exercise(
    "0.1", "The mean change of a knockout", difficulty=1, minutes=3,
    objective="compute what a knockout changes, gene by gene, against control cells",
    misconception="raw counts of cells of different depth can be averaged and subtracted as they are",
    hints=("Write one helper for one group of cells and use it twice.",
           "counts / counts.sum(1, keepdims=True) * depth scales every cell; np.log1p follows, then .mean(0)."),
)
def mean_change(knockout: Float[np.ndarray, "cells G"], control: Float[np.ndarray, "controls G"],
                depth: float) -> Float[np.ndarray, " G"]:
    """Mean log1p expression of knockout cells minus that of control cells, counts scaled to a common depth."""

    def mean(counts: np.ndarray) -> np.ndarray:
        return np.log1p(counts / counts.sum(1, keepdims=True) * depth).mean(0)

    return mean(knockout) - mean(control)


def _cells(seed: int, n: int, rates: list[int]) -> np.ndarray:
    return np.random.default_rng(seed).poisson(rates, (n, len(rates))) + 1.0

@mean_change.requires("one change a gene")
def _(fn: Answer) -> Pair:
    """You averaged over genes: the mean runs over cells, axis 0, and leaves one number a gene.

    An error about shapes: keep the axis (keepdims=True) when you divide by a cell's total.
    """
    rates = [1, 2, 3, 4]
    return (4,), np.shape(fn(_cells(0, 6, rates), _cells(1, 3, rates), 10.0))

@mean_change.requires("two genes by hand: one falls, one rises")
def _(fn: Answer) -> Pair:
    """Not the means of natural log1p, each cell scaled by its own total to `depth`, knockout minus control."""
    change = np.log([1 / 3, 5 / 3])
    shares = np.log1p([0.0, 1.0]) - np.log1p(0.5)
    return change, fn(np.array([[0.0, 4.0], [0.0, 4.0]]), np.array([[2.0, 2.0], [2.0, 2.0]]), 4.0), {
        "Right sizes, signs swapped: a change is knockout minus control.": -change,
        "You took log2: log1p is the natural logarithm of 1 + x.": change / np.log(2),
        "You took log10: log1p is the natural logarithm of 1 + x.": change / np.log(10),
        "You made shares of a cell's total, and forgot to multiply by `depth`.": shares,
    }

@mean_change.requires("sequencing three times as deeply changes nothing")
def _(fn: Answer) -> Pair:
    """You compared raw counts: first scale every cell to the common depth, or depth looks like an effect."""
    cells = np.array([[1.0, 2.0, 5.0], [2.0, 2.0, 4.0]])
    return np.zeros(3), fn(3 * cells, cells, 8.0)

@mean_change.requires("the logarithm comes before the mean")
def _(fn: Answer) -> Pair:
    """You took the mean first and the logarithm after it: log1p of every cell comes first."""
    uneven, even = np.array([[0.0, 8.0], [8.0, 0.0]]), np.full((2, 2), 4.0)
    return np.full(2, np.log(9) / 2 - np.log(5)), fn(uneven, even, 8.0)

@mean_change.requires("random cells, both arms of different size")
def _(fn: Answer) -> Pair:
    """Each arm has its own number of cells: average each arm by itself, then subtract."""
    knockout, control = _cells(2, 5, [1, 5, 2]), _cells(3, 7, [4, 1, 2])
    change = np.zeros(3)
    for cell in knockout:
        change += np.log(1 + 12 * cell / cell.sum()) / 5
    for cell in control:
        change -= np.log(1 + 12 * cell / cell.sum()) / 7
    return change, fn(knockout, control, 12.0)
