"""What notebook 09 measures and says: sizes, peaks of memory, rows and products a second, processes beside one."""


import json

import numpy as np
import pandas as pd
import pytest
from helpers import toy_screen

from cdt_lite.data import SetSampler, TokenStore
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.errors import CDTError
from cdt_lite.figures import beside_one, memory_over_cells, parts_of_a_batch, plots, weighed
from cdt_lite.model import get_preset
from cdt_lite.teaching import (
    alone,
    as_fast,
    begun,
    equal_batches,
    fits_after_all,
    fits_on,
    grows,
    held_by,
    launch,
    lighter,
    losses_of,
    on_a_card,
    one_model,
    pace,
    pays,
    peaks,
    piled,
    quicker,
    rows_a_second,
    talk,
    together,
    used,
    weights_apart,
)
from cdt_lite.training.start import start

FORMS = ["float64 counts", "sparse counts", "tokens"]


@pytest.fixture(scope="module")
def cells():
    return simulate_screen(n_genes=64, n_targets=6, n_cells=600)


@pytest.fixture(scope="module")
def network(cells):
    return start(get_preset("lite"), cells)


def test_a_pile_repeats_cells_in_order_and_is_not_read(cells, tmp_path):
    file = piled(cells, 1000, tmp_path / "pile.h5ad")
    assert file.isbacked and file.shape == (1000, 64) and file.obs_names.is_unique
    assert (file.X[600:].toarray() == cells.X[:400].toarray()).all()
    assert file.obs["target_gene"].astype(str).tolist()[:700][600:] == cells.obs["target_gene"].tolist()[:100]
    file.file.close()


def test_peaks_are_those_of_what_is_held(cells, network, tmp_path):
    """float64 counts are made of float32 ones, 12 bytes each; tokens are one byte, and on disk none of them is held."""
    found = peaks(cells, [5_000, 20_000], network, tmp_path)
    slope = (found.loc[20_000] - found.loc[5_000]) / 15_000
    assert slope["float64 counts"] == pytest.approx(12 * 64, rel=0.1)
    assert 64 < slope["tokens in memory"] - slope["tokens on disk"] + 8 < 80
    assert slope["tokens on disk"] < 150
    assert len(TokenStore.open(tmp_path / "20000 cells")) == 20_000


def test_what_grows_least_is_named_by_the_line_at_a_million():
    found = pd.DataFrame({"a": [100.0, 200.0], "b": [5_000.0, 5_010.0]}, index=[10, 20])
    said = grows(found)
    assert "(in brackets a million, with the block in work), 10 bytes as a (0.01 GB)" in said
    assert said.endswith("the least as b.")
    assert grows(found[::1] * 1e3).count("GB") == 2
    assert grows(found[["a"]]).endswith("10 bytes as a (0.01 GB).")
    assert grows(found.assign(b=[0.0, 1_000.0])).endswith("the least as a.")


def test_the_lightest_form_is_named_also_where_it_is_not_tokens():
    said = lighter(pd.Series([16e9, 3.6e9, 2e9], FORMS), 0.22)
    assert "2.0 GB as tokens, 3.6 GB as sparse counts and 16.0 GB" in said and "Here tokens are the lightest" in said
    said = lighter(pd.Series([16e9, 0.8e9, 2e9], FORMS), 0.05)
    assert "Here sparse counts are the lightest" in said and "5% of the counts" in said


def test_rows_are_counted_with_their_controls_and_read_from_a_map(cells, network, tmp_path):
    store = TokenStore.from_adata(cells, network.tokenizer, network.vocabulary, path=tmp_path)
    rates = rows_a_second(SetSampler(store, network.config.finetune), 3)
    assert (rates > 0).all() and rates["drawn and read"] < rates["read"]
    rates = pd.Series({"drawn and read": 2e6, "read": 8e6, "a plain gather": 10e6})
    said = as_fast(rates, 200, 0.4e9)
    assert "read: 2.0 million rows a second, 20% of a plain gather's 10.0; read alone 8.0 (80%), so" in said
    assert said.endswith("75% of the time. That is 0.40 GB a second; a card wants 0.40 at most: enough.")
    assert as_fast(rates, 200, 0.5e9).endswith("a card wants 0.50 at most: too slow.")


