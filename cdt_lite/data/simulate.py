"""A simulated perturbation screen with planted truth: what every check with a known answer uses.

Genes g, programs m, cells c of type k, perturbations p = (target gene τ, sign). One equation a line:

    u_c = mean_k + PROGRAM_SD eps_c + [c responds] drive_p     the drive of each program
    drive_p = dose_p gain_τ e_m(τ) + STRESS |dose_p| e_0       what p adds; 0 for a null target
    v_c = (I - B)^-1 u_c                                       B: sparse, acyclic network of programs
    h(v) = KAPPA tanh(v / KAPPA)                               saturation; world "linear": h(v) = v
    log rate_cg = base_g + batch_bg + loading_g h(v_c,m(g))    every gene but the target
    log rate_cτ = the same, but drive_p = 0, + magnitude_p ln 2    the target's mRNA is set from outside
    count_cg ~ negative binomial: mean mu = size_c rate_cg, variance mu + dispersion_g mu^2; size_c log-normal

A gene belongs to one program with a signed loading (0 for background genes). Programs vary between control cells, so
co-expression shows a gene's program and loading; gain_τ is the target's loading times about 1.8: the effect of a target
never perturbed can be predicted. Saturation makes effects depend on the cell's state, and knockdown differ from
activation. magnitude_p is the log2 fold change of the target's own mRNA in a responding cell, dose_p = magnitude_p / 2.
Some perturbed cells escape: they behave like controls. Program 0 carries the shift that all effects share. In the world
"unidentifiable" the same effects are dealt out at random: "no better than the mean" is the honest answer. True effects
are integrals over cell types and noise. A pair of targets adds both drives and sets the mRNA of both from outside: its
effect is the sum of both but where a program saturates. World, cells and counts have their own random streams: more
cells or pairs, same world.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from cdt_lite.data.layout import CONTROL, in_layout
from cdt_lite.data.world import N_CELL_TYPES, PROGRAM_SD, Options, Rng, World, plant
from cdt_lite.errors import CDTError, require_between, require_whole, suggest

SIMULATOR_VERSION = "1"  # raise it with any change that alters the cells of a seed
WORLDS = ("regulatory", "linear", "unidentifiable")
DEPTH_SD = 0.5  # of a cell's log size
_BLOCK = 2_000_000  # counts drawn at a time: bounds memory
Cells = dict[str, np.ndarray]


@dataclass(frozen=True)
class ScreenDesign:
    """How a screen is laid out, beside its size."""

    n_batches: int = 3  # replicates, 1 to 10
    null_fraction: float = 0.2  # of targets whose perturbation changes nothing but their own mRNA
    activation_fraction: float = 0.4  # of targets that are activated (sign +1); all others are knocked down (-1)
    both_fraction: float = 0.2  # of targets with both signs, as two perturbations; at most activation_fraction
    unmeasured_fraction: float = 0.1  # of targets outside the panel
    escape_fraction: float = 0.1  # of perturbed cells that do not respond
    control_fraction: float = 0.12  # of the cells
    n_programs: int | None = None  # at most n_genes / 4; None: n_genes / 32, but 4 to 64
    depth: float | None = None  # mean UMI of a control cell in the panel; None: 0.8 n_genes, at most 10,000
    n_pairs: int = 0  # of targets that change something, perturbed together, both by the same sign


def simulate_screen(n_genes: int = 256, n_targets: int = 30, n_cells: int = 12_000, *, seed: int = 0,
                    world: str = "regulatory", design: ScreenDesign = ScreenDesign()) -> AnnData:
    """Makes a screen of simulated cells whose true perturbation effects are known.

    Args:
        n_genes: Measured genes, 16 to 36,601.
        n_targets: Target genes, 1 to n_genes / 2.
        n_cells: Cells, controls included, at least 20 per perturbation.
        seed: The same seed and options give the same cells, byte for byte.
        world: "regulatory" (saturating), "linear", or "unidentifiable" (effects dealt out at random).
        design: What else can be chosen.

    Returns:
        The layout of `load_screen`, more obs columns, and what was planted in uns["truth"] (data/README.md). Raises
        CDTError for an option outside its range.
    """
    size = {"n_genes": n_genes, "n_targets": n_targets, "n_cells": n_cells, "seed": seed, "world": world}
    options = _checked(size | asdict(design))
    planting, drawing, counting = map(np.random.default_rng, np.random.SeedSequence(options["seed"]).spawn(3))
    planted = plant(planting, options)
    cells = _draw_cells(drawing, options, len(planted.members))
    return _assemble(planted, cells, _draw_counts(counting, planted, cells), options)


def _checked(options: Options) -> Options:
    """Fills in the options that follow from others, and refuses what lies outside its range."""
    world = options["world"]
    if world not in WORLDS:
        raise CDTError(f"world must be one of {WORLDS}, not {world!r}{suggest(world, WORLDS)}")
    shares = {"null_fraction": (0, 1), "unmeasured_fraction": (0, 1), "activation_fraction": (0, 1),
              "escape_fraction": (0, 0.99), "control_fraction": (0.01, 0.9)}
    for name, (low, high) in shares.items():
        require_between(name, options[name], low, high)
    require_between("both_fraction", options["both_fraction"], 0, options["activation_fraction"])
    n_genes = options["n_genes"] = require_whole("n_genes", options["n_genes"], 16, 36_601)
    n_targets = options["n_targets"] = require_whole("n_targets", options["n_targets"], 1, n_genes // 2)
    if options["n_programs"] is None:
        options["n_programs"] = min(max(n_genes // 32, 4), 64)
    if options["depth"] is None:
        options["depth"] = min(0.8 * n_genes, 10_000.0)
    require_between("depth", options["depth"], 1, 1e6)
    n_pairs = options["n_pairs"] = require_whole("n_pairs", options["n_pairs"], 0)
    n_labels = n_targets + round(n_targets * options["both_fraction"]) + n_pairs
    whole = {"n_cells": (20 * n_labels, 10**8), "n_programs": (1, n_genes // 4), "n_batches": (1, 10),
             "seed": (0, 2**63 - 1)}
    for name, (low, high) in whole.items():
        options[name] = require_whole(name, options[name], low, high)
    return options


def _draw_cells(rng: Rng, options: Options, n_labels: int) -> Cells:
    """Draws each cell's label (-1: control), batch, type, escape, size and noise, in random order."""
    n = options["n_cells"]
    n_control = max(1, round(options["control_fraction"] * n))
    weights = np.exp(rng.normal(0, 0.35, n_labels).clip(-0.7, 0.7))
    ends = n_control + np.round(np.cumsum(weights) / weights.sum() * (n - n_control))
    label = np.searchsorted(ends, np.arange(n), side="right") - (np.arange(n) < n_control)
    order = rng.permutation(n)
    return {
        "label": label[order],
        "batch": order % options["n_batches"],
        "cell_type": rng.integers(N_CELL_TYPES, size=n),
        "escaped": (rng.random(n) < options["escape_fraction"]) & (label[order] >= 0),
        "size_factor": np.exp(rng.normal(-(DEPTH_SD**2) / 2, DEPTH_SD, n)),
        "noise": PROGRAM_SD * rng.normal(size=(n, options["n_programs"])),
    }


