#!/usr/bin/env python3
"""The two commands of CDT-lite, and two helpers. Needs Python 3.11 or newer and nothing else.

python3 run.py              make the environment, run notebooks 00 to 06 into output/, draw the figures there
python3 run.py test         make the environment, run the linters, the unit tests and every notebook
python3 run.py lab          make the environment, start JupyterLab
python3 run.py setup        make the environment only

Arguments after `test` go to pytest, which then runs alone: python3 run.py test -k tokenizer
Arguments after `lab` go to JupyterLab: python3 run.py lab --no-browser

Environment variables:
  CDT_VENV           where the environment lives (default: .venv beside this file)
  CDT_PROFILE        size of the runs: ci, laptop or gpu
  CDT_TORCH=default  take the build of torch that pip takes, even if that is a CUDA build
  CDT_LITE_MIRROR    a folder that holds the public screen's file
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

PROFILES = ("ci", "laptop", "gpu")


def python_refusal(version: tuple, oldest: tuple = (3, 11)) -> str:
    """Says why this Python is too old, or returns an empty text if it is not."""
    if tuple(version[:2]) >= oldest:
        return ""
    found, needed = (".".join(str(part) for part in pair[:2]) for pair in (version, oldest))
    return f"needs Python {needed} or newer, and this is {found}. Try: python{needed} run.py"


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads the command line; what is not ours goes on to pytest or JupyterLab."""
    parser = argparse.ArgumentParser(
        prog="run.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = ["notebooks", "test", "lab", "setup"]
    parser.add_argument("command", nargs="?", default="notebooks", choices=commands)
    parser.add_argument("--profile", choices=PROFILES, help="size of the runs (default: laptop; test: ci)")
    parser.add_argument("--only", default="", metavar="03", help="run the notebooks whose names begin so")
    parser.add_argument("--write", action="store_true", help="maintainers: write into the tracked files")
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in ("test", "lab"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    return options, rest


def run_tests(python: str, arguments: list[str], variables: dict[str, str], root: str) -> int:
    """Runs linters, unit tests and notebooks, each even if another failed; says at the end what failed."""
    steps = [
        ["ruff", "check", "."],
        ["mypy"],
        ["pytest", "--durations=8"],
        ["pytest", "--durations=8", "--nbmake", "--nbmake-timeout=300", "notebooks"],
    ]
    failed = []
    for step in [["pytest", *arguments]] if arguments else steps:
        print("\n$", *step, flush=True)
        if subprocess.call([python, "-m", *step], cwd=root, env=variables):
            failed.append(" ".join(step))
    print("\nrun.py test:", "failed: " + "; ".join(failed) if failed else "all passed", flush=True)
    return 1 if failed else 0


def run_lab(python: str, arguments: list[str], variables: dict[str, str], root: str) -> int:
    """Starts JupyterLab on the executed notebooks if there are any, else on the tracked ones."""
    output = os.path.join(root, "output")
    names = os.listdir(output) if os.path.isdir(output) else []
    page = min((f"output/{name}" for name in names if name.endswith(".ipynb")), default="notebooks")
    command = [f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/lab/tree/{page}", *arguments]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    return subprocess.call([python, "-m", "jupyterlab", *command], cwd=root, env=variables)


def main(arguments: list[str]) -> int:
    """Makes the environment, then does what was asked; returns the exit status."""
    refused = python_refusal(sys.version_info)
    if refused:
        sys.exit(f"run.py: {refused}")
    from tools import environment  # needs the newer Python that was just checked for

    options, rest = parse(arguments)
    python, root = environment.set_up(), str(environment.ROOT)
    default = "ci" if options.command == "test" else "laptop"
    profile = options.profile or os.environ.get("CDT_PROFILE") or default
    variables = environment.child_variables(python, profile)
    if options.command == "test":
        return run_tests(str(python), rest, variables, root)
    if options.command == "lab":
        return run_lab(str(python), rest, variables, root)
    if options.command == "setup":
        print(f"The environment is ready: {python}")
        return 0
    command = [str(python), os.path.join(root, "tools", "execute.py"), f"--only={options.only}"]
    return subprocess.call(command + ["--write"] * options.write, cwd=root, env=variables)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("\nrun.py: stopped")
