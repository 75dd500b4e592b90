"""The measured panels show the model's own attention and sampling, on a cell of the screen."""

import io
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers import opened, tiny, toy_screen
from PIL import Image

from cdt_lite.errors import CDTError
from cdt_lite.figures import measured, plots
from cdt_lite.training.start import start


@pytest.fixture(scope="module")
def shown():
    """A small model with open gates that counts as trained on both knockouts, and its screen."""
    screen = toy_screen()
    screen.uns["screen"] = {"name": "toy", "attribution": "Nobody et al. 2020"}
    capsule = start(tiny("lite"), screen)
    capsule.trained_targets = ["G3", "G5"]
    opened(capsule.model)
    return capsule, screen


def test_the_example_is_a_real_cell_with_controls_of_its_replicate(shown):
    capsule, screen = shown
    batch, what = measured.example(capsule, screen)
    counts = screen.X.toarray()
    rows = np.flatnonzero((capsule.tokenizer.tokenize(counts) == batch.tokens[0, 0].numpy()).all(1))
    assert len(rows) == 1
    cell = screen.obs.iloc[rows[0]]
    assert cell["target_gene"] in what and cell["batch"] in what and cell["target_gene"] != "non-targeting"
    own = screen[(screen.obs["target_gene"] == "non-targeting") & (screen.obs["batch"] == cell["batch"])].X.toarray()
    tokens = {tuple(row) for row in capsule.tokenizer.tokenize(own).tolist()}
    assert all(tuple(row) in tokens for row in batch.controls[0].tolist())
    depth = batch.controls[0].sum(-1)
    assert batch.controls.shape[1] == capsule.config.finetune.controls_per_set
    assert (depth.diff() >= 0).float().mean() > 0.6  # shallow to deep (tokens of deep cells are clipped)


def test_attention_weights_are_the_models_and_sum_to_one(shown):
    capsule, screen = shown
    batch, _ = measured.example(capsule, screen)
    weights = measured.attention_weights(capsule, batch)
    assert weights["self"].shape == (12, 12) and weights["cross"].shape == (12, batch.controls.shape[1])
    for found in weights.values():
        assert np.allclose(found.sum(1), 1, atol=1e-5) and found.std() > 1e-4
    assert not capsule.model.blocks[-1].self_attention.inner._forward_pre_hooks  # it leaves the model as it was


def test_down_and_up_hide_and_reveal_as_the_schedule_says(shown):
    capsule, screen = shown
    batch, _ = measured.example(capsule, screen)
    down, up = measured.down_and_up(capsule, batch)
    mask = capsule.tokenizer.mask_id
    hidden = [0, *np.cumsum(capsule.process.counts(12)[::-1]).tolist()]
    for states in (down, up[::-1]):
        assert [int((state == mask).sum()) for state in states] == hidden
    assert (down[0] == batch.tokens[0, 0].numpy()).all() and (up[-1] < mask).all()
    for before, after in pairwise(up):  # what is revealed stays
        assert ((before == mask) | (before == after)).all()


@pytest.mark.parametrize("panel", ["attention_panel", "diffusion_panel"])
def test_panels_name_cell_genes_and_source(shown, panel):
    capsule, screen = shown
    plots.use_style()
    figure, alt, data = (measured.attention_panel(capsule, screen) if panel == "attention_panel"
                         else measured.diffusion_panel(capsule.config, capsule, screen))
    figure.canvas.draw()
    assert data["cell"] in alt and set(data["genes"]) <= set(screen.var_names)
    assert "Nobody et al. 2020" in data["credit"] and "Nobody et al. 2020" in figure._supxlabel.get_text()
    assert data["capsule"] == measured.fingerprint(capsule)
    plt.close(figure)


def test_the_fingerprint_follows_the_weights(shown):
    before = measured.fingerprint(shown[0])
    bias = shown[0].model.head.bias
    with torch.no_grad():
        bias[0] += 1
        assert measured.fingerprint(shown[0]) != before
        bias[0] -= 1


def test_without_a_model_only_the_schedules_are_drawn():
    config = tiny("v1", n_genes=2000)
    figure, alt, data = measured.diffusion_panel(config)
    assert len(figure.axes) == 1 and "cell" not in data and "v1's sampler" in alt
    walks = measured.schedules(config)
    assert all(share[0] == 1 for name, (_, share) in walks.items() if "probability" not in name)
    assert walks["v1's mask probability at each timestep"][1][0] == pytest.approx(0.3)
    plt.close(figure)


def test_the_animation_has_a_frame_a_state(shown):
    movie = Image.open(io.BytesIO(measured.denoising_gif(*shown)))
    assert movie.n_frames == len(shown[0].process.counts(12)) + 1


def test_a_screen_of_another_panel_is_refused(shown):
    with pytest.raises(CDTError, match="panel does not match"):
        measured.example(shown[0], shown[1][:, :6].copy())
