"""Answers to exercise 5.1: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_min(step, start, gain, ceiling, steps):
    return min(ceiling, start + gain * step / steps)


def accepted_clip(step, start, gain, ceiling, steps):
    return float(np.clip(start + step * (gain / steps), start, ceiling))


def accepted_branch(step, start, gain, ceiling, steps):
    value = start + gain * step / steps
    if value > ceiling:
        return ceiling
    return value


def wrong_no_ceiling(step, start, gain, ceiling, steps):
    """You forgot the ceiling"""
    return start + gain * step / steps


def wrong_from_zero(step, start, gain, ceiling, steps):
    """You begin at zero"""
    return min(ceiling, ceiling * step / steps)


def wrong_towards_ceiling(step, start, gain, ceiling, steps):
    """You climb from start to ceiling"""
    return start + (ceiling - start) * min(1, step / steps)


def wrong_late_ceiling(step, start, gain, ceiling, steps):
    """The ceiling holds from where the line meets it"""
    return start + gain * step / steps if step < steps else ceiling


def wrong_jump(step, start, gain, ceiling, steps):
    """The climb is a straight line"""
    return start if step < steps else ceiling
