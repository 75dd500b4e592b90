"""Exercises of notebook 01: tokens and back, boundaries, one common depth, bits in the same units."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from cdt_lite.teaching.check import Answer, Pair, exercise

Encoder = Callable[[np.ndarray], np.ndarray]
FOUR = np.array([0.0, 1.0, 4.0, 16.0])  # four bins, small enough to check by eye
V1 = np.append(0.0, np.geomspace(0.1, 10_000, 62))  # the lower edges of v1's 63 bins
SMALL = np.array([[2.0, 3.0, 0.0], [10.0, 0.0, 30.0]])  # counts of two cells


@exercise(
    "1.1", "Encode and decode", difficulty=2, minutes=8,
    objective="encode and decode expression",
    misconception="Which bin a boundary belongs to, and where the middle of a bin lies when errors are ratios.",
    hints=("np.searchsorted(edges, values) counts edges below each value. Its argument `side` decides about equality.",
           "Make an array with the middle of every bin first (append something for the last upper end), then index it "
           "with the tokens."),
)
def encode_decode(values: Float[np.ndarray, "*shape"], edges: Float[np.ndarray, " K"]
                  ) -> tuple[Int[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Turns values into bin numbers, and those back into values.

    Edges are lower edges, the first 0. A token is the number of the last edge at or below a value; it decodes to the
    geometric middle of its bin, sqrt(low * high), or to its edge in the last bin, which has no upper end.
    """
    tokens = np.searchsorted(edges, values, side="right") - 1
    middle = np.sqrt(edges * np.append(edges[1:], edges[-1]))
    return tokens, middle[tokens]

@encode_decode.requires("two arrays come back: tokens, then middles")
def _(fn: Answer) -> Pair:
    """Return both, tokens and what they decode to: `return tokens, values`."""
    return 2, len(fn(np.array([0.5, 2, 9]), FOUR))

@encode_decode.requires("values inside a bin get its number, and the first bin is 0")
def _(fn: Answer) -> Pair:
    """You counted the edges at or below a value. Bins are numbered from 0, so take one off."""
    return [0, 1, 2], fn(np.array([0.5, 2, 9]), FOUR)[0]

@encode_decode.requires("a value on an edge belongs to the bin that begins there")
def _(fn: Answer) -> Pair:
    """A value equal to an edge fell into the bin below it. A bin owns its lower edge: side="right".

    An IndexError here comes from decoding: the last bin needs a middle, too.
    """
    return [0, 1, 2, 3], fn(FOUR, FOUR)[0]

@encode_decode.requires("a bin decodes to its geometric middle: sqrt(1 * 4) and sqrt(4 * 16)")
def _(fn: Answer) -> Pair:
    """That is not the geometric middle. (low + high) / 2 is too near the top when errors are ratios."""
    return [2, 8], fn(np.array([3.0, 5.0]), FOUR)[1]

@encode_decode.requires("the last bin, which is open, decodes to its edge")
def _(fn: Answer) -> Pair:
    """The last bin has no upper end to take a middle with: let it give its own edge."""
    return [16, 16], fn(np.array([16.0, 100.0]), FOUR)[1]

@encode_decode.requires("the shape is kept")
def _(fn: Answer) -> Pair:
    """Values may come as a table of cells and genes: return the shape that came in."""
    return (2, 3), np.shape(fn(np.ones((2, 3)), FOUR)[1])

@encode_decode.requires("200 values in v1's 63 bins")
def _(fn: Answer) -> Pair:
    """Small cases are right and v1's bins are not: do you use the `edges` that are given?"""
    values = np.random.default_rng(0).gamma(0.3, 20.0, 200)
    tokens = np.zeros(200, int)
    for edge in V1[1:]:
        tokens += values >= edge
    return tokens.tolist(), fn(values, V1)[0]


@exercise(
    "1.2", "The boundary that is off by one", difficulty=3, minutes=10,
    objective="find a bin boundary that is off by one",
    misconception="Typical values do not test a boundary: only the boundary itself and its closest neighbour do.",
    hints=("A boundary has two sides. What is the smallest value of bin k, and what is the largest?",
           "encode(edges) should be 0, 1, 2, ...; np.nextafter(edges[1:], 0) are the largest values of all bins but "
           "the last."),
)
def boundary_errors(encode: Encoder, edges: Float[np.ndarray, " K"]) -> list[int]:
    """Finds the bins that an encoder gets wrong at one of their two ends, in increasing order.

    Bin k holds edges[k] and all above it, up to but without edges[k + 1].
    """
    numbers = np.arange(len(edges))
    wrong = encode(edges) != numbers
    wrong[:-1] |= encode(np.nextafter(edges[1:], 0.0)) != numbers[:-1]
    return np.flatnonzero(wrong).tolist()


def _encoder(edges: np.ndarray) -> Encoder:
    return lambda values: np.searchsorted(edges, values, side="right") - 1


def _left(values: float | np.ndarray) -> np.integer | np.ndarray:
    return np.searchsorted(FOUR, values, side="left") - 1

@boundary_errors.requires("a right encoder has no errors")
def _(fn: Answer) -> Pair:
    """You accuse a right encoder. The upper edge of a bin belongs to the next bin: stay below it."""
    return [], fn(_encoder(FOUR), FOUR)

