"""Answers to exercise 2.6: accepted ones, and wrong ones with the hint that each must get."""

from torch import nn


def accepted_formula(dim, n_head, ffn_mult, memory_dim):
    hd, m = dim // n_head, ffn_mult * dim
    self_attention = dim * (dim + 2 * hd) + dim + 2 * hd + dim * dim + dim
    cross = dim * dim + dim + memory_dim * 2 * hd + 2 * hd + dim * dim + dim
    return self_attention + cross + dim * m + m + m * dim + dim + 6 * dim


def accepted_modules(dim, n_head, ffn_mult, memory_dim):
    hd, m = dim // n_head, ffn_mult * dim
    layers = [nn.Linear(dim, dim + 2 * hd), nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(memory_dim, 2 * hd),
              nn.Linear(dim, dim), nn.Linear(dim, m), nn.Linear(m, dim), *(nn.LayerNorm(dim) for _ in range(3))]
    return sum(p.numel() for layer in layers for p in layer.parameters())


def wrong_full_keys(dim, n_head, ffn_mult, memory_dim):
    """Keys and values have ONE head"""
    m = ffn_mult * dim
    return 6 * (dim + 1) * dim + 2 * (memory_dim + 1) * dim + (dim + 1) * m + (m + 1) * dim + 6 * dim


def wrong_memory_width(dim, n_head, ffn_mult, memory_dim):
    """Cross-attention makes keys and values from the memory"""
    return accepted_formula(dim, n_head, ffn_mult, dim)


def wrong_mlp_bias(dim, n_head, ffn_mult, memory_dim):
    """The MLP has two matrices"""
    return accepted_formula(dim, n_head, ffn_mult, memory_dim) - ffn_mult * dim - dim


def wrong_no_norms(dim, n_head, ffn_mult, memory_dim):
    """three LayerNorms hold a weight and a bias"""
    return accepted_formula(dim, n_head, ffn_mult, memory_dim) - 6 * dim


def wrong_example_only(dim, n_head, ffn_mult, memory_dim):
    """use the arguments, not the numbers of the example"""
    return accepted_formula(dim, n_head, ffn_mult, memory_dim) - 6 * dim + 6 * 8


def wrong_no_out(dim, n_head, ffn_mult, memory_dim):
    """An out projection is missing"""
    return accepted_formula(dim, n_head, ffn_mult, memory_dim) - (dim + 1) * dim


def wrong_six_blocks(dim, n_head, ffn_mult, memory_dim):
    """One block is asked for, not six"""
    return 6 * accepted_formula(dim, n_head, ffn_mult, memory_dim)


def wrong_one_attention(dim, n_head, ffn_mult, memory_dim):
    """Only one of the two attentions is counted"""
    hd, m = dim // n_head, ffn_mult * dim
    return (dim + 1) * (2 * dim + 2 * hd) + (dim + 1) * m + (m + 1) * dim + 6 * dim
