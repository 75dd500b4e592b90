"""CDT-lite: a small Conditional Diffusion Transformer for single-cell perturbation screens, made to be read."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "PRESETS": "config", "Config": "config", "get_preset": "config", "Vocabulary": "vocabulary",
    "Tokenizer": "tokenizer",
    "CDT": "model", "Perturbation": "conditioning", "Checkpoint": "checkpoint", "load_screen": "screens",
    "simulate_screen": "simulate", "blood_cells": "screens", "split_screen": "data", "TokenStore": "data",
    "SetSampler": "data",
    "start": "training", "train": "training", "predict": "prediction", "predict_mean": "prediction",
    "evaluate": "evaluation", "CDTError": "errors",
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
