"""CDT-lite: a small Conditional Diffusion Transformer for single-cell perturbation screens, made to be read."""

from cdt_lite._lazy import lazily

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
__getattr__, __dir__ = lazily(__name__, _HOME)
