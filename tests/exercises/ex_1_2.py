"""Answers to exercise 1.2: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_arrays(encode, edges):
    numbers = np.arange(len(edges))
    wrong = encode(edges) != numbers
    wrong[:-1] |= encode(np.nextafter(edges[1:], 0)) != numbers[:-1]
    return np.flatnonzero(wrong)


def accepted_loop(encode, edges):
    wrong = []
    for k in range(len(edges)):
        probes = [edges[k]]
        if k + 1 < len(edges):
            probes.append(np.nextafter(edges[k + 1], 0))
        if any(encode(np.array([x]))[0] != k for x in probes):
            wrong.append(k)
    return wrong


def wrong_near(encode, edges):
    """wider than this fault"""
    return [k for k, low in enumerate(edges)
            if encode(low) != k or (k + 1 < len(edges) and encode(edges[k + 1] - 1e-9) != k)]


def wrong_upper_edge(encode, edges):
    """You accuse a right encoder"""
    return [k for k in range(len(edges) - 1) if encode(edges[k]) != k or encode(edges[k + 1]) != k]


def wrong_middles(encode, edges):
    """inside the bins this bug cannot be seen"""
    middle = (edges[:-1] + edges[1:]) / 2
    return np.flatnonzero(encode(middle) != np.arange(len(middle))).tolist()


def wrong_from_one(encode, edges):
    """You left out bin 0"""
    return [k for k in accepted_loop(encode, edges) if k > 0]


def wrong_lower_only(encode, edges):
    """Also try the largest number below the next edge"""
    return np.flatnonzero(encode(edges) != np.arange(len(edges))).tolist()


def wrong_values(encode, edges):
    """return bin numbers, not edges"""
    return [float(edges[k]) for k in accepted_loop(encode, edges)]


def wrong_step(encode, edges):
    """jumps over a whole narrow bin"""
    return [k for k, low in enumerate(edges)
            if encode(low) != k or (k + 1 < len(edges) and encode(edges[k + 1] - 0.1) != k)]


def wrong_twice(encode, edges):
    """each bin once, increasing"""
    lower = [k for k, low in enumerate(edges) if encode(low) != k]
    return lower + [k for k, high in enumerate(edges[1:]) if encode(np.nextafter(high, 0)) != k]


def wrong_mask(encode, edges):
    """Return the numbers of the wrong bins, not a mask"""
    wrong = np.zeros(len(edges), bool)
    wrong[np.array(accepted_loop(encode, edges), int)] = True
    return wrong


def wrong_landed(encode, edges):
    """the bins in which the edges landed"""
    return encode(edges)
