"""The switches that were tried on v1: a ladder that turns them on one by one, and all of them less each."""

from dataclasses import replace
from typing import Any

from cdt_lite.model.config import PRESETS, Config

Changes = dict[str, dict[str, Any]]


# switches that these runs did not show to pay: the recipe did without them from then on
LOST: Changes = {"model": {"time_input": "mask_ratio", "target_flag": True}, "diffusion": {"mask_law": "uniform_cell"},
                 "finetune": {"ema_decay": 0.99}}


def changed(config: Config, name: str, changes: Changes) -> Config:
    """Returns a configuration with fields of its parts, or (part "config") its own, replaced."""
    parts = {part: replace(getattr(config, part), **values) for part, values in changes.items() if part != "config"}
    return replace(config, name=name, **parts, **changes.get("config", {}))


def tried(n_genes: int) -> Config:
    """Returns all that was tried at once: the recipe, and the switches that it lost since."""
    return changed(PRESETS["lite"], "all switches", LOST | {"model": {"n_genes": n_genes, **LOST.get("model", {})}})


def ladder(n_genes: int) -> dict[str, Config]:
    """Returns the configurations, each one switch further than the one before."""
    lite, v1 = PRESETS["lite"], PRESETS["v1"]
    switches = {name: getattr(v1.model, name) for name in (
        "identity", "time_input", "modulation", "control_input", "mask_in_logits", "ordinal_input", "depth_input",
        "target_flag", "control_statistics", "cell_summary", "mean_effect", "unknown_target")}
    plain = {"target_dropout": 0.0, "perturbation_dropout": 0.0, "ema_decay": 0.0}
    config = replace(lite, name="lite-v1", tokenizer=v1.tokenizer, diffusion=v1.diffusion, gene_vectors="random",
                     model=replace(lite.model, **switches, n_genes=n_genes),
                     finetune=replace(lite.finetune, **plain))
    steps: dict[str, Changes] = {
        "v1": {},
        "sampler": {"diffusion": {"sampler": "fixed", "sampling_steps": 16}},
        "mask law": {"diffusion": {"mask_law": "uniform_batch"}},
        "objective": {"diffusion": {"mask_law": "uniform_cell"}},
        "time input": {"model": {"time_input": "mask_ratio"}},
        "tied table": {"model": {"identity": "gene", "unknown_target": True},
                       "finetune": {"target_dropout": 0.15, "perturbation_dropout": 0.1}},
        "controls": {"model": {"control_input": "genes", "control_statistics": True}},
        "target flag": {"model": {"target_flag": True}},
        "adaLN": {"model": {"modulation": "adaln"}},
        "cell summary": {"model": {"cell_summary": True}},
        "gene vectors": {"config": {"gene_vectors": "coexpression"}},
        "tokens": {"tokenizer": {"space": "counts"},
                   "model": {"depth_input": True, "ordinal_input": True, "mask_in_logits": False}},
        "EMA": {"finetune": {"ema_decay": 0.99}},
        "mean effect": {"model": {"mean_effect": True}},
    }
    rungs = {}
    for name, changes in steps.items():
        config = rungs[name] = changed(config, f"lite, up to {name}", changes)
    return rungs


def without(n_genes: int) -> dict[str, Config]:
    """Returns all that was tried, and that less one switch: what does each still buy when all the others are on?"""
    whole = tried(n_genes)
    back: dict[str, Changes] = {
        "nothing": {},
        "sampler": {"diffusion": {"sampler": "v1", "sampling_steps": 10}},
        "time input": {"model": {"time_input": "none"}},
        "target flag": {"model": {"target_flag": False}},
        "adaLN": {"model": {"modulation": "add"}},
        "cell summary": {"model": {"cell_summary": False}},
        "gene vectors": {"config": {"gene_vectors": "random"}},
        "controls": {"model": {"control_input": "tokens", "control_statistics": False}},
        "objective": {"diffusion": {"mask_law": "uniform_batch"}},
        "EMA": {"finetune": {"ema_decay": 0.0}},
    }
    runs = {}
    for name, changes in back.items():
        runs[name] = changed(whole, f"lite without {name}", changes)
    return runs
