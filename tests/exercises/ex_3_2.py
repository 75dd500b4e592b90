"""Answers to exercise 3.2: accepted ones, and wrong ones with the hint that each must get."""

import torch


def accepted_within_cells(nll, mask):
    return ((nll * mask).sum(-1) / mask.sum(-1)).mean()


def accepted_weight(nll, mask):
    t = mask.float().mean(-1)
    return ((nll * mask).sum(-1) / t).mean() / mask.shape[-1]


def accepted_loop(nll, mask):
    return torch.stack([cell[hidden].mean() for cell, hidden in zip(nll, mask, strict=True)]).mean()


def accepted_python_float(nll, mask):
    return float(((nll * mask).sum(-1) / mask.sum(-1)).mean())


def wrong_per_cell(nll, mask):
    """You give nats per cell"""
    return ((nll * mask).sum(-1) / mask.float().mean(-1)).mean()


def wrong_twice(nll, mask):
    """counts the same weight twice"""
    return ((nll * mask).sum(-1) / mask.sum(-1) / mask.float().mean(-1)).mean()


def wrong_no_weight(nll, mask):
    """You divided by G without any weight"""
    return (nll * mask).mean()


def wrong_pooled(nll, mask):
    """You pooled the hidden genes of the batch"""
    return nll[mask].mean()


def wrong_visible(nll, mask):
    """Visible genes entered your sum"""
    return nll.mean()


def wrong_sum(nll, mask):
    """You give nats per cell"""
    return float((nll * mask).sum(-1).mean())
