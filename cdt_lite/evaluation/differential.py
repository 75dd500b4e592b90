"""Which genes differ between two groups of cells: the field's rank-sum test, fast on sparse counts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.stats import false_discovery_control, norm

from cdt_lite.data.expression import Matrix, Vector, gene_means


def kept(n_genes: int, exclude: Sequence[int]) -> np.ndarray:
    """Returns the positions of all genes but the excluded ones."""
    return np.delete(np.arange(n_genes), list(exclude))


def rank_sum_pvalues(x: Matrix, y: Matrix) -> Vector:
    """Asks of every gene whether two groups of cells differ: two-sided Wilcoxon rank-sum p-values.

    Equals `scipy.stats.mannwhitneyu(x, y, method="asymptotic")`, corrected for ties and continuity, but ranks
    zeros as one block, so that the cost is a sort of the non-zero values. A gene that never varies gets 1.

    Args:
        x: Non-negative values on any monotone scale, cells x genes.
        y: The other group, on the same scale.
    """
    nx, ny, n_genes = x.shape[0], y.shape[0], x.shape[1]
    n = nx + ny
    z = sparse.vstack([sparse.csr_matrix(x), sparse.csr_matrix(y)]).tocsc()
    z.eliminate_zeros()
    nonzero = np.diff(z.indptr)
    gene, zeros = np.repeat(np.arange(n_genes), nonzero), (n - nonzero).astype(np.float64)
    order = np.lexsort((z.data, gene))
    value, in_x = z.data[order], z.indices[order] < nx
    starts = np.ones(len(value), dtype=bool)  # where a run of tied values begins
    starts[1:] = (value[1:] != value[:-1]) | (gene[1:] != gene[:-1])
    first, run = np.flatnonzero(starts), np.cumsum(starts) - 1
    size = np.diff(np.append(first, len(value))).astype(np.float64)
    rank = zeros[gene] + (first[run] - z.indptr[gene]) + (size[run] + 1) / 2
    x_zeros = nx - np.bincount(gene[in_x], minlength=n_genes)
    u = np.bincount(gene, rank * in_x, n_genes) + x_zeros * (zeros + 1) / 2 - nx * (nx + 1) / 2
    ties = np.bincount(gene[first], size**3 - size, n_genes) + zeros**3 - zeros
    sd = np.sqrt(np.maximum(nx * ny / 12 * (n + 1 - ties / (n * (n - 1))), 0.0))
    score = np.divide(np.abs(u - nx * ny / 2) - 0.5, sd, out=np.zeros(n_genes), where=sd > 1e-9)
    return np.minimum(2 * norm.sf(score), 1.0)


class DE(NamedTuple):
    """Differential expression of a group of cells: log2 fold change and false discovery rate, (G,) each."""

    log2_fold_change: np.ndarray
    fdr: np.ndarray

    def significant(self, level: float = 0.05) -> np.ndarray:
        """Returns the positions of significant genes, largest absolute fold change first."""
        order = np.argsort(-np.abs(self.log2_fold_change), kind="stable")
        return order[self.fdr[order] < level]


def differential_expression(cells: Matrix, controls: Matrix, exclude: Sequence[int] = ()) -> DE:
    """Finds the genes that differ between two groups of cells: rank-sum test, Benjamini-Hochberg over genes.

    Args:
        cells: log1p expression of perturbed cells, cells x genes.
        controls: log1p expression of control cells, cells x genes.
        exclude: Genes left out of the test and of its correction: false discovery rate 1, fold change 0.

    Source: pdex, the test of cell-eval. The fold change is one of geometric means, expm1 of mean log1p.
    """
    keep = kept(cells.shape[1], exclude)
    fdr, change = np.ones(cells.shape[1]), np.zeros(cells.shape[1])
    fdr[keep] = false_discovery_control(rank_sum_pvalues(cells, controls)[keep])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log2(np.expm1(gene_means(cells)) / np.expm1(gene_means(controls)))
    change[keep] = np.where(np.isnan(ratio), 0.0, ratio)[keep]  # absent from both groups: no change
    return DE(change, fdr)
