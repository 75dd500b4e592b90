"""Which genes differ between two groups of cells: the field's rank-sum test and its correction."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.stats import false_discovery_control, mannwhitneyu

from cdt_lite.data.expression import Matrix, Vector, gene_means

Genes = Sequence[int] | np.ndarray  # positions of genes
LEVEL = 0.05  # of the false discovery rate


def dense_kept(X: Matrix, exclude: Genes) -> Float[np.ndarray, "cells G"]:
    """Returns cells as a dense array of doubles, without the excluded genes."""
    X = X.toarray() if sparse.issparse(X) else X
    return np.delete(np.asarray(X, dtype=np.float64), exclude, axis=1)


class DE(NamedTuple):
    """Differential expression of a group of cells: log2 fold change and false discovery rate, (G,) each."""

    log2_fold_change: Vector
    fdr: Vector

    def significant(self) -> np.ndarray:
        """Returns the positions of genes with a false discovery rate below 5 %, largest fold change first."""
        order = np.argsort(-np.abs(self.log2_fold_change), kind="stable")
        return order[self.fdr[order] < LEVEL]

    def risen_and_fallen(self) -> tuple[int, int]:
        """Counts the significant genes that rise, and those that fall."""
        change = self.log2_fold_change[self.significant()]
        return int((change > 0).sum()), int((change < 0).sum())


def differential_expression(cells: Matrix, controls: Matrix, exclude: Genes = ()) -> DE:
    """Finds the genes that differ between two groups of cells: rank-sum test, Benjamini-Hochberg over genes.

    Args:
        cells: log1p expression of perturbed cells, cells x genes.
        controls: log1p expression of control cells, cells x genes.
        exclude: Genes left out of the test and of its correction: false discovery rate 1, fold change 0.

    Source: pdex, the test of cell-eval. The fold change is one of geometric means, expm1 of mean log1p.
    """
    n_genes = cells.shape[1]
    keep = np.setdiff1d(np.arange(n_genes), exclude)
    x, y = dense_kept(cells, exclude), dense_kept(controls, exclude)
    test = mannwhitneyu(x, y, method="asymptotic")
    fdr = np.ones(n_genes)
    fdr[keep] = false_discovery_control(np.nan_to_num(test.pvalue, nan=1.0))  # NaN: a gene that never varies
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log2(np.expm1(gene_means(cells)) / np.expm1(gene_means(controls)))
    change = np.zeros(n_genes)
    change[keep] = np.nan_to_num(ratio[keep], nan=0.0, posinf=np.inf, neginf=-np.inf)  # NaN: absent from both groups
    return DE(change, fdr)
