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
    """These are the guides that worked"""
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


def _judge(score, guide, is_control, of_others, mean=np.mean):
    base, failed = mean(score[is_control]), []
    for name in np.unique(guide[~is_control]).tolist():
        own = mean(score[(guide == name) & ~is_control]) - base
        if own / of_others(name, base) < 0.5:
            failed.append(name)
    return failed


def wrong_itself_too(score, guide, is_control):
    """leave its own cells out of the others"""
    return _judge(score, guide, is_control, lambda name, base: score[~is_control].mean() - base)


def wrong_controls_as_siblings(score, guide, is_control):
    """Control cells are among your others"""
    return _judge(score, guide, is_control, lambda name, base: score[guide != name].mean() - base)


def wrong_mean_of_guides(score, guide, is_control):
    """not a mean of guides"""
    names = np.unique(guide[~is_control]).tolist()
    return _judge(score, guide, is_control, lambda name, base: np.mean(
        [score[(guide == other) & ~is_control].mean() for other in names if other != name]) - base)


def wrong_strongest(score, guide, is_control):
    """You compared with the strongest guide"""
    names = np.unique(guide[~is_control]).tolist()
    return _judge(score, guide, is_control, lambda name, base: max(
        (score[(guide == other) & ~is_control].mean() - base for other in names), key=abs))


def wrong_median(score, guide, is_control):
    """You took medians"""
    return _judge(score, guide, is_control, lambda name, base: np.median(
        score[(guide != name) & ~is_control]) - base, np.median)


def wrong_worst_alone(score, guide, is_control):
    """every guide below a half has failed"""
    failed = accepted_loop(score, guide, is_control)
    base = score[is_control].mean()
    return [min(failed, key=lambda name: abs(score[guide == name].mean() - base))] if failed else []


def wrong_order(score, guide, is_control):
    """Right names, but not sorted"""
    return accepted_loop(score, guide, is_control)[::-1]
