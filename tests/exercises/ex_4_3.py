"""Answers to exercise 4.3: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_loop(initial, steps, decay):
    average = initial
    for i, weights in enumerate(steps):
        d = min(decay, (1 + i) / (10 + i))
        average = d * average + (1 - d) * weights
    return average


def accepted_weights(initial, steps, decay):
    i = np.arange(len(steps))
    d = np.minimum(decay, (1 + i) / (10 + i))
    kept_after = np.append(np.cumprod(d[::-1])[::-1][1:], 1.0)  # what later steps leave of step i
    return np.prod(d) * initial + ((1 - d) * kept_after) @ steps


def accepted_in_place_on_a_copy(initial, steps, decay):
    average = initial.copy()
    for i in range(len(steps)):
        average += (1 - min(decay, (1 + i) / (10 + i))) * (steps[i] - average)
    return average


def wrong_from_zero(initial, steps, decay):
    """You started from zero"""
    average = np.zeros_like(initial)
    for i, weights in enumerate(steps):
        d = min(decay, (1 + i) / (10 + i))
        average = d * average + (1 - d) * weights
    return average


def wrong_exchanged(initial, steps, decay):
    """You exchanged the shares"""
    average = initial
    for i, weights in enumerate(steps):
        d = min(decay, (1 + i) / (10 + i))
        average = (1 - d) * average + d * weights
    return average


def wrong_long_memory(initial, steps, decay):
    """Your memory is long from the start"""
    average = initial
    for weights in steps:
        average = decay * average + (1 - decay) * weights
    return average


def wrong_plain_mean(initial, steps, decay):
    """All steps count alike in your average"""
    return np.vstack([initial, steps]).mean(0)


def wrong_counts_from_one(initial, steps, decay):
    """i counts from 0"""
    average = initial
    for i, weights in enumerate(steps, start=1):
        d = min(decay, (1 + i) / (10 + i))
        average = d * average + (1 - d) * weights
    return average


def wrong_in_place(initial, steps, decay):
    """i counts from 0"""
    for i, weights in enumerate(steps, start=1):
        d = min(decay, (1 + i) / (10 + i))
        initial += (1 - d) * (weights - initial)
    return initial
