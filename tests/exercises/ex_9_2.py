"""Answers to exercise 9.2: accepted ones, and wrong ones with the hint that each must get."""

import torch


def accepted_picked(nats, hidden, all_reduce):
    total = all_reduce(torch.tensor(float(hidden.sum())))
    return nats[hidden].sum() / total


def accepted_weights(nats, hidden, all_reduce):
    weight = hidden.float() / all_reduce(hidden.sum()).clamp(min=1)
    return (weight * nats).sum()


def accepted_own_mean_by_share(nats, hidden, all_reduce):
    own = hidden.sum()
    mean = (nats * hidden).sum() / own.clamp(min=1)
    return mean * own / all_reduce(own)


def wrong_own_count(nats, hidden, all_reduce):
    """You divided by your own count"""
    return nats[hidden].mean()


def wrong_mean_of_means(nats, hidden, all_reduce):
    """That is the mean of two means"""
    return nats[hidden].mean() / all_reduce(torch.tensor(1))


def wrong_every_gene(nats, hidden, all_reduce):
    """You counted genes that are visible, too"""
    return (nats * hidden).sum() / all_reduce(torch.tensor(hidden.numel()))


def wrong_visible(nats, hidden, all_reduce):
    """Genes that are visible cost nothing"""
    return nats.sum() / all_reduce(hidden.sum())


def wrong_whole_mean(nats, hidden, all_reduce):
    """You returned the whole mean in each process"""
    return all_reduce((nats * hidden).sum()) / all_reduce(hidden.sum())


def wrong_sum(nats, hidden, all_reduce):
    """You divided nothing"""
    return (nats * hidden).sum()


def wrong_leaves_early(nats, hidden, all_reduce):
    """they would wait for it for ever"""
    if not hidden.any():
        return torch.tensor(0.0)
    return nats[hidden].sum() / all_reduce(hidden.sum())


def wrong_zero_by_zero(nats, hidden, all_reduce):
    """0 / 4 is 0, where 0 / 0 is NaN"""
    share = hidden.sum() / all_reduce(hidden.sum())
    return nats[hidden].mean() * share


def wrong_number(nats, hidden, all_reduce):
    """A plain number has no gradient"""
    return nats[hidden].sum().item() / all_reduce(hidden.sum()).item()


def wrong_detached(nats, hidden, all_reduce):
    """Gradients flow through your own costs alone"""
    return nats.detach()[hidden].sum() / all_reduce(hidden.sum())


def wrong_masks_added(nats, hidden, all_reduce):
    """hand in one number"""
    return (nats * hidden).sum() / all_reduce(hidden.float()).sum()


def wrong_clamped(nats, hidden, all_reduce):
    """You count one hidden gene where there is none"""
    return (nats * hidden).sum() / all_reduce(hidden.sum().clamp(min=1))


def wrong_times_processes(nats, hidden, all_reduce):
    """You multiplied by the number of processes"""
    return (nats * hidden).sum() / all_reduce(hidden.sum()) * all_reduce(torch.tensor(1))
