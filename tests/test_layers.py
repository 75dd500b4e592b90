import math

import pytest
import torch
from torch import nn

from cdt_lite.model.layers import (
    MLP,
    ModulatedResidual,
    MultiQueryAttention,
    PostNormEncoderLayer,
    Residual,
    attend,
    token_rank,
)


def attention_by_loops(layer: MultiQueryAttention, x, memory=None):
    """Multi-query attention spelled out head by head, position by position."""
    if memory is None:
        q, k, v = layer.qkv(x).split([layer.n_head * layer.head_dim, layer.head_dim, layer.head_dim], -1)
    else:
        q, (k, v) = layer.q(x), layer.kv(memory).chunk(2, -1)
    out = torch.zeros_like(q)
    for n in range(x.shape[0]):
        for h in range(layer.n_head):
            columns = slice(h * layer.head_dim, (h + 1) * layer.head_dim)
            weights = (q[n, :, columns] @ k[n].T / math.sqrt(layer.head_dim)).softmax(-1)
            out[n, :, columns] = weights @ v[n]
    return layer.out(out)


@pytest.mark.parametrize("cross", [False, True])
def test_folding_heads_into_queries_is_exact_attention(cross):
    torch.manual_seed(0)
    layer = MultiQueryAttention(24, 3, 10 if cross else None).double()
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    memory = torch.randn(2, 7, 10, dtype=torch.float64) if cross else None
    torch.testing.assert_close(layer(x, memory), attention_by_loops(layer, x, memory))


@pytest.mark.parametrize("groups", [1, 2, 6, 24])
def test_questions_in_any_number_of_groups_get_the_same_answers_and_gradients(groups):
    """Folded (one group) and expanded over cells and heads, as a GPU wants it where sets are few."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, n, 8, dtype=torch.float64, requires_grad=True) for n in (24, 5, 5))
    expected = ((q @ k.mT / math.sqrt(8)).softmax(-1) @ v)
    found = attend(q, k, v, groups)
    torch.testing.assert_close(found.flatten(1, 2), expected)
    ours, theirs = (torch.autograd.grad(out.square().sum(), (q, k, v), retain_graph=True) for out in (found, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", [nn.attention.SDPBackend.MATH, nn.attention.SDPBackend.FLASH_ATTENTION])
def test_attention_backends_agree(backend):
    torch.manual_seed(0)
    layer, x = MultiQueryAttention(32, 4), torch.randn(2, 9, 32)
    with nn.attention.sdpa_kernel(backend):
        torch.testing.assert_close(layer(x), attention_by_loops(layer, x), atol=1e-5, rtol=1e-5)


def test_weights_are_probabilities_and_reproduce_the_output():
    torch.manual_seed(0)
    layer, x = MultiQueryAttention(12, 3).double(), torch.randn(2, 5, 12, dtype=torch.float64)
    w, v = layer.weights(x), layer.project(x)[2]
    torch.testing.assert_close(w.sum(-1), torch.ones(2, 3, 5, dtype=torch.float64))
    mixed = torch.einsum("nhgm,nmd->nghd", w, v).flatten(2)
    torch.testing.assert_close(layer.out(mixed), layer(x))


def test_multi_query_parameter_count_is_2D2_plus_2Dh():
    d, h = 512, 8
    for layer in (MultiQueryAttention(d, h), MultiQueryAttention(d, h, d)):
        matrices = [p.numel() for p in layer.parameters() if p.ndim == 2]
        assert sum(matrices) == 2 * d * d + 2 * d * (d // h)


def test_encoder_layer_equals_torchs_own():
    torch.manual_seed(0)
    ours = PostNormEncoderLayer(16, 4, dropout=0.1)
    theirs = nn.TransformerEncoderLayer(16, 4, 64, 0.1, "gelu", batch_first=True)
    theirs.load_state_dict({
        "self_attn.in_proj_weight": ours.qkv.weight, "self_attn.in_proj_bias": ours.qkv.bias,
        "self_attn.out_proj.weight": ours.out.weight, "self_attn.out_proj.bias": ours.out.bias,
        "linear1.weight": ours.mlp[0].weight, "linear1.bias": ours.mlp[0].bias,
        "linear2.weight": ours.mlp[2].weight, "linear2.bias": ours.mlp[2].bias,
        "norm1.weight": ours.norm1.weight, "norm1.bias": ours.norm1.bias,
        "norm2.weight": ours.norm2.weight, "norm2.bias": ours.norm2.bias})
    x = torch.randn(3, 6, 16)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours.train()(x), ours.eval()(x))  # dropout is there in training


def test_a_fresh_modulated_step_is_the_identity_and_opens_with_its_gate():
    step, h = ModulatedResidual(8, MLP(8, 16, 8)), torch.randn(2, 3, 5, 8)
    closed = torch.zeros(2, 3, 3, 8)
    assert torch.equal(step(h, closed), h)
    gate = closed.clone()
    gate[:, :, 2] = 1.0  # shift, scale, gate
    torch.testing.assert_close(step(h, gate), h + step.inner(step.norm(h)))


def test_cells_of_a_set_read_the_same_memory_each_for_itself():
    torch.manual_seed(0)
    step = Residual(8, MultiQueryAttention(8, 2, 6))
    h, memory = torch.randn(2, 3, 5, 8), torch.randn(2, 4, 6)
    together = step(h, memory)
    for s in range(3):
        cell = slice(s, s + 1)
        torch.testing.assert_close(together[:, cell], step(h[:, cell], memory))


def test_a_token_rank_rises_from_0_to_1_and_the_mask_has_none():
    ranks = token_rank(torch.arange(64), 63)
    assert ranks[0] == 0 and ranks[62] == pytest.approx(1) and (ranks[:63].diff() > 0).all()
    assert ranks[63] == 0
    assert ranks[1] == pytest.approx(math.log(2) / math.log(63))
