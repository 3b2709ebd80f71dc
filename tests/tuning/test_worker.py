"""Tests of the worker and of a study in the storage: counted, continued, refused."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from impon_hpo.errors import (
    ConfigError,
    ImponHpoError,
    NothingYetError,
    StorageError,
    TrialSettingsError,
)
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import (
    IDENTITY,
    NO_REASON,
    WORKER,
    StudyRecord,
    read_studies,
    read_study,
)
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.splits import Splits
from impon_hpo.tuning.job import Job, OnEpoch
from impon_hpo.tuning.lease import Watch, put_back
from impon_hpo.tuning.objective import Objective
from impon_hpo.tuning.progress import TuningProgress
from impon_hpo.tuning.study import open_study
from impon_hpo.tuning.study_file import StudyFile
from impon_hpo.tuning.worker import pause_seconds, work
from tests.studies import SMALL, small_study

HERE = {"versions": {"python": "3"}, "cpu": "some", "platform": "some", "device": "cpu"}


def _open(study_file: StudyFile, arm: str = "impon", address: str = "") -> optuna.Study:
    storage = open_storage(address or "sqlite:///study.db", create=True)
    command: dict[str, Any] = {"study": "small", "settings": [], "storage": None}
    return open_study(study_file, arm, storage, command=command, environment=HERE)


class Stub:
    """An objective that costs nothing: what it returns or raises is told by a function."""

    def __init__(self, act: Any = None) -> None:
        self.act = act or (lambda number: 0.5)
        self.seen: list[tuple[int, dict[str, Any]]] = []

    def __call__(self, trial: optuna.Trial, on_epoch: OnEpoch) -> float:
        trial.suggest_float("lr", 1e-3, 0.3, log=True)
        self.seen.append((trial.number, trial.params))
        return float(self.act(trial.number))


def _tune(study: optuna.Study, train: Any, n_trials: int) -> tuple[StudyRecord, str]:
    printed = io.StringIO()
    with TuningProgress(Console(file=printed, width=200)) as progress:
        work([Job("impon", study, train, n_trials)], progress=progress)
    return read_study(study), printed.getvalue()


def test_a_study_runs_up_to_n_trials_in_all_and_then_adds_nothing() -> None:
    study = _open(small_study())
    first, again, more = Stub(), Stub(), Stub()
    assert _tune(study, first, 3)[0].n_finished == 3
    assert _tune(_open(small_study()), again, 3)[0].n_finished == 3
    assert _tune(_open(small_study()), more, 5)[0].n_finished == 5
    assert [len(stub.seen) for stub in (first, again, more)] == [3, 0, 2]


def test_a_continued_study_does_not_try_a_configuration_again() -> None:
    tpe = SMALL.replace("RandomSampler", "TPESampler")
    seen = []
    for wanted in (2, 4, 6):
        stub = Stub()
        _tune(_open(small_study(text=tpe)), stub, wanted)
        seen += [params["lr"] for _, params in stub.seen]
    assert len(seen) == len(set(seen)) == 6


def test_pruned_trials_count_as_finished() -> None:
    def prune(number: int) -> float:
        if number == 0:
            return 0.5
        raise optuna.TrialPruned

    record, _ = _tune(_open(small_study()), Stub(prune), 3)
    assert (record.count("COMPLETE"), record.count("PRUNED")) == (1, 2)


def test_a_failing_trial_is_recorded_and_the_study_goes_on() -> None:
    def fail(number: int) -> float:
        if number == 1:
            raise RuntimeError("out of memory")
        return 0.5

    record, said = _tune(_open(small_study()), Stub(fail), 3)
    assert (record.count("COMPLETE"), record.count("FAIL")) == (2, 1)
    assert "trial 1 failed: RuntimeError: out of memory" in said


def test_every_failed_trial_has_a_reason() -> None:
    def fail(number: int) -> float:
        if number == 0:
            raise RuntimeError("out of\nmemory")
        return math.nan if number == 1 else 0.5

    record, said = _tune(_open(small_study()), Stub(fail), 4)
    assert [trial.state for trial in record.trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    reasons = [trial.reason for trial in record.trials]
    assert reasons[0] == "RuntimeError: out of memory"
    assert reasons[1] == "ArithmeticError: a trial's value must be a number, but is nan"
    assert f"trial 1 failed: {reasons[1]}" in said.splitlines()


def test_a_trial_that_is_failed_from_outside_is_told_to_have_no_reason() -> None:
    study = _open(small_study())
    study.tell(study.ask(), state=TrialState.FAIL)
    assert read_study(study).trials[0].reason == NO_REASON


def test_settings_of_a_trial_do_not_count_among_failures_in_a_row() -> None:
    def fail(number: int) -> float:
        if number % 3 == 2:
            raise RuntimeError(f"cause {number}")
        raise TrialSettingsError("batch_size must be\n16 or 32.")

    study = _open(small_study())
    with pytest.raises(ImponHpoError, match=r"3 trials in a row failed.*cause 8"):
        _tune(study, Stub(fail), 12)
    assert len(study.trials) == 9
    assert read_study(study).trials[0].reason == "batch_size must be 16 or 32."


def test_three_failures_in_a_row_stop_the_study_with_the_reason() -> None:
    def fail(number: int) -> float:
        raise RuntimeError(f"cause {number}")

    study = _open(small_study())
    with pytest.raises(ImponHpoError, match=r"3 trials in a row failed.*cause 2"):
        _tune(study, Stub(fail), 10)
    assert len(study.trials) == 3


def test_failures_apart_from_each_other_do_not_stop_the_study() -> None:
    def fail(number: int) -> float:
        if number % 2:
            raise RuntimeError("now and then")
        return 0.5

    record, _ = _tune(_open(small_study()), Stub(fail), 9)
    assert record.count("FAIL") == 4


@pytest.mark.parametrize("ending", ["value", "pruned", "failed"])
def test_trial_that_was_taken_away_meanwhile_is_not_told(ending: str) -> None:
    study = _open(small_study())
    taken: list[int] = []

    def take_away(number: int) -> float:
        if not taken:  # another worker thought that this one was lost
            taken.append(number)
            put_back(study, study.trials[number]._trial_id)
            if ending == "pruned":
                raise optuna.TrialPruned
            if ending == "failed":
                raise RuntimeError("it fails")
        return 0.5

    record, lines = _tune(study, Stub(take_away), 2)
    assert [trial.state for trial in record.trials] == ["COMPLETE"] * 2
    assert "trial 0 was taken over by another worker" in lines


def test_a_mistake_of_the_users_stops_at_once() -> None:
    def fail(number: int) -> float:
        raise ConfigError("no such thing")

    study = _open(small_study())
    with pytest.raises(ConfigError, match="no such thing"):
        _tune(study, Stub(fail), 10)
    assert len(study.trials) == 1


def test_an_interrupted_trial_goes_on_under_its_number(tiny_splits: Splits) -> None:
    study_file = small_study()
    study = _open(study_file)

    def interrupt(trial: optuna.Trial, result: EpochResult) -> None:
        if result.epoch == 2:
            raise KeyboardInterrupt

    config = study_file.arms["impon"]
    stopped = Objective(config, study_file.space, splits=tiny_splits)
    with pytest.raises(KeyboardInterrupt):
        _tune(study, lambda trial, on_epoch: stopped(trial, interrupt), 1)
    (waiting,) = study.get_trials(deepcopy=False)
    assert waiting.state == TrialState.WAITING
    assert list(waiting.intermediate_values) == [1]
    again = Objective(config, study_file.space, splits=tiny_splits)
    record, _ = _tune(_open(study_file), again, 1)
    assert [trial.state for trial in record.trials] == ["COMPLETE"]
    assert record.trials[0].params == waiting.params
    assert record.trials[0].reason == ""
    # Without checkpoints, both epochs had to be trained again, and that is written down.
    assert record.trials[0].wasted_epochs == 2
    assert record.trials[0].wasted_cost == sum(e["cost"] for e in record.trials[0].epochs[:2])


def test_arms_of_one_study_try_the_same_configurations_with_a_random_study_sampler() -> None:
    tried = []
    for arm in ("impon", "uniform"):
        stub = Stub()
        _tune(_open(small_study(), arm), stub, 3)
        tried.append(stub.seen)
    assert tried[0] == tried[1]


def test_a_study_with_other_settings_is_refused_and_left_as_it_is() -> None:
    study = _open(small_study())
    _tune(study, Stub(), 2)
    before = study.user_attrs
    with pytest.raises(StorageError, match=r"run\.epochs is 3 there, but 5 was asked for"):
        _open(small_study("epochs=5"))
    with pytest.raises(StorageError, match=r"space\.lr is .* there"):
        _open(small_study("space.lr.high=0.2"))
    with pytest.raises(StorageError, match=r"pruner\.reduction_factor is 3 there"):
        _open(small_study("pruner.reduction_factor=2"))
    assert study.user_attrs == before
    assert len(study.trials) == 2


def test_what_changes_no_number_may_change_when_continued() -> None:
    _open(small_study())
    _open(small_study("n_trials=9", "device=cpu", "data_dir=/elsewhere", 'question="Why?"'))


def test_a_study_that_is_not_ours_is_refused_and_left_as_it_is() -> None:
    storage = open_storage("sqlite:///study.db", create=True)
    foreign = optuna.create_study(study_name="small-impon", storage=storage)
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StorageError, match="did not make"):
        _open(small_study())
    assert IDENTITY not in foreign.user_attrs
    with pytest.raises(NothingYetError):
        read_studies(storage, "small")


def test_a_study_of_the_same_name_that_minimises_is_refused() -> None:
    storage = open_storage("sqlite:///study.db", create=True)
    optuna.create_study(study_name="small-impon", storage=storage, direction="minimize")
    with pytest.raises(StorageError, match="minimize"):
        _open(small_study())


@pytest.mark.parametrize("address", ["sqlite:///x.db", "x.journal"])
def test_the_study_reads_well_in_the_dashboard(address: str) -> None:
    study = _open(small_study(), address=address)
    assert study.study_name == "small-impon"
    assert study.metric_names == ["validation accuracy"]
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE


def test_plain_lines_say_trial_epoch_accuracy_best_pruned_and_time_left(
    tiny_splits: Splits,
) -> None:
    study_file = small_study()
    objective = Objective(study_file.arms["impon"], study_file.space, splits=tiny_splits)
    record, printed = _tune(_open(study_file), objective, 2)
    lines = printed.splitlines()
    assert lines[0].startswith("trial 0  epoch 1/3  val accuracy 0.")
    assert "best -" in lines[0]
    assert "pruned 0  finished 0/2  time left 0:" in lines[0]
    assert lines[3] == "trial 0 complete"
    assert f"best {record.trials[0].value:.4f} (trial 0)" in lines[4]


def test_a_terminal_gets_a_live_table(tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impon_hpo.tuning.progress.READING_SHARE", 1e9)  # these epochs are short
    study_file = small_study()
    printed = io.StringIO()
    objective = Objective(study_file.arms["uniform"], study_file.space, splits=tiny_splits)
    with TuningProgress(Console(file=printed, width=120, force_terminal=True)) as progress:
        job = Job("uniform", _open(study_file, "uniform"), objective, 1)
        work([job], progress=progress)
    assert "val accuracy" in printed.getvalue()
    assert "3/3" in printed.getvalue()
    assert "━" in printed.getvalue()
    assert re.search("[▁▂▃▄▅▆▇█]{3}", printed.getvalue())


def _jobs(*, n_each: int, blocks: int, train: Any, retries: bool = True) -> list[Job]:
    """Return the jobs of two studies, block by block."""
    studies = [_open(small_study(), arm) for arm in ("impon", "uniform")]
    return [
        Job(
            study.study_name,
            study,
            train,
            begin=block * n_each,
            end=(block + 1) * n_each,
            retries=retries,
        )
        for block in range(blocks)
        for study in studies
    ]


def _work(jobs: list[Job]) -> None:
    with TuningProgress(Console(quiet=True)) as progress:
        progress.start = lambda jobs: None  # type: ignore[method-assign]
        work(jobs, progress=progress)


def test_jobs_are_done_in_their_order_over_all_studies() -> None:
    order: list[tuple[str, int]] = []

    def train(trial: optuna.Trial, on_epoch: OnEpoch) -> float:
        order.append((trial.study.study_name, trial.number))
        return 0.5

    _work(_jobs(n_each=2, blocks=2, train=train))
    first, second = "small-impon", "small-uniform"
    assert order == [
        *[(first, 0), (first, 1), (second, 0), (second, 1)],
        *[(first, 2), (first, 3), (second, 2), (second, 3)],
    ]


def test_job_waits_for_what_comes_after_something_else_and_others_go_first() -> None:
    order: list[tuple[str, int]] = []

    def train(trial: optuna.Trial, on_epoch: OnEpoch) -> float:
        order.append((trial.study.study_name.removeprefix("small-"), trial.number))
        return 0.5

    taught, teacher = _jobs(n_each=2, blocks=1, train=train)
    taught = dataclasses.replace(taught, after=(teacher.study, 1))
    _work([taught, teacher])
    assert order == [("uniform", 0), ("uniform", 1), ("impon", 0), ("impon", 1)]


def test_run_that_fails_is_offered_again_last_of_all_and_keeps_its_number() -> None:
    order: list[tuple[str, int]] = []

    def train(trial: optuna.Trial, on_epoch: OnEpoch) -> float:
        order.append((trial.study.study_name.removeprefix("small-"), trial.number))
        if order.count(("impon", 0)) == 1 and order[-1] == ("impon", 0):
            raise RuntimeError("now and then")
        return 0.5

    jobs = _jobs(n_each=2, blocks=1, train=train)
    _work(jobs)
    assert order == [
        *[("impon", 0), ("impon", 1), ("uniform", 0), ("uniform", 1)],
        ("impon", 0),
    ]
    assert {trial.state for job in jobs for trial in job.study.trials} == {TrialState.COMPLETE}


def test_run_that_always_fails_ends_the_work_when_all_else_is_done() -> None:
    def train(trial: optuna.Trial, on_epoch: OnEpoch) -> float:
        if trial.number == 1:
            raise RuntimeError("out of memory")
        return 0.5

    jobs = _jobs(n_each=3, blocks=1, train=train)[:1]
    with pytest.raises(ImponHpoError, match=r"out of memory\. 2 of 3 trials are finished\. Fix"):
        _work(jobs)
    states = [trial.state for trial in jobs[0].study.trials]
    assert states == [TrialState.COMPLETE, TrialState.WAITING, TrialState.COMPLETE]


def test_trial_that_another_worker_was_faster_to_make_waits_for_its_job() -> None:
    """The storage numbers trials: one that comes out beyond a job is there for a later one."""
    first, second = (job for job in _jobs(n_each=1, blocks=2, train=Stub())[::2])
    storage = first.study._storage
    make = storage.create_new_trial

    def slow(*given: Any, **named: Any) -> int:
        storage.create_new_trial = make  # type: ignore[method-assign]
        first.study.tell(make(first.study._study_id) and 0, 0.7)  # the other worker's
        return make(*given, **named)

    storage.create_new_trial = slow  # type: ignore[method-assign]
    _work([first])
    assert [trial.state.name for trial in first.study.trials] == ["COMPLETE", "WAITING"]
    _work([first, second])
    assert [trial.state.name for trial in first.study.trials] == ["COMPLETE", "COMPLETE"]


def test_worker_that_waits_takes_over_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impon_hpo.tuning.worker.POLL_SECONDS", 0.05)
    study = _open(small_study())
    theirs = study.ask()
    theirs.set_user_attr(WORKER, {"place": "elsewhere", "pid": 1, "began": "1", "beat": 0})
    with TuningProgress(Console(quiet=True)) as progress:
        work([Job("impon", study, Stub(), 1)], progress=progress, watch=Watch(grace=0.2))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"]


def test_a_worker_with_nothing_left_asks_ever_more_seldom() -> None:
    pauses = [pause_seconds(reading=0.01, waited=0.0) for _ in range(200)]
    assert 0.5 <= min(pauses) < 0.7  # not all at one moment
    assert 1.3 < max(pauses) <= 1.5
    assert 0.5 * 10 <= pause_seconds(reading=0.01, waited=100.0) <= 1.5 * 10
    assert 0.5 * 20 <= pause_seconds(reading=1.0, waited=0.0) <= 30  # a slow storage
    assert pause_seconds(reading=100.0, waited=1e6) == 30


class Broken(TuningProgress):
    """A display that fails whenever an epoch or an end is to be shown."""

    def epoch(self, trial: optuna.Trial, result: EpochResult) -> None:
        raise optuna.exceptions.StorageInternalError("database is locked")

    def end(self, job: Job, trial: optuna.trial.FrozenTrial) -> None:
        raise OSError("Input/output error")


def test_what_cannot_be_shown_costs_no_trial(said: list[str], tiny_splits: Splits) -> None:
    study_file = small_study("epochs=1")
    study = _open(study_file)
    objective = Objective(study_file.arms["impon"], study_file.space, splits=tiny_splits)
    with Broken(Console(file=io.StringIO())) as progress:
        work([Job("impon", study, objective, 2)], progress=progress)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert said[:2] == [
        "Epoch 1 of trial 0 could not be shown: StorageInternalError: database is locked. "
        "The trial's value stands.",
        "The end of trial 0 could not be shown: OSError: Input/output error. "
        "The trial's value stands.",
    ]
