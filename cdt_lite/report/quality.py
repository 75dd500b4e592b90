"""Whether generated cells look real: bits per gene beside densities that are told the depth, too, and statistics.

A model's bits are its negative ELBO, an upper bound of its negative log-likelihood, on cells that no model was trained
on. Every other density is fitted on training cells and scored on the same cells and the same bins.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from anndata import AnnData
from scipy.special import gammaln
from scipy.stats import nbinom

from cdt_lite.data.batches import Batch
from cdt_lite.data.expression import dense, log1p_counts
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.errors import CDTError
from cdt_lite.evaluation.metrics import energy_distance
from cdt_lite.evaluation.summary import bootstrap_means
from cdt_lite.model.diffusion import hide
from cdt_lite.model.perturbation import Perturbation
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.predict import check_request
from cdt_lite.training.train import denoiser

DEPTHS = 10  # classes of sequencing depth that a marginal is told


@torch.no_grad()
def token_nats(checkpoint: Checkpoint, cells: AnnData, controls: AnnData, known: np.ndarray | None = None, *,
               n_draws: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns every cell's cost in nats per gene under a model, and how many genes were hidden, (draws, cells) each.

    The mean over draws estimates the negative ELBO: k of G genes are hidden, k uniform on 1..G and spread evenly over
    the cells of a draw and over the draws of a cell. Controls come from the same replicate; the model is told the
    target, not its magnitude.

    Args:
        checkpoint: The model.
        cells: Raw counts, with target_gene, sign and batch.
        controls: Control cells to condition on, of every replicate in `cells`.
        known: The cost of every gene of these cells under a simple density, (cells, genes): a control variate. What it
            says of the hidden genes is exchanged for what it says of all; the mean stays, most of the noise goes.
        n_draws: Draws of k and of hidden genes per cell.
        seed: Same seed, same masks.
    """
    rng, tokenizer, n_genes = np.random.default_rng(seed), checkpoint.tokenizer, cells.n_vars
    counts = dense(cells.X)
    tokens, log_depth = tokenizer.tokenize(counts), np.log(np.maximum(counts.sum(1), 1) / tokenizer.target_depth)
    gene_ids = torch.from_numpy(checkpoint.vocabulary.ids(list(cells.var_names)))
    control_tokens, control_batch = tokenizer.tokenize(dense(controls.X)), controls.obs["batch"].astype(str).to_numpy()
    turn = (rng.permutation(cells.n_obs) + np.arange(n_draws)[:, None] * cells.n_obs / n_draws) % cells.n_obs
    strata = np.minimum(turn + rng.random((n_draws, cells.n_obs)), cells.n_obs)
    hidden = np.minimum((strata / cells.n_obs * n_genes).astype(int), n_genes - 1) + 1
    known, nats = np.zeros(cells.shape) if known is None else known, np.empty(hidden.shape)
    groups = cells.obs.groupby(["target_gene", "sign", "batch"], observed=True).indices
    for (target, sign, replicate), rows in groups.items():
        request = check_request(checkpoint, str(target), int(sign), None, "non-targeting")
        told = Perturbation.of([request.gene_id], [request.sign], [request.magnitude])
        pool = np.flatnonzero(control_batch == str(replicate))
        for part in np.array_split(rows, len(rows) // 64 + 1):
            for draw in range(n_draws if len(part) else 0):
                own = rng.choice(pool, checkpoint.config.finetune.controls_per_set,
                                 replace=len(pool) < checkpoint.config.finetune.controls_per_set)
                given = Batch(torch.from_numpy(tokens[part]).long()[None],
                              torch.from_numpy(control_tokens[own]).long()[None], told,
                              torch.from_numpy(log_depth[part].astype(np.float32))[None], gene_ids)
                order = torch.from_numpy(rng.random((1, len(part), n_genes))).argsort(-1).argsort(-1)
                k = torch.from_numpy(hidden[draw, part])[None]
                mask = order < k[..., None]
                expected = known[part].mean(1) - (known[part] * mask[0].numpy()).sum(1) / hidden[draw, part]
                nats[draw, part] = _hidden_nats(checkpoint, given, mask, k).numpy()[0] + expected
    return nats, hidden


def _hidden_nats(checkpoint: Checkpoint, batch: Batch, mask: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    xt = hide(batch.tokens, mask, checkpoint.tokenizer.mask_id)
    logits = denoiser(checkpoint.model, batch)(xt, k.float() / mask.shape[-1])[..., : checkpoint.tokenizer.mask_id]
    chosen = logits.float().log_softmax(-1).gather(-1, batch.tokens[..., None])[..., 0]
    return -(chosen * mask).sum(-1) / k


class DepthMarginals:
    """Every gene by itself: how often each bin is seen in cells of like depth, and of like label if labels are given.

    Sparse counts lean on broader ones (all labels, all depths, all genes); by how much is chosen on training cells, by
    fitting one half and scoring the other.

    Args:
        tokens: Training cells, cells x genes.
        depth: Their total counts.
        label: Their condition, or the same for all.
        n_bins: Number of bins.
    """

    grid = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)

    def __init__(self, tokens: np.ndarray, depth: np.ndarray, label: np.ndarray, n_bins: int) -> None:
        self.n_bins, self.edges = n_bins, np.quantile(depth, np.linspace(0, 1, DEPTHS + 1)[1:-1])
        half = np.random.default_rng(0).permutation(len(tokens)) % 2 == 0
        self._fit(tokens[half], depth[half], label[half])
        rest = np.flatnonzero(~half)[:3000]
        costs = {(a, b): self.nats(tokens[rest], depth[rest], label[rest], (a, b)).mean() for a in self.grid
                 for b in (self.grid if len(set(label)) > 1 else self.grid[-1:])}
        self.chosen = min(costs, key=lambda pair: costs[pair])
        self._fit(tokens, depth, label)

    def _histogram(self, tokens: np.ndarray, depth: np.ndarray) -> np.ndarray:
        at = np.searchsorted(self.edges, depth)[:, None] * tokens.shape[1] + np.arange(tokens.shape[1])
        n = DEPTHS * tokens.shape[1] * self.n_bins
        return np.bincount((at * self.n_bins + tokens).ravel(), minlength=n).reshape(DEPTHS, -1, self.n_bins)

    def _fit(self, tokens: np.ndarray, depth: np.ndarray, label: np.ndarray) -> None:
        self.own = {name: self._histogram(tokens[label == name], depth[label == name]) for name in np.unique(label)}
        self.all = np.sum(list(self.own.values()), axis=0)

    def nats(self, tokens: np.ndarray, depth: np.ndarray, label: np.ndarray, lean: tuple[float, float] | None = None
             ) -> np.ndarray:
        """Returns the negative log-likelihood of every gene of every cell, nats, (cells, genes)."""
        a, b = lean or self.chosen
        of_gene = self.all.sum(0)
        overall = (of_gene.sum(0) + 1e-2) / (of_gene.sum() + 1e-2 * self.n_bins)
        broad = (of_gene + overall) / (of_gene.sum(-1, keepdims=True) + 1)
        broad = (self.all + a * broad) / (self.all.sum(-1, keepdims=True) + a)
        out, at, genes = np.empty(tokens.shape), np.searchsorted(self.edges, depth), np.arange(tokens.shape[1])
        for name in np.unique(label):
            rows, own = np.flatnonzero(label == name), self.own.get(name, np.zeros_like(self.all))
            p = (own + b * broad) / (own.sum(-1, keepdims=True) + b)
            out[rows] = -np.log(p[at[rows][:, None], genes, tokens[rows]])
        return out


class NegativeBinomial:
    """Counts of every gene around depth times rate: the rate that of the condition, the dispersion that of the gene.

    Args:
        counts: Training cells, cells x genes.
        label: Their condition.
    """

    grid = np.geomspace(0.01, 10, 25)

    def __init__(self, counts: np.ndarray, label: np.ndarray) -> None:
        depth = counts.sum(1)
        overall, weight = (counts.sum(0) + 0.01) / depth.sum(), 10 * np.median(depth)  # leans on ten cells of them all
        self.rate = {name: (counts[label == name].sum(0) + weight * overall) / (depth[label == name].sum() + weight)
                     for name in np.unique(label)}
        rows = np.random.default_rng(0).permutation(len(counts))[:2000]
        x, mean = counts[rows], self.mean(depth[rows], label[rows])
        fits = [self._log_p(x, mean, alpha).sum(0) for alpha in self.grid]
        self.dispersion = self.grid[np.argmax(fits, axis=0)]

    @staticmethod
    def _log_p(x: np.ndarray, mean: np.ndarray, alpha: float) -> np.ndarray:
        r = 1 / alpha
        ways = gammaln(x + r) - gammaln(r) - gammaln(x + 1)
        return ways + r * np.log(r / (r + mean)) + x * np.log(mean / (r + mean))

    def mean(self, depth: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Returns expected counts, cells x genes."""
        return depth[:, None] * np.stack([self.rate[name] for name in label])

    def nats(self, tokens: np.ndarray, depth: np.ndarray, label: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
        """Returns the cost of every gene of every cell, nats: a bin has the probability of all counts in it."""
        r, mean = 1 / self.dispersion, self.mean(depth, label)
        scale = 1.0 if tokenizer.config.space == "counts" else depth[:, None] / tokenizer.target_depth
        edges = np.append(tokenizer.edges, np.inf)
        low, high = (np.ceil(edges[tokens + i] * scale - 1e-9) - 1 for i in (0, 1))
        p = nbinom.cdf(high, r, r / (r + mean)) - nbinom.cdf(low, r, r / (r + mean))
        return -np.log(np.maximum(p, 1e-12))

    def draw(self, depth: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Makes cells whose genes know nothing of each other."""
        return rng.poisson(rng.gamma(1 / self.dispersion, self.mean(depth, label) * self.dispersion)).astype(np.float32)


@dataclass(frozen=True)
class Sides:
    """Cells of a split: counts, depth, condition and replicate of training and of held-out cells."""

    train: AnnData
    held_out: AnnData

    def arrays(self, which: AnnData) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns counts, depths, conditions and replicates."""
        counts, obs = dense(which.X), which.obs
        condition = obs["target_gene"].astype(str) + obs["sign"].astype(int).map("{:+d}".format)
        return counts, counts.sum(1), condition.to_numpy(str), obs["batch"].astype(str).to_numpy(str)


def bits_per_gene(checkpoint: Checkpoint, train: AnnData, held_out: AnnData, *, seed: int = 0
                  ) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Scores held-out cells under the model and under simpler densities that are told the depth, too.

    Returns:
        For every density [bits per gene, model minus it, low, high]: bits are a mean over cells, the difference and its
        bootstrap interval are over perturbations. And the model's H curve, bits per hidden gene by share of them.
    """
    if set(held_out.obs["target_gene"]) - set(train.obs["target_gene"]):
        raise CDTError("a density of a condition needs that condition in the training cells: pass held-out replicates")
    sides, tokenizer = Sides(train, held_out), checkpoint.tokenizer
    (x, depth, label, batch), (y, at, told, where) = sides.arrays(train), sides.arrays(held_out)
    a, b, everyone = tokenizer.tokenize(x), tokenizer.tokenize(y), np.full(len(x), "all")
    controls = train[(train.obs["target_gene"] == "non-targeting").to_numpy()]
    n, nobody = tokenizer.mask_id, np.full(len(y), "all")
    per_gene = DepthMarginals(a, depth, everyone, n).nats(b, at, nobody)
    draws, hidden = token_nats(checkpoint, held_out, controls, per_gene, seed=seed)
    nats = {"model": draws.mean(0)[:, None], "per gene": per_gene,
            "per gene and replicate": DepthMarginals(a, depth, batch, n).nats(b, at, where),
            "per gene and condition": DepthMarginals(a, depth, label, n).nats(b, at, told),
            "negative binomial": NegativeBinomial(x, everyone).nats(b, at, nobody, tokenizer),
            "negative binomial, condition": NegativeBinomial(x, label).nats(b, at, told, tokenizer)}
    out = {}
    for name, cost in nats.items():
        gap = nats["model"].mean(1) - cost.mean(1)
        by_target = np.array([gap[told == t].mean() for t in np.unique(told)])
        interval = np.quantile(bootstrap_means(by_target[:, None]), [0.025, 0.975])
        out[name] = [float(v / np.log(2)) for v in (cost.mean(), by_target.mean(), *interval)]
    even = draws - draws.mean(0) + draws.mean()  # a hard cell costs as much at every share
    share = np.minimum((hidden / held_out.n_vars * 10).astype(int), 9)
    curve = {"share_hidden": [0.05 + 0.1 * i for i in range(10)],
             "bits_per_hidden_gene": [float(even[share == i].mean() / np.log(2)) for i in range(10)]}
    return out, curve


def _statistics(a: np.ndarray, b: np.ndarray, depth: float, genes: np.ndarray) -> dict[str, float]:
    x, y = (log1p_counts(c, depth) for c in (a, b))
    above = np.triu_indices(len(genes), 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a gene that never varies correlates with none
        r, s = (np.nan_to_num(np.corrcoef(z[:, genes] + 0.0, rowvar=False))[above] for z in (x, y))
    return {"library-size sd, ratio": float(b.sum(1).std() / a.sum(1).std()),
            "gene-gene correlations, agreement": float(np.corrcoef(r, s)[0, 1]),
            "gene-gene correlations, mean difference": float(np.abs(r - s).mean()),
            "energy distance": energy_distance(x, y, max_cells=300)}


def likeness(real: AnnData, generated: Mapping[str, AnnData], depth: float, *, n_splits: int = 20, seed: int = 0
             ) -> dict[str, dict[str, list[float]]]:
    """Compares one half of the real cells with the other half (the floor), and with generated cells in its place.

    Args:
        real: Held-out cells.
        generated: Cells by method; of every perturbation and replicate as many are drawn as the other half has.
        depth: Depth of the log1p scale.
        n_splits: Random splits.
        seed: Same seed, same splits.

    Returns:
        For every statistic and method [mean, 2.5 %, 97.5 %] over splits; "real" is the band a method should be in.
    """
    rng, counts = np.random.default_rng(seed), dense(real.X)
    genes = np.argsort(-counts.mean(0), kind="stable")[:100]
    where = real.obs.groupby(["target_gene", "sign", "batch"], observed=True).indices
    pools = {name: (dense(cells.X), cells.obs.groupby(["target_gene", "sign", "batch"], observed=True).indices)
             for name, cells in generated.items()}
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(n_splits):
        mixed = {key: rng.permutation(rows) for key, rows in where.items()}
        first, second = (np.concatenate([rows[side: 2 * (len(rows) // 2): 2] for rows in mixed.values()])
                         for side in (0, 1))
        others = {"real": counts[second]}
        for name, (values, rows_of) in pools.items():
            others[name] = values[np.concatenate([
                rng.choice(rows_of[key], len(rows) // 2, replace=len(rows_of[key]) < len(rows) // 2)
                for key, rows in where.items()])]
        for name, cells in others.items():
            for statistic, value in _statistics(counts[first], cells, depth, genes).items():
                found.setdefault(statistic, {}).setdefault(name, []).append(value)
    return {statistic: {name: [float(np.mean(v)), *map(float, np.quantile(v, [0.025, 0.975]))]
                        for name, v in methods.items()} for statistic, methods in found.items()}
