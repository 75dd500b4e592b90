import json
import shlex
from dataclasses import replace

import pytest
from helpers import tiny

from cdt_lite.cli import main
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.data.splits import named_split
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.model.perturbation import NO_TARGET
from cdt_lite.training import capsule
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.train import Progress

PARTS = {
    "cdt_lite", "torch", "seconds", "seed", "screen", "cells", "data", "unseen_targets", "held_out", "curves",
    "held_out_curve", "limits", "pretrained_on",
}
SHIPPED = sorted(p.parent for p in capsule.CAPSULES.glob("*/checkpoint.json"))


@pytest.fixture(scope="module")
def made():
    screen = simulate_screen(n_genes=64, n_targets=8, n_cells=900, seed=3)
    config = tiny(n_total_genes=2000)
    items = list(capsule.make_capsule(screen, config, pretrain_steps=4, finetune_steps=3))
    return screen, items


def pretraining_cells_of(screen):
    return capsule.pretraining_cells(screen[named_split(screen) == "train"].copy())


def test_a_capsule_is_made_of_both_stages_and_carries_its_card(made):
    screen, items = made
    assert [i.stage for i in items[:-1]] == ["pretrain"] * 4 + ["finetune"] * 3
    assert all(isinstance(i, Progress) for i in items[:-1])
    card = items[-1].card
    assert set(card) >= PARTS
    for part, cells in zip(card["pretrained_on"], pretraining_cells_of(screen), strict=True):
        assert (part["cells"], part["genes"]) == cells.shape
    assert sum(card["cells"].values()) == screen.n_obs
    looks = [(look["stage"], look["step"]) for look in card["looks"]]  # up to twelve a stage
    assert looks == [(item.stage, item.step) for item in items[:-1]]
    for target in card["unseen_targets"]:
        assert target not in items[-1].trained_targets and target in items[-1].vocabulary


def test_pretraining_looks_at_held_out_cells_alone_and_tells_no_perturbation(made):
    screen, items = made
    side = named_split(screen)
    pretraining, finetuning = (capsule.held_out_sets(items[-1], screen, side, s) for s in ("pretrain", "finetune"))
    assert len(pretraining.stores[0]) == (side == "held_out").sum() < len(finetuning.stores[0])
    assert (pretraining.batch(0).perturbation.target == NO_TARGET).all()
    assert (finetuning.batch(0).perturbation.target != NO_TARGET).all()


def test_pretraining_reads_three_files_with_other_panels(made):
    first, second, third = (set(cells.var_names) for cells in pretraining_cells_of(made[0]))
    assert first != second and first != third and second != third


def test_a_capsule_goes_to_disk_and_back(made, tmp_path, monkeypatch):
    screen, items = made
    monkeypatch.setattr(capsule, "CAPSULES", tmp_path / "shipped")
    monkeypatch.setenv("CDT_LITE_DATA", str(tmp_path / "own"))
    with pytest.raises(CDTError, match="cdt-lite capsule"):
        capsule.load_capsule(screen)
    folder = capsule.save_capsule(items[-1], capsule.open_capsule(screen, "lite"))
    assert folder.is_relative_to(tmp_path / "own" / "capsules")
    assert capsule.load_capsule(screen).card == json.loads(json.dumps(items[-1].card))
    with pytest.raises(CDTError, match="another panel"):
        capsule.load_capsule(screen[:, :10])


