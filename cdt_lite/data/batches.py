"""Batches: sets of cells that share a perturbation, drawn from a token store with matched controls."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from cdt_lite.data.store import TokenStore, cells_of, set_aside
from cdt_lite.errors import CDTError, require_whole
from cdt_lite.model.config import TrainConfig
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation

ALONE = (NO_TARGET, NO_TARGET)  # no pair
ALL = -1  # the key of the controls of all replicates together
Rng = np.random.Generator
STAGES = ("pretrain", "finetune")


@dataclass(frozen=True)
class Batch:
    """B sets: S cells each that share a perturbation, and C control cells from the same replicate."""

    tokens: Integer[Tensor, "B S G"]
    controls: Integer[Tensor, "B C G"] | None
    perturbation: Perturbation
    log_depth: Float[Tensor, "B S"]
    gene_ids: Int[Tensor, " G"]

    @classmethod
    def of(cls, tokens: Integer[np.ndarray, "B S G"], controls: Integer[np.ndarray, "B C G"] | None,
           perturbation: Perturbation, log_depth: Float[np.ndarray, "B S"], gene_ids: Int[np.ndarray, " G"]) -> "Batch":
        """Makes a batch from arrays: tokens of any whole-number type, the log of counts / target depth.

        Tokens stay as they are, bytes if they are bytes, until `to` brings them to where a model reads them.
        """
        shown = None if controls is None else torch.from_numpy(controls)
        depth = torch.from_numpy(log_depth).float()
        return cls(torch.from_numpy(tokens), shown, perturbation, depth, torch.from_numpy(gene_ids))

    def to(self, device: torch.device | str) -> "Batch":
        """Returns a copy on a device, ready for a model: bytes are moved, and become whole numbers (long) there.

        What lies in pinned memory is copied while the caller goes on.
        """
        tokens, depth, gene_ids = (part.to(device, non_blocking=True) for part in
                                   (self.tokens, self.log_depth, self.gene_ids))
        controls = None if self.controls is None else self.controls.to(device, non_blocking=True).long()
        return Batch(tokens.long(), controls, self.perturbation.to(device), depth, gene_ids)


class Plan(NamedTuple):
    """What a batch will show and tell, before a token is read: small, and the same in every process."""

    store: int  # number of the store that the cells are in
    cells: Int[np.ndarray, "B S"]  # rows of the store
    controls: Int[np.ndarray, "B C"] | None
    told: Perturbation


class _Group(NamedTuple):
    """The cells of a store that share target, sign, replicate and fold: what a set is drawn from."""

    target: int
    sign: int
    replicate: int
    fold: int  # `TokenStore.folds`: what the set is not told the effect of
    cells: np.ndarray


class _Source:
    """One store's groups with their weights, and the controls of each replicate and of all together."""

    def __init__(self, store: TokenStore, config: TrainConfig, stage: str, aside: bool) -> None:
        self.store = store
        is_control = store.target == NO_TARGET
        keys, number = store.groups()
        wanted = set_aside(keys, config.validation_share) == aside
        if stage == "pretrain":  # no labels, and any cell can stand for a control
            replicates, number = np.unique(store.group, return_inverse=True)
            nothing = np.zeros_like(replicates)
            keys = np.stack([nothing + NO_TARGET, nothing, replicates, replicates], 1)
            wanted = np.ones(len(keys), bool)
            is_control = np.ones(len(store), bool)
        sizes = np.bincount(number, minlength=len(keys))
        cells = cells_of(number, len(keys))
        self.groups = []
        for i in np.flatnonzero(wanted):
            target, sign, replicate, fold = keys[i].tolist()
            self.groups.append(_Group(target, sign, replicate, fold, cells[i]))
        weights = _weights(keys[wanted], sizes[wanted])
        of_controls = keys[wanted][:, 0] == NO_TARGET
        if of_controls.any() and not of_controls.all():
            share = config.control_share  # controls are many: they get this, perturbed sets the rest
            weights[of_controls] *= share / weights[of_controls].sum()
            weights[~of_controls] *= (1 - share) / weights[~of_controls].sum()
        up_to = np.cumsum(weights / weights.sum())
        self.up_to = up_to / up_to[-1:]  # of groups; there may be none
        pool = np.flatnonzero(is_control)
        self.controls = {ALL: pool}
        replicates, number = np.unique(store.group[pool], return_inverse=True)
        for replicate, places in zip(replicates.tolist(), cells_of(number, len(replicates)), strict=False):
            self.controls[replicate] = pool[places]


