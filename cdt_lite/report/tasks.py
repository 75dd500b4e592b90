"""The report on a screen's named split: every method in one table, on every task of the series, in one call.

Task 1: seen perturbations in a replicate that was held out. Task 2, or 3 on a simulated screen: perturbations that were
never seen, those whose gene the panel measures apart. Task 4: whether generated cells look real (`quality`). The rivals
of a discrimination score are all perturbations of the test side, of whose cells no training has seen any.
"""

import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from cdt_lite import __version__
from cdt_lite.data.expression import dense
from cdt_lite.data.splits import named_split
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.evaluation.baselines import rival_cells
from cdt_lite.evaluation.evaluate import Changes, control_halves, evaluate
from cdt_lite.report.quality import NegativeBinomial, Sides, bits_per_gene, likeness
from cdt_lite.training.changes import mean_changes, sampled_cells, table_changes, wanted_cells, with_clean_table
from cdt_lite.training.checkpoint import Checkpoint, read_verified

CONTROL = "non-targeting"
CELLS, CHANGE, TOLD = "capsule", "capsule, change", "capsule, change, magnitude told"
AVERAGE = "capsule, change, as the average"  # an unseen target of the panel, without what its co-expression suggests
TABLE = "table alone"  # what the network is told of mean effects, before it says anything itself
Models = list[tuple[Checkpoint, dict[str, Any]]]


@dataclass
class Report:
    """What `report_tasks` found.

    Attributes:
        facts: Screen, split, checkpoints, seeds, versions, seconds.
        tables: For every task one row per method, perturbation and seed, from `evaluate`, with columns seed, measured.
        quality: Task 4: bits per gene, the H curve, statistics.
        notes: For every task why numbers are missing from its table, as `evaluate` says it.
        cells: For every task the real cells, and the sampled ones of the first run beside those of simple rivals.
    """

    facts: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    cells: dict[str, tuple[AnnData, dict[str, AnnData]]] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)


def load_models(checkpoints: Checkpoint | str | Path | Sequence[Checkpoint | str | Path]) -> Models:
    """Loads checkpoints given by folder, and says what each of them is."""
    many = [checkpoints] if isinstance(checkpoints, Checkpoint | str | Path) else list(checkpoints)
    out = []
    for one in many:
        model = one if isinstance(one, Checkpoint) else Checkpoint.load(one)
        about: dict[str, Any] = {"preset": model.config.name, "stage": model.stage, "seed": model.seed}
        if not isinstance(one, Checkpoint):
            about |= {"name": Path(one).name, "sha256": read_verified(Path(one))[0]["sha256"]}
        out.append((model, about))
    if not out:
        raise CDTError("no checkpoint to report on")
    return out


def check_split(checkpoint: Checkpoint, screen: AnnData, side: np.ndarray) -> str:
    """Refuses a model that was trained on what it will be tested on; returns how far that could be verified.

    Raises:
        CDTError: A test perturbation, or a held-out replicate of one, was in its training; the message names it.
    """
    names, batch = (screen.obs[key].astype(str).to_numpy() for key in ("target_gene", "batch"))
    if leaked := sorted(set(names[side == "unseen"]) & set(checkpoint.trained_targets)):
        raise CDTError(f"the checkpoint was trained on perturbations of {leaked}, withheld as unseen in this split; "
                       "evaluate a model trained on the training side of named_split(screen)")
    pairs = {f"{t} in {b}" for t, b in zip(names[side == "held_out"], batch[side == "held_out"], strict=True)}
    if "held_out" in checkpoint.card and (leaked := sorted(pairs - set(checkpoint.card["held_out"]))):
        raise CDTError(f"the checkpoint did not withhold {leaked}, which this split tests as held-out replicates")
    train = TokenStore.from_adata(screen[side == "train"], checkpoint.tokenizer, checkpoint.vocabulary)
    if train.digest() in checkpoint.card.get("data", []):
        return "hash of its training cells is that of this split"
    return "by the names on its card only" if "held_out" in checkpoint.card else "not: its card names no training cells"


