"""Answers to exercise 9.3: accepted ones, and wrong ones with the hint that each must get."""

import math


def accepted_ceil(n_weights, n_processes, sharded, n_cells, a_cell):
    shards = n_processes if sharded else 1
    return 4 * 4 * math.ceil(n_weights / shards) + math.ceil(n_cells / n_processes) * a_cell


def accepted_term_by_term(n_weights, n_processes, sharded, n_cells, a_cell):
    if sharded:
        n_weights = (n_weights + n_processes - 1) // n_processes
    weights, gradients, moments = 4 * n_weights, 4 * n_weights, 2 * 4 * n_weights
    cells = (n_cells + n_processes - 1) // n_processes
    return weights + gradients + moments + cells * a_cell


def _held(a_weight, own, cells, a_cell):
    return a_weight * math.ceil(own) + math.ceil(cells) * a_cell


def wrong_weights_alone(n_weights, n_processes, sharded, n_cells, a_cell):
    """Those are the weights alone"""
    return _held(4, n_weights / (n_processes if sharded else 1), n_cells / n_processes, a_cell)


def wrong_no_moments(n_weights, n_processes, sharded, n_cells, a_cell):
    """You left AdamW's two running means out"""
    return _held(8, n_weights / (n_processes if sharded else 1), n_cells / n_processes, a_cell)


def wrong_one_moment(n_weights, n_processes, sharded, n_cells, a_cell):
    """AdamW keeps two running means of every weight, not one"""
    return _held(12, n_weights / (n_processes if sharded else 1), n_cells / n_processes, a_cell)


def wrong_doubles(n_weights, n_processes, sharded, n_cells, a_cell):
    """A float has 4 bytes, not 8"""
    return _held(32, n_weights / (n_processes if sharded else 1), n_cells / n_processes, a_cell)


def wrong_always_cut(n_weights, n_processes, sharded, n_cells, a_cell):
    """every process holds a copy of all"""
    return _held(16, n_weights / n_processes, n_cells / n_processes, a_cell)


def wrong_all_together(n_weights, n_processes, sharded, n_cells, a_cell):
    """asked is what one holds"""
    return _held(16, n_weights if sharded else n_weights * n_processes, n_cells, a_cell)


def wrong_never_cut(n_weights, n_processes, sharded, n_cells, a_cell):
    """Sharded, each process keeps its part alone"""
    return _held(16, n_weights, n_cells / n_processes, a_cell)


def wrong_weights_cut_alone(n_weights, n_processes, sharded, n_cells, a_cell):
    """all four are cut"""
    own = n_weights / (n_processes if sharded else 1)
    return 4 * math.ceil(own) + 12 * n_weights + math.ceil(n_cells / n_processes) * a_cell


def wrong_all_cells(n_weights, n_processes, sharded, n_cells, a_cell):
    """Every process keeps all cells"""
    return _held(16, n_weights / (n_processes if sharded else 1), n_cells, a_cell)


def wrong_cells_cut_with_weights(n_weights, n_processes, sharded, n_cells, a_cell):
    """the batch is shared out in any case"""
    parts = n_processes if sharded else 1
    return _held(16, n_weights / parts, n_cells / parts, a_cell)


def wrong_down(n_weights, n_processes, sharded, n_cells, a_cell):
    """You rounded down"""
    return 16 * (n_weights // (n_processes if sharded else 1)) + n_cells // n_processes * a_cell


def wrong_halves(n_weights, n_processes, sharded, n_cells, a_cell):
    """There is no half a weight"""
    return 16 * n_weights / (n_processes if sharded else 1) + n_cells / n_processes * a_cell


def wrong_half_a_cell(n_weights, n_processes, sharded, n_cells, a_cell):
    """Round the number of cells up, too"""
    return _held(16, n_weights / (n_processes if sharded else 1), 0, 0) + n_cells / n_processes * a_cell


def wrong_one_more(n_weights, n_processes, sharded, n_cells, a_cell):
    """One too many where nothing is left over"""
    own = n_weights // n_processes + 1 if sharded else n_weights
    return 16 * own + math.ceil(n_cells / n_processes) * a_cell
