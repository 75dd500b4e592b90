"""What a cell costs in bits, by models of whole cells and by rivals that are told little, and who is the cheaper."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Integer, Num

from cdt_lite.data.batches import Batch
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.model.diffusion import draw_masks, hide
from cdt_lite.teaching.sentences import listed
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.trust import denoiser

N_BINS = 63


def token_shares(tokens: Integer[np.ndarray, "cells G"], prior: float | Float[np.ndarray, "G bins"] = 0.1,
                 n_bins: int = N_BINS) -> Float[np.ndarray, "G bins"]:
    """Returns each gene's shares of tokens, `prior` added to the counts."""
    counted = np.stack([np.bincount(gene, minlength=n_bins) for gene in tokens.T]) + prior
    return counted / counted.sum(1, keepdims=True)


def counts_in_bins(tokenizer: Tokenizer) -> Float[np.ndarray, " bins"]:
    """Returns how many whole counts each bin of `counts` tokens holds; the last, open one is called 1."""
    return np.append(np.diff(np.ceil(tokenizer.edges)), 1.0)


class Rivals:
    """Laws of tokens that know no relation between genes, fitted on training cells.

    One is each gene's histogram; the other a negative binomial that is told the depth: mean m = depth x share, variance
    m + phi m^2.

    Args:
        counts: Of training cells.
        tokenizer: Of `counts` tokens.
    """

    def __init__(self, counts: Num[np.ndarray, "cells G"], tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.shares = token_shares(tokenizer.tokenize(counts))
        depth = counts.sum(1, keepdims=True)
        self.rate = np.maximum(counts.sum(0) / depth.sum(), 1e-9)
        mean = depth * self.rate
        self.phi = (((counts - mean) ** 2 - mean).sum(0) / (mean**2).sum(0)).clip(1e-3)

    def negative_binomial(self, tokens: Integer[np.ndarray, "cells G"], depth: Float[np.ndarray, " cells"]
                          ) -> Float[np.ndarray, "cells G"]:
        """Returns the probability of every token, the sum over the counts of its bin."""
        from scipy.stats import nbinom

        mean = depth[:, None] * self.rate
        first = np.append(np.ceil(self.tokenizer.edges), np.inf)
        law = nbinom(1 / self.phi, 1 / (1 + self.phi * mean))
        return np.maximum(law.cdf(first[tokens + 1] - 1) - law.cdf(first[tokens] - 1), 1e-12)

    def beside(self, capsule: Checkpoint, batch: Batch, seed: int) -> "Probabilities":
        """Returns what all three gave to the tokens of a batch, a share of whose genes was hidden from the capsule."""
        mask = draw_masks(tuple(batch.tokens.shape), torch.Generator().manual_seed(seed))
        with torch.no_grad():
            logits = denoiser(capsule.model, batch)(hide(batch.tokens, mask, self.tokenizer.mask_id))
        tokens = batch.tokens.flatten(0, 1).long()
        given = logits.softmax(-1).flatten(0, 1).gather(-1, tokens[..., None])[..., 0].double().numpy()
        depth = np.exp(batch.log_depth.flatten().numpy()) * self.tokenizer.target_depth
        seen = tokens.numpy()
        p = {"capsule": given, "histogram": self.shares[np.arange(seen.shape[1]), seen],
             "negative binomial": self.negative_binomial(seen, depth)}
        return Probabilities(p, counts_in_bins(self.tokenizer)[seen], mask.flatten(0, 1).numpy())


class Probabilities(NamedTuple):
    """Of every gene of some cells: what methods gave to its token, counts in its bin, and whether it was hidden."""

    p: dict[str, Float[np.ndarray, "cells G"]]
    width: Float[np.ndarray, "cells G"]
    hidden: Bool[np.ndarray, "cells G"]


def interval(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Returns the 95 % interval of a mean, by Student's t."""
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def intervals(values: pd.DataFrame) -> pd.DataFrame:
    """Returns mean, low and high of each column: 95 %, Student's t over the rows."""
    rows = {name: (column.mean(), *interval(column.to_numpy())) for name, column in values.items()}
    return pd.DataFrame(rows, ["mean", "low", "high"]).T.rename_axis(values.columns.name)


def cheaper(bits: pd.DataFrame, method: str, unit: str = "hidden count") -> str:
    """Says what a gene costs by one method, and whether that is less than by the others.

    Args:
        bits: Per unit, cells or batches of them x methods, of the same hidden genes.
        method: The one that is spoken of.
        unit: What is paid for.
    """
    said = []
    for rival in bits.columns.drop(method):
        low, high = interval((bits[method] - bits[rival]).to_numpy())
        verdict = "less than" if high < 0 else "more than" if low > 0 else "as much as"
        gap = f"difference [{low:.3f}, {high:.3f}]".replace("-", "−")
        said.append(f"{verdict} by the {rival} ({bits[rival].mean():.3f}; {gap})")
    return f"A {unit} costs {bits[method].mean():.3f} bits by the {method}: {listed(said)}."
