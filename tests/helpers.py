"""Small things that several test files need: a tiny configuration and a toy screen with a planted effect."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from cdt_lite.model.cdt import CDT
from cdt_lite.model.config import PRESETS, Config
from cdt_lite.model.mean_effect import GUESSED, EffectTable
from cdt_lite.model.perturbation import Perturbation


def tiny(preset: str = "lite", n_genes: int = 12, **model) -> Config:
    """A preset shrunk until a forward pass takes a millisecond; its switches stay as they are."""
    c = PRESETS[preset]
    small = {"dim": 16, "n_head": 2, "n_layer": 2, "n_genes": n_genes, "n_total_genes": 40, "gene_embed_dim": 8,
             "perturb_magnitude_dim": 4, "control_set_dim_hidden": 8, "control_set_n_head": 2,
             "control_set_dim_out": 16, "control_set_encoder_layers": 1}
    stage = {"sets_per_batch": 3, "cells_per_set": 2, "controls_per_set": 4, "warmup_steps": 2}
    return replace(c, model=replace(c.model, **small | model), pretrain=replace(c.pretrain, **stage),
                   finetune=replace(c.finetune, **stage))


def opened(model: CDT, seed: int = 1) -> CDT:
    """The model with its zero gates (and other zeros) randomised and a table of mean effects: every path has signal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3, generator=generator)
    if isinstance(model, CDT) and model.embed.effect is not None:
        ids = np.arange(model.config.n_total_genes)  # two measured, and a guess for a knockdown of any gene
        effect = np.random.default_rng(seed).normal(size=(len(ids) + 2, len(ids)))
        model.embed.effect.fill(EffectTable(
            np.array([3, 5, *ids]), np.array([-1, 1, *(0 * ids - 1)]), np.array([0, 0, *(0 * ids + GUESSED)]),
            np.ones(len(effect)), effect, np.full((len(ids), model.config.n_bins), 1 / model.config.n_bins), ids,
                np.log1p(np.arange(model.config.n_bins))))
    return model.eval()


def inputs(config: Config, n_sets: int = 2, n_cells: int = 3, n_controls: int = 4, seed: int = 0) -> dict:
    """Random arguments for CDT.forward."""
    g = torch.Generator().manual_seed(seed)
    m = config.model
    shape = (n_sets, n_cells, m.n_genes)
    return {"xt": torch.randint(m.vocab_size, shape, generator=g), "t": torch.rand(n_sets, n_cells, generator=g),
            "perturbation": Perturbation.of([3, 5][:n_sets], [-1, 1][:n_sets], [-1.0, float("nan")][:n_sets]),
            "controls": torch.randint(m.n_bins, (n_sets, n_controls, m.n_genes), generator=g),
            "gene_ids": torch.randperm(m.n_total_genes, generator=g)[: m.n_genes],
            "log_depth": torch.randn(n_sets, n_cells, generator=g)}


def toy_screen(n_cells: int = 240, n_genes: int = 12, seed: int = 0) -> ad.AnnData:
    """Counts with two replicates, controls, and two knockouts: G3 halves the even genes, G5 trebles the odd ones."""
    rng = np.random.default_rng(seed)
    target = rng.choice(["non-targeting", "G3", "G5"], n_cells, p=[0.5, 0.25, 0.25])
    rate = np.tile(rng.gamma(2.0, 2.0, n_genes), (n_cells, 1)) * rng.lognormal(0, 0.2, (n_cells, 1))
    rate[np.ix_(target == "G3", np.arange(0, n_genes, 2))] *= 0.5
    rate[np.ix_(target == "G5", np.arange(1, n_genes, 2))] *= 3.0
    obs = pd.DataFrame({"target_gene": pd.Categorical(target), "batch": pd.Categorical(rng.choice(["a", "b"], n_cells)),
                        "sign": np.where(target == "non-targeting", 0, -1).astype(np.int8),
                        "magnitude": np.where(target == "non-targeting", 0.0, -1.0).astype(np.float32)},
                       index=[f"cell{i}" for i in range(n_cells)])
    var = pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    return ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=var)
