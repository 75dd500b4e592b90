"""Simple densities of counts that are told the depth: what the model's bits per gene are held against."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int, Shaped
from scipy.stats import nbinom

from cdt_lite.data.expression import dense
from cdt_lite.data.tokenizer import Tokenizer

DEPTHS = 10  # classes of sequencing depth that a marginal is told
DISPERSIONS = np.geomspace(0.01, 10, 25)
Costs = Float[np.ndarray, "N G"]


class LabelledCells(NamedTuple):
    """Cells as arrays: counts and bins of every gene, total counts, and a label that a density may be told."""

    counts: Float[np.ndarray, "N G"]
    bins: Int[np.ndarray, "N G"]
    depth: Float[np.ndarray, " N"]
    label: Shaped[np.ndarray, " N"]

    @classmethod
    def of(cls, cells: AnnData, tokenizer: Tokenizer, by: Sequence[str]) -> "LabelledCells":
        """Reads them from cells; `by` names the columns of obs that make the label (none: all have the same)."""
        counts = dense(cells.X)
        label = np.full(len(counts), "", dtype=object)
        for key in by:
            label = label + cells.obs[key].astype(str).to_numpy(object) + " "
        return cls(counts, tokenizer.tokenize(counts), counts.sum(1), label)


class DepthMarginals:
    """Every gene by itself: how often each bin is seen in cells of like depth, and of like label.

    Sparse counts lean on broader ones: those of a label on those of all, as on 1,000 cells more, those of a depth on
    those of all, as on 100. (Of 3 to 3,000 these cost least on one half of the training cells, fitted on the other.)

    Args:
        cells: Training cells.
        n_bins: Number of bins.
    """

    def __init__(self, cells: LabelledCells, n_bins: int) -> None:
        self.edges = np.quantile(cells.depth, np.linspace(0, 1, DEPTHS + 1)[1:-1])
        self.labels, row = np.unique(cells.label, return_inverse=True)
        gene = np.arange(cells.bins.shape[1])
        shape = (len(self.labels) + 1, DEPTHS, len(gene), n_bins)
        self.counts = np.zeros(shape, np.int32)  # the last label is one that was never seen
        depth = np.searchsorted(self.edges, cells.depth)
        np.add.at(self.counts, (row[:, None], depth[:, None], gene, cells.bins), 1)

    def nats(self, cells: LabelledCells) -> Costs:
        """Returns the negative log-likelihood of every gene of every cell."""
        label = pd.Index(self.labels).get_indexer(cells.label)[:, None]
        depth = np.searchsorted(self.edges, cells.depth)[:, None]
        gene = np.arange(cells.bins.shape[1])
        by_depth = self.counts.sum(0)
        by_gene = by_depth.sum(0)
        overall = by_gene.sum(0) + 0.01
        p = (overall / overall.sum())[cells.bins]
        levels = [(by_gene, (gene,), 1), (by_depth, (depth, gene), 100)]
        if len(self.labels) > 1:
            levels.append((self.counts, (label, depth, gene), 1000))
        for counts, place, lean in levels:
            seen, total = counts[(*place, cells.bins)], counts.sum(-1)[place]
            p = (seen + lean * p) / (total + lean)
        return -np.log(p)


class NegativeBinomial:
    """Counts of every gene around depth times rate: the rate that of the label, the dispersion that of the gene.

    Args:
        cells: Training cells.
    """

    def __init__(self, cells: LabelledCells) -> None:
        overall = (cells.counts.sum(0) + 0.01) / cells.depth.sum()
        lean = 10 * np.median(cells.depth)  # a rate leans on ten cells of them all
        self.rate = {}
        for label in np.unique(cells.label):
            own = cells.label == label
            self.rate[label] = (cells.counts[own].sum(0) + lean * overall) / (cells.depth[own].sum() + lean)
        rows = np.random.default_rng(0).permutation(len(cells.label))[:2000]
        counts, mean = cells.counts[rows], self.mean(cells)[rows]
        fits = [nbinom.logpmf(counts, 1 / d, 1 / (1 + d * mean)).sum(0) for d in DISPERSIONS]
        self.dispersion = DISPERSIONS[np.argmax(fits, axis=0)]

    def mean(self, cells: LabelledCells) -> Float[np.ndarray, "N G"]:
        """Returns expected counts of cells with these depths and labels."""
        rate = np.stack([self.rate[label] for label in cells.label])
        return cells.depth[:, None] * rate

    def nats(self, cells: LabelledCells, tokenizer: Tokenizer) -> Costs:
        """Returns the cost of every gene of every cell: a bin has the probability of all counts in it."""
        law = nbinom(1 / self.dispersion, 1 / (1 + self.dispersion * self.mean(cells)))
        normalised = tokenizer.config.space == "normalised"
        scale = cells.depth[:, None] / tokenizer.target_depth if normalised else 1.0
        edges = np.append(tokenizer.edges, np.inf)
        below = np.ceil(edges[cells.bins] * scale - 1e-9) - 1
        last = np.ceil(edges[cells.bins + 1] * scale - 1e-9) - 1
        return -np.log(np.maximum(law.cdf(last) - law.cdf(below), 1e-12))

    def draw(self, cells: LabelledCells, rng: np.random.Generator) -> Float[np.ndarray, "N G"]:
        """Makes counts for these depths and labels: genes know nothing of each other."""
        rate = rng.gamma(1 / self.dispersion, self.mean(cells) * self.dispersion)
        return rng.poisson(rate).astype(np.float32)
