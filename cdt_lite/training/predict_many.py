"""Predictions of many perturbations, in one file that grows while they are made."""

from collections.abc import Generator, Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from cdt_lite.data.expression import dense
from cdt_lite.data.layout import read_controls
from cdt_lite.errors import CDTError
from cdt_lite.files import named, write_h5ad
from cdt_lite.training.checkpoint import Checkpoint, open_folder
from cdt_lite.training.predict import Generation, Wanted, as_log1p, predict_each
from cdt_lite.training.request import align_panel, check_request

WRITE_EVERY = 10  # perturbations


def targets_of(names: Sequence[str], file: str | Path | None, every: bool) -> list[str]:
    """Returns the targets that are named, or those in a file, one a line; each once. None where all are wanted.

    Raises:
        CDTError: Not exactly one of the three was given, or the file cannot be read.
    """
    if bool(names) + (file is not None) + every != 1:
        raise CDTError("name the perturbations by one of --target, --targets FILE and --all")
    found = list(names)
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise CDTError(f"no targets can be read from {file}: {error}") from error
        found += [line.strip() for line in text.splitlines() if line.strip()]
        if not found:
            raise CDTError(f"{file} names no target")
    return list(dict.fromkeys(found))


def perturbations_of(checkpoint: Checkpoint, targets: Sequence[str], sign: int | None,
                     magnitude: float | None = None) -> list[Wanted]:
    """Returns what is to be predicted.

    Args:
        checkpoint: A trained model.
        targets: Gene symbols; none: every target and sign that the model was trained on.
        sign: Of the targets that are named, and of all where the model does not keep signs. None: that of training, if
            it had one alone, else -1.
        magnitude: Of the one target that is named.

    Raises:
        CDTError: One magnitude for several targets, or a model that was trained on no perturbation.
    """
    if magnitude is not None and len(targets) != 1:
        raise CDTError("--magnitude is that of one target: predict it alone")
    found = set()
    table = checkpoint.model.effect
    if table is not None and len(table.target):
        for gene, way in table.measured():
            found.add((checkpoint.vocabulary.symbols[gene], way))
    signs = {way for _, way in found}
    if sign is None:
        sign = signs.pop() if len(signs) == 1 else -1
    if targets:
        return [(target, sign, magnitude) for target in targets]
    found = found or {(target, sign) for target in checkpoint.trained_targets}
    if not found:
        raise CDTError("this model was trained on no perturbation: fine-tune it first, or name --target")
    return [(target, way, None) for target, way in sorted(found)]


def open_output(path: str | Path) -> Path:
    """Makes the folder of a file that is to be written. Raises CDTError where it cannot be."""
    path = named(path)
    if path.is_dir():
        raise CDTError(f"{path} is a folder: name a file in it")
    open_folder(path.parent)
    return path


def predict_many(checkpoint: Checkpoint, screen: ad.AnnData, wanted: Sequence[Wanted], path: str | Path, *,
                 n_cells: int = 256, seed: int = 0, options: Generation = Generation(), space: str = "counts",
                 ) -> Generator[ad.AnnData, None, None]:
    """Predicts perturbations one by one, yields the cells of each, and writes all to one .h5ad file.

    Of several perturbations the file holds the screen's real control cells, too, as the field's tools want it. It is
    written anew after every few, and however the loop ends: what was predicted is kept.

    Args:
        checkpoint: A trained model.
        screen: Raw counts; only its control cells are read.
        wanted: Targets with sign and magnitude.
        path: The file.
        n_cells: Cells of each.
        seed: Of each; the cells of one perturbation do not depend on which others are wanted.
        options: How they are generated.
        space: "counts" or "log1p": what the file holds.

    Raises:
        CDTError: A target that the model does not know, or a file that cannot be written; before anything is predicted.
    """
    path = open_output(path)
    for target, sign, _ in wanted:
        asked = check_request(checkpoint, target, sign, None, options.columns.control, options.unseen)
        if len(wanted) > 1 and not asked.sign:
            raise CDTError(f"{target}, sign {sign:+d}: real control cells are written beside several perturbations; "
                           "predict controls alone")
    made: list[ad.AnnData] = []
    written = 0
    try:
        for cells in predict_each(checkpoint, screen, wanted, n_cells=n_cells, seed=seed, options=options):
            made.append(cells)
            if len(made) == written + WRITE_EVERY:
                _write(_joined(made, checkpoint, screen, options, len(wanted) > 1), path, space)
                written = len(made)
            yield cells
    finally:
        if len(made) > written:
            _write(_joined(made, checkpoint, screen, options, len(wanted) > 1), path, space)


def _write(cells: ad.AnnData, path: Path, space: str) -> None:
    write_h5ad(as_log1p(cells) if space == "log1p" else cells, path)


def _joined(made: list[ad.AnnData], checkpoint: Checkpoint, screen: ad.AnnData, options: Generation,
            with_controls: bool) -> ad.AnnData:
    """All predicted cells, and the real controls."""
    if not with_controls:
        return made[0]
    controls, replicate = read_controls(screen, options.columns)
    controls = align_panel(checkpoint, controls, options.align)
    target, sign, batch, *_ = made[0].obs.columns
    obs = pd.DataFrame({target: options.columns.control}, index=controls.obs_names)
    obs[batch] = replicate
    obs[sign] = np.int8(0)
    obs["n_umi"] = dense(controls.X).sum(1)
    obs["beyond_average"] = np.float32(0)
    joined = ad.concat([*made, ad.AnnData(controls.X, obs=obs, var=made[0].var)])
    notes: list[str] = []
    for cells in made:
        notes += cells.uns["cdt_lite"]["notes"]
    facts = dict(made[0].uns["cdt_lite"]) | {"notes": list(dict.fromkeys(notes))}
    for name in ("target", "sign", "magnitude"):  # of each cell now
        del facts[name]
    joined.uns["cdt_lite"] = facts
    return joined
