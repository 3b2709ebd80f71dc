"""Seconds by phase: they add up by name, and only what ran inside counts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from impon_hpo.training.timing import PhaseTimer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that shows the number in its list."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_seconds_of_a_phase_add_up(clock: list[float]) -> None:
    timer = PhaseTimer(torch.device("cpu"))
    for seconds in (1.0, 2.5):
        with timer.phase("drawing"):
            clock[0] += seconds
        clock[0] += 50.0
    assert timer.seconds("drawing") == 3.5


def test_phases_do_not_mix(clock: list[float]) -> None:
    timer = PhaseTimer(torch.device("cpu"))
    with timer.phase("drawing"):
        clock[0] += 1.0
    with timer.phase("stepping"):
        clock[0] += 4.0
    assert (timer.seconds("drawing"), timer.seconds("stepping")) == (1.0, 4.0)


def test_phase_that_never_ran_took_no_time() -> None:
    assert PhaseTimer(torch.device("cpu")).seconds("validating") == 0.0


def test_real_time_is_measured() -> None:
    timer = PhaseTimer(torch.device("cpu"))
    begun = time.perf_counter()
    with timer.phase("drawing"):
        time.sleep(0.02)
    assert 0.02 <= timer.seconds("drawing") <= time.perf_counter() - begun


class FakeEvent:
    """A CUDA event that takes its time from `ticks`."""

    ticks: Iterator[float] = iter(())

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at = 0.0

    def record(self, stream: object) -> None:
        self.at = next(FakeEvent.ticks)

    def elapsed_time(self, other: FakeEvent) -> float:
        return other.at - self.at


def test_gpu_is_asked_for_its_own_events_and_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[object] = []
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    monkeypatch.setattr(FakeEvent, "ticks", iter([0.0, 250.0, 300.0, 301.0, 400.0, 650.0]))
    timer = PhaseTimer(torch.device("cuda"))
    for name in ("drawing", "stepping", "drawing"):
        with timer.phase(name):
            pass
    assert waits == []
    assert timer.seconds("drawing") == 0.5
    assert timer.seconds("stepping") == 0.001
    assert len(waits) == 1
