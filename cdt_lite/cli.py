"""The command line: cdt-lite figures, pretrain, finetune, predict, evaluate, account, bench, capsule, doctor."""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdt_lite.errors import CDTError
from cdt_lite.options import COMMANDS, OF_A_RUN, OPTIONS, STAGE, columns_given, in_options, require_sense
from cdt_lite.options import simulated_options as read_simulated

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

    found, config = _settings(args)
    screen = _screen(args)
    cells = screen[named_split(screen) == "train"].copy()
    more = [_file(path, args) for path in args.more]
    files = [cells, *more] if more else pretraining_cells(cells)
    checkpoint = found or _begun(args, config, *files)
    checkpoint.config = config
    stores = [TokenStore.from_adata(file, checkpoint.tokenizer, checkpoint.vocabulary) for file in files]
    return _train(checkpoint, SetSampler(stores, config.pretrain, "pretrain"), args)


def finetune(args: argparse.Namespace) -> int:
    """Fine-tunes on a screen's training side, from a pretrained checkpoint or from nothing."""
    from cdt_lite.data import CONTROL, SetSampler, TokenStore, named_split

    if args.start and args.gene_vectors:
        raise CDTError("--start brings its own gene vectors: give --gene-vectors to the pretraining instead")
    found, config = _settings(args)
    screen = _screen(args)
    cells = screen[named_split(screen) == "train"].copy()
    checkpoint = found or _begun(args, config, cells)
    checkpoint.config = config
    targets = set(screen.obs["target_gene"]) - {CONTROL}
    checkpoint.vocabulary = checkpoint.vocabulary.extended(sorted(targets))
    store = TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary)
    return _train(checkpoint, SetSampler(store, config.finetune), args)


def predict(args: argparse.Namespace) -> int:
    """Generates cells for perturbations and writes them as .h5ad, beside the real controls if they are several."""
    from cdt_lite.training import predict_many as many
    from cdt_lite.training.checkpoint import Checkpoint
    from cdt_lite.training.predict import Generation

    path = many.open_output(args.out)
    targets = many.targets_of(args.target, args.targets, args.all)
    options = Generation(guidance=args.guidance, steps=args.sampling_steps, unseen=args.unseen, align=args.align,
                         device=args.device)
    checkpoint = Checkpoint.load(args.checkpoint)
    wanted = many.perturbations_of(checkpoint, targets, args.sign, args.magnitude)
    made = many.predict_many(checkpoint, _screen(args), wanted, path, n_cells=args.cells, seed=args.seed,
                             options=options, space=args.space)
    said: list[str] = []
    with closing(made):  # writes what is there, however this ends
        for number, cells in enumerate(made, 1):
            target, sign, _ = wanted[number - 1]
            lines = [f"note: {line}" for line in cells.uns["cdt_lite"]["notes"]]
            lines.append(f"{number} of {len(wanted)}: {target} {sign:+d}, {cells.n_obs} cells x {cells.n_vars} genes")
            for line in lines:
                if line not in said:
                    print(line, flush=True)
            said += lines
    print(f"{path}: {args.space}")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Scores predicted cells beside the baselines; with --tasks, a trained model on every task of the series."""
    if not args.tasks and not args.predicted:
        raise CDTError("nothing to score: name --predicted files, or pass --tasks to report on a trained model")
    from cdt_lite.evaluation.inputs import read_predicted, require_side, require_suites
    from cdt_lite.files import write_atomically
    from cdt_lite.report.results import score, write_report
    from cdt_lite.report.tasks import ReportOptions
    from cdt_lite.training.capsule import capsule_folder
    from cdt_lite.training.predict_many import open_output

    require_side(args.side)
    require_suites(args.suite)
    if args.tasks or args.out:
        open_output(args.results if args.tasks else args.out)
    predicted = read_predicted(args.predicted)
    screen = _screen(args)
    if args.tasks:
        options = ReportOptions(others=predicted, suites=args.suite, seeds=args.seeds, n_cells=args.cells)
        models = args.checkpoint or [capsule_folder(screen)]
        page = write_report(screen, models, options, path=args.results, command=args.typed, say=print)
        print(page.read_text(encoding="utf-8"))
        return 0
    table = score(screen, predicted, side=args.side, suites=args.suite, seed=args.seed)
    print(table.to_string(index=False, float_format="%.3f"))
    if args.out:
        write_atomically(Path(args.out), table.to_csv(index=False).encode())
    return 0


def account(args: argparse.Namespace) -> int:
    """Counts parameters, FLOPs, bytes and time of a preset."""
    from pandas import json_normalize

    from cdt_lite.figures import account as count

    result = count(args.preset)
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    for title, number in json_normalize(result, sep=": ").iloc[0].items():
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
    from cdt_lite.training.capsule import make_capsule, open_capsule, save_capsule
    from cdt_lite.training.checkpoint import Checkpoint

    if args.check:
        found = Checkpoint.load(args.check)
        print(json.dumps({key: value for key, value in found.card.items() if key != "curves"}, indent=1))
        print(f"{args.check}: whole; {len(found.vocabulary)} genes, {len(found.trained_targets)} trained targets")
        return 0
    screen = _screen(args)
    folder = open_capsule(screen, args.preset, args.out, args.overwrite)
    n = (None, None) if args.epochs else (args.pretrain_steps, args.finetune_steps)
    made: list[Checkpoint] = []

    def progress() -> Iterator[Any]:
        for item in make_capsule(screen, _config(args), seed=args.seed, pretrain_steps=n[0], finetune_steps=n[1]):
            if isinstance(item, Checkpoint):
                made.append(item)
            else:
                yield item

    for _ in with_bar(progress(), "capsule"):
        pass
    save_capsule(made[0], folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size:,} bytes, {made[0].card['seconds']} s")
    return 0


def doctor(args: argparse.Namespace) -> int:
    """Says whether this machine runs the notebooks, in lines for a bug report; with --screen, what a file holds."""
    from cdt_lite.data import Columns
    from cdt_lite.doctor import READY, about_screen, report
    from cdt_lite.training.capsule import CAPSULES

    if args.screen:
        print("\n".join(about_screen(args.screen, Columns(**columns_given(vars(args))), args.layer)))
        return 0
    print(f"installed in {CAPSULES.parent}")
    lines = report()
    print("\n".join(lines))
    return 0 if lines[-1] == READY else 1


def _screen(args: argparse.Namespace) -> "AnnData":
    """The screen that a command reads: the simulated one with its options, a public one, or a file."""
    from cdt_lite.data import simulate_screen

    options = read_simulated(getattr(args, "simulated", ()))
    if args.screen == "simulated":
        return simulate_screen(**options)
    if options:
        raise CDTError(f"{', '.join(options)}: for the simulated screen only, without effect on {args.screen}")
    return _file(args.screen, args)


def _file(path: str, args: argparse.Namespace) -> "AnnData":
    """A file, read with the columns and the layer that the command line names."""
    from cdt_lite.data import Columns, load_screen

    return load_screen(path, Columns(**columns_given(vars(args))), layer=args.layer)


def _config(args: argparse.Namespace, found: "Checkpoint | None" = None,
            stages: Sequence[str] = ("pretrain", "finetune")) -> "Config":
    """The preset, or a checkpoint's configuration, with what the command line changes."""
    from cdt_lite.model.config import get_preset
    from cdt_lite.training.runs import with_settings

    config = found.config if found else get_preset(args.preset or "lite")
    return with_settings(config, stages, {name: getattr(args, name, None) for name in STAGE})


