"""The original's system: the document's numbers, and the defects that the notebooks teach by it."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import inputs, network, opened, tiny
from scipy import stats
from torch import nn

from cdt_lite.errors import CDTError
from cdt_lite.model import PRESETS, V1, Perturbation, V1Diffusion
from cdt_lite.model.perturbation import NO_TARGET
from cdt_lite.model.v1 import (
    MASK_RATIO,
    N_TIMESTEPS,
    TimeEmbedding,
    curriculum_ratio,
    expected_reveals,
    mask_probabilities,
)

MASK = 63
PROCESS = V1Diffusion(MASK)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def count(part):
    parameters = part.parameters() if isinstance(part, nn.Module) else [part]
    return sum(p.numel() for p in parameters)


def test_the_preset_holds_the_documents_values():
    v1 = PRESETS["v1"]
    assert (v1.model.dim, v1.model.n_head, v1.model.n_layer, v1.model.head_dim) == (512, 8, 6, 64)
    assert (v1.model.n_genes, v1.model.n_total_genes, v1.model.vocab_size) == (2000, 36_601, 64)
    assert (N_TIMESTEPS, MASK_RATIO) == (10, 0.3)
    assert (v1.pretrain.epochs, v1.finetune.epochs, v1.finetune.batch_size) == (50, 20, 32)


def test_it_has_27_374_473_parameters_term_by_term():
    with torch.device("meta"):
        model = V1(PRESETS["v1"].model)
    block, told = model.blocks[0], model.perturbation
    assert count(model.embed.token) == 32_768 and count(model.embed.position) == 1_024_000
    assert count(model.time) == 525_312 and count(model.control_set) == 735_232
    assert count(model.gene_table) == 4_684_928 and count(told.sign) == 9
    assert count(told.magnitude) == 37_568 and count(told.project) == 592_384
    assert count(block.self_attention.inner) == count(block.cross_attention.inner) == 590_976
    assert count(block.mlp.inner) == 2_099_712 and count(block) == 3_284_736
    assert count(model.norm) == 1_024 and count(model.head) == 32_832
    assert count(model) == 27_374_473


def test_mask_probabilities_are_the_documents():
    expected = [0, 0.0086, 0.031, 0.065, 0.108, 0.156, 0.203, 0.245, 0.278, 0.3]
    assert mask_probabilities().tolist() == pytest.approx(expected, abs=6e-4)
    assert mask_probabilities()[0] == 0  # alpha(0) = 1: the first timestep hides nothing


def test_it_reveals_nine_groups_and_nothing_in_the_tenth():
    groups = expected_reveals(2000)
    assert groups.round().tolist() == [143, 224, 282, 314, 315, 286, 229, 150, 57]
    assert groups.sum() == pytest.approx(2000)
    p = mask_probabilities()
    assert expected_reveals(1)[0] == pytest.approx(float(1 - p[8] / p[9]))  # by hand


def test_the_curriculum_rises_from_03_to_09_and_stops():
    ratios = [curriculum_ratio(step) for step in (0, 50_000, 100_000, 10**6)]
    assert ratios == pytest.approx([0.3, 0.6, 0.9, 0.9])


def test_a_timestep_is_sines_and_cosines_by_hand():
    embedding = TimeEmbedding(4)
    embedding.mlp = nn.Identity()
    third = embedding(torch.full((1, 1), 3 / 9))[0, 0]
    expected = [math.sin(3), math.sin(3 / 100), math.cos(3), math.cos(3 / 100)]
    assert third.tolist() == pytest.approx(expected, rel=1e-5)


def test_no_target_is_the_zero_vector():
    model = opened(network(tiny("v1")))
    vectors = model.perturbation.target_vector(torch.tensor([NO_TARGET, 2]), model.gene_table)
    assert not vectors[0].any() and torch.equal(vectors[1], model.gene_table.weight[2])


def test_positions_are_fixed():
    config = tiny("v1")
    model, given = opened(network(config)), inputs(config)
    order = torch.arange(config.model.n_genes).flip(0)
    moved = {**given, "xt": given["xt"][..., order]}
    assert not torch.allclose(model(**given)[:, :, order], model(**moved), atol=1e-2)


def test_a_panel_that_does_not_fit_is_refused():
    config = tiny("v1")
    model, given = network(config), inputs(config)
    xt, t, nothing = given["xt"], given["t"], Perturbation.none(2)
    with pytest.raises(CDTError, match="positions"):
        model(xt.repeat(1, 1, 2), t, nothing, None)
    with pytest.raises(CDTError, match="exactly 12 genes"):
        model(xt[..., :5], t, nothing, given["controls"][..., :5])


@pytest.mark.parametrize(("stage", "factor"), [("pretrain", 0.5), ("finetune", 0.3)])
def test_one_beta_ratio_hides_genes_of_a_whole_batch_and_the_time_says_nothing(stage, factor):
    shares, times = [], []

    def watch(xt, t):
        by_cell = (xt == MASK).float().mean(-1)
        assert by_cell.std() < 0.08
        shares.append(float(by_cell.mean()))
        times.append(float(t.mean()))
        return torch.zeros(*xt.shape, 64)

    tokens = torch.zeros(32, 1, 200, dtype=torch.long)
    for seed in range(400):
        PROCESS.loss(watch, tokens, rng(seed), stage, 0)
    assert stats.kstest(np.array(shares) / factor, stats.beta(2, 5).cdf).pvalue > 0.001
    assert abs(np.corrcoef(shares, times)[0, 1]) < 0.15
    assert np.mean(times) == pytest.approx(0.5, abs=0.02)


def test_knowing_nothing_costs_log_64_for_the_mask_is_among_its_answers():
    tokens = torch.randint(63, (4, 5, 300), generator=rng())
    for seed in range(5):
        loss = PROCESS.loss(lambda xt, t: torch.zeros(*xt.shape, 64), tokens, rng(seed), "pretrain", 0)
        assert loss.item() == pytest.approx(math.log(64), rel=1e-5)


def test_the_sampler_tells_timesteps_reveals_as_many_as_expected_and_never_rewrites():
    told = []

    def denoise(xt, t):
        told.append(float(t[0, 0]) * 9)
        return torch.zeros(*xt.shape, 63)

    states = list(PROCESS.sample_steps(denoise, (1, 20, 500), rng()))
    assert told == pytest.approx(range(9, 0, -1)) and len(states) == 10
    assert (states[0] == MASK).all() and (states[-1] != MASK).all()
    for (before, after), expected in zip(pairwise(states), expected_reveals(500), strict=True):
        known = before != MASK
        assert torch.equal(before[known], after[known])
        revealed = (after != MASK).sum() - known.sum()
        assert revealed / 20 == pytest.approx(expected, abs=8)


def test_a_gene_whose_mask_is_drawn_stays_hidden():
    def wants_mask(xt, t):
        return torch.tensor([0.0] * 63 + [50.0]).expand(*xt.shape, 64)

    assert (PROCESS.sample(wants_mask, (1, 2, 40), rng()) == MASK).all()


def test_a_number_of_steps_is_refused():
    with pytest.raises(CDTError, match="v1's sampler takes its 9 timesteps, not 5"):
        PROCESS.sample(lambda xt, t: xt, (1, 2, 40), rng(), steps=5)
