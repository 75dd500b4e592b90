"""Guides whose strengths are planted are found again, and nothing is made of nothing."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cdt_lite.errors import CDTError
from cdt_lite.evaluation import guide_effects

CONTROL = "non-targeting"
STRENGTHS = {"a": 1.0, "b": 1.0, "c": 0.5, "dud": 0.0}


def planted(seed=0, n=150, n_genes=120, strong=0.9):
    """Two targets with four guides each, G0 strong, G1 without any effect; the share that responds differs."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(2.0, 2.0, n_genes)
    effect = strong * rng.normal(size=n_genes) * (rng.random(n_genes) < 0.4)
    labels, rates = [(CONTROL, "nt", 0)] * 600, [np.tile(rate, (600, 1))]
    for target, size in (("G0", 1.0), ("G1", 0.0)):
        for guide, strength in STRENGTHS.items():
            labels += [(target, f"{target} {guide}", -1)] * n
            responds = rng.random(n) < strength
            rates.append(rate * np.exp(size * responds[:, None] * effect))
    counts = rng.poisson(np.concatenate(rates)).astype(np.float32)
    obs = pd.DataFrame(labels, columns=["target_gene", "guide", "sign"], index=[f"c{i}" for i in range(len(labels))])
    obs["batch"] = rng.choice(["r1", "r2"], len(obs))
    genes = pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=genes)


def test_strengths_are_shares_of_what_the_other_guides_do():
    table = guide_effects(planted()).set_index("guide")
    mean = {guide: np.mean([s for other, s in STRENGTHS.items() if other != guide]) for guide in STRENGTHS}
    for guide, strength in STRENGTHS.items():
        row = table.loc[f"G0 {guide}"]
        assert row["told"] and row["low"] < row["strength"] < row["high"]
        assert row["strength"] == pytest.approx(strength / mean[guide], abs=0.2)
    assert table.index[table["dud"]].tolist() == ["G0 dud"]


def test_of_a_target_without_an_effect_nothing_is_said():
    table = guide_effects(planted())
    null = table[table["target"] == "G1"]
    assert not null["told"].any() and not null["dud"].any()


def test_a_null_targets_guides_have_no_strength_on_average_although_controls_are_shared():
    """Against the same controls the strength of nothing would be far from 0: their noise would be on both sides."""
    strengths = []
    for seed in range(6):
        table = guide_effects(planted(seed, strong=0.0))
        strengths += table["strength"].tolist()
    error = np.std(strengths) / np.sqrt(len(strengths))
    assert abs(np.mean(strengths)) < 4 * error


def test_few_cells_say_nothing_and_a_missing_column_is_named():
    screen = planted()
    keep = (screen.obs["guide"] != "G0 a").to_numpy(copy=True)
    keep[np.flatnonzero(~keep)[:5]] = True
    few = guide_effects(screen[keep].copy()).set_index("guide")
    assert few.loc["G0 a", "cells"] == 5 and np.isnan(few.loc["G0 a", "strength"]) and not few.loc["G0 a", "dud"]
    with pytest.raises(CDTError, match="no column 'sgRNA'.*guide"):
        guide_effects(screen, guide="sgRNA")


def test_one_guide_a_target_has_no_siblings_to_be_held_against():
    screen = planted()
    screen.obs["guide"] = screen.obs["target_gene"]
    table = guide_effects(screen)
    assert len(table) == 2 and table["strength"].isna().all() and not table["dud"].any()
