"""Runs of the command line: with which settings they begin, how they are stopped, and what may go on."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from cdt_lite.errors import CDTError, suggest
from cdt_lite.model.config import Config
from cdt_lite.training.checkpoint import Checkpoint


class Terminated(KeyboardInterrupt):
    """The system asked the program to end (SIGTERM)."""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Lets SIGTERM end a block as Ctrl-C does, so that what is done is saved. A second one is not heard."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: the one who runs it there decides
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_status(stopped: KeyboardInterrupt) -> int:
    """Returns the status that a shell expects of a program that was stopped: 128 and the signal's number."""
    return 128 + (signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT)


def require_device(name: str) -> None:
    """Checks that a device is there. Raises CDTError with those that are."""
    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda", *map("cuda:{}".format, range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    if name not in there:
        raise CDTError(f"there is no device {name!r} here{suggest(name, there)}; there is {', '.join(there)}")


def with_settings(config: Config, stages: Sequence[str], settings: Mapping[str, Any]) -> Config:
    """Returns a configuration with other settings for some stages.

    Args:
        config: Preset, or a checkpoint's.
        stages: "pretrain", "finetune" or both.
        settings: Fields of `TrainConfig`; None leaves one as it is.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    for stage in stages:
        changed = replace(getattr(config, stage), **given)
        config = replace(config, **{stage: changed})
    return config


def with_panel(config: Config, n_genes: int | None) -> Config:
    """Returns a configuration for another size of the panel; None leaves it as it is."""
    if n_genes is None:
        return config
    return replace(config, model=replace(config.model, n_genes=n_genes))


def resumed(folder: str | Path, stage: str, asked: Mapping[str, Any]) -> Checkpoint:
    """Loads a run to go on with; it keeps the settings that it was begun with.

    Args:
        folder: Where it was saved.
        stage: "pretrain" or "finetune".
        asked: What else is wanted, None where nothing is said: preset, steps, n_top_genes, or fields of `TrainConfig`.

    Raises:
        CDTError: There is no such run, or a setting is not the one that it was begun with.
    """
    checkpoint = Checkpoint.load(folder, resume=True)
    if checkpoint.stage != stage:
        raise CDTError(f"{folder} holds a run of {checkpoint.stage}, not of {stage}: name the folder of the run to "
                       "go on with, or begin anew with --overwrite")
    if not checkpoint.training:
        raise CDTError(f"{folder} holds a model without the state of its training, which cannot be gone on with: "
                       "begin anew with --overwrite, or in another folder")
    own = {"preset": checkpoint.config.name, "steps": checkpoint.card.get("n_steps"),
           "n_top_genes": checkpoint.config.model.n_genes}
    for name, value in asked.items():
        was = own[name] if name in own else getattr(getattr(checkpoint.config, stage), name)
        if value is not None and was is not None and value != was:
            raise CDTError(f"--{name.replace('_', '-')} {value}: this run was begun with {was}; leave it out, or "
                           "begin anew with --overwrite")
    return checkpoint
