"""Files of strangers, the door that they come through, and a terminal for a notebook."""

import contextlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from cdt_lite.data.expression import log1p_counts
from cdt_lite.data.layout import CONTROL, Columns
from cdt_lite.data.panel import choose_panel
from cdt_lite.data.screens import load_screen
from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.data.splits import named_split
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.evaluation.search import drawn_changes, mean_effects
from cdt_lite.evaluation.suites import suite_scores
from cdt_lite.teaching.held_out import HeldOut
from cdt_lite.training.changes import mean_changes, wanted_cells, with_clean_table
from cdt_lite.training.checkpoint import Checkpoint

SOME = 2000  # cells of a file that is only looked at
SCALED_TO = 10_000  # counts a cell, what scanpy's tutorials scale to


def strange_files(screen: AnnData, folder: Path) -> dict[str, AnnData]:
    """Writes three files as strangers send them, and returns what is in them, by name.

    atlas.h5ad: all cells, with (made-up) Ensembl ids, labels of its own, and counts in double precision.
    lognorm.h5ad: some cells, scaled to 10,000 counts and log1p, their counts nowhere.
    both_ways.h5ad: simulated cells of a screen with knockdowns and activations, labelled by guide.

    Args:
        screen: Cells in the layout of `load_screen`.
        folder: Where to write.
    """
    some = screen[np.sort(np.random.default_rng(0).permutation(screen.n_obs)[:SOME])]
    design = ScreenDesign(activation_fraction=1, both_fraction=0.25, null_fraction=0, unmeasured_fraction=0)
    both = simulate_screen(n_genes=64, n_targets=12, n_cells=SOME, design=design)
    files = {"atlas.h5ad": _atlas(screen), "lognorm.h5ad": _lognorm(some), "both_ways.h5ad": _both_ways(both)}
    for name, cells in files.items():
        cells.write_h5ad(folder / name)
    return files


def _atlas(screen: AnnData) -> AnnData:
    target = screen.obs["target_gene"].astype(str).replace(CONTROL, "NT")
    obs = pd.DataFrame({"perturbation": target, "lane": screen.obs["batch"].astype(str), "way": screen.obs["sign"]})
    var = pd.DataFrame({"feature_name": screen.var_names.to_numpy(str)})
    var.index = pd.Index([f"ENSG{number:011d}" for number in range(screen.n_vars)])
    return AnnData(screen.X.astype(np.float64), obs=obs, var=var)


def _lognorm(some: AnnData) -> AnnData:
    obs = some.obs[["target_gene", "batch", "sign"]]
    return AnnData(log1p_counts(some.X, SCALED_TO), obs=obs, var=pd.DataFrame(index=some.var_names))


def _both_ways(both: AnnData) -> AnnData:
    guide = both.obs.groupby("target_gene", observed=True).cumcount() % 3 + 1
    name = both.obs["target_gene"].astype(str) + "_sg" + guide.astype(str)
    name = name.where(both.obs["sign"] != 0, CONTROL)
    way = both.obs["sign"].map({-1: "CRISPRi", 0: "none", 1: "CRISPRa"})
    obs = pd.DataFrame({"target_gene": name, "batch": both.obs["batch"].astype(str), "way": way})
    return AnnData(both.X, obs=obs, var=pd.DataFrame(index=both.var_names))


def what_it_holds(files: dict[str, AnnData]) -> pd.DataFrame:
    """Returns what one looks at first in a file of cells: a row a file."""
    rows = {}
    for name, cells in files.items():
        values = sp.csr_matrix(cells.X).data
        whole = bool((values == np.rint(values)).all())
        rows[name] = {"cells": cells.n_obs, "genes": cells.n_vars, "X": str(cells.X.dtype),
                      "largest value": round(float(values.max()), 2), "whole numbers": whole,
                      "first gene": cells.var_names[0], "columns of obs": ", ".join(cells.obs)}
    return pd.DataFrame(rows).T


def knock(path: str | Path, columns: Columns = Columns(), layer: str | None = None) -> AnnData | None:
    """Tries to load a screen, and prints what the package says of it; returns None where it was refused.

    Args:
        path: An .h5ad file.
        columns: Where it keeps its labels.
        layer: With the raw counts; None: X.
    """
    screen, name = None, Path(path).name
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", CDTWarning)
        try:
            screen = load_screen(path, columns, layer=layer, n_top_genes=None)
        except CDTError as error:
            print(f"{name} was refused: {error}")
    for warning in said:
        if issubclass(warning.category, CDTWarning):
            print(f"{name}, a warning: {warning.message}")
    if screen is not None:
        print(f"{name} was taken: {screen.n_obs:,} cells x {screen.n_vars:,} genes")
    return screen


