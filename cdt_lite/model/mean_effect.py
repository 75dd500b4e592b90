"""What training cells say about a perturbation, given to the model gene by gene: a table, and tilts made from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cdt_lite.model.config import ModelConfig
from cdt_lite.model.layers import MLP
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation

WHOLE, OWN, NAMELESS = -1, -2, -3  # nothing is left out; all cells of the target are; its name is, too
LIMIT = 8.0  # of a tilt: more than any gene needs whose values can be told apart


@dataclass(frozen=True)
class EffectTable:
    """What training cells say of mean effects: k measured ones, and K answers, each a weighted sum of them.

    An answer belongs to a perturbation and to what was left out for it: in training the set's own cells.
    """

    target: Int[np.ndarray, " K"]  # gene id, or UNKNOWN_TARGET: what all perturbations of a sign share
    sign: Int[np.ndarray, " K"]  # -1 or +1
    without: Int[np.ndarray, " K"]  # the replicate that was left out, or WHOLE, OWN, NAMELESS
    left: Float[np.ndarray, " K"]  # share of the effect's variance that stays unknown
    weights: Float[np.ndarray, "K k"]
    effect: Float[np.ndarray, "k G"]  # measured: change of mean log1p expression
    shares: Float[np.ndarray, "G bins"]  # of the control cells in every bin
    gene_ids: Int[np.ndarray, " G"]  # of every column
    values: Float[np.ndarray, " bins"]  # log1p expression that each bin stands for
    counted: bool  # whether bins are of counts: what they stand for depends on a cell's depth then
    highest: Int[np.ndarray, " G"]  # bin that any cell, perturbed or not, showed
    trusted: Float[np.ndarray, " 2"]  # share of the table in a predicted mean change: of seen, of unseen targets


class Known(NamedTuple):
    """What is known at every gene: a perturbation's mean effect, and how control cells vary without it."""

    effect: Float[Tensor, "B G"]  # change of mean log1p expression
    shares: Float[Tensor, "G bins"]  # of the control cells in every bin
    values: Float[Tensor, " bins"]  # log1p expression that each bin stands for
    counted: Float[Tensor, ""]  # 1: at the target depth; 0: at any


