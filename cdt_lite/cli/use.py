"""Commands that use a model: figures, predict, evaluate."""

import argparse
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from cdt_lite.cli.cells import screen_of, split_of
from cdt_lite.cli.training import config_of
from cdt_lite.errors import CDTError

if TYPE_CHECKING:
    from anndata import AnnData

    from cdt_lite.training.checkpoint import Checkpoint


def figures(args: argparse.Namespace) -> int:
    """Draws every figure of the original document from the live model, and panels of a trained one."""
    from cdt_lite.data import resolve_screen
    from cdt_lite.figures.folder import make_figures
    from cdt_lite.training.capsule import load_capsule
    from cdt_lite.training.checkpoint import Checkpoint
    from cdt_lite.training.runs import with_panel

    model, screen = None, None
    if args.checkpoint:
        if args.preset:
            raise CDTError("--checkpoint brings its own sizes: leave out --preset")
        model = Checkpoint.load(args.checkpoint)
        screen = screen_of(args, genes=model.panel)
    else:
        args.preset = args.preset or "v1"
        try:
            screen, _ = resolve_screen(args.screen)
            model = load_capsule(screen)
        except CDTError as error:
            print(f"without the panels of a trained model: {error}")
    chosen = model if args.checkpoint else None
    config = config_of(args, chosen)
    if chosen:
        config = with_panel(config, len(chosen.panel))
    paths = make_figures(config, args.out, model, screen, dark=args.dark)
    print("\n".join(map(str, paths)))
    return 0


def predict(args: argparse.Namespace) -> int:
    """Generates cells for perturbations and writes them as .h5ad, beside the real controls if they are several."""
    from cdt_lite.training import predict_many as many
    from cdt_lite.training.checkpoint import Checkpoint
    from cdt_lite.training.output import Output, open_output
    from cdt_lite.training.predict import Generation

    output = Output(open_output(args.out), args.space, args.resume)
    targets = many.targets_of(args.target, args.targets, args.all)
    options = Generation(guidance=args.guidance, steps=args.sampling_steps, align=args.align, device=args.device)
    checkpoint = Checkpoint.load(args.checkpoint)
    wanted = many.perturbations_of(checkpoint, targets, args.sign, args.magnitude)
    screen = screen_of(args, genes=checkpoint.panel, backed=True)
    made = many.predict_many(checkpoint, screen, wanted, output, n_cells=args.cells, seed=args.seed, options=options)
    said: list[str] = []
    began = time.perf_counter()
    with closing(made):  # writes what is there, however this ends
        for number, cells in enumerate(made, 1):
            facts, done = cells.uns["cdt_lite"], len(output.there)
            left = (time.perf_counter() - began) / number * (output.total - done)
            lines = [f"note: {line}" for line in facts["notes"]]
            lines.append(f"{done} of {output.total}: {facts['target']} {facts['sign']:+d}, {cells.n_obs} cells x "
                         f"{cells.n_vars} genes" + (f"; {left / 60:.0f} minutes left" if left > 90 else ""))
            for line in lines:
                if line not in said:
                    print(line, flush=True)
            said += lines
    print(f"{output.path}: {args.space}")
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
    from cdt_lite.training.checkpoint import Checkpoint
    from cdt_lite.training.output import open_output

    require_side(args.side)
    require_suites(args.suite)
    if args.tasks or args.out:
        open_output(args.results if args.tasks else args.out)
    predicted = read_predicted(args.predicted)
    models = [Checkpoint.load(folder) for folder in args.checkpoint]
    screen = _judged_screen(args, models[0] if models else None, predicted)
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


def _judged_screen(args: argparse.Namespace, model: "Checkpoint | None", predicted: "dict[str, AnnData]") -> "AnnData":
    """The real cells on the genes of what is judged: a model, or predicted cells."""
    genes: list[str] = model.panel if model else []
    for cells in predicted.values():
        genes = genes or list(cells.var_names)
    return screen_of(args, split_of(args, model), genes, backed=not args.tasks)
