"""The masking process: how genes are hidden, what is learned, and how cells are made again from nothing but masks.

The objective and the samplers take any denoiser: a callable (xt (B, S, G), t (B, S)) -> logits (B, S, G, classes).
Losses are in nats per gene. t is the share of masked genes, 1 = fully masked.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from cdt_lite.errors import CDTError
from cdt_lite.model.config import DiffusionConfig
from cdt_lite.model.schedule import learned_counts

Denoiser = Callable[[Tensor, Tensor], Tensor]


def mask_probabilities(config: DiffusionConfig) -> Float[Tensor, " T"]:
    """Returns v1's mask probability at each of T timesteps: 1 - cosine alpha-bar(t / T), scaled to end at `mask_ratio`.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17; the original then rescales, so t / T never reaches 1.
    """
    s = config.cosine_offset
    u = torch.arange(config.n_timesteps, dtype=torch.float64) / config.n_timesteps
    alpha_bar = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    p = 1 - alpha_bar / alpha_bar[0]
    return p / p[-1] * config.mask_ratio


def v1_reveals(config: DiffusionConfig, n_genes: int) -> Float[Tensor, " T_1"]:
    """Returns how many genes v1's sampler reveals, in expectation, at each step from the last timestep down to 1."""
    p = mask_probabilities(config).flip(0)
    still_masked = torch.cumprod(torch.cat([torch.ones(1, dtype=p.dtype), p[1:] / p[:-1]]), 0)
    return n_genes * (still_masked[:-1] - still_masked[1:])


def reveal_counts(config: DiffusionConfig, n_genes: int) -> Int[Tensor, " n_steps"]:
    """Returns how many genes the fixed-count sampler reveals at each of its steps; they sum to n_genes, none is zero.

    cosine: a share 1 - cos(pi/2 * u) is known after a share u of the steps; uniform: u; geometric: counts grow evenly
    in ratio; learned: the cheapest one for the model's own loss curve (see `schedule.best_schedule`).
    """
    n_steps = min(config.sampling_steps, n_genes)
    if config.sampling_schedule == "learned":
        return torch.tensor(learned_counts(config.loss_curve, n_genes, n_steps))
    u = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64)
    known = {"cosine": 1 - torch.cos(u * math.pi / 2), "uniform": u,
             "geometric": (n_genes ** u - 1) / max(n_genes - 1, 1)}[config.sampling_schedule]
    total = (known * n_genes).round().long()
    for i in range(1, n_steps + 1):  # at least one gene a step, and enough left for the steps to come
        total[i] = total[i].clamp(int(total[i - 1]) + 1, n_genes - (n_steps - i))
    return total.diff()


def curriculum_ratio(config: DiffusionConfig, step: int) -> float:
    """Returns v1's fine-tuning mask ratio at a step: min(0.9, 0.3 + 0.6 * step / 100,000)."""
    start, gain, ceiling, steps = config.curriculum
    return min(ceiling, start + gain * step / steps)


@dataclass(frozen=True)
class Masked:
    """A noised batch: which genes are hidden, and the time that the denoiser is told."""

    mask: Bool[Tensor, "B S G"]
    t: Float[Tensor, "B S"]


def draw_masks(config: DiffusionConfig, shape: tuple[int, int, int], generator: torch.Generator,
               stage: str = "finetune", step: int = 0) -> Masked:
    """Draws which genes are hidden in training.

    `beta_batch` (v1): one ratio for the whole batch, 0.5 * Beta(2, 5) in pretraining, the curriculum times Beta(2, 5)
    in fine-tuning; every gene is hidden with that probability; the timestep is random and says nothing about the ratio.
    `uniform_batch` (default): k of G genes per cell, k uniform on 1..G, stratified over the batch; t = k / G.
    `uniform_cell`: the same draw; `masked_loss` then estimates the negative ELBO.

    Args:
        config: The law.
        shape: (B, S, G).
        generator: Source of randomness (CPU).
        stage: "pretrain" or "finetune": v1's law differs between them.
        step: Training step, for v1's curriculum.
    """
    n_sets, n_cells, n_genes = shape
    if config.mask_law == "beta_batch":
        factor = config.pretrain_mask_ratio if stage == "pretrain" else curriculum_ratio(config, step)
        gamma = torch._standard_gamma(torch.tensor([2.0, 5.0]), generator=generator)  # Beta(2, 5) from two Gammas
        ratio = factor * gamma[0] / gamma.sum()
        mask = torch.rand(shape, generator=generator) < ratio
        step_index = torch.randint(config.n_timesteps, (n_sets, n_cells), generator=generator)
        return Masked(mask, step_index / (config.n_timesteps - 1))
    n = n_sets * n_cells
    strata = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    k = (strata * n_genes).long().clamp(max=n_genes - 1).view(n_sets, n_cells) + 1
    order = torch.rand(shape, generator=generator).argsort(-1).argsort(-1)
    return Masked(order < k[..., None], k / n_genes)


