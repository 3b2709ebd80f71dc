"""A setting as it is typed."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from impon_hpo.errors import ConfigError
from impon_hpo.tuning.study_file import parse_setting
from tests.studies import small_study


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("lr=0.1", ("lr", 0.1)),
        ("download=true", ("download", True)),
        ("space.lr.choices=[1, 2]", ("space.lr.choices", [1, 2])),
        ("device=cuda:1", ("device", "cuda:1")),
        (" dataset =my_data:load", ("dataset", "my_data:load")),
        ("data_dir=a=b", ("data_dir", "a=b")),
        ("name=", ("name", "")),
    ],
)
def test_value_is_toml_or_a_plain_word(typed: str, expected: tuple[str, Any]) -> None:
    assert parse_setting(typed, "--set") == expected


@pytest.mark.parametrize("typed", ["lr", "=1", ""])
def test_what_has_no_key_or_equals_sign_is_refused(typed: str) -> None:
    with pytest.raises(ConfigError, match=f"--try takes key=value, but got '{typed}'"):
        parse_setting(typed, "--try")


def test_a_setting_inside_a_table_of_the_run_needs_no_run_before_it() -> None:
    study_file = small_study(
        "augment_options.rand.magnitude=5",
        "run.augment_options.rand.num_ops=1",
        "space.augment_options.mixup.alpha.type=float",
        "space.augment_options.mixup.alpha.low=0.1",
        "space.augment_options.mixup.alpha.high=0.5",
    )
    assert study_file.run.augment_options == {"rand": {"magnitude": 5, "num_ops": 1}}
    assert study_file.space["augment_options.mixup.alpha"] == FloatDistribution(0.1, 0.5)
    with pytest.raises(ConfigError, match=r"augment_options\.rand\.magnitude = 99: "):
        small_study("augment_options.rand.magnitude=99")
