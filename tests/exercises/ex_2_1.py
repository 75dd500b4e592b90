"""Answers to exercise 2.1: accepted ones, and wrong ones with the hint that each must get."""

import torch


def accepted_matmul(q, k, v):
    return torch.softmax(q @ k.T / q.shape[-1] ** 0.5, -1) @ v


def accepted_einsum(q, k, v):
    scores = torch.einsum("hgd,md->hgm", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("hgm,md->hgd", scores.softmax(-1), v)


def accepted_loops(q, k, v):
    rows = [[torch.softmax(k @ asked / len(asked) ** 0.5, 0) @ v for asked in head] for head in q]
    return torch.stack([torch.stack(head) for head in rows])


def wrong_no_scale(q, k, v):
    """Divide q·k by the root of the head's width"""
    return torch.softmax(q @ k.T, -1) @ v


def wrong_by_width(q, k, v):
    """not by the width itself"""
    return torch.softmax(q @ k.T / q.shape[-1], -1) @ v


def wrong_softmax_over_queries(q, k, v):
    """softmax over the last axis"""
    return torch.softmax(q @ k.T / q.shape[-1] ** 0.5, dim=1) @ v


def wrong_first_head(q, k, v):
    """no head may be mixed with, or copied from, another"""
    return (torch.softmax(q[:1] @ k.T / q.shape[-1] ** 0.5, -1) @ v).expand(q.shape)


def wrong_mean_of_heads(q, k, v):
    """no head may be mixed with, or copied from, another"""
    weights = torch.softmax(q @ k.T / q.shape[-1] ** 0.5, -1)
    return weights.mean(0, keepdim=True).expand_as(weights) @ v


def wrong_root_of_all_heads(q, k, v):
    """the root is of hd, not of H*hd"""
    return torch.softmax(q @ k.T / (q.shape[0] * q.shape[-1]) ** 0.5, -1) @ v


def wrong_ready_made(q, k, v):
    """Write the product, the softmax and the sum yourself"""
    return torch.nn.functional.scaled_dot_product_attention(q, k.expand(len(q), -1, -1), v.expand(len(q), -1, -1))


def wrong_exchanged(q, k, v):
    """k and v are exchanged"""
    return torch.softmax(q @ v.T / q.shape[-1] ** 0.5, -1) @ k


def wrong_causal(q, k, v):
    """leave the causal mask out"""
    hidden = torch.ones(q.shape[1], k.shape[0]).triu(1).bool()
    return torch.softmax((q @ k.T / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf), -1) @ v


def wrong_averaged(q, k, v):
    """The heads were averaged"""
    return (torch.softmax(q @ k.T / q.shape[-1] ** 0.5, -1) @ v).mean(0)


def wrong_merged(q, k, v):
    """The heads were merged"""
    return (torch.softmax(q @ k.T / q.shape[-1] ** 0.5, -1) @ v).transpose(0, 1).flatten(1)
