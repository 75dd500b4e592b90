import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from cdt_lite.errors import CDTError
from cdt_lite.model.config import PRESETS, DiffusionConfig
from cdt_lite.model.diffusion import (
    curriculum_ratio,
    draw,
    draw_masks,
    guide,
    hide,
    loss_curve,
    mask_probabilities,
    masked_loss,
    one_step_mean,
    reveal_counts,
    sample,
    sample_steps,
    v1_reveals,
)

V1, FIXED = PRESETS["v1"].diffusion, PRESETS["lite"].diffusion
MASK = 3  # the enumerable case has three data bins


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_v1_mask_probabilities_are_the_documents():
    expected = [0, 0.0086, 0.031, 0.065, 0.108, 0.156, 0.203, 0.245, 0.278, 0.3]
    assert mask_probabilities(V1).tolist() == pytest.approx(expected, abs=6e-4)


def test_v1_reveals_nine_groups_and_nothing_in_the_tenth():
    groups = v1_reveals(V1, 2000)
    assert groups.round().tolist() == [143, 224, 282, 314, 315, 286, 229, 150, 57]
    assert groups.sum() == pytest.approx(2000)


def test_v1_reveals_by_hand_equal_one_minus_the_ratio():
    p = mask_probabilities(V1)
    assert v1_reveals(V1, 1)[0] == pytest.approx(float(1 - p[8] / p[9]))


@pytest.mark.parametrize("schedule", ["cosine", "uniform", "geometric"])
@pytest.mark.parametrize(("n_genes", "steps"), [(299, 16), (2000, 32), (5, 16), (1, 1), (17, 16)])
def test_every_step_reveals_something_and_all_genes_are_revealed(schedule, n_genes, steps):
    counts = reveal_counts(replace(FIXED, sampling_schedule=schedule, sampling_steps=steps), n_genes)
    assert counts.sum() == n_genes and (counts >= 1).all() and len(counts) == min(steps, n_genes)


def test_all_is_known_at_the_end_and_nothing_at_the_start():
    """alpha(0) = 1 and alpha(1) = 0: v1's first timestep hides nothing, its last hides the share it is told."""
    assert mask_probabilities(V1)[0] == 0 and mask_probabilities(V1)[-1] == pytest.approx(V1.mask_ratio)
    for schedule in ("cosine", "uniform", "geometric"):
        counts = reveal_counts(replace(FIXED, sampling_schedule=schedule), 50)
        known = np.concatenate([[0], counts.cumsum(0).numpy()]) / 50
        assert known[0] == 0 and known[-1] == 1 and (np.diff(known) > 0).all()


def test_cosine_schedule_at_half_time_by_hand():
    counts = reveal_counts(replace(FIXED, sampling_steps=2), 1000)
    first = round(1000 * (1 - math.cos(math.pi / 4)))
    assert counts.tolist() == [first, 1000 - first]


def test_the_curriculum_rises_from_03_to_09_and_stops():
    assert [curriculum_ratio(V1, s) for s in (0, 50_000, 100_000, 10**6)] == pytest.approx([0.3, 0.6, 0.9, 0.9])


def test_uniform_masks_have_uniform_counts_and_an_honest_time():
    masked = draw_masks(FIXED, (40, 25, 60), rng())
    k = masked.mask.sum(-1).flatten()
    assert torch.equal(masked.t.flatten(), k / 60) and k.min() >= 1
    assert stats.kstest(k.numpy() / 60, "uniform").statistic < 0.02  # stratified: far closer than 1,000 free draws
    assert masked.mask.float().mean((0, 1)).std() < 0.03  # no position is favoured


def test_v1_masks_share_one_beta_ratio_and_a_time_that_says_nothing():
    shares, times = [], []
    for seed in range(400):
        masked = draw_masks(V1, (32, 1, 200), rng(seed), "pretrain")
        by_cell = masked.mask.float().mean(-1)
        shares.append(float(by_cell.mean()))
        times.append(float(masked.t.mean()))
        assert by_cell.std() < 0.08
    assert stats.kstest(np.array(shares) / 0.5, stats.beta(2, 5).cdf).pvalue > 0.001
    assert abs(np.corrcoef(shares, times)[0, 1]) < 0.15


@pytest.mark.parametrize("law", ["beta_batch", "uniform_batch", "uniform_cell"])
@pytest.mark.parametrize("classes", [63, 64])
def test_a_model_that_knows_nothing_costs_log_classes(law, classes):
    tokens = torch.randint(63, (4, 5, 30), generator=rng())
    for seed in range(5):
        masked = draw_masks(replace(FIXED, mask_law=law), (4, 5, 30), rng(seed))
        if masked.mask.any():
            loss = masked_loss(torch.zeros(4, 5, 30, classes), tokens, masked.mask, law)
            assert loss.item() == pytest.approx(math.log(classes), rel=1e-5)


