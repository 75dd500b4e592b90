"""Answers to exercise 3.3: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_loop(p, n_genes):
    groups, hidden = [], n_genes
    for t in range(len(p) - 1, 0, -1):
        groups.append(hidden * (1 - p[t - 1] / p[t]))
        hidden = hidden - groups[-1]
    return np.array(groups)


def accepted_telescoped(p, n_genes):
    return n_genes * np.diff(p)[::-1] / p[-1]  # the ratios of all steps before cancel


def accepted_product(p, n_genes):
    stay = (p[:-1] / p[1:])[::-1]
    still_hidden = np.concatenate([[1.0], np.cumprod(stay)])
    return n_genes * -np.diff(still_hidden)


def wrong_all_genes(p, n_genes):
    """only those that are still hidden can be revealed"""
    return n_genes * (1 - p[:-1] / p[1:])[::-1]


def wrong_upwards(p, n_genes):
    """Your groups start at t = 1"""
    return n_genes * np.diff(p) / p[-1]


def wrong_difference(p, n_genes):
    """You used p[t] - p[t - 1] as a share of all genes"""
    return n_genes * np.diff(p)[::-1]


def wrong_stays(p, n_genes):
    """is the probability to stay hidden"""
    groups, hidden = [], n_genes
    for t in range(len(p) - 1, 0, -1):
        groups.append(hidden * p[t - 1] / p[t])
        hidden = hidden - groups[-1]
    return np.array(groups)


def wrong_rounded(p, n_genes):
    """an expectation is not a whole number: do not round"""
    return np.rint(n_genes * np.diff(p)[::-1] / p[-1])
