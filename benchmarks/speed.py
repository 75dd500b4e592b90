"""How fast a step of training and sampling are on one CPU core, and what they keep, beside limits of the same run.

    python -m benchmarks.speed                     # a minute or two
    python -m benchmarks.speed --against COMMIT    # and how much longer another commit takes

Times are CPU times of one thread, the least of some rounds. The limit of a step is what its operations (as the model is
written down, all genes read) take at the rate of a large matrix product in the same run; what is not a product, and
reading hidden genes alone, makes the share that is reached smaller or larger.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from cdt_lite.model import CDT, PRESETS, V1, MaskedDiffusion, Perturbation, V1Diffusion, build
from cdt_lite.model.mean_effect import EffectTable

ROOT = Path(__file__).resolve().parents[1]
N_TOTAL, STEPS, ROUNDS = 3000, 16, 3


class Size(NamedTuple):
    """A preset, and cells for it."""

    preset: str
    genes: int
    sets: int
    cells: int  # in a set
    controls: int


SIZES = {
    "step, v1, 512 genes": Size("v1", 512, 2, 1, 64),
    "step, v1, 2,000 genes": Size("v1", 2000, 1, 1, 64),
    "step, default, 512 genes": Size("default", 512, 1, 4, 64),
    "step, lite, 512 genes": Size("lite", 512, 6, 8, 32),
    "sampling, lite, 299 genes": Size("lite", 299, 1, 64, 32),
}


class Work:
    """A network with a table of mean effects, and a batch of made-up cells on a device."""

    def __init__(self, size: Size, device: str = "cpu") -> None:
        config = PRESETS[size.preset]
        self.config = replace(config, model=replace(config.model, n_genes=size.genes, n_total_genes=N_TOTAL))
        self.size, self.device = size, device
        self.model: CDT | V1
        self.process: MaskedDiffusion | V1Diffusion
        self.model, self.process = build(self.config)
        if isinstance(self.model, CDT):
            self.model.effect.fill(_effects(self.config.model.n_bins))
        self.model.to(device)
        generator = torch.Generator().manual_seed(0)
        some = partial(torch.randint, 20, generator=generator)
        self.shape = (size.sets, size.cells, size.genes)
        self.tokens = some(self.shape).to(device)
        told = Perturbation.of(range(size.sets), [-1] * size.sets, [float("nan")] * size.sets)
        controls = some((size.sets, size.controls, size.genes)).to(device)
        depth = torch.zeros(size.sets, size.cells, device=device)
        self.condition = (told.to(device), controls, torch.arange(size.genes, device=device), depth)

    def loss(self) -> torch.Tensor:
        """The loss of a step."""
        denoise = self.model.given(*self.condition)
        generator = torch.Generator().manual_seed(0)
        return self.process.loss(denoise, self.tokens, generator, "finetune", 50_000)

    def step(self) -> None:
        """A step of training, but for the optimizer's."""
        self.model.train()
        self.loss().backward()
        self.model.zero_grad()

    @torch.no_grad()
    def sample(self) -> torch.Tensor:
        """Makes the cells of a batch."""
        generator = torch.Generator().manual_seed(0)

        def states(odds: torch.Tensor) -> torch.Tensor:
            return torch.rand(odds.shape, generator=generator).to(odds.device) < odds.sigmoid()

        denoise = self.model.eval().given(*self.condition, states)
        steps = None if self.config.system == "v1" else STEPS
        return self.process.sample(denoise, self.shape, generator, self.device, steps)

    def kept(self) -> int:
        """Bytes that a step keeps for its backward pass, weights aside."""
        kept: dict[int, Any] = {}
        own = {weight.untyped_storage().data_ptr() for weight in self.model.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = self.loss()
        del loss
        return sum(storage.nbytes() for storage in kept.values())

    def flops(self, training: bool) -> int:
        """Operations of a step, or of one forward pass, if all genes are read."""
        from cdt_lite.figures import accounting

        listed = accounting.products(self.config, None, self.size.controls, self.size.cells, self.size.sets)
        return accounting.training_flops(listed) if training else sum(product.flops for product in listed)


def _effects(n_bins: int) -> EffectTable:
    """A table of one measured effect, that of a knockdown of any gene."""
    rng, ids = np.random.default_rng(0), np.arange(N_TOTAL)
    return EffectTable(
        target=ids, sign=np.full(N_TOTAL, -1), without=np.full(N_TOTAL, -1), left=np.full(N_TOTAL, 0.5),
        weights=rng.normal(size=(N_TOTAL, 1)), effect=0.1 * rng.normal(size=(1, N_TOTAL)),
        shares=np.full((N_TOTAL, n_bins), 1 / n_bins), gene_ids=ids, values=np.log1p(np.arange(n_bins)),
        counted=True, highest=np.full(N_TOTAL, n_bins - 1), trusted=np.zeros(2),
    )


def seconds(task: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """The least CPU time of a task."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        task()
        times.append(time.process_time() - began)
    return min(times)


def product_rate(rows: int, width: int, rounds: int = ROUNDS) -> float:
    """Operations a second of a large matrix product: that of an FFN's first layer, so many rows of this width."""
    x, weight = torch.randn(rows, width), torch.randn(width, 4 * width)
    return 2 * rows * width * 4 * width / seconds(lambda: x @ weight, 3 * rounds)


def measured() -> dict[str, float]:
    """CPU seconds of every step and of sampling."""
    found = {}
    for name, size in SIZES.items():
        work = Work(size)
        found[name] = seconds(work.sample if name.startswith("sampling") else work.step)
    return found


def rows() -> list[dict[str, Any]]:
    """The table: what was measured, its limit, and the share of it that is reached."""
    found: list[dict[str, Any]] = []
    for name, took in measured().items():
        size, work = SIZES[name], Work(SIZES[name])
        sampling = name.startswith("sampling")
        rate = product_rate(size.sets * size.cells * size.genes, work.config.model.dim)
        limit = work.flops(not sampling) * (STEPS if sampling else 1) / rate
        row = {"what": name, "measured": took, "unit": "s", "limit": limit, "of the limit": limit / took}
        found.append(row | {"limit is": f"its operations at {rate / 1e9:.0f} GFLOP/s"})
    for name, size in SIZES.items():
        if name.startswith("step"):
            work = Work(size)
            whole = 16 * sum(p.numel() for p in work.model.parameters()) / 1e6
            found.append({"what": f"kept by the {name}", "measured": work.kept() / 1e6, "unit": "MB", "limit": whole,
                          "limit is": "weights, gradients, moments: beside it"})
    if importlib.util.find_spec("benchmarks.speed_data"):
        from benchmarks import speed_data  # type: ignore[attr-defined,unused-ignore]

        found += speed_data.rows()
    return found


def against(commit: str) -> pd.DataFrame:
    """CPU seconds of another commit and of this one, in turns, and how many times longer the other takes."""
    git = ["git", "-C", str(ROOT), "worktree"]
    best: dict[str, dict[str, float]] = {"then": {}, "now": {}}
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "then"
        subprocess.run([*git, "add", "--detach", str(other), commit], check=True, capture_output=True)
        try:
            for _ in range(2):
                for name, tree in (("then", other), ("now", ROOT)):
                    environment = os.environ | {"PYTHONPATH": str(tree)}
                    command = [sys.executable, str(Path(__file__)), "--seconds"]
                    out = subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder)
                    for what, took in json.loads(out.stdout).items():
                        best[name][what] = min(took, best[name].get(what, took))
        finally:
            subprocess.run([*git, "remove", "--force", str(other)], check=True, capture_output=True)
    table = pd.DataFrame(best)
    return table.assign(times=table["then"] / table["now"])


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", help="another commit to compare with")
    parser.add_argument("--seconds", action="store_true", help="print what was measured, as JSON, and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.seconds:
        print(json.dumps(measured()))
        return
    print(pd.DataFrame(rows()).round(3).fillna("").to_markdown(index=False))
    if options.against:
        print(f"\nCPU seconds at {options.against} and now\n")
        print(against(options.against).round(3).to_markdown())


if __name__ == "__main__":
    main()
