"""The Conditional Diffusion Transformer: partly masked cells in, logits over expression bins for every gene out."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cdt_lite.errors import CDTError
from cdt_lite.model.config import ModelConfig
from cdt_lite.model.control_set import ControlSetEncoder
from cdt_lite.model.layers import MLP, MultiQueryAttention, Residual, token_rank
from cdt_lite.model.mean_effect import MeanEffect
from cdt_lite.model.perturbation import Perturbation, PerturbationEmbedding
from cdt_lite.model.v1 import TimeEmbedding


class Block(nn.Module):
    """Self-attention among genes, cross-attention to the controls, MLP; each a residual step."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        modulated = config.modulation == "adaln"
        self.self_attention = Residual(config.dim, MultiQueryAttention(config.dim, config.n_head), modulated)
        self.cross_attention = Residual(
            config.dim, MultiQueryAttention(config.dim, config.n_head, config.control_set_dim_out), modulated)
        self.mlp = Residual(config.dim, MLP(config.dim, config.ffn_mult * config.dim, config.dim), modulated)

    def forward(self, h: Float[Tensor, "B S G D"], modulation: Float[Tensor, "B S 9 D"] | None,
                memory: Float[Tensor, "B C M"] | None) -> Float[Tensor, "B S G D"]:
        """Updates the residual stream h."""
        by_step = (None, None, None) if modulation is None else modulation.chunk(3, dim=-2)
        h = self.self_attention(h, by_step[0])
        if memory is not None:
            h = self.cross_attention(h, by_step[1], memory)
        return self.mlp(h, by_step[2])


class Embedding(nn.Module):
    """The input at each position: its token, which gene it is, and what is known about that gene."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_bins = config.n_bins
        self.token = nn.Embedding(config.vocab_size, config.dim)
        self.rank = MLP(1, config.dim, config.dim) if config.ordinal_input else None
        if config.identity == "position":
            self.position = nn.Parameter(torch.zeros(1, config.n_genes, config.dim))
        else:
            self.identity = nn.Linear(config.gene_embed_dim, config.dim, bias=False)
        self.target_flag = nn.Parameter(torch.zeros(config.dim)) if config.target_flag else None
        self.statistics = ControlStatistics(config) if config.control_statistics else None
        self.effect = MeanEffect(config) if config.mean_effect else None
        self.summary = CellSummary(config) if config.cell_summary else None

    def table(self) -> Float[Tensor, "V D"]:
        """Returns the vector of every token id: its embedding, plus an MLP of its rank among the bins."""
        if self.rank is None:
            return self.token.weight
        ids = torch.arange(self.n_bins + 1, device=self.token.weight.device)
        is_bin = (ids < self.n_bins)[:, None]
        return self.token.weight + self.rank(token_rank(ids, self.n_bins)[:, None].to(self.token.weight.dtype)) * is_bin

    def forward(self, xt: Int[Tensor, "B S G"], gene_ids: Int[Tensor, " G"], gene_vectors: Float[Tensor, "G E"] | None,
                perturbation: Perturbation, ranks: Float[Tensor, "B C G"] | None) -> Float[Tensor, "B S G D"]:
        """Adds the parts up. `ranks` are the controls' token ranks, None in the unconditional mode."""
        known = self.position[:, : xt.shape[-1]] if gene_vectors is None else self.identity(gene_vectors)[None]
        if self.target_flag is not None:
            known = known + (gene_ids == perturbation.target[:, None])[..., None] * self.target_flag
        if self.statistics is not None and ranks is not None:
            known = known + self.statistics(ranks)
        if self.effect is not None:
            known = known + self.effect(perturbation, gene_ids)
        h = torch.nn.functional.embedding(xt, self.table()) + known[:, None]
        if self.summary is None or gene_vectors is None:
            return h
        own = token_rank(xt, self.n_bins).to(h.dtype)
        return h + self.summary(own, xt < self.n_bins, gene_vectors, ranks)


