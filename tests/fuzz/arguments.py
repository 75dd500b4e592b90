"""Public functions, called with one or two arguments that are strange: mostly of the right type."""

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from helpers import tiny, toy_screen

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.layout import Columns
from cdt_lite.data.screens import load_screen
from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.data.splits import split_screen
from cdt_lite.data.store import TokenStore
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.evaluation.evaluate import evaluate
from cdt_lite.model.config import DiffusionConfig, ModelConfig, TokenizerConfig, TrainConfig, get_preset
from cdt_lite.model.schedule import cosine_counts, uniform_counts
from cdt_lite.training.effects import effect_table
from cdt_lite.training.gene_vectors import give_vectors, read_gene_vectors
from cdt_lite.training.predict import Generation, as_log1p, predict, predict_mean
from cdt_lite.training.predict_many import perturbations_of, targets_of
from cdt_lite.training.start import start
from cdt_lite.training.train import train

from .verdict import Outcome, judge

SCREEN = toy_screen(n_cells=80, n_genes=8)
WHOLE = [0, -1, 1, 2, 3, 5, 8, 9, 2**31, 2**63, 10**30, -(2**63), True, np.int8(3), np.uint64(4), 2.0, 2.5,
         float("nan")]
REAL = [0.0, -0.0, -1.0, 0.5, 1.0, 3.7, 20.0, 21.0, 1e-300, 1e308, float("nan"), float("inf"), -float("inf"), 10**30, 3,
        np.float32(0.5), True]
TEXT = ["", " ", "G3", "g3", "G3 ", "G5+G3", "G3+G5", "G3+ctrl", "nan", "non-targeting", "Non-Targeting ", "\0", "Ü",
        "G" * 9999, "G99", "$\\frac$", "<img src=x>", "../..", "lite", "vector", "target_gene", "batch", "cpu",
        "cuda:99"]
YES = [True, False, 0, 1, np.bool_(True)]
NAMES = [[], ["G3"], ["G3", "G3"], ["G99"], [""], ["G3", "G5"], ["mae"], ["control"], ["ceiling", "mae"], "G3"]
OTHER = [None, [], {}, "3", b"x", object(), 3 + 2j, np.array([1, 2]), (1,), float("nan")]
KINDS_OF = {"whole": WHOLE, "real": REAL, "text": TEXT, "yes": YES, "names": NAMES}


class Door(NamedTuple):
    """A function, its arguments as they should be with the kind of each, and what is wrong with a result."""

    call: Callable[..., Any]
    good: dict[str, tuple[Any, str]]
    problem: Callable[[Any, dict[str, Any]], str]


def case(rng: np.random.Generator, folder: Path) -> Outcome:
    """Calls a function with strange arguments."""
    if rng.random() < 0.1:
        return _table(rng, folder)
    name = str(rng.choice(list(doors())))
    door = doors()[name]
    given = {key: value for key, (value, _) in door.good.items()}
    for key in rng.choice(list(given), size=min(len(given), int(rng.integers(1, 3))), replace=False).tolist():
        choices = OTHER if rng.random() < 0.01 else KINDS_OF[door.good[key][1]]
        given[key] = choices[rng.integers(len(choices))]
    shown = {key: str(value)[:40] for key, value in given.items()}
    return judge(f"{name} {shown}", lambda: door.call(**given), lambda value: door.problem(value, given))


@cache
def model() -> Any:
    """A model that knows two knockouts."""
    checkpoint = start(tiny(n_genes=8), SCREEN)
    checkpoint.vocabulary = checkpoint.vocabulary.extended(["G3+G5"])
    checkpoint.trained_targets = ["G3", "G5"]
    store = TokenStore.from_adata(SCREEN, checkpoint.tokenizer, checkpoint.vocabulary)
    checkpoint.model.effect.fill(effect_table(store, checkpoint.tokenizer))
    return checkpoint


