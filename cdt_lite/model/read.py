"""Where a model is read: logits of hidden genes alone are wanted, so what comes last is computed for these alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Read(NamedTuple):
    """n positions among the genes of B x S cells, cell by cell.

    Attention wants as many questions of every cell: `slot` places the positions in a table of `most` for each cell,
    whose other rows are asked in vain.
    """

    at: Int[Tensor, " n"]  # number of the position among all B * S * G
    gene: Int[Tensor, " n"]  # 0 to G - 1
    cell: Int[Tensor, " n"]  # 0 to B * S - 1
    slot: Int[Tensor, " n"]  # 0 to B * S * most - 1
    n_cells: int
    most: int

    @classmethod
    def of(cls, mask: Bool[Tensor, "B S G"], counts: Int[Tensor, "B S"] | None = None) -> "Read":
        """Reads where `mask` is true.

        Args:
            mask: On the device of the model.
            counts: How many of every cell's positions that are, on the CPU: so nothing waits for another device.
        """
        every = (mask.sum(-1) if counts is None else counts).flatten().tolist()
        n, most, n_genes = sum(every), max(1, *every), mask.shape[-1]
        flat, number = mask.flatten(), torch.arange(mask.numel(), device=mask.device)
        order = flat.cumsum(0) - 1
        here = torch.where(flat, order, n)  # as `nonzero` does, which would wait
        at = number.new_zeros(n + 1).scatter(0, here, number)[:n]
        cell = at // n_genes
        first = order.view(-1, n_genes)[:, -1] + 1 - mask.flatten(0, 1).sum(-1)
        place = number[:n] - first[cell]
        return cls(at, at % n_genes, cell, cell * most + place, len(every), most)

    def rows(self, h: Float[Tensor, "... G D"]) -> Float[Tensor, "n D"]:
        """Takes these positions out of all genes' vectors."""
        return F.embedding(self.at, h.flatten(0, -2))  # whose gradient is faster than that of indexing

    def of_cell(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "n D"]:
        """Repeats each cell's vector for its positions."""
        return F.embedding(self.cell, x.flatten(0, 1))

    def padded(self, rows: Float[Tensor, "n D"]) -> Float[Tensor, "slots D"]:
        """Puts rows into their slots."""
        return rows.new_zeros(self.n_cells * self.most, rows.shape[-1]).index_copy(0, self.slot, rows)

    def unpadded(self, slots: Float[Tensor, "slots D"]) -> Float[Tensor, "n D"]:
        """Takes rows from their slots again."""
        return F.embedding(self.slot, slots)


@dataclass(frozen=True)
class Conditioned:
    """A model with its condition filled in: a denoiser xt -> logits of all genes, or of those that are read.

    Args:
        logits: Takes xt (v1: and the timestep) and `read`, by name; None reads all genes.
    """

    logits: Callable[..., Tensor]

    def __call__(self, xt: Int[Tensor, "B S G"], *t: Tensor) -> Float[Tensor, "B S G K"]:
        """Returns the logits of all genes."""
        return self.logits(xt, *t, read=None)

    def then(self, change: Callable[[Tensor, Tensor | slice], Tensor]) -> "Conditioned":
        """Returns this denoiser with its logits changed: `change` takes logits and the genes that they are of."""

        def logits(xt: Tensor, *t: Tensor, read: Read | None) -> Tensor:
            genes = slice(None) if read is None else read.gene
            return change(self.logits(xt, *t, read=read), genes)

        return Conditioned(logits)


def read_at(denoise: Callable[..., Tensor], xt: Int[Tensor, "B S G"], read: Read, *t: Tensor) -> Float[Tensor, "n K"]:
    """Returns the logits of the positions that are read, of any denoiser: one that knows no other way gives all."""
    if isinstance(denoise, Conditioned):
        return denoise.logits(xt, *t, read=read)
    return denoise(xt, *t).flatten(0, 2)[read.at]