def test_the_loss_sees_hidden_genes_only():
    logits, tokens = torch.randn(2, 2, 10, 4, generator=rng()), torch.randint(4, (2, 2, 10), generator=rng(1))
    mask = torch.rand(2, 2, 10, generator=rng(2)) < 0.5
    mask[..., 0] = True
    wild = torch.where(mask[..., None], logits, 100 * torch.randn(2, 2, 10, 4, generator=rng(3)))
    assert masked_loss(logits, tokens, mask) == pytest.approx(masked_loss(wild, tokens, mask).item(), rel=1e-5)


# --- an enumerable world: 3 genes, 3 bins, a joint law known exactly ------------------------------------------------

CELLS = torch.tensor(list(itertools.product(range(3), repeat=3)))
LAW = torch.rand(27, dtype=torch.float64, generator=rng(5)) ** 3
LAW = LAW / LAW.sum()


def exact_denoiser(xt, t):
    """The true posterior of each gene given the revealed ones, by summing over all 27 cells."""
    fits = ((xt[..., None, :] == CELLS) | (xt[..., None, :] == MASK)).all(-1)
    weight = fits * LAW
    one_hot = torch.nn.functional.one_hot(CELLS, 3).double()
    return torch.einsum("bsc,cgk->bsgk", weight, one_hot).clamp(min=1e-300).log()


def entropy_of_revealing(k):
    """H(k): the mean cost of a hidden gene when k of 3 are hidden, averaged over cells and over which are hidden."""
    total = 0.0
    for hidden in itertools.combinations(range(3), k):
        mask = torch.zeros(3, dtype=torch.bool)
        mask[list(hidden)] = True
        xt = hide(CELLS[None], mask.expand(1, 27, 3), MASK)
        log_p = exact_denoiser(xt, None)[0].log_softmax(-1).gather(-1, CELLS[..., None])[..., 0]
        total += -(LAW * (log_p * mask).sum(-1)).sum().item() / k / math.comb(3, k)
    return total


def test_the_mean_of_H_over_k_is_the_entropy_of_the_cell():
    entropy = -(LAW * LAW.log()).sum().item()
    assert 3 * np.mean([entropy_of_revealing(k) for k in (1, 2, 3)]) == pytest.approx(entropy, rel=1e-9)


def test_the_training_loss_is_an_unbiased_estimate_of_the_entropy_per_gene():
    n = 20_000
    cells = CELLS[torch.multinomial(LAW, n, replacement=True, generator=rng())][None]
    masked = draw_masks(FIXED, (1, n, 3), rng(1))
    loss = masked_loss(exact_denoiser(hide(cells, masked.mask, MASK), masked.t), cells, masked.mask)
    assert loss.item() == pytest.approx(-(LAW * LAW.log()).sum().item() / 3, abs=0.01)


def test_one_gene_a_step_samples_the_exact_law():
    config, n = replace(FIXED, sampling_steps=3), 30_000
    cells = sample(exact_denoiser, config, (1, n, 3), MASK, rng(2))[0]
    counts = torch.bincount((cells * torch.tensor([9, 3, 1])).sum(-1), minlength=27).numpy()
    assert stats.chisquare(counts, LAW.numpy() * n).pvalue > 0.001


def test_two_genes_then_one_samples_the_law_averaged_over_orders():
    """Given an order, two genes are independent and the third follows both; the sampler's law is the mean of these."""
    config, n = replace(FIXED, sampling_steps=2, sampling_schedule="uniform"), 30_000
    assert reveal_counts(config, 3).tolist() == [2, 1]
    marginals = torch.einsum("c,cgk->gk", LAW, torch.nn.functional.one_hot(CELLS, 3).double())
    expected = torch.zeros(27, dtype=torch.float64)
    for last in range(3):
        first = [g for g in range(3) if g != last]
        for i, cell in enumerate(CELLS):
            same = (CELLS[:, first] == cell[first]).all(1)
            expected[i] += math.prod(marginals[g, cell[g]] for g in first) * LAW[i] / LAW[same].sum() / 3
    cells = sample(exact_denoiser, config, (1, n, 3), MASK, rng(3))[0]
    counts = torch.bincount((cells * torch.tensor([9, 3, 1])).sum(-1), minlength=27).numpy()
    assert stats.chisquare(counts, expected.numpy() * n).pvalue > 0.001
    assert stats.chisquare(counts, LAW.numpy() * n).pvalue < 1e-6


