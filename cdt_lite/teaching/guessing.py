"""What a capsule says of the hidden half of real cells, and what that costs beside a histogram of every gene."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cdt_lite.data.batches import Batch
from cdt_lite.model import CDT, hide, masked_loss
from cdt_lite.model.diffusion import token_nats
from cdt_lite.teaching.held_out import held_out_sets
from cdt_lite.teaching.sentences import listed
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
        laws = {"capsule": self.logits[0, 0, at].softmax(-1).numpy(), "histogram": histogram[at]}
        return laws, dict(zip(names[at], self.batch.tokens[0, 0, at].tolist(), strict=True))

    @torch.no_grad()
    def stages(self, net: CDT) -> dict[str, float]:
        """Returns bits per hidden gene if the head reads the stream before its end, and last through the tilt."""
        batch = self.batch
        genes, ranks = net.gene_table(batch.gene_ids), net.ranks(batch.controls)
        known = net.effect.look_up(batch.perturbation, batch.gene_ids)
        modulation, memory = net.modulate(batch.perturbation, batch.log_depth), net.control_set(ranks, genes)
        h = net.embed(self.tokens, genes, known, ranks)
        logits = net.head(net.norm(h))
        found = {"after the sum": self.bits(logits)}
        for i, block in enumerate(net.blocks, 1):
            h = block(h, modulation, memory)
            logits = net.head(net.norm(h))
            found[f"after block {i}"] = self.bits(logits)
        return found | {"after the tilt": self.bits(self.logits)}

    def bits(self, logits: Float[Tensor, "B S G K"]) -> float:
        """Returns bits per hidden gene, over all of them."""
        return float(masked_loss(logits, self.batch.tokens, self.hidden)) * BITS

    def costs(self, histogram: Float[np.ndarray, "G K"]) -> pd.DataFrame:
        """Returns bits per hidden gene, a row a cell, of the capsule and of a histogram of every gene."""
        known = torch.from_numpy(histogram).log().expand(self.logits.shape)
        found = {}
        for name, logits in (("capsule", self.logits), ("histogram", known)):
            nats = (token_nats(logits, self.batch.tokens) * self.hidden).sum(-1) / self.hidden.sum(-1)
            found[name] = nats.flatten().double() * BITS
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
    batch = held_out_sets(capsule, cells, n_sets, cells_per_set).batch(0)
    hidden = torch.rand(batch.tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    tokens = hide(batch.tokens, hidden, capsule.tokenizer.mask_id)
    return Guesses(batch, hidden, tokens, denoiser(capsule.model, batch)(tokens))


def surer(p: pd.DataFrame) -> str:
    """Says for which genes the first predictor gave the hidden value more probability than the second.

    Args:
        p: Probability of the hidden value, genes x two predictors.
    """
    own, rival = p.columns
    more = p.index[p[own] > p[rival]].tolist()
    which = f"for {listed(more)}" if more else "for none"
    return (f"To the hidden count of these {len(p)} genes the {own} gives more probability than the {rival} {which}"
            f"{', for all' if len(more) == len(p) else ''}.")


def sinks(weights: Float[np.ndarray, "G G"], names: pd.Index) -> str:
    """Says whether one gene takes much of every gene's attention.

    Args:
        weights: Attention: row genes read column genes, rows sum to 1.
        names: Of the genes.
    """
    n = len(names)
    first = int(weights.mean(0).argmax())
    given = weights[:, first]
    verdict = "no sink: it depends on who asks"
    if given.max() < 2 / n:
        verdict = "no sink: genes are read nearly alike"
    elif given.min() > 2 / n:
        verdict = "a sink, read whatever is asked"
    return (f"Of all attention {names[first]} receives {given.mean():.1%}, {given.mean() * n:.0f} times an equal "
            f"share; every gene gives it between {given.min():.1%} and {given.max():.1%} of its own: {verdict}.")
