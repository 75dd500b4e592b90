"""The planted world of a simulated screen: programs, their network, loadings, targets, pairs (`data/simulate.py`)."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from cdt_lite.errors import CDTError

KAPPA = 1.5  # where a program's response saturates
STRESS = 0.2  # drive of program 0 per unit of |dose|
N_CELL_TYPES = 3  # equally common
TYPE_SD, PROGRAM_SD = 0.5, 0.6  # spread of drives between cell types and within them
BACKGROUND = 0.3  # share of genes in no program
DISPERSION = 0.5  # median negative-binomial dispersion of a gene
BATCH_SD = 0.12  # of a gene's batch effect and a batch's depth, natural log
# an effect moves its program's genes by about half a natural log unit, as a strong knockout does
GAIN = 1.8
Rng = np.random.Generator
Options = dict[str, Any]
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
    table: pd.DataFrame  # by target and sign: gene (index), sign, magnitude, null, program (index), gain
    pairs: np.ndarray  # (pairs, 2) rows of the table, perturbed together

    @property
    def mixing(self) -> np.ndarray:
        """(I - B)^-1, (M, M): the settled activity of every program per unit of drive."""
        return np.linalg.inv(np.eye(len(self.network)) - self.network)

    @property
    def members(self) -> np.ndarray:
        """Rows of the table that each of P perturbations is made of, (P, 2); -1: no second one."""
        alone = np.arange(len(self.table))
        return np.vstack([np.stack([alone, np.full_like(alone, -1)], 1), self.pairs])

    @property
    def programs(self) -> np.ndarray:
        """The programs' names, (M,)."""
        return np.array([f"program_{i:02d}" for i in range(len(self.network))])

    @property
    def drive(self) -> np.ndarray:
        """What each perturbation adds to the programs of a cell that responds, (P, M)."""
        dose = np.where(self.table["null"], 0.0, self.table["magnitude"] / 2)
        drive = np.zeros((len(dose), len(self.network)))
        drive[np.arange(len(dose)), self.table["program"]] = dose * self.table["gain"]
        drive[:, 0] += STRESS * np.abs(dose)
        return np.vstack([drive, drive[self.pairs].sum(1)])

    def perturbations(self) -> pd.DataFrame:
        """Returns names (index), targets and what was planted; of a pair, that of both where one number can say it."""
        alone = self.table.assign(
            target_gene=self.names[self.table["gene"]],
            program=self.programs[self.table["program"]],
            gain=np.where(self.table["null"], 0.0, self.table["gain"]),
            measured=self.measured[self.table["gene"]],
        )
        one, other = (alone.iloc[rows].reset_index(drop=True) for rows in self.pairs.T)
        both = one.assign(
            target_gene=one["target_gene"] + "+" + other["target_gene"],
            program=one["program"] + "+" + other["program"],
            measured=one["measured"] & other["measured"],
            magnitude=np.nan,
            gain=np.nan,
        )
        table = pd.concat([alone, both]) if len(both) else alone
        names = table["target_gene"].to_numpy(str)
        way = np.where(table["sign"] > 0, "+", "-")
        return table.drop(columns="gene").set_index(np.char.add(names, way))

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


def plant(rng: Rng, options: Options) -> World:
    """Draws network, loadings, targets and batch effects; scales the rates to the asked depth."""
    n_unmeasured = round(options["n_targets"] * options["unmeasured_fraction"])
    n, m, n_batches = options["n_genes"] + n_unmeasured, options["n_programs"], options["n_batches"]
    program = rng.permutation(np.arange(n) % m)
    loading = rng.uniform(0.4, 1.0, n) * np.where(rng.random(n) < 0.7, 1, -1)
    loading[rng.permutation(n)[: round(BACKGROUND * n)]] = 0.0
    base = rng.normal(0.0, 1.5, n)
    table = _targets(rng, options, program, loading, base)
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
                  batch_effect, table, _pairs(rng, options["n_pairs"], table))
    total = world.expected_rates(np.zeros((1, m)))[0, world.measured].sum()
    return replace(world, base=base + np.log(options["depth"] / total))


def _targets(rng: Rng, options: Options, program: np.ndarray, loading: np.ndarray, base: np.ndarray
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


def _pairs(rng: Rng, n: int, table: pd.DataFrame) -> np.ndarray:
    """Chooses pairs of targets that change something, both by the same sign."""
    sign, gene, null = (table[column].to_numpy() for column in ("sign", "gene", "null"))
    possible = (sign[:, None] == sign) & (gene[:, None] < gene) & ~(null[:, None] | null)
    pairs = np.argwhere(possible)
    if n > len(pairs):
        raise CDTError(f"n_pairs must be at most {len(pairs)}, all that share a sign; got {n}")
    return pairs[rng.permutation(len(pairs))[:n]]
