import json
from dataclasses import replace

import pytest
from jaxtyping import TypeCheckError

from cdt_lite.errors import CDTError
from cdt_lite.model.config import (
    PRESETS,
    Config,
    DiffusionConfig,
    ModelConfig,
    TokenizerConfig,
    TrainConfig,
    get_preset,
)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name):
    data = json.loads(json.dumps(PRESETS[name].to_dict()))
    assert Config.from_dict(data) == PRESETS[name]


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(CDTError, match="'lite'"):
        get_preset("light")
    assert get_preset("lite") is PRESETS["lite"]


def test_an_unknown_field_is_named_with_its_nearest():
    data = PRESETS["lite"].to_dict()
    data["model"]["n_layers"] = 3
    with pytest.raises(CDTError, match="n_layers.*'n_layer'"):
        Config.from_dict(data)


@pytest.mark.parametrize("make", [
    lambda: ModelConfig(dim=512, n_head=7),
    lambda: ModelConfig(control_set_dim_hidden=30, control_set_n_head=4),
    lambda: ModelConfig(n_layer=0),
    lambda: TokenizerConfig(n_bins=256),
    lambda: TokenizerConfig(space="log"),
    lambda: DiffusionConfig(mask_ratio=0.0),
    lambda: DiffusionConfig(sampling_steps=0),
    lambda: TrainConfig(precision="fp8"),
    lambda: replace(PRESETS["v1"], tokenizer=TokenizerConfig(n_bins=31)),
    lambda: replace(PRESETS["v1"], diffusion=DiffusionConfig(n_timesteps=5)),
])
def test_impossible_settings_are_refused(make):
    with pytest.raises((CDTError, TypeCheckError)):  # a wrong word is caught by the checked types first
        make()


def test_v1_holds_the_documents_values():
    v1 = PRESETS["v1"]
    assert (v1.model.dim, v1.model.n_head, v1.model.n_layer, v1.model.head_dim) == (512, 8, 6, 64)
    assert (v1.model.n_genes, v1.model.n_total_genes, v1.model.vocab_size) == (2000, 36_601, 64)
    assert (v1.diffusion.n_timesteps, v1.diffusion.mask_ratio) == (10, 0.3)
    assert (v1.pretrain.epochs, v1.finetune.epochs, v1.finetune.batch_size) == (50, 20, 32)