class CDT(nn.Module):
    """A masked-diffusion transformer over binned expression, conditioned on a perturbation and on control cells.

    Args:
        config: Sizes and switches, e.g. `PRESETS["lite"].model`.
        seed: Seed of the initial weights. Gene rows that training never touches can be made again from it.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.gene_table = nn.Embedding(config.n_total_genes, config.gene_embed_dim)
        self.embed = Embedding(config)
        self.time = None if config.time_input == "none" else TimeEmbedding(config)
        self.perturbation = PerturbationEmbedding(config)
        self.depth = MLP(1, config.dim, config.dim) if config.depth_input else None
        self.modulation = nn.Linear(config.dim, 9 * config.dim) if config.modulation == "adaln" else None
        self.control_set = ControlSetEncoder(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.n_logits)
        self.trust = nn.Linear(config.dim, 1) if config.mean_effect else None
        self.recompute = False  # activation checkpointing: less memory, one more forward pass
        self.initialise(seed)

    def initialise(self, seed: int) -> None:
        """Sets every weight, once: Linear N(0, 1/fan-in), gates zero, tables N(0, 1) (v1: N(0, 0.02^2)).

        Tokens are added to what tells positions apart, so both start equally large: else a cell's values drown in it.
        """
        if self.head.weight.is_meta:
            return
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.gene_table.weight, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.perturbation.sign.weight, generator=generator)
        by_number = self.config.identity == "position"
        nn.init.normal_(self.embed.token.weight, std=0.02 if by_number else 1.0, generator=generator)
        if by_number:
            nn.init.normal_(self.embed.position, std=0.02, generator=generator)
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
        if self.trust is not None:
            nn.init.zeros_(self.trust.weight)

    def forward(self, xt: Int[Tensor, "B S G"], t: Float[Tensor, "B S"], perturbation: Perturbation,
                controls: Int[Tensor, "B C G"] | None = None, gene_ids: Int[Tensor, " G"] | None = None,
                log_depth: Float[Tensor, "B S"] | None = None) -> Float[Tensor, "B S G logits"]:
        """Predicts, for every gene of every cell, how likely each expression bin is.

        Args:
            xt: Tokens, some of them [MASK].
            t: How much is masked, in [0, 1]; 1 is all.
            perturbation: One a set; `Perturbation.none(B)` for the unconditional mode.
            controls: Tokens of the control cells; None leaves the controls out.
            gene_ids: Row of each position's gene in the gene table; by default 0..G-1.
            log_depth: log(counts in the cell / target depth); 0 where not given.

        Raises:
            CDTError: The cells do not fit the model's panel (v1).
        """
        gene_ids, vectors = self.genes(xt, gene_ids)
        memory, ranks = self.read_controls(controls, vectors)
        condition = self.condition(t, perturbation, log_depth)
        h = self.embed(xt, gene_ids, vectors, perturbation, ranks)
        h, modulation = self.inject(h, condition)
        for block in self.blocks:
            h = self.run(block, h, modulation, memory)
        h = self.norm(h)
        return self.head(h) if self.trust is None else self.head(h) + self.tilt(h, t, perturbation, gene_ids)

    def genes(self, xt: Tensor, gene_ids: Int[Tensor, " G"] | None) -> tuple[Tensor, Tensor | None]:
        """Returns the gene id of every position, and its vector (None in v1, which knows positions only)."""
        n_genes, config = xt.shape[-1], self.config
        if config.identity == "position" and n_genes > config.n_genes:
            raise CDTError(f"this model has {config.n_genes} positions, the cells {n_genes} genes: select a panel.")
        gene_ids = torch.arange(n_genes, device=xt.device) if gene_ids is None else gene_ids
        return gene_ids, self.gene_table(gene_ids) if config.identity == "gene" else None

    def read_controls(self, controls: Int[Tensor, "B C G"] | None, vectors: Float[Tensor, "G E"] | None
                      ) -> tuple[Tensor | None, Tensor | None]:
        """Returns the memory of the control set (B, C, M) and the controls' token ranks (B, C, G; None in v1)."""
        if controls is None:
            return None, None
        dtype, config = self.head.weight.dtype, self.config
        if config.control_input == "tokens":
            if controls.shape[-1] != config.n_genes:
                raise CDTError(f"the control encoder reads exactly {config.n_genes} genes, not {controls.shape[-1]}.")
            return self.control_set(controls.to(dtype), None), None
        ranks = token_rank(controls, config.n_bins).to(dtype)
        return self.control_set(ranks, self.gene_table.weight[:0] if vectors is None else vectors), ranks

    def condition(self, t: Float[Tensor, "B S"], perturbation: Perturbation, log_depth: Float[Tensor, "B S"] | None
                  ) -> Float[Tensor, "B S D"]:
        """Returns one vector a cell: time (where it is told) + perturbation + depth."""
        condition = self.perturbation(perturbation, self.gene_table)[:, None].expand(*t.shape, -1)
        if self.time is not None:
            condition = condition + self.time(t)
        if self.depth is not None:
            condition = condition + self.depth((torch.zeros_like(t) if log_depth is None else log_depth)[..., None])
        return condition

    def inject(self, h: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """Adds the condition to every position (v1), or turns it into shifts, scales and gates for every block."""
        if self.modulation is None:
            return h + condition[..., None, :], None
        return h, self.modulation(nn.functional.silu(condition)).unflatten(-1, (9, -1))

    def tilt(self, h: Tensor, t: Float[Tensor, "B S"], perturbation: Perturbation, gene_ids: Int[Tensor, " G"]
             ) -> Float[Tensor, "B S G logits"]:
        """Returns what moves each gene's distribution by the mean effect known of it: tilt times the value of each bin.

        At first all of it, or, told the time, half of it where the visible genes have told the rest; how far it can be
        trusted at each gene of each cell is then learned.
        """
        effect, trust = self.embed.effect, self.trust
        share = torch.ones_like(t) if self.time is None else (1 + t) / 2
        assert effect is not None and trust is not None  # the switch mean_effect is on
        tilt = effect.look_up(perturbation, gene_ids)[1][:, None, :, None] * (share[..., None, None] + trust(h))
        return nn.functional.pad(tilt * effect.values, (0, self.config.n_logits - self.config.n_bins))

    def run(self, block: nn.Module, *inputs: Tensor | None) -> Tensor:
        """Runs a block, keeping its activations or (with `recompute`) making them again in the backward pass."""
        return checkpoint(block, *inputs, use_reentrant=False) if self.recompute else block(*inputs)


RANK_SPREAD = 0.2  # of a gene's token ranks among like cells, roughly


class ControlStatistics(nn.Module):
    """What the controls say about each gene, at that gene's own position: mean token rank and share of non-zeros."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mlp = MLP(2, config.dim, config.dim)

    def forward(self, ranks: Float[Tensor, "B C G"]) -> Float[Tensor, "B G D"]:
        """Embeds the statistics over the C controls of each set."""
        return self.mlp(torch.stack([ranks.mean(1), (ranks > 0).to(ranks.dtype).mean(1)], dim=-1))


class CellSummary(nn.Module):
    """What the visible part of a cell says about its state, given back to every gene in that gene's own terms.

    state = MLP( sum over visible genes of (rank - centre) / RANK_SPREAD * u_g / sqrt(G) ), centre being the mean rank
    among the controls, or a learned one without controls; gene g receives w_g * state. u and w are linear in the gene
    vectors. Averaging attention over hundreds of genes finds the same sums, but many thousand steps later.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.control_set_dim_hidden
        self.centre = nn.Linear(config.gene_embed_dim, 1)
        self.read = nn.Linear(config.gene_embed_dim, width, bias=False)
        self.state = MLP(width, config.dim, config.dim)
        self.give = nn.Linear(config.gene_embed_dim, config.dim, bias=False)

    def forward(self, cells: Float[Tensor, "B S G"], visible: Bool[Tensor, "B S G"], vectors: Float[Tensor, "G E"],
                controls: Float[Tensor, "B C G"] | None) -> Float[Tensor, "B S G D"]:
        """Reads and gives. `cells` and `controls` are token ranks."""
        centre = self.centre(vectors).mT if controls is None else controls.mean(1, keepdim=True)
        departure = (cells - centre) / RANK_SPREAD * visible
        state = self.state(departure @ self.read(vectors) / math.sqrt(cells.shape[-1]))
        return self.give(vectors) * state[..., None, :]
