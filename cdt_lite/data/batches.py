"""Batches: sets of cells that share a perturbation, drawn from a token store with matched controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from cdt_lite.data.store import TokenStore, set_aside
from cdt_lite.errors import CDTError, require_whole
from cdt_lite.model.config import TrainConfig
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation

ALONE = (NO_TARGET, NO_TARGET)  # no pair
Rng = np.random.Generator
STAGES = ("pretrain", "finetune")
TOGETHER = 16  # batches that are planned at once
TRIES = 3  # of sets to draw together


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
    told: Mapping[str, np.ndarray]  # fields of a `Perturbation`


class _Pools(NamedTuple):
    """Cells in one list, those of each pool side by side and in order, and where in it the pools lie."""

    cells: Int[np.ndarray, " cells"]
    first: Int[np.ndarray, " pools"]
    size: Int[np.ndarray, " pools"]

    @classmethod
    def of(cls, cells: Int[np.ndarray, " cells"], number: Int[np.ndarray, " cells"], n: int) -> "_Pools":
        """Puts each cell into one of n pools, by its number."""
        size = np.bincount(number, minlength=n)
        return cls(cells[np.argsort(number, kind="stable")], np.cumsum(size) - size, size)

    def of_each(self, pools: np.ndarray) -> "_Pools":
        """Returns these pools alone; one without a cell becomes all of them together, of which its sets have none."""
        first, size = self.first[pools], self.size[pools]
        return _Pools(self.cells, np.where(size, first, 0), np.where(size, size, len(self.cells)))

    def draw(self, rng: Rng, pools: Int[np.ndarray, " sets"], n: int, own: Int[np.ndarray, "sets S"]
             ) -> Int[np.ndarray, "sets n"]:
        """Draws n cells of its pool for every set: none twice (but of fewer than n), and none that the set has.

        All sets draw at once. One that got a cell twice, or one of its own, draws anew (rejection sampling), in the end
        by itself; every draw is uniform, so what is kept is.
        """
        first, size, n_own = self.first[pools], self.size[pools], _n_different(own)
        drawn, left = np.empty((len(pools), n), np.int64), np.arange(len(pools))
        must = np.where((size < n) & (n_own == 0), 0, n_own + n)  # be different, of its own and those drawn
        for _ in range(TRIES):
            number = (rng.random((len(left), n)) * size[left, None]).astype(np.int64)
            drawn[left] = self.cells[first[left, None] + number]
            left = left[_n_different(np.concatenate([own[left], drawn[left]], 1)) < must[left]]
        for i in left:
            drawn[i] = _take_others(rng, self.cells[first[i] : first[i] + size[i]], own[i], n)
        return drawn


class _Source:
    """One store's groups: what a set of each is told, how often it is drawn, its cells and the controls beside them."""

    def __init__(self, store: TokenStore, config: TrainConfig, stage: str, aside: bool) -> None:
        is_control = store.target == NO_TARGET
        keys, number = store.groups()
        wanted = set_aside(keys, config.validation_share) == aside
        replicates, replicate = np.unique(store.group, return_inverse=True)
        if stage == "pretrain":  # no labels, and any cell can stand for a control
            nothing = np.zeros_like(replicates)
            keys, number = np.stack([nothing + NO_TARGET, nothing, replicates, replicates], 1), replicate
            wanted = np.ones(len(keys), bool)
            is_control = np.ones(len(store), bool)
        self.cells = _Pools.of(np.arange(len(store)), number, len(keys)).of_each(wanted)
        pool = np.flatnonzero(is_control)
        controls = _Pools.of(pool, replicate[pool], len(replicates))
        self.controls = controls.of_each(np.searchsorted(replicates, keys[wanted, 2]))
        self.target, self.sign, _, self.fold = np.array(keys[wanted].T, np.int64, order="C")
        self.magnitude = store.magnitude[self.cells.cells[self.cells.first]].astype(np.float32)
        self.pair = None
        if store.pairs:
            self.pair = np.array([store.pairs.get(target, ALONE) for target in self.target.tolist()], np.int64)
        weights = _weights(keys[wanted], self.cells.size)
        of_controls = self.target == NO_TARGET
        if of_controls.any() and not of_controls.all():
            share = config.control_share  # controls are many: they get this, perturbed sets the rest
            weights[of_controls] *= share / weights[of_controls].sum()
            weights[~of_controls] *= (1 - share) / weights[~of_controls].sum()
        up_to = np.cumsum(weights / weights.sum())
        self.up_to = up_to / up_to[-1:]  # of groups; there may be none


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
        if any(len(source.controls.cells) == 0 for source in self._sources):
            raise CDTError("no control cells to fine-tune with: keep the screen's on the training side.")
        self._block = lru_cache(4)(self._planned)

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
        (plan,) = self._plan(rng, 0, np.full((1, self.config.sets_per_batch), group))
        return self.gather(plan).to("cpu")

    def plan(self, index: int) -> Plan:
        """Returns which cells batch number `index` shows; its cost does not grow with the cells in the stores."""
        block, place = divmod(require_whole("index", index), TOGETHER)
        return self._block(block)[place]

    def gather(self, plan: Plan, sets: slice = slice(None)) -> Batch:
        """Reads the tokens of a planned batch.

        Args:
            plan: From `plan`.
            sets: Those to read: of many processes, each reads its own.
        """
        store, cells = self.stores[plan.store], plan.cells[sets]
        controls = None if plan.controls is None else store.tokens[plan.controls[sets]]
        told = Perturbation(**{name: torch.from_numpy(part[sets]) for name, part in plan.told.items()})
        return Batch.of(store.tokens[cells], controls, told, store.log_depth[cells], store.gene_ids)

    def _planned(self, block: int) -> list[Plan]:
        """Plans batches that follow each other: one by one, so many small steps would take longer than reading."""
        rng = np.random.default_rng([self.config.seed, block, STAGES.index(self.stage)])
        of_store = np.searchsorted(self._up_to, rng.random(TOGETHER), side="right")
        plans: dict[int, Plan] = {}
        for number in np.unique(of_store).tolist():
            batches = np.flatnonzero(of_store == number).tolist()
            # as rng.choice(..., p=weights) draws, without adding up all weights each time
            drawn = rng.random((len(batches), self.config.sets_per_batch))
            chosen = np.searchsorted(self._sources[number].up_to, drawn, side="right")
            plans |= zip(batches, self._plan(rng, number, chosen), strict=True)
        return [plans[i] for i in range(TOGETHER)]

    def _plan(self, rng: Rng, number: int, chosen: Int[np.ndarray, "batches B"]) -> list[Plan]:
        """Plans batches of one store, the group of each of their sets given."""
        c, source, sets = self.config, self._sources[number], chosen.ravel()
        cells = source.cells.draw(rng, sets, c.cells_per_set, np.empty((len(sets), 0), np.int64))
        controls = source.controls.draw(rng, sets, c.controls_per_set, cells)
        cells, controls = (drawn.reshape(*chosen.shape, -1) for drawn in (cells, controls))
        shown = rng.random(len(chosen)) >= c.controls_dropout
        told, plans = self._told(rng, source, chosen), []
        for i in range(len(chosen)):
            of_sets = {name: part[i] for name, part in told.items()}
            plans.append(Plan(number, cells[i], controls[i] if shown[i] else None, of_sets))
        return plans

    def _told(self, rng: Rng, source: _Source, chosen: Int[np.ndarray, "batches B"]) -> dict[str, np.ndarray]:
        """What the model is told of each set: all, or some of it, or nothing."""
        c, own = self.config, source.target[chosen]
        lose_all, lose_target, lose_size = rng.random((3, *chosen.shape))
        told = (own != NO_TARGET) & (lose_all >= c.perturbation_dropout)
        withheld = lose_target < c.target_dropout
        # half of the targets that are withheld come with what is known of their gene by its like
        guess = np.where(lose_target < c.target_dropout / 2, own, NO_TARGET)
        target = np.where(told, np.where(withheld, UNKNOWN_TARGET, own), NO_TARGET)
        size = np.where(lose_size < c.magnitude_dropout, np.float32("nan"), source.magnitude[chosen])
        parts = {"target": target, "sign": source.sign[chosen] * told, "magnitude": np.where(told, size, 0),
                 "guess": guess, "replicate": source.fold[chosen], "own": own}
        if source.pair is not None:  # of a pair that nobody made, the genes are known
            named = told & (~withheld | (guess != NO_TARGET))
            parts["pair"] = np.where(named[..., None], source.pair[chosen], NO_TARGET)
        return parts


