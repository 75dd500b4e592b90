"""Answers to exercise 1.4: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np
import pandas as pd


def accepted_loop(score, guide, is_control):
    base, failed = score[is_control].mean(), []
    for name in np.unique(guide[~is_control]):
        own, others = (guide == name) & ~is_control, (guide != name) & ~is_control
        if (score[own].mean() - base) / (score[others].mean() - base) < 0.5:
            failed.append(str(name))
    return failed


def accepted_sums(score, guide, is_control):
    effect = pd.Series(score[~is_control] - score[is_control].mean()).groupby(guide[~is_control])
    total, n = effect.sum(), effect.size()
    others = (total.sum() - total) / (n.sum() - n)
    return sorted(effect.mean().index[(effect.mean() / others < 0.5)].tolist())


def wrong_the_good_ones(score, guide, is_control):
    """You named the guides that worked"""
    bad = accepted_loop(score, guide, is_control)
    return [name for name in np.unique(guide[~is_control]).tolist() if name not in bad]


def wrong_controls_too(score, guide, is_control):
    """You named a guide of the control cells"""
    return sorted([*accepted_loop(score, guide, is_control), *np.unique(guide[is_control]).tolist()])


def wrong_no_controls(score, guide, is_control):
    """did you subtract the controls' mean"""
    failed = []
    for name in np.unique(guide[~is_control]).tolist():
        own, others = (guide == name) & ~is_control, (guide != name) & ~is_control
        if score[own].mean() / score[others].mean() < 0.5:
            failed.append(name)
    return failed


def wrong_falling_only(score, guide, is_control):
    """Here the effect is positive"""
    base, failed = score[is_control].mean(), []
    for name in np.unique(guide[~is_control]).tolist():
        own, others = (guide == name) & ~is_control, (guide != name) & ~is_control
        if score[own].mean() - base > 0.5 * (score[others].mean() - base):
            failed.append(name)
    return failed


def wrong_abs(score, guide, is_control):
    """keep the sign"""
    base, failed = score[is_control].mean(), []
    for name in np.unique(guide[~is_control]).tolist():
        own, others = (guide == name) & ~is_control, (guide != name) & ~is_control
        if abs(score[own].mean() - base) < 0.5 * abs(score[others].mean() - base):
            failed.append(name)
    return failed


def wrong_substring(score, guide, is_control):
    """You found "Ag1" inside "Ag10\""""
    base, failed = score[is_control].mean(), []
    for name in np.unique(guide[~is_control]).tolist():
        own = np.array([name in other for other in guide.tolist()]) & ~is_control
        others = ~own & ~is_control
        if (score[own].mean() - base) / (score[others].mean() - base) < 0.5:
            failed.append(name)
    return failed


def wrong_itself_too(score, guide, is_control):
    """leave its own cells out of the others"""
    base, failed = score[is_control].mean(), []
    every = score[~is_control].mean() - base
    for name in np.unique(guide[~is_control]).tolist():
        if (score[(guide == name) & ~is_control].mean() - base) / every < 0.5:
            failed.append(name)
    return failed
