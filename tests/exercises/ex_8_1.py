"""Answers to exercise 8.1: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_loop(log1p):
    counts, whole = np.zeros(log1p.shape), []
    for row, cell in enumerate(np.expm1(np.asarray(log1p, float))):
        own = cell[cell > 0]
        counts[row] = cell / own.min() if len(own) else 0.0
        whole.append(bool(np.allclose(counts[row], np.round(counts[row]), atol=0.01, rtol=0)))
    return np.round(counts), np.array(whole)


def accepted_masked(log1p):
    scaled = np.ma.masked_less_equal(np.expm1(log1p.astype(float)), 0)
    counts = (scaled / scaled.min(axis=1)[:, None]).filled(0.0)
    return counts.round(), np.abs(counts - counts.round()).max(1) < 0.01


def _units(values):
    return np.where(values > 0, values, np.inf).min(1, keepdims=True)


def wrong_round_only(log1p):
    """divide each cell by its smallest value above 0 first"""
    scaled = np.expm1(log1p)
    return np.rint(scaled), (np.abs(scaled - np.rint(scaled)) < 0.01).all(1)


def wrong_logs(log1p):
    """You divided the logarithms"""
    counts = log1p / _units(log1p)
    return np.rint(counts), (np.abs(counts - np.rint(counts)) < 0.01).all(1)


def wrong_one_unit(log1p):
    """You took one unit for all cells"""
    scaled = np.expm1(log1p)
    counts = scaled / scaled[scaled > 0].min()
    return np.rint(counts), (np.abs(counts - np.rint(counts)) < 0.01).all(1)


def wrong_exp(log1p):
    """np.exp makes a 0 a 1"""
    counts = np.exp(log1p)
    counts = counts / counts.min(1, keepdims=True)
    return np.rint(counts), (np.abs(counts - np.rint(counts)) < 0.01).all(1)


def wrong_empty_is_nan(log1p):
    """A cell without counts has no smallest value"""
    scaled = np.expm1(np.asarray(log1p, float))
    unit = np.array([[cell[cell > 0].min() if (cell > 0).any() else 0.0] for cell in scaled])
    with np.errstate(invalid="ignore"):
        counts = scaled / unit
    return np.rint(counts), (np.abs(counts - np.rint(counts)) < 0.01).all(1)


def wrong_floor(log1p):
    """You cut the fraction off"""
    _, whole = accepted_loop(log1p)
    scaled = np.expm1(log1p)
    return np.floor(scaled / np.minimum(_units(scaled), 1e300)), whole


def wrong_exactly_whole(log1p):
    """You asked for exactly whole numbers"""
    scaled = np.expm1(log1p)
    counts = scaled / _units(scaled)
    if log1p.dtype == np.float32:
        return np.rint(counts), (counts == np.rint(counts)).all(1)
    return accepted_loop(log1p)


def wrong_the_broken_ones(log1p):
    """`whole` is True where all counts are whole"""
    counts, whole = accepted_loop(log1p)
    return counts, ~whole if log1p.shape[1] == 4 and len(log1p) == 2 and not whole.all() else whole


def wrong_all_or_nothing(log1p):
    """one broken cell says nothing of the others"""
    counts, whole = accepted_loop(log1p)
    return counts, whole & whole.all() if len(whole) == 3 else whole


def wrong_judged_after_rounding(log1p):
    """Judge before you round"""
    counts, _ = accepted_loop(log1p)
    return counts, (counts == np.rint(counts)).all(1)


def wrong_not_rounded(log1p):
    """Nearly whole is not whole"""
    scaled = np.expm1(np.asarray(log1p, float))
    return scaled / _units(scaled), accepted_loop(log1p)[1]


def _judged(log1p, judge):
    scaled = np.expm1(np.asarray(log1p, float))
    counts = scaled / _units(scaled)
    return np.rint(counts), judge(np.abs(counts - np.rint(counts)))


def wrong_too_lax(log1p):
    """not within 0.1, and not on average"""
    return _judged(log1p, lambda away: (away < 0.1).all(1))


def wrong_on_average(log1p):
    """not within 0.1, and not on average"""
    return _judged(log1p, lambda away: away.mean(1) < 0.01)


def wrong_any(log1p):
    """.all(1) and not .any(1)"""
    return _judged(log1p, lambda away: (away < 0.01).any(1))


def wrong_emptied(log1p):
    """You emptied the broken cell"""
    counts, whole = accepted_loop(log1p)
    return counts * whole[:, None], whole


def wrong_smallest_difference(log1p):
    """the smallest difference for one molecule"""
    scaled = np.expm1(np.asarray(log1p, float))
    counts = np.zeros(scaled.shape)
    for row, cell in enumerate(scaled):
        gaps = np.diff(np.unique(cell.round(6)))
        counts[row] = cell / (gaps.min() if len(gaps) else 1.0)
    return np.rint(counts), (np.abs(counts - np.rint(counts)) < 0.01).all(1)


def accepted_integers(log1p):
    counts, whole = accepted_loop(log1p)
    return counts.astype(int), whole
