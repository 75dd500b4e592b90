"""How strongly a cell answers: the posterior of two states, against the same by enumeration."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from scipy.stats import norm

from cdt_lite.model.cdt import Response
from cdt_lite.model.mean_effect import Known

VALUES = torch.log1p(torch.arange(30.0))
MASK = len(VALUES)
EFFECT = torch.tensor([[-0.4, 0.6, 0.0, -1.0]])
MEAN, VARIANCE = torch.tensor([1.0, 0.5, 2.0, 1.5]), torch.tensor([0.5, 0.3, 1.0, 0.8])
KNOWN = Known(EFFECT, torch.zeros_like(EFFECT), MEAN, VARIANCE)


def response(share=0.75, weight=1.0, overlap=0.0):
    module = Response()
    with torch.no_grad():
        module.responders.fill_(logit(share))
        module.weight.fill_(np.log(weight))
        module.overlap.fill_(np.log(overlap) if overlap else -np.inf)
    return module


def answers(module, tokens, depth=0.0, known=KNOWN):
    with torch.no_grad():
        return module(torch.tensor([tokens]), torch.full((1, len(tokens)), depth), known, VALUES)[0].numpy()


def test_it_is_bayes_rule_for_two_normal_states():
    """Responders lie around mean + effect / p, escapees around the mean; the controls' variance in both."""
    tokens, p = [[0, 3, 5, 1], [2, 0, 9, 4]], 0.75
    found = answers(response(p), tokens)
    for row, answer in zip(tokens, found, strict=True):
        x, sd = VALUES[row].numpy(), VARIANCE.sqrt().numpy()
        responds = p * norm.pdf(x, MEAN + EFFECT[0] / p, sd).prod()
        escapes = (1 - p) * norm.pdf(x, MEAN, sd).prod()
        assert answer == pytest.approx(responds / (responds + escapes) / p, rel=1e-4)


def test_before_anything_is_seen_every_cell_answers_by_the_known_effect():
    np.testing.assert_allclose(answers(response(0.6, 2.0, 0.3), [[MASK] * 4]), 1.0, rtol=1e-6)


def test_a_gene_without_an_effect_says_nothing_and_no_effect_means_no_question():
    module = response()
    one, other = answers(module, [[MASK, 3, 0, MASK], [MASK, 3, 25, MASK]])
    assert one == other
    nothing = KNOWN._replace(effect=torch.zeros_like(EFFECT))
    np.testing.assert_allclose(answers(module, [[0, 9, 1, 2]], known=nothing), 1.0, rtol=1e-6)


def test_over_cells_that_answer_or_escape_the_mean_answer_is_one():
    """What is expected of the answer, before a cell is seen, is the known effect: Bayes's posterior is a martingale."""
    p, rng = 0.7, np.random.default_rng(0)
    effect, mean, sd = EFFECT[0].numpy() / p, MEAN.numpy(), np.sqrt(VARIANCE.numpy())
    state = rng.random(20_000) < p
    x = mean + state[:, None] * effect + sd * rng.normal(size=(len(state), 4))
    odds = logit(p) + ((x - mean) @ (effect / sd**2) - (effect**2 / sd**2).sum() / 2)
    assert (expit(odds) / p).mean() == pytest.approx(1.0, abs=0.02)


def test_what_genes_have_in_common_counts_once():
    """With a full overlap any number of genes says no more than their mean evidence; the sign stays."""
    tokens = [[0, 9, 3, 0]]
    freely, shared = answers(response(overlap=0.0), tokens), answers(response(overlap=10.0), tokens)
    assert 1.0 < shared[0] < freely[0] <= 1 / 0.75 + 1e-6


def test_counts_are_read_at_the_cells_own_depth():
    shallow, deep = answers(response(), [[1, 2, 3, 1]]), answers(response(), [[2, 4, 6, 2]], depth=float(np.log(2)))
    np.testing.assert_allclose(shallow, deep, rtol=1e-5)
