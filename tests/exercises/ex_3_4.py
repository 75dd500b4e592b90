"""Answers to exercise 3.4: accepted ones, and wrong ones with the hint that each must get."""

from functools import cache
from itertools import combinations, pairwise

import numpy as np


def accepted_package(h, n_steps):
    from cdt_lite.model.schedule import best_schedule

    return best_schedule(h, n_steps)


def accepted_recursion(h, n_steps):
    n_genes = len(h)

    @cache
    def rest(m, steps):  # cheapest way to reveal what is left: (cost, counts)
        if steps == 1:
            return (n_genes - m) * h[n_genes - m - 1], (n_genes - m,)
        options = []
        for n in range(1, n_genes - m - steps + 2):
            cost, counts = rest(m + n, steps - 1)
            options.append((n * h[n_genes - m - 1] + cost, (n, *counts)))
        return min(options)

    return np.array(rest(0, n_steps)[1])


def accepted_from_hidden(h, n_steps):
    hidden = np.arange(len(h) + 1)
    cost, back = np.where(hidden == len(h), 0.0, np.inf), []
    for _ in range(n_steps):
        step = cost[:, None] + np.append(0, h)[:, None] * (hidden[:, None] - hidden)  # from row to column
        step[hidden[:, None] <= hidden] = np.inf
        back.append(step.argmin(0))
        cost = step.min(0)
    path = [0]
    for came_from in reversed(back):
        path.append(int(came_from[path[-1]]))
    return np.diff(path)[::-1]


def wrong_sum(h, n_steps):
    """Your counts do not add up"""
    return np.rint(np.diff(1 - np.cos(np.linspace(0, 1, n_steps + 1) * np.pi / 2)) * (len(h) - n_steps)).astype(int)


def wrong_equal(h, n_steps):
    """Equal groups take no notice of h"""
    return np.diff(np.linspace(0, len(h), n_steps + 1).round().astype(int))


def wrong_turned_round(h, n_steps):
    """Your counts stand last step first"""
    return accepted_from_hidden(h, n_steps)[::-1]


def wrong_known_index(h, n_steps):
    """H takes the number of hidden genes"""
    n_genes = len(h)
    least, origins = np.append(0.0, np.full(n_genes, np.inf)), []
    for _ in range(n_steps):
        cost = np.array([[least[j] + (m - j) * h[j - 1] if j < m else np.inf for j in range(n_genes + 1)]
                         for m in range(n_genes + 1)])
        origins.append(cost.argmin(1))
        least = cost.min(1)
    path = [n_genes]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return np.diff(path[::-1])


def wrong_greedy(h, n_steps):
    """You chose one step at a time"""
    n_genes, cuts = len(h), [0, len(h)]

    def cost(points):
        return sum((b - a) * h[n_genes - a - 1] for a, b in pairwise(points))

    while len(cuts) <= n_steps:
        cuts = min((sorted([*cuts, c]) for c in range(1, n_genes) if c not in cuts), key=cost)
    return np.diff(cuts)


def wrong_empty_steps(h, n_steps):
    """A step of yours reveals nothing"""
    n_genes = len(h)
    least, origins = np.append(0.0, np.full(n_genes, np.inf)), []
    for _ in range(n_steps):
        cost = np.array([[least[j] + ((m - j) * h[n_genes - j - 1] if j < m else 0) if j <= m else np.inf
                          for j in range(n_genes + 1)] for m in range(n_genes + 1)])
        origins.append(n_genes - cost[:, ::-1].argmin(1) if h[0] == h[4] else cost.argmin(1))
        least = cost.min(1)
    path = [n_genes]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return np.diff(path[::-1])


def wrong_all_tried(h, n_steps):
    """Trying all schedules is too slow"""
    best, found = np.inf, None
    for cuts in combinations(range(1, len(h)), n_steps - 1):
        points = [0, *cuts, len(h)]
        cost = sum((b - a) * h[len(h) - a - 1] for a, b in pairwise(points))
        if cost < best:
            best, found = cost, points
    return np.diff(found)