def masked_loss(logits: Float[Tensor, "B S G classes"], tokens: Int[Tensor, "B S G"], mask: Bool[Tensor, "B S G"],
                law: str = "uniform_cell") -> Float[Tensor, ""]:
    """Returns the cross-entropy over hidden genes, nats per gene.

    `uniform_cell` averages within each cell over its own k hidden genes, then over cells: with k uniform this is an
    unbiased estimate of the negative ELBO per gene (MDLM, arXiv:2406.07524, eq. 10 with alpha = 1 - t; the 1/t weight
    is the division by k), which models are judged by. The other laws average over all hidden genes of the batch, as v1
    does: what presets are trained on. A model that knows nothing costs exactly log(classes) either way.
    """
    nll = F.cross_entropy(logits.flatten(0, 2), tokens.flatten().long(), reduction="none").view(mask.shape) * mask
    if law != "uniform_cell":
        return nll.sum() / mask.sum().clamp(min=1)
    return (nll.sum(-1) / mask.sum(-1).clamp(min=1)).mean()


def hide(tokens: Integer[Tensor, "B S G"], mask: Bool[Tensor, "B S G"], mask_id: int) -> Int[Tensor, "B S G"]:
    """Returns the tokens with [MASK] where `mask` is true."""
    return tokens.long().masked_fill(mask, mask_id)


@torch.no_grad()
def loss_curve(denoise: Denoiser, tokens: Int[Tensor, "B S G"], mask_id: int, generator: torch.Generator,
               shares: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)) -> Float[Tensor, " shares"]:
    """Returns H at several shares of hidden genes, nats per gene: the area under this curve is the NELBO per gene."""
    curve = []
    for share in shares:
        k = max(1, round(share * tokens.shape[-1]))
        mask = (torch.rand(tokens.shape, generator=generator).argsort(-1).argsort(-1) < k).to(tokens.device)
        t = torch.full(tokens.shape[:2], k / tokens.shape[-1], device=tokens.device)
        logits = denoise(hide(tokens, mask, mask_id), t)
        curve.append(masked_loss(logits, tokens, mask))
    return torch.stack(curve)


def guide(logits: Float[Tensor, "*cells classes"], unconditional: Float[Tensor, "*cells classes"], weight: float
          ) -> Float[Tensor, "*cells classes"]:
    """Returns guided log-probabilities: weight 1 is plain, 0 unconditional, above 1 exaggerates the condition."""
    return torch.lerp(unconditional.log_softmax(-1), logits.log_softmax(-1), weight)


def draw(logits: Float[Tensor, "*cells classes"], generator: torch.Generator) -> Int[Tensor, "*cells"]:
    """Draws one class per position (Gumbel-max, noise made on the CPU so that every device draws the same)."""
    uniform = torch.rand(logits.shape, generator=generator).clamp(min=1e-20).to(logits.device)
    return (logits.float() - (-uniform.log()).log()).argmax(-1)


