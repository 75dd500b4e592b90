"""The original document's system, whole and apart: its network, its masks, its sampler, defects included.

What the notebooks teach by it: it trains at low mask ratios and samples from fully masked cells; one ratio serves a
whole batch; the timestep that it is told is random; [MASK] is among its answers; controls are raw token ids.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cdt_lite.errors import CDTError
from cdt_lite.model.config import ModelConfig
from cdt_lite.model.diffusion import Part, draw_by, hide, read_loss
from cdt_lite.model.layers import MLP, MultiQueryAttention, PostNormEncoderLayer, Residual, initialise_linears
from cdt_lite.model.perturbation import Perturbation, PerturbationEmbedding
from cdt_lite.model.read import Conditioned, Read, read_at

N_TIMESTEPS = 10
MASK_RATIO = 0.3  # the largest mask probability, at the last timestep
COSINE_OFFSET = 0.008
PRETRAIN_RATIO = 0.5  # before Beta(2, 5) in pretraining
CURRICULUM = (0.3, 0.6, 0.9, 100_000)  # of fine-tuning: start, gain, ceiling, steps
BETA_MEAN = 2 / 7  # of Beta(2, 5), the law of mask ratios


def mask_probabilities() -> Float[Tensor, " T"]:
    """Returns the mask probability at each of T timesteps: 1 - cosine alpha-bar(t / T), scaled to end at MASK_RATIO.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17; the original then rescales, so t / T never reaches 1.
    """
    u = torch.arange(N_TIMESTEPS, dtype=torch.float64) / N_TIMESTEPS
    alpha_bar = torch.cos((u + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2) ** 2
    p = 1 - alpha_bar / alpha_bar[0]
    return p / p[-1] * MASK_RATIO


def expected_reveals(n_genes: int) -> Float[Tensor, " T_1"]:
    """Returns how many genes the sampler reveals, in expectation, at each step from the last timestep down to 1."""
    p = mask_probabilities().flip(0)
    still_masked = torch.cumprod(torch.cat([torch.ones(1, dtype=p.dtype), p[1:] / p[:-1]]), 0)
    return n_genes * (still_masked[:-1] - still_masked[1:])


def curriculum_ratio(step: int) -> float:
    """Returns the fine-tuning mask ratio at a step: min(0.9, 0.3 + 0.6 * step / 100,000)."""
    start, gain, ceiling, steps = CURRICULUM
    return min(ceiling, start + gain * step / steps)


def beta_masks(shape: tuple[int, ...], generator: torch.Generator, stage: str = "finetune", step: int = 0
              ) -> Bool[Tensor, "B S G"]:
    """Draws which genes are hidden in training: one ratio for the whole batch, a factor times Beta(2, 5)."""
    factor = PRETRAIN_RATIO if stage == "pretrain" else curriculum_ratio(step)
    gamma = torch._standard_gamma(torch.tensor([2.0, 5.0]), generator=generator)  # Beta(2, 5) from two Gammas
    ratio = factor * gamma[0] / gamma.sum()
    return torch.rand(shape, generator=generator) < ratio


class V1(nn.Module):
    """The original's network: genes known by position, the condition added once, controls read as token ids.

    Args:
        config: Sizes, e.g. `PRESETS["v1"].model`.
        seed: Seed of the initial weights.
    """

    fixed_panel = True  # positions are numbers: another panel, or another order, is another model
    effect = None  # it has no table of mean effects

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.gene_table = nn.Embedding(config.n_total_genes, config.gene_embed_dim)
        self.embed = TokenAndPosition(config)
        self.time = TimeEmbedding(config.dim)
        self.perturbation = PerturbationEmbedding(config)
        self.control_set = TokenControlSet(config)
        self.blocks = nn.ModuleList(V1Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.vocab_size)
        self.initialise(seed)

    def forward(self, xt: Int[Tensor, "B S G"], t: Float[Tensor, "B S"], perturbation: Perturbation,
                controls: Int[Tensor, "B C G"] | None, read: Read | None = None,
                memory: Float[Tensor, "B C M"] | None = None) -> Float[Tensor, "... V"]:
        """Predicts, for every gene of every cell or where it is read, how likely each token is, [MASK] among them.

        Args:
            xt: Tokens, some of them [MASK].
            t: Timestep / (T - 1), in [0, 1].
            perturbation: One a set; `Perturbation.none(B)` for the unconditional mode.
            controls: Tokens of the control cells; None leaves the controls out.
            read: The positions that are asked for, then logits are (n, V); None: all, (B, S, G, V).
            memory: What the control encoder makes of the controls; None: it is made here.

        Raises:
            CDTError: The cells do not fit the model's panel.
        """
        if memory is None:
            memory = self.control_set(controls)                     # (B, C, M), or None
        condition = self.perturbation(perturbation, self.gene_table)[:, None] + self.time(t)
        h = self.embed(xt) + condition[..., None, :]                # (B, S, G, D)
        *first, last = self.blocks
        for block in first:
            h = block(h, memory)                                    # (B, S, G, D)
        return self.head(self.norm(last(h, memory, read)))          # (B, S, G, V), or (n, V)

    def given(self, perturbation: Perturbation, controls: Int[Tensor, "B C G"] | None,
              gene_ids: Int[Tensor, " G"], log_depth: Float[Tensor, "B S"],
              states: Callable[[Tensor], Tensor] | None = None) -> Conditioned:
        """Returns the model with its condition filled in: (xt, t) -> logits; t is by default the share hidden in xt.

        Depth and states of cells make no difference to it. Without gradients the controls are encoded here, once.
        """
        memory = None if torch.is_grad_enabled() else self.control_set(controls)

        def logits(xt: Tensor, t: Tensor | None = None, *, read: Read | None) -> Tensor:
            hidden = (xt == self.config.n_bins).float().mean(-1)
            return self(xt, hidden if t is None else t, perturbation, controls, read, memory)

        return Conditioned(logits)

    def initialise(self, seed: int) -> None:
        """Sets every weight, once: Linear N(0, 1/fan-in), tables N(0, 1), tokens and positions N(0, 0.02^2)."""
        if self.head.weight.is_meta:
            return
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.gene_table.weight, generator=generator)
        initialise_linears(self, generator)
        nn.init.normal_(self.perturbation.sign.weight, generator=generator)
        nn.init.normal_(self.embed.token.weight, std=0.02, generator=generator)
        nn.init.normal_(self.embed.position, std=0.02, generator=generator)


class V1Block(nn.Module):
    """Self-attention among genes, cross-attention to the controls, MLP; each a pre-norm residual step."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, heads = config.dim, config.n_head
        self.self_attention = Residual(dim, MultiQueryAttention(dim, heads))
        self.cross_attention = Residual(dim, MultiQueryAttention(dim, heads, config.control_set_dim_out))
        self.mlp = Residual(dim, MLP(dim, config.ffn_mult * dim, dim))

    def forward(self, h: Float[Tensor, "B S G D"], memory: Float[Tensor, "B C M"] | None,
                read: Read | None = None) -> Float[Tensor, "... D"]:
        """Updates the residual stream h; with `read` only what is read of it is left, (n, D)."""
        h = self.self_attention(h, None, read)
        if memory is not None:
            h = self.cross_attention(h, memory, read)
        return self.mlp(h, None, read)


