"""The options of the command line, as data: what argparse is told about each."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cdt_lite.errors import CDTError, require_whole, suggest

COLUMNS = {"target": "target-key", "batch": "batch-key", "control": "control", "sign": "sign-key",
           "magnitude": "magnitude-key"}  # argument of `Columns` -> option
SCREEN = ("screen", *COLUMNS.values(), "default-sign", "layer")  # of every command that reads a screen
SPLIT = ("unseen", "hold_out", "split_key")
WITHHOLD = ("withheld", "hold-out", "split-key")
TRAINING = (*SCREEN, *WITHHOLD, "n-top-genes", "preset", "out", "steps", "seed", "device", "precision", "compile",
            "learning-rate", "resume", "overwrite", "checkpoint-interval", "gene-vectors", "gene-sets", "store",
            "shard")
STAGE = ("precision", "compile", "learning_rate", "seed", "checkpoint_interval")  # fields of `TrainConfig`
OF_A_RUN = ("preset", "steps", "learning_rate", "seed", "checkpoint_interval", "precision",
            "n_top_genes")  # --resume keeps them
FLAGS = {"models": "checkpoint", "model": "checkpoint", "withheld": "unseen", "files": "more"}  # share a name
COUNTS = ("n_top_genes", "steps", "checkpoint_interval", "cells", "seeds", "sampling_steps", "pretrain_steps",
          "finetune_steps")
SIMULATED = ("n_genes", "n_targets", "n_cells", "seed", "world")


def _option(default: Any = None, about: str = "", **more: Any) -> dict[str, Any]:
    """What argparse is told; a number's type is that of its default."""
    if isinstance(default, int | float) and "action" not in more:
        more["type"] = type(default)
    return {"default": default, "help": about, **more}


def require_sense(given: Mapping[str, Any]) -> None:
    """Raises CDTError for an empty word, a number of something below 1, and options that exclude each other."""
    if given.get("resume") and given.get("overwrite"):
        raise CDTError("--resume goes on with the run that --overwrite replaces: give one of them")
    if given.get("resume") and given.get("gene_sets"):
        raise CDTError("--resume goes on with what the run was told of genes: leave out --gene-sets")
    for name in COUNTS:
        value = given.get(name)
        if value is not None and value < 1:
            raise CDTError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    require_whole("--seed", given.get("seed") or 0)
    for name, value in given.items():
        words = value if isinstance(value, list) else [value]
        for word in words:
            if isinstance(word, str) and not word.strip():
                raise CDTError(f"--{name.replace('_', '-')} is empty: name something, or leave it out")


def columns_given(given: Mapping[str, Any]) -> dict[str, str | None]:
    """Returns the arguments of `Columns` that the command line names; "none" is a column not to look for."""
    named: dict[str, str | None] = {}
    for role, option in COLUMNS.items():
        value = given[option.replace("-", "_")]
        if value is not None:
            named[role] = None if value == "none" and role in ("batch", "sign", "magnitude") else value
    return named


def in_options(message: str) -> str:
    """Returns a message of the library with the command line's options in place of Python's arguments."""
    def option(found: re.Match) -> str:
        value = {"...": "", "None": " none"}.get(found[2], f" {found[2]}")
        return f"--{COLUMNS[found[1]]}{value}"

    message = re.sub(r"Columns\((\w+)='?(.*?)'?\)", option, message)
    message = message.replace("align=True", "--align").replace("default_sign=", "--default-sign ")
    message = message.replace("resume=True", "--resume")
    message = re.sub(r"\bn_top_genes\b=?", "--n-top-genes", message)
    return re.sub(r"layer='(.*?)'", r"--layer \1", message)


def simulated_options(words: Iterable[str]) -> dict[str, Any]:
    """Reads the words after --simulated, OPTION=VALUE each."""
    options: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in SIMULATED or not value or (name != "world" and not value.isdigit()):
            raise CDTError(f"expected OPTION=VALUE with one of {SIMULATED}, got {word!r}{suggest(name, SIMULATED)}")
        options[name] = value if name == "world" else int(value)
    return options


