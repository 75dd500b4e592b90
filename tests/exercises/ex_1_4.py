"""Answers to exercise 1.4: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_share(p, n):
    return -np.log2(p / n).mean()


def accepted_loop(p, n):
    return sum(np.log(m / q) for q, m in zip(np.ravel(p), np.ravel(n), strict=True)) / np.log(2) / np.size(p)


def wrong_nats(p, n):
    """Bits are base-2 logarithms"""
    return -np.log(p / n).mean()


def wrong_mean_first(p, n):
    """take the logarithm of each, then the mean"""
    return -np.log2((p / n).mean())


def wrong_token_only(p, n):
    """the count inside its bin is still open"""
    return -np.log2(p).mean()


def wrong_sign(p, n):
    """the count inside its bin is still open"""
    return -np.log2(p * n).mean()


def wrong_linear(p, n):
    """each of the n has p / n"""
    return float(np.mean(-np.log2(p) + np.where(n == 8, 3, n - 1)))
