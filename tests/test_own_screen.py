"""Files of strangers at the door, the terminal of a notebook, and what is said of a screen of one's own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cdt_lite.data import Columns, log1p_counts
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.evaluation import mean_effects, suites
from cdt_lite.figures import hits_over_cells, plots, power_over_cells, values_of_x, what_a_panel_keeps
from cdt_lite.teaching import (
    Terminal,
    agree,
    by_cell_eval,
    cells_for,
    gives_away,
    held_out,
    hits_by_cells,
    kept_by_panel,
    knock,
    leader,
    measured,
    of_use,
    one_answer,
    searched,
    simulated_genes,
    strange_files,
    what_it_holds,
)

LABELS = Columns(target="perturbation", control="NT", batch="lane", sign="way")


@pytest.fixture(scope="module")
def screen():
    return simulate_screen(n_genes=64, n_targets=8, n_cells=2400)


@pytest.fixture(scope="module")
def strangers(screen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strangers")
    return strange_files(screen, folder), folder


def test_the_first_file_is_refused_twice_then_taken_whole(screen, strangers, capsys):
    _, folder = strangers
    assert knock(folder / "atlas.h5ad") is None
    assert "has no column 'target_gene'" in capsys.readouterr().out
    assert knock(folder / "atlas.h5ad", Columns(target="perturbation")) is None
    assert "no control cells" in capsys.readouterr().out
    taken = knock(folder / "atlas.h5ad", LABELS)
    said = capsys.readouterr().out
    assert "var['feature_name']" in said and "was taken: 2,400 cells x 64 genes" in said
    assert list(taken.var_names) == list(screen.var_names) and (taken.X != screen.X).nnz == 0
    assert (taken.obs["target_gene"].astype(str) == screen.obs["target_gene"].astype(str)).all()
    assert (taken.obs["sign"] == screen.obs["sign"]).all()


def test_the_second_file_holds_no_counts_and_the_table_says_so(strangers, capsys):
    files, folder = strangers
    assert what_it_holds(files)["whole numbers"].tolist() == [True, False, True]
    assert knock(folder / "lognorm.h5ad") is None
    assert "not a whole number" in capsys.readouterr().out


def test_the_third_file_has_guides_and_signs_in_words(strangers, tmp_path, capsys):
    cells = strangers[0]["both_ways.h5ad"].copy()
    path = tmp_path / "both_ways.h5ad"
    cells.write_h5ad(path)
    assert knock(path) is None and "look like guides" in capsys.readouterr().out
    cells.obs["target_gene"] = cells.obs["target_gene"].astype(str).str.replace(r"_sg\d+$", "", regex=True)
    cells.write_h5ad(path)
    assert knock(path) is not None and "own mRNA of 10 of 12 measured targets rises" in capsys.readouterr().out
    assert knock(path, Columns(sign="way")) is None and "'CRISPRa'" in capsys.readouterr().out
    cells.obs["sign"] = cells.obs["way"].map({"CRISPRi": -1, "none": 0, "CRISPRa": 1})
    cells.write_h5ad(path)
    assert set(knock(path).obs["sign"]) == {-1, 0, 1} and "warning" not in capsys.readouterr().out


def test_a_terminal_runs_in_its_folder_and_shows_neither_bars_nor_long_lists(tmp_path, capsys):
    seen = []

    def main(words):
        seen.append((Path.cwd(), words))
        print("finetune:  95%|##### | 57/60 [00:47<00:02,  1.41it/s, loss 0.8]\rdone")
        print("\n".join(f"line {i}" for i in range(30)))
        if "--wrong" in words:
            raise SystemExit(2)
        return 0

    before = Path.cwd()
    assert Terminal(main, tmp_path).run("cdt-lite doctor --screen a.h5ad") == 0
    assert seen == [(tmp_path, ["doctor", "--screen", "a.h5ad"])] and Path.cwd() == before
    out = capsys.readouterr().out
    assert out.startswith("$ cdt-lite doctor --screen a.h5ad\n") and "it/s" not in out
    assert "more lines" in out and out.rstrip().endswith("line 29") and out.count("\n") == 8
    assert Terminal(main, tmp_path).run("cdt-lite doctor --wrong") == 2


def test_a_chosen_panel_keeps_more_than_a_random_one_and_all_genes_keep_all(screen):
    kept = kept_by_panel(screen)
    assert kept.index.tolist() == [8, 16, 32, 64] and np.allclose(kept.loc[64], 1)
    assert kept["chosen"].is_monotonic_increasing and kept.loc[16, "chosen"] > kept.loc[16, "random"]
    assert np.allclose(kept["random"], kept.index / 64, atol=0.05)  # k of G genes keep k / G of any sum, on average
    assert (kept["least"] <= kept["random"]).all() and (kept["most"] >= kept["random"]).all()


def test_replicate_means_use_no_control_of_the_truth(screen):
    found = held_out(screen)
    means = found.trained
    assert set(found.truth.obs_names) <= set(found.train.obs_names)
    every = mean_effects(log1p_counts(found.train.X, found.depth), found.train.obs, found.train.var_names)
    assert means.index.equals(every.index) and not np.allclose(means, every)
    rates = hits_by_cells(found, {"one": means, "other": every}, [4, 64], draws=3)
    assert rates.index.tolist() == [4, 64] and (rates <= 1).all(axis=None)
    assert rates.loc[64, "one"] >= rates.loc[4, "one"]


def test_simulated_genes_are_common_but_the_last():
    genes = simulated_genes([0.4, 0.8])
    *common, rare = genes.values()
    assert all((controls > 0).mean() > 0.5 for _, controls in common)
    assert (rare[1] > 0).mean() < 0.15 and list(genes)[-1].startswith("a gene in")


def test_cell_eval_speaks_where_it_is_installed(screen, monkeypatch):
    found = held_out(screen)

    def missing(*given):
        raise ImportError("No module named 'cell_eval'")

    def there(real, predicted, depth):
        targets = sorted(set(predicted.obs["target_gene"]) - {"non-targeting"})
        return pd.DataFrame({"target": targets, "pearson_delta": 0.5, "mae": 0.04, "discrimination_score_l1": 0.9})

    monkeypatch.setitem(suites.SUITES, "cell-eval", missing)
    assert by_cell_eval(found, found.test).startswith("cell-eval is not installed here")
    monkeypatch.setitem(suites.SUITES, "cell-eval", there)
    said = by_cell_eval(found, found.test)
    n = found.changes.index.get_level_values(0).nunique()
    assert f"the {n} targets score 0.50 in Pearson's r, 0.040 in mean absolute error and 0.90" in said


@pytest.mark.parametrize("metric, best", [("pearson_delta", "the replicate mean (0.90)"), ("mae", "no change (0.100)")])
def test_the_leader_is_who_is_best_by_this_metric(metric, best):
    rows = [("replicate mean", 0.9), ("control", 0.1), ("kNN", 0.5), ("ceiling", 0.95)]
    table = pd.DataFrame([{"method": m, "target": t, "sign": -1, metric: v} for m, v in rows for t in "AB"])
    assert leader(table, metric).split(" is best")[0].endswith(best)
    assert "the mean of the nearest targets" in leader(table, metric)


def curve(*gaps):
    return pd.DataFrame({"drawn": 0.5 + np.array(gaps), "closed form": 0.5}, [8, 16, 32])


def test_drawn_and_computed_power_agree_from_where_they_stay_near():
    assert agree({"a": curve(0.2, 0.01, -0.02), "b": curve(0, 0.03, 0)}, "two genes") == (
        "Of two genes, from 16 cells on drawn and computed power differ by 0.03 at most: they agree. With fewer they "
        "differ by up to 0.20.")
    assert agree({"a": curve(0.01, 0, 0)}, "it").endswith("they agree.")
    assert "from 16 cells on" in agree({"a": curve(0.3, 0, 0)}, "it")
    said = agree({"a": curve(0, 0.3, 0.02)}, "it")  # near at the last size alone: no more is claimed
    assert "with 32 cells, the most that were tried" in said and "by 0.02, with fewer by up to 0.30" in said
    assert "do not agree: with 32 cells they still differ by 0.40" in agree({"a": curve(0, 0, 0.4)}, "it")


def test_cells_that_a_change_takes_are_counted_among_the_targets():
    cells = pd.Series([50, 100, 400])
    assert "takes 100 cells; 2 of 3 targets" in cells_for(100.0, 0.1, cells, "it")
    assert "out of reach" in cells_for(np.inf, 0.1, cells, "it")


def placed(ours, theirs):
    return pd.DataFrame({"the model": ours, "the replicate mean": theirs}, dtype=float)


@pytest.mark.parametrize("ours, theirs, said", [
    ([1] * 10, [7] * 10, "10 first, which is more than luck explains (0.4 of 10 expected), "
     "and the replicate mean 0: the model is ahead"),
    ([7] * 10, [1] * 10, "no more than luck explains (0.4 of 10 expected), "
     "and the replicate mean 10: the replicate mean is ahead"),
    ([1] * 3 + [2] * 7, [1] * 4 + [9] * 6, "more than luck explains (0.4 of 10 expected), "
     "and the replicate mean 4: too few to tell"),
    ([1] * 3 + [2] * 7, [1] * 3 + [np.nan] * 7, "and the replicate mean 3: both find as many"),
    ([1, 4], [np.nan] * 2, "names 1 first, which is no more than luck explains (0.1 of 2 expected); "
     "the replicate mean has no row for them"),
    ([4], [1], "Of 1 perturbation, the model names 0 first"),
    ([1] + [2] * 9, [9] * 10, "names 1 first, which is no more than luck")])
def test_a_search_is_held_against_chance_and_its_rival(ours, theirs, said):
    assert said in searched(placed(ours, theirs), 25, "perturbations")


@pytest.mark.parametrize("every, own, others, said", [
    ([1, 1, 1, 1], [1, 1, 1, 2], [1, 5, 9, 2], "Of the model's 4, 1 hung on the target's own mRNA and 2 on "
     "the genes of other targets"),
    ([1, 1, 1, 1], [1, 1, 2, 2], [1, 1, 3, 3], "Of the model's 4, 2 hung on the target's own mRNA."),
    ([1, 1, 9, 9], [1, 1, 9, 9], [1, 1, 9, 9], "The model needed none of these genes."),
    ([2, 2, 2, 2], [1, 2, 2, 2], [1, 1, 2, 2], "Of the model's 0, leaving genes out helped in part")])
def test_whose_genes_a_search_hung_on_is_said(every, own, others, said):
    ways = {"all genes": placed(every, every), "without its own": placed(own, every), "bare": placed(others, every)}
    told = gives_away(ways)
    assert said in told and told.startswith(f"Of 4: the model names first {every.count(1)} (all genes), ")


def changes(rows, targets):
    names = pd.MultiIndex.from_tuples([(target, -1) for target in targets], names=["target", "sign"])
    return pd.DataFrame(rows, names, ["A", "x"])


def test_own_genes_on_the_panel_are_counted():
    said = measured(changes([[0, 1.0], [2, 3]], "AB"), ["A", "B", "C"])
    assert said == ("Of 2 perturbations, 1 have their target's own gene on the panel (A), which holds the genes of 1 "
                    "targets in all.")


@pytest.mark.parametrize("rows, said", [
    ([[1.0, 2], [1, 2], [1, 2]], "all 3 one and the same answer"), ([[1.0, 2], [1, 2], [3, 2]], "2 different answers"),
    ([[1.0, 2], [0, 2], [3, 2]], "an answer of its own; in one gene or another they differ by up to 3.00"),
    ([[1.0, 2]], "is not shown")])
def test_one_answer_to_all_is_called_so(rows, said):
    assert said in one_answer(changes(rows, "ABC"[:len(rows)]))


@pytest.mark.parametrize("r, said", [
    ([0.5, 0.6, 0.4], "that has to do with the truth."), ([0.9, -0.8, 0.04], "so few perturbations do not show"),
    ([0.9], "a single perturbation")])
def test_an_answer_is_called_of_use_only_where_its_interval_leaves_out_zero(r, said):
    table = pd.DataFrame({"method": "model", "target": list("ABC"[:len(r)]), "sign": -1, "pearson_delta": r})
    assert said in of_use(table, "model")


def test_methods_of_one_score_share_the_best():
    rows = [("linear", 0.2), ("perturbed mean", 0.2), ("kNN", 0.1)]
    table = pd.DataFrame([{"method": m, "target": t, "sign": -1, "pearson_delta": v} for m, v in rows for t in "AB"])
    said = leader(table, "pearson_delta")
    assert "the linear model and the perturbed mean have one and the same score, the best (0.20), then" in said


def test_the_door_says_what_it_takes_and_others_would_not(screen, tmp_path, capsys):
    bad = screen.copy()
    target, lane = (bad.obs[key].astype(str) for key in ("target_gene", "batch"))
    first, second, third = sorted(set(target) - {"non-targeting"})[:3]
    bad.obs["target_gene"] = target.replace({first: "nan", second: "NTC_4", third: "KNTC1"})
    last = max(set(lane))
    bad[((lane != last) | (bad.obs["sign"] != 0)).to_numpy()].write_h5ad(tmp_path / "bad.h5ad")
    screen.write_h5ad(tmp_path / "good.h5ad")
    assert knock(tmp_path / "bad.h5ad") is not None
    said = capsys.readouterr().out
    assert "taken for targets, and hardly genes: ['NTC_4', 'nan']." in said
    assert f"replicates without control cells: ['{last}']." in said
    assert knock(tmp_path / "good.h5ad") is not None and "warning" not in capsys.readouterr().out


def test_of_several_labels_of_controls_none_is_suggested(screen, tmp_path, capsys):
    cells = screen.copy()
    names = cells.obs["target_gene"].astype(str).to_numpy()
    numbers = pd.Series(np.arange(cells.n_obs) % 3 + 1).astype(str).to_numpy()
    cells.obs["target_gene"] = np.where(names == "non-targeting", np.char.add("non-targeting_", numbers), names)
    cells.write_h5ad(tmp_path / "several.h5ad")
    assert knock(tmp_path / "several.h5ad") is None
    said = capsys.readouterr().out
    assert "did you mean" not in said
    assert "one label first: ['non-targeting_1', 'non-targeting_2', 'non-targeting_3']" in said


def test_counts_in_a_layer_and_signs_of_an_activation_screen_come_in(screen, tmp_path, capsys):
    cells = screen.copy()
    cells.layers["counts"] = cells.X.copy()
    cells.X = cells.X * 0.5
    cells.obs = cells.obs[["target_gene", "batch"]]
    cells.write_h5ad(tmp_path / "layer.h5ad")
    assert knock(tmp_path / "layer.h5ad") is None and "layer" in capsys.readouterr().out
    taken = knock(tmp_path / "layer.h5ad", layer="counts", default_sign=1)
    assert (taken.X != screen.X).nnz == 0 and set(taken.obs["sign"]) == {0, 1}


def test_what_is_drawn_is_what_was_given(strangers):
    files, _ = strangers
    drawn = values_of_x(files)
    assert [ax.get_title(loc="left") or ax.get_title() for ax in drawn.axes] == list(files)
    for ax in drawn.axes:  # bars that can be seen: five pixels wide, each with a whole number at the middle of one
        bars = ax.patches
        assert (ax.transData.transform([(bars[0].get_width(), 1)]) - ax.transData.transform([(0, 1)]))[0, 0] > 4
        assert 1.0 in [round(bar.get_x() + bar.get_width() / 2, 6) for bar in bars]
    shares = pd.DataFrame({"chosen": [0.4, 1.0], "random": [0.2, 1.0], "least": [0.1, 1], "most": [0.3, 1]}, [8, 16])
    lines = what_a_panel_keeps(shares).axes[0].lines
    assert [line.get_ydata().tolist() for line in lines] == [[0.4, 1.0], [0.2, 1.0]]
    ax = power_over_cells({"a gene": curve(0, 0.1, 0.2)}, 0.8).axes[0]
    assert ax.lines[1].get_ydata().tolist() == pytest.approx([0.5, 0.6, 0.7])
    rates = pd.DataFrame({"the model": [0.2, 0.4], "the replicate mean": [0.3, 0.5]}, [4, 8])
    ax = hits_over_cells(rates, 0.1).axes[0]
    assert [line.get_color() for line in ax.lines[:2]] == [plots.KINDS["generated"], plots.KINDS["baseline"]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["4", "8"]
