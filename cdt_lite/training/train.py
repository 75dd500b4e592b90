"""The training loop: a generator that yields what happened, so that the caller logs, plots and stops as they like."""

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cdt_lite import __version__
from cdt_lite.data.batches import STAGES, Batch, SetSampler
from cdt_lite.errors import CDTError
from cdt_lite.model.cdt import CDT
from cdt_lite.model.config import TrainConfig
from cdt_lite.model.diffusion import Denoiser, draw_masks, hide, loss_curve, masked_loss
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.effects import effect_table


@dataclass(frozen=True)
class Progress:
    """What one training step did.

    Args:
        stage: "pretrain" or "finetune".
        step: Steps done in this stage, after this one.
        n_steps: Steps planned.
        loss: Nats per hidden gene.
        learning_rate: Of this step.
        cells_per_second: Since this call began.
        seconds_left: At that speed.
    """

    stage: str
    step: int
    n_steps: int
    loss: float
    learning_rate: float
    cells_per_second: float
    seconds_left: float


def denoiser(model: CDT, batch: Batch) -> Denoiser:
    """Returns the model with a batch's condition filled in: (xt, t) -> logits."""
    return lambda xt, t: model(xt, t, batch.perturbation, batch.controls, batch.gene_ids, batch.log_depth)


def optimizer_for(model: CDT, config: TrainConfig) -> torch.optim.AdamW:
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


def train(checkpoint: Checkpoint, data: SetSampler, *, steps: int | None = None, out: str | Path | None = None,
          device: torch.device | str = "cpu") -> Generator[Progress, None, None]:
    """Trains a checkpoint's model in place, yielding after every step.

    A checkpoint that was loaded from `out` with resume=True goes on from there, exactly: batch, masks and dropout of a
    step depend on (seed, stage, step) alone. Any other begins the stage at its first step, whatever it was trained on
    before. However the loop ends (at its end, `break`, Ctrl-C) the state is saved to `out` first, unless an update was
    half done (then the last save stands), and the model is left holding the moving average of its weights, if any.

    Args:
        checkpoint: From `start`, or `Checkpoint.load`.
        data: Batches and their stage; `data.config` is the stage's configuration.
        steps: Length of the whole stage; by default the epochs of the configuration.
        out: Folder for checkpoints, written every `checkpoint_interval` steps.
        device: Where to train.

    Raises:
        CDTError: fp16 without a GPU, or a resumed run on other cells.
    """
    config, stage = data.config, data.stage
    n_steps = data.steps_for(config.epochs) if steps is None else steps
    if config.precision == "fp16" and torch.device(device).type != "cuda":
        raise CDTError("fp16 needs a CUDA GPU (gradients underflow without scaling kernels): use fp32 or bf16 here.")
    if checkpoint.stage != stage or not checkpoint.training:
        checkpoint.stage, checkpoint.step, checkpoint.training = stage, 0, {}
    elif checkpoint.card.get("data") != [store.digest() for store in data.stores]:
        raise CDTError(f"this {stage} was begun on other cells than it is to go on with: pass the same data, or begin "
                       "anew from Checkpoint.load(folder) without resume")
    if stage == "finetune":
        _remember_targets(checkpoint, data)
        if checkpoint.model.embed.effect is not None:
            checkpoint.model.embed.effect.fill(effect_table(data.stores[0], checkpoint.tokenizer))
    loop = _Loop(checkpoint, data, n_steps, device)
    began, first = time.perf_counter(), checkpoint.step
    try:
        while checkpoint.step < n_steps:
            loss = loop.step()
            speed = (checkpoint.step - first) * config.batch_size / (time.perf_counter() - began)
            left = (n_steps - checkpoint.step) * config.batch_size / speed
            if out is not None and checkpoint.step % config.checkpoint_interval == 0:
                loop.save(out)
            yield Progress(stage, checkpoint.step, n_steps, loss, loop.rate, speed, left)
    finally:
        if out is not None and loop.whole:
            loop.save(out)
        loop.finish()


