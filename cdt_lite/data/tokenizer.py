"""Expression <-> bins. A token is the number of the bin that a gene's expression falls into; [MASK] comes last.

Two spaces. `normalised` (the original document): counts scaled to a target depth; bin 0 holds zero, the other edges are
log-spaced. `counts`: the raw count itself while it is small, geometric integer bins above, so that nothing is lost on
shallow data and a generated cell is a count vector; sequencing depth then travels beside the tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from anndata import AnnData
from jaxtyping import Real, UInt8

from cdt_lite.data.blocks import count_blocks
from cdt_lite.data.expression import check_target_depth, depths
from cdt_lite.data.layout import Columns, check_cells, read_labels, require_controls
from cdt_lite.errors import CDTError
from cdt_lite.model.config import TokenizerConfig


def bin_edges(config: TokenizerConfig) -> np.ndarray:
    """Returns the lower edge of every bin, (K,) float64, increasing, the first 0.

    v1: 0 and 62 values log-spaced from 0.1 to 10,000. counts: 0..n_exact-1, then integers growing geometrically.
    """
    if config.space == "normalised":
        above = np.geomspace(config.lowest, config.highest, config.n_bins - 1)
        return np.concatenate([[0.0], above])
    exact = np.arange(config.n_exact, dtype=np.float64)
    n_wide = config.n_bins - config.n_exact
    highest = max(config.highest, config.n_exact + n_wide)
    wide = np.geomspace(config.n_exact, highest, n_wide).round()
    for i in range(1, n_wide):  # rounding may merge neighbours; integer edges must grow
        wide[i] = max(wide[i], wide[i - 1] + 1)
    return np.concatenate([exact, wide])


def bin_centres(config: TokenizerConfig) -> np.ndarray:
    """Returns what each bin decodes to, (K,): 0 for bin 0, the (rounded) geometric middle of a bin, last its edge."""
    edges = bin_edges(config)
    if config.space == "normalised":
        upper = np.append(edges[1:], edges[-1])
        return np.sqrt(edges * upper)
    last_in_bin = np.append(edges[1:] - 1, edges[-1])
    return np.sqrt(edges * last_in_bin).round()


class Tokenizer:
    """Turns counts into tokens and back; `encode(decode(k)) == k` for every bin k.

    Args:
        config: Space and bins.
        target_depth: Counts per cell to which `normalised` and log1p values are scaled: the median depth of the
            training controls (kept in the checkpoint), or 10,000 for whole transcriptomes.
    """

    def __init__(self, config: TokenizerConfig, target_depth: float = 10_000.0) -> None:
        self.config = config
        self.mask_id = config.mask_id
        self.target_depth = check_target_depth(target_depth)
        self.edges = bin_edges(config)
        self.centres = bin_centres(config)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return False
        return (self.config, self.target_depth) == (other.config, other.target_depth)

    def __repr__(self) -> str:
        c = self.config
        return f"{c.n_bins} bins of {c.space} up to {self.edges[-1]:,.0f} at a depth of {self.target_depth:,.6g}"

    def encode(self, values: Real[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
        """Returns the bin number of each value, in the tokenizer's own space (no scaling).

        Raises:
            CDTError: A value is NaN or negative.
        """
        values = np.asarray(values)
        if np.isnan(values).any() or (values < 0).any():
            raise CDTError("expression must be non-negative and not NaN: give raw counts, not scaled data")
        bins = np.searchsorted(self.edges, values, side="right") - 1
        return bins.astype(np.uint8)

    def decode(self, tokens: Any) -> np.ndarray:
        """Returns the centre of each token's bin, float32, same shape. Raises CDTError for [MASK] or beyond."""
        tokens = np.asarray(tokens)
        if tokens.size and tokens.max() >= self.config.n_bins:
            raise CDTError(f"token {tokens.max()} is no data bin (0..{self.config.n_bins - 1}; {self.mask_id} "
                           "is [MASK]): a masked position has no value yet")
        return self.centres[tokens].astype(np.float32)

    def in_space(self, counts: Real[np.ndarray, "cells genes"], depth: Real[np.ndarray, " cells"] | None = None
                 ) -> Real[np.ndarray, "cells genes"]:
        """Returns raw counts in the tokenizer's own space: as whole numbers, or scaled to the target depth.

        Args:
            counts: Raw counts, cells x genes.
            depth: Total counts of each cell; by default the row sums.
        """
        if self.config.space == "counts":
            return np.rint(counts)  # 4.9999995 is 5
        if depth is None:
            depth = counts.sum(1)
        scale = self.target_depth / np.maximum(depth, 1.0)
        return counts * scale[:, None]

    def tokenize(self, counts: Real[np.ndarray, "cells genes"], depth: Real[np.ndarray, " cells"] | None = None
                 ) -> UInt8[np.ndarray, "cells genes"]:
        """Turns raw counts into tokens; arguments as in `in_space`."""
        return self.encode(self.in_space(counts, depth))

    def to_counts(self, tokens: Any, depth: Real[np.ndarray, " cells"]) -> np.ndarray:
        """Returns integer counts (float32) for tokens of cells with the given depth; `counts` space ignores depth."""
        values = self.decode(tokens)
        if self.config.space == "counts":
            return values
        scale = np.asarray(depth) / self.target_depth
        return np.rint(values * scale[:, None]).astype(np.float32)


def fit_tokenizer(config: TokenizerConfig, screen: AnnData | Sequence[AnnData], columns: Columns = Columns()
                  ) -> Tokenizer:
    """Makes a tokenizer for (training) cells: their controls' median depth, and bins up to their largest count.

    Args:
        config: Space and bins.
        screen: Cells, in memory or on disk; or those of several files.
        columns: Where their labels are.

    Raises:
        CDTError: No control cells, or no raw counts.
    """
    parts = [screen] if isinstance(screen, AnnData) else screen
    of_controls, largest = [], config.highest
    for cells in parts:
        check_cells(cells)
        labels = read_labels(cells, columns)
        require_controls(labels, columns)
        depth = np.empty(cells.n_obs)
        for rows, block in count_blocks(cells):
            depth[rows] = depths(block)
            largest = max(largest, float(block.max()))
        of_controls.append(depth[labels.is_control])
    if config.space == "counts":
        config = replace(config, highest=largest)
    return Tokenizer(config, float(np.median(np.concatenate(of_controls))))
