"""The benchmark of peers keeps what was reached, whatever fails later; its page is the rendered file."""

import json
from pathlib import Path

import pytest

from benchmarks import peers
from cdt_lite.data.simulate import simulate_screen

FOLDER = Path(peers.__file__).parent


def test_the_committed_page_is_what_the_file_says():
    table = json.loads((FOLDER / "peers.json").read_text(encoding="utf-8"))
    assert (FOLDER / "peers.md").read_text(encoding="utf-8") == peers.as_table(table)


@pytest.mark.parametrize("install", [False, True])
def test_a_failure_stands_beside_what_was_reached_before(tmp_path, monkeypatch, install):
    def fail(*_):
        raise RuntimeError("no wheel for this machine")

    path = tmp_path / "peers.json"
    path.write_text(json.dumps({"scgen": {"train": {"seconds": 7}}}))
    monkeypatch.setenv("PEERS_JSON", str(path))
    monkeypatch.setattr(peers, "OUT", tmp_path / "out")
    monkeypatch.setattr(peers, "load_screen", lambda name: simulate_screen(n_genes=32, n_targets=4, n_cells=200))
    for name in ("install", "run_scgen", "run_state"):
        monkeypatch.setattr(peers, name, fail)
    monkeypatch.setattr("sys.argv", ["peers.py", *["--install"] * install, "scgen", "state"])
    assert peers.main() == 0
    table = json.loads(path.read_text(encoding="utf-8"))
    assert table["scgen"]["train"] == {"seconds": 7} and "no wheel" in table["scgen"]["failed"]
    assert table["state"]["failed"] == "no wheel for this machine"
    assert "no wheel" in path.with_suffix(".md").read_text(encoding="utf-8")
