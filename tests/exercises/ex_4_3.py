"""Answers to exercise 4.3: accepted ones, and wrong ones with the hint that each must get."""

import torch
from torch import nn


def set_rate(optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate


def accepted_cleared_first(model, optimizer, loss_of, rate, clip):
    model.train()
    optimizer.zero_grad(set_to_none=True)
    set_rate(optimizer, rate)
    loss = loss_of()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return float(loss.detach())


def accepted_clipped_by_hand(model, optimizer, loss_of, rate, clip):
    model.train()
    loss = loss_of()
    weights = list(model.parameters())
    gradients = torch.autograd.grad(loss, weights)
    length = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient * min(1.0, clip / float(length))
    set_rate(optimizer, rate)
    optimizer.step()
    return loss.item()


def step(model, optimizer, loss_of, rate, clip, clip_with=nn.utils.clip_grad_norm_):
    """The right step, whose parts wrong answers leave out or exchange."""
    optimizer.zero_grad()
    model.train()
    loss = loss_of()
    loss.backward()
    clip_with(model.parameters(), clip)
    set_rate(optimizer, rate)
    optimizer.step()
    return loss


def wrong_nothing_cleared(model, optimizer, loss_of, rate, clip):
    """Gradients of the first step were still there"""
    model.train()
    loss = loss_of()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    set_rate(optimizer, rate)
    optimizer.step()
    return loss.item()


def wrong_rate_after(model, optimizer, loss_of, rate, clip):
    """Your rate comes too late, or never"""
    own = [group["lr"] for group in optimizer.param_groups]
    loss = step(model, optimizer, loss_of, own[0], clip)
    set_rate(optimizer, rate)
    return loss.item()


def wrong_first_group(model, optimizer, loss_of, rate, clip):
    """Your rate reaches one group of weights only"""
    model.train()
    loss = loss_of()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.param_groups[0]["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def wrong_cleared_too_early(model, optimizer, loss_of, rate, clip):
    """nothing may clear them before optimizer.step()"""
    model.train()
    loss = loss_of()
    loss.backward()
    optimizer.zero_grad()
    set_rate(optimizer, rate)
    optimizer.step()
    return loss.item()


def wrong_no_gradient(model, optimizer, loss_of, rate, clip):
    """loss.backward() makes gradients"""
    model.train()
    loss = loss_of()
    set_rate(optimizer, rate)
    optimizer.step()
    return loss.item()


def wrong_clipped_too_late(model, optimizer, loss_of, rate, clip):
    """clip after loss.backward() and before optimizer.step()"""
    loss = step(model, optimizer, loss_of, rate, clip, lambda *_: None)
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    return loss.item()


def wrong_each_value(model, optimizer, loss_of, rate, clip):
    """You clipped each value by itself"""
    return step(model, optimizer, loss_of, rate, clip, nn.utils.clip_grad_value_).item()


def wrong_always_clip(model, optimizer, loss_of, rate, clip):
    """You scaled the gradient up to `clip`"""

    def scale(weights, length):
        weights = list(weights)
        total = torch.sqrt(sum((weight.grad**2).sum() for weight in weights))
        for weight in weights:
            weight.grad *= length / total

    return step(model, optimizer, loss_of, rate, clip, scale).item()


def wrong_loss_after(model, optimizer, loss_of, rate, clip):
    """You asked for the loss again, after the update"""
    step(model, optimizer, loss_of, rate, clip)
    return loss_of().item()


def wrong_tensor(model, optimizer, loss_of, rate, clip):
    """keeps the graph of every step in memory"""
    return step(model, optimizer, loss_of, rate, clip)


def wrong_asleep(model, optimizer, loss_of, rate, clip):
    """The model came in evaluation mode, and stayed in it"""
    model.train = lambda mode=True: model
    return step(model, optimizer, loss_of, rate, clip).item()


def wrong_asked_twice(model, optimizer, loss_of, rate, clip):
    """Ask for the loss once a step"""
    model.train()
    before = loss_of().item()
    step(model, optimizer, loss_of, rate, clip)
    return before


def wrong_by_hand(model, optimizer, loss_of, rate, clip):
    """You moved the weights yourself"""
    model.train()
    model.zero_grad()
    loss = loss_of()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    with torch.no_grad():
        for weight in model.parameters():
            weight -= rate * weight.grad
    return loss.item()
