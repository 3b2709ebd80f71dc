"""The storage of a study and the store of its artifacts: opened, or refused with a reason."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
import sqlalchemy.exc
import tenacity
from optuna.artifacts import (
    Backoff,
    Boto3ArtifactStore,
    FileSystemArtifactStore,
    GCSArtifactStore,
)
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage

from impon_hpo.errors import NothingYetError, StorageError, as_typed
from impon_hpo.storage.journal import JournalLock
from impon_hpo.storage.patience import PatientStorage, WholeStorage

PROXY_PORT = 13000
PROXY_THREADS = 10  # of Optuna's server
CONNECT_SECONDS = 10
# A network that is cut says nothing: without these, libpq waits for a quarter of an hour.
CUT_OFF = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}

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


def open_storage(address: str, *, create: bool, threads: int = 1) -> BaseStorage:
    """Open the storage at `address`: a URL (`sqlite:///…`, `postgresql+psycopg://…`) or the path of
    an Optuna journal file; or `grpc://host:port`, where `impon-hpo proxy` runs.

    A server that is away for a while is waited for.

    Args:
        address: The URL or path.
        create: Whether a file that is not there may be made.
        threads: How many will use it at once; so many connections to a database are kept.

    Raises:
        NothingYetError: It is not there and may not be made.
        StorageError: It cannot be opened.
    """
    path = _file_of(address)
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
    try:
        return _opened(address, shown, threads)
    except Exception as error:  # whatever the database driver raises
        hint = ""
        if isinstance(error, ImportError):
            hint = (
                f" A package is missing: `{as_typed('pip install impon-hpo[postgres]')}`, "
                "or [mysql], or [grpc] for grpc://."
            )
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        secret = _secret(address)
        if secret:
            reason = reason.replace(address, shown).replace(secret, "***")
        raise StorageError(f"Storage '{shown}' cannot be opened: {reason}{hint}") from None


def _opened(address: str, shown: str, threads: int) -> BaseStorage:
    if "://" not in address:
        path = Path(address)
        backend = JournalFileBackend(str(path), lock_obj=JournalLock(path))
        return WholeStorage(JournalStorage(backend))
    if address.startswith("grpc://"):
        return PatientStorage(_proxied(address), shown)
    if address.startswith("sqlite"):
        database = _database(address, connect_args={"timeout": 60})
        return WholeStorage(optuna.storages.get_storage(database))
    waits = CUT_OFF if address.startswith("postgresql") else {}
    # One more is opened when a lease is renewed at the same moment, and closed again; kept, it
    # would halve the number of workers that the server has room for.
    server = _database(address, pool_pre_ping=True, pool_size=threads, connect_args=waits)
    return PatientStorage(optuna.storages.get_storage(server), shown)


def _database(address: str, **engine: Any) -> RDBStorage:
    """Open a database, also at the moment at which others make its tables."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_made_meanwhile),
        wait=tenacity.wait_random(0.1, 0.5),
        stop=tenacity.stop_after_attempt(20),
        reraise=True,
    )
    return retrying(RDBStorage, address, engine_kwargs=engine)


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
    credentials, at, _ = address.partition("://")[2].rpartition("@")
    return credentials.partition(":")[2] or None if at else None


def _file_of(address: str) -> Path | None:
    """Return the file behind an address, or None for a server and for SQLite in memory."""
    if "://" not in address:
        return Path(address)
    scheme, _, rest = address.partition(":///")
    if not scheme.startswith("sqlite") or not rest or rest.startswith(":memory:"):
        return None
    return Path(rest.partition("?")[0])


def artifact_store(address: str) -> ArtifactStore:
    """Open (and make) the store of a study's artifacts.

    Args:
        address: A folder, or `s3://bucket` of Amazon's or any like it, with boto3's own settings
            (`AWS_ENDPOINT_URL`, `AWS_PROFILE` …).

    Raises:
        StorageError: The folder cannot be made, or the bucket cannot be reached.
    """
    if "://" in address:
        return _bucket(address)
    try:
        Path(address).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"The folder for artifacts cannot be made: {error}") from error
    return FileSystemArtifactStore(address)


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
    return Backoff(Bucket(bucket.strip("/"), client=client))


class Bucket(Boto3ArtifactStore):
    """A bucket that is opened with boto3's own settings, here and in a process that it goes to."""

    def __reduce__(self) -> tuple[type[Bucket], tuple[str]]:
        return Bucket, (self.bucket,)


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
