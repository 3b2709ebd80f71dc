"""Comparing: killed in the middle and continued to the same bits, by any number of workers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from impon_hpo.cli.app import main
from impon_hpo.comparing.compare import results, train_grid
from impon_hpo.comparing.grid import Grid, samplers_grid
from impon_hpo.comparing.recorder import Recorder
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import epochs_of
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning.budget import BudgetSpentError
from impon_hpo.tuning.processes import Orders
from impon_hpo.tuning.progress import RecordingProgress
from impon_hpo.tuning.study_file import StudyFile
from tests.comparing.comparisons import GRID, PREQUENTIAL
from tests.comparing.tiny import gathered, record, tiny_study, trials_of, without_seconds
from tests.studies import small_study
from tests.tuning.forks import fork
from tests.tuning.test_recovery import at_call

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

MEMORY = ('compare.arms=["memory"]', "compare.epoch_fractions=[1]", "run.epochs=3")


def study() -> StudyFile:
    return tiny_study(*MEMORY)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        return record(study())


def recording(address: str) -> Callable[[], None]:
    """Return what a process does that records the comparison by its command."""

    def run() -> None:
        settings = [part for setting in MEMORY for part in ("--set", setting)]
        sys.argv = ["impon-hpo", "compare", "small", "--storage", address, *TINY_SETTINGS]
        sys.argv += settings
        main()

    return run


TINY_SETTINGS = [
    part
    for setting in (
        "run.subset=128",
        "run.validation_size=60",
        "compare.configurations=2",
        "arms.impon.bank_size=64",
    )
    for part in ("--set", setting)
]


@pytest.mark.parametrize(("name", "n"), [("step", 30), ("train_epoch", 4), ("evaluate", 9)])
def test_comparison_that_is_killed_in_the_middle_of_a_run_goes_on_to_the_same_bits(
    name: str, n: int, undisturbed: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_file = study()
    # Runs of a test are shorter than the time between two checkpoints.
    monkeypatch.setattr("impon_hpo.comparing.recorder.SAVE_SECONDS", 0.0)

    def killed() -> None:
        setattr(TrainingRun, name, at_call(n, getattr(TrainingRun, name)))
        record(study_file)

    assert os.WTERMSIG(os.waitpid(fork(killed), 0)[1]) == signal.SIGKILL
    before = trials_of(study_file)
    assert len(before) < len(undisturbed.runs)
    later = record(study_file)
    assert without_seconds(later.rows) == without_seconds(undisturbed.rows)
    assert not list(Path("runs/small/checkpoints").glob("*.pt"))


@pytest.mark.parametrize("storage", [pytest.param("journal", marks=pytest.mark.slow), "postgres"])
def test_two_workers_record_what_one_does_and_double_nothing(
    storage: str, undisturbed: Recordings, request: pytest.FixtureRequest
) -> None:
    address = "shared.journal" if storage == "journal" else request.getfixturevalue(storage)
    study_file = study()
    workers = [fork(recording(address)) for _ in range(2)]
    assert [os.waitpid(worker, 0)[1] for worker in workers] == [0, 0]
    shared = gathered(study_file, address)
    assert without_seconds(shared.rows) == without_seconds(undisturbed.rows)
    # Nothing was begun beyond what is wanted but what may wait for more blocks.
    opened = open_storage(address, create=False)
    states = [
        trial.state.name
        for summary in opened.get_all_studies()
        if "protocol" not in summary.study_name
        for trial in opened.get_all_trials(summary._study_id)
    ]
    assert states.count("COMPLETE") == len(undisturbed.runs)
    assert set(states) <= {"COMPLETE", "WAITING"}


def test_failing_run_is_offered_again_so_that_the_table_has_no_holes(
    undisturbed: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, failed = Recorder.train, list[int]()

    def once(recorder: Recorder, training: Any, trial: Any, on_epoch: Any) -> float:
        if training.name == "uniform cosine" and trial.number == 1 and not failed:
            failed.append(trial.number)
            raise RuntimeError("out of memory")
        return train(recorder, training, trial, on_epoch)

    monkeypatch.setattr(Recorder, "train", once)
    recordings = record(study())
    assert failed == [1]
    assert without_seconds(recordings.rows) == without_seconds(undisturbed.rows)


def test_budget_is_that_of_the_whole_comparison(undisturbed: Recordings) -> None:
    study_file = study()
    with pytest.raises(BudgetSpentError, match="20 of 20 epochs are spent"):
        record(study_file, max_epochs=20)
    trials = trials_of(study_file)
    assert 0 < len(trials) < len(undisturbed.runs)
    assert len({key[0] for key in trials}) > 1  # in more than one study
    later = record(study_file)
    assert without_seconds(later.rows) == without_seconds(undisturbed.rows)
    # What was under way was saved when it was stopped: no epoch had to be trained again.
    epochs = [e for t in trials_of(study_file).values() for e in epochs_of(t.user_attrs).values()]
    assert not [epoch for epoch in epochs if "wasted" in epoch]


# `compare-samplers`.


def train(study_file: StudyFile, grid: Grid, storage: str = "study.journal") -> list[Any]:
    opened = open_storage(storage, create=True)
    with RecordingProgress(Console(quiet=True)) as progress:
        train_grid(study_file, grid, opened, Orders("compare-samplers", "small"), progress)
    return results(study_file, grid, opened, losses=True)


def test_results_are_kept_and_nothing_is_trained_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    study_file = small_study(text=GRID)
    first = train(study_file, samplers_grid(study_file, ["uniform"], 1))
    grid = samplers_grid(study_file, ["uniform", "paced"], 1)
    second = train(study_file, grid)
    assert [result for result in second if result["arm"] == "uniform"] == first
    order = [(result["arm"], result["params"]["lr"]) for result in second]
    assert order == [("uniform", 0.01), ("paced", 0.01), ("uniform", 0.1), ("paced", 0.1)]
    for result in second:
        assert len(result["epochs"]) == result["horizon"] == 2
        assert [len(losses) for losses in result["step_losses"]] == [2, 2]  # 0.3 of 7 steps
        assert result["steps_per_epoch"] == 2
    assert [result["reference_cost"] > 0 for result in second] == [False, True, False, True]
    monkeypatch.setattr(Recorder, "train", lambda *_: pytest.fail("trained again"))
    assert train(study_file, grid) == second


def test_more_seeds_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    study_file = small_study(text=GRID)
    one = train(study_file, samplers_grid(study_file, ["uniform"], 1))
    two = train(study_file, samplers_grid(study_file, ["uniform"], 2))
    assert two[: len(one)] == one
    assert [result["seed"] for result in two] == [1, 1, 2, 2]


def test_diverged_run_is_a_result() -> None:
    study_file = small_study("space.lr.choices=[1e30]", text=GRID)
    (result,) = train(study_file, samplers_grid(study_file, ["uniform"], 1))
    assert result["epochs"] == []
    assert "training loss of epoch 1" in result["ended"]
    assert result["ended_cost"] > 0


def test_taught_arm_reads_what_the_middle_of_the_uniform_arm_has_seen() -> None:
    study_file = small_study(*PREQUENTIAL, text=GRID)
    runs = train(study_file, samplers_grid(study_file, ["paced", "uniform"], 1))
    assert len(list(Path("runs/small/references").glob("*.pt"))) == 1
    assert [run["reference_cost"] for run in runs] == [0, 0, 0, 0]
    assert [len(run["epochs"]) for run in runs] == [2] * 4


def test_curve_of_losses_survives_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the epochs before a checkpoint are in it."""
    monkeypatch.setattr("impon_hpo.comparing.recorder.SAVE_SECONDS", 0.0)
    study_file = small_study(text=GRID)
    grid = samplers_grid(study_file, ["uniform"], 1)
    undisturbed = train(study_file, grid, "whole.journal")

    def killed() -> None:
        TrainingRun.step = at_call(3, TrainingRun.step)  # type: ignore[method-assign]
        train(study_file, grid)

    assert os.WTERMSIG(os.waitpid(fork(killed), 0)[1]) == signal.SIGKILL
    losses = [result["step_losses"] for result in train(study_file, grid)]
    assert losses == [result["step_losses"] for result in undisturbed]