def _settings(args: argparse.Namespace) -> "tuple[Checkpoint | None, Config]":
    """The checkpoint that a stage goes on with or starts from, if any, and the stage's configuration."""
    from cdt_lite.training.checkpoint import Checkpoint
    from cdt_lite.training.runs import resumed

    found = None
    if args.resume:
        found = resumed(args.out, args.command, {name: getattr(args, name) for name in OF_A_RUN})
        print(f"resuming {found.stage} at step {found.step} of {found.card.get('n_steps', '?')}")
    elif getattr(args, "start", None):
        found = Checkpoint.load(args.start)
    return found, _config(args, found, [args.command])


def _begun(args: argparse.Namespace, config: "Config", *files: "AnnData") -> "Checkpoint":
    """A new model for these cells."""
    from cdt_lite.training.gene_vectors import read_gene_vectors
    from cdt_lite.training.start import start

    vectors = read_gene_vectors(args.gene_vectors) if args.gene_vectors else None
    return start(config, *files, gene_vectors=vectors, seed=args.seed or 0)


def _train(checkpoint: "Checkpoint", data: "SetSampler", args: argparse.Namespace) -> int:
    from cdt_lite.terminal import with_bar
    from cdt_lite.training.train import train

    length = checkpoint.card.get("n_steps") if args.resume else args.steps
    steps = train(checkpoint, data, steps=length, out=args.out, overwrite=args.overwrite, device=args.device)
    try:
        for _ in with_bar(steps):
            pass
    except KeyboardInterrupt:
        steps.close()  # saves, if the interrupt came while the caller had the turn
        print(f"\nat step {checkpoint.step}; the state is in {args.out}. Go on with the same command and --resume")
        raise
    print(f"{args.out}: {checkpoint.stage}, {checkpoint.step} steps")
    return 0


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    top = argparse.ArgumentParser(prog="cdt-lite", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for function in (figures, pretrain, finetune, predict, evaluate, account, bench, capsule, doctor):
        options, defaults = COMMANDS[function.__name__]
        purpose = (function.__doc__ or "").rstrip(".")
        sub = commands.add_parser(function.__name__, help=purpose, description=function.__doc__)
        for name in options:
            sub.add_argument("--checkpoint" if name == "models" else f"--{name}", **OPTIONS[name])
        sub.set_defaults(run=function, **defaults)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Bad input prints one line and returns 2; everything else that fails shows its traceback."""
    words = sys.argv[1:] if arguments is None else arguments
    args = parser().parse_args(words)
    args.typed = shlex.join(["cdt-lite", *words])
    from cdt_lite.training.runs import exit_status, require_device, sigterm_interrupts

    try:
        require_sense(vars(args))
        require_device(getattr(args, "device", "cpu"))
        with sigterm_interrupts():
            return args.run(args)
    except KeyboardInterrupt as stopped:
        print(f"cdt-lite {args.command}: stopped", file=sys.stderr)
        return exit_status(stopped)
    except CDTError as error:
        print(f"cdt-lite {args.command}: {in_options(str(error))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
