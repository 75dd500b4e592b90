"""Runs by command line: nothing is lost, and what cannot work is refused in one line before it begins."""

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from functools import partial

import anndata as ad
import pytest
import torch

from cdt_lite.cli import main
from cdt_lite.data import CONTROL, load_screen, named_split, simulate_screen
from cdt_lite.errors import CDTError
from cdt_lite.evaluation.inputs import distinct_names
from cdt_lite.training import predict_many as many
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.predict import predict

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal for a child process")
SCREEN = ["--screen", "screen.h5ad"]
FINETUNE = ["finetune", *SCREEN, "--out", "m"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a little screen and a model, fine-tuned on it for four steps with settings of its own."""
    folder = tmp_path_factory.mktemp("made")
    here = os.getcwd()
    os.chdir(folder)
    simulate_screen(n_genes=64, n_targets=8, n_cells=900, seed=3).write_h5ad("screen.h5ad")
    assert main([*FINETUNE, "--steps", "4", "--learning-rate", "0.002", "--seed", "7",
                 "--checkpoint-interval", "2"]) == 0
    os.chdir(here)
    return folder


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """An empty folder to work in, with that screen and that model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "screen.h5ad").symlink_to(made / "screen.h5ad")
    Checkpoint.load(made / "m", resume=True).save("m")
    return tmp_path


def header():
    with open("m/checkpoint.json", encoding="utf-8") as file:
        return json.load(file)


def refused(capsys, words, *said):
    """Runs a command that has to fail in one line; returns the line."""
    capsys.readouterr()
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for word in said:
        assert word in line
    return line


def test_a_run_is_stored_with_its_settings(run):
    config = Checkpoint.load("m").config
    assert config.name == "lite" and header()["card"]["n_steps"] == 4
    stage = config.finetune
    assert (stage.learning_rate, stage.seed, stage.checkpoint_interval) == (0.002, 7, 2)
    assert config.pretrain.seed == 0 and config.pretrain.checkpoint_interval == 500


def test_the_same_command_again_loses_nothing(run, capsys):
    before = header()["sha256"]
    refused(capsys, [*FINETUNE, "--steps", "1"], "holds a run of finetune, 4 steps", "--resume", "--overwrite")
    assert header()["sha256"] == before
    assert main([*FINETUNE, "--steps", "1", "--overwrite"]) == 0
    assert header()["step"] == 1
    refused(capsys, [*FINETUNE, "--overwrite", "--resume"], "give one of them")


def test_resume_needs_no_settings_and_refuses_others(run, capsys):
    before = header()["sha256"]
    for words, was in ((["--learning-rate", "0.1"], "0.002"), (["--seed", "0"], "7"), (["--steps", "60"], "4"),
                       (["--checkpoint-interval", "500"], "2"), (["--preset", "default"], "lite")):
        refused(capsys, [*FINETUNE, "--resume", *words],
                f"{words[0]} {words[1]}: this run was begun with {was}; leave it out, or begin anew with --overwrite")
    assert header()["sha256"] == before
    assert main([*FINETUNE, "--resume", "--learning-rate", "0.002", "--seed", "7", "--steps", "4"]) == 0
    assert main([*FINETUNE, "--resume"]) == 0
    assert header()["step"] == 4


def test_a_run_that_is_gone_on_with_ends_as_if_never_stopped(run):
    settings = ["--steps", "6", "--seed", "5", "--learning-rate", "0.01"]
    assert main(["finetune", *SCREEN, "--out", "whole", *settings]) == 0
    from cdt_lite.data import SetSampler, TokenStore
    from cdt_lite.training.runs import with_settings
    from cdt_lite.training.start import start
    from cdt_lite.training.train import train

    screen = load_screen("screen.h5ad")
    cells = screen[named_split(screen) == "train"].copy()
    config = with_settings(Checkpoint.load("m").config, ["finetune"],
                           {"seed": 5, "learning_rate": 0.01, "checkpoint_interval": 500})
    checkpoint = start(config, cells, seed=5)
    checkpoint.vocabulary = checkpoint.vocabulary.extended(sorted(set(screen.obs["target_gene"]) - {CONTROL}))
    store = TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary)
    with closing(train(checkpoint, SetSampler(store, config.finetune), steps=6, out="half")) as steps:
        for _ in range(3):
            next(steps)
    assert Checkpoint.load("half").step == 3
    assert main(["finetune", *SCREEN, "--out", "half", "--resume"]) == 0
    whole, half = (Checkpoint.load(name).model.state_dict() for name in ("whole", "half"))
    for name, value in whole.items():
        assert torch.equal(value, half[name]), name


