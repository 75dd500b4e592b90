"""The Conditional Diffusion Transformer: partly masked cells in, logits over expression bins for every gene out."""

import math
from typing import NamedTuple

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
from cdt_lite.model.mean_effect import Known, MeanEffect
from cdt_lite.model.perturbation import PartialPerturbationEmbedding, Perturbation
from cdt_lite.model.read import Conditioned, Read
from cdt_lite.model.response import Response, States

RANK_SPREAD = 0.2  # of a gene's token ranks among like cells, roughly


class Condition(NamedTuple):
    """All that a network makes of a condition, whatever the cells hold: the same in every step of sampling."""

    genes: Float[Tensor, "G E"]
    ranks: Float[Tensor, "B C G"] | None  # of the controls
    known: Known  # effects (B, G), and the controls' law
    tokens: Float[Tensor, "V D"]  # the vector of every token
    position: Float[Tensor, "B G D"]  # what a gene brings along
    modulation: Float[Tensor, "B S 9 D"]
    memory: Float[Tensor, "B C M"] | None
    tilt: Float[Tensor, "B G"] | None  # None: no effects are known


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
                controls: Int[Tensor, "B C G"] | None, gene_ids: Int[Tensor, " G"], log_depth: Float[Tensor, "B S"],
                states: States | None = None, read: Read | None = None, condition: Condition | None = None
               ) -> Float[Tensor, "... K"]:
        """Predicts, for every gene of every cell (B, S, G, K) or where it is read (n, K), how likely each bin is.

        Args:
            xt: Tokens, some of them [MASK].
            perturbation: One a set; `Perturbation.none(B)` for the unconditional mode.
            controls: Tokens of the control cells; None leaves the controls out.
            gene_ids: Row of each position's gene in the gene table.
            log_depth: log(counts in the cell / target depth).
            states: Chooses, by the log odds, which cells answer to their perturbation. None: what may be, is mixed.
            read: The positions that are asked for; None: all.
            condition: What `prepare` made of the same arguments; None: it is made here.
        """
        told = condition or self.prepare(perturbation, controls, gene_ids, log_depth)
        h = self.embed(xt, told.genes, told.known, told.ranks, told)  # (B, S, G, D)
        *first, last = self.blocks
        for block in first:
            h = block(h, told.modulation, told.memory)              # (B, S, G, D)
        h = last(h, told.modulation, told.memory, read)             # (B, S, G, D); with `read` (n, D) from here on
        h = self.norm(h)
        logits = self.head(h)
        if told.tilt is None:
            return logits
        return self.response(logits, h, xt, log_depth, told.known, states, read, told.tilt)

    def prepare(self, perturbation: Perturbation, controls: Int[Tensor, "B C G"] | None,
                gene_ids: Int[Tensor, " G"], log_depth: Float[Tensor, "B S"]) -> Condition:
        """Returns what does not depend on the cells' tokens; arguments as in `forward`."""
        genes, ranks = self.gene_table(gene_ids), self.ranks(controls)
        known = self.effect.look_up(perturbation, gene_ids)
        return Condition(
            genes, ranks, known, self.embed.table(), self.embed.position(genes, known, ranks),
            self.modulate(perturbation, log_depth), self.control_set(ranks, genes),
            None if self.effect.empty else self.response.tilt(known),  # empty before fine-tuning
        )

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
              states: States | None = None) -> Conditioned:
        """Returns the model with its condition filled in: xt -> logits.

        Without gradients the condition is prepared here, once: ask for another denoiser after the model has changed.
        """
        told = (perturbation, controls, gene_ids, log_depth)
        condition = None if torch.is_grad_enabled() else self.prepare(*told)
        return Conditioned(lambda xt, read: self(xt, *told, states, read, condition))

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
                memory: Float[Tensor, "B C M"] | None, read: Read | None = None) -> Float[Tensor, "... D"]:
        """Updates the residual stream h; with `read` only what is read of it is left, (n, D)."""
        first, second, third = modulation.chunk(3, dim=-2)
        h = self.self_attention(h, first, None, read)
        if memory is not None:
            h = self.cross_attention(h, second, memory, read)
        return self.mlp(h, third, None, read)


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

    def position(self, genes: Float[Tensor, "G E"], known: Known, ranks: Float[Tensor, "B C G"] | None
                ) -> Float[Tensor, "B G D"]:
        """Returns what a gene brings along in any cell of a set."""
        position = self.identity(genes)[None]                       # (1, G, D)
        if ranks is not None:
            position = position + self.statistics(ranks)            # (B, G, D)
        return position + self.effect(known.effect)                 # (B, G, D)

    def forward(self, xt: Int[Tensor, "B S G"], genes: Float[Tensor, "G E"], known: Known,
                ranks: Float[Tensor, "B C G"] | None, condition: Condition | None = None) -> Float[Tensor, "B S G D"]:
        """Adds the parts up. `ranks` are the controls' token ranks, None in the unconditional mode."""
        if condition is None:
            tokens, position = self.table(), self.position(genes, known, ranks)
        else:
            tokens, position = condition.tokens, condition.position
        h = F.embedding(xt, tokens) + position[:, None]             # (B, S, G, D)
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
