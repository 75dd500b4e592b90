"""Answers to exercise 1.1: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_search(values, edges):
    tokens = np.searchsorted(edges, values, side="right") - 1
    upper = np.concatenate([edges[1:], edges[-1:]])
    return tokens, np.sqrt(edges * upper)[tokens]


def accepted_digitize(values, edges):
    tokens = np.digitize(values, edges) - 1
    centre = edges.copy()
    centre[:-1] = np.sqrt(edges[:-1] * edges[1:])
    return tokens, centre.take(tokens)


def accepted_comparison(values, edges):
    tokens = (np.asarray(values)[..., None] >= edges).sum(-1) - 1
    low, high = edges[tokens], edges[np.minimum(tokens + 1, len(edges) - 1)]
    return tokens, np.where(low > 0, np.exp((np.log(low.clip(1e-300)) + np.log(high)) / 2), 0.0)


def wrong_from_one(values, edges):
    """Bins are numbered from 0"""
    tokens = np.searchsorted(edges, values, side="right")
    return tokens, accepted_search(values, edges)[1]


def wrong_left(values, edges):
    """A bin owns its lower edge"""
    tokens = (np.searchsorted(edges, values) - 1).clip(0)
    return tokens, np.sqrt(edges * np.append(edges[1:], edges[-1]))[tokens]


def wrong_arithmetic(values, edges):
    """That is not the geometric middle"""
    tokens = np.searchsorted(edges, values, side="right") - 1
    return tokens, ((edges + np.append(edges[1:], edges[-1])) / 2)[tokens]


def wrong_open_end(values, edges):
    """The last bin has no upper end"""
    tokens = np.searchsorted(edges, values, side="right") - 1
    return tokens, np.sqrt(edges * np.append(edges[1:], np.inf))[tokens]


def wrong_bin_zero(values, edges):
    """Bin 0 begins at 0"""
    tokens = np.searchsorted(edges, values, side="right") - 1
    middle = np.sqrt(edges * np.append(edges[1:], edges[-1]))
    middle[0] = edges[1] / 2
    return tokens, middle[tokens]


def wrong_flat(values, edges):
    """return the shape that came in"""
    return accepted_search(values.ravel(), edges)


def wrong_four_bins(values, edges):
    """do you use the `edges` that are given"""
    return accepted_search(values, np.array([0.0, 1.0, 4.0, 16.0]))


def wrong_tokens_alone(values, edges):
    """Return both, tokens and what they decode to"""
    return accepted_search(values, edges)[0]
