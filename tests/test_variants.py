"""Other networks and processes, each against ours where both must say the same, or a case that can be counted."""

import pytest
import torch
from helpers import inputs, network, opened, tiny

from benchmarks import variants
from benchmarks.trials import state_first
from cdt_lite.model import MaskedDiffusion
from cdt_lite.model.config import DiffusionConfig
from cdt_lite.model.diffusion import hide
from cdt_lite.model.read import Conditioned, Read

CONFIG = tiny("lite")
MASK = CONFIG.model.n_bins
GENES = CONFIG.model.n_genes
PROCESS = DiffusionConfig(sampling_steps=4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def alike(cls):
    """The variant with the whole's weights, and the whole; both know effects."""
    whole = opened(network(CONFIG))
    other = opened(cls(CONFIG.model))
    other.load_state_dict(whole.state_dict(), strict=False)
    return other, whole


def cells(shape=(2, 3, GENES), seed=0):
    return torch.randint(MASK, shape, generator=generator(seed))


def told(seed=0):
    given = inputs(CONFIG, seed=seed)
    return [given[name] for name in ("perturbation", "controls", "gene_ids", "log_depth")]


@pytest.mark.parametrize("read", [None, "some"])
def test_factors_that_tilt_nothing_are_the_whole(read):
    other, whole = alike(variants.Factors)
    torch.nn.init.zeros_(other.tilt_by.weight)
    torch.nn.init.zeros_(other.tilt_by.bias)
    mask = torch.rand((2, 3, GENES), generator=generator()) < 0.5
    xt, read = hide(cells(), mask, MASK), Read.of(mask) if read else None
    for states in (None, lambda odds: odds > 0):
        with torch.no_grad():
            logits = [model(xt, *told(), states, read).log_softmax(-1) for model in (other, whole)]
        torch.testing.assert_close(*logits)


def test_the_joint_price_of_factors_that_tilt_nothing_is_that_of_the_whole():
    other, whole = alike(variants.Factors)
    torch.nn.init.zeros_(other.tilt_by.weight)
    torch.nn.init.zeros_(other.tilt_by.bias)
    joint = variants.FactorDiffusion(PROCESS, MASK, other)
    with torch.no_grad():
        found = joint.loss(other.given(*told()), cells(), generator(), "finetune", 0)
        expected = MaskedDiffusion(PROCESS, MASK).loss(whole.given(*told()), cells(), generator(), "finetune", 0)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_hidden_genes_of_a_cell_share_their_factor():
    """Two factors, one for each half of the bins: all genes that are drawn together lie in one half."""
    other, _ = alike(variants.Factors)
    with torch.no_grad():
        other.tilt_by.weight.zero_()
        other.tilt_by.bias.copy_(torch.tensor([-1e4, 1e4] + [0.0] * (variants.N_FACTORS - 2)))
        other.which.load_state_dict({name: torch.zeros_like(p) for name, p in other.which.state_dict().items()})
        list(other.which.parameters())[-1][2:] = -1e9
        xt = torch.full((2, 3, GENES), MASK)
        torch.manual_seed(0)
        for _ in range(5):
            best = other(xt, *told(), lambda odds: odds > 0).argmax(-1)  # (2, 3, G)
            assert (best == best[..., :1]).all() and set(best.unique().tolist()) <= {0, MASK - 1}


def test_cells_are_paired_with_the_controls_that_they_equal():
    other, _ = alike(variants.Matched)
    arguments = told()
    tokens = cells((2, 4, GENES))
    arguments[1] = tokens[:, [2, 0, 3, 1]]
    arguments[3] = torch.zeros(2, 4)
    other.given(*arguments)
    other.pair(tokens)
    assert torch.equal(other.paired, tokens)


def test_a_matched_control_shows_what_is_hidden_and_no_more():
    other, _ = alike(variants.Matched)
    denoise, xt = other.given(*told()), cells()

    def answers(seed):
        other.paired = cells(seed=seed)
        with torch.no_grad():
            return denoise.logits(xt, read=None)

    torch.testing.assert_close(answers(1), answers(2))
    xt[0, 0, 0] = MASK
    assert not torch.allclose(answers(1)[0, 0], answers(2)[0, 0])
    torch.testing.assert_close(answers(1)[0, 1], answers(2)[0, 1])


def test_genes_hidden_in_training_are_as_many_as_sampling_meets():
    process, seen = variants.SamplerShares(PROCESS, MASK), set()

    def logits(xt, read):
        seen.update((xt == MASK).sum(-1).flatten().tolist())
        return torch.zeros(len(read.at), MASK)

    for seed in range(20):
        process.loss(Conditioned(logits), cells(), generator(seed), "finetune", 0)
    revealed = torch.tensor([0, *process.counts(GENES)]).cumsum(0)[:-1]
    assert seen == set((GENES - revealed).tolist())


@pytest.mark.parametrize("n_genes", [12, 299])
def test_schedules_reveal_every_gene_once(n_genes):
    early, more = (cls(PROCESS, MASK).counts(n_genes) for cls in (variants.EarlySteps, variants.MoreSteps))
    assert sum(early) == sum(more) == n_genes and min(early + more) >= 1
    assert early[0] == 1 and len(early) == PROCESS.sampling_steps and early == sorted(early)
    assert len(more) == min(n_genes, variants.MANY_STEPS)


def test_the_gibbs_corrector_mends_cells_whose_genes_should_be_equal():
    """Exact conditionals of two equally likely cells, all 0 and all 1: a vote of what is visible, a coin without."""

    def logits(xt, read):
        ones, zeros = ((xt == value).sum(-1, keepdim=True).float() for value in (1, 0))
        vote = 1e3 * torch.sign(ones - zeros).expand(xt.shape)
        both = torch.stack([-vote, vote], -1)
        return both if read is None else read.rows(both)

    shape, at_once = (1, 200, 40), DiffusionConfig(sampling_steps=1)
    share = {}
    for cls in (MaskedDiffusion, variants.Gibbs):
        made = cls(at_once, 2).sample(Conditioned(logits), shape, generator()).float().mean(-1)
        share[cls] = float(made.maximum(1 - made).mean())
    assert share[MaskedDiffusion] < 0.6  # coins
    assert share[variants.Gibbs] > 0.8  # 1 - 0.75**4 = 68 % of the genes are drawn again, by the vote of the others


def test_a_state_that_is_drawn_first_is_kept():
    whole = opened(network(CONFIG))
    plain, first = whole.response, state_first(whole.response)
    hidden, xt = torch.full((2, 3, GENES), MASK), hide(cells(), torch.ones(2, 3, GENES).bool().tril(), MASK)

    def never(odds):
        raise AssertionError("a state was drawn twice")

    with torch.no_grad():
        whole.response = first
        whole(hidden, *told(), lambda odds: torch.arange(6).view(2, 3) % 2 == 0)
        kept = whole(xt, *told(), never)
        mixed = whole(xt, *told())
        whole.response = plain
        torch.testing.assert_close(kept, whole(xt, *told(), lambda odds: first.drawn))
        torch.testing.assert_close(mixed, whole(xt, *told()))
