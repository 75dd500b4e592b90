"""The environment that run.py keeps, remembered by a stamp; folders of wheels. Needs nothing that is not Python's."""

import collections
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
EXTRAS = "notebooks,figures,test"
MADE_FROM = ("pyproject.toml", "constraints.txt", "cdt_lite/__init__.py")  # the last holds the version
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own, without CUDA: 190 MB, not several GB
NVIDIA = Path("/proc/driver/nvidia/version")  # there where the driver is
SEEDS = ("pip", "setuptools>=77", "wheel")  # what building the project itself asks for


def stop(message: str) -> NoReturn:
    """Ends the run with one clear message and exit status 1."""
    sys.exit(f"run.py: {message}")


def fault(*command: str) -> str:
    """Runs a command, showing its latest line on a terminal; returns its last lines if it failed, else nothing."""
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, text=True, errors="replace"
        )
    except OSError as error:
        return str(error)
    last: collections.deque[str] = collections.deque([f"{command[0]} failed"], maxlen=12)
    for line in process.stdout or ():
        last.append(line.rstrip())
        if sys.stdout.isatty():
            print(f"\r    {last[-1].strip()[:72]:<72}\r", end="", flush=True)
    problem = "\n".join(last) if process.wait() else ""
    if re.search("No space left|not enough space", problem):
        stop(f"the disk is full: make room, or name a folder on another one with CDT_VENV. The last lines:\n{problem}")
    return problem


def pip(python: Path, *words: str) -> str:
    """Runs the environment's pip; returns its last lines if it failed, else nothing."""
    return fault(str(python), "-m", "pip", *words, "--no-input", "--disable-pip-version-check")


def venv_python(folder: Path, system: str = platform.system()) -> Path:
    """The environment's own Python, which stands elsewhere on Windows."""
    return folder / ("Scripts/python.exe" if system == "Windows" else "bin/python")


def make_venv(folder: Path, fresh: bool = False) -> Path:
    """Makes the virtual environment, unless a working one is there and need not be `fresh`; returns its Python."""
    python, own = venv_python(folder), sys.executable
    works = [str(python), "-c", f"import sys, pip; sys.exit(sys.version_info < {OLDEST_PYTHON})"]
    if not fresh and not fault(*works):
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        stop(f"{folder} is there and is not a virtual environment: name another folder with CDT_VENV")
    print(f"  a virtual environment in {folder}", flush=True)
    problems = ""
    for maker in (["uv", "venv", "--seed", "--python", own], [own, "-m", "venv"], [own, "-m", "virtualenv"]):
        problem = fault(*maker, "--clear", str(folder)) or fault(*works)
        if not problem:
            return python
        problems += f"\n{' '.join(maker)}: {problem}"
    stop(
        "this Python cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install python{}.{}-venv; "
        "elsewhere: install virtualenv or uv. Then run this command again.{}".format(*sys.version_info[:2], problems)
    )


def pip_with_torch(python: Path, *words: str, cpu: bool = False) -> str:
    """Runs pip for the build of torch that fits (without CUDA if `cpu`) and what else is named, as `pip` does.

    The CPU builds for Linux carry "+cpu" in their version: asked for by that name, pip finds the right one where it
    always looks (a mirror, wheels), or at PyTorch's own index, never CUDA. Others get a CPU build by the plain name.
    """
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    cuda = not cpu and (shutil.which("nvidia-smi") or NVIDIA.exists())
    if cuda or platform.system() != "Linux" or os.environ.get("CDT_TORCH") == "default":
        return pip(python, *words, torch)
    if not pip(python, *words, f"{torch}+cpu"):
        return ""
    return pip(python, *words, f"{torch}+cpu", "--extra-index-url", TORCH_CPU_INDEX)


def install(python: Path, extras: str) -> None:
    """Installs the project: with uv in one go where uv is at hand, else with pip, torch first."""
    project = ["-e", f".[{extras}]", "-c", "constraints.txt"]
    print(f"  torch and cdt-lite[{extras}]", flush=True)
    uv = ["uv", "pip", "install", "--python", str(python), "--torch-backend=auto"]
    for_pip = os.environ.get("PIP_NO_INDEX") or os.environ.get("CDT_TORCH") == "default"  # which uv does not read
    if not for_pip and not fault(*uv, *project):
        return
    if problem := pip_with_torch(python, "install"):
        stop(
            "pip could not install torch (there is none for older Macs). The CUDA build (several GB) is not taken "
            f"unasked: let this machine reach {TORCH_CPU_INDEX}, or name a folder that holds the CPU build with "
            f"PIP_FIND_LINKS, or accept CUDA with CDT_TORCH=default. pip's last lines:\n{problem}"
        )
    if problem := pip(python, "install", *project):
        stop(f"pip could not install the project{made_for()}. Its last lines:\n{problem}")


def stamp(root: Path = ROOT) -> str:
    """A fingerprint of everything the environment is made from; where it changed, install again."""
    files = [(root / name).read_text(encoding="utf-8") for name in MADE_FROM]
    parts = [EXTRAS, sys.version, platform.machine(), str(root), *files]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def installed(folder: Path) -> set[str]:
    """The packages of an environment with their versions, as pip notes them."""
    notes = [*folder.glob("lib/*/site-packages/*.dist-info"), *folder.glob("Lib/site-packages/*.dist-info")]
    return {path.name for path in notes}


