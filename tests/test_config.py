import re
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from cdt_lite.errors import CDTError
from cdt_lite.model.config import PRESETS, DiffusionConfig, ModelConfig, TokenizerConfig, TrainConfig, get_preset
from cdt_lite.model.schedule import cosine_counts, uniform_counts


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(CDTError, match="'lite'"):
        get_preset("light")
    assert get_preset("lite") is PRESETS["lite"]


IMPOSSIBLE = [
    lambda: ModelConfig(dim=512, n_head=7),
    lambda: ModelConfig(dim=15, n_head=3),
    lambda: ModelConfig(control_set_dim_hidden=30, control_set_n_head=4),
    lambda: ModelConfig(n_layer=0),
    lambda: TokenizerConfig(n_bins=256),
    lambda: TokenizerConfig(space="log"),
    lambda: DiffusionConfig(sampling_steps=0),
    lambda: DiffusionConfig(sampling_schedule="geometric"),
    lambda: DiffusionConfig(sampling_schedule="learned"),
    lambda: TrainConfig(precision="fp8"),
    lambda: replace(PRESETS["v1"], system="v2"),
    lambda: replace(PRESETS["v1"], tokenizer=TokenizerConfig(n_bins=31)),
]


@pytest.mark.parametrize("value", [2.5, 2.0, True, float("nan"), 10**30, -1, "3"])
def test_sizes_are_whole_numbers(value, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types are checked in tests only
    for make, name in ((ModelConfig, "n_layer"), (TrainConfig, "seed"), (TokenizerConfig, "n_exact"),
                       (DiffusionConfig, "sampling_steps"), (TrainConfig, "cells_per_set")):
        with pytest.raises(CDTError, match=f"{name} must be a whole number from . to .*, not {re.escape(repr(value))}"):
            make(**{name: value})
    for steps in (cosine_counts, uniform_counts):
        with pytest.raises(CDTError, match="n_steps must be a whole number"):
            steps(8, value)


def test_whole_numbers_of_numpy_become_plain_ones(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    made = ModelConfig(n_layer=np.int64(2), n_bins=np.uint8(63))
    assert type(made.n_layer) is type(made.n_bins) is int and made == ModelConfig(n_layer=2)


@pytest.mark.parametrize("make", IMPOSSIBLE)
def test_impossible_settings_are_refused(make):
    with pytest.raises((CDTError, TypeCheckError)):  # a wrong word is caught by the checked types first
        make()


def test_a_learned_schedule_asks_for_its_curve():
    with pytest.raises(CDTError, match="loss_curve"):
        DiffusionConfig(sampling_schedule="learned")
