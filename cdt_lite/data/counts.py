"""Raw counts, and how a matrix that holds none is told from one that does."""

from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from jaxtyping import Float

from cdt_lite.data.expression import depths
from cdt_lite.errors import CDTError

NOISE = 1e-6  # share of a count by which arithmetic in floating point may have moved it


def check_depths(adata: AnnData, what: str = "the screen", depth: Float[np.ndarray, " cells"] | None = None) -> None:
    """Raises CDTError where a cell has no count.

    Args:
        adata: Cells.
        what: What to call them in a message.
        depth: Their total counts, if they are known.
    """
    n = int(((depths(adata.X) if depth is None else depth) == 0).sum())
    if n:
        raise CDTError(f"{what}: {n} cells have no count in these {adata.n_vars} genes: "
                       "scanpy.pp.filter_cells(min_counts=1)")


def check_counts(adata: AnnData, what: str = "the screen", block: Any = None) -> None:
    """Raises CDTError where X is not raw counts, and says where counts are, if they are anywhere.

    Args:
        adata: Cells.
        what: What to call them in a message.
        block: Rows of X already read, to check these alone (of a file that is not read whole).
    """
    problem = why_not_counts(adata.X if block is None else block)
    if not problem:
        return
    place = ""
    if adata.raw is not None and not why_not_counts(adata.raw.X):
        place = "; counts are in adata.raw: pass layer='raw', or adata.raw.to_adata()"
    for key, values in adata.layers.items():
        if not why_not_counts(values):
            place = f"; counts are in layer {key!r}: pass layer={key!r}"
    raise CDTError(f"{what}: X must hold raw counts, but it holds {problem}{place}")


def tidied(counts: Any) -> sp.csr_matrix:
    """Returns counts as all screens in memory hold them: whole numbers, each place once and in order."""
    counts = sp.csr_matrix(counts, dtype=np.float32)
    counts.sum_duplicates()
    counts.data = np.rint(counts.data)
    return counts


def check_structure(values: Any, what: str) -> None:
    """Raises CDTError where the indices of a sparse matrix do not fit its shape."""
    on_disk = getattr(values, "group", None)
    if on_disk is not None:
        by_column = values.format == "csc"
        if {on_disk[part].dtype.kind for part in ("indices", "indptr")} - set("iu"):
            raise CDTError(f"{what}: X holds a sparse matrix whose indices are no whole numbers")
        if len(on_disk["indptr"]) != values.shape[by_column] + 1:
            raise CDTError(f"{what}: X holds a sparse matrix that is damaged (its indptr does not fit {values.shape}): "
                           "make the file anew")
        if by_column:
            values = values.to_memory()  # its rows cannot be found without reading it whole
    problem = _broken(values)
    if problem:
        raise CDTError(f"{what}: X holds {problem}")


def _broken(values: Any) -> str:
    """Returns what is wrong with a sparse matrix (compressed, in memory), or an empty text."""
    if not sp.issparse(values) or values.format not in ("csr", "csc"):
        return ""
    try:
        values.check_format(full_check=True)
        if (values.indptr[1:] < values.indptr[:-1]).any():  # scipy looks at differences: unsigned, none is negative
            raise ValueError("indptr falls")
    except (ValueError, TypeError, IndexError) as error:
        return f"a sparse matrix that is damaged ({error}): make the file anew"
    return ""


def why_not_counts(values: Any) -> str:
    """Returns what keeps a matrix from being raw counts, or an empty text."""
    if values is None:
        return "nothing"
    if problem := _broken(values):
        return problem
    data = values.data if sp.issparse(values) else np.asarray(values)
    if data.dtype.kind not in "iuf":
        return f"values of type {data.dtype}, no numbers of molecules"
    if not np.isfinite(data).all():
        return "NaN or infinite values"
    if (data < 0).any():
        return f"{data[data < 0][0]:.3g}, a negative number"
    off = np.abs(data - np.rint(data))
    fractions = data[off > NOISE * np.maximum(data, 1)]
    return f"{fractions[0]:.3g}, not a whole number" if fractions.size else ""
