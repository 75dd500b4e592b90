"""Counts as numbers: dense blocks, depths, one logarithmic scale, means."""

from typing import Any

import anndata as ad
import numpy as np
from jaxtyping import Float
from scipy import sparse

from cdt_lite.errors import CDTError, suggest

Vector = Float[np.ndarray, "G"]
Matrix = Any  # cells x genes, a numpy array or a scipy sparse matrix


def log1p_counts(X: Matrix, target_depth: float) -> Matrix:
    """Puts cells of different depth on one logarithmic scale, ln(1 + counts / depth * target_depth).

    Args:
        X: Counts, cells x genes; the depth of a cell is its row sum. A cell without counts stays zero.
        target_depth: Counts per cell to scale to, usually the median depth of the training controls.

    Returns:
        The same kind of matrix; sparse float32 stays float32, all else becomes float64.
    """
    depth = np.asarray(X.sum(axis=1), dtype=np.float64).ravel()
    scale = target_depth / np.where(depth > 0, depth, 1.0)
    if not sparse.issparse(X):
        return np.log1p(np.asarray(X, dtype=np.float64) * scale[:, None])
    out = sparse.csr_matrix(X, dtype=X.dtype if X.dtype.kind == "f" else np.float64, copy=True)
    out.data = np.log1p(out.data * np.repeat(scale, np.diff(out.indptr))).astype(out.dtype)
    return out


def gene_sds(X: Matrix) -> Vector:
    """Returns the standard deviation (ddof 1) of every gene over cells."""
    X = X.astype(np.float64)
    variance = gene_means(X.multiply(X) if sparse.issparse(X) else X * X) - gene_means(X) ** 2
    return np.sqrt(np.maximum(variance, 0.0) * X.shape[0] / (X.shape[0] - 1))




def gene_means(X: Matrix) -> Vector:
    """Returns the mean of every gene over cells."""
    return np.ones(X.shape[0]) @ X / X.shape[0]  # summed in float64, which `sum` of a sparse float32 matrix is not


def control_depths(screen: ad.AnnData, *, target_key: str = "target_gene", control: str = "non-targeting"
                   ) -> np.ndarray:
    """Returns the total counts of every control cell. Raises CDTError when there is none."""
    if target_key not in screen.obs:
        raise CDTError(f"obs has no column {target_key!r}{suggest(target_key, screen.obs.columns)}")
    is_control = (screen.obs[target_key].astype(str) == control).to_numpy()
    if not is_control.any():
        labels = sorted(set(screen.obs[target_key].astype(str)))[:8]
        raise CDTError(f"no control cells: nothing in obs[{target_key!r}] is {control!r}{suggest(control, labels)} "
                       f"Labels there: {labels}. Name yours with control=.")
    return np.asarray(screen[is_control].X.sum(1), dtype=np.float64).ravel()


def dense(block: Any) -> np.ndarray:
    """Returns a dense float32 array of a block of cells, sparse or not."""
    return np.asarray(block.toarray() if sparse.issparse(block) else block, dtype=np.float32)
