"""Tests of tuning an arm and of its study in the storage: counted, continued, refused."""

from __future__ import annotations

import io
import re
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from impon_hpo.errors import ConfigError, ImponHpoError, NothingYetError, StorageError
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import (
    COST,
    EPOCH_SECONDS,
    EPOCHS,
    IDENTITY,
    WORKER,
    StudyRecord,
    read_studies,
    read_study,
)
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.splits import Splits
from impon_hpo.tuning.ledger import Budget
from impon_hpo.tuning.objective import Objective
from impon_hpo.tuning.progress import Progress, budget_left
from impon_hpo.tuning.study import open_study
from impon_hpo.tuning.study_file import StudyFile
from impon_hpo.tuning.tune import pause_seconds, tune
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

    def __call__(self, trial: optuna.Trial) -> float:
        trial.suggest_float("lr", 1e-3, 0.3, log=True)
        self.seen.append((trial.number, trial.params))
        return float(self.act(trial.number))


def _tune(study: optuna.Study, objective: Any, n_trials: int) -> tuple[StudyRecord, str]:
    said = io.StringIO()
    progress = Progress(Console(file=said, width=200), horizon=3)
    with progress:
        record = tune(study, objective, n_trials=n_trials, progress=progress)
    return record, said.getvalue()


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
    stopped = Objective(config, study_file.space, splits=tiny_splits, on_epoch=interrupt)
    with pytest.raises(KeyboardInterrupt):
        _tune(study, stopped, 1)
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
    study = _open(study_file)
    said = io.StringIO()
    progress = Progress(Console(file=said, width=200), horizon=3)
    config = study_file.arms["impon"]
    objective = Objective(config, study_file.space, splits=tiny_splits, on_epoch=progress.epoch)
    with progress:
        record = tune(study, objective, n_trials=2, progress=progress)
    lines = said.getvalue().splitlines()
    assert lines[0].startswith("trial 0  epoch 1/3  val accuracy 0.")
    assert "best -" in lines[0]
    assert "pruned 0  finished 0/2  time left 0:" in lines[0]
    assert lines[3] == "trial 0 complete"
    assert f"best {record.trials[0].value:.4f} (trial 0)" in lines[4]


def test_a_terminal_gets_a_live_table(tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impon_hpo.tuning.progress.READING_SHARE", 1e9)  # these epochs are short
    study_file = small_study()
    said = io.StringIO()
    progress = Progress(Console(file=said, width=120, force_terminal=True), horizon=3)
    config = study_file.arms["uniform"]
    objective = Objective(config, study_file.space, splits=tiny_splits, on_epoch=progress.epoch)
    with progress:
        tune(_open(study_file, "uniform"), objective, n_trials=1, progress=progress)
    assert "val accuracy" in said.getvalue()
    assert "3/3" in said.getvalue()
    assert "━" in said.getvalue()
    assert re.search("[▁▂▃▄▅▆▇█]{3}", said.getvalue())


def test_what_is_left_of_a_budget_is_shown() -> None:
    study = _open(small_study())
    trial = study.ask()
    epochs = [{"cost": 10} | dict.fromkeys(EPOCH_SECONDS, 1.0)] * 2
    trial.set_user_attr(EPOCHS, epochs)
    trial.set_user_attr(COST, 20)
    record = read_study(study)
    budget = Budget(max_epochs=9, max_cost=1e4, max_seconds=67)
    assert budget_left(budget, record) == "7 epochs, 9,980 forward-equivalents, 1:01 of training"
    assert budget_left(Budget(max_epochs=1), record) == "0 epochs"
    assert budget_left(Budget(), record) == ""


def test_a_trial_reads_the_whole_study_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    study = _open(small_study())
    read = study._storage.get_all_trials
    reads: list[int] = []

    def counted(study_id: int, *given: Any, **named: Any) -> Any:
        reads.append(study_id)
        return read(study_id, *given, **named)

    monkeypatch.setattr(study._storage, "get_all_trials", counted)
    _tune(study, Stub(), 4)
    assert len(reads) == 4 * 2 + 1  # how far it is, and Optuna for one that waits; then the end


def test_who_waits_for_others_looks_the_less_the_slower_the_storage_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = _open(small_study())
    theirs = study.ask()
    theirs.set_user_attr(WORKER, {"place": "elsewhere", "pid": 1, "began": "1", "beat": 0})
    read, clock = study._storage.get_all_trials, [0.0]
    pauses: list[float] = []

    def slow(*given: Any, **named: Any) -> Any:
        clock[0] += [0.001, 0.4, 60][len(pauses)] if len(pauses) < 3 else 0
        return read(*given, **named)

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            study.tell(theirs.number, 0.5)

    monkeypatch.setattr(study._storage, "get_all_trials", slow)
    monkeypatch.setattr("impon_hpo.tuning.tune.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("impon_hpo.tuning.tune.time.sleep", sleep)
    monkeypatch.setattr("impon_hpo.tuning.tune.random.uniform", lambda low, high: (low + high) / 2)
    _tune(study, Stub(), 1)
    assert pauses == [1, pytest.approx(8), 30]


def test_a_worker_with_nothing_left_asks_ever_more_seldom() -> None:
    pauses = [pause_seconds(reading=0.01, waited=0.0) for _ in range(200)]
    assert 0.5 <= min(pauses) < 0.7  # not all at one moment
    assert 1.3 < max(pauses) <= 1.5
    assert 0.5 * 10 <= pause_seconds(reading=0.01, waited=100.0) <= 1.5 * 10
    assert 0.5 * 20 <= pause_seconds(reading=1.0, waited=0.0) <= 30  # a slow storage
    assert pause_seconds(reading=100.0, waited=1e6) == 30
