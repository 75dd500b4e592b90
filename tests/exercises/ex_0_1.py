"""Answers to exercise 0.1: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_helper(knockout, control, depth):
    scaled = [x / x.sum(1, keepdims=True) * depth for x in (knockout, control)]
    return np.log1p(scaled[0]).mean(0) - np.log1p(scaled[1]).mean(0)


def accepted_loop(knockout, control, depth):
    total = np.zeros(knockout.shape[1])
    for cells, sign in ((knockout, 1), (control, -1)):
        for cell in cells:
            total = total + sign * np.log(1 + depth * cell / cell.sum()) / len(cells)
    return total


def accepted_package(knockout, control, depth):
    from cdt_lite.data.expression import gene_means, log1p_counts

    return gene_means(log1p_counts(knockout, depth)) - gene_means(log1p_counts(control, depth))


def wrong_sign(knockout, control, depth):
    """Right sizes, signs swapped"""
    return -accepted_helper(knockout, control, depth)


def wrong_unscaled(knockout, control, depth):
    """first scale every cell to the common depth"""
    return np.log1p(knockout).mean(0) - np.log1p(control).mean(0)


def wrong_log_last(knockout, control, depth):
    """You took the mean first and the logarithm after it"""
    scaled = [(x / x.sum(1, keepdims=True) * depth).mean(0) for x in (knockout, control)]
    return np.log1p(scaled[0]) - np.log1p(scaled[1])


def wrong_axis(knockout, control, depth):
    """You averaged over genes"""
    n = min(len(knockout), len(control))
    scaled = [np.log1p(x / x.sum(1, keepdims=True) * depth).mean(1)[:n] for x in (knockout, control)]
    return scaled[0] - scaled[1]


def wrong_pooled(knockout, control, depth):
    """Each arm has its own number of cells"""
    logs = [np.log1p(x / x.sum(1, keepdims=True) * depth) for x in (knockout, control)]
    return (logs[0].sum(0) - logs[1].sum(0)) / len(knockout)


def wrong_log2(knockout, control, depth):
    """You took log2"""
    return accepted_helper(knockout, control, depth) / np.log(2)


def wrong_shares(knockout, control, depth):
    """forgot to multiply by `depth`"""
    return accepted_helper(knockout, control, 1.0)
