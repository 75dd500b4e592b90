"""Answers to exercise 7.1: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def _centred(value, depth_class):
    rest = np.array(value, float)
    for name in np.unique(depth_class):
        rest[depth_class == name] -= rest[depth_class == name].mean()
    return rest


def _dealt(is_made, depth_class, rng):
    labels = is_made.copy()
    for name in np.unique(depth_class):
        own = np.flatnonzero(depth_class == name)
        labels[own] = is_made[rng.permutation(own)]
    return labels


def _signed(rest, labels):
    return rest[labels].mean() - rest[~labels].mean()


def _gaps(value, is_made, depth_class, n_draws, rng):
    rest = _centred(value, depth_class)
    drawn = [abs(_signed(rest, _dealt(is_made, depth_class, rng))) for _ in range(n_draws)]
    return abs(_signed(rest, is_made)), np.array(drawn)


def accepted_labels(value, is_made, depth_class, n_draws, rng):
    found, drawn = _gaps(value, is_made, depth_class, n_draws, rng)
    return (1 + (drawn >= found - 1e-9).sum()) / (1 + n_draws)


def accepted_values_at_once(value, is_made, depth_class, n_draws, rng):
    rest = _centred(value, depth_class)
    by_class = np.argsort(depth_class, kind="stable")
    keys = rng.random((n_draws, len(rest)))
    order = np.lexsort((keys, np.broadcast_to(depth_class[by_class], keys.shape)))
    drawn = rest[by_class][order]
    labels = is_made[by_class]
    gaps = np.abs(drawn[:, labels].mean(1) - drawn[:, ~labels].mean(1))
    return (1 + np.sum(gaps >= abs(_signed(rest, is_made)) - 1e-9)) / (1 + n_draws)


def wrong_never_counts_itself(value, is_made, depth_class, n_draws, rng):
    """p is never 0"""
    found, drawn = _gaps(value, is_made, depth_class, n_draws, rng)
    return (drawn >= found - 1e-9).mean()


def wrong_divisor(value, is_made, depth_class, n_draws, rng):
    """Divide by 1 + n_draws"""
    found, drawn = _gaps(value, is_made, depth_class, n_draws, rng)
    return (1 + (drawn >= found - 1e-9).sum()) / n_draws


def wrong_way_round(value, is_made, depth_class, n_draws, rng):
    """You counted the draws with a smaller gap"""
    found, drawn = _gaps(value, is_made, depth_class, n_draws, rng)
    return (1 + (drawn < found - 1e-9).sum()) / (1 + n_draws)


def wrong_strictly_larger(value, is_made, depth_class, n_draws, rng):
    """a draw that is as large as the one found counts"""
    found, drawn = _gaps(value, is_made, depth_class, n_draws, rng)
    return (1 + (drawn > found + 1e-9).sum()) / (1 + n_draws)


def wrong_fooled_by_depth(value, is_made, depth_class, n_draws, rng):
    """Depth fooled your test"""
    value = np.array(value, float)
    drawn = np.array([abs(_signed(value, rng.permutation(is_made))) for _ in range(n_draws)])
    return (1 + (drawn >= abs(_signed(value, is_made)) - 1e-9).sum()) / (1 + n_draws)


def wrong_dealt_over_classes(value, is_made, depth_class, n_draws, rng):
    """You dealt the labels out over both classes together"""
    return wrong_fooled_by_depth(_centred(value, depth_class), is_made, depth_class, n_draws, rng)


def wrong_one_direction(value, is_made, depth_class, n_draws, rng):
    """Yours looks at one direction only"""
    rest = _centred(value, depth_class)
    drawn = np.array([_signed(rest, _dealt(is_made, depth_class, rng)) for _ in range(n_draws)])
    return (1 + (drawn >= _signed(rest, is_made) - 1e-9).sum()) / (1 + n_draws)


def wrong_not_centred(value, is_made, depth_class, n_draws, rng):
    """take each class's own mean from its values"""
    drawn = np.array([abs(_signed(value, _dealt(is_made, depth_class, rng))) for _ in range(n_draws)])
    return (1 + (drawn >= abs(_signed(value, is_made)) - 1e-9).sum()) / (1 + n_draws)


def wrong_own_chance(value, is_made, depth_class, n_draws, rng):
    """Chance came from elsewhere"""
    return accepted_labels(value, is_made, depth_class, n_draws, np.random.default_rng())


def wrong_rng_of_its_own(value, is_made, depth_class, n_draws, rng):
    """You made an rng of your own"""
    return accepted_labels(value, is_made, depth_class, n_draws, np.random.default_rng(0))


def _by_hand(rest, is_made, depth_class, n_draws, rng, middle=np.mean, replace=False):
    def gap(labels):
        return abs(middle(rest[labels]) - middle(rest[~labels]))

    large, labels = 0, is_made.copy()
    with np.errstate(invalid="ignore", divide="ignore"):
        for _ in range(n_draws):
            for name in np.unique(depth_class):
                own = depth_class == name
                labels[own] = rng.choice(is_made[own], own.sum(), replace=replace)
            large += gap(labels) >= gap(is_made) - 1e-12
    return (1 + large) / (1 + n_draws)


def wrong_mean_of_real_cells(value, is_made, depth_class, n_draws, rng):
    """You took the mean of the real cells"""
    rest = np.array(value, float)
    for name in np.unique(depth_class):
        own = depth_class == name
        rest[own] -= rest[own & ~is_made].mean()
    return _by_hand(rest, is_made, depth_class, n_draws, rng)


def wrong_z_score(value, is_made, depth_class, n_draws, rng):
    """You divided by each class's standard deviation"""
    rest = _centred(value, depth_class)
    for name in np.unique(depth_class):
        rest[depth_class == name] /= rest[depth_class == name].std() + 1e-9
    return _by_hand(rest, is_made, depth_class, n_draws, rng)


def wrong_medians(value, is_made, depth_class, n_draws, rng):
    """The gap is that of the means"""
    return _by_hand(_centred(value, depth_class), is_made, depth_class, n_draws, rng, np.median)


def wrong_with_replacement(value, is_made, depth_class, n_draws, rng):
    """You drew labels with replacement"""
    return _by_hand(_centred(value, depth_class), is_made, depth_class, n_draws, rng, replace=True)


def accepted_without_tolerance(value, is_made, depth_class, n_draws, rng):
    rest = _centred(value, depth_class)
    found = abs(_signed(rest, is_made))
    large = sum(abs(_signed(rest, _dealt(is_made, depth_class, rng))) >= found for _ in range(n_draws))
    return (1 + large) / (1 + n_draws)
