"""The dashboard as a command: what it serves, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.command import run
from tests.comparing.tiny import ONLY_IMPON, record, tiny_study
from tests.studies import storage_with_one_trial, write_study
from tests.tuning.forks import start


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _dashboard(port: int) -> Iterator[str]:
    process = start("dashboard", "small", "--port", str(port))
    try:
        process.wait_until(lambda: process.out.endswith("\n"))
        yield process.out.strip()
    finally:
        if process.running():
            os.kill(process.pid, signal.SIGTERM)
        process.wait(seconds=20)


def get(url: str) -> Any:
    for _ in range(100):
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read()
        except (ConnectionError, urllib.error.URLError):
            time.sleep(0.1)
    raise AssertionError(f"no answer from {url}")


def test_the_dashboard_serves_the_study_its_note_and_its_artifacts() -> None:
    assert run("tune", write_study(), "--trials", "1") == 0
    port = free_port()
    with _dashboard(port) as address:
        assert address == f"http://127.0.0.1:{port}/dashboard"
        assert b"Optuna Dashboard" in get(address)
        base = f"http://127.0.0.1:{port}"
        (summary,) = json.loads(get(f"{base}/api/studies"))["study_summaries"]
        assert summary["study_name"] == "small-impon"
        study = json.loads(get(f"{base}/api/studies/{summary['study_id']}"))
        assert "# small: arm `impon`" in study["note"]["body"]
        assert "impon-hpo train small --arm impon" in study["note"]["body"]
        trial = study["trials"][0]
        assert [value["step"] for value in trial["intermediate_values"]] == [1, 2, 3]
        artifacts = {entry["filename"]: entry for entry in trial["artifacts"]}
        artifact = artifacts["learning_curve.csv"]
        curve = get(
            f"{base}/artifacts/{summary['study_id']}/{trial['trial_id']}/{artifact['artifact_id']}"
        )
        assert curve.decode().startswith("epoch,train_loss,val_accuracy")


def test_dashboard_serves_a_comparison_with_the_accuracies_of_every_epoch() -> None:
    study_file = tiny_study(*ONLY_IMPON)
    recordings = record(study_file, storage=study_file.storage)
    with _dashboard(free_port()) as address:
        api = address.replace("/dashboard", "/api/studies")
        listed = json.loads(get(api))["study_summaries"]
        numbers = {
            entry["study_name"]: entry["study_id"]
            for entry in listed
            if "protocol" not in entry["study_name"]
        }
        assert len(numbers) == 3
        trials = [
            trial
            for number in numbers.values()
            for trial in json.loads(get(f"{api}/{number}"))["trials"]
        ]
    assert len(trials) == len(recordings.runs) == 12
    shown = [[value["value"] for value in trial["intermediate_values"]] for trial in trials]
    accuracies = [list(run.accuracy("val", "last")) for run in recordings.runs.values()]
    assert sorted(shown) == sorted(accuracies)


def test_dashboard_is_stopped_while_it_answers() -> None:
    assert run("tune", write_study(), "--trials", "1") == 0
    port = free_port()
    process = start("dashboard", "small", "--port", str(port))
    process.wait_until(lambda: process.out.endswith("\n"))
    get(f"http://127.0.0.1:{port}/dashboard")  # it listens
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /static/bundle.js HTTP/1.0\r\nAccept-Encoding: identity\r\n\r\n")
        client.recv(1)  # it answers, and waits for someone who reads no more
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(seconds=20) == 0
    assert "Traceback" not in process.said


def test_a_port_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write_study()
    storage_with_one_trial()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run("dashboard", "small", "--port", str(taken.getsockname()[1])) == 2
    assert "--port" in capsys.readouterr().err
