"""What is known of genes before a cell is seen, from gene sets or vectors: how alike two genes are."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cdt_lite.data.gene_sets import Sets, memberships
from cdt_lite.errors import CDTError

if TYPE_CHECKING:
    from cdt_lite.training.checkpoint import Checkpoint


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
        table: Numbers, indexed by symbols.
    """
    length = np.linalg.norm(table, axis=1)
    unit = table[length > 0].div(length[length > 0], axis=0)
    unit = unit.astype(np.float16).astype(float)  # as it is stored: a run that goes on is told just the same
    checkpoint.vocabulary = checkpoint.vocabulary.extended(unit.index)
    unit.index = pd.Index(checkpoint.vocabulary.ids(list(unit.index)))
    parts = [unit] if checkpoint.prior is None else [checkpoint.prior, unit]
    checkpoint.prior = pd.concat(parts, axis=1, ignore_index=True).fillna(0.0).sort_index()


def prior_tensors(prior: pd.DataFrame | None) -> dict[str, Tensor]:
    """Returns what is known beforehand as tensors: the entries that are not zero: of gene sets, few are."""
    if prior is None:
        return {}
    row, column = prior.to_numpy().nonzero()
    parts = {"genes": prior.index.to_numpy(np.int32), "row": row.astype(np.int32), "column": column.astype(np.int32),
             "value": prior.to_numpy(np.float16)[row, column]}
    return {f"prior.{name}": torch.from_numpy(part) for name, part in parts.items()}


def prior_of(tensors: Mapping[str, Tensor]) -> pd.DataFrame | None:
    """Returns what a checkpoint's tensors hold of it."""
    if "prior.genes" not in tensors:
        return None
    genes, row, column, value = (tensors[f"prior.{name}"].numpy() for name in ("genes", "row", "column", "value"))
    table = np.zeros((len(genes), column.max(initial=-1) + 1), np.float32)
    table[row, column] = value
    return pd.DataFrame(table, genes)
