"""An Optuna journal file, safe against workers that are killed and disks that are full."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

CHUNK = 1 << 16


class JournalFile(JournalFileBackend):
    """Optuna's journal file, as long as it is the same one.

    Optuna's own makes a deleted file anew, without all that a study's trials had come to.

    Args:
        path: The journal; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=JournalLock(path))
        self._path = path
        self._identity = _identity(path.stat())

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Read the records from one on."""
        self._check()
        return super().read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add records to the end."""
        self._check()
        super().append_logs(logs)

    def _check(self) -> None:
        now = self._path.stat()
        read_until = self._log_number_offset[next(reversed(self._log_number_offset))]
        if _identity(now) != self._identity or now.st_size < read_until:
            raise FileNotFoundError(errno.ENOENT, "Another file has taken its place")


def _identity(file: os.stat_result) -> tuple[int, int]:
    return file.st_dev, file.st_ino


class JournalLock(BaseJournalFileLock):
    """A lock on a journal that finds it whole, and leaves it so.

    The kernel frees it when its process ends; for Optuna's own, everybody else waits 30 seconds. A
    last line that a killed process or a full disk left unfinished is cut off; Optuna's own append
    glues the next one to it, and no reader gets past the two.

    Args:
        path: The journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock; return True."""
        file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
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
        try:
            _cut_unfinished_line(self._file)
        finally:
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
