"""The benchmarks of speed run, at sizes that take no time; what they measure on which machine is not tested."""

import sys

import pytest
import torch
from helpers import tiny

from benchmarks import gpu, speed
from benchmarks.speed import Size, Work

SMALL = Size("lite", 24, 2, 2, 4)


@pytest.mark.parametrize("preset", ["v1", "lite"])
def test_work_is_a_step_and_a_sample_of_the_preset(preset, monkeypatch):
    monkeypatch.setitem(speed.PRESETS, preset, tiny(preset))
    work = Work(SMALL._replace(preset=preset))
    assert work.loss().isfinite()
    work.step()
    assert all(p.grad is None for p in work.model.parameters())
    assert work.sample().shape == (2, 2, 24)
    assert work.flops(training=True) == 3 * work.flops(training=False) > 0


def test_a_step_keeps_less_for_its_backward_pass_than_if_all_genes_were_read():
    work = Work(SMALL)
    read, given = work.kept(), work.model.given
    work.model.given = lambda *condition: given(*condition).__call__  # a denoiser that knows no other way
    assert read < work.kept()


def test_the_table_sets_each_time_beside_a_limit(monkeypatch):
    monkeypatch.setattr(speed, "SIZES", {"step, lite": SMALL, "sampling, lite": SMALL})
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda _: None)
    found = {row["what"]: row for row in speed.rows()}
    assert set(found) == {"step, lite", "sampling, lite", "kept by the step, lite"}
    assert all(row["measured"] > 0 and row["limit"] > 0 for row in found.values())


def test_the_script_for_a_gpu_measures_every_case_and_leaves_out_what_there_is_no_time_for(monkeypatch):
    monkeypatch.setattr(gpu, "SETS", {"lite": 2})
    found = gpu.measure("cpu", genes=24, controls=4, batches=(2, 4), large=32, steps=1)
    assert [(run["preset"], run["cells"]) for run in found["runs"]] == [("lite", 2), ("lite", 4)]
    assert all(run["parts_ms"] and run["sampling_s"] > 0 for run in found["runs"]) and not found["left_out"]
    gpu.against_datasheet(found, "NVIDIA H200")
    assert all(run["mfu_of_datasheet"] == pytest.approx(run["tflops"] / 989.4) for run in found["runs"])
    monkeypatch.setattr(gpu, "BUDGET", 0.0)
    late = gpu.measure("cpu", genes=24, controls=4, batches=(2,), large=32, steps=1)
    assert not late["runs"] and late["left_out"] == [["lite", 24, 1, 2, 4, False]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu"])
    gpu.main()
    assert capsys.readouterr().out == "No CUDA device is here: nothing was measured.\n"
