"""The cells that a lesson tests on: perturbations that the capsule saw in other replicates, or targets never seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.expression import gene_means, log1p_counts
from cdt_lite.data.layout import CONTROL
from cdt_lite.data.splits import named_split
from cdt_lite.data.store import TokenStore
from cdt_lite.evaluation.cells import Changes
from cdt_lite.evaluation.evaluate import control_halves, evaluate
from cdt_lite.evaluation.search import mean_effects
from cdt_lite.training.changes import mean_changes, wanted_cells, with_clean_table
from cdt_lite.training.checkpoint import Checkpoint

RIVALS = ("control", "perturbed mean", "replicate mean", "ceiling")


class Named(NamedTuple):
    """A perturbation."""

    target: str
    sign: int


@dataclass(frozen=True)
class HeldOut:
    """Cells kept from training, controls of their replicates in two halves, and what the capsule was trained on.

    The truth subtracts one half of the controls, predictors are shown the other: shared controls flatter every score.
    """

    replicate: str  # of the cells kept from training; "all replicates" of targets never seen
    train: AnnData
    test: AnnData  # cells kept from training, and all controls of their replicates
    truth: AnnData  # controls that the truth subtracts
    shown: AnnData  # controls that predictors are shown

    @cached_property
    def depth(self) -> float:
        """Median counts of the training controls, to which cells are scaled."""
        controls = self.train[(self.train.obs["target_gene"] == CONTROL).to_numpy()]
        return float(np.median(np.ravel(controls.X.sum(1))))

    def cells(self, target: str, sign: int) -> AnnData:
        """Returns the real cells of one perturbation."""
        obs = self.test.obs
        return self.test[((obs["target_gene"] == target) & (obs["sign"] == sign)).to_numpy()]

    @cached_property
    def changes(self) -> pd.DataFrame:
        """Real mean change of log1p expression, perturbations x genes."""
        return self._changes_of(self.test, self.truth)

    @cached_property
    def trained(self) -> pd.DataFrame:
        """Mean change of every training perturbation, perturbations x genes; without the controls of the truth."""
        plain = self.train[(self.train.obs["sign"] == 0).to_numpy()]
        return self._changes_of(self.train, plain[~plain.obs_names.isin(self.truth.obs_names)])

    def _changes_of(self, cells: AnnData, controls: AnnData) -> pd.DataFrame:
        """Mean changes from controls, which are mixed over replicates as the cells are."""
        both = ad.concat([cells[(cells.obs["sign"] != 0).to_numpy()], controls])
        return mean_effects(log1p_counts(both.X, self.depth), both.obs, both.var_names).sort_index()

    def scaled(self, cells: AnnData, genes: Sequence[str]) -> pd.DataFrame:
        """Returns counts of some genes, cells x genes, every cell scaled to `depth`."""
        share = self.depth / np.ravel(cells.X.sum(1))
        return cells[:, list(genes)].to_df().mul(share, axis=0)

    def top_genes(self, n: int) -> list[str]:
        """Returns the genes that the strongest perturbation changes most, its target left out."""
        change = self.changes.loc[self.strongest].drop(self.strongest.target, errors="ignore")
        return change.abs().nlargest(n).index.tolist()

    def mean(self, cells: AnnData) -> np.ndarray:
        """Returns the mean log1p expression of every gene."""
        return gene_means(log1p_counts(cells.X, self.depth))

    @property
    def strongest(self) -> Named:
        """The perturbation that changes the other genes most."""
        size = {name: np.linalg.norm(row.drop(name[0], errors="ignore")) for name, row in self.changes.iterrows()}
        return Named(*max(size, key=lambda name: size[name]))

    @property
    def name(self) -> str:
        """The strongest perturbation in words, first in a sentence."""
        target, sign = self.strongest
        loss = "knockdown" if "truth" in self.test.uns else "knockout"
        return f"The {'activation' if sign > 0 else loss} of {target}"

    def predicted(self, capsule: Checkpoint, n_cells: int, seed: int = 0) -> pd.DataFrame:
        """Returns the mean changes that a capsule predicts, perturbations x genes, in `n_cells` draws of controls.

        What it knows of mean effects is made anew without the controls that the truth subtracts.
        """
        asked = self.test[(self.test.obs["sign"] != 0).to_numpy()]
        clean = with_clean_table(capsule, self.train, self.truth)
        return mean_changes(clean, self.shown, wanted_cells(asked), n_cells, seed).loc[self.changes.index]

    def scores(self, changes: Mapping[str, pd.DataFrame | AnnData], metrics: Sequence[str] = ("pearson_delta", "mae"),
               rivals: Sequence[str] = RIVALS) -> pd.DataFrame:
        """Scores predicted changes, or cells, beside rivals; a row a method and perturbation, as in `evaluate`."""
        predicted = {name: Changes(given) if isinstance(given, pd.DataFrame) else given
                     for name, given in changes.items()}
        return evaluate(self.test, predicted, train=self.train, baselines=rivals, metrics=metrics,
                        target_depth=self.depth)


def held_out(screen: AnnData, part: str = "held_out") -> HeldOut:
    """Returns what a screen's named split keeps from training, with all controls of the same replicates.

    Args:
        screen: As a lesson has it.
        part: "held_out", perturbations that training saw in other replicates, in one; or "unseen", targets never seen.
    """
    side = named_split(screen)
    batch = screen.obs["batch"].astype(str)
    replicate = min(batch[side == part])
    here = (batch.isin(batch[side == part]) if part == "unseen" else batch == replicate).to_numpy()
    is_control = (screen.obs["target_gene"] == CONTROL).to_numpy()
    test = screen[here & ((side == part) | is_control)].copy()
    name = "all replicates" if part == "unseen" else replicate
    return HeldOut(name, screen[side == "train"].copy(), test, *control_halves(test))


def held_out_sets(checkpoint: Checkpoint, cells: AnnData, n_sets: int = 2, cells_per_set: int = 8) -> SetSampler:
    """Returns batches of perturbed cells to judge a network on; only magnitudes, which are outcomes, are withheld.

    Args:
        checkpoint: Whose tokens and names they get.
        cells: Perturbed cells and controls.
        n_sets: In a batch.
        cells_per_set: That share a perturbation.
    """
    told = replace(checkpoint.config.finetune, sets_per_batch=n_sets, cells_per_set=cells_per_set, control_share=0.0,
                   controls_dropout=0.0, target_dropout=0.0, perturbation_dropout=0.0, magnitude_dropout=1.0,
                   validation_share=0.0)
    return SetSampler(TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary), told)


def guides_of(screen: AnnData) -> pd.Series:
    """Returns the guide of every cell; a simulated screen has none, and is dealt four a target, of which g4 fails.

    The fourth is given the cells that escaped: what was planted can be found.
    """
    if "guide" in screen.obs:
        return screen.obs["guide"].astype(str)
    label = screen.obs["perturbation"].astype(str)
    number = label.groupby(label).cumcount() % 3 + 1
    number = number.where(~screen.obs["escaped"], 4)
    return label + "g" + number.astype(str)


def differences_of_controls(log1p: np.ndarray, batch: np.ndarray) -> pd.DataFrame:
    """Returns the mean absolute difference of mean profiles: between replicates, and of random halves of one.

    Args:
        log1p: Expression of control cells, cells x genes.
        batch: The replicate of each.
    """
    rng, halves = np.random.default_rng(0), {}
    for name in sorted(set(batch.tolist())):
        own = rng.permutation(np.flatnonzero(batch == name))
        halves[name] = [log1p[half].mean(0) for half in np.array_split(own, 2)]
    gaps = [[np.abs(a[0] - b[1]).mean() for b in halves.values()] for a in halves.values()]
    return pd.DataFrame(gaps, halves, halves)
