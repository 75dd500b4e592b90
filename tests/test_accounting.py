"""The counts are the document's where it counts, the module's where it does not, and the counter's to the last FLOP."""

import pytest
from helpers import tiny
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cdt_lite.errors import CDTError
from cdt_lite.figures import accounting as count
from cdt_lite.figures import cost
from cdt_lite.figures.trace import meta_model, probe, resized
from cdt_lite.model import PRESETS, build

V1 = PRESETS["v1"]
SIZES = [(None, 64, 1, 1), (37, 5, 3, 2), (64, 7, 1, 4), (50, 0, 2, 3)]  # genes, controls, cells a set, sets


def test_the_nominal_count_is_the_documents_term_by_term():
    assert count.nominal_parameters(V1) == {
        "token embedding": 32_768, "position embedding": 1_024_000, "time embedding": 5_120,
        "gene embedding": 4_684_928, "sign embedding": 9, "magnitude MLP": 98_304, "transformer layers": 18_874_368,
        "output head": 32_768}
    total = sum(count.nominal_parameters(V1).values())
    assert total == 24_752_265 and f"{total * 4 / 2**20:.1f}" == "94.4"


def test_the_documents_second_total_is_reproduced_too():
    terms = count.document_breakdown(V1)
    differ = {name: terms[name] for name in terms if terms[name] != count.nominal_parameters(V1).get(name)}
    assert differ == {"time embedding": 1024, "conditioning projection": 658_432, "control-set encoder": 768_000}
    assert sum(terms.values()) == 26_174_601 and f"{sum(terms.values()) * 4 / 2**20:.1f}" == "99.8"


def test_the_module_has_what_it_has_part_by_part():
    parts = count.parameters_by_part(V1)
    assert parts == {
        "token embedding": 32_768, "position embedding": 1_024_000, "time MLP": 525_312, "control-set encoder": 735_232,
        "gene table": 4_684_928, "sign embedding": 9, "magnitude MLP": 37_568, "conditioning projection": 592_384,
        "self-attention": 6 * 590_976, "cross-attention": 6 * 590_976, "FFN": 6 * 2_099_712, "block norms": 6 * 3_072,
        "final norm": 1_024, "output head": 32_832}
    assert sum(parts.values()) == 27_374_473


@pytest.mark.parametrize("preset", PRESETS)
def test_parts_sum_to_the_module(preset):
    model = meta_model(PRESETS[preset])
    assert all(parameter.is_meta for parameter in model.parameters())  # nothing was filled with numbers
    assert sum(count.parameters_by_part(PRESETS[preset]).values()) == sum(p.numel() for p in model.parameters())


def test_a_part_without_a_name_is_not_lost(monkeypatch):
    def with_a_novelty(config):
        model = meta_model(config)
        model.novelty = nn.Linear(3, 5, device="meta")
        return model

    monkeypatch.setattr(count, "meta_model", with_a_novelty)
    assert count.parameters_by_part(V1)["novelty"] == 20


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset", PRESETS)
def test_closed_form_flops_are_the_counters(preset, size):
    config = PRESETS[preset]
    denoise, cells = probe(meta_model(resized(config, size[0])), *size[1:])
    with FlopCounterMode(display=False) as counter:
        denoise(cells)
    assert sum(count.flops_by_part(config, *size).values()) == counter.get_total_flops()


@pytest.mark.parametrize("lost", ["embed.statistics", "embed.effect", "depth"])
def test_what_the_model_lacks_is_not_counted(monkeypatch, lost):
    whole = count.products(PRESETS["lite"])

    def without(config):
        model = meta_model(config)
        parent, _, name = lost.rpartition(".")
        delattr(model.get_submodule(parent), name)
        return model

    monkeypatch.setattr(count, "meta_model", without)
    less = count.products(PRESETS["lite"])
    assert {product.part for product in whole} - {product.part for product in less} == {count.part_of(lost)}


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("preset", PRESETS)
def test_exact_training_flops_are_the_counters_with_the_math_kernel(preset, size):
    config = PRESETS[preset]
    denoise, cells = probe(meta_model(resized(config, size[0])), *size[1:])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        denoise(cells).sum().backward()
    listed = count.products(config, *size)
    assert count.training_flops(listed, exact=True) == counter.get_total_flops()
    assert count.training_flops(listed) == 3 * sum(count.flops_by_part(config, *size).values())


