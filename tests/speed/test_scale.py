"""Tests of the scale benchmarks: every trial is accounted for, and the figures add up."""

from __future__ import annotations

import datetime
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from benchmarks import stand_in
from benchmarks.crowd import all_at_work, measure_crowd
from benchmarks.filled_study import (
    ARM,
    EPOCHS_A_TRIAL,
    RUNGS,
    Worker,
    check_finished,
    open_filled,
    write_study_file,
)
from benchmarks.scale import default_workers, measure_scale, pace_of
from benchmarks.stand_in import WorkerTimes, build_workers
from impon_hpo import ImponHpoError
from impon_hpo.errors import ConfigError, StorageError
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import COST, EPOCHS, epochs_of, read_study


def test_a_minute_is_from_the_first_start_to_the_last_end() -> None:
    begun = datetime.datetime(2026, 1, 1)
    trials = []
    for start, seconds, n_epochs in ((0, 20, 1), (10, 20, 9)):
        trial = create_trial(value=0.5, user_attrs={EPOCHS: [{}] * n_epochs})
        trial.datetime_start = begun + datetime.timedelta(seconds=start)
        trial.datetime_complete = trial.datetime_start + datetime.timedelta(seconds=seconds)
        trials.append(trial)
    pace = pace_of(trials)
    assert [pace.trials, pace.epochs] == pytest.approx([4, 20])
    trials[1] = create_trial(state=TrialState.FAIL, user_attrs={"impon:reason": "no memory"})
    with pytest.raises(ImponHpoError, match=r"1 trial\(s\) failed: no memory"):
        pace_of(trials)


def test_a_trial_that_is_missing_or_still_runs_is_noticed() -> None:
    study = optuna.create_study()
    study.tell(study.ask(), 0.5)
    assert [trial.number for trial in check_finished(study, 1)] == [0]
    with pytest.raises(ImponHpoError, match=r"1 of 2 are finished.*missing or too many are \[1\]"):
        check_finished(study, 2)
    study.ask()
    with pytest.raises(ImponHpoError, match=r"still running are \[1\]"):
        check_finished(study, 1)


@pytest.mark.slow
def test_workers_of_a_study_are_processes_that_leave_nothing_behind() -> None:
    measured = measure_scale(
        n_workers=[1], storage=str(Path("kept.journal").absolute()), width=2, trials=2, rounds=1
    )
    (row,) = measured.rows
    assert (row["workers"], row["times_fewest"]) == (1, 1)
    assert 0 < row["trials_per_minute"] <= row["epochs_per_minute"]
    assert not open_storage("kept.journal", create=False).get_all_studies()
    assert not Path("runs").exists()


def test_stand_ins_leave_what_workers_leave(tmp_path: Path) -> None:
    study_file = write_study_file(tmp_path / "crowd", width=2)
    study = open_filled(study_file, open_storage("study.journal", create=True), 0)
    work = build_workers(
        folder=str(tmp_path / "crowd"),
        address="study.journal",
        numbers=range(3),
        n_trials=9,
        epoch_seconds=0.01,
    )
    shift = work()
    assert not shift.refused
    assert [worker.error for worker in shift.workers] == [""] * 3
    trials = check_finished(study, 9)
    record = read_study(study)
    assert record.identity["arm"] == ARM
    wanted, surplus = record.trials[:9], record.trials[9:]
    assert {trial.fate for trial in wanted} == {"complete", "pruned"}
    # Of workers that ask at the same moment one can get a number too many, which it puts back.
    assert all(trial.fate == "waiting" and not trial.epochs for trial in surplus)
    for trial in wanted:  # the pruner decides at its rungs and nowhere else
        assert len(trial.epochs) in (*RUNGS, EPOCHS_A_TRIAL)
        assert trial.cost == sum(epoch["cost"] for epoch in trial.epochs)
    n_epochs = sum(len(epochs_of(trial.user_attrs)) for trial in trials)
    assert sum(len(worker.epochs) for worker in shift.workers) == n_epochs
    between = [len(worker.between_epochs) for worker in shift.workers]
    assert sum(between) == n_epochs - 9
    for worker in shift.workers:
        beside = sum(taken for _, taken in worker.between_epochs + worker.between_trials)
        slept = sum(seconds for _, seconds in worker.epochs)
        assert slept + beside <= worker.ended - worker.begun
        assert worker.epochs == sorted(worker.epochs)
    assert trials[0].user_attrs[COST] > 0


def test_a_crowd_is_accounted_for() -> None:
    measured = measure_crowd(
        storage="crowd.journal", n_workers=[3], epoch_seconds=0.05, trials_each=2
    )
    (row,) = measured.rows
    assert (row["workers"], row["wanted"]) == (3, 60)
    assert 0 < row["percent_training"] < 100
    assert row["epochs_per_second"] > 0
    assert row["ms_between_epochs"] <= row["ms_between_epochs_p95"]
    assert (row["refused"], row["errors"]) == (0, 0)
    assert measured.settings["errors"] == {}


def test_trials_of_others_are_read_waited_for_and_not_counted() -> None:
    measured = measure_crowd(
        storage="crowd.journal", n_workers=[2], epoch_seconds=0.02, trials_each=2, n_others=3
    )
    (row,) = measured.rows
    assert (row["workers"], row["others"], row["errors"]) == (2, 3, 0)
    assert measured.settings["errors"] == {}


def test_rates_are_of_the_time_in_which_all_have_something_to_train() -> None:
    early = WorkerTimes(begun=0, ended=20, epochs=[(4, 4), (10, 5), (20, 9)])
    late = WorkerTimes(begun=5, ended=15, epochs=[(15, 9)])
    idle = WorkerTimes(begun=30)
    assert all_at_work([early, late, idle]) == (6, 15, [5, 9])  # it began its epoch at 6
    late.begun, late.ended, late.epochs = 21, 30, [(30, 9)]  # never at the same time as the other
    assert all_at_work([early, late]) == (0, 30, [4, 5, 9, 9])


def test_errors_of_workers_are_counted_and_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_file = write_study_file(tmp_path / "crowd", width=2)
    open_filled(study_file, open_storage("study.journal", create=True), 0)
    opened: list[str] = []

    def full(address: str, *, create: bool) -> object:
        opened.append(address)
        if len(opened) > 1:
            raise StorageError("Storage cannot be opened: too many clients already")
        return open_storage(address, create=create)

    monkeypatch.setattr(stand_in, "open_storage", full)
    work = build_workers(
        folder=str(tmp_path / "crowd"),
        address="study.journal",
        numbers=range(3),
        n_trials=2,
        epoch_seconds=0.01,
    )

    def broken(*given: object, **named: object) -> None:
        raise StorageError("away")

    monkeypatch.setattr(Worker, "run", broken)
    shift = work()
    assert shift.refused == ["Storage cannot be opened: too many clients already"] * 2
    assert [worker.error for worker in shift.workers] == ["StorageError: away"]


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 worker"):
        measure_scale(n_workers=[0], storage=None, width=2, trials=1, rounds=1)
    with pytest.raises(ConfigError, match="more than 0 seconds"):
        measure_crowd(storage="x.journal", n_workers=[1], epoch_seconds=0, trials_each=1)


def test_by_default_it_goes_up_to_twice_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert default_workers() == [1, 2, 4]
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert default_workers() == [1, 2, 4, 8]