def test_resume_is_for_runs_of_the_same_stage_that_are_there(run, capsys):
    refused(capsys, ["finetune", *SCREEN, "--out", "none", "--resume"], "no checkpoint in none")
    before = header()["sha256"]
    refused(capsys, ["pretrain", *SCREEN, "--out", "m", "--resume"], "a run of finetune, not of pretrain")
    assert header()["sha256"] == before
    Checkpoint.load("m").save("capsule", half=True)
    refused(capsys, ["finetune", *SCREEN, "--out", "capsule", "--resume"], "without the state of its training")


def test_fine_tuning_does_not_inherit_the_settings_of_pretraining(run):
    assert main(["pretrain", *SCREEN, "--more", "screen.h5ad", "--steps", "1", "--out", "p",
                 "--learning-rate", "0.01", "--checkpoint-interval", "3"]) == 0
    assert main(["finetune", *SCREEN, "--start", "p", "--steps", "1", "--out", "f"]) == 0
    config = Checkpoint.load("f").config
    assert (config.pretrain.learning_rate, config.pretrain.checkpoint_interval) == (0.01, 3)
    assert (config.finetune.learning_rate, config.finetune.checkpoint_interval) == (0.002, 500)


@pytest.mark.parametrize("words", [
    ["--device", "gpu"], ["--device", "cuda:99"], ["--steps", "0"], ["--steps", "-5"], ["--checkpoint-interval", "0"]])
def test_what_cannot_work_is_refused_before_anything_is_read(words, capsys):
    refused(capsys, ["finetune", "--screen", "nowhere.h5ad", "--out", "nowhere", *words], words[1])


