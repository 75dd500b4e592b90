"""Cells on their way from masks, and what steps of sampling and laws of masks cost, with their sentences."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.model.diffusion import Denoiser, hide
from cdt_lite.teaching.sentences import listed


def walk(states: Sequence[Int[np.ndarray, " G"]], tokenizer: Tokenizer) -> pd.DataFrame:
    """Returns how many genes of a cell are hidden after every step, and how many counts the others have."""
    rows = [((x == tokenizer.mask_id).sum(), tokenizer.decode(x[x != tokenizer.mask_id]).sum()) for x in states]
    return pd.DataFrame(rows, columns=["hidden", "counts"]).astype(int).rename_axis("step")


def total_variation(laws: pd.DataFrame) -> pd.DataFrame:
    """Returns half the summed absolute differences of laws, each with each: 0 is the same, 1 has nothing in common."""
    return pd.DataFrame({one: laws.sub(laws[one], axis=0).abs().sum() / 2 for one in laws})


def hidden_bits(denoise: Denoiser, tokens: Int[Tensor, "B S G"], mask: Bool[Tensor, "B S G"], mask_id: int
                ) -> Float[Tensor, "B S"]:
    """Returns what the hidden genes of each cell cost together, bits."""
    log_p = denoise(hide(tokens, mask, mask_id)).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    return -(log_p * mask).sum(-1) / np.log(2)


def with_errors(estimates: Mapping[str, Tensor], truth: float) -> pd.DataFrame:
    """Returns mean, standard error, and how many of these the mean is off; an estimate has a value for every cell."""
    rows = {}
    for name, values in estimates.items():
        error = float(values.std() / values.numel() ** 0.5)
        rows[name] = {"mean": float(values.mean()), "standard error": error,
                      "off by, standard errors": (float(values.mean()) - truth) / error}
    return pd.DataFrame(rows).T


def steps_cost(prices: pd.DataFrame, whole: float, v1: tuple[int, float]) -> str:
    """Says what sampling in few steps loses by the learned schedule, and from where on v1 is bettered.

    Args:
        prices: Bits per cell, steps x ("uniform", "cosine", "learned").
        whole: What a cell costs, bits.
        v1: The original's steps, and what they lose.
    """
    learned = prices["learned"]
    values = listed([f"{value:.2f}" for value in learned])
    better = learned.index[learned <= v1[1]]
    reached = f"as little as learned loses in {better[0]}" if len(better) else "less than learned in any of these"
    fixed = prices[["uniform", "cosine"]].idxmin(axis=1)
    if fixed.nunique() == 1:
        last = f"Of the two fixed schedules {fixed.iloc[0]} is the cheaper throughout"
    else:
        uniform = listed([str(n) for n in fixed.index[fixed == "uniform"]])
        last = f"Of the two fixed schedules uniform is the cheaper in {uniform} steps, cosine in the others"
    return (f"In {listed([str(n) for n in learned.index])} steps the learned schedule loses {values} bits of the "
            f"{whole:.0f} that a cell costs. v1's {v1[0]} steps lose {v1[1]:.2f}, {reached}. {last}.")


def masks_cost(curves: pd.DataFrame, law: str, other: str) -> str:
    """Says how far one law of training masks leaves a network behind another, with few and with all genes hidden.

    One is called behind where it is so by every seed.

    Args:
        curves: H in bits per gene, indexed by law and seed, a column for each share of hidden genes.
        law: The one that is spoken of.
        other: Its rival.
    """
    gap = curves.loc[law] - curves.loc[other]
    few, every = gap.columns[0], gap.columns[-1]
    said = []
    for share, where in ((few, f"with {few:.0%} of the genes hidden"), (every, "with all hidden")):
        side = "behind" if (gap[share] > 0).all() else "ahead" if (gap[share] < 0).all() else "behind or ahead, by seed"
        said.append(f"{side} {where} (by {_range(gap[share])} bits a gene)")
    wider = gap[every].abs() - gap[few].abs()
    most = "where all are hidden" if (wider > 0).all() else "where few are hidden" if (wider < 0).all() else ""
    moral = f"the gap is the wider {most}" if most else "where the gap is wider, depends on the seed"
    return f"Over {len(gap)} seeds, {law} leave the network {listed(said)}: {moral}."


def _range(values: pd.Series) -> str:
    low, high = np.sort(values.to_numpy())[[0, -1]]
    return f"{low:.3f} to {high:.3f}".replace("-", "−")
