"""From cells to a trained model, and from a trained model to cells."""

from cdt_lite._lazy import lazily

_HOME = {
    "CAPSULES": "capsule",
    "Checkpoint": "checkpoint",
    "Generation": "predict",
    "denoiser": "train",
    "effect_table": "effects",
    "learning_rate": "train",
    "load_capsule": "capsule",
    "optimizer_for": "train",
    "pretraining_cells": "capsule",
    "table_changes": "changes",
    "validation_curve": "train",
    "with_clean_table": "changes",
}
__all__ = list(_HOME)
__getattr__, __dir__ = lazily(__name__, _HOME)
