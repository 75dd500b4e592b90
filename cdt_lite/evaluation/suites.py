"""The field's own scoring tools, cell-eval and cell-eval2 (extra `[eval]`), on the same cells as `evaluate`."""

import contextlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
from anndata import AnnData
from scipy import sparse

from cdt_lite.data.expression import log1p_counts
from cdt_lite.data.layout import CONTROL, Columns
from cdt_lite.errors import CDTError, suggest
from cdt_lite.evaluation.cells import Cells, Given, Key, read_predictions, read_screen

POOLED = Columns(batch=None, sign=None)  # both tools know targets only


def suite_scores(suite: str, real: AnnData, predicted: AnnData | Mapping[str, Given]) -> pd.DataFrame:
    """Scores predicted cells with one of the field's tools: a row per method and target, its columns as it names them.

    Both tools want the real control cells on both sides, so these scores carry the noise that they share, as the
    column pearson_delta_shared of `evaluate` does.

    Args:
        suite: "cell-eval" (0.8, log1p expression) or "cell-eval2" (0.20, raw counts, preset vcc2026).
        real: Real cells, raw counts, with control cells, in the layout of every screen.
        predicted: Predicted cells, raw counts, or several methods by name.

    Raises:
        CDTError: An unknown suite, one that is not installed, or cells that do not fit each other.
    """
    if suite not in SUITES:
        known = list(SUITES)
        raise CDTError(f"there is no suite {suite!r}{suggest(suite, known)}; there are {known}")
    cells = read_screen(real, "the real screen", POOLED)
    depth = cells.control_depth()
    tables = []
    for name, checked in read_predictions(predicted, POOLED, cells, depth).items():
        if not isinstance(checked, Cells) or checked.is_log1p:
            raise CDTError(f"prediction {name!r}: {suite} is run on predicted cells with raw counts")
        keys = list(checked.groups)
        truth, claimed = (_with_controls(side, cells, keys) for side in (cells, checked))
        try:
            with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
                scores = SUITES[suite](truth, claimed, depth)
        except ImportError as error:
            raise CDTError(f"{suite} is not installed ({error}): pip install 'cdt-lite[eval]'") from error
        tables.append(scores.assign(method=name))
    table = pd.concat(tables, ignore_index=True)
    return table[["method", "target", *sorted(table.columns.drop(["method", "target"]))]]


def _with_controls(cells: Cells, real: Cells, keys: list[Key]) -> AnnData:
    """The cells of these perturbations, and the real control cells."""
    labels, blocks = [], []
    for key in keys:
        blocks.append(cells.counts[cells.groups[key]])
        labels += [key[0]] * len(cells.groups[key])
    blocks.append(real.counts[real.control])
    labels += [CONTROL] * len(real.control)
    obs = pd.DataFrame({"target_gene": pd.Categorical(labels)}).rename(index="c{}".format)
    return AnnData(sparse.vstack(blocks).toarray(), obs=obs, var=pd.DataFrame(index=real.genes))


def _cell_eval(real: AnnData, predicted: AnnData, depth: float) -> pd.DataFrame:
    from cell_eval import MetricsEvaluator

    for side in (real, predicted):
        side.X = log1p_counts(side.X, depth)
    options = {"control_pert": CONTROL, "pert_col": "target_gene", "num_threads": 1}
    # these two describe clusters of perturbations, take long, and are undefined for a handful of them
    skipped = ["clustering_agreement", "pearson_edistance"]
    with tempfile.TemporaryDirectory() as folder:
        judge = MetricsEvaluator(predicted, real, outdir=folder, **options)
        scores, _ = judge.compute(profile="full", write_csv=False, skip_metrics=skipped)
    return pd.DataFrame(scores.to_dicts()).rename(columns={"perturbation": "target"})


def _cell_eval2(real: AnnData, predicted: AnnData, depth: float) -> pd.DataFrame:
    from cell_eval2 import EvalConfig, compute_metrics

    unmeasured = set(real.obs["target_gene"]) - {*real.var_names, CONTROL}
    options = {"control": CONTROL, "pert_col": "target_gene", "num_threads": 1, "gather_threads": 1}
    config = EvalConfig.from_preset("vcc2026")
    config = replace(config, target_gene_map=dict.fromkeys(unmeasured) or None, **options)
    scores = pd.DataFrame(compute_metrics(predicted, real, config=config).to_dicts())
    return scores.pivot(index="perturbation", columns="metric", values="value").reset_index(names="target")


SUITES = {"cell-eval": _cell_eval, "cell-eval2": _cell_eval2}
