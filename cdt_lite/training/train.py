"""The training loop: a generator that yields what happened, so that the caller logs, plots and stops as they like."""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from cdt_lite import __version__
from cdt_lite.data.batches import STAGES, SetSampler
from cdt_lite.errors import CDTError, require_whole
from cdt_lite.files import locked, named, sweep
from cdt_lite.model.config import TrainConfig
from cdt_lite.model.diffusion import SHARES, MaskedDiffusion, loss_curve
from cdt_lite.training.checkpoint import Checkpoint, open_folder
from cdt_lite.training.effects import effect_table, magnitudes
from cdt_lite.training.runs import require_device
from cdt_lite.training.trust import denoiser, trust

VALIDATION_BATCHES = 4
JUDGED = "validation"  # what is on the card once a fine-tuned model was judged


@dataclass(frozen=True)
class Progress:
    """What one training step did."""

    stage: str  # "pretrain" or "finetune"
    step: int  # steps done in this stage, after this one
    n_steps: int  # planned
    loss: float  # nats per hidden gene
    learning_rate: float
    cells_per_second: float  # since this call began
    seconds_left: float  # at that speed


def optimizer_for(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Returns AdamW with weight decay on the matrices of Linear layers only: not on biases, norms or embeddings."""
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    decayed = [p for p in model.parameters() if id(p) in matrices]
    others = [p for p in model.parameters() if id(p) not in matrices]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def learning_rate(config: TrainConfig, step: int, n_steps: int) -> float:
    """Returns the learning rate of a step: linear warm-up, then a cosine to zero."""
    warmup = min(config.warmup_steps, max(1, n_steps // 5))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


def loss_of_step(checkpoint: Checkpoint, data: SetSampler, step: int, device: torch.device | str = "cpu"
                 ) -> Float[torch.Tensor, ""]:
    """Returns the loss of a step, nats per hidden gene: batch, masks, dropout depend on (seed, stage, step) alone."""
    config, stage, device = data.config, data.stage, torch.device(device)
    batch = data.batch(step).to(device)
    seed = hash((config.seed, step, STAGES.index(stage))) % 2**63
    generator = torch.Generator().manual_seed(seed)
    in_half = config.precision == "bf16"
    with torch.random.fork_rng(), torch.autocast(device.type, torch.bfloat16, enabled=in_half):
        torch.manual_seed(seed)  # dropout, too, depends on it
        denoise = denoiser(checkpoint.model, batch)
        return checkpoint.process.loss(denoise, batch.tokens, generator, stage, step)


def train(checkpoint: Checkpoint, data: SetSampler, *, steps: int | None = None, out: str | Path | None = None,
          overwrite: bool = False, device: torch.device | str = "cpu", say: Callable[[str], None] | None = None
          ) -> Generator[Progress, None, None]:
    """Trains a checkpoint's model in place, yielding after every step.

    A checkpoint that was loaded from `out` with resume=True goes on from there, exactly: batch, masks and dropout of a
    step depend on (seed, stage, step) alone. Any other begins the stage at its first step, whatever it was trained on
    before. However the loop ends (at its end, `break`, Ctrl-C) the state is saved to `out` first, unless an update was
    half done (then the last save stands).

    Args:
        checkpoint: From `start`, or `Checkpoint.load`.
        data: Batches and their stage; `data.config` is the stage's configuration.
        steps: Length of the whole stage; by default the epochs of the configuration.
        out: Folder for checkpoints, written every `checkpoint_interval` steps and held for this run meanwhile.
        overwrite: Let this run take the place of another one in `out`.
        device: Where to train.
        say: Is told, before the first step, how long all will take.

    Raises:
        CDTError: A resumed run on other cells; a folder that holds another run, is in use or cannot be written; a loss
            that is not finite (the last save stays).
    """
    config = data.config
    n_steps = data.steps_for(config.epochs) if steps is None else steps
    require_whole("steps", n_steps, 1)
    require_device(str(device))
    with ExitStack() as held:
        if out is not None:
            held.enter_context(_hold(named(out), checkpoint, data.stage, overwrite))
        _begin(checkpoint, data)
        loop = _Loop(checkpoint, data, n_steps, device)
        if say is not None:
            say(loop.estimate())
        yield from _run(loop, out)


@contextmanager
def _hold(folder: Path, checkpoint: Checkpoint, stage: str, overwrite: bool) -> Iterator[None]:
    """Holds a folder for a run, after making sure that it can be written and that no other run is lost."""
    open_folder(folder)
    with locked(folder, "run", f"a run of {stage}"):
        sweep(folder)
        if (folder / "checkpoint.json").is_file() and not overwrite:
            found = Checkpoint.load(folder)
            goes_on = checkpoint.training and (found.stage, found.step) == (checkpoint.stage, checkpoint.step)
            if not goes_on and found.stage != "new":
                raise CDTError(f"{folder} holds a run of {found.stage}, {found.step} steps: go on with it (--resume; "
                               "Checkpoint.load(folder, resume=True)), let this one take its place (--overwrite; "
                               "overwrite=True), or name another folder")
        yield


def _run(loop: "_Loop", out: str | Path | None) -> Generator[Progress, None, None]:
    """Steps until the end of the stage, and saves."""
    checkpoint, config, n_steps = loop.checkpoint, loop.data.config, loop.n_steps
    began, first = time.perf_counter(), checkpoint.step
    try:
        if checkpoint.step == n_steps:  # a run that is gone on with; it may have been stopped before it was judged
            loop.end(out)
        while checkpoint.step < n_steps:
            loss = loop.step()
            if checkpoint.step == n_steps:
                loop.end(out)
            speed = (checkpoint.step - first) * config.batch_size / (time.perf_counter() - began)
            left = (n_steps - checkpoint.step) * config.batch_size / speed
            if out is not None and checkpoint.step % config.checkpoint_interval == 0:
                loop.save(out)
            yield Progress(checkpoint.stage, checkpoint.step, n_steps, loss, loop.rate, speed, left)
    finally:
        if out is not None and loop.whole:
            loop.save(out)
        loop.model.eval()
        checkpoint.training = {}


def _begin(checkpoint: Checkpoint, data: SetSampler) -> None:
    """Begins a stage, or goes on with it; fine-tuning begins with what its cells say of mean effects."""
    if checkpoint.stage != data.stage or not checkpoint.training:
        checkpoint.stage, checkpoint.step, checkpoint.training = data.stage, 0, {}
        checkpoint.card.pop(JUDGED, None)
    elif checkpoint.card.get("data") != [store.digest() for store in data.stores]:
        raise CDTError(f"this {data.stage} was begun on other cells than it is to go on with: pass the same data, or "
                       "begin anew from Checkpoint.load(folder) without resume")
    if data.stage != "finetune" or JUDGED in checkpoint.card:
        return
    names = set(checkpoint.trained_targets)
    for store in data.stores:
        for gene in np.unique(store.target[store.target >= 0]):
            names.add(checkpoint.vocabulary.symbols[gene])
    checkpoint.trained_targets = sorted(names)
    checkpoint.card["magnitudes"] = magnitudes(data.stores)
    if checkpoint.model.effect is not None and data.config.mean_effects:
        known = (data.stores[0], checkpoint.tokenizer, checkpoint.prior)
        checkpoint.model.effect.fill(effect_table(*known, data.config.validation_share))


def _end(checkpoint: Checkpoint, data: SetSampler) -> None:
    """Ends fine-tuning: says what cells that were set aside say of the model, and tells it their effects, too."""
    held_out = data.validation()
    if held_out is not None:
        nats = validation_curve(checkpoint, held_out, n_batches=VALIDATION_BATCHES).round(4).tolist()
        curve = tuple(zip(SHARES, nats, strict=True))
        diffusion = replace(checkpoint.config.diffusion, sampling_schedule="learned", loss_curve=curve)
        checkpoint.config = replace(checkpoint.config, diffusion=diffusion)
        checkpoint.process = MaskedDiffusion(diffusion, checkpoint.tokenizer.mask_id)
    judged: dict[str, Any] = {}
    if data.config.mean_effects and checkpoint.model.effect is not None:
        known = (data.stores[0], checkpoint.tokenizer, checkpoint.prior)
        shares, judged = trust(checkpoint, data)
        checkpoint.model.effect.fill(replace(effect_table(*known), trusted=shares))
    checkpoint.card[JUDGED] = judged


class _Loop:
    """The moving parts of a run."""

    def __init__(self, checkpoint: Checkpoint, data: SetSampler, n_steps: int, device: torch.device | str) -> None:
        self.checkpoint, self.data, self.n_steps = checkpoint, data, n_steps
        self.device = torch.device(device)
        self.model = checkpoint.model.to(self.device).train()
        if data.config.compile:
            self.model.compile()
        self.optimizer = optimizer_for(self.model, data.config)
        self.optimizer.zero_grad(set_to_none=True)  # an interrupted run may have left some behind
        self.rate, self.whole = 0.0, True
        self._restore()

    def estimate(self) -> str:
        """Says how long the steps that are left will take, from one that changes nothing."""
        for _ in range(2):  # the first may take longer
            began = time.perf_counter()
            loss = loss_of_step(self.checkpoint, self.data, self.checkpoint.step, self.device)
            loss.backward()
            loss.item()  # waits for the device
            seconds = time.perf_counter() - began
            self.optimizer.zero_grad(set_to_none=True)
            if seconds > 1:
                break
        left = self.n_steps - self.checkpoint.step
        return f"{left:,} steps of about {seconds:.2g} s: {left * seconds / 3600:.2f} hours"

    def step(self) -> float:
        """Does one step and returns its loss."""
        config, number = self.data.config, self.checkpoint.step
        self.model.train()  # between steps the caller may have predicted with it
        loss = loss_of_step(self.checkpoint, self.data, number, self.device)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        if not (loss.isfinite() and norm.isfinite()):
            self.whole = False  # what was saved last stays
            raise CDTError(f"the loss of step {number + 1} is {loss.item():g}, its gradient {norm.item():g}: this run "
                           f"ends, its last save stays. Lower the learning rate ({config.learning_rate:g})")
        self.rate = learning_rate(config, number, self.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.whole = False
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.checkpoint.step = number + 1
        self.whole = True
        return loss.item()

    def end(self, out: str | Path | None) -> None:
        """Judges a fine-tuned model, once; whoever stops this finds the run saved as it was, and goes on with it."""
        if self.data.stage != "finetune" or self.checkpoint.model.effect is None or JUDGED in self.checkpoint.card:
            return
        if out is not None:
            self.save(out)
        self.whole = False
        _end(self.checkpoint, self.data)
        self.whole = True

    def save(self, out: str | Path) -> None:
        """Writes model and optimizer state."""
        self.checkpoint.training = {}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                self.checkpoint.training[f"optimizer.{name}.{key}"] = value
        digests = [store.digest() for store in self.data.stores]
        self.checkpoint.card |= {"cdt_lite": __version__, "n_steps": self.n_steps, "data": digests}
        self.checkpoint.save(out)

    def _restore(self) -> None:
        saved = self.checkpoint.training
        for name, parameter in self.model.named_parameters():
            state = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):  # what AdamW keeps
                if f"optimizer.{name}.{key}" in saved:
                    state[key] = saved[f"optimizer.{name}.{key}"].to(self.device, copy=True)
            if state:
                self.optimizer.state[parameter] = state


@torch.no_grad()
def validation_curve(checkpoint: Checkpoint, data: SetSampler, n_batches: int = 8, seed: int = 12345,
                     shares: Sequence[float] = SHARES) -> Float[np.ndarray, " shares"]:
    """Returns the mean loss at several shares of hidden genes, nats per gene, over batches that training never draws.

    Args:
        checkpoint: The model; left in evaluation mode.
        data: Cells to judge on.
        n_batches: Batches to average over.
        seed: Of the masks; the same for every model that is compared.
        shares: Shares of hidden genes.
    """
    model, curves = checkpoint.model.eval(), []
    for i in range(n_batches):
        batch = data.batch(10**9 + i).to(model.head.weight.device)
        generator = torch.Generator().manual_seed(seed + i)
        mask_id = checkpoint.tokenizer.mask_id
        curves.append(loss_curve(denoiser(model, batch), batch.tokens, mask_id, generator, shares))
    return torch.stack(curves).mean(0).cpu().numpy()
