"""Installed from a wheel it works as well: five commands from an empty folder, with no checkout in sight."""

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("pyproject.toml", "README.md", "LICENSE", "LICENSE-TEXT")
SMALL = ["--screen", "simulated", "--simulated", "n_genes=64", "n_targets=8", "n_cells=900"]


def run(*words, **options):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, encoding="utf-8", **options)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: setuptools leaves a folder `build` behind."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    shutil.copytree(ROOT / "cdt_lite", source / "cdt_lite", ignore=shutil.ignore_patterns("__pycache__"))
    for name in SHIPPED:
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", made, source)
    return next(made.glob("*.whl"))


class Installed:
    """An environment that holds the wheel and, by a path alone, what it depends on; and an empty folder to work in."""

    def __init__(self, wheel, folder):
        self.site, self.work, self.home = folder / "site", folder / "empty", folder / "home"
        self.work.mkdir(parents=True)
        self.home.mkdir()
        with ZipFile(wheel) as archive:
            archive.extractall(self.site)
        for path in [self.site, *self.site.rglob("*")]:  # as an administrator's installation is
            path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
        # no pth file of the other folder is read, so its link to the checkout stays out
        paths = [str(self.site), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        self.start = f"import sys; sys.path[1:1] = {paths!r}; from cdt_lite.cli import main; sys.exit(main())"
        own = {"HOME": str(self.home), "USERPROFILE": str(self.home), "CDT_LITE_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self.variables = {**os.environ, **own, "PATH": sysconfig.get_path("scripts"), "PYTHONDONTWRITEBYTECODE": "1"}
        for name in ("PYTHONPATH", "CDT_LITE_DATA", "CDT_LITE_MIRROR", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
            self.variables.pop(name, None)

    def __call__(self, *words):
        """Runs `cdt-lite` without the site packages' startup; returns what it printed."""
        done = run(sys.executable, "-S", "-c", self.start, *words, cwd=self.work, env=self.variables, timeout=300)
        assert "Traceback" not in done.stderr and str(ROOT) not in done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    return Installed(wheel, tmp_path_factory.mktemp("installed"))


def test_the_wheel_holds_all_that_is_not_python(wheel):
    held = ZipFile(wheel).namelist()
    for path in (ROOT / "cdt_lite").rglob("*"):
        if path.is_file() and path.suffix not in (".pyc", ".py"):
            assert path.relative_to(ROOT).as_posix() in held, f"pyproject.toml's package-data lacks {path.name}"
    assert not [name for name in held if name.startswith(("tests", "tools", "benchmarks"))]
    assert "[console_scripts]\ncdt-lite = cdt_lite.cli:main" in _text(wheel, "entry_points.txt")


def _text(wheel, name):
    with ZipFile(wheel) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith(name))).decode()


def test_account(installed):
    assert "24,752,265" in installed("account", "--preset", "v1")


def test_doctor_finds_the_capsules(installed):
    said = installed("doctor")
    assert said.splitlines()[0] == f"installed in {installed.site / 'cdt_lite'}"
    assert "capsules: lite-papalexi2021, lite-simulated" in said
    assert said.splitlines()[-1] == "ready for the notebooks"


def test_cells_are_predicted_from_the_shipped_model(installed):
    import anndata

    model = installed.site / "cdt_lite" / "capsules" / "lite-simulated"
    asked = ["--target", "SIM00014", "--cells", "16", "--sampling-steps", "4"]
    installed("predict", "--checkpoint", model, "--screen", "simulated", *asked)
    assert anndata.read_h5ad(installed.work / "predicted.h5ad").shape == (16, 256)


def test_a_model_that_is_made_goes_to_the_users_folder_and_is_judged(installed):
    steps = ["--pretrain-steps", "2", "--finetune-steps", "2"]
    said = installed("capsule", *SMALL, *steps)
    assert str(installed.home) in said
    said = installed("evaluate", "--tasks", *SMALL, "--seeds", "1", "--cells", "4")
    assert "simulated" in said and (installed.work / "output" / "results.json").is_file()


def test_figures_are_drawn(installed):
    installed("figures", "--preset", "lite", "--screen", "simulated")
    drawn = {path.name for path in (installed.work / "figures").iterdir()}
    assert {"README.md", "architecture_overview.svg", "denoising.gif"} <= drawn
