"""What little a cell shows of its answer is worth: the network beside two states with a posterior in closed form.

Cells of a perturbation answer, or they escape (Mixscape: Papalexi et al. 2021). Responders and escapees are negative
binomials, gene by gene and independent within a state; escapees are as the controls are. Both are fitted on training
cells; held-out cells are priced, in nats for one gene, given more and more of the others. The network is told as much.

    python -m benchmarks.two_states --checkpoint FOLDER...
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import nbinom

import cdt_lite as cdt
from cdt_lite.data import CONTROL, dense, named_split
from cdt_lite.files import write_atomically
from cdt_lite.model import Perturbation, hide
from cdt_lite.training import Checkpoint, load_capsule

RECORD = Path(__file__).with_name("two_states.json")
N_GENES = 30  # largest effects: what the two states are told apart by
N_CONTROLS = 64
ROUNDS = 30
FEWEST = 100  # held-out cells of a target that is priced


@dataclass
class States:
    """Two negative binomials a gene: mean rates per count of depth, sizes, and the share that answers."""

    rates: np.ndarray  # (2, G): escapees, responders
    sizes: np.ndarray  # (2, G)
    share: float

    def log_density(self, counts: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Returns log p(count | state), (2, cells, G)."""
        means = self.rates[:, None] * depth[None, :, None]
        p = self.sizes[:, None] / (self.sizes[:, None] + means)
        return nbinom.logpmf(counts, self.sizes[:, None], p)


def fit(counts: np.ndarray, depth: np.ndarray, controls: np.ndarray, control_depth: np.ndarray
        ) -> States:
    """Fits escapees on controls, then responders and their share on perturbed cells, by EM."""
    even = np.ones(len(controls))
    genes = range(counts.shape[1])
    escaped = [_negative_binomial(controls[:, g], control_depth, even) for g in genes]
    rates, sizes = np.array(escaped).T
    answered = np.maximum(counts.sum(0) / depth.sum(), 1e-7)
    states = States(np.stack([rates, answered]), np.stack([sizes, sizes]), 0.8)
    for _ in range(ROUNDS):
        log_p = states.log_density(counts, depth).sum(-1)
        weight = expit(logit(states.share) + log_p[1] - log_p[0])
        found = [_negative_binomial(counts[:, g], depth, weight) for g in genes]
        states.rates[1], states.sizes[1] = np.array(found).T
        states.share = float(np.clip(weight.mean(), 0.01, 0.99))
    return states


