"""Counts as numbers: dense blocks, depths, one logarithmic scale, means."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

from cdt_lite.errors import require_between

Vector = Float[np.ndarray, "G"]
Matrix = Any  # cells x genes, a numpy array or a scipy sparse matrix
LEAST_DEPTH, MOST_DEPTH = 1e-3, 1e9  # counts a cell, for which a logarithm says anything


def check_target_depth(value: float) -> float:
    """Returns a depth to scale to, counts a cell. Raises CDTError for one of no cell."""
    require_between("target_depth", value, LEAST_DEPTH, MOST_DEPTH)
    return float(value)


def dense(block: Matrix) -> np.ndarray:
    """Returns a dense float32 array of a block of cells, sparse or not."""
    if sparse.issparse(block):
        block = block.toarray()
    return np.asarray(block, dtype=np.float32)


def depths(X: Matrix) -> Float[np.ndarray, "cells"]:
    """Returns the total counts of every cell."""
    return np.asarray(X.sum(axis=1), dtype=np.float64).ravel()


def log1p_counts(X: Matrix, target_depth: float) -> Matrix:
    """Puts cells of different depth on one logarithmic scale, ln(1 + counts / depth * target_depth).

    Args:
        X: Counts, cells x genes. A cell without counts stays zero.
        target_depth: Counts per cell to scale to, usually the median depth of the training controls.

    Returns:
        The same kind of matrix; sparse float32 stays float32, all else becomes float64.
    """
    depth = depths(X)
    scale = target_depth / np.where(depth > 0, depth, 1.0)
    if not sparse.issparse(X):
        return np.log1p(np.asarray(X, dtype=np.float64) * scale[:, None])
    kind = X.dtype if X.dtype.kind == "f" else np.float64
    out = sparse.csr_matrix(X, dtype=kind, copy=True)
    out.sum_duplicates()  # a count in two parts is one count: the logarithm of a sum is no sum
    values = out.data * np.repeat(scale, np.diff(out.indptr))
    out.data = np.log1p(values).astype(kind)
    return out


def gene_means(X: Matrix) -> Vector:
    """Returns the mean of every gene over cells."""
    return np.ones(X.shape[0]) @ X / X.shape[0]  # summed in float64, which `sum` of a sparse float32 matrix is not


def gene_sds(X: Matrix) -> Vector:
    """Returns the standard deviation (ddof 1) of every gene over cells."""
    n = X.shape[0]
    X = X.astype(np.float64)
    squares = X.multiply(X) if sparse.issparse(X) else X * X
    variance = gene_means(squares) - gene_means(X) ** 2
    return np.sqrt(np.maximum(variance, 0.0) * n / (n - 1))
