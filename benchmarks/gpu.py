"""What the networks do on a GPU, in at most four minutes: time, cells a second, MFU, memory, sampling, and which parts.

    python -m benchmarks.gpu --out benchmarks/gpu.json

v1 and default, 32 and 128 cells of 2,000 genes, as they are and compiled, in bf16 with TF32. MFU counts 3 x the forward
operations with all genes read (`figures/accounting.py`), by the card's datasheet (`figures/cost.py`) and by a large
matrix product of the same run. Without a GPU it says so and measures nothing.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed import Size, Work
from cdt_lite.files import write_atomically
from cdt_lite.model import compile_blocks

BUDGET = 225.0  # seconds after which nothing new is begun
GENES, CONTROLS, BATCHES = 2000, 64, (32, 128)
LARGE = 8192  # rows and columns of the product that is the limit
SETS = {"v1": 1, "default": 8}  # cells of a set


class Clock:
    """Waits for the device before it reads the time."""

    def __init__(self, device: str) -> None:
        self.device, self.began = device, time.perf_counter()

    def now(self) -> float:
        """Seconds since the start, all work done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - self.began

    def of(self, task: Any, times: int, warm_up: int = 3) -> float:
        """Mean seconds of a task, after some that are not counted."""
        for _ in range(warm_up):
            task()
        began = self.now()
        for _ in range(times):
            task()
        return (self.now() - began) / times


def half(device: str) -> torch.autocast:
    """Half precision, as training on a GPU has it."""
    return torch.autocast(device, torch.bfloat16)


def product_rate(clock: Clock, size: int) -> float:
    """Operations a second of a large product in half precision."""
    x = torch.randn(size, size, device=clock.device, dtype=torch.bfloat16)
    return 2 * size**3 / clock.of(lambda: x @ x, 20)


class Case:
    """A network in training: with AdamW, in half precision."""

    def __init__(self, size: Size, device: str, compiled: bool) -> None:
        self.work, self.device, self.compiled = Work(size, device), device, compiled
        self.optimizer = torch.optim.AdamW(self.work.model.parameters(), fused=True)
        self.work.model.train()
        if compiled:
            compile_blocks(self.work.model)

    def step(self) -> None:
        """A whole step; nothing waits for it."""
        with half(self.device):
            loss = self.work.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.work.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def sample(self) -> None:
        """All cells of the batch are made."""
        with half(self.device):
            self.work.sample()

    def measured(self, clock: Clock, steps: int) -> dict[str, Any]:
        """Time and memory of a step."""
        size, on_gpu = self.work.size, self.device == "cuda"
        began = clock.now()
        self.step()
        first = clock.now() - began
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = clock.of(self.step, steps)
        cells = size.sets * size.cells
        return {
            "preset": size.preset, "cells": cells, "genes": size.genes, "compiled": self.compiled,
            "first_step_s": first, "step_s": seconds, "cells_per_s": cells / seconds,
            "tflops": self.work.flops(training=True) / seconds / 1e12,
            "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None,
        }

    def parts(self) -> dict[str, float]:
        """Milliseconds of the kernels that take longest in one step; on a CPU of the operators."""
        on_gpu = self.device == "cuda"
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as seen:
            self.step()
            if on_gpu:
                torch.cuda.synchronize()
        took = {}
        for event in seen.key_averages():
            microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            took[event.key[:120]] = microseconds / 1000
        longest = sorted(took, key=lambda name: -took[name])[:25]
        return {name: took[name] for name in longest}


def cases(genes: int, controls: int, batches: tuple[int, ...]) -> Iterator[tuple[Size, bool]]:
    """What is measured: the smaller batch of all first."""
    for cells in batches:
        for preset, of_a_set in SETS.items():
            for compiled in (False, True):
                yield Size(preset, genes, max(1, cells // of_a_set), min(cells, of_a_set), controls), compiled


def measure(device: str, genes: int = GENES, controls: int = CONTROLS, batches: tuple[int, ...] = BATCHES,
            large: int = LARGE, steps: int = 10) -> dict[str, Any]:
    """Measures everything that fits into the time; what did not is named.

    Args:
        device: "cuda"; "cpu" to try the script itself, nothing compiled.
        genes: Of a cell.
        controls: Cells that a set is shown.
        batches: Cells of a step.
        large: Rows and columns of the product that is the limit.
        steps: Over which the time of one is averaged.
    """
    clock = Clock(device)
    rate = product_rate(clock, large)
    found: dict[str, Any] = {"torch": torch.__version__, "product_tflops": rate / 1e12, "runs": [], "left_out": []}
    for size, compiled in cases(genes, controls, batches):
        if compiled and device == "cpu":
            continue
        if clock.now() > BUDGET:
            found["left_out"].append([*size, compiled])
            continue
        try:
            found["runs"].append(_run(Case(size, device, compiled), clock, steps, rate))
        except torch.OutOfMemoryError as error:
            found["left_out"].append([*size, compiled, str(error)[:200]])
        if device == "cuda":
            torch.cuda.empty_cache()
    return found | {"seconds": clock.now()}


def _run(case: Case, clock: Clock, steps: int, rate: float) -> dict[str, Any]:
    """A case's numbers: of the smaller batch also by part, and sampling."""
    run = case.measured(clock, steps)
    run["mfu_of_product"] = run["tflops"] * 1e12 / rate
    if run["cells"] <= min(BATCHES) and clock.now() < BUDGET:
        run["parts_ms"] = case.parts()
        run["sampling_s"] = clock.of(case.sample, 1, warm_up=1)
    return run


def against_datasheet(found: dict[str, Any], card: str) -> None:
    """Adds MFU by the datasheet, of a card that is known."""
    from cdt_lite.figures.cost import ACCELERATORS

    for name, (tflops, _) in ACCELERATORS.items():
        if name in card:
            for run in found["runs"]:
                run["mfu_of_datasheet"] = run["tflops"] / tflops


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    parser.add_argument("--try-out", action="store_true", help="run the script itself on a CPU, at tiny sizes")
    options = parser.parse_args()
    if options.try_out:
        found = measure("cpu", 24, 4, (4, 8), 64, 1) | {"card": "none: a CPU, at tiny sizes"}
    elif not torch.cuda.is_available():
        print("No CUDA device is here: nothing was measured.")
        return
    else:
        torch.set_float32_matmul_precision("high")  # TF32
        card = torch.cuda.get_device_name()
        found = measure("cuda") | {"card": card}
        against_datasheet(found, card)
    text = json.dumps(found, indent=1)
    print(text)
    if options.out:
        write_atomically(options.out, f"{text}\n".encode())


if __name__ == "__main__":
    main()