def _draw_counts(rng: Rng, world: World, cells: Cells) -> sp.csr_matrix:
    """Draws counts of the measured genes (gamma, then Poisson), a block of cells at a time."""
    genes = np.flatnonzero(world.measured)
    n = len(cells["label"])
    shape = 1 / world.dispersion[genes]
    blocks = []
    for rows in np.array_split(np.arange(n), n * len(genes) // _BLOCK + 1):
        block = {key: value[rows] for key, value in cells.items()}
        rate = np.exp(_log_rates(world, block)[:, genes])
        # single precision drops the last bits, where processors differ, before anything random is drawn
        mean = np.float32(rate * block["size_factor"][:, None]).astype(np.float64)
        gamma = rng.standard_gamma(np.broadcast_to(shape, mean.shape)) / shape
        blocks.append(sp.csr_matrix(rng.poisson(mean * gamma).astype(np.float32)))
    return sp.vstack(blocks, format="csr")


def _log_rates(world: World, cells: Cells) -> np.ndarray:
    """The equations of the module's docstring for a block of cells, (cells, G), at size 1."""
    label = np.where(cells["escaped"], -1, cells["label"])
    drive = np.vstack([world.drive, np.zeros(len(world.network))])  # label -1 takes the last row: nothing added
    u = world.cell_types[cells["cell_type"]] + cells["noise"]
    before = world.respond(u @ world.mixing.T)
    after = world.respond((u + drive[label]) @ world.mixing.T)
    start = world.base + world.batch_effect[cells["batch"]]
    log_rate = start + world.loading * after[:, world.program]
    for member in np.append(world.members, [[-1, -1]], axis=0)[label].T:
        row = np.flatnonzero(member >= 0)
        gene = world.table["gene"].to_numpy()[member[row]]
        change = world.table["magnitude"].to_numpy()[member[row]] * np.log(2)
        unmoved = world.loading[gene] * before[row, world.program[gene]]
        log_rate[row, gene] = start[row, gene] + unmoved + change
    return log_rate


def _assemble(world: World, cells: Cells, counts: sp.csr_matrix, options: Options) -> AnnData:
    """Puts counts, labels and truth together."""
    table, label = world.perturbations(), cells["label"]
    obs = pd.DataFrame(index=[f"cell_{i + 1:06d}" for i in range(len(label))])
    obs["target_gene"] = np.append(table["target_gene"], CONTROL)[label]  # label -1 takes the last
    obs["batch"] = np.char.add("rep_", (cells["batch"] + 1).astype(str))
    obs["sign"] = np.append(table["sign"], 0)[label]
    magnitude = np.where(table["measured"], table["magnitude"], np.nan)  # as a real panel would
    obs["magnitude"] = np.append(magnitude, 0)[label]
    obs["perturbation"] = pd.Categorical(np.append(table.index, CONTROL)[label])
    obs["escaped"] = cells["escaped"]
    obs["cell_type"] = pd.Categorical(np.char.add("type_", (cells["cell_type"] + 1).astype(str)))
    obs["size_factor"] = np.float32(cells["size_factor"])
    facts = {"name": "simulated", "version": SIMULATOR_VERSION, "options": options, "licence": "BSD-3-Clause",
             "source": "cdt_lite.data.simulate", "attribution": "simulated, no real cells"}
    adata = in_layout(counts, obs, world.names[world.measured], facts)
    adata.uns["truth"] = _truth(world, table, options["escape_fraction"])
    return adata


def _truth(world: World, table: pd.DataFrame, escape: float) -> dict[str, Any]:
    """Everything planted, in a form that an .h5ad file can hold."""
    panel, n_programs = world.measured, len(world.network)
    control = world.expected_rates(np.zeros((1, n_programs)))
    effect = np.log(world.expected_rates(world.drive) / control)
    for member in world.members.T:
        row = np.flatnonzero(member >= 0)
        target = world.table.iloc[member[row]]
        effect[row, target["gene"]] = target["magnitude"] * np.log(2)
    observed = np.log((1 - escape) * np.exp(effect) + escape)  # over all labelled cells
    loadings = np.zeros((len(world.names), n_programs))
    loadings[np.arange(len(loadings)), world.program] = world.loading
    arrays = {
        "effect": effect[:, panel], "effect_observed": observed[:, panel],
        "control_mean": control[0, panel], "dispersion": world.dispersion[panel],
        "drive": world.drive, "cell_type_drive": world.cell_types, "batch_effect": world.batch_effect[:, panel],
        "loadings": loadings[panel], "network": world.network}
    truth = {"perturbations": table, "genes": world.names[panel], "programs": world.programs}
    return truth | {key: np.asarray(value, np.float32) for key, value in arrays.items()}
