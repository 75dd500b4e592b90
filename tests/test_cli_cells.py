"""Which cells and genes a command works on: the panel's size, a model's own genes, a split of one's choice."""

import json
import re
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cdt_lite.cli import main, parser
from cdt_lite.cli.cells import screen_of, split_of
from cdt_lite.cli.training import _asked_sets, _training_screen, config_of
from cdt_lite.data import CONTROL, load_screen, named_split
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.figures.measured import fingerprint
from cdt_lite.model import PRESETS
from cdt_lite.options import in_options
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.runs import with_panel

TARGETS = ["G3", "G5", "G7", "G9", "G11", "G13"]
SCREEN = ["--screen", "screen.h5ad"]
SMALL = [*SCREEN, "--n-top-genes", "30", "--steps", "2"]


def planted(n_cells=500, n_genes=600, seed=0):
    """Two replicates of controls and knockdowns, each of its own gene; every twentieth gene is variable."""
    rng = np.random.default_rng(seed)
    label = rng.choice([CONTROL, *TARGETS], n_cells, p=[0.4, *[0.1] * 6])
    rate = np.tile(rng.gamma(2.0, 1.5, n_genes), (n_cells, 1)) * rng.lognormal(0, 0.2, (n_cells, 1))
    rate[:, ::20] *= rng.choice([0.2, 3.0], (n_cells, len(range(0, n_genes, 20))))
    for target in TARGETS:
        rate[label == target, int(target[1:])] /= 3
    obs = pd.DataFrame({"target_gene": label, "batch": rng.choice(["rep:1", "rep:2"], n_cells)},
                       index=[f"c{i}" for i in range(n_cells)])
    obs["part"] = np.where(label == "G3", "unseen", "train")
    obs.loc[(obs["target_gene"] == "G5") & (np.arange(n_cells) % 2 == 0), "part"] = "held_out"
    genes = pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    return ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=genes)


@pytest.fixture(scope="module")
def cells():
    return planted()


@pytest.fixture
def here(cells, tmp_path, monkeypatch):
    """A folder to work in, with the screen as a file."""
    monkeypatch.chdir(tmp_path)
    cells.write_h5ad("screen.h5ad")
    return tmp_path


def refused(capsys, words, *said):
    capsys.readouterr()
    assert main(words) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    for word in said:
        assert word in line, line


# --- the panel -------------------------------------------------------------------------------------------------------

def test_the_panel_has_the_presets_size_unless_another_is_named(here):
    for words, size in (([], 512), (["--n-top-genes", "30"], 30), (["--preset", "default"], 600)):
        args = parser().parse_args(["finetune", *SCREEN, *words])
        screen = _training_screen(args, None, config_of(args))
        assert screen.n_vars == size and set(TARGETS) <= set(screen.var_names)


def test_the_size_of_the_work_is_said_before_it_starts(here, capsys):
    assert main(["finetune", *SMALL, "--out", "m"]) == 0
    out = capsys.readouterr().out
    said = re.match(r"30 genes, 2 steps of about (\S+) s: (\S+) hours; memory (\S+) GB\n", out)
    seconds, hours, memory = map(float, said.groups())
    assert 0 < seconds < 60 and hours == pytest.approx(2 * seconds / 3600, abs=0.01) and 0.1 < memory < 30
    assert main(["finetune", *SCREEN, "--out", "m", "--resume"]) == 0
    assert "30 genes, 0 steps" in capsys.readouterr().out


def test_the_estimate_changes_nothing(here):
    from cdt_lite.data import SetSampler, TokenStore
    from cdt_lite.training.start import start
    from cdt_lite.training.train import train

    screen = load_screen("screen.h5ad", n_top_genes=30)
    weights, told = [], []
    for say in (None, told.append):
        checkpoint = start(config_of(parser().parse_args(["finetune", *SCREEN])), screen)
        store = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
        for _ in train(checkpoint, SetSampler(store, checkpoint.config.finetune), steps=2, say=say):
            pass
        weights.append(checkpoint.model.state_dict())
    assert len(told) == 1
    for name, value in weights[0].items():
        assert value.equal(weights[1][name]), name


