import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import inputs, opened, tiny

from cdt_lite.errors import CDTError
from cdt_lite.model.cdt import CDT
from cdt_lite.model.config import PRESETS
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation

PRESET_NAMES = list(PRESETS)
CASES = [*((name, {}) for name in PRESET_NAMES),  # and switches that no preset has on
         ("lite", {"time_input": "mask_ratio", "target_flag": True})]


def count(*modules) -> int:
    return sum(p.numel() for m in modules for p in (m.parameters() if isinstance(m, torch.nn.Module) else [m]))


def test_v1_has_27_374_473_parameters_term_by_term():
    with torch.device("meta"):
        model = CDT(PRESETS["v1"].model)
    block = model.blocks[0]
    terms = {
        "token": (count(model.embed.token), 32_768), "position": (count(model.embed.position), 1_024_000),
        "time": (count(model.time), 525_312), "controls": (count(model.control_set), 735_232),
        "genes": (count(model.gene_table), 4_684_928), "sign": (count(model.perturbation.sign), 9),
        "magnitude": (count(model.perturbation.magnitude), 37_568),
        "projection": (count(model.perturbation.project), 592_384), "block": (count(block), 3_284_736),
        "self-attention": (count(block.self_attention.inner), 590_976),
        "cross-attention": (count(block.cross_attention.inner), 590_976), "mlp": (count(block.mlp.inner), 2_099_712),
        "norm": (count(model.norm), 1_024), "head": (count(model.head), 32_832)}
    assert all(ours == document for ours, document in terms.values()), terms
    assert count(model) == 27_374_473


@pytest.mark.parametrize("preset, lost", CASES)
@pytest.mark.parametrize("recompute", [False, True])
def test_every_parameter_gets_a_gradient(preset, lost, recompute):
    config = tiny(preset, **lost)
    model = opened(CDT(config.model))
    model.recompute = recompute
    given = inputs(config, n_sets=2)
    more = {**given, "perturbation": Perturbation.of([NO_TARGET, UNKNOWN_TARGET], [0, 1], [0.0, 2.0])}
    target = {**given, "perturbation": replace(given["perturbation"], target=given["gene_ids"][:2])}  # on the panel
    without_controls = {**given, "controls": None}
    sum(model(**each).square().sum() for each in (given, more, target, without_controls)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_recomputing_activations_changes_no_gradient(preset):
    config = tiny(preset)
    grads = []
    for recompute in (False, True):
        model = opened(CDT(config.model))
        model.recompute = recompute
        model(**inputs(config)).square().sum().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


COMPILED = """
import torch
from helpers import inputs, opened, tiny
from cdt_lite.model.cdt import CDT
for preset in ("v1", "default", "lite"):
    config, grads = tiny(preset), []
    for compiled in (False, True):
        model = opened(CDT(config.model))
        forward = torch.compile(model, backend="aot_eager") if compiled else model
        forward(**inputs(config)).square().sum().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    print(preset, len(grads[0]))
"""


def test_compiling_changes_no_gradient():
    """What torch.compile traces, run without generated kernels (the compiler's own to test); apart from the type
    checks of these tests, which it cannot trace."""
    here = Path(__file__).parent
    found = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False,
                           env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (here, here.parent)))})
    assert found.returncode == 0, found.stderr[-2000:]
    assert [line.split()[0] for line in found.stdout.splitlines()] == ["v1", "default", "lite"]


def test_a_fresh_adaln_stack_is_the_identity():
    config = tiny("lite")
    model, given = CDT(config.model).eval(), inputs(config)
    gene_ids, vectors = model.genes(given["xt"], given["gene_ids"])
    _, ranks = model.read_controls(given["controls"], vectors)
    h = model.embed(given["xt"], gene_ids, vectors, given["perturbation"], ranks)
    torch.testing.assert_close(model(**given), model.head(model.norm(h)))