def report_tasks(screen: AnnData, checkpoints: Checkpoint | str | Path | Sequence[Checkpoint | str | Path], *,
                 seeds: Sequence[int] = (0, 1, 2), n_cells: int = 256, others: Mapping[str, AnnData] | None = None,
                 say: Callable[[str], None] = lambda line: None) -> Report:
    """Reports tasks 1 to 4 for a model on its screen's named split.

    Args:
        screen: Raw counts, in the layout of `load_screen`.
        checkpoints: A trained model, or its folder; several: training seeds of one recipe.
        seeds: With one model: sampling seeds, each with its own split of the controls. With several models each gets
            one sampling seed, in turn, and what varies is the training seed.
        n_cells: Cells that the model samples of every perturbation and seed. Means of the table come without sampling
            noise from the one-step rows ("change"); those of the sampled cells carry the noise of so many cells.
        others: Predictions of other methods by name.
        say: Is told what is going on.

    Raises:
        CDTError: A test perturbation was in training, or the screen does not fit the model.
    """
    began, side, models = time.perf_counter(), named_split(screen), load_models(checkpoints)
    verified = [check_split(model, screen, side) for model, _ in models]
    runs = ([(models[0][0], seed) for seed in seeds] if len(models) == 1
            else [(model, seeds[i % len(seeds)]) for i, (model, _) in enumerate(models)])
    report = Report(_facts(screen, side, models, verified, list(seeds), n_cells))
    train, unseen_task = screen[side == "train"].copy(), 3 if "truth" in screen.uns else 2
    for task, tested in (("task 1: seen perturbations, held-out replicate", "held_out"),
                         (f"task {unseen_task}: unseen perturbations", "unseen")):
        if (side == tested).any():
            real, wanted = _test_cells(screen, side, tested), wanted_cells(screen[side == tested])
            rows, notes = [], report.notes.setdefault(task, [])
            for i, (model, seed) in enumerate(runs):
                say(f"{task}: {len(set(wanted.index.droplevel(2)))} perturbations, run {i + 1} of {len(runs)}")
                told = with_clean_table(model, train, control_halves(real, seed=seed)[0])
                predicted, cells = _predictions(told, real, wanted, n_cells, seed, others or {})
                scored = _scored(real, predicted, train, told, seed, tested == "unseen")
                if i == 0:
                    asked = list(dict.fromkeys((str(t), int(s)) for t, s, _ in wanted.index))
                    report.cells[task] = real, {CELLS: cells} | rival_cells(train, asked, n_cells, seed)
                notes += [note for note in scored.attrs["notes"] if note not in notes]
                rows.append(scored.assign(seed=i))
                if tested == "held_out" and i == 0:
                    report.quality = _quality(model, train, screen[side == tested].copy(), cells, seed)
            table = pd.concat(rows, ignore_index=True)
            report.tables[task] = table.assign(
                measured=table["target"].isin(screen.var_names), null=_null(screen, table))
    report.facts["seconds"] = round(time.perf_counter() - began)
    return report


def _null(screen: AnnData, table: pd.DataFrame) -> np.ndarray:
    """Marks targets whose perturbation changes nothing: planted ones, or those of which the real cells show no gene."""
    if "truth" not in screen.uns:
        return (table.groupby(["target", "sign"])["n_changed"].transform("max") < 1).to_numpy()
    planted = pd.DataFrame(screen.uns["truth"]["perturbations"])
    keys = set(zip(planted["target_gene"][planted["null"]], planted["sign"][planted["null"]], strict=True))
    return np.array([key in keys for key in zip(table["target"], table["sign"], strict=True)])


def _test_cells(screen: AnnData, side: np.ndarray, tested: str) -> AnnData:
    """The test side in the replicates of the tested cells, and their controls."""
    batches = set(screen.obs["batch"][side == tested])
    here = screen.obs["batch"].isin(batches).to_numpy()
    control = (screen.obs["target_gene"] == CONTROL).to_numpy()
    return screen[here & ((side != "train") | control)].copy()


