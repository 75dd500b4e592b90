"""The command line: cdt-lite figures, pretrain, finetune, predict, evaluate, account, bench, capsule, doctor."""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdt_lite.errors import CDTError, suggest
from cdt_lite.options import COLUMNS, OPTIONS, SCREEN, TRAINING

if TYPE_CHECKING:
    from anndata import AnnData

    from cdt_lite.data import SetSampler
    from cdt_lite.model import Config
    from cdt_lite.training.checkpoint import Checkpoint

# Heavy imports stay inside the commands, so that `cdt-lite --help` and a misspelt option answer at once.


def figures(args: argparse.Namespace) -> int:
    """Draws every figure of the original document from the live model."""
    from cdt_lite.data import resolve_screen
    from cdt_lite.figures.folder import make_figures
    from cdt_lite.training.capsule import load_capsule

    capsule, screen = None, None
    try:
        screen, _ = resolve_screen(args.screen)
        capsule = load_capsule(screen)
    except CDTError as error:
        print(f"without the panels of a trained model: {error}")
    paths = make_figures(_config(args), Path(args.out), capsule, screen, dark=args.dark)
    print("\n".join(map(str, paths)))
    return 0


def pretrain(args: argparse.Namespace) -> int:
    """Pretrains on one or several files, whose panels may differ."""
    from cdt_lite.data import SetSampler, TokenStore, named_split
    from cdt_lite.training.capsule import pretraining_cells

    screen = _screen(args)
    cells = screen[named_split(screen) == "train"].copy()
    more = [_file(path, args) for path in args.more]
    files = [cells, *more] if more else pretraining_cells(cells)
    config = _config(args)
    checkpoint = _begun(args, config, *files)
    stores = [TokenStore.from_adata(file, checkpoint.tokenizer, checkpoint.vocabulary) for file in files]
    return _train(checkpoint, SetSampler(stores, config.pretrain, "pretrain"), args)


def finetune(args: argparse.Namespace) -> int:
    """Fine-tunes on a screen's training side, from a pretrained checkpoint or from nothing."""
    from cdt_lite.data import CONTROL, SetSampler, TokenStore, named_split
    from cdt_lite.training.checkpoint import Checkpoint

    if args.start and args.gene_vectors:
        raise CDTError("--start brings its own gene vectors: give --gene-vectors to the pretraining instead")
    screen = _screen(args)
    cells = screen[named_split(screen) == "train"].copy()
    if args.start and not args.resume:
        checkpoint = Checkpoint.load(args.start)
    else:
        checkpoint = _begun(args, _config(args), cells)
    config = _config(args, checkpoint.config)
    targets = set(screen.obs["target_gene"]) - {CONTROL}
    checkpoint.vocabulary = checkpoint.vocabulary.extended(sorted(targets))
    store = TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary)
    return _train(checkpoint, SetSampler(store, config.finetune), args)


