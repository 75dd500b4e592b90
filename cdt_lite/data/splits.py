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
CHOSEN = "cdt_split"  # column of obs: each cell's side in a split that was chosen
SIDES = ("train", "held_out", "unseen")


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
    known = sorted(set(labels.target.tolist()) - {CONTROL})
    for target in [*unseen, *(target for target, _ in held_out)]:
        if target not in known:
            raise CDTError(f"cannot hold out target {target!r}{suggest(target, known)}; this screen has {known[:10]}")
    side = np.full(screen.n_obs, "train", object)
    for target, batch in held_out:
        if batch not in labels.batch:
            batches = sorted(set(labels.batch.tolist()))
            raise CDTError(f"there is no batch {batch!r}{suggest(batch, batches)}; this screen has {batches}")
        side[(labels.target == target) & (labels.batch == batch)] = "held_out"
    side[np.isin(labels.target, list(unseen))] = "unseen"
    return side


def choose_split(screen: AnnData, unseen: Sequence[str] = (), held_out: Pairs = (), column: str | None = None
                 ) -> AnnData:
    """Returns a screen with a split of your choice: `named_split` gives it for this screen and for any part of it.

    Args:
        screen: Cells in the layout of `load_screen`; those on disk are given the split themselves, others a copy.
        unseen: Targets withheld altogether.
        held_out: (target, batch) pairs withheld.
        column: Instead of these: a column of obs with "train", "held_out" or "unseen" for every cell.

    Raises:
        CDTError: A name that is not there, a target that is withheld twice or in part, or nothing left to train on.
    """
    if screen.isbacked and screen.is_view:
        raise CDTError("a part of a file on disk takes no split: choose it for the whole file, then take parts")
    if column is None:
        side = split_screen(screen, unseen, held_out)
    else:
        side = _sides_in(screen, column)
    _check_sides(screen, side, [*held_out])
    screen = screen if screen.isbacked else screen.copy()
    screen.obs[CHOSEN] = side.astype(str)
    return screen


def as_words(screen: AnnData, side: np.ndarray) -> dict[str, list[str]]:
    """Returns a split as the options of the command line name it: targets, and replicates of targets.

    Raises:
        CDTError: It holds out some cells of a replicate, which no option names.
    """
    target, batch = (screen.obs[key].astype(str).to_numpy() for key in ("target_gene", "batch"))
    pairs = sorted(set(zip(target[side == "held_out"], batch[side == "held_out"], strict=True)))
    for pair in pairs:
        if (side[(target == pair[0]) & (batch == pair[1])] != "held_out").any():
            raise CDTError(f"the rule holds out some cells of {pair[0]!r}, since no target was made in two replicates: "
                           "name what to withhold, with --unseen or --split-key")
    return {"unseen": sorted(set(target[side == "unseen"])), "hold_out": [":".join(pair) for pair in pairs]}


def _sides_in(screen: AnnData, column: str) -> np.ndarray:
    """The sides that a column names; control cells stay in training."""
    if column not in screen.obs:
        raise CDTError(f"the screen has no column {column!r} in obs{suggest(column, screen.obs)}; it has "
                       f"{list(screen.obs)}")
    side = screen.obs[column].astype(str).to_numpy(object)
    others = sorted(set(side) - set(SIDES))
    if others:
        raise CDTError(f"obs[{column!r}] must name a side of the split for every cell, one of {', '.join(SIDES)}; it "
                       f"holds {others[:5]}")
    is_control = (screen.obs["target_gene"] == CONTROL).to_numpy()
    n = int((side[is_control] != "train").sum())
    if n:
        warnings.warn(f"{n} control cells that obs[{column!r}] withholds are trained on: control cells always are",
                      CDTWarning, stacklevel=4)
    side[is_control] = "train"
    return side


def _check_sides(screen: AnnData, side: np.ndarray, pairs: list[tuple[str, str]]) -> None:
    """Raises CDTError where a split does not keep what its sides promise."""
    target = screen.obs["target_gene"].astype(str).to_numpy()
    batch = screen.obs["batch"].astype(str).to_numpy()
    trained = set(target[side == "train"]) - {CONTROL}
    if not trained:
        raise CDTError("this split leaves no perturbed cells to train on: withhold fewer targets")
    for pair in pairs:
        here = (target == pair[0]) & (batch == pair[1])
        if not (side[here] == "held_out").any():
            raise CDTError(f"target {pair[0]!r} has no cells in batch {pair[1]!r}, or is withheld as unseen, too")
    partly = sorted(set(target[side == "unseen"]) & set(target[side != "unseen"]))
    if partly:
        raise CDTError(f"{partly[:5]}: an unseen target is withheld with all its cells; these have others")
    untrained = sorted(set(target[side == "held_out"]) - trained)
    if untrained:
        raise CDTError(f"{untrained[:5]}: all cells would be held out and none trained on; withhold these targets as "
                       "unseen instead")


def named_split(screen: AnnData) -> np.ndarray:
    """Returns each cell's side in the split that every result of the series is reported on.

    A screen whose split was chosen has that (`choose_split`). One with an entry in `splits.json` (by name, or by name
    and hash) has a fixed split. Any other gets one by rule, from the hashes of its names alone: a sixth of the targets
    unseen (none of a single one), and of another quarter the last replicate held out (of targets that have one more),
    or, where there are none, random cells of them, about a quarter.

    Args:
        screen: Cells in the layout of `load_screen`.
    """
    if CHOSEN in screen.obs:
        return screen.obs[CHOSEN].astype(str).to_numpy(object)
    fixed = json.loads((Path(__file__).parent / "splits.json").read_text(encoding="utf-8"))
    about = screen.uns.get("screen", {})
    name = str(about.get("name", ""))
    for key in (name, f"{name} {str(about.get('sha256', ''))[:12]}"):
        if key in fixed:
            held_out = [(target, batch) for target, batch in fixed[key]["held_out"]]
            return split_screen(screen, fixed[key]["unseen"], held_out)
    return _by_rule(screen, read_labels(screen))


def _by_rule(screen: AnnData, labels: Labels) -> np.ndarray:
    """The split of a screen without a fixed one."""
    batches: dict[str, set[str]] = {}
    for target, batch in zip(labels.target.tolist(), labels.batch.tolist(), strict=True):
        batches.setdefault(target, set()).add(batch)
    last = max(labels.batch.tolist())
    batches.pop(CONTROL, None)
    targets = sorted(batches, key=_hash)
    n_unseen = max(1, len(targets) // 6)
    if len(targets) == 1:  # were it unseen, nothing would be left to train on
        n_unseen, last = 0, max(batches[targets[0]])
    n_held_out = max(1, len(targets) // 4)
    held_out = []
    for target in targets[n_unseen:]:
        if last in batches[target] and len(batches[target]) > 1:
            held_out.append((target, last))
    side = split_screen(screen, targets[:n_unseen], held_out[:n_held_out])
    if not held_out:
        for target in targets[n_unseen:][:n_held_out]:
            cells = np.flatnonzero(labels.target == target)
            drawn = [cell for cell in cells if _hash(screen.obs_names[cell])[0] in "0123"]  # of 16 digits
            if len(drawn) < len(cells):
                side[drawn] = "held_out"
    return side


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
