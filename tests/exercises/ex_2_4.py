"""Answers to exercise 2.4: accepted ones, and wrong ones with the hint that each must get."""

import torch
import torch.nn.functional as F


def norm(h):
    return F.layer_norm(h, h.shape[-1:])


def accepted_step(h, shift, scale, gate, inner):
    return h + gate * inner(norm(h) * (1 + scale) + shift)


def accepted_by_hand(h, shift, scale, gate, inner):
    centred = h - h.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return torch.addcmul(h, gate, inner(torch.addcmul(normed + shift, normed, scale)))


def wrong_scale(h, shift, scale, gate, inner):
    """At scale 0 the norm must pass"""
    return h + gate * inner(norm(h) * scale + shift)


def wrong_stream_normalised(h, shift, scale, gate, inner):
    """The stream itself is not normalised"""
    return norm(h) + gate * inner(norm(h) * (1 + scale) + shift)


def wrong_no_residual(h, shift, scale, gate, inner):
    """Add h: the step is"""
    return gate * inner(norm(h) * (1 + scale) + shift)


def wrong_gate_inside(h, shift, scale, gate, inner):
    """The gate multiplies what inner returns"""
    return h + inner(gate * (norm(h) * (1 + scale) + shift))


def wrong_no_norm(h, shift, scale, gate, inner):
    """it needs norm(h)"""
    return h + gate * inner(h * (1 + scale) + shift)


def wrong_shift_first(h, shift, scale, gate, inner):
    """You shift first and scale after"""
    return h + gate * inner((norm(h) + shift) * (1 + scale))


def wrong_exchanged(h, shift, scale, gate, inner):
    """Shift and scale are exchanged"""
    return h + gate * inner(norm(h) * (1 + shift) + scale)


def wrong_sample_spread(h, shift, scale, gate, inner):
    """not of the sum over D - 1"""
    normed = (h - h.mean(-1, keepdim=True)) / (h.std(-1, keepdim=True) + 1e-5)
    return h + gate * inner(normed * (1 + scale) + shift)


def wrong_over_positions(h, shift, scale, gate, inner):
    """not over positions"""
    return h + gate * inner(norm(h.T).T * (1 + scale) + shift)


def wrong_no_floor(h, shift, scale, gate, inner):
    """A spread of 0 must not divide"""
    normed = (h - h.mean(-1, keepdim=True)) / h.std(-1, keepdim=True, unbiased=False)
    return h + gate * inner(normed * (1 + scale) + shift)


def wrong_output_modulated(h, shift, scale, gate, inner):
    """not on what it returns"""
    return h + gate * (inner(norm(h)) * (1 + scale) + shift)


def wrong_output_shifted(h, shift, scale, gate, inner):
    """The shift, too, acts on what inner is given"""
    return h + gate * (inner(norm(h) * (1 + scale)) + shift)
