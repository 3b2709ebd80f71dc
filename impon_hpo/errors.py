"""The errors that a user of the library or of the command line can meet, and how a message names
the command to type next.

ImponHpoError
├── ConfigError          a study file, an option or an argument is wrong (also a ValueError)
├── DataError            a data set is missing, broken or too small
├── StorageError         a storage cannot be opened, or holds something else
│   └── NothingYetError  … or nothing has been run into it yet
├── CheckpointError      a checkpoint is cut short, or belongs to another run
└── NonFiniteLossError   training diverged: the loss is no longer a number

The command line prints the message of any of them without a traceback and exits with 2.
"""

import os


class ImponHpoError(Exception):
    """Base of every error that this package raises for a reason that its user can fix."""


class ConfigError(ImponHpoError, ValueError):
    """A study file, an option or an argument is wrong."""


class DataError(ImponHpoError):
    """A data set is missing, broken or too small for what is asked of it."""


class StorageError(ImponHpoError):
    """A storage cannot be opened, or holds something other than what is asked for."""


class NothingYetError(StorageError):
    """A storage is not there yet, or holds nothing of the study yet."""


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
