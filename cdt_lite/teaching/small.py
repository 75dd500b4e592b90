"""A network small enough to be trained in a lesson, and its curve on held-out cells."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from anndata import AnnData
from jaxtyping import Float

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.store import TokenStore
from cdt_lite.model import PRESETS, MaskedDiffusion
from cdt_lite.teaching.held_out import held_out_sets
from cdt_lite.terminal import with_bar
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.start import start
from cdt_lite.training.train import train, validation_curve


def small_network(cells: AnnData, process: type[MaskedDiffusion], seed: int, n_steps: int, title: str) -> Checkpoint:
    """Trains `lite` at half its width and with two blocks, from this seed's weights, on this seed's batches.

    Args:
        cells: The training side of a screen.
        process: Which masks are drawn, and what is averaged.
        seed: Of weights and batches.
        n_steps: Of training.
        title: What the bar says.
    """
    lite = PRESETS["lite"]
    size = replace(lite.model, dim=32, n_layer=2, gene_embed_dim=16, control_set_dim_hidden=16, control_set_dim_out=32)
    stage = replace(lite.finetune, learning_rate=6e-3, sets_per_batch=3, validation_share=0.0, seed=seed)
    net = start(replace(lite, model=size), cells, seed=seed)
    net.process = process(net.config.diffusion, net.tokenizer.mask_id)
    store = TokenStore.from_adata(cells, net.tokenizer, net.vocabulary)
    for _ in with_bar(train(net, SetSampler(store, stage), steps=n_steps), title):
        pass
    return net


def bits_curve(network: Checkpoint, cells: AnnData, shares: Sequence[float], n_batches: int
               ) -> Float[np.ndarray, " shares"]:
    """Returns H in bits per hidden gene, on the same cells and masks for every network with the same batches."""
    return validation_curve(network, held_out_sets(network, cells), n_batches, shares=shares) / np.log(2)