@cache
def a_file() -> str:
    """The screen in a file, for as long as the process lives."""
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="fuzz-")) / "s.h5ad"
    SCREEN.write_h5ad(path)
    return str(path)


def _predict(function: Any, **given: Any) -> Any:
    options = {name: given.pop(name) for name in list(given) if name in Generation.__annotations__}
    return function(model(), SCREEN, options=Generation(**options), **given)


def _meant(given: dict[str, Any]) -> dict[str, Any]:
    """The same request in plain words."""
    plain = dict(given)
    parts = sorted(part.strip() for part in str(given["target"]).split("+") if part.strip() not in ("ctrl", ""))
    plain["target"] = "+".join(parts)
    if plain["target"].casefold() == "non-targeting":
        plain["target"] = "non-targeting"
    for name in ("sign", "n_cells", "seed", "cells_per_pass"):
        plain[name] = int(given[name])
    return plain


def _cells(cells: Any, given: dict[str, Any]) -> str:
    counts = cells.X.toarray()
    if cells.n_obs != given["n_cells"] or not np.isfinite(counts).all() or (counts < 0).any() or (counts % 1).any():
        return "no counts"
    plain = _meant(given)
    if set(cells.obs["target_gene"]) != {"non-targeting" if plain["sign"] == 0 else plain["target"]}:
        return f"cells of {set(cells.obs['target_gene'])}"
    same = np.array_equal(counts, _predict(predict, **plain).X.toarray())
    return "" if same else "other cells than the same request in plain words gives"


def _mean(mean: Any, given: dict[str, Any]) -> str:
    if mean.shape != (8,) or not np.isfinite(mean).all() or (mean < 0).any():
        return "no mean expression"
    return "" if np.allclose(mean, _predict(predict_mean, **_meant(given))) else "another mean"


def _counts_of(counts: Any, given: dict[str, Any]) -> str:
    size = min(given["n_steps"], given["n_genes"])
    fine = sum(counts) == given["n_genes"] and min(counts) >= 1 and len(counts) == size
    return "" if fine else f"{list(counts)[:9]} does not reveal every gene once"


def _finite(value: Any, _: dict[str, Any]) -> str:
    values = value.X if hasattr(value, "X") else value
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    return "" if np.isfinite(values).all() else "values that are not finite"


def _screen(screen: Any, given: dict[str, Any]) -> str:
    if (screen.X.data % 1).any() or (screen.X.data < 0).any() or not (screen.obs["sign"] == 0).any():
        return "no screen"
    if "n_cells" in given:
        same = screen.shape == (given["n_cells"], given["n_genes"])
        return "" if same else f"a screen of {screen.shape}"
    want = SCREEN.to_df()[list(screen.var_names)].to_numpy()
    return "" if np.array_equal(screen.X.toarray(), want) else "other counts"


def _scores(table: Any, _: dict[str, Any]) -> str:
    known = np.isfinite(table.select_dtypes("number").fillna(0)).all(axis=None)
    return "" if known and np.isfinite(table.attrs["target_depth"]) else "scores that are not finite"


def _tokens(tokenizer: Any, _: dict[str, Any]) -> str:
    bins = np.arange(tokenizer.mask_id, dtype=np.uint8)
    fine = np.array_equal(tokenizer.encode(tokenizer.centres), bins) and (np.diff(tokenizer.edges) > 0).all()
    return "" if fine and np.isfinite(tokenizer.edges).all() else "bins that do not come back"


def _sizes(config: Any, _: dict[str, Any]) -> str:
    for name, default in vars(type(config)()).items():
        value = getattr(config, name)
        if isinstance(default, int) and not isinstance(default, bool) and int(value) != value:
            return f"{name} = {value}"
        if isinstance(default, float) and not np.isfinite(value):
            return f"{name} = {value}"
    return ""


def _batch(batch: Any, given: dict[str, Any]) -> str:
    size = (given["sets_per_batch"], given["cells_per_set"], 8)
    return "" if tuple(batch.tokens.shape) == size and (batch.tokens < 63).all() else f"a batch {batch.tokens.shape}"


