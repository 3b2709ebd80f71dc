"""What is wrong with a storage: whether it may pass by itself, and what to do about it."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import optuna
import sqlalchemy.exc
import sqlalchemy.orm.exc


@dataclass(frozen=True)
class Fault:
    """A kind of fault of a storage.

    Args:
        what: What the storage does or does not, as what follows its name.
        remedy: What to do, a sentence.
        passes: Whether it may pass by itself, so that waiting is of use.
    """

    what: str
    remedy: str
    passes: bool = True


AWAY = Fault("cannot be reached", "Start its server, or mend the way to it.")
FULL = Fault("has no room left", "Free disk space where it is, or raise the quota.")
DISK = Fault(
    "cannot be read or written for now",
    "Its disk may be full, over its quota or failing: free some space, or mend it.",
)
LOCKED = Fault("is locked by another process", "End what holds it, such as a backup or a viewer.")
CHANGED = Fault("is changed by others at the same moment", "Have fewer processes write to it.")
NO_CONNECTION = Fault(
    "has no connection left",
    "End other clients of the server, allow more connections, or put `impon-hpo proxy` before it.",
)
NO_WRITES = Fault(
    "takes no writes for now",
    "Its server is a standby or is set to read-only: give the address of the one that takes "
    "writes, or wait until this one does.",
)
BEHIND = Fault(
    "gives no answer, for what is behind it fails",
    "Mend that, and run the same command again.",
    passes=False,
)
READ_ONLY = Fault(
    "can only be read",
    "Allow this user to write to the file and its folder, or use another --storage.",
    passes=False,
)
GONE = Fault(
    "was deleted, moved or replaced while it was in use",
    "Bring the file back and run the same command again.",
    passes=False,
)
NOT_OURS = Fault(
    "cannot be used",
    "Check that it is there and whole, and that this user may use it, or use another --storage.",
    passes=False,
)

# By the names that Python's sqlite3 gives, the longer ones first.
SQLITE = {
    "SQLITE_READONLY_DBMOVED": GONE,
    "SQLITE_READONLY": READ_ONLY,
    "SQLITE_BUSY": LOCKED,
    "SQLITE_LOCKED": LOCKED,
    "SQLITE_PROTOCOL": LOCKED,
    "SQLITE_FULL": FULL,
    "SQLITE_IOERR": DISK,
}

# https://www.postgresql.org/docs/current/errcodes-appendix.html, the longer ones first.
POSTGRESQL = {
    "25006": NO_WRITES,
    "53100": FULL,
    "58030": DISK,
    "53300": NO_CONNECTION,
    "40": CHANGED,
    "55P03": LOCKED,
    "28": NOT_OURS,
    "3D": NOT_OURS,
    "42": NOT_OURS,
}

NO_CONNECTION_WORDS = ("too many clients", "too many connections", "remaining connection slots")
"""What PostgreSQL says while a connection is made, which has no code."""

# https://mariadb.com/kb/en/mariadb-error-codes/
MYSQL = {
    3: FULL,
    1021: FULL,
    1026: FULL,
    1114: FULL,
    1040: NO_CONNECTION,
    1203: NO_CONNECTION,
    1226: NO_CONNECTION,
    1205: LOCKED,
    1213: CHANGED,
    1290: NO_WRITES,
    1792: NO_WRITES,
    1836: NO_WRITES,
    1044: NOT_OURS,
    1045: NOT_OURS,
    1049: NOT_OURS,
    1142: NOT_OURS,
    1146: NOT_OURS,
}

FILES = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: FULL,
    errno.EROFS: READ_ONLY,
    errno.EACCES: READ_ONLY,
    errno.EPERM: READ_ONLY,
    errno.ENOENT: GONE,
    errno.ENOTDIR: GONE,
    errno.ESTALE: GONE,
}


def fault_of(error: BaseException) -> Fault | None:
    """Return the fault of a storage that an error of it tells of; None where what was asked for is
    wrong, such as a study that it does not hold, or a value that is too long."""
    error = _cause(error)
    fault = None
    code = getattr(error, "code", None)  # of a grpc.RpcError, without importing grpc
    if isinstance(error, sqlalchemy.exc.DataError | sqlalchemy.exc.ArgumentError):
        pass
    elif isinstance(error, sqlalchemy.exc.IntegrityError | sqlalchemy.orm.exc.StaleDataError):
        fault = CHANGED  # asked again, it says that what it belongs to is deleted
    elif isinstance(error, sqlalchemy.exc.TimeoutError):
        fault = NO_CONNECTION
    elif isinstance(error, sqlalchemy.exc.DBAPIError):
        fault = _of_database(error)
    elif isinstance(error, ConnectionError | TimeoutError):
        fault = AWAY
    elif isinstance(error, OSError):
        fault = FILES.get(error.errno or 0, NOT_OURS)
    elif isinstance(error, sqlalchemy.exc.SQLAlchemyError):
        fault = NOT_OURS
    elif callable(code) and hasattr(code(), "name"):
        fault = AWAY if code().name in ("UNAVAILABLE", "DEADLINE_EXCEEDED") else BEHIND
    return fault


def _of_database(error: sqlalchemy.exc.DBAPIError) -> Fault:
    orig = error.orig
    number = orig.args[0] if orig is not None and orig.args else None
    named = [
        *_beginning(SQLITE, getattr(orig, "sqlite_errorname", None)),
        *_beginning(POSTGRESQL, getattr(orig, "sqlstate", None)),
        *([MYSQL[number]] if isinstance(number, int) and number in MYSQL else []),
    ]
    if named:
        return named[0]
    if any(words in str(orig) for words in NO_CONNECTION_WORDS):
        return NO_CONNECTION
    away = sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError
    lost = error.connection_invalidated or isinstance(error, away)
    return AWAY if lost and not hasattr(orig, "sqlite_errorname") else NOT_OURS


def _beginning(faults: Mapping[str, Fault], code: str | None) -> Iterator[Fault]:
    return (fault for begin, fault in faults.items() if code and code.startswith(begin))


def told(shown: str, fault: Fault, error: BaseException) -> str:
    """Return what to tell of a fault: the storage, what is wrong with it, and what to do.

    Args:
        shown: The storage's address without a password.
        fault: The fault.
        error: What it was seen by.
    """
    # Of a file that is gone, SQLite says that it is read-only.
    reason = "." if fault == GONE else f": {reason_of(error)}"
    return f"Storage '{shown}' {fault.what}{reason} {fault.remedy}"


def reason_of(error: BaseException) -> str:
    """Return what an error of a storage says, as one sentence, without what was asked for."""
    error = _cause(error)
    # SQLAlchemy's own text holds the statement with its parameters.
    error = getattr(error, "orig", None) or error
    details = getattr(error, "details", None)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    elif len(error.args) == 2 and isinstance(error.args[0], int):  # of MySQL
        text = str(error.args[1])
    else:
        text = str(details() if callable(details) else error)
    text = text.removeprefix("Exception calling application: ")  # of gRPC
    line = (text.strip().splitlines() or [type(error).__name__])[0]
    return line if line.endswith(".") else f"{line}."


def _cause(error: BaseException) -> BaseException:
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ is not None:
        return error.__cause__
    return error
