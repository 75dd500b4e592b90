#!/usr/bin/env python3
"""The two commands of CDT-lite, and some helpers. Needs Python 3.11 or newer and nothing else.

python3 run.py              make the environment, run notebooks 00 to 06 into output/, draw the figures there
python3 run.py test         make the environment, run linters, unit tests, every notebook and every workshop copy
python3 run.py lab          make the environment, start JupyterLab at the page that says where to begin
python3 run.py setup        make the environment only

For a workshop, and for maintainers:
python3 run.py copies       write student and instructor copies, slides, schedules, the exercise table
python3 run.py wheels       fill output/wheels with all that a laptop needs without a network
python3 run.py trial        execute the student and instructor copies with no network, or the folders named after it
python3 run.py browser      work through the student copies in a real browser, with screenshots

Arguments after `test` go to pytest, which then runs alone: python3 run.py test -k tokenizer
Arguments after `lab` go to JupyterLab: python3 run.py lab --no-browser
Names after `browser` choose copies: python3 run.py browser 00 03

Environment variables:
  CDT_VENV           where the environment lives (default: .venv beside this file)
  CDT_PROFILE        size of the runs: ci, laptop or gpu
  CDT_WHEELS         a folder that `run.py wheels` made: install from it, without a network (as --wheels does)
  CDT_TORCH=default  take the build of torch that pip takes, even if that is a CUDA build
  CDT_LITE_MIRROR    a folder that holds the public screen's file
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

PROFILES = ("ci", "laptop", "gpu")
COMMANDS = ("notebooks", "test", "lab", "setup", "copies", "wheels", "trial", "browser")
TAKE_MORE = ("test", "lab", "wheels", "trial", "browser")  # what is not ours goes on to them
COPIES = ("workshop/student", "workshop/instructor")
LANDING = "notebooks/START.md"


def python_refusal(version: tuple, oldest: tuple = (3, 11)) -> str:
    """Says why this Python is too old, or returns an empty text if it is not."""
    if tuple(version[:2]) >= oldest:
        return ""
    found, needed = (".".join(str(part) for part in pair[:2]) for pair in (version, oldest))
    return f"needs Python {needed} or newer, and this is {found}. Try: python{needed} run.py"


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads the command line; what is not ours goes on to pytest, JupyterLab or the tool that is called."""
    parser = argparse.ArgumentParser(
        prog="run.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("command", nargs="?", default="notebooks", choices=COMMANDS)
    parser.add_argument("--profile", choices=PROFILES, help="size of the runs (default: laptop; test and trial: ci)")
    parser.add_argument("--only", default="", metavar="03", help="run the notebooks whose names begin so")
    parser.add_argument("--wheels", default="", metavar="FOLDER", help="install from this folder, without a network")
    parser.add_argument("--write", action="store_true", help="maintainers: write into the tracked files")
    parser.add_argument("--budget", action="store_true", help="maintainers: write only time and memory into the cards")
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in TAKE_MORE:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    return options, rest


def trial(python: str, folders: list[str], root: str) -> list[str]:
    """The command that executes the notebooks of some folders with the network blocked."""
    tools = os.path.join(root, "tools")
    return [python, os.path.join(tools, "offline.py"), python, os.path.join(tools, "trial.py"), *folders]


def run_tests(python: str, arguments: list[str], variables: dict[str, str], root: str) -> int:
    """Runs linters, unit tests, notebooks and copies, each even if another failed; says at the end what failed."""
    pytest = [python, "-m", "pytest", "--durations=8"]
    steps = [
        ("ruff", [python, "-m", "ruff", "check", "."], {}),
        ("mypy", [python, "-m", "mypy"], {}),
        ("pytest", pytest, {}),
        ("notebooks", [*pytest, "--nbmake", "--nbmake-timeout=300", "notebooks"], {"CDT_STRICT": "1"}),
        ("student and instructor copies", trial(python, list(COPIES), root), {}),
    ]
    if arguments:
        steps = [("pytest", [python, "-m", "pytest", *arguments], {})]
    failed = []
    with tempfile.TemporaryDirectory() as progress:  # tests solve nothing in the learner's own record
        for name, command, more in steps:
            print("\n$", *[word.replace(python, "python") for word in command], flush=True)
            own = {**variables, "CDT_LITE_PROGRESS": progress, **more}
            if subprocess.call(command, cwd=root, env=own):
                failed.append(name)
    print("\nrun.py test:", "failed: " + "; ".join(failed) if failed else "all passed", flush=True)
    return 1 if failed else 0


def run_lab(python: str, arguments: list[str], variables: dict[str, str], root: str) -> int:
    """Starts JupyterLab at the page that says where to begin."""
    command = [f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/lab/tree/{LANDING}", *arguments]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    return subprocess.call([python, "-m", "jupyterlab", *command], cwd=root, env=variables)


def run_tool(python: str, options: argparse.Namespace, rest: list[str], variables: dict[str, str], root: str) -> int:
    """Calls the tool of a command."""
    if options.command == "trial":
        command = trial(python, rest or list(COPIES), root)
    elif options.command == "notebooks":
        command = [python, os.path.join(root, "tools", "execute.py"), f"--only={options.only}"]
        command += ["--write"] * options.write + ["--budget"] * options.budget
    else:
        command = [python, os.path.join(root, "tools", f"{options.command}.py"), *rest]
    return subprocess.call(command, cwd=root, env=variables)


def main(arguments: list[str]) -> int:
    """Makes the environment, then does what was asked; returns the exit status."""
    refused = python_refusal(sys.version_info)
    if refused:
        sys.exit(f"run.py: {refused}")
    from tools import environment  # needs the newer Python that was just checked for

    options, rest = parse(arguments)
    environment.use_wheels(options.wheels or os.environ.get("CDT_WHEELS", ""))
    python, root = environment.set_up(), str(environment.ROOT)
    default = "ci" if options.command in ("test", "trial", "browser") else "laptop"
    profile = options.profile or os.environ.get("CDT_PROFILE") or default
    variables = environment.child_variables(python, profile)
    if options.command == "setup":
        print(f"The environment is ready: {python}")
        return 0
    if options.command == "test":
        return run_tests(str(python), rest, variables, root)
    if options.command == "lab":
        return run_lab(str(python), rest, variables, root)
    if options.command == "browser":
        environment.add_extra(python, "browser")
    return run_tool(str(python), options, rest, variables, root)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("\nrun.py: stopped")
