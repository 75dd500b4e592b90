"""Other networks and processes than ours, each with one idea more, to be tried by `benchmarks.trials`."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from cdt_lite.model import CDT, MaskedDiffusion
from cdt_lite.model.cdt import CellSummary, Embedding
from cdt_lite.model.config import ModelConfig
from cdt_lite.model.diffusion import Denoiser, draw_by, draw_numbers, hide, random_turns, read_loss
from cdt_lite.model.layers import MLP, token_rank
from cdt_lite.model.read import Conditioned, Read, read_at
from cdt_lite.model.response import Response, States

N_FACTORS = 8
MANY_STEPS = 64
SWEEPS, REDRAWN = 4, 0.25  # of the Gibbs corrector: how often, and what share of the genes


class MatchedEmbedding(Embedding):
    """An embedding that shows, where a gene is hidden, its value in a control cell that stands for this cell."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.shown = nn.Linear(config.dim, config.dim, bias=False)
        self.other = CellSummary(config)  # of the control's hidden genes
        self.matched: Tensor | None = None  # (B, S, G) tokens of the control cells

    def forward(self, xt: Tensor, genes: Tensor, known: Any, ranks: Tensor | None, condition: Any = None) -> Tensor:
        """Adds what the matched control shows."""
        h = super().forward(xt, genes, known, ranks, condition)
        if self.matched is None:
            return h
        hidden = xt >= self.n_bins
        table = self.table() if condition is None else condition.tokens
        h = h + hidden[..., None] * self.shown(F.embedding(self.matched, table))
        own = token_rank(self.matched, self.n_bins).to(h.dtype)
        return h + self.other(own, hidden, genes, ranks)


