"""The storage of a study and the store of its artifacts: opened, or refused with a reason."""

from __future__ import annotations

import re
import shlex
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import optuna
import sqlalchemy
import sqlalchemy.exc
import tenacity
from optuna.artifacts import (
    Backoff,
    Boto3ArtifactStore,
    FileSystemArtifactStore,
    GCSArtifactStore,
)
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage
from optuna.storages.journal import JournalStorage

from impon_hpo.errors import NothingYetError, StorageError, as_typed
from impon_hpo.files import expanded
from impon_hpo.storage.faults import LOCKED, NO_CONNECTION, Fault, reason_of
from impon_hpo.storage.journal import JournalFile
from impon_hpo.storage.patience import PATIENCE_SECONDS, Patience, PatientStorage

PROXY_PORT = 13000
PROXY_THREADS = 10  # of Optuna's server
CONNECT_SECONDS = 10
LOCK_SECONDS = 10  # then SQLite is asked again, and Ctrl-C is heeded
# A network that is cut says nothing: without these, libpq waits for a quarter of an hour.
CUT_OFF = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}

READER_SECONDS = 5.0
"""How long a command waits whose own writing can be done without."""

ArtifactStore = FileSystemArtifactStore | Boto3ArtifactStore | GCSArtifactStore | Backoff


@contextmanager
def no_experimental_warnings() -> Iterator[None]:
    """Silence Optuna's notes that a pruner or a feature that was asked for may still change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@contextmanager
def quiet_studies(level: int = optuna.logging.WARNING) -> Iterator[None]:
    """Silence what Optuna tells of every study in memory that is made, below a level."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, level))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def open_storage(
    address: str, *, create: bool, threads: int = 1, patience: float | None = None
) -> BaseStorage:
    """Open the storage at `address`: a URL (`sqlite:///…`, `postgresql+psycopg://…`) or the path of
    an Optuna journal file; or `grpc://host:port`, where `impon-hpo proxy` runs.

    What goes wrong with it later and may pass, such as a full disk, is waited for.

    Args:
        address: The URL or path; `~` is the user's own folder.
        create: Whether a file that is not there may be made.
        threads: How many will use it at once; so many connections to a database are kept.
        patience: Seconds for which it is waited for; default: `PATIENCE_SECONDS`.

    Raises:
        NothingYetError: It is not there and may not be made.
        StorageError: It cannot be opened.
    """
    patience = PATIENCE_SECONDS if patience is None else patience
    address = for_optuna(address)
    path = file_of(address)
    shown = without_secrets(address)
    if path is not None and not path.exists():
        if not create:
            raise NothingYetError(
                f"There is no storage '{shown}' yet: nothing has been run into it."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"The folder of storage '{shown}' cannot be made: {error}"
            ) from error

    def held_up(fault: Fault) -> bool:
        """Return whether others are to blame: all else is better mended before anything begins."""
        return fault in (LOCKED, NO_CONNECTION)

    try:
        opened = Patience(shown, patience).call(lambda: _opened(address, threads), held_up)
    except StorageError:
        raise
    except Exception as error:  # whatever the database driver raises
        raise StorageError(_not_opened(address, shown, error)) from None
    return PatientStorage(opened, shown, patience=patience)


def _not_opened(address: str, shown: str, error: Exception) -> str:
    """Return why a storage cannot be opened, without its password."""
    reason = reason_of(error).replace(
        "$ optuna storage upgrade --storage $STORAGE_URL",
        as_typed(f"optuna storage upgrade --storage {shlex.quote(shown)}"),
    )
    secret = _secret(address)
    if secret:
        reason = reason.replace(address, shown).replace(secret, "***")
    if isinstance(error, ImportError):
        reason += (
            f" A package is missing: `{as_typed('pip install impon-hpo[postgres]')}`, "
            "or [mysql], or [grpc] for grpc://."
        )
    return f"Storage '{shown}' cannot be opened: {reason}"


