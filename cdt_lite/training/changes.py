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
from cdt_lite.model.perturbation import Perturbation
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.effects import effect_table
from cdt_lite.training.predict import check_request, predict, predict_mean


def wanted_cells(real: AnnData) -> pd.Series:
    """Counts the real cells of every perturbation and replicate."""
    return real.obs.groupby(["target_gene", "sign", "batch"], observed=True).size()


def sampled_cells(checkpoint: Checkpoint, controls: AnnData, wanted: pd.Series, n_cells: int, seed: int) -> AnnData:
    """Samples about n_cells of every perturbation, over replicates as the real ones are, each from its own controls."""
    made: list[AnnData] = []
    for (target, sign, batch), n in wanted.items():
        share = n / wanted[target, sign].sum()
        here = controls[(controls.obs["batch"] == batch).to_numpy()]
        made.append(predict(checkpoint, here, str(target), int(sign), n_cells=max(1, round(n_cells * share)),
                            seed=seed * 1000 + len(made)))
    return ad.concat(made, index_unique="-", keys=[str(i) for i in range(len(made))])


def mean_changes(checkpoint: Checkpoint, controls: AnnData, wanted: pd.Series, n_cells: int, seed: int,
                 magnitudes: pd.Series | None = None, unseen: str = "vector") -> pd.DataFrame:
    """Returns one-step means minus those of generated controls, in the same draws, (perturbations, genes).

    With `magnitudes` the model is told the target's own log2 fold change; perturbations without one are left out.
    With `unseen="average"` so are perturbations that it makes no different: seen or unmeasured targets.
    """
    rows: dict[tuple[str, int], np.ndarray] = {}
    plain: dict[str, np.ndarray] = {}
    for (target, sign, batch), n in wanted.items():
        told = None if magnitudes is None else float(magnitudes[target, sign, batch])
        same_answer = unseen == "average" and (target in checkpoint.trained_targets or target not in checkpoint.panel)
        if same_answer or (told is not None and np.isnan(told)):
            continue
        here = controls[(controls.obs["batch"] == batch).to_numpy()]
        if batch not in plain:
            plain[batch] = predict_mean(checkpoint, here, CONTROL, 0, n_cells=n_cells, seed=seed)
        mean = predict_mean(checkpoint, here, str(target), int(sign), told, n_cells=n_cells, seed=seed, unseen=unseen)
        key = (str(target), int(sign))
        rows[key] = rows.get(key, 0.0) + (mean - plain[batch]) * n / wanted[target, sign].sum()
    index = pd.MultiIndex.from_tuples(list(rows)) if rows else pd.MultiIndex.from_arrays([[], []])
    return pd.DataFrame(list(rows.values()), index, controls.var_names)


def table_changes(checkpoint: Checkpoint, wanted: pd.Series) -> pd.DataFrame:
    """Returns what the model's table of mean effects says, (perturbations, genes); nothing for a model without one."""
    table = checkpoint.model.embed.effect
    if table is None:
        return pd.DataFrame()
    genes, rows = torch.from_numpy(checkpoint.vocabulary.ids(checkpoint.panel)), {}
    for target, sign in dict.fromkeys((str(t), int(s)) for t, s, _ in wanted.index):
        asked = check_request(checkpoint, target, sign, None, CONTROL)
        told = Perturbation.of([asked.gene_id], [asked.sign], [asked.magnitude], [asked.guess])
        rows[target, sign] = table.look_up(told, genes)[0][0].numpy()
    return pd.DataFrame(rows.values(), pd.MultiIndex.from_tuples(rows), checkpoint.panel)


def with_clean_table(checkpoint: Checkpoint, train: AnnData, truth: AnnData) -> Checkpoint:
    """Returns a copy whose table of mean effects is made anew without the control cells that the truth subtracts.

    As for the baselines: noise that prediction and truth share would pass for knowledge.

    Args:
        checkpoint: A trained model.
        train: The training side of the screen.
        truth: The truth's half of the controls, from `control_halves`; cells are told apart by name.
    """
    told = replace(checkpoint, model=copy.deepcopy(checkpoint.model))
    if told.model.embed.effect is not None:
        kept = train[~train.obs_names.isin(truth.obs_names)].copy()
        store = TokenStore.from_adata(kept, told.tokenizer, told.vocabulary)
        told.model.embed.effect.fill(effect_table(store, told.tokenizer))
    return told