def _predictions(model: Checkpoint, real: AnnData, wanted: pd.Series, n_cells: int, seed: int,
                 others: Mapping[str, AnnData]) -> tuple[dict[str, Any], AnnData]:
    controls = control_halves(real, seed=seed)[1].copy()
    magnitudes = real.obs.groupby(["target_gene", "sign", "batch"], observed=True)["magnitude"].first()
    n_mean = max(16, n_cells // 2)  # of each replicate: the same draws stand in both means, so few are enough
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a measured magnitude may point against its sign, or be large
        cells = sampled_cells(model, controls, wanted, n_cells, seed)
        predicted: dict[str, Any] = {
            CELLS: cells, CHANGE: Changes(mean_changes(model, controls, wanted, n_mean, seed))}
        more = {TOLD: mean_changes(model, controls, wanted, n_mean, seed, magnitudes),
                AVERAGE: mean_changes(model, controls, wanted, n_mean, seed, unseen="average"),
                TABLE: table_changes(model, wanted)}
    predicted |= {name: Changes(changes) for name, changes in more.items() if len(changes)}
    keys = set(wanted.index.droplevel(2))
    for name, other in others.items():
        pairs = zip(other.obs["target_gene"].astype(str), other.obs["sign"].astype(int), strict=True)
        chosen = np.array([pair in keys for pair in pairs])
        if chosen.any():
            predicted[name] = other[chosen]
    return predicted, cells


def _scored(real: AnnData, predicted: dict[str, Any], train: AnnData, model: Checkpoint, seed: int, unseen: bool
            ) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the report keeps the notes
        return evaluate(real, predicted, train=train, target_depth=model.tokenizer.target_depth, seed=seed,
                        unseen=unseen)


def _quality(model: Checkpoint, train: AnnData, held_out: AnnData, cells: AnnData, seed: int) -> dict[str, Any]:
    bits, curve = bits_per_gene(model, train, held_out, seed=seed)
    sides, rng = Sides(train, held_out), np.random.default_rng(seed)
    counts, _, label, _ = sides.arrays(train)
    _, _, told, where = sides.arrays(held_out)
    controls = train[(train.obs["target_gene"] == CONTROL).to_numpy()]
    depths, batch = dense(controls.X).sum(1), controls.obs["batch"].astype(str).to_numpy()
    depth = np.array([rng.choice(depths[batch == b]) for b in where])  # what the capsule knows of it, too
    alone = AnnData(NegativeBinomial(counts, label).draw(depth, told, rng), obs=held_out.obs, var=held_out.var)
    return {"bits": bits, "curve": curve, "likeness": likeness(
        held_out, {CELLS: cells, "negative binomial, condition": alone}, model.tokenizer.target_depth, seed=seed)}


def _facts(screen: AnnData, side: np.ndarray, models: Models, verified: list[str], seeds: list[int], n_cells: int
           ) -> dict[str, Any]:
    about = {k: str(v) for k, v in dict(screen.uns.get("screen", {})).items() if k in ("name", "version", "sha256")}
    options = dict(dict(screen.uns.get("screen", {})).get("options", {}))
    obs = screen.obs
    pairs = sorted({f"{t} in {b}" for t, b in zip(obs["target_gene"][side == "held_out"],
                                                  obs["batch"][side == "held_out"], strict=True)})
    return {
        "screen": about | ({"options": {k: str(v) for k, v in options.items()}} if options else {}),
        "split": {"name": f"named_split({about.get('name', 'screen')})", "held_out": pairs,
                  "unseen": sorted(set(obs["target_gene"][side == "unseen"].astype(str)))},
        "checkpoints": [a | {"split_verified": how} for (_, a), how in zip(models, verified, strict=True)],
        "seeds": seeds, "seeds_are": "sampling seeds of one trained model, each with its own split of the controls"
        if len(models) == 1 else "training seeds", "cells_per_perturbation": n_cells,
        "versions": {"cdt_lite": __version__, "python": platform.python_version(),
                     **{p: version(p) for p in ("torch", "numpy", "scipy", "anndata")}}}