def _sampler(index: Any, **given: Any) -> Any:
    checkpoint = model()
    store = TokenStore.from_adata(SCREEN, checkpoint.tokenizer, checkpoint.vocabulary)
    return SetSampler(store, TrainConfig(**given)).batch(index)


def _trained(**given: Any) -> Any:
    config = tiny(n_genes=8)
    checkpoint = start(config, SCREEN)
    store = TokenStore.from_adata(SCREEN, checkpoint.tokenizer, checkpoint.vocabulary)
    steps = train(checkpoint, SetSampler(store, config.finetune), **given)
    return [progress.loss for progress in itertools.islice(steps, 2)]


def _started(**given: Any) -> Any:
    return start(tiny(n_genes=8), SCREEN, **given).model.gene_table.weight.detach()


def _loaded(**given: Any) -> Any:
    columns = {name: given.pop(name) for name in list(given) if name in Columns.__annotations__}
    return load_screen(a_file(), Columns(**columns), **given)


def _simulated(**given: Any) -> Any:
    design = {name: given.pop(name) for name in list(given) if name in ScreenDesign.__annotations__}
    return simulate_screen(**given, design=ScreenDesign(**design))


def _sides(sides: Any, given: dict[str, Any]) -> str:
    want = np.isin(SCREEN.obs["target_gene"], list(given["unseen"]))
    return "" if np.array_equal(sides == "unseen", want) else "other cells are unseen"


def _words(words: Any, given: dict[str, Any]) -> str:
    return "" if list(words.symbols) == [str(name) for name in given["symbols"]] else "other words"


def _scaled(target_depth: Any) -> Any:
    return as_log1p(predict(model(), SCREEN, "G3", n_cells=4), target_depth)


def _tokenizer(target_depth: Any, **given: Any) -> Any:
    return Tokenizer(TokenizerConfig(**given), target_depth)


def _wanted(targets: Any, sign: Any, magnitude: Any) -> Any:
    wanted = perturbations_of(model(), targets_of(targets, None, False), sign, magnitude)
    return [predict(model(), SCREEN, *one, n_cells=2).obs["target_gene"].iloc[0] for one in wanted]