def test_a_model_takes_its_own_genes_from_the_file(here, capsys):
    assert main(["finetune", *SMALL, "--out", "m"]) == 0
    model = Checkpoint.load("m")
    assert len(model.panel) == 30
    assert main(["predict", "--checkpoint", "m", *SCREEN, "--target", "G5", "G7", "--cells", "12",
                 "--out", "p.h5ad"]) == 0
    predicted = ad.read_h5ad("p.h5ad")
    assert list(predicted.var_names) == model.panel
    assert main(["evaluate", *SCREEN, "--predicted", "p.h5ad", "--side", "unseen", "--unseen", "G5", "G7"]) == 0
    assert "G5" in capsys.readouterr().out
    refused(capsys, ["finetune", *SCREEN, "--out", "m", "--resume", "--n-top-genes", "31"],
            "--n-top-genes 31: this run was begun with 30")


# --- another panel than that of pretraining --------------------------------------------------------------------------

def test_fine_tuning_on_another_panel_makes_a_model_of_that_panel(here, cells):
    assert main(["pretrain", *SMALL, "--more", "screen.h5ad", "--out", "p"]) == 0
    other = cells[:, [*range(129, 99, -1), *range(3, 15)]].copy()
    other.var_names = [f"NEW{i}" if i < 5 else name for i, name in enumerate(other.var_names)]
    other.write_h5ad("other.h5ad")
    words = ["--screen", "other.h5ad", "--n-top-genes", "50", "--steps", "2"]
    assert main(["finetune", *words, "--start", "p", "--out", "f"]) == 0
    before, after = Checkpoint.load("p"), Checkpoint.load("f")
    assert after.panel == list(other.var_names) and len(before.panel) == 30
    assert after.vocabulary.symbols[: len(before.vocabulary)] == before.vocabulary.symbols  # no gene has moved
    assert {f"NEW{i}" for i in range(5)} <= set(after.vocabulary.symbols) - set(before.vocabulary.symbols)
    screen = load_screen("other.h5ad")
    controls = (screen.obs["target_gene"] == CONTROL).to_numpy()
    assert after.tokenizer.target_depth == np.median(screen.obs["n_umi"][controls])
    np.testing.assert_array_equal(after.tokenizer.edges, before.tokenizer.edges)
    assert main(["predict", "--checkpoint", "f", "--screen", "other.h5ad", "--target", "G5", "--cells", "9",
                 "--out", "x.h5ad"]) == 0
    assert list(ad.read_h5ad("x.h5ad").var_names) == after.panel
    refused_by_v1 = Checkpoint.load("p")
    refused_by_v1.model.fixed_panel = True
    from cdt_lite.training.start import start_from

    with pytest.raises(CDTError, match="this model knows the 30 genes of its panel by their places"):
        start_from(refused_by_v1, screen)


def test_further_files_need_no_labels(here, cells):
    """An atlas without labels, and one whose labels mean something else."""
    atlas = cells[:90, 200:].copy()
    atlas.obs = atlas.obs[[]]
    atlas.write_h5ad("atlas.h5ad")
    atlas.obs["target_gene"] = np.nan
    atlas.obs["sign"] = "unknown"
    atlas.write_h5ad("odd.h5ad")
    words = ["pretrain", *SMALL, "--target-key", "target_gene", "--batch-key", "batch", "--out"]
    assert main([*words, "p", "--more", "atlas.h5ad", "odd.h5ad"]) == 0
    model = Checkpoint.load("p")
    assert len(model.panel) == 30 and len(model.card["data"]) == 3
    assert len(model.vocabulary) > 40 and not set(model.vocabulary.symbols) & {"nan", CONTROL}


def test_further_files_must_hold_counts(here, cells, capsys):
    logged = cells[:90].copy()
    logged.X = logged.X.log1p()
    logged.write_h5ad("atlas.h5ad")
    refused(capsys, ["pretrain", *SMALL, "--more", "atlas.h5ad", "--out", "p"], "atlas.h5ad: X must hold raw counts")
    refused(capsys, ["pretrain", *SMALL, "--more", "none.h5ad", "--out", "p"], "no screen or file is called 'none")


# --- the split -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("words", [
    ["--unseen", "G3", "--hold-out", "G5:rep:2"], ["--split-key", "part"], ["--unseen", "G3", "G13"]])
