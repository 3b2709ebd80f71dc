"""Tests of the storage: what opens, what does not, and what a trial record says."""

from __future__ import annotations

import io
import os
import pickle
import re
import sqlite3
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import download_artifact, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import TrialState, create_trial

from impon_hpo.errors import NothingYetError, StorageError
from impon_hpo.storage.connect import (
    artifact_store,
    for_optuna,
    open_storage,
    quiet_studies,
    without_secrets,
)
from impon_hpo.storage.trials import COST, EPOCHS, INTERRUPTED, REASON, read_trial
from tests.tuning.forks import fork


@pytest.mark.parametrize("address", ["sqlite:///a/b/study.db", "a/b/study.journal"])
def test_a_storage_is_made_with_its_folder_and_opens_again(address: str) -> None:
    storage = open_storage(address, create=True)
    optuna.create_study(study_name="one", storage=storage)
    assert Path("a/b").is_dir()
    again = open_storage(address, create=False)
    assert optuna.get_all_study_names(again) == ["one"]


@pytest.mark.parametrize("address", ["sqlite:///none.db", "none.journal"])
def test_a_storage_that_is_not_there_is_not_made_by_looking(address: str) -> None:
    with pytest.raises(StorageError, match=r"none\.\w+' yet"):
        open_storage(address, create=False)
    assert not list(Path().iterdir())


def test_a_file_that_is_no_database_is_refused_and_kept() -> None:
    Path("letter.db").write_text("Dear reader, this is no database at all.\n" * 50)
    before = Path("letter.db").read_bytes()
    with pytest.raises(StorageError, match="cannot be used: file is not a database"):
        open_storage("sqlite:///letter.db", create=True)
    assert Path("letter.db").read_bytes() == before


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nonsense://x", "nonsense"),
        ("postgresql+nodriver://localhost/x", "nodriver"),
        ("sqlite:////proc/none/study.db", "cannot be made"),
    ],
)
def test_a_bad_address_is_named(address: str, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        open_storage(address, create=True)


LETTERS = ["100%", "%20x", "why?", "a?b=c", "a#b", "{x}", "{}", "ü ñ", "-x", "a:b@c", "n" * 200]


@pytest.mark.parametrize("name", LETTERS)
@pytest.mark.parametrize("kind", ["db", "journal"])
def test_path_may_have_any_letters_as_typed_and_as_shown(name: str, kind: str) -> None:
    Path(name).mkdir()
    typed = f"sqlite:///{name}/study.db" if kind == "db" else f"{name}/study.journal"
    optuna.create_study(study_name="one", storage=open_storage(typed, create=True))
    assert list(Path().rglob("*")) == [Path(name), Path(name, f"study.{kind}")]
    shown = for_optuna(typed)
    assert without_secrets(shown) == shown
    for address in (typed, shown):
        assert optuna.get_all_study_names(open_storage(address, create=False)) == ["one"]
    if kind == "db":  # so Optuna's own commands and optuna-dashboard take what is shown
        assert optuna.get_all_study_names(shown) == ["one"]
    Path(name, f"study.{kind}").unlink()
    with pytest.raises(NothingYetError):
        open_storage(typed, create=False)


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:///runs/small/study.db",
        "sqlite:////tmp/my studies/50 %/a#b.db?timeout=5",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:a.db?mode=ro&uri=true",
        "postgresql+psycopg://me:%7B@host/db?host=/tmp",
        "runs/small.journal",
    ],
)
def test_address_that_is_plain_stays_as_it_is(address: str) -> None:
    assert for_optuna(address) == address