def sample_steps(denoise: Denoiser, config: DiffusionConfig, shape: tuple[int, int, int], mask_id: int,
                 generator: torch.Generator, device: torch.device | str = "cpu") -> Iterator[Int[Tensor, "B S G"]]:
    """Makes cells from nothing but masks, yielding the state after every step (the first state is all masked).

    `fixed` (default): a set number of genes a step, in an order drawn beforehand or (`order="entropy"`) the ones that
    the model is surest of first; either way a gene's turn never depends on the value drawn for it. `v1`: at step t each
    hidden gene is revealed with probability 1 - p[t-1] / p[t]; the model may draw [MASK] itself, and then the gene
    stays hidden for good (kept as a lesson).

    Args:
        denoise: (xt, t) -> logits.
        config: Sampler, schedule and number of steps.
        shape: (B, S, G) of the cells to make.
        mask_id: The id of [MASK].
        generator: Source of randomness (CPU).
        device: Where the denoiser lives.
    """
    n_genes = shape[-1]
    xt = torch.full(shape, mask_id, device=device)
    yield xt
    if config.sampler == "v1":
        yield from _v1_steps(denoise, config, xt, generator)
        return
    turn = torch.rand(shape, generator=generator).argsort(-1).argsort(-1).to(device)
    known = 0
    for n in reveal_counts(config, n_genes).tolist():
        logits = denoise(xt, torch.full(shape[:2], 1 - known / n_genes, device=device))[..., :mask_id]
        if config.order == "entropy":
            turn = _surest_first(logits, xt == mask_id)
        now = (turn >= known) & (turn < known + n)
        xt = torch.where(now, draw(logits, generator), xt)
        known += n
        yield xt


def _surest_first(logits: Float[Tensor, "B S G K"], hidden: Bool[Tensor, "B S G"]) -> Int[Tensor, "B S G"]:
    """Turns of the genes, known ones first, then hidden ones by rising entropy. Drawn values play no part in it."""
    log_p = logits.float().log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return torch.where(hidden, entropy, -1.0).argsort(-1).argsort(-1)


def _v1_steps(denoise: Denoiser, config: DiffusionConfig, xt: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    p = mask_probabilities(config)
    hidden = torch.ones_like(xt, dtype=torch.bool)
    for step in range(config.n_timesteps - 1, 0, -1):
        t = torch.full(xt.shape[:2], step / (config.n_timesteps - 1), device=xt.device)
        drawn = draw(denoise(xt, t), generator)
        reveal = torch.rand(xt.shape, generator=generator).to(xt.device) < 1 - p[step - 1] / p[step]
        xt = torch.where(hidden & reveal, drawn, xt)
        hidden = hidden & ~reveal
        yield xt


@torch.no_grad()
def sample(denoise: Denoiser, config: DiffusionConfig, shape: tuple[int, int, int], mask_id: int,
           generator: torch.Generator, device: torch.device | str = "cpu") -> Int[Tensor, "B S G"]:
    """Makes cells and returns the last state: see `sample_steps`."""
    return deque(sample_steps(denoise, config, shape, mask_id, generator, device), maxlen=1)[0]


@torch.no_grad()
def one_step_mean(denoise: Denoiser, shape: tuple[int, int, int], values: Float[Tensor, "*S K"], mask_id: int,
                  device: torch.device | str = "cpu") -> Float[Tensor, "B S G"]:
    """Returns each gene's expected value from the fully masked state: a predicted mean in one forward pass, no noise.

    Args:
        denoise: (xt, t) -> logits.
        shape: (B, S, G).
        values: What each data bin is worth, e.g. log1p of its centre, (K,) or one row a cell (S, K).
        mask_id: The id of [MASK].
        device: Where the denoiser lives.
    """
    xt = torch.full(shape, mask_id, device=device)
    probabilities = denoise(xt, torch.ones(shape[:2], device=device))[..., :mask_id].float().softmax(-1)
    return (probabilities * values.to(device)[..., None, :]).sum(-1)


def check_guidance(weight: float) -> None:
    """Raises CDTError for a guidance weight below 0 or beyond 20."""
    if not 0 <= weight <= 20:
        raise CDTError(f"guidance must lie in [0, 20] (1 is plain, above 1 exaggerates), not {weight}")


def with_steps(config: DiffusionConfig, steps: int | None, n_genes: int) -> DiffusionConfig:
    """Returns the configuration with another number of sampling steps; None leaves it as it is.

    Raises:
        CDTError: Steps outside 1 to n_genes (each reveals a gene at least), or v1's sampler, whose steps are its
            timesteps.
    """
    if steps is not None and config.sampler == "v1":
        raise CDTError(f"v1's sampler takes its {config.n_timesteps - 1} timesteps, not {steps} steps: leave steps out")
    if steps is not None and not 1 <= steps <= n_genes:
        raise CDTError(f"steps (sampling_steps) must lie in 1 to {n_genes}, the number of genes, since each step "
                       f"reveals one at least; not {steps}")
    return config if steps is None else replace(config, sampling_steps=steps)
