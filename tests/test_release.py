"""One version, named in one place and repeated truly; notes cut from the changelog; a wheel that says the same."""

import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

import cdt_lite

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("release", ROOT / ".github" / "release.py")
release = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(release)
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
ZENODO = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

CHANGELOG = """# Changelog

## 1.1.0 (2027-01-31): a better house

- New.

  Of two paragraphs.

## 1.0.0 (unreleased)

- First.
"""


def test_every_file_names_the_version_of_the_package():
    assert set(release.versions().values()) == {cdt_lite.__version__}
    assert "version" not in PROJECT and PROJECT["dynamic"] == ["version"]


def test_the_page_to_cite_from_names_it_too():
    page = (ROOT / "workshop" / "adapt.md").read_text(encoding="utf-8")
    assert f"Version {cdt_lite.__version__}." in page


def test_citation_and_zenodo_say_the_same():
    assert ZENODO["title"] == CITATION["title"]
    assert ZENODO["description"] == CITATION["abstract"]
    assert ZENODO["license"] == CITATION["license"] == PROJECT["license"]
    assert ZENODO["keywords"] == CITATION["keywords"] == PROJECT["keywords"]
    names = [author["name"] for author in CITATION["authors"]]
    assert [creator["name"] for creator in ZENODO["creators"]] == names == [a["name"] for a in PROJECT["authors"]]


def test_this_version_has_notes():
    notes = release.main()
    assert notes.startswith("#") and "\n## " not in notes and len(notes) > 200


def test_a_section_is_cut_where_the_next_begins():
    assert release.section(CHANGELOG, "1.1.0") == ("2027-01-31", "# A better house\n\n- New.\n\n  Of two paragraphs.\n")
    assert release.section(CHANGELOG, "1.0.0") == ("unreleased", "- First.\n")
    with pytest.raises(ValueError, match=r"no section of 1\.1"):
        release.section(CHANGELOG, "1.1")


@pytest.fixture
def root(tmp_path):
    """A repository that is ready for the tag v1.1.0."""
    (tmp_path / "cdt_lite").mkdir()
    (tmp_path / "cdt_lite" / "__init__.py").write_text('"""A."""\n\n__version__ = "1.1.0"\n', encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    (tmp_path / "CITATION.cff").write_text("date-released: 2027-01-31\nversion: 1.1.0\n", encoding="utf-8")
    (tmp_path / ".zenodo.json").write_text('{"version": "1.1.0"}', encoding="utf-8")
    return tmp_path


def test_a_tag_that_all_agree_with_gives_the_notes(root):
    assert release.main("v1.1.0", root).startswith("# A better house")


@pytest.mark.parametrize(("name", "before", "after", "said"), [
    ("cdt_lite/__init__.py", "1.1.0", "1.0.0", "another version"),
    ("CHANGELOG.md", "## 1.1.0", "## 1.2.0 (unreleased)\n\n## 1.1.0", "CHANGELOG.md"),
    ("CHANGELOG.md", "2027-01-31", "unreleased", "must both give the day"),
    ("CITATION.cff", "2027-01-31", "2026-01-31", "must both give the day"),
    ("CITATION.cff", "version: 1.1.0", "version: 1.0.0", "CITATION.cff"),
    (".zenodo.json", "1.1.0", "1.0.0", "zenodo"),
])
def test_a_tag_is_refused_where_one_disagrees(root, name, before, after, said):
    path = root / name
    path.write_text(path.read_text(encoding="utf-8").replace(before, after, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        release.main("v1.1.0", root)


def test_the_notes_need_nothing_that_is_not_pythons(root):
    """The workflow prints them before anything is installed."""
    (root / ".github").mkdir()
    shutil.copy(ROOT / ".github" / "release.py", root / ".github")
    command = [sys.executable, "-S", "-I", str(root / ".github" / "release.py")]
    said = subprocess.run([*command, "v1.1.0"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("# A better house")
    refused = subprocess.run([*command, "v1.0.0"], capture_output=True, text=True)
    assert refused.returncode == 1 and refused.stderr.startswith("release.py: the tag is v1.0.0")


def test_the_source_holds_the_whole_package_and_no_part_of_the_tests(tmp_path):
    """Else setuptools takes tests/test_*.py along without what they import."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "cdt_lite", source / "cdt_lite", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "tests").mkdir()
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "LICENSE-TEXT", "CHANGELOG.md",
                 "CITATION.cff", "tests/test_release.py"):
        shutil.copy(ROOT / name, source / name)
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=source, check=True, capture_output=True)
    with tarfile.open(tmp_path / f"cdt_lite-{cdt_lite.__version__}.tar.gz") as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    package = [path for path in (source / "cdt_lite").rglob("*") if path.is_file()]
    assert {path.relative_to(source).as_posix() for path in package} <= held
    assert {"LICENSE", "LICENSE-TEXT", "CITATION.cff"} <= held
    assert not [name for name in held if name.startswith(("tests", "tools", "notebooks"))]
