"""Answers to exercise 4.4: accepted ones, and wrong ones with the hint that each must get."""

import torch


def accepted_list(batches):
    costs = []
    for nll, mask in batches:
        costs += [float(cell[hidden].mean()) for cell, hidden in zip(nll, mask, strict=True) if hidden.any()]
    return sum(costs) / len(costs)


def accepted_joined(batches):
    nll, mask = (torch.cat(parts) for parts in zip(*batches, strict=True))
    k = mask.sum(-1)
    return ((nll * mask).sum(-1)[k > 0] / k[k > 0]).mean().item()


def wrong_pooled(batches):
    """You pooled the hidden genes of all cells"""
    return float(torch.cat([nll[mask] for nll, mask in batches]).mean())


def wrong_mean_of_batches(batches):
    """You averaged the batches"""
    means = []
    for nll, mask in batches:
        k = mask.sum(-1)
        means.append(float(((nll * mask).sum(-1)[k > 0] / k[k > 0]).mean()))
    return sum(means) / len(means)


def wrong_nan(batches):
    """A cell with nothing hidden gave 0/0"""
    return float(torch.cat([(nll * mask).sum(-1) / mask.sum(-1) for nll, mask in batches]).mean())


def wrong_free_cell(batches):
    """or a cost of zero"""
    return float(torch.cat([(nll * mask).sum(-1) / mask.sum(-1).clamp(min=1) for nll, mask in batches]).mean())


def wrong_visible(batches):
    """Visible genes entered the cost"""
    return float(torch.cat([nll[mask.any(-1)].mean(-1) for nll, mask in batches]).mean())


def wrong_tensor(batches):
    """Return a plain number"""
    return torch.cat([torch.stack([c[h].mean() for c, h in zip(nll, mask, strict=True) if h.any()])
                      for nll, mask in batches]).mean()


def wrong_rows(batches):
    """rows with nothing hidden counted"""
    total, rows = 0.0, 0
    for nll, mask in batches:
        costs = [cell[hidden].mean() for cell, hidden in zip(nll, mask, strict=True) if hidden.any()]
        if costs:
            total += float(sum(costs)) / len(costs) * len(nll)
            rows += len(nll)
    return total / rows


def wrong_zeros_dropped(batches):
    """You dropped a hidden gene that cost 0"""
    rows = [row for nll, mask in batches for row in nll * mask]
    return float(torch.stack([row[row != 0].mean() for row in rows if row.any()]).mean())


def wrong_inverted(batches):
    """You took the visible genes"""
    return float(torch.stack([c[~h].mean() for nll, mask in batches for c, h in zip(nll, mask, strict=True)]).mean())


def wrong_first_batch(batches):
    """You stopped after the first batch"""
    return accepted_list(batches[:1])
