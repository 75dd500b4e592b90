"""Answers to exercise 7.2: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np
import pandas as pd


def _r(cells):
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.corrcoef(cells, rowvar=False))


def _pairs(matrix):
    return matrix[np.triu_indices(len(matrix), 1)]


def accepted_triangle(x, y):
    return np.corrcoef(_pairs(_r(x)), _pairs(_r(y)))[0, 1]


def accepted_pandas_both_triangles(x, y):
    off = ~np.eye(x.shape[1], dtype=bool)
    both = [pd.DataFrame(cells).corr().fillna(0).to_numpy()[off] for cells in (x, y)]
    return float(np.corrcoef(*both)[0, 1])


def wrong_whole_matrix(x, y):
    """The diagonal is among your pairs: a gene"""
    return np.corrcoef(_r(x).ravel(), _r(y).ravel())[0, 1]


def wrong_triangle_with_diagonal(x, y):
    """np.triu_indices(G, 1) begins beside it"""
    pairs = np.triu_indices(x.shape[1])
    return np.corrcoef(_r(x)[pairs], _r(y)[pairs])[0, 1]


def wrong_covariance(x, y):
    """These are covariances"""
    return np.corrcoef(_pairs(np.cov(x.T)), _pairs(np.cov(y.T)))[0, 1]


def wrong_cells(x, y):
    """You correlated cells with cells"""
    return np.corrcoef(_pairs(np.corrcoef(x)), _pairs(np.corrcoef(y)))[0, 1]


def wrong_sign_lost(x, y):
    """Keep the sign"""
    return np.corrcoef(np.abs(_pairs(_r(x))), np.abs(_pairs(_r(y))))[0, 1]


def wrong_difference(x, y):
    """This is a mean difference"""
    return np.abs(_pairs(_r(x)) - _pairs(_r(y))).mean()


def wrong_nan(x, y):
    """its correlations are NaN"""
    with np.errstate(all="ignore"):
        both = [_pairs(np.corrcoef(cells, rowvar=False)) for cells in (x, y)]
        return np.corrcoef(*both)[0, 1]


def wrong_left_out(x, y):
    """You left the constant gene out"""
    kept = (x.std(0) > 0) & (y.std(0) > 0)
    return accepted_triangle(x[:, kept], y[:, kept])


def wrong_same_number_of_cells(x, y):
    """how many cells it has does not matter"""
    n = min(len(x), len(y))
    return accepted_triangle(x[:n], y[:n])
