"""What training cells say about a perturbation, given to the model gene by gene: a table, and tilts made from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cdt_lite.model.config import ModelConfig
from cdt_lite.model.layers import MLP
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation

GUESSED = -1  # the replicate of an effect that was never measured
LIMIT = 8.0  # of a tilt: more than any gene needs whose values can be told apart


@dataclass(frozen=True)
class EffectTable:
    """Mean changes of log1p expression against the controls: K rows, one a perturbation and replicate."""

    target: Int[np.ndarray, " K"]  # gene id
    sign: Int[np.ndarray, " K"]  # -1 or +1
    replicate: Int[np.ndarray, " K"]  # its number, or GUESSED
    cells: Float[np.ndarray, " K"]  # that the mean is over; of a guess, how many cells it is worth
    share: Float[np.ndarray, " K"]  # of its target's cells: in an average every target counts once
    effect: Float[np.ndarray, "K G"]
    shares: Float[np.ndarray, "G bins"]  # of the control cells in every bin
    gene_ids: Int[np.ndarray, " G"]  # of every column
    values: Float[np.ndarray, " bins"]  # log1p expression that each bin stands for
    highest: Int[np.ndarray, " G"]  # bin that any cell, perturbed or not, showed


class Known(NamedTuple):
    """What is known of a perturbation at every gene: its mean effect, and the tilt that makes it, (B, G) each."""

    effect: Float[Tensor, "B G"]
    tilt: Float[Tensor, "B G"]


def tilts(shares: Float[Tensor, "G bins"], values: Float[Tensor, " bins"], change: Float[Tensor, "B G"]
         ) -> Float[Tensor, "B G"]:
    """Returns, for every gene, the tilt that moves the mean of its values by a change.

    A tilt a turns shares p into p exp(a value), normalised: of all distributions with the new mean, the one nearest to
    p (Csiszar 1975). Where no tilt within +-LIMIT moves the mean so far, the limit.

    Args:
        shares: Share of cells in every bin.
        values: What the bins are worth.
        change: Of the mean value.
    """
    p, worth = shares.double(), values.double()
    grid = torch.linspace(-LIMIT, LIMIT, 401, dtype=torch.float64, device=shares.device)
    factor = torch.exp(worth[:, None] * grid)
    means = (p * worth) @ factor / (p @ factor) - (p @ worth)[:, None]  # (G, 401), rising
    wanted = change.double().T.contiguous()
    above = torch.searchsorted(means, wanted).clamp(1, len(grid) - 1)
    low, high = means.gather(1, above - 1), means.gather(1, above)
    part = ((wanted - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return (grid[above - 1] + part * (grid[1] - grid[0])).T.to(change.dtype)


class MeanEffect(nn.Module):
    """What the training cells say about a perturbation: the mean effect on every gene, given at its own position.

    A seen target: the mean over replicates and its guess, by cells; in training without the set's own replicate, so
    that the network learns how far an effect seen elsewhere can be trusted. A target that is unknown, or not seen
    elsewhere: the guess, if there is one, else the mean over the targets of its sign. No perturbation: zero. A model
    that knows no effects is one whose table is empty.
    """

    target: Tensor
    sign: Tensor
    replicate: Tensor
    gene_ids: Tensor
    cells: Tensor
    share: Tensor
    effect: Tensor
    shares: Tensor
    values: Tensor
    highest: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mlp = MLP(1, config.dim, config.dim)
        for name in ("target", "sign", "replicate", "gene_ids", "highest"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.long))
        for name in ("cells", "share"):
            self.register_buffer(name, torch.zeros(0))
        self.register_buffer("effect", torch.zeros(0, 0))
        self.register_buffer("shares", torch.zeros(0, config.n_bins))
        self.register_buffer("values", torch.zeros(config.n_bins))

    def forward(self, effect: Float[Tensor, "B G"]) -> Float[Tensor, "B G D"]:
        """Embeds the mean effect on every gene."""
        return self.mlp(effect[..., None])

    def fill(self, table: EffectTable) -> None:
        """Copies a table to the module's device."""
        for name, old in list(self.named_buffers(recurse=False)):
            setattr(self, name, torch.tensor(getattr(table, name), dtype=old.dtype, device=old.device))

    def limits(self, gene_ids: Int[Tensor, " g"]) -> Int[Tensor, " g"]:
        """Returns the highest bin of every gene in training; of one that was not there, the highest of all.

        A model that does not know it (of before, or not fine-tuned) has no limit but the last bin.
        """
        if not len(self.highest) or not len(self.gene_ids):
            return torch.full_like(gene_ids, self.shares.shape[1] - 1)
        match = gene_ids[:, None] == self.gene_ids
        own = self.highest[match.int().argmax(1)]
        return torch.where(match.any(1), own, self.highest.max())

    def make_room(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Gives the table's parts these shapes; a loaded state then fills them. None of a perturbation: no effects."""
        for name, old in list(self.named_buffers(recurse=False)):
            if name in shapes:
                setattr(self, name, old.new_zeros(shapes[name]))

    def fits(self) -> bool:
        """Says whether the table's parts have sizes that fit each other."""
        k, g, bins = len(self.target), len(self.gene_ids), len(self.values)
        rows = all(part.shape == (k,) for part in (self.target, self.sign, self.replicate, self.cells, self.share))
        genes = self.gene_ids.shape == (g,) and self.shares.shape == (g, bins) and self.highest.shape in ((g,), (0,))
        return rows and genes and self.effect.shape == (k, g)

    def weights(self, p: Perturbation) -> Float[Tensor, "B K"]:
        """Returns what each row of the table counts for each set; rows sum to 1, or to 0 without a perturbation."""
        asked = p.target if p.guess is None else torch.where(p.target == UNKNOWN_TARGET, p.guess, p.target)
        of_sign = self.sign == p.sign[:, None]
        same = of_sign & (self.target == asked[:, None])
        measured = self.replicate != GUESSED
        seen = same & measured & (p.target >= 0)[:, None]
        average = of_sign & measured & ~same
        if self.training and p.replicate is not None:
            seen = seen & (self.replicate != p.replicate[:, None])
        if self.training and p.own is not None:
            average = average & (self.target != p.own[:, None])
        guessed = same & ~measured
        w = average * self.share
        w = torch.where(guessed.any(1, keepdim=True), guessed, w)  # a guess is better than the average
        w = torch.where(seen.any(1, keepdim=True), (seen | guessed) * self.cells, w)
        w = w * (p.target != NO_TARGET)[:, None]
        return w / w.sum(1, keepdim=True).clamp(min=1e-9)

    def look_up(self, perturbation: Perturbation, gene_ids: Int[Tensor, " g"]) -> Known:
        """Returns mean effects and the tilts that make them; 0 for a gene that the table does not have."""
        if not len(self.target):
            nothing = torch.zeros(len(perturbation.target), len(gene_ids), device=gene_ids.device)
            return Known(nothing, nothing)
        match = gene_ids[:, None] == self.gene_ids
        here, found = match.int().argmax(1), match.any(1)
        weights = self.weights(perturbation).double()  # a tilt is steep where a gene is rare: not in half precision
        mixed = (weights @ self.effect.double()).to(self.effect.dtype)
        effect = mixed[:, here] * found
        return Known(effect, tilts(self.shares[here], self.values, effect) * found)