def test_training_and_report_keep_a_split_of_ones_choice(here, words):
    assert main(["finetune", *SMALL, *words, "--out", "m"]) == 0
    model = Checkpoint.load("m")
    args = parser().parse_args(["evaluate", *SCREEN, "--checkpoint", "m", "--tasks"])
    screen = screen_of(args, split_of(args, model), model.panel)
    side = named_split(screen)
    target = screen.obs["target_gene"].astype(str).to_numpy()
    batch = screen.obs["batch"].astype(str).to_numpy()
    expected = np.full(len(side), "train", object)
    expected[target == "G3"] = "unseen"
    if "--split-key" in words:
        expected = screen.obs["part"].astype(str).to_numpy(object)
    elif "--hold-out" in words:
        expected[(target == "G5") & (batch == "rep:2")] = "held_out"
    else:
        expected[target == "G13"] = "unseen"
    np.testing.assert_array_equal(side, expected)
    assert set(model.trained_targets) == set(target[expected == "train"]) - {CONTROL}
    from cdt_lite.report.tasks import check_split

    assert check_split(model, screen).startswith("hash of its training cells")
    assert (named_split(screen[::3]) == side[::3]).all()
    other = parser().parse_args(["evaluate", *SCREEN, "--tasks", "--hold-out", "G9:rep:1"])
    with pytest.raises(CDTError, match=r"did not withhold \['G9 in rep:1'\]"):
        check_split(model, screen_of(other, split_of(other, model), model.panel))


def test_a_split_is_written_with_the_screen(here, cells):
    args = parser().parse_args(["finetune", *SCREEN, "--unseen", "G3"])
    screen = screen_of(args, split_of(args))
    screen.write_h5ad("split.h5ad")
    np.testing.assert_array_equal(named_split(load_screen("split.h5ad")), named_split(screen))


@pytest.mark.parametrize(("words", "said"), [
    (["--unseen", "G111"], "cannot hold out target 'G111'; did you mean 'G11'"),
    (["--unseen", CONTROL], f"cannot hold out target '{CONTROL}'"),
    (["--hold-out", "G3"], "--hold-out expects TARGET:REPLICATE, not 'G3'"),
    (["--hold-out", "G3:rep:9"], "there is no batch 'rep:9'; did you mean 'rep:2', 'rep:1'?; this screen has ['rep:1'"),
    (["--hold-out", "G3:rep:1", "G3:rep:2"], "['G3']: all cells would be held out and none trained on"),
    (["--unseen", "G3", "--hold-out", "G3:rep:1"], "has no cells in batch 'rep:1', or is withheld as unseen"),
    (["--unseen", *TARGETS], "leaves no perturbed cells to train on"),
    (["--split-key", "prt"], "the screen has no column 'prt' in obs; did you mean 'part'"),
    (["--split-key", "batch"], "one of train, held_out, unseen; it holds ['rep:1', 'rep:2']"),
    (["--split-key", "part", "--unseen", "G3"], "--split-key names the whole split"),
    (["--split-key", "some"], "['G7']: an unseen target is withheld with all its cells"),
])
def test_a_split_that_cannot_be_is_refused_by_name(here, cells, capsys, words, said):
    cells = cells.copy()
    some = np.full(cells.n_obs, "train", object)
    some[np.flatnonzero(cells.obs["target_gene"] == "G7")[:3]] = "unseen"
    cells.obs["some"] = some
    cells.write_h5ad("screen.h5ad")
    for command in (["finetune", *SMALL, "--out", "m"], ["evaluate", *SCREEN, "--predicted", "screen.h5ad"]):
        refused(capsys, [*command, *words], said)


def test_control_cells_stay_in_training_and_that_is_said(here, cells, capsys):
    cells = cells.copy()
    is_control = (cells.obs["target_gene"] == CONTROL).to_numpy()
    cells.obs.loc[is_control & (np.arange(cells.n_obs) < 20), "part"] = "held_out"
    cells.write_h5ad("screen.h5ad")
    args = parser().parse_args(["finetune", *SCREEN, "--split-key", "part"])
    n = int(is_control[:20].sum())
    with pytest.warns(CDTWarning, match=f"^{n} control cells that obs\\['part'\\] withholds are trained on"):
        screen = screen_of(args, split_of(args))
    assert set(named_split(screen)[is_control]) == {"train"}


def test_starting_from_a_model_of_another_split_is_said(here, capsys):
    assert main(["pretrain", *SMALL, "--more", "screen.h5ad", "--unseen", "G3", "--out", "p"]) == 0
    assert main(["finetune", *SMALL, "--start", "p", "--unseen", "G3", "--out", "f"]) == 0
    assert "another split" not in capsys.readouterr().err
    assert main(["finetune", *SMALL, "--start", "p", "--out", "g"]) == 0
    assert "note: p was trained with another split ({'unseen': ['G3']})" in capsys.readouterr().err