@boundary_errors.requires("nor has one of v1's 63 bins, some of them narrow")
def _(fn: Answer) -> Pair:
    """Your step below the next edge jumps over a whole narrow bin: take np.nextafter(edge, 0)."""
    return [], fn(_encoder(V1), V1)

@boundary_errors.requires('side="left", clipped at 0: bins 1, 2, 3 are wrong')
def _(fn: Answer) -> Pair:
    """Try the lower edges themselves: inside the bins this bug cannot be seen. And return bin numbers, not edges."""
    return [1, 2, 3], fn(lambda values: np.maximum(_left(values), 0), FOUR)

@boundary_errors.requires('side="left", not clipped: 0 becomes -1 as well')
def _(fn: Answer) -> Pair:
    """You left out bin 0. Most entries of a screen are zeros, so its boundary matters most."""
    return [0, 1, 2, 3], fn(_left, FOUR)

@boundary_errors.requires("an encoder that takes the nearest edge: bins 0, 1, 2 are wrong")
def _(fn: Answer) -> Pair:
    """All lower edges are right here. Also try the largest number below the next edge: np.nextafter(edge, 0)."""
    return [0, 1, 2], fn(lambda values: np.abs(np.expand_dims(values, -1) - FOUR).argmin(-1), FOUR)

@boundary_errors.requires("one edge moved up by a half: bin 2 alone")
def _(fn: Answer) -> Pair:
    """Only bin 2 begins in the wrong place: judge each bin by its own two ends."""
    return [2], fn(_encoder(np.array([0.0, 1.0, 4.5, 16.0])), FOUR)


@exercise(
    "1.3", "log1p at a target depth", difficulty=1, minutes=5,
    objective="put cells of different depth on one scale",
    misconception="Depth is a property of a cell, so it is a sum over genes; the logarithm comes last.",
    hints=("counts.sum(1, keepdims=True) has one row a cell, and divides a table row by row.",
           "Order: divide by depth, multiply by the target depth, then np.log1p."),
)
def log1p_at(counts: Float[np.ndarray, "cells G"], target_depth: float) -> Float[np.ndarray, "cells G"]:
    """Scales every cell to one depth and takes the natural logarithm of 1 + x; a cell without counts stays zero."""
    depth = counts.sum(1, keepdims=True)
    return np.log1p(counts / np.where(depth > 0, depth, 1) * target_depth)

@log1p_at.requires("one gene, 5 counts, a target of 5: the logarithm of 6")
def _(fn: Answer) -> Pair:
    """Use the natural logarithm of 1 + x (np.log1p), not log2 or log10, and scale before it."""
    return np.log([[6.0]]), fn(np.array([[5.0]]), 5.0)

@log1p_at.requires("two cells, each scaled by its own total")
def _(fn: Answer) -> Pair:
    """Cells were not scaled by their own totals, or only after the logarithm.

    Sum over genes (axis 1) and keep the axis to divide.
    """
    return np.log([[9.0, 13.0, 1.0], [6.0, 1.0, 16.0]]), fn(SMALL, 20.0)

@log1p_at.requires("undoing the logarithm gives every cell the target depth")
def _(fn: Answer) -> Pair:
    """The totals are not the target depth: scale the counts first, add the 1 afterwards."""
    return [40, 40], np.expm1(fn(SMALL, 40.0)).sum(1)

@log1p_at.requires("a cell without counts stays zero")
def _(fn: Answer) -> Pair:
    """A cell without counts became NaN: 0 / 0. Divide such a cell by 1 instead."""
    return np.zeros(3), fn(np.vstack([SMALL, np.zeros(3)]), 20.0)[2]


@exercise(
    "1.4", "Bits in the same units", difficulty=4, minutes=15,
    objective="compare two token spaces in one unit",
    misconception="A wide bin is cheap to name because it says less: what it leaves open must be paid, too.",
    hints=("Within a bin nothing is known, so each of its n counts has probability p / n.",
           "The cost of one entry is -log2(p / n). Average over entries last."),
)
def bits_per_count(p: Float[np.ndarray, "*shape"], n: Float[np.ndarray, "*shape"]) -> float:
    """Returns what it costs, on average, to name the *count* itself, in bits.

    Of each entry, p is the probability given to the token that came, n the number of counts that its bin holds.
    """
    return float(np.mean(-np.log2(p) + np.log2(n)))

@bits_per_count.requires("bins of one count: p = 1/2 and 1/8 cost 1 and 3 bits, 2 on average")
def _(fn: Answer) -> Pair:
    """Bits are base-2 logarithms, averaged over entries: take the logarithm of each, then the mean."""
    return 2.0, fn(np.array([0.5, 0.125]), np.ones(2))

@bits_per_count.requires("one bin that holds everything, 8 counts wide: 3 bits, not 0")
def _(fn: Answer) -> Pair:
    """The token costs nothing, but the count inside its bin is still open: n choices, log2(n) bits."""
    return 3.0, fn(np.ones(5), np.full(5, 8.0))

@bits_per_count.requires("merging counts that are equally likely changes nothing")
def _(fn: Answer) -> Pair:
    """Merging six equally likely counts into one bin must change nothing: each of the n has p / n."""
    share = np.array([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    came = np.random.default_rng(1).choice(7, 500, p=share)
    one_by_one = -np.log2(share[came]).mean()
    return one_by_one, fn(np.where(came == 0, 0.4, 0.6), np.where(came == 0, 1.0, 6.0))
