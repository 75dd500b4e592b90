import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn.functional import one_hot

from cdt_lite.errors import CDTError
from cdt_lite.model.config import DiffusionConfig
from cdt_lite.model.diffusion import (
    MaskedDiffusion,
    draw,
    draw_by,
    draw_masks,
    guide,
    hide,
    loss_curve,
    masked_loss,
    nelbo,
    random_turns,
    sample_steps,
)
from cdt_lite.model.read import Conditioned


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def process(schedule="cosine", steps=16, mask_id=63):
    return MaskedDiffusion(DiffusionConfig(schedule, steps), mask_id)


def knows_nothing(xt):
    return torch.zeros(*xt.shape, 63)


@pytest.mark.parametrize("schedule", ["cosine", "uniform"])
@pytest.mark.parametrize(("n_genes", "steps"), [(299, 16), (2000, 32), (5, 16), (1, 1), (17, 16)])
def test_every_step_reveals_something_and_all_genes_are_revealed(schedule, n_genes, steps):
    counts = process(schedule, steps).counts(n_genes)
    assert sum(counts) == n_genes and min(counts) >= 1 and len(counts) == min(steps, n_genes)


def test_cosine_schedule_at_half_time_by_hand():
    first = round(1000 * (1 - math.cos(math.pi / 4)))
    assert process(steps=2).counts(1000) == [first, 1000 - first]


def test_a_schedule_that_does_not_reveal_every_gene_once_is_refused():
    for steps in (0, 41, -3):
        with pytest.raises(CDTError, match=f"must lie in 1 to 40.*not {steps}"):
            process().counts(40, steps)
    for counts in ([20, 19], [40, 0], [41, -1]):
        with pytest.raises(CDTError, match="each of 40 genes once"):
            next(sample_steps(knows_nothing, counts, (1, 1, 40), 63, rng()))


def test_masks_have_uniform_counts():
    mask = draw_masks((40, 25, 60), rng())
    k = mask.sum(-1).flatten().numpy()
    assert set(k) <= set(range(1, 61))
    assert stats.kstest(k / 60, "uniform").statistic < 0.02  # stratified: far closer than 1,000 free draws
    assert mask.float().mean((0, 1)).std() < 0.03  # no position is favoured


@pytest.mark.parametrize("cost", [masked_loss, nelbo])
def test_a_model_that_knows_nothing_costs_log_classes(cost):
    tokens = torch.randint(63, (4, 5, 30), generator=rng())
    for seed in range(5):
        mask = draw_masks((4, 5, 30), rng(seed))
        loss = cost(torch.zeros(4, 5, 30, 63), tokens, mask)
        assert loss.item() == pytest.approx(math.log(63), rel=1e-5)


@pytest.mark.parametrize("cost", [masked_loss, nelbo])
def test_the_loss_sees_hidden_genes_only(cost):
    logits, tokens = torch.randn(2, 2, 10, 4, generator=rng()), torch.randint(4, (2, 2, 10), generator=rng(1))
    mask = torch.rand(2, 2, 10, generator=rng(2)) < 0.5
    mask[..., 0] = True
    noise = 100 * torch.randn(2, 2, 10, 4, generator=rng(3))
    wild = torch.where(mask[..., None], logits, noise)
    assert cost(logits, tokens, mask) == pytest.approx(cost(wild, tokens, mask).item(), rel=1e-5)


def test_training_weighs_every_hidden_gene_alike_and_judging_every_cell():
    """Two cells of three genes: one gene hidden at 1 nat, three hidden at 2 nats each."""
    mask = torch.tensor([[[True, False, False], [True, True, True]]])
    nats = torch.tensor([[[1.0, 9.0, 9.0], [2.0, 2.0, 2.0]]])
    p = torch.exp(-nats)
    logits, tokens = torch.stack([p, 1 - p], -1).log(), torch.zeros(1, 2, 3, dtype=torch.long)
    assert masked_loss(logits, tokens, mask).item() == pytest.approx((1 + 2 + 2 + 2) / 4)
    assert nelbo(logits, tokens, mask).item() == pytest.approx((1 + 2) / 2)


# --- an enumerable world: 3 genes, 3 bins, a joint law known exactly --------------------------------------------------

MASK = 3
CELLS = torch.tensor(list(itertools.product(range(3), repeat=3)))
LAW = torch.rand(27, dtype=torch.float64, generator=rng(5)) ** 3
LAW = LAW / LAW.sum()
MARGINALS = torch.einsum("c,cgk->gk", LAW, one_hot(CELLS, 3).double())


