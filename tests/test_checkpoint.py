import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from helpers import inputs, opened, tiny, toy_screen
from safetensors import SafetensorError

from cdt_lite.errors import CDTError
from cdt_lite.files import write_atomically
from cdt_lite.model.config import PRESETS, DiffusionConfig
from cdt_lite.training import checkpoint as writing
from cdt_lite.training.checkpoint import Checkpoint, header_hash, read_config
from cdt_lite.training.start import start

LEARNED = DiffusionConfig("learned", 4, loss_curve=((0.1, 0.2), (0.5, 0.9), (1.0, 1.0)))
CONFIGS = (*PRESETS.values(), replace(PRESETS["lite"], name="learned", diffusion=LEARNED))


def new(preset="lite", seed=0):
    return start(tiny(preset), toy_screen(), seed=seed)


def change_header(folder, change, rehash=True):
    """Changes a header; with `rehash` as a writer would, that is with the hash of the new content."""
    path = folder / "checkpoint.json"
    header = json.loads(path.read_text())
    change(header)
    if rehash:
        header["header_sha256"] = header_hash(header)
    path.write_text(json.dumps(header))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_a_preset_survives_json(config):
    assert read_config(json.loads(json.dumps(asdict(config)))) == config


def test_a_field_that_is_not_known_or_does_not_fit_is_named():
    for name, value in (("n_layers", 3), ("n_layer", "three")):
        data = asdict(PRESETS["lite"])
        data["model"][name] = value
        with pytest.raises(CDTError, match=f"does not fit.*{name}"):
            read_config(data)


@pytest.mark.parametrize("preset", ["lite", "v1"])
def test_a_checkpoint_comes_back_whole(tmp_path, preset):
    made = new(preset)
    back = Checkpoint.load(made.save(tmp_path / "c"))
    given = inputs(made.config)
    assert torch.equal(made.model.eval()(**given), back.model(**given))
    for name in ("config", "process", "vocabulary", "panel", "trained_targets", "seed", "stage", "step", "card"):
        assert getattr(made, name) == getattr(back, name), name
    assert made.tokenizer.target_depth == back.tokenizer.target_depth


def test_a_capsule_keeps_moved_gene_rows_and_remakes_the_rest(tmp_path):
    made = new(seed=3)
    moved = [2, 5, *made.vocabulary.ids(made.panel)]  # those of the panel start from co-expression
    with torch.no_grad():
        made.model.gene_table.weight[[2, 5]] += 1
    full, capsule = made.save(tmp_path / "full"), made.save(tmp_path / "capsule", half=True)
    before, after = (c.model.gene_table.weight for c in (made, Checkpoint.load(capsule)))
    torch.testing.assert_close(after, before, atol=2e-3, rtol=1e-3)
    untouched = torch.ones(40, dtype=torch.bool)
    untouched[moved] = False
    assert torch.equal(after[untouched], before[untouched])
    small, large = (next(folder.glob("weights-*")).stat().st_size for folder in (capsule, full))
    assert small < 0.6 * large


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
    for foreign in ('{"hello": 1}', "not json", "[1, 2]"):
        (tmp_path / "checkpoint.json").write_text(foreign)
        with pytest.raises(CDTError, match="is not a checkpoint"):
            Checkpoint.load(tmp_path)


def test_another_schema_says_who_made_it(tmp_path):
    folder = new().save(tmp_path)
    change_header(folder, lambda header: header.update(schema=999, card={"cdt_lite": "9.9"}))
    with pytest.raises(CDTError, match=r"schema 999.*9\.9"):
        Checkpoint.load(folder)


def test_weights_of_an_older_model_are_refused_with_its_version(tmp_path):
    made = new()
    made.card["cdt_lite"] = "0.0.1"
    folder = made.save(tmp_path)
    change_header(folder, lambda header: header["config"]["model"].update(ffn_mult=3))
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
    with pytest.raises(CDTError, match="No space left.*make room"):
        made.save(folder)
    monkeypatch.undo()
    assert torch.equal(Checkpoint.load(folder).model.head.bias, before)
    assert len(list(folder.iterdir())) == 2  # and no half-written file lies about


def test_a_disk_that_is_full_before_the_weights_are_written_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    made = new()
    folder = made.save(tmp_path / "c")

    def full(tensors, path):
        Path(path).write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(writing, "save_file", full)
    with pytest.raises(CDTError, match="nothing was saved to .*No space left.*Make room"):
        made.save(folder)
    assert Checkpoint.load(folder) and len(list(folder.iterdir())) == 2


