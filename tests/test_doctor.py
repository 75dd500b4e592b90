"""The doctor's verdict: what a machine lacks, each time with what to do."""

import math

from cdt_lite import doctor


def test_a_machine_with_everything_lacks_nothing():
    assert doctor.shortcomings(8.0, 50.0) == []
    assert doctor.shortcomings(float("nan"), 50.0) == []  # not known is not a reason to stop


def test_every_shortcoming_says_what_to_do(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "jupyterlab" else object())
    found = doctor.shortcomings(1.0, 0.1)
    assert len(found) == 3
    for line, word, cure in zip(found, ("jupyterlab", "1.0 GB", "0.1 GB"),
                                ("run.py setup", "CDT_PROFILE=ci", "CDT_LITE_DATA"), strict=True):
        assert word in line and cure in line


def test_the_report_ends_with_the_verdict(monkeypatch):
    monkeypatch.setattr(doctor, "free_memory", lambda: 8.0)
    assert doctor.report()[-1] == "ready for the notebooks"
    monkeypatch.setattr(doctor, "free_memory", lambda: 0.5)
    lines = doctor.report()
    assert lines[-1].startswith("not ready") and "0.5 GB free" in lines[-2]


def test_free_memory_is_a_plausible_number_of_gigabytes():
    assert math.isnan(doctor.free_memory()) or 0 < doctor.free_memory() < 10_000
