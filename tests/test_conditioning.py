import math

import pytest
import torch
from helpers import opened, tiny

from cdt_lite.model.cdt import CDT
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation
from cdt_lite.model.v1 import TimeEmbedding, sinusoid


def embed(model, target, sign, magnitude):
    return model.perturbation(Perturbation.of([target], [sign], [magnitude]), model.gene_table)


def test_the_sinusoid_by_hand():
    v = sinusoid(torch.tensor([3.0]), 4)[0]
    expected = [math.sin(3), math.sin(3 / 100), math.cos(3), math.cos(3 / 100)]
    assert v.tolist() == pytest.approx(expected, rel=1e-5)


def test_v1_time_sees_whole_timesteps():
    config = tiny("v1").model
    embedding, steps = TimeEmbedding(config), torch.arange(10.0)
    torch.testing.assert_close(embedding((steps / 9)[None]), embedding.mlp(sinusoid(steps, config.dim))[None])


@pytest.mark.parametrize("preset", ["v1", "lite"])
def test_magnitude_is_clipped_and_an_unknown_one_is_not_a_zero_one(preset):
    model = opened(CDT(tiny(preset).model))
    assert torch.equal(embed(model, 3, -1, -5.0), embed(model, 3, -1, -50.0))
    assert not torch.allclose(embed(model, 3, -1, float("nan")), embed(model, 3, -1, 0.0))


def test_no_target_unknown_target_and_a_gene_are_three_things():
    model = opened(CDT(tiny("lite").model))
    vectors = [embed(model, t, -1, 0.0) for t in (NO_TARGET, UNKNOWN_TARGET, 0, 1)]
    for i, a in enumerate(vectors):
        for b in vectors[:i]:
            assert not torch.allclose(a, b, atol=1e-3)


def test_in_v1_no_target_is_the_zero_vector():
    model = opened(CDT(tiny("v1").model))
    target = torch.tensor([NO_TARGET, 2])
    vectors = model.perturbation.target_vector(target, model.gene_table)
    assert torch.equal(vectors[0], torch.zeros(8)) and torch.equal(vectors[1], model.gene_table.weight[2])
