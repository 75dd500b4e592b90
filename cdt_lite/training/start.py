"""A new model for a screen: bins, vocabulary, untrained weights."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import anndata as ad
import numpy as np
import pandas as pd
from jaxtyping import Float

from cdt_lite.data.blocks import count_blocks
from cdt_lite.data.expression import dense, log1p_counts
from cdt_lite.data.gene_sets import Sets
from cdt_lite.data.labels import check_targets
from cdt_lite.data.layout import Columns, read_labels
from cdt_lite.data.store import TokenStore
from cdt_lite.data.tokenizer import Tokenizer, fit_tokenizer
from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.errors import CDTError, require_whole
from cdt_lite.model import build
from cdt_lite.model.config import Config
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.gene_vectors import coexpression, expression_of, give_vectors
from cdt_lite.training.prior import add_prior, give_gene_sets

Cells: TypeAlias = ad.AnnData | TokenStore


def start(config: Config, screen: Cells, *others: Cells, gene_vectors: pd.DataFrame | None = None,
          gene_sets: Sets | None = None, seed: int = 0, columns: Columns = Columns()) -> Checkpoint:
    """Returns a new, untrained model for a screen: bins fitted on its control cells, a vocabulary of all genes named.

    Args:
        config: Preset.
        screen: The training side of the screen (its genes become the panel), or a store of its tokens: the model then
            has the store's bins and vocabulary.
        others: Further files for pretraining, whose panels may differ; their genes join the vocabulary. Of stores, all
            must have been made with one tokenizer and one vocabulary.
        gene_vectors: What is known about genes, a row each (`read_gene_vectors`); by default what the preset says:
            their co-expression in `screen`, or nothing.
            Vectors that are given say, besides, which genes a perturbation's effect can be carried over to.
        gene_sets: Which genes work together (`load_gene_sets`): so do they.
        seed: Seed of the initial weights.
        columns: Where the cells' labels are.

    Raises:
        CDTError: No control cells, no raw counts, targets that are guides, or more genes than the gene table has rows;
            a store with other bins than the preset's.
    """
    seed = require_whole("seed", seed)
    files = [cells for cells in (screen, *others) if not isinstance(cells, TokenStore)]
    stores = [cells for cells in (screen, *others) if isinstance(cells, TokenStore)]
    if files and stores:
        raise CDTError("a model is begun from cells or from stores of tokens, not from both: tokenise all, or none")
    tokenizer, vocabulary = _of_stores(config, stores) if stores else _of_files(config, files, columns)
    panel = _panel(screen)
    model, process = build(config, seed)
    checkpoint = Checkpoint(model, process, config, tokenizer, vocabulary, panel, seed=seed)
    if gene_vectors is not None:
        give_vectors(checkpoint, gene_vectors)
        add_prior(checkpoint, gene_vectors)
    elif config.gene_vectors == "coexpression":
        known = coexpression(_log1p_blocks(screen, tokenizer))
        give_vectors(checkpoint, pd.DataFrame(known[:, : config.model.gene_embed_dim], index=panel))
    if gene_sets is not None:
        perturbed = set().union(*(_perturbed(cells, columns) for cells in (screen, *others)))
        give_gene_sets(checkpoint, gene_sets, sorted(perturbed))
    return checkpoint


def start_from(checkpoint: Checkpoint, screen: Cells, columns: Columns = Columns()) -> Checkpoint:
    """Returns a trained model, ready for fine-tuning on a screen: on another panel it becomes a model of the new one.

    Genes that it lacked join the vocabulary, with rows that no training has moved.

    Args:
        checkpoint: A trained model.
        screen: The training side of the screen (its genes become the panel), or a store of its tokens.
        columns: Where the cells' labels are.

    Raises:
        CDTError: A model whose panel is fixed (v1), no control cells, more genes than the gene table has rows, or a
            store that was not made for this model.
    """
    genes, tokenizer = _panel(screen), checkpoint.tokenizer
    if genes == checkpoint.panel and isinstance(screen, ad.AnnData):
        return checkpoint
    if genes != checkpoint.panel:
        if checkpoint.model.fixed_panel:
            raise CDTError(f"this model knows the {len(checkpoint.panel)} genes of its panel by their places and no "
                           "others: begin a new one, or give a screen with all of them")
        tokenizer = Tokenizer(tokenizer.config, _depth(screen, tokenizer, columns))  # the same bins
    vocabulary = checkpoint.vocabulary.extended(genes if isinstance(screen, ad.AnnData) else screen.symbols)
    if isinstance(screen, TokenStore):
        screen.require(tokenizer, vocabulary.symbols)
    return replace(checkpoint, tokenizer=tokenizer, vocabulary=vocabulary, panel=genes)


def _of_files(config: Config, files: Sequence[ad.AnnData], columns: Columns) -> tuple[Tokenizer, Vocabulary]:
    """Bins fitted on the first file, and the genes and targets of all."""
    tokenizer = fit_tokenizer(config.tokenizer, files[0], columns)
    vocabulary = Vocabulary(files[0].var_names, config.model.n_total_genes)
    for adata in files:
        targets = _perturbed(adata, columns)
        check_targets(targets, adata, columns.target, "the screen")
        vocabulary = vocabulary.extended([*adata.var_names, *sorted(targets)])
    return tokenizer, vocabulary


def _of_stores(config: Config, stores: Sequence[TokenStore]) -> tuple[Tokenizer, Vocabulary]:
    """What the stores were made with, if a model of this preset can read it."""
    longest = max(stores, key=lambda store: len(store.symbols))
    tokenizer, own = longest.tokenizer, config.tokenizer
    if tokenizer is None:
        raise CDTError("a store that does not say what tokenised it cannot begin a model: make it with from_adata")
    for store in stores:
        store.require(tokenizer, longest.symbols, "another")
    if replace(tokenizer.config, highest=own.highest) != own:
        raise CDTError(f"the tokens of the store are {tokenizer}, this preset reads {Tokenizer(own)}: begin a model of "
                       "the preset that they were made for, or tokenise the cells again")
    return tokenizer, Vocabulary(longest.symbols, config.model.n_total_genes)


def _panel(cells: Cells) -> list[str]:
    return cells.panel if isinstance(cells, TokenStore) else list(cells.var_names)


def _perturbed(cells: Cells, columns: Columns) -> set[str]:
    """Names of the targets of all perturbed cells."""
    if isinstance(cells, TokenStore):
        return cells.targets
    labels = read_labels(cells, columns, unlabelled=True)
    return set(labels.target[~labels.is_control].tolist())


def _depth(cells: Cells, tokenizer: Tokenizer, columns: Columns) -> float:
    """The median depth of control cells."""
    if isinstance(cells, TokenStore):
        return (cells.tokenizer or tokenizer).target_depth
    return fit_tokenizer(tokenizer.config, cells, columns).target_depth


def _log1p_blocks(cells: Cells, tokenizer: Tokenizer) -> Iterator[Float[np.ndarray, "_cells G"]]:
    if isinstance(cells, TokenStore):
        yield from (expression for _, expression in expression_of(cells, tokenizer))
        return
    for _, block in count_blocks(cells):
        yield log1p_counts(dense(block), tokenizer.target_depth)
