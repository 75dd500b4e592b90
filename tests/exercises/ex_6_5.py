"""Answers to exercise 6.5: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_permutation(replicate, rng):
    truth, ours = [], []
    for name in np.unique(replicate):
        rows = rng.permutation(np.flatnonzero(replicate == name))
        truth.append(rows[: len(rows) // 2])
        ours.append(rows[len(rows) // 2:])
    return np.concatenate(truth), np.concatenate(ours)


def accepted_alternate(replicate, rng):
    mixed = rng.permutation(len(replicate))
    mixed = mixed[np.argsort(replicate[mixed], kind="stable")]
    return mixed[::2], mixed[1::2]


def wrong_shared(replicate, rng):
    """A control stands on both sides"""
    everyone = np.arange(len(replicate))
    return everyone, everyone


def wrong_independent(replicate, rng):
    """Some controls are lost or stand twice"""
    n = len(replicate)
    return rng.choice(n, n // 2, replace=False), rng.choice(n, n // 2, replace=False)


def wrong_equal_halves(replicate, rng):
    """you dropped a control"""
    parts = [rng.permutation(np.flatnonzero(replicate == name)) for name in np.unique(replicate)]
    return (np.concatenate([p[: len(p) // 2] for p in parts]),
            np.concatenate([p[len(p) // 2: len(p) // 2 * 2] for p in parts]))


def wrong_pooled(replicate, rng):
    """Your halves differ in their replicates"""
    mixed = rng.permutation(len(replicate))
    return mixed[: len(mixed) // 2], mixed[len(mixed) // 2:]


def wrong_middle(replicate, rng):
    """You cut the list in the middle"""
    parts = [np.flatnonzero(replicate == name) for name in np.unique(replicate)]
    return (np.concatenate([p[: len(p) // 2] for p in parts]), np.concatenate([p[len(p) // 2:] for p in parts]))


def wrong_global_chance(replicate, rng):
    """Chance came from elsewhere"""
    truth, ours = [], []
    for name in np.unique(replicate):
        rows = np.random.permutation(np.flatnonzero(replicate == name))
        truth.append(rows[: len(rows) // 2])
        ours.append(rows[len(rows) // 2 :])
    return np.concatenate(truth), np.concatenate(ours)


def wrong_masks(replicate, rng):
    """Row numbers are asked for, not masks"""
    truth, _ = accepted_permutation(replicate, rng)
    marked = np.isin(np.arange(len(replicate)), truth)
    return marked, ~marked


def _dealt(replicate, order):
    parts = [order(np.flatnonzero(replicate == name)) for name in np.unique(replicate)]
    return (np.concatenate([p[: len(p) // 2] for p in parts]), np.concatenate([p[len(p) // 2 :] for p in parts]))


def wrong_fixed_seed(replicate, rng):
    """You shuffle, and always alike"""
    own = np.random.default_rng(0)
    return _dealt(replicate, own.permutation)


def wrong_every_second(replicate, rng):
    """You took every second cell"""
    parts = [np.flatnonzero(replicate == name) for name in np.unique(replicate)]
    return np.concatenate([p[::2] for p in parts]), np.concatenate([p[1::2] for p in parts])


def wrong_places(replicate, rng):
    """These are places within a replicate"""
    return _dealt(replicate, lambda rows: rng.permutation(len(rows)))


def wrong_one_seed(replicate, rng):
    """You shuffle all replicates in one and the same order"""
    seed = rng.integers(1_000_000)
    return _dealt(replicate, lambda rows: np.random.default_rng(seed).permutation(rows))