def fits(folder: Path) -> bool:
    """Says whether the environment is made from what is here, and has all the packages that it had then."""
    mark = folder / "cdt-lite.stamp"
    made, *packages = mark.read_text(encoding="utf-8").splitlines() if mark.is_file() else [""]
    return venv_python(folder).exists() and made == stamp() and set(packages) <= installed(folder)


def claim(folder: Path) -> None:
    """Ends a run that cannot write where the environment shall be, or that finds another run making it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(2**20))
    except OSError as error:
        stop(f"cannot write into {folder} ({error.strerror}): name another folder with CDT_VENV")
    if os.name == "posix":
        import fcntl

        try:  # until this process ends; the folder above stays, while this one may be made anew
            fcntl.flock(os.open(folder.parent, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stop(f"another run is making {folder}: wait until it is ready, then run this command again")


def set_up(fresh: bool = False) -> Path:
    """Makes the environment if it is not there, no longer fits or lacks a package, and returns its Python."""
    folder = Path(os.environ.get("CDT_VENV") or ROOT / ".venv").expanduser().absolute()
    if fits(folder) and not fresh:
        return venv_python(folder)
    claim(folder)
    print("Making the environment; the first time takes a few minutes.", flush=True)
    begin = time.monotonic()
    python = make_venv(folder, fresh)
    install(python, EXTRAS)
    quiet_lab(folder)
    (folder / "cdt-lite.stamp").write_text("\n".join([stamp(), *installed(folder)]), encoding="utf-8")
    print(f"  ready after {time.monotonic() - begin:.0f} s", flush=True)
    return python


def quiet_lab(folder: Path) -> None:
    """Turns off JupyterLab's question about news and shows text pages as pages, in this environment only."""
    quiet = {
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
        "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
    }
    settings = folder / "share/jupyter/lab/settings/overrides.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(quiet), encoding="utf-8")


def child_variables(python: Path, profile: str) -> dict[str, str]:
    """The environment variables of every child process: this environment first, no chatter on stderr."""
    variables = dict(os.environ, VIRTUAL_ENV=str(python.parent.parent), CDT_PROFILE=profile)
    variables["PATH"] = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    variables.update(PYTHONUTF8="1", JUPYTER_PLATFORM_DIRS="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    if "OMP_WAIT_POLICY" not in variables:  # threads that spin for long make small steps 10 times slower on busy cores
        variables = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"} | variables
    variables.pop("PYTHONHOME", None)
    return variables


def kind() -> str:
    """This system and this Python: what wheels must fit."""
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"


def made_for() -> str:
    """Says what a folder of wheels in use was made for, where that is something else than this machine."""
    note = Path(os.environ.get("CDT_WHEELS", ""), "MADE_FOR.txt")
    made = note.read_text(encoding="utf-8").strip() if note.is_file() else kind()
    return "" if made == kind() else f": the wheels are made for {made}, and this is {kind()}"


def use_wheels(folder: str) -> None:
    """Makes pip install from a folder that `run.py wheels` made and ask no network, if a folder is named."""
    if not folder:
        return
    path = Path(folder).expanduser().absolute()
    if not any(path.glob("*.whl")):
        stop(f"{path} holds no wheels: make them on a machine with a network, with python3 run.py wheels")
    os.environ.update(CDT_WHEELS=str(path), PIP_NO_INDEX="1", PIP_FIND_LINKS=path.as_uri())  # a path may hold blanks
    if any(path.glob("*.rda")):  # the real screen's file lies there too
        os.environ.setdefault("CDT_LITE_MIRROR", str(path))


def fetch_public(folder: Path) -> str:
    """Puts the public files into the folder, from the mirror or the network; returns what happened."""
    manifest = json.loads((ROOT / "cdt_lite" / "data" / "manifest.json").read_text(encoding="utf-8"))
    said = []
    for kind_of_file in manifest.values():
        said += [_fetch(name, entry, folder) for name, entry in kind_of_file.items()]
    return "; ".join(said)


def _fetch(name: str, entry: dict[str, Any], folder: Path) -> str:
    near = Path(os.environ.get("CDT_LITE_MIRROR", "nowhere"), entry["file"]).absolute()
    address = near.as_uri() if near.exists() else entry["url"]
    try:
        content = urllib.request.urlopen(address, timeout=60).read()
    except OSError as error:
        return f"{name} could not be fetched ({error}): the room will do without"
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        return f"{name} at {address} is damaged and was left out: run the command again"
    (folder / entry["file"]).write_bytes(content)
    return f"{name}: {entry['file']}"


def fill_wheels(python: Path, folder: str = "output/wheels") -> int:
    """Fills a folder with all that a laptop of this kind needs without a network, and says how to use it."""
    path = (ROOT / Path(folder).expanduser()).absolute()
    path.mkdir(parents=True, exist_ok=True)
    print(f"Wheels for {kind()}, into {path}", flush=True)
    wanted = ["--dest", str(path), "-c", "constraints.txt", f".[{EXTRAS}]", *SEEDS]
    if problem := pip_with_torch(python, "download", *wanted, cpu=True):
        stop(f"pip could not download everything. Its last lines:\n{problem}")
    for own in path.glob("cdt[_-]lite-*"):  # the project itself comes with its folder
        own.unlink()
    (path / "MADE_FOR.txt").write_text(f"{kind()}\n", encoding="utf-8")
    said = fetch_public(path)
    print(f"{len(list(path.glob('*.whl')))} wheels; {said}")
    print(f"On the laptop, with this project and that folder: python3 run.py lab --wheels {path.name}")
    return 0
