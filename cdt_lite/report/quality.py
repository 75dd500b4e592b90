"""Whether generated cells look real: bits per gene beside densities that are told the depth, too, and statistics.

A model's bits are its negative ELBO, an upper bound of its negative log-likelihood, on cells that no model was trained
on. Every other density is fitted on training cells and scored on the same cells and the same bins.
"""

from typing import Any

import numpy as np
import torch
from anndata import AnnData
from jaxtyping import Float

from cdt_lite.data.batches import Batch
from cdt_lite.data.expression import dense, log1p_counts
from cdt_lite.data.layout import CONTROL
from cdt_lite.errors import CDTError
from cdt_lite.evaluation.metrics import energy_distance
from cdt_lite.evaluation.summary import bootstrap_means
from cdt_lite.model.diffusion import loss_curve
from cdt_lite.model.perturbation import Perturbation
from cdt_lite.report.densities import Costs, DepthMarginals, LabelledCells, NegativeBinomial
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.train import denoiser

CONDITION = ["target_gene", "sign"]
GROUP = [*CONDITION, "batch"]
SHARES = np.linspace(0.05, 0.95, 10)  # of hidden genes: the mean over them is the area under the H curve
N_SPLITS = 20  # of the real cells in halves


def bits_per_gene(
    checkpoint: Checkpoint, train: AnnData, held_out: AnnData, seed: int = 0
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Scores held-out cells under the model and under simpler densities that are told the depth, too.

    Args:
        checkpoint: The model.
        train: Training cells, with controls.
        held_out: Cells of trained perturbations in other replicates.
        seed: Same seed, same hidden genes.

    Returns:
        For every density [bits per gene, model minus it, low, high]: bits are a mean over cells, the difference and its
        bootstrap interval are over perturbations. And the model's H curve, bits per hidden gene by share of them.
    """
    if set(held_out.obs["target_gene"]) - set(train.obs["target_gene"]):
        raise CDTError("a density of a condition needs that condition in the training cells: pass held-out replicates")
    tokenizer = checkpoint.tokenizer
    curves = hidden_nats(checkpoint, train, held_out, seed)
    costs = {"model": curves.mean(1)}
    for name, by in (("", []), (" and replicate", ["batch"]), (" and condition", CONDITION)):
        old = LabelledCells.of(train, tokenizer, by)
        new = LabelledCells.of(held_out, tokenizer, by)
        costs[f"per gene{name}"] = DepthMarginals(old, tokenizer.mask_id).nats(new).mean(1)
    for name, by in (("", []), (", condition", CONDITION)):
        old = LabelledCells.of(train, tokenizer, by)
        new = LabelledCells.of(held_out, tokenizer, by)
        costs[f"negative binomial{name}"] = NegativeBinomial(old).nats(new, tokenizer).mean(1)
    bits = {}
    for name, cost in costs.items():
        gaps = held_out.obs.assign(gap=costs["model"] - cost).groupby(CONDITION, observed=True)["gap"].mean()
        interval = np.quantile(bootstrap_means(gaps.to_numpy()[:, None]), [0.025, 0.975])
        bits[name] = [float(nats / np.log(2)) for nats in (cost.mean(), gaps.mean(), *interval)]
    curve = curves.mean(0) / np.log(2)
    return bits, {"share_hidden": SHARES.tolist(), "bits_per_hidden_gene": curve.tolist()}


def hidden_nats(
    checkpoint: Checkpoint, train: AnnData, cells: AnnData, seed: int = 0
) -> Float[np.ndarray, "N shares"]:
    """Returns what a hidden gene costs the model at each of SHARES, in nats: for every cell, the mean of its part.

    A part is at most 64 cells of one perturbation and replicate. The model is shown controls of that replicate, and
    told the target and not its magnitude.
    """
    tokenizer, n_shown = checkpoint.tokenizer, checkpoint.config.finetune.controls_per_set
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    own = LabelledCells.of(cells, tokenizer, [])
    log_depth = np.log(np.maximum(own.depth, 1) / tokenizer.target_depth)
    gene_ids = checkpoint.vocabulary.ids(list(cells.var_names))
    controls = train[(train.obs["target_gene"] == CONTROL).to_numpy()]
    control_bins = tokenizer.tokenize(dense(controls.X))
    pools = controls.obs.groupby("batch", observed=True).indices
    curves = np.empty((cells.n_obs, len(SHARES)))
    for (target, sign, batch), rows in cells.obs.groupby(GROUP, observed=True).indices.items():
        asked = Perturbation.of([checkpoint.vocabulary.id(str(target))], [int(sign)], [float("nan")])
        pool = pools[batch]
        for part in np.array_split(rows, len(rows) // 64 + 1):
            shown = control_bins[rng.choice(pool, n_shown, replace=len(pool) < n_shown)]
            given = Batch.of(own.bins[part][None], shown[None], asked, log_depth[part][None], gene_ids)
            denoise = denoiser(checkpoint.model, given)
            curves[part] = loss_curve(denoise, given.tokens, tokenizer.mask_id, generator, SHARES.tolist())
    return curves


def independent_cells(checkpoint: Checkpoint, train: AnnData, like: AnnData, seed: int = 0) -> AnnData:
    """Makes cells of these perturbations whose genes know nothing of each other: a negative binomial's.

    Their depths are those of training controls of the same replicate, since the model knows no more.
    """
    rng = np.random.default_rng(seed)
    old = LabelledCells.of(train, checkpoint.tokenizer, CONDITION)
    new = LabelledCells.of(like, checkpoint.tokenizer, CONDITION)
    is_control = train.obs["target_gene"] == CONTROL
    for batch, rows in like.obs.groupby("batch", observed=True).indices.items():
        pool = old.depth[is_control & (train.obs["batch"] == batch)]
        new.depth[rows] = rng.choice(pool, len(rows))
    return AnnData(NegativeBinomial(old).draw(new, rng), obs=like.obs, var=like.var)


def likeness(
    real: AnnData, generated: dict[str, AnnData], depth: float, seed: int = 0
) -> dict[str, dict[str, list[float]]]:
    """Compares one half of the real cells with the other half (the floor), and with generated cells in its place.

    Args:
        real: Held-out cells.
        generated: Cells by method; of every perturbation and replicate as many are drawn as the other half has.
        depth: Depth of the log1p scale.
        seed: Same seed, same splits.

    Returns:
        For every statistic and method [mean, 2.5 %, 97.5 %] over splits; "real" is the band a method should be in.
    """
    rng, counts = np.random.default_rng(seed), dense(real.X)
    genes = np.argsort(-counts.mean(0), kind="stable")[:100]
    groups = real.obs.groupby(GROUP, observed=True).indices
    found: dict[str, dict[str, Any]] = {}
    for _ in range(N_SPLITS):
        mixed = [rng.permutation(rows)[: 2 * (len(rows) // 2)] for rows in groups.values()]
        first = counts[np.concatenate([rows[::2] for rows in mixed])]
        samples = {"real": counts[np.concatenate([rows[1::2] for rows in mixed])]}
        for method, cells in generated.items():
            pools = cells.obs.groupby(GROUP, observed=True).indices
            drawn = []
            for key, rows in zip(groups, mixed, strict=True):
                n = len(rows) // 2
                drawn.append(rng.choice(pools[key], n, replace=len(pools[key]) < n))
            samples[method] = dense(cells.X[np.concatenate(drawn)])
        for method, sample in samples.items():
            for statistic, value in _statistics(first, sample, depth, genes).items():
                found.setdefault(statistic, {}).setdefault(method, []).append(value)
    for methods in found.values():
        for method, values in methods.items():
            methods[method] = [float(np.mean(values)), *np.quantile(values, [0.025, 0.975]).tolist()]
    return found


def _statistics(real: Costs, cells: Costs, depth: float, genes: np.ndarray) -> dict[str, float]:
    x, y = log1p_counts(real, depth), log1p_counts(cells, depth)
    pairs = np.triu_indices(len(genes), 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a gene that never varies correlates with none
        r = np.nan_to_num(np.corrcoef(x[:, genes], rowvar=False))[pairs]
        s = np.nan_to_num(np.corrcoef(y[:, genes], rowvar=False))[pairs]
    return {
        "library-size sd, ratio": float(cells.sum(1).std() / real.sum(1).std()),
        "gene-gene correlations, agreement": float(np.corrcoef(r, s)[0, 1]),
        "gene-gene correlations, mean difference": float(np.abs(r - s).mean()),
        "energy distance": energy_distance(x, y, max_cells=300),
    }
