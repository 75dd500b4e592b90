"""What the README shows must run, and what it names must be there."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_and_stays_short(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    exec(compile(example, "README example", "exec"), {})
    out = capsys.readouterr().out
    assert "pearson_delta" in out and "perturbed mean" in out
    assert (tmp_path / "output/example/checkpoint.json").is_file()


def test_every_file_it_links_to_is_there():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_notebooks_are_listed_in_order():
    listed = re.findall(r"\(notebooks/(\d\d)_\w+\.ipynb\)", README)
    assert listed == [f"{i:02d}" for i in range(9)]
    assert listed == [p.name[:2] for p in sorted((ROOT / "notebooks").glob("*.ipynb"))]


def test_it_lists_every_command():
    from cdt_lite.cli import parser

    for name in parser()._subparsers._group_actions[0].choices:
        assert re.search(rf"\b{name}\b", README), name


def told(value):
    """As the README writes a number: .040, and .42 where two digits are enough."""
    return f"{value:.3f}".lstrip("0")


def test_contexts_pairs_and_densities_are_those_of_the_records():
    results = json.loads((ROOT / "figures" / "results.json").read_text(encoding="utf-8"))
    text = " ".join(README.split())

    def scores(screen, task):
        (entry,) = (value for name, value in results.items() if name.startswith(screen))
        (found,) = (value for name, value in entry["tasks"].items() if name.startswith(task))
        return found["groups"]["all"]["summary"]

    cells, pairs = scores("simulated, an unseen cell type", "task 5"), scores("simulated, pairs", "task 3")
    carried, added = cells["replicate mean"], pairs["additive"]
    ours, paired = cells["contexts, change"], pairs["pairs, change"]
    errors = told(ours["mae"][0]), told(carried["mae"][0])
    assert "error is {}, that of effects carried over from other types {}".format(*errors) in text
    assert f"(Pearson {ours['pearson_delta'][0]:.2f} and {carried['pearson_delta'][0]:.2f})".replace("0.", ".") in text
    assert f"the error is {told(paired['mae'][0])}; that of the sum of both" in text
    assert f'("additive") {told(added["mae"][0])}' in text
    both = added["pearson_delta"][0], paired["pearson_delta"][0]
    assert "(Pearson {:.2f} against {:.2f}, ten pairs)".format(*both).replace("0.", ".") in text
    record = json.loads((ROOT / "benchmarks" / "densities.json").read_text(encoding="utf-8"))
    for row in record["table"]:
        assert told(row["nats_per_gene"]) in text, row["density"]
