import pytest
import torch
from helpers import opened, tiny

from cdt_lite.model.control_set import ControlSetEncoder


@pytest.mark.parametrize("preset", ["v1", "lite"])
def test_permuting_cells_permutes_the_memory(preset):
    config = tiny(preset).model
    encoder, values = opened(ControlSetEncoder(config)), torch.rand(2, 5, config.n_genes)
    vectors, order = torch.randn(config.n_genes, config.gene_embed_dim), torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(encoder(values, vectors)[:, order], encoder(values[:, order], vectors))


def test_the_default_encoder_reads_any_panel_and_ignores_silent_genes():
    config = tiny("lite").model
    encoder, values = opened(ControlSetEncoder(config)), torch.rand(1, 3, 8)
    vectors = torch.randn(8, config.gene_embed_dim)
    silent = torch.cat([values, torch.zeros(1, 3, 8)], -1)  # eight more genes that no cell expresses
    more = torch.cat([vectors, torch.randn(8, config.gene_embed_dim)])
    torch.testing.assert_close(encoder(values, vectors), encoder(silent, more), atol=1e-3, rtol=1e-3)