def test_a_prediction_named_like_a_baseline_is_refused_before_anything_is_read(here, capsys):
    refused(capsys, ["evaluate", "--screen", "nowhere.h5ad", "--predicted", "x/linear.h5ad"],
            "x/linear.h5ad has the name of a baseline, 'linear': rename it")


def test_a_side_without_cells_is_said(here, capsys):
    refused(capsys, ["evaluate", *SCREEN, "--predicted", "screen.h5ad", "--unseen", "G3"],
            "this split has no held_out cells to score on")


# --- words -----------------------------------------------------------------------------------------------------------

def test_notes_are_plain_lines_in_the_words_of_the_command_line(here, cells, capsys):
    one = cells.copy()
    one.obs = one.obs.drop(columns="batch")
    one.write_h5ad("screen.h5ad")
    assert main(["finetune", *SMALL, "--out", "m"]) == 0
    err = capsys.readouterr().err
    assert "note: the screen has one replicate" in err and "Name a column of replicates with --batch-key" in err
    assert "CDTWarning" not in err and "Columns(" not in err and ".py:" not in err


@pytest.mark.parametrize(("message", "said"), [
    ("with Columns(batch=...) if", "with --batch-key if"), ("with Columns(target='gene')", "with --target-key gene"),
    ("pass Columns(batch=None) to pool", "pass --batch-key none to pool"), ("pass layer='umi'", "pass --layer umi"),
    ("a larger one (n_top_genes=) keeps", "a larger one (--n-top-genes) keeps"),
    ("n_top_genes must be at least 2", "--n-top-genes must be at least 2"), ("pass align=True to", "pass --align to")])
def test_messages_name_options(message, said):
    assert in_options(message) == said


def test_a_column_need_not_be_looked_for(here, cells):
    args = parser().parse_args(["evaluate", *SCREEN, "--batch-key", "none"])
    with pytest.warns(CDTWarning, match="one replicate"):
        assert set(screen_of(args).obs["batch"]) == {"all"}


def test_a_panel_smaller_than_the_targets_is_refused_with_the_option(here, capsys):
    refused(capsys, ["finetune", *SCREEN, "--n-top-genes", "3", "--out", "m"], "--n-top-genes must be at least 6")


def test_figures_draw_a_model_of_ones_own(here, capsys):
    assert main(["finetune", *SMALL, "--out", "mine"]) == 0
    mine = Checkpoint.load("mine")
    mine.config = with_panel(mine.config, 512)  # as of a preset whose panel is larger than these cells'
    mine.save("mine")
    assert main(["figures", *SCREEN, "--checkpoint", "mine", "--out", "f"]) == 0
    told = json.loads((here / "f" / "model_config.json").read_text())
    assert told["preset"] == "lite" and told["n_genes"] == 30
    measured = json.loads((here / "f" / "attention_mechanism.json").read_text())["measured"]
    assert measured["capsule"] == fingerprint(Checkpoint.load("mine")) and (here / "f" / "denoising.gif").is_file()
    refused(capsys, ["figures", *SCREEN, "--checkpoint", "mine", "--preset", "v1"], "--checkpoint brings its own sizes")
    refused(capsys, ["figures", *SCREEN, "--checkpoint", "nowhere"], "no checkpoint in nowhere")


