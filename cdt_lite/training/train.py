"""The training loop: a generator that yields what happened, so that the caller logs, plots and stops as they like."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from cdt_lite.data.batches import SetSampler
from cdt_lite.errors import CDTError, require_whole
from cdt_lite.files import locked, named, sweep
from cdt_lite.model.diffusion import SHARES, MaskedDiffusion, loss_curve
from cdt_lite.training.checkpoint import Checkpoint, open_folder
from cdt_lite.training.effects import effect_table, magnitudes
from cdt_lite.training.loop import Loop, half
from cdt_lite.training.processes import first_does, require_joined, require_same, share_of, stopping_together
from cdt_lite.training.runs import require_device
from cdt_lite.training.shards import gathered
from cdt_lite.training.trust import denoiser, trust

VALIDATION_BATCHES = 4
JUDGED = "validation"  # what is on the card once a fine-tuned model was judged


@dataclass(frozen=True)
class Progress:
    """What one training step did."""

    stage: str  # "pretrain" or "finetune"
    step: int  # steps done in this stage, after this one
    n_steps: int  # planned
    nats: Float[torch.Tensor, ""]  # the loss, per hidden gene, on the device that made it
    learning_rate: float
    cells_per_second: float  # since this call began
    seconds_left: float  # at that speed

    @property
    def loss(self) -> float:
        """The loss, nats per hidden gene. A GPU is waited for: look now and then, not at every step."""
        return self.nats.item()


def train(checkpoint: Checkpoint, data: SetSampler, *, steps: int | None = None, out: str | Path | None = None,
          overwrite: bool = False, device: torch.device | str = "cpu", say: Callable[[str], None] | None = None,
          shard: bool = False) -> Generator[Progress, None, None]:
    """Trains a checkpoint's model in place, yielding after every step.

    A checkpoint that was loaded from `out` with resume=True goes on from there, exactly: batch, masks and dropout of a
    step depend on (seed, stage, step) alone. Any other begins the stage at its first step, whatever it was trained on
    before. However the loop ends (at its end, `break`, Ctrl-C) the state is saved to `out` first, unless an update was
    half done (then the last save stands).

    Several processes (`torchrun`, `torch.distributed.init_process_group()`) train one model when all call this with the
    same and go on to the same step: each takes its sets of every batch, the first one writes, and losses and weights
    are those of one process but for rounding. A run can be gone on with by another number of processes.

    Args:
        checkpoint: From `start`, or `Checkpoint.load`.
        data: Batches and their stage; `data.config` is the stage's configuration.
        steps: Length of the whole stage; by default the epochs of the configuration.
        out: Folder for checkpoints, written every `checkpoint_interval` steps and held for this run meanwhile.
        overwrite: Let this run take the place of another one in `out`.
        device: Where to train.
        say: Is told, before the first step, how long all will take; in every process or in none.
        shard: Cut the weights into shards, one a process (FSDP2), instead of copying them to each; afterwards the model
            in memory works in all processes together only, and `out` holds it whole.

    Raises:
        CDTError: A resumed run on other cells; a folder that holds another run, is in use or cannot be written; a loss
            that is not finite, found within 50 steps and never saved (the last save stays); several processes that do
            not know of each other, are more than the sets of a batch, or do not begin with the same.
    """
    config = data.config
    n_steps = data.steps_for(config.epochs) if steps is None else steps
    require_whole("steps", n_steps, 1)
    require_device(str(device))
    require_joined(shard)
    share_of(config.sets_per_batch)
    with ExitStack() as held:
        if out is not None:
            hold = _hold(named(out), checkpoint, data.stage, overwrite)
            first_does(lambda: held.enter_context(hold))
        _begin(checkpoint, data)
        require_same("a run", checkpoint.stage, checkpoint.step, n_steps, [store.digest() for store in data.stores])
        look = held.enter_context(stopping_together())
        loop = held.enter_context(closing(Loop(checkpoint, data, n_steps, device, shard)))
        if say is not None:
            say(loop.estimate())
        yield from _run(loop, out, look)


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


def _run(loop: Loop, out: str | Path | None, look: Callable[[], None]) -> Generator[Progress, None, None]:
    """Steps until the end of the stage, and saves; `look` raises where all processes are to stop."""
    checkpoint, config, n_steps = loop.checkpoint, loop.data.config, loop.n_steps
    began, first = time.perf_counter(), checkpoint.step
    try:
        if checkpoint.step == n_steps:  # a run that is gone on with; it may have been stopped before it was judged
            _judge(loop, out)
        while checkpoint.step < n_steps:
            loss = loop.step()
            if checkpoint.step == n_steps:
                _judge(loop, out)
            speed = (checkpoint.step - first) * config.batch_size / (time.perf_counter() - began)
            left = (n_steps - checkpoint.step) * config.batch_size / speed
            if out is not None and checkpoint.step % config.checkpoint_interval == 0:
                loop.save(out)
            look()
            yield Progress(checkpoint.stage, checkpoint.step, n_steps, loss, loop.rate, speed, left)
    finally:
        if out is not None and loop.whole:
            loop.save(out)


def _begin(checkpoint: Checkpoint, data: SetSampler) -> None:
    """Begins a stage, or goes on with it; fine-tuning begins with what its cells say of mean effects."""
    for store in data.stores:
        store.require(checkpoint.tokenizer, checkpoint.vocabulary.symbols)
    goes_on = checkpoint.stage == data.stage and bool(checkpoint.training)
    if not goes_on:
        checkpoint.stage, checkpoint.step, checkpoint.training = data.stage, 0, {}
        checkpoint.card.pop(JUDGED, None)
    elif checkpoint.card.get("data") != [store.digest() for store in data.stores]:
        raise CDTError(f"this {data.stage} was begun on other cells than it is to go on with: pass the same data, or "
                       "begin anew from Checkpoint.load(folder) without resume")
    if data.stage != "finetune" or goes_on:  # the checkpoint holds what follows
        return
    names = set(checkpoint.trained_targets)
    for store in data.stores:
        for gene in np.unique(store.target[store.target >= 0]):
            names.add(checkpoint.vocabulary.symbols[gene])
    checkpoint.trained_targets = sorted(names)
    checkpoint.card["magnitudes"] = magnitudes(data.stores)
    checkpoint.card["contexts"] = sorted(set[str]().union(*(store.perturbed_contexts for store in data.stores)))
    if checkpoint.model.effect is not None and data.config.mean_effects:
        known = (data.stores[0], checkpoint.tokenizer, checkpoint.prior)
        checkpoint.model.effect.fill(effect_table(*known, data.config.validation_share))


def _judge(loop: Loop, out: str | Path | None) -> None:
    """Judges a fine-tuned model, once; whoever stops this finds the run saved as it was, and goes on with it."""
    if loop.data.stage != "finetune" or loop.model.effect is None or JUDGED in loop.checkpoint.card:
        return
    if out is not None:
        loop.save(out)
    loop.whole = False
    with gathered(loop.model), half(loop.data.config, loop.device):
        _end(loop.checkpoint, loop.data)
    loop.whole = True


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
