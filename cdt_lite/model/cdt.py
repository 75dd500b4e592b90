"""The Conditional Diffusion Transformer: partly masked cells in, logits over expression bins for every gene out."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cdt_lite.model.config import ModelConfig
from cdt_lite.model.layers import (
    MLP,
    ModulatedResidual,
    MultiQueryAttention,
    PostNormEncoderLayer,
    initialise_linears,
    token_rank,
)
from cdt_lite.model.mean_effect import Known, MeanEffect, tilts
from cdt_lite.model.perturbation import PartialPerturbationEmbedding, Perturbation

States = Callable[[Float[Tensor, "B S"]], Bool[Tensor, "B S"]]
RANK_SPREAD = 0.2  # of a gene's token ranks among like cells, roughly


class CDT(nn.Module):
    """A masked-diffusion transformer over binned expression, conditioned on a perturbation and on control cells.

    It is not told how much is masked: what is visible tells (RADD: Ou et al. 2024, arXiv:2406.03736).

    Args:
        config: Sizes, e.g. `PRESETS["lite"].model`.
        seed: Seed of the initial weights. Gene rows that training never touches can be made again from it.
    """

    fixed_panel = False  # any genes in any order: each is known by its vector

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.gene_table = nn.Embedding(config.n_total_genes, config.gene_embed_dim)
        self.embed = Embedding(config)
        self.perturbation = PartialPerturbationEmbedding(config)
        self.depth = MLP(1, config.dim, config.dim)  # of sequencing
        self.modulation = nn.Linear(config.dim, 9 * config.dim)  # shift, scale, gate of a block's three steps
        self.control_set = ControlSet(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.n_bins)
        self.response = Response(config.dim)
        self.initialise(seed)

    def forward(self, xt: Int[Tensor, "B S G"], perturbation: Perturbation,
                controls: Int[Tensor, "B C G"] | None, gene_ids: Int[Tensor, " G"],
                log_depth: Float[Tensor, "B S"], states: States | None = None) -> Float[Tensor, "B S G K"]:
        """Predicts, for every gene of every cell, how likely each expression bin is.

        Args:
            xt: Tokens, some of them [MASK].
            perturbation: One a set; `Perturbation.none(B)` for the unconditional mode.
            controls: Tokens of the control cells; None leaves the controls out.
            gene_ids: Row of each position's gene in the gene table.
            log_depth: log(counts in the cell / target depth).
            states: Chooses, by the log odds, which cells answer to their perturbation. None: what may be, is mixed.
        """
        genes = self.gene_table(gene_ids)                           # (G, E)
        ranks = self.ranks(controls)                                # (B, C, G) or None
        known = self.effect.look_up(perturbation, gene_ids)         # effects (B, G), and the controls' law
        h = self.embed(xt, genes, known, ranks)                     # (B, S, G, D)
        modulation = self.modulate(perturbation, log_depth)         # (B, S, 9, D)
        memory = self.control_set(ranks, genes)                     # (B, C, M) or None
        for block in self.blocks:
            h = block(h, modulation, memory)                        # (B, S, G, D)
        h = self.norm(h)                                            # (B, S, G, D)
        logits = self.head(h)                                       # (B, S, G, K)
        if self.effect.empty:  # before fine-tuning
            return logits
        return self.response(logits, h, xt, log_depth, known, states)  # (B, S, G, K)

    @property
    def effect(self) -> MeanEffect:
        """What is known of mean effects: the table that fine-tuning fills."""
        return self.embed.effect

    def ranks(self, controls: Int[Tensor, "B C G"] | None) -> Float[Tensor, "B C G"] | None:
        """Returns the controls' token ranks."""
        return None if controls is None else token_rank(controls, self.config.n_bins).to(self.head.weight.dtype)

    def modulate(self, perturbation: Perturbation, log_depth: Float[Tensor, "B S"]) -> Float[Tensor, "B S 9 D"]:
        """Returns shifts, scales and gates of every cell: what the perturbation and the depth ask of the blocks."""
        told = self.perturbation(perturbation, self.gene_table)[:, None]
        condition = told.expand(*log_depth.shape, -1) + self.depth(log_depth[..., None])
        return self.modulation(F.silu(condition)).unflatten(-1, (9, -1))

    def given(self, perturbation: Perturbation, controls: Int[Tensor, "B C G"] | None,
              gene_ids: Int[Tensor, " G"], log_depth: Float[Tensor, "B S"],
              states: States | None = None) -> Callable[[Tensor], Tensor]:
        """Returns the model with its condition filled in: xt -> logits."""
        return lambda xt: self(xt, perturbation, controls, gene_ids, log_depth, states)

    def initialise(self, seed: int) -> None:
        """Sets every weight, once: Linear N(0, 1/fan-in), gates zero, tables N(0, 1).

        Tokens are added to what tells positions apart, so both start equally large: else a cell's values drown in it.
        """
        if self.head.weight.is_meta:
            return
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.gene_table.weight, generator=generator)
        initialise_linears(self, generator)
        nn.init.normal_(self.perturbation.sign.weight, generator=generator)
        nn.init.normal_(self.embed.token.weight, generator=generator)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.response.trust.weight)