def exact(xt):
    """The true posterior of each gene given the revealed ones, by summing over all 27 cells."""
    fits = ((xt[..., None, :] == CELLS) | (xt[..., None, :] == MASK)).all(-1)
    weights = fits * LAW
    return torch.einsum("bsc,cgk->bsgk", weights, one_hot(CELLS, 3).double()).clamp(min=1e-300).log()


def some_cells(n):
    return CELLS[torch.multinomial(LAW, n, replacement=True, generator=rng())][None]


def sampled(counts, seed, n=30_000):
    """How many of n cells, made by so many genes at a step, are each of the 27."""
    *_, cells = sample_steps(exact, counts, (1, n, 3), MASK, rng(seed))
    return torch.bincount((cells[0] * torch.tensor([9, 3, 1])).sum(-1), minlength=27).numpy()


def fit(found, law):
    """The p-value of counts under a law."""
    return stats.chisquare(found, law.numpy() * found.sum()).pvalue


def entropy_of_revealing(k):
    """H(k): the mean cost of a hidden gene when k of 3 are hidden, averaged over cells and over which are hidden."""
    total = 0.0
    for hidden in itertools.combinations(range(3), k):
        mask = torch.zeros(1, 27, 3, dtype=torch.bool)
        mask[..., list(hidden)] = True
        log_p = exact(hide(CELLS[None], mask, MASK)).log_softmax(-1)[0]
        own = log_p.gather(-1, CELLS[..., None])[..., 0]
        total -= (LAW * (own * mask[0]).sum(-1)).sum().item() / k / math.comb(3, k)
    return total


H = [entropy_of_revealing(k) for k in (1, 2, 3)]
ENTROPY = -(LAW * LAW.log()).sum().item()


def test_the_mean_of_H_over_k_is_the_entropy_of_the_cell():
    assert 3 * np.mean(H) == pytest.approx(ENTROPY, rel=1e-9)


def test_the_nelbo_is_an_unbiased_estimate_of_the_entropy_per_gene():
    cells = some_cells(20_000)
    mask = draw_masks((1, 20_000, 3), rng(1))
    loss = nelbo(exact(hide(cells, mask, MASK)), cells, mask)
    assert loss.item() == pytest.approx(ENTROPY / 3, abs=0.01)


def test_the_training_loss_weighs_H_by_the_number_of_hidden_genes():
    cells = some_cells(20_000)
    loss = process(mask_id=MASK).loss(exact, cells, rng(1), "finetune", 0)
    assert loss.item() == pytest.approx((1 * H[0] + 2 * H[1] + 3 * H[2]) / 6, abs=0.01)


def test_loss_curve_is_H():
    curve = loss_curve(exact, some_cells(20_000), MASK, rng(4), shares=(1 / 3, 2 / 3, 1.0))
    assert curve.tolist() == pytest.approx(H, abs=0.02)


def test_the_curve_of_a_denoiser_that_reads_nothing_is_flat_whatever_was_drawn():
    """Which genes and cells were drawn moves the whole curve, not its slope: schedules are made from slopes."""
    blind = MARGINALS.float().log()[None, None]
    curve = loss_curve(lambda xt: blind.expand(*xt.shape, -1), some_cells(5), MASK, rng(4), shares=(1 / 3, 2 / 3, 1.0))
    torch.testing.assert_close(curve, curve[-1:].expand(3))


def test_a_curve_over_shares_that_do_not_rise_is_refused():
    with pytest.raises(CDTError, match="must rise"):
        loss_curve(exact, some_cells(5), MASK, rng(4), shares=(1.0, 0.5))


def test_one_gene_a_step_samples_the_exact_law():
    assert fit(sampled([1, 1, 1], seed=2), LAW) > 0.001


def test_two_genes_then_one_samples_the_law_averaged_over_orders():
    """Given an order, two genes are independent and the third follows both; the sampler's law is the mean of these."""
    expected = torch.zeros(27, dtype=torch.float64)
    for last in range(3):
        a, b = (gene for gene in range(3) if gene != last)
        for i, cell in enumerate(CELLS):
            same = (CELLS[:, a] == cell[a]) & (CELLS[:, b] == cell[b])
            expected[i] += MARGINALS[a, cell[a]] * MARGINALS[b, cell[b]] * LAW[i] / LAW[same].sum() / 3
    found = sampled([2, 1], seed=3)
    assert fit(found, expected) > 0.001
    assert fit(found, LAW) < 1e-6


