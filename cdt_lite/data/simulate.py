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
Some perturbed cells escape and behave like controls. A null target changes only its own mRNA. Program 0 carries the
shift that effective perturbations share. In the world "unidentifiable" the same effects are dealt out to the targets at
random: "no better than the mean" is the honest answer. True effects are integrals over cell types and noise, not
averages of drawn cells. World, cells and counts have their own random streams: more cells, same network and effects.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from cdt_lite.data.layout import CONTROL, in_layout
from cdt_lite.errors import CDTError, suggest

SIMULATOR_VERSION = "1"  # raise it with any change that alters the cells of a seed
WORLDS = ("regulatory", "linear", "unidentifiable")
KAPPA, STRESS = 1.5, 0.2  # where a program's response saturates; drive of program 0 per unit of |dose|
N_CELL_TYPES, TYPE_SD, PROGRAM_SD = 3, 0.5, 0.6  # types, equally common; spread of drives between and within them
BACKGROUND, DISPERSION = 0.3, 0.5  # share of genes in no program; median negative-binomial dispersion of a gene
DEPTH_SD, BATCH_SD = 0.5, 0.12  # of a cell's log size; of a gene's batch effect and a batch's depth, natural log
_BLOCK = 2_000_000  # counts drawn at a time: bounds memory at 20,000 genes
_NODES, _MASSES = np.polynomial.hermite_e.hermegauss(24)


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
        sd, rates = PROGRAM_SD * np.sqrt((self.mixing**2).sum(1)), np.zeros((len(drive), len(self.names)))
        for mean in self.cell_types:
            centre = (mean + drive) @ self.mixing.T
            for node, mass in zip(_NODES, _MASSES / _MASSES.sum(), strict=True):
                rates += mass * np.exp(self.loading * self.respond(centre + node * sd)[:, self.program])
        return rates * np.exp(self.base) / len(self.cell_types)


