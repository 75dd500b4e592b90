"""Small things that several test files need: a tiny configuration and a toy screen with a planted effect."""

import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from cdt_lite.model import CDT, PRESETS, V1, Config, Perturbation, build
from cdt_lite.model.mean_effect import WHOLE, EffectTable
from cdt_lite.model.perturbation import UNKNOWN_TARGET

ROOT = Path(__file__).resolve().parents[1]
CONTROL = "non-targeting"


def tiny(preset: str = "lite", n_genes: int = 12, **model: int) -> Config:
    """A preset shrunk until a forward pass takes a millisecond; its system stays what it is."""
    small = {
        "dim": 16, "n_head": 2, "n_layer": 2, "n_genes": n_genes, "n_total_genes": 40, "gene_embed_dim": 8,
        "perturb_magnitude_dim": 4, "control_set_dim_hidden": 8, "control_set_n_head": 2,
        "control_set_dim_out": 16, "control_set_encoder_layers": 1,
    }
    stage = {"sets_per_batch": 3, "cells_per_set": 2, "controls_per_set": 4, "warmup_steps": 2}
    whole = PRESETS[preset]
    return replace(
        whole,
        model=replace(whole.model, **small | model),
        pretrain=replace(whole.pretrain, **stage),
        finetune=replace(whole.finetune, **stage),
    )


def network(config: Config, seed: int = 0) -> CDT | V1:
    """A preset's network, untrained."""
    return build(config, seed)[0]


def opened(model: CDT | V1, seed: int = 1) -> CDT | V1:
    """The model with its zero gates (and other zeros) randomised and a table of mean effects: every path has signal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3, generator=generator)
    if getattr(model, "effect", None) is not None:
        model.effect.fill(some_effects(model.config.n_total_genes, model.config.n_bins, seed))
    return model.eval()


def some_effects(n_genes: int, n_bins: int, seed: int) -> EffectTable:
    """A table with two measured effects, and what follows from them for a knockdown of any gene."""
    rng = np.random.default_rng(seed)
    ids = np.arange(n_genes)
    every = np.full(n_genes, -1)
    return EffectTable(
        target=np.array([3, 5, 5, UNKNOWN_TARGET, *ids]),
        sign=np.array([-1, 1, 1, -1, *every]),
        without=np.array([0, 0, WHOLE, WHOLE, *every]),
        left=np.array([0.1, 0.1, 0.1, 0.9, *np.full(n_genes, 0.5)]),
        weights=rng.normal(size=(n_genes + 4, 2)),
        effect=rng.normal(size=(2, n_genes)),
        shares=np.full((n_genes, n_bins), 1 / n_bins),
        gene_ids=ids,
        values=np.log1p(np.arange(n_bins)),
        counted=True,
        highest=np.full(n_genes, n_bins - 1),
        trusted=np.zeros(2),
    )


def inputs(config: Config, n_sets: int = 2, n_cells: int = 3, n_controls: int = 4, seed: int = 0) -> dict:
    """Random arguments for the forward pass of the preset's network."""
    g = torch.Generator().manual_seed(seed)
    m = config.model
    given = {
        "xt": torch.randint(m.vocab_size, (n_sets, n_cells, m.n_genes), generator=g),
        "perturbation": Perturbation.of([3, 5][:n_sets], [-1, 1][:n_sets], [-1.0, float("nan")][:n_sets]),
        "controls": torch.randint(m.n_bins, (n_sets, n_controls, m.n_genes), generator=g),
    }
    if config.system == "v1":
        return {**given, "t": torch.rand(n_sets, n_cells, generator=g)}
    gene_ids = torch.randperm(m.n_total_genes, generator=g)[: m.n_genes]
    return {**given, "gene_ids": gene_ids, "log_depth": torch.randn(n_sets, n_cells, generator=g)}


def shown_to_a_reader(said: list[warnings.WarningMessage]) -> list[str]:
    """Of recorded warnings those that Python shows unasked, in a notebook too: not what libraries tell programmers."""
    quiet = (DeprecationWarning, PendingDeprecationWarning)
    return [str(warning.message) for warning in said if not issubclass(warning.category, quiet)]


def toy_screen(n_cells: int = 240, n_genes: int = 12, seed: int = 0) -> ad.AnnData:
    """Counts with two replicates, controls, and two knockouts: G3 halves the even genes, G5 trebles the odd ones."""
    rng = np.random.default_rng(seed)
    target = rng.choice([CONTROL, "G3", "G5"], n_cells, p=[0.5, 0.25, 0.25])
    rate = np.tile(rng.gamma(2.0, 2.0, n_genes), (n_cells, 1)) * rng.lognormal(0, 0.2, (n_cells, 1))
    rate[np.ix_(target == "G3", np.arange(0, n_genes, 2))] *= 0.5
    rate[np.ix_(target == "G5", np.arange(1, n_genes, 2))] *= 3.0
    change = np.where(target == CONTROL, 0, -1)
    obs = pd.DataFrame({"target_gene": pd.Categorical(target)}, index=[f"cell{i}" for i in range(n_cells)])
    obs["batch"] = pd.Categorical(rng.choice(["a", "b"], n_cells))
    obs["sign"] = change.astype(np.int8)
    obs["magnitude"] = change.astype(np.float32)
    var = pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    return ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=var)


def linter(name, *words):
    """Runs a command of the extra `test`, which lies beside this Python, in the repository's root."""
    command = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert command, f"{name} is not installed: it is one of the extra `test`"
    return subprocess.run([command, *map(str, words)], capture_output=True, text=True, encoding="utf-8", cwd=ROOT)
