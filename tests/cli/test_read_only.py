"""A study that may only be read, such as a backup: what looks works, what writes says so."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cli.test_serve import free_port, get
from tests.command import run
from tests.powers import give_up_powers
from tests.studies import write_study
from tests.tuning.forks import Forked

FILES = {"study.db": "sqlite:///study.db", "study.journal": "study.journal"}


@pytest.mark.parametrize("name", FILES)
def test_commands_that_look_work_and_tune_is_refused(name: str) -> None:
    storage = ("--storage", FILES[name])
    assert run("tune", write_study(), "--trials", "1", *storage) == 0
    port = free_port()

    def look() -> None:
        for folder in (Path("runs/small"), Path("runs"), Path()):
            folder.chmod(0o555)
        Path(name).chmod(0o444)
        give_up_powers()
        assert run("status", "small", *storage) == 0
        assert run("watch", "small", "--trials", "1", *storage) == 0
        assert run("pictures", "small", "--to", os.environ["XDG_CACHE_HOME"], *storage) == 0
        assert run("tune", "small", "--trials", "2", *storage) == 2
        assert run("dashboard", "small", "--port", str(port), *storage) == 0

    looking = Forked(look)
    looking.wait_until(lambda: "/dashboard" in looking.out)
    assert b"small-impon" in get(f"http://127.0.0.1:{port}/api/studies")
    os.kill(looking.pid, signal.SIGTERM)
    assert looking.wait(seconds=20) == 0, looking.said
    assert "Traceback" not in looking.said
    refusal, dashboard = (line for line in looking.said.splitlines() if "can only be read" in line)
    assert refusal.startswith(f"Error: Storage '{FILES[name]}' can only be read")
    assert dashboard.startswith("Notes and graphs could not be saved")
    for folder in (Path(), Path("runs"), Path("runs/small")):
        folder.chmod(0o755)
