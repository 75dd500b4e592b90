"""CDT-lite: a small Conditional Diffusion Transformer for single-cell perturbation screens, made to be read."""

from cdt_lite._lazy import lazily

__version__ = "0.2.0"

__all__, __getattr__, __dir__ = lazily(__name__, {
    "model.config": ["PRESETS", "Config", "get_preset"],
    "model.cdt": ["CDT"],
    "model.perturbation": ["Perturbation"],
    "data.vocabulary": ["Vocabulary"],
    "data.tokenizer": ["Tokenizer"],
    "data.screens": ["load_screen"],
    "data.simulate": ["simulate_screen"],
    "data.public": ["blood_cells"],
    "data.gene_sets": ["load_gene_sets"],
    "data.splits": ["split_screen"],
    "data.store": ["TokenStore"],
    "data.batches": ["SetSampler"],
    "training.checkpoint": ["Checkpoint"],
    "training.start": ["start"],
    "training.train": ["train"],
    "training.predict": ["predict", "predict_mean"],
    "evaluation.evaluate": ["evaluate"],
    "errors": ["CDTError"],
})
