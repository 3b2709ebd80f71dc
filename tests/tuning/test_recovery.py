"""Nothing is lost: a worker is really killed at the worst moments, and the next one goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from impon_hpo.cli import main
from impon_hpo.record import EPOCHS, StudyRecord, read_studies
from impon_hpo.storage import open_storage
from tests.studies import SMALL, write_study
from tests.training.runs import SECONDS

STUDY = SMALL.replace("n_trials = 3", "n_trials = 4").replace(
    "reduction_factor = 3", "reduction_factor = 2"
)

# A worker that is killed at the n-th call of a function, before it or in the midst of it.
KILLED = """
import os, signal, sys
import impon_hpo.training.state_file as state_file
import impon_hpo.training.run as run
import optuna

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

calls = 0

def at_call(n, function, *, after):
    def counted(*arguments, **named):
        global calls
        calls += 1
        if calls == n and not after:
            die()
        found = function(*arguments, **named)
        if calls == n and after:
            die()
        return found
    return counted

point, n = sys.argv[1], int(sys.argv[2])
if point == "in an epoch":
    run.TrainingRun._step = at_call(n * 7 + 3, run.TrainingRun._step, after=False)
elif point == "before the checkpoint is renamed":
    state_file.Path.replace = at_call(n, state_file.Path.replace, after=False)
elif point == "between checkpoint and report":
    optuna.Trial.report = at_call(n, optuna.Trial.report, after=False)
elif point == "between report and pruner":
    optuna.Trial.should_prune = at_call(n, optuna.Trial.should_prune, after=False)
elif point == "between pruner and end":
    optuna.Study.tell = at_call(n, optuna.Study.tell, after=False)
elif point == "after the end":
    optuna.Study.tell = at_call(n, optuna.Study.tell, after=True)
else:
    raise AssertionError(point)
sys.argv = ["impon-hpo", *sys.argv[3:]]
from impon_hpo.cli import main
main()
"""

POINTS = [
    ("in an epoch", 4),
    ("before the checkpoint is renamed", 2),
    ("between checkpoint and report", 2),
    ("between report and pruner", 3),
    ("between pruner and end", 2),
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
    command = [sys.executable, "-c", KILLED, point, str(n), "tune", "small", "--arm", "impon"]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


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


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """What the study comes to when nobody disturbs it."""
    write_study(STUDY)
    assert tune(monkeypatch, "--storage", "whole.journal") == 0
    capfd.readouterr()
    return outcome(record("whole.journal"))


@pytest.mark.parametrize(("point", "n"), POINTS, ids=[point for point, _ in POINTS])
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


def test_killed_worker_on_a_journal_loses_nothing(
    undisturbed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kill("between checkpoint and report", 2, "--storage", "killed.journal")
    running = record("killed.journal").count("RUNNING")
    assert running == 1
    assert tune(monkeypatch, "--storage", "killed.journal") == 0
    assert outcome(record("killed.journal")) == undisturbed


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
    assert ("The trial begins anew." in capfd.readouterr().err) == (damage != "gone")


def test_sigterm_puts_the_trial_back_and_exits_with_143(
    undisturbed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "sqlite:///stopped.db"
    command = [sys.executable, "-m", "impon_hpo", "tune", "small", "--arm", "impon"]
    process = subprocess.Popen(
        [*command, "--storage", address], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
    assert EPOCHS in study.trials[0].user_attrs
    assert tune(monkeypatch, "--storage", address) == 0
    assert outcome(record(address)) == undisturbed


def test_optuna_sees_an_ordinary_study(undisturbed: list[dict[str, Any]]) -> None:
    study = optuna.load_study(
        study_name="small-impon", storage=open_storage("whole.journal", create=False)
    )
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    assert all(trial.state.is_finished() for trial in study.trials)