OPTIONS = {
    "preset": _option(None, "v1, default or lite"),
    "screen": _option("papalexi2021", "papalexi2021, simulated, or the path of an .h5ad file"),
    "target-key": _option(None, "of a file: column of obs with the perturbed gene"),
    "batch-key": _option(None, "column with the replicate (none, as below: do not look for one)"),
    "control": _option(None, "label of unperturbed cells in the column of targets"),
    "sign-key": _option(None, "column with -1, 0 or +1"),
    "default-sign": _option(-1, "of a file without a column of signs: -1 knockdown, 1 activation", choices=[-1, 1]),
    "magnitude-key": _option(None, "column with the log2 fold change of the target's own mRNA"),
    "layer": _option(None, "layer with the raw counts, or raw (default: X)"),
    "withheld": _option([], "targets to withhold altogether (default: by rule)", nargs="+", metavar="TARGET"),
    "hold-out": _option([], "replicates of targets to withhold", nargs="+", metavar="TARGET:REPLICATE"),
    "split-key": _option(None, "instead: column with train, held_out or unseen", metavar="COLUMN"),
    "n-top-genes": _option(None, "size of the panel (default: the preset's)", type=int),
    "out": _option(None, "where to write"),
    "seed": _option(0),
    "steps": _option(None, "length of the stage (default: the preset's epochs)", type=int),
    "device": _option("cpu", "cpu, cuda, cuda:1 or mps"),
    "precision": _option(None, "of matrix products (default: bf16 on CUDA, else fp32)", choices=["fp32", "bf16"]),
    "compile": _option(None, "compile the model first (worth it on a GPU)", action="store_const", const=True),
    "learning-rate": _option(type=float),
    "shard": _option(False, "with torchrun: cut the model into shards, one a process", action="store_true"),
    "resume": _option(False, "go on from --out, with the settings that the run was begun with", action="store_true"),
    "overwrite": _option(False, "let this take the place of another one in --out", action="store_true"),
    "checkpoint-interval": _option(None, "steps between two saves (default: the preset's, 500)", type=int),
    "more": _option(None, "further .h5ad files, or none (default: blood and simulated cells)", nargs="*"),
    "files": _option([], "further .h5ad files of the same screen, into one store", nargs="+", metavar="FILE"),
    "store": _option(None, "train from the tokens in FOLDER (cdt-lite tokenize) instead of cells", metavar="FOLDER"),
    "gene-vectors": _option(None, "CSV, a gene symbol and numbers a row (default: co-expression in training cells)"),
    "gene-sets": _option(None, "FILE (.gmt, .json), immune, planted (simulated), none; default: a public screen's"),
    "start": _option(None, "pretrained checkpoint to start from"),
    "checkpoint": _option(required=True),
    "target": _option([], "gene symbols", nargs="+"),
    "targets": _option(None, "a file of gene symbols, one a line", metavar="FILE"),
    "all": _option(False, "every target and sign that the model was trained on", action="store_true"),
    "sign": _option(None, "-1 knockdown or knockout, +1 activation (default: that of training, if it had one)",
                    type=int),
    "magnitude": _option(None, "log2 fold change of the target, if known", type=float),
    "cells": _option(256, "cells sampled of each perturbation, and seed"),
    "guidance": _option(1.0),
    "space": _option("counts", "what the written values are", choices=["counts", "log1p"]),
    "sampling-steps": _option(type=int),
    "align": _option(False, "predict the shared genes only", action="store_true"),
    "side": _option("held_out", "held_out or unseen"),
    "json": _option(False, action="store_true"),
    "dark": _option(False, "light ink on dark paper", action="store_true"),
    "genes": _option(0, "genes a cell (default: the preset's)"),
    "pretrain-steps": _option(1000),
    "finetune-steps": _option(3600),
    "epochs": _option(False, "as long as the preset's epochs, instead of so many steps", action="store_true"),
    "simulated": _option([], "of the simulated screen", nargs="+", metavar="OPTION=VALUE"),
    "check": _option(None, "verify a capsule and print its card", metavar="FOLDER"),
    "predicted": _option([], ".h5ad files, one a method", nargs="+"),
    "suite": _option([], "score with the field's tools, too (extra [eval])", nargs="+",
                     choices=["cell-eval", "cell-eval2"]),
    "tasks": _option(False, "report the tasks for a trained model, all methods in one table", action="store_true"),
    "model": _option(None, "trained model to draw, too (default: the screen's capsule)"),
    "models": _option([], "trained models, seeds of one recipe (default: the capsule)", nargs="+"),
    "results": _option("output/results.json", "where --tasks writes, and a page .md beside it"),
    "seeds": _option(3, "sampling seeds of --tasks"),
}
COMMANDS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {  # options, and defaults of its own
    "figures": (("preset", "model", *SCREEN, "out", "dark"), {"out": "figures"}),
    "tokenize": ((*SCREEN, *WITHHOLD, "files", "n-top-genes", "preset", "start", "out"), {"out": "output/tokens"}),
    "pretrain": ((*TRAINING, "more"), {"out": "output/pretrained", "seed": None}),
    "finetune": ((*TRAINING, "start"), {"out": "output/finetuned", "seed": None}),
    "predict": (("checkpoint", *SCREEN, "target", "targets", "all", "sign", "magnitude", "cells", "seed", "guidance",
                 "sampling-steps", "align", "space", "device", "out", "resume"), {"out": "predicted.h5ad"}),
    "evaluate": ((*SCREEN, *WITHHOLD, "simulated", "side", "seed", "out", "predicted", "suite", "tasks", "models",
                  "results", "seeds", "cells"), {}),
    "account": (("preset", "json"), {"preset": "v1"}),
    "bench": (("preset", "device", "genes", "precision", "compile"), {"preset": "lite"}),
    "capsule": (("preset", *SCREEN, "out", "overwrite", "pretrain-steps", "finetune-steps", "seed", "learning-rate",
                 "check", "simulated", "epochs", "gene-sets"), {"preset": "lite"}),
    "doctor": (SCREEN, {"screen": None}),
}