class TokenAndPosition(nn.Module):
    """The input at each position: its token's vector plus the position's own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.dim)
        self.position = nn.Parameter(torch.zeros(1, config.n_genes, config.dim))

    def forward(self, xt: Int[Tensor, "B S G"]) -> Float[Tensor, "B S G D"]:
        """Adds the two up. Raises CDTError for more genes than positions."""
        n_genes, n_positions = xt.shape[-1], self.position.shape[1]
        if n_genes > n_positions:
            raise CDTError(f"this model has {n_positions} positions, the cells {n_genes} genes: select a panel.")
        return self.token(xt) + self.position[:, None, :n_genes]


class TimeEmbedding(nn.Module):
    """The timestep 0..T-1 as a vector: sines and cosines at dim / 2 frequencies, 1 to 1/10,000; Linear, GELU, Linear.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.mlp = MLP(dim, dim, dim)

    def forward(self, t: Float[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """Embeds t = timestep / (T - 1)."""
        half = self.dim // 2
        frequency = torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device) / half)
        angle = t[..., None] * float(N_TIMESTEPS - 1) * frequency
        return self.mlp(torch.cat([angle.sin(), angle.cos()], dim=-1))


class TokenControlSet(nn.Module):
    """Encodes C control cells into C memory vectors: an MLP over the raw token ids of a fixed panel, then encoders."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.control_set_dim_hidden
        self.n_genes = config.n_genes
        self.cell = MLP(config.n_genes, hidden, hidden)
        self.layers = nn.ModuleList()
        for _ in range(config.control_set_encoder_layers):
            layer = PostNormEncoderLayer(hidden, config.control_set_n_head, config.control_set_dropout)
            self.layers.append(layer)
        self.out = nn.Linear(hidden, config.control_set_dim_out)

    def forward(self, controls: Int[Tensor, "B C G"] | None) -> Float[Tensor, "B C M"] | None:
        """Encodes each set; no controls, no memory. Raises CDTError for another panel than it was made for."""
        if controls is None:
            return None
        if controls.shape[-1] != self.n_genes:
            raise CDTError(f"the control encoder reads exactly {self.n_genes} genes, not {controls.shape[-1]}.")
        cells = self.cell(controls.to(self.out.weight.dtype))
        for layer in self.layers:
            cells = layer(cells)
        return self.out(cells)


@dataclass(frozen=True)
class V1Diffusion:
    """The original's process: masks by Beta(2, 5), a timestep that says nothing, a sampler that flips coins.

    Args:
        mask_id: The id of [MASK].
    """

    mask_id: int

    def loss(self, denoise: Callable[..., Tensor], tokens: Int[Tensor, "B S G"], generator: torch.Generator,
             stage: str, step: int, part: Part | None = None) -> Float[Tensor, ""]:
        """Hides genes by the stage's law and returns the mean cross-entropy over hidden genes, nats per gene.

        Arguments as in `MaskedDiffusion.loss`.
        """
        first, n_sets = part or (0, len(tokens))
        own = slice(first, first + len(tokens))
        masks = beta_masks((n_sets, *tokens.shape[1:]), generator, stage, step)
        step_index = torch.randint(N_TIMESTEPS, masks.shape[:2], generator=generator)
        n_hidden = masks.sum(-1)
        mask = masks[own].to(tokens.device, non_blocking=True)
        t = (step_index[own] / (N_TIMESTEPS - 1)).to(tokens.device, non_blocking=True)
        read = Read.of(mask, n_hidden[own])
        logits = read_at(denoise, hide(tokens, mask, self.mask_id), read, t)
        return read_loss(logits, tokens, read, sum(n_hidden.flatten().tolist()))

    def sample_steps(self, denoise: Callable[..., Tensor], shape: tuple[int, int, int],
                     generator: torch.Generator, device: torch.device | str = "cpu"
                    ) -> Iterator[Int[Tensor, "B S G"]]:
        """Makes cells from nothing but masks, yielding the state after every step (the first state is all masked).

        At step t a hidden gene is revealed with probability 1 - p[t-1] / p[t]. The model may draw [MASK] itself, and
        then the gene stays hidden for good.
        """
        p = mask_probabilities()
        xt = torch.full(shape, self.mask_id, device=device)
        hidden = torch.ones(shape, dtype=torch.bool)
        yield xt
        for step in range(N_TIMESTEPS - 1, 0, -1):
            t = torch.full(shape[:2], step / (N_TIMESTEPS - 1), device=device)
            now = hidden & (torch.rand(shape, generator=generator) < 1 - p[step - 1] / p[step])
            here, uniform = now.to(device), torch.rand(shape, generator=generator)
            logits = read_at(denoise, xt, Read.of(here, now.sum(-1)), t)
            xt = xt.masked_scatter(here, draw_by(logits, uniform[now]))
            hidden = hidden & ~now
            yield xt

    def n_steps(self, n_genes: int, steps: int | None = None) -> int:
        """Returns how many steps sampling takes: always as many. Raises CDTError for a number of steps."""
        if steps is not None:
            raise CDTError(f"v1's sampler takes its {N_TIMESTEPS - 1} timesteps, not {steps} steps: leave steps out")
        return N_TIMESTEPS - 1

    @torch.no_grad()
    def sample(self, denoise: Callable[..., Tensor], shape: tuple[int, int, int], generator: torch.Generator,
               device: torch.device | str = "cpu", steps: int | None = None) -> Int[Tensor, "B S G"]:
        """Makes cells, (B, S, G) tokens; some may still be [MASK]. Raises CDTError for a number of steps."""
        self.n_steps(shape[-1], steps)
        return deque(self.sample_steps(denoise, shape, generator, device), maxlen=1)[0]
