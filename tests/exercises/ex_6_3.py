"""Answers to exercise 6.3: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def _distance(guess, real, own):
    difference = np.abs(real - guess)
    return (difference if own is None else np.delete(difference, own, axis=1)).sum(1)


def accepted_ties(guess, real, index, own):
    d = _distance(guess, real, own)
    tied = np.isclose(d, d[index])
    return 1 - (((d < d[index]) & ~tied).sum() + (tied.sum() - 1) / 2) / len(real)


def accepted_rankdata(guess, real, index, own):
    from scipy.stats import rankdata

    return 1 - (rankdata(_distance(guess, real, own).round(9))[index] - 1) / len(real)


def accepted_loop(guess, real, index, own):
    genes = [g for g in range(len(guess)) if g != own]
    d = [sum(abs(row[g] - guess[g]) for g in genes) for row in real]
    rank = sum(0.5 if abs(x - d[index]) < 1e-9 else float(x < d[index]) for i, x in enumerate(d) if i != index)
    return 1 - rank / len(d)


def wrong_from_one(guess, real, index, own):
    """The best rank is 0"""
    return accepted_ties(guess, real, index, own) - 1 / len(real)


def wrong_own_gene(guess, real, index, own):
    """You kept the own gene"""
    return accepted_ties(guess, real, index, None)


def wrong_ties_win(guess, real, index, own):
    """A tie is no win"""
    d = _distance(guess, real, own)
    return 1 - (d < d[index]).sum() / len(real)


def wrong_squares(guess, real, index, own):
    """You squared the differences"""
    keep = [g for g in range(len(guess)) if g != own]
    d = ((real - guess)[:, keep] ** 2).sum(1)
    tied = np.isclose(d, d[index])
    return 1 - (((d < d[index]) & ~tied).sum() + (tied.sum() - 1) / 2) / len(real)


def wrong_divisor(guess, real, index, own):
    """Divide the rank by P"""
    return 1 - (1 - accepted_ties(guess, real, index, own)) * len(real) / (len(real) - 1)


def wrong_false_zero(guess, real, index, own):
    """Position 0 is false to Python"""
    difference = np.abs(real - guess)
    if own:
        difference = np.delete(difference, own, axis=1)
    distance = difference.sum(1)
    tied = np.isclose(distance, distance[index])
    rank = ((distance < distance[index]) & ~tied).sum() + (tied.sum() - 1) / 2
    return float(1 - rank / len(real))


def wrong_rank(guess, real, index, own):
    """That is the rank itself"""
    return (1 - accepted_ties(guess, real, index, own)) * len(real)


def wrong_way_round(guess, real, index, own):
    """You ranked the furthest first"""
    return 1 - (1 - 1 / len(real) - (1 - accepted_ties(guess, real, index, own)))


def wrong_argsort(guess, real, index, own):
    """np.argsort tells which row is at each rank"""
    return 1 - np.argsort(_distance(guess, real, own))[index] / len(real)
