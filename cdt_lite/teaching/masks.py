"""Cells on their way from masks, and what steps of sampling and laws of masks cost, with their sentences."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.model.diffusion import Denoiser, hide, token_nats
from cdt_lite.teaching.bits import interval
from cdt_lite.teaching.sentences import listed

TOLD = (4, 8, 12, 16)  # steps of which a sentence tells


def walk(states: Sequence[Int[np.ndarray, " G"]], tokenizer: Tokenizer) -> pd.DataFrame:
    """Returns how many genes of a cell are hidden after every step, and how many counts the others have."""
    rows = [((x == tokenizer.mask_id).sum(), tokenizer.decode(x[x != tokenizer.mask_id]).sum()) for x in states]
    return pd.DataFrame(rows, columns=["hidden", "counts"]).astype(int).rename_axis("step")


def walked(table: pd.DataFrame, real: int) -> str:
    """Says how a cell came, step by step, and how many counts it has beside a real one of its depth.

    Args:
        table: From `walk`.
        real: Counts of the real cell.
    """
    shown = -table["hidden"].diff()
    first, last = int(shown.iloc[1]), int(shown.iloc[-1])
    order = "fewer than" if first < last else "more than" if first > last else "as many as"
    genes, counts = table["hidden"].iloc[0], table["counts"].iloc[-1]
    return (f"Of {genes} genes the first step reveals {first}, {order} the last ({last}). The cell ends with {counts} "
            f"counts; the real one whose depth it was told has {real}.")


def total_variation(laws: pd.DataFrame) -> pd.DataFrame:
    """Returns half the summed absolute differences of laws, each with each: 0 is the same, 1 has nothing in common."""
    return pd.DataFrame({one: laws.sub(laws[one], axis=0).abs().sum() / 2 for one in laws})


def hidden_bits(denoise: Denoiser, tokens: Int[Tensor, "B S G"], mask: Bool[Tensor, "B S G"], mask_id: int
                ) -> Float[Tensor, "B S"]:
    """Returns what the hidden genes of each cell cost together, bits."""
    return (token_nats(denoise(hide(tokens, mask, mask_id)), tokens) * mask).sum(-1) / np.log(2)


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
        prices: Bits per cell, steps (4, 8, 12 and 16 among them) x ("uniform", "cosine", "learned").
        whole: What a cell costs, bits.
        v1: The original's steps, and what they lose.
    """
    learned = prices["learned"]
    told, n = learned.loc[list(TOLD)], TOLD[-1]
    values = listed([f"{value:.2f}" for value in told])
    better = learned.index[learned <= v1[1]]
    reached = f"learned loses no more in {better[0]}" if len(better) else "learned loses more in all of these"
    fixed = prices[["uniform", "cosine"]].loc[list(TOLD)].idxmin(axis=1)
    if fixed.nunique() == 1:
        last = f"Of the fixed schedules, uniform and cosine, {fixed.iloc[0]} is the cheaper throughout"
    else:
        uniform = listed([str(n) for n in fixed.index[fixed == "uniform"]])
        last = f"Of the fixed schedules uniform is the cheaper in {uniform} steps, cosine in the others"
    return (f"In {listed([str(n) for n in TOLD])} steps the learned schedule loses {values} bits of the {whole:.0f} "
            f"that a cell's tokens cost. v1's {v1[0]} steps lose {v1[1]:.2f}; {reached}. {last}; in {n} they lose "
            f"{prices['uniform'][n]:.2f} and {prices['cosine'][n]:.2f}.")


def first_and_last(learned: Sequence[int], fixed: Sequence[int], name: str) -> str:
    """Says whether a learned schedule begins with few genes, and whether a fixed one does so by more.

    Args:
        learned: Genes of each step.
        fixed: Of as many steps.
        name: Of the fixed schedule.
    """
    side = "fewer" if learned[0] < learned[-1] else "more" if learned[0] > learned[-1] else "as many"
    said = (f"Of {len(learned)} steps the learned schedule's first reveals {learned[0]} genes and its last "
            f"{learned[-1]}, {side}{' as the last' if side == 'as many' else ' at first'}; {name} has {fixed[0]} and "
            f"{fixed[-1]}")
    if fixed[0] < learned[0] and fixed[-1] > learned[-1]:
        return f"{said}: few first, but by more than this curve is worth."
    return f"{said}."


def from_masks(H: Float[np.ndarray, " G"], learned: pd.Series, v1: tuple[int, float], bits: pd.DataFrame, rival: str
               ) -> str:
    """Answers the question of notebook 03.

    Args:
        H: The capsule's curve, H(1) to H(G), bits: its sum is the cost of a cell's tokens, its climb what the network
            gets from a cell's other genes.
        learned: What the learned schedule loses, bits per cell, by steps.
        v1: The original's steps, and what they lose.
        bits: Per count, batches x methods, the capsule and the rival among them.
        rival: That knows no relation between genes, and is told less beside them.
    """
    gap = (bits["capsule"] - bits[rival]).to_numpy()
    low, high = interval(gap)
    side = "less than" if high < 0 else "more than" if low > 0 else "neither less nor more than"
    by = f"difference {gap.mean():.3f} [{low:.3f}, {high:.3f}]".replace("-", "−")
    n, others = learned.index[-1], H[-1] - H.mean()
    if high >= 0:
        cause = ""
    elif others < -gap.mean():
        cause = (f" No more than {others:.3f} of it comes from a cell's other genes, by the climb of the capsule's "
                 f"curve; the rest from what the {rival} is not told (controls, target), or from its shape.")
    else:
        cause = (f" The climb of the capsule's curve, {others:.3f}, is what it gets from a cell's other genes: as much "
                 f"as the difference.")
    return (f"Step by step: a network is asked about all genes, a few are drawn, and it is asked again, knowing them. "
            f"The genes of a step are drawn blind to one another, which loses {learned[n]:.2f} of the {H.sum():.0f} "
            f"bits of a cell's tokens in {n} steps, {v1[1]:.2f} in v1's {v1[0]}, and {learned[1]:.2f} in one. Asked "
            f"so, the network pays {bits['capsule'].mean():.3f} bits for a hidden count, {side} the {rival}, which "
            f"looks at no other gene and is told the depth alone ({by}).{cause}")


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
        side = "behind" if (gap[share] > 0).all() else "ahead" if (gap[share] < 0).all() else "now behind, now ahead"
        said.append(f"{side} {where} (by {_range(gap[share])} bits a gene)")
    wider = gap[every].abs() - gap[few].abs()
    most = "where all are hidden" if (wider > 0).all() else "where few are hidden" if (wider < 0).all() else ""
    moral = f"the gap is the wider {most}" if most else "where the gap is wider, depends on the seed"
    return f"Over {len(gap)} seeds, {law} leave the network {listed(said)}: {moral}."


def _range(values: pd.Series) -> str:
    low, high = np.sort(values.to_numpy())[[0, -1]]
    return f"{low:.3f} to {high:.3f}".replace("-", "−")
