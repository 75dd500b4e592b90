#!/usr/bin/env python3
"""The two commands of CDT-lite, and some helpers. Needs Python 3.11 or newer and nothing else.

python3 run.py              make the environment, run notebooks 00 to 09 into output/, draw the figures there
python3 run.py test         make the environment, run linters, unit tests, every notebook and every workshop copy
python3 run.py lab          make the environment, start JupyterLab at the page that says where to begin
python3 run.py setup        make the environment only

For a workshop, and for maintainers:
python3 run.py copies       write student and instructor copies, slides, schedules, the exercise table
python3 run.py wheels       fill output/wheels with all that a laptop needs without a network
python3 run.py trial        execute the student and instructor copies with no network, or what is named after it
python3 run.py browser      work through the student copies in a real browser, with screenshots
python3 run.py site         build the site into output/site, and follow every link of it

What follows `test` goes to pytest, which then runs alone (test -k tokenizer); what follows `lab`, to JupyterLab.
What follows `trial` names folders or notebooks (trial notebooks); `browser`, copies (browser 00 03).

Environment variables:
  CDT_VENV           where the environment lives (default: .venv beside this file)
  CDT_PROFILE        size of the runs: ci, laptop or gpu
  CDT_WHEELS         a folder that `run.py wheels` made: install from it, without a network (as --wheels does)
  CDT_TORCH=default  take the build of torch that pip takes, even if that is a CUDA build
  CDT_LITE_MIRROR    a folder that holds the public files: cells, gene sets
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.abspath(__file__))
COMMANDS = ("notebooks", "test", "lab", "setup", "copies", "wheels", "trial", "browser", "site")
MORE = {"browser": "browser", "site": "docs"}  # what these install beside the rest
TAKE_MORE = ("test", "lab", "wheels", "trial", "browser")  # what is not ours goes on to them
# What runs a command with no network but loopback, which a fresh network namespace has, but down.
LOOPBACK = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def python_refusal(version: tuple, oldest: tuple = (3, 11)) -> str:
    """Says why this Python is too old, or returns an empty text if it is not."""
    if tuple(version[:2]) >= oldest:
        return ""
    found, needed = "{}.{}".format(*version), "{}.{}".format(*oldest)
    return f"needs Python {needed} or newer, and this is {found}. Try: python{needed} run.py"


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads the command line; what is not ours goes on to pytest or JupyterLab."""
    look = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("run.py", description=__doc__, formatter_class=look, allow_abbrev=False)
    add = parser.add_argument
    add("command", nargs="?", default="notebooks", choices=COMMANDS)
    add("--profile", choices=("ci", "laptop", "gpu"), help="size of the runs (default: laptop; tests: ci)")
    add("--only", default="", metavar="03", help="run the notebooks whose names begin so")
    add("--wheels", default="", metavar="FOLDER", help="install from this folder, without a network")
    add("--fresh", action="store_true", help="make the environment anew")
    add("--write", action="store_true", help="maintainers: write into the tracked files")
    add("--budget", action="store_true", help="maintainers: write only time and memory into the cards")
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in TAKE_MORE:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    return options, rest


def no_network() -> list[str]:
    """The words that run a command with no network but loopback; none where the system cannot do that."""
    from tools.environment import fault

    words = ["unshare", "-rn", sys.executable, "-c", LOOPBACK]
    if not fault(*words, "true"):
        return words
    print("run.py: `unshare -rn` does not work here: the network is not blocked", flush=True)
    return []


def steps(options: argparse.Namespace, rest: list[str], python: str) -> dict[str, list[str]]:
    """What was asked, as names and commands, in order."""
    pytest = [python, "-m", "pytest"]
    trial = [*pytest, "tests/trial.py", "-q", "-s", "-k"]
    if options.command == "test" and not rest:
        return {
            "ruff": [python, "-m", "ruff", "check", "."],
            "mypy": [python, "-m", "mypy"],
            "pytest": [*pytest, "--durations=8"],
            "strict notebooks": [*pytest, "--nbmake", "--nbmake-timeout=300", "notebooks"],
            "trial": [*trial, "workshop"],
        }
    if options.command == "site":
        return {"site": [python, "-m", "tools.site"], "links": [*pytest, "tests/crawl.py", "-q"]}
    flags = [f"--{flag}" for flag in ("write", "budget") if getattr(options, flag)]
    names = " or ".join(rest)
    place = [f"--ServerApp.root_dir={ROOT}", "--LabApp.default_url=/lab/tree/notebooks/START.md"]
    commands = {
        "notebooks": [python, "-m", "tools.execute", options.only or "0", *flags],
        "test": [*pytest, *rest],
        "lab": [python, "-m", "jupyterlab", "--allow-root", *place, *rest],
        "copies": [python, "-m", "tools.copies"],
        "trial": [*trial, names or "workshop"],
        "browser": [*pytest, "tests/visit.py", "-q", "-s", "-k", names],
    }
    return {options.command: commands[options.command]}


def run(named: dict[str, list[str]], variables: dict[str, str]) -> int:
    """Runs commands, each even if another failed; says at the end which did."""
    failed = []
    for name, command in named.items():
        if len(named) > 1:
            print(f"\n== {name}", flush=True)
        own = dict(variables)
        if name == "strict notebooks":
            own["CDT_STRICT"] = "1"  # a check that does not pass is an error
        if name == "trial":
            command = no_network() + command
        if subprocess.call(command, cwd=ROOT, env=own):
            failed.append(name)
    if len(named) > 1:
        print("\nrun.py:", f"failed: {'; '.join(failed)}" if failed else "all passed", flush=True)
    return 1 if failed else 0


def main(arguments: list[str]) -> int:
    """Makes the environment, then does what was asked; returns the exit status."""
    refused = python_refusal(sys.version_info)
    if refused:
        sys.exit(f"run.py: {refused}")
    from tools import environment  # needs the newer Python that was just checked for

    options, rest = parse(arguments)
    environment.use_wheels(options.wheels or os.environ.get("CDT_WHEELS", ""))
    python = environment.set_up(options.fresh)
    if options.command == "setup":
        print(f"The environment is ready: {python}")
        return 0
    if options.command == "wheels":
        return environment.fill_wheels(python, *rest)
    if options.command in MORE:
        environment.install(python, f"{environment.EXTRAS},{MORE[options.command]}")
    default = "ci" if options.command in ("test", "trial", "browser") else "laptop"
    profile = options.profile or os.environ.get("CDT_PROFILE") or default
    variables = environment.child_variables(python, profile)
    with tempfile.TemporaryDirectory() as progress:
        if options.command == "test":  # solves nothing in the learner's own record
            variables["CDT_LITE_PROGRESS"] = progress
        return run(steps(options, rest, str(python)), variables)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("\nrun.py: stopped")