def simulate_screen(
    n_genes: int = 256, n_targets: int = 30, n_cells: int = 12_000, *, seed: int = 0, world: str = "regulatory",
    n_batches: int = 3, null_fraction: float = 0.2, activation_fraction: float = 0.4, both_fraction: float = 0.2,
    unmeasured_fraction: float = 0.1, escape_fraction: float = 0.1, control_fraction: float = 0.12,
    n_programs: int | None = None, depth: float | None = None,
) -> AnnData:
    """Makes a screen of simulated cells whose true perturbation effects are known.

    Args:
        n_genes: Measured genes, 16 to 36,601.
        n_targets: Target genes, 1 to n_genes / 2.
        n_cells: Cells, controls included, at least 20 per perturbation.
        seed: The same seed and options give the same cells, byte for byte.
        world: "regulatory" (saturating), "linear", or "unidentifiable" (effects dealt out at random).
        n_batches: Replicates, 1 to 10.
        null_fraction: Share of targets whose perturbation changes nothing but their own mRNA.
        activation_fraction: Share of targets that are activated (sign +1); all others are knocked down (-1).
        both_fraction: Share of targets with both signs, as two perturbations; at most `activation_fraction`.
        unmeasured_fraction: Share of targets outside the panel.
        escape_fraction: Probability that a perturbed cell does not respond.
        control_fraction: Share of the cells that are controls.
        n_programs: Gene programs, at most n_genes / 4; None: n_genes / 32, but 4 to 64.
        depth: Mean UMI of a control cell in the panel; None: 0.8 n_genes, at most 10,000.

    Returns:
        The layout of `load_screen`, more obs columns, and what was planted in uns["truth"] (data/README.md).

    Raises:
        CDTError: An option outside its range.
    """
    options = _checked(dict(locals()))
    planting, drawing, counting = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    planted = _plant(planting, options)
    cells = _draw_cells(drawing, options, len(planted.table))
    return _assemble(planted, cells, _draw_counts(counting, planted, cells), options)


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Fills in the options that follow from others, and refuses what lies outside its range."""
    n_genes, n_targets, world = options["n_genes"], options["n_targets"], options["world"]
    if world not in WORLDS:
        raise CDTError(f"world must be one of {WORLDS}, not {world!r}{suggest(world, WORLDS)}")
    derived = {"n_programs": min(max(n_genes // 32, 4), 64), "depth": min(0.8 * n_genes, 10_000.0)}
    options |= {name: value for name, value in derived.items() if options[name] is None}
    ranges = {
        "n_genes": (16, 36_601), "n_targets": (1, n_genes // 2), "n_batches": (1, 10), "seed": (0, 2**63),
        "n_programs": (1, n_genes // 4), "depth": (1, 1e6), "null_fraction": (0, 1), "unmeasured_fraction": (0, 1),
        "activation_fraction": (0, 1), "both_fraction": (0, options["activation_fraction"]),
        "n_cells": (20 * (n_targets + round(n_targets * options["both_fraction"])), 10**8),
        "escape_fraction": (0, 0.99), "control_fraction": (0.01, 0.9)}
    for name, (low, high) in ranges.items():
        kind = "whole" if name.startswith("n_") or name == "seed" else "real"
        if not low <= options[name] <= high or (kind == "whole" and options[name] % 1):
            raise CDTError(f"{name} must be a {kind} number from {low} to {high} here, not {options[name]}")
    return options


def _plant(rng: np.random.Generator, options: dict[str, Any]) -> World:
    """Draws network, loadings, targets and batch effects; scales the rates to the asked depth."""
    n_unmeasured = round(options["n_targets"] * options["unmeasured_fraction"])
    n, m, batches = options["n_genes"] + n_unmeasured, options["n_programs"], options["n_batches"]
    program = rng.permutation(np.arange(n) % m)
    loading = rng.uniform(0.4, 1.0, n) * np.where(rng.random(n) < 0.7, 1, -1)
    loading[rng.permutation(n)[: round(BACKGROUND * n)]] = 0.0
    base = rng.normal(0.0, 1.5, n)
    table = _plant_targets(rng, program, loading, base, options)
    measured = ~np.isin(np.arange(n), rng.permutation(table["gene"].unique())[:n_unmeasured])
    batch_effect = BATCH_SD * (rng.normal(size=(batches, n)) + rng.normal(size=(batches, 1)))
    network, order = np.zeros((m, m)), rng.permutation(m)
    for place in range(1, m):  # a program answers to one or two of those before it: no cycle, so activity settles
        parents = rng.permutation(order[:place])[: rng.integers(1, 3)]
        network[order[place], parents] = rng.choice([-1, 1], len(parents)) * rng.uniform(0.3, 0.6, len(parents))
    world = World(options["world"], np.array([f"SIM{i + 1:05d}" for i in range(n)]), measured, program, loading, base,
                  DISPERSION * np.exp(rng.normal(0, 0.5, n)), network, rng.normal(0, TYPE_SD, (N_CELL_TYPES, m)),
                  batch_effect, table)
    total = world.expected_rates(np.zeros((1, m)))[0, measured].sum()
    return replace(world, base=base + np.log(options["depth"] / total))


def _plant_targets(rng: np.random.Generator, program: np.ndarray, loading: np.ndarray, base: np.ndarray,
                   options: dict[str, Any]) -> pd.DataFrame:
    """Chooses well expressed targets: nulls among background genes if they suffice, others in programs."""
    n, ranked = options["n_targets"], np.argsort(-base)
    n_null, n_both, n_active = (round(n * options[f"{k}_fraction"]) for k in ("null", "both", "activation"))
    members = ranked[loading[ranked] != 0]
    effective = rng.permutation(members[: max(n - n_null, len(members) // 2)])[: n - n_null]
    rest = np.concatenate([ranked[loading[ranked] == 0], np.setdiff1d(members, effective)])
    null = rng.permutation(rest[: max(n_null, round(BACKGROUND * len(base)) // 2)])[:n_null]
    gene = np.concatenate([effective, null])
    # 1.8: an effect then moves its program's genes by about half a natural log unit, as a strong knockout does
    gain = 1.8 * np.exp(rng.normal(0, 0.2, n)) * loading[gene]
    table = pd.DataFrame({"gene": gene, "null": np.isin(gene, null), "program": program[gene], "gain": gain})
    if options["world"] == "unidentifiable":
        table["gene"] = rng.permutation(gene)
    table = table.iloc[rng.permutation(n)]
    down, up = pd.concat([table[:n_both], table[n_active:]]), table[:n_active]
    magnitude = np.concatenate([-rng.uniform(1, 4, len(down)), rng.uniform(0.5, 3, len(up))])
    table = pd.concat([down, up]).assign(magnitude=magnitude, sign=np.sign(magnitude).astype(int))
    return table.sort_values(["gene", "sign"], ignore_index=True)


def _draw_cells(rng: np.random.Generator, options: dict[str, Any], n_labels: int) -> dict[str, np.ndarray]:
    """Draws each cell's label (-1: control), batch, type, escape, size and noise, in random order."""
    n, n_control = options["n_cells"], max(1, round(options["control_fraction"] * options["n_cells"]))
    weights = np.exp(rng.normal(0, 0.35, n_labels).clip(-0.7, 0.7))
    ends = n_control + np.round(np.cumsum(weights) / weights.sum() * (n - n_control))
    label = np.searchsorted(ends, np.arange(n), side="right") - (np.arange(n) < n_control)
    order = rng.permutation(n)
    return {"label": label[order], "batch": order % options["n_batches"],
            "cell_type": rng.integers(N_CELL_TYPES, size=n),
            "escaped": (rng.random(n) < options["escape_fraction"]) & (label[order] >= 0),
            "size_factor": np.exp(rng.normal(-(DEPTH_SD**2) / 2, DEPTH_SD, n)),
            "noise": PROGRAM_SD * rng.normal(size=(n, options["n_programs"]))}


