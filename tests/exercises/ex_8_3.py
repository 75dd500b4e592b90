"""Answers to exercise 8.3: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np
from scipy import stats


def _r(change, table):
    return np.corrcoef(change, table)[0, 1:]


def accepted_rankdata(change, table, right):
    return stats.rankdata(-_r(change, table).round(9))[right]


def accepted_two_counts(change, table, right):
    r = [stats.pearsonr(change, row)[0] for row in table]
    better = sum(value > r[right] + 1e-9 for value in r)
    no_worse = sum(value > r[right] - 1e-9 for value in r)
    return (better + 1 + no_worse) / 2


def wrong_smallest_first(change, table, right):
    """You ranked the smallest r first"""
    return stats.rankdata(_r(change, table).round(9))[right]


def wrong_from_zero(change, table, right):
    """Places begin at 1"""
    return accepted_rankdata(change, table, right) - 1


def wrong_cosine(change, table, right):
    """That is the cosine"""
    return stats.rankdata(-(table @ change / np.linalg.norm(table, axis=1)).round(9))[right]


def wrong_distance(change, table, right):
    """The nearest is not the most similar"""
    return stats.rankdata(np.linalg.norm(table - change, axis=1).round(9))[right]


def wrong_manhattan(change, table, right):
    """The nearest is not the most similar"""
    return stats.rankdata(np.abs(table - change).sum(1).round(9))[right]


def wrong_abs(change, table, right):
    """You took abs"""
    return stats.rankdata(-np.abs(_r(change, table)).round(9))[right]


def wrong_r_itself(change, table, right):
    """That is r itself"""
    return _r(change, table)[right]


def wrong_row_zero(change, table, right):
    """Row 0 is a row like all others"""
    return accepted_rankdata(change, table, right) if right else 1.0


def wrong_ties_win(change, table, right):
    """A tie went to the asked row"""
    r = _r(change, table).round(9)
    return 1 + (r > r[right]).sum()


def wrong_ties_lose(change, table, right):
    """Ties count in full"""
    r = _r(change, table).round(9)
    return (r >= r[right]).sum()


def wrong_own_rival(change, table, right):
    """You count the row as its own rival"""
    r = _r(change, table).round(9)
    tied = (r == r[right]).sum()
    return 1 + (r > r[right]).sum() + (tied / 2 if tied > 1 else 0)


def wrong_off_by_one(change, table, right):
    """You are off by one row"""
    r = np.corrcoef(change, table)[0]
    return 1 + (r > r[right]).sum()


def wrong_spearman(change, table, right):
    """That is Spearman's r"""
    r = np.array([stats.spearmanr(change, row)[0] for row in table])
    return stats.rankdata(-r.round(9))[right]


def wrong_argsort(change, table, right):
    """np.argsort names the row at each place"""
    return np.argsort(-_r(change, table))[right] + 1


def wrong_argsort_from_zero(change, table, right):
    """is the row at a place, counted from 0"""
    return np.argsort(-_r(change, table))[right]


def wrong_equal_exactly(change, table, right):
    """tied is within 1e-9, not =="""
    r = np.array([np.corrcoef(change, row)[0, 1] for row in table])
    return 1 + (r > r[right]).sum() + ((r == r[right]).sum() - 1) / 2
