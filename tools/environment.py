"""The virtual environment that run.py keeps: made once, torch first, remembered by a stamp.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import collections
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
EXTRAS = "notebooks,figures,test"
# PyTorch's own address for builds without CUDA: 190 MB instead of several GB on a Linux machine with no GPU.
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE_SECONDS = 3


def stop(message: str) -> NoReturn:
    """Ends the run with one clear message and exit status 1."""
    sys.exit(f"run.py: {message}")


def answers(command: list[str]) -> bool:
    """Runs a command silently and says whether it succeeded."""
    try:
        return subprocess.run(command, capture_output=True, cwd=ROOT).returncode == 0
    except OSError:
        return False


def have(name: str) -> bool:
    """Says whether a command is on the path, or a module (ensurepip, virtualenv) can be imported."""
    if name in ("ensurepip", "virtualenv"):
        return importlib.util.find_spec(name) is not None
    return shutil.which(name) is not None


# ---------------------------------------------------------------------------------- the virtual environment


def venv_folder() -> Path:
    """The folder of the virtual environment: CDT_VENV, or .venv beside run.py."""
    return Path(os.environ.get("CDT_VENV") or ROOT / ".venv").expanduser().absolute()


def venv_python(folder: Path, system: str = "") -> Path:
    """The environment's own Python, which stands elsewhere on Windows."""
    windows = (system or platform.system()) == "Windows"
    return folder / ("Scripts/python.exe" if windows else "bin/python")


def venv_recipes(folder: Path, root: bool, have) -> list[tuple[str, list[list[str]]]]:
    """The ways to make a virtual environment here, best first, each a name and the commands that do it.

    A bare Debian or Ubuntu keeps venv's second half (ensurepip) in a package of its own.

    Args:
        folder: where the environment is to be.
        root: whether packages of the system may be installed.
        have: a function that says whether a command or module is at hand.
    """
    python, version = sys.executable, "{}.{}".format(*sys.version_info[:2])
    venv = [python, "-m", "venv", "--clear", str(folder)]
    recipes = []
    if have("ensurepip"):
        recipes.append(("venv", [venv]))
    elif root and have("apt-get"):
        install = ["apt-get", "install", "-y", f"python{version}-venv"]
        recipes.append((" ".join(install), [["apt-get", "update"], install, venv]))
    if have("virtualenv"):
        recipes.append(("virtualenv", [[python, "-m", "virtualenv", "--clear", str(folder)]]))
    if have("uv"):
        recipes.append(("uv", [["uv", "venv", "--clear", "--seed", "--python", python, str(folder)]]))
    return recipes


def make_venv(folder: Path) -> Path:
    """Makes the virtual environment, unless a working one is there, and returns its Python."""
    python = venv_python(folder)
    if answers([str(python), "-c", f"import sys, pip; sys.exit(sys.version_info < {OLDEST_PYTHON})"]):
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        stop(f"{folder} is there and is not a virtual environment: name another folder with CDT_VENV")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    for name, commands in venv_recipes(folder, root, have):
        print(f"  a virtual environment in {folder} ({name})", flush=True)
        if all(answers(command) for command in commands) and answers([str(python), "-m", "pip", "--version"]):
            return python
    package = "python{}.{}-venv".format(*sys.version_info[:2])
    stop(
        f"this Python cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install {package}; "
        "elsewhere: install virtualenv or uv. Then run this command again"
    )


def pip(python: Path, *arguments: str) -> str:
    """Runs pip, showing its latest line meanwhile; returns its last lines if it failed, else nothing."""
    command = [str(python), "-m", "pip", *arguments, "--no-input", "--disable-pip-version-check"]
    last: collections.deque[str] = collections.deque(["pip failed"], maxlen=12)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, text=True, errors="replace"
    )
    for line in process.stdout or ():
        last.append(line.rstrip())
        if sys.stdout.isatty():
            print(f"\r    {last[-1].strip()[:72]:<72}", end="", flush=True)
    if sys.stdout.isatty():
        print(f"\r{'':<76}\r", end="", flush=True)
    return "\n".join(last) if process.wait() else ""


def use_wheels(folder: str) -> None:
    """Makes every pip that is called from here install from one folder of wheels and ask no network.

    Args:
        folder: What `run.py wheels` made (CDT_WHEELS, or --wheels); empty: pip goes where it always goes.
    """
    if not folder:
        return
    path = Path(folder).expanduser().absolute()
    if not any(path.glob("*.whl")):
        stop(f"{path} holds no wheels: make them on a machine with a network, with python3 run.py wheels")
    os.environ.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=path.as_uri() if " " in str(path) else str(path))
    if any(path.glob("*.rda")):  # the real screen's file lies there too
        os.environ.setdefault("CDT_LITE_MIRROR", str(path))


def kind() -> str:
    """This system and this Python: what wheels must fit."""
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"


def made_for() -> str:
    """Says what a folder of wheels in use was made for, where that is something else than this machine."""
    note = Path(os.environ.get("PIP_FIND_LINKS", "")) / "MADE_FOR.txt"
    made = note.read_text(encoding="utf-8").strip() if os.environ.get("PIP_NO_INDEX") and note.is_file() else ""
    return f": the wheels are made for {made}, and this is {kind()}" if made not in ("", kind()) else ""


# ------------------------------------------------------------------------------------------------- torch


def index_answers(url: str = TORCH_CPU_INDEX, seconds: float = PROBE_SECONDS) -> bool:
    """Asks once whether an index can be reached: pip would try again for minutes."""
    try:
        with urllib.request.urlopen(f"{url}/torch/", timeout=seconds) as reply:
            return reply.status == 200
    except (OSError, ValueError):
        return False


