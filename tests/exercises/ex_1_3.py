"""Answers to exercise 1.3: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np

from cdt_lite.data.expression import log1p_counts


def accepted_broadcast(counts, target_depth):
    return np.log1p(counts * (target_depth / np.maximum(counts.sum(1), 1))[:, None])


def accepted_loop(counts, target_depth):
    out = np.zeros_like(counts)
    for i, cell in enumerate(counts):
        if cell.sum() > 0:
            out[i] = np.log(1 + target_depth * cell / cell.sum())
    return out


def accepted_package(counts, target_depth):
    return log1p_counts(counts, target_depth)


def wrong_log2(counts, target_depth):
    """Use the natural logarithm"""
    return np.log2(1 + counts * (target_depth / np.maximum(counts.sum(1), 1))[:, None])


def wrong_gene_totals(counts, target_depth):
    """Cells were not scaled by their own totals"""
    return np.log1p(counts / np.maximum(counts.sum(0), 1) * target_depth)


def wrong_one_first(counts, target_depth):
    """scale the counts first, add the 1 afterwards"""
    more = counts + 1
    return np.log(more / more.sum(1, keepdims=True) * target_depth)


def wrong_nan(counts, target_depth):
    """A cell without counts became NaN"""
    with np.errstate(invalid="ignore"):
        return np.log1p(counts / counts.sum(1, keepdims=True) * target_depth)
