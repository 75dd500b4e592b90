"""The masking process: how genes are hidden, what is learned, and how cells are made again from nothing but masks.

Everything here takes any denoiser: a callable xt (B, S, G) -> logits (B, S, G, K). Losses are in nats per gene.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from cdt_lite.errors import CDTError
from cdt_lite.model.config import DiffusionConfig
from cdt_lite.model.read import Read, read_at
from cdt_lite.model.schedule import cosine_counts, learned_counts, uniform_counts

Denoiser = Callable[[Tensor], Tensor]
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)  # of hidden genes, at which a loss curve is measured


class Part(NamedTuple):
    """Which sets of a step's batch a process holds: those from `first` on, of `n_sets`."""

    first: int
    n_sets: int


def draw_masks(shape: tuple[int, ...], generator: torch.Generator) -> Bool[Tensor, "B S G"]:
    """Draws which genes are hidden in training: k of G genes a cell, k uniform on 1..G and stratified over the batch.

    Args:
        shape: (B, S, G).
        generator: Source of randomness (CPU).
    """
    k = draw_numbers(shape, generator)
    return random_turns(shape, generator) < k[..., None]


def draw_numbers(shape: tuple[int, ...], generator: torch.Generator) -> Int[Tensor, "B S"]:
    """Draws how many genes of every cell are hidden: see `draw_masks`."""
    n_sets, n_cells, n_genes = shape
    n = n_sets * n_cells
    strata = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    return (strata * n_genes).long().clamp(max=n_genes - 1).view(n_sets, n_cells) + 1


def random_turns(shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str = "cpu"
                ) -> Int[Tensor, "..."]:
    """Draws each gene's turn, 0 to G - 1, in every cell: the first k are hidden in training, revealed in sampling.

    Another device than the CPU draws its own numbers, from a seed that the generator gives.
    """
    if torch.device(device).type != "cpu":
        seed = torch.randint(2**62, (1,), generator=generator).tolist()[0]
        generator = torch.Generator(device).manual_seed(seed)
    return torch.rand(shape, generator=generator, device=device).argsort(-1).argsort(-1)


def hide(tokens: Integer[Tensor, "B S G"], mask: Bool[Tensor, "B S G"], mask_id: int) -> Int[Tensor, "B S G"]:
    """Returns the tokens with [MASK] where `mask` is true."""
    return tokens.long().masked_fill(mask, mask_id)


def masked_loss(logits: Float[Tensor, "B S G classes"], tokens: Int[Tensor, "B S G"],
                mask: Bool[Tensor, "B S G"]) -> Float[Tensor, ""]:
    """Returns the mean cross-entropy over all hidden genes of the batch, nats per gene: what models are trained on.

    It is `nelbo` without its 1/k: H(k), the loss per gene with k hidden, is weighed by k (the analogue of DDPM's simple
    loss: Ho et al. 2020, arXiv:2006.11239). A model that knows nothing costs exactly log(classes).
    """
    return _hidden_nats(logits, tokens, mask).sum() / mask.sum().clamp(min=1)


def nelbo(logits: Float[Tensor, "B S G classes"], tokens: Int[Tensor, "B S G"], mask: Bool[Tensor, "B S G"]
         ) -> Float[Tensor, ""]:
    """Returns the mean within each cell over its own k hidden genes, then over cells: what models are judged by.

    With k uniform this is an unbiased estimate of the negative ELBO, nats per gene (MDLM, arXiv:2406.07524, eq. 10 with
    alpha = 1 - t; the 1/t weight is the division by k). A model that knows nothing costs exactly log(classes).
    """
    nats = _hidden_nats(logits, tokens, mask)
    return (nats.sum(-1) / mask.sum(-1).clamp(min=1)).mean()


