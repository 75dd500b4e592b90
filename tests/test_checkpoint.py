import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import inputs, tiny, toy_screen

from cdt_lite.errors import CDTError
from cdt_lite.files import write_atomically
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.start import start


def new(seed=0):
    return start(tiny(), toy_screen(), seed=seed)


def test_a_checkpoint_comes_back_whole(tmp_path):
    made = new()
    back = Checkpoint.load(made.save(tmp_path / "c"))
    given = inputs(made.config)
    assert torch.equal(made.model.eval()(**given), back.model(**given))
    for name in ("config", "vocabulary", "panel", "control_depths", "trained_targets", "stage", "step", "card"):
        assert getattr(made, name) == getattr(back, name), name
    assert made.tokenizer.target_depth == back.tokenizer.target_depth


def test_a_capsule_keeps_moved_gene_rows_and_remakes_the_rest(tmp_path):
    made = new(seed=3)
    with torch.no_grad():
        made.model.gene_table.weight[[2, 5]] += 1
    full, capsule = made.save(tmp_path / "full"), made.save(tmp_path / "capsule", half=True)
    back = Checkpoint.load(capsule)
    torch.testing.assert_close(back.model.gene_table.weight, made.model.gene_table.weight, atol=2e-3, rtol=1e-3)
    given = set(made.vocabulary.ids(made.panel).tolist())  # these start from co-expression
    untouched = [i for i in range(40) if i not in {2, 5, *given}]
    assert torch.equal(back.model.gene_table.weight[untouched], made.model.gene_table.weight[untouched])
    size = {f: sum(p.stat().st_size for p in f.glob("weights-*")) for f in (full, capsule)}
    assert size[capsule] < 0.6 * size[full]


def test_saving_again_leaves_one_weights_file(tmp_path):
    made = new()
    made.save(tmp_path)
    with torch.no_grad():
        made.model.head.bias += 1
    made.save(tmp_path)
    assert len(list(tmp_path.glob("weights-*"))) == 1 and len(list(tmp_path.iterdir())) == 2


def test_a_truncated_or_altered_file_is_refused(tmp_path):
    folder = new().save(tmp_path)
    weights = next(folder.glob("weights-*"))
    whole = weights.read_bytes()
    for damaged in (whole[:-10], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        weights.write_bytes(damaged)
        with pytest.raises(CDTError, match="truncated or altered"):
            Checkpoint.load(folder)
    weights.unlink()
    with pytest.raises(CDTError, match="missing"):
        Checkpoint.load(folder)


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(CDTError, match="no checkpoint"):
        Checkpoint.load(tmp_path)
    (tmp_path / "checkpoint.json").write_text('{"hello": 1}')
    with pytest.raises(CDTError, match="is not a checkpoint"):
        Checkpoint.load(tmp_path)
    (tmp_path / "checkpoint.json").write_text("not json")
    with pytest.raises(CDTError, match="is not a checkpoint"):
        Checkpoint.load(tmp_path)


def test_another_schema_says_who_made_it(tmp_path):
    folder = new().save(tmp_path)
    header = json.loads((folder / "checkpoint.json").read_text())
    header["schema"], header["card"] = 999, {"cdt_lite": "9.9"}
    (folder / "checkpoint.json").write_text(json.dumps(header))
    with pytest.raises(CDTError, match=r"schema 999.*9\.9"):
        Checkpoint.load(folder)


def test_weights_of_an_older_model_are_refused_with_its_version(tmp_path):
    made = new()
    made.card["cdt_lite"] = "0.0.1"
    folder = made.save(tmp_path)
    header = json.loads((folder / "checkpoint.json").read_text())
    header["config"]["model"]["target_flag"] = True  # a switch that the older model did not have
    (folder / "checkpoint.json").write_text(json.dumps(header))
    with pytest.raises(CDTError, match=r"made by cdt_lite 0\.0\.1.*Remake"):
        Checkpoint.load(folder)


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    made = new()
    folder = made.save(tmp_path)
    before = made.model.head.bias.clone()
    with torch.no_grad():
        made.model.head.bias += 1

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        made.save(folder)
    monkeypatch.undo()
    assert torch.equal(Checkpoint.load(folder).model.head.bias, before)
    assert len(list(folder.iterdir())) == 2  # and no half-written file lies about


KILLED = """
import os, sys, time
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from helpers import tiny, toy_screen
from cdt_lite.training.start import start
from cdt_lite.training import checkpoint as c
made = start(tiny(), toy_screen())
made.save({folder!r})
real = os.replace
def slow(a, b):
    if {stop_at!r} in str(b):
        print("saving", flush=True)
        time.sleep(60)
    real(a, b)
os.replace = slow
made.step = 77
made.model.head.bias.data += 1
made.save({folder!r})
"""


@pytest.mark.parametrize("stop_at", ["weights-", "checkpoint.json"])
def test_a_kill_in_the_middle_of_a_save_keeps_the_old_checkpoint(tmp_path, stop_at):
    tests = Path(__file__).parent
    code = KILLED.format(root=str(tests.parent), tests=str(tests), folder=str(tmp_path / "c"), stop_at=stop_at)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "saving"
    time.sleep(0.1)
    process.kill() if sys.platform == "win32" else process.send_signal(signal.SIGKILL)
    process.wait()
    back = Checkpoint.load(tmp_path / "c")
    assert back.step == 0 and not back.model.head.bias.any()


def test_write_atomically_replaces_in_one_step(tmp_path):
    path = tmp_path / "x"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["x"]