@pytest.mark.parametrize("preset, lost", CASES)
def test_permuting_controls_changes_nothing(preset, lost):
    config = tiny(preset, **lost)
    model, given = opened(CDT(config.model)), inputs(config)
    shuffled = {**given, "controls": given["controls"][:, torch.tensor([2, 0, 3, 1])]}
    torch.testing.assert_close(model(**given), model(**shuffled), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("preset, lost", [case for case in CASES if case[0] != "v1"])
def test_permuting_genes_permutes_the_output(preset, lost):
    config = tiny(preset, **lost)
    model, given = opened(CDT(config.model)), inputs(config)
    order = torch.randperm(config.model.n_genes, generator=torch.Generator().manual_seed(3))
    moved = {**given, "xt": given["xt"][..., order], "controls": given["controls"][..., order],
             "gene_ids": given["gene_ids"][order]}
    torch.testing.assert_close(model(**given)[:, :, order], model(**moved), atol=1e-4, rtol=1e-4)


def test_v1_has_fixed_positions():
    config = tiny("v1")
    model, given = opened(CDT(config.model)), inputs(config)
    order = torch.arange(config.model.n_genes).flip(0)
    moved = {**given, "xt": given["xt"][..., order]}
    assert not torch.allclose(model(**given)[:, :, order], model(**moved), atol=1e-2)


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("other", [Perturbation.of([4, 5], [-1, 1], [-1.0, float("nan")]),
                                   Perturbation.of([3, 5], [1, 1], [-1.0, float("nan")]),
                                   Perturbation.of([3, 5], [-1, 1], [-3.0, float("nan")])])
def test_swapping_gene_sign_or_magnitude_changes_the_output(preset, other):
    config = tiny(preset)
    model, given = opened(CDT(config.model)), inputs(config)
    changed = model(**{**given, "perturbation": other})
    before = model(**given)
    assert not torch.allclose(before[0], changed[0], atol=1e-3)
    torch.testing.assert_close(before[1], changed[1])  # the other set was told the same


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_sets_and_cells_do_not_see_each_other(preset):
    config = tiny(preset)
    model, given = opened(CDT(config.model)), inputs(config)
    changed = given["xt"].clone()
    changed[0, 1] = (changed[0, 1] + 1) % config.model.vocab_size
    before, after = model(**given), model(**{**given, "xt": changed})
    assert not torch.allclose(before[0, 1], after[0, 1])
    keep = torch.ones(2, 3, dtype=torch.bool)
    keep[0, 1] = False
    torch.testing.assert_close(before[keep], after[keep])


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_the_unconditional_mode_runs_without_controls(preset):
    config = tiny(preset)
    given = inputs(config)
    logits = opened(CDT(config.model))(given["xt"], given["t"], Perturbation.none(2))
    assert logits.shape == (2, 3, config.model.n_genes, config.model.n_logits) and logits.isfinite().all()


def test_only_v1_can_predict_the_mask():
    assert PRESETS["v1"].model.n_logits == 64
    assert PRESETS["default"].model.n_logits == PRESETS["lite"].model.n_logits == 63


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    c = tiny("lite").model
    a, b, other = CDT(c, 7).state_dict(), CDT(c, 7).state_dict(), CDT(c, 8).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["gene_table.weight"], other["gene_table.weight"])


def test_v1_refuses_a_panel_that_does_not_fit():
    config = tiny("v1")
    model, given = CDT(config.model), inputs(config)
    with pytest.raises(CDTError, match="positions"):
        model(given["xt"].repeat(1, 1, 2), given["t"], Perturbation.none(2))
    with pytest.raises(CDTError, match="exactly 12 genes"):
        model(given["xt"][..., :5], given["t"], Perturbation.none(2), given["controls"][..., :5])


def test_a_sign_outside_the_three_is_refused():
    with pytest.raises(CDTError, match="sign must be"):
        Perturbation.of([1], [2], [0.0])
    with pytest.raises(CDTError, match="target must be"):
        Perturbation.of([-7], [1], [0.0])


def test_bf16_autocast_stays_near_fp32():
    config = tiny("lite")
    model, given = opened(CDT(config.model)), inputs(config)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(**given).float()
    whole = model(**given)  # tilted logits are large: bf16 keeps eight bits of them
    torch.testing.assert_close(half, whole, atol=2**-6 * whole.abs().max().item(), rtol=0.02)


@pytest.mark.parametrize("preset, ordinal", [("v1", False), ("default", True), ("lite", True), ("lite", False)])
def test_values_do_not_drown_in_identities_at_the_start(preset, ordinal):
    """Of the input's variance, what a gene's value adds must be no speck beside what its name adds."""
    config = replace(PRESETS[preset].model, ordinal_input=ordinal, n_total_genes=300, n_genes=200)
    embed = CDT(config).embed
    values = embed.table()[: config.n_bins].var(dim=0).mean()
    names = (embed.position[0] if config.identity == "position"
             else embed.identity(torch.randn(200, config.gene_embed_dim))).var(dim=0).mean()
    assert 0.1 < (values / names).item() < 10