class _Loop:
    """The moving parts of a run: optimizer, moving average, gradient scaler."""

    def __init__(self, checkpoint: Checkpoint, data: SetSampler, n_steps: int, device: torch.device | str) -> None:
        self.checkpoint, self.data, self.n_steps, self.device = checkpoint, data, n_steps, torch.device(device)
        self.model = checkpoint.model.to(self.device).train()
        self.optimizer = optimizer_for(self.model, data.config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=data.config.precision == "fp16")
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()} if data.config.ema_decay else {}
        self.forward = torch.compile(self.model) if data.config.compile else self.model
        self.rate, self.whole, self.stage = 0.0, True, STAGES.index(data.stage)
        self.optimizer.zero_grad(set_to_none=True)  # an interrupted run may have left some behind
        self._restore()

    def step(self) -> float:
        """Does one step and returns its loss."""
        config, number = self.data.config, self.checkpoint.step
        self.model.train()  # between steps the caller may have predicted with it
        batch = self.data.batch(number)
        generator = torch.Generator().manual_seed(hash((config.seed, number, self.stage)) % 2**63)
        n_sets, n_cells, n_genes = batch.tokens.shape
        masked = draw_masks(self.checkpoint.config.diffusion, (n_sets, n_cells, n_genes), generator, self.data.stage,
                            number)
        loss = self._loss(batch.to(self.device), masked.mask.to(self.device), masked.t.float().to(self.device), number)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        self.rate = learning_rate(config, number, self.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.whole = False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._average(number)
        self.checkpoint.step, self.whole = number + 1, True
        return loss.item()

    def _loss(self, batch: Batch, mask: Tensor, t: Tensor, number: int) -> Tensor:
        config, diffusion = self.data.config, self.checkpoint.config.diffusion
        half = torch.float16 if config.precision == "fp16" else torch.bfloat16
        with torch.random.fork_rng(), torch.autocast(self.device.type, half, enabled=config.precision != "fp32"):
            torch.manual_seed(hash((config.seed, number, self.stage)) % 2**63)  # dropout, too, depends on these
            xt = hide(batch.tokens, mask, self.checkpoint.tokenizer.mask_id)
            logits = self.forward(xt, t, batch.perturbation, batch.controls, batch.gene_ids, batch.log_depth)
        return masked_loss(logits.float(), batch.tokens, mask, diffusion.mask_law)

    def _average(self, number: int) -> None:
        if not self.average:
            return
        decay = min(self.data.config.ema_decay, (1 + number) / (10 + number))  # a short memory while all is new
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                self.average[name].lerp_(value, 1 - decay)

    def save(self, out: str | Path) -> None:
        """Writes model, moving average and optimizer state."""
        names = {id(p): name for name, p in self.model.named_parameters()}
        self.checkpoint.training = {f"ema.{k}": v for k, v in self.average.items()}
        for parameter, state in self.optimizer.state.items():
            for key, value in state.items():
                self.checkpoint.training[f"optimizer.{names[id(parameter)]}.{key}"] = value
        self.checkpoint.card |= {"cdt_lite": __version__, "n_steps": self.n_steps,
                                 "data": [s.digest() for s in self.data.stores]}
        self.checkpoint.save(out)

    def _restore(self) -> None:
        saved = self.checkpoint.training
        for name in self.average:
            if f"ema.{name}" in saved:
                self.average[name] = saved[f"ema.{name}"].to(self.device).clone()
        for name, parameter in self.model.named_parameters():
            prefix = f"optimizer.{name}."
            state = {k.removeprefix(prefix): v.clone() for k, v in saved.items() if k.startswith(prefix)}
            if state:
                self.optimizer.state[parameter] = {k: v.to(self.device) for k, v in state.items()}

    def finish(self) -> None:
        """Leaves the model ready for use, holding its moving average."""
        if self.average:
            self.model.load_state_dict(self.average)
        self.model.eval()
        self.checkpoint.training = {}


def _remember_targets(checkpoint: Checkpoint, data: SetSampler) -> None:
    ids = {int(i) for store in data.stores for i in np.unique(store.target) if i >= 0}
    names = {checkpoint.vocabulary.symbols[i] for i in ids}
    checkpoint.trained_targets = sorted({*checkpoint.trained_targets, *names})


@torch.no_grad()
def validation_curve(checkpoint: Checkpoint, data: SetSampler, n_batches: int = 8, seed: int = 12345,
                     shares: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)) -> np.ndarray:
    """Returns the mean loss at several shares of hidden genes, nats per gene, over batches that training never draws.

    Args:
        checkpoint: The model; left in evaluation mode.
        data: Cells to judge on.
        n_batches: Batches to average over.
        seed: Of the masks; the same for every model that is compared.
        shares: Shares of hidden genes.
    """
    model, curves = checkpoint.model.eval(), []
    device = model.head.weight.device
    for i in range(n_batches):
        batch = data.batch(10**9 + i)
        generator = torch.Generator().manual_seed(seed + i)
        on_device = batch.to(device)
        curves.append(loss_curve(denoiser(model, on_device), on_device.tokens, checkpoint.tokenizer.mask_id, generator,
                                 tuple(shares)))
    return torch.stack(curves).mean(0).cpu().numpy()
