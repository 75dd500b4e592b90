"""Answers to exercise 2.5: accepted ones, and wrong ones with the hint that each must get."""

import torch.nn.functional as F


def step(h, shift, scale, gate, inner):
    return h + gate * inner(F.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift)


def accepted_three_steps(h, modulation, memory, attend, read, mlp):
    h = step(h, *modulation[:3], attend)
    if memory is not None:
        h = step(h, *modulation[3:6], lambda x: read(x, memory))
    return step(h, *modulation[6:], mlp)


def accepted_loop(h, modulation, memory, attend, read, mlp):
    parts = [attend, None if memory is None else lambda x: read(x, memory), mlp]
    for rows, inner in zip(modulation.chunk(3), parts, strict=True):
        if inner is not None:
            h = step(h, *rows, inner)
    return h


def wrong_by_kind(h, modulation, memory, attend, read, mlp):
    """The rows are cut by kind"""
    shift, scale, gate = modulation.chunk(3)
    h = step(h, shift[0], scale[0], gate[0], attend)
    if memory is not None:
        h = step(h, shift[1], scale[1], gate[1], lambda x: read(x, memory))
    return step(h, shift[2], scale[2], gate[2], mlp)


def wrong_no_controls(h, modulation, memory, attend, read, mlp):
    """The step that reads the controls is missing"""
    return step(step(h, *modulation[:3], attend), *modulation[6:], mlp)


def wrong_one_row_for_all(h, modulation, memory, attend, read, mlp):
    """All three steps use the first one's rows"""
    h = step(h, *modulation[:3], attend)
    if memory is not None:
        h = step(h, *modulation[:3], lambda x: read(x, memory))
    return step(h, *modulation[:3], mlp)


def wrong_gate_first(h, modulation, memory, attend, read, mlp):
    """shift, scale, gate, in this order"""
    def turned(h, gate, shift, scale, inner):
        return step(h, shift, scale, gate, inner)
    h = turned(h, *modulation[:3], attend)
    if memory is not None:
        h = turned(h, *modulation[3:6], lambda x: read(x, memory))
    return turned(h, *modulation[6:], mlp)


def wrong_always_reads(h, modulation, memory, attend, read, mlp):
    """Without a memory nothing is read"""
    h = step(h, *modulation[:3], attend)
    h = step(h, *modulation[3:6], lambda x: read(x, memory))
    return step(h, *modulation[6:], mlp)


def wrong_rows_in_turn(h, modulation, memory, attend, read, mlp):
    """its own are the last three"""
    rows = iter(modulation.chunk(3))
    h = step(h, *next(rows), attend)
    if memory is not None:
        h = step(h, *next(rows), lambda x: read(x, memory))
    return step(h, *next(rows), mlp)


def wrong_controls_first(h, modulation, memory, attend, read, mlp):
    """First attention among genes"""
    if memory is not None:
        h = step(h, *modulation[3:6], lambda x: read(x, memory))
    h = step(h, *modulation[:3], attend)
    return step(h, *modulation[6:], mlp)


def wrong_side_by_side(h, modulation, memory, attend, read, mlp):
    """not the h of the beginning"""
    out = h + (step(h, *modulation[:3], attend) - h) + (step(h, *modulation[6:], mlp) - h)
    if memory is not None:
        out = out + (step(h, *modulation[3:6], lambda x: read(x, memory)) - h)
    return out


def wrong_sliding_rows(h, modulation, memory, attend, read, mlp):
    """a step begins three rows after the one before"""
    h = step(h, *modulation[:3], attend)
    if memory is not None:
        h = step(h, *modulation[1:4], lambda x: read(x, memory))
    return step(h, *modulation[2:5], mlp)


def wrong_added_twice(h, modulation, memory, attend, read, mlp):
    """modulated_step already adds h"""
    h = h + step(h, *modulation[:3], attend)
    if memory is not None:
        h = h + step(h, *modulation[3:6], lambda x: read(x, memory))
    return h + step(h, *modulation[6:], mlp)


def wrong_reads_the_stream(h, modulation, memory, attend, read, mlp):
    """Hand `read` the x that the step makes"""
    h = step(h, *modulation[:3], attend)
    if memory is not None:
        before = h
        h = step(h, *modulation[3:6], lambda x: read(before, memory))
    return step(h, *modulation[6:], mlp)


def wrong_second_from_the_start(h, modulation, memory, attend, read, mlp):
    """hand it what the first returned"""
    out = step(h, *modulation[:3], attend)
    if memory is not None:
        out = step(h, *modulation[3:6], lambda x: read(x, memory))
    return step(out, *modulation[6:], mlp)