class SetSampler:
    """Draws training batches; batch i is a function of (seed, i) alone, so a resumed run sees what it would have.

    Args:
        stores: One store, or several whose panels differ (a batch comes from one of them, chosen by its size).
        config: Sizes and dropout shares.
        stage: "finetune": sets share target, sign and replicate. "pretrain": labels are ignored, a set is cells of one
            replicate or cell type, and its "controls" are other cells of the same kind.
        aside: Draw from the groups of cells that training does not see (`set_aside`), instead of from all others.

    Raises:
        CDTError: No cells, fine-tuning without control cells, or stores with different bins.
    """

    def __init__(self, stores: TokenStore | Sequence[TokenStore], config: TrainConfig, stage: str = "finetune",
                 aside: bool = False) -> None:
        self.stores = [stores] if isinstance(stores, TokenStore) else list(stores)
        self.config = config
        self.stage = stage
        self._sizes = np.array([len(store) for store in self.stores], float)
        if not self.stores or not self._sizes.all():
            raise CDTError("no cells to train on: the selection is empty.")
        up_to = np.cumsum(self._sizes / self._sizes.sum())
        self._up_to = up_to / up_to[-1]
        longest = max(self.stores, key=lambda store: len(store.symbols))
        for store in self.stores:
            store.require(longest.tokenizer, longest.symbols, "another")
        self._sources = []
        for i, store in enumerate(self.stores):  # cells are set aside from the first: mean effects are its own
            own = config if i == 0 else replace(config, validation_share=0.0)
            self._sources.append(_Source(store, own, stage, aside))
        if any(len(source.controls[ALL]) == 0 for source in self._sources):
            raise CDTError("no control cells to fine-tune with: keep the screen's on the training side.")

    def validation(self) -> "SetSampler | None":
        """Returns a sampler of the cells that training does not see, with nothing withheld; None: all are seen."""
        told = replace(self.config, target_dropout=0.0, perturbation_dropout=0.0, magnitude_dropout=1.0,
                       controls_dropout=0.0, control_share=0.0)
        keys, _ = self.stores[0].groups()
        if self.stage == "pretrain" or not set_aside(keys, self.config.validation_share).any():
            return None
        return SetSampler(self.stores[0], told, aside=True)

    @property
    def n_cells(self) -> int:
        """Cells in all stores; an epoch is `n_cells / batch_size` steps."""
        return int(self._sizes.sum())

    def steps_for(self, epochs: int) -> int:
        """Returns the number of steps of so many epochs."""
        return max(1, round(epochs * self.n_cells / self.config.batch_size))

    def batch(self, index: int) -> Batch:
        """Returns batch number `index`, ready for a model on the CPU."""
        return self.gather(self.plan(index)).to("cpu")

    def batch_of(self, group: int) -> Batch:
        """Returns a batch whose sets are all drawn from one group of cells of the first store, by its number."""
        rng = np.random.default_rng([self.config.seed, group])
        return self.gather(self._plan(rng, 0, [group] * self.config.sets_per_batch)).to("cpu")

    def plan(self, index: int) -> Plan:
        """Returns which cells batch number `index` shows; its cost does not grow with the cells in the stores."""
        rng = np.random.default_rng([self.config.seed, require_whole("index", index), STAGES.index(self.stage)])
        store = int(np.searchsorted(self._up_to, rng.random(), side="right"))
        # as rng.choice(..., p=weights) draws, without adding up all weights each time
        chosen = np.searchsorted(self._sources[store].up_to, rng.random(self.config.sets_per_batch), side="right")
        return self._plan(rng, store, chosen.tolist())

    def gather(self, plan: Plan, sets: slice = slice(None)) -> Batch:
        """Reads the tokens of a planned batch.

        Args:
            plan: From `plan`.
            sets: Those to read: of many processes, each reads its own.
        """
        store, cells = self.stores[plan.store], plan.cells[sets]
        controls = None if plan.controls is None else store.tokens[plan.controls[sets]]
        of_sets: dict[str, Any] = {name: None if told is None else told[sets] for name, told in vars(plan.told).items()}
        depth = store.log_depth[cells]
        return Batch.of(store.tokens[cells], controls, Perturbation(**of_sets), depth, store.gene_ids)

    def _plan(self, rng: Rng, number: int, chosen: list[int]) -> Plan:
        c, source = self.config, self._sources[number]
        groups = [source.groups[i] for i in chosen]
        cells = np.array([_take(rng, group.cells, c.cells_per_set) for group in groups])
        controls = None
        if rng.random() >= c.controls_dropout:
            controls = self._controls(rng, source, groups, cells)
        return Plan(number, cells, controls, self._perturbations(rng, groups, source.store))

    def _controls(self, rng: Rng, source: _Source, groups: list[_Group], cells: np.ndarray) -> np.ndarray:
        """Draws each set's control cells from its replicate, or from all where that has none."""
        drawn = []
        for group, of_set in zip(groups, cells, strict=True):
            pool = source.controls.get(group.replicate, source.controls[ALL])
            drawn.append(_take_others(rng, pool, of_set, self.config.controls_per_set))
        return np.array(drawn)

    def _perturbations(self, rng: Rng, groups: list[_Group], store: TokenStore) -> Perturbation:
        """What the model is told of each set: all, or some of it, or nothing."""
        c = self.config
        target, sign, magnitude, guess, pair = [], [], [], [], []
        for group, lost in zip(groups, rng.random((len(groups), 3)).tolist(), strict=True):
            lose_all, lose_target, lose_size = lost
            # half of the targets that are withheld come with what is known of their gene by its like
            guess.append(group.target if lose_target < c.target_dropout / 2 else NO_TARGET)
            if self.stage == "pretrain" or group.target == NO_TARGET or lose_all < c.perturbation_dropout:
                target.append(NO_TARGET)
                sign.append(0)
                magnitude.append(0.0)
                pair.append(ALONE)
                continue
            size = float(store.magnitude[group.cells[0]])
            target.append(UNKNOWN_TARGET if lose_target < c.target_dropout else group.target)
            # of a pair that nobody made, the genes are known
            named = lose_target >= c.target_dropout or guess[-1] != NO_TARGET
            genes = store.pairs.get(group.target, ALONE)
            pair.append(genes if named else ALONE)
            sign.append(group.sign)
            magnitude.append(float("nan") if lose_size < c.magnitude_dropout else size)
        fold = [group.fold for group in groups]
        own = [group.target for group in groups]
        return Perturbation.of(target, sign, magnitude, guess, fold, own, pair if store.pairs else None)