@pytest.mark.parametrize("device", ["cuda", "mps", "cuda:0"])
def test_a_device_that_is_not_there(device, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for command in (["predict", "--checkpoint", "nowhere", "--target", "A"], ["bench"], ["pretrain"]):
        refused(capsys, [*command, "--device", device], f"no device '{device}' here", "there is cpu")


def test_settings_that_make_no_sense_are_refused_before_the_screen_is_read(run, capsys):
    refused(capsys, ["finetune", "--screen", "nowhere.h5ad", "--out", "x", "--learning-rate", "inf"], "learning_rate")
    refused(capsys, ["finetune", "--screen", "nowhere.h5ad", "--out", "x", "--seed", "-1"], "seed")


def started(command, until):
    """Starts a command with signals as a terminal gives them, and waits for a word of its output."""
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background inherits "ignore"
    process = subprocess.Popen([sys.executable, "-m", "cdt_lite.cli", *command], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, preexec_fn=listen)
    seen = b""
    while until not in seen:
        piece = process.stdout.read(1)
        assert piece, seen.decode()
        seen += piece
    return process


@POSIX
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_is_saved_and_the_same_command_goes_on(run, number, status):
    command = ["finetune", *SCREEN, "--steps", "100000", "--checkpoint-interval", "5", "--out", "long"]
    process = started(command, b"cells/s")  # the bar is moving: training is under way
    process.send_signal(number)
    rest = process.communicate(timeout=60)[0].decode()
    assert process.returncode == status and "--resume" in rest and "Traceback" not in rest, rest
    step = Checkpoint.load("long").step
    assert step > 0
    process = started([*command, "--resume"], f"resuming finetune at step {step} of 100000".encode())
    process.kill()
    process.communicate()


def test_many_targets_are_one_file_with_controls(run, capsys):
    screen = load_screen("screen.h5ad")
    first, second = Checkpoint.load("m").trained_targets[:2]
    with open("targets.txt", "w") as file:
        file.write(f"{second}\n\n {first} \n{second}\n")
    common = ["predict", "--checkpoint", "m", *SCREEN, "--cells", "12"]
    assert main([*common, "--targets", "targets.txt", "--out", "new/folder/p.h5ad"]) == 0
    out = capsys.readouterr().out
    assert f"1 of 2: {second} -1, 12 cells x 64 genes" in out and f"2 of 2: {first} -1" in out
    cells = ad.read_h5ad("new/folder/p.h5ad")
    controls = screen[screen.obs["target_gene"] == CONTROL]
    labels = cells.obs["target_gene"].astype(str)
    assert labels.value_counts().to_dict() == {second: 12, first: 12, CONTROL: controls.n_obs}
    mine = cells[(labels == CONTROL).to_numpy()]
    assert (mine.X != controls[mine.obs_names].X).nnz == 0
    assert (mine.obs["batch"].astype(str) == controls.obs["batch"].astype(str)[mine.obs_names]).all()
    alone = predict(Checkpoint.load("m"), screen, first, n_cells=12)
    assert (cells[(labels == first).to_numpy()].X != alone.X).nnz == 0
    assert main([*common, "--target", first, second, "--space", "log1p", "--out", "q.h5ad"]) == 0
    logged = ad.read_h5ad("q.h5ad")
    assert logged.uns["cdt_lite"]["space"] == "log1p" and logged.X.max() < 12
    assert sorted(logged.obs_names) == sorted(cells.obs_names)


def test_one_target_is_a_file_without_controls(run):
    target = Checkpoint.load("m").trained_targets[0]
    assert main(["predict", "--checkpoint", "m", *SCREEN, "--target", target, "--cells", "5", "--out", "p.h5ad"]) == 0
    assert ad.read_h5ad("p.h5ad").n_obs == 5


def test_all_is_every_target_and_sign_of_training(run):
    checkpoint = Checkpoint.load("m")
    assert main(["predict", "--checkpoint", "m", *SCREEN, "--all", "--cells", "2", "--out", "p.h5ad"]) == 0
    cells = ad.read_h5ad("p.h5ad")
    found = set(zip(cells.obs["target_gene"].astype(str), cells.obs["sign"].astype(int), strict=True))
    screen = load_screen("screen.h5ad")
    train = screen.obs[named_split(screen) == "train"]
    assert found == set(zip(train["target_gene"].astype(str), train["sign"].astype(int), strict=True))
    assert {target for target, _ in found} == {*checkpoint.trained_targets, CONTROL}
    assert len(found) > 4


def test_a_file_of_many_targets_is_scored_as_it_is(run, monkeypatch):
    screen = load_screen("screen.h5ad")
    targets = sorted(set(screen.obs["target_gene"][named_split(screen) == "held_out"].astype(str)))
    sign = str(int(screen.obs["sign"][screen.obs["target_gene"] == targets[0]].iloc[0]))
    assert len(targets) > 1
    monkeypatch.setattr("cdt_lite.data.screens.in_layout", None)  # what puts a whole file into memory
    assert main(["predict", "--checkpoint", "m", *SCREEN, "--target", *targets, "--sign", sign, "--cells", "20",
                 "--out", "p.h5ad"]) == 0
    for name in "ab":
        os.mkdir(name)
        os.link("p.h5ad", f"{name}/p.h5ad")
    assert main(["evaluate", *SCREEN, "--predicted", "a/p.h5ad", "b/p.h5ad", "--out", "new/t.csv"]) == 0
    with open("new/t.csv") as file:
        text = file.read()
    assert text.count("a/p,") == text.count("b/p,") == len(targets)


@POSIX
def test_a_killed_prediction_goes_on_where_it_was_and_ends_in_the_same_file(run, capsys):
    words = ["predict", "--checkpoint", "m", *SCREEN, "--all", "--cells", "60", "--out"]
    process = started([*words, "p.h5ad"], b"2 of ")
    process.kill()
    process.communicate(timeout=100)
    assert not os.path.exists("p.h5ad") and len(os.listdir("p.h5ad.parts")) >= 2
    refused(capsys, [*words, "p.h5ad"], "p.h5ad.parts holds", "--resume")
    refused(capsys, [*words, "p.h5ad", "--resume", "--seed", "1"], "was begun with seed 0, not 1")
    assert main([*words, "p.h5ad", "--resume"]) == 0
    assert "1 of " not in capsys.readouterr().out
    assert main([*words, "q.h5ad"]) == 0
    one, other = ad.read_h5ad("p.h5ad"), ad.read_h5ad("q.h5ad")
    assert one.to_df().equals(other.to_df()) and one.obs.equals(other.obs)


@POSIX
def test_a_prediction_that_is_stopped_says_so(run):
    targets = Checkpoint.load("m").trained_targets
    process = started(["predict", "--checkpoint", "m", *SCREEN, "--all", "--cells", "150", "--out", "p.h5ad"],
                      b"1 of ")
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=100)[0].decode()
    assert process.returncode == 143 and "stopped" in rest and "Traceback" not in rest, rest
    assert 1 <= ad.read_h5ad("p.h5ad").obs["target_gene"].nunique() - 1 < len(targets)


