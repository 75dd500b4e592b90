"""Which cells are trained on and which are withheld: a split by name, by hand, or by rule."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np

from cdt_lite.errors import CDTError, suggest


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
