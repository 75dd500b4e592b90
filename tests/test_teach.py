import pytest

from cdt_lite import teach
from cdt_lite.errors import CDTError
from cdt_lite.training import Progress


def test_the_profile_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("CDT_PROFILE", raising=False)
    assert teach.profile_name() == "laptop"
    monkeypatch.setenv("CDT_PROFILE", "ci")
    assert teach.profile_name() == "ci"
    monkeypatch.setenv("CDT_PROFILE", "labtop")
    with pytest.raises(CDTError, match="'laptop'"):
        teach.profile_name()


def test_a_lesson_says_what_it_found_and_picks_by_profile(monkeypatch, capsys):
    monkeypatch.setenv("CDT_SCREEN", "simulated")
    monkeypatch.setenv("CDT_PROFILE", "ci")
    lesson = teach.begin("04")
    assert lesson.pick(ci=1, laptop=2, gpu=3) == 1 and not lesson.is_real
    lesson.report()
    out = capsys.readouterr().out
    assert "Notebook 04 | profile ci" in out and "simulated" in out and "peak memory" in out and "scanpy" in out


def test_the_bar_passes_everything_through_and_writes_to_standard_output(capsys):
    steps = [Progress("finetune", i + 1, 5, 1.0, 1e-3, 100.0, 0.0) for i in range(5)]
    assert list(teach.with_bar(steps)) == steps
    captured = capsys.readouterr()
    assert "5/5" in captured.out and "loss 1.000" in captured.out and captured.err == ""
    assert list(teach.with_bar([])) == []


def test_memory_is_a_plausible_number_of_gigabytes():
    assert 0.05 < teach.peak_memory() < 100
