"""The options of the command line, as data: what argparse is told about each."""

from typing import Any

COLUMNS = {"target": "target-key", "batch": "batch-key", "control": "control", "sign": "sign-key",
           "magnitude": "magnitude-key"}  # argument of `Columns` -> option
SCREEN = ("screen", *COLUMNS.values(), "layer")  # of every command that reads a screen
TRAINING = (*SCREEN, "preset", "out", "steps", "seed", "device", "precision", "compile", "learning-rate", "resume",
            "gene-vectors")


def _option(default: Any = None, about: str = "", **more: Any) -> dict[str, Any]:
    """What argparse is told; a number's type is that of its default."""
    if isinstance(default, int | float) and "action" not in more:
        more["type"] = type(default)
    return {"default": default, "help": about, **more}


OPTIONS = {
    "preset": _option("lite", "v1, default or lite"),
    "screen": _option("papalexi2021", "papalexi2021, simulated, or the path of an .h5ad file"),
    "target-key": _option(None, "of a file: column of obs with the perturbed gene"),
    "batch-key": _option(None, "column with the replicate"),
    "control": _option(None, "label of unperturbed cells in the column of targets"),
    "sign-key": _option(None, "column with -1, 0 or +1"),
    "magnitude-key": _option(None, "column with the log2 fold change of the target's own mRNA"),
    "layer": _option(None, "layer with the raw counts (default: X)"),
    "out": _option(None, "where to write"),
    "seed": _option(0),
    "steps": _option(None, "length of the stage (default: the preset's epochs)", type=int),
    "device": _option("cpu", "cpu or cuda"),
    "precision": _option(choices=["fp32", "bf16"]),
    "compile": _option(None, "compile the model first (worth it on a GPU)", action="store_const", const=True),
    "learning-rate": _option(type=float),
    "resume": _option(False, "go on from --out", action="store_true"),
    "more": _option([], "further .h5ad files (default: blood and simulated cells)", nargs="*"),
    "gene-vectors": _option(None, "CSV, a gene symbol and numbers a row (default: co-expression in training cells)"),
    "start": _option(None, "pretrained checkpoint to start from"),
    "checkpoint": _option(required=True),
    "target": _option(None, "gene symbol", required=True),
    "sign": _option(-1, "-1 knockdown or knockout, +1 activation"),
    "magnitude": _option(None, "log2 fold change of the target, if known", type=float),
    "cells": _option(256, "cells sampled of each perturbation, and seed"),
    "guidance": _option(1.0),
    "unseen": _option("vector", "a target never perturbed", choices=["vector", "average"]),
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
    "tasks": _option(False, "report tasks 1 to 4 for a trained model, all methods in one table", action="store_true"),
    "models": _option([], "trained models, one a training seed (default: the capsule)", nargs="+"),
    "results": _option("figures/results.json", "where --tasks writes, and a page .md beside it"),
    "seeds": _option(3, "sampling seeds of --tasks"),
}
