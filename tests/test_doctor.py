"""The doctor's verdict: what a machine lacks, each time with what to do; and how fast it is."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny, toy_screen

from cdt_lite import doctor
from cdt_lite.cli import main
from cdt_lite.data.layout import Columns

ROOT = Path(__file__).resolve().parents[1]


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


def test_what_does_not_run_here_is_named_with_its_remedy_and_the_status_says_so(tmp_path):
    """A folder below a file cannot be made by anyone."""
    (tmp_path / "file").touch()
    variables = {**os.environ, "CDT_LITE_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    variables |= {"CDT_LITE_DATA": str(tmp_path / "file" / "below"), "HTTPS_PROXY": "http://me:secret@there.example:80"}
    done = subprocess.run([sys.executable, "-m", "cdt_lite.cli", "doctor"], cwd=tmp_path, env=variables, text=True,
                          capture_output=True)
    assert done.returncode == 1, done.stderr
    *others, line, verdict = done.stdout.splitlines()
    assert verdict == "not ready: see the lines above"
    assert re.fullmatch("folders: CDTError: nothing can be written to .*below.*CDT_LITE_DATA.*", line)
    assert "proxy for https: there.example" in others and "secret" not in done.stdout


def _no_program(monkeypatch, tmp_path):
    monkeypatch.setattr("cdt_lite.figures.sketch.shutil.which", lambda name, path=None: None)


def _no_capsule(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "CAPSULES", tmp_path)


def _half_a_capsule(monkeypatch, tmp_path):
    (tmp_path / "lite-half").mkdir()
    (tmp_path / "lite-half" / "checkpoint.json").write_text("{")
    monkeypatch.setattr(doctor, "CAPSULES", tmp_path)


def _no_cache(monkeypatch, tmp_path):
    def refused():
        raise RuntimeError("cannot cache function 'f': no locator available for file 'scanpy.py'")

    monkeypatch.setattr("scanpy.datasets.pbmc68k_reduced", refused)  # what numba says on a read-only installation


def _another_kernel(monkeypatch, tmp_path):
    (tmp_path / "cdt_lite.py").write_text("raise ImportError('of another environment')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def _no_style(monkeypatch, tmp_path):
    monkeypatch.setattr("cdt_lite.figures.plots.__file__", str(tmp_path / "plots.py"))


@pytest.mark.parametrize(("fault", "said"), [
    (_no_program, "diagrams: CDTError: .*install Graphviz"),
    (_no_capsule, "capsules: CDTError: there is none.*install again"),
    (_half_a_capsule, "capsules: CDTError: .*not a checkpoint.*install again"),
    (_no_cache, "scanpy and its cells: RuntimeError: cannot cache.*set HOME .*NUMBA_CACHE_DIR"),
    (_another_kernel, "kernel: CDTError: ImportError: of another environment: .*JUPYTER_RUNTIME_DIR"),
    (_no_style, "plots: OSError: .*install again"),
])
def test_each_trial_can_fail(monkeypatch, tmp_path, fault, said):
    name = said.partition(":")[0]
    monkeypatch.setattr(doctor, "TRIALS", {name: doctor.TRIALS[name]})
    monkeypatch.setattr(doctor, "free_memory", lambda: 8.0)
    assert doctor.report()[-1] == doctor.READY
    fault(monkeypatch, tmp_path)
    *_, line, verdict = doctor.report()
    assert verdict != doctor.READY
    assert line.startswith(name) and re.search(said, line)


def test_a_strangers_file_is_told_of(tmp_path, capsys):
    screen = toy_screen()
    screen.obs["gene"] = screen.obs["target_gene"].cat.rename_categories({"G5": "elsewhere"})
    del screen.obs["target_gene"]
    screen.write_h5ad(tmp_path / "own.h5ad")
    sizes = screen.obs["gene"].value_counts()
    sizes = sorted(sizes[["G3", "elsewhere"]])
    lines = doctor.about_screen(str(tmp_path / "own.h5ad"), Columns(target="gene"))
    told = dict(line.partition(": ")[::2] for line in lines)
    assert told[str(tmp_path / "own.h5ad")] == "240 cells x 12 genes"
    assert told["space"].startswith("counts, ")
    of_batch = screen.obs["batch"].value_counts()
    assert told["replicates"] == ", ".join(f"{name} ({n} cells)" for name, n in of_batch.items())
    assert told["control cells"] == str(240 - sum(sizes))
    assert told["perturbations"] == "2, of 2 targets"
    assert told["cells a perturbation"] == f"{sizes[0]} at least, {sum(sizes) / 2:.0f} (median)"
    assert told["measured targets"] == "1; not measured: elsewhere"
    assert told["signs"] == f"-1 ({sum(sizes)} cells)"
    assert told["panel of lite"] == "12 genes"
    assert re.search(r"about [\d.e-]+ h on", lines[-1])
    assert main(["doctor", "--screen", str(tmp_path / "own.h5ad"), "--target-key", "gene"]) == 0
    assert "2, of 2 targets" in capsys.readouterr().out
    screen.X = np.log1p(screen.X.toarray())
    screen.write_h5ad(tmp_path / "log.h5ad")
    assert main(["doctor", "--screen", str(tmp_path / "log.h5ad"), "--target-key", "gene"]) == 2
    assert "must hold raw counts" in capsys.readouterr().err


def test_hours_are_those_of_both_stages_at_the_measured_speed(monkeypatch):
    monkeypatch.setattr(doctor, "bench", lambda *measured, steps: {"training_cells_per_second": 10.0})
    hours = doctor.hours_of_training(tiny(), 12, 36_000)
    assert hours == pytest.approx(tiny().pretrain.epochs + tiny().finetune.epochs)


def test_a_notebook_can_show_the_report_for_it_holds_no_path_of_the_machine():
    assert str(ROOT) not in "\n".join(doctor.report())


def test_free_memory_is_a_plausible_number_of_gigabytes():
    assert math.isnan(doctor.free_memory()) or 0 < doctor.free_memory() < 10_000


@pytest.mark.parametrize("preset", ["lite", "v1"])
def test_training_and_sampling_are_timed(preset):
    found = doctor.bench(tiny(preset, n_genes=16, n_total_genes=60), "cpu", steps=2)
    assert (found["preset"], found["n_genes"], found["batch_cells"]) == (preset, 16, 6)
    for speed in ("training_cells_per_second", "sampling_cells_per_second", "peak_memory_gb"):
        assert found[speed] > 0
