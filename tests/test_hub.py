"""A model that is shared comes back the same, with a card whose every line is one of its own; no network is needed."""

import fnmatch
import json
import re
import shutil
import socket
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import cdt_lite as cdt
from cdt_lite.training import CAPSULES
from cdt_lite.training.hub import FILES

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "figures" / "results.json"
CAPSULE = CAPSULES / "lite-papalexi2021"


@pytest.fixture(autouse=True)
def no_socket(monkeypatch):
    """Not even loopback."""

    def refused(*_):
        raise OSError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refused)


@pytest.fixture(scope="module")
def model():
    return cdt.Checkpoint.load(CAPSULE)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub that is a folder, with the three functions that are asked, and what they were asked."""
    kept = tmp_path / "hub"
    module = types.ModuleType("huggingface_hub")
    module.asked = []

    def create_repo(repo_id, *, exist_ok=False):
        module.asked.append(("create_repo", repo_id, exist_ok))

    def upload_folder(*, repo_id, folder_path, allow_patterns):
        for path in Path(folder_path).iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                (kept / repo_id).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, kept / repo_id)

    def snapshot_download(repo_id, *, revision=None, allow_patterns=None):
        module.asked.append(("snapshot_download", repo_id, revision))
        if not (kept / repo_id).is_dir():
            raise FileNotFoundError(f"404: {repo_id}")
        return str(kept / repo_id)

    for function in (create_repo, upload_folder, snapshot_download):
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.chdir(tmp_path)
    return module


def same(one, other):
    weights = other.model.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.model.state_dict().items())


def front_matter(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_a_folder_gives_back_the_model(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "shared")
    back = cdt.Checkpoint.from_pretrained(folder)
    assert same(model, back) and back.header() == model.header()
    assert {path.name for path in folder.iterdir()} >= {"README.md", "checkpoint.json"}


def test_what_training_left_stays_at_home(model, tmp_path):
    trained = replace(model, training={"optimizer.step": torch.ones(1)})
    trained.save_pretrained(tmp_path)
    assert cdt.Checkpoint.load(tmp_path, resume=True).training == {}
    assert trained.training, "the model in hand goes on training"


def test_a_repository_gives_back_the_model(model, hub, tmp_path):
    model.save_pretrained(tmp_path / "shared", half=True, repository="someone/a-model")
    (tmp_path / "shared" / "diary.txt").write_text("private", encoding="utf-8")
    back = cdt.Checkpoint.from_pretrained("someone/a-model", revision="v1")
    assert same(model, back)
    assert hub.asked == [("create_repo", "someone/a-model", True), ("snapshot_download", "someone/a-model", "v1")]


def test_a_folder_of_that_name_comes_first(model, hub, tmp_path):
    model.save_pretrained(tmp_path / "someone" / "a-model")
    assert same(model, cdt.Checkpoint.from_pretrained("someone/a-model")) and not hub.asked


def test_only_the_models_own_files_are_put_there(model, hub, tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "diary.txt").write_text("private", encoding="utf-8")
    model.save_pretrained(folder, repository="someone/a-model")
    there = sorted(path.name for path in (tmp_path / "hub" / "someone" / "a-model").iterdir())
    assert there[:2] == ["README.md", "checkpoint.json"] and there[2].startswith("weights-") and len(there) == 3
    assert len(FILES) == 3


@pytest.mark.parametrize(("call", "said"), [
    (lambda m: cdt.Checkpoint.from_pretrained("someone/none"), "the Hub refused snapshot_download .*404: someone/none"),
    (lambda m: cdt.Checkpoint.from_pretrained("nowhere"), "no checkpoint in nowhere"),
    (lambda m: cdt.Checkpoint.from_pretrained("../a/b"), "no checkpoint in ../a/b"),
    (lambda m: cdt.Checkpoint.from_pretrained(CAPSULE, revision="v1"), "revision 'v1' is one of a repository"),
    (lambda m: m.save_pretrained("shared", repository="https://a.b/c/d"), "a repository is named OWNER/NAME, not"),
    (lambda m: m.save_pretrained("shared", results="none.json"), "none.json holds no results"),
])
def test_errors_say_what_to_do(model, hub, tmp_path, call, said):
    with pytest.raises(cdt.CDTError, match=said):
        call(model)
    assert not (tmp_path / "shared").exists(), "refused before anything was written"


class ConnectError(Exception):
    """As httpx has it, which the Hub's package lets through: no OSError."""


def test_a_network_that_is_gone_is_one_line(model, hub, monkeypatch, tmp_path):
    def gone(*_, **__):
        raise ConnectError("Name or service not known")

    monkeypatch.setattr(hub, "create_repo", gone)
    with pytest.raises(cdt.CDTError, match=r"the Hub refused create_repo \(ConnectError: Name or service"):
        model.save_pretrained(tmp_path / "shared", repository="someone/a-model")


def test_without_the_package_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # an import of it fails
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cdt.CDTError, match=r"huggingface_hub is not installed: pip install 'cdt-lite\[hub\]'"):
        cdt.Checkpoint.from_pretrained("someone/a-model")


def test_the_card_tells_data_licence_and_limits(model, tmp_path):
    front, body = front_matter(model.save_pretrained(tmp_path, licence="cc-by-4.0"))
    assert front["license"] == "cc-by-4.0" and front["library_name"] == "cdt-lite"
    assert "- licence: MIT" in body and "doi:10.1038/s41588-021-00778-2" in body
    assert "- never seen (unseen targets): IRF1, JAK2, SMAD4, STAT1" in body
    assert model.card["limits"] in body and "None are recorded for exactly these weights." in body


def test_the_card_of_a_capsule_holds_its_own_scores(model, tmp_path):
    _, body = front_matter(model.save_pretrained(tmp_path, half=True, results=RESULTS))
    entry = json.loads(RESULTS.read_text(encoding="utf-8"))["papalexi2021"]
    for task, found in entry["tasks"].items():
        table = body.partition(f"### {task}\n")[2].partition("\n#")[0].splitlines()
        for name, scores in found["groups"]["all"]["summary"].items():
            assert f"{scores['mae'][0]:.3f}" in next(line for line in table if line.startswith(f"| {name} "))
    assert f"Made by `{entry['command']}`." in body and body.count("Made by `") == 1
    assert not re.search(r"\bnan\b", body)


def test_weights_that_were_changed_have_no_scores(tmp_path):
    changed = cdt.Checkpoint.load(CAPSULE)
    with torch.no_grad():
        next(changed.model.parameters()).add_(1.0)
    _, body = front_matter(changed.save_pretrained(tmp_path, half=True, results=RESULTS))
    assert "None are recorded for exactly these weights." in body and "mae" not in body


def test_a_model_of_ones_own_says_what_is_not_recorded(tmp_path):
    screen = cdt.simulate_screen(n_genes=64, n_targets=8, n_cells=300)
    fresh = cdt.start(cdt.PRESETS["lite"], screen)
    _, body = front_matter(fresh.save_pretrained(tmp_path))
    assert "not recorded, a file of its owner" in body and "## Limits\n\nNot recorded: judge it" in body
