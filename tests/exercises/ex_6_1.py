"""Answers to exercise 6.1: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def _change(real, predicted, control, own):
    a, b = real - control, predicted - control
    return (a, b) if own is None else (np.delete(a, own), np.delete(b, own))


def accepted_norms(real, predicted, control, own):
    a, b = (x - x.mean() for x in _change(real, predicted, control, own))
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / scale if scale > 0 else np.nan


def accepted_loop(real, predicted, control, own):
    genes = [g for g in range(len(real)) if g != own]
    a, b = ([float(x[g] - control[g]) for g in genes] for x in (real, predicted))
    p, q = ([v - sum(x) / len(x) for v in x] for x in (a, b))
    scale = (sum(v * v for v in p) * sum(v * v for v in q)) ** 0.5
    return sum(v * w for v, w in zip(p, q, strict=True)) / scale if scale else float("nan")


def accepted_package(real, predicted, control, own):
    from cdt_lite.evaluation.metrics import pearson_delta

    return pearson_delta(real - control, predicted - control, [] if own is None else [own])


def wrong_expression(real, predicted, control, own):
    """You correlated expression itself"""
    a, b = (real, predicted) if own is None else (np.delete(real, own), np.delete(predicted, own))
    return float(np.corrcoef(a, b)[0, 1]) if b.std() > 0 else float("nan")


def wrong_cosine(real, predicted, control, own):
    """You took the cosine"""
    a, b = _change(real, predicted, control, own)
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / scale) if scale > 0 else float("nan")


def wrong_own_gene(real, predicted, control, own):
    """You kept the target's own gene"""
    return accepted_norms(real, predicted, control, None)


def wrong_zeroed(real, predicted, control, own):
    """You set the own gene to zero"""
    a, b = real - control, predicted - control
    if own is not None:
        a, b = a * (np.arange(len(a)) != own), b * (np.arange(len(b)) != own)
    return accepted_norms(a, b, np.zeros(len(a)), None)


def wrong_first_gene(real, predicted, control, own):
    """Position 0 is false to Python"""
    return accepted_norms(real, predicted, control, own if own else None)


def wrong_zero_for_nothing(real, predicted, control, own):
    """A prediction of no change has no direction"""
    return float(np.nan_to_num(accepted_norms(real, predicted, control, own)))


def wrong_ranks(real, predicted, control, own):
    """You correlated ranks (Spearman)"""
    from scipy.stats import spearmanr

    keep = np.arange(len(real)) != (-1 if own is None else own)
    return float(spearmanr((real - control)[keep], (predicted - control)[keep])[0])


def wrong_slope(real, predicted, control, own):
    """That is the slope of a line"""
    keep = np.arange(len(real)) != (-1 if own is None else own)
    a, b = (real - control)[keep], (predicted - control)[keep]
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (a @ a))


def wrong_absolute(real, predicted, control, own):
    """You dropped the sign"""
    return abs(accepted_norms(real, predicted, control, own))


def wrong_unchanged_dropped(real, predicted, control, own):
    """You left out a gene that does not move"""
    keep = (np.arange(len(real)) != (-1 if own is None else own)) & (real != control)
    return accepted_norms(real[keep], predicted[keep], control[keep], None)


def wrong_unchanged_in_both_dropped(real, predicted, control, own):
    """You left out a gene that does not move"""
    keep = (np.arange(len(real)) != (-1 if own is None else own)) & ((real != control) | (predicted != control))
    return accepted_norms(real[keep], predicted[keep], control[keep], None) if keep.any() else float("nan")


def wrong_centred_first(real, predicted, control, own):
    """You centred first"""
    a, b = (x - control - (x - control).mean() for x in (real, predicted))
    a, b = (a, b) if own is None else (np.delete(a, own), np.delete(b, own))
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / scale) if scale > 0 else float("nan")