def test_steps_and_products_are_timed_in_turn(cells, network):
    store = TokenStore.from_adata(cells, network.tokenizer, network.vocabulary)
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    found = pace(network, SetSampler(store, network.config.finetune), 2)
    assert len(found) == 2 and (found > 0).all().all()
    assert all((value == before[name]).all() for name, value in network.model.state_dict().items())
    planted = pd.DataFrame({"a step": [4e9, 5e9, 90e9], "a matrix product": [10e9, 10e9, 1e9]})
    assert "10 billion operations a second in matrix products and 5 in a training step, 50%" in used(planted, "It")


def test_a_measured_card_is_told_and_an_unmeasured_one_is_not_promised(tmp_path):
    kept = tmp_path / "gpu.json"
    assert on_a_card("cpu", kept).endswith("unmeasured on a GPU.") and "own GPU" in on_a_card("cuda", kept)
    runs = [{"preset": "v1", "cells": 32, "step_s": 0.05, "mfu_of_product": 0.3},
            {"preset": "v1", "cells": 32, "step_s": 0.03, "mfu_of_product": 0.5},
            {"preset": "v1", "cells": 128, "step_s": 0.01, "mfu_of_product": 0.9},
            {"preset": "default", "cells": 32, "step_s": 0.02, "mfu_of_product": 0.7}]
    kept.write_text(json.dumps({"card": "H1", "runs": runs}))
    said = on_a_card("cpu", kept)
    assert said.startswith("Measured on a GPU, H1: a step of v1 with 32 cells takes 30 ms, which is 50% of")


def test_cards_that_are_large_enough_are_named():
    cards = pd.Series({"T4": 16, "A100": 80, "H200": 141})
    assert fits_on(16e9, cards, "It") == "It needs 16.0 GB. Large enough: T4, A100 and H200."
    assert fits_on(100e9, cards, "It").endswith("Large enough: H200; too small: T4 and A100.")
    assert fits_on(200e9, cards, "It") == "It needs 200.0 GB: none of the cards has that."


def test_what_a_shared_batch_and_shards_save_is_told_of_either():
    said = pays(pd.Series([9.52, 1.57, 1.19]))
    assert said.startswith("Eight processes that share v1's batch need 1.6 GB each instead of 9.5, in the same")
    assert said.endswith("shards take off 0.4 more.")
    assert pays(pd.Series([110.0, 105.0, 13.0])).endswith("shards take off 92.0 more.")


def test_the_answer_tells_the_price_and_does_not_praise_what_failed():
    sizes = pd.Series([16e9, 3.6e9, 2e9], FORMS)
    rates = pd.Series({"drawn and read": 8.0, "read": 64.0, "a plain gather": 100.0})
    held = pd.Series([9.52, 1.57, 1.19])
    said = fits_after_all(sizes, rates, True, (0.014, 0.038), held)
    assert "2.0 GB for a million x 2,000 genes (sparse counts 3.6 and float64 counts 16.0)" in said
    assert "read at 8% of the pace of a plain gather, read alone at 64%. Two processes made the model of one; " in said
    assert "here they were no faster (38 ms a step against 14)" in said and said.endswith(pays(held))
    said = fits_after_all(pd.Series([16e9, 0.8e9, 2e9], FORMS), rates, False, (0.070, 0.039), held)
    assert "(sparse counts 0.8 and" in said and "Two processes did not make the model of one" in said
    assert "1.8 times as fast (39 ms a step against 70)" in said


def test_equal_batches_are_counted():
    one = [np.arange(4), np.arange(3)]
    assert equal_batches(one, [a.copy() for a in one], "disk").endswith("all are equal, bit for bit.")
    assert equal_batches(one, [one[0], one[1] + 1], "disk").endswith("only 1 are equal.")


def test_a_run_is_that_of_one_process_by_its_losses_and_by_its_weights():
    losses = pd.DataFrame({"one": [4.0, 3.0], "two": [4.000001, 3.0]})
    said = one_model(losses, 2e-5, "Two")
    assert said.startswith("Two: over 2 steps the losses are within 1e-06 nats of those of one process, the weights ")
    assert said.endswith("in the end within 2e-05: one and the same model, but for rounding.")
    assert one_model(losses, 2e-3, "Two").endswith("not the same model.")
    assert one_model(losses + [0, 1e-3], 2e-5, "Two").endswith("not the same model.")


