"""Exercises of notebook 08: counts from a logarithm, how many cells, which knockout."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm

from cdt_lite.teaching.check import Answer, Pair, exercise


@exercise(
    "8.1", "Counts from a logarithm", difficulty=3, minutes=12,
    objective="recover raw counts from scaled and logged ones, and know where one cannot",
    misconception="A matrix that was scaled and logged is lost; or: rounding it gives the counts.",
    hints=("np.expm1 undoes np.log1p. What is left is counts times one number a cell: what is that cell's number?",
           "A cell's smallest value above 0 is nearly always one molecule. np.where(scaled > 0, scaled, np.inf).min(1, "
           "keepdims=True) finds it, and dividing an empty cell by infinity leaves zeros."),
)
def counts_back(log1p: Float[np.ndarray, "cells G"]) -> tuple[Float[np.ndarray, "cells G"], Bool[np.ndarray, " cells"]]:
    """Returns the counts behind ln(1 + counts * a number of the cell's own), and which cells came out whole.

    A cell's smallest value above 0 is taken for one molecule. A cell is whole where every count is within 0.01 of a
    whole number before it is rounded to it; a cell without counts is whole.
    """
    scaled = np.expm1(log1p.astype(np.float64))
    unit = np.where(scaled > 0, scaled, np.inf).min(1, keepdims=True)
    counts = scaled / unit
    whole = (np.abs(counts - np.rint(counts)) < 0.01).all(1)
    return np.rint(counts), whole


PLANTED = np.array([[1.0, 3, 0, 7], [4, 1, 9, 2]])
SCALE = np.array([[2.3], [0.4]])


@counts_back.requires("two arrays come back: counts, then which cells are whole")
def _(fn: Answer) -> Pair:
    """Return both: `return counts, whole`, counts for every entry, and one True or False a cell."""
    counts, whole = fn(np.log1p(PLANTED * SCALE))
    return [(2, 4), (2,)], [np.shape(counts), np.shape(whole)], {
        "You returned `whole` first: counts come first.": [(2,), (2, 4)],
    }

@counts_back.requires("two cells, each scaled by a number of its own")
def _(fn: Answer) -> Pair:
    """Undo the logarithm with np.expm1, divide each cell by its own smallest value above 0, round."""
    log1p = np.log1p(PLANTED * SCALE)
    logs = log1p / np.where(log1p > 0, log1p, np.inf).min(1, keepdims=True)
    scaled = PLANTED * SCALE
    exp = np.exp(log1p)
    return PLANTED, np.asarray(fn(log1p.copy())[0], np.float64), {
        "You cut the fraction off: np.rint rounds to the nearest whole number, int and floor round down.":
            np.floor(np.expm1(log1p) / np.expm1(log1p).min(1, where=log1p > 0, initial=np.inf, keepdims=True)),
        "You divided the logarithms: undo them first, np.expm1.": np.rint(logs),
        "You rounded the scaled values: divide each cell by its smallest value above 0 first.": np.rint(scaled),
        "You took one unit for all cells: each was scaled by a number of its own, .min(1, keepdims=True).":
            np.rint(scaled / 0.4),
        "np.exp makes a 0 a 1: np.expm1 is what undoes np.log1p.": np.rint(exp / exp.min(1, keepdims=True)),
        "You divided by the cell's total: its smallest value above 0 is one molecule.":
            np.rint(scaled / scaled.sum(1, keepdims=True)),
    }

@counts_back.requires("an empty cell stays empty, and is whole")
def _(fn: Answer) -> Pair:
    """A cell without counts has no smallest value: 0 / 0 is NaN. Divide it by anything else, such as np.inf."""
    counts, whole = fn(np.log1p(np.array([[0.0, 0, 0], [3, 6, 0]])))
    return [0, 0, 0, 1, 2, 0, True, True], [*np.ravel(counts).tolist(), *np.ravel(whole).tolist()]

@counts_back.requires("single precision leaves 2.9999998 of a 3: still a 3")
def _(fn: Answer) -> Pair:
    """You cut the fraction off: np.rint rounds to the nearest whole number, int and floor round down."""
    log1p = np.log1p((PLANTED * SCALE * 0.77).astype(np.float32))
    return PLANTED, np.asarray(fn(log1p)[0], np.float64)

@counts_back.requires("the counts that come back are rounded")
def _(fn: Answer) -> Pair:
    """Nearly whole is not whole, and the door refuses it: return np.rint(counts), judged before, rounded after."""
    counts = np.asarray(fn(np.log1p((PLANTED * SCALE * 0.77).astype(np.float32)))[0], np.float64)
    return True, bool((counts == np.rint(counts)).all())

@counts_back.requires("a cell whose smallest count is 3 gives itself away where another is no multiple of 3")
def _(fn: Answer) -> Pair:
    """Judge before you round, and every value, .all(1) and not .any(1): 3, 4 and 7 come out as 1, 1.33 and 2.33."""
    scaled = 1.7 * np.array([[3.0, 4, 0, 7], [1, 3, 0, 6]])
    counts, whole = fn(np.log1p(scaled))
    seen = np.asarray(counts, np.float64)[0].tolist()
    return [False, True, 1.0, 1.0, 0.0, 2.0], [*np.asarray(whole).tolist(), *seen], {
        "These are the broken cells: `whole` is True where all counts are whole.": [True, False, 1.0, 1.0, 0.0, 2.0],
        "You emptied the broken cell: return its rounded counts, too; `whole` says that they are not to be trusted.":
            [False, True, 0.0, 0.0, 0.0, 0.0],
        "You took the smallest difference for one molecule: here the unit is the smallest value above 0.":
            [True, True, 3.0, 4.0, 0.0, 7.0],
    }

@counts_back.requires("3.05 molecules are not 3, and one such entry among three hundred is enough")
def _(fn: Answer) -> Pair:
    """Every single value must lie within 0.01 of a whole number: not within 0.1, and not on average over the genes."""
    scaled = np.ones((2, 300))
    scaled[0, 7], scaled[1, 7] = 3.05, 3.001
    return [False, True], np.asarray(fn(np.log1p(scaled))[1]).tolist()

@counts_back.requires("noise of single precision breaks no cell")
def _(fn: Answer) -> Pair:
    """You asked for exactly whole numbers; a file in single precision never has them. Within 0.01 is near enough."""
    counts = np.random.default_rng(0).poisson(2.0, (40, 30))
    counts[:, 0] = 1
    scale = np.random.default_rng(1).uniform(0.2, 60, (40, 1))
    return 40, int(np.sum(fn(np.log1p(counts * scale).astype(np.float32))[1]))

@counts_back.requires("one entry breaks its own cell alone")
def _(fn: Answer) -> Pair:
    """Judge cell by cell, .all(1): one broken cell says nothing of the others."""
    scaled = np.array([[1.0, 2, 3], [1, 2, 2.4], [1, 5, 2]])
    return [True, False, True], np.asarray(fn(np.log1p(scaled))[1]).tolist()


@exercise(
    "8.2", "How many cells?", difficulty=3, minutes=12,
    objective="say how many cells an experiment needs to show a change",
    misconception="More perturbed cells always help; and half the change takes twice the cells.",
    hints=("The change must be z_a + z_b standard errors: norm.isf(alpha / 2) + norm.ppf(power). Its standard error is "
           "sd * sqrt(1 / n + 1 / n_controls): solve for n.",
           "1 / n = (change / sd / (z_a + z_b))**2 - 1 / n_controls. If that is not above 0, no n will do: "
           "float('inf'). Round up: np.ceil."),
)
def how_many_cells(change: float, sd: float, n_controls: float, power: float, alpha: float) -> float:
    """Returns the least number of perturbed cells with which a two-sided z test shows a change with this power.

    n solves |change| = (z_a + z_b) sd sqrt(1 / n + 1 / n_controls), z_a the 1 - alpha / 2 and z_b the `power` quantile
    of the normal law, and is rounded up; infinite where the controls alone are too few.
    """
    bar = norm.isf(alpha / 2) + norm.ppf(power)
    share = (change / sd / bar) ** 2 - 1 / n_controls
    return np.ceil(1 / share) if share > 0 else np.inf


FOREVER = float("inf")

@how_many_cells.requires("0.3 SD, endless controls, power .8, level .05: 88 cells")
def _(fn: Answer) -> Pair:
    """(1.96 + 0.84)**2 / 0.3**2 = 87.2, and up: two quantiles, added, then squared with the change."""
    return 88, fn(0.3, 1.0, FOREVER, 0.8, 0.05), {
        "You rounded down: 87 cells fall short of the power.": 87,
        "The number is not rounded: np.ceil gives the next whole number of cells.": 7.848879734349076 / 0.09,
        "Your level is one-sided; a change may be a rise or a fall: alpha / 2.": 69,
        "The power is missing: with z_a alone it would be a half. Add norm.ppf(power).": 43,
        "You did not square: n grows with the square of sd / change.": 10,
        "The level is missing: add norm.isf(alpha / 2) to the power's quantile.": 8,
        "You counted two equal groups; here the controls' mean is known, and adds nothing.": 175,
        "You squared the quantiles one by one: add first, then square.": 51,
        "You added the power itself: it is a chance. Its quantile is norm.ppf(power).": 85,
        "norm.isf(power) is negative for a power above a half: the quantile is norm.ppf(power), or isf(1 - power).": 14,
    }

@how_many_cells.requires("with 100 control cells: 46")
def _(fn: Answer) -> Pair:
    """The controls' mean has noise, too: 1 / n = (change / sd / z)**2 - 1 / n_controls."""
    return 46, fn(0.5, 1.0, 100.0, 0.8, 0.05), {
        "You left the control cells out: their mean has noise, too, sd**2 / n_controls.": 32,
        "You took as many controls as perturbed cells; there are 100.": 63,
        "The noise of the controls is to be taken off what is allowed: minus 1 / n_controls, not plus.": 24,
    }

@how_many_cells.requires("a fall is shown as easily as a rise")
def _(fn: Answer) -> Pair:
    """The sign of a change does not matter to a two-sided test: it is squared, or take abs."""
    return 46, fn(-0.5, 1.0, 100.0, 0.8, 0.05)

@how_many_cells.requires("half as many SD, 600 control cells: more than four times the cells")
def _(fn: Answer) -> Pair:
    """What counts is change / sd: here a quarter of an SD."""
    return 159, fn(0.2, 0.8, 600.0, 0.8, 0.05)

@how_many_cells.requires("a stricter level and a higher power take more")
def _(fn: Answer) -> Pair:
    """Take alpha and power as they are given: .05 and .8 are what is usual, and no more."""
    return 74, fn(0.5, 1.0, FOREVER, 0.9, 0.0027), {
        "Your level is always .05: use alpha.": 43,
        "Your power is always .8: use power.": 60,
    }

@how_many_cells.requires("a change that is below the noise of the controls: no number will do")
def _(fn: Answer) -> Pair:
    """Here 1 / n would be negative: the controls alone are too few, and the answer is float("inf")."""
    return FOREVER, float(fn(0.1, 1.0, 100.0, 0.8, 0.05))


@exercise(
    "8.3", "The place of the right one", difficulty=2, minutes=8,
    objective="search a table of predicted changes for the knockout behind some cells",
    misconception="The most similar means the nearest; and who ties with all others came first.",
    hints=("Pearson's r with every row: np.corrcoef(change, row)[0, 1]. How many have a larger r than the right?",
           "place = 1 + number of rows with a larger r + half the number of other rows with the same r."),
)
def place_of(change: Float[np.ndarray, " G"], table: Float[np.ndarray, "T G"], right: int) -> float:
    """Returns the place of row `right` among all rows by Pearson's r with the change, 1 the most similar.

    Rows of the same r (within 1e-9) share the mean of their places.
    """
    r = np.array([np.corrcoef(change, row)[0, 1] for row in table])
    tied = np.abs(r - r[right]) < 1e-9
    return 1 + np.sum((r > r[right]) & ~tied) + (tied.sum() - 1) / 2


SEEN = np.array([-2.4, 0.6, 1.6, 1.0, -2.0])
ROWS = np.array([[-4.3, 0.0, 3.1, -1.0, -4.6], [-0.2, 4.5, 6.3, 10.5, -2.7], [-5.5, -2.8, -6.5, -3.0, 0.2],
                 [1.5, 1.0, 4.9, -0.5, -7.2], [1.3, -2.9, -4.8, -7.7, -0.8], [-5.6, -2.8, 4.7, 1.2, -4.6],
                 [-3.7, 3.3, -0.9, 3.1, 3.9], [1.2, 2.6, 2.9, 2.3, 0.4], [5.7, -2.3, -6.7, -3.9, 7.9],
                 [-0.8, -0.2, 0.1, 0.7, -0.7]])

@place_of.requires("ten candidates: the last of the table comes fifth")
def _(fn: Answer) -> Pair:
    """Rank all rows by Pearson's r with the change, the largest first; return where row `right` stands, from 1."""
    return 5.0, fn(SEEN.copy(), ROWS.copy(), 9), {
        "You ranked the smallest r first: the most similar has the largest.": 6,
        "Places begin at 1: the most similar comes first, not zeroth.": 4,
        "That is the cosine: Pearson's r takes each row's mean off first.": 3,
        "The nearest is not the most similar: a weak copy of the change has r = 1. Rank by Pearson's r.": 1,
        "You took abs(r): an opposite change is the least similar, not the most.": 7,
        "That is r itself: count how many rows have a larger one.": float(np.corrcoef(SEEN, ROWS[9])[0, 1]),
        "You are off by one row: np.corrcoef(change, table)[0] begins with the change itself; take [0, 1:].": 11,
        "That is Spearman's r, of ranks: Pearson's compares the values.": 2,
        "np.argsort names the row at each place; the place of a row is where argsort holds it.": 9,
        "np.argsort(-r)[right] is the row at a place, counted from 0; asked is the place of a row.": 8,
    }

@place_of.requires("row 0 has a place, too")
def _(fn: Answer) -> Pair:
    """Row 0 is a row like all others: `if right:` is False for it, and an index of 0 is no absence."""
    return 5.0, fn(SEEN.copy(), ROWS[::-1].copy(), 0)

@place_of.requires("a small change with the right pattern is the most similar")
def _(fn: Answer) -> Pair:
    """A tenth of the change has r = 1 with it: Pearson's r is blind to size, distances are not."""
    return 1.0, fn(SEEN.copy(), np.vstack([ROWS[:5], SEEN / 10]), 5)

@place_of.requires("three rows alike share places 1, 2 and 3: each has 2")
def _(fn: Answer) -> Pair:
    """Rows of one r share the mean of their places: add half the number of the other rows that tie."""
    table = np.vstack([SEEN, ROWS[4], 2 * SEEN, 0.5 * SEEN])
    return 2.0, fn(SEEN.copy(), table, 2), {
        "A tie went to the asked row: it did not come first, it was one of three.": 1,
        "Ties count in full: add half the number of the other rows that tie, not all.": 3,
        "You count the row as its own rival: of three that tie, the other two count, a half each.": 2.5,
    }

@place_of.requires("rows that differ by rounding errors alone tie, too")
def _(fn: Answer) -> Pair:
    """Two r that should be equal differ in the sixteenth digit: tied is within 1e-9, not ==."""
    like = np.array([-3.1, 0.1, 1.3, 1.4, -1.0])
    table = np.vstack([ROWS[4], like * 0.3 + 0.7, like * 0.7 - 0.1, like * 1.1 + 0.3, like * 3 + 0.1])
    return [2.5] * 4, [fn(SEEN.copy(), table.copy(), right) for right in range(1, 5)]

@place_of.requires("who answers the same to everything comes in the middle")
def _(fn: Answer) -> Pair:
    """All five rows are alike, so the right one is found by luck: place 3 of 5."""
    return 3.0, fn(SEEN.copy(), np.tile(ROWS[3], (5, 1)), 4)
