"""What a tracker is told of trials, and what one that fails costs."""

from __future__ import annotations

import time
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.testing.pruners import DeterministicPruner

from impon_hpo.errors import ConfigError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.splits import Splits
from impon_hpo.tuning import tracking
from impon_hpo.tuning.lease import TakenOverError
from impon_hpo.tuning.objective import Objective
from tests.tuning.notebook import Notebook, tried


def test_a_tracker_of_ones_own_is_told_of_each_trial_from_its_begin_to_its_end(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    book = Notebook()
    study = tried(book, tiny_config, tiny_splits, lr=FloatDistribution(0.01, 0.1))
    values = study.trials[0].intermediate_values
    assert book.told == [
        ("begin", 0, []),
        *(("epoch", 0, epoch, value) for epoch, value in values.items()),
        ("end", 0, "complete", study.trials[0].value),
    ]


@pytest.mark.parametrize(
    ("pruner", "settings", "state"),
    [
        (DeterministicPruner(True), {}, "pruned"),
        (None, {"lr": 1e30}, "diverged"),
    ],
)
def test_a_tracker_is_told_how_a_trial_ended(
    tiny_config: TrainingConfig,
    tiny_splits: Splits,
    pruner: optuna.pruners.BasePruner | None,
    settings: dict[str, Any],
    state: str,
) -> None:
    book = Notebook()
    tried(book, tiny_config.model_copy(update=settings), tiny_splits, pruner)
    assert book.told[-1][:3] == ("end", 0, state)


def test_a_trial_that_fails_or_is_stopped_is_told(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    for error, state in (
        (RuntimeError("out of memory"), "failed"),
        (KeyboardInterrupt(), "waiting"),
    ):

        def fail(trial: optuna.Trial, result: Any, error: BaseException = error) -> None:
            raise error

        book = Notebook()
        objective = Objective(tiny_config, {}, splits=tiny_splits, tracker=book)
        study = optuna.create_study(direction="maximize")
        with pytest.raises(type(error)):
            objective(study.ask(), fail)
        assert book.told[-1][:3] == ("end", 0, state)


def test_a_tracker_that_fails_costs_no_trial_and_one_line(
    tiny_config: TrainingConfig, tiny_splits: Splits, said: list[str]
) -> None:
    book = Notebook(fails=lambda what: True)
    study = tried(book, tiny_config, tiny_splits, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    assert book.told == []
    lines = [line for line in said if "track" in line]
    assert lines[0] == (
        "Trial 0 could not be tracked: ConnectionError: the server is away. The trial goes on."
    )
    assert len(lines) == len({line.split()[1] for line in lines}) <= 2


def test_what_a_tracker_has_missed_is_told_again_in_order(
    tiny_config: TrainingConfig,
    tiny_splits: Splits,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking, "FAILING_SHARE", 1.0)  # on a busy machine all takes long
    away = iter([False, True, True])
    book = Notebook(fails=lambda what: next(away, False))
    tried(book, tiny_config, tiny_splits)
    assert [entry[0] for entry in book.told] == ["begin", "epoch", "epoch", "epoch", "end"]
    assert [entry[2] for entry in book.told[1:4]] == [1, 2, 3]
    assert len([line for line in said if "could not be tracked" in line]) == 1


def test_a_tracker_that_fails_slowly_is_left_alone_for_a_while(
    tiny_config: TrainingConfig, tiny_splits: Splits, said: list[str]
) -> None:
    def slow(what: str) -> bool:
        time.sleep(0.2)
        return True

    book = Notebook(fails=slow)
    tried(book, tiny_config, tiny_splits, n_trials=3)
    assert book.tried == ["begin"]  # 0.2 s are 5 % of the next 4 s
    assert len([line for line in said if "was not tracked" in line]) == 2


def test_a_tracker_without_a_method_is_refused(tiny_config: TrainingConfig) -> None:
    for none in (object(), Notebook, "tensorboard"):
        with pytest.raises(ConfigError, match="object with the methods begin, epoch and end"):
            Objective(tiny_config, {}, tracker=none)  # type: ignore[arg-type]


def test_a_worker_that_has_lost_a_trial_leaves_its_run_to_the_one_that_has_it(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    def taken_over(trial: optuna.Trial, result: EpochResult) -> None:
        raise TakenOverError("trial 0 is another machine's now")

    def finished_elsewhere(trial: optuna.Trial, result: EpochResult) -> None:
        trial.study.tell(trial.number, 0.5)

    def failed_by_hand(trial: optuna.Trial, result: EpochResult) -> None:
        trial.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    for lose, error, ends in (
        (taken_over, TakenOverError, []),
        (finished_elsewhere, optuna.exceptions.UpdateFinishedTrialError, []),
        (failed_by_hand, optuna.exceptions.UpdateFinishedTrialError, ["failed"]),
    ):
        book = Notebook()
        objective = Objective(tiny_config, {}, splits=tiny_splits, tracker=book)
        study = optuna.create_study(direction="maximize")
        with pytest.raises(error):
            objective(study.ask(), lose)
        assert [entry[2] for entry in book.told if entry[0] == "end"] == ends