def test_weights_held_speed_and_talk_are_told_either_way():
    rows = [("two", 0, 100), ("two", 1, 100), ("cut", 0, 51), ("cut", 1, 49)]
    table = pd.DataFrame(rows, columns=["case", "process", "weights"]).set_index(["case", "process"])
    assert held_by(table).endswith("held all 100 weights; cut, 51 and 49: 49% less in the fullest.")
    assert "1.5 times as fast, where twice" in quicker(0.3, 0.2) and "no faster, where" in quicker(0.2, 0.3)
    links = pd.Series({"a wire": 1e9, "a pipe": 1e11})
    assert "100 MB a step in each of 8 processes: 100.0 ms over a wire" in talk(1e8, 8, links, 0.013)
    assert talk(1e8, 8, links, 0.013).endswith("over a wire the talk takes longer than the step.")
    assert talk(1e6, 8, links, 0.013).endswith("the talk is shorter everywhere.")


def test_what_goes_on_alone_is_joined_and_equal(tmp_path):
    """Three runs by one process: to the end, half way, and on from there. (Two are held beside one elsewhere.)"""
    begun(toy_screen(n_genes=20), tmp_path, n_sets=2)
    one = alone(tmp_path, ["one"])
    first = alone(tmp_path, ["half"])
    second = alone(tmp_path, ["half"])
    losses = losses_of(first.loc[("half", 0)], second.loc[("half", 0)])
    assert losses.index.tolist() == list(range(1, 17))
    assert losses.tolist() == losses_of(one.loc[("one", 0)]).tolist()
    assert weights_apart(tmp_path / "one", tmp_path / "half") == 0
    assert weights_apart(tmp_path / "one", tmp_path / "begun") > 0
    assert second.loc[("half", 0), "weights"] == one.loc[("one", 0), "weights"] > 0


def test_torchrun_is_called_in_the_folder_and_its_failure_is_shown(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(together, "SCRIPT", tmp_path / "short.py")
    body = "import json, os\nr = os.environ['RANK']\nopen(f'a, process {r} of 2.json', 'w').write("
    body += "json.dumps({'case': 'a', 'process': int(r), 'weights': 3, 'seconds': 1.0, 'losses': {'1': 2.0}}))\n"
    (tmp_path / "short.py").write_text(body)
    table = launch(tmp_path, ["a"], 2)
    assert capsys.readouterr().out == "$ torchrun --standalone --local-addr localhost --nproc-per-node 2 short.py a\n"
    assert table.index.tolist() == [("a", 0), ("a", 1)] and losses_of(table.loc[("a", 0)]).to_dict() == {1: 2.0}
    (tmp_path / "short.py").write_text("raise SystemExit('no such cells')")
    with pytest.raises(CDTError, match="2 processes did not come to their end"):
        launch(tmp_path, ["a"], 2)


def test_figures_of_what_does_not_fit():
    plots.use_style()
    shares = pd.Series([0.8, 0.2], ["0", "1+"])
    assert len(weighed(shares, pd.Series([16e9, 3.6e9, 2e9], FORMS)).axes) == 2
    drawn = memory_over_cells(pd.DataFrame({"tokens on disk": [1e6, 2e6]}, index=[10, 20])).axes[0]
    assert drawn.lines[0].get_ydata().tolist() == [1, 2]
    ax = parts_of_a_batch({1: [[0, 1, 2]], 2: [[0], [1, 2]]}).axes[0]
    assert [text.get_text() for text in ax.texts] == ["0", "0", "0", "0", "1", "1"]
    losses = pd.DataFrame({"one": [2.0, 1.0], "two": [2.0, 1.000001]}, index=[1, 2])
    gap = beside_one(losses, {"one": "one process", "two": "two processes"}).axes[1].lines[0].get_ydata()
    assert gap.tolist() == pytest.approx([1e-9, 1e-6], rel=1e-3)