class Block(nn.Module):
    """Self-attention among genes, cross-attention to the controls, MLP; each a residual step that is modulated."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, heads = config.dim, config.n_head
        self.self_attention = ModulatedResidual(dim, MultiQueryAttention(dim, heads))
        self.cross_attention = ModulatedResidual(dim, MultiQueryAttention(dim, heads, config.control_set_dim_out))
        self.mlp = ModulatedResidual(dim, MLP(dim, config.ffn_mult * dim, dim))

    def forward(self, h: Float[Tensor, "B S G D"], modulation: Float[Tensor, "B S 9 D"],
                memory: Float[Tensor, "B C M"] | None) -> Float[Tensor, "B S G D"]:
        """Updates the residual stream h."""
        first, second, third = modulation.chunk(3, dim=-2)
        h = self.self_attention(h, first)
        if memory is not None:
            h = self.cross_attention(h, second, memory)
        return self.mlp(h, third)


class Embedding(nn.Module):
    """The input at each position: which gene it is, what is known about that gene, its token, and the cell around it.

    What is known: what the controls say, and the perturbation's mean effect.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_bins = config.n_bins
        self.token = nn.Embedding(config.vocab_size, config.dim)
        self.rank = MLP(1, config.dim, config.dim)
        self.identity = nn.Linear(config.gene_embed_dim, config.dim, bias=False)
        self.statistics = ControlStatistics(config)
        self.effect = MeanEffect(config)
        self.summary = CellSummary(config)

    def table(self) -> Float[Tensor, "V D"]:
        """Returns the vector of every token id: its embedding, plus an MLP of its rank among the bins."""
        ids = torch.arange(self.n_bins + 1, device=self.token.weight.device)
        is_bin = (ids < self.n_bins)[:, None]
        rank = token_rank(ids, self.n_bins)[:, None].to(self.token.weight.dtype)
        return self.token.weight + self.rank(rank) * is_bin

    def forward(self, xt: Int[Tensor, "B S G"], genes: Float[Tensor, "G E"], known: Known,
                ranks: Float[Tensor, "B C G"] | None) -> Float[Tensor, "B S G D"]:
        """Adds the parts up. `ranks` are the controls' token ranks, None in the unconditional mode."""
        position = self.identity(genes)[None]                       # (1, G, D)
        if ranks is not None:
            position = position + self.statistics(ranks)            # (B, G, D)
        position = position + self.effect(known.effect)             # (B, G, D)
        h = F.embedding(xt, self.table()) + position[:, None]       # (B, S, G, D)
        own = token_rank(xt, self.n_bins).to(h.dtype)               # (B, S, G)
        return h + self.summary(own, xt < self.n_bins, genes, ranks)  # (B, S, G, D)


