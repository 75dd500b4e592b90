"""Answers to exercise 2.2: accepted ones, and wrong ones with the hint that each must get."""

import torch


def accepted_transpose(q, n_head):
    return q.view(q.shape[0], n_head, -1).transpose(0, 1)


def accepted_slices(q, n_head):
    width = q.shape[1] // n_head
    return torch.stack([q[:, h * width:(h + 1) * width] for h in range(n_head)])


def accepted_chunks(q, n_head):
    return torch.stack(q.chunk(n_head, dim=-1))


def wrong_view(q, n_head):
    """A view to (H, G, hd) cuts the numbers in the order in which they lie"""
    return q.view(n_head, q.shape[0], -1)


def wrong_not_swapped(q, n_head):
    """The order of axes is heads, positions, columns"""
    return q.view(q.shape[0], n_head, -1)


def wrong_every_other(q, n_head):
    """A head owns neighbouring columns"""
    return q.view(q.shape[0], -1, n_head).permute(2, 0, 1)


def wrong_two_heads(q, n_head):
    """take the number of heads from `n_head`"""
    return q.view(q.shape[0], 2, -1).transpose(0, 1)


def wrong_from_the_right(q, n_head):
    """Heads are counted from the left"""
    return q.view(q.shape[0], n_head, -1).transpose(0, 1).flip(0)


def wrong_transposed_first(q, n_head):
    """Positions are mixed"""
    return q.T.reshape(n_head, q.shape[0], -1)