def local_torch(version: str, configuration: str) -> bool:
    """Says whether a folder of wheels that pip looks in holds this torch's CPU build for this Python.

    Args:
        version: the release of torch.
        configuration: what `pip config list` prints; it includes pip's environment variables.
    """
    listed = re.findall(r"find-links=['\"]?([^'\"\n]+)", configuration)
    folders = " ".join(listed).replace("\\n", " ").replace("file://", "").split()
    wheel = "torch-{}+cpu-cp{}{}-*.whl".format(version, *sys.version_info[:2])
    return any(any(Path(folder).glob(wheel)) for folder in folders)


def torch_arguments(version: str, system: str, nvidia: bool, choice: str, local, reachable) -> list[str]:
    """What to tell pip so that a Linux machine without an NVIDIA driver never downloads CUDA.

    The CPU builds carry "+cpu" in their version, which no build on the ordinary index does: asked for by that
    name, pip finds the right one or nothing. macOS and Windows get a CPU build by the plain name.

    Args:
        version: the release of torch, e.g. "2.13.0".
        system: platform.system() of this machine.
        nvidia: whether an NVIDIA driver is there.
        choice: CDT_TORCH; "default" takes what pip takes.
        local: a function that says whether a local folder holds the wheel.
        reachable: a function that says whether PyTorch's own index answers.
    """
    if system != "Linux" or nvidia or choice == "default":
        return [f"torch=={version}"]
    wanted = f"torch=={version}+cpu"
    if not local() and reachable():
        return [wanted, "--extra-index-url", TORCH_CPU_INDEX]
    return [wanted]


def wanted_torch(python: Path, cpu: bool = False) -> tuple[str, list[str]]:
    """Returns the release of torch that constraints.txt names, and what to tell pip to get the build that fits.

    Args:
        python: The environment's Python.
        cpu: Whether the CPU build is wanted even where an NVIDIA driver is found (as in a room's wheel folder).
    """
    match = re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    version = match[1] if match else stop("constraints.txt names no torch")
    command = [str(python), "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    nvidia = not cpu and (have("nvidia-smi") or Path("/proc/driver/nvidia/version").exists())
    choice = os.environ.get("CDT_TORCH", "")
    return version, torch_arguments(
        version, platform.system(), nvidia, choice, lambda: local_torch(version, listed), index_answers
    )


def install_torch(python: Path) -> None:
    """Installs the release of torch that constraints.txt names, unless the environment has it."""
    version, arguments = wanted_torch(python)
    found = f"from importlib.metadata import version as v; assert v('torch').split('+')[0] == '{version}'"
    if answers([str(python), "-c", found]):
        return
    print(f"  {arguments[0]}", flush=True)
    problem = pip(python, "install", *arguments)
    if problem and arguments[0].endswith("+cpu"):
        stop(
            f"pip did not get the CPU build of torch {version}, and the CUDA build (several GB) is not taken "
            f"unasked. Either let this machine reach {TORCH_CPU_INDEX}, or name a folder that holds the "
            "wheel with PIP_FIND_LINKS, or accept the CUDA build with CDT_TORCH=default. pip's last lines:\n" + problem
        )
    if problem:
        stop(
            "pip could not install torch, which is built for Linux, Windows and Macs with Apple silicon (macOS "
            f"14 and later). Its last lines:\n{problem}"
        )


# ----------------------------------------------------------------------------------------- the whole set-up


def stamp(root: Path = ROOT) -> str:
    """A fingerprint of everything the environment is made from; where it changed, install again."""
    parts = [(root / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    parts += [text.encode() for text in (EXTRAS, sys.version, platform.machine(), str(root))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def set_up() -> Path:
    """Makes the environment if it is not there or no longer fits, and returns its Python."""
    folder = venv_folder()
    python, mark = venv_python(folder), folder / "cdt-lite.stamp"
    if python.exists() and mark.exists() and mark.read_text(encoding="utf-8") == stamp():
        return python
    print("Making the environment; the first time takes a few minutes.", flush=True)
    begin = time.monotonic()
    python = make_venv(folder)
    install_torch(python)
    print(f"  cdt-lite[{EXTRAS}]", flush=True)
    problem = pip(python, "install", "-e", f".[{EXTRAS}]", "-c", "constraints.txt")
    if problem:
        stop(f"pip could not install the project{made_for()}. Its last lines:\n{problem}")
    quiet_lab(folder)
    mark.write_text(stamp(), encoding="utf-8")
    print(f"  ready after {time.monotonic() - begin:.0f} s", flush=True)
    return python


def add_extra(python: Path, extra: str) -> None:
    """Installs what one more extra of pyproject.toml names, if it is not there."""
    problem = pip(python, "install", "-e", f".[{EXTRAS},{extra}]", "-c", "constraints.txt")
    if problem:
        stop(f"pip could not install cdt-lite[{extra}]. Its last lines:\n{problem}")


def quiet_lab(folder: Path) -> None:
    """Turns off JupyterLab's question about news and shows text pages as pages, in this environment only."""
    settings = folder / "share/jupyter/lab/settings"
    settings.mkdir(parents=True, exist_ok=True)
    quiet = {
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
        "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
    }
    (settings / "overrides.json").write_text(json.dumps(quiet), encoding="utf-8")


def child_variables(python: Path, profile: str) -> dict[str, str]:
    """The environment variables of every child process: this environment first, no chatter on stderr."""
    variables = dict(os.environ, VIRTUAL_ENV=str(python.parent.parent), CDT_PROFILE=profile)
    variables["PATH"] = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    variables.update(PYTHONUTF8="1", JUPYTER_PLATFORM_DIRS="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    variables.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin slow tiny steps on busy cores
    variables.pop("PYTHONHOME", None)
    return variables
