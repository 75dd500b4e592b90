"""What is known of genes before a cell is seen, from gene sets or vectors: how alike two genes are."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from scipy import sparse
from torch import Tensor

from cdt_lite.data.gene_sets import Sets, memberships
from cdt_lite.errors import CDTError

if TYPE_CHECKING:
    from cdt_lite.training.checkpoint import Checkpoint


class GeneVectors(NamedTuple):
    """Vectors of genes that point the same way where genes are alike; of gene sets, nearly all entries are zero."""

    genes: Int[np.ndarray, " V"]  # ids
    values: sparse.csr_array  # (V, n)

    def of(self, genes: Int[np.ndarray, " W"]) -> sparse.csr_array:
        """Returns the vectors of some genes, (W, n); zeros where there is none."""
        at = pd.Index(self.genes).get_indexer(genes)
        here = np.flatnonzero(at >= 0)
        chosen = sparse.csr_array((np.ones(len(here)), (here, at[here])), shape=(len(genes), len(self.genes)))
        return sparse.csr_array(chosen @ self.values)


def give_gene_sets(checkpoint: "Checkpoint", sets: Sets, targets: Sequence[str]) -> None:
    """Tells a model which genes share a set; their names join its vocabulary, so that each can be asked for.

    What it makes of them is decided by the cells, when fine-tuning begins.

    Args:
        checkpoint: A model that knows mean effects.
        sets: Symbols by set, as `load_gene_sets` returns them.
        targets: Genes that training cells had perturbed.

    Raises:
        CDTError: No target is in a set, or the model is one that knows no mean effects (v1).
    """
    if checkpoint.model.effect is None:
        raise CDTError("this model (v1) makes no use of gene sets: take another preset, such as lite")
    add_prior(checkpoint, memberships(sets, targets))


def add_prior(checkpoint: "Checkpoint", table: pd.DataFrame) -> None:
    """Adds what is known of genes, a row each; between two of them, every table that was added counts alike.

    Args:
        checkpoint: A model.
        table: Numbers, indexed by symbols; dense or sparse.
    """
    is_sparse = all(isinstance(dtype, pd.SparseDtype) for dtype in table.dtypes)
    values = sparse.csr_array(table.sparse.to_coo() if is_sparse else table.to_numpy(float))
    length = sparse.linalg.norm(values, axis=1)
    unit = sparse.csr_array(sparse.diags_array(1 / length[length > 0]) @ values[np.flatnonzero(length > 0)])
    unit.data = unit.data.astype(np.float16).astype(float)  # as it is stored: a run that goes on is told just the same
    checkpoint.vocabulary = checkpoint.vocabulary.extended(table.index[length > 0])
    new = GeneVectors(checkpoint.vocabulary.ids(list(table.index[length > 0])), unit)
    parts = [new] if checkpoint.prior is None else [checkpoint.prior, new]
    genes = np.unique(np.concatenate([part.genes for part in parts]))
    checkpoint.prior = GeneVectors(genes, sparse.csr_array(sparse.hstack([part.of(genes) for part in parts])))


def prior_tensors(prior: GeneVectors | None) -> dict[str, Tensor]:
    """Returns what is known beforehand as tensors: the entries that are not zero: of gene sets, few are."""
    if prior is None:
        return {}
    entries = prior.values.tocoo()
    row, column = entries.coords
    parts = {"genes": prior.genes.astype(np.int32), "row": row.astype(np.int32), "column": column.astype(np.int32),
             "value": entries.data.astype(np.float16)}
    return {f"prior.{name}": torch.from_numpy(part) for name, part in parts.items()}


def prior_of(tensors: Mapping[str, Tensor]) -> GeneVectors | None:
    """Returns what a checkpoint's tensors hold of it."""
    if "prior.genes" not in tensors:
        return None
    genes, row, column, value = (tensors[f"prior.{name}"].numpy() for name in ("genes", "row", "column", "value"))
    shape = (len(genes), column.max(initial=-1) + 1)
    return GeneVectors(genes.astype(int), sparse.csr_array((value.astype(float), (row, column)), shape=shape))
