"""From cells to a trained model, and from a trained model to cells."""

from cdt_lite._lazy import lazily

__all__, __getattr__, __dir__ = lazily(__name__, {
    "capsule": ["CAPSULES", "load_capsule", "pretraining_cells"],
    "changes": ["table_changes", "with_clean_table"],
    "checkpoint": ["Checkpoint"],
    "effects": ["effect_table", "fitted"],
    "predict": ["Generation", "possible"],
    "train": ["learning_rate", "optimizer_for", "validation_curve"],
    "trust": ["denoiser", "one_step_mean"],
})