@dataclass(frozen=True)
class Terminal:
    """Runs the command line inside a folder, in this process, and prints what a terminal would, without the bars."""

    main: Callable[[Sequence[str]], int]  # the entry point of the command line
    folder: Path  # where file names begin

    def run(self, command: str) -> int:
        """Runs one command, "cdt-lite doctor", and returns its exit status."""
        shown = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            try:
                status = self.main(command.split()[1:])
            except SystemExit as stop:  # argparse refuses an option so
                status = int(stop.code or 0)
        print(f"$ {command}")
        for line in shown.getvalue().splitlines():
            if line.strip() and "\r" not in line and "it/s" not in line and "s/it" not in line:
                print(line)
        return status


def never_trained(found: HeldOut, screen: AnnData, side: np.ndarray) -> HeldOut:
    """Returns the same test with the targets that were never shown in place of those that were, in one replicate.

    Args:
        found: The test of held-out cells.
        screen: All cells.
        side: Each cell's side of the split.
    """
    here = (screen.obs["batch"].astype(str) == found.replicate).to_numpy()
    is_control = (screen.obs["sign"] == 0).to_numpy()
    return replace(found, test=screen[here & ((side == "unseen") | is_control)].copy())


def all_candidates(found: HeldOut, screen: AnnData, model: Checkpoint, n_cells: int) -> pd.DataFrame:
    """Returns the mean change that a model predicts of every perturbation of a screen, perturbations x genes.

    Args:
        found: Whose controls are shown; those that its truth subtracts are unknown to the model.
        screen: All cells, for the names of the perturbations.
        model: A trained model.
        n_cells: Draws of controls.
    """
    here = (screen.obs["batch"].astype(str) == found.replicate).to_numpy()
    asked = screen[here & (screen.obs["sign"] != 0).to_numpy()]
    clean = with_clean_table(model, found.train, found.truth)
    return mean_changes(clean, found.shown, wanted_cells(asked), n_cells, 0)


def replicate_means(found: HeldOut) -> pd.DataFrame:
    """Returns the mean change of every trained perturbation, without the controls that the truth subtracts."""
    train = found.train[~found.train.obs_names.isin(found.truth.obs_names)]
    return mean_effects(log1p_counts(train.X, found.depth), train.obs, train.var_names)


def draws_of_queries(found: HeldOut, n_cells: int, draws: int) -> pd.DataFrame:
    """Returns the mean changes that `draws` small experiments with n_cells of each held-out perturbation would see."""
    plain = found.mean(found.truth)
    cells = {key: log1p_counts(found.cells(*key).X, found.depth) for key in found.changes.index}
    return pd.concat([drawn_changes(cells, plain, n_cells, seed) for seed in range(draws)])


def kept_by_panel(screen: AnnData, sizes: Sequence[int]) -> pd.DataFrame:
    """Returns which share of the squared mean changes of training cells panels keep: chosen genes, and random ones.

    Args:
        screen: Cells in the layout of `load_screen`.
        sizes: Numbers of genes; each at least that of the measured targets.
    """
    train = screen[named_split(screen) == "train"]
    depth = float(np.median(train.obs["n_umi"][(train.obs["sign"] == 0).to_numpy()]))
    effects = mean_effects(log1p_counts(train.X, depth), train.obs, train.var_names)
    squared = (effects**2).sum()
    rng, rows = np.random.default_rng(0), {}
    for size in sizes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CDTWarning)  # cells without a count in a small panel: only looked at
            chosen = choose_panel(screen, size).var_names
        random = rng.permutation(screen.var_names)[:size]
        rows[size] = {"chosen": squared[chosen].sum(), "random": squared[random].sum()}
    return pd.DataFrame(rows).T / squared.sum()


def simulated_genes(sizes: Sequence[float]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns log1p expression of genes in perturbed and in control cells of a simulated screen, by their change.

    Args:
        sizes: Changes in standard deviations; of each the gene that comes nearest.
    """
    design = ScreenDesign(null_fraction=0, activation_fraction=0, both_fraction=0, control_fraction=0.4)
    screen = simulate_screen(n_genes=64, n_targets=2, n_cells=12_000, design=design)
    log1p = log1p_counts(screen.X.toarray(), float(np.median(screen.obs["n_umi"])))
    target = screen.obs["target_gene"].astype(str).to_numpy()
    cells, controls = log1p[target == max(set(target) - {CONTROL})], log1p[target == CONTROL]
    away = np.abs(cells.mean(0) - controls.mean(0)) / controls.std(0)
    found = {}
    for size in sizes:
        gene = int(np.abs(away - size).argmin())
        found[f"a change of {away[gene]:.2f} SD"] = (cells[:, gene], controls[:, gene])
    return found


def by_cell_eval(real: AnnData, predicted: AnnData) -> pd.DataFrame | str:
    """Scores predicted cells by cell-eval, targets x scores; where it is not installed, a sentence that says so.

    Args:
        real: Real cells with controls, raw counts.
        predicted: Predicted cells, raw counts.
    """
    try:
        scores = suite_scores("cell-eval", real, predicted)
    except CDTError as error:
        if "not installed" not in str(error):
            raise
        return ("cell-eval is not installed here, and nothing of this notebook needs it: pip install 'cdt-lite[eval]' "
                "puts its scores in this place.")
    return scores.set_index("target")