def test_one_step_samples_the_product_of_marginals_and_not_the_law():
    found = sampled([3], seed=2)
    assert fit(found, torch.einsum("a,b,c->abc", *MARGINALS).flatten()) > 0.001
    assert fit(found, LAW) < 1e-9


# --- the sampler ------------------------------------------------------------------------------------------------------

def test_it_leaves_no_mask_and_never_rewrites():
    def denoise(xt):
        return torch.randn(*xt.shape, 63, generator=rng())

    states = list(sample_steps(denoise, [20, 5, 25], (2, 3, 50), 63, rng()))
    for before, after in itertools.pairwise(states):
        kept = before != 63
        assert torch.equal(before[kept], after[kept])
    for state, known in zip(states, (0, 20, 25, 50), strict=True):
        assert ((state != 63).sum(-1) == known).all()  # in every cell as many as the schedule says


def test_it_never_draws_the_mask_even_if_the_model_wants_it():
    def wants_mask(xt):
        return torch.tensor([0.0] * 63 + [50.0]).expand(*xt.shape, 64)

    assert (process().sample(wants_mask, (1, 2, 40), rng()) < 63).all()


def test_a_genes_turn_does_not_depend_on_the_values_drawn():
    def turns(favourite):
        logits = torch.zeros(1, 1, 40, 63)
        logits[..., favourite] = 20.0
        states = sample_steps(lambda xt: logits, process().counts(40), (1, 1, 40), 63, rng(9))
        return sum((state == 63).long() for state in states)

    assert torch.equal(turns(0), turns(50))


def test_the_same_seed_draws_the_same_cells():
    a, b, c = (process().sample(knows_nothing, (1, 2, 30), rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_draw_follows_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    found = np.bincount(draw(logits.expand(40_000, 4), rng()).numpy(), minlength=4)
    assert fit(found, logits.double().softmax(0)) > 1e-3


def test_draw_takes_no_class_that_cannot_be_and_follows_the_distribution_function():
    impossible = torch.tensor([[-math.inf, 0.0, -math.inf], [0.0, 0.0, -math.inf]])
    for uniform, expected in ((0.0, [1, 0]), (0.49, [1, 0]), (0.51, [1, 1]), (1 - 2**-24, [1, 1])):
        assert draw_by(impossible, torch.full((2,), uniform)).tolist() == expected


@pytest.mark.parametrize("classes", [4, 5])
def test_a_sampler_that_is_told_all_logits_draws_what_one_that_reads_some_draws(classes):
    """Whether a denoiser can be read in places or not, and whether it offers [MASK], cells and chance are the same."""
    weight = torch.randn(9, 9, classes, generator=rng(3))

    def everywhere(xt):
        return torch.einsum("bsg,ghk->bshk", xt.float(), weight)

    def somewhere(xt, read):
        return everywhere(xt) if read is None else everywhere(xt).flatten(0, 2)[read.at]

    made = []
    for denoise in (everywhere, Conditioned(somewhere)):
        generator = rng(7)
        *_, cells = sample_steps(denoise, [2, 3, 4], (2, 5, 9), 4, generator)
        made.append((cells, generator.get_state()))
    xt, generator, known = torch.full((2, 5, 9), 4), rng(7), 0
    turn = random_turns((2, 5, 9), generator)
    for n in (2, 3, 4):  # as a learner writes it: a value for every gene, of which some are kept
        drawn = draw(everywhere(xt)[..., :4], generator)
        xt = torch.where((turn >= known) & (turn < known + n), drawn, xt)
        known += n
    made.append((xt, generator.get_state()))
    for cells, state in made[1:]:
        assert torch.equal(cells, made[0][0]) and torch.equal(state, made[0][1])


def test_guidance_of_one_is_plain_zero_unconditional_two_the_formula():
    a, b = torch.randn(5, 7, generator=rng()), torch.randn(5, 7, generator=rng(1))
    torch.testing.assert_close(guide(a, b, 1.0), a.log_softmax(-1))
    torch.testing.assert_close(guide(a, b, 0.0), b.log_softmax(-1))
    torch.testing.assert_close(guide(a, b, 2.0), 2 * a.log_softmax(-1) - b.log_softmax(-1))
