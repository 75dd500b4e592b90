"""Answers to exercise 7.3: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np
from scipy.special import expit
from scipy.stats import norm


def _em(score, guide, control, rounds, how=""):
    m0, s0 = control.mean(), control.std()
    m1, s1, share = np.quantile(score, 0.75), s0, np.full(len(score), 0.5)
    floor = s0 / 2
    for _ in range(rounds):
        prior = 0.5 if how == "no share" else share
        p0, p1 = prior * norm.pdf(score, m0, s0), (1 - prior) * norm.pdf(score, m1, s1)
        escaped = p0 / (p0 + p1)
        if how == "threshold":
            escaped = np.round(escaped)
        share = np.array([escaped[guide == name].mean() for name in guide])
        w = 1 - escaped
        m1 = np.average(score, weights=w)
        s1 = np.sqrt(np.average((score - m1) ** 2, weights=w))
        s1 = s1 if how == "no floor" else max(s1, floor)
        if how == "controls move":
            m0 = np.average(score, weights=escaped)
            s0 = np.sqrt(np.average((score - m0) ** 2, weights=escaped))
    return {str(name): float(share[guide == name][0]) for name in np.unique(guide)}


def accepted_scipy(score, guide, control, rounds):
    return _em(score, guide, control, rounds)


def accepted_log_odds(score, guide, control, rounds):
    names, place = np.unique(guide, return_inverse=True)
    m0, s0 = control.mean(), control.std()
    m1, s1, share = np.quantile(score, 0.75), s0, np.full(len(names), 0.5)
    for _ in range(rounds):
        odds = norm.logpdf(score, m1, s1) - norm.logpdf(score, m0, s0)
        with np.errstate(divide="ignore"):
            answers = expit(odds + np.log(1 - share[place]) - np.log(share[place]))
        share = 1 - np.bincount(place, answers) / np.bincount(place)
        m1 = np.average(score, weights=answers)
        s1 = max(np.average((score - m1) ** 2, weights=answers) ** 0.5, s0 / 2)
    return dict(zip(names.tolist(), share.tolist(), strict=True))


def wrong_one_share(score, guide, control, rounds):
    """You gave both guides one share"""
    alone = _em(score, np.full(len(guide), "all"), control, rounds)["all"]
    return dict.fromkeys(np.unique(guide).tolist(), alone)


def wrong_law_of_each(score, guide, control, rounds):
    """Each guide has a law of its own here"""
    return {name: _em(score[guide == name], guide[guide == name], control, rounds)[name]
            for name in np.unique(guide).tolist()}


def wrong_answered(score, guide, control, rounds):
    """These are the shares that answered"""
    return {name: 1 - share for name, share in _em(score, guide, control, rounds).items()}


def wrong_no_share(score, guide, control, rounds):
    """You forgot the shares when you weighed"""
    return _em(score, guide, control, rounds, "no share")


def wrong_threshold(score, guide, control, rounds):
    """You sorted cells by a threshold"""
    return _em(score, guide, control, rounds, "threshold")


def wrong_controls_move(score, guide, control, rounds):
    """You fitted the escapees' law anew"""
    return _em(score, guide, control, rounds, "controls move")


def wrong_one_round(score, guide, control, rounds):
    """This is one round"""
    return _em(score, guide, control, 1)


def wrong_no_floor(score, guide, control, rounds):
    """The answering law shrank to a point"""
    return _em(score, guide, control, rounds, "no floor")


def wrong_substring(score, guide, control, rounds):
    """Ag1 and Ag10 are two guides"""
    short = np.array([name[:3] for name in guide.tolist()])
    return _em(score, short, control, rounds)


def _rounds(score, guide, control, rounds, start=0.75, ddof=0, turn=False, weigh=False, root=True, old=False,
            width=True, moves=True):
    m0, s0 = control.mean(), control.std(ddof=ddof)
    m1, s1 = np.quantile(score, start), s0
    shares = dict.fromkeys(np.unique(guide).tolist(), 0.5)
    for _ in range(rounds):
        share = np.array([shares[name] for name in guide])
        p0 = share * norm.pdf(score, m0, s0) * (1 if width else s0)
        p1 = (1 - share) * norm.pdf(score, m1, s1) * (1 if width else s1)
        escaped = (p1 if turn else p0) / (p0 + p1)
        shares = {name: float(escaped[guide == name].mean()) for name in shares}
        if moves:
            w, before = (escaped if weigh else 1 - escaped), m1
            m1 = np.average(score, weights=w)
            variance = np.average((score - (before if old else m1)) ** 2, weights=w)
            s1 = max(variance ** (0.5 if root else 1), s0 / 2)
    return shares


def wrong_turned_round(score, guide, control, rounds):
    """E is turned round"""
    return _rounds(score, guide, control, rounds, turn=True)


def wrong_weight(score, guide, control, rounds):
    """weigh with w = 1 - escaped"""
    return _rounds(score, guide, control, rounds, weigh=True)


def wrong_variance(score, guide, control, rounds):
    """take the square root of the variance"""
    return _rounds(score, guide, control, rounds, root=False)


def wrong_old_mean(score, guide, control, rounds):
    """around the new m1"""
    return _rounds(score, guide, control, rounds, old=True)


def wrong_no_width(score, guide, control, rounds):
    """a wide law weighs too much"""
    return _rounds(score, guide, control, rounds, width=False)


def wrong_laws_stay(score, guide, control, rounds):
    """m1 and s1 never moved"""
    return _rounds(score, guide, control, rounds, moves=False)


def wrong_ddof(score, guide, control, rounds):
    """is control.std(), without ddof"""
    return _rounds(score, guide, control, rounds, ddof=1)


def wrong_median(score, guide, control, rounds):
    """not at the median"""
    return _rounds(score, guide, control, rounds, start=0.5)


def wrong_one_more(score, guide, control, rounds):
    """This is a round too many"""
    return _rounds(score, guide, control, rounds + 1)
