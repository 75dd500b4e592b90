"""Answers to exercise 5.1: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_setdiff(own, replicate, is_control, n, rng):
    pool = np.setdiff1d(np.flatnonzero(is_control & (replicate == replicate[own[0]])), own)
    return rng.choice(pool, n, replace=len(pool) < n)


def accepted_loop(own, replicate, is_control, n, rng):
    pool = [i for i in range(len(replicate)) if is_control[i] and replicate[i] == replicate[own[0]] and i not in own]
    if len(pool) >= n:
        return np.array(rng.permutation(pool)[:n])
    return np.array([pool[rng.integers(len(pool))] for _ in range(n)])


def accepted_mask(own, replicate, is_control, n, rng):
    free = is_control & (replicate == replicate[own[0]])
    free[own] = False
    return rng.choice(np.flatnonzero(free), size=n, replace=bool(free.sum() < n))


def wrong_any_cell(own, replicate, is_control, n, rng):
    """You drew perturbed cells too"""
    pool = np.setdiff1d(np.flatnonzero(replicate == replicate[own[0]]), own)
    return rng.choice(pool, n, replace=len(pool) < n)


def wrong_all_replicates(own, replicate, is_control, n, rng):
    """You drew from the controls of all replicates"""
    return rng.choice(np.setdiff1d(np.flatnonzero(is_control), own), n, replace=False)


def wrong_replacement(own, replicate, is_control, n, rng):
    """You drew with replacement"""
    pool = np.setdiff1d(np.flatnonzero(is_control & (replicate == replicate[own[0]])), own)
    return np.sort(rng.choice(pool, n, replace=True))


def wrong_too_few(own, replicate, is_control, n, rng):
    """A replicate may hold fewer than n controls"""
    pool = np.setdiff1d(np.flatnonzero(is_control & (replicate == replicate[own[0]])), own)
    return rng.permutation(pool)[:n]


def wrong_own_cells(own, replicate, is_control, n, rng):
    """Your set met itself"""
    pool = np.flatnonzero(is_control & (replicate == replicate[own[0]]))
    return rng.choice(pool, n, replace=len(pool) < n)


def wrong_first(own, replicate, is_control, n, rng):
    """You always take the same ones"""
    pool = np.setdiff1d(np.flatnonzero(is_control & (replicate == replicate[own[0]])), own)
    return np.resize(pool, n)


def wrong_filled_up(own, replicate, is_control, n, rng):
    """you took controls of others"""
    pool = np.setdiff1d(np.flatnonzero(is_control & (replicate == replicate[own[0]])), own)
    if len(pool) >= n:
        return rng.choice(pool, n, replace=False)
    others = np.setdiff1d(np.flatnonzero(is_control), np.append(pool, own))
    return np.append(pool, rng.choice(others, n - len(pool), replace=False))


def wrong_global_chance(own, replicate, is_control, n, rng):
    """Chance came from elsewhere"""
    pool = np.setdiff1d(np.flatnonzero(is_control & (replicate == replicate[own[0]])), own)
    return np.random.choice(pool, n, replace=len(pool) < n)


def wrong_places(own, replicate, is_control, n, rng):
    """These are places in your pool"""
    pool = np.setdiff1d(np.flatnonzero(is_control & (replicate == replicate[own[0]])), own)
    return rng.choice(len(pool), n, replace=len(pool) < n)


def wrong_other_replicates(own, replicate, is_control, n, rng):
    """You drew from the other replicates"""
    return rng.choice(np.flatnonzero(is_control & (replicate != replicate[own[0]])), n)


def wrong_block(own, replicate, is_control, n, rng):
    """You drew a block of neighbours"""
    pool = np.setdiff1d(np.flatnonzero(is_control & (replicate == replicate[own[0]])), own)
    first = rng.integers(len(pool))
    return np.resize(np.roll(pool, -first), n)
