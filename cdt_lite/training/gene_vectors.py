"""What is known about genes before training: vectors from a file, or from co-expression in the training cells.

A model learns nothing about a gene that nobody perturbed, unless its vector says which genes it resembles. Vectors
given here become the first values of rows of the gene table; training goes on from them.
"""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from cdt_lite.data.expression import dense
from cdt_lite.errors import CDTError
from cdt_lite.training.checkpoint import Checkpoint

MOST_CELLS = 20_000  # more do not change correlations, but would have to fit in memory as a dense matrix


def read_gene_vectors(path: str | Path) -> pd.DataFrame:
    """Reads a table of gene vectors: a CSV (or .tsv) file whose first column holds gene symbols, the others numbers.

    Raises:
        CDTError: No such file, a gene twice, or something that is not a finite number.
    """
    path = Path(path)
    if not path.is_file():
        raise CDTError(f"no file of gene vectors at {path}: a CSV with gene symbols in the first column is needed.")
    table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index_col=0)
    return _checked(table, path.name)


def _checked(table: pd.DataFrame, name: str) -> pd.DataFrame:
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise CDTError(f"{name} names {list(twice[:3])} more than once: one vector a gene.")
    wrong = [c for c in table.columns if table[c].dtype.kind not in "iuf"]
    if wrong or table.empty:
        raise CDTError(f"{name} must hold one row of numbers a gene; "
                       + ("it is empty" if table.empty else f"these columns hold other things: {wrong[:3]}"))
    if not np.isfinite(table.to_numpy(float)).all():
        raise CDTError(f"{name} holds values that are missing or not finite: fill or drop those genes first.")
    return table


def coexpression_vectors(cells: ad.AnnData, n_dims: int) -> pd.DataFrame:
    """Returns vectors in which genes that rise and fall together lie close: leading directions of their correlations.

    Counts are scaled to one depth, logged and standardised by gene; V S / sqrt(n) of the singular value decomposition
    U S V' then gives every gene one row, and rows have the genes' correlations as inner products.

    Args:
        cells: Raw counts of the training side only; of more than 20,000 every second, third, ... is read.
        n_dims: Length of the vectors; at most the number of genes or cells.
    """
    counts = dense(cells.X[:: -(-cells.n_obs // MOST_CELLS)])
    depth = np.maximum(counts.sum(1, keepdims=True), 1)
    logged = np.log1p(counts / depth * np.median(depth))
    scaled = (logged - logged.mean(0)) / np.maximum(logged.std(0), 1e-3)
    _, strength, directions = np.linalg.svd(scaled, full_matrices=False)
    n_dims = min(n_dims, len(strength))
    return pd.DataFrame(directions[:n_dims].T * strength[:n_dims] / np.sqrt(len(scaled)), index=cells.var_names)


def give_vectors(checkpoint: Checkpoint, vectors: pd.DataFrame) -> list[str]:
    """Writes gene vectors into the gene table, scaled to the spread of its other rows; returns the genes that got one.

    Vectors longer than the table's width are projected on their leading directions; shorter ones leave the remaining
    columns as they are. Genes outside the vocabulary are passed over.

    Raises:
        CDTError: Not one gene of the table is in the vocabulary, or the table is not one row of numbers a gene.
    """
    known = [g for g in _checked(vectors, "the table of gene vectors").index if g in checkpoint.vocabulary]
    if not known:
        raise CDTError(f"none of the {len(vectors)} genes with vectors is in the model's vocabulary: are they symbols "
                       f"like {checkpoint.vocabulary.symbols[:3]}?")
    values = _fit_width(vectors.loc[known].to_numpy(np.float64), checkpoint.config.model.gene_embed_dim)
    rows = torch.as_tensor(checkpoint.vocabulary.ids(known))
    with torch.no_grad():
        checkpoint.model.gene_table.weight[rows, : values.shape[1]] = torch.as_tensor(values, dtype=torch.float32)
    return known


def _fit_width(values: Float[np.ndarray, "genes n"], width: int) -> Float[np.ndarray, "genes m"]:
    """At most `width` columns, with a mean square of 1 (the spread of the table's other rows)."""
    if values.shape[1] > width:
        left, strength, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
        values = left[:, :width] * strength[:width]
    return values / np.sqrt((values**2).mean())
