"""Answers to exercise 2.3: accepted ones, and wrong ones with the hint that each must get."""

import torch
import torch.nn.functional as F


def accepted_fold(q, k, v):
    return F.scaled_dot_product_attention(q.reshape(q.shape[0], -1, k.shape[-1]), k, v).reshape(q.shape)


def accepted_softmax(q, k, v):
    n, hd = k.shape[0], k.shape[2]
    folded = q.reshape(n, -1, hd)
    weights = torch.softmax(folded @ k.mT / hd**0.5, -1)
    return (weights @ v).view(q.shape)


def accepted_head_by_head(q, k, v):
    return torch.cat([F.scaled_dot_product_attention(part, k, v) for part in q.split(k.shape[-1], -1)], -1)


def wrong_not_unfolded(q, k, v):
    """Unfold at the end"""
    return F.scaled_dot_product_attention(q.reshape(q.shape[0], -1, k.shape[-1]), k, v)


def wrong_transposed(q, k, v):
    """Heads and positions were exchanged"""
    n, g, hd = q.shape[0], q.shape[1], k.shape[-1]
    folded = q.view(n, g, -1, hd).transpose(1, 2).reshape(n, -1, hd)
    return F.scaled_dot_product_attention(folded, k, v).reshape(q.shape)


def wrong_scale(q, k, v):
    """the width of a query is hd, not D"""
    folded = q.reshape(q.shape[0], -1, k.shape[-1])
    return F.scaled_dot_product_attention(folded, k, v, scale=q.shape[-1] ** -0.5).reshape(q.shape)


def wrong_two_heads(q, k, v):
    """Take H from the shapes"""
    if q.shape[-1] == k.shape[-1]:
        return accepted_fold(q, k, v)
    halves = [F.scaled_dot_product_attention(part[..., :k.shape[-1]], k, v) for part in q.chunk(2, -1)]
    return torch.cat(halves, -1)


def wrong_no_softmax(q, k, v):
    """The scores have the wrong scale"""
    folded = q.reshape(q.shape[0], -1, k.shape[-1])
    return ((folded @ k.mT) / k.shape[1] @ v).reshape(q.shape)


def wrong_exchanged(q, k, v):
    """k and v are exchanged"""
    return F.scaled_dot_product_attention(q.reshape(q.shape[0], -1, k.shape[-1]), v, k).reshape(q.shape)


def wrong_causal(q, k, v):
    """is_causal stays False"""
    folded = q.reshape(q.shape[0], -1, k.shape[-1])
    return F.scaled_dot_product_attention(folded, k, v, is_causal=True).reshape(q.shape)


def wrong_all_cells_together(q, k, v):
    """Cells read each other"""
    hd = k.shape[-1]
    parts = q.reshape(1, -1, hd), k.reshape(1, -1, hd), v.reshape(1, -1, hd)
    return F.scaled_dot_product_attention(*parts).reshape(q.shape)


def wrong_first_cell(q, k, v):
    """Every cell reads the first cell's keys"""
    folded = q.reshape(q.shape[0], -1, k.shape[-1])
    return F.scaled_dot_product_attention(folded, k[:1].expand_as(k), v[:1].expand_as(v)).reshape(q.shape)
