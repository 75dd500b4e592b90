"""The command line: cdt-lite figures, pretrain, finetune, predict, evaluate, account, bench, capsule, doctor."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cdt_lite.errors import CDTError
from cdt_lite.model.config import Config, get_preset
from cdt_lite.options import EVALUATE, OPTIONS

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

    from cdt_lite.training.checkpoint import Checkpoint
    from cdt_lite.training.train import Progress

# Heavy imports stay inside the commands, so that `cdt-lite --help` and a misspelt option answer at once.


def figures(args: argparse.Namespace) -> int:
    """Draws every figure of the original document from the live model."""
    from cdt_lite.data.screens import resolve_screen
    from cdt_lite.figures.folder import make_figures
    from cdt_lite.training.capsule import load_capsule

    config, capsule, screen = get_preset(args.preset), None, None
    try:
        screen, _ = resolve_screen(args.screen)
        capsule = load_capsule(screen)
    except CDTError as error:
        print(f"without the panels of a trained model: {error}")
    for path in make_figures(config, Path(args.out), capsule=capsule, screen=screen, dark=args.dark):
        print(path)
    return 0


def pretrain(args: argparse.Namespace) -> int:
    """Pretrains on one or several files, whose panels may differ."""
    from cdt_lite.data.batches import SetSampler
    from cdt_lite.data.screens import load_screen
    from cdt_lite.data.splits import named_split
    from cdt_lite.data.store import TokenStore
    from cdt_lite.training.capsule import pretraining_cells
    from cdt_lite.training.start import start

    screen = load_screen(args.screen)
    cells = screen[named_split(screen) == "train"].copy()
    files = [cells, *(load_screen(p) for p in args.more)] if args.more else pretraining_cells(cells)
    config = _changed(get_preset(args.preset), args)
    checkpoint = _resumed(args) or start(config, *files, gene_vectors=_vectors(args), seed=args.seed)
    stores = [TokenStore.from_adata(f, checkpoint.tokenizer, checkpoint.vocabulary) for f in files]
    return _train(checkpoint, SetSampler(stores, config.pretrain, "pretrain"), args)


def finetune(args: argparse.Namespace) -> int:
    """Fine-tunes on a screen's training side, from a pretrained checkpoint or from nothing."""
    from cdt_lite.data.batches import SetSampler
    from cdt_lite.data.screens import load_screen
    from cdt_lite.data.splits import named_split
    from cdt_lite.data.store import TokenStore
    from cdt_lite.training.checkpoint import Checkpoint
    from cdt_lite.training.start import start

    if args.start and args.gene_vectors:
        raise CDTError("--start brings its own gene vectors: give --gene-vectors to the pretraining, or leave one out")
    screen = load_screen(args.screen)
    cells = screen[named_split(screen) == "train"].copy()
    checkpoint = _resumed(args) or (Checkpoint.load(args.start) if args.start
                                    else start(get_preset(args.preset), cells, gene_vectors=_vectors(args),
                                               seed=args.seed))
    config = _changed(checkpoint.config, args)
    targets = set(screen.obs["target_gene"].astype(str)) - {"non-targeting"}
    checkpoint.vocabulary = checkpoint.vocabulary.extended(sorted(targets))
    store = TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary)
    return _train(checkpoint, SetSampler(store, config.finetune), args)