def read_loss(logits: Float[Tensor, "n classes"], tokens: Int[Tensor, "B S G"], read: Read, n_hidden: int
             ) -> Float[Tensor, ""]:
    """Returns `masked_loss` of logits that are of the hidden genes alone.

    Args:
        logits: Of the genes that are read.
        tokens: Whole cells.
        read: Where genes are hidden.
        n_hidden: Hidden genes of the step's whole batch, by which the sum is divided.
    """
    truth = tokens.flatten()[read.at].long()
    return F.cross_entropy(logits.float(), truth, reduction="sum") / max(1, n_hidden)


def _hidden_nats(logits: Tensor, tokens: Tensor, mask: Tensor) -> Float[Tensor, "B S G"]:
    nats = F.cross_entropy(logits.flatten(0, 2), tokens.flatten().long(), reduction="none")
    return nats.view(mask.shape) * mask


@torch.no_grad()
def loss_curve(denoise: Denoiser, tokens: Int[Tensor, "B S G"], mask_id: int, generator: torch.Generator,
               shares: Sequence[float] = SHARES) -> Float[Tensor, " shares"]:
    """Returns H at several shares of hidden genes, nats per gene: the area under this curve is the NELBO per gene.

    What is hidden at one share is hidden at every greater one, and two neighbours on the curve are told apart by the
    genes that are hidden at both: most of the noise, which genes and cells were drawn, is the same in both and cancels.

    Args:
        denoise: xt -> logits.
        tokens: Whole cells.
        mask_id: The id of [MASK].
        generator: Source of randomness (CPU).
        shares: Shares of hidden genes, rising.

    Raises:
        CDTError: Shares that do not rise.
    """
    if list(shares) != sorted(shares):
        raise CDTError(f"shares of hidden genes must rise, not {list(shares)}")
    turn = random_turns(tokens.shape, generator).to(tokens.device)
    curve: list[Tensor] = []
    more = torch.zeros(())
    for share in reversed(shares):
        k = max(1, round(share * tokens.shape[-1]))
        mask = turn < k
        nats = _hidden_nats(denoise(hide(tokens, mask, mask_id)), tokens, mask)
        if curve:
            curve.append(curve[-1] - ((more - nats) * mask).sum(-1).mean() / k)
        else:
            curve.append(nats.sum(-1).mean() / k)
        more = nats
    return torch.stack(curve[::-1])


def guide(logits: Float[Tensor, "*cells classes"], unconditional: Float[Tensor, "*cells classes"], weight: float
         ) -> Float[Tensor, "*cells classes"]:
    """Returns guided log-probabilities: weight 1 is plain, 0 unconditional, above 1 exaggerates the condition."""
    return torch.lerp(unconditional.log_softmax(-1), logits.log_softmax(-1), weight)


def draw(logits: Float[Tensor, "*cells classes"], generator: torch.Generator) -> Int[Tensor, "*cells"]:
    """Draws one class per position: the first whose cumulative probability exceeds a uniform number.

    There is one number a position, made on the CPU so that every device draws the same.
    """
    return draw_by(logits, torch.rand(logits.shape[:-1], generator=generator))


def draw_by(logits: Float[Tensor, "*cells classes"], uniform: Float[Tensor, "*cells"]) -> Int[Tensor, "*cells"]:
    """Draws as `draw` does, by numbers in [0, 1) that are drawn already."""
    below = logits.double().softmax(-1).cumsum(-1)
    chosen = uniform.to(below)[..., None] * below[..., -1:]
    return torch.searchsorted(below, chosen, right=True)[..., 0]  # of classes that cannot be, none


