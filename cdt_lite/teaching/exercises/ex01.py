"""Exercises of notebook 01: tokens and back, boundaries, one common depth, bits in the same units."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cdt_lite.data.tokenizer import bin_edges
from cdt_lite.model.config import TokenizerConfig
from cdt_lite.teaching.check import Exercise, Property

Encoder = Callable[[np.ndarray], np.ndarray]
FOUR = np.array([0.0, 1.0, 4.0, 16.0])  # four bins, small enough to check by eye


def encode_decode(values: Float[np.ndarray, "*shape"], edges: Float[np.ndarray, " K"]
                  ) -> tuple[Int[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Turns values into bin numbers, and those back into values.

    Args:
        values: Expression, not negative, of any shape.
        edges: Lower edge of every bin, increasing, the first 0.

    Returns:
        The number of the last edge at or below each value; and the geometric middle of that bin, sqrt(low * high). The
        last bin has no upper end and gives its edge.
    """
    tokens = np.searchsorted(edges, values, side="right") - 1
    middle = np.sqrt(edges * np.append(edges[1:], edges[-1]))
    return tokens, middle[tokens]


def boundary_errors(encode: Encoder, edges: Float[np.ndarray, " K"]) -> list[int]:
    """Finds the bins that an encoder gets wrong at one of their two ends.

    Args:
        encode: Turns an array of values into bin numbers.
        edges: Lower edges. Bin k holds edges[k] and all above it, up to but without edges[k + 1].

    Returns:
        Numbers of the wrong bins, increasing; [] for a right encoder.
    """
    numbers = np.arange(len(edges))
    wrong = encode(edges) != numbers
    wrong[:-1] |= encode(np.nextafter(edges[1:], 0.0)) != numbers[:-1]
    return [int(k) for k in np.flatnonzero(wrong)]


def log1p_at(counts: Float[np.ndarray, "cells G"], target_depth: float) -> Float[np.ndarray, "cells G"]:
    """Scales every cell to one depth and takes the natural logarithm of 1 + x.

    Args:
        counts: Raw counts; they must not be changed.
        target_depth: Counts a cell to scale to.

    Returns:
        log1p expression; a cell without any counts stays zero.
    """
    depth = counts.sum(1, keepdims=True)
    return np.log1p(counts / np.where(depth > 0, depth, 1) * target_depth)


def bits_per_count(p: Float[np.ndarray, "*shape"], n: Float[np.ndarray, "*shape"]) -> float:
    """Returns what it costs, on average, to name the *count* itself, in bits.

    Args:
        p: Probability that was given to the token that came, one an entry.
        n: How many whole counts the bin of that token holds, at least 1. They share the probability evenly.
    """
    return float(np.mean(-np.log2(p) + np.log2(n)))


def _encoder(edges: np.ndarray, side: Any = "right", lowest: int = -1) -> Encoder:
    return lambda values: np.maximum(np.searchsorted(edges, values, side=side) - 1, lowest)


def _nearest(values: Any) -> Any:
    return np.abs(np.asarray(values)[..., None] - FOUR).argmin(-1)


def _by_loop(values: np.ndarray, edges: np.ndarray) -> list[int]:
    return [max(k for k, edge in enumerate(edges) if edge <= value) for value in values.tolist()]


def _check_v1(fn: Callable[..., Any]) -> tuple[Any, Any]:
    edges = bin_edges(TokenizerConfig(space="normalised"))
    values = np.random.default_rng(0).gamma(0.3, 20.0, 200)
    return _by_loop(values, edges), fn(values, edges)[0]


def _narrow(fn: Callable[..., Any]) -> tuple[Any, Any]:
    edges = bin_edges(TokenizerConfig(space="normalised"))
    return [], list(fn(_encoder(edges), edges))


def _one_moved(fn: Callable[..., Any]) -> tuple[Any, Any]:
    moved = FOUR + np.array([0, 0, 0.5, 0])
    return [2], fn(_encoder(moved), FOUR)


