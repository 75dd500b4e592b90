"""Answers to exercise 3.2: accepted ones, and wrong ones with the hint that each must get."""

import torch
import torch.nn.functional as F


def nll(logits, tokens):
    return -logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def accepted_gather(logits, tokens, mask):
    cost = nll(logits, tokens) * mask
    return cost.sum() / mask.sum(), (cost.sum(-1) / mask.sum(-1)).mean()


def accepted_cross_entropy(logits, tokens, mask):
    cost = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none") * mask
    t = mask.float().mean(-1)
    return cost[mask].mean(), (cost.sum(-1) / t).mean() / mask.shape[-1]


def accepted_loop(logits, tokens, mask):
    cells = [F.cross_entropy(x[hidden], y[hidden]) for x, y, hidden in zip(logits, tokens, mask, strict=True)]
    return F.cross_entropy(logits[mask], tokens[mask]), torch.stack(cells).mean()


def wrong_one_number(logits, tokens, mask):
    """Return two: what is trained"""
    return nll(logits, tokens)[mask].mean()


def wrong_bits(logits, tokens, mask):
    """Your logarithm has base 2"""
    trained, judged = accepted_gather(logits, tokens, mask)
    return trained / torch.tensor(2.0).log(), judged / torch.tensor(2.0).log()


def wrong_twice(logits, tokens, mask):
    """counts the same weight twice"""
    cost, t = nll(logits, tokens) * mask, mask.float().mean(-1)
    return cost.sum() / mask.sum(), (cost.sum(-1) / mask.sum(-1) / t).mean()


def wrong_per_cell(logits, tokens, mask):
    """You give nats per cell"""
    cost, t = nll(logits, tokens) * mask, mask.float().mean(-1)
    return cost.sum() / mask.sum(), (cost.sum(-1) / t).mean()


def wrong_no_weight(logits, tokens, mask):
    """You divided by G without any weight"""
    cost = nll(logits, tokens) * mask
    return cost.sum() / mask.sum(), cost.mean()


def wrong_pooled(logits, tokens, mask):
    """In both you pooled the hidden genes of the batch"""
    mean = nll(logits, tokens)[mask].mean()
    return mean, mean


def wrong_within(logits, tokens, mask):
    """In both you averaged within cells first"""
    _, judged = accepted_gather(logits, tokens, mask)
    return judged, judged


def wrong_exchanged(logits, tokens, mask):
    """You exchanged the two"""
    return accepted_gather(logits, tokens, mask)[::-1]


def wrong_visible(logits, tokens, mask):
    """Visible genes entered your sums"""
    cost = nll(logits, tokens)
    return cost.mean(), cost.mean(-1).mean()


def wrong_way_round(logits, tokens, mask):
    """You took the visible genes"""
    return accepted_gather(logits, tokens, ~mask)


def wrong_way_round_without_division_by_zero(logits, tokens, mask):
    """You took the visible genes"""
    cost = nll(logits, tokens) * ~mask
    return cost.sum() / (~mask).sum(), (cost.sum(-1) / (~mask).sum(-1).clamp(min=1)).mean()


def wrong_logits(logits, tokens, mask):
    """Logits are no log-probabilities yet"""
    cost = -logits.gather(-1, tokens[..., None])[..., 0] * mask
    return cost.sum() / mask.sum(), (cost.sum(-1) / mask.sum(-1)).mean()


def wrong_token_zero(logits, tokens, mask):
    """Gather at tokens, gene by gene"""
    return accepted_gather(logits, torch.zeros_like(tokens), mask)


def wrong_cut(logits, tokens, mask):
    """.item() and float() cut the gradient"""
    trained, judged = accepted_gather(logits, tokens, mask)
    return torch.tensor(trained.item()), torch.tensor(judged.item())


def wrong_overflow(logits, tokens, mask):
    """exp(1000) overflows, and inf"""
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    cost = -p.log().gather(-1, tokens[..., None])[..., 0] * mask
    return cost.sum() / mask.sum(), (cost.sum(-1) / mask.sum(-1)).mean()


def wrong_sign(logits, tokens, mask):
    """change the sign"""
    trained, judged = accepted_gather(logits, tokens, mask)
    return -trained, -judged


def wrong_softmax_over_genes(logits, tokens, mask):
    """Your softmax runs over genes"""
    cost = -logits.log_softmax(1).gather(-1, tokens[..., None])[..., 0] * mask
    return cost.sum() / mask.sum(), (cost.sum(-1) / mask.sum(-1)).mean()
