"""Answers to exercise 4.2: accepted ones, and wrong ones with the hint that each must get."""

import math

import numpy as np


def accepted_branch(step, n_steps, peak, warmup):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (n_steps - warmup))) / 2


def accepted_minimum(step, n_steps, peak, warmup):
    x = max(0, step - warmup) / (n_steps - warmup)
    return float(peak * np.minimum((step + 1) / warmup, np.cos(np.pi / 2 * x) ** 2))


def wrong_zero_first(step, n_steps, peak, warmup):
    """Your first step has rate zero"""
    if step < warmup:
        return peak * step / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (n_steps - warmup))) / 2


def wrong_whole_run(step, n_steps, peak, warmup):
    """Climb and cosine do not meet at the peak"""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * step / n_steps)) / 2


def wrong_line(step, n_steps, peak, warmup):
    """You fall along a straight line"""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 - (step - warmup) / (n_steps - warmup))


def wrong_whole_turn(step, n_steps, peak, warmup):
    """a cosine over half a turn (pi)"""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(2 * math.pi * (step - warmup) / (n_steps - warmup))) / 2


def wrong_no_decay(step, n_steps, peak, warmup):
    """Your rate does not die out"""
    return peak * min(1, (step + 1) / warmup)


def wrong_one_more(step, n_steps, peak, warmup):
    """Divide by warmup, not by warmup + 1"""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return float(peak * (1 + np.cos(np.pi * (step - warmup) / (n_steps - warmup))) / 2)


def wrong_over_all_steps(step, n_steps, peak, warmup):
    """divide by n_steps - warmup, not by n_steps"""
    if step < warmup:
        return peak * (step + 1) / warmup
    return float(peak * (1 + np.cos(np.pi * (step - warmup) / n_steps)) / 2)


def wrong_no_climb(step, n_steps, peak, warmup):
    """You left the climb out"""
    return float(peak * (1 + np.cos(np.pi * (step - warmup) / (n_steps - warmup))) / 2)
