"""Command lines, with options left out, misspelt, doubled or strange, and files that are not what they should be."""

import contextlib
import io
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from helpers import tiny, toy_screen

from cdt_lite.cli import main
from cdt_lite.data.batches import SetSampler
from cdt_lite.data.store import TokenStore
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.start import start
from cdt_lite.training.train import train

from .verdict import Outcome, judge

NUMBERS = ["0", "-1", "1", "3", "2.5", "nan", "inf", "1e3", "10000000000000000000000", "abc", "", "0x10"]
WORDS = ["", "G3", "g3", "G5+G3", "non-targeting", "Non-Targeting", "nothing", "target_gene", "batch", "sign", "lite",
         "$x$", "\0x", "Ü", "x" * 300, "cpu", "cuda:99", "counts", "log1p", "vector", "held_out", "unseen"]
FILES = ["screen.h5ad", "model", "made.h5ad", "vectors.csv", "targets.txt", "nothing", "", ".", "/proc", "empty.h5ad",
         "half.h5ad", "/proc/none", "new/file", "screen.h5ad/x", "folder"]
GOOD = {
    "predict": ["--checkpoint", "model", "--screen", "screen.h5ad", "--target", "G3", "--cells", "4",
                "--out", "out.h5ad"],
    "evaluate": ["--screen", "screen.h5ad", "--predicted", "made.h5ad", "--side", "held_out", "--out", "scores.csv"],
    "finetune": ["--screen", "screen.h5ad", "--steps", "1", "--preset", "lite", "--out", "run"],
    "pretrain": ["--screen", "screen.h5ad", "--more", "screen.h5ad", "--steps", "1", "--out", "run"],
    "account": ["--preset", "lite"],
    "capsule": ["--check", "model"],
}
MORE = {"--seed": NUMBERS, "--cells": NUMBERS, "--sign": ["-1", "1", "0", "2", "x"], "--magnitude": NUMBERS,
        "--guidance": NUMBERS, "--sampling-steps": NUMBERS, "--space": ["counts", "log1p", "x"],
        "--device": WORDS, "--target": WORDS, "--targets": FILES, "--all": [], "--align": [], "--screen": FILES,
        "--checkpoint": FILES, "--predicted": FILES, "--out": FILES, "--target-key": WORDS, "--batch-key": WORDS,
        "--control": WORDS, "--sign-key": WORDS, "--layer": WORDS, "--side": WORDS, "--resume": [], "--overwrite": [],
        "--learning-rate": NUMBERS, "--checkpoint-interval": NUMBERS, "--gene-vectors": FILES, "--start": FILES,
        "--preset": WORDS, "--json": [], "--check": FILES, "--precision": ["fp32", "bf16", "x"], "--strange": WORDS}


LONG = {"--steps", "--more", "--check"}  # without these a command trains for hours, as it should


@cache
def room() -> Path:
    """A folder with what commands read."""
    folder = Path(mkdtemp(prefix="fuzz-"))
    os.environ |= {"CDT_LITE_OFFLINE": "1", "CDT_LITE_DATA": str(folder / "cache")}
    os.environ.pop("CDT_LITE_MIRROR", None)
    screen = toy_screen(n_cells=120, n_genes=16)
    screen.write_h5ad(folder / "screen.h5ad")
    config = tiny(n_genes=16)
    checkpoint = start(config, screen)
    store = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
    for _ in train(checkpoint, SetSampler(store, config.finetune), steps=1, out=folder / "model"):
        pass
    screen[screen.obs["target_gene"] == "G3"].copy().write_h5ad(folder / "made.h5ad")
    pd.DataFrame(np.eye(16), index=screen.var_names).to_csv(folder / "vectors.csv")
    (folder / "targets.txt").write_text("G3\nG5\n")
    (folder / "empty.h5ad").write_bytes(b"")
    (folder / "half.h5ad").write_bytes((folder / "screen.h5ad").read_bytes()[:9000])
    (folder / "folder").mkdir()
    return folder