def test_predictions_that_cannot_be_made_or_written_are_refused_at_once(run, capsys, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("sampled")

    monkeypatch.setattr(many, "predict_each", never)
    target = Checkpoint.load("m").trained_targets[0]
    common = ["predict", "--checkpoint", "m", *SCREEN]
    open("file", "w").close()
    refused(capsys, [*common, "--target", target, "--out", "file/p.h5ad"], "nothing can be written to file")
    refused(capsys, [*common, "--target", target, "--out", "m"], "m is a folder")
    refused(capsys, [*common], "--target, --targets FILE and --all")
    refused(capsys, [*common, "--target", target, "--all"], "--target, --targets FILE and --all")
    refused(capsys, [*common, "--all", "--magnitude", "1"], "--magnitude is that of one target")
    refused(capsys, [*common, "--targets", "none.txt"], "no targets can be read from none.txt")
    refused(capsys, [*common, "--targets", "file"], "file names no target")
    refused(capsys, [*common, "--target", target, "NOT_A_GENE"], "NOT_A_GENE")
    refused(capsys, [*common, "--target", target, CONTROL], "predict controls alone")


def test_another_panel_is_refused_with_the_option_that_helps(run, capsys):
    ad.read_h5ad("screen.h5ad")[:, :60].copy().write_h5ad("part.h5ad")
    words = ["predict", "--checkpoint", "m", "--screen", "part.h5ad", "--target", "SIM00003", "--cells", "2"]
    assert "align=" not in refused(capsys, words, "Pass --align to predict the 60 shared genes")
    assert main([*words, "--align", "--out", "p.h5ad"]) == 0
    assert ad.read_h5ad("p.h5ad").shape == (2, 60)


def test_files_are_named_by_what_tells_them_apart(tmp_path):
    assert distinct_names(["x/a.h5ad", "y/b.h5ad"]) == ["a", "b"]
    assert distinct_names(["x/p.h5ad", "y/p.h5ad", "q.h5ad"]) == ["x/p", "y/p", "q"]
    assert distinct_names(["x/1/p.h5ad", "y/1/p.h5ad", "y/2/p.h5ad"]) == ["x/1/p", "y/1/p", "2/p"]
    for twice in (["a.h5ad", "a.h5ad"], ["a.h5ad", "./a.h5ad"]):
        with pytest.raises(CDTError, match="named twice"):
            distinct_names(twice)


def test_evaluate_is_refused_before_anything_is_read(run, capsys, monkeypatch):
    words = ["evaluate", "--screen", "nowhere.h5ad", "--predicted", "nowhere/p.h5ad"]
    refused(capsys, [*words, "--side", "heldout"], "no side 'heldout'", "did you mean 'held_out'?")

    def missing(package):
        from importlib.metadata import PackageNotFoundError

        raise PackageNotFoundError(package)

    monkeypatch.setattr("cdt_lite.evaluation.inputs.version", missing)
    for more in ([], ["--tasks"]):
        refused(capsys, [*words, *more, "--suite", "cell-eval"], "cell-eval is not installed", "cdt-lite[eval]")
    refused(capsys, [*words, "--out", "m"], "m is a folder")
    refused(capsys, [*words, "--tasks", "--results", "screen.h5ad/r.json"], "nothing can be written")


def test_results_go_to_the_folder_of_outputs():
    from cdt_lite.cli import parser

    assert parser().parse_args(["evaluate"]).results == "output/results.json"