def predict(args: argparse.Namespace) -> int:
    """Generates cells for one perturbation and writes them as .h5ad."""
    from cdt_lite.files import write_h5ad
    from cdt_lite.training import predict as prediction
    from cdt_lite.training.checkpoint import Checkpoint

    options = prediction.Generation(guidance=args.guidance, steps=args.sampling_steps, unseen=args.unseen,
                                    align=args.align, device=args.device)
    cells = prediction.predict(Checkpoint.load(args.checkpoint), _screen(args), args.target, args.sign,
                               args.magnitude, n_cells=args.cells, seed=args.seed, options=options)
    if args.space == "log1p":
        cells = prediction.as_log1p(cells)
    write_h5ad(cells, Path(args.out))
    for line in cells.uns["cdt_lite"]["notes"]:
        print(f"note: {line}")
    print(f"{args.out}: {cells.n_obs} cells x {cells.n_vars} genes, {args.space}")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Scores predicted cells beside the baselines; with --tasks, a trained model on every task of the series."""
    if not args.tasks and not args.predicted:
        raise CDTError("nothing to score: name --predicted files, or pass --tasks to report on a trained model")
    from cdt_lite.files import read_h5ad, write_atomically
    from cdt_lite.report.results import score, write_report
    from cdt_lite.report.tasks import ReportOptions
    from cdt_lite.training.capsule import capsule_folder

    screen = _screen(args)
    predicted = {Path(path).stem: read_h5ad(path) for path in args.predicted}
    if args.tasks:
        options = ReportOptions(others=predicted, suites=args.suite, seeds=args.seeds, n_cells=args.cells)
        folders = args.checkpoint or [capsule_folder(screen)]
        page = write_report(screen, folders, options, path=args.results, command=args.typed, say=print)
        print(page.read_text(encoding="utf-8"))
        return 0
    table = score(screen, predicted, side=args.side, suites=args.suite, seed=args.seed)
    print(table.to_string(index=False, float_format="%.3f"))
    if args.out:
        write_atomically(Path(args.out), table.to_csv(index=False).encode())
    return 0


def account(args: argparse.Namespace) -> int:
    """Counts parameters, FLOPs, bytes and time of a preset."""
    from cdt_lite.figures import account as count

    result = count(args.preset)
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    for key, value in result.items():
        parts = value if isinstance(value, dict) else {"": value}
        for name, number in parts.items():
            title = f"{key}: {name}" if name else key
            text = number if isinstance(number, str) else f"{number:,}"
            print(f"{title:60s} {text:>22}")
    return 0


def bench(args: argparse.Namespace) -> int:
    """Measures training and sampling speed and peak memory of a preset on this device."""
    from cdt_lite.doctor import bench as measure

    print(json.dumps(measure(_config(args), args.device, args.genes), indent=1))
    return 0


def capsule(args: argparse.Namespace) -> int:
    """Makes the small trained model that the notebooks load, or checks one."""
    from cdt_lite.terminal import with_bar
    from cdt_lite.training.capsule import capsule_folder, make_capsule, save_capsule
    from cdt_lite.training.checkpoint import Checkpoint

    if args.check:
        found = Checkpoint.load(args.check)
        print(json.dumps({key: value for key, value in found.card.items() if key != "curves"}, indent=1))
        print(f"{args.check}: whole; {len(found.vocabulary)} genes, {len(found.trained_targets)} trained targets")
        return 0
    screen = _screen(args)
    steps = (None, None) if args.epochs else (args.pretrain_steps, args.finetune_steps)
    config = _config(args)
    made: list[Checkpoint] = []

    def progress() -> Iterator[Any]:
        for item in make_capsule(screen, config, seed=args.seed, pretrain_steps=steps[0], finetune_steps=steps[1]):
            if isinstance(item, Checkpoint):
                made.append(item)
            else:
                yield item

    for _ in with_bar(progress(), "capsule"):
        pass
    folder = save_capsule(made[0], args.out or capsule_folder(screen, args.preset))
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder.name}: {size:,} bytes, {made[0].card['seconds']} s")
    return 0


def doctor(args: argparse.Namespace) -> int:
    """Prints the environment, in lines for a bug report."""
    from cdt_lite.doctor import report

    print("\n".join(report()))
    return 0


def _screen(args: argparse.Namespace) -> "AnnData":
    """The screen that a command reads: the simulated one with its options, a public one, or a file."""
    from cdt_lite.data import simulate_screen

    known = ("n_genes", "n_targets", "n_cells", "seed", "world")
    options: dict[str, Any] = {}
    for word in getattr(args, "simulated", ()):
        name, _, value = word.partition("=")
        if name not in known or not value or (name != "world" and not value.isdigit()):
            raise CDTError(f"expected OPTION=VALUE with one of {known}, got {word!r}{suggest(name, known)}")
        options[name] = value if name == "world" else int(value)
    if args.screen == "simulated":
        return simulate_screen(**options)
    if options:
        raise CDTError(f"{', '.join(options)}: for the simulated screen only, without effect on {args.screen}")
    return _file(args.screen, args)


def _file(path: str, args: argparse.Namespace) -> "AnnData":
    """A file, read with the columns and the layer that the command line names."""
    from cdt_lite.data import Columns, load_screen

    named = {}
    for role, option in COLUMNS.items():
        value = getattr(args, option.replace("-", "_"))
        if value is not None:
            named[role] = value
    return load_screen(path, Columns(**named), layer=args.layer)


def _config(args: argparse.Namespace, config: "Config | None" = None) -> "Config":
    """The preset, or a checkpoint's configuration, with what the command line changes."""
    from cdt_lite.model.config import get_preset

    config = config or get_preset(args.preset)
    stage = {}
    for key in ("precision", "compile", "learning_rate", "seed"):
        if getattr(args, key, None) is not None:
            stage[key] = getattr(args, key)
    return replace(config, pretrain=replace(config.pretrain, **stage), finetune=replace(config.finetune, **stage))


