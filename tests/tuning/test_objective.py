"""Tests of the objective: what it reports, when it prunes, and what it leaves behind."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing.pruners import DeterministicPruner
from optuna.trial import TrialState

from impon_hpo.errors import ConfigError, TrialSettingsError
from impon_hpo.storage.connect import artifact_store, open_storage
from impon_hpo.storage.trials import COST, INTERRUPTED, REASON, epochs_of
from impon_hpo.training import compiling
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.reference_folder import References
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import train_epochs
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.objective import Objective
from impon_hpo.tuning.space_syntax import Conditional
from tests.sampling.tape import on_tape

SPACE = {"lr": FloatDistribution(1e-2, 1e-1, log=True)}


def _study(pruner: optuna.pruners.BasePruner | None = None) -> optuna.Study:
    # On disk, since only a real storage refuses what is no JSON.
    return optuna.create_study(
        storage=open_storage("sqlite:///study.db", create=True),
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=pruner or optuna.pruners.NopPruner(),
    )


def test_every_epoch_is_reported_from_one_and_the_last_is_returned(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    study = _study()
    study.optimize(Objective(tiny_config, SPACE, splits=tiny_splits), n_trials=1)
    trial = study.trials[0]
    config = tiny_config.model_copy(update=trial.params)
    expected = [result.val_accuracy for result in train_epochs(config, tiny_splits)]
    assert trial.intermediate_values == {1: expected[0], 2: expected[1], 3: expected[2]}
    assert trial.value == expected[-1]


@pytest.mark.parametrize("metric", ["balanced-accuracy", "macro-f1", "loss"])
def test_the_metric_is_reported(
    tiny_config: TrainingConfig, tiny_splits: Splits, metric: str
) -> None:
    balanced = tiny_config.model_copy(update={"metric": metric})
    study = _study()
    study.optimize(Objective(balanced, SPACE, splits=tiny_splits), n_trials=1)
    trial = study.trials[0]
    config = balanced.model_copy(update=trial.params)
    expected = [result.val_accuracy for result in train_epochs(config, tiny_splits)]
    assert list(trial.intermediate_values.values()) == expected
    plain = tiny_config.model_copy(update=trial.params)
    assert expected != [result.val_accuracy for result in train_epochs(plain, tiny_splits)]


def test_a_trial_records_what_it_cost(tiny_config: TrainingConfig, tiny_splits: Splits) -> None:
    study = _study()
    impon = tiny_config.model_copy(update={"sampler": "impon"})
    study.optimize(Objective(impon, SPACE, splits=tiny_splits), n_trials=1)
    attrs = study.trials[0].user_attrs
    epochs = epochs_of(attrs)
    assert [EpochResult(**epoch).epoch for epoch in epochs.values()] == list(epochs) == [1, 2, 3]
    assert all(len(json.dumps(value)) < 2000 for value in attrs.values())
    rows = 10 * 32  # floor(320 / 32) steps of 32
    assert attrs[COST] == 3 * (3 * rows + len(tiny_splits.validation))
    assert attrs["impon:share_seen"] == epochs[3]["share_seen"]
    assert -1 <= attrs["impon:rank_correlation"] <= 1
    assert REASON not in attrs
    json.dumps(attrs, allow_nan=False)


def test_the_pruner_is_asked_after_the_first_epoch(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    study = _study(DeterministicPruner(True))
    study.optimize(Objective(tiny_config, SPACE, splits=tiny_splits), n_trials=1)
    trial = study.trials[0]
    assert trial.state == TrialState.PRUNED
    assert list(trial.intermediate_values) == [1]
    assert trial.user_attrs[REASON] == "pruned after epoch 1"
    assert list(epochs_of(trial.user_attrs)) == [1]


def test_compiling_counts_the_epochs_of_the_trials_to_come(
    tiny_config: TrainingConfig,
    tiny_splits: Splits,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A process remembers the shapes that it has compiled: no other test has batches of this size.
    config = tiny_config.model_copy(update={"batch_size": 40})
    # What really compiles takes half a minute, and saves nothing of epochs of milliseconds.
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: model)
    with on_tape():
        study = _study()
        objective = Objective(config, SPACE, splits=tiny_splits, n_trials=10)
        study.optimize(objective, n_trials=1)
        assert said == []
        monkeypatch.setattr(compiling, "COMPILE_SECONDS", 0.0)
        study.optimize(objective, n_trials=2)
    # After the second trial's first epoch it has 2 left, and 3 epochs in 2 trials make 12 in the 8
    # to come.
    (line,) = said
    assert line.startswith("compile: about 14 epochs of ")


def test_a_trial_that_reached_its_last_epoch_is_never_pruned(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    study = _study(DeterministicPruner(True))
    one_epoch = tiny_config.model_copy(update={"epochs": 1})
    study.optimize(Objective(one_epoch, SPACE, splits=tiny_splits), n_trials=1)
    assert study.trials[0].state == TrialState.COMPLETE


def test_a_diverged_run_is_pruned_with_its_reason_and_its_cost(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    study = _study()
    space = {"lr": CategoricalDistribution([1e30])}
    study.optimize(Objective(tiny_config, space, splits=tiny_splits), n_trials=1)
    trial = study.trials[0]
    assert trial.state == TrialState.PRUNED
    assert "training loss of epoch" in trial.user_attrs[REASON]
    finished_epochs = sum(epoch["cost"] for epoch in epochs_of(trial.user_attrs).values())
    assert trial.user_attrs[COST] == finished_epochs + 3 * 320
    assert all(math.isfinite(value) for value in trial.intermediate_values.values())


def test_a_failing_run_is_recorded_with_its_reason(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    def fail(trial: optuna.Trial, result: EpochResult) -> None:
        raise RuntimeError("out of memory")

    study = _study()
    objective = Objective(tiny_config, SPACE, splits=tiny_splits)
    with pytest.raises(RuntimeError):
        study.optimize(lambda trial: objective(trial, fail), n_trials=1)
    assert study.trials[0].state == TrialState.FAIL
    assert study.trials[0].user_attrs[REASON] == "RuntimeError: out of memory"


def test_values_that_cannot_be_a_run_are_raised_and_recorded(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    reason = "lr must be a number from 0.01 to 0.1, but got 1.0."
    params = {"lr": 1.0}
    one_epoch = tiny_config.model_copy(update={"epochs": 1})
    objective = Objective(one_epoch, SPACE, splits=tiny_splits)
    study = _study()
    study.enqueue_trial(params)
    with pytest.raises(TrialSettingsError, match=reason):
        study.optimize(objective, n_trials=2)
    study.enqueue_trial(params)
    study.optimize(objective, n_trials=2, catch=TrialSettingsError)
    states = [trial.state.name for trial in study.trials]
    assert states == ["FAIL", "FAIL", "COMPLETE"]
    assert all(trial.user_attrs[REASON].startswith(reason) for trial in study.trials[:2])


def test_a_model_that_does_not_fit_is_the_trials_fault(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    space = {"batch_size": IntDistribution(2, 1000)}  # there are 320 rows
    study = _study()
    study.enqueue_trial({"batch_size": 500})
    impon = tiny_config.model_copy(update={"sampler": "impon"})
    with pytest.raises(TrialSettingsError, match="batch_size must be between 1"):
        study.optimize(Objective(impon, space, splits=tiny_splits), n_trials=1)
    assert "number of training rows (320)" in study.trials[0].user_attrs[REASON]


def test_what_is_wrong_with_every_trial_is_the_fault_of_none(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    Path("weights.pt").write_bytes(b"")
    config = tiny_config.model_copy(update={"weights_file": "weights.pt"})
    objective = Objective(config, SPACE, splits=tiny_splits)
    Path("weights.pt").unlink()
    study = _study()
    with pytest.raises(ConfigError, match=r"weights_file = 'weights.pt' must be") as raised:
        study.optimize(objective, n_trials=1)
    assert not isinstance(raised.value, TrialSettingsError)


def test_what_else_somebody_asks_for_around_it_may_be_enqueued(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    one_epoch = tiny_config.model_copy(update={"epochs": 1})
    objective = Objective(one_epoch, SPACE, splits=tiny_splits)
    study = _study()
    study.enqueue_trial({"mine": 3})
    study.optimize(lambda trial: objective(trial) + trial.suggest_int("mine", 1, 5), n_trials=1)
    assert study.trials[0].params["mine"] == 3


def test_an_interrupted_run_says_so(tiny_config: TrainingConfig, tiny_splits: Splits) -> None:
    def interrupt(trial: optuna.Trial, result: EpochResult) -> None:
        raise KeyboardInterrupt

    study = _study()
    objective = Objective(tiny_config, SPACE, splits=tiny_splits)
    with pytest.raises(KeyboardInterrupt):
        study.optimize(lambda trial: objective(trial, interrupt), n_trials=1)
    assert study.trials[0].user_attrs[REASON] == INTERRUPTED


def test_a_space_that_does_not_fit_is_refused_before_anything_runs(
    tiny_config: TrainingConfig,
) -> None:
    with pytest.raises(ConfigError, match=r"space\.learning_rate"):
        Objective(tiny_config, {"learning_rate": FloatDistribution(0.1, 1)})


def test_each_trial_is_changed_as_its_own_augment_says(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    choices = ["none", "flip+erase", "mixup"]
    space = {"augment": CategoricalDistribution(choices)}
    study = _study()
    for choice in choices:
        study.enqueue_trial({"augment": choice})
    study.optimize(Objective(tiny_config, space, splits=tiny_splits), n_trials=3)
    found = {
        trial.params["augment"]: epochs_of(trial.user_attrs)[1]["train_loss"]
        for trial in study.trials
    }
    for choice in choices:
        alone = tiny_config.model_copy(update={"augment": choice})
        assert found[choice] == next(train_epochs(alone, tiny_splits)).train_loss
    assert len(set(found.values())) == 3


def test_image_size_is_searched_over_the_same_rows(tiny_config: TrainingConfig) -> None:
    """Each size is loaded once, and only the pixels differ."""
    sizes = CategoricalDistribution([8, 12])
    with pytest.raises(ConfigError, match=r"space\.image_size needs image_size in \[run\], too"):
        Objective(tiny_config, {"image_size": sizes})
    tiny_config = tiny_config.model_copy(update={"image_size": 8})
    objective = Objective(tiny_config, {"image_size": sizes})
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.GridSampler({"image_size": [8, 12]})
    )
    study.optimize(objective, n_trials=2)
    small, large = (
        objective.splits_of(tiny_config.model_copy(update={"image_size": size})) for size in (8, 12)
    )
    assert small.train.images.shape[1:3] == (8, 8)
    assert large.train.images.shape[1:3] == (12, 12)
    for one, other in zip(
        (small.train, small.validation, small.test),
        (large.train, large.validation, large.test),
        strict=True,
    ):
        assert one.names == other.names
        assert torch.equal(one.labels, other.labels)
    values = {trial.params["image_size"]: trial.value for trial in study.trials}
    for size, value in values.items():
        config = tiny_config.model_copy(update={"image_size": size})
        *_, last = train_epochs(config, objective.splits_of(config))
        assert last.val_accuracy == value


def test_image_size_is_not_searched_over_where_splits_are_given(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    sized = tiny_config.model_copy(update={"image_size": 8})
    with pytest.raises(
        ConfigError, match=r"space\.image_size cannot be searched over where splits"
    ):
        Objective(sized, {"image_size": CategoricalDistribution([8, 12])}, splits=tiny_splits)


def test_a_space_is_written_as_people_write_it(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    space = {
        "optimizer": ["sgd", "adam"],
        "nesterov": Conditional([True], when={"optimizer": "sgd"}),
        "lr": {"low": 0.01, "high": 0.1},
    }
    study = _study()
    short = tiny_config.model_copy(update={"epochs": 1})
    study.optimize(Objective(short, space, splits=tiny_splits), n_trials=4)
    assert {trial.params["optimizer"] for trial in study.trials} == {"sgd", "adam"}
    for trial in study.trials:
        config = short.model_copy(update=trial.params)
        assert config.nesterov == (config.optimizer == "sgd")
        assert [result.val_accuracy for result in train_epochs(config, tiny_splits)] == trial.values


def test_an_empty_space_repeats_one_configuration(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    study = _study()
    study.optimize(Objective(tiny_config, {}, splits=tiny_splits), n_trials=2)
    first, second = study.trials
    assert first.params == {}
    assert first.value == second.value


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (None, "A space must be a table of settings"),
        ({"lr": (0.1, 0.2)}, "could be a range or a choice"),
        ({"optimizer": ["sgd", "adam"], "nesterov": [True, False]}, "not a valid run"),
        ({"nesterov": Conditional([True], {"optimizer": "adam"})}, "never holds"),
    ],
)
def test_a_wrong_space_is_refused_before_anything_is_loaded(
    tiny_config: TrainingConfig, space: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Objective(tiny_config.model_copy(update={"dataset": "no_module:no_data"}), space)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"artifact_store": "kept"}, "impon_hpo.artifact_store(\"folder\"), but got 'kept'"),
        ({"references": "kept"}, 'must be a References, such as impon_hpo.References("folder")'),
        ({"checkpoints": "kept"}, 'a Checkpoints, such as impon_hpo.Checkpoints("folder")'),
        ({"splits": ("train", "test")}, "must be a Splits, such as impon_hpo.load_splits(…)"),
        ({"config": {"dataset": "digits"}}, "a TrainingConfig, such as impon_hpo.TrainingConfig"),
    ],
)
def test_argument_of_another_kind_is_refused_before_a_trial(
    wrong: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        Objective(wrong.pop("config", TrainingConfig()), {}, **wrong)


def test_folders_are_named_by_text_and_may_begin_with_the_users_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert References("~/kept").path("key") == tmp_path / "kept" / "key.pt"
    assert Checkpoints("~/kept", best="~/best").folder == tmp_path / "kept"
    artifact_store("~/files")
    assert (tmp_path / "files").is_dir()
    with pytest.raises(ConfigError, match="'~nobody-of-this-name/x' begins with the home folder"):
        References("~nobody-of-this-name/x")


def test_enqueued_choice_as_a_table_of_pandas_has_it_is_trained(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"batch_size": 16.0})
    study.optimize(Objective(tiny_config, {"batch_size": [16, 32]}, splits=tiny_splits), n_trials=1)
    assert study.best_params == {"batch_size": 16}
