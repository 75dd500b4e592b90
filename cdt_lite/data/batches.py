"""AnnData -> batches: cells tokenised once into a uint8 store, sets of perturbed cells drawn with matched controls."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.model.config import TrainConfig
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation

Group = tuple[tuple[int, int, int], np.ndarray]  # (target, sign, replicate) and its cells
ALL = -1  # the group of all replicates together
STAGES = ("pretrain", "finetune")


@dataclass(frozen=True)
class Batch:
    """B sets: S cells each that share a perturbation, and C control cells from the same replicate."""

    tokens: Int[Tensor, "B S G"]
    controls: Int[Tensor, "B C G"] | None
    perturbation: Perturbation
    log_depth: Float[Tensor, "B S"]
    gene_ids: Int[Tensor, " G"]

    def to(self, device: torch.device | str) -> "Batch":
        """Returns a copy on a device."""
        controls = None if self.controls is None else self.controls.to(device)
        return Batch(self.tokens.to(device), controls, self.perturbation.to(device), self.log_depth.to(device),
                     self.gene_ids.to(device))


class SetSampler:
    """Draws training batches; batch i is a function of (seed, i) alone, so a resumed run sees what it would have.

    Args:
        stores: One store, or several whose panels differ (a batch comes from one of them, chosen by its size).
        config: Sizes and dropout shares.
        stage: "finetune": sets share target, sign and replicate. "pretrain": labels are ignored, a set is cells of one
            replicate or cell type, and its "controls" are other cells of the same kind.

    Raises:
        CDTError: No cells, or fine-tuning without control cells.
    """

    def __init__(self, stores: TokenStore | Sequence[TokenStore], config: TrainConfig, stage: str = "finetune") -> None:
        self.stores = [stores] if isinstance(stores, TokenStore) else list(stores)
        self.config, self.stage = config, stage
        if not self.stores or any(len(s) == 0 for s in self.stores):
            raise CDTError("no cells to train on: the selection is empty.")
        self._groups = [_group_cells(s, stage) for s in self.stores]
        self._controls = [_control_cells(s, stage) for s in self.stores]
        if stage == "finetune" and any(not c for c in self._controls):
            raise CDTError("no control cells to fine-tune with: keep the screen's control cells on the training side.")
        self._weights = [np.sqrt([len(cells) for _, cells in groups]) for groups in self._groups]
        self._sizes = np.array([len(s) for s in self.stores], float) / sum(len(s) for s in self.stores)

    @property
    def n_cells(self) -> int:
        """Cells in all stores; an epoch is `n_cells / batch_size` steps."""
        return sum(len(s) for s in self.stores)

    def steps_for(self, epochs: int) -> int:
        """Returns the number of steps of so many epochs."""
        return max(1, round(epochs * self.n_cells / self.config.batch_size))

    def batch(self, index: int) -> Batch:
        """Returns batch number `index`."""
        rng = np.random.default_rng([self.config.seed, index, STAGES.index(self.stage)])
        which = int(rng.choice(len(self.stores), p=self._sizes))
        store, groups, c = self.stores[which], self._groups[which], self.config
        chosen = self._choose_sets(rng, which)
        cells = np.stack([_take(rng, groups[g][1], c.cells_per_set) for g in chosen])
        controls = None
        if rng.random() >= c.controls_dropout:
            by_group = self._controls[which]
            pools = [by_group.get(groups[g][0][2], by_group[ALL]) for g in chosen]
            chosen_controls = [_take(rng, pool, c.controls_per_set, without=own)
                               for pool, own in zip(pools, cells, strict=True)]
            controls = torch.from_numpy(store.tokens[np.stack(chosen_controls)]).long()
        return Batch(torch.from_numpy(store.tokens[cells]).long(), controls,
                     self._perturbations(rng, [groups[g] for g in chosen], store),
                     torch.from_numpy(store.log_depth[cells]), torch.from_numpy(store.gene_ids))

    def _choose_sets(self, rng: np.random.Generator, which: int) -> np.ndarray:
        weights = self._weights[which].copy()
        is_control = np.array([key[0] == NO_TARGET for key, _ in self._groups[which]])
        if self.stage == "finetune" and is_control.any() and not is_control.all():
            share = self.config.control_share  # controls are many: they get their share, perturbed sets the rest
            weights[is_control] *= share / weights[is_control].sum()
            weights[~is_control] *= (1 - share) / weights[~is_control].sum()
        return rng.choice(len(weights), size=self.config.sets_per_batch, p=weights / weights.sum())

    def _perturbations(self, rng: np.random.Generator, groups: list[Group], store: TokenStore) -> Perturbation:
        c, target, sign, magnitude = self.config, [], [], []
        guess, replicate = [], [group for (_, _, group), _ in groups]
        own = [gene for (gene, _, _), _ in groups]
        for (gene, direction, _), cells in groups:
            lot = rng.random(3)
            lose_all, lose_target, lose_size = lot < (c.perturbation_dropout, c.target_dropout, c.magnitude_dropout)
            guess.append(int(gene) if lot[1] < c.target_dropout / 2 else NO_TARGET)  # half of the unknown are guessed
            if gene == NO_TARGET or lose_all or self.stage == "pretrain":
                gene, direction, size = NO_TARGET, 0, 0.0
            else:
                gene = UNKNOWN_TARGET if lose_target else gene
                size = float("nan") if lose_size else store.magnitude[cells[0]]
            target.append(int(gene))
            sign.append(int(direction))
            magnitude.append(float(size))
        return Perturbation.of(target, sign, magnitude, guess, replicate, own)


def _take(rng: np.random.Generator, pool: np.ndarray, n: int, without: np.ndarray | None = None) -> np.ndarray:
    others = pool if without is None else np.setdiff1d(pool, without)
    pool = others if len(others) else pool  # a cell is its own control only where there is no other
    return rng.choice(pool, n, replace=len(pool) < n)


def _group_cells(store: TokenStore, stage: str) -> list[Group]:
    """Cells by (target, sign, replicate); in pretraining by replicate or cell type only."""
    keys = np.stack([store.target, store.sign, store.group], 1)
    if stage == "pretrain":
        keys[:, 0], keys[:, 1] = NO_TARGET, 0
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    cells = np.split(order, np.cumsum(np.bincount(inverse.ravel()))[:-1])
    return [((int(k[0]), int(k[1]), int(k[2])), c) for k, c in zip(unique, cells, strict=True)]


def _control_cells(store: TokenStore, stage: str) -> dict[int, np.ndarray]:
    """Control cells of each replicate, and of all together for a replicate that has none."""
    is_control = np.ones(len(store), bool) if stage == "pretrain" else store.target == NO_TARGET
    if not is_control.any():
        return {}
    pools = {int(g): np.flatnonzero(is_control & (store.group == g)) for g in np.unique(store.group[is_control])}
    return pools | {ALL: np.flatnonzero(is_control)}