def _draw_counts(rng: np.random.Generator, world: World, cells: dict[str, np.ndarray]) -> sp.csr_matrix:
    """Draws counts of the measured genes (gamma, then Poisson), a block of cells at a time."""
    genes = np.flatnonzero(world.measured)
    n, shape, blocks = len(cells["label"]), 1 / world.dispersion[genes], []
    for rows in np.array_split(np.arange(n), n * len(genes) // _BLOCK + 1):
        rate = np.exp(_log_rates(world, {key: value[rows] for key, value in cells.items()})[:, genes])
        # single precision drops the last bits, where processors differ, before anything random is drawn
        mean = np.float32(rate * cells["size_factor"][rows, None]).astype(np.float64)
        gamma = rng.standard_gamma(np.broadcast_to(shape, mean.shape)) / shape
        blocks.append(sp.csr_matrix(rng.poisson(mean * gamma).astype(np.float32)))
    return sp.vstack(blocks, format="csr")


def _log_rates(world: World, cells: dict[str, np.ndarray]) -> np.ndarray:
    """The equations of the module's docstring for a block of cells, (cells, G), at size 1."""
    label = np.where(cells["escaped"], -1, cells["label"])
    drive = np.vstack([world.drive, np.zeros(len(world.network))])  # label -1 takes the last row: nothing added
    u = world.cell_types[cells["cell_type"]] + cells["noise"]
    before, after = (world.respond(v @ world.mixing.T) for v in (u, u + drive[label]))
    start = world.base + world.batch_effect[cells["batch"]]
    log_rate = start + world.loading * after[:, world.program]
    row = np.flatnonzero(label >= 0)
    gene, change = (world.table[key].to_numpy()[label[row]] for key in ("gene", "magnitude"))
    log_rate[row, gene] = start[row, gene] + world.loading[gene] * before[row, world.program[gene]] + change * np.log(2)
    return log_rate


def _assemble(world: World, cells: dict[str, np.ndarray], counts: sp.csr_matrix, options: dict) -> AnnData:
    """Puts counts, labels and truth together."""
    table, label, targets = world.table, cells["label"], world.names[world.table["gene"]]
    perturbations = np.char.add(targets, np.where(table["sign"] > 0, "+", "-"))
    magnitude = np.where(world.measured[table["gene"]], table["magnitude"], np.nan)  # as a real panel would
    obs = pd.DataFrame({
        "target_gene": np.append(targets, CONTROL)[label], "batch": [f"rep_{b + 1}" for b in cells["batch"]],
        "sign": np.append(table["sign"], 0)[label], "magnitude": np.append(magnitude, 0)[label],
        "perturbation": pd.Categorical(np.append(perturbations, CONTROL)[label]), "escaped": cells["escaped"],
        "cell_type": pd.Categorical([f"type_{k + 1}" for k in cells["cell_type"]]),
        "size_factor": np.float32(cells["size_factor"])}, index=[f"cell_{i + 1:06d}" for i in range(len(label))])
    adata = in_layout(counts, obs, world.names[world.measured], {
        "name": "simulated", "version": SIMULATOR_VERSION, "source": "cdt_lite.data.simulate", "options": options,
        "licence": "BSD-3-Clause", "attribution": "simulated, no real cells"})
    adata.uns["truth"] = _truth(world, perturbations, options["escape_fraction"])
    return adata


def _truth(world: World, perturbations: np.ndarray, escape: float) -> dict[str, Any]:
    """Everything planted, in a form that an .h5ad file can hold."""
    table, panel, n_programs = world.table, world.measured, len(world.network)
    control = world.expected_rates(np.zeros((1, n_programs)))
    effect = np.log(world.expected_rates(world.drive) / control)
    effect[np.arange(len(table)), table["gene"]] = table["magnitude"] * np.log(2)
    gain = np.where(table["null"], 0.0, table["gain"])
    loadings, gains = np.zeros((2, len(world.names), n_programs))
    loadings[np.arange(len(loadings)), world.program] = world.loading
    gains[table["gene"], table["program"]] = gain
    # one directed graph, genes first and then programs: the weight of what source does to target
    edges = sp.coo_matrix(sp.bmat([[None, gains], [loadings.T, world.network.T]]))
    programs = np.array([f"program_{i:02d}" for i in range(n_programs)])
    table = table.set_index(perturbations).assign(
        target_gene=world.names[table["gene"]], program=programs[table["program"]], gain=gain,
        measured=panel[table["gene"]]).drop(columns="gene")
    observed = np.log((1 - escape) * np.exp(effect) + escape)  # over all labelled cells
    arrays = {
        "effect": effect[:, panel], "effect_observed": observed[:, panel], "drive": world.drive,
        "loadings": loadings[panel], "control_mean": control[0, panel], "batch_effect": world.batch_effect[:, panel],
        "dispersion": world.dispersion[panel], "cell_type_drive": world.cell_types}
    network = {"nodes": np.concatenate([world.names, programs]), "source": edges.row.astype(np.int32),
               "target": edges.col.astype(np.int32), "weight": edges.data.astype(np.float32)}
    return {"perturbations": table, "genes": world.names[panel], "programs": programs, "network": network,
            **{name: np.asarray(value, np.float32) for name, value in arrays.items()}}
