"""What a screen of one's own is judged by: targets never trained, tables to search, few cells, simulated genes."""

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from cdt_lite.data.expression import log1p_counts
from cdt_lite.data.layout import CONTROL
from cdt_lite.data.panel import choose_panel
from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.data.splits import named_split
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.evaluation.search import drawn_changes, hit_rate, mean_effects, search
from cdt_lite.evaluation.suites import suite_scores
from cdt_lite.teaching.held_out import HeldOut
from cdt_lite.training.changes import mean_changes, wanted_cells, with_clean_table
from cdt_lite.training.checkpoint import Checkpoint

PANELS = 100  # random ones of a size
RARE = 0.05  # share of cells that show a gene of which few do


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


def hits_by_cells(found: HeldOut, candidates: Mapping[str, pd.DataFrame], sizes: Sequence[int], draws: int
                  ) -> pd.DataFrame:
    """Returns how often the right target comes first when few cells of each held-out perturbation are searched with.

    The gene of the target itself is left out, as a drug would leave it alone.

    Args:
        found: The held-out cells.
        candidates: Tables to search, by name.
        sizes: Numbers of cells to draw.
        draws: How often.
    """
    plain = pd.Series(found.mean(found.truth), found.test.var_names)
    cells = {key: log1p_counts(found.cells(*key).X, found.depth) for key in found.changes.index}
    rows = {}
    for n in sizes:
        queries = pd.concat([drawn_changes(cells, plain, n, seed) for seed in range(draws)])
        rows[n] = hit_rate(search(queries, candidates, without_own=True))
    return pd.DataFrame(rows).T.rename_axis("cells")


def kept_by_panel(screen: AnnData) -> pd.DataFrame:
    """Returns which share of the squared mean changes of training cells panels keep: chosen genes, and random ones.

    Panels have an eighth, a quarter, a half and all of the genes, as far as the measured targets find room. Of random
    panels of one size the mean is given, the least and the most; k of G random genes keep k / G of any sum on average.

    Args:
        screen: Cells in the layout of `load_screen`.
    """
    train = screen[named_split(screen) == "train"]
    depth = float(np.median(train.obs["n_umi"][(train.obs["sign"] == 0).to_numpy()]))
    effects = mean_effects(log1p_counts(train.X, depth), train.obs, train.var_names)
    squared = (effects**2).sum()
    least = screen.var_names.isin(screen.obs["target_gene"]).sum()
    rng, rows = np.random.default_rng(0), {}
    for size in (screen.n_vars // part for part in (8, 4, 2, 1)):
        if size < least:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CDTWarning)  # of cells without a count in a panel that is only looked at
            chosen = choose_panel(screen, size).var_names
        random = [squared[rng.permutation(screen.var_names)[:size]].sum() for _ in range(PANELS)]
        rows[size] = {"chosen": squared[chosen].sum(), "random": np.mean(random), "least": min(random),
                      "most": max(random)}
    return pd.DataFrame(rows).T / squared.sum()


def simulated_genes(sizes: Sequence[float]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns log1p expression of simulated genes in perturbed and in control cells, by what their change is.

    Of each size the gene that comes nearest among those that half of the cells show; last, a gene that few show.

    Args:
        sizes: Changes in standard deviations.
    """
    design = ScreenDesign(
        null_fraction=0.0, activation_fraction=0.0, both_fraction=0.0, control_fraction=0.4
    )
    screen = simulate_screen(n_genes=64, n_targets=2, n_cells=12_000, design=design)
    log1p = log1p_counts(screen.X.toarray(), float(np.median(screen.obs["n_umi"])))
    target = screen.obs["target_gene"].astype(str).to_numpy()
    cells, controls = log1p[target == max(set(target) - {CONTROL})], log1p[target == CONTROL]
    away = np.abs(cells.mean(0) - controls.mean(0)) / controls.std(0)
    shown = (controls > 0).mean(0)
    found = {}
    for size in sizes:
        gene = int(np.where(shown > 0.5, np.abs(away - size), np.inf).argmin())
        found[f"a change of {away[gene]:.2f} SD"] = (cells[:, gene], controls[:, gene])
    rare = int(np.abs(shown - RARE).argmin())
    found[f"a gene in {shown[rare]:.0%} of cells, {away[rare]:.2f} SD"] = (cells[:, rare], controls[:, rare])
    return found


def by_cell_eval(found: HeldOut, predicted: AnnData) -> str:
    """Says what cell-eval makes of predicted cells; where it is not installed, that it is not.

    Args:
        found: The real cells.
        predicted: Predicted cells, raw counts; those of other perturbations are passed over.
    """
    asked = predicted.obs["target_gene"].isin(found.changes.index.get_level_values("target"))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its bars
            scores = suite_scores("cell-eval", found.test, predicted[asked.to_numpy()].copy())
    except CDTError as error:
        if "not installed" not in str(error):
            raise
        return ("cell-eval is not installed here, and nothing in this notebook needs it: after "
                "pip install 'cdt-lite[eval]' this cell gives its scores.")
    mean = scores[["pearson_delta", "mae", "discrimination_score_l1"]].astype(float).mean()
    return (f"By cell-eval the {len(scores)} targets score {mean.iloc[0]:.2f} in Pearson's r, "
            f"{mean.iloc[1]:.3f} in mean absolute error and {mean.iloc[2]:.2f} in discrimination, "
            "with control cells that both sides share.")