class ControlStatistics(nn.Module):
    """What the controls say about each gene, at that gene's own position: mean token rank and share of non-zeros."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mlp = MLP(2, config.dim, config.dim)

    def forward(self, ranks: Float[Tensor, "B C G"]) -> Float[Tensor, "B G D"]:
        """Embeds the statistics over the C controls of each set."""
        seen = (ranks > 0).to(ranks.dtype)
        return self.mlp(torch.stack([ranks.mean(1), seen.mean(1)], dim=-1))


class CellSummary(nn.Module):
    """What the visible part of a cell says about its state, given back to every gene in that gene's own terms.

    state = MLP( sum over visible genes of (rank - centre) / RANK_SPREAD * read(g) / sqrt(G) ), centre being the mean
    rank among the controls, or a learned one without controls; gene g receives give(g) * state. read and give are
    linear in the gene vectors. Attention averaged over hundreds of genes finds the same sums many thousand steps later.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.control_set_dim_hidden
        self.centre = nn.Linear(config.gene_embed_dim, 1)
        self.read = nn.Linear(config.gene_embed_dim, width, bias=False)
        self.state = MLP(width, config.dim, config.dim)
        self.give = nn.Linear(config.gene_embed_dim, config.dim, bias=False)

    def forward(self, cells: Float[Tensor, "B S G"], visible: Bool[Tensor, "B S G"],
                genes: Float[Tensor, "G E"], controls: Float[Tensor, "B C G"] | None
               ) -> Float[Tensor, "B S G D"]:
        """Reads and gives. `cells` and `controls` are token ranks."""
        centre = self.centre(genes).mT if controls is None else controls.mean(1, keepdim=True)
        departure = (cells - centre) / RANK_SPREAD * visible
        state = self.state(departure @ self.read(genes) / math.sqrt(cells.shape[-1]))
        return self.give(genes) * state[..., None, :]


class ControlSet(nn.Module):
    """Encodes C control cells into C memory vectors that every block reads, whatever the order of the cells.

    Each cell is the rank-weighted sum of its genes' vectors, so any panel in any order will do.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.control_set_dim_hidden
        self.gene = nn.Linear(config.gene_embed_dim, hidden, bias=False)
        self.norm = nn.LayerNorm(hidden)
        self.layers = nn.ModuleList()
        for _ in range(config.control_set_encoder_layers):
            layer = PostNormEncoderLayer(hidden, config.control_set_n_head, config.control_set_dropout)
            self.layers.append(layer)
        self.out = nn.Linear(hidden, config.control_set_dim_out)

    def forward(self, ranks: Float[Tensor, "B C G"] | None, genes: Float[Tensor, "G E"]
               ) -> Float[Tensor, "B C M"] | None:
        """Encodes each set from its token ranks; no controls, no memory."""
        if ranks is None:
            return None
        cells = self.norm(ranks @ self.gene(genes) / math.sqrt(ranks.shape[-1]))
        for layer in self.layers:
            cells = layer(cells)
        return self.out(cells)


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

    def forward(self, logits: Float[Tensor, "B S G K"], h: Float[Tensor, "B S G D"], xt: Int[Tensor, "B S G"],
                log_depth: Float[Tensor, "B S"], known: Known, states: States | None) -> Float[Tensor, "B S G K"]:
        """Returns the logits of the mixture of both states, or of the state that `states` chooses for each cell."""
        tilt = tilts(known.shares, known.values, known.effect / self.responders.sigmoid())  # (B, G)
        odds = self.log_odds(xt, log_depth, known, tilt)            # (B, S)
        step = tilt[:, None, :, None] * known.values                # (B, 1, G, K)
        escaped = logits.float() + self.trust(h) * step             # (B, S, G, K)
        answered = escaped + step                                   # (B, S, G, K)
        if states is not None:
            return torch.where(states(odds)[..., None, None], answered, escaped)
        odds = odds[..., None, None]
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


def drawn_states(generator: torch.Generator) -> States:
    """Returns a choice of states for `CDT.forward`: each cell answers with the probability that its odds give.

    In sampling, genes that are revealed together then share a state, and vary together.
    """
    return lambda odds: torch.rand(odds.shape, generator=generator).to(odds.device) < odds.sigmoid()
