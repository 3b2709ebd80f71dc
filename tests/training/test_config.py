"""The training configuration: names, bounds, strict types, readable mistakes, identity."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.table import SAMPLERS
from impon_hpo.training.config import TrainingConfig, uniformly, wants_reference
from tests.settings import training_config

NAMES = [
    "dataset",
    "data_dir",
    "download",
    "subset",
    "relabel",
    "exclude",
    "groups",
    "image_size",
    "skip_broken",
    "validation_size",
    "augment",
    "augment_options",
    "model",
    "model_options",
    "weights_file",
    "normalisation",
    "width",
    "train_layers",
    "optimizer",
    "lr",
    "lr_head",
    "momentum",
    "nesterov",
    "weight_decay",
    "schedule",
    "rung_factor",
    "warmup_epochs",
    "epochs",
    "eval_weights",
    "metric",
    "ema_epochs",
    "epoch_fraction",
    "batch_size",
    "label_smoothing",
    "class_weights",
    "autocast",
    "channels_last",
    "compile",
    "device",
    "seed",
    "reference",
    "reference_options",
    "sampler",
    "sampler_options",
]

ACCEPTED: list[tuple[str, Any]] = [
    ("dataset", "cifar10"),
    ("data_dir", "/data"),
    ("data_dir", None),
    ("download", True),
    ("subset", 2),
    ("subset", None),
    ("image_size", 4),
    ("image_size", 1024),
    ("image_size", None),
    ("validation_size", 1),
    ("validation_size", 5000),
    ("validation_size", 0.001),
    ("validation_size", 0.999),
    *(
        ("augment", value)
        for value in (
            "auto",
            "none",
            "crop",
            "flip",
            "crop+flip",
            "auto+trivial",
            "flip+resized-crop+rand+erase+mixup+cutmix",
            "crop+my_aug:transform",
        )
    ),
    ("augment_options", {"rand": {"num_ops": 1, "magnitude": 0}, "erase": {"p": 1}}),
    ("model", "my_nets:wide"),
    ("width", 1),
    ("width", 1024),
    *(("optimizer", value) for value in ("sgd", "adam", "adamw")),
    ("lr", 1e-9),
    ("lr", 100.0),
    ("momentum", 0.0),
    ("momentum", 0.999),
    ("nesterov", True),
    ("weight_decay", 0.0),
    ("weight_decay", 3.0),
    *(("schedule", value) for value in ("constant", "cosine", "one-cycle")),
    ("warmup_epochs", 0.0),
    ("warmup_epochs", 29.99),
    ("epochs", 1),
    ("epoch_fraction", 1.0),
    ("epoch_fraction", 0.01),
    ("batch_size", 2),
    ("label_smoothing", 0.0),
    ("label_smoothing", 0.99),
    *((name, value) for name in ("autocast", "channels_last") for value in (True, False, "auto")),
    *(("compile", value) for value in ("auto", "graph", "inductor", "off")),
    ("device", "cuda:1"),
    ("seed", 0),
    ("seed", 2**31 - 1),
    *(("sampler", name) for name in sorted(SAMPLERS)),
    ("sampler_options", {}),
]

REFUSED: list[tuple[str, Any]] = [
    ("subset", 1),
    ("subset", -5),
    ("image_size", 3),
    ("image_size", 1025),
    ("validation_size", 0),
    ("validation_size", -1),
    ("validation_size", 0.0),
    ("validation_size", 1.0),
    *(
        ("augment", value)
        for value in (
            "",
            "rotate",
            "crop+",
            "crop+none",
            "crop+crop",
            "crop+resized-crop",
            "auto+resized-crop",
            "my_aug:",
            ":transform",
        )
    ),
    ("width", 0),
    ("width", 1025),
    ("optimizer", "rmsprop"),
    ("lr", 0.0),
    ("lr", -0.1),
    ("lr", math.inf),
    ("lr", math.nan),
    ("momentum", -0.1),
    ("momentum", 1.0),
    ("momentum", math.nan),
    ("weight_decay", -1e-9),
    ("weight_decay", math.inf),
    ("weight_decay", math.nan),
    ("schedule", "step"),
    ("warmup_epochs", -0.5),
    ("warmup_epochs", math.nan),
    ("epochs", 0),
    ("epoch_fraction", 0.0),
    ("epoch_fraction", 1.01),
    ("epoch_fraction", math.nan),
    ("batch_size", 1),
    ("label_smoothing", -0.1),
    ("label_smoothing", 1.0),
    ("normalisation", "cifar10"),
    ("lr_head", 0.0),
    ("lr_head", math.inf),
    ("metric", "f1"),
    ("class_weights", "sqrt"),
    ("autocast", "yes"),
    ("channels_last", "never"),
    ("seed", -1),
    ("seed", 2**31),
]

STRINGS = (
    "dataset",
    "model",
    "train_layers",
    "device",
    "sampler",
    "augment",
    "optimizer",
    "schedule",
)
INTEGERS = ("subset", "image_size", "width", "epochs", "batch_size", "seed")
NUMBERS = (
    "lr",
    "momentum",
    "weight_decay",
    "warmup_epochs",
    "epoch_fraction",
    "label_smoothing",
    "validation_size",
)
SWITCHES = ("download", "skip_broken", "nesterov", "autocast", "channels_last")

WRONG_TYPES: list[tuple[str, Any]] = [
    *((name, value) for name in STRINGS for value in (3, True, None)),
    *((name, value) for name in INTEGERS for value in ("3", True, 3.0)),
    *((name, value) for name in NUMBERS for value in ("0.5", True, None)),
    *((name, value) for name in SWITCHES for value in (1, "true", None)),
    *(("compile", value) for value in (True, False, 1, "max-autotune", None)),
    ("data_dir", 3),
    ("weights_file", 3),
    ("lr_head", "0.5"),
    ("model_options", ["DEFAULT"]),
    ("sampler_options", [1]),
    ("sampler_options", None),
]


def test_settings_have_exactly_the_names_that_users_know() -> None:
    assert list(TrainingConfig.model_fields) == NAMES


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in TrainingConfig.model_fields.values())


def test_defaults_make_a_valid_configuration() -> None:
    assert training_config({}) == TrainingConfig()


@pytest.mark.parametrize(("key", "value"), ACCEPTED)
def test_value_within_bounds_is_kept(key: str, value: Any) -> None:
    assert getattr(training_config({key: value}), key) == value


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_value_out_of_bounds_is_refused_with_key_and_value(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        training_config({key: value})
    assert str(caught.value).startswith(f"{key} = {value!r}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), WRONG_TYPES)
def test_value_of_a_wrong_type_is_refused_with_key_and_value(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        training_config({key: value})
    assert str(caught.value).startswith(f"{key} = {value!r}: ")
    assert "\n" not in str(caught.value)


def test_whole_number_will_do_for_a_float() -> None:
    config = training_config({"lr": 1, "weight_decay": 0})
    assert (config.lr, config.weight_decay) == (1.0, 0.0)
    assert isinstance(config.lr, float)


def test_validation_size_keeps_rows_and_share_apart() -> None:
    assert isinstance(training_config({"validation_size": 1}).validation_size, int)
    assert isinstance(training_config({"validation_size": 0.5}).validation_size, float)


def test_message_says_which_bound_was_passed() -> None:
    with pytest.raises(ConfigError, match=r"^epochs = 0: .*greater than or equal to 1\.$"):
        training_config({"epochs": 0})


def test_message_lists_the_choices() -> None:
    choices = r"^optimizer = 'sdg': .*'sgd', 'adam' or 'adamw'\. Did you mean 'sgd'\?$"
    with pytest.raises(ConfigError, match=choices):
        training_config({"optimizer": "sdg"})


def test_both_readings_of_a_union_are_named_in_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        training_config({"validation_size": 0})
    assert str(caught.value) == (
        "validation_size = 0: Input should be greater than or equal to 1, "
        "or: Input should be greater than 0."
    )


def test_unknown_key_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        training_config({"wdith": 3})
    assert str(caught.value) == "Unknown key 'wdith'. Did you mean 'width'?"


def test_unknown_key_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        training_config({"zzzzz": 3})
    assert str(caught.value) == "Unknown key 'zzzzz'."


def test_several_mistakes_give_a_line_each() -> None:
    with pytest.raises(ConfigError) as caught:
        training_config({"lr": -1.0, "epochs": "many", "wdith": 3, "validation_size": 0})
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == ["validation_size", "lr", "epochs", "Unknown"]


def test_constructor_tells_a_mistake_in_the_same_words() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingConfig(lrr=1)  # type: ignore[call-arg]
    assert str(caught.value) == "Unknown key 'lrr'. Did you mean 'lr'?"
    with pytest.raises(ConfigError, match=r"^lr = -1\.0: Input should be greater than 0\.$"):
        TrainingConfig(lr=-1.0)


def test_sampler_is_not_checked_where_nobody_trains() -> None:
    unchecked = {"check_samplers": False}
    settings = {"sampler": "no_such_module:Mine", "sampler_options": {"strength": 3}}
    assert TrainingConfig.checked(settings, context=unchecked).sampler == "no_such_module:Mine"
    with pytest.raises(ConfigError, match="cannot be imported"):
        TrainingConfig.checked(settings)


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in SAMPLERS),
    ("curriculum", {"difficulty": "my_scores:difficulty"}),
    ("curriculum", {"difficulty": "reference"}),
    ("impon-memory", {"without_reference": "impon"}),
    *(("placebo", {"of": name}) for name in SAMPLERS if name != "placebo"),
    ("placebo", {"of": "curriculum", "options": {"difficulty": "my_scores:difficulty"}}),
]


@pytest.mark.parametrize(("sampler", "options"), OPTIONS)
def test_who_reads_a_reference_is_known_as_the_classes_say(
    sampler: str, options: dict[str, Any]
) -> None:
    config = TrainingConfig(sampler=sampler, sampler_options=options)
    assert wants_reference(config) is SAMPLERS[sampler].wants_reference(options)


def test_class_of_the_users_is_asked_whether_it_reads_a_reference() -> None:
    for sampler, wanted in (("rho_loss:RhoLoss", True), ("uniform:Uniform", False)):
        path = f"impon_hpo.sampling.methods.{sampler}"
        assert wants_reference(TrainingConfig(sampler=path)) is wanted
        assert wants_reference(uniformly(TrainingConfig(sampler=path))) is False


def test_prefix_stands_before_the_name_of_a_setting() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.checked({"lr": -1.0, "wdith": 3}, prefix="run.")
    first, second = str(caught.value).splitlines()
    assert first.startswith("run.lr = -1.0: ")
    assert second == "Unknown key 'run.wdith'. Did you mean 'width'?"


def test_error_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="epochs = 0"):
        training_config({"epochs": 0})


@pytest.mark.parametrize(
    "given", [{"optimizer": "adam"}, {"optimizer": "adamw"}, {"momentum": 0.0}]
)
def test_nesterov_needs_sgd_with_momentum(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="nesterov = true needs optimizer = 'sgd'"):
        training_config({"nesterov": True} | given)
    assert training_config(given).nesterov is False


@pytest.mark.parametrize(("warmup", "epochs"), [(5.0, 5), (6.0, 5), (1.0, 1), (math.inf, 5)])
def test_warm_up_as_long_as_the_run_is_refused(warmup: float, epochs: int) -> None:
    with pytest.raises(ConfigError) as caught:
        training_config({"warmup_epochs": warmup, "epochs": epochs})
    assert str(caught.value) == (
        f"warmup_epochs must be below epochs ({epochs}), but got {warmup:g}."
    )


def test_unknown_sampler_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(ConfigError) as caught:
        training_config({"sampler": "unifrom"})
    message = str(caught.value)
    assert message.startswith("Unknown batch sampler 'unifrom'. Did you mean 'uniform'? Known: ")
    assert all(name in message for name in SAMPLERS)


def test_sampler_that_is_no_batch_sampler_is_refused() -> None:
    with pytest.raises(ConfigError, match="'os:getcwd' must be a subclass of BatchSampler"):
        training_config({"sampler": "os:getcwd"})


def test_unknown_option_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(ConfigError) as caught:
        training_config({"sampler": "impon", "sampler_options": {"bank_sise": 100}})
    message = str(caught.value)
    assert message.startswith(
        "Batch sampler 'impon' has no option 'bank_sise'. Did you mean 'bank_size'?"
    )
    assert "estimator_lr" in message


def test_option_of_another_sampler_is_refused() -> None:
    with pytest.raises(ConfigError, match="'uniform' has no option 'bank_size'"):
        training_config({"sampler_options": {"bank_size": 100}})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("bank_size", "100"),
        ("bank_size", True),
        ("bank_size", 100.0),
        ("estimator_lr", "1e-6"),
        ("estimator_init", "ones"),
        ("features", 3),
    ],
)
def test_option_of_a_wrong_type_is_refused_with_name_and_value(option: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        training_config({"sampler": "impon", "sampler_options": {option: value}})
    assert str(caught.value).startswith(
        f"Option '{option}' of batch sampler 'impon' = {value!r}: Input should be "
    )


def test_options_that_fit_are_kept() -> None:
    options = {"bank_size": 100, "estimator_lr": 1, "estimator_init": "zeros"}
    config = training_config({"sampler": "impon", "sampler_options": options})
    assert config.sampler_options == options


def test_configuration_cannot_be_changed() -> None:
    config = TrainingConfig()
    with pytest.raises(ValidationError):
        config.lr = 0.5


def test_default_options_are_not_shared_between_configurations() -> None:
    TrainingConfig().sampler_options["bank_size"] = 3
    assert TrainingConfig().sampler_options == {}


@pytest.mark.parametrize(
    ("settings", "meant"),
    [
        ({"schedule": "cosin"}, "cosine"),
        ({"compile": "inducter"}, "inductor"),
        ({"channels_last": "aut"}, "auto"),
        ({"metric": "balanced_accuracy"}, "balanced-accuracy"),
        ({"sampler": "impon", "sampler_options": {"pick": "tpo"}}, "top"),
    ],
)
def test_a_slip_in_a_choice_is_told_what_was_meant(settings: dict[str, Any], meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"Did you mean '{meant}'\?"):
        TrainingConfig(**settings)
