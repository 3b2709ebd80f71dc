"""The table of batch samplers: names, options, classes of one's own, and what each file tells."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from typing import Any, Literal, Unpack

import pytest
import torch
from torch import nn

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Draw, Forward
from impon_hpo.sampling.checks import Common
from impon_hpo.sampling.impon import Impon, ImponLow
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.table import (
    SAMPLERS,
    check_options,
    make_sampler,
    option_types,
    sampler_class,
)
from impon_hpo.sampling.uniform import Uniform
from tests.sampling.courses import image_rows

every = pytest.mark.parametrize("name", SAMPLERS)


class FirstRows(BatchSampler):
    """A user's batch sampler: always the same rows."""

    def __init__(
        self,
        rows: Rows,
        *,
        first: int = 0,
        kind: Literal["up", "down"] = "up",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        self.first = first
        self.kind = kind

    def _draw(self, forward: Forward | None) -> Draw:
        return Draw(torch.arange(self.first, self.first + self.batch_size))


NO_SAMPLER = nn.Linear
OWN = f"{__name__}:FirstRows"


def made(name: str, **options: Any) -> BatchSampler:
    return make_sampler(name, image_rows(250), options, batch_size=4, model=nn.Linear(1, 1), seed=3)


def test_names_stand_for_their_classes() -> None:
    assert sampler_class("uniform") is Uniform
    assert sampler_class("impon") is Impon
    assert sampler_class("impon-low") is ImponLow


@every
def test_every_file_tells_what_the_method_does_and_costs(name: str) -> None:
    told = sys.modules[sampler_class(name).__module__].__doc__ or ""
    assert "Source:" in told or "Rule:" in told
    for word in ("Cost a step", "Helps", "Hurts"):
        assert word in told, word
    assert f"`{name}`" in told


@every
def test_every_class_has_a_card(name: str) -> None:
    card = dataclasses.asdict(sampler_class(name).card)
    assert all(isinstance(value, str) and value.strip() for value in card.values())
    assert card["forward"] != "0" or not sampler_class(name).needs_forward


@every
def test_every_option_has_a_type_a_default_and_a_word_of_explanation(name: str) -> None:
    constructor = inspect.signature(sampler_class(name)).parameters
    told = "\n".join(one.__doc__ or "" for one in sampler_class(name).__mro__)
    for option, kind in option_types(name).items():
        assert kind is not Any, option
        assert constructor[option].default is not inspect.Parameter.empty, option
        assert f"        {option}: " in told, option


@pytest.mark.parametrize(
    ("given", "meant"), [("unifrom", "uniform"), ("impom", "impon"), ("imponlow", "impon-low")]
)
def test_unknown_name_gets_a_suggestion(given: str, meant: str) -> None:
    for look_up in (sampler_class, option_types, made):
        with pytest.raises(ConfigError, match=f"'{given}'.* Did you mean '{meant}'") as caught:
            look_up(given)
        assert all(name in str(caught.value) for name in SAMPLERS)


def test_unlike_name_gets_no_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"Unknown batch sampler 'zzz'\. Known: "):
        sampler_class("zzz")


def test_class_of_the_user_is_found_and_made_with_its_options() -> None:
    assert sampler_class(OWN).__name__ == "FirstRows"
    sampler = made(OWN, first=7)
    assert sampler.draw().rows.tolist() == [7, 8, 9, 10]
    assert sampler.batch_size == 4
    assert sampler.generator.initial_seed() == 3
    assert len(sampler.rows) == 250
    assert isinstance(sampler.model, nn.Linear)


@pytest.mark.parametrize(
    "given",
    [
        "torch.nn:Linear",
        "math:hypot",
        f"{__name__}:OWN",
        f"{__name__}:NO_SAMPLER",
        f"{__name__}:every",
    ],
)
def test_what_is_no_batch_sampler_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=f"'{given}' must be a subclass of BatchSampler"):
        sampler_class(given)


@pytest.mark.parametrize("given", ["no_such_module:Sampler", f"{__name__}:FirstRow"])
def test_class_that_is_not_there_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"no_such_module|Did you mean 'FirstRows'"):
        sampler_class(given)


def test_option_types_are_those_of_the_constructor() -> None:
    assert option_types(OWN) == {"first": int, "kind": Literal["up", "down"]}
    assert option_types("uniform") == {}
    impon = option_types("impon")
    assert impon["bank_size"] is int
    assert impon["estimator_lr"] is float
    assert impon["estimator_init"] == Literal["uniform", "zeros"]
    assert option_types("impon-low") == impon


@every
def test_what_all_samplers_take_is_no_option(name: str) -> None:
    common = {"self", "rows", "batch_size", "model", "seed", "total_steps", "common", "kwargs"}
    assert not common & option_types(name).keys()
    for option in ("rows", "batch_size", "seed"):
        with pytest.raises(ConfigError, match=f"'{name}' has no option '{option}'"):
            check_options(name, [option])


def test_known_options_pass() -> None:
    check_options("impon", ["bank_size", "features"])
    check_options("impon", [])
    check_options(OWN, {"first": 3})
    with pytest.raises(ConfigError, match="'third'"):
        check_options(OWN, ["first", "third"])


def test_unknown_option_gets_a_suggestion_and_the_list() -> None:
    for refuse in (check_options, lambda name, options: made(name, **options)):
        with pytest.raises(
            ConfigError, match=r"'impon' has no option 'banksize'\. Did you mean 'bank_size'\? Its"
        ) as caught:
            refuse("impon", {"banksize": 3})
        assert all(option in str(caught.value) for option in option_types("impon"))


def test_option_of_a_sampler_without_any_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'uniform' has no option 'bank_size'\. It has no"):
        made("uniform", bank_size=3)
