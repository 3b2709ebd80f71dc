"""Tests of what benchmarks measure with: order and processes of the sides, spreads, meters."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.measure import (
    Readings,
    SideProcess,
    alternate,
    machine_seconds,
    metered,
    named_seconds,
    ratios,
    spread,
    surroundings,
)
from impon_hpo import ImponHpoError
from impon_hpo.errors import ConfigError
from tests.conftest import STUDIES


def test_sides_take_turns_and_the_warm_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    ran: list[str] = []
    seconds = alternate({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 3)
    assert ran == ["a", "b"] * 4
    assert seconds == {"a": [1.0] * 3, "b": [1.0] * 3}


def test_no_round_is_refused() -> None:
    with pytest.raises(ConfigError, match="rounds must be at least 1, but got 0"):
        alternate({}, 0)


def test_spread_is_median_and_quartiles() -> None:
    quartiles = spread([1, 2, 3, 4, 100])
    assert (quartiles.low, quartiles.median, quartiles.high) == (2, 3, 4)
    assert quartiles.scaled(10).columns("ms") == {"ms": 30.0, "ms_q1": 20.0, "ms_q3": 40.0}


def test_ratios_are_paired_by_round() -> None:
    # Twice as slow in each round; the ratio of the medians would be another.
    assert ratios([2, 20, 6], [1, 10, 3]).median == 2


def test_figures_have_four_digits() -> None:
    assert spread([1234.567]).columns("n")["n"] == 1235.0
    assert spread([0.00123456]).columns("n")["n"] == 0.001235


def test_surroundings_have_versions_hardware_and_load() -> None:
    machine = surroundings("cpu")
    assert machine["versions"]["torch"]
    assert machine["threads"] == 1
    assert machine["load"] >= 0


def test_between_two_readings_the_count_is_interpolated() -> None:
    readings = Readings([0.0, 1.0, 3.0], [10.0, 12.0, 20.0])
    assert readings.between(0.5, 2.0) == pytest.approx(16 - 11)
    assert readings.between(-5, 50) == 10


def test_a_meter_sees_what_is_used_while_it_is_open() -> None:
    begin = time.perf_counter()
    with metered(time.process_time) as readings:
        used = time.process_time()
        while time.process_time() < used + 0.4:
            pass
    end = time.perf_counter()
    assert len(readings.counts) >= 3
    assert 0.35 < readings.between(begin, end) < end - begin + 0.1
    assert machine_seconds() > time.process_time()


def test_a_server_is_known_by_its_name(tmp_path: Path) -> None:
    python = tmp_path / "spinning"
    python.symlink_to(sys.executable)
    spin = "import time\nwhile time.process_time() < 0.6: pass\nprint(flush=True)\ntime.sleep(60)"
    assert named_seconds({"spinning"}) == 0
    with subprocess.Popen([python, "-c", spin], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        assert named_seconds({"spinning"}) > 0.4
        server.kill()


def build_counter(*, start: int) -> Callable[[], tuple[int, int]]:
    if start < 0:
        raise ValueError("below zero")
    count = start

    def run() -> tuple[int, int]:
        nonlocal count
        count += 1
        if count > 2:
            os._exit(3)
        return os.getpid(), count

    return run


def test_side_is_built_once_and_runs_elsewhere_whenever_called() -> None:
    with SideProcess(build_counter, {"start": 0}) as side:
        (pid, first), (same_pid, second) = side(), side()
        assert pid == same_pid != os.getpid()
        assert (first, second) == (1, 2)
        with pytest.raises(ImponHpoError, match="its process ended with code 3"):
            side()


def test_a_side_that_cannot_be_built_says_why() -> None:
    with pytest.raises(ImponHpoError, match="ValueError: below zero"):
        SideProcess(build_counter, {"start": -1})


def build_sleeper(*, pid_file: Path) -> Callable[[], None]:
    def run() -> None:
        pid_file.write_text(str(os.getpid()))
        time.sleep(60)

    return run


@pytest.mark.slow
def test_side_ends_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    start = (
        "from pathlib import Path\n"
        "from benchmarks.measure import SideProcess\n"
        f"from {__name__} import build_sleeper\n"
        f"SideProcess(build_sleeper, {{'pid_file': Path({str(pid_file)!r})}})()"
    )
    paths = os.pathsep.join([str(STUDIES.parent), str(STUDIES / "speed")])
    parent = subprocess.Popen([sys.executable, "-c", start], env=os.environ | {"PYTHONPATH": paths})
    limit = time.monotonic() + 60
    while not pid_file.exists() or not pid_file.read_text():
        assert time.monotonic() < limit
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while is_running(int(pid_file.read_text())):
        assert time.monotonic() < limit
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
