"""A storage that is full, locked, read-only or gone: waited for, or refused with what to do."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage

from impon_hpo.errors import StorageError
from impon_hpo.storage.connect import open_storage
from tests.powers import give_up_powers
from tests.tuning.forks import Forked

FILES = {"study.db": "sqlite:///study.db", "study.journal": "study.journal"}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impon_hpo.storage.patience.LONGEST_PAUSE", 0.05)
    monkeypatch.setattr("impon_hpo.storage.patience.QUIET_SECONDS", 0.1)
    monkeypatch.setattr("impon_hpo.storage.connect.LOCK_SECONDS", 0.05)
    monkeypatch.setattr("impon_hpo.storage.connect.PATIENCE_SECONDS", 10.0)


def opened_study(address: str) -> optuna.Study:
    storage = open_storage(address, create=True)
    return optuna.create_study(storage=storage, study_name="one", load_if_exists=True)


def engine_of(storage: BaseStorage) -> sqlalchemy.Engine:
    """Return what an opened database is reached through."""
    backend: Any = storage
    while not isinstance(backend, RDBStorage):
        backend = vars(backend).get("_storage") or vars(backend)["_backend"]
    return backend.engine


def waited_for(study: optuna.Study, mend: Callable[[], object], said: list[str]) -> str:
    """Write to a study that is out of order until it is mended; return the one line said of it."""
    mending = threading.Timer(0.5, mend)
    mending.start()
    study.set_user_attr("key", "value")
    mending.join()
    assert study.user_attrs == {"key": "value"}
    (line,) = said
    assert "Until then, up to 10 seconds, it is waited for, and no trial is lost." in line
    return line


def test_full_database_is_waited_for(said: list[str]) -> None:
    study = opened_study("sqlite:///study.db")
    engine = engine_of(study._storage)

    def pages(n: int) -> None:
        engine.dispose()
        sqlalchemy.event.listen(
            engine, "connect", lambda made, _: made.execute(f"PRAGMA max_page_count = {n}")
        )

    pages(1)
    study.set_user_attr("small", "fits")  # where there is room in a page
    mending = threading.Timer(0.5, lambda: pages(10_000))
    mending.start()
    study.set_user_attr("large", "x" * 10_000)
    mending.join()
    assert {*study.user_attrs} == {"small", "large"}
    (line,) = said
    assert "'sqlite:///study.db' has no room left: database or disk is full." in line
    assert "Free disk space where it is" in line


@pytest.mark.parametrize("name", FILES)
def test_full_disk_is_waited_for_and_every_record_is_whole(name: str) -> None:
    study = opened_study(FILES[name])
    before = Path(name).stat().st_size

    def write() -> None:
        # As if the disk had no more room: no file grows beyond this.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (before + 500, resource.RLIM_INFINITY))
        for number in range(20):
            study.set_user_attr(f"key{number}", "x" * 5_000)

    writer = Forked(write)
    writer.wait_until(lambda: "is waited for" in writer.said)
    if name == "study.journal":  # what came through of the record is cut off at once
        assert Path(name).read_bytes().endswith(b"\n")
    assert len(opened_study(FILES[name]).user_attrs) < 20
    resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert writer.wait() == 0, writer.said
    assert len(opened_study(FILES[name]).user_attrs) == 20
    assert writer.said.count("is waited for") == 1


def test_locked_database_is_waited_for(said: list[str]) -> None:
    study = opened_study("sqlite:///study.db")
    with closing(sqlite3.connect("study.db", check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        line = waited_for(study, other.rollback, said)
    assert "is locked by another process: database is locked." in line


def test_database_that_is_locked_while_it_is_opened_is_waited_for(said: list[str]) -> None:
    opened_study("sqlite:///study.db")
    with closing(sqlite3.connect("study.db", check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        mending = threading.Timer(0.5, other.rollback)
        mending.start()
        assert opened_study("sqlite:///study.db").trials == []
        mending.join()
    assert "is locked by another process" in said[0]


def replace(name: str) -> None:
    shutil.copy(name, "copy")
    Path("copy").replace(name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("lose", [os.unlink, replace])
def test_file_that_is_lost_while_it_is_in_use_is_refused_and_not_made_anew(
    name: str, lose: Callable[[str], None]
) -> None:
    study = opened_study(FILES[name])
    lose(name)
    there = Path(name).exists()
    with pytest.raises(StorageError, match="was deleted, moved or replaced while it was in use"):
        study.set_user_attr("one", 1)  # Optuna tries again to make a trial
    assert Path(name).exists() == there


def test_journal_that_an_older_copy_was_copied_over_is_refused() -> None:
    study = opened_study("study.journal")
    shutil.copy("study.journal", "backup")
    study.ask()
    shutil.copyfile("backup", "study.journal")
    with pytest.raises(StorageError, match="was deleted, moved or replaced"):
        study.ask()


@pytest.mark.parametrize("name", FILES)
def test_file_that_is_read_only_is_read_and_refused_at_once_where_it_is_written_to(
    name: str,
) -> None:
    opened_study(FILES[name]).add_trial(optuna.create_trial(value=0.5))
    Path(name).chmod(0o444)
    Path().chmod(0o555)

    def look_and_write() -> None:
        give_up_powers()
        study = optuna.load_study(study_name="one", storage=open_storage(FILES[name], create=False))
        assert study.best_value == 0.5
        with pytest.raises(StorageError, match="can only be read") as caught:
            study.set_user_attr("one", 1)  # Optuna tries again to make a trial
        assert "or use another --storage." in str(caught.value)

    reader = Forked(look_and_write)
    assert reader.wait() == 0, reader.said
    assert reader.said == ""


def test_connection_that_only_reads_is_refused_at_once() -> None:
    study = opened_study("sqlite:///study.db")
    engine = engine_of(study._storage)
    engine.dispose()
    sqlalchemy.event.listen(
        engine, "connect", lambda made, _: made.execute("PRAGMA query_only = 1")
    )
    with pytest.raises(StorageError, match="can only be read: attempt to write a readonly"):
        study.set_user_attr("one", 1)  # Optuna tries again to make a trial


def run_on(address: str, *statements: str) -> None:
    engine = sqlalchemy.create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def test_postgresql_that_takes_no_writes_is_waited_for(postgres: str, said: list[str]) -> None:
    study = opened_study(postgres)
    reload = "SELECT pg_reload_conf()"
    run_on(postgres, "ALTER SYSTEM SET default_transaction_read_only = on", reload)

    def mend() -> None:
        alter = "ALTER SYSTEM RESET default_transaction_read_only"
        run_on(postgres, "SET default_transaction_read_only = off", alter, reload)

    line = waited_for(study, mend, said)
    assert "takes no writes for now: cannot execute INSERT in a read-only transaction." in line
    assert "standby" in line


def test_postgresql_whose_disk_is_full_is_waited_for(postgres: str, said: list[str]) -> None:
    study = opened_study(postgres)
    run_on(
        postgres,
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$",
        "CREATE TRIGGER no_room BEFORE INSERT ON study_user_attributes EXECUTE FUNCTION no_room()",
    )
    line = waited_for(
        study, lambda: run_on(postgres, "DROP TRIGGER no_room ON study_user_attributes"), said
    )
    assert "has no room left: could not extend file: No space left on device." in line


@pytest.mark.slow
def test_postgresql_without_connections_is_waited_for(postgres: str, said: list[str]) -> None:
    name = f"user{os.getpid()}"
    database = postgres.partition("?")[0].rpartition("/")[2]
    run_on(
        postgres,
        f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 2",
        f"ALTER DATABASE {database} OWNER TO {name}",
        f"GRANT ALL ON SCHEMA public TO {name}",
    )
    address = sqlalchemy.make_url(postgres).set(username=name)
    mine = address.render_as_string(hide_password=False)
    study = opened_study(mine)
    engine_of(study._storage).dispose()
    other = sqlalchemy.create_engine(mine, poolclass=sqlalchemy.NullPool)
    connections = [other.connect() for _ in range(2)]

    def mend() -> None:
        for connection in connections:
            connection.close()

    line = waited_for(study, mend, said)
    assert "has no connection left" in line
    assert "`impon-hpo proxy`" in line


FULL_TABLE = """
CREATE TRIGGER no_room BEFORE INSERT ON study_user_attributes FOR EACH ROW
SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'The table is full'
"""


@pytest.mark.parametrize("number", [1021, 1114])
def test_mysql_whose_disk_is_full_is_waited_for(number: int, mysql: str, said: list[str]) -> None:
    study = opened_study(mysql)
    run_on(mysql, FULL_TABLE.format(number=number))
    line = waited_for(study, lambda: run_on(mysql, "DROP TRIGGER no_room"), said)
    assert "has no room left: The table is full." in line


def test_mysql_that_is_read_only_is_waited_for(mysql: str, said: list[str]) -> None:
    name = f"user{os.getpid()}"
    run_on(mysql, f"CREATE USER {name}@localhost", f"GRANT ALL ON *.* TO {name}@localhost")
    run_on(mysql, f"REVOKE READ_ONLY ADMIN, SUPER ON *.* FROM {name}@localhost")
    address = sqlalchemy.make_url(mysql).set(username=name)
    study = opened_study(address.render_as_string(hide_password=False))
    run_on(mysql, "SET GLOBAL read_only = 1")
    line = waited_for(study, lambda: run_on(mysql, "SET GLOBAL read_only = 0"), said)
    assert "takes no writes for now" in line
