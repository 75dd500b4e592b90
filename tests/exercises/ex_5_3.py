"""Answers to exercise 5.3: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_where(target, draw, share):
    return np.where((target >= 0) & (draw < share), -2, target)


def accepted_loop(target, draw, share):
    return np.array([-2 if t >= 0 and d < share else t for t, d in zip(target, draw, strict=True)])


def accepted_copy(target, draw, share):
    out = target.copy()
    out[(draw < share) & (out != -1)] = -2
    return out


def wrong_controls_too(target, draw, share):
    """You dropped control sets too"""
    return np.where(draw < share, -2, target)


def wrong_no_target(target, draw, share):
    """You wrote NO_TARGET"""
    return np.where((target >= 0) & (draw < share), -1, target)


def wrong_other_side(target, draw, share):
    """Compare each draw with the share"""
    return np.where((target >= 0) & (draw > share), -2, target)


def wrong_ends(target, draw, share):
    """The ends are off"""
    return np.where((target >= 0) & (draw <= share), -2, target)


def wrong_once(target, draw, share):
    """You decided once for the whole batch"""
    return np.where((target >= 0) & (draw[0] < share), -2, target)


def wrong_without_gene_0(target, draw, share):
    """You left gene 0 out"""
    return np.where((target > 0) & (draw < share), -2, target)


def wrong_lowest_draws(target, draw, share):
    """You dropped a share of the sets by the order of their draws"""
    return np.where((target >= 0) & (draw.argsort().argsort() < share * len(target)), -2, target)
