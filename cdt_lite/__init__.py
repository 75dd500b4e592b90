"""CDT-lite: a small Conditional Diffusion Transformer for single-cell perturbation screens, made to be read."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "PRESETS": "model.config",
    "Config": "model.config",
    "get_preset": "model.config",
    "CDT": "model.cdt",
    "Perturbation": "model.perturbation",
    "Vocabulary": "data.vocabulary",
    "Tokenizer": "data.tokenizer",
    "load_screen": "data.screens",
    "simulate_screen": "data.simulate",
    "blood_cells": "data.public",
    "split_screen": "data.splits",
    "TokenStore": "data.store",
    "SetSampler": "data.batches",
    "Checkpoint": "training.checkpoint",
    "start": "training.start",
    "train": "training.train",
    "predict": "training.predict",
    "predict_mean": "training.predict",
    "evaluate": "evaluation.evaluate",
    "CDTError": "errors",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `import cdt_lite` costs next to nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'cdt_lite' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"cdt_lite.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
