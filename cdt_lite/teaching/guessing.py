"""What a capsule says of the hidden half of real cells, and what that costs beside a histogram of every gene."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cdt_lite.data.batches import Batch, SetSampler
from cdt_lite.data.expression import dense
from cdt_lite.data.store import TokenStore
from cdt_lite.model import hide
from cdt_lite.teaching.sentences import number
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.trust import denoiser

BITS = 1 / np.log(2)


@dataclass(frozen=True)
class Guesses:
    """Sets of real cells, half of each hidden, and the capsule's logits for every gene."""

    batch: Batch
    hidden: Bool[Tensor, "B S G"]
    tokens: Int[Tensor, "B S G"]  # with [MASK] where hidden
    logits: Float[Tensor, "B S G K"]

    def loudest(self, names: pd.Index, histogram: Float[np.ndarray, "G K"], n: int
                ) -> tuple[dict[str, Float[np.ndarray, "n K"]], dict[str, int]]:
        """Returns, for the n hidden genes of the first cell that are loudest in its controls, what `guesses` draws.

        That is the probabilities of all bins by the capsule and by the histogram, and the bin that was hidden.
        """
        assert self.batch.controls is not None
        level = self.batch.controls[0].float().mean(0) * self.hidden[0, 0]
        at = level.topk(n).indices.numpy()
        laws = {"generated": self.logits[0, 0, at].softmax(-1).numpy(), "baseline": histogram[at]}
        return laws, dict(zip(names[at], self.batch.tokens[0, 0, at].tolist(), strict=True))

    def costs(self, histogram: Float[np.ndarray, "G K"]) -> pd.DataFrame:
        """Returns bits per hidden gene, a row a cell, of the capsule and of a histogram of every gene."""
        known = torch.from_numpy(histogram).log().expand(self.logits.shape)
        found = {}
        for name, log_p in (("capsule", self.logits.log_softmax(-1)), ("histogram", known)):
            nats = -log_p.gather(-1, self.batch.tokens[..., None])[..., 0]
            found[name] = ((nats * self.hidden).sum(-1) / self.hidden.sum(-1)).flatten().double() * BITS
        return pd.DataFrame(found)


@torch.no_grad()
def guess(capsule: Checkpoint, cells: AnnData, n_sets: int, cells_per_set: int = 4) -> Guesses:
    """Hides half of the genes of real cells, and asks the capsule for them.

    Args:
        capsule: The trained model. It is told the perturbation, controls of the same replicate, and the depth.
        cells: Perturbed cells and controls; perturbed ones are drawn.
        n_sets: Of cells that share a perturbation.
        cells_per_set: Cells in each.
    """
    store = TokenStore.from_adata(cells, capsule.tokenizer, capsule.vocabulary)
    asked = replace(capsule.config.finetune, sets_per_batch=n_sets, cells_per_set=cells_per_set, control_share=0.0,
                    target_dropout=0.0, perturbation_dropout=0.0, controls_dropout=0.0, magnitude_dropout=1.0)
    batch = SetSampler(store, asked).batch(0)
    hidden = torch.rand(batch.tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    tokens = hide(batch.tokens, hidden, capsule.tokenizer.mask_id)
    return Guesses(batch, hidden, tokens, denoiser(capsule.model, batch)(tokens))


def histogram_of(capsule: Checkpoint, cells: AnnData) -> Float[np.ndarray, "G K"]:
    """Returns the share of cells in every bin of every gene, with one cell more spread over all bins."""
    n_bins = capsule.tokenizer.mask_id
    tokens = capsule.tokenizer.tokenize(dense(cells.X))
    counted = np.stack([np.bincount(gene, minlength=n_bins) for gene in tokens.T]) + 1 / n_bins
    return counted / counted.sum(1, keepdims=True)


def cheaper(costs: pd.DataFrame) -> str:
    """Says whether a hidden gene costs the first predictor fewer bits than the second, over cells.

    Args:
        costs: Bits per hidden gene, cells x two predictors.
    """
    own, rival = costs.columns
    gap = costs[own] - costs[rival]
    half = 1.96 * gap.std() / np.sqrt(len(gap))
    low, high = gap.mean() - half, gap.mean() + half
    verdict = f"guesses as well as the {rival}"
    if low > 0 or high < 0:
        verdict = f"guesses {'better' if high < 0 else 'worse'} than the {rival}"
    means = costs.mean()
    return (f"Over {len(costs)} held-out cells, half of each hidden, a hidden gene costs the {own} {means[own]:.3f} "
            f"bits and a {rival} of every gene {means[rival]:.3f}: a difference of {number(gap.mean(), 3)} "
            f"[{number(low, 3)}, {number(high, 3)}]. The {own} {verdict}.")


def sinks(weights: Float[np.ndarray, "G G"], names: pd.Index) -> str:
    """Says how much attention goes to the genes that are read most, and whether every gene reads them.

    Args:
        weights: Attention: row genes read column genes, rows sum to 1.
        names: Of the genes.
    """
    n = len(names)
    read = weights.mean(0)
    most = np.argsort(-read)[: max(1, n // 10)]
    shares, equal = weights[:, most].sum(1), len(most) / n
    first, times = names[most[0]], read[most[0]] * n
    verdict = "it depends on who asks"
    if shares.max() < 2 * equal:
        verdict = "genes are read nearly alike"
    elif shares.min() > 2 * equal:
        verdict = "every gene reads them, whatever it asks: they are sinks, for attention that is not needed elsewhere"
    return (f"The {equal:.0%} of genes that are read most receive {shares.mean():.0%} of all attention, {first} "
            f"{times:.1f} times an equal share; of a single gene's attention {shares.min():.0%} to "
            f"{shares.max():.0%}: {verdict}.")
