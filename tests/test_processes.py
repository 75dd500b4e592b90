"""Several processes train one model: losses and weights of one, stopped together, gone on with by any number."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranks import CASES, HALF, STEPS, begun, run

from cdt_lite.cli import main
from cdt_lite.data import simulate_screen
from cdt_lite.errors import CDTError
from cdt_lite.training import processes
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.train import train

HERE = Path(__file__).parent
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="torchrun on Windows is not tried")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes made of every case, and their losses."""
    folder = tmp_path_factory.mktemp("two")
    half = run("lite", folder / "resumed", HALF)
    done = subprocess.run([*TORCHRUN, "2", HERE / "ranks.py", folder], env=ENVIRONMENT, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    losses = json.loads((folder / "losses.json").read_text())
    losses["resumed"] = half + losses["resumed"]
    return folder, losses


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The same in one process, each case when it is asked for."""
    made = {}

    def of(case):
        if case not in made:
            folder = tmp_path_factory.mktemp("one")
            made[case] = folder, run(case, folder)
        return made[case]

    return of


def equal(found, expected):
    """Compares two folders: the same tensors, and none of them far from the other's.

    A bias that all keys share moves no weight of attention. Its gradient is rounding alone, of which AdamW makes steps.
    """
    found, expected = (Checkpoint.load(folder, resume=True) for folder in (found, expected))
    assert found.step == expected.step and found.card == expected.card
    for mine, theirs in ((found.model.state_dict(), expected.model.state_dict()), (found.training, expected.training)):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            atol = 1e-2 if "kv.bias" in name else 1e-4
            torch.testing.assert_close(mine[name], value, atol=atol, rtol=0, msg=name)


@POSIX
@pytest.mark.parametrize("case", [*CASES, "resumed"])
def test_two_processes_train_the_model_of_one(two, one, case):
    """Copied or cut, with dropout, and with batches that leave weights out; and where one process had begun."""
    folder, losses = two
    alone, expected = one({"resumed": "lite"}.get(case, case))
    assert losses[case] == pytest.approx(expected, abs=1e-5)
    equal(folder / case, alone)
    assert {path.name.split("-")[0] for path in (folder / case).iterdir()} == {"checkpoint.json", "weights"}


@POSIX
def test_a_state_in_shards_is_put_together_whole_and_no_process_gathers_more_than_a_number(two):
    """On disk, by torch, which left to itself writes half of it, zeros for numbers, and no integers."""
    folder, made = two
    assert made["largest gathered"] == 1
    assert made["assembled"] == ["rows", "one row", "vector", "cube", "number", "integers", "none"]
    assert not list((folder / "assembled").iterdir())


@POSIX
def test_shards_that_are_not_found_or_cannot_be_written_are_no_checkpoint(two):
    folder, made = two
    assert re.search("of 77 weights and moments .* on a disk that all see", made["apart"])
    assert re.search("cannot be written to .*/full: .*No space left on device: the last save stays", made["full"])
    assert not list((folder / "full").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_the_state_to_go_on_from_is_mapped_from_disk_until_it_is_used(tmp_path):
    def mapped():
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    run("lite", tmp_path, 2)
    checkpoint, (_, data) = Checkpoint.load(tmp_path, resume=True), begun("lite", "finetune")
    assert mapped()
    next(train(checkpoint, data, steps=STEPS))
    assert not mapped()


@POSIX
def test_one_process_goes_on_where_two_were_stopped(two, one):
    folder, losses = two
    alone, expected = one("lite")
    assert losses["half"] + run("lite", folder / "half") == pytest.approx(expected, abs=1e-5)
    equal(folder / "half", alone)


@POSIX
def test_a_signal_to_one_process_stops_all_and_any_number_goes_on(tmp_path):
    simulate_screen(n_genes=64, n_targets=8, n_cells=900, seed=3).write_h5ad(tmp_path / "screen.h5ad")
    command = ["-m", "cdt_lite.cli", "finetune", "--screen", "screen.h5ad", "--steps", "100000", "--out", "m"]
    launcher = subprocess.Popen([*TORCHRUN, "2", *command], env=ENVIRONMENT, cwd=tmp_path, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
    said = ""
    while "cells/s" not in said:
        piece = launcher.stdout.read(1)
        assert piece, said
        said += piece
    ranks = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True, check=True)
    os.kill(int(ranks.stdout.split()[-1]), 15)
    said += launcher.communicate(timeout=60)[0]
    assert launcher.returncode and "--resume" in said and said.count("the state is in m") == 1, said
    step = Checkpoint.load(tmp_path / "m").step
    assert step > 0
    alone = subprocess.Popen([sys.executable, *command, "--resume"], env=ENVIRONMENT, cwd=tmp_path, text=True,
                             stdout=subprocess.PIPE)
    assert f"resuming finetune at step {step} of 100000" in alone.stdout.readline()
    alone.kill()
    alone.communicate()


@pytest.fixture
def launched(monkeypatch):
    """As if torchrun had started this process, the fourth of four."""
    for name, value in (("RANK", "3"), ("LOCAL_RANK", "3"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)


def refused(capsys, words):
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_what_is_for_one_process_is_not_done_by_four(launched, capsys):
    for command in (["evaluate"], ["predict", "--checkpoint", "nowhere"], ["bench"], ["capsule"], ["account"]):
        assert "torchrun started 4 processes" in refused(capsys, command)
    checkpoint, data = begun("lite", "finetune")
    with pytest.raises(CDTError, match="init_process_group"):
        next(train(checkpoint, data, steps=1))


def test_processes_that_cannot_find_each_other_are_refused(launched, capsys, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert "process 3 of 4 cannot join the others" in refused(capsys, ["finetune", "--screen", "nowhere.h5ad"])


def test_a_gpu_that_is_not_there_for_every_process(launched, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    words = ["pretrain", "--screen", "nowhere.h5ad", "--device"]
    line = refused(capsys, [*words, "cuda"])
    assert "no device 'cuda:3'" in line and "--nproc-per-node" in line
    assert "each process takes a GPU of its own" in refused(capsys, [*words, "cuda:1"])


def test_shards_are_for_several_processes(capsys):
    assert "torchrun" in refused(capsys, ["finetune", "--screen", "nowhere.h5ad", "--shard"])
    checkpoint, data = begun("lite", "finetune")
    with pytest.raises(CDTError, match="begin with torchrun"):
        next(train(checkpoint, data, steps=1, shard=True))


def test_every_set_has_one_process_and_no_process_is_without(monkeypatch):
    for n in (1, 2, 4, 6):
        monkeypatch.setattr(processes, "n_processes", lambda n=n: n)
        sets = []
        for number in range(n):
            monkeypatch.setattr(processes, "rank", lambda number=number: number)
            share = list(range(6))[processes.share_of(6)]
            assert share
            sets += share
        assert sets == list(range(6))
    monkeypatch.setattr(processes, "n_processes", lambda: 7)
    with pytest.raises(CDTError, match="7 processes for the 6 sets"):
        processes.share_of(6)
