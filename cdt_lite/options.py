"""The options of the command line, as data: what argparse is told about each."""

from cdt_lite.model.config import PRESETS

OPTIONS: dict[str, dict] = {
    "preset": {"default": "lite", "help": f"one of {', '.join(PRESETS)}"},
    "screen": {"default": "papalexi2021", "help": "papalexi2021, simulated, or the path of an .h5ad file"},
    "out": {"help": "where to write"}, "seed": {"type": int, "default": 0},
    "steps": {"type": int, "help": "length of the stage (default: the preset's epochs)"},
    "device": {"default": "cpu", "help": "cpu or cuda"},
    "precision": {"choices": ["fp32", "bf16", "fp16"]},
    "compile": {"action": "store_const", "const": True, "help": "compile the model first (worth it on a GPU)"},
    "learning-rate": {"type": float}, "resume": {"action": "store_true", "help": "go on from --out"},
    "more": {"nargs": "*", "default": [], "help": "further .h5ad files (default: blood and simulated cells)"},
    "gene-vectors": {"help": "CSV with a gene symbol and numbers a row (default: co-expression in the training cells)"},
    "start": {"help": "pretrained checkpoint to start from"},
    "checkpoint": {"required": True}, "target": {"required": True, "help": "gene symbol"},
    "sign": {"type": int, "default": -1, "help": "-1 knockdown or knockout, +1 activation"},
    "magnitude": {"type": float, "help": "log2 fold change of the target, if known"},
    "cells": {"type": int, "default": 256}, "guidance": {"type": float, "default": 1.0},
    "unseen": {"default": "vector", "choices": ["vector", "average"], "help": "a target never perturbed"},
    "space": {"default": "counts", "choices": ["counts", "log1p"], "help": "what the written values are"},
    "sampling-steps": {"type": int}, "align": {"action": "store_true", "help": "predict the shared genes only"},
    "side": {"default": "held_out", "help": "held_out or unseen"},
    "json": {"action": "store_true"}, "dark": {"action": "store_true", "help": "light ink on dark paper"},
    "genes": {"type": int, "default": 0, "help": "genes a cell (default: the preset's)"},
    "pretrain-steps": {"type": int, "default": 1000}, "finetune-steps": {"type": int, "default": 3600},
    "epochs": {"action": "store_true", "help": "as long as the preset's epochs, instead of so many steps"},
    "simulated": {"nargs": "+", "default": [], "metavar": "OPTION=VALUE", "help": "of the simulated screen"},
    "check": {"metavar": "FOLDER", "help": "verify a capsule and print its card"},
}
EVALUATE: dict[str, dict] = {
    "predicted": {"nargs": "+", "default": [], "help": ".h5ad files, one a method"},
    "suite": {"nargs": "+", "default": [], "choices": ["cell-eval", "cell-eval2"],
              "help": "score with the field's tools, too (extra [eval])"},
    "tasks": {"action": "store_true", "help": "report tasks 1 to 4 for a trained model, all methods in one table"},
    "checkpoint": {"nargs": "+", "default": [], "help": "trained models, one a training seed (default: the capsule)"},
    "results": {"default": "figures/results.json", "help": "where --tasks writes, and a page .md beside it"},
    "seeds": {"type": int, "default": 3, "help": "sampling seeds of --tasks"},
    "cells": {"type": int, "default": 256, "help": "cells that --tasks samples of each perturbation and seed"},
}
