"""Answers to exercise 6.4: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_table(a, b, n_draws, rng):
    rows = rng.integers(len(a), size=(n_draws, len(a)))
    return tuple(np.quantile((a - b)[rows].mean(1), [0.025, 0.975]))


def accepted_loop(a, b, n_draws, rng):
    means = []
    for _ in range(n_draws):
        rows = rng.choice(len(a), len(a))
        means.append(a[rows].mean() - b[rows].mean())
    return np.percentile(means, 2.5), np.percentile(means, 97.5)


def wrong_unpaired(a, b, n_draws, rng):
    """You drew perturbations for each method by itself"""
    first, second = (rng.integers(len(a), size=(n_draws, len(a))) for _ in range(2))
    return tuple(np.quantile(a[first].mean(1) - b[second].mean(1), [0.025, 0.975]))


def wrong_sign(a, b, n_draws, rng):
    """You subtracted the wrong way round"""
    return accepted_table(b, a, n_draws, rng)


def wrong_no_mean(a, b, n_draws, rng):
    """Those are quantiles of single perturbations"""
    return tuple(np.quantile(a - b, [0.025, 0.975]))


def wrong_ninety(a, b, n_draws, rng):
    """The width is that of a 90 % interval"""
    rows = rng.integers(len(a), size=(n_draws, len(a)))
    return tuple(np.quantile((a - b)[rows].mean(1), [0.05, 0.95]))


def wrong_without_replacement(a, b, n_draws, rng):
    """A redraw without replacement"""
    rows = np.stack([rng.permutation(len(a)) for _ in range(n_draws)])
    return tuple(np.quantile((a - b)[rows].mean(1), [0.025, 0.975]))


def wrong_normal_theory(a, b, n_draws, rng):
    """not the mean plus or minus 1.96 standard errors"""
    difference = a - b
    half = 1.96 * difference.std(ddof=1) / len(a) ** 0.5
    return difference.mean() - half, difference.mean() + half


def wrong_large_redraws(a, b, n_draws, rng):
    """Each redraw has as many perturbations as there are"""
    rows = rng.integers(len(a), size=(n_draws, 400))
    return tuple(np.quantile((a - b)[rows].mean(1), [0.025, 0.975]))


def wrong_centre(a, b, n_draws, rng):
    """The interval lies around mean(a - b)"""
    low, high = accepted_table(a, b, n_draws, rng)
    middle = (a - b).mean()
    return low - middle, high - middle


def wrong_global_chance(a, b, n_draws, rng):
    """Chance came from elsewhere"""
    rows = np.random.randint(len(a), size=(n_draws, len(a)))
    return tuple(np.quantile((a - b)[rows].mean(1), [0.025, 0.975]))


def wrong_one_number(a, b, n_draws, rng):
    """return both ends"""
    rows = rng.integers(len(a), size=(n_draws, len(a)))
    return float((a - b)[rows].mean())


def wrong_own_rng(a, b, n_draws, rng):
    """You made an rng of your own"""
    return accepted_table(a, b, n_draws, np.random.default_rng(0))


def wrong_thousand_draws(a, b, n_draws, rng):
    """You wrote the number of draws into your function"""
    return accepted_table(a, b, 1000, rng)


def wrong_basic(a, b, n_draws, rng):
    """That is the basic interval"""
    low, high = accepted_table(a, b, n_draws, rng)
    return 2 * (a - b).mean() - high, 2 * (a - b).mean() - low


def wrong_one_fewer(a, b, n_draws, rng):
    """you drew one fewer"""
    rows = rng.integers(len(a), size=(n_draws, len(a) - 1))
    return tuple(np.quantile((a - b)[rows].mean(1), [0.025, 0.975]))


def wrong_last_never(a, b, n_draws, rng):
    """The last perturbation is never drawn"""
    rows = rng.integers(0, len(a) - 1, size=(n_draws, len(a)))
    return tuple(np.quantile((a - b)[rows].mean(1), [0.025, 0.975]))


def wrong_swapped(a, b, n_draws, rng):
    """The low end comes first"""
    return accepted_table(a, b, n_draws, rng)[::-1]


def wrong_medians(a, b, n_draws, rng):
    """You took the median of each redraw"""
    rows = rng.integers(len(a), size=(n_draws, len(a)))
    return tuple(np.quantile(np.median((a - b)[rows], axis=1), [0.025, 0.975]))
