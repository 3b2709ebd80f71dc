"""The errors that a user of the library or of the command line can meet, how a message names the
command to type next, and the rule for what only describes a result: `describing`.

ImponHpoError
├── ConfigError             a study file, an option or an argument is wrong (also a ValueError)
│   └── TrialSettingsError  … or the values of one trial are: the others can go on
├── DataError               a data set is missing, broken or too small
├── StorageError            a storage cannot be opened, or holds something else
│   ├── NothingYetError     … or nothing has been run into it yet
│   └── DeletedError        … or no longer holds what it held (also a KeyError)
├── CheckpointError         a checkpoint is cut short, or belongs to another run
└── NonFiniteLossError      training diverged: the loss is no longer a number

The command line prints the message of any of them without a traceback and exits with 2.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("impon_hpo")


class ImponHpoError(Exception):
    """Base of every error that this package raises for a reason that its user can fix."""


class ConfigError(ImponHpoError, ValueError):
    """A study file, an option or an argument is wrong."""


class TrialSettingsError(ConfigError):
    """The values of one trial cannot be a run: that trial fails, and the study goes on."""


class DataError(ImponHpoError):
    """A data set is missing, broken or too small for what is asked of it."""


class DataMissingError(DataError):
    """A data set is not on this machine."""


class StorageError(ImponHpoError):
    """A storage cannot be opened, or holds something other than what is asked for."""


class NothingYetError(StorageError):
    """A storage is not there yet, or holds nothing of the study yet."""


class DeletedError(StorageError, KeyError):
    """A storage no longer holds a study or a trial that it held."""

    __str__ = Exception.__str__  # not KeyError's, which puts the sentence in quotation marks


class CheckpointError(ImponHpoError):
    """A checkpoint is cut short, or belongs to another run."""


class NonFiniteLossError(ImponHpoError):
    """The training loss of an epoch is infinite or not a number.

    Args:
        message: Which epoch, which loss.
        cost: Forward-equivalents spent on that epoch.
    """

    def __init__(self, message: str, *, cost: int) -> None:
        super().__init__(message)
        self.cost = cost


def as_typed(command: str) -> str:
    """Return a command as the reader of this terminal has to type it.

    It begins with `uv run`, or `uv` where it is pip's, if that is how this process was started.
    Of what `uv run` tells the processes that it starts, `UV_RUN_RECURSION_DEPTH` is the variable
    that nothing else sets: `uvx` sets `UV`, too, and an activated environment sets `VIRTUAL_ENV`.

    Only for what is printed or raised, and for the report of a comparison, which who reads it makes
    again with a command. What is stored, given as JSON, or written on a note of the dashboard is
    read by others, too, who may have started their own process in another way: it stays plain.

    Args:
        command: The command as it is in an activated environment.
    """
    if "UV_RUN_RECURSION_DEPTH" not in os.environ:
        return command
    return f"uv {command}" if command.startswith("pip ") else f"uv run {command}"


@contextmanager
def describing(what: str, stands: str = "The trial's value stands.") -> Iterator[None]:
    """Log an error of a block that only describes a result, such as a picture of it, and go on.

    What decides the result stands outside of such a block. Ctrl-C and SIGTERM pass through it. Each
    file has a block of its own, so that one that fails does not cost the next.

    Args:
        what: What an error means, such as "picture.png of trial 3 could not be drawn".
        stands: A sentence on what is there all the same, or what to do.

    Example:
        >>> from impon_hpo.errors import describing
        >>> with describing("picture.png of trial 3 could not be drawn"):
        ...     _ = 1 / 0
        >>> "goes on"
        'goes on'
    """
    try:
        yield
    except Exception as error:  # pictures, disks and buckets fail in many ways
        kind = "" if isinstance(error, ImponHpoError) else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())
        log.warning("%s: %s. %s", what, reason.rstrip(".: "), stands)