def _merged(fn: Callable[..., Any]) -> tuple[Any, Any]:
    """Counts that are alike within a bin cost the same, whether they are named one by one or through the bin."""
    share = np.array([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    came = np.random.default_rng(1).choice(7, 500, p=share)
    one_by_one = -np.log2(share[came]).mean()
    return one_by_one, fn(np.where(came == 0, 0.4, 0.6), np.where(came == 0, 1.0, 6.0))


SMALL = np.array([[2.0, 3.0, 0.0], [10.0, 0.0, 30.0]])
EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "1.1", "Encode and decode", 2, 8, "encode and decode expression", "Which bin a boundary belongs to, and where "
        "the middle of a bin lies when errors are ratios.", encode_decode, (
            Property("two arrays come back: tokens, then middles", lambda fn: (2, len(fn(np.array([0.5, 2, 9]), FOUR))),
                     "Return both, tokens and what they decode to: `return tokens, values`."),
            Property("values inside a bin get its number, and the first bin is 0",
                     lambda fn: ([0, 1, 2], fn(np.array([0.5, 2.0, 9.0]), FOUR)[0]),
                     "You counted the edges at or below a value. Bins are numbered from 0, so take one off."),
            Property("a value on an edge belongs to the bin that begins there",
                     lambda fn: ([0, 1, 2, 3], fn(FOUR.copy(), FOUR)[0]),
                     'A value equal to an edge fell into the bin below it. A bin owns its lower edge: side="right". '
                     "(An IndexError here comes from decoding: the last bin needs a middle, too.)"),
            Property("a bin decodes to its geometric middle: sqrt(1 * 4) and sqrt(4 * 16)",
                     lambda fn: ([2.0, 8.0], fn(np.array([3.0, 5.0]), FOUR)[1]),
                     "That is not the geometric middle. The arithmetic one, (low + high) / 2, is too near the top when "
                     "errors are ratios."),
            Property("the last bin, which is open, decodes to its edge",
                     lambda fn: ([16.0, 16.0], fn(np.array([16.0, 100.0]), FOUR)[1]),
                     "The last bin has no upper end to take a middle with: let it give its own edge."),
            Property("the shape is kept", lambda fn: ((2, 3), np.shape(fn(np.ones((2, 3)), FOUR)[1])),
                     "Values may come as a table of cells and genes: return the shape that came in."),
            Property("200 values in v1's 63 bins", _check_v1, "Small cases are right and v1's bins are not: do you use "
                     "the `edges` that are given?"),
        ), (
            "np.searchsorted(edges, values) counts edges below each value. Its argument `side` decides about equality.",
            "Make an array with the middle of every bin first (append something for the last upper end), then index it "
            "with the tokens.",
        )),
    Exercise(
        "1.2", "The boundary that is off by one", 3, 10, "find a bin boundary that is off by one", "Typical values do "
        "not test a boundary: only the boundary itself and its closest neighbour do.", boundary_errors, (
            Property("a right encoder has no errors", lambda fn: ([], list(fn(_encoder(FOUR), FOUR))),
                     "You accuse a right encoder. The upper edge of a bin belongs to the next bin: stay below it."),
            Property("nor has one of v1's 63 bins, some of them narrow", _narrow,
                     "Your step below the next edge jumps over a whole narrow bin: take np.nextafter(edge, 0)."),
            Property('side="left", clipped at 0: bins 1, 2, 3 are wrong',
                     lambda fn: ([1, 2, 3], list(fn(_encoder(FOUR, "left", 0), FOUR))),
                     "Try the lower edges themselves: inside the bins this bug cannot be seen. And return bin numbers, "
                     "not edges."),
            Property('side="left", not clipped: 0 becomes -1 as well',
                     lambda fn: ([0, 1, 2, 3], list(fn(_encoder(FOUR, "left"), FOUR))),
                     "You left out bin 0. Most entries of a screen are zeros, so its boundary matters most."),
            Property("an encoder that takes the nearest edge: bins 0, 1, 2 are wrong",
                     lambda fn: ([0, 1, 2], list(fn(_nearest, FOUR))),
                     "All lower edges are right here. Also try the largest number below the next edge: "
                     "np.nextafter(edge, 0)."),
            Property("one edge moved up by a half: bin 2 alone", _one_moved,
                     "Only bin 2 begins in the wrong place: judge each bin by its own two ends."),
        ), (
            "A boundary has two sides. What is the smallest value of bin k, and what is the largest?",
            "encode(edges) should be 0, 1, 2, ...; np.nextafter(edges[1:], 0) are the largest values of all bins but "
            "the last.",
        )),
    Exercise(
        "1.3", "log1p at a target depth", 1, 5, "put cells of different depth on one scale", "Depth is a property of a "
        "cell, so it is a sum over genes; the logarithm comes last.", log1p_at, (
            Property("one gene, 5 counts, a target of 5: the logarithm of 6",
                     lambda fn: (np.log([[6.0]]), fn(np.array([[5.0]]), 5.0)),
                     "Use the natural logarithm of 1 + x (np.log1p), not log2 or log10, and scale before it."),
            Property("two cells, each scaled by its own total",
                     lambda fn: (np.log([[9.0, 13.0, 1.0], [6.0, 1.0, 16.0]]), fn(SMALL.copy(), 20.0)),
                     "Cells were not scaled by their own totals, or only after the logarithm. Sum over genes (axis 1) "
                     "and keep the axis to divide."),
            Property("undoing the logarithm gives every cell the target depth",
                     lambda fn: ([40.0, 40.0], np.expm1(np.asarray(fn(SMALL.copy(), 40.0))).sum(1)),
                     "The totals are not the target depth: scale the counts first, add the 1 afterwards."),
            Property("a cell without counts stays zero",
                     lambda fn: (np.zeros(3), fn(np.vstack([SMALL, np.zeros(3)]), 20.0)[2]),
                     "A cell without counts became NaN: 0 / 0. Divide such a cell by 1 instead."),
        ), (
            "counts.sum(1, keepdims=True) has one row a cell, and divides a table row by row.",
            "Order: divide by depth, multiply by the target depth, then np.log1p.",
        )),
    Exercise(
        "1.4", "Bits in the same units", 4, 15, "compare two token spaces in one unit", "A wide bin is cheap to name "
        "because it says less: what it leaves open must be paid, too.", bits_per_count, (
            Property("bins of one count: p = 1/2 and 1/8 cost 1 and 3 bits, 2 on average",
                     lambda fn: (2.0, fn(np.array([0.5, 0.125]), np.array([1.0, 1.0]))),
                     "Bits are base-2 logarithms, averaged over entries: take the logarithm of each, then the mean."),
            Property("one bin that holds everything, 8 counts wide: 3 bits, not 0",
                     lambda fn: (3.0, fn(np.ones(5), np.full(5, 8.0))),
                     "The token costs nothing, but the count inside its bin is still open: n choices, log2(n) bits."),
            Property("merging counts that are equally likely changes nothing", _merged,
                     "Merging six equally likely counts into one bin must change nothing: each of the n has p / n."),
        ), (
            "Within a bin nothing is known, so each of its n counts has probability p / n.",
            "The cost of one entry is -log2(p / n). Average over entries last.",
        )),
)