def _opened(address: str, threads: int) -> BaseStorage:
    if "://" not in address:
        return JournalStorage(JournalFile(Path(address)))
    if address.startswith("grpc://"):
        return _proxied(address)
    if address.startswith("sqlite"):
        database = _database(address, connect_args={"timeout": LOCK_SECONDS})
        return optuna.storages.get_storage(database)
    waits = CUT_OFF if address.startswith("postgresql") else {}
    # One more is opened when a lease is renewed at the same moment, and closed again; kept, it
    # would halve the number of workers that the server has room for.
    server = _database(address, pool_pre_ping=True, pool_size=threads, connect_args=waits)
    return optuna.storages.get_storage(server)


def _database(address: str, **engine: Any) -> RDBStorage:
    """Open a database, also at the moment at which others make its tables."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_made_meanwhile),
        wait=tenacity.wait_random(0.1, 0.5),
        stop=tenacity.stop_after_attempt(20),
        reraise=True,
    )
    literally = address.replace("{", "{{").replace("}", "}}")  # for Optuna, it is a template
    return retrying(RDBStorage, literally, engine_kwargs=engine)


def _made_meanwhile(error: BaseException) -> bool:
    if isinstance(error, sqlalchemy.exc.OperationalError):
        return "already exists" in str(error)
    return isinstance(error, sqlalchemy.exc.IntegrityError | sqlalchemy.exc.ProgrammingError)


def _proxied(address: str) -> BaseStorage:
    """Connect to a server that `impon-hpo proxy` runs."""
    url = urlsplit(address)
    with no_experimental_warnings():
        proxy = GrpcStorageProxy(host=url.hostname or "localhost", port=url.port or PROXY_PORT)
    proxy.wait_server_ready(timeout=CONNECT_SECONDS)
    return proxy


def without_secrets(address: str) -> str:
    """Return an address as it may be shown: without the password in it."""
    secret = _secret(address)
    return address.replace(f":{secret}@", ":***@", 1) if secret else address


def _secret(address: str) -> str | None:
    """Return the password as it stands in the address, percent signs and all."""
    scheme, _, rest = address.partition("://")
    credentials, at, _ = rest.rpartition("@")
    has_one = at and not scheme.startswith("sqlite")  # whose paths may have such letters
    return credentials.partition(":")[2] or None if has_one else None


QUERY = re.compile(r"\?(?:[\w.]+=[^/?&]*&?)+")
"""What may follow the path in the address of an SQLite file."""


def sqlite_address(path: str, scheme: str = "sqlite") -> str:
    """Return the address of an SQLite file, as Optuna and its dashboard take it.

    For SQLAlchemy "?" begins a query and "%20" is a space, and Optuna takes braces for something
    to fill in; all other letters stay as they are.

    Example:
        >>> from impon_hpo.storage.connect import sqlite_address
        >>> sqlite_address("runs/50 % of {all}?/study.db")
        'sqlite:///runs/50 % of %7Ball%7D%3F/study.db'
    """
    quoted = re.sub(r"[?{}]|%(?=[0-9A-Fa-f]{2})", lambda letter: quote(letter[0]), path)
    return f"{scheme}:///{quoted}"


def for_optuna(address: str) -> str:
    """Return an address as Optuna takes it, of one as people write it: with `~`, and with any
    letters in the path of an SQLite file."""
    if "://" not in address:
        return str(expanded(address)) if address.startswith("~") else address
    scheme, slashes, rest = address.partition(":///")
    if not scheme.startswith("sqlite") or not slashes or rest.startswith((":memory:", "file:")):
        return address
    path, mark, query = rest.rpartition("?")
    if not QUERY.fullmatch(mark + query):
        path, mark, query = rest, "", ""
    if path.startswith("~"):
        path = str(expanded(path))
    return sqlite_address(path if _is_literal(Path(path)) else unquote(path), scheme) + mark + query


def _is_literal(path: Path) -> bool:
    """Return whether a path has what looks like an escaped letter, and is meant as it stands."""
    folder = str(path.parent)
    return path.exists() or (unquote(folder) != folder and path.parent.is_dir())


def file_of(address: str) -> Path | None:
    """Return the file behind an address as Optuna takes it, or None for a server and for SQLite in
    memory."""
    if "://" not in address:
        return Path(address)
    if not address.startswith("sqlite"):
        return None
    url = sqlalchemy.make_url(address)
    name = url.database or ":memory:"
    if name.startswith("file:"):  # SQLite's own way
        name = unquote(name.removeprefix("file:"))
    in_memory = name == ":memory:" or url.query.get("mode") == "memory"
    return None if in_memory else Path(name)


def artifact_store(address: str) -> ArtifactStore:
    """Open (and make) the store of a study's artifacts.

    Args:
        address: A folder, where `~` is the user's own, or `s3://bucket` of Amazon's or any like
            it, with boto3's own settings (`AWS_ENDPOINT_URL`, `AWS_PROFILE` …).

    Raises:
        ConfigError: `~` is not known.
        StorageError: The folder cannot be made, or the bucket cannot be reached.
    """
    if "://" in address:
        return _bucket(address)
    folder = expanded(address)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"The folder for artifacts cannot be made: {error}") from error
    return FileSystemArtifactStore(folder)


def check_places(storage: str, artifacts: str) -> None:
    """Check that what is not there yet of a storage and of artifacts could be made, and leave
    nothing behind.

    Raises:
        ConfigError: `~` is not known.
        StorageError: Nothing can be written there, or a bucket cannot be reached.
    """
    file = file_of(for_optuna(storage))
    if file is not None:
        _check_writable(f"The storage '{without_secrets(storage)}'", file.parent)
    if "://" in artifacts:
        _bucket(artifacts)
    else:
        _check_writable("The folder for artifacts", expanded(artifacts))


def _check_writable(what: str, folder: Path) -> None:
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(
            f"{what} cannot be made: nothing can be written in '{folder}': {error}"
        ) from error


def _bucket(address: str) -> ArtifactStore:
    scheme, _, bucket = address.partition("://")
    if scheme != "s3" or not bucket.strip("/") or "/" in bucket.strip("/"):
        raise StorageError(
            f"artifacts must be a folder or s3://bucket, but got '{address}'. Optuna's store gives "
            "every artifact a name of its own, so folders inside a bucket are of no use."
        )
    try:
        import boto3

        client = boto3.client("s3")
        client.head_bucket(Bucket=bucket.strip("/"))
    except ImportError:
        raise StorageError(
            f"'{address}' needs boto3: `{as_typed('pip install impon-hpo[s3]')}`."
        ) from None
    except Exception as error:  # botocore's errors are made as they are met
        raise StorageError(f"The bucket '{address}' cannot be reached: {error}") from None
    return PatientBucket(Bucket(bucket.strip("/"), client=client))


class Bucket(Boto3ArtifactStore):
    """A bucket that is opened with boto3's own settings, here and in a process that it goes to."""

    def __reduce__(self) -> tuple[type[Bucket], tuple[str]]:
        return Bucket, (self.bucket,)


class PatientBucket(Backoff):
    """A bucket that is asked again where it fails."""

    def remove(self, artifact_id: str) -> None:
        """Remove an artifact."""
        # Optuna 5.0's own goes on after it has removed it: ten times, for 80 seconds.
        self._backend.remove(artifact_id)


def check_travels(store: ArtifactStore | None) -> None:
    """Check that a store can be sent to another process, or copied.

    Raises:
        StorageError: It holds a connection, which cannot.
    """
    inner = store._backend if isinstance(store, Backoff) else store
    connected = isinstance(inner, Boto3ArtifactStore | GCSArtifactStore)
    if connected and not isinstance(inner, Bucket):
        raise StorageError(
            f"{type(inner).__name__} holds a connection, which cannot be pickled or copied. Give "
            'impon_hpo.artifact_store("s3://bucket") or a folder, or make the objective where it '
            "is used."
        )
