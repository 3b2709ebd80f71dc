"""The lock on an Optuna journal file, safe against workers that are killed while they write."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from optuna.storages.journal._file import BaseJournalFileLock

CHUNK = 1 << 16


class JournalLock(BaseJournalFileLock):
    """A lock on a journal that finds it whole: for `JournalFileBackend(path, lock_obj=…)`.

    The kernel frees it when its process ends; for Optuna's own, everybody else waits 30 seconds. A
    last line that a killed process left unfinished is cut off; Optuna's own append glues the next
    one to it, and no reader gets past the two.

    Args:
        path: The journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock; return True."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            _cut_unfinished_line(file)
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Free the lock."""
        assert self._file is not None
        os.close(self._file)
        self._file = None


def _cut_unfinished_line(file: int) -> None:
    size = os.fstat(file).st_size
    end = size
    while end > 0:
        start = max(0, end - CHUNK)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
