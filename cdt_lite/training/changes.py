"""Mean changes that a model predicts, without sampling noise, and what it was told of them."""

import copy
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from cdt_lite.data.layout import CONTROL
from cdt_lite.data.store import TokenStore
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.effects import effect_table
from cdt_lite.training.predict import predict, predict_mean
from cdt_lite.training.request import check_request


def wanted_cells(real: AnnData) -> pd.Series:
    """Counts the real cells of every perturbation and replicate."""
    return real.obs.groupby(["target_gene", "sign", "batch"], observed=True).size()


def sampled_cells(checkpoint: Checkpoint, controls: AnnData, wanted: pd.Series, n_cells: int, seed: int) -> AnnData:
    """Samples about n_cells of every perturbation, over replicates as the real ones are, each from its own controls."""
    made: dict[str, AnnData] = {}
    for (target, sign, batch), n in wanted.items():
        here = controls[(controls.obs["batch"] == batch).to_numpy()]
        n_here = max(1, round(n_cells * n / wanted[target, sign].sum()))
        number = len(made)
        made[str(number)] = predict(
            checkpoint, here, str(target), int(sign), n_cells=n_here, seed=seed * 1000 + number
        )
    return ad.concat(made, index_unique="-")


def mean_changes(checkpoint: Checkpoint, controls: AnnData, wanted: pd.Series, n_cells: int, seed: int,
                 magnitudes: pd.Series | None = None) -> pd.DataFrame:
    """Returns one-step means minus those of generated controls, in the same draws, (perturbations, genes).

    With `magnitudes` the model is told the target's own log2 fold change; perturbations without one are left out.
    """
    rows: dict[tuple[str, int], np.ndarray] = {}
    plain: dict[str, np.ndarray] = {}
    for (target, sign, batch), n in wanted.items():
        magnitude = None if magnitudes is None else float(magnitudes[target, sign, batch])
        if magnitude is not None and np.isnan(magnitude):
            continue
        here = controls[(controls.obs["batch"] == batch).to_numpy()]
        if batch not in plain:
            plain[batch] = predict_mean(checkpoint, here, CONTROL, 0, n_cells=n_cells, seed=seed)
        mean = predict_mean(checkpoint, here, str(target), int(sign), magnitude, n_cells=n_cells, seed=seed)
        share = n / wanted[target, sign].sum()
        key = (str(target), int(sign))
        rows[key] = rows.get(key, 0.0) + (mean - plain[batch]) * share
    return _table(rows, controls.var_names)


def table_changes(checkpoint: Checkpoint, wanted: pd.Series) -> pd.DataFrame:
    """Returns what the model's table of mean effects says, (perturbations, genes); nothing for a model without one."""
    table = checkpoint.model.effect
    if table is None:
        return pd.DataFrame()
    genes = torch.from_numpy(checkpoint.vocabulary.ids(checkpoint.panel))
    rows: dict[tuple[str, int], np.ndarray] = {}
    for target, sign in wanted.index.droplevel(2).unique():
        asked = check_request(checkpoint, str(target), int(sign), None, CONTROL)
        rows[str(target), int(sign)] = table.look_up(asked.perturbation(), genes).effect[0].numpy()
    return _table(rows, pd.Index(checkpoint.panel))


def _table(rows: dict[tuple[str, int], np.ndarray], genes: pd.Index) -> pd.DataFrame:
    if not rows:
        return pd.DataFrame([], pd.MultiIndex.from_arrays([[], []]), genes)
    return pd.DataFrame(list(rows.values()), pd.MultiIndex.from_tuples(list(rows)), genes)


def with_clean_table(checkpoint: Checkpoint, train: AnnData, truth: AnnData) -> Checkpoint:
    """Returns a copy whose table of mean effects is made anew without the control cells that the truth subtracts.

    As for the baselines: noise that prediction and truth share would pass for knowledge.

    Args:
        checkpoint: A trained model.
        train: The training side of the screen.
        truth: The truth's half of the controls, from `control_halves`; cells are told apart by name.
    """
    clean = replace(checkpoint, model=copy.deepcopy(checkpoint.model))
    if clean.model.effect is not None and len(clean.model.effect.target):
        kept = train[~train.obs_names.isin(truth.obs_names)].copy()
        store = TokenStore.from_adata(kept, clean.tokenizer, clean.vocabulary)
        table = effect_table(store, clean.tokenizer, clean.prior)
        clean.model.effect.fill(replace(table, trusted=clean.model.effect.trusted.cpu().numpy()))
    return clean
