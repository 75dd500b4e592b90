"""What a model leans on: what a hidden gene costs when an input is taken away."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from cdt_lite.data.batches import Batch
from cdt_lite.model.perturbation import Perturbation
from cdt_lite.teaching.bits import intervals
from cdt_lite.teaching.held_out import HeldOut, held_out_sets
from cdt_lite.teaching.listening import emptied
from cdt_lite.teaching.masks import hidden_bits
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.trust import denoiser

WHOLE = "everything"


@torch.no_grad()
def bits_without(capsule: Checkpoint, found: HeldOut, n_batches: int) -> pd.DataFrame:
    """Returns bits per hidden gene of held-out cells, half of each hidden: cells x inputs that were taken away.

    Told are the perturbation without its magnitude, controls and depth; in place of its depth a cell is told that of a
    typical control.

    Args:
        capsule: Its table must not be empty.
        found: Whose cells are asked for.
        n_batches: Each of sets of four cells.
    """
    sampler = held_out_sets(capsule, found.test, capsule.config.finetune.sets_per_batch, 4)
    without_table = emptied(capsule)
    costs: dict[str, list[np.ndarray]] = {}
    for i in range(n_batches):
        batch = sampler.batch(i)
        mask = torch.rand(batch.tokens.shape, generator=torch.Generator().manual_seed(i)) < 0.5
        nothing = Perturbation.none(len(batch.tokens))
        asked = {WHOLE: batch, "no controls": replace(batch, controls=None),
                 "a typical depth": replace(batch, log_depth=torch.zeros_like(batch.log_depth)),
                 "no table": batch, "no perturbation": replace(batch, perturbation=nothing)}
        for name, told in asked.items():
            model = without_table if name == "no table" else capsule
            costs.setdefault(name, []).append(_bits(model, told, mask))
    return pd.DataFrame({name: np.concatenate(found) for name, found in costs.items()})


def _bits(checkpoint: Checkpoint, batch: Batch, mask: torch.Tensor) -> np.ndarray:
    """Mean over each cell's hidden genes."""
    denoise = denoiser(checkpoint.model.eval(), batch)
    bits = hidden_bits(denoise, batch.tokens, mask, checkpoint.tokenizer.mask_id)
    return (bits / mask.sum(-1)).flatten().double().numpy()


def worth(bits: pd.DataFrame) -> pd.DataFrame:
    """Returns what each input is worth: mean bits per hidden gene without it, how much more that is, and its interval.

    Args:
        bits: From `bits_without`.
    """
    more = intervals(bits.drop(columns=WHOLE).sub(bits[WHOLE], axis=0)).rename(columns={"mean": "more"})
    return bits.mean().to_frame("bits per gene").join(more)


def leans(table: pd.DataFrame) -> str:
    """Says what a model leans on most, and what the perturbation is worth.

    Args:
        table: From `worth`.
    """
    gaps = table.drop(index=WHOLE).sort_values("more", ascending=False)
    most, row = gaps.index[0], gaps.iloc[0]
    told = table.loc["no perturbation"]
    value = f"{told['more']:.3f} bits [{told['low']:.3f}, {told['high']:.3f}] per hidden gene"
    if told["low"] > 0:
        what = f"Not being told the perturbation costs {value}, {told['more'] / row['more']:.0%} of that"
    else:
        what = f"No cost of not being told the perturbation is seen: {value}"
    return (f"Of {table.loc[WHOLE, 'bits per gene']:.3f} bits with everything, the largest loss is by {most}: "
            f"{row['more']:.3f} [{row['low']:.3f}, {row['high']:.3f}] more. {what}.")
