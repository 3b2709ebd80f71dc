"""A journal that killed writers leave whole."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.journal import CHUNK, JournalFile, JournalLock

# Since Python 3.12, forking beside other threads (here pytest-xdist's) is warned of.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@given(
    lines=st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)), cut=st.binary()
)
def test_only_an_unfinished_line_is_cut(lines: list[bytes], cut: bytes) -> None:
    cut = cut.replace(b"\n", b"")
    whole = b"".join(line + b"\n" for line in lines)
    path = Path("some.journal")
    path.write_bytes(whole + cut)
    lock = JournalLock(path)
    lock.acquire()
    lock.release()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_long_unfinished_lines_are_cut(size: int) -> None:
    path = Path("some.journal")
    path.write_bytes(b"{}\n" + b"x" * size)
    lock = JournalLock(path)
    lock.acquire()
    lock.release()
    assert path.read_bytes() == b"{}\n"


def test_study_goes_on_behind_a_torn_line() -> None:
    study = optuna.create_study(storage=open_storage("some.journal", create=True))
    study.add_trial(optuna.create_trial(value=1.0))
    with Path("some.journal").open("ab") as file:
        file.write(b'{"op_code": 4, "worker_id": "half a l')
    for _ in range(2):  # once to cut it, once to read what was written behind it
        storage = open_storage("some.journal", create=False)
        again = optuna.load_study(study_name=study.study_name, storage=storage)
        again.add_trial(optuna.create_trial(value=2.0))
    assert [trial.value for trial in again.trials] == [1.0, 2.0, 2.0]
    for line in Path("some.journal").read_text().splitlines():
        json.loads(line)


def test_nobody_waits_for_a_killed_process() -> None:
    path = Path("some.journal")
    path.touch()
    child = os.fork()
    if child == 0:
        JournalLock(path).acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    begun = time.monotonic()
    lock = JournalLock(path)
    lock.acquire()
    lock.release()
    assert time.monotonic() - begun < 5  # Optuna's own lock takes 30


def test_processes_append_one_after_the_other() -> None:
    path = Path("some.journal")
    n_processes, n_lines = 4, 50
    children = []
    for index in range(n_processes):
        child = os.fork()
        if child == 0:
            backend = JournalFile(path)
            for line in range(n_lines):
                backend.append_logs([{"process": index, "line": line}])
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for index in range(n_processes):
        lines = [entry["line"] for entry in found if entry["process"] == index]
        assert lines == list(range(n_lines))