def _begun(args: argparse.Namespace, config: "Config", *files: "AnnData") -> "Checkpoint":
    """A new model for these cells, or with --resume the one to go on with."""
    from cdt_lite.training.checkpoint import Checkpoint
    from cdt_lite.training.gene_vectors import read_gene_vectors
    from cdt_lite.training.start import start

    if args.resume:
        checkpoint = Checkpoint.load(args.out, resume=True)
        print(f"resuming {checkpoint.stage} at step {checkpoint.step} of {checkpoint.card.get('n_steps', '?')}")
        return checkpoint
    vectors = read_gene_vectors(args.gene_vectors) if args.gene_vectors else None
    return start(config, *files, gene_vectors=vectors, seed=args.seed)


def _train(checkpoint: "Checkpoint", data: "SetSampler", args: argparse.Namespace) -> int:
    from cdt_lite.terminal import with_bar
    from cdt_lite.training.train import train

    steps = train(checkpoint, data, steps=args.steps, out=args.out, device=args.device)
    try:
        for _ in with_bar(steps):
            pass
    except KeyboardInterrupt:
        steps.close()  # saves, if the interrupt came while the caller had the turn
        print(f"\nstopped at step {checkpoint.step}; the state is in {args.out}. "
              "Go on with the same command and --resume")
        return 130
    print(f"{args.out}: {checkpoint.stage}, {checkpoint.step} steps")
    return 0


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    top = argparse.ArgumentParser(prog="cdt-lite", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)

    def command(function, *options: str, **defaults: str) -> None:
        purpose = (function.__doc__ or "").rstrip(".")
        sub = commands.add_parser(function.__name__, help=purpose, description=function.__doc__)
        for name in options:
            sub.add_argument("--checkpoint" if name == "models" else f"--{name}", **OPTIONS[name])
        sub.set_defaults(run=function, **defaults)

    command(figures, "preset", "screen", "out", "dark", preset="v1", out="figures")
    command(pretrain, *TRAINING, "more", out="output/pretrained")
    command(finetune, *TRAINING, "start", out="output/finetuned")
    command(predict, "checkpoint", *SCREEN, "target", "sign", "magnitude", "cells", "seed", "guidance",
            "sampling-steps", "unseen", "align", "space", "device", "out", out="predicted.h5ad")
    command(evaluate, *SCREEN, "simulated", "side", "seed", "out", "predicted", "suite", "tasks", "models",
            "results", "seeds", "cells")
    command(account, "preset", "json", preset="v1")
    command(bench, "preset", "device", "genes", "precision", "compile")
    command(capsule, "preset", *SCREEN, "out", "pretrain-steps", "finetune-steps", "seed", "learning-rate", "check",
            "simulated", "epochs")
    command(doctor)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Bad input prints one line and returns 2; everything else that fails shows its traceback."""
    words = sys.argv[1:] if arguments is None else arguments
    args = parser().parse_args(words)
    args.typed = shlex.join(["cdt-lite", *words])
    try:
        return args.run(args)
    except CDTError as error:
        in_options = re.sub(r"Columns\((\w+)=\.\.\.\)|layer='(.*?)'", lambda argument: (
            f"--{COLUMNS[argument[1]]}" if argument[1] else f"--layer {argument[2]}"), str(error))
        print(f"cdt-lite {args.command}: {in_options}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