def tilts(shares: Float[Tensor, "*states G bins"], values: Float[Tensor, " bins"], change: Float[Tensor, "B G"],
          weights: Sequence[float] = (1.0,)) -> Float[Tensor, "B G"]:
    """Returns, for every gene, the tilt that moves the mean of its values by a change.

    A tilt a turns shares p into p exp(a value), normalised: of all distributions with the new mean, the one nearest to
    p (Csiszar 1975). Where no tilt within +-LIMIT moves the mean so far, the limit.

    Args:
        shares: Share of cells in every bin; of cells in several states, one law a state.
        values: What the bins are worth.
        change: Of the mean value, over all states.
        weights: Shares of the states, whatever the tilt.
    """
    grid = torch.linspace(-LIMIT, LIMIT, 401, dtype=torch.float64, device=shares.device)
    worth, means = values.double(), torch.zeros((), dtype=torch.float64, device=shares.device)
    factor = torch.exp(worth[:, None] * grid)
    for p, weight in zip(shares.double().reshape(-1, *shares.shape[-2:]), weights, strict=True):
        means = means + weight * ((p * worth) @ factor / (p @ factor) - (p @ worth)[:, None])  # (G, 401), rising
    wanted = change.double().T.contiguous()
    above = torch.searchsorted(means, wanted).clamp(1, len(grid) - 1)
    low, high = means.gather(1, above - 1), means.gather(1, above)
    part = ((wanted - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return (grid[above - 1] + part * (grid[1] - grid[0])).T.to(change.dtype)


class MeanEffect(nn.Module):
    """What is known of a perturbation's mean effect, given to the model gene by gene, each at its own position.

    In training a set is told what follows without its own replicate, as prediction is told of other cells than those
    that it makes; where its target's name is withheld, what follows without any cell of that target. No perturbation:
    zero. A model that knows no effects is one whose table is empty.
    """

    target: Tensor
    sign: Tensor
    without: Tensor
    left: Tensor
    weights: Tensor
    effect: Tensor
    shares: Tensor
    gene_ids: Tensor
    values: Tensor
    counted: Tensor
    highest: Tensor
    trusted: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mlp = MLP(1, config.dim, config.dim)
        for name in ("target", "sign", "without", "gene_ids", "highest"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.long))
        self.register_buffer("left", torch.zeros(0))
        self.register_buffer("weights", torch.zeros(0, 0))
        self.register_buffer("effect", torch.zeros(0, 0))
        self.register_buffer("shares", torch.zeros(0, config.n_bins))
        self.register_buffer("values", torch.zeros(config.n_bins))
        self.register_buffer("counted", torch.zeros(()))
        self.register_buffer("trusted", torch.zeros(2))

    def forward(self, effect: Float[Tensor, "B G"]) -> Float[Tensor, "B G D"]:
        """Embeds the mean effect on every gene."""
        return self.mlp(effect[..., None])

    @property
    def empty(self) -> bool:
        """Whether nothing is known: before fine-tuning, and in models that know no effects."""
        return not len(self.target)

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
        k, measured = self.weights.shape
        g, bins = len(self.gene_ids), len(self.values)
        rows = all(part.shape == (k,) for part in (self.target, self.sign, self.without, self.left))
        genes = self.shares.shape == (g, bins) and self.highest.shape in ((g,), (0,))
        return rows and genes and self.effect.shape == (measured, g) and len(self.trusted) == 2

    def measured(self) -> set[tuple[int, int]]:
        """Returns gene id and sign of every perturbation that training cells show."""
        seen = self.without >= 0
        return set(zip(self.target[seen].tolist(), self.sign[seen].tolist(), strict=True))

    def rows(self, p: Perturbation) -> Int[Tensor, " B"]:
        """Returns the answer for each set, as a row of the table, or -1 where nothing is known."""
        if self.empty:
            return torch.full_like(p.target, -1)
        named = p.target >= 0
        guess = torch.full_like(p.target, NO_TARGET) if p.guess is None else p.guess
        asked = torch.where(named, p.target, torch.where(guess >= 0, guess, UNKNOWN_TARGET))
        without = torch.full_like(asked, WHOLE)
        if self.training and p.replicate is not None and p.own is not None:
            unnamed = torch.where(guess >= 0, OWN, NAMELESS)
            without = torch.where(named, p.replicate, unnamed)
            asked = torch.where(named, asked, p.own)
        match = (self.target == asked[:, None]) & (self.sign == p.sign[:, None]) & (self.without == without[:, None])
        match = match & (p.target != NO_TARGET)[:, None]
        return torch.where(match.any(1), match.int().argmax(1), -1)

    def answers(self, p: Perturbation) -> Float[Tensor, "B k"]:
        """Returns what each measured effect counts for each set; for a pair that nobody made, the sum of both genes."""
        rows = self.rows(p)
        weights = self.weights[rows] * (rows >= 0)[:, None]
        if p.pair is None:
            return weights
        both = [self.answers(replace(p, target=gene, pair=None)) for gene in p.pair.T]
        unmade = (p.pair[:, 0] >= 0) & (p.target == UNKNOWN_TARGET)
        if p.guess is not None:  # in training: what is known of this pair without its own cells
            unmade = unmade & (p.guess < 0)
        return torch.where(unmade[:, None], both[0] + both[1], weights)

    def look_up(self, perturbation: Perturbation, gene_ids: Int[Tensor, " g"]) -> Known:
        """Returns what is known; no effect on a gene that the table does not have."""
        if self.empty:
            nothing = self.effect.new_zeros(len(perturbation.target), len(gene_ids))
            return Known(nothing, self.shares.new_zeros(len(gene_ids), len(self.values)), self.values, self.counted)
        match = gene_ids[:, None] == self.gene_ids
        here, found = match.int().argmax(1), match.any(1)
        weights = self.answers(perturbation).double()  # a tilt is steep where a gene is rare: not in half precision
        known = (weights @ self.effect.double()).to(self.effect.dtype)
        return Known(known[:, here] * found, self.shares[here], self.values, self.counted)
