"""Answers to exercise 5.2: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_isin(counts, target, unseen, n_top):
    train = ~np.isin(target, unseen)
    return train, np.argsort(-counts[train].var(0), kind="stable")[:n_top]


def accepted_loop(counts, target, unseen, n_top):
    train = np.array([name not in unseen for name in target])
    spread = [counts[train, g].std() for g in range(counts.shape[1])]
    return train, np.array(sorted(range(len(spread)), key=lambda g: -spread[g])[:n_top])


def wrong_random_cells(counts, target, unseen, n_top):
    """You split cells at random"""
    train = np.random.default_rng(0).random(len(target)) < 0.8
    return train, np.argsort(-counts[train].var(0))[:n_top]


def wrong_all_cells(counts, target, unseen, n_top):
    """You picked genes on all cells"""
    return ~np.isin(target, unseen), np.argsort(-counts.var(0))[:n_top]


def wrong_no_controls(counts, target, unseen, n_top):
    """You left the controls out"""
    train = ~np.isin(target, unseen) & (target != "non-targeting")
    return train, np.argsort(-counts[train].var(0))[:n_top]


def wrong_first_name_only(counts, target, unseen, n_top):
    """`unseen` may name several targets"""
    train = target != unseen[-1]
    return train, np.argsort(-counts[train].var(0))[:n_top]


def wrong_half_of_others(counts, target, unseen, n_top):
    """You withheld cells of targets that are not on the list"""
    train = ~np.isin(target, unseen) & ((target == "non-targeting") | (np.arange(len(target)) < 6))
    return train, np.argsort(-counts[train].var(0))[:n_top]


def wrong_perturbed_only(counts, target, unseen, n_top):
    """without unperturbed cells in training there is nothing to compare with"""
    train = ~np.isin(target, [*unseen, "non-targeting"])
    return train, np.argsort(-counts[train].var(0))[:n_top]


def wrong_upwards(counts, target, unseen, n_top):
    """You sorted the wrong way"""
    train = ~np.isin(target, unseen)
    return train, np.argsort(counts[train].var(0))[-n_top:]


def wrong_mean(counts, target, unseen, n_top):
    """And the variance, not the mean"""
    train = ~np.isin(target, unseen)
    return train, np.argsort(-counts[train].mean(0), kind="stable")[:n_top]


def wrong_inside(counts, target, unseen, n_top):
    """You found one name inside another"""
    train = np.array([not any(name in each for name in unseen) for each in target.tolist()])
    return train, np.argsort(-counts[train].var(0), kind="stable")[:n_top]


def wrong_inverted(counts, target, unseen, n_top):
    """Your mask is inverted"""
    test = np.isin(target, unseen)
    return test, np.argsort(-counts[~test].var(0), kind="stable")[:n_top]


def _by(score):
    def answer(counts, target, unseen, n_top):
        train = ~np.isin(target, unseen)
        return train, np.argsort(-score(counts[train]), kind="stable")[:n_top]

    return answer


def wrong_logarithm(counts, target, unseen, n_top):
    """not of their logarithms"""
    return _by(lambda x: np.log1p(x).var(0))(counts, target, unseen, n_top)


def wrong_dispersion(counts, target, unseen, n_top):
    """you divided it by the mean"""
    return _by(lambda x: x.var(0) / np.maximum(x.mean(0), 1e-9))(counts, target, unseen, n_top)


def wrong_by_number(counts, target, unseen, n_top):
    """The right genes in the wrong order"""
    train, genes = accepted_isin(counts, target, unseen, n_top)
    return train, np.sort(genes)


def wrong_least(counts, target, unseen, n_top):
    """You took the genes that vary least"""
    return _by(lambda x: -x.var(0))(counts, target, unseen, n_top)


def wrong_rows(counts, target, unseen, n_top):
    """The first value is a mask"""
    train, genes = accepted_isin(counts, target, unseen, n_top)
    return np.flatnonzero(train), genes
