"""The doctor's verdict: what a machine lacks, each time with what to do; and how fast it is."""

import math

import pytest
from helpers import tiny

from cdt_lite import doctor


def test_a_machine_with_everything_lacks_nothing():
    assert doctor.shortcomings(8.0, 50.0) == []
    assert doctor.shortcomings(float("nan"), 50.0) == []  # not known is not a reason to stop


def test_every_shortcoming_says_what_to_do(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "jupyterlab" else object())
    program, memory, disk = doctor.shortcomings(1.0, 0.1)
    assert "jupyterlab" in program and "run.py setup" in program
    assert "1.0 GB" in memory and "CDT_PROFILE=ci" in memory
    assert "0.1 GB" in disk and "CDT_LITE_DATA" in disk


def test_the_report_ends_with_the_verdict(monkeypatch):
    monkeypatch.setattr(doctor, "free_memory", lambda: 8.0)
    assert doctor.report()[-1] == "ready for the notebooks"
    monkeypatch.setattr(doctor, "free_memory", lambda: 0.5)
    lines = doctor.report()
    assert lines[-1].startswith("not ready") and "0.5 GB free" in lines[-2]


def test_free_memory_is_a_plausible_number_of_gigabytes():
    assert math.isnan(doctor.free_memory()) or 0 < doctor.free_memory() < 10_000


@pytest.mark.parametrize("preset", ["lite", "v1"])
def test_training_and_sampling_are_timed(preset):
    found = doctor.bench(tiny(preset, n_genes=16, n_total_genes=60), "cpu", steps=2)
    assert (found["preset"], found["n_genes"], found["batch_cells"]) == (preset, 16, 6)
    for speed in ("training_cells_per_second", "sampling_cells_per_second", "peak_memory_gb"):
        assert found[speed] > 0
