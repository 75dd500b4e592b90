"""Whether a cell answers to its perturbation, and what follows for the genes of one that does."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cdt_lite.model.mean_effect import Known, tilts
from cdt_lite.model.read import Read

States = Callable[[Float[Tensor, "B S"]], Bool[Tensor, "B S"]]


class Response(nn.Module):
    """A cell answers to its perturbation, or it escapes: which, by its visible genes, and what follows for the others.

    A share p answers, by effect / p, the others not at all. Where the cell answers, what is known of the mean effect
    tilts each gene's distribution: were softmax(logits) the controls' law, its mean would move by effect / p, or as far
    as it can (`tilts` are bounded). The network has learned how far to trust that, gene by gene; at first it does not
    correct it.

    By the controls' law and the tilted one, the log odds that a cell answers are logit p + the sum over visible genes
    of the log ratio of both, a x - log Z for a tilt a. n genes that vary together say less than n times what one says,
    so the sum is divided by 1 + overlap * the sum of what the genes tell on average (a effect / p, the divergence of
    both laws: Jeffreys 1946). x is read at the target depth, and Z is that of cells of all depths: nearly the same.

    Source: Mixscape's two states (Papalexi et al. 2021); exponential tilts (Csiszar 1975).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.responders = nn.Parameter(torch.tensor(1.4))  # logit of the share that answers: at first 80 %
        self.weight = nn.Parameter(torch.tensor(0.0))  # log of what the evidence of a gene alone counts
        self.overlap = nn.Parameter(torch.tensor(-2.3))  # log of what the evidence of genes has in common
        self.trust = nn.Linear(dim, 1)

    def tilt(self, known: Known) -> Float[Tensor, "B G"]:
        """Returns the tilt of every gene's distribution in a cell that answers."""
        return tilts(known.shares, known.values, known.effect / self.responders.sigmoid())

    def forward(self, logits: Float[Tensor, "... K"], h: Float[Tensor, "... D"],
                xt: Int[Tensor, "B S G"], log_depth: Float[Tensor, "B S"], known: Known, states: States | None,
                read: Read | None = None, tilt: Float[Tensor, "B G"] | None = None
               ) -> Float[Tensor, "... K"]:
        """Returns the logits of the mixture of both states, or of the state that `states` chooses for each cell.

        Logits and h are of all genes, or of those that are read. The tilt follows from what is known: None makes it.
        """
        tilt = self.tilt(known) if tilt is None else tilt
        odds = self.log_odds(xt, log_depth, known, tilt)            # (B, S)
        answers = None if states is None else states(odds)          # (B, S)
        by_gene = tilt[:, None, :, None]                            # (B, 1, G, 1)
        if read is not None:
            by_gene = read.rows(by_gene.expand(*xt.shape, 1))       # (n, 1), as all that follows
        step = by_gene * known.values                               # (B, 1, G, K)
        escaped = logits.float() + self.trust(h) * step             # (B, S, G, K)
        answered = escaped + step                                   # (B, S, G, K)
        if answers is not None:
            return torch.where(_by_cell(answers, read), answered, escaped)
        odds = _by_cell(odds, read)
        one, other = F.logsigmoid(odds), F.logsigmoid(-odds)
        return torch.logaddexp(one + answered.log_softmax(-1), other + escaped.log_softmax(-1))

    def log_odds(self, xt: Int[Tensor, "B S G"], log_depth: Float[Tensor, "B S"], known: Known,
                 tilt: Float[Tensor, "B G"]) -> Float[Tensor, "B S"]:
        """Returns the log odds that each cell answers, as far as its visible genes tell; without any, logit p."""
        visible = (xt < len(known.values)).to(tilt.dtype)           # (B, S, G)
        worth = F.pad(known.values.expm1(), (0, 1))[xt] * (-log_depth * known.counted).exp()[..., None]
        log_z = (known.shares.log() + tilt[..., None] * known.values).logsumexp(-1).to(tilt.dtype)  # (B, G)
        log_ratio = (visible * (worth.log1p() * tilt[:, None] - log_z[:, None])).sum(-1)
        told = (visible * (tilt * known.effect)[:, None]).sum(-1) / self.responders.sigmoid()
        return self.responders + self.weight.exp() * log_ratio / (1 + self.overlap.exp() * told)


def _by_cell(x: Tensor, read: Read | None) -> Tensor:
    """A number of each cell, for its genes or for what is read of them."""
    return x[..., None, None] if read is None else x.flatten()[read.cell, None]


def drawn_states(generator: torch.Generator) -> States:
    """Returns a choice of states for `CDT.forward`: each cell answers with the probability that its odds give.

    In sampling, genes that are revealed together then share a state, and vary together.
    """
    return lambda odds: torch.rand(odds.shape, generator=generator).to(odds.device) < odds.sigmoid()
