"""Answers to exercise 9.1: accepted ones, and wrong ones with the hint that each must get."""

import math

import numpy as np


def accepted_array_split(rank, n_ranks, n_sets):
    return np.array_split(np.arange(n_sets), n_ranks)[rank]


def accepted_one_more_for_the_first(rank, n_ranks, n_sets):
    size, more = divmod(n_sets, n_ranks)
    first = rank * size + min(rank, more)
    return range(first, first + size + (rank < more))


def accepted_belongs(rank, n_ranks, n_sets):
    return [number for number in range(n_sets) if ((number + 1) * n_ranks - 1) // n_sets == rank]


def wrong_strided(rank, n_ranks, n_sets):
    """You dealt them like cards"""
    return list(range(rank, n_sets, n_ranks))


def wrong_all(rank, n_ranks, n_sets):
    """Every process takes all sets"""
    return list(range(n_sets))


def wrong_dropped(rank, n_ranks, n_sets):
    """The remainder is dropped"""
    size = n_sets // n_ranks
    return list(range(rank * size, (rank + 1) * size))


def wrong_rest_to_the_last(rank, n_ranks, n_sets):
    """You gave the remainder to one process"""
    size = n_sets // n_ranks
    return list(range(rank * size, n_sets if rank == n_ranks - 1 else (rank + 1) * size))


def wrong_rounded_up(rank, n_ranks, n_sets):
    """You rounded up"""
    size = math.ceil(n_sets / n_ranks)
    return list(range(rank * size, min(n_sets, (rank + 1) * size)))


def wrong_overlap(rank, n_ranks, n_sets):
    """sets at the seams are in two parts"""
    return list(range(rank * n_sets // n_ranks, math.ceil((rank + 1) * n_sets / n_ranks)))


def wrong_from_one(rank, n_ranks, n_sets):
    """The first rank is 0, not 1"""
    return list(range((rank - 1) * n_sets // n_ranks, rank * n_sets // n_ranks))


def wrong_inclusive(rank, n_ranks, n_sets):
    """A set is in two parts"""
    return list(range(rank * n_sets // n_ranks, (rank + 1) * n_sets // n_ranks + 1))


def wrong_too_short(rank, n_ranks, n_sets):
    """The last set of each part is missing"""
    return list(range(rank * n_sets // n_ranks, (rank + 1) * n_sets // n_ranks - 1))


def wrong_backwards(rank, n_ranks, n_sets):
    """wrong order: rank 0 has the first"""
    back = n_ranks - 1 - rank
    return list(range(back * n_sets // n_ranks, (back + 1) * n_sets // n_ranks))


def wrong_count(rank, n_ranks, n_sets):
    """Return the numbers of the sets, a list for each rank"""
    return n_sets // n_ranks


def wrong_slice(rank, n_ranks, n_sets):
    """Return the numbers of the sets, a list for each rank"""
    return slice(rank * n_sets // n_ranks, (rank + 1) * n_sets // n_ranks)


def wrong_padded(rank, n_ranks, n_sets):
    """You filled up from the beginning"""
    size = math.ceil(n_sets / n_ranks)
    return [number % n_sets for number in range(rank * size, (rank + 1) * size)]


def wrong_float(rank, n_ranks, n_sets):
    """Multiply first, then divide by //"""
    size = n_sets / n_ranks
    return list(range(int(rank * size), int((rank + 1) * size)))
