"""Cells: from files, public screens and the simulator, to batches of tokens."""

from cdt_lite._lazy import lazily

__all__, __getattr__, __dir__ = lazily(__name__, {
    "layout": ["CONTROL", "Columns"],
    "expression": ["dense", "gene_means", "log1p_counts"],
    "screens": ["load_screen", "resolve_screen"],
    "public": ["blood_cells"],
    "gene_sets": ["load_gene_sets", "sets_for"],
    "simulate": ["ScreenDesign", "simulate_screen"],
    "splits": ["named_split", "split_screen"],
    "vocabulary": ["Vocabulary"],
    "tokenizer": ["Tokenizer", "fit_tokenizer"],
    "store": ["TokenStore"],
    "collection": ["collection_store"],
    "batches": ["Batch", "SetSampler"],
})
