"""A set of control cells -> a memory that every block reads, whatever the order of the cells."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from cdt_lite.model.config import ModelConfig
from cdt_lite.model.layers import MLP, PostNormEncoderLayer


class ControlSetEncoder(nn.Module):
    """Encodes C control cells into C memory vectors.

    v1 (`control_input="tokens"`): an MLP over the raw token ids of a fixed panel, n_genes -> hidden. Default
    (`"genes"`): each cell is the rank-weighted sum of its genes' vectors, so any panel in any order will do.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.control_set_dim_hidden
        if config.control_input == "tokens":
            self.cell = MLP(config.n_genes, hidden, hidden)
        else:
            self.gene = nn.Linear(config.gene_embed_dim, hidden, bias=False)
            self.norm = nn.LayerNorm(hidden)
        self.layers = nn.ModuleList(
            PostNormEncoderLayer(hidden, config.control_set_n_head, config.control_set_dropout)
            for _ in range(config.control_set_encoder_layers))
        self.out = nn.Linear(hidden, config.control_set_dim_out)
        self.reads_tokens = config.control_input == "tokens"

    def forward(self, values: Float[Tensor, "B C G"], gene_vectors: Float[Tensor, "G E"] | None
                ) -> Float[Tensor, "B C M"]:
        """Encodes each set. `values` are raw token ids in v1, token ranks otherwise; `gene_vectors` unused in v1."""
        if self.reads_tokens:
            cells = self.cell(values)
        else:
            cells = self.norm(values @ self.gene(gene_vectors) / math.sqrt(values.shape[-1]))
        for layer in self.layers:
            cells = layer(cells)
        return self.out(cells)
