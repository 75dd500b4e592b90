"""Predictions of many perturbations, in one file that grows while they are made."""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from safetensors.torch import save as save_tensors

from cdt_lite.data.expression import depths
from cdt_lite.data.layout import read_controls, screen_hash
from cdt_lite.errors import CDTError
from cdt_lite.files import locked
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.output import Output, Run
from cdt_lite.training.predict import Generation, Wanted, as_log1p, predict_each
from cdt_lite.training.request import align_panel, check_request


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


def predict_many(checkpoint: Checkpoint, screen: ad.AnnData, wanted: Sequence[Wanted], output: Output, *,
                 n_cells: int = 256, seed: int = 0, options: Generation = Generation(),
                 ) -> Generator[ad.AnnData, None, None]:
    """Predicts perturbations one by one, yields the cells of each, and writes all to one .h5ad file.

    Of several perturbations the file holds the screen's real control cells, too, as the field's tools want it. Each is
    on the disk before it is yielded, and however the loop ends, what was predicted is put into the file.

    Args:
        checkpoint: A trained model.
        screen: Raw counts; only its control cells are read.
        wanted: Targets with sign and magnitude; with `output.resume` those that are there are left out.
        output: The file.
        n_cells: Cells of each.
        seed: Of each; the cells of one perturbation do not depend on which others are wanted.
        options: How they are generated.

    Raises:
        CDTError: A target that the model does not know, a file that cannot be written, or one to go on with that was
            made by another model, seed or setting; before anything is predicted.
    """
    asked: dict[str, Wanted] = {}
    for target, sign, magnitude in wanted:
        request = check_request(checkpoint, target, sign, None, options.columns.control)
        asked.setdefault(f"{request.target} {request.sign:+d}", (target, sign, magnitude))
    controls, digest = _controls(checkpoint, screen, options)
    with locked(output.parts, "predict", "predict"):
        output.begin(_run(checkpoint, asked, options, {"controls": digest, "cells": n_cells, "seed": seed,
                                                       "space": output.space}))
        names = {**dict.fromkeys(output.there), **asked}
        output.total = len(names)
        several = len(names) > 1
        if several and f"{options.columns.control} +0" in names:
            raise CDTError("real control cells are written beside several perturbations; predict controls alone")
        left = {name: one for name, one in asked.items() if name not in output.there}
        made = predict_each(checkpoint, screen, left.values(), n_cells=n_cells, seed=seed, options=options)
        logged = output.space == "log1p"
        try:
            for name, cells in zip(left, made, strict=True):
                output.add(as_log1p(cells) if logged else cells, name)
                yield cells
        finally:
            if logged:
                controls = as_log1p(controls)
            output.close(controls if several else None)


def _run(checkpoint: Checkpoint, asked: Mapping[str, Wanted], options: Generation, more: Mapping[str, Any]) -> Run:
    """What the cells depend on, beside their perturbations."""
    weights = {name: value.cpu().contiguous() for name, value in checkpoint.model.state_dict().items()}
    told = [f"{name}: {size:g}" for name, (_, _, size) in asked.items() if size is not None]
    run = {
        "checkpoint": hashlib.sha256(save_tensors(weights)).hexdigest()[:16],
        "guidance": options.guidance,
        "sampling-steps": options.steps,
        "align": options.align,
        "cells a pass": options.cells_per_pass,
        "magnitude": ", ".join(told) or "not told",
    }
    return {name: str(value) for name, value in {**run, **more}.items()}


def _controls(checkpoint: Checkpoint, screen: ad.AnnData, options: Generation) -> tuple[ad.AnnData, str]:
    """The real control cells as they are written, and their hash."""
    controls, replicate = read_controls(screen, options.columns)
    controls = align_panel(checkpoint, controls, options.align)
    obs = pd.DataFrame({"target_gene": options.columns.control}, index=controls.obs_names)
    obs = obs.assign(sign=np.int8(0), batch=replicate, magnitude=np.float32(0))
    cells = ad.AnnData(controls.X, obs, controls.var[[]])
    digest = screen_hash(cells)[:16]
    n_umi = depths(cells.X).astype(np.float32)
    obs = obs.drop(columns="magnitude").assign(n_umi=n_umi, beyond_average=np.float32(0))
    columns = options.columns
    named = {"target_gene": columns.target, "sign": columns.sign or "sign", "batch": columns.batch or "batch"}
    cells.obs = obs.rename(columns=named)
    cells.uns["cdt_lite"] = {"target_depth": checkpoint.tokenizer.target_depth}
    return cells, digest
