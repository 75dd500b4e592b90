"""The command line: figures, tokenize, pretrain, finetune, predict, evaluate, account, bench, capsule, doctor."""

import argparse
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from cdt_lite.cli.machine import account, bench, doctor
from cdt_lite.cli.tokens import tokenize
from cdt_lite.cli.training import capsule, finetune, pretrain
from cdt_lite.cli.use import evaluate, figures, predict
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.options import COMMANDS, FLAGS, OPTIONS, in_options, require_sense

# Heavy imports stay inside the commands, so that `cdt-lite --help` and a misspelt option answer at once.


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    top = argparse.ArgumentParser(prog="cdt-lite", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for function in (figures, tokenize, pretrain, finetune, predict, evaluate, account, bench, capsule, doctor):
        options, defaults = COMMANDS[function.__name__]
        purpose = (function.__doc__ or "").rstrip(".")
        sub = commands.add_parser(function.__name__, help=purpose, description=function.__doc__)
        for name in options:
            sub.add_argument(f"--{FLAGS.get(name, name)}", **OPTIONS[name])
        sub.set_defaults(run=function, **defaults)
    return top


@contextmanager
def _notes() -> Iterator[None]:
    """Shows the package's own warnings as plain lines, in the words of the command line."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], filename: str, lineno: int,
                 file: TextIO | None = None, line: str | None = None) -> None:
            if issubclass(category, CDTWarning):
                print(f"note: {in_options(str(message))}", file=sys.stderr, flush=True)
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


@contextmanager
def _processes(args: argparse.Namespace) -> Iterator[None]:
    """Joins the processes that torchrun started where a command trains; nothing else may be done several times."""
    from cdt_lite.training.processes import joined, require_joined

    if "shard" not in args:
        require_joined()
        yield
        return
    with joined(args.device) as args.device:
        require_joined(args.shard)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Bad input prints one line and returns 2; everything else that fails shows its traceback."""
    words = sys.argv[1:] if arguments is None else arguments
    args = parser().parse_args(words)
    args.typed = shlex.join(["cdt-lite", *words])
    from cdt_lite.training.runs import exit_status, require_device, sigterm_interrupts

    try:
        require_sense(vars(args))
        require_device(getattr(args, "device", "cpu"))
        with sigterm_interrupts(), _notes(), _processes(args):
            return args.run(args)
    except KeyboardInterrupt as stopped:
        print(f"cdt-lite {args.command}: stopped", file=sys.stderr)
        return exit_status(stopped)
    except CDTError as error:
        print(f"cdt-lite {args.command}: {in_options(str(error))}", file=sys.stderr)
        return 2