def predict(args: argparse.Namespace) -> int:
    """Generates cells for one perturbation and writes them as .h5ad."""
    from cdt_lite.data.screens import load_screen
    from cdt_lite.training import predict as prediction
    from cdt_lite.training.checkpoint import Checkpoint

    cells = prediction.predict(Checkpoint.load(args.checkpoint), load_screen(args.screen), args.target, args.sign,
                               args.magnitude, n_cells=args.cells, seed=args.seed, guidance=args.guidance,
                               steps=args.sampling_steps, unseen=args.unseen, align=args.align, device=args.device)
    cells = prediction.as_log1p(cells) if args.space == "log1p" else cells
    _write_h5ad(cells, Path(args.out))
    for line in cells.uns["cdt_lite"]["notes"]:
        print(f"note: {line}")
    print(f"{args.out}: {cells.n_obs} cells x {cells.n_vars} genes, {args.space}")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Scores predicted cells beside the baselines; with --tasks, a trained model on every task of the series."""
    from cdt_lite.files import write_atomically
    from cdt_lite.report import results

    if args.tasks:
        print(results.write_results(args, say=print).read_text(encoding="utf-8"))
        return 0
    table = results.score_files(args)
    print(table.to_string(index=False, float_format="%.3f"))
    if args.out:
        write_atomically(Path(args.out), table.to_csv(index=False).encode())
    return 0


def account(args: argparse.Namespace) -> int:
    """Counts parameters, FLOPs, bytes and time of a preset."""
    from cdt_lite.figures.accounting import account as count

    result = count(get_preset(args.preset))
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    for key, value in result.items():
        for name, number in value.items() if isinstance(value, dict) else [("", value)]:
            print(f"{key + (': ' + name if name else ''):60s} {number:>22,}" if isinstance(number, int | float)
                  else f"{key} {name}: {number}")
    return 0


def bench(args: argparse.Namespace) -> int:
    """Measures training and sampling speed and peak memory of a preset on this device."""
    from cdt_lite.doctor import bench as measure

    print(json.dumps(measure(_changed(get_preset(args.preset), args), args.device, args.genes), indent=1))
    return 0


def capsule(args: argparse.Namespace) -> int:
    """Makes the small trained model that the notebooks load, or checks one."""
    from cdt_lite.data.screens import load_screen
    from cdt_lite.report.results import simulation
    from cdt_lite.terminal import with_bar
    from cdt_lite.training.capsule import capsule_folder, make_capsule, save_capsule
    from cdt_lite.training.checkpoint import Checkpoint

    if args.check:
        found = Checkpoint.load(args.check)
        print(json.dumps({k: v for k, v in found.card.items() if k != "curves"}, indent=1))
        print(f"{args.check}: whole; {len(found.vocabulary)} genes, {len(found.trained_targets)} trained targets")
        return 0
    screen = load_screen(args.screen, **simulation(args.simulated))
    made: list[Checkpoint] = []

    def steps() -> Iterator["Progress"]:
        for item in make_capsule(screen, _changed(get_preset(args.preset), args), seed=args.seed,
                                 pretrain_steps=None if args.epochs else args.pretrain_steps,
                                 finetune_steps=None if args.epochs else args.finetune_steps):
            if isinstance(item, Checkpoint):
                made.append(item)
            else:
                yield item

    for _ in with_bar(steps(), "capsule"):
        pass
    folder = save_capsule(made[0], args.out or capsule_folder(screen, args.preset))
    print(f"{folder.name}: {sum(f.stat().st_size for f in folder.iterdir()):,} bytes, {made[0].card['seconds']} s")
    return 0


def doctor(args: argparse.Namespace) -> int:
    """Prints the environment, in lines for a bug report."""
    from cdt_lite.doctor import report

    print("\n".join(report()))
    return 0


def _changed(config: Config, args: argparse.Namespace) -> Config:
    """The preset with what the command line changes."""
    given = {k: getattr(args, k, None) for k in ("precision", "compile", "learning_rate", "seed")}
    stage = {k: v for k, v in given.items() if v is not None}
    return replace(config, pretrain=replace(config.pretrain, **stage), finetune=replace(config.finetune, **stage))


def _vectors(args: argparse.Namespace) -> "DataFrame | None":
    from cdt_lite.training.gene_vectors import read_gene_vectors

    return read_gene_vectors(args.gene_vectors) if args.gene_vectors else None


def _resumed(args: argparse.Namespace) -> "Checkpoint | None":
    from cdt_lite.training.checkpoint import Checkpoint

    if not args.resume:
        return None
    checkpoint = Checkpoint.load(args.out, resume=True)
    print(f"resuming {checkpoint.stage} at step {checkpoint.step} of {checkpoint.card.get('n_steps', '?')}")
    return checkpoint


def _train(checkpoint: "Checkpoint", data: object, args: argparse.Namespace) -> int:
    from cdt_lite.data.batches import SetSampler
    from cdt_lite.terminal import with_bar
    from cdt_lite.training.train import train

    assert isinstance(data, SetSampler)
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


def _write_h5ad(cells: "AnnData", path: Path) -> None:
    """Writes beside the target first, so that a failed write leaves what was there."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        cells.write_h5ad(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    top = argparse.ArgumentParser(prog="cdt-lite", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)

    def command(function, *options: str) -> argparse.ArgumentParser:
        purpose = (function.__doc__ or "").rstrip(".")
        sub = commands.add_parser(function.__name__, help=purpose, description=function.__doc__)
        sub.set_defaults(run=function)
        for name in options:
            sub.add_argument(f"--{name}", **OPTIONS[name])
        return sub

    command(figures, "preset", "screen", "out", "dark").set_defaults(preset="v1", out="figures")
    training = ("preset", "screen", "out", "steps", "seed", "device", "precision", "compile", "learning-rate", "resume",
                "gene-vectors")
    command(pretrain, *training, "more").set_defaults(out="output/pretrained")
    command(finetune, *training, "start").set_defaults(out="output/finetuned")
    command(predict, "checkpoint", "screen", "target", "sign", "magnitude", "cells", "seed", "guidance",
            "sampling-steps", "unseen", "align", "space", "device", "out").set_defaults(out="predicted.h5ad")
    evaluating = command(evaluate, "screen", "simulated", "side", "seed", "out")
    for name, about in EVALUATE.items():
        evaluating.add_argument(f"--{name}", **about)
    command(account, "preset", "json").set_defaults(preset="v1")
    command(bench, "preset", "device", "genes", "precision", "compile")
    command(capsule, "preset", "screen", "out", "pretrain-steps", "finetune-steps", "seed", "learning-rate", "check",
            "simulated", "epochs")
    command(doctor)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Bad input prints one line and returns 2; everything else that fails shows its traceback."""
    args = parser().parse_args(arguments)
    try:
        return args.run(args)
    except CDTError as error:
        print(f"cdt-lite {args.command}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
