"""The networks: what they are made of, what they must not see, what permutes with what."""

import ast
import inspect
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import inputs, network, opened, tiny

from cdt_lite.model import CDT, PRESETS, V1, MaskedDiffusion, Perturbation, V1Diffusion, build
from cdt_lite.model.cdt import ControlSet
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET

PACKAGE = Path(__file__).parents[1] / "cdt_lite"
OURS = ("default", "lite")
UNKNOWN = float("nan")


def fresh_python(code: str, *arguments: str) -> str:
    """What a program prints in an interpreter of its own, apart from the type checks of these tests."""
    here = Path(__file__).parent
    path = {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    command = [sys.executable, "-c", code, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | path)
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout


def test_a_preset_names_its_network_and_its_process():
    for preset in OURS:
        model, process = build(tiny(preset))
        assert isinstance(model, CDT) and isinstance(process, MaskedDiffusion)
    model, process = build(tiny("v1"))
    assert isinstance(model, V1) and isinstance(process, V1Diffusion)


def test_which_system_it_is_is_asked_in_one_place():
    readers = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and reads_system(function):
                readers.add((path.relative_to(PACKAGE).as_posix(), function.name))
    written_down = {("training/predict.py", "_provenance")}  # for the reader of a file; nothing is decided by it
    assert readers - written_down == {("model/__init__.py", "build")}


def reads_system(function: ast.FunctionDef) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and node.attr == "system" and ast.unparse(node.value) != "platform":
            return True
    return False


def test_our_network_is_not_told_the_time():
    assert "t" not in inspect.signature(CDT.forward).parameters
    assert "t" in inspect.signature(V1.forward).parameters


LOADED = """
import sys
import torch, numpy, jaxtyping
brought = set(sys.modules)
import cdt_lite.model
print(*set(sys.modules) - brought)
"""


def test_the_model_needs_torch_numpy_and_jaxtyping_alone():
    ours = {"cdt_lite", "cdt_lite._lazy", "cdt_lite.errors", "cdt_lite.model"}
    known = {*sys.stdlib_module_names, "torch", "numpy", "jaxtyping"}
    for name in fresh_python(LOADED).split():
        within = name in ours or name.startswith("cdt_lite.model.")
        assert within or name.split(".")[0] in known, name


@pytest.mark.parametrize("preset", PRESETS)
def test_a_network_given_its_condition_is_a_denoiser(preset):
    config = tiny(preset)
    model, given = opened(network(config)), inputs(config)
    logits = model(**given)
    xt, t = given.pop("xt"), given.pop("t", None)
    given = {"gene_ids": torch.arange(12), "log_depth": torch.zeros(2, 3), **given}
    denoise = model.given(**given)
    if preset != "v1":
        assert torch.equal(denoise(xt), logits)
        return
    assert torch.equal(denoise(xt, t), logits)
    share = (xt == config.tokenizer.mask_id).float().mean(-1)
    assert torch.equal(denoise(xt), denoise(xt, share))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_gets_a_gradient(preset):
    config = tiny(preset)
    model, given = opened(network(config)), inputs(config)
    nameless = Perturbation.of([NO_TARGET, UNKNOWN_TARGET], [0, 1], [0.0, 2.0])
    shown = [
        given,
        {**given, "perturbation": nameless},
        {**given, "controls": None},
    ]
    loss = sum(model(**each).square().sum() for each in shown)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


COMPILED = """
import sys
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from helpers import inputs, network, opened, tiny
from cdt_lite.model import compile_blocks
from cdt_lite.model.read import Read, read_at
backend, preset = sys.argv[1:]
counter = CompileCounterWithBackend(backend)
models = [opened(network(tiny(preset))) for _ in range(2)]
compile_blocks(models[1], counter)
graphs = []
for n_genes, share in ((12, 0.5), (12, 0.9), (12, 0.2)) if preset == "v1" else ((12, 0.5), (9, 0.9), (11, 0.2)):
    grads = []
    for model in models:
        given = inputs(tiny(preset, n_genes))
        xt, t = given.pop("xt"), given.pop("t", None)
        mask = torch.rand(xt.shape, generator=torch.Generator().manual_seed(3)) < share
        given = {"gene_ids": torch.arange(n_genes), "log_depth": torch.zeros(2, 3), **given}
        logits = read_at(model.given(**given), xt, Read.of(mask), *([] if t is None else [t]))
        model.zero_grad()
        logits.square().mean().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * float(1 + b.abs().max()), rtol=0)  # fused sums round otherwise
    graphs.append(counter.frame_count)
print(*graphs)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "preset"), [("aot_eager", "lite"), ("aot_eager", "v1"), ("inductor", "lite")])
def test_compiled_blocks_change_no_gradient_and_are_compiled_once_for_any_number_of_genes(backend, preset):
    """Each block is one graph (else it is refused), whatever the panel and however many genes are read."""
    first, *later = map(int, fresh_python(COMPILED, backend, preset).split())
    assert first >= 2 and later == [first, first]


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    config = tiny("lite")
    a, b, other = (network(config, seed).state_dict() for seed in (7, 7, 8))
    for name in a:
        assert torch.equal(a[name], b[name])
    assert not torch.equal(a["gene_table.weight"], other["gene_table.weight"])


def test_a_fresh_adaln_stack_is_the_identity():
    config = tiny("lite")
    model, given = network(config).eval(), inputs(config)
    genes = model.gene_table(given["gene_ids"])
    known = model.effect.look_up(given["perturbation"], given["gene_ids"])
    h = model.embed(given["xt"], genes, known, model.ranks(given["controls"]))
    torch.testing.assert_close(model(**given), model.head(model.norm(h)))


@pytest.mark.parametrize("preset", PRESETS)
def test_values_do_not_drown_in_identities_at_the_start(preset):
    """Of the input's variance, what a gene's value adds must be no speck beside what its name adds."""
    config = replace(PRESETS[preset].model, n_total_genes=300, n_genes=200)
    embed = network(replace(PRESETS[preset], model=config)).embed
    if preset == "v1":
        values, names = embed.token.weight, embed.position[0]
    else:
        values, names = embed.table(), embed.identity(torch.randn(200, config.gene_embed_dim))
    ratio = values[: config.n_bins].var(dim=0).mean() / names.var(dim=0).mean()
    assert 0.1 < ratio.item() < 10


@pytest.mark.parametrize("preset", PRESETS)
def test_permuting_controls_changes_nothing(preset):
    config = tiny(preset)
    model, given = opened(network(config)), inputs(config)
    shuffled = {**given, "controls": given["controls"][:, torch.tensor([2, 0, 3, 1])]}
    torch.testing.assert_close(model(**given), model(**shuffled), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("preset", OURS)
def test_permuting_genes_permutes_the_output(preset):
    config = tiny(preset)
    model, given = opened(network(config)), inputs(config)
    order = torch.randperm(config.model.n_genes, generator=torch.Generator().manual_seed(3))
    moved = dict(given)
    for name in ("xt", "controls", "gene_ids"):
        moved[name] = given[name][..., order]
    torch.testing.assert_close(model(**given)[:, :, order], model(**moved), atol=1e-4, rtol=1e-4)


OTHERS = (
    Perturbation.of([4, 5], [-1, 1], [-1.0, UNKNOWN]),
    Perturbation.of([3, 5], [1, 1], [-1.0, UNKNOWN]),
    Perturbation.of([3, 5], [-1, 1], [-3.0, UNKNOWN]),
)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("other", OTHERS, ids=("gene", "sign", "magnitude"))
def test_swapping_gene_sign_or_magnitude_changes_the_output(preset, other):
    config = tiny(preset)
    model, given = opened(network(config)), inputs(config)
    before, after = model(**given), model(**{**given, "perturbation": other})
    assert not torch.allclose(before[0], after[0], atol=1e-3)
    torch.testing.assert_close(before[1], after[1])  # the other set was told the same


@pytest.mark.parametrize("preset", PRESETS)
def test_sets_and_cells_do_not_see_each_other(preset):
    config = tiny(preset)
    model, given = opened(network(config)), inputs(config)
    changed = given["xt"].clone()
    changed[0, 1] = (changed[0, 1] + 1) % config.model.vocab_size
    before, after = model(**given), model(**{**given, "xt": changed})
    assert not torch.allclose(before[0, 1], after[0, 1])
    others = torch.ones(2, 3, dtype=torch.bool)
    others[0, 1] = False
    torch.testing.assert_close(before[others], after[others])


def test_the_controls_encoder_reads_any_panel_and_ignores_silent_genes():
    config = tiny("lite").model
    encoder, ranks = opened(ControlSet(config)), torch.rand(1, 3, 8)
    genes = torch.randn(8, config.gene_embed_dim)
    silent = torch.cat([ranks, torch.zeros(1, 3, 8)], -1)  # eight more genes that no cell expresses
    more = torch.cat([genes, torch.randn(8, config.gene_embed_dim)])
    torch.testing.assert_close(encoder(ranks, genes), encoder(silent, more), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("preset", "n_answers"), [("v1", 64), ("default", 63), ("lite", 63)])
def test_only_v1_can_predict_the_mask_and_all_run_without_a_condition(preset, n_answers):
    config = tiny(preset)
    given = {**inputs(config), "perturbation": Perturbation.none(2), "controls": None}
    logits = opened(network(config))(**given)
    assert logits.shape == (2, 3, 12, n_answers) and logits.isfinite().all()


def test_bf16_autocast_stays_near_fp32():
    config = tiny("lite")
    model, given = opened(network(config)), inputs(config)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(**given).float()
    whole = model(**given)  # tilted logits are large: bf16 keeps eight bits of them
    torch.testing.assert_close(half, whole, atol=2**-6 * whole.abs().max().item(), rtol=0.02)
