"""Answers to exercise 3.5: accepted ones, and wrong ones with the hint that each must get."""

import torch


def accepted_logs(logits, unconditional, weight, n_bins):
    log_c, log_0 = logits[..., :n_bins].log_softmax(-1), unconditional[..., :n_bins].log_softmax(-1)
    return (weight * log_c + (1 - weight) * log_0).softmax(-1)


def accepted_raw_logits(logits, unconditional, weight, n_bins):
    return torch.lerp(unconditional[..., :n_bins], logits[..., :n_bins], weight).softmax(-1)


def accepted_powers(logits, unconditional, weight, n_bins):
    p_c, p_0 = logits[..., :n_bins].softmax(-1), unconditional[..., :n_bins].softmax(-1)
    product = p_c**weight * p_0 ** (1 - weight)
    return product / product.sum(-1, keepdim=True)


def wrong_exchanged(logits, unconditional, weight, n_bins):
    """You exchanged the two"""
    return torch.lerp(logits[..., :n_bins], unconditional[..., :n_bins], weight).softmax(-1)


def wrong_probabilities(logits, unconditional, weight, n_bins):
    """You mixed probabilities, and beyond weight 1 they leave [0, 1]"""
    p_c, p_0 = logits[..., :n_bins].softmax(-1), unconditional[..., :n_bins].softmax(-1)
    return p_0 + weight * (p_c - p_0)


def wrong_clipped(logits, unconditional, weight, n_bins):
    """Guidance adds logarithms"""
    p_c, p_0 = logits[..., :n_bins].softmax(-1), unconditional[..., :n_bins].softmax(-1)
    mixed = (p_0 + weight * (p_c - p_0)).clamp(min=0)
    return mixed / mixed.sum(-1, keepdim=True)


def wrong_not_normalised(logits, unconditional, weight, n_bins):
    """You did not normalise"""
    log_c, log_0 = logits[..., :n_bins].log_softmax(-1), unconditional[..., :n_bins].log_softmax(-1)
    return (weight * log_c + (1 - weight) * log_0).exp()


def wrong_mask_inside(logits, unconditional, weight, n_bins):
    """[MASK] kept a part of the probability"""
    return torch.lerp(unconditional, logits, weight).softmax(-1)[..., :n_bins]
