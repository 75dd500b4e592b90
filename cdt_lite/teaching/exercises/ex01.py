"""Exercises of notebook 01: tokens and back, boundaries, size factors, guides that failed."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from cdt_lite.teaching.check import Answer, Pair, exercise

Encoder = Callable[[np.ndarray], np.ndarray]
FOUR = np.array([0.0, 1.0, 4.0, 16.0])  # four bins, small enough to check by eye
V1 = np.append(0.0, np.geomspace(0.1, 10_000, 62))  # the lower edges of v1's 63 bins


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
    return [0, 1, 2], fn(np.array([0.3, 3, 12]), FOUR)[0], {
        "You returned the values first: tokens come first, then what they decode to.": [0.0, 2, 8],
        "You took the nearest edge: a bin reaches from its own edge up to the next.": [0, 2, 3],
    }

@encode_decode.requires("a value on an edge belongs to the bin that begins there")
def _(fn: Answer) -> Pair:
    """A value equal to an edge fell into the bin below it. A bin owns its lower edge: side="right".

    An IndexError here comes from decoding: the last bin needs a middle, too.
    """
    return [0, 1, 2, 3], fn(FOUR, FOUR)[0], {
        "The last bin is lost: what is at the last edge or above belongs to bin K - 1.": [0, 1, 2, 2],
    }

@encode_decode.requires("a bin decodes to its geometric middle: sqrt(1 * 4) and sqrt(4 * 16)")
def _(fn: Answer) -> Pair:
    """That is not the geometric middle. (low + high) / 2 is too near the top when errors are ratios."""
    return [2, 8], fn(np.array([3.0, 5.0]), FOUR)[1]

@encode_decode.requires("bin 0 decodes to 0: most entries are zeros, and must stay so")
def _(fn: Answer) -> Pair:
    """Bin 0 begins at 0, so its geometric middle is sqrt(0 * 1) = 0: no case of its own is needed."""
    return [0, 0], fn(np.array([0.0, 0.7]), FOUR)[1]

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
    faults = {"Return the numbers of the wrong bins, not a mask: np.flatnonzero(mask).": np.zeros(4, bool),
              "These are the bins in which the edges landed: return those that differ from 0, 1, 2, ...": np.arange(4)}
    return [], fn(_encoder(FOUR), FOUR), faults

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

@boundary_errors.requires("an edge moved down by a hair: the bin below it is wrong")
def _(fn: Answer) -> Pair:
    """Your step below an edge is wider than this fault: only np.nextafter(edge, 0) is the largest number below it."""
    return [1], fn(_encoder(np.array([0.0, 1.0, np.nextafter(4.0, 0.0), 16.0])), FOUR)

@boundary_errors.requires("bins wrong at both ends are named once, in order")
def _(fn: Answer) -> Pair:
    """Join both lists into one: each bin once, increasing. Numbers of bins are asked for, not a mask."""
    return [0, 1, 2, 3], fn(lambda values: _encoder(FOUR)(values) + 1, FOUR)

@boundary_errors.requires("one edge moved up by a half: bin 2 alone")
def _(fn: Answer) -> Pair:
    """Only bin 2 begins in the wrong place: judge each bin by its own two ends."""
    return [2], fn(_encoder(np.array([0.0, 1.0, 4.5, 16.0])), FOUR)


@exercise(
    "1.3", "Size factors without the program", difficulty=2, minutes=8,
    objective="scale cells by the genes that a perturbation leaves alone",
    misconception="Depth is technique alone: where loud genes fall, everything else seems to rise.",
    hints=("Sum each cell's counts over the genes that are not loud: counts[:, ~loud].",
           "Divide by the mean of these sums over cells; np.where puts a 1 where the sum is 0."),
)
def size_factors(counts: Float[np.ndarray, "cells G"], loud: Bool[np.ndarray, " G"]) -> Float[np.ndarray, " cells"]:
    """Returns by how much to divide each cell's counts: its sum over quiet genes, the mean of all cells being 1.

    A cell without a count of a quiet gene gets 1, so that it can be divided by.
    """
    quiet = counts[:, ~loud].sum(1)
    return np.where(quiet > 0, quiet / quiet.mean(), 1.0)

@size_factors.requires("three cells, the last gene loud")
def _(fn: Answer) -> Pair:
    """Sum over quiet genes, a number a cell, then divide by the mean of these three sums."""
    counts, loud = np.array([[2.0, 3, 10], [4, 6, 0], [1, 2, 30]]), np.array([False, False, True])
    whole, loudest = counts.sum(1), counts[:, 2]
    quiet = counts[:, :2].sum(1)
    return quiet / 6, fn(counts.copy(), loud.copy()), {
        "The loud gene is still in your sums: leave it out, counts[:, ~loud].": whole / whole.mean(),
        "You summed over the loud genes; the quiet ones are wanted: ~loud.": loudest / loudest.mean(),
        "These are the sums themselves: divide them by their mean over cells.": quiet,
        "You divided by the median of the sums; the mean is asked for.": quiet / np.median(quiet),
        "You took the inverse: counts are divided by a factor, so a deep cell has a large one.": 6 / quiet,
    }

@size_factors.requires("one number a cell")
def _(fn: Answer) -> Pair:
    """Sum over genes, axis 1: a factor belongs to a cell."""
    return (4,), np.shape(fn(np.arange(1.0, 13).reshape(4, 3), np.array([False, True, False])))

@size_factors.requires("a cell without a count of a quiet gene gets 1")
def _(fn: Answer) -> Pair:
    """An empty cell got 0 or NaN, and dividing by it would lose it: give it 1. It still counts in the mean."""
    return [2.0, 1.0], fn(np.array([[3.0, 0], [0, 5]]), np.array([False, True])), {
        "You left the empty cell out of the mean: its sum of 0 counts there.": [1.0, 1.0],
    }

@size_factors.requires("a program that falls does not move the factors")
def _(fn: Answer) -> Pair:
    """Your factors change with the loud gene, so all others would seem to rise when it falls."""
    counts = np.random.default_rng(2).poisson([3, 9, 40], (6, 3)) + 1.0
    quiet = counts[:, 0] + counts[:, 1]
    counts[:3, 2] = 0
    return quiet / quiet.mean(), fn(counts, np.array([False, False, True]))


@exercise(
    "1.4", "Which guide failed?", difficulty=3, minutes=10,
    objective="find the guides that did not do what their siblings did",
    misconception="All cells with a guide against a gene are knockouts of it.",
    hints=("For one guide: its own cells, and the cells of all other guides together. Controls belong to neither.",
           "effect = mean score of cells - mean score of controls, for both; compare own / others with 0.5."),
)
def failed_guides(score: Float[np.ndarray, " cells"], guide: Shaped[np.ndarray, " cells"],
                  is_control: Bool[np.ndarray, " cells"]) -> list[str]:
    """Names, sorted, the guides whose mean effect is less than half of that of all cells of the other guides together.

    An effect is the mean score of some cells minus that of the control cells; it may be negative.
    """
    base, failed = score[is_control].mean(), []
    for name in sorted(set(guide[~is_control].tolist())):
        own = (guide == name) & ~is_control
        others = (guide != name) & ~is_control
        if (score[own].mean() - base) / (score[others].mean() - base) < 0.5:
            failed.append(name)
    return failed


def _screen(effects: dict[str, float], sizes: dict[str, int], base: float = 2.0) -> tuple[np.ndarray, ...]:
    """Cells without noise: twelve controls with guides of their own, then those of each guide."""
    guide = np.repeat(["NT1", "NT2", *effects], [5, 7, *sizes.values()])
    score = base + np.array([effects.get(name, 0.0) for name in guide.tolist()])
    return score, guide, np.isin(guide, ["NT1", "NT2"])

SIZES = {"Ag1": 8, "Ag2": 6, "Ag3": 4, "Ag10": 5}

@failed_guides.requires("of four guides the third does nothing")
def _(fn: Answer) -> Pair:
    """Compare each guide's mean effect with half of that of all other guides' cells; return a sorted list of names."""
    found = fn(*_screen({"Ag1": -1.0, "Ag2": -0.9, "Ag3": 0.0, "Ag10": -1.1}, SIZES))
    return ["Ag3"], found, {
        "These are the guides that worked. Compare own / others with a half: effects are negative here.":
            ["Ag1", "Ag10", "Ag2"],
        "You named a guide of the control cells: leave these out.": ["Ag3", "NT1", "NT2"],
        "None is below half of the others: did you subtract the controls' mean from both?": [],
    }

@failed_guides.requires("Ag1 and Ag10 are two guides")
def _(fn: Answer) -> Pair:
    """You found "Ag1" inside "Ag10": compare whole names, ==."""
    return ["Ag1"], fn(*_screen({"Ag1": -0.3, "Ag2": -0.9, "Ag3": -1.0, "Ag10": -1.3}, SIZES))

@failed_guides.requires("control cells are nobody's siblings")
def _(fn: Answer) -> Pair:
    """Control cells are among your others, and make them weak: the others have other guides, and are no controls."""
    return ["Ag1"], fn(*_screen({"Ag1": -0.45, "Ag2": -1.0, "Ag3": -1.0, "Ag10": -1.0}, SIZES))

@failed_guides.requires("it does not matter where zero lies")
def _(fn: Answer) -> Pair:
    """Adding 100 to every score changed your answer: an effect is a difference from control cells."""
    return ["Ag3"], fn(*_screen({"Ag1": -1.0, "Ag2": -0.9, "Ag3": -0.1, "Ag10": -1.1}, SIZES, base=102.0))

@failed_guides.requires("a score that rises is judged like one that falls")
def _(fn: Answer) -> Pair:
    """Here the effect is positive: compare own / others with a half, so that signs cancel."""
    return ["Ag3"], fn(*_screen({"Ag1": 1.0, "Ag2": 0.9, "Ag3": 0.2, "Ag10": 1.1}, SIZES))

@failed_guides.requires("a guide that does the opposite has failed, too")
def _(fn: Answer) -> Pair:
    """A guide that moves the score the other way has not done what its siblings did: keep the sign (no abs)."""
    return ["Ag2"], fn(*_screen({"Ag1": -1.0, "Ag2": 0.9, "Ag3": -1.0, "Ag10": -1.1}, SIZES))

@failed_guides.requires("a large guide is not among its own siblings")
def _(fn: Answer) -> Pair:
    """A large guide decides here: leave its own cells out of the others."""
    return ["Ag1"], fn(*_screen({"Ag1": -0.7, "Ag2": -1.5, "Ag3": -1.5, "Ag10": -1.5},
                               {"Ag1": 60, "Ag2": 3, "Ag3": 3, "Ag10": 3}))

@failed_guides.requires("two guides have failed, and the others are all their cells together")
def _(fn: Answer) -> Pair:
    """Take one mean over all cells of the other guides, not the mean of guides: here that makes the others too weak."""
    found = fn(*_screen({"Ag1": -0.9, "Ag2": -2.0, "Ag3": -0.4, "Ag10": -2.0},
                        {"Ag1": 8, "Ag2": 30, "Ag3": 3, "Ag10": 3}))
    return ["Ag1", "Ag3"], found, {
        "Only the worst? every guide below a half has failed; and the others have one mean, not a mean of guides.":
            ["Ag3"],
        "Right names, but not sorted.": ["Ag3", "Ag1"],
    }

@failed_guides.requires("one strong guide does not make the others fail")
def _(fn: Answer) -> Pair:
    """You compared with the strongest guide: half of the mean of all others is the bar."""
    return [], fn(*_screen({"Ag1": -0.9, "Ag2": -2.0, "Ag3": -1.0, "Ag10": -1.0},
                           {"Ag1": 8, "Ag2": 4, "Ag3": 20, "Ag10": 20}))

@failed_guides.requires("cells that escaped count in a guide's mean")
def _(fn: Answer) -> Pair:
    """You took medians, which pass over the cells that escaped: means are asked for."""
    score, guide, is_control = _screen({"Ag1": -2.0, "Ag2": -3.0, "Ag3": -3.0, "Ag10": -3.0}, SIZES)
    score[np.flatnonzero(guide == "Ag1")[:3]] = 2.0
    return ["Ag1"], fn(score, guide, is_control)
