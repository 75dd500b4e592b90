"""The moving parts of a run: a step's loss, the optimizer, and what is saved of them."""

import math
import time
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cdt_lite import __version__
from cdt_lite.data.batches import STAGES, Batch, SetSampler
from cdt_lite.errors import CDTError
from cdt_lite.model import compile_blocks
from cdt_lite.model.config import TrainConfig
from cdt_lite.model.diffusion import Part
from cdt_lite.model.layers import PostNormEncoderLayer
from cdt_lite.training import shards
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.loader import Loader
from cdt_lite.training.processes import any_of, n_processes, rank, share_of
from cdt_lite.training.trust import denoiser

READ_EVERY = 50  # steps between two looks at losses and gradients: a look waits for the device
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps of a weight


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
                 ) -> Float[Tensor, ""]:
    """Returns the loss of a step, nats per hidden gene: batch, masks, dropout depend on (seed, stage, step) alone."""
    batch = data.gather(data.plan(step)).to(device)
    return _Objective(checkpoint, data)(batch, step)


class _Objective(nn.Module):
    """The loss as a module's forward pass, as `DistributedDataParallel` wants it: of a batch, or of a part of each."""

    def __init__(self, checkpoint: Checkpoint, data: SetSampler, part: Part | None = None) -> None:
        super().__init__()
        self.model, self.part = checkpoint.model, part
        self.process, self.config, self.stage = checkpoint.process, data.config, data.stage
        for layer in self.model.modules():
            if isinstance(layer, PostNormEncoderLayer):
                layer.part = part  # dropout

    def forward(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        """Returns what the sets of this process add to the loss of the whole batch."""
        device = batch.tokens.device
        seed = hash((self.config.seed, step, STAGES.index(self.stage))) % 2**63
        generator = torch.Generator().manual_seed(seed)
        own_gpu = [device] if device.type == "cuda" else []
        own_part = () if self.part is None else (self.part,)  # processes of a reader's own may know no parts
        with torch.random.fork_rng(devices=own_gpu), half(self.config, device):
            torch.manual_seed(seed)  # dropout, too, depends on it
            denoise = denoiser(self.model, batch)
            return self.process.loss(denoise, batch.tokens, generator, self.stage, step, *own_part)


def half(config: TrainConfig, device: torch.device) -> AbstractContextManager:
    """Returns the context in which matrix products are made in bf16, where a stage wants that on a device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.in_half(device.type))


class Loop:
    """The moving parts of a run. `whole` says whether the state is that after a step, and not within one."""

    def __init__(self, checkpoint: Checkpoint, data: SetSampler, n_steps: int, device: torch.device | str,
                 shard: bool = False) -> None:
        self.checkpoint, self.data, self.n_steps = checkpoint, data, n_steps
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32
        self.numbers: set[str] = set()
        if data.config.compile:
            compile_blocks(checkpoint.model)
        if shard:
            in_half = data.config.in_half(self.device.type)
            self.numbers = shards.cut(checkpoint.model, self.device, in_half)
        self.model = checkpoint.model.to(self.device).train()
        sets = share_of(data.config.sets_per_batch)
        part = Part(sets.start, data.config.sets_per_batch) if n_processes() > 1 else None
        self.loss: nn.Module = _Objective(checkpoint, data, part)
        if n_processes() > 1 and not shard:
            self.loss = shards.copied(self.loss)
        self.weights = dict(self.model.named_parameters())
        self.optimizer = optimizer_for(self.model, data.config)
        self.optimizer.zero_grad(set_to_none=True)  # an interrupted run may have left some behind
        self.loader = Loader(data, n_steps, sets, self.device)
        self.rate, self.whole = 0.0, True
        self.unread: list[Tensor] = []  # loss and gradient of the steps that nobody has looked at
        self._restore()

    def estimate(self) -> str:
        """Says how long the steps that are left will take, from one that changes nothing."""
        for _ in range(2):  # the first may take longer
            began = time.perf_counter()
            self._backward().item()  # waits for the device
            seconds = time.perf_counter() - began
            self.optimizer.zero_grad(set_to_none=True)
            if any_of(seconds > 1):
                break
        left = self.n_steps - self.checkpoint.step
        return f"{left:,} steps of about {seconds:.2g} s: {left * seconds / 3600:.2f} hours"

    def step(self) -> Float[Tensor, ""]:
        """Does one step and returns its loss, on the device: nothing here waits for it."""
        config, number = self.data.config, self.checkpoint.step
        self.model.train()  # between steps the caller may have predicted with it
        loss = self._backward()
        norm = shards.whole(nn.utils.clip_grad_norm_(self.weights.values(), config.gradient_clip))
        self.unread.append(torch.stack([loss, norm]))
        self.rate = learning_rate(config, number, self.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.whole = False
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.checkpoint.step = number + 1
        self.whole = True
        if len(self.unread) == READ_EVERY or self.checkpoint.step == self.n_steps:
            self.require_finite()
        return loss

    def _backward(self) -> Float[Tensor, ""]:
        """Leaves the gradients of the next step's loss, and returns it."""
        number = self.checkpoint.step
        loss = self.loss(self.loader.batch(number), number)
        (loss * n_processes()).backward()  # of the processes' gradients the mean is taken
        return shards.summed(loss.detach())

    def require_finite(self) -> None:
        """Looks at what the last steps made. Raises CDTError where that is no number: the last save stays."""
        values = torch.stack(self.unread).tolist() if self.unread else []
        first = self.checkpoint.step - len(values) + 1
        self.unread = []
        for step, (loss, norm) in enumerate(values, first):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self.whole = False
                raise CDTError(f"the loss of step {step} is {loss:g}, its gradient {norm:g}: this run ends, its last "
                               f"save stays. Lower the learning rate ({self.data.config.learning_rate:g})")

    def save(self, out: str | Path) -> None:
        """Writes model and optimizer state, whole, from the first process; any number of processes can go on."""
        self.require_finite()
        state = {f"model.{name}": self._kept(name, value) for name, value in self.model.state_dict().items()}
        for name, parameter in self.weights.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                state[f"optimizer.{name}.{key}"] = self._kept(name, value)
        with shards.assembled(state, Path(out)) as tensors:
            if rank():
                return
            digests = [store.digest() for store in self.data.stores]
            self.checkpoint.card |= {"cdt_lite": __version__, "n_steps": self.n_steps, "data": digests}
            self.checkpoint.save(out, tensors=tensors)

    def _kept(self, name: str, value: Tensor) -> Tensor:
        """Returns a tensor as it is saved: what was a number before its model was cut is one again."""
        return shards.whole(value).view(()) if name in self.numbers else value

    def _restore(self) -> None:
        saved, self.checkpoint.training = self.checkpoint.training, {}
        for name, parameter in self.weights.items():
            state = {}
            for key in MOMENTS:
                if f"optimizer.{name}.{key}" in saved:
                    value = saved[f"optimizer.{name}.{key}"].to(self.device)
                    own = value if key == "step" else shards.shard_of(value, parameter)
                    state[key] = own.clone()  # it was mapped from a file
            if state:
                self.optimizer.state[parameter] = state

    def close(self) -> None:
        """Ends the reading of batches, and leaves the model ready to be used."""
        self.loader.close()
        self.model.eval()
        self.checkpoint.training = {}
