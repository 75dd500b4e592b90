"""Answers to exercise 5.5: accepted ones, and wrong ones with the hint that each must get."""

import numpy as np


def accepted_stack(predict, real, least=0.2):
    guess, truth = np.stack([predict(name) for name in real]), np.stack(list(real.values()))
    a, b = guess - guess.mean(0), truth - truth.mean(0)
    changes = bool(np.abs(a).max() > 1e-3)
    return changes, changes and bool(np.corrcoef(a.ravel(), b.ravel())[0, 1] > least)


def accepted_pairs(predict, real, least=0.2):
    names, answers = list(real), {name: predict(name) for name in real}
    pairs = [(x, y) for i, x in enumerate(names) for y in names[i + 1:]]
    moved = [answers[x] - answers[y] for x, y in pairs]
    if max(np.abs(m).max() for m in moved) < 1e-3:
        return False, False
    r = np.corrcoef(np.concatenate(moved), np.concatenate([real[x] - real[y] for x, y in pairs]))[0, 1]
    return True, bool(r > least)


def wrong_swap_only(predict, real, least=0.2):
    """A change is not yet an answer"""
    guess = np.stack([predict(name) for name in real])
    changes = bool(np.abs(guess - guess.mean(0)).max() > 1e-3)
    return changes, changes


def wrong_not_centred(predict, real, least=0.2):
    """You compared each answer with its own truth"""
    guess, truth = np.stack([predict(name) for name in real]), np.stack(list(real.values()))
    changes = bool(np.abs(guess - guess.mean(0)).max() > 1e-3)
    return changes, bool(np.corrcoef(guess.ravel(), truth.ravel())[0, 1] > least)


def wrong_any_difference(predict, real, least=0.2):
    """You took any difference for listening"""
    guess, truth = np.stack([predict(name) for name in real]), np.stack(list(real.values()))
    a, b = guess - guess[:1], truth - truth[:1]
    changes = bool((a != 0).any())
    return changes, changes and bool(np.corrcoef(a.ravel(), b.ravel())[0, 1] > least)


def wrong_distance(predict, real, least=0.2):
    """direction is a correlation, not a distance"""
    guess, truth = np.stack([predict(name) for name in real]), np.stack(list(real.values()))
    changes = bool(np.abs(guess - guess.mean(0)).max() > 1e-3)
    return changes, changes and bool(np.abs(guess - truth).mean() < 0.1)


def wrong_order(predict, real, least=0.2):
    """hold each answer against the truth of the same target"""
    guess, truth = np.stack([predict(name) for name in real]), np.stack(list(real.values()))
    a, b = guess - guess.mean(0), truth - truth.mean(0)
    changes = bool(np.abs(a).max() > 1e-3)
    best = max(np.corrcoef(x, y)[0, 1] for x in a for y in b) if changes else 0.0
    return changes, bool(best > 0.9)


def wrong_fixed_bar(predict, real, least=0.2):
    """compare the correlation with `least`"""
    return accepted_stack(predict, real, 0.2)


def wrong_sign_lost(predict, real, least=0.2):
    """leave its sign on"""
    guess, truth = np.stack([predict(name) for name in real]), np.stack(list(real.values()))
    a, b = guess - guess.mean(0), truth - truth.mean(0)
    changes = bool(np.abs(a).max() > 1e-3)
    return changes, changes and bool(abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) > least)


def wrong_mean_change(predict, real, least=0.2):
    """You averaged before you asked for a change"""
    guess, truth = np.stack([predict(name) for name in real]), np.stack(list(real.values()))
    a, b = guess - guess.mean(0), truth - truth.mean(0)
    changes = bool(np.abs(a).mean() > 1e-3)
    return changes, changes and bool(np.corrcoef(a.ravel(), b.ravel())[0, 1] > least)


def wrong_square(predict, real, least=0.2):
    """The bar is for the correlation itself"""
    guess, truth = np.stack([predict(name) for name in real]), np.stack(list(real.values()))
    a, b = guess - guess.mean(0), truth - truth.mean(0)
    changes = bool(np.abs(a).max() > 1e-3)
    if not changes:
        return False, False
    r = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    return True, bool(r > 0 and r**2 > least)


def _tables(predict, real):
    return np.stack([predict(name) for name in real]), np.stack(list(real.values()))


def _judged(a, b, least):
    changes = bool(np.abs(a - a.mean(0)).max() > 1e-3)
    return changes, changes and bool(np.corrcoef(a.ravel(), b.ravel())[0, 1] > least)


def wrong_one_r_a_target(predict, real, least=0.2):
    """You took one correlation a target"""
    guess, truth = _tables(predict, real)
    a, b = guess - guess.mean(0), truth - truth.mean(0)
    changes = bool(np.abs(a).max() > 1e-3)
    return changes, changes and bool(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]) > least)


def wrong_ranks(predict, real, least=0.2):
    """You correlated ranks (Spearman)"""
    from scipy.stats import spearmanr

    guess, truth = _tables(predict, real)
    a, b = guess - guess.mean(0), truth - truth.mean(0)
    changes = bool(np.abs(a).max() > 1e-3)
    return changes, changes and bool(spearmanr(a.ravel(), b.ravel())[0] > least)


def wrong_truth_centred_alone(predict, real, least=0.2):
    """Take from each of the two tables its *own* mean"""
    guess, truth = _tables(predict, real)
    return _judged(guess, truth - truth.mean(0), least)


def wrong_guess_centred_alone(predict, real, least=0.2):
    """Take from each of the two tables its *own* mean"""
    guess, truth = _tables(predict, real)
    return _judged(guess - guess.mean(0), truth, least)


def wrong_both_by_the_real_mean(predict, real, least=0.2):
    """Take from each of the two tables its *own* mean"""
    guess, truth = _tables(predict, real)
    return _judged(guess - truth.mean(0), truth - truth.mean(0), least)


def wrong_first_pair(predict, real, least=0.2):
    """You compared some of the targets"""
    first, second, *_ = real
    changes = bool(np.abs(predict(first) - predict(second)).max() > 1e-3)
    return changes, accepted_stack(predict, real, least)[1]
