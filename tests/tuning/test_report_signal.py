"""What the pruner sees: other than the metric, smoothed, and the same after a kill."""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.testing.pruners import DeterministicPruner
from optuna.trial import TrialState

from impon_hpo.errors import ConfigError
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import COST, REASON, epochs_of, read_studies, read_trial
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.metrics import Judgement
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import TrainingRun, train_epochs
from impon_hpo.tuning.dry_run import plan
from impon_hpo.tuning.objective import Objective
from impon_hpo.tuning.promotion import waiting_trials
from impon_hpo.tuning.report_signal import ReportSignal, threshold_warnings
from impon_hpo.tuning.study_file import StudyFile
from tests.command import run
from tests.studies import SMALL, small_study, write_study
from tests.tuning.test_recovery import kill_at

# Since Python 3.12, forking beside other threads (here pytest-xdist's) is warned of.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

SPACE = {"lr": FloatDistribution(1e-2, 1e-1, log=True)}
HALVING = 'name = "SuccessiveHalvingPruner"\nreduction_factor = 3'
PROMOTE = SMALL.replace(HALVING, 'name = "promote"\nreduction_factor = 2')


def _trial(
    config: TrainingConfig,
    splits: Splits,
    pruner: optuna.pruners.BasePruner | None = None,
    **settings: Any,
) -> optuna.trial.FrozenTrial:
    study = optuna.create_study(
        storage=open_storage("sqlite:///study.db", create=True),
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=pruner or optuna.pruners.NopPruner(),
    )
    study.optimize(Objective(config, SPACE, splits=splits, **settings), n_trials=1)
    return study.trials[0]


def _averaged(config: TrainingConfig) -> TrainingConfig:
    return config.model_copy(update={"eval_weights": "ema"})


@pytest.mark.parametrize(
    ("report", "field"), [("train-loss", "train_loss"), ("val-loss", "val_loss")]
)
def test_minus_a_loss_is_reported_and_the_value_stays_the_metric(
    tiny_config: TrainingConfig, tiny_splits: Splits, report: str, field: str
) -> None:
    trial = _trial(tiny_config, tiny_splits, report=report)
    expected = list(train_epochs(tiny_config.model_copy(update=trial.params), tiny_splits))
    losses = {result.epoch: -getattr(result, field) for result in expected}
    assert trial.intermediate_values == losses
    assert trial.value == expected[-1].val_accuracy


