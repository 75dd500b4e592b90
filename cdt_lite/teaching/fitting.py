"""What does not fit, and what makes it fit: bytes of cells, peaks of memory, rows and products a second."""

import json
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.store import TokenStore
from cdt_lite.figures import accounting
from cdt_lite.teaching.sentences import listed, number
from cdt_lite.teaching.together import faster
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.loop import loss_of_step

GB = 1e9
PRODUCTS = 8  # that are timed together
KEPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.json"


def lighter(sizes: pd.Series, density: float) -> str:
    """Says what cells weigh in each form, and which is the lightest.

    Args:
        sizes: Bytes, by form; the last are tokens.
        density: Share of counts above 0.
    """
    told = listed([f"{size / GB:.1f} GB as {form}" for form, size in sizes.sort_values().items()])
    best = sizes.idxmin()
    return (f"A million cells x 2,000 genes: {told}, with {density:.0%} of the counts above 0. Here {best} are the "
            "lightest. (Where fewer than an eighth are above 0, sparse counts weigh less than tokens.)")


def piled(cells: AnnData, n: int, path: Path) -> AnnData:
    """Writes a file of n cells, a screen's again and again, and opens it without reading it ("backed").

    Args:
        cells: A screen's.
        n: How many.
        path: Of the .h5ad file.
    """
    labels = cells.obs[["target_gene", "batch", "sign", "magnitude"]].iloc[np.arange(n) % cells.n_obs]
    labels.index = pd.Index([f"cell{i}" for i in range(n)])
    AnnData(cells.X[np.arange(n) % cells.n_obs], obs=labels, var=cells.var[[]]).write_h5ad(path)
    return ad.read_h5ad(path, backed="r")


@contextmanager
def peak(of: dict[str, int], name: str) -> Iterator[None]:
    """Notes, under a name, the most bytes that Python and NumPy held at once for what a block does."""
    tracemalloc.start()
    try:
        yield
        of[name] = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peaks(cells: AnnData, sizes: Sequence[int], network: Checkpoint, folder: Path) -> pd.DataFrame:
    """Measures the peak of memory, bytes, while cells become float64 counts, tokens in memory, and tokens on disk.

    Args:
        cells: A screen's, piled up.
        sizes: Numbers of cells.
        network: Its bins and its vocabulary.
        folder: Where files are written.
    """
    rows = {}
    for n in sizes:
        file = piled(cells, n, folder / f"{n}.h5ad")
        row: dict[str, int] = {}
        with peak(row, "float64 counts"):
            file.X[:].toarray().astype(np.float64)
        with peak(row, "tokens in memory"):
            TokenStore.from_adata(file, network.tokenizer, network.vocabulary)
        with peak(row, "tokens on disk"):
            TokenStore.from_adata(file, network.tokenizer, network.vocabulary, path=folder / f"{n} cells")
        rows[n] = row
        file.file.close()
    return pd.DataFrame(rows).T.rename_axis("cells")


def grows(found: pd.DataFrame) -> str:
    """Says how peaks of memory grow with the cells, where a straight line puts a million, and which is then least.

    Args:
        found: From `peaks`.
    """
    first, last = found.index[0], found.index[-1]
    told, at_a_million = [], {}
    for form, column in found.items():
        slope = (column[last] - column[first]) / (last - first)
        at_a_million[form] = column[last] + slope * (10**6 - last)
        told.append(f"{slope:,.0f} bytes as {form} ({at_a_million[form] / GB:.2f} GB)")
    least = f", the least as {min(at_a_million, key=at_a_million.__getitem__)}" if len(told) > 1 else ""
    return ("One cell more takes, where memory is at its peak (in brackets a million, with the block in work), "
            f"{listed(told)}{least}.")


def rows_a_second(sampler: SetSampler, n_batches: int) -> pd.Series:
    """Measures how many rows a second are drawn and read by the sampler, read alone, and read by plain indexing.

    All three are timed in turn, batch by batch, so that what else the machine does hurts them alike; over all batches,
    since some are planned for those that follow, too. What is read by plain indexing are the rows of another batch: as
    many, and as far from each other.
    """
    tokens = sampler.stores[0].tokens
    seconds, n_rows = np.zeros(3), 0
    for index in range(n_batches):
        other = sampler.plan(n_batches + index)
        rows = np.concatenate([part.ravel() for part in (other.cells, other.controls) if part is not None])
        began = time.perf_counter()
        plan = sampler.plan(index)
        planned = time.perf_counter()
        sampler.gather(plan)
        read = time.perf_counter()
        tokens[rows]
        seconds += read - began, read - planned, time.perf_counter() - read
        n_rows += len(rows)
    names = ["drawn and read", "read", "a plain gather"]
    return pd.Series(n_rows / seconds, names, name="rows a second")


def as_fast(rates: pd.Series, n_genes: int, wanted: int | float) -> str:
    """Says how fast rows of `n_genes` bytes are drawn and read, beside a plain gather and the bytes that a card wants.

    Args:
        rates: From `rows_a_second`.
        n_genes: Bytes of a row.
        wanted: Bytes a second.
    """
    drawn, read, plain = rates
    enough = "enough" if drawn * n_genes >= wanted else "too slow"
    return (f"Drawn and read: {drawn / 1e6:.1f} million rows a second, {drawn / plain:.0%} of a plain gather's "
            f"{plain / 1e6:.1f}; read alone {read / 1e6:.1f} ({read / plain:.0%}), so drawing takes "
            f"{1 - drawn / read:.0%} of the time. That is {drawn * n_genes / GB:.2f} GB a second; a card wants "
            f"{wanted / GB:.2f} at most: {enough}.")


