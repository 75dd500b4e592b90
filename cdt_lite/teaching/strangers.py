"""Files of strangers, the door that they come through, and a terminal for a notebook."""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from cdt_lite.data.expression import log1p_counts
from cdt_lite.data.layout import CONTROL, Columns
from cdt_lite.data.screens import load_screen
from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.errors import CDTError, CDTWarning

SOME = 2000  # cells of a file that is only looked at
BAR = re.compile(r"(it/s|s/it|\?it)[,\]]")  # a state of a progress bar
MOST_LINES = 14  # of a command, that are shown
SCALED_TO = 10_000.0  # counts a cell, what scanpy's tutorials scale to


def strange_files(screen: AnnData, folder: Path) -> dict[str, AnnData]:
    """Writes three files as strangers send them, and returns what is in them, by name.

    atlas.h5ad: all cells, with (made-up) Ensembl ids, labels of its own, and counts in double precision.
    lognorm.h5ad: some cells, scaled to 10,000 counts and log1p, their counts nowhere.
    both_ways.h5ad: simulated cells of a screen with knockdowns and activations, labelled by guide.

    Args:
        screen: Cells in the layout of `load_screen`.
        folder: Where to write.
    """
    some = screen[np.sort(np.random.default_rng(0).permutation(screen.n_obs)[:SOME])]
    design = ScreenDesign(
        activation_fraction=1.0, both_fraction=0.25, null_fraction=0.0, unmeasured_fraction=0.0
    )
    both = simulate_screen(n_genes=64, n_targets=12, n_cells=SOME, design=design)
    files = {"atlas.h5ad": _atlas(screen), "lognorm.h5ad": _lognorm(some)}
    files["both_ways.h5ad"] = _both_ways(both)
    for name, cells in files.items():
        cells.write_h5ad(folder / name)
    return files


def _atlas(screen: AnnData) -> AnnData:
    target = screen.obs["target_gene"].astype(str).replace(CONTROL, "NT")
    lane = screen.obs["batch"].astype(str)
    obs = pd.DataFrame({"perturbation": target, "lane": lane, "way": screen.obs["sign"]})
    var = pd.DataFrame({"feature_name": screen.var_names.to_numpy(str)})
    var.index = pd.Index([f"ENSG{number:011d}" for number in range(screen.n_vars)])
    return AnnData(screen.X.astype(np.float64), obs=obs, var=var)


def _lognorm(some: AnnData) -> AnnData:
    obs = some.obs[["target_gene", "batch", "sign"]]
    return AnnData(log1p_counts(some.X, SCALED_TO), obs=obs, var=pd.DataFrame(index=some.var_names))


def _both_ways(both: AnnData) -> AnnData:
    guide = both.obs.groupby("target_gene", observed=True).cumcount() % 3 + 1
    name = both.obs["target_gene"].astype(str) + "_sg" + guide.astype(str)
    name = name.where(both.obs["sign"] != 0, CONTROL)
    way = both.obs["sign"].map({-1: "CRISPRi", 0: "none", 1: "CRISPRa"})
    obs = pd.DataFrame({"target_gene": name, "batch": both.obs["batch"].astype(str), "way": way})
    return AnnData(both.X, obs=obs, var=pd.DataFrame(index=both.var_names))


def what_it_holds(files: dict[str, AnnData]) -> pd.DataFrame:
    """Returns what one looks at first in a file of cells: a row a file."""
    rows = {}
    for name, cells in files.items():
        values = sp.csr_matrix(cells.X).data
        whole = bool((values == np.rint(values)).all())
        rows[name] = {"cells": cells.n_obs, "genes": cells.n_vars, "X": str(cells.X.dtype),
                      "largest value": round(float(values.max()), 2), "whole numbers": whole,
                      "first gene": cells.var_names[0], "columns of obs": ", ".join(cells.obs)}
    return pd.DataFrame(rows).T


def knock(path: str | Path, columns: Columns = Columns(), *, layer: str | None = None, default_sign: int = -1,
          n_top_genes: int | None = None) -> AnnData | None:
    """Tries to load a screen, and prints what the package says of it; returns None where it was refused.

    Args:
        path: An .h5ad file.
        columns: Where it keeps its labels.
        layer: Where it keeps its counts; None: X.
        default_sign: Of a file without a column of signs.
        n_top_genes: Size of the panel; None: all genes.
    """
    screen, name = None, Path(path).name
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", CDTWarning)
        try:
            screen = load_screen(path, columns, layer=layer, default_sign=default_sign, n_top_genes=n_top_genes)
        except CDTError as error:
            print(f"{name} was refused: {error}")
    for warning in said:
        if issubclass(warning.category, CDTWarning):
            print(f"{name}, a warning: {warning.message}")
    if screen is not None:
        print(f"{name} was taken: {screen.n_obs:,} cells x {screen.n_vars:,} genes")
    return screen


@dataclass(frozen=True)
class Terminal:
    """Runs the command line inside a folder, in this process, and prints what a terminal would, without the bars."""

    main: Callable[[Sequence[str]], int]  # the entry point of the command line
    folder: Path  # where file names begin

    def run(self, command: str) -> int:
        """Runs one command, "cdt-lite doctor", and returns its exit status."""
        shown = io.StringIO()
        with contextlib.ExitStack() as inside:
            inside.enter_context(contextlib.chdir(self.folder))
            inside.enter_context(contextlib.redirect_stdout(shown))
            inside.enter_context(contextlib.redirect_stderr(shown))
            try:
                status = self.main(command.split()[1:])
            except SystemExit as stop:  # argparse refuses an option so
                status = int(stop.code or 0)
        lines = []
        for line in shown.getvalue().splitlines():
            if line.strip() and not BAR.search(line):
                lines.append(line)
        if len(lines) > MOST_LINES:
            lines[3:-3] = [f"... ({len(lines) - 6} more lines)"]
        print("\n".join([f"$ {command}", *lines]))
        return status
