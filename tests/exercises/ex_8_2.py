"""Answers to exercise 8.2: accepted ones, and wrong ones with the hint that each must get."""

import math

import numpy as np
from scipy import stats


def accepted_solve(change, sd, n_controls, power, alpha):
    error = abs(change) / (stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
    left = error**2 - sd**2 / n_controls
    return math.ceil(sd**2 / left) if left > 0 else math.inf


def accepted_search(change, sd, n_controls, power, alpha):
    bar = stats.norm.isf(alpha / 2) + stats.norm.isf(1 - power)
    n = np.arange(1, 100_000)
    enough = abs(change) >= bar * sd * np.sqrt(1 / n + 1 / n_controls)
    return float(n[enough.argmax()]) if enough.any() else float("inf")


def _with(change, sd, n_controls, bar, rounded=np.ceil):
    share = (change / sd / bar) ** 2 - 1 / n_controls
    return rounded(1 / share) if share > 0 else np.inf


def wrong_one_sided(change, sd, n_controls, power, alpha):
    """Your level is one-sided"""
    return _with(change, sd, n_controls, stats.norm.isf(alpha) + stats.norm.ppf(power))


def wrong_no_power(change, sd, n_controls, power, alpha):
    """The power is missing"""
    return _with(change, sd, n_controls, stats.norm.isf(alpha / 2))


def wrong_no_level(change, sd, n_controls, power, alpha):
    """The level is missing"""
    return _with(change, sd, n_controls, stats.norm.ppf(power))


def wrong_rounded_down(change, sd, n_controls, power, alpha):
    """You rounded down"""
    return _with(change, sd, n_controls, stats.norm.isf(alpha / 2) + stats.norm.ppf(power), np.floor)


def wrong_not_rounded(change, sd, n_controls, power, alpha):
    """The number is not rounded"""
    return _with(change, sd, n_controls, stats.norm.isf(alpha / 2) + stats.norm.ppf(power), float)


def wrong_not_squared(change, sd, n_controls, power, alpha):
    """You did not square"""
    return np.ceil(sd * (stats.norm.isf(alpha / 2) + stats.norm.ppf(power)) / abs(change))


def wrong_no_controls(change, sd, n_controls, power, alpha):
    """You left the control cells out"""
    return _with(change, sd, math.inf, stats.norm.isf(alpha / 2) + stats.norm.ppf(power))


def wrong_equal_groups(change, sd, n_controls, power, alpha):
    """You counted two equal groups"""
    return np.ceil(2 * ((stats.norm.isf(alpha / 2) + stats.norm.ppf(power)) * sd / change) ** 2)


def wrong_plus(change, sd, n_controls, power, alpha):
    """minus 1 / n_controls, not plus"""
    bar = stats.norm.isf(alpha / 2) + stats.norm.ppf(power)
    return np.ceil(1 / ((change / sd / bar) ** 2 + 1 / n_controls))


def wrong_rise_only(change, sd, n_controls, power, alpha):
    """The sign of a change does not matter"""
    return accepted_solve(change, sd, n_controls, power, alpha) if change > 0 else float("inf")


def wrong_fixed_level(change, sd, n_controls, power, alpha):
    """Your level is always .05"""
    return accepted_solve(change, sd, n_controls, power, 0.05)


def wrong_negative(change, sd, n_controls, power, alpha):
    """the controls alone are too few"""
    bar = stats.norm.isf(alpha / 2) + stats.norm.ppf(power)
    return np.ceil(1 / ((change / sd / bar) ** 2 - 1 / n_controls))


def wrong_power_itself(change, sd, n_controls, power, alpha):
    """You added the power itself"""
    return _with(change, sd, n_controls, stats.norm.isf(alpha / 2) + power)


def wrong_tail_of_power(change, sd, n_controls, power, alpha):
    """norm.isf(power) is negative"""
    return _with(change, sd, n_controls, stats.norm.isf(alpha / 2) + stats.norm.isf(power))
