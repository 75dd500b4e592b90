"""A model spread over processes: copied to each, or cut into shards; and its tensors whole again, to be saved."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cdt_lite.errors import CDTError
from cdt_lite.model import CDT, V1
from cdt_lite.training.processes import n_processes, rank


def copied(loss: nn.Module) -> nn.Module:
    """Gives every process the first one's weights, and the mean of all gradients after each backward pass.

    Args:
        loss: A module whose forward pass is the loss; not all of its weights take part in each (controls are left out
            of some batches).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 renames the option, older ones know this name alone
        return DistributedDataParallel(loss, broadcast_buffers=False, find_unused_parameters=True)


def cut(model: CDT | V1, device: torch.device, half: bool) -> set[str]:
    """Cuts a model's weights into shards, in place (FSDP2): each process keeps and updates its own.

    A block's weights are whole only while it is at work. A number alone cannot be cut: it becomes a vector of one.

    Args:
        model: In main memory: no device ever holds all of it.
        device: Where its shards go.
        half: Gather the blocks' weights in bf16 (work with them under autocast); what is kept stays in fp32.

    Returns:
        Names of the weights that were numbers.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    numbers = set()
    for name, parameter in list(model.named_parameters()):
        if not parameter.ndim:
            numbers.add(name)
            owner, _, own = name.rpartition(".")
            setattr(model.get_submodule(owner), own, nn.Parameter(parameter.detach()[None]))
    mesh = init_device_mesh(device.type, (n_processes(),))
    policy = MixedPrecisionPolicy()
    if half and device.type == "cuda":  # where autocast brings layer norms back to fp32; on a CPU it does not
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh)  # what is left is small, and some of it needs its digits
    return numbers


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Holds whole, in every process, what lies outside a model's blocks: so it can be asked for parts of an answer."""
    from torch.distributed.fsdp import FSDPModule

    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def whole(value: Tensor) -> Tensor:
    """Returns a tensor with all of its shards; every process has to ask for it."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


@contextmanager
def assembled(state: dict[str, Tensor], folder: Path) -> Iterator[dict[str, Tensor]]:
    """Puts the shards of a state together for the first process, on disk: no process has to hold it whole in memory.

    Each process writes its shards, `torch.distributed.checkpoint` joins them, and the first process maps what it made.

    Args:
        state: Tensors by name; those that are cut are of floats and no numbers alone. The same names in every process.
        folder: Where there is room for twice the shards meanwhile, on a disk that all processes see.

    Yields:
        In the first process the state, whole, for as long as the block lasts; others get nothing of use.

    Raises:
        CDTError: The shards cannot be written.
    """
    cut_ones = {name: value for name, value in state.items() if hasattr(value, "full_tensor")}
    if not cut_ones:
        yield state
        return
    from torch.distributed import checkpoint as dcp

    place = [tempfile.mkdtemp(prefix=".shards-", dir=folder) if rank() == 0 else ""]
    dist.broadcast_object_list(place)
    # Without both options each process overwrites the file of the one before. Whole tensors stay out of it: torch 2.13
    # joins numbers alone to zeros, without a word, and refuses integers.
    writer = dcp.HuggingFaceStorageWriter(place[0], save_distributed=True, enable_consolidation=True)
    found: dict[str, Tensor] = {}
    try:
        dcp.save(cut_ones, storage_writer=writer)
        if rank() == 0:
            found |= state | _joined(Path(place[0]), cut_ones)
        yield found
    except dcp.CheckpointException as error:
        reasons = {str(reason) for reason, _ in error.failures.values()}
        raise CDTError(f"the shards cannot be written to {folder}: {'; '.join(sorted(reasons))}: the last save stays. "
                       "Make room, or name another folder") from error
    finally:
        found.clear()  # a disk of another machine keeps what is still mapped
        if rank() == 0:
            shutil.rmtree(place[0], ignore_errors=True)


def _joined(place: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns what a writer joined. Raises CDTError where it did not find all: it leaves zeros there, or ends early."""
    n_written = 0
    for path in (place / "sharded").iterdir():
        n_written += sum(part.numel() for part in load_file(path).values())
    n_expected = sum(value.numel() for value in expected.values())
    if n_written != n_expected:
        raise CDTError(f"{n_written:,} of {n_expected:,} weights and moments of all processes were found in "
                       f"{place.parent}: give them a folder (--out) on a disk that all see. The last save stays")
    return load_file(next(place.glob("*.safetensors")))


def shard_of(value: Tensor, like: Tensor) -> Tensor:
    """Returns the part of a tensor, whole in every process, that this one keeps of one like it."""
    if not hasattr(like, "full_tensor"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(value.view(like.shape), like.device_mesh, like.placements, src_data_rank=None)


def summed(value: Tensor) -> Tensor:
    """Returns the sum over all processes."""
    if n_processes() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value
