"""Counts block by block, so that a file on disk, or a selection of its cells, is never read whole."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from jaxtyping import Float, Int

from cdt_lite.data.counts import check_counts, check_structure, tidied
from cdt_lite.data.expression import depths
from cdt_lite.errors import CDTError
from cdt_lite.files import readable

BLOCK = 4096  # rows read at a time
Rows = slice | Int[np.ndarray, " rows"]


def part_of(cells: AnnData, rows: Any, genes: Any = slice(None)) -> AnnData:
    """Returns some cells, also of a part of a file, of which anndata itself takes no part."""
    if not (cells.isbacked and cells.is_view):
        return cells[rows, genes]
    own_rows, own_genes = _place(cells)
    return cells._adata_ref[own_rows[rows], own_genes[genes]]


def count_blocks(cells: AnnData, what: str = "the screen") -> Iterator[tuple[Rows, Any]]:
    """Yields rows and their counts, block by block; those of a part of a file come in the order of the file.

    Raises:
        CDTError: They are no raw counts.
    """
    of_file = cells.isbacked and cells.is_view
    whole = cells._adata_ref if of_file else cells
    with readable(what):
        values = whole.X  # of a part of a file X would be read whole, one cell after the other
        check_structure(values, what)  # before rows are taken: entries out of bounds would end the process
        if values is None or values.shape != whole.shape:
            raise CDTError(f"{what}: X must hold {whole.n_obs} cells x {whole.n_vars} genes")
        if whole.isbacked and getattr(values, "format", "") == "csc":
            values = values.to_memory().tocsr()  # its rows cannot be found without reading it whole
    if of_file:
        yield from _blocks_of_part(cells, values, what)
        return
    for begin in range(0, cells.n_obs, BLOCK):
        rows = slice(begin, begin + BLOCK)
        with readable(what):
            block = values[rows]
        check_counts(cells, what, block)
        yield rows, block


def _blocks_of_part(cells: AnnData, values: Any, what: str) -> Iterator[tuple[Rows, Any]]:
    """Reads the file that a part belongs to from its first to its last cell, and passes over gaps."""
    rows, genes = _place(cells)
    every = np.array_equal(genes, np.arange(cells._adata_ref.n_vars))
    order = np.argsort(rows, kind="stable")
    place, begin = rows[order], 0
    while begin < len(place):
        first = int(place[begin])
        end = int(np.searchsorted(place, first + BLOCK))
        with readable(what):
            block = values[first : int(place[end - 1]) + 1]
        check_counts(cells._adata_ref, what, block)
        block = block[place[begin:end] - first]
        yield order[begin:end], block if every else block[:, genes]
        begin = end


def block_depths(cells: AnnData, what: str = "the screen") -> Float[np.ndarray, " cells"]:
    """Returns the total counts of every cell. Raises CDTError where they are no raw counts."""
    depth = np.empty(cells.n_obs)
    for rows, block in count_blocks(cells, what):
        depth[rows] = depths(block)
    return depth


def in_memory(cells: AnnData, what: str = "the screen") -> AnnData:
    """Returns cells with all their counts in memory. Raises CDTError where they are no raw counts."""
    if not cells.isbacked:
        return cells
    order, blocks = [], []
    for rows, block in count_blocks(cells, what):
        order.append(np.arange(cells.n_obs)[rows])
        blocks.append(tidied(block))
    counts = sp.vstack(blocks, format="csr")[np.argsort(np.concatenate(order))]
    return AnnData(counts, obs=cells.obs.copy(), var=cells.var.copy(), uns=dict(cells.uns))


def _place(cells: AnnData) -> tuple[Int[np.ndarray, " cells"], Int[np.ndarray, " G"]]:
    """Rows and columns of the file that a part of it holds."""
    whole = cells._adata_ref
    return np.arange(whole.n_obs)[cells._oidx], np.arange(whole.n_vars)[cells._vidx]
