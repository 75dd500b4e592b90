"""Whether generated cells look real: bits per gene beside densities that are told the depth, too, and statistics.

A model's bits are its negative ELBO, an upper bound of its negative log-likelihood, on cells that no model was trained
on. Every other density is fitted on training cells and scored on the same cells and the same bins.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from jaxtyping import Float

from cdt_lite.data.batches import Batch
from cdt_lite.data.expression import log1p_counts
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.evaluation.metrics import energy_distance
from cdt_lite.evaluation.summary import bootstrap_means
from cdt_lite.model.diffusion import loss_curve
from cdt_lite.model.perturbation import Perturbation
from cdt_lite.report.densities import DepthMarginals, NegativeBinomial, by_blocks, prepared
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.trust import denoiser

SHARES = [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95]  # of hidden genes
INTERVALS = (3, 4)  # numbers of a row whose last two are the ends of an interval
N_SPLITS = 20  # of the real cells in halves
MARGINALS = {"per gene": "nothing", "per gene and replicate": "batch", "per gene and condition": "condition"}
BINOMIALS = {"negative binomial": "nothing", "negative binomial, condition": "condition"}


def quality(checkpoint: Checkpoint, seed: int, train: AnnData, held_out: AnnData, sampled: AnnData,
            name: str = "capsule") -> dict[str, Any]:
    """Answers task 4: bits per gene, the H curve (bits per hidden gene by share of them), and likeness.

    `held_out` are cells of trained perturbations in other replicates, `sampled` those of the model called `name`
    in their place.
    """
    tokenizer = checkpoint.tokenizer
    old, new = prepared(train, tokenizer), prepared(held_out, tokenizer)
    controls = old[old.obs["sign"] == "0"]
    curves = hidden_nats(checkpoint, controls, new, seed)
    rng, depth = np.random.default_rng(seed), np.empty(new.n_obs)
    for batch, rows in new.obs.groupby("batch").indices.items():  # the model knows no more of depths
        depth[rows] = rng.choice(controls.obs["depth"][controls.obs["batch"] == batch], len(rows))
    alone = new.copy()  # genes that know nothing of each other
    alone.obs["depth"] = depth
    alone.X = NegativeBinomial(old, "condition").draw(alone, rng)
    generated = {name: prepared(sampled, tokenizer), "negative binomial, condition": alone}
    curve = curves.mean(0) / np.log(2)
    return {
        "bits": bits_per_gene(old, new, tokenizer, curves.mean(1)),
        "curve": {"share_hidden": SHARES, "bits_per_hidden_gene": curve.tolist()},
        "likeness": likeness(new, generated, tokenizer.target_depth, seed),
    }


def over_models(found: Sequence[Any]) -> Any:
    """Returns the mean of every number of several answers; of intervals, which end a list, the outermost ends.

    Args:
        found: What `quality` returned for models that differ by the seed of their training alone.
    """
    if isinstance(found[0], dict):
        return {name: over_models([one[name] for one in found]) for name in found[0]}
    numbers = np.array(found)
    mean = numbers.mean(0)
    if numbers.shape[1] in INTERVALS:
        mean[-2], mean[-1] = numbers[:, -2].min(), numbers[:, -1].max()
    return mean.tolist()


def hidden_nats(checkpoint: Checkpoint, controls: AnnData, cells: AnnData, seed: int) -> Float[np.ndarray, "N shares"]:
    """Returns what a hidden gene costs the model at each of SHARES: for every cell, the mean of the cells beside it.

    These are at most 64 cells of one (trained) perturbation and replicate. The model is shown controls of the same
    replicate, and told the target and not its magnitude. The mean over SHARES is the area under the H curve, the
    negative ELBO. Cells and controls are `prepared`.
    """
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    tokenizer, vocabulary = checkpoint.tokenizer, checkpoint.vocabulary
    n_controls = checkpoint.config.finetune.controls_per_set
    gene_ids = vocabulary.ids(list(cells.var_names))
    log_depth = np.log(cells.obs["depth"].clip(lower=1) / tokenizer.target_depth).to_numpy()
    pools = controls.obs.groupby("batch").indices
    curves = np.empty((cells.n_obs, len(SHARES)))
    groups = cells.obs.groupby(["target_gene", "sign", "batch"])
    for (target, sign, batch), rows in groups.indices.items():
        asked = Perturbation.of([vocabulary.id(target)], [int(sign)], [float("nan")])
        pool = pools[batch]
        for part in np.array_split(rows, len(rows) // 64 + 1):
            shown = rng.choice(pool, n_controls, replace=len(pool) < n_controls)
            bins, memory = cells.layers["bins"][part], controls.layers["bins"][shown]
            given = Batch.of(bins[None], memory[None], asked, log_depth[part][None], gene_ids).to("cpu")
            denoise = denoiser(checkpoint.model, given)
            curves[part] = loss_curve(denoise, given.tokens, tokenizer.mask_id, generator, SHARES)
    return curves


def bits_per_gene(train: AnnData, held_out: AnnData, tokenizer: Tokenizer,
                  model: Float[np.ndarray, " N"]) -> dict[str, list[float]]:
    """Scores cells under simple densities, beside what they cost the model. Both sides are `prepared`.

    Returns:
        For every density [bits per gene, model minus it, low, high]: bits are a mean over cells, the difference and its
        bootstrap interval are over perturbations.
    """
    costs = {"model": model}
    for name, by in MARGINALS.items():
        costs[name] = by_blocks(DepthMarginals(train, by, tokenizer.mask_id).nats, held_out)
    for name, by in BINOMIALS.items():
        costs[name] = by_blocks(partial(NegativeBinomial(train, by).nats, tokenizer=tokenizer), held_out)
    bits = {}
    for name, cost in costs.items():
        gaps = held_out.obs.assign(gap=model - cost).groupby("condition")["gap"].mean()
        low, high = np.quantile(bootstrap_means(gaps.to_numpy()[:, None]), [0.025, 0.975])
        bits[name] = [float(x / np.log(2)) for x in (cost.mean(), gaps.mean(), low, high)]
    return bits


def likeness(real: AnnData, generated: dict[str, AnnData], depth: float, seed: int) -> dict[str, dict[str, list]]:
    """Compares one half of the real cells with the other half (the floor), and with generated cells in its place.

    Of every perturbation and replicate as many generated cells are drawn as the other half has. All are `prepared`.

    Returns:
        For every statistic and method [mean, 2.5 %, 97.5 %] over splits; "real" is the band a method should be in.
    """
    rng = np.random.default_rng(seed)
    genes = np.argsort(-real.X.mean(0), kind="stable")[:100]
    pools = {}
    for method, cells in {"real": real, **generated}.items():
        pools[method] = cells.obs.groupby(["condition", "batch"]).indices
    rows = []
    for _ in range(N_SPLITS):
        first: list[np.ndarray] = []
        second: dict[str, list[np.ndarray]] = {method: [] for method in pools}
        for key, own in pools["real"].items():
            mixed, n = rng.permutation(own), len(own) // 2
            first.append(real.X[mixed[:n]])
            second["real"].append(real.X[mixed[n : 2 * n]])
            for method, cells in generated.items():
                pool = pools[method][key]
                second[method].append(cells.X[rng.choice(pool, n, replace=len(pool) < n)])
        for method, parts in second.items():
            found = _statistics(np.concatenate(first), np.concatenate(parts), depth, genes)
            rows.append({"method": method, **found})
    table = pd.DataFrame(rows).groupby("method", sort=False)
    bands = {}
    for statistic, mean in table.mean().items():
        ends = table[statistic].quantile([0.025, 0.975]).unstack()
        bands[statistic] = {method: [mean[method], *ends.loc[method]] for method in pools}
    return bands


def _statistics(real: np.ndarray, cells: np.ndarray, depth: float, genes: np.ndarray) -> dict[str, float]:
    x, y = log1p_counts(real, depth), log1p_counts(cells, depth)
    pairs = np.triu_indices(len(genes), 1)
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant gene correlates with none
        r = np.nan_to_num(np.corrcoef(x[:, genes], rowvar=False))[pairs]
        s = np.nan_to_num(np.corrcoef(y[:, genes], rowvar=False))[pairs]
    return {
        "library-size sd, ratio": float(cells.sum(1).std() / real.sum(1).std()),
        "gene-gene correlations, agreement": float(np.corrcoef(r, s)[0, 1]),
        "gene-gene correlations, mean difference": float(np.abs(r - s).mean()),
        "energy distance": energy_distance(x, y, max_cells=300),
    }
