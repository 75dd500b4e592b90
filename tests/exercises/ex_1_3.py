"""Answers to exercise 1.3: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_where(counts, loud):
    quiet = counts[:, ~loud].sum(1)
    return np.where(quiet > 0, quiet / quiet.mean(), 1.0)


def accepted_loop(counts, loud):
    sums = [sum(value for value, is_loud in zip(cell, loud, strict=True) if not is_loud) for cell in counts]
    mean = sum(sums) / len(sums)
    return np.array([total / mean if total else 1.0 for total in sums])


def wrong_all_genes(counts, loud):
    """The loud gene is still in your sums"""
    return counts.sum(1) / counts.sum(1).mean()


def wrong_loud(counts, loud):
    """You summed over the loud genes"""
    return counts[:, loud].sum(1) / counts[:, loud].sum(1).mean()


def wrong_sums(counts, loud):
    """These are the sums themselves"""
    return counts[:, ~loud].sum(1)


def wrong_median(counts, loud):
    """You divided by the median"""
    quiet = counts[:, ~loud].sum(1)
    return np.where(quiet > 0, quiet / np.median(quiet), 1.0)


def wrong_inverse(counts, loud):
    """You took the inverse"""
    quiet = counts[:, ~loud].sum(1)
    return np.where(quiet > 0, quiet.mean() / np.maximum(quiet, 1e-9), 1.0)


def wrong_axis(counts, loud):
    """a factor belongs to a cell"""
    return counts.sum(0) / counts.sum(0).mean()


def wrong_empty(counts, loud):
    """An empty cell got 0 or NaN"""
    quiet = counts[:, ~loud].sum(1)
    return quiet / quiet.mean()


def wrong_mean_of_others(counts, loud):
    """You left the empty cell out of the mean"""
    quiet = counts[:, ~loud].sum(1)
    return np.where(quiet > 0, quiet / quiet[quiet > 0].mean(), 1.0)
