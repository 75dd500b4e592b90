"""The field's own scoring tools, cell-eval and cell-eval2 (extra `[eval]`), on the same cells as `evaluate`."""

import contextlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

from cdt_lite.data.expression import log1p_counts
from cdt_lite.errors import CDTError, suggest
from cdt_lite.evaluation.cells import Cells, Names, read_cells, read_prediction

SUITES = ("cell-eval", "cell-eval2")


def suite_scores(suite: str, real: AnnData, predicted: AnnData | Mapping[str, Any], *,
                 target_key: str = "target_gene", control: str = "non-targeting", target_depth: float | None = None
                 ) -> pd.DataFrame:
    """Scores predicted cells with one of the field's tools: a row per method and target, its columns as it names them.

    Both tools want the real control cells on both sides, so these scores carry the noise that they share: `evaluate`
    with shared_controls=True is their counterpart.

    Args:
        suite: "cell-eval" (0.8, log1p expression) or "cell-eval2" (0.20, raw counts, preset vcc2026).
        real: Real cells, raw counts, with control cells.
        predicted: Predicted cells, raw counts, or several methods by name.
        target_key: Column of obs with the perturbed gene.
        control: Label of control cells.
        target_depth: Depth of the log1p scale of cell-eval; by default the median depth of the real controls.

    Raises:
        CDTError: An unknown suite, one that is not installed, or cells that do not fit each other.
    """
    if suite not in SUITES:
        raise CDTError(f"there is no suite {suite!r}{suggest(suite, SUITES)}; there are {SUITES}")
    names = Names(target_key, control, None, None)
    cells = read_cells(real, "the real screen", names)
    depth = target_depth or float(np.median(np.asarray(cells.counts[cells.control].sum(axis=1))))
    tables = []
    for name, guess in ({"prediction": predicted} if isinstance(predicted, AnnData) else predicted).items():
        checked = read_prediction(guess, f"prediction {name!r}", names, cells, depth)
        if not isinstance(checked, Cells) or checked.log1p_depth is not None:
            raise CDTError(f"prediction {name!r}: {suite} is run on predicted cells with raw counts")
        keys = set(checked.groups)
        truth, ours = _labelled(cells, cells, keys), _labelled(checked, cells, keys)
        try:
            scores = _cell_eval(truth, ours, depth) if suite == "cell-eval" else _cell_eval2(truth, ours)
        except ImportError as error:
            raise CDTError(f"{suite} is not installed ({error}): pip install 'cdt-lite[eval]'") from error
        tables.append(scores.assign(method=name))
    table = pd.concat(tables, ignore_index=True)
    return table[["method", "target", *sorted(c for c in table if c not in ("method", "target"))]]


def _labelled(cells: Cells, real: Cells, keys: set[Any]) -> AnnData:
    """The cells of these perturbations, and the real control cells."""
    rows = {key: cells.groups[key] for key in cells.groups if key in keys}
    labels = [key[0] for key, at in rows.items() for _ in at] + ["non-targeting"] * len(real.control)
    counts = np.vstack([cells.counts[at].toarray() for at in rows.values()] + [real.counts[real.control].toarray()])
    obs = pd.DataFrame({"target_gene": pd.Categorical(labels)}, index=[f"c{i}" for i in range(len(labels))])
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=real.genes))


def _cell_eval(real: AnnData, predicted: AnnData, depth: float) -> pd.DataFrame:
    from cell_eval import MetricsEvaluator

    for side in (real, predicted):
        side.X = log1p_counts(side.X, depth)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        judge = MetricsEvaluator(predicted, real, control_pert="non-targeting", pert_col="target_gene", num_threads=1,
                                 outdir=folder)
        # these two describe clusters of perturbations, take long, and are undefined for a handful of them
        scores, _ = judge.compute(profile="full", write_csv=False, skip_metrics=["clustering_agreement",
                                                                                 "pearson_edistance"])
    return pd.DataFrame(scores.to_dicts()).rename(columns={"perturbation": "target"})


def _cell_eval2(real: AnnData, predicted: AnnData) -> pd.DataFrame:
    from cell_eval2 import EvalConfig, compute_metrics

    genes = set(real.var_names)
    unmeasured: dict[str, str | None] = dict.fromkeys(set(real.obs["target_gene"]) - genes - {"non-targeting"})
    config = replace(EvalConfig.from_preset("vcc2026"), pert_col="target_gene", control="non-targeting", num_threads=1,
                     gather_threads=1, target_gene_map=unmeasured or None)
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        scores = pd.DataFrame(compute_metrics(predicted, real, config=config).to_dicts())
    return scores.pivot(index="perturbation", columns="metric", values="value").reset_index(names="target")
