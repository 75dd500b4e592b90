"""What is known about genes before training: vectors from a file, or from co-expression in the training cells.

A model learns nothing about a gene that nobody perturbed, unless its vector says which genes it resembles. Vectors
given here become the first values of rows of the gene table; training goes on from them. Co-expression also carries
mean effects from perturbed genes to others (`training/effects.py`): it is one computation for both.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from cdt_lite.errors import CDTError
from cdt_lite.training.checkpoint import Checkpoint

LEAST_SD = 1e-3  # of a gene's log expression: what varies less is taken for constant


def coexpression(blocks: Iterable[Float[np.ndarray, "_cells G"]], above_noise: bool = False
                ) -> Float[np.ndarray, "G K"]:
    """Returns a vector for every gene; genes that rise and fall together lie close.

    Vectors are the eigenvectors of the genes' correlations, scaled so that inner products are correlations, the
    strongest direction first.

    Args:
        blocks: log1p expression of training cells, block by block.
        above_noise: Keep only directions with eigenvalues above (1 + sqrt(G / n))^2, the largest that G independent
            genes show in n cells (Marchenko and Pastur 1967); at least one.
    """
    n, total, squares = 0, np.zeros(()), np.zeros(())
    for block in blocks:
        n += len(block)
        total = total + block.sum(0)
        squares = squares + block.T @ block
    mean = total / n
    covariance = squares / n - np.outer(mean, mean)
    sd = np.sqrt(np.maximum(np.diag(covariance), LEAST_SD**2))
    strength, directions = np.linalg.eigh(covariance / np.outer(sd, sd))
    vectors = directions * np.sqrt(np.maximum(strength, 0))
    if above_noise:
        kept = strength > (1 + np.sqrt(len(sd) / n)) ** 2
        kept[-1] = True
        vectors = vectors[:, kept]
    return vectors[:, ::-1]


def read_gene_vectors(path: str | Path) -> pd.DataFrame:
    """Reads a table of gene vectors: a CSV (or .tsv) file whose first column holds gene symbols, the others numbers.

    Raises:
        CDTError: No such file, a gene twice, or something that is not a finite number.
    """
    path = Path(path)
    if not path.is_file():
        raise CDTError(f"no file of gene vectors at {path}: a CSV with gene symbols in the first column is needed.")
    separator = "\t" if path.suffix == ".tsv" else ","
    return _checked(pd.read_csv(path, sep=separator, index_col=0), path.name)


def give_vectors(checkpoint: Checkpoint, vectors: pd.DataFrame) -> None:
    """Writes gene vectors into the gene table, scaled to the spread of its other rows.

    Vectors longer than the table's width are projected on their leading directions; shorter ones leave the remaining
    columns as they are. Genes outside the vocabulary are passed over.

    Raises:
        CDTError: Not one gene of the table is in the vocabulary, or the table is not one row of numbers a gene.
    """
    table = _checked(vectors, "the table of gene vectors")
    known = [gene for gene in table.index if gene in checkpoint.vocabulary]
    if not known:
        raise CDTError(f"none of the {len(table)} genes with vectors is in the model's vocabulary: are they symbols "
                       f"like {checkpoint.vocabulary.symbols[:3]}?")
    values = _fit_width(table.loc[known].to_numpy(np.float64), checkpoint.config.model.gene_embed_dim)
    rows = torch.as_tensor(checkpoint.vocabulary.ids(known))
    with torch.no_grad():
        checkpoint.model.gene_table.weight[rows, : values.shape[1]] = torch.as_tensor(values, dtype=torch.float32)


def _checked(table: pd.DataFrame, name: str) -> pd.DataFrame:
    if table.empty:
        raise CDTError(f"{name} must hold one row of numbers a gene; it is empty")
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise CDTError(f"{name} names {list(twice[:3])} more than once: one vector a gene.")
    others = table.select_dtypes(exclude="number").columns
    if len(others):
        raise CDTError(f"{name} must hold one row of numbers a gene; other things are in {list(others)[:3]}")
    if not np.isfinite(table.to_numpy(float)).all():
        raise CDTError(f"{name} holds values that are missing or not finite: fill or drop those genes first.")
    return table


def _fit_width(values: Float[np.ndarray, "genes n"], width: int) -> Float[np.ndarray, "genes m"]:
    """At most `width` columns, with a mean square of 1 (the spread of the table's other rows)."""
    if values.shape[1] > width:
        left, strength, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
        values = left[:, :width] * strength[:width]
    return values / np.sqrt((values**2).mean())
