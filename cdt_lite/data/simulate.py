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
are integrals over cell types and noise. World, cells and counts have their own random streams: more cells, same world.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from cdt_lite.data.layout import CONTROL, in_layout
from cdt_lite.errors import CDTError, require_between, require_whole, suggest

SIMULATOR_VERSION = "1"  # raise it with any change that alters the cells of a seed
WORLDS = ("regulatory", "linear", "unidentifiable")
KAPPA, STRESS = 1.5, 0.2  # where a program's response saturates; drive of program 0 per unit of |dose|
N_CELL_TYPES, TYPE_SD, PROGRAM_SD = 3, 0.5, 0.6  # types, equally common; spread of drives between and within them
BACKGROUND, DISPERSION = 0.3, 0.5  # share of genes in no program; median negative-binomial dispersion of a gene
DEPTH_SD, BATCH_SD = 0.5, 0.12  # of a cell's log size; of a gene's batch effect and a batch's depth, natural log
GAIN = 1.8  # an effect moves its program's genes by about half a natural log unit, as a strong knockout does
_BLOCK = 2_000_000  # counts drawn at a time: bounds memory
Rng = np.random.Generator
Options = dict[str, Any]
Cells = dict[str, np.ndarray]
_NODES, _MASSES = np.polynomial.hermite_e.hermegauss(24)


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


