"""Averages over perturbations: what they equal, and that their intervals cover."""

import numpy as np
import pandas as pd
import pytest

from cdt_lite.errors import CDTError
from cdt_lite.evaluation import bootstrap_means, compare, summarise


def scores(rng, n=40, gain=0.1, seeds=1):
    """A table in which perturbations differ much and method b is better than a by `gain` on every one."""
    hard = rng.normal(0, 1, n)
    rows = [{"method": method, "target": f"t{i}", "sign": -1, "n_real": 9, "n_predicted": 9, "seed": s,
             "mae": hard[i] + shift + 0.05 * rng.normal()}
            for method, shift in (("a", 0.0), ("b", gain)) for i in range(n) for s in range(seeds)]
    return pd.DataFrame(rows)


def test_summary_is_the_mean_over_perturbations_and_differences_are_paired():
    table = scores(np.random.default_rng(0)).drop(columns="seed")
    summary = summarise(table).set_index("method")
    means = table.groupby("method")["mae"].mean()
    np.testing.assert_allclose(summary["mean"], means[summary.index])
    assert summary.loc["b", "n"] == 40 and summary.loc["b", "low"] < means["a"] < summary.loc["b", "high"]
    gap = compare(table, "b", ["a"], ["mae"]).iloc[0]
    assert gap["method"] == "a" and gap["n"] == 40 and gap["difference"] == pytest.approx(means["b"] - means["a"])
    assert gap["low"] > 0  # paired: seen although the perturbations differ ten times as much
    pd.testing.assert_frame_equal(summary, summarise(table).set_index("method"))


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng, hits = np.random.default_rng(1), 0
    for i in range(400):
        low, high = np.quantile(bootstrap_means(rng.normal(2.0, 1.0, (40, 1)), 400, seed=i), [0.05, 0.95])
        hits += low < 2.0 < high
    assert 0.85 < hits / 400 < 0.94  # 90 %, a little less at n = 40


def test_training_seeds_are_redrawn_too():
    rng = np.random.default_rng(2)
    effect_of_seed = np.array([-0.5, 0.0, 0.5])
    values = rng.normal(0, 0.1, (200, 1)) + effect_of_seed
    assert np.std(bootstrap_means(values)) > 5 * np.std(bootstrap_means(values.mean(1, keepdims=True)))
    assert summarise(scores(rng, seeds=3)).set_index("method").loc["b", "n"] == 40


def test_missing_values_are_left_out():
    table = scores(np.random.default_rng(3), n=5)
    table.loc[(table["method"] == "b") & (table["target"] == "t0"), "mae"] = np.nan
    rest = table[table["target"] != "t0"].groupby("method")["mae"].mean()
    assert summarise(table, n_boot=200).set_index("method").loc["b", "n"] == 4
    gap = compare(table, "b", ["a"], ["mae"], n_boot=200).iloc[0]
    assert gap["n"] == 4 and gap["difference"] == pytest.approx(rest["b"] - rest["a"])
    table["mae"] = np.nan
    assert summarise(table, n_boot=20)[["mean", "low", "high"]].isna().all(axis=None)


def test_both_signs_of_a_gene_are_two_rows_and_one_sign_is_one():
    table = scores(np.random.default_rng(5), n=4)
    other = table[table["target"] == "t0"].assign(sign=1, mae=9.0)
    assert summarise(pd.concat([table, other])).set_index("method").loc["a", "n"] == 5


def test_what_is_unknown_is_named():
    table = scores(np.random.default_rng(4), n=3)
    with pytest.raises(CDTError, match="no method 'perturbed mean'"):
        compare(table, "a", ["perturbed mean"], ["mae"])
    with pytest.raises(CDTError, match="did you mean 'mae'"):
        summarise(table, metrics=["maee"])
