"""Simple densities of counts that are told the depth: what the model's bits per gene are held against."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float
from scipy.stats import nbinom

from cdt_lite.data.expression import dense
from cdt_lite.data.tokenizer import Tokenizer

BLOCK = 4096  # cells worked on at a time
DEPTHS = 10  # classes of sequencing depth that a marginal is told
LEANS = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
DISPERSIONS = np.geomspace(0.01, 10, 25)
Nats = Float[np.ndarray, "N G"]


def prepared(cells: AnnData, tokenizer: Tokenizer) -> AnnData:
    """Returns cells as densities read them: bins in a layer, depth and what may be told of a cell in obs."""
    counts = dense(cells.X)
    obs = cells.obs[["target_gene", "sign", "batch"]].astype(str)
    condition = obs["target_gene"] + " " + obs["sign"]
    obs = obs.assign(nothing="", condition=condition, depth=counts.sum(1))
    return AnnData(counts, obs, cells.var[[]], layers={"bins": tokenizer.tokenize(counts)})


def blocks(n: int) -> list[np.ndarray]:
    """Splits n rows into blocks, so that what is worked out of each gene of each cell does not fill the memory."""
    return np.array_split(np.arange(n), n // BLOCK + 1)


def by_blocks(nats: Callable[[AnnData], Nats], cells: AnnData) -> Float[np.ndarray, " N"]:
    """Returns what every cell costs a density, nats a gene."""
    return np.concatenate([nats(cells[rows]).mean(1) for rows in blocks(cells.n_obs)])


class DepthMarginals:
    """Every gene by itself: how often each bin is seen in cells of like depth, and of the same label.

    Sparse counts lean on broader ones (all labels, all depths, all genes), as on so many cells more; on how many is
    chosen on training cells, by fitting one half and scoring the other.

    Args:
        cells: Training cells, `prepared`.
        by: The label: "condition", "batch", or "nothing".
        n_bins: Number of bins.
    """

    def __init__(self, cells: AnnData, by: str, n_bins: int) -> None:
        self.by, self.n_bins = by, n_bins
        self.edges = np.quantile(cells.obs["depth"], np.linspace(0, 1, DEPTHS + 1)[1:-1])
        first = np.random.default_rng(0).permutation(cells.n_obs) % 2 == 0
        rest = cells[np.flatnonzero(~first)[:3000]]
        self._count(cells[first])
        costs = {}
        for leans in product(LEANS, LEANS):
            self.leans = leans
            costs[leans] = self.nats(rest).mean()
        self.leans = min(costs, key=lambda leans: costs[leans])
        self._count(cells)

    def _count(self, cells: AnnData) -> None:
        self.labels, label = np.unique(cells.obs[self.by], return_inverse=True)
        depth = np.searchsorted(self.edges, cells.obs["depth"])
        gene = np.arange(cells.n_vars)
        shape = (len(self.labels) + 1, DEPTHS, cells.n_vars, self.n_bins)  # the last: labels never seen
        self.counts = np.zeros(shape, np.int32)
        for rows in blocks(cells.n_obs):
            place = (label[rows, None], depth[rows, None], gene, cells.layers["bins"][rows])
            np.add.at(self.counts, place, 1)

    def nats(self, cells: AnnData) -> Nats:
        """Returns the negative log-likelihood of every gene of every cell."""
        label = pd.Index(self.labels).get_indexer(cells.obs[self.by])[:, None]
        depth = np.searchsorted(self.edges, cells.obs["depth"])[:, None]
        gene, bins = np.arange(cells.n_vars), cells.layers["bins"]
        by_depth = self.counts.sum(0)
        by_gene = by_depth.sum(0)
        levels = [(by_gene, (gene,), 1.0), (by_depth, (depth, gene), self.leans[0])]
        if len(self.labels) > 1:
            levels.append((self.counts, (label, depth, gene), self.leans[1]))
        overall = by_gene.sum(0) + 0.01
        p = (overall / overall.sum())[bins]
        for counts, place, lean in levels:
            seen, total = counts[(*place, bins)], counts.sum(-1)[place]
            p = (seen + lean * p) / (total + lean)
        return -np.log(p)


class NegativeBinomial:
    """Counts of every gene around depth times rate: the rate that of the label, the dispersion that of the gene.

    Args:
        cells: Training cells, `prepared`.
        by: The label: "condition", "batch", or "nothing".
    """

    def __init__(self, cells: AnnData, by: str) -> None:
        self.by = by
        depth = cells.obs["depth"].to_numpy()
        overall = (cells.X.sum(0) + 0.01) / depth.sum()
        lean = 10 * np.median(depth)  # a rate leans on ten cells of them all
        self.rates = {}
        for label, rows in cells.obs.groupby(by).indices.items():
            self.rates[label] = (cells.X[rows].sum(0) + lean * overall) / (depth[rows].sum() + lean)
        some = cells[np.random.default_rng(0).permutation(cells.n_obs)[:2000]]
        counts, mean = some.X, self.mean(some)
        fits = []
        for dispersion in DISPERSIONS:
            law = nbinom(1 / dispersion, 1 / (1 + dispersion * mean))
            fits.append(law.logpmf(counts).sum(0))
        self.dispersion = DISPERSIONS[np.argmax(fits, axis=0)]

    def mean(self, cells: AnnData) -> Float[np.ndarray, "N G"]:
        """Returns expected counts of cells with these depths and labels."""
        rates = np.stack([self.rates[label] for label in cells.obs[self.by]])
        return cells.obs["depth"].to_numpy()[:, None] * rates

    def nats(self, cells: AnnData, tokenizer: Tokenizer) -> Nats:
        """Returns the cost of every gene of every cell: a bin has the probability of all counts in it."""
        law = nbinom(1 / self.dispersion, 1 / (1 + self.dispersion * self.mean(cells)))
        scale = np.ones((cells.n_obs, 1))
        if tokenizer.config.space == "normalised":
            scale = cells.obs["depth"].to_numpy()[:, None] / tokenizer.target_depth
        bins, edges = cells.layers["bins"], np.append(tokenizer.edges, np.inf)
        below = np.ceil(edges[bins] * scale - 1e-9) - 1
        last = np.ceil(edges[bins + 1] * scale - 1e-9) - 1
        return -np.log(np.maximum(law.cdf(last) - law.cdf(below), 1e-12))

    def draw(self, cells: AnnData, rng: np.random.Generator) -> Float[np.ndarray, "N G"]:
        """Makes counts for these depths and labels: genes know nothing of each other."""
        rate = rng.gamma(1 / self.dispersion, self.mean(cells) * self.dispersion)
        return rng.poisson(rate).astype(np.float32)
