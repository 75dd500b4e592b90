"""A model spread over processes: copied to each, or cut into shards; and its tensors whole again, to be saved."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cdt_lite.model import CDT, V1
from cdt_lite.training.processes import n_processes


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


def shard_of(value: Tensor, like: Tensor) -> Tensor:
    """Returns the part of a whole tensor that this process keeps of one like it."""
    if not hasattr(like, "full_tensor"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(value.view(like.shape), like.device_mesh, like.placements)


def summed(value: Tensor) -> Tensor:
    """Returns the sum over all processes."""
    if n_processes() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value
