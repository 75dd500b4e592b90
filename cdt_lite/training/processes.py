"""Several processes that train one model, started by torchrun: who they are, and what they do together.

Each holds the same checkpoint and goes the same way. What is random is drawn for the whole batch by (seed, step), and a
process takes its sets' part of it. Where there is no process group there is one process, and nothing here talks.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from cdt_lite.errors import CDTError
from cdt_lite.training.runs import Terminated, require_device

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # for the slowest process: some read cells, or judge, for long


def n_launched() -> int:
    """Returns how many processes torchrun started, this one among them; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def n_processes() -> int:
    """Returns how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns this process's number among them, from 0."""
    return dist.get_rank() if n_processes() > 1 else 0


def share_of(n_sets: int) -> slice:
    """Returns the sets of a batch that are this process's. Raises CDTError where some process would have none."""
    if n_processes() > n_sets:
        raise CDTError(f"{n_processes()} processes for the {n_sets} sets of a batch: start at most {n_sets}")
    return slice(rank() * n_sets // n_processes(), (rank() + 1) * n_sets // n_processes())


def require_joined(shard: bool = False) -> None:
    """Refuses to do alone what others do beside it, and to cut a model for nobody. Raises CDTError."""
    if shard and not (dist.is_available() and dist.is_initialized()):
        raise CDTError("--shard (shard=True) cuts a model for the processes that torchrun starts: begin with torchrun "
                       "--nproc-per-node N -m cdt_lite.cli, or leave it out")
    if n_launched() > 1 and n_processes() == 1:
        raise CDTError(f"torchrun started {n_launched()} processes, which would all do the same: start one, without "
                       "torchrun; or, to train together by a script of yours, let it begin with "
                       "torch.distributed.init_process_group()")


def require_same(what: str, *facts: Any) -> None:
    """Makes sure that all processes begin with the same. Raises CDTError in each of them where one does not."""
    if n_processes() == 1:
        return
    told: list[Any] = [None] * n_processes()
    dist.all_gather_object(told, facts)
    for number, other in enumerate(told):
        if other != told[0]:
            raise CDTError(f"process {number} is to train on {what} that process 0 does not have ({other} against "
                           f"{told[0]}): give all the same cells, options and folder, on a disk that all see")


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Joins the processes that torchrun started, for a block; gives the device of this one. Only the first one speaks.

    Args:
        device: "cpu", or "cuda": each process takes the GPU of its own number on this machine.

    Raises:
        CDTError: There is no such GPU, or the others cannot be reached.
    """
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    own = own_device(device)
    try:
        dist.init_process_group(timeout=PATIENCE)  # gloo for what lies on the CPU, NCCL for GPUs
    except (ValueError, RuntimeError) as error:
        raise CDTError(f"process {os.environ.get('RANK')} of {n_launched()} cannot join the others ({error}): start "
                       "them with torchrun") from error
    try:
        with open(os.devnull, "w") as nowhere, _silent_but_first(nowhere):
            yield own
    finally:
        dist.destroy_process_group()


@contextmanager
def _silent_but_first(nowhere: Any) -> Iterator[None]:
    if rank() == 0:
        yield
        return
    with redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def own_device(device: str) -> str:
    """Returns the device of this process among those of its machine. Raises CDTError where it is not there."""
    if device == "cpu":
        return device
    if device != "cuda":
        raise CDTError(f"--device {device}: with torchrun give cuda, and each process takes a GPU of its own, or cpu")
    own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        require_device(own)
    except CDTError as error:
        raise CDTError(f"{error}: let --nproc-per-node be the number of GPUs of a machine") from error
    torch.cuda.set_device(own)
    return own


def any_of(flag: int) -> int:
    """Returns the largest of the flags of all processes: whether it is so anywhere."""
    if n_processes() == 1:
        return flag
    largest = torch.tensor(flag)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def first_does(action: Callable[[], T]) -> T | None:
    """Does something in the first process alone. Raises CDTError in all of them where it fails there."""
    if n_processes() == 1:
        return action()
    done, failure = None, [""]
    if rank() == 0:
        try:
            done = action()
        except CDTError as error:
            failure = [str(error)]
    dist.broadcast_object_list(failure)
    if failure[0]:
        raise CDTError(failure[0])
    return done


@contextmanager
def stopping_together() -> Iterator[Callable[[], None]]:
    """Lets a signal to one process stop all of them after the same step; gives what to call after each step.

    The death of the launcher counts as such a signal. One process alone is interrupted at once, as ever.
    """
    if n_processes() == 1:
        yield lambda: None
        return
    heard, launcher = [0], os.getppid()

    def note(number: int, frame: Any) -> None:
        heard.append(number)

    def look() -> None:
        if os.getppid() != launcher:
            heard.append(signal.SIGTERM)
        stopped = any_of(max(heard))
        if stopped:
            raise KeyboardInterrupt if stopped == signal.SIGINT else Terminated

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield look
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