def test_other_warnings_are_left_as_they_are(capsys, monkeypatch):
    def fake(args):
        warnings.warn("one", CDTWarning, stacklevel=1)
        warnings.warn("two", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setattr("cdt_lite.cli.doctor", fake)
    fake.__name__, fake.__doc__ = "doctor", "Fakes."
    with pytest.warns(UserWarning, match="two"):
        assert main(["doctor"]) == 0
    assert capsys.readouterr().err == "note: one\n"


@pytest.mark.parametrize("words", [
    ["finetune", "--out", ""], ["finetune", "--screen", ""], ["finetune", "--start", " "],
    ["pretrain", "--more", "screen.h5ad", ""], ["predict", "--checkpoint", "", "--target", "A"],
    ["predict", "--checkpoint", "a", "--target", ""], ["evaluate", "--predicted", "", "--out", "x"],
    ["evaluate", "--tasks", "--results", ""], ["figures", "--out", ""], ["finetune", "--gene-vectors", ""]])
def test_an_empty_word_is_refused_by_its_option(here, capsys, words):
    at = next(i for i, word in enumerate(words) if not word.strip())
    option = next(word for word in reversed(words[:at]) if word.startswith("--"))
    refused(capsys, words, f"{option} is empty")
    assert not [path for path in here.iterdir() if path.name != "screen.h5ad"]


@pytest.mark.parametrize("words", [
    ["--learning-rate", "inf"], ["--learning-rate", "nan"], ["--learning-rate", "0"], ["--learning-rate", "-1"],
    ["--seed", "-1"], ["--n-top-genes", "0"]])
def test_settings_that_make_no_sense_are_refused_before_the_screen_is_read(capsys, words):
    for command in ("pretrain", "finetune"):
        said = words[0][2:].replace("-", "_") if "rate" in words[0] else words[0]
        refused(capsys, [command, "--screen", "nowhere.h5ad", *words], said)


@pytest.mark.parametrize("command", [["predict", "--checkpoint", "a", "--target", "A"], ["capsule"],
                                     ["evaluate", "--predicted", "a"]])
def test_a_seed_below_zero_is_refused_everywhere(capsys, command):
    refused(capsys, [*command, "--screen", "nowhere.h5ad", "--seed", "-1"], "--seed must be a whole number from 0")


@pytest.mark.parametrize("guidance", ["nan", "-1", "inf", "21"])
def test_a_guidance_that_makes_no_sense_is_refused(capsys, guidance):
    refused(capsys, ["predict", "--checkpoint", "a", "--target", "A", "--guidance", guidance], "guidance must lie in")


def test_gene_sets_are_told_to_a_model_and_what_they_are_worth_to_the_user(here, capsys):
    lines = [f"one\t\tG{i}\tG5\tG7\tG9\tELSEWHERE" for i in (11,)] + ["two\t\tG3\tG13"]
    (here / "sets.gmt").write_text("\r\n".join(lines))
    assert main(["finetune", *SMALL, "--gene-sets", "sets.gmt", "--split-key", "part", "--out", "told"]) == 0
    told = Checkpoint.load(here / "told")
    named = {told.vocabulary.symbols[gene] for gene in told.prior.genes}
    assert named == {"G3", "G5", "G7", "G9", "G11", "G13", "ELSEWHERE"}
    words = ["predict", *SCREEN, "--checkpoint", "told", "--cells", "8", "--out", "out.h5ad", "--target"]
    assert main([*words, "G5", "ELSEWHERE"]) == 0
    made = ad.read_h5ad(here / "out.h5ad").obs
    known = made.groupby(made["target_gene"].astype(str))["beyond_average"].agg(["min", "max"])
    assert known.loc[CONTROL].eq(0).all()
    assert known.loc["G5", "min"] == known.loc["G5", "max"] > known.loc["ELSEWHERE", "max"] >= 0
    refused(capsys, ["finetune", *SMALL, "--resume", "--gene-sets", "sets.gmt", "--out", "told"], "--gene-sets")


def test_a_pretrained_model_is_told_of_gene_sets_when_it_is_tuned_or_never(here, capsys):
    (here / "sets.json").write_text(json.dumps({"cells": {"one": ["G5", "G7"], "two": ["G9", "G3"]}}))
    assert main(["pretrain", *SMALL, "--split-key", "part", "--out", "pre"]) == 0
    again = ["finetune", *SCREEN, "--steps", "2", "--split-key", "part", "--start", "pre"]
    assert main([*again, "--gene-sets", "sets.json", "--out", "told"]) == 0
    assert main([*again, "--gene-sets", "none", "--out", "not"]) == 0
    assert len(Checkpoint.load(here / "told").prior.genes) == 4
    assert Checkpoint.load(here / "not").prior is None
    (here / "mouse.json").write_text(json.dumps({"one": ["g5", "g7"]}))
    refused(capsys, [*again, "--gene-sets", "mouse.json", "--out", "x"], "differ by case alone")
    refused(capsys, [*again, "--gene-sets", "nowhere.gmt", "--out", "x"], "nowhere.gmt")


def test_the_originals_network_is_begun_without_gene_sets_unless_they_are_asked_for():
    v1 = ["finetune", *SMALL, "--preset", "v1", "--n-top-genes", "12"]
    assert _asked_sets(parser().parse_args(v1), config_of(parser().parse_args(v1))) == "none"
    assert _asked_sets(parser().parse_args(["finetune", *SMALL]), PRESETS["lite"]) is None
