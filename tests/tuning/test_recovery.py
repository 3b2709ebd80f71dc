"""Nothing is lost: a worker is really killed at the worst moments, and the next one goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from impon_hpo.cli.app import main
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import StudyRecord, epochs_of, read_studies
from impon_hpo.training.training_run import TrainingRun
from tests.command import run
from tests.studies import SMALL, write_study
from tests.training.runs import SECONDS

# Since Python 3.12, forking beside other threads (here pytest-xdist's) is warned of.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

STUDY = SMALL.replace("n_trials = 3", "n_trials = 4").replace(
    "reduction_factor = 3", "reduction_factor = 2"
)


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(n: int, function: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
    """Return the function, which kills the process at its n-th call, before or after it."""
    calls = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == n and not after:
            die()
        found = function(*arguments, **named)
        if calls == n and after:
            die()
        return found

    return counted


WHERE: dict[str, tuple[Any, str, bool]] = {
    "in an epoch": (TrainingRun, "step", False),
    "before the checkpoint is renamed": (Path, "replace", False),
    "between checkpoint and report": (optuna.Trial, "report", False),
    "between report and pruner": (optuna.Trial, "should_prune", False),
    "between pruner and end": (optuna.Study, "tell", False),
    "after the end": (optuna.Study, "tell", True),
}
POINTS = [
    ("in an epoch", 31),
    pytest.param("before the checkpoint is renamed", 3, marks=pytest.mark.slow),
    ("between checkpoint and report", 2),
    ("between report and pruner", 3),
    pytest.param("between pruner and end", 2, marks=pytest.mark.slow),
    ("after the end", 1),
]


def tune(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["impon-hpo", "tune", "small", "--arm", "impon", *arguments])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def kill(point: str, n: int, *arguments: str) -> None:
    """Run the study in a child process that is killed at the n-th time it comes to a point."""
    kill_at(WHERE[point], n, lambda: run("tune", "small", "--arm", "impon", *arguments))


def kill_at(where: tuple[Any, str, bool], n: int, command: Callable[[], object]) -> None:
    """Run a command in a child process that is killed at the n-th call of a function.

    It is forked, since importing torch anew takes longer than the whole study.

    Args:
        where: What holds the function, its name, and whether the process is killed after the call.
        n: Which call.
        command: The command.
    """
    child = os.fork()
    if child == 0:
        try:
            place, name, after = where
            setattr(place, name, at_call(n, getattr(place, name), after=after))
            command()
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def record(address: str) -> StudyRecord:
    (found,) = read_studies(open_storage(address, create=False), "small")
    return found


def outcome(found: StudyRecord) -> list[dict[str, Any]]:
    """Return all that has to be the same, however often the study was killed."""
    return [
        {
            "number": trial.number,
            "state": trial.state,
            "params": trial.params,
            "value": trial.value,
            "cost": trial.cost,
            "epochs": [
                {key: value for key, value in epoch.items() if key not in SECONDS}
                for epoch in trial.epochs
            ],
            "reported": found.optuna_study.trials[trial.number].intermediate_values,
        }
        for trial in found.trials
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the study comes to when nobody disturbs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        write_study(STUDY)
        assert tune(patch, "--storage", "whole.journal") == 0
        return outcome(record("whole.journal"))


@pytest.fixture(autouse=True)
def _study() -> None:
    write_study(STUDY)


@pytest.mark.parametrize(("point", "n"), POINTS)
def test_killed_worker_loses_nothing(
    point: str,
    n: int,
    undisturbed: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    address = "sqlite:///killed.db"
    kill(point, n, "--storage", address)
    before = record(address)
    done = [epoch for trial in before.trials for epoch in trial.epochs]
    assert done or point == "after the end"
    assert tune(monkeypatch, "--storage", address) == 0
    after = record(address)
    assert outcome(after) == undisturbed
    said = capfd.readouterr().err
    if point != "after the end":
        assert "has lost its worker: it is continued" in said
    # Whole epochs are kept by the checkpoint, so none was trained again.
    assert sum(trial.wasted_epochs for trial in after.trials) == 0
    assert not list(Path("runs/small/checkpoints").glob("*"))
    assert tune(monkeypatch, "--storage", address) == 0  # and again: nothing is added
    assert outcome(record(address)) == undisturbed


@pytest.mark.parametrize(
    "storage",
    ["journal", "postgres", pytest.param("mysql", marks=pytest.mark.slow)],
)
def test_killed_worker_loses_nothing_on_any_storage(
    storage: str,
    undisturbed: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    address = "killed.journal" if storage == "journal" else request.getfixturevalue(storage)
    kill("between checkpoint and report", 2, "--storage", address)
    assert record(address).count("RUNNING") == 1
    assert tune(monkeypatch, "--storage", address) == 0
    assert outcome(record(address)) == undisturbed


@pytest.mark.parametrize("damage", ["cut", "gone", "foreign"])
def test_checkpoint_that_cannot_be_used_costs_time_and_nothing_else(
    damage: str,
    undisturbed: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    address = "sqlite:///killed.db"
    kill("between report and pruner", 2, "--storage", address)
    (path,) = Path("runs/small/checkpoints").glob("*.pt")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "foreign":
        path.write_text(json.dumps({"weights": [1, 2]}))
    else:
        path.unlink()
    assert tune(monkeypatch, "--storage", address) == 0
    after = record(address)
    assert outcome(after) == undisturbed
    assert [trial.wasted_epochs for trial in after.trials if trial.wasted_epochs] == [2]
    assert ("The trial starts again." in capfd.readouterr().err) == (damage != "gone")


def test_sigterm_puts_the_trial_back_and_exits_with_143(
    undisturbed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "sqlite:///stopped.db"
    # More trials than are compared: a slow test must find the process at work.
    command = [sys.executable, "-m", "impon_hpo", "tune", "small", "--arm", "impon"]
    process = subprocess.Popen(
        [*command, "--storage", address, "--trials", "1000"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "epoch 1/" not in process.stderr.readline():
        assert process.poll() is None
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Traceback" not in error
    study = record(address).optuna_study
    assert {trial.state for trial in study.trials} <= {
        TrialState.WAITING,
        TrialState.COMPLETE,
        TrialState.PRUNED,
    }
    assert epochs_of(study.trials[0].user_attrs)
    assert tune(monkeypatch, "--storage", address) == 0
    assert outcome(record(address))[: len(undisturbed)] == undisturbed
