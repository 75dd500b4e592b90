"""What a terminal shows of a run: one bar a stage on standard output, and the peak of memory."""

import torch

from cdt_lite.terminal import peak_memory, with_bar
from cdt_lite.training.train import Progress


def test_the_bar_passes_everything_through_and_writes_to_standard_output(capsys):
    steps = [Progress("finetune", i + 1, 5, torch.tensor(1.0), 1e-3, 100.0, 0.0) for i in range(5)]
    assert list(with_bar(steps)) == steps
    captured = capsys.readouterr()
    assert "5/5" in captured.out and "loss 1.000" in captured.out and captured.err == ""
    assert list(with_bar([])) == []


def test_every_stage_gets_a_bar_of_its_own(capsys):
    steps = []
    for stage, n in (("pretrain", 2), ("finetune", 3)):
        steps += [Progress(stage, i + 1, n, torch.tensor(1.0), 1e-3, 100.0, 0.0) for i in range(n)]
    assert list(with_bar(steps, "capsule")) == steps
    out = capsys.readouterr().out
    assert "capsule pretrain" in out and "2/2" in out and "capsule finetune" in out and "3/3" in out


def test_memory_is_a_plausible_number_of_gigabytes():
    assert 0.05 < peak_memory() < 100


def test_a_run_that_is_left_early_closes_its_bar(capsys):
    steps = with_bar(Progress("finetune", i + 1, 5, torch.tensor(1.0), 1e-3, 100.0, 0.0) for i in range(5))
    next(steps), next(steps)
    steps.close()
    assert capsys.readouterr().out.endswith("\n")
