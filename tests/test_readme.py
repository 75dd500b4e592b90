"""What the README shows must run, and what it names must be there."""

import json
import re
from pathlib import Path

from cdt_lite import figures
from tools.pages import front_picture

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
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_notebooks_are_listed_in_order():
    listed = re.findall(r"\(notebooks/(\d\d)_\w+\.ipynb\)", README)
    assert listed == [f"{i:02d}" for i in range(len(listed))]
    assert listed == [p.name[:2] for p in sorted((ROOT / "notebooks").glob("*.ipynb"))]


def test_it_lists_every_command():
    from cdt_lite.cli import parser

    for name in parser()._subparsers._group_actions[0].choices:
        assert re.search(rf"\b{name}\b", README), name


def test_its_picture_is_that_of_notebook_00():
    assert (ROOT / "figures" / "knockout.png").read_bytes() == front_picture()


def test_its_minutes_and_gigabytes_are_those_of_the_title_cards():
    names = re.findall(r"\(notebooks/(\d\d_\w+\.ipynb)\)", README)
    cards = [(ROOT / "notebooks" / name).read_text(encoding="utf-8") for name in names]
    rows = [re.search(r"\| laptop \| (\d+) s \| ([\d.]+) GB", card) for card in cards]
    seconds, gigabytes = [int(row[1]) for row in rows], [float(row[2]) for row in rows]
    (minutes,) = re.findall(r"\| all notebooks \| (\d+) and a half minutes", README)
    assert abs(sum(seconds) / 60 - int(minutes) - 0.5) <= 0.5
    assert f"{max(gigabytes[:9]):.1f} GB" in README and f"{gigabytes[9]:.1f}" in README
    (megabytes,) = {re.search(r"([\d.]+ MB), once", card)[1] for card in cards}
    assert f"{megabytes}, once" in README


def test_its_parameters_are_counted():
    told = figures.account("v1")
    text = json.dumps(told)
    for number in ("24,752,265", "27,374,473"):
        assert number in README and number.replace(",", "") in text


def test_it_is_short():
    assert README.count("\n") <= 150
