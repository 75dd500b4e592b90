"""`cdt-lite tokenize`, and training from what it wrote: the same model as from cells, and refusals in one line."""

import json
import os

import anndata as ad
import numpy as np
import pytest
import torch
from test_cli_runs import refused

from cdt_lite.cli import main
from cdt_lite.data import TokenStore, simulate_screen
from cdt_lite.training.checkpoint import Checkpoint

SCREEN = ["--screen", "screen.h5ad"]
STEPS = ["--steps", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a screen, in one file and in two, and the tokens of its training side."""
    folder, here = tmp_path_factory.mktemp("tokens"), os.getcwd()
    os.chdir(folder)
    screen = simulate_screen(n_genes=64, n_targets=8, n_cells=900, seed=3)
    screen.write_h5ad("screen.h5ad")
    for i in range(2):
        screen[i * 450 : (i + 1) * 450].copy().write_h5ad(f"half{i}.h5ad")
    assert main(["tokenize", *SCREEN, "--out", "tokens"]) == 0
    os.chdir(here)
    return folder


@pytest.fixture
def work(folder, tmp_path, monkeypatch):
    """An empty folder to work in, with these files."""
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_training_from_tokens_is_training_from_cells(work):
    assert main(["finetune", *SCREEN, "--out", "cells", *STEPS]) == 0
    assert main(["finetune", "--store", "tokens", "--out", "stored", *STEPS]) == 0
    cells, stored = Checkpoint.load("cells"), Checkpoint.load("stored")
    for name in ("data", "split", "held_out", "magnitudes", "contexts", "n_steps"):
        assert cells.card[name] == stored.card[name], name
    assert (cells.panel, cells.tokenizer, cells.trained_targets) == (stored.panel, stored.tokenizer,
                                                                     stored.trained_targets)
    assert torch.equal(cells.model.effect.effect, stored.model.effect.effect)


def test_a_run_from_tokens_goes_on_from_them(work):
    words = ["finetune", "--store", "tokens", "--seed", "4"]
    assert main([*words, "--out", "whole", "--steps", "4"]) == 0
    (work / "screen.h5ad").unlink()  # not needed any more
    assert main(["pretrain", "--store", "tokens", "--out", "before", *STEPS]) == 0
    assert main(["finetune", "--store", "tokens", "--start", "before", "--out", "after", *STEPS]) == 0
    assert main(["finetune", "--store", "tokens", "--out", "whole", "--resume"]) == 0
    assert Checkpoint.load("after").card["held_out"] == Checkpoint.load("whole").card["held_out"]


def test_two_files_are_split_as_one_and_the_split_is_written_out(work):
    assert main(["tokenize", "--screen", "half0.h5ad", "--more", "half1.h5ad", "--out", "two"]) == 0
    one, two = TokenStore.open("tokens"), TokenStore.open("two")
    assert one.digest() == two.digest() and one.tokenizer == two.tokenizer
    assert not one.about["split"] and one.about["held_out"] == two.about["held_out"]
    assert main(["finetune", "--store", "two", "--out", "model", *STEPS]) == 0
    split = Checkpoint.load("model").card["split"]
    assert split == two.about["split"] and split["unseen"] and split["hold_out"]


def test_tokens_for_a_trained_model_have_its_bins_and_vocabulary(work):
    assert main(["pretrain", *SCREEN, "--more", "--out", "pretrained", *STEPS]) == 0
    other = ad.read_h5ad("screen.h5ad")[:, 8:].copy()
    other.write_h5ad("other.h5ad")
    assert main(["tokenize", "--screen", "other.h5ad", "--start", "pretrained", "--out", "tokens-other"]) == 0
    model, store = Checkpoint.load("pretrained"), TokenStore.open("tokens-other")
    assert store.tokenizer.config == model.tokenizer.config
    assert list(store.symbols[: len(model.vocabulary)]) == model.vocabulary.symbols
    assert main(["finetune", "--store", "tokens-other", "--start", "pretrained", "--out", "m", *STEPS]) == 0
    assert Checkpoint.load("m").panel == list(other.var_names)


def test_what_cannot_be_is_refused_in_one_line(work, capsys):
    store = ["finetune", "--store", "tokens"]
    refused(capsys, [*store, "--unseen", "X", "--out", "m"], "--store brings its own split", "cdt-lite tokenize")
    refused(capsys, ["finetune", "--store", "nowhere"], "there is no token store in nowhere")
    refused(capsys, ["finetune", "--store", "tokens", "--preset", "v1", "--out", "m"], "this preset reads")
    refused(capsys, ["tokenize", "--screen", "half0.h5ad", "--out", "tokens"], "holds the tokens of other cells")
    refused(capsys, ["tokenize", *SCREEN, "--more", "nothing.h5ad"], "no screen or file is called 'nothing.h5ad'")
    ad.read_h5ad("half1.h5ad")[:, 3:].copy().write_h5ad("fewer.h5ad")
    refused(capsys, ["tokenize", "--screen", "half0.h5ad", "--more", "fewer.h5ad"], "fewer.h5ad lacks 3 of the panel")
    (work / "cut").mkdir()
    for name in ("store.json", "labels.npz", "tokens.npy"):
        (work / "cut" / name).write_bytes((work / "tokens" / name).read_bytes())
    with (work / "cut" / "tokens.npy").open("rb+") as file:
        file.truncate(5000)
    refused(capsys, ["finetune", "--store", "cut"], "is damaged, or a file of it was cut")
    facts = json.loads((work / "tokens" / "store.json").read_text(encoding="utf-8"))
    assert np.prod(facts["shape"]) < (work / "tokens" / "tokens.npy").stat().st_size
