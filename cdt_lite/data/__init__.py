"""Cells: from files, public screens and the simulator, to batches of tokens."""

from cdt_lite._lazy import lazily

_HOME = {
    "CONTROL": "layout",
    "Columns": "layout",
    "dense": "expression",
    "gene_means": "expression",
    "log1p_counts": "expression",
    "load_screen": "screens",
    "resolve_screen": "screens",
    "blood_cells": "public",
    "simulate_screen": "simulate",
    "ScreenDesign": "simulate",
    "split_screen": "splits",
    "named_split": "splits",
    "Vocabulary": "vocabulary",
    "Tokenizer": "tokenizer",
    "fit_tokenizer": "tokenizer",
    "TokenStore": "store",
    "Batch": "batches",
    "SetSampler": "batches",
}
__all__ = list(_HOME)
__getattr__, __dir__ = lazily(__name__, _HOME)
