"""A new model for a screen."""

import anndata as ad
import numpy as np
import pandas as pd

from cdt_lite.data.expression import control_depths
from cdt_lite.data.tokenizer import fit_tokenizer
from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.model.cdt import CDT
from cdt_lite.model.config import Config
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.gene_vectors import coexpression_vectors, give_vectors


def start(config: Config, screen: ad.AnnData, *others: ad.AnnData, gene_vectors: pd.DataFrame | None = None,
          seed: int = 0, target_key: str = "target_gene", control: str = "non-targeting") -> Checkpoint:
    """Returns a new, untrained model for a screen: bins fitted on its control cells, a vocabulary of all genes named.

    Args:
        config: Preset.
        screen: The training side of the screen (its genes become the panel).
        others: Further files for pretraining, whose panels may differ; their genes join the vocabulary.
        gene_vectors: What is known about genes, a row each (`read_gene_vectors`); by default what the preset says:
            their co-expression in `screen`, or nothing.
        seed: Seed of the initial weights.
        target_key: Column of targets.
        control: Label of control cells.
    """
    depths = control_depths(screen, target_key=target_key, control=control)
    vocabulary = Vocabulary(screen.var_names, config.model.n_total_genes)
    for adata in (screen, *others):
        targets = adata.obs[target_key].astype(str).unique() if target_key in adata.obs else []
        vocabulary = vocabulary.extended([*adata.var_names, *(t for t in targets if t != control)])
    sample = np.quantile(depths, np.linspace(0.005, 0.995, 100)).round(1).tolist()
    tokenizer = fit_tokenizer(config.tokenizer, screen, target_key=target_key, control=control)
    checkpoint = Checkpoint(CDT(config.model, seed), config, tokenizer, vocabulary, list(screen.var_names),
                            control_depths=sample, seed=seed)
    if gene_vectors is None and config.gene_vectors == "coexpression":
        gene_vectors = coexpression_vectors(screen, config.model.gene_embed_dim)
    if gene_vectors is not None:
        give_vectors(checkpoint, gene_vectors)
    return checkpoint
