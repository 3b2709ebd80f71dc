"""A study under halving that promotes: killed, stopped, shared, and it comes to the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from impon_hpo.storage.trials import UID, UNTIL
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning import standings
from impon_hpo.tuning.standings import Standings
from tests.command import run
from tests.studies import SMALL, write_study
from tests.training.runs import SECONDS
from tests.tuning.test_recovery import kill_at, outcome, record

# Since Python 3.12, forking beside other threads (here pytest-xdist's) is warned of.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

HALVING = 'name = "SuccessiveHalvingPruner"\nreduction_factor = 3'
STUDY = (
    SMALL.replace(HALVING, 'name = "promote"\nreduction_factor = 2')
    .replace("n_trials = 3", "n_trials = 5")
    .replace("epochs = 3", "epochs = 4")
    + '\n[arms.memory]\nsampler = "impon-memory"\n'
)
WHERE: dict[str, tuple[Any, str, bool]] = {
    "in an epoch": (TrainingRun, "step", False),
    "between report and pause": (Standings, "pause", False),
    "in the pause": (standings, "put_back", False),
    "between claim and note": (Standings, "_begin", False),
    "between note and training": (Standings, "_begin", True),
    "between decision and end": (optuna.Study, "tell", False),
    "between end and note": (optuna.Study, "tell", True),
}
POINTS = [
    ("in an epoch", 31),
    pytest.param("between report and pause", 3, marks=pytest.mark.slow),
    pytest.param("in the pause", 3, marks=pytest.mark.slow),
    pytest.param("between claim and note", 4, marks=pytest.mark.slow),
    pytest.param("between note and training", 4, marks=pytest.mark.slow),
    pytest.param("between decision and end", 3, marks=pytest.mark.slow),
    pytest.param("between end and note", 2, marks=pytest.mark.slow),
]


def tune(*arguments: str, arm: str = "impon") -> int:
    return run("tune", "small", "--arm", arm, *arguments)


def kill(point: str, n: int, *arguments: str, arm: str = "impon") -> None:
    """Run the study in a child process that is killed at the n-th time it comes to a point."""
    kill_at(WHERE[point], n, lambda: tune(*arguments, arm=arm))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the study comes to when nobody disturbs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        write_study(STUDY)
        assert tune("--storage", "whole.journal") == 0
        return outcome(record("whole.journal"))


@pytest.fixture(autouse=True)
def _study() -> None:
    write_study(STUDY)


def test_best_come_to_their_end_and_the_others_stop_at_their_rung(
    undisturbed: list[dict[str, Any]],
) -> None:
    assert [trial["state"] for trial in undisturbed].count("COMPLETE") >= 1
    lengths = [len(trial["epochs"]) for trial in undisturbed]
    assert set(lengths) <= {1, 2, 4}
    assert min(lengths) == 1
    pruned = [trial for trial in undisturbed if trial["state"] == "PRUNED"]
    assert pruned
    assert all(trial["value"] == trial["epochs"][-1]["val_accuracy"] for trial in pruned)


def test_promoted_trial_has_the_bits_of_one_that_never_waited(
    undisturbed: list[dict[str, Any]],
) -> None:
    write_study(STUDY.replace('name = "promote"\nreduction_factor = 2', 'name = "NopPruner"'))
    assert tune("--storage", "unpruned.journal") == 0
    for trial, whole in zip(undisturbed, outcome(record("unpruned.journal")), strict=True):
        assert trial["params"] == whole["params"]
        assert trial["epochs"] == whole["epochs"][: len(trial["epochs"])]


@pytest.mark.parametrize(("point", "n"), POINTS)
def test_killed_worker_loses_nothing(point: str, n: int, undisturbed: list[dict[str, Any]]) -> None:
    address = "sqlite:///killed.db"
    kill(point, n, "--storage", address)
    assert tune("--storage", address) == 0
    after = record(address)
    assert outcome(after) == undisturbed
    assert sum(trial.wasted_epochs for trial in after.trials) == 0
    assert not list(Path("runs/small/checkpoints").glob("*"))
    assert tune("--storage", address) == 0  # and again: nothing is added
    assert outcome(record(address)) == undisturbed


@pytest.mark.slow
def test_killed_worker_loses_nothing_on_a_database(
    undisturbed: list[dict[str, Any]], postgres: str
) -> None:
    kill("in the pause", 3, "--storage", postgres)
    assert tune("--storage", postgres) == 0
    assert outcome(record(postgres)) == undisturbed


@pytest.mark.parametrize(
    "point", ["in an epoch", pytest.param("between decision and end", marks=pytest.mark.slow)]
)
def test_teacher_runs_to_its_end_first_and_is_charged(point: str) -> None:
    learning = "space.lr.low=0.03"  # so that the first trial learns enough to teach
    assert tune("--storage", "whole.journal", "--set", learning, arm="memory") == 0
    whole = record("whole.journal")
    assert whole.trials[0].state == "COMPLETE"
    assert whole.trials[0].reference == ""
    assert all(trial.reference for trial in whole.trials[1:])
    assert {len(trial.epochs) for trial in whole.trials[1:]} <= {1, 2, 4}
    shutil.rmtree("runs")
    arguments = ["--storage", "killed.journal", "--set", learning]
    kill(point, 1 if point != "in an epoch" else 31, *arguments, arm="memory")
    assert tune(*arguments, arm="memory") == 0
    assert outcome(record("killed.journal")) == outcome(whole)


def test_checkpoint_that_is_gone_costs_its_epochs_again(undisturbed: list[dict[str, Any]]) -> None:
    address = "sqlite:///gone.db"
    kill("between claim and note", 3, "--storage", address)  # two trials wait
    for path in Path("runs/small/checkpoints").glob("*.pt"):
        path.unlink()
    assert tune("--storage", address) == 0
    after = record(address)
    expected = outcome(after)
    for trial, there in zip(expected, undisturbed, strict=True):
        assert trial | {"cost": 0} == there | {"cost": 0}
    promoted = [trial.number for trial in after.trials[:2] if len(trial.epochs) > 1]
    assert promoted
    assert [trial.number for trial in after.trials if trial.wasted_epochs] == promoted
    assert after.trials[promoted[0]].wasted_epochs == 1


def test_other_machine_goes_on_from_the_checkpoint_in_the_artifact_store(
    undisturbed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Path("shared").resolve()
    shared.mkdir()
    arguments = [
        *("--storage", f"sqlite:///{shared}/study.db"),
        *("--set", f"artifacts={shared}/artifacts"),
    ]
    kill("between claim and note", 3, *arguments)  # two trials wait
    for name in ("other", "another"):  # a folder of its own stands for a machine of its own
        Path(name).mkdir()
        monkeypatch.chdir(name)
        write_study(STUDY)
        assert tune(*arguments, *(["--max-epochs", "5"] if name == "other" else [])) == 0
        monkeypatch.chdir("..")
    after = record(arguments[1])
    assert outcome(after) == undisturbed
    assert sum(trial.wasted_epochs for trial in after.trials) == 0
    left = [path.name for path in (shared / "artifacts").iterdir() if path.suffix == ".pt"]
    assert after.best is not None
    assert left == [f"best-{after.optuna_study.user_attrs[UID]}-{after.best.number}.pt"]


@pytest.mark.parametrize("place", ["pause", pytest.param("_begin", marks=pytest.mark.slow)])
def test_stop_between_two_stretches_leaves_no_trial_that_seems_to_run(
    place: str, undisturbed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Standings, place, stop)
        assert tune("--storage", "stopped.journal") == 130
    states = [trial.state for trial in record("stopped.journal").optuna_study.trials]
    assert states == [TrialState.WAITING]
    assert tune("--storage", "stopped.journal") == 0
    assert outcome(record("stopped.journal")) == undisturbed


@pytest.mark.slow
def test_without_room_for_checkpoints_it_comes_to_the_same(
    undisturbed: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert tune("--storage", "tight.journal", "--checkpoint-budget", "0") == 0
    after = record("tight.journal")
    assert [trial | {"cost": 0} for trial in outcome(after)] == [
        trial | {"cost": 0} for trial in undisturbed
    ]
    assert sum(trial.wasted_epochs for trial in after.trials) > 0
    assert "waits without its checkpoint" in capfd.readouterr().err


def test_spent_budget_leaves_them_waiting_and_more_of_it_continues(
    undisturbed: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    address = "sqlite:///budget.db"
    assert tune("--storage", address, "--max-epochs", "3") == 0
    states = [trial.state for trial in record(address).optuna_study.trials]
    assert TrialState.WAITING in states
    assert TrialState.PRUNED not in states
    capfd.readouterr()
    assert run("status", "small", "--storage", address, "--format", "json") == 0
    (facts,) = json.loads(capfd.readouterr().out)
    assert facts["epochs"] == 3
    assert [set(entry) for entry in facts["waiting_at_rungs"]] == [
        {"trial", "epoch", "place", "of"}
    ] * len(facts["waiting_at_rungs"])
    assert len(facts["waiting_at_rungs"]) >= 1
    assert tune("--storage", address) == 0
    assert outcome(record(address)) == undisturbed


@pytest.mark.slow
def test_two_workers_share_it_and_none_is_promoted_twice(
    undisturbed: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    sync = STUDY.replace("reduction_factor = 2", 'reduction_factor = 2\nmode = "sync"')
    write_study(sync)
    assert tune("--storage", "alone.journal") == 0
    shutil.rmtree("runs")
    assert tune("--storage", "sqlite:///both.db", "--workers", "2") == 0
    both = record("sqlite:///both.db")
    assert outcome(both) == outcome(record("alone.journal"))
    assert all(trial.wasted_epochs == 0 for trial in both.trials)
    lines = capfd.readouterr().err.splitlines()
    workers = {line[:3] for line in lines if "val accuracy" in line and line.startswith("[")}
    assert workers == {"[0]", "[1]"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trials", "6"], "ended with 5 trials"),
        (["--set", "pruner.reduction_factor=3"], "pruner.reduction_factor is 2 there"),
        (["--set", "pruner.name=NopPruner"], "NopPruner has no argument 'reduction_factor'"),
        (["--set", "pruner.min_resource=4"], "must be below the epochs of a run (4)"),
        (["--set", "pruner.reduction_factor=1"], "greater than or equal to 2"),
        (["--checkpoint-budget", "much"], "takes a size such as 20GB"),
    ],
)
def test_what_does_not_fit_is_refused_and_loses_nothing(
    arguments: list[str],
    said: str,
    undisturbed: list[dict[str, Any]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert tune("--storage", "done.journal") == 0
    capfd.readouterr()
    assert tune("--storage", "done.journal", *arguments) == 2
    error = capfd.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert outcome(record("done.journal")) == undisturbed


def test_epochs_that_it_may_train_to_stand_in_the_storage() -> None:
    assert tune("--storage", "done.journal") == 0
    for trial in record("done.journal").optuna_study.trials:
        reached = max(trial.intermediate_values)
        assert trial.user_attrs[UNTIL] == reached
        seconds = {key for key in trial.user_attrs["impon:epoch:1"] if key in SECONDS}
        assert seconds


def test_dry_run_tells_rungs_and_epochs(capfd: pytest.CaptureFixture[str]) -> None:
    assert tune("--dry-run", "--format", "json") == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["pruner"] == {
        "name": "promote",
        "reduction_factor": 2,
        "min_resource": 1,
        "mode": "async",
        "rungs": [1, 2],
    }
    assert facts["epochs_expected"] == 5 + 2 + 2