class Matched(CDT):
    """Hidden genes show a control cell's value in place of nothing (X-Cell's way).

    In training every cell is paired with one of as many controls of its replicate, so that all pairs together are as
    near as can be (optimal transport, in token ranks). In sampling each cell begins with a control drawn at random.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__(config, seed)
        self.embed = MatchedEmbedding(config)
        self.controls: Tensor | None = None
        self.initialise(seed)

    def given(self, perturbation: Any, controls: Tensor | None, gene_ids: Tensor, log_depth: Tensor,
              states: States | None = None) -> Conditioned:
        """Fills the condition in, with controls at random: `pair` gives better ones."""
        self.controls, n_cells = controls, log_depth.shape[1]
        matched = None
        if controls is not None:
            n = controls.shape[1]
            repeats = -(-n_cells // n)
            chosen = torch.stack([torch.cat([torch.randperm(n) for _ in range(repeats)])[:n_cells] for _ in controls])
            matched = torch.take_along_dim(controls, chosen[..., None], dim=1)
        denoise = super().given(perturbation, controls, gene_ids, log_depth, states)

        def logits(xt: Tensor, read: Read | None) -> Tensor:
            self.embed.matched = matched if self.paired is None else self.paired
            return denoise.logits(xt, read=read)

        self.paired: Tensor | None = None
        return Conditioned(logits)

    def pair(self, tokens: Int[Tensor, "B S G"]) -> None:
        """Pairs cells with the controls of the denoiser that was made last."""
        if self.controls is None:
            return
        n_bins = self.config.n_bins
        cells, others = token_rank(tokens, n_bins), token_rank(self.controls[:, : tokens.shape[1]], n_bins)
        pairs = [linear_sum_assignment(cost)[1] for cost in torch.cdist(cells, others).numpy()]
        self.paired = torch.stack([shown[pair] for shown, pair in zip(self.controls, pairs, strict=True)])


@dataclass(frozen=True)
class MatchedDiffusion(MaskedDiffusion):
    """The process of `Matched`."""

    model: Matched

    def loss(self, denoise: Denoiser, tokens: Tensor, *rest: Any) -> Tensor:
        """Pairs cells with controls first."""
        self.model.pair(tokens)
        return super().loss(denoise, tokens, *rest)


class Factors(CDT):
    """The genes of a cell share a factor, one of a few: given it they are independent, and each is tilted by it.

    Which factor it is, is told by the visible genes; in sampling it is drawn in every step.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__(config, seed)
        width = config.control_set_dim_hidden
        self.tilt_by = nn.Linear(config.dim, N_FACTORS)
        self.look = nn.Linear(config.gene_embed_dim, width, bias=False)
        self.which = MLP(width, config.dim, N_FACTORS)
        self.initialise(seed)

    def forward(self, xt: Tensor, perturbation: Any, controls: Tensor | None, gene_ids: Tensor, log_depth: Tensor,
                states: States | None = None, read: Read | None = None, condition: Any = None) -> Tensor:
        """Returns the mixture of all factors; in sampling (states), of the one that is drawn for each cell."""
        by_factor, odds = self.factors(xt, perturbation, controls, gene_ids, log_depth, states, read, condition)
        odds = odds[:, :, None] if read is None else read.of_cell(odds)  # (..., F)
        if states is not None:
            drawn = torch.multinomial(odds.exp().flatten(0, -2), 1).view(*odds.shape[:-1], 1)
            if read is not None:
                per_cell = torch.zeros(read.n_cells, dtype=torch.long)
                per_cell[read.cell] = drawn[:, 0]
                drawn = per_cell[read.cell][:, None]
            return torch.take_along_dim(by_factor, drawn[..., None], dim=-2).squeeze(-2)
        return (by_factor + odds[..., None]).logsumexp(-2)

    def factors(self, xt: Tensor, perturbation: Any, controls: Tensor | None, gene_ids: Tensor, log_depth: Tensor,
                states: States | None, read: Read | None, condition: Any) -> tuple[Tensor, Tensor]:
        """Returns log p(bin | factor), (..., F, K), and log p(factor | what is visible), (B, S, F)."""
        told = condition or self.prepare(perturbation, controls, gene_ids, log_depth)
        h = self.embed(xt, told.genes, told.known, told.ranks, told)
        *first, last = self.blocks
        for block in first:
            h = block(h, told.modulation, told.memory)
        h = self.norm(last(h, told.modulation, told.memory, read))
        logits = self.head(h)
        if told.tilt is not None:
            logits = self.response(logits, h, xt, log_depth, told.known, states, read, told.tilt)
        ids = torch.arange(logits.shape[-1])
        step = self.tilt_by(h)[..., None] * token_rank(ids, self.config.n_bins).to(h.dtype)
        centre = told.genes.new_zeros(()) if told.ranks is None else told.ranks.mean(1, keepdim=True)
        seen = (token_rank(xt, self.config.n_bins) - centre) * (xt < self.config.n_bins)
        odds = self.which(seen @ self.look(told.genes) / math.sqrt(xt.shape[-1]) / 0.2)
        return (logits[..., None, :] + step).log_softmax(-1), odds.log_softmax(-1)

    def given(self, perturbation: Any, controls: Tensor | None, gene_ids: Tensor, log_depth: Tensor,
              states: States | None = None) -> Conditioned:
        """Fills the condition in, and keeps what the joint loss of a cell asks."""
        told = (perturbation, controls, gene_ids, log_depth)
        condition = None if torch.is_grad_enabled() else self.prepare(*told)
        self.ask = lambda xt, read: self.factors(xt, *told, None, read, condition)
        return Conditioned(lambda xt, read: self(xt, *told, states, read, condition))


@dataclass(frozen=True)
class FactorDiffusion(MaskedDiffusion):
    """The process of `Factors`: a cell's hidden genes are priced together."""

    model: Factors

    def loss(self, denoise: Denoiser, tokens: Tensor, generator: torch.Generator, stage: str, step: int,
             part: Any = None) -> Tensor:
        """Returns what the hidden genes of a cell cost together, nats a gene."""
        k = draw_numbers(tokens.shape, generator)
        read = Read.of(random_turns(tokens.shape, generator) < k[..., None], k)
        mask = torch.zeros(tokens.numel(), dtype=torch.bool).index_fill(0, read.at, True).view(tokens.shape)
        by_factor, odds = self.model.ask(hide(tokens, mask, self.mask_id), read)
        truth = tokens.flatten()[read.at]
        of_gene = torch.take_along_dim(by_factor, truth[:, None, None], -1)[..., 0]  # (n, F)
        of_cell = of_gene.new_zeros(read.n_cells, N_FACTORS).index_add(0, read.cell, of_gene)
        return -(of_cell + odds.flatten(0, 1)).logsumexp(-1).sum() / k.sum()


