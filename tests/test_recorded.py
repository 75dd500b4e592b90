"""The networks beside what was computed before: weights, and parts of the logits of shipped and full-size nets.

`recorded/logits.safetensors` was written by the first edition's own code, but for the logits of the shipped models: the
code that made them wrote those. On the kind of machine that wrote it, with
the same torch, every bit is the same; elsewhere sums are ordered otherwise, and random numbers may be others.
"""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from cdt_lite.model import PRESETS, Perturbation, build
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET

FILE = safe_open(Path(__file__).parent / "recorded" / "logits.safetensors", "pt")
FACTS = FILE.metadata()
SAME_MACHINE = (torch.backends.cpu.get_cpu_capability(), torch.__version__) == (FACTS["capability"], FACTS["torch"])


def rng(seed):
    return torch.Generator().manual_seed(seed)


def assert_as_recorded(name, logits):
    recorded = FILE.get_tensor(name)
    if SAME_MACHINE:
        assert torch.equal(logits, recorded), name
    torch.testing.assert_close(logits, recorded, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module", params=PRESETS)
def built(request):
    return request.param, build(PRESETS[request.param], seed=3)[0].eval()


def test_every_preset_has_as_many_parameters_as_it_had_and_three_of_a_cells_answer(built):
    preset, model = built
    more = 0 if preset == "v1" else 3
    assert sum(p.numel() for p in model.parameters()) == int(FACTS[f"{preset}.parameters"]) + more


@pytest.mark.skipif(not SAME_MACHINE, reason="another kind of machine, or another torch, draws other random numbers")
def test_a_seed_gives_the_weights_that_it_gave(built):
    preset, model = built
    weights, digest = dict(model.named_parameters()), hashlib.sha256()
    for name in sorted(weights):
        if not name.startswith("response."):  # which the first edition had not
            digest.update(name.encode())
            digest.update(weights[name].detach().numpy().tobytes())
    assert digest.hexdigest() == FACTS[f"{preset}.weights"]


@torch.no_grad()
def test_v1_at_full_size_answers_as_it_did():
    model = build(PRESETS["v1"], seed=3)[0].eval()
    generator = rng(2)
    xt = torch.randint(0, 64, (1, 1, 2000), generator=generator)
    controls = torch.randint(0, 64, (1, 64, 2000), generator=generator)
    asked, t = Perturbation.of([1234], [1], [2.5]), torch.tensor([[4 / 9]])
    for name, shown in (("v1.with", controls), ("v1.without", None)):
        logits = model(xt, t, asked, shown)
        assert_as_recorded(name, logits[:, :, ::97, ::7])


@torch.no_grad()
@pytest.mark.parametrize("screen", ["papalexi2021", "simulated"])
def test_shipped_models_answer_as_they_did(screen):
    from cdt_lite.training.capsule import CAPSULES
    from cdt_lite.training.checkpoint import Checkpoint

    capsule = Checkpoint.load(CAPSULES / f"lite-{screen}")
    panel, names, generator = capsule.panel, capsule.vocabulary, rng(1)
    xt = torch.randint(0, 64, (3, 2, len(panel)), generator=generator)
    xt[:, :, ::3] = capsule.tokenizer.mask_id
    controls = torch.randint(0, 20, (3, 8, len(panel)), generator=generator)
    log_depth = torch.randn(3, 2, generator=generator) * 0.3
    target = [names.id(capsule.trained_targets[0]), UNKNOWN_TARGET, NO_TARGET]
    guess = [NO_TARGET, names.id(panel[5]), NO_TARGET]
    asked = Perturbation.of(target, [-1, -1, 0], [float("nan"), -1.5, 0.0], guess)
    gene_ids = torch.from_numpy(names.ids(panel))
    for name, shown in ((f"{screen}.with", controls), (f"{screen}.without", None)):
        logits = capsule.model(xt, asked, shown, gene_ids, log_depth)
        assert_as_recorded(name, logits[:, :1, ::37, ::7])
