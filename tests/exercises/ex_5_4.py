"""Answers to exercise 5.4: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def weights(target, sets, names, of_set=lambda genes: 1 / np.log(2 + len(genes))):
    return np.array([sum(of_set(genes) for genes in sets.values() if {target, name} <= genes) for name in names])


def accepted_loop(target, sets, changes):
    others = changes.drop(index=target, errors="ignore")
    weight = weights(target, sets, others.index)
    if weight.sum() == 0:
        return others.to_numpy().mean(0)
    return weight @ others.to_numpy() / weight.sum()


def accepted_average(target, sets, changes):
    names = [name for name in changes.index if name != target]
    weight = weights(target, sets, names)
    return np.average(changes.loc[names].to_numpy(), axis=0, weights=weight if weight.any() else None)


def accepted_memberships(target, sets, changes):
    others = changes[changes.index != target]
    table = np.array([[name in genes for genes in sets.values()] for name in others.index], float)
    own = np.array([target in genes for genes in sets.values()]) / np.log([2 + len(genes) for genes in sets.values()])
    weight = table @ own
    weight = weight if weight.any() else np.ones(len(others))
    return (weight[:, None] * others.to_numpy()).sum(0) / weight.sum()


def wrong_mean_of_all(target, sets, changes):
    """That is the mean of all"""
    return changes.drop(index=target, errors="ignore").to_numpy().mean(0)


def wrong_alike(target, sets, changes):
    """All relatives weigh alike here"""
    others = changes.drop(index=target, errors="ignore")
    weight = weights(target, sets, others.index) > 0
    return others.to_numpy()[weight].mean(0) if weight.any() else others.to_numpy().mean(0)


def wrong_counted(target, sets, changes):
    """A set weighs the same whatever its size"""
    others = changes.drop(index=target, errors="ignore")
    weight = weights(target, sets, others.index, lambda genes: 1.0)
    return np.average(others.to_numpy(), axis=0, weights=weight if weight.any() else None)


def wrong_large_sets(target, sets, changes):
    """Large sets weigh more than small ones"""
    others = changes.drop(index=target, errors="ignore")
    weight = weights(target, sets, others.index, lambda genes: np.log(2 + len(genes)))
    return np.average(others.to_numpy(), axis=0, weights=weight if weight.any() else None)


def wrong_measured_size(target, sets, changes):
    """those without a measured change among them"""
    others = changes.drop(index=target, errors="ignore")
    weight = weights(target, sets, others.index, lambda genes: 1 / np.log(2 + others.index.isin(list(genes)).sum()))
    return np.average(others.to_numpy(), axis=0, weights=weight if weight.any() else None)


def wrong_without_two(target, sets, changes):
    """You left out the 2"""
    others = changes.drop(index=target, errors="ignore")
    weight = weights(target, sets, others.index, lambda genes: 1 / np.log(len(genes)))
    return np.average(others.to_numpy(), axis=0, weights=weight if weight.any() else None)


def wrong_sum(target, sets, changes):
    """divide by the sum of the weights"""
    others = changes.drop(index=target, errors="ignore")
    weight = weights(target, sets, others.index)
    return weight @ others.to_numpy() if weight.any() else others.to_numpy().mean(0)


def wrong_own_row(target, sets, changes):
    """IFNGR1 was predicted from itself"""
    weight = weights(target, sets, changes.index)
    return np.average(changes.to_numpy(), axis=0, weights=weight if weight.any() else None)


def wrong_no_relatives(target, sets, changes):
    """Neither NaN nor 0"""
    others = changes.drop(index=target, errors="ignore")
    weight = weights(target, sets, others.index)
    return weight @ others.to_numpy() / max(weight.sum(), 1e-9)


def wrong_own_row_in_the_mean(target, sets, changes):
    """its own row is in your mean"""
    others = changes.drop(index=target, errors="ignore")
    weight = weights(target, sets, others.index)
    return weight @ others.to_numpy() / weight.sum() if weight.any() else changes.to_numpy().mean(0)


def wrong_name_inside(target, sets, changes):
    """You found one name inside another"""
    others = changes.drop(index=target, errors="ignore")
    weight = np.zeros(len(others))
    for genes in sets.values():
        if target in genes:
            weight += np.array([name in " ".join(sorted(genes)) for name in others.index]) / np.log(2 + len(genes))
    return np.average(others.to_numpy(), axis=0, weights=weight if weight.any() else None)


def wrong_series(target, sets, changes):
    """Compare type and shape first"""
    others = changes.drop(index=target, errors="ignore")
    weight = weights(target, sets, others.index)
    weight = weight if weight.any() else np.ones(len(others))
    return others.mul(weight, axis=0).sum() / weight.sum()


def wrong_nearest(target, sets, changes):
    """You took the nearest relative alone"""
    others = changes.drop(index=target, errors="ignore")
    weight = weights(target, sets, others.index)
    return others.to_numpy()[weight.argmax()] if weight.any() else others.to_numpy().mean(0)
