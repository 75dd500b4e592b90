"""Screens in the layouts of public collections, taken through the command line by someone new to it."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from helpers import tiny, toy_screen
from scipy import sparse

import cdt_lite as cdt
from cdt_lite.cli import main
from cdt_lite.data import CONTROL, load_screen
from cdt_lite.errors import CDTError, CDTWarning

TARGETS = ["G1", "G3", "G5", "G7"]


def screen_file(path, factor, label=lambda target, cell: target, obs_column="target_gene"):
    """Perturbations that change their own gene by a factor; no column of signs, two replicates."""
    rng = np.random.default_rng(0)
    target = rng.choice([CONTROL, *TARGETS], 400, p=[0.4, *[0.15] * 4])
    rate = np.tile(rng.gamma(3.0, 2.0, 16) + 1, (400, 1))
    for name in TARGETS:
        rate[target == name, int(name[1:])] *= factor
    named = [label(name, cell) if name != CONTROL else name for cell, name in enumerate(target)]
    obs = pd.DataFrame({obs_column: named, "batch": rng.choice(["a", "b"], 400)}, index=[f"c{i}" for i in range(400)])
    var = pd.DataFrame(index=[f"G{i}" for i in range(16)])
    cells = ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=var)
    cells.write_h5ad(path)
    return cells


@pytest.mark.parametrize("factor, default, said", [(4.0, -1, "rises"), (0.2, 1, "falls"), (0.2, -1, ""), (4.0, 1, "")])
def test_a_screen_without_signs_is_told_where_it_goes_the_other_way(tmp_path, factor, default, said, recwarn):
    screen_file(tmp_path / "screen.h5ad", factor)
    screen = load_screen(tmp_path / "screen.h5ad", default_sign=default)
    notes = [str(w.message) for w in recwarn if w.category is CDTWarning and "own mRNA" in str(w.message)]
    assert set(screen.obs["sign"]) == {0, default}
    assert len(notes) == bool(said)
    if said:
        assert f"4 of 4 measured targets {said}" in notes[0] and f"default_sign={-default}" in notes[0]


def test_guides_are_refused_where_genes_have_ensembl_ids_and_symbols_beside_them(tmp_path):
    cells = screen_file(tmp_path / "screen.h5ad", 0.2, lambda target, cell: f"{target}g{cell % 3 + 1}")
    cells.var = pd.DataFrame({"feature_name": list(cells.var_names)}, index=[f"ENSG{i:011d}" for i in range(16)])
    cells.write_h5ad(tmp_path / "screen.h5ad")
    with pytest.raises(CDTError, match="targets look like guides"), pytest.warns(CDTWarning, match="feature_name"):
        load_screen(tmp_path / "screen.h5ad")


def test_the_control_label_is_among_those_that_are_named(tmp_path):
    cells = screen_file(tmp_path / "screen.h5ad", 0.2)
    many = [f"A{cell}" if name in TARGETS else "zzz" for cell, name in enumerate(cells.obs["target_gene"])]
    cells.obs["target_gene"] = many
    cells.write_h5ad(tmp_path / "screen.h5ad")
    with pytest.raises(CDTError, match=r"the labels there are \['zzz'"):
        load_screen(tmp_path / "screen.h5ad")


def test_an_activation_screen_by_command_line_alone(tmp_path, monkeypatch, capsys):
    """It is told, trained with one option, predicted as what it is, and scored as far as there are cells."""
    monkeypatch.chdir(tmp_path)
    screen_file("screen.h5ad", 4.0)
    screen = ["--screen", "screen.h5ad"]
    assert main(["doctor", *screen]) == 0
    told = capsys.readouterr()
    assert "--default-sign 1" in told.err and "signs: -1" in told.out and "unseen: G" in told.out
    screen += ["--default-sign", "1"]
    assert main(["finetune", *screen, "--steps", "2", "--out", "model"]) == 0
    few = ["--cells", "12", "--sampling-steps", "2", "--out", "all.h5ad"]
    assert main(["predict", *screen, "--checkpoint", "model", "--target", *TARGETS, *few]) == 0
    predicted = ad.read_h5ad("all.h5ad")
    assert set(predicted.obs["sign"]) == {0, 1} and set(predicted.obs["target_gene"]) == {CONTROL, *TARGETS}
    capsys.readouterr()
    assert main(["evaluate", *screen, "--predicted", "all.h5ad", "--side", "unseen", "--out", "scores.csv"]) == 0
    assert "targets are not among the unseen cells" in capsys.readouterr().err
    scores = pd.read_csv("scores.csv")
    assert 0 < scores.loc[scores["method"] == "all", "target"].nunique() < len(TARGETS)


def test_pretraining_on_ones_own_file_alone(tmp_path, monkeypatch):
    from cdt_lite.training.checkpoint import Checkpoint

    monkeypatch.chdir(tmp_path)
    toy_screen().write_h5ad("screen.h5ad")
    assert main(["pretrain", "--screen", "screen.h5ad", "--more", "--steps", "1", "--out", "alone"]) == 0
    checkpoint = Checkpoint.load("alone")
    assert len(checkpoint.card["data"]) == 1 and len(checkpoint.vocabulary) == 12


def test_combinations_are_told_apart_from_genes_that_are_not_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    screen_file("screen.h5ad", 0.2, lambda target, cell: "G7+G1" if target == "G7" else target)
    assert main(["doctor", "--screen", "screen.h5ad"]) == 0
    told = dict(line.partition(": ")[::2] for line in capsys.readouterr().out.splitlines())
    assert told["combinations, pairs learned as sums"] == "G1+G7"
    assert told["measured targets"] == "3; not measured: none"
    model = cdt.start(tiny(n_genes=16, n_total_genes=40), load_screen("screen.h5ad"))
    with pytest.raises(CDTError, match=r"G3\+G5 was not in training.*Predict G3 and G5 one by one"):
        cdt.predict(model, load_screen("screen.h5ad"), "G5+G3", n_cells=4)