def test_one_step_samples_the_product_of_marginals_and_not_the_law():
    n = 30_000
    cells = sample(exact_denoiser, replace(FIXED, sampling_steps=1), (1, n, 3), MASK, rng(2))[0]
    counts = torch.bincount((cells * torch.tensor([9, 3, 1])).sum(-1), minlength=27).numpy()
    marginals = torch.einsum("c,cgk->gk", LAW, torch.nn.functional.one_hot(CELLS, 3).double())
    product = torch.einsum("a,b,c->abc", *marginals).flatten().numpy()
    assert stats.chisquare(counts, product * n).pvalue > 0.001
    assert stats.chisquare(counts, LAW.numpy() * n).pvalue < 1e-9


def test_loss_curve_is_H():
    n = 20_000
    cells = CELLS[torch.multinomial(LAW, n, replacement=True, generator=rng())][None]
    curve = loss_curve(exact_denoiser, cells, MASK, rng(4), shares=(1 / 3, 2 / 3, 1.0))
    assert curve.tolist() == pytest.approx([entropy_of_revealing(k) for k in (1, 2, 3)], abs=0.02)


def test_one_step_mean_is_the_marginal_mean():
    values = torch.tensor([0.0, 1.0, 5.0])
    exact = (LAW[:, None] * values[CELLS]).sum(0)
    mean = one_step_mean(exact_denoiser, (1, 1, 3), values, MASK)[0, 0]
    assert mean.tolist() == pytest.approx(exact.tolist(), rel=1e-5)


# --- samplers -------------------------------------------------------------------------------------------------------

def test_the_fixed_sampler_leaves_no_mask_and_never_rewrites():
    states = list(sample_steps(lambda x, t: torch.randn(*x.shape, 63, generator=rng()), FIXED, (2, 3, 50), 63, rng()))
    for before, after in itertools.pairwise(states):
        known = before != 63
        assert torch.equal(before[known], after[known])
    assert (states[0] == 63).all() and (states[-1] != 63).all() and len(states) == 17


def test_the_fixed_sampler_never_draws_the_mask_even_if_the_model_wants_it():
    def wants_mask(x, t):
        return torch.tensor([0.0] * 63 + [50.0]).expand(*x.shape, 64)

    assert (sample(wants_mask, FIXED, (1, 2, 40), 63, rng()) < 63).all()
    assert (sample(wants_mask, V1, (1, 2, 40), 63, rng()) == 63).all()  # v1's defect, kept behind its switch


def test_a_genes_turn_does_not_depend_on_the_values_drawn():
    def turns(bias):
        logits = torch.zeros(1, 1, 40, 63)
        logits[..., bias] = 20.0
        states = list(sample_steps(lambda x, t: logits, FIXED, (1, 1, 40), 63, rng(9)))
        return torch.stack([s == 63 for s in states]).sum(0)

    assert torch.equal(turns(0), turns(50))


def test_the_sampler_tells_the_denoiser_the_true_share():
    seen = []

    def watch(x, t):
        seen.append((float((x == 63).float().mean()), float(t[0, 0])))
        return torch.zeros(*x.shape, 63)

    sample(watch, FIXED, (1, 2, 50), 63, rng())
    assert all(a == pytest.approx(b, abs=1e-6) for a, b in seen) and seen[0] == (1.0, 1.0)


def test_the_same_seed_draws_the_same_cells():
    def denoise(x, t):
        return torch.zeros(*x.shape, 63)

    a, b, c = (sample(denoise, FIXED, (1, 2, 30), 63, rng(s)) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_draw_follows_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    n = 40_000
    counts = np.bincount(draw(logits.expand(n, 4), rng()).numpy(), minlength=4)
    assert stats.chisquare(counts, logits.double().softmax(0).numpy() * n).pvalue > 1e-3


def test_guidance_of_one_is_plain_zero_unconditional_two_the_formula():
    a, b = torch.randn(5, 7, generator=rng()), torch.randn(5, 7, generator=rng(1))
    torch.testing.assert_close(guide(a, b, 1.0), a.log_softmax(-1))
    torch.testing.assert_close(guide(a, b, 0.0), b.log_softmax(-1))
    torch.testing.assert_close(guide(a, b, 2.0), 2 * a.log_softmax(-1) - b.log_softmax(-1))


def test_guidance_out_of_range_is_refused():
    from cdt_lite.model.diffusion import check_guidance

    for scale in (-1.0, 20.1, float("nan")):
        with pytest.raises(CDTError, match="guidance"):
            check_guidance(scale)
    check_guidance(20.0)
    with pytest.raises(CDTError, match="sampling_steps"):
        DiffusionConfig(sampling_steps=-1)