def test_v1_costs_what_the_design_derived():
    gflop = {part: round(flops / 1e9, 2) for part, flops in count.flops_by_part(V1).items()}
    assert gflop["FFN"] == 50.33 and gflop["self-attention QK^T and AV"] == 49.15
    assert gflop["self q and out projections"] == gflop["cross q and out projections"] == 12.58
    assert gflop["self k/v projection"] == gflop["cross-attention QK^T and AV"] == 1.57
    assert (gflop["output head"], gflop["control-set encoder"], gflop["cross k/v projection"]) == (0.13, 0.1, 0.05)
    assert round(sum(count.flops_by_part(V1).values()) / 1e9, 2) == 128.08
    assert round(count.training_flops(count.products(V1)) / 1e9, 1) == 384.2


def test_attention_is_quadratic_in_genes_and_the_rest_linear():
    small, large = (count.flops_by_part(PRESETS["lite"], n_genes=n) for n in (500, 1000))
    assert large["self-attention QK^T and AV"] == 4 * small["self-attention QK^T and AV"]
    assert large["FFN"] == 2 * small["FFN"]


def test_the_documents_flops_are_reproduced():
    gflop = {part: round(flops / 1e9, 1) for part, flops in count.document_flops(V1, 32).items()}
    assert gflop == {"attention": 619.7, "FFN": 805.3, "output head": 2.1}
    assert round(sum(count.document_flops(V1, 32).values()) / 1e9, 1) == 1427.1


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("preset", ["v1", "lite"])
def test_fake_tensors_keep_what_real_ones_keep(preset, fused):
    config = tiny(preset, n_genes=24)
    for n_sets in (1, 3):
        real = cost.kept_bytes(build(config)[0], n_sets, fused, bf16=False)
        assert cost.saved_bytes(config, 24, n_sets, fused) == real > 0


def test_naive_attention_keeps_its_weights_and_fused_does_not():
    fused, error = cost.activation_law(PRESETS["lite"])
    naive, naive_error = cost.activation_law(PRESETS["lite"], fused=False)
    m = PRESETS["lite"].model
    assert (fused["e"], naive["e"]) == (0, m.n_layer * m.n_head * 4)  # fp32: one a head, query and key
    assert abs(error) < 0.001 and abs(naive_error) < 0.001  # at a size that the fit never saw


def test_training_state_is_sixteen_bytes_a_parameter():
    held = cost.memory(V1, 2, bf16=True)
    assert held["weights"] + held["gradients"] + held["AdamW moments"] == 16 * 27_374_473
    assert held["activations"] < cost.memory(V1, 2)["activations"]


@pytest.mark.parametrize("card", [8, 24])
def test_the_largest_batch_fits_and_one_more_does_not(card):
    n = cost.largest_batch(V1, card, bf16=True)
    used, too_much = (sum(cost.memory(V1, cells, bf16=True).values()) for cells in (n, n + 1))
    assert used <= (card - 1) * 1e9 < too_much
    assert cost.largest_batch(V1, 1) == 0


def test_least_times():
    compute, roofline = cost.step_seconds(V1, "H200")
    assert round(1e3 * compute, 1) == 12.4 and round(1e3 * cost.step_seconds(V1, "H200 (measured)")[0], 1) == 15.6
    assert roofline > compute and cost.step_seconds(V1, "L4")[1] > 4 * roofline
    with pytest.raises(CDTError, match="did you mean 'H200'"):
        cost.step_seconds(V1, "H20")


def test_the_plans_hours_by_hand():
    per_cell = [3 * sum(count.flops_by_part(V1, n_controls=n).values()) / 312e12 / 3600 for n in (0, 64)]
    hours = cost.plan_hours(V1, "A100 80GB", 1_000_000, 200_000)
    assert hours == pytest.approx(50e6 * per_cell[0] + 4e6 * per_cell[1])  # v1 pretrains without controls
    assert cost.plan_hours(V1, "A100 80GB", 1_000_000, 200_000, share=0.5) == pytest.approx(2 * hours)


def test_the_account_says_everything_and_refuses_an_unknown_preset():
    account = cost.account("v1")
    assert account["nominal_parameters"] == 24_752_265 and account["parameters"] == 27_374_473
    assert sum(account["parameters_by_part"].values()) == account["parameters"]
    assert sum(account["flops_by_part"].values()) == account["flops_forward_per_cell"] == 128_076_688_512
    with pytest.raises(CDTError, match="did you mean 'lite'"):
        cost.account("lit")