def _weights(keys: Int[np.ndarray, "groups 4"], sizes: Int[np.ndarray, " groups"]) -> Float[np.ndarray, " groups"]:
    """How often each group is drawn: by the square root of its replicate's cells, shared among the folds of one."""
    _, which, n_folds = np.unique(keys[:, :3], axis=0, return_inverse=True, return_counts=True)
    cells = np.bincount(which.ravel(), sizes)
    return (np.sqrt(cells) / n_folds)[which.ravel()]


def _n_different(cells: Int[np.ndarray, "sets k"]) -> Int[np.ndarray, " sets"]:
    """How many different cells each set has."""
    ordered = np.sort(cells, 1)
    return (ordered[:, 1:] != ordered[:, :-1]).sum(1) + min(cells.shape[1], 1)


def _take_others(rng: Rng, pool: np.ndarray, of_set: np.ndarray, n: int) -> np.ndarray:
    """Draws n cells of a sorted pool that are not in a set: by their number among the others, never made as a list.

    Some come more than once only where there are fewer, and a set's own only where there is no other.
    """
    place = np.searchsorted(pool, of_set)
    at = np.unique(place[pool.take(place, mode="clip") == of_set])
    if len(at) == len(pool):
        at = at[:0]
    n_others = len(pool) - len(at)
    number = rng.choice(n_others, n, replace=n_others < n)
    n_passed = np.searchsorted(at - np.arange(len(at)), number, side="right")  # of its own that come before
    return pool[number + n_passed]
