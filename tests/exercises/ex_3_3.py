"""Answers to exercise 3.3: accepted ones, and wrong ones with the hint that each must get."""

import torch

from cdt_lite.model import draw


def turns(shape, generator):
    return torch.rand(shape, generator=generator).argsort(-1).argsort(-1)


def accepted_turns(denoise, counts, shape, mask_id, generator):
    turn, xt, known = turns(shape, generator), torch.full(shape, mask_id), 0
    for n in counts:
        now = (turn >= known) & (turn < known + n)
        xt = torch.where(now, draw(denoise(xt)[..., :mask_id], generator), xt)
        known += n
    return xt


def accepted_hidden(denoise, counts, shape, mask_id, generator):
    turn, xt, after = turns(shape, generator), torch.full(shape, mask_id), 0
    for n in counts:
        after += n
        drawn = draw(denoise(xt)[..., :mask_id], generator)
        now = (xt == mask_id) & (turn < after)
        xt = xt.clone()
        xt[now] = drawn[now]
    return xt


def accepted_places(denoise, counts, shape, mask_id, generator):
    order, xt = turns(shape, generator).argsort(-1), torch.full(shape, mask_id)  # order[..., i]: whose turn is i
    for now in order.split(list(counts), -1):
        drawn = draw(denoise(xt)[..., :mask_id], generator)
        xt = xt.scatter(-1, now, drawn.gather(-1, now))
    return xt


def wrong_new_turns(denoise, counts, shape, mask_id, generator):
    """keep each cell's turns for the whole loop"""
    xt, known = torch.full(shape, mask_id), 0
    for n in counts:
        turn = turns(shape, generator)
        now = (turn >= known) & (turn < known + n)
        xt = torch.where(now, draw(denoise(xt)[..., :mask_id], generator), xt)
        known += n
    return xt


def wrong_stale(denoise, counts, shape, mask_id, generator):
    """You always ask about nothing but masks"""
    turn, masks, known = turns(shape, generator), torch.full(shape, mask_id), 0
    xt = masks
    for n in counts:
        now = (turn >= known) & (turn < known + n)
        xt = torch.where(now, draw(denoise(masks)[..., :mask_id], generator), xt)
        known += n
    return xt


def wrong_at_once(denoise, counts, shape, mask_id, generator):
    """You asked once and revealed all"""
    turns(shape, generator)
    return draw(denoise(torch.full(shape, mask_id))[..., :mask_id], generator)


def wrong_from_the_end(denoise, counts, shape, mask_id, generator):
    """You took the counts from their end"""
    return accepted_turns(denoise, counts[::-1], shape, mask_id, generator)


def wrong_one_too_many(denoise, counts, shape, mask_id, generator):
    """You reveal one gene too many a step"""
    turn, xt, known = turns(shape, generator), torch.full(shape, mask_id), 0
    for n in counts:
        now = (turn >= known) & (turn <= known + n)
        xt = torch.where(now & (xt == mask_id), draw(denoise(xt)[..., :mask_id], generator), xt)
        known += n
    return xt


def wrong_redrawn(denoise, counts, shape, mask_id, generator):
    """You draw revealed genes anew"""
    turn, xt, known = turns(shape, generator), torch.full(shape, mask_id), 0
    for n in counts:
        known += n
        xt = torch.where(turn < known, draw(denoise(xt)[..., :mask_id], generator), xt)
    return xt


def wrong_one_order(denoise, counts, shape, mask_id, generator):
    """All cells reveal the same genes first"""
    turn, xt, known = turns(shape, generator)[:1, :1], torch.full(shape, mask_id), 0
    for n in counts:
        now = (turn >= known) & (turn < known + n)
        xt = torch.where(now, draw(denoise(xt)[..., :mask_id], generator), xt)
        known += n
    return xt


def wrong_likeliest(denoise, counts, shape, mask_id, generator):
    """You take the likeliest value"""
    turn, xt, known = turns(shape, generator), torch.full(shape, mask_id), 0
    for n in counts:
        now = (turn >= known) & (turn < known + n)
        xt = torch.where(now, denoise(xt)[..., :mask_id].argmax(-1), xt)
        known += n
    return xt


def wrong_surest_first(denoise, counts, shape, mask_id, generator):
    """You choose genes by the values drawn for them"""
    noise, xt = torch.rand(shape, generator=generator), torch.full(shape, mask_id)
    for n in counts:
        log_p = denoise(xt)[..., :mask_id].log_softmax(-1)
        drawn = draw(log_p, generator)
        sure = log_p.gather(-1, drawn[..., None])[..., 0] + 1e-3 * noise
        kept = sure.masked_fill(xt != mask_id, -torch.inf).topk(n, -1).indices
        xt = xt.scatter(-1, kept, drawn.gather(-1, kept))
    return xt


def wrong_mask_drawn(denoise, counts, shape, mask_id, generator):
    """[MASK] is no answer"""
    turn, xt, known = turns(shape, generator), torch.full(shape, mask_id), 0
    for n in counts:
        now = (turn >= known) & (turn < known + n)
        xt = torch.where(now, draw(denoise(xt), generator), xt)
        known += n
    return xt


def wrong_other_chance(denoise, counts, shape, mask_id, generator):
    """chance is used in another order"""
    turn, xt, known = turns(shape, generator), torch.full(shape, mask_id), 0
    for n in counts:
        p = denoise(xt)[..., :mask_id].softmax(-1)
        drawn = torch.multinomial(p.flatten(0, 2), 1, generator=generator).view(shape)
        xt = torch.where((turn >= known) & (turn < known + n), drawn, xt)
        known += n
    return xt
