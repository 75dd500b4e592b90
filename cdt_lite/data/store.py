"""Cells tokenised once into bytes, in memory or on disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
from jaxtyping import Float, Int, UInt8

from cdt_lite.data.expression import dense
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.errors import CDTError
from cdt_lite.model.perturbation import NO_TARGET

BLOCK = 4096  # rows converted at a time, so that a file on disk is never read whole


@dataclass
class TokenStore:
    """Tokenised cells with their labels: everything that training needs, an eighth of the size of float64 counts.

    Args:
        tokens: (cells, G) uint8, in memory or memory-mapped.
        gene_ids: Row of each gene in the gene table, (G,).
        target: Gene id of each cell's target, or NO_TARGET, (cells,).
        sign: -1, 0, +1, (cells,).
        magnitude: log2 fold change, NaN unknown, (cells,).
        group: Number of each cell's replicate or cell type: controls are drawn from the same, (cells,).
        log_depth: log(counts / target depth), (cells,).
    """

    tokens: UInt8[np.ndarray, "cells G"]
    gene_ids: Int[np.ndarray, " G"]
    target: Int[np.ndarray, " cells"]
    sign: Int[np.ndarray, " cells"]
    magnitude: Float[np.ndarray, " cells"]
    group: Int[np.ndarray, " cells"]
    log_depth: Float[np.ndarray, " cells"]

    @classmethod
    def from_adata(cls, adata: ad.AnnData, tokenizer: Tokenizer, vocabulary: Vocabulary, *,
                   path: str | Path | None = None, target_key: str = "target_gene", batch_key: str = "batch",
                   control: str = "non-targeting") -> "TokenStore":
        """Tokenises raw counts block by block (a backed .h5ad works), into memory or into a file at `path`.

        Raises:
            CDTError: No cells, a gene outside the vocabulary, or a cell without a replicate.
        """
        if adata.n_obs == 0 or adata.n_vars == 0:
            raise CDTError(f"nothing to tokenise: the selection has {adata.n_obs} cells and {adata.n_vars} genes.")
        gene_ids = vocabulary.ids(list(adata.var_names))
        tokens = (np.empty(adata.shape, np.uint8) if path is None
                  else np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=adata.shape))
        depth = np.empty(adata.n_obs)
        for start in range(0, adata.n_obs, BLOCK):
            counts = dense(adata.X[start: start + BLOCK])
            depth[start: start + BLOCK] = counts.sum(1)
            tokens[start: start + BLOCK] = tokenizer.tokenize(counts)
        obs = adata.obs
        labels = obs[target_key].astype(str).to_numpy() if target_key in obs else np.full(adata.n_obs, control)
        by_label = {label: NO_TARGET if label == control else vocabulary.id(label) for label in set(labels)}
        default_sign = np.where(labels == control, 0, -1)
        group = obs[batch_key].astype("category").cat.codes.to_numpy() if batch_key in obs else np.zeros(adata.n_obs)
        if (group < 0).any():
            raise CDTError(f"{(group < 0).sum()} cells have no {batch_key!r}: name their replicate, or drop them.")
        return cls(tokens, gene_ids, np.array([by_label[label] for label in labels]),
                   obs["sign"].to_numpy().astype(np.int64) if "sign" in obs else default_sign,
                   obs["magnitude"].to_numpy().astype(np.float32) if "magnitude" in obs
                   else np.where(labels == control, 0, np.nan).astype(np.float32), group.astype(np.int64),
                   np.log(np.maximum(depth, 1.0) / tokenizer.target_depth).astype(np.float32))

    def __len__(self) -> int:
        return len(self.target)

    def digest(self) -> str:
        """Returns a hash of the tokens and labels: what a model was trained on."""
        h = hashlib.sha256()
        for array in (self.tokens, self.gene_ids, self.target, self.sign):
            h.update(np.ascontiguousarray(array).tobytes())
        return h.hexdigest()[:16]
