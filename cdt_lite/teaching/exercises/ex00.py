"""The exercise of notebook 00: what a knockout changes, on average."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from cdt_lite.teaching.check import Exercise, Property

Pair = tuple[Any, Any]


def mean_change(knockout: Float[np.ndarray, "cells G"], control: Float[np.ndarray, "controls G"], depth: float
                ) -> Float[np.ndarray, " G"]:
    """Mean log1p expression of knockout cells minus that of control cells, counts scaled to a common depth."""

    def mean(counts: np.ndarray) -> np.ndarray:
        return np.log1p(counts / counts.sum(1, keepdims=True) * depth).mean(0)

    return mean(knockout) - mean(control)


def _cells(seed: int, rates: tuple[int, ...], n: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).poisson(rates, (n, len(rates))).astype(float) + 1


def _by_hand(fn: Callable) -> Pair:
    knockout, control = np.array([[0.0, 4.0], [0.0, 4.0]]), np.array([[2.0, 2.0], [2.0, 2.0]])
    return np.array([-np.log(3), np.log(5) - np.log(3)]), fn(knockout, control, 4.0)


def _deeper(fn: Callable) -> Pair:
    cells = np.array([[1.0, 2.0, 5.0], [2.0, 2.0, 4.0]])
    return np.zeros(3), fn(3 * cells, cells, 8.0)


def _log_first(fn: Callable) -> Pair:
    uneven, even = np.array([[0.0, 8.0], [8.0, 0.0]]), np.array([[4.0, 4.0], [4.0, 4.0]])
    return np.full(2, np.log(9) / 2 - np.log(5)), fn(uneven, even, 8.0)


def _shape(fn: Callable) -> Pair:
    return (4,), np.shape(fn(_cells(0, (1, 2, 3, 4), 6), _cells(1, (1, 2, 3, 4), 3), 10.0))


def _any_cells(fn: Callable) -> Pair:
    a, b, depth = _cells(2, (1, 5, 2)), _cells(3, (4, 1, 2), 7), 12.0
    logs = [np.log([[1 + x * depth / sum(cell) for x in cell] for cell in cells]) for cells in (a, b)]
    return sum(logs[0]) / len(a) - sum(logs[1]) / len(b), fn(a, b, depth)


EXERCISES: tuple[Exercise, ...] = (Exercise(
    "0.1", "The mean change of a knockout", 1, 3,
    "compute what a knockout changes, gene by gene, against control cells",
    "raw counts of cells of different depth can be averaged and subtracted as they are",
    mean_change,
    (
        Property("one change a gene", _shape,
                 "An error about shapes: keep the axis (keepdims=True) when you divide by a cell's total. No error: "
                 "You averaged over genes: the mean runs over cells, axis 0, and leaves one number a gene."),
        Property("two genes by hand: one falls, one rises", _by_hand,
                 "Signs swapped: a change is knockout minus control. Signs right, sizes not: use the natural log1p and "
                 "divide each cell by its own total."),
        Property("sequencing three times as deeply changes nothing", _deeper,
                 "You compared raw counts: first scale every cell to the common depth, or a deeper run looks like a "
                 "change of every gene."),
        Property("the logarithm comes before the mean", _log_first,
                 "You took the mean first and the logarithm after it: log1p of every cell comes first, then the mean "
                 "over cells."),
        Property("random cells, both arms of different size", _any_cells,
                 "Each arm has its own number of cells: average each arm by itself, then subtract."),
    ),
    ("Write one helper for one group of cells and use it twice.",
     "counts / counts.sum(1, keepdims=True) * depth scales every cell; np.log1p follows, then .mean(0)."),
),)
