"""A disk that is full: a clear error, and nothing that was saved is lost."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from tests.studies import write_study
from tests.tuning.forks import fork
from tests.tuning.test_recovery import STUDY, outcome, record, tune, undisturbed

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
__all__ = ["undisturbed"]


def test_study_continues_when_there_is_room_again(
    undisturbed: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write_study(STUDY)

    def with_little_room() -> None:
        # No file may grow beyond this: the storage fits, a checkpoint does not.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        code = tune(monkeypatch, "--storage", "some.journal")
        raise SystemExit(code)

    child = fork(with_little_room)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = capfd.readouterr().err
    assert code == 2, said
    assert "Checkpoint" in said
    assert "cannot be written" in said
    assert "Traceback" not in said
    assert not list(Path("runs/small/checkpoints").glob("*"))  # nor a part of one
    before = record("some.journal")
    assert before.count("WAITING") == 1
    assert before.n_finished == 0

    assert tune(monkeypatch, "--storage", "some.journal") == 0
    assert outcome(record("some.journal")) == undisturbed