@pytest.mark.parametrize("place", ["shipped", "own", "named"])
def test_a_new_capsule_takes_no_place_unasked(made, tmp_path, monkeypatch, place):
    screen, items = made
    monkeypatch.setattr(capsule, "CAPSULES", tmp_path / "shipped")
    monkeypatch.setenv("CDT_LITE_DATA", str(tmp_path / "own"))
    out = str(tmp_path / "named") if place == "named" else None
    there = tmp_path / "shipped" / "lite-simulated" if place == "shipped" else capsule.open_capsule(screen, "lite", out)
    capsule.save_capsule(items[-1], there)
    before = contents(there)
    with pytest.raises(CDTError, match=r"holds a model \(finetune, 3 steps\).*--overwrite.*--out"):
        capsule.open_capsule(screen, "lite", out)
    anew = capsule.open_capsule(screen, "lite", out, overwrite=True)
    assert contents(there) == before and (anew == there) == (place != "shipped")  # what ships is never written to
    capsule.save_capsule(replace(items[-1], seed=7), anew)
    assert Checkpoint.load(anew).seed == 7
    if place != "named":
        assert capsule.load_capsule(screen).seed == 7  # one's own comes before what ships
        others = simulate_screen(n_genes=64, n_targets=8, n_cells=900, seed=4)
        capsule.open_capsule(others, "lite")  # other cells, whose name is the same


def test_the_command_asks_before_it_trains(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CDT_LITE_DATA", str(tmp_path))
    words = ["n_genes=64", "n_targets=8", "n_cells=900", "seed=3"]
    screen = simulate_screen(n_genes=64, n_targets=8, n_cells=900, seed=3)
    capsule.save_capsule(made[1][-1], capsule.open_capsule(screen, "lite"))
    monkeypatch.setattr(capsule, "make_capsule", None)  # never reached
    assert main(["capsule", "--screen", "simulated", "--simulated", *words]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_capsule_too_large_to_travel_is_refused(made, tmp_path, monkeypatch):
    capsule.save_capsule(made[1][-1], tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(capsule, "MAX_BYTES", 1000)
    with pytest.raises(CDTError, match="too large to ship"):
        capsule.save_capsule(replace(made[1][-1], seed=5), tmp_path)
    assert contents(tmp_path) == before  # what was there is kept


def test_a_card_holds_the_command_that_was_typed(made, tmp_path, monkeypatch):
    words = ["capsule", "--screen", "simulated", "--simulated", "n_genes=64", "n_targets=8", "n_cells=900", "seed=3",
             "--gene-sets", "planted", "--learning-rate", "0.001", "--out", str(tmp_path / "mine")]
    monkeypatch.setattr(capsule, "make_capsule", lambda *given, **settings: iter(made[1]))
    assert main(words) == 0
    assert Checkpoint.load(tmp_path / "mine").card["command"] == shlex.join(["cdt-lite", *words])


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_some_capsules_ship():
    assert SHIPPED


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda p: p.name)
def test_shipped_capsules_are_whole_small_and_describe_themselves(folder):
    found = Checkpoint.load(folder)
    assert sum(f.stat().st_size for f in folder.iterdir()) <= capsule.MAX_BYTES
    steps = {stage: curve["step"][-1] for stage, curve in found.card["curves"].items()}
    assert all(f"--{stage}-steps {n}" in found.card["command"] for stage, n in steps.items())
    assert len(found.card["pretrained_on"]) == 3
    assert ("simulated cells" in found.card["limits"]) == ("simulated" in folder.name)
    assert found.stage == "finetune" and found.card["seconds"] > 0 and found.card["screen"]["licence"]
    curve = found.card["held_out_curve"]["nats_per_gene"]
    assert max(curve) < 1.5  # of the log(63) = 4.1 nats that knowing nothing costs
    assert replace(found.config, name="lite").model.dim == 64


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda p: p.name)
def test_shipped_capsules_draw_nothing_that_their_training_cells_never_showed(folder):
    found = Checkpoint.load(folder)
    highest = found.model.effect.highest
    assert len(highest) == len(found.panel) and (highest < found.config.tokenizer.n_bins - 1).all()
    if "simulated" in folder.name:
        screen = simulate_screen()
        cells = screen[named_split(screen) == "train"].copy()
        store = TokenStore.from_adata(cells, found.tokenizer, found.vocabulary)
        assert store.digest() == found.card["data"][0]
        assert (store.tokens.max(0) == highest.numpy()).all()
