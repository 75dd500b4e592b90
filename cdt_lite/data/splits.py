"""Which cells are trained on and which are withheld: a split by name, by hand, or by rule."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from anndata import AnnData

from cdt_lite.data.layout import CONTROL, Columns, Labels, read_labels
from cdt_lite.errors import CDTError, CDTWarning, suggest

Pairs = Sequence[tuple[str, str]]  # (target, batch)


def split_screen(screen: AnnData, unseen: Sequence[str] = (), held_out: Pairs = (), columns: Columns = Columns()
                 ) -> np.ndarray:
    """Names each cell's side of the split: "train", "unseen" (whole perturbations) or "held_out" (replicates of them).

    Args:
        screen: Cells with targets and replicates.
        unseen: Targets withheld altogether.
        held_out: (target, batch) pairs withheld; the target's other replicates stay in training.
        columns: Where the labels are. Control cells always stay in training.

    Returns:
        Array of str, one a cell. Raises CDTError for a name that the screen does not have.
    """
    labels = read_labels(screen, columns)
    known = sorted(set(labels.target) - {CONTROL})
    for target in [*unseen, *(target for target, _ in held_out)]:
        if target not in known:
            raise CDTError(f"cannot hold out target {target!r}{suggest(target, known)}")
    side = np.full(screen.n_obs, "train", object)
    side[np.isin(labels.target, list(unseen))] = "unseen"
    for target, batch in held_out:
        if batch not in labels.batch:
            raise CDTError(f"there is no batch {batch!r}; this screen has {sorted(set(labels.batch))}")
        side[(labels.target == target) & (labels.batch == batch)] = "held_out"
    return side


def named_split(screen: AnnData) -> np.ndarray:
    """Returns each cell's side in the split that every result of the series is reported on.

    A screen with an entry in `splits.json` (by name, or by name and hash) has a fixed split. Any other gets one by
    rule, from the hashes of its target names alone: a sixth of the targets unseen, and of another quarter the last
    replicate held out (of targets that have one more). Of a single target its last replicate is held out; where it has
    one replicate, nothing is, and a CDTWarning says so.

    Args:
        screen: Cells in the layout of `load_screen`.
    """
    fixed = json.loads((Path(__file__).parent / "splits.json").read_text(encoding="utf-8"))
    about = screen.uns.get("screen", {})
    name = str(about.get("name", ""))
    for key in (name, f"{name} {str(about.get('sha256', ''))[:12]}"):
        if key in fixed:
            held_out = [(target, batch) for target, batch in fixed[key]["held_out"]]
            return split_screen(screen, fixed[key]["unseen"], held_out)
    return split_screen(screen, *_by_rule(read_labels(screen)))


def _by_rule(labels: Labels) -> tuple[list[str], Pairs]:
    """The unseen targets, and the held-out pairs, of a screen without a fixed split."""
    batches: dict[str, set[str]] = {}
    for target, batch in zip(labels.target.tolist(), labels.batch.tolist(), strict=True):
        batches.setdefault(target, set()).add(batch)
    last = max(labels.batch.tolist())
    batches.pop(CONTROL, None)
    targets = sorted(batches, key=lambda target: hashlib.sha256(target.encode()).hexdigest())
    if len(targets) == 1:
        return [], _of_one(targets[0], batches[targets[0]])
    n_unseen = max(1, len(targets) // 6)
    n_held_out = max(1, len(targets) // 4)
    held_out = []
    for target in targets[n_unseen:]:
        if last in batches[target] and len(batches[target]) > 1:
            held_out.append((target, last))
    return targets[:n_unseen], held_out[:n_held_out]


def _of_one(target: str, batches: set[str]) -> Pairs:
    """The held-out pair of a screen's only target: were it unseen, nothing would be left to train on."""
    if len(batches) > 1:
        return [(target, max(batches))]
    warnings.warn(f"{target!r} is the screen's only target, in one replicate: no cells are withheld, so what a model "
                  "says of it cannot be judged", CDTWarning, stacklevel=4)
    return []
