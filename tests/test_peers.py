"""Peers are given what we train on and no more, and what they predict is read by `evaluate`."""

import json
import tomllib
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from benchmarks import densities, peers
from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.data.splits import named_split
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.errors import CDTError
from cdt_lite.evaluation.evaluate import evaluate
from cdt_lite.model import PRESETS
from cdt_lite.report import tasks


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    design = ScreenDesign(n_batches=2, activation_fraction=0.0, both_fraction=0.0)  # peers know knockdowns only
    screen = simulate_screen(n_genes=32, n_targets=6, n_cells=600, design=design)
    out = tmp_path_factory.mktemp("peers")
    peers.prepare(screen, out)
    return screen, out, ad.read_h5ad(out / "data" / "screen.h5ad")


def test_peers_see_log1p_and_the_side_of_every_cell(prepared):
    screen, _, cells = prepared
    assert (cells.obs["side"].to_numpy() == named_split(screen)).all()
    scaled = np.expm1(cells.X.toarray())
    np.testing.assert_allclose(scaled.sum(1), cells.uns["target_depth"], rtol=1e-4)
    assert cells.obsm["X_hvg"].shape == cells.shape


def test_the_split_of_state_withholds_what_ours_does(prepared):
    screen, out, cells = prepared
    split = tomllib.loads((out / "split.toml").read_text())
    found = set()
    for name, part in split["fewshot"].items():
        found |= {(target, name.removeprefix("screen.")) for target in part["test"]}
    withheld = cells.obs[named_split(screen) != "train"]
    assert found == set(withheld[["target_gene", "batch"]].itertuples(index=False, name=None))
    assert split["datasets"]["screen"] == (out / "data").as_posix()


def test_predictions_are_read_by_evaluate_and_what_was_reached_before_stays(prepared, tmp_path):
    screen, out, cells = prepared
    withheld = cells[cells.obs["side"] == "held_out"].copy()
    withheld.X = withheld.X.toarray() - 0.01  # a peer may go below zero
    del withheld.obs["sign"]
    withheld.write_h5ad(out / "oracle_made.h5ad")
    (out / "oracle.txt").write_text("torch==2.0\nnumpy==2.1\n-e somewhere\n")
    record = tmp_path / "peers.json"
    record.write_text(json.dumps({"scgen": {"train": {"seconds": 7}}, "oracle": {"seconds": 9}}))
    for seed in (0, 1):
        peers.collect("oracle", seed, 12 + seed, out, record)
    entries = json.loads(record.read_text())
    assert entries["scgen"] == {"train": {"seconds": 7}}
    assert entries["oracle"]["seconds"] == {"seed 0": 12, "seed 1": 13}
    assert entries["oracle"]["versions"] == {"torch": "2.0"}
    side = named_split(screen)
    real = screen[(side == "held_out") | (screen.obs["target_gene"] == "non-targeting")].copy()
    table = evaluate(real, {"oracle": ad.read_h5ad(out / "oracle-seed1.h5ad")}, baselines=False,
                     target_depth=float(cells.uns["target_depth"]), metrics=["mae"])
    assert (table[table["method"] == "oracle"]["mae"] < 0.02).all()


def test_what_is_wrong_with_a_peers_controls_too_is_no_part_of_its_change(prepared, tmp_path):
    _, out, cells = prepared
    kept = (cells.obs["side"] == "held_out") | (cells.obs["target_gene"] == "non-targeting")
    made = cells[kept].copy()
    made.X = np.maximum(made.X.toarray() + 0.5, 0)  # everything too high, alike
    del made.obs["sign"]
    made.write_h5ad(out / "loud_made.h5ad")
    (out / "loud.txt").write_text("torch==2.0\n")
    record = tmp_path / "peers.json"
    record.write_text("{}")
    peers.collect("loud", 0, 1, out, record)
    predicted = ad.read_h5ad(out / "loud-seed0.h5ad")
    assert predicted.uns["cdt_lite"]["controls"] == tasks.PREDICTED
    perturbed = (predicted.obs["target_gene"] != "non-targeting").to_numpy()
    changes = tasks.own_changes(predicted, perturbed)
    logged, obs = cells.X.toarray(), cells.obs
    for (target, sign), change in changes.iterrows():
        own = (obs["target_gene"] == target).to_numpy() & (obs["side"] == "held_out").to_numpy()
        by_hand = []
        for batch in obs["batch"][own]:  # cell by cell, against the controls of its replicate
            plain = (obs["target_gene"] == "non-targeting") & (obs["batch"] == batch)
            by_hand.append(logged[plain.to_numpy()].mean(0))
        assert sign == -1
        np.testing.assert_allclose(change, logged[own].mean(0) - np.mean(by_hand, 0), atol=1e-5)
    with pytest.raises(CDTError, match="that its controls are its own, and has none in"):
        tasks.own_changes(predicted[perturbed], perturbed[perturbed])


@pytest.mark.parametrize("preset", ["lite", "v1"])
def test_a_bin_shared_out_evenly_prices_every_count_and_all_of_them_to_one(preset):
    tokenizer = Tokenizer(replace(PRESETS[preset].tokenizer, space="counts"), 400.0)
    counts = np.arange(int(tokenizer.edges[-1]))  # below the last bin, which has no end
    bins = np.searchsorted(tokenizer.edges, counts, side="right") - 1
    nats = np.log(bins.max() + 1) + densities.shared_out(tokenizer, bins, counts)  # all bins equally likely
    assert np.exp(-nats).sum() == pytest.approx(1)
    assert nats.max() > nats.min(), "some bins hold several counts"


def test_the_gap_between_densities_is_averaged_over_perturbations():
    cells = [f"c{i}" for i in range(6)]
    model, other = pd.Series([1.0, 1, 1, 1, 2, 2], cells), pd.Series([2.0, 2, 2, 2, 2, 2], cells)
    table = densities.compared({"model": model, "b": other}, pd.Series(list("xxxxyy"), cells)).set_index("density")
    assert table.loc["b", "model_minus_it"] == pytest.approx((-1 + 0) / 2)
    assert table.loc["model", ["model_minus_it", "low", "high"]].tolist() == [0, 0, 0]
