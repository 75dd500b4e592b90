"""Settings that make no sense are refused where they enter, in Python as on the command line."""

import jaxtyping
import numpy as np
import pytest
from helpers import tiny, toy_screen

from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.errors import CDTError, CDTWarning, require_between
from cdt_lite.evaluation import bootstrap_means, control_halves, energy_distance
from cdt_lite.figures.folder import make_figures
from cdt_lite.model.config import TokenizerConfig, TrainConfig
from cdt_lite.report.results import add_entry
from cdt_lite.report.tasks import ReportOptions
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.output import open_output
from cdt_lite.training.predict import Generation, as_log1p, predict, predict_mean
from cdt_lite.training.start import start

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def screen():
    return toy_screen()


@pytest.fixture(scope="module")
def model(screen):
    return start(tiny(), screen)


@pytest.mark.parametrize("value", [NAN, -1, INF, 3, "1", None])
def test_a_number_outside_its_range_is_named(value):
    with pytest.raises(CDTError, match=f"size must lie in 0 to 2, not {value!r}"):
        require_between("size", value, 0, 2)
    require_between("size", 2, 0, 2)
    require_between("size", np.int64(0), 0)


@pytest.mark.parametrize("rate", [INF, NAN, 0.0, -1e-3, 11.0])
def test_learning_rates(rate):
    with pytest.raises(CDTError, match="learning_rate must lie in"):
        TrainConfig(learning_rate=rate)


@pytest.mark.parametrize("depth", [NAN, -1.0, 0.0, INF, 1e30])
def test_depths(model, screen, depth):
    with pytest.raises(CDTError, match="target_depth"):
        Tokenizer(TokenizerConfig(), depth)
    cells = predict(model, screen, "G3", n_cells=2)
    with pytest.raises(CDTError, match="target_depth"):
        as_log1p(cells, depth)


def test_seeds(model, screen):
    for call in (lambda: start(tiny(), screen, seed=-1), lambda: predict(model, screen, "G3", n_cells=2, seed=-1),
                 lambda: predict_mean(model, screen, "G3", n_cells=2, seed=-1), lambda: control_halves(screen, seed=-1),
                 lambda: TrainConfig(seed=-1)):
        with pytest.raises(CDTError, match="seed must be a whole number from 0"):
            call()


@pytest.fixture
def unchecked(monkeypatch):
    """As for a user, whose types nobody checks."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("n_cells", [0, -1, 2.5, NAN, INF])
def test_numbers_of_cells(model, screen, n_cells, unchecked):
    with pytest.raises(CDTError, match="n_cells must be a whole number from 1"):
        predict(model, screen, "G3", n_cells=n_cells)


def test_a_magnitude_of_any_number_of_digits(model, screen, unchecked):
    with pytest.warns(CDTWarning, match="and was clipped"):
        predict(model, screen, "G3", magnitude=-(10**30), n_cells=2)


@pytest.mark.parametrize("capacity", ["3", 0, 2.5, None])
def test_capacities(capacity, unchecked):
    with pytest.raises(CDTError, match="capacity must be a whole number from 1"):
        Vocabulary(["A", "B"], capacity=capacity)


def test_other_counts():
    cells = np.random.default_rng(0).normal(size=(5, 3))
    for most in (-1, 0, 1):
        with pytest.raises(CDTError, match="max_cells must be a whole number from 2"):
            energy_distance(cells, cells, max_cells=most)
    with pytest.raises(CDTError, match="n_boot must be a whole number from 1"):
        bootstrap_means(cells, n_boot=0)
    for setting in ({"seeds": 0}, {"n_cells": -1}):
        with pytest.raises(CDTError, match=f"{next(iter(setting))} must be a whole number from 1"):
            ReportOptions(**setting)
    with pytest.raises(CDTError, match="cells_per_pass must be a whole number from 1"):
        Generation(cells_per_pass=0)
    for guidance in (NAN, INF, -1.0):
        with pytest.raises(CDTError, match="guidance must lie in"):
            Generation(guidance=guidance)


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_not_the_folder_one_is_in(model, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    model.save("there")
    monkeypatch.chdir(tmp_path / "there")
    before = sorted(tmp_path.rglob("*"))
    entry = {"screen": {"name": "x"}}
    for call in (lambda: Checkpoint.load(path), lambda: model.save(path), lambda: open_output(path),
                 lambda: make_figures(tiny(), path), lambda: add_entry(entry, path)):
        with pytest.raises(CDTError, match="a path is empty"):
            call()
    assert sorted(tmp_path.rglob("*")) == before