def case(rng: np.random.Generator, folder: Path) -> Outcome:
    """Changes a command line in one to three places and runs it in a folder of its own."""
    command = str(rng.choice(list(GOOD)))
    words = list(GOOD[command])
    for _ in range(rng.integers(1, 3)):
        _change(rng, words)
    shutil.copytree(room(), folder, dirs_exist_ok=True)
    said, failed = io.StringIO(), io.StringIO()

    def act() -> int:
        before = Path.cwd()
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(failed):
                return main([command, *words])
        except SystemExit as stopped:  # argparse
            return int(stopped.code or 0)
        finally:
            os.chdir(before)

    shown = " ".join(word[:30] for word in [command, *words])
    outcome = judge(shown, act, lambda status: _problem(status, command, words, folder, failed.getvalue()))
    if outcome.verdict == "right" and failed.getvalue():
        return Outcome("named", shown, failed.getvalue()[-300:])
    return outcome


def _change(rng: np.random.Generator, words: list[str]) -> None:
    way = int(rng.integers(5))
    options = [i for i, word in enumerate(words) if word in MORE]
    if way == 0 and words:
        place = int(rng.integers(len(words)))
        if words[place] not in LONG:
            del words[place]
    elif way == 1 and options:
        place = options[rng.integers(len(options))]
        values = MORE[words[place]]
        if values and place + 1 < len(words):
            words[place + 1] = values[rng.integers(len(values))]
    elif way == 2 and options:
        place = options[rng.integers(len(options))]
        words[place] = words[place][: int(rng.integers(3, 12))]
    else:
        name = list(MORE)[rng.integers(len(MORE))]
        words.append(name)
        if MORE[name]:
            words.append(MORE[name][rng.integers(len(MORE[name]))])


def _problem(status: int, command: str, words: list[str], folder: Path, failed: str) -> str:
    if status == 2:
        lines = failed.strip().splitlines()
        one = len(lines) == 1 or failed.startswith("usage:")
        return "" if one else f"status 2 and {len(lines)} lines: {failed[:200]}"
    if status != 0:
        return f"status {status}: {failed[:200]}"
    if any(word in ("-h", "--help", "--hel", "--he", "--h") for word in words):
        return ""
    return CHECKS.get(command, lambda *_: "")(words, folder)


def _value(words: list[str], option: str, default: str) -> str:
    """What argparse makes of an option: the last one that means it."""
    found = default
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, _, own = word.partition("=")
        if name.startswith("--") and len(name) > 2 and option.startswith(name):
            found = own or after
    return found


def _predicted(words: list[str], folder: Path) -> str:
    cells = ad.read_h5ad(folder / _value(words, "--out", "predicted.h5ad"))
    values = cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X
    made = cells[cells.obs["sign"] != 0] if (cells.obs["sign"] != 0).any() else cells
    n = int(_value(words, "--cells", "256"))
    if not np.isfinite(values).all() or (values < 0).any() or made.n_obs % n:
        return f"{made.n_obs} cells, or values that are none"
    whole = not (values % 1).any()
    return "" if whole == (_value(words, "--space", "counts") == "counts") else "in another space"


def _scored(words: list[str], folder: Path) -> str:
    out = _value(words, "--out", "")
    if not out:
        return ""
    table = pd.read_csv(folder / out)
    return "" if len(table) and "mae" in table else "no scores"


def _trained(words: list[str], folder: Path) -> str:
    out = [_value(words, "--out", ""), "output/finetuned", "output/pretrained"]
    found = [name for name in out if (folder / name / "checkpoint.json").is_file()]
    if not found:
        return "no checkpoint"
    return "" if Checkpoint.load(folder / found[0]).step >= 1 else "no step"


CHECKS: dict[str, Callable[[list[str], Path], Any]] = {
    "predict": _predicted, "evaluate": _scored, "finetune": _trained, "pretrain": _trained}
