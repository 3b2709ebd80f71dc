"""The identity of a configuration: the settings that decide its numbers, as plain JSON."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from impon_hpo.training.config import ADDED, FILES, TrainingConfig
from tests.settings import training_config
from tests.training.test_config import NAMES


def double_features(images: Tensor) -> Tensor:
    """A user's features, to be named in a configuration."""
    return images.flatten(1) * 2


def test_identity_leaves_out_where_the_data_lie_and_the_device() -> None:
    identity = TrainingConfig().identity()
    apart = {"data_dir", "download", "device", "compile", *ADDED, *FILES}
    assert sorted(identity) == sorted(set(NAMES) - apart)


def test_what_came_later_is_in_the_identity_only_where_it_is_not_at_its_default() -> None:
    said = training_config({"metric": "accuracy"})
    assert said.identity() == TrainingConfig().identity()
    other = training_config({"metric": "balanced-accuracy"})
    assert other.identity() == TrainingConfig().identity() | {"metric": "balanced-accuracy"}
    assert training_config(other.identity()) == other


def test_identity_is_the_same_wherever_the_data_lie() -> None:
    moved = training_config({"data_dir": "/elsewhere", "download": True, "device": "cpu"})
    assert moved.identity() == TrainingConfig().identity()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lr=st.floats(1e-6, 10),
    validation_size=st.one_of(st.integers(1, 10**6), st.floats(0.01, 0.99)),
    seed=st.integers(0, 2**31 - 1),
    autocast=st.sampled_from([True, False, "auto"]),
)
def test_identity_is_plain_json_and_makes_the_same_configuration(
    lr: float, validation_size: int | float, seed: int, autocast: bool | str
) -> None:
    config = training_config(
        {
            "lr": lr,
            "validation_size": validation_size,
            "seed": seed,
            "autocast": autocast,
            "sampler": "impon",
            "sampler_options": {"bank_size": 150},
        }
    )
    identity = config.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert training_config(identity) == config


def test_identity_names_a_function_among_the_options() -> None:
    config = training_config({"sampler": "impon", "sampler_options": {"features": double_features}})
    assert config.sampler_options["features"] is double_features
    assert config.identity()["sampler_options"] == {"features": f"{__name__}:double_features"}
