"""Whether a cell answers to its perturbation: two states, their posterior and their mixture, against enumeration."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from cdt_lite.model.mean_effect import Known, tilts
from cdt_lite.model.response import Response, drawn_states

VALUES = torch.log1p(torch.arange(4.0))
MASK, GENES, DIM = len(VALUES), 3, 5
LAW = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.7, 0.2, 0.05, 0.05], [0.1, 0.2, 0.3, 0.4]])
EFFECT = torch.tensor([[-0.2, 0.15, 0.0]])
KNOWN = Known(EFFECT, LAW, VALUES, torch.tensor(1.0))
CELLS = list(product(range(4), repeat=GENES))


def response(share=0.75, weight=1.0, overlap=0.0):
    module = Response(DIM)
    with torch.no_grad():
        module.responders.fill_(logit(share))
        module.weight.fill_(np.log(weight))
        module.overlap.fill_(np.log(overlap) if overlap else -np.inf)
        module.trust.weight.zero_()
        module.trust.bias.zero_()
    return module


def odds(module, tokens, depth=0.0, known=KNOWN):
    xt = torch.tensor([tokens])
    with torch.no_grad():
        tilt = tilts(known.shares, known.values, known.effect / module.responders.sigmoid())
        return module.log_odds(xt, torch.full(xt.shape[:2], depth), known, tilt)[0].numpy()


def probabilities(module, tokens, known=KNOWN, states=None):
    """Of every gene's bins where the network knows each gene's law among controls."""
    xt = torch.tensor([tokens])
    logits = LAW.log().expand(*xt.shape, -1)
    with torch.no_grad():
        h, depth = torch.zeros(*xt.shape, DIM), torch.zeros(xt.shape[:2])
        return module(logits, h, xt, depth, known, states).softmax(-1)[0].numpy()


def laws(share=0.75):
    """Every possible cell's probability in both states, escaped and answered: genes are independent within one."""
    change = (tilts(LAW, VALUES, EFFECT / share)[0, :, None] * VALUES).exp() * LAW
    both = torch.stack([LAW, change / change.sum(-1, keepdim=True)]).numpy()
    return np.array([[np.prod([law[g, x] for g, x in enumerate(cell)]) for cell in CELLS] for law in both])


def test_the_odds_are_bayes_rule_for_two_states():
    escaped, answered = laws()
    expected = 0.75 * answered / (0.75 * answered + 0.25 * escaped)
    np.testing.assert_allclose(expit(odds(response(), CELLS)), expected, rtol=1e-4)


@pytest.mark.parametrize("visible", [(), (0,), (1, 2), (0, 2)])
def test_a_hidden_gene_has_the_law_that_the_joint_of_both_states_gives_it(visible):
    """By enumeration over all cells: p(hidden gene | visible genes) in the mixture of two independent laws."""
    joint = np.array([0.25, 0.75]) @ laws()
    cells = np.array(CELLS)
    for cell in ((0, 1, 3), (2, 0, 1)):
        fits = (cells[:, list(visible)] == np.array(cell)[list(visible)]).all(1)
        masked = [x if g in visible else MASK for g, x in enumerate(cell)]
        found = probabilities(response(), [masked])[0]
        for gene in set(range(GENES)) - set(visible):
            expected = [joint[fits & (cells[:, gene] == x)].sum() / joint[fits].sum() for x in range(4)]
            np.testing.assert_allclose(found[gene], expected, atol=1e-4)


def test_before_anything_is_seen_the_mean_moves_by_the_known_effect():
    found = probabilities(response(0.6, 2.0, 0.3), [[MASK] * GENES])[0]
    np.testing.assert_allclose(found @ VALUES.numpy() - (LAW @ VALUES).numpy(), EFFECT[0], atol=1e-3)


def test_states_that_are_drawn_are_the_mixture_and_all_genes_of_a_cell_share_one():
    module, n = response(), 4000
    found = probabilities(module, [[MASK] * GENES] * n, states=drawn_states(torch.Generator().manual_seed(0)))
    answered = np.abs(found[:, 0] - LAW[0].numpy()).max(1) > 1e-4
    assert answered.mean() == pytest.approx(0.75, abs=0.03)
    np.testing.assert_allclose(found[~answered], LAW.expand(n, -1, -1)[: (~answered).sum()], atol=1e-5)
    assert np.ptp(found[answered], axis=0).max() < 1e-5
    np.testing.assert_allclose(found.mean(0), probabilities(module, [[MASK] * GENES])[0], atol=0.02)


def test_a_gene_without_an_effect_says_nothing_and_no_effect_means_no_question():
    module = response()
    one, other = odds(module, [[MASK, 3, 0], [MASK, 3, 3]])
    assert one == pytest.approx(other, abs=1e-6)
    nothing = KNOWN._replace(effect=torch.zeros_like(EFFECT))
    np.testing.assert_allclose(odds(module, [[0, 3, 1]], known=nothing), logit(0.75), rtol=1e-5)
    np.testing.assert_allclose(probabilities(module, [[MASK, 3, 1]], nothing)[0], LAW, atol=1e-6)


def test_what_genes_have_in_common_counts_once():
    tokens = [[0, 3, 0]]
    freely, shared = odds(response(overlap=0.0), tokens), odds(response(overlap=10.0), tokens)
    assert logit(0.75) < shared[0] < freely[0]


def test_counts_are_read_at_the_cells_own_depth_and_normalised_values_as_they_are():
    shallow, deep = odds(response(), [[1, 1, 1]]), odds(response(), [[2, 2, 2]], depth=float(np.log(2)))
    np.testing.assert_allclose(shallow, deep, rtol=1e-5)
    normalised = KNOWN._replace(counted=torch.tensor(0.0))
    np.testing.assert_allclose(odds(response(), [[1, 2, 0]], 0.7, normalised), odds(response(), [[1, 2, 0]]), rtol=1e-6)


def test_a_network_that_trusts_nothing_is_on_its_own_in_cells_that_answer():
    module = response()
    with torch.no_grad():
        module.trust.bias.fill_(-1)
        module.responders.fill_(30.0)
    np.testing.assert_allclose(probabilities(module, [[MASK, 3, 1]])[0], LAW, atol=1e-6)
