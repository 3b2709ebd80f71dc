"""Tests of the meter: any part of the time can be asked for, and it counts what it says."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from impon_hpo.benchmarks.meter import (
    Readings,
    machine_seconds,
    metered,
    named_seconds,
)


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