def pace(network: Checkpoint, data: SetSampler, n: int, device: str = "cpu") -> pd.DataFrame:
    """Times a training step (forward and back) and a matrix product of its own size in turn; operations a second.

    On a CPU seconds are those that its cores were at work for this: other programs do not count.

    Args:
        network: The model.
        data: Its batches, all with controls.
        n: Times; a row each.
        device: Where.
    """
    c, stage = network.config, data.config
    model = network.model.to(device).train()
    size = {"n_genes": len(data.stores[0].gene_ids), "n_controls": stage.controls_per_set,
            "cells_per_set": stage.cells_per_set, "n_sets": stage.sets_per_batch}
    step = accounting.training_flops(accounting.products(c, **size))
    rows, width, wide = stage.batch_size * size["n_genes"], c.model.dim, c.model.ffn_mult * c.model.dim
    kind = torch.bfloat16 if stage.in_half(device) else torch.float32
    left = torch.randn(rows, width, device=device, dtype=kind)
    right = torch.randn(width, wide, device=device, dtype=kind)
    found = []
    for index in range(n + 1):
        began = _now(device)
        loss_of_step(network, data, index, device).backward()
        stepped = _now(device)
        for _ in range(PRODUCTS):
            torch.matmul(left, right)
        done = _now(device)
        model.zero_grad(set_to_none=True)
        products = 2 * rows * width * wide * PRODUCTS
        found.append({"a step": step / (stepped - began), "a matrix product": products / (done - stepped)})
    model.to("cpu")
    return pd.DataFrame(found[1:])  # the first of each warms up


def _now(device: str) -> float:
    """The time: of the cores at work for this, or of the clock once a GPU has done all that it was asked."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def used(found: pd.DataFrame, name: str) -> str:
    """Says how much of what its matrix products could do a processor does in a step.

    Args:
        found: From `pace`.
        name: Of the processor, at the start of the sentence.
    """
    step, product = found.median()
    return (f"{name} does {product / GB:,.0f} billion operations a second in matrix products and {step / GB:,.0f} in a "
            f"training step, {step / product:.0%} of them (medians of {len(found)}, in turn).")


def on_a_card(device: str, kept: Path = KEPT) -> str:
    """Says what a card did in a step of v1 with 32 cells, where that was measured and kept, and else that it was not.

    Args:
        device: Of this notebook.
        kept: What `benchmarks/gpu.py` writes.
    """
    if kept.is_file():
        found = json.loads(kept.read_text(encoding="utf-8"))
        of_v1 = [run for run in found["runs"] if (run["preset"], run["cells"]) == ("v1", 32)]
        best = min(of_v1, key=lambda run: run["step_s"])
        return (f"Measured on a GPU, {found['card']}: a step of v1 with 32 cells takes {1e3 * best['step_s']:.0f} ms, "
                f"which is {best['mfu_of_product']:.0%} of what its matrix products reach.")
    if device == "cuda":
        return "Of the cards above only limits are known; this notebook's own GPU is the one that was measured."
    return "Of the cards above only limits are known: unmeasured on a GPU."


def fits_on(need: int | float, cards: pd.Series, what: str) -> str:
    """Says which cards hold what a training step needs.

    Args:
        need: Bytes.
        cards: Memory, GB, by name.
        what: That is to fit.
    """
    fit = cards.index[cards * GB >= need].tolist()
    rest = cards.index.drop(fit).tolist()
    if not fit:
        return f"{what} needs {need / GB:.1f} GB: none of the cards has that."
    small = f"; too small: {listed(rest)}" if rest else ""
    return f"{what} needs {need / GB:.1f} GB. Large enough: {listed(fit)}{small}."


def pays(held: pd.Series) -> str:
    """Says what eight processes save of the memory of v1's step, by sharing its cells and by shards.

    Args:
        held: Gigabytes of a process: one alone, one of eight copies, one of eight shards.
    """
    alone, copies, shards = held
    return (f"Eight processes that share v1's batch need {copies:.1f} GB each instead of {alone:.1f}, in the "
            f"same training; shards take off {number(copies - shards, 1)} more.")


def fits_after_all(sizes: pd.Series, rates: pd.Series, alike: bool, seconds: Sequence[float], held: pd.Series) -> str:
    """Answers the title's question: what each remedy brought here, and what it costs.

    Args:
        sizes: Bytes of a million cells x 2,000 genes: the last as tokens.
        rates: From `rows_a_second`.
        alike: Whether several processes made the model of one.
        seconds: Of a step alone, and with two.
        held: As for `pays`.
    """
    drawn, read, plain = rates
    others = listed([f"{form} {size / GB:.1f}" for form, size in sizes.iloc[:-1].sort_values().items()])
    one, two = (f"{1e3 * each:.0f}" for each in seconds)
    return (f"Cells go to disk as tokens: {sizes.iloc[-1] / GB:.1f} GB for a million x 2,000 genes ({others}), drawn "
            f"and read at {drawn / plain:.0%} of the pace of a plain gather, read alone at {read / plain:.0%}. Two "
            f"processes {'made' if alike else 'did not make'} the model of one; here they were {faster(*seconds)} "
            f"({two} ms a step against {one}). {pays(held)}")
