"""Answers to exercise 6.2: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_masks(effects, target, sign, asked, asked_sign):
    other = target != asked
    same = other & (sign == asked_sign)
    return effects[same if same.any() else other].mean(0)


def accepted_loop(effects, target, sign, asked, asked_sign):
    others = [(s, e) for t, s, e in zip(target, sign, effects, strict=True) if t != asked]
    rows = [e for s, e in others if s == asked_sign] or [e for _, e in others]
    return sum(rows) / len(rows)


def wrong_itself(effects, target, sign, asked, asked_sign):
    """You let A predict itself"""
    same = sign == asked_sign
    return effects[same].mean(0) if same.any() else effects[target != asked].mean(0)


def wrong_mixed_signs(effects, target, sign, asked, asked_sign):
    """You mixed signs"""
    return effects[target != asked].mean(0)


def wrong_no_fallback(effects, target, sign, asked, asked_sign):
    """you averaged nothing"""
    same = (target != asked) & (sign == asked_sign)
    return effects[same].sum(0) / max(same.sum(), 1)


def wrong_pair_only(effects, target, sign, asked, asked_sign):
    """leave the target out, not only the (target, sign) pair"""
    other = ~((target == asked) & (sign == asked_sign))
    same = other & (sign == asked_sign)
    return effects[same].mean(0) if same.any() and asked_sign < 0 else effects[other].mean(0)


def wrong_median(effects, target, sign, asked, asked_sign):
    """The baseline of the field is the mean"""
    other = target != asked
    same = other & (sign == asked_sign)
    return np.median(effects[same if same.any() else other], axis=0)


def wrong_sum(effects, target, sign, asked, asked_sign):
    """That is a sum"""
    other = target != asked
    same = other & (sign == asked_sign)
    return effects[same if same.any() else other].sum(0)


def wrong_axis(effects, target, sign, asked, asked_sign):
    """You averaged over genes"""
    other = target != asked
    same = other & (sign == asked_sign)
    return effects[same if same.any() else other].mean(1)


def wrong_last_resort(effects, target, sign, asked, asked_sign):
    """You fell back to all rows, A among them"""
    same = (target != asked) & (sign == asked_sign)
    return effects[same].mean(0) if same.any() else effects.mean(0)


def wrong_sign_of_its_own(effects, target, sign, asked, asked_sign):
    """You asked whether the sign has rows"""
    other = target != asked
    if (sign == asked_sign).any():
        rows = effects[other & (sign == asked_sign)]
        return rows.mean(0) if len(rows) else np.full(effects.shape[1], np.nan)
    return effects[other].mean(0)
