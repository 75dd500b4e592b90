"""Logits where they are read: the same as of all genes, whatever is read, by every network and every process."""

from itertools import pairwise

import pytest
import torch
from helpers import inputs, network, opened, tiny

from cdt_lite.model import PRESETS, build, hide
from cdt_lite.model.diffusion import Part, draw_masks, masked_loss
from cdt_lite.model.read import Read, read_at


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def conditioned(preset, **told):
    """A network with its condition filled in, cells for it, and v1's timestep."""
    config = tiny(preset)
    model, given = opened(network(config)), inputs(config) | told
    xt, t = given.pop("xt"), given.pop("t", None)
    denoise = model.given(**{"gene_ids": torch.arange(12), "log_depth": torch.zeros(2, 3), **given})
    return model, denoise, xt, () if t is None else (t,)


def masks(kind, shape=(2, 3, 12)):
    mask = torch.zeros(shape, dtype=torch.bool)
    if kind == "every second":
        mask[..., ::2] = True
    if kind == "ragged":
        mask = draw_masks(shape, rng(1))
        mask[1] = False
        mask[1, 0, 3] = True
    return mask | (kind == "all")


@pytest.mark.parametrize("kind", ["ragged", "every second", "all", "nothing"])
@pytest.mark.parametrize("controls", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_read_does_not_depend_on_what_else_is(preset, controls, kind):
    _, denoise, xt, t = conditioned(preset, **({} if controls else {"controls": None}))
    mask = masks(kind)
    for counts in (None, mask.sum(-1)):
        found = read_at(denoise, xt, Read.of(mask, counts), *t)
        torch.testing.assert_close(found, denoise(xt, *t)[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_condition_that_is_prepared_once_gives_the_same_bit_by_bit(preset):
    model, denoise, xt, t = conditioned(preset)
    with torch.no_grad():
        _, prepared, _, _ = conditioned(preset)
        assert torch.equal(prepared(xt, *t), denoise(xt, *t))
        model.forward = None  # not asked for again: the other denoiser holds its own network
        assert torch.equal(prepared(xt, *t), prepared(xt, *t))


@pytest.mark.parametrize("preset", PRESETS)
def test_the_loss_and_its_gradients_are_those_of_logits_of_all_genes(preset):
    """The whole way that was: logits everywhere, the mean over hidden genes."""
    found = []
    for everywhere in (True, False):
        model, denoise, _, _ = conditioned(preset)
        tokens, process = inputs(tiny(preset), seed=3)["xt"].clamp(max=62), build(tiny(preset))[1]
        plain = denoise.logits

        def all_genes(xt, *t, plain=plain):
            return plain(xt, *t, read=None)

        loss = process.loss(all_genes if everywhere else denoise, tokens, rng(5), "finetune", 10**5)
        loss.backward()
        found.append((loss, [p.grad for p in model.parameters() if p.grad is not None]))
    (whole, expected), (read, grads) = found
    assert read.item() == pytest.approx(whole.item(), rel=5e-7)
    for a, b in zip(expected, grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_loss_is_that_of_its_definition():
    process, tokens = build(tiny("lite"))[1], torch.randint(63, (2, 3, 12), generator=rng())
    _, denoise, _, _ = conditioned("lite")
    mask = draw_masks((2, 3, 12), rng(5))
    expected = masked_loss(denoise(hide(tokens, mask, 63)), tokens, mask)
    assert process.loss(denoise, tokens, rng(5), "finetune", 0).item() == pytest.approx(expected.item(), rel=5e-7)


@pytest.mark.parametrize("cuts", [(0, 1, 6), (0, 2, 4, 6), (0, 1, 2, 3, 4, 5, 6)])
@pytest.mark.parametrize("preset", ["lite", "v1"])
def test_the_losses_of_a_batch_in_parts_add_up_to_its_loss(preset, cuts):
    """Masks are the whole batch's, and every part divides by the hidden genes of all."""
    process, tokens = build(tiny(preset))[1], torch.randint(63, (6, 2, 40), generator=rng())
    weight = torch.randn(40, 64, generator=rng(1))

    def denoise(xt, *t):
        when = t[0][..., None, None] if t else 0.0
        return weight * (1 + xt[..., None] / 63) + when

    whole = process.loss(denoise, tokens, rng(7), "finetune", 10**5)
    parts = []
    for first, end in pairwise(cuts):
        parts.append(process.loss(denoise, tokens[first:end], rng(7), "finetune", 10**5, Part(first, 6)))
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-6)
    assert len({round(part.item(), 6) for part in parts}) > 1


@pytest.mark.parametrize("preset", ["lite", "v1"])
def test_nothing_in_a_loss_waits_for_the_device(preset, monkeypatch):
    """What would: a value, a copy to the CPU, a number of positions that only the device knows."""
    _, denoise, _, _ = conditioned(preset)
    tokens, process = torch.randint(63, (2, 3, 12), generator=rng()), build(tiny(preset))[1]
    waited = []
    for name in ("item", "cpu", "nonzero", "numpy", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_, name=name: waited.append(name))
    process.loss(denoise, tokens, rng(5), "finetune", 10**5)
    monkeypatch.undo()
    assert not waited
