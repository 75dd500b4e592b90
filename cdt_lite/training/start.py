"""A new model for a screen: bins, vocabulary, untrained weights."""

from collections.abc import Iterator
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
from jaxtyping import Float

from cdt_lite.data.blocks import count_blocks
from cdt_lite.data.expression import dense, log1p_counts
from cdt_lite.data.gene_sets import Sets
from cdt_lite.data.labels import check_targets
from cdt_lite.data.layout import Columns, read_labels
from cdt_lite.data.tokenizer import Tokenizer, fit_tokenizer
from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.errors import CDTError, require_whole
from cdt_lite.model import build
from cdt_lite.model.config import Config
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.gene_vectors import coexpression, give_vectors
from cdt_lite.training.prior import add_prior, give_gene_sets


def start(config: Config, screen: ad.AnnData, *others: ad.AnnData, gene_vectors: pd.DataFrame | None = None,
          gene_sets: Sets | None = None, seed: int = 0, columns: Columns = Columns()) -> Checkpoint:
    """Returns a new, untrained model for a screen: bins fitted on its control cells, a vocabulary of all genes named.

    Args:
        config: Preset.
        screen: The training side of the screen (its genes become the panel).
        others: Further files for pretraining, whose panels may differ; their genes join the vocabulary.
        gene_vectors: What is known about genes, a row each (`read_gene_vectors`); by default what the preset says:
            their co-expression in `screen`, or nothing.
            Vectors that are given say, besides, which genes a perturbation's effect can be carried over to.
        gene_sets: Which genes work together (`load_gene_sets`): so do they.
        seed: Seed of the initial weights.
        columns: Where the cells' labels are.

    Raises:
        CDTError: No control cells, no raw counts, targets that are guides, or more genes than the gene table has rows.
    """
    seed = require_whole("seed", seed)
    tokenizer = fit_tokenizer(config.tokenizer, screen, columns)
    vocabulary = Vocabulary(screen.var_names, config.model.n_total_genes)
    perturbed: set[str] = set()
    for adata in (screen, *others):
        labels = read_labels(adata, columns, unlabelled=True)
        targets = set(labels.target[~labels.is_control].tolist())
        check_targets(targets, adata, columns.target, "the screen")
        vocabulary = vocabulary.extended([*adata.var_names, *sorted(targets)])
        perturbed |= targets
    model, process = build(config, seed)
    checkpoint = Checkpoint(model, process, config, tokenizer, vocabulary, list(screen.var_names), seed=seed)
    if gene_vectors is not None:
        give_vectors(checkpoint, gene_vectors)
        add_prior(checkpoint, gene_vectors)
    elif config.gene_vectors == "coexpression":
        known = coexpression(_log1p_blocks(screen, tokenizer.target_depth))
        give_vectors(checkpoint, pd.DataFrame(known[:, : config.model.gene_embed_dim], index=screen.var_names))
    if gene_sets is not None:
        give_gene_sets(checkpoint, gene_sets, sorted(perturbed))
    return checkpoint


def start_from(checkpoint: Checkpoint, screen: ad.AnnData, columns: Columns = Columns()) -> Checkpoint:
    """Returns a trained model, ready for fine-tuning on a screen: on another panel it becomes a model of the new one.

    Genes that it lacked join the vocabulary, with rows that no training has moved.

    Args:
        checkpoint: A trained model.
        screen: The training side of the screen (its genes become the panel).
        columns: Where the cells' labels are.

    Raises:
        CDTError: A model whose panel is fixed (v1), no control cells, or more genes than the gene table has rows.
    """
    genes = list(screen.var_names)
    if genes == checkpoint.panel:
        return checkpoint
    if checkpoint.model.fixed_panel:
        raise CDTError(f"this model knows the {len(checkpoint.panel)} genes of its panel by their places and no "
                       "others: begin a new one, or give a screen with all of them")
    depth = fit_tokenizer(checkpoint.tokenizer.config, screen, columns).target_depth  # of the new panel
    tokenizer = Tokenizer(checkpoint.tokenizer.config, depth)  # the same bins
    return replace(checkpoint, tokenizer=tokenizer, vocabulary=checkpoint.vocabulary.extended(genes), panel=genes)


def _log1p_blocks(cells: ad.AnnData, target_depth: float) -> Iterator[Float[np.ndarray, "cells G"]]:
    for _, block in count_blocks(cells):
        yield log1p_counts(dense(block), target_depth)
