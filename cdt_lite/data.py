"""AnnData -> batches: cells tokenised once into a uint8 store, sets of perturbed cells drawn with matched controls."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy import sparse
from torch import Tensor

from cdt_lite.conditioning import NO_TARGET, UNKNOWN_TARGET, Perturbation
from cdt_lite.config import TokenizerConfig, TrainConfig
from cdt_lite.errors import CDTError, suggest
from cdt_lite.tokenizer import Tokenizer
from cdt_lite.vocabulary import Vocabulary

Group = tuple[tuple[int, int, int], np.ndarray]  # (target, sign, replicate) and its cells
ALL = -1  # the group of all replicates together
STAGES = ("pretrain", "finetune")
BLOCK = 4096  # rows converted at a time, so that a file on disk is never read whole


def split_screen(screen: ad.AnnData, *, unseen: Sequence[str] = (), held_out: Sequence[tuple[str, str]] = (),
                 target_key: str = "target_gene", batch_key: str = "batch", control: str = "non-targeting"
                 ) -> np.ndarray:
    """Names each cell's side of the split: "train", "unseen" (whole perturbations) or "held_out" (replicates of them).

    Args:
        screen: Cells with targets and replicates.
        unseen: Targets withheld altogether.
        held_out: (target, batch) pairs withheld; the target's other replicates stay in training.
        target_key: Column of targets.
        batch_key: Column of replicates.
        control: Label of control cells, which always stay in training.

    Returns:
        Array of str, one a cell. Raises CDTError for a name that the screen does not have.
    """
    targets, batches = screen.obs[target_key].astype(str).to_numpy(), screen.obs[batch_key].astype(str).to_numpy()
    for name in [*unseen, *(t for t, _ in held_out)]:
        if name not in targets or name == control:
            raise CDTError(f"cannot hold out target {name!r}{suggest(name, set(targets) - {control})}")
    for _, batch in held_out:
        if batch not in batches:
            raise CDTError(f"there is no batch {batch!r}; this screen has {sorted(set(batches))}")
    side = np.where(np.isin(targets, list(unseen)), "unseen", "train").astype(object)
    for target, batch in held_out:
        side[(targets == target) & (batches == batch)] = "held_out"
    return side


def fit_tokenizer(config: TokenizerConfig, screen: ad.AnnData, *, target_key: str = "target_gene",
                  control: str = "non-targeting") -> Tokenizer:
    """Makes a tokenizer whose target depth is the median depth of the (training) control cells given."""
    depths = control_depths(screen, target_key=target_key, control=control)
    return Tokenizer(config, float(np.median(depths)))


def control_depths(screen: ad.AnnData, *, target_key: str = "target_gene", control: str = "non-targeting"
                   ) -> np.ndarray:
    """Returns the total counts of every control cell. Raises CDTError when there is none."""
    if target_key not in screen.obs:
        raise CDTError(f"obs has no column {target_key!r}{suggest(target_key, screen.obs.columns)}")
    is_control = (screen.obs[target_key].astype(str) == control).to_numpy()
    if not is_control.any():
        labels = sorted(set(screen.obs[target_key].astype(str)))[:8]
        raise CDTError(f"no control cells: nothing in obs[{target_key!r}] is {control!r}{suggest(control, labels)} "
                       f"Labels there: {labels}. Name yours with control=.")
    return np.asarray(screen[is_control].X.sum(1), dtype=np.float64).ravel()


def dense(block: Any) -> np.ndarray:
    """Returns a dense float32 array of a block of cells, sparse or not."""
    return np.asarray(block.toarray() if sparse.issparse(block) else block, dtype=np.float32)


@dataclass
class TokenStore:
    """Tokenised cells with their labels: everything that training needs, an eighth of the size of float64 counts.

    Args:
        tokens: (cells, G) uint8, in memory or memory-mapped.
        gene_ids: Row of each gene in the gene table, (G,).
        target: Gene id of each cell's target, or NO_TARGET, (cells,).
        sign: -1, 0, +1, (cells,).
        magnitude: log2 fold change, NaN unknown, (cells,).
        group: Number of each cell's replicate or cell type: controls are drawn from the same, (cells,).
        log_depth: log(counts / target depth), (cells,).
    """

    tokens: UInt8[np.ndarray, "cells G"]
    gene_ids: Int[np.ndarray, " G"]
    target: Int[np.ndarray, " cells"]
    sign: Int[np.ndarray, " cells"]
    magnitude: Float[np.ndarray, " cells"]
    group: Int[np.ndarray, " cells"]
    log_depth: Float[np.ndarray, " cells"]

    @classmethod
    def from_adata(cls, adata: ad.AnnData, tokenizer: Tokenizer, vocabulary: Vocabulary, *,
                   path: str | Path | None = None, target_key: str = "target_gene", batch_key: str = "batch",
                   control: str = "non-targeting") -> "TokenStore":
        """Tokenises raw counts block by block (a backed .h5ad works), into memory or into a file at `path`.

        Raises:
            CDTError: No cells, a gene outside the vocabulary, or a cell without a replicate.
        """
        if adata.n_obs == 0 or adata.n_vars == 0:
            raise CDTError(f"nothing to tokenise: the selection has {adata.n_obs} cells and {adata.n_vars} genes.")
        gene_ids = vocabulary.ids(list(adata.var_names))
        tokens = (np.empty(adata.shape, np.uint8) if path is None
                  else np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=adata.shape))
        depth = np.empty(adata.n_obs)
        for start in range(0, adata.n_obs, BLOCK):
            counts = dense(adata.X[start: start + BLOCK])
            depth[start: start + BLOCK] = counts.sum(1)
            tokens[start: start + BLOCK] = tokenizer.tokenize(counts)
        obs = adata.obs
        labels = obs[target_key].astype(str).to_numpy() if target_key in obs else np.full(adata.n_obs, control)
        by_label = {label: NO_TARGET if label == control else vocabulary.id(label) for label in set(labels)}
        default_sign = np.where(labels == control, 0, -1)
        group = obs[batch_key].astype("category").cat.codes.to_numpy() if batch_key in obs else np.zeros(adata.n_obs)
        if (group < 0).any():
            raise CDTError(f"{(group < 0).sum()} cells have no {batch_key!r}: name their replicate, or drop them.")
        return cls(tokens, gene_ids, np.array([by_label[label] for label in labels]),
                   obs["sign"].to_numpy().astype(np.int64) if "sign" in obs else default_sign,
                   obs["magnitude"].to_numpy().astype(np.float32) if "magnitude" in obs
                   else np.where(labels == control, 0, np.nan).astype(np.float32), group.astype(np.int64),
                   np.log(np.maximum(depth, 1.0) / tokenizer.target_depth).astype(np.float32))

    def __len__(self) -> int:
        return len(self.target)

    def digest(self) -> str:
        """Returns a hash of the tokens and labels: what a model was trained on."""
        h = hashlib.sha256()
        for array in (self.tokens, self.gene_ids, self.target, self.sign):
            h.update(np.ascontiguousarray(array).tobytes())
        return h.hexdigest()[:16]


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


def named_split(screen: ad.AnnData, *, target_key: str = "target_gene", batch_key: str = "batch",
                control: str = "non-targeting") -> np.ndarray:
    """Returns each cell's side in the split that every result of the series is reported on.

    A screen with an entry in `splits.json` (by name, or by name and hash) has a fixed split. Any other gets one by
    rule, from the hashes of its target names alone: a sixth of the targets unseen, and of another quarter the last
    replicate held out (of targets that have one more).
    """
    fixed = json.loads((Path(__file__).parent / "splits.json").read_text(encoding="utf-8"))
    about = dict(screen.uns.get("screen", {}))
    name = str(about.get("name", ""))
    name = name if name in fixed else f"{name} {str(about.get('sha256', ''))[:12]}"
    keys = {"target_key": target_key, "batch_key": batch_key, "control": control}
    if name in fixed:
        held_out = [(target, batch) for target, batch in fixed[name]["held_out"]]
        return split_screen(screen, unseen=fixed[name]["unseen"], held_out=held_out, **keys)
    pairs = set(zip(screen.obs[target_key].astype(str), screen.obs[batch_key].astype(str), strict=True))
    targets = sorted({t for t, _ in pairs} - {control}, key=lambda t: hashlib.sha256(t.encode()).hexdigest())
    last = max(batch for _, batch in pairs)
    n_unseen, n_held = max(1, len(targets) // 6), max(1, len(targets) // 4)
    twice = [t for t in targets[n_unseen:] if (t, last) in pairs and any(a == t and b != last for a, b in pairs)]
    return split_screen(screen, unseen=targets[:n_unseen], held_out=[(t, last) for t in twice[:n_held]], **keys)