@dataclass(frozen=True)
class World:
    """What is planted before a cell is drawn: G genes (unmeasured too), M programs, P perturbations."""

    kind: str
    names: np.ndarray  # (G,)
    measured: np.ndarray  # (G,) bool: in the panel
    program: np.ndarray  # (G,)
    loading: np.ndarray  # (G,)
    base: np.ndarray  # (G,) log rate at zero drive
    dispersion: np.ndarray  # (G,)
    network: np.ndarray  # (M, M) B: the row's program answers to the column's
    cell_types: np.ndarray  # (K, M) mean drives
    batch_effect: np.ndarray  # (batches, G) natural log
    table: pd.DataFrame  # P rows: gene (index), sign, magnitude, null, program (index), gain

    @property
    def mixing(self) -> np.ndarray:
        """(I - B)^-1, (M, M): the settled activity of every program per unit of drive."""
        return np.linalg.inv(np.eye(len(self.network)) - self.network)

    @property
    def drive(self) -> np.ndarray:
        """What each perturbation adds to the programs of a cell that responds, (P, M)."""
        dose = np.where(self.table["null"], 0.0, self.table["magnitude"] / 2)
        drive = np.zeros((len(dose), len(self.network)))
        drive[np.arange(len(dose)), self.table["program"]] = dose * self.table["gain"]
        drive[:, 0] += STRESS * np.abs(dose)
        return drive

    def respond(self, v: np.ndarray) -> np.ndarray:
        """The log response h(v) of a gene of loading 1 to program activity v."""
        return v if self.kind == "linear" else KAPPA * np.tanh(v / KAPPA)

    def expected_rates(self, drive: np.ndarray) -> np.ndarray:
        """Mean rate of each gene over cell types and noise, size 1, no batch effect: (P, M) -> (P, G)."""
        sd = PROGRAM_SD * np.sqrt((self.mixing**2).sum(1))
        rates = np.zeros((len(drive), len(self.names)))
        for mean in self.cell_types:
            centre = (mean + drive) @ self.mixing.T
            for node, mass in zip(_NODES, _MASSES / _MASSES.sum(), strict=True):
                response = self.respond(centre + node * sd)[:, self.program]
                rates += mass * np.exp(self.loading * response)
        return rates * np.exp(self.base) / len(self.cell_types)


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
    planted = _plant(planting, options)
    cells = _draw_cells(drawing, options, len(planted.table))
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
    n_labels = n_targets + round(n_targets * options["both_fraction"])
    whole = {"n_cells": (20 * n_labels, 10**8), "n_programs": (1, n_genes // 4), "n_batches": (1, 10),
             "seed": (0, 2**63 - 1)}
    for name, (low, high) in whole.items():
        options[name] = require_whole(name, options[name], low, high)
    return options


def _plant(rng: Rng, options: Options) -> World:
    """Draws network, loadings, targets and batch effects; scales the rates to the asked depth."""
    n_unmeasured = round(options["n_targets"] * options["unmeasured_fraction"])
    n, m, n_batches = options["n_genes"] + n_unmeasured, options["n_programs"], options["n_batches"]
    program = rng.permutation(np.arange(n) % m)
    loading = rng.uniform(0.4, 1.0, n) * np.where(rng.random(n) < 0.7, 1, -1)
    loading[rng.permutation(n)[: round(BACKGROUND * n)]] = 0.0
    base = rng.normal(0.0, 1.5, n)
    table = _plant_targets(rng, options, program, loading, base)
    measured = ~np.isin(np.arange(n), rng.permutation(table["gene"].unique())[:n_unmeasured])
    batch_effect = BATCH_SD * (rng.normal(size=(n_batches, n)) + rng.normal(size=(n_batches, 1)))
    network, order = np.zeros((m, m)), rng.permutation(m)
    # a program answers to one or two of those before it: no cycle, so activity settles
    for place in range(1, m):
        parents = rng.permutation(order[:place])[: rng.integers(1, 3)]
        weights = rng.choice([-1, 1], len(parents)) * rng.uniform(0.3, 0.6, len(parents))
        network[order[place], parents] = weights
    names = np.array([f"SIM{i + 1:05d}" for i in range(n)])
    dispersion = DISPERSION * np.exp(rng.normal(0, 0.5, n))
    cell_types = rng.normal(0, TYPE_SD, (N_CELL_TYPES, m))
    world = World(options["world"], names, measured, program, loading, base, dispersion, network, cell_types,
                  batch_effect, table)
    total = world.expected_rates(np.zeros((1, m)))[0, world.measured].sum()
    return replace(world, base=base + np.log(options["depth"] / total))


def _plant_targets(rng: Rng, options: Options, program: np.ndarray, loading: np.ndarray, base: np.ndarray
                   ) -> pd.DataFrame:
    """Chooses well expressed targets: nulls among background genes if they suffice, others in programs."""
    n = options["n_targets"]
    n_null = round(n * options["null_fraction"])
    n_both = round(n * options["both_fraction"])
    n_active = round(n * options["activation_fraction"])
    ranked = np.argsort(-base)
    members = ranked[loading[ranked] != 0]
    effective = rng.permutation(members[: max(n - n_null, len(members) // 2)])[: n - n_null]
    rest = np.concatenate([ranked[loading[ranked] == 0], np.setdiff1d(members, effective)])
    null = rng.permutation(rest[: max(n_null, round(BACKGROUND * len(base)) // 2)])[:n_null]
    gene = np.concatenate([effective, null])
    gain = GAIN * np.exp(rng.normal(0, 0.2, n)) * loading[gene]
    is_null = np.isin(gene, null)
    table = pd.DataFrame({"gene": gene, "null": is_null, "program": program[gene], "gain": gain})
    if options["world"] == "unidentifiable":
        table["gene"] = rng.permutation(gene)
    table = table.iloc[rng.permutation(n)]
    down = pd.concat([table[:n_both], table[n_active:]])
    up = table[:n_active]
    magnitude = np.concatenate([-rng.uniform(1, 4, len(down)), rng.uniform(0.5, 3, len(up))])
    table = pd.concat([down, up]).assign(magnitude=magnitude, sign=np.sign(magnitude).astype(int))
    return table.sort_values(["gene", "sign"], ignore_index=True)


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
    row = np.flatnonzero(label >= 0)
    gene = world.table["gene"].to_numpy()[label[row]]
    change = world.table["magnitude"].to_numpy()[label[row]] * np.log(2)
    unmoved = world.loading[gene] * before[row, world.program[gene]]
    log_rate[row, gene] = start[row, gene] + unmoved + change
    return log_rate


def _assemble(world: World, cells: Cells, counts: sp.csr_matrix, options: Options) -> AnnData:
    """Puts counts, labels and truth together."""
    table, label, targets = world.table, cells["label"], world.names[world.table["gene"]]
    names = np.char.add(targets, np.where(table["sign"] > 0, "+", "-"))
    magnitude = np.where(world.measured[table["gene"]], table["magnitude"], np.nan)  # as a real panel would
    obs = pd.DataFrame(index=[f"cell_{i + 1:06d}" for i in range(len(label))])
    obs["target_gene"] = np.append(targets, CONTROL)[label]  # label -1 takes the last
    obs["batch"] = np.char.add("rep_", (cells["batch"] + 1).astype(str))
    obs["sign"] = np.append(table["sign"], 0)[label]
    obs["magnitude"] = np.append(magnitude, 0)[label]
    obs["perturbation"] = pd.Categorical(np.append(names, CONTROL)[label])
    obs["escaped"] = cells["escaped"]
    obs["cell_type"] = pd.Categorical(np.char.add("type_", (cells["cell_type"] + 1).astype(str)))
    obs["size_factor"] = np.float32(cells["size_factor"])
    facts = {"name": "simulated", "version": SIMULATOR_VERSION, "options": options, "licence": "BSD-3-Clause",
             "source": "cdt_lite.data.simulate", "attribution": "simulated, no real cells"}
    adata = in_layout(counts, obs, world.names[world.measured], facts)
    adata.uns["truth"] = _truth(world, names, options["escape_fraction"])
    return adata


def _truth(world: World, names: np.ndarray, escape: float) -> dict[str, Any]:
    """Everything planted, in a form that an .h5ad file can hold."""
    table, panel, n_programs = world.table, world.measured, len(world.network)
    control = world.expected_rates(np.zeros((1, n_programs)))
    effect = np.log(world.expected_rates(world.drive) / control)
    effect[np.arange(len(table)), table["gene"]] = table["magnitude"] * np.log(2)
    observed = np.log((1 - escape) * np.exp(effect) + escape)  # over all labelled cells
    loadings = np.zeros((len(world.names), n_programs))
    loadings[np.arange(len(loadings)), world.program] = world.loading
    programs = np.array([f"program_{i:02d}" for i in range(n_programs)])
    perturbations = table.drop(columns="gene").set_index(names).assign(
        target_gene=world.names[table["gene"]], program=programs[table["program"]],
        gain=np.where(table["null"], 0.0, table["gain"]), measured=panel[table["gene"]])
    arrays = {
        "effect": effect[:, panel], "effect_observed": observed[:, panel],
        "control_mean": control[0, panel], "dispersion": world.dispersion[panel],
        "drive": world.drive, "cell_type_drive": world.cell_types, "batch_effect": world.batch_effect[:, panel],
        "loadings": loadings[panel], "network": world.network}
    truth = {"perturbations": perturbations, "genes": world.names[panel], "programs": programs}
    return truth | {key: np.asarray(value, np.float32) for key, value in arrays.items()}