def _weights(keys: Int[np.ndarray, "groups 4"], sizes: Int[np.ndarray, " groups"]) -> Float[np.ndarray, " groups"]:
    """How often each group is drawn: by the square root of its replicate's cells, shared among the folds of one."""
    _, which, n_folds = np.unique(keys[:, :3], axis=0, return_inverse=True, return_counts=True)
    cells = np.bincount(which.ravel(), sizes)
    return (np.sqrt(cells) / n_folds)[which.ravel()]


def _take(rng: Rng, pool: np.ndarray, n: int) -> np.ndarray:
    """Draws n cells, some more than once only where there are fewer."""
    return pool[rng.choice(len(pool), n, replace=len(pool) < n)]


def _take_others(rng: Rng, pool: np.ndarray, of_set: np.ndarray, n: int) -> np.ndarray:
    """Draws n cells of a sorted pool that are not in a set: by their number among the others, never made as a list."""
    place = np.searchsorted(pool, of_set)
    own = pool.take(place, mode="clip") == of_set
    if not own.any():
        return _take(rng, pool, n)
    at = np.unique(place[own])
    if len(at) == len(pool):  # a cell is its own control only where there is no other
        return _take(rng, pool, n)
    n_others = len(pool) - len(at)
    number = rng.choice(n_others, n, replace=n_others < n)
    n_passed = np.searchsorted(at - np.arange(len(at)), number, side="right")  # of its own that come before
    return pool[number + n_passed]