def test_the_last_weights_are_reported_and_the_look_is_charged(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    averaged = _averaged(tiny_config)
    trial = _trial(averaged, tiny_splits, report="last")
    plain = list(train_epochs(tiny_config.model_copy(update=trial.params), tiny_splits))
    assert list(trial.intermediate_values.values()) == [result.val_accuracy for result in plain]
    assert trial.value != plain[-1].val_accuracy
    n_rows = len(tiny_splits.validation)
    assert trial.user_attrs[COST] == sum(result.cost + n_rows for result in plain)
    record = read_trial(trial, 3)
    assert record.cost == sum(epoch["cost"] for epoch in record.epochs)
    assert [epoch["rows_validated"] for epoch in record.epochs] == [2 * n_rows] * 3


def test_averaged_weights_that_are_judged_anyway_are_looked_at_once(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    averaged = _averaged(tiny_config)
    by_metric = _trial(averaged, tiny_splits)
    by_name = _trial(averaged, tiny_splits, report="ema")
    assert by_name.intermediate_values == by_metric.intermediate_values
    assert by_name.user_attrs[COST] == by_metric.user_attrs[COST]


def test_averaged_weights_that_are_not_there_cannot_be_reported(
    tiny_config: TrainingConfig,
) -> None:
    with pytest.raises(ConfigError, match=r"report = 'ema' needs averaged weights.*'last'"):
        Objective(tiny_config, SPACE, report="ema")
    space = {"eval_weights": CategoricalDistribution(["ema", "last"])}
    with pytest.raises(ConfigError, match=r"in all trials, but space\.eval_weights"):
        Objective(_averaged(tiny_config), space, report="ema")
    with pytest.raises(ConfigError, match=r"report = 'ema' needs averaged weights"):
        small_study("report=ema")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"report": "train-los"}, "Did you mean 'train-loss'"),
        ({"report_smoothing": 1.0}, "report_smoothing = 1.0: Input should be less than 1"),
    ],
)
def test_a_wrong_signal_is_refused(
    tiny_config: TrainingConfig, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Objective(tiny_config, SPACE, **settings)
    with pytest.raises(ConfigError, match=said):
        small_study(*(f"{key}={value}" for key, value in settings.items()))


def test_smoothing_is_the_mean_of_equal_epochs_and_leans_on_the_last_ones() -> None:
    signal = ReportSignal(report_smoothing=0.9)
    assert signal.reported([{"val_accuracy": 0.5}] * 3) == pytest.approx([0.5] * 3)
    reported = ReportSignal(report_smoothing=0.5).reported(
        {"val_accuracy": value} for value in (0.0, 0.6, 0.9)
    )
    # Weights 1/4, 1/2 and 1 of the last one, divided by their sum.
    assert reported == pytest.approx([0.0, 0.6 / 1.5, (0.3 + 0.9) / 1.75])
    values = [0.1, 0.7, 0.30000000000000004]
    assert ReportSignal().reported({"val_accuracy": value} for value in values) == values


def test_a_pruned_trial_is_shown_with_the_metric_that_it_reached(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    trial = _trial(tiny_config, tiny_splits, DeterministicPruner(True), report="train-loss")
    assert trial.state == TrialState.PRUNED
    assert trial.value is not None
    assert trial.value < 0
    record = read_trial(trial, 3)
    assert record.value == epochs_of(trial.user_attrs)[1]["val_accuracy"]
    assert record.reported == {1: trial.value}


def test_a_loss_that_is_reported_and_not_finite_ends_the_trial_as_one_that_diverged(
    tiny_config: TrainingConfig, tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A validation loss overflows where running statistics do, which no small run makes happen.
    whole = Judgement.result

    def overflown(self: Judgement, metric: str) -> Any:
        result = whole(self, metric)
        result[1] = math.inf
        return result

    monkeypatch.setattr(Judgement, "result", overflown)
    trial = _trial(tiny_config, tiny_splits, report="val-loss")
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs[REASON] == "What is to be reported of epoch 1 is -inf."
    record = read_trial(trial, 3)
    assert (record.fate, record.epochs) == ("diverged", [])
    assert record.cost == 3 * 320 + len(tiny_splits.validation)


def test_a_training_loss_that_diverges_prunes_as_ever(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    wild = tiny_config.model_copy(update={"lr": 1e30})
    study = optuna.create_study(direction="maximize")
    study.optimize(Objective(wild, {}, splits=tiny_splits, report="train-loss"), n_trials=1)
    assert read_trial(study.trials[0], 3).fate == "diverged"


def test_old_studies_go_on_and_another_signal_is_another_study(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert small_study("report_smoothing=0.0").identity("impon") == small_study().identity("impon")
    assert run("tune", "small", "--arm", "uniform", "--trials", "1") == 0
    assert run("tune", "small", "--arm", "uniform", "--set", "report=train-loss") == 2
    assert "report is not set there, but 'train-loss' was asked for" in capsys.readouterr().err
    last = ("tune", "small", "--trials", "1")
    assert run(*last, "--set", "report=last") == 0
    assert run(*last) == 2
    assert "report is 'last' there, but is not set here" in capsys.readouterr().err


def _outcome(address: str) -> list[tuple[Any, ...]]:
    (record,) = read_studies(open_storage(address, create=False), "small")
    return [(trial.state, trial.params, trial.value, trial.reported) for trial in record.trials]


def test_a_trial_that_was_killed_goes_on_to_the_bit_under_promotion() -> None:
    """Smoothed training losses: what is reported after a kill has the epochs before it in it."""
    write_study(PROMOTE)
    words = ["tune", "small", "--arm", "uniform", "--set", "report=train-loss"]
    words += ["--set", "report_smoothing=0.6"]
    assert run(*words, "--storage", "whole.journal") == 0
    whole = _outcome("whole.journal")
    assert any(len(reported) == 3 for *_, reported in whole)
    for n in (9, 24):
        address = f"killed-{n}.journal"
        again = [*words, "--storage", address]
        kill_at((TrainingRun, "step", False), n, functools.partial(run, *again))
        assert run(*again) == 0
        assert _outcome(address) == whole
    losses = [list(reported.values()) for *_, reported in whole]
    assert all(value < 0 for reported in losses for value in reported)
    # By the losses, and not by the accuracies, the best of its rung goes on.
    at_first = {number: reported[0] for number, reported in enumerate(losses)}
    best = max(at_first, key=lambda number: at_first[number])
    assert len(losses[best]) == 3


def test_waiting_trials_have_their_places_by_what_they_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study(PROMOTE.replace("n_trials = 3", "n_trials = 6"))
    words = ["tune", "small", "--arm", "uniform", "--set", "report=train-loss"]
    assert run(*words, "--max-epochs", "4") == 0
    (record,) = read_studies(open_storage("sqlite:///runs/small/study.db", create=False), "small")
    waiting = waiting_trials(record)
    assert len(waiting) >= 2
    reported = [entry.trial.reported[entry.trial.until] for entry in waiting]
    of_one_rung = [entry.trial.until for entry in waiting]
    assert all(
        first >= second
        for (first, second), (rung, other) in zip(
            pairwise(reported), pairwise(of_one_rung), strict=True
        )
        if rung == other
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if " waits at epoch" in line]
    assert lines
    assert all(0 <= float(line.rpartition(" ")[2]) <= 1 for line in lines)


def test_the_plan_says_what_is_reported_and_what_was_measured() -> None:
    def facts(*settings: str) -> dict[str, Any]:
        study_file = small_study(*settings)
        return plan(study_file, "uniform", 3, study_file.storage)

    assert facts()["reported"] == "validation accuracy"
    smoothed = facts("report=train-loss", "report_smoothing=0.5")["reported"]
    assert smoothed.startswith("minus the training loss, smoothed by 0.5 over the epochs. ")
    assert "0.83 against 0.61" in smoothed
    once, twice = (
        facts("eval_weights=ema", f"report={report}")["cost_at_most"] for report in ("ema", "last")
    )
    assert twice - once == 9 * 100


@pytest.mark.parametrize(
    ("bounds", "minus_loss", "effect"),
    [
        ({"lower": 0.5}, True, "every trial is pruned"),
        ({"upper": 0.9}, True, "no trial is ever pruned"),
        ({"lower": -1.5}, True, None),
        ({"lower": 0.5}, False, None),
        ({"lower": -1.5}, False, "no trial is ever pruned"),
        ({"lower": 1.5}, False, "every trial is pruned"),
        ({"lower": 0.2, "upper": 1.0}, False, None),
    ],
)
def test_bounds_that_prune_all_or_none_are_warned_of(
    bounds: dict[str, float], minus_loss: bool, effect: str | None
) -> None:
    threshold = {"name": "ThresholdPruner", **bounds}
    wrapped = {"name": "PatientPruner", "wrapped_pruner": threshold, "patience": 1}
    for table in (threshold, wrapped):
        warnings = threshold_warnings(table, minus_loss=minus_loss)
        assert len(warnings) == (0 if effect is None else 1)
        assert all(warning.endswith(f"{effect}.") for warning in warnings)


def _threshold(*settings: str) -> StudyFile:
    text = SMALL.replace(HALVING, 'name = "ThresholdPruner"\nlower = 0.2')
    return small_study(*settings, text=text)


def test_a_study_warns_of_bounds_of_an_accuracy_and_of_losses_that_differ() -> None:
    assert _threshold().warnings() == []
    assert "every trial is pruned" in _threshold("report=train-loss").warnings()[0]
    assert "every trial is pruned" in _threshold("metric=loss").warnings()[0]
    smooth = 'space.label_smoothing={ type = "categorical", choices = [0.0, 0.1] }'
    assert small_study(smooth).warnings() == []
    (warning,) = small_study(smooth, "report=train-loss").warnings()
    assert "label_smoothing is searched over" in warning