@pytest.mark.parametrize("address", ["sqlite:///~/x/study.db", "~/x/study.db"])
def test_tilde_is_the_users_own_folder(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    open_storage(address, create=True)
    assert Path("home/x/study.db").is_file()
    assert not Path("~").exists()


def test_storage_of_an_older_optuna_says_how_to_upgrade_it() -> None:
    open_storage("sqlite:///old study.db", create=True)
    with closing(sqlite3.connect("old study.db")) as file:
        file.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'")
        file.commit()
    upgrade = "`optuna storage upgrade --storage 'sqlite:///old study.db'`"
    with pytest.raises(StorageError, match=re.escape(upgrade)):
        open_storage("sqlite:///old study.db", create=False)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("server", ["sqlite", "postgres", "mysql"])
def test_workers_that_start_at_once_make_one_storage(
    server: str, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    address = "sqlite:///new.db" if server == "sqlite" else request.getfixturevalue(server)
    at = time.monotonic() + 0.3

    def begin() -> None:
        time.sleep(max(0.0, at - time.monotonic()))
        storage = open_storage(address, create=True)
        with quiet_studies():
            optuna.create_study(study_name="one", storage=storage, load_if_exists=True)

    children = [fork(begin) for _ in range(5)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * 5, capfd.readouterr().err
    assert optuna.get_all_study_names(open_storage(address, create=False)) == ["one"]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="ours")
        yield "s3://ours"


def test_a_bucket_goes_to_another_process(bucket: str) -> None:
    store = pickle.loads(pickle.dumps(artifact_store(bucket)))
    store.write("one", io.BytesIO(b"1"))
    assert artifact_store(bucket).open_reader("one").read() == b"1"


def test_what_is_in_a_bucket_is_removed_at_once(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError(f"slept for {seconds} s")

    store = artifact_store(bucket)
    store.write("one", io.BytesIO(b"1"))
    monkeypatch.setattr(time, "sleep", sleep)
    store.remove("one")
    with pytest.raises(ArtifactNotFound):
        store.open_reader("one")


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_artifacts_are_found_again(place: str, request: pytest.FixtureRequest) -> None:
    address = "some/artifacts" if place == "folder" else request.getfixturevalue("bucket")
    Path("curve.csv").write_text("epoch,accuracy")
    study = optuna.create_study()
    artifact = upload_artifact(
        artifact_store=artifact_store(address), file_path="curve.csv", study_or_trial=study
    )
    download_artifact(
        artifact_store=artifact_store(address), file_path="again.csv", artifact_id=artifact
    )
    assert Path("again.csv").read_text() == "epoch,accuracy"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://none", "'s3://none' cannot be reached"),
        ("s3://ours/inside", "must be a folder or s3://bucket, but got 's3://ours/inside'"),
        ("s3://", "must be a folder or s3://bucket"),
        ("gs://ours", "must be a folder or s3://bucket, but got 'gs://ours'"),
        ("/proc/none", "cannot be made"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_a_bad_artifact_store_is_named(address: str, said: str) -> None:
    with pytest.raises(StorageError, match=re.escape(said)):
        artifact_store(address)


def _epoch(cost: int) -> dict[str, Any]:
    return {"cost": cost, "val_accuracy": 0.5, "diagnostics": {}}


def _trial(state: TrialState, *, value: float | None, **attrs: Any) -> optuna.trial.FrozenTrial:
    return create_trial(state=state, value=value, user_attrs=attrs)


def test_a_pruned_trial_would_have_cost_its_epochs_up_to_the_horizon() -> None:
    attrs = {EPOCHS: [_epoch(10), _epoch(10)], COST: 20, REASON: "pruned after epoch 2"}
    record = read_trial(_trial(TrialState.PRUNED, value=0.5, **attrs), horizon=9)
    assert (record.unpruned_epochs, record.unpruned_cost) == (9, 90)
    assert record.finished


def test_a_diverged_trial_would_have_ended_where_it_did() -> None:
    # Two epochs have results; the third was paid for, and its loss was no number.
    attrs = {EPOCHS: [_epoch(10), _epoch(10)], COST: 29, REASON: "loss is nan"}
    record = read_trial(_trial(TrialState.PRUNED, value=0.1, **attrs), horizon=9)
    assert (record.unpruned_epochs, record.unpruned_cost) == (2, 29)


def test_a_complete_trial_saves_nothing() -> None:
    attrs = {EPOCHS: [_epoch(10)] * 9, COST: 90}
    record = read_trial(_trial(TrialState.COMPLETE, value=0.5, **attrs), horizon=9)
    assert (record.unpruned_epochs, record.unpruned_cost) == (9, 90)


def test_an_interrupted_trial_does_not_count_and_a_failed_one_does() -> None:
    interrupted = _trial(TrialState.FAIL, value=None, **{REASON: INTERRUPTED})
    failed = _trial(TrialState.FAIL, value=None, **{REASON: "RuntimeError: out of memory"})
    assert not read_trial(interrupted, horizon=9).finished
    assert read_trial(failed, horizon=9).finished


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql+psycopg://me:s3cret@host/db", "postgresql+psycopg://me:***@host/db"),
        ("mysql://me:p%40ss:w@rd@host:3306/db?x=1", "mysql://me:***@host:3306/db?x=1"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://postgres:@/db?host=/tmp/x", "postgresql://postgres:@/db?host=/tmp/x"),
        ("sqlite:///runs/a.db", "sqlite:///runs/a.db"),
        ("runs/a.journal", "runs/a.journal"),
    ],
)
def test_passwords_are_not_shown(address: str, shown: str) -> None:
    assert without_secrets(address) == shown


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg://me:s3cret@127.0.0.1:1/db",
        "nothing+known://me:s3cret@host/db",
        "postgresql+psycopg://me:s3cret@host:port/db",
    ],
)
def test_errors_do_not_tell_passwords(address: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_storage(address, create=True)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert "me:***@" in str(caught.value)


def test_a_worker_keeps_one_connection_to_the_database(postgres: str) -> None:
    import psycopg

    opened = [open_storage(postgres, create=True) for _ in range(3)]
    for storage in opened:
        storage.get_all_studies()
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    with psycopg.connect(postgres.replace("+psycopg", "", 1)) as connection:
        found = connection.execute(count).fetchone()
    assert found == (3 + 1,)