KILLED = """
import os, sys, time
sys.path[:0] = [{root!r}, {tests!r}]
from helpers import tiny, toy_screen
from cdt_lite.training.start import start
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


CHANGES = {
    "target_depth": lambda header: header.update(target_depth=header["target_depth"] * 10),
    "swapped genes": lambda header: header["panel"].insert(0, header["panel"].pop()),
    "vocabulary": lambda header: header["vocabulary"].reverse(),
    "trained_targets": lambda header: header.update(trained_targets=["G9"]),
    "seed": lambda header: header.update(seed=header["seed"] + 1),
    "card": lambda header: header["card"].update(data=["another"]),
    "learning rate": lambda header: header["config"]["finetune"].update(learning_rate=0.5),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_header_is_refused(tmp_path, change):
    folder = new().save(tmp_path)
    change_header(folder, change, rehash=False)
    with pytest.raises(CDTError, match="was altered"):
        Checkpoint.load(folder)


BOMBS = {
    "n_layer": lambda header: header["config"]["model"].update(n_layer=10**6),
    "n_layer, fewer": lambda header: header["config"]["model"].update(n_layer=900),
    "n_total_genes": lambda header: header["config"]["model"].update(n_total_genes=10**8),
    "n_head": lambda header: header["config"]["model"].update(n_head=0),
    "dim": lambda header: header["config"]["model"].update(dim=10**6, n_head=1),
    "gene_embed_dim": lambda header: header["config"]["model"].update(gene_embed_dim=10**6),
}


@pytest.mark.parametrize("change", BOMBS.values(), ids=BOMBS)
def test_sizes_that_the_file_cannot_bear_are_refused_before_a_model_is_made(tmp_path, change, monkeypatch):
    folder = new().save(tmp_path)
    change_header(folder, change)

    def never(config, seed):
        raise AssertionError("a model of those sizes was made")

    monkeypatch.setattr("cdt_lite.training.checkpoint.build", never)
    with pytest.raises(CDTError):
        Checkpoint.load(folder)


TYPES = {
    "target_depth": "50", "seed": -1, "step": 0.5, "stage": "pretraining", "card": "cdt", "config": 63, "vocabulary": 0,
    "panel": ["G0", ["G1"]], "trained_targets": [3]}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("removed", [False, True])
def test_a_header_with_values_of_other_types_is_refused_by_name(tmp_path, name, removed):
    folder = new().save(tmp_path)
    if name == "target_depth" and not removed:
        change_header(folder, lambda header: header.update({name: ["G3"]}))
    else:
        change_header(folder, lambda header: header.pop(name) if removed else header.update({name: TYPES[name]}))
    with pytest.raises(CDTError, match=f"{name}|does not fit"):
        Checkpoint.load(folder)


def test_a_panel_outside_the_vocabulary_and_a_depth_without_end_are_refused(tmp_path):
    folder = new().save(tmp_path)
    for change, what in (({"panel": ["G0", "G99"]}, "'G99' is not in the vocabulary"),
                         ({"panel": ["G0"], "target_depth": float("inf")}, "target_depth must lie in")):
        change_header(folder, lambda header, change=change: header.update(change))
        with pytest.raises(CDTError, match=what):
            Checkpoint.load(folder)


@pytest.mark.parametrize("part", ["effect", "shares", "sign", "highest"])
def test_a_table_of_effects_whose_parts_do_not_fit_is_refused(tmp_path, part):
    checkpoint = new()
    opened(checkpoint.model)
    table = checkpoint.model.effect
    setattr(table, part, getattr(table, part)[1:])
    with pytest.raises(CDTError, match="has parts that do not fit each other"):
        Checkpoint.load(checkpoint.save(tmp_path))


def test_a_header_nested_too_deep_to_read_is_refused(tmp_path):
    folder = new().save(tmp_path)
    (folder / "checkpoint.json").write_text("[" * 10**5)
    with pytest.raises(CDTError, match="not a checkpoint"):
        Checkpoint.load(folder)


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path):
    made = new()
    folder = made.save(tmp_path)
    before = made.model.head.bias.clone()
    with torch.no_grad():
        made.model.head.bias[0] = float("nan")
    with pytest.raises(CDTError, match="head.bias holds values that are not finite: nothing was saved"):
        made.save(folder)
    assert torch.equal(Checkpoint.load(folder).model.head.bias, before)


@pytest.mark.parametrize("look", ["hash_of", "load_file"])
def test_a_save_between_two_looks_of_a_reader_is_read_as_a_whole(tmp_path, monkeypatch, look):
    folder = new().save(tmp_path)
    read, later = getattr(writing, look), new()
    later.step = 7
    later.model.head.bias.data += 1

    def after_another_save(path):
        monkeypatch.undo()
        later.save(folder)  # takes away the weights that were about to be read
        return read(path)

    monkeypatch.setattr(writing, look, after_another_save)
    found = Checkpoint.load(folder)
    assert found.step == 7 and torch.equal(found.model.head.bias, later.model.head.bias)


def test_two_that_save_at_the_same_moment_leave_a_whole_checkpoint_and_a_reader_always_finds_one(tmp_path):
    folder = new().save(tmp_path)
    barrier = threading.Barrier(2, timeout=30)
    failed = []

    def save_in_turn(number):
        made = new()
        try:
            for _ in range(15):
                with torch.no_grad():
                    made.model.head.weight += 1e-3 * number
                barrier.wait()
                made.save(folder)
        except Exception as error:
            failed.append(error)

    writers = [threading.Thread(target=save_in_turn, args=(number,)) for number in (1, 2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        Checkpoint.load(folder)
    assert not failed
    Checkpoint.load(folder)
    assert len(list(folder.iterdir())) == 2
