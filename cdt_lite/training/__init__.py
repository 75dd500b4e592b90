"""From cells to a trained model, and from a trained model to cells."""

from cdt_lite._lazy import lazily

__all__, __getattr__, __dir__ = lazily(__name__, {
    "capsule": ["CAPSULES", "held_out_sets", "load_capsule", "pretraining_cells"],
    "changes": ["table_changes", "with_clean_table"],
    "checkpoint": ["Checkpoint"],
    "effects": ["effect_table", "fitted"],
    "loop": ["learning_rate", "loss_of_step", "optimizer_for"],
    "predict": ["Generation", "possible"],
    "train": ["validation_curve"],
    "trust": ["denoiser", "one_step_mean"],
})