def sample_steps(denoise: Denoiser, counts: Sequence[int], shape: tuple[int, int, int], mask_id: int,
                 generator: torch.Generator, device: torch.device | str = "cpu"
                ) -> Iterator[Int[Tensor, "B S G"]]:
    """Makes cells from nothing but masks, yielding the state after every step (the first state is all masked).

    Genes are revealed in an order drawn beforehand, so a gene's turn never depends on the value drawn for it. A step
    asks the denoiser about the genes that it reveals; chance is used as if it drew a value for every gene.

    Args:
        denoise: xt -> logits.
        counts: How many genes each step reveals; they sum to G (`cosine_counts`, `learned_counts`, or your own).
        shape: (B, S, G) of the cells to make.
        mask_id: The id of [MASK].
        generator: Source of randomness (CPU).
        device: Where the denoiser lives.

    Raises:
        CDTError: Counts that do not reveal every gene once.
    """
    if sum(counts) != shape[-1] or min(counts) < 1:
        raise CDTError(f"a schedule reveals each of {shape[-1]} genes once, at least one a step; this one: {counts}")
    xt = torch.full(shape, mask_id, device=device)
    yield xt
    turn = random_turns(shape, generator).to(device)
    revealed = 0
    for n in counts:
        now = (turn >= revealed) & (turn < revealed + n)
        read = Read.of(now, torch.full(shape[:2], n))
        logits = read_at(denoise, xt, read)[:, :mask_id]  # [MASK] is no answer, should a model give it
        uniform = torch.rand(shape, generator=generator).to(device)
        xt = xt.masked_scatter(now, draw_by(logits, uniform[now]))
        revealed += n
        yield xt


@dataclass(frozen=True)
class MaskedDiffusion:
    """The process as training and prediction use it: a loss, and cells. `model/v1.py` has the original's.

    Args:
        config: Schedule and number of sampling steps.
        mask_id: The id of [MASK].
    """

    config: DiffusionConfig
    mask_id: int

    def loss(self, denoise: Denoiser, tokens: Int[Tensor, "B S G"], generator: torch.Generator, stage: str,
             step: int, part: Part | None = None) -> Float[Tensor, ""]:
        """Hides genes and returns what the denoiser's guesses cost, nats per hidden gene of the step's whole batch.

        Args:
            denoise: xt -> logits.
            tokens: Cells of the batch, or of the part that this process holds.
            generator: Source of randomness (CPU); every process draws the masks of the whole batch.
            stage: Makes no difference here.
            step: Neither does this.
            part: Which sets these are; the losses of all parts add up to the loss. None: the whole batch.
        """
        first, n_sets = part or (0, len(tokens))
        shape, own = (n_sets, *tokens.shape[1:]), slice(first, first + len(tokens))
        k = draw_numbers(shape, generator)
        mask = random_turns(shape, generator, tokens.device)[own] < k[own, :, None].to(tokens.device, non_blocking=True)
        read = Read.of(mask, k[own])
        logits = read_at(denoise, hide(tokens, mask, self.mask_id), read)
        return read_loss(logits, tokens, read, sum(k.flatten().tolist()))

    def counts(self, n_genes: int, steps: int | None = None) -> list[int]:
        """Returns how many genes each sampling step reveals; `steps` replaces the configured number.

        Raises:
            CDTError: Steps outside 1 to n_genes: each reveals a gene at least.
        """
        if steps is not None and not 1 <= steps <= n_genes:
            raise CDTError(f"steps (sampling_steps) must lie in 1 to {n_genes}: each reveals a gene; not {steps}")
        n_steps = min(steps or self.config.sampling_steps, n_genes)
        if self.config.sampling_schedule == "learned":
            return list(learned_counts(self.config.loss_curve, n_genes, n_steps))
        if self.config.sampling_schedule == "uniform":
            return uniform_counts(n_genes, n_steps).tolist()
        return cosine_counts(n_genes, n_steps).tolist()

    def n_steps(self, n_genes: int, steps: int | None = None) -> int:
        """Returns how many steps sampling takes."""
        return len(self.counts(n_genes, steps))

    @torch.no_grad()
    def sample(self, denoise: Denoiser, shape: tuple[int, int, int], generator: torch.Generator,
               device: torch.device | str = "cpu", steps: int | None = None) -> Int[Tensor, "B S G"]:
        """Makes cells, (B, S, G) tokens without a [MASK]."""
        counts = self.counts(shape[-1], steps)
        return deque(sample_steps(denoise, counts, shape, self.mask_id, generator, device), maxlen=1)[0]
