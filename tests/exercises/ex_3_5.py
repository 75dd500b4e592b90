"""Answers to exercise 3.5: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_share(p, n):
    return -np.log2(p / n).mean()


def accepted_loop(p, n):
    return sum(np.log(m / q) for q, m in zip(np.ravel(p), np.ravel(n), strict=True)) / np.log(2) / np.size(p)


def accepted_two_messages(p, n):
    return np.mean(-np.log2(p) + np.log2(n))


def wrong_nats(p, n):
    """Bits are base-2 logarithms"""
    return -np.log(p / n).mean()


def wrong_mean_first(p, n):
    """Take the logarithm of each entry"""
    return -np.log2((p / n).mean())


def wrong_sum(p, n):
    """You added the entries up"""
    return -np.log2(p / n).sum()


def wrong_negative(p, n):
    """change the sign"""
    return np.log2(p / n).mean()


def wrong_token_only(p, n):
    """You counted the cost of the token alone"""
    return -np.log2(p).mean()


def wrong_times(p, n):
    """not p * n"""
    return -np.log2(p * n).mean()


def wrong_width(p, n):
    """You added the width itself"""
    return np.mean(-np.log2(p) + np.where(n > 1, n, 0))


def wrong_linear(p, n):
    """each of the n has p / n"""
    return float(np.mean(-np.log2(p) + np.where(n == 8, 3, n - 1)))


def wrong_by_row(p, n):
    """one number, whatever the shape"""
    return -np.log2(p / n).mean(-1)