@dataclass(frozen=True)
class SamplerShares(MaskedDiffusion):
    """Hides as many genes in training as sampling does before one of its steps, each step alike."""

    def loss(self, denoise: Denoiser, tokens: Tensor, generator: torch.Generator, stage: str, step: int,
             part: Any = None) -> Tensor:
        """Returns the loss at the sampler's own shares of hidden genes."""
        revealed = torch.tensor([0, *self.counts(tokens.shape[-1])[:-1]]).cumsum(0)
        hidden = tokens.shape[-1] - revealed
        k = hidden[torch.randint(len(hidden), tokens.shape[:2], generator=generator)]
        mask = random_turns(tokens.shape, generator) < k[..., None]
        read = Read.of(mask, k)
        return read_loss(read_at(denoise, hide(tokens, mask, self.mask_id), read), tokens, read, int(k.sum()))


@dataclass(frozen=True)
class EarlySteps(MaskedDiffusion):
    """Reveals genes one by one first, and more and more of them later, in as many steps."""

    def counts(self, n_genes: int, steps: int | None = None) -> list[int]:
        """Returns how many genes each step reveals: geometrically more and more."""
        n = len(super().counts(n_genes, steps))
        up_to = torch.logspace(0, math.log10(n_genes), n).round().long().tolist()
        for i in range(1, n):
            up_to[i] = max(up_to[i], up_to[i - 1] + 1)
        return [b - a for a, b in zip([0, *up_to[:-1]], up_to, strict=True)]


@dataclass(frozen=True)
class MoreSteps(MaskedDiffusion):
    """Reveals the genes in more steps: fewer are drawn without knowing of each other."""

    def counts(self, n_genes: int, steps: int | None = None) -> list[int]:
        """Returns how many genes each step reveals."""
        return super().counts(n_genes, min(MANY_STEPS, n_genes))


@dataclass(frozen=True)
class Gibbs(MaskedDiffusion):
    """Hides some genes of every finished cell again, and draws them anew, several times."""

    @torch.no_grad()
    def sample(self, denoise: Denoiser, shape: tuple[int, int, int], generator: torch.Generator,
               device: Any = "cpu", steps: int | None = None) -> Float[Tensor, "B S G"]:
        """Makes cells and corrects them."""
        cells = super().sample(denoise, shape, generator, device, steps)
        n = round(REDRAWN * shape[-1])
        for _ in range(SWEEPS):
            mask = random_turns(shape, generator) < n
            read = Read.of(mask, torch.full(shape[:2], n))
            logits = read_at(denoise, hide(cells, mask, self.mask_id), read)[:, : self.mask_id]
            drawn = draw_by(logits, torch.rand(shape, generator=generator)[mask])
            cells = cells.masked_scatter(mask, drawn)
        return cells


class StateFirst(Response):
    """Draws whether a cell answers once, before any gene of it is drawn, and keeps to that."""

    def forward(self, logits: Tensor, h: Tensor, xt: Tensor, log_depth: Tensor, known: Any, states: States | None,
                read: Read | None = None, tilt: Tensor | None = None) -> Tensor:
        """Asks for a state where all genes are hidden, which is where sampling begins."""
        if states is None:
            return super().forward(logits, h, xt, log_depth, known, None, read, tilt)
        if (xt >= len(known.values)).all():
            self.drawn = states(self.log_odds(xt, log_depth, known, self.tilt(known)))
        return super().forward(logits, h, xt, log_depth, known, lambda odds: self.drawn, read, tilt)