def _negative_binomial(x: np.ndarray, depth: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    rate = max((weight * x).sum() / (weight * depth).sum(), 1e-7)

    def misfit(log_size: float) -> float:
        size = np.exp(log_size)
        return -(weight * nbinom.logpmf(x, size, size / (size + rate * depth))).sum()

    return rate, float(np.exp(minimize_scalar(misfit, bounds=(-3, 8), method="bounded").x))


def by_states(states: States, counts: np.ndarray, depth: np.ndarray, gene: int,
              visible: list[int]) -> float:
    """Returns the nats that a gene costs, given visible ones."""
    log_p = states.log_density(counts, depth)
    answers = expit(logit(states.share) + (log_p[1] - log_p[0])[:, visible].sum(-1))
    density = answers * np.exp(log_p[1, :, gene]) + (1 - answers) * np.exp(log_p[0, :, gene])
    return float(-np.log(np.maximum(density, 1e-300)).mean())


@torch.no_grad()
def by_network(checkpoint: Checkpoint, told: Perturbation, tokens: torch.Tensor,
               log_depth: torch.Tensor, controls: torch.Tensor, gene: int, visible: list[int]
               ) -> float:
    """Returns the nats that the network pays for the same."""
    hidden = torch.ones(tokens.shape, dtype=torch.bool)
    hidden[:, visible] = False
    ids = torch.from_numpy(checkpoint.vocabulary.ids(checkpoint.panel))
    xt = hide(tokens, hidden, checkpoint.tokenizer.mask_id)
    logits = checkpoint.model.eval()(xt[None], told, controls[None], ids, log_depth[None])
    log_p = logits[0, :, gene].log_softmax(-1)
    return float(-log_p[torch.arange(len(tokens)), tokens[:, gene]].mean())


def priced(models: Sequence[Checkpoint], screen: AnnData, target: str, sign: int, seed: int = 0) -> pd.DataFrame:
    """Prices the genes that a perturbation moves most, in its held-out cells of one replicate, by every model."""
    side, obs = np.asarray(named_split(screen)), screen.obs
    counts = dense(screen.X)
    depth = counts.sum(1)
    own = ((obs["target_gene"] == target) & (obs["sign"] == sign)).to_numpy()
    is_control = (obs["target_gene"] == CONTROL).to_numpy()
    training = side == "train"
    rate = counts / depth[:, None]
    spread = np.sqrt(rate[is_control & training].var(0) + 1e-9)
    moved = (rate[own & training].mean(0) - rate[is_control & training].mean(0)) / spread
    top = np.argsort(-np.abs(moved))[:N_GENES]
    perturbed, idle = own & training, is_control & training
    states = fit(counts[perturbed][:, top], depth[perturbed], counts[idle][:, top], depth[idle])
    replicate = obs["batch"][own & (side == "held_out")].mode()[0]
    cells = np.flatnonzero(own & (side == "held_out") & (obs["batch"] == replicate).to_numpy())
    pool = np.flatnonzero(is_control & (obs["batch"] == replicate).to_numpy())
    rng = np.random.default_rng(seed)
    tokenizer, vocabulary = models[0].tokenizer, models[0].vocabulary
    controls = tokenizer.tokenize(counts[rng.choice(pool, N_CONTROLS, replace=False)])
    tokens = torch.from_numpy(tokenizer.tokenize(counts[cells])).long()
    log_depth = torch.from_numpy(np.log(depth[cells] / tokenizer.target_depth)).float()
    told = Perturbation.of([vocabulary.id(target)], [sign], [float("nan")])
    shown, held, rows = torch.from_numpy(controls).long(), counts[cells][:, top], []
    for place in range(3):  # the three genes that move most
        others = [i for i in range(N_GENES) if i != place]
        for n in (0, 1, 3, N_GENES - 1):
            visible = others[:n]
            two = by_states(states, held, depth[cells], place, visible)
            rows.append({
                "target": target, "sign": sign, "cells": len(cells),
                "share that answers": states.share, "gene": screen.var_names[top[place]],
                "visible": n, "two states": two,
            })
            for i, model in enumerate(models):
                asked = (tokens, log_depth, shown, int(top[place]), top[visible].tolist())
                rows[-1][f"network {i}"] = by_network(model, told, *asked)
    return pd.DataFrame(rows)


def main() -> None:
    """Prices every held-out perturbation with enough cells, and writes a table."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.two_states", description=__doc__)
    options.add_argument("--screen", default="papalexi2021")
    what = "trained models, seeds of one recipe (default: the screen's capsule)"
    options.add_argument("--checkpoint", nargs="*", help=what)
    given = options.parse_args()
    screen = cdt.load_screen(given.screen)
    models = [Checkpoint.load(folder) for folder in given.checkpoint or []] or [load_capsule(screen)]
    held_out = screen.obs[np.asarray(named_split(screen)) == "held_out"]
    sizes = held_out.groupby(["target_gene", "sign"], observed=True).size()
    enough = [(str(t), int(s)) for t, s in sizes[sizes >= FEWEST].index if s != 0]
    tables = [priced(models, screen, target, sign) for target, sign in enough]
    table = pd.concat(tables, ignore_index=True).round(4)
    print(table.to_markdown(index=False))
    write_atomically(RECORD, (json.dumps(table.to_dict("records"), indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