@cache
def doors() -> dict[str, Door]:
    """Every function that is tried."""
    request = {"target": ("G3", "text"), "sign": (-1, "whole"), "magnitude": (None, "real"), "n_cells": (4, "whole"),
               "seed": (0, "whole"), "guidance": (1.0, "real"), "steps": (None, "whole"),
               "align": (False, "yes"), "device": ("cpu", "text"), "cells_per_pass": (64, "whole")}
    train_config = {"sets_per_batch": (2, "whole"), "cells_per_set": (3, "whole"), "controls_per_set": (4, "whole"),
                    "target_dropout": (0.1, "real"), "control_share": (0.1, "real"), "seed": (0, "whole"),
                    "learning_rate": (1e-3, "real"), "weight_decay": (0.1, "real"), "controls_dropout": (0.1, "real")}
    counts = {"n_genes": (8, "whole"), "n_steps": (3, "whole")}
    columns = {"target": ("target_gene", "text"), "batch": ("batch", "text"), "control": ("non-targeting", "text"),
               "sign": ("sign", "text"), "magnitude": ("magnitude", "text"), "n_top_genes": (8, "whole"),
               "default_sign": (-1, "whole"), "layer": (None, "text")}
    simulated = {"n_genes": (16, "whole"), "n_targets": (2, "whole"), "n_cells": (60, "whole"), "seed": (0, "whole"),
                 "world": ("linear", "text"), "n_batches": (2, "whole"), "escape_fraction": (0.1, "real"),
                 "null_fraction": (0.0, "real"), "depth": (50.0, "real"), "control_fraction": (0.3, "real"),
                 "n_programs": (2, "whole"), "unmeasured_fraction": (0.0, "real")}
    bins = {"space": ("counts", "text"), "n_bins": (63, "whole"), "n_exact": (40, "whole"), "lowest": (0.1, "real"),
            "highest": (1e4, "real"), "target_depth": (50.0, "real")}
    sizes = {name: (value, "whole") for name, value in vars(tiny().model).items() if isinstance(value, int)}
    scored = {"metrics": (["mae"], "names"), "baselines": (["control"], "names"), "target_depth": (50.0, "real"),
              "seed": (0, "whole")}
    return {
        "predict": Door(lambda **given: _predict(predict, **given), request, _cells),
        "predict_mean": Door(lambda **given: _predict(predict_mean, **given), request, _mean),
        "cosine_counts": Door(cosine_counts, counts, _counts_of),
        "uniform_counts": Door(uniform_counts, counts, _counts_of),
        "load_screen": Door(_loaded, columns, _screen),
        "simulate_screen": Door(_simulated, simulated, _screen),
        "Tokenizer": Door(_tokenizer, bins, _tokens),
        "ModelConfig": Door(ModelConfig, sizes, _sizes),
        "DiffusionConfig": Door(DiffusionConfig, {"sampling_steps": (3, "whole"), "sampling_schedule": (
            "cosine", "text")}, _sizes),
        "SetSampler": Door(_sampler, {**train_config, "index": (0, "whole")}, _batch),
        "train": Door(_trained, {"steps": (1, "whole"), "device": ("cpu", "text")}, _finite),
        "start": Door(_started, {"seed": (0, "whole")}, _finite),
        "evaluate": Door(lambda **given: evaluate(SCREEN, None, **given), scored, _scores),
        "split_screen": Door(lambda **given: split_screen(SCREEN, **given), {"unseen": (["G3"], "names")}, _sides),
        "Vocabulary": Door(Vocabulary, {"symbols": (["G3"], "names"), "capacity": (9, "whole")}, _words),
        "as_log1p": Door(_scaled, {"target_depth": (50.0, "real")}, _finite),
        "targets": Door(_wanted, {"targets": (["G3"], "names"), "sign": (-1, "whole"), "magnitude": (-1.0, "real")},
                        lambda names, given: "" if set(names) <= {*given["targets"], "non-targeting"} else str(names)),
        "get_preset": Door(get_preset, {"name": ("lite", "text")}, lambda preset, given: "" if preset.name == given[
            "name"] else "another preset"),
    }


def _table(rng: np.random.Generator, folder: Path) -> Outcome:
    """A file of gene vectors with bytes changed: what is read becomes rows of the gene table."""
    values = np.random.default_rng(0).normal(size=(8, 3)).round(3)
    table = pd.DataFrame(values, index=["nan", "NA", *SCREEN.var_names[2:]])
    separator = str(rng.choice([",", ";", "\t"]))
    table.to_csv(folder / "v.csv", sep=separator, decimal="," if separator == ";" else ".")
    content = bytearray((folder / "v.csv").read_bytes())
    for _ in range(rng.integers(0, 4)):
        content[rng.integers(len(content))] = int(rng.choice([0, 10, 13, 34, 44, 46, 59, 9, 45, 48, 65, 101, 200, 255]))
    (folder / "v.csv").write_bytes(content)

    def act() -> Any:
        found = read_gene_vectors(folder / "v.csv")
        give_vectors(start(tiny(n_genes=8), SCREEN), found)
        return found

    def problem(found: pd.DataFrame) -> str:
        n_lines = max(len(content.decode("utf-8-sig").split()), content.count(b"\r") + content.count(b"\n"))
        if found.index.has_duplicates or not np.isfinite(found.to_numpy()).all():
            return "no table of vectors"
        return "" if len(found) <= n_lines else "more genes than lines"

    return judge(f"gene vectors {bytes(content)[:60]}", act, problem)
