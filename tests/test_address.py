"""The public address is one setting: set, it shows wherever it belongs; empty, no file has a trace of it."""

import importlib.util
import re
import shutil
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from helpers import linter
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("address", ROOT / ".github" / "address.py")
address = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(address)
FILES = sorted({file for file, _ in address.PARTS})
NOTEBOOKS = ["notebooks/00_the_whole_picture.ipynb", "notebooks/03_diffusion.ipynb"]
MADE_UP = "https://github.com/Some-One/cells.2"


@pytest.fixture
def root(tmp_path):
    """The files that show the address, as they are tracked."""
    for name in [*FILES, *NOTEBOOKS]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def set_to(root, value):
    path = root / "pyproject.toml"
    text = re.sub(r'^repository = "[^"]*"', f'repository = "{value}"', path.read_text(encoding="utf-8"), flags=re.M)
    path.write_text(text, encoding="utf-8")
    return address.write(root)


def text_of(root, name):
    return (root / name).read_text(encoding="utf-8")


def test_the_tracked_files_show_what_is_set(root):
    assert address.write(root) == []


def test_set_it_shows_everywhere_and_empty_again_nothing_is_left(root):
    set_to(root, "")
    before = {name: text_of(root, name) for name in [*FILES, *NOTEBOOKS]}
    assert not any("Some-One" in text or "github.com/" in text.replace("github.com/OWNER/NAME", "")
                   for name, text in before.items() if name in FILES)
    assert sorted(set_to(root, MADE_UP)) == sorted([*FILES, *NOTEBOOKS])
    assert all("Some-One/cells.2" in text_of(root, name) for name in [*FILES, *NOTEBOOKS])
    assert address.write(root) == [], "written twice it is the same"
    set_to(root, "")
    assert {name: text_of(root, name) for name in [*FILES, *NOTEBOOKS]} == before


def test_the_readme_has_badges_and_the_lines_that_clone(root):
    set_to(root, MADE_UP)
    readme = text_of(root, "README.md")
    links = re.findall(r"\)\]\((https://[^)]+)\)", readme.partition("<!-- /address -->")[0])
    assert [link.split("/")[2] for link in links] == ["github.com", "colab.research.google.com", "mybinder.org"]
    assert all("Some-One/cells.2/" in link for link in links) and "https://some-one.github.io/cells.2/" in readme
    assert f"-->\n    git clone {MADE_UP}\n    cd cells.2\n<!--" in readme
    assert (ROOT / ".github" / "workflows" / "test.yml").is_file()


def test_what_machines_read_stays_readable(root):
    set_to(root, MADE_UP)
    urls = tomllib.loads(text_of(root, "pyproject.toml"))["project"]["urls"]
    assert urls["Repository"] == MADE_UP and urls["Documentation"] == "https://some-one.github.io/cells.2/"
    assert yaml.safe_load(text_of(root, "CITATION.cff"))["repository-code"] == MADE_UP
    links = yaml.safe_load(text_of(root, ".github/ISSUE_TEMPLATE/config.yml"))["contact_links"]
    assert all({"name", "url", "about"} == set(link) for link in links)
    for schema, name in (("citation-file-format", "CITATION.cff"),
                         ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml")):
        done = linter("check-jsonschema", "--builtin-schema", f"vendor.{schema}", root / name)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_card_opens_its_own_notebook(root):
    set_to(root, MADE_UP)
    for name in NOTEBOOKS:
        card = nbformat.read(root / name, as_version=4).cells[0].source
        assert f"colab.research.google.com/github/Some-One/cells.2/blob/main/{name})" in card
        assert f"mybinder.org/v2/gh/Some-One/cells.2/main?urlpath=lab/tree/{name})" in card
        assert card.count("[![") == 2


def test_the_cell_for_colab_can_be_run(root):
    set_to(root, MADE_UP)
    lines = re.findall(r"^    (.*)$", text_of(root, "workshop/adapt.md").split("On Colab")[1], re.MULTILINE)
    code = TransformerManager().transform_cell("\n".join(lines))
    compile(code, "Colab", "exec")
    (extra,) = re.findall(r'"\./cdt\[(\w+)\]"', code)
    assert extra in tomllib.loads(text_of(root, "pyproject.toml"))["project"]["optional-dependencies"]
    assert f"git clone --quiet {MADE_UP} cdt" in code


@pytest.mark.parametrize("value", ["github.com/a/b", "https://example.org/a/b", "https://github.com/a", "a/b"])
def test_another_kind_of_address_is_refused_and_nothing_is_written(root, value):
    before = text_of(root, "README.md")
    with pytest.raises(ValueError, match="repository must be empty or such as"):
        set_to(root, value)
    assert text_of(root, "README.md") == before


def test_a_file_that_lost_its_marks_is_told(root):
    (root / "README.md").write_text("# a page", encoding="utf-8")
    with pytest.raises(ValueError, match=r"'address' stand there 0 times"):
        set_to(root, MADE_UP)
