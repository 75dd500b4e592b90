"""Cells tokenised once into bytes, in memory or on disk."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from anndata import AnnData
from jaxtyping import Bool, Float, Int, UInt8

from cdt_lite.data.expression import dense, depths
from cdt_lite.data.layout import CONTROL, Columns, check_cells, read_labels
from cdt_lite.data.tokenizer import Tokenizer, count_blocks
from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.errors import CDTWarning
from cdt_lite.model.perturbation import NO_TARGET

FOLDS = 4  # parts of a perturbation's cells, where they all come from one replicate


@dataclass
class TokenStore:
    """Tokenised cells with their labels: everything that training needs, an eighth of the size of float64 counts."""

    tokens: UInt8[np.ndarray, "cells G"]  # in memory, or memory-mapped
    gene_ids: Int[np.ndarray, " G"]  # row of each gene in the gene table
    target: Int[np.ndarray, " cells"]  # gene id of each cell's target, or NO_TARGET
    sign: Int[np.ndarray, " cells"]  # -1, 0, +1
    magnitude: Float[np.ndarray, " cells"]  # log2 fold change, NaN where unknown
    group: Int[np.ndarray, " cells"]  # number of the replicate or cell type: controls are drawn from the same
    log_depth: Float[np.ndarray, " cells"]  # log(counts / target depth)
    pairs: Mapping[int, tuple[int, int]] = field(default_factory=dict)  # gene ids of every target that is a pair

    @classmethod
    def from_adata(cls, adata: AnnData, tokenizer: Tokenizer, vocabulary: Vocabulary, columns: Columns = Columns(),
                   path: str | Path | None = None) -> "TokenStore":
        """Tokenises raw counts block by block.

        Args:
            adata: Cells; a backed .h5ad works. Without a column of targets, all are taken for controls.
            tokenizer: Its bins and target depth.
            vocabulary: Must know every gene and target.
            columns: Where the labels are.
            path: File for the tokens; None keeps them in memory.

        Raises:
            CDTError: No cells, no counts, a gene outside the vocabulary, a cell without a label.
        """
        what = "the selection"
        check_cells(adata, what)
        labels = read_labels(adata, columns, unlabelled=True, what=what)
        gene_ids = vocabulary.ids(list(adata.var_names))
        names, number = np.unique(labels.target, return_inverse=True)
        ids = [NO_TARGET if name == CONTROL else vocabulary.id(name) for name in names]
        pairs = {vocabulary.id(name): pair for name in names if (pair := vocabulary.pair(name))}
        if path is None:
            tokens = np.empty(adata.shape, np.uint8)
        else:
            tokens = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=adata.shape)
        depth = np.empty(adata.n_obs)
        n_above = np.zeros(adata.n_vars, int)
        for rows, block in count_blocks(adata, what):
            depth[rows] = depths(block)
            values = tokenizer.in_space(dense(block))
            tokens[rows] = tokenizer.encode(values)
            n_above += (values > tokenizer.edges[-1]).sum(0)
        _warn_of_high_values(n_above, adata, tokenizer.edges[-1])
        return cls(
            tokens=tokens,
            gene_ids=gene_ids,
            target=np.array(ids, np.int64)[number],
            sign=labels.sign,
            magnitude=labels.magnitude.astype(np.float32),
            group=labels.batch_number,
            log_depth=np.log(np.maximum(depth, 1.0) / tokenizer.target_depth).astype(np.float32),
            pairs=pairs,
        )

    def __len__(self) -> int:
        return len(self.target)

    def folds(self) -> Int[np.ndarray, " cells"]:
        """Returns the part of its perturbation's cells that each cell belongs to.

        In training a set is told the mean effect in the other parts, never in its own. Parts are the replicates. The
        cells of a perturbation that was made in one replicate alone are parted at random (cross-fitting), else training
        would never be told a measured effect, and prediction would be.
        """
        fold = self.group.copy()
        first = int(self.group.max()) + 1  # no replicate has these numbers
        for target, sign in np.unique(np.stack([self.target, self.sign]), axis=1).T:
            cells = np.flatnonzero((self.target == target) & (self.sign == sign))
            if sign != 0 and len(set(self.group[cells])) == 1:
                rng = np.random.default_rng([len(cells), int(target)])
                fold[cells] = first + rng.permutation(len(cells)) % FOLDS
        return fold

    def groups(self) -> tuple[Int[np.ndarray, "groups 4"], Int[np.ndarray, " cells"]]:
        """Returns target, sign, replicate and fold of every group of cells that share them, and each cell's group."""
        labels = np.stack([self.target, self.sign, self.group, self.folds()], 1)
        keys, number = np.unique(labels, axis=0, return_inverse=True)
        return keys, number.ravel()

    def digest(self) -> str:
        """Returns a hash of the tokens and labels: what a model was trained on."""
        h = hashlib.sha256()
        for array in (self.tokens, self.gene_ids, self.target, self.sign):
            h.update(np.ascontiguousarray(array).tobytes())
        return h.hexdigest()[:16]


def set_aside(keys: Int[np.ndarray, "groups 4"], share: float) -> Bool[np.ndarray, " groups"]:
    """Chooses the groups that fine-tuning never shows the network, so that it can be judged by them in the end.

    They are parts of perturbations (a replicate, or a fold) of which another part is left, one of each at most, the
    same whatever the seed.

    Args:
        keys: Of all groups, as `TokenStore.groups` returns them.
        share: Of the groups of perturbed cells; where it is not 0, one at least is set aside.
    """
    aside = np.zeros(len(keys), bool)
    perturbed = keys[:, 1] != 0
    if not share or not perturbed.any():
        return aside
    _, which, n_parts = np.unique(keys[perturbed][:, :2], axis=0, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(len(keys))
    wanted = max(1, round(share * perturbed.sum()))
    for perturbation in rng.permutation(np.flatnonzero(n_parts > 1))[:wanted]:
        parts = np.flatnonzero(perturbed)[which.ravel() == perturbation]
        aside[rng.choice(parts)] = True
    return aside


def _warn_of_high_values(n_above: Int[np.ndarray, " G"], adata: AnnData, last: float) -> None:
    """Says which genes have values above the last bin: what becomes of them is that bin's edge."""
    if not n_above.any():
        return
    genes = []
    for gene in np.argsort(-n_above, kind="stable")[: min(5, np.count_nonzero(n_above))]:
        genes.append(f"{adata.var_names[gene]} ({n_above[gene] / adata.n_obs:.1%} of cells)")
    share = n_above.sum() / (adata.n_obs * adata.n_vars)
    warnings.warn(f"{share:.2g} of all values lie above the last bin and are taken for {last:,.0f}, in "
                  f"{np.count_nonzero(n_above)} genes: {', '.join(genes)}. Leave these genes out, or begin a "
                  "model with these cells: its bins then reach to their largest count", CDTWarning, stacklevel=3)
