"""What is known about genes before training: vectors from a file, or from co-expression in the training cells.

A model learns nothing about a gene that nobody perturbed, unless its vector says which genes it resembles. Vectors
given here become the first values of rows of the gene table; training goes on from them. Co-expression also carries
mean effects from perturbed genes to others (`training/effects.py`): it is one computation for both.
"""

import csv
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from cdt_lite.data.blocks import BLOCK
from cdt_lite.data.store import TokenStore
from cdt_lite.data.tokenizer import Tokenizer
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


def expression_of(store: TokenStore, tokenizer: Tokenizer) -> Iterator[tuple[slice, Float[np.ndarray, "_rows G"]]]:
    """Yields rows of a store and their log1p expression, block by block; a token stands for its bin's centre."""
    centres = np.asarray(tokenizer.centres)
    for begin in range(0, len(store), BLOCK):
        rows = slice(begin, begin + BLOCK)
        values = centres[store.tokens[rows]]
        if tokenizer.config.space == "counts":
            values = values * np.exp(-store.log_depth[rows, None])
        yield rows, np.log1p(values)


def read_gene_vectors(path: str | Path) -> pd.DataFrame:
    """Reads a table of gene vectors: names of columns, then a gene symbol and numbers a line.

    Columns are parted by commas, tabs or semicolons; with semicolons, a comma is a decimal point (a spreadsheet in
    Europe writes so). Every symbol is read as it stands: "NA" is a gene.

    Raises:
        CDTError: No such file, lines of different length, a gene twice, or something that is not a finite number.
    """
    path = Path(path)
    if not path.is_file():
        raise CDTError(f"no file of gene vectors at {path}: a CSV with gene symbols in the first column is needed.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = max(",\t;", key=text.partition("\n")[0].count)
        lines = [line for line in csv.reader(StringIO(text, newline=""), delimiter=separator) if any(line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CDTError(f"{path.name} is not a CSV of gene vectors that can be read: {error}") from error
    if len(lines) < 2:
        raise CDTError(f"{path.name} must hold names of columns, then one row of numbers a gene; it is empty")
    _check_shape(lines, path.name)
    genes, rows = [], []
    for gene, *cells in lines[1:]:
        genes.append(gene.strip())
        rows.append([_number(cell, separator, gene, path.name) for cell in cells])
    return _checked(pd.DataFrame(rows, genes, lines[0][-len(rows[0]):]), path.name)


def _check_shape(lines: list[list[str]], name: str) -> None:
    """Refuses lines of different length, and a gene in the place of the names of columns."""
    width = len(lines[1])
    for number, line in enumerate(lines[1:], 2):
        if len(line) != width or width < 2:
            raise CDTError(f"{name} must hold a gene and as many numbers in every line: line {number}, "
                           f"{line[0][:30]!r}, holds {len(line) - 1} values, the first gene {width - 1}")
    header = lines[0]
    if len(header) not in (width, width - 1):  # R leaves out the name of the genes' column
        raise CDTError(f"{name} names {len(header)} columns and has {width}")
    if header[0] and len(header) == width and all(map(_is_fraction, header[1:])):
        raise CDTError(f"the first line of {name} must name its columns, but holds numbers of {header[0]!r}: put a "
                       "line before it, such as gene,v1,v2")


def _is_fraction(cell: str) -> bool:
    """Says whether a name of a column is no name: 0, 1, 2 may be names."""
    with suppress(ValueError):
        float(cell.replace(",", "."))
        return not cell.isdigit()
    return False


def _number(cell: str, separator: str, gene: str, name: str) -> float:
    text = cell.replace(",", ".") if separator == ";" else cell
    try:
        return float(text or "nan")
    except ValueError as error:
        raise CDTError(f"{name} must hold one row of numbers a gene; other things are in that of {gene!r}: {cell!r}"
                       ) from error


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
    if table.index.hasnans or "" in table.index:
        raise CDTError(f"{name} has a row without a gene symbol (a gene called NA is lost by pandas.read_csv unless "
                       "keep_default_na=False): name every row")
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise CDTError(f"{name} names {list(twice[:3])} more than once: one vector a gene.")
    others = table.select_dtypes(exclude=["integer", "floating"]).columns
    if len(others):
        raise CDTError(f"{name} must hold one row of numbers a gene; other things are in {list(others)[:3]}")
    if not np.isfinite(table.to_numpy(float, na_value=np.nan)).all():
        raise CDTError(f"{name} holds values that are missing or not finite: fill or drop those genes first.")
    return table


def _fit_width(values: Float[np.ndarray, "genes n"], width: int) -> Float[np.ndarray, "genes m"]:
    """At most `width` columns, with a mean square of 1 (the spread of the table's other rows)."""
    if values.shape[1] > width:
        left, strength, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
        values = left[:, :width] * strength[:width]
    with np.errstate(over="ignore"):
        spread = np.sqrt((values**2).mean())
    if not 0 < spread < np.inf:
        raise CDTError("gene vectors must tell genes apart: these are all zero or alike, or too large to be squared")
    return values / spread
