import json
import re
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cdt_lite.cli import main, parser
from cdt_lite.cli.cells import screen_of
from cdt_lite.data import CONTROL, named_split, simulate_screen
from cdt_lite.data.layout import screen_hash
from cdt_lite.model.config import PRESETS
from cdt_lite.options import OPTIONS
from cdt_lite.training.checkpoint import Checkpoint


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A little simulated screen on disk, and an empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    simulate_screen(n_genes=64, n_targets=8, n_cells=900, seed=3).write_h5ad("screen.h5ad")
    return tmp_path


def test_account_prints_the_two_counts_as_json(capsys):
    assert main(["account", "--preset", "v1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["nominal_parameters"] == 24_752_265 and result["parameters"] == 27_374_473
    assert sum(result["parameters_by_part"].values()) == 27_374_473
    assert sum(result["flops_by_part"].values()) == result["flops_forward_per_cell"]
    assert result["flops_forward_per_cell"] == pytest.approx(128.08e9, rel=1e-3)


def test_account_in_words(capsys):
    assert main(["account", "--preset", "lite"]) == 0
    assert "parameters_by_part" in capsys.readouterr().out


def test_an_unknown_preset_is_one_line_and_status_2(capsys):
    assert main(["account", "--preset", "v2"]) == 2
    assert "there is no preset 'v2'" in capsys.readouterr().err


def test_doctor_names_versions_device_and_screen(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("cdt_lite", "torch", "Python", "GPU", "dot:", "profile", "papalexi2021", "capsules"):
        assert word in out


def test_bench_reports_speed_and_memory(capsys):
    assert main(["bench", "--preset", "lite", "--genes", "64"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["training_cells_per_second"] > 0 and result["sampling_cells_per_second"] > 0
    assert 0 < result["peak_memory_gb"] < 24


def test_the_whole_pipeline(small, capsys):
    common = ["--screen", "screen.h5ad"]
    assert main(["pretrain", *common, "--more", "screen.h5ad", "--steps", "3", "--out", "a"]) == 0
    assert main(["finetune", *common, "--start", "a", "--steps", "3", "--out", "b"]) == 0
    screen = ad.read_h5ad("screen.h5ad")
    target = str(screen.obs["target_gene"][named_split(screen) == "held_out"].iloc[0])
    assert main(["predict", "--checkpoint", "b", *common, "--target", target, "--cells", "40", "--out", "p.h5ad"]) == 0
    assert ad.read_h5ad("p.h5ad").shape == (40, 64)
    assert main(["predict", "--checkpoint", "b", *common, "--target", target, "--cells", "40", "--space", "log1p",
                 "--out", "q.h5ad"]) == 0
    counts, logged = (ad.read_h5ad(f"{name}.h5ad") for name in "pq")
    assert logged.uns["cdt_lite"]["space"] == "log1p" and (logged.X.data % 1 != 0).any()
    assert (counts.X.toarray() > 0).tolist() == (logged.X.toarray() > 0).tolist()
    assert main(["evaluate", *common, "--predicted", "p.h5ad", "--out", "table.csv"]) == 0
    out = capsys.readouterr().out
    assert "pearson_delta" in out and (small / "table.csv").read_text().count("\n") > 2
    assert not list(small.glob(".p.h5ad*"))


def test_gene_vectors_of_a_file_start_the_gene_table(small, capsys):
    vectors = pd.DataFrame(np.random.default_rng(0).normal(size=(3, 8)), index=["SIM00001", "SIM00002", "NOT_A_GENE"])
    vectors.to_csv("vectors.csv")
    rows = {}
    for name, more in (("a", ["--gene-vectors", "vectors.csv"]), ("b", [])):
        assert main(["pretrain", "--screen", "screen.h5ad", "--more", "screen.h5ad", "--steps", "1", "--out", name,
                     *more]) == 0
        rows[name] = Checkpoint.load(name)
    known = ["SIM00001", "SIM00002"]
    table = rows["a"].model.gene_table.weight.detach().numpy()[rows["a"].vocabulary.ids(known), :8]
    fresh = rows["b"].model.gene_table.weight.detach().numpy()[rows["b"].vocabulary.ids(known), :8]
    for ours, given, other in zip(table, vectors.loc[known].to_numpy(), fresh, strict=True):
        assert np.corrcoef(ours, given)[0, 1] > 0.99 > np.corrcoef(other, given)[0, 1]
    assert main(["finetune", "--screen", "screen.h5ad", "--start", "a", "--gene-vectors", "vectors.csv"]) == 2
    assert "--start brings its own gene vectors" in capsys.readouterr().err
    assert main(["pretrain", "--screen", "screen.h5ad", "--gene-vectors", "none.csv"]) == 2
    assert "no file of gene vectors" in capsys.readouterr().err


def test_bad_input_says_what_to_do(small, capsys):
    assert main(["predict", "--checkpoint", "nowhere", "--target", "X", "--screen", "screen.h5ad"]) == 2
    assert "no checkpoint in nowhere" in capsys.readouterr().err
    assert main(["pretrain", "--screen", "papalexi2022"]) == 2
    assert "'papalexi2021'" in capsys.readouterr().err


NAMED = ["--target-key", "gene", "--batch-key", "lane", "--control", "ctrl", "--sign-key", "way", "--magnitude-key",
         "lfc", "--layer", "umi"]
READERS = [["pretrain"], ["finetune"], ["predict", "--checkpoint", "a", "--target", "X"], ["evaluate"], ["capsule"]]


@pytest.fixture
def own(small):
    """The same screen as a file that keeps its labels and its counts elsewhere."""
    screen = ad.read_h5ad("screen.h5ad")
    screen.obs["target_gene"] = screen.obs["target_gene"].astype(str).replace(CONTROL, "ctrl")
    names = {"target_gene": "gene", "batch": "lane", "sign": "way", "magnitude": "lfc"}
    screen.obs = screen.obs.rename(columns=names)
    screen.layers["umi"] = screen.X.copy()
    screen.X = screen.X.log1p()
    screen.write_h5ad("own.h5ad")
    return small


@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
def test_every_command_that_reads_a_screen_is_told_where_labels_are(own, words):
    args = parser().parse_args([*words, "--screen", "own.h5ad", *NAMED])
    assert screen_hash(screen_of(args)) == screen_hash(ad.read_h5ad("screen.h5ad"))


@pytest.mark.parametrize(("left_out", "said"), [
    ("--target-key", "has no column 'target_gene'.*name yours with --target-key"),
    ("--control", "Name yours with --control"), ("--layer", "counts are in layer 'umi': pass --layer umi")])
def test_a_fault_names_the_option_that_mends_it(own, capsys, left_out, said):
    at = NAMED.index(left_out)
    assert main(["pretrain", "--screen", "own.h5ad", *NAMED[:at], *NAMED[at + 2:]]) == 2
    err = capsys.readouterr().err
    assert re.search(said, err) and "Columns(" not in err and "layer=" not in err


def test_options_of_the_simulated_screen(tmp_path, capsys):
    words = ["n_genes=64", "n_targets=8", "n_cells=900", "seed=3", "world=linear"]
    args = parser().parse_args(["capsule", "--screen", "simulated", "--simulated", *words])
    assert screen_hash(screen_of(args)) == screen_hash(simulate_screen(64, 8, 900, seed=3, world="linear"))
    for bad, said in (("n_target=5", "did you mean 'n_targets'"), ("n_targets=many", "OPTION=VALUE"),
                      ("n_genes=", "OPTION=VALUE"), ("depth=3", "OPTION=VALUE")):
        assert main(["capsule", "--screen", "simulated", "--simulated", bad]) == 2
        assert said in capsys.readouterr().err
    assert main(["capsule", "--screen", "papalexi2021", "--simulated", "seed=3"]) == 2
    assert "seed: for the simulated screen only, without effect on papalexi2021" in capsys.readouterr().err


def test_nothing_to_evaluate_is_said(capsys):
    assert main(["evaluate", "--screen", "simulated"]) == 2
    assert "name --predicted files, or pass --tasks" in capsys.readouterr().err


def test_help_and_a_misspelt_option_come_without_heavy_imports():
    code = "import sys; from cdt_lite.cli import parser; parser(); print({'torch', 'anndata'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
    assert sorted(re.findall(r"\w+", OPTIONS["preset"]["help"].replace(" or", ""))) == sorted(PRESETS)
