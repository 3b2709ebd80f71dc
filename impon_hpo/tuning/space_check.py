"""The check of a search space, before anything is trained: all that it allows is a valid run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Annotated, Any

from optuna.distributions import CategoricalDistribution
from pydantic import ConfigDict, TypeAdapter, ValidationError

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.settings import choice_meant
from impon_hpo.training.config import TrainingConfig
from impon_hpo.tuning.space import (
    FIXED,
    Space,
    ancestors,
    context_of,
    edges,
    ends_of,
    setting_of,
    walk,
    with_settings,
)

COMBINATIONS = 2000
"""So many combinations of bounds and choices are all checked; of more, those of two settings."""


def check_space(config: TrainingConfig, space: Space) -> None:
    """Check that every setting of the space exists, can be searched over, and fits at its bounds,
    alone and combined with the others.

    Raises:
        ConfigError: A setting does not exist or is fixed, or what can be drawn is not a valid run.
    """
    searchable = [name for name in TrainingConfig.model_fields if name not in FIXED]
    if "image_size" in space and config.image_size is None:
        raise ConfigError(
            "space.image_size needs image_size in [run], too: at that size the data are loaded "
            "first, checked, and looked at for references. Set it to one of those searched over."
        )
    for key in space:
        name, *inside = key.split(".")
        if name in FIXED:
            raise ConfigError(f"space.{key} cannot be searched over: {FIXED[name]}.")
        if name not in searchable or (inside and not isinstance(getattr(config, name), dict)):
            raise ConfigError(
                f"Unknown key 'space.{key}'.{suggestion(key, searchable)} "
                f"Searchable: {', '.join(searchable)}."
            )
    for key, condition in space.conditions.items():
        for name, values in condition.items():
            if name not in space:
                _check_named(key, name, values)
    for changed in _combinations(space, config):
        try:
            with_settings(config, changed)
        except ConfigError as error:
            raise ConfigError(_refusal(space, config, changed, error)) from error


def check_conditions(configs: Sequence[TrainingConfig], space: Space) -> None:
    """Check that each condition can hold under some of these settings.

    Raises:
        ConfigError: One never does.
    """
    for key, condition in space.conditions.items():
        if any(context_of(space, key, config) is not None for config in configs):
            continue
        wanted = " and ".join(f"{name} = {_either(values)}" for name, values in condition.items())
        have = [
            f"{name} is {_either([setting_of(config, name) for config in configs])}"
            for name in condition
            if name not in space
        ]
        reason = f", since {' and '.join(have)} and not searched over" if have else ""
        raise ConfigError(
            f"space.{key}: its condition, {wanted}, never holds{reason}. Change the condition, or "
            f"leave out space.{key}."
        )


def _check_named(key: str, name: str, values: Sequence[Any]) -> None:
    """Check what a condition says of a setting that is not searched over."""
    setting, *inside = name.split(".")
    known = TrainingConfig.model_fields.get(setting)
    if known is None:
        raise ConfigError(
            f"Unknown key 'space.{key}.when.{name}'."
            f"{suggestion(name, TrainingConfig.model_fields)} A condition names settings of "
            "[space] or [run]."
        )
    if inside:
        return
    declared: Any = Annotated[known.annotation, known]
    adapter: TypeAdapter[Any] = TypeAdapter(declared, config=ConfigDict(strict=True))
    for value in values:
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(
                f"space.{key}.when.{name} = {json.dumps(value)}: {first['msg']}."
                f"{choice_meant(first)}"
            ) from None


def _combinations(space: Space, config: TrainingConfig) -> Iterator[dict[str, Any]]:
    """Yield what is checked: every combination of bounds and choices, or where those are many, the
    combinations of any two settings that have no more, with the others at their lowest."""
    ends = edges(space)
    if _count(ends, ends) <= COMBINATIONS:
        yield from walk(space, config, ends)
        return
    for pair in combinations_with_replacement(ends, 2):
        varied = {name for key in pair for name in (*ancestors(space, key), key)}
        if len(set(pair)) == 2 and _count(ends, varied) > COMBINATIONS:
            continue
        some = {key: ends[key] if key in varied else ends[key][:1] for key in ends}
        yield from walk(space, config, some)


def _count(ends: Mapping[str, Sequence[Any]], keys: Iterable[str]) -> int:
    return math.prod(len(ends[key]) for key in keys)


def _refusal(
    space: Space, config: TrainingConfig, changed: Mapping[str, Any], error: ConfigError
) -> str:
    """Return what is told of a combination that is not a valid run: what of it is decisive, and a
    condition that would leave it out."""

    def is_valid(settings: Mapping[str, Any]) -> bool:
        try:
            with_settings(config, settings)
        except ConfigError:
            return False
        return True

    def without(key: str) -> dict[str, Any]:
        return {name: value for name, value in changed.items() if name != key}

    ends = {key: ends_of(space[key]) for key in changed}
    decisive = [
        key for key in changed if any(is_valid({**changed, key: end}) for end in ends[key])
    ] or [key for key in changed if is_valid(without(key))]
    shown = ", ".join(f"{key} = {json.dumps(changed[key])}" for key in decisive or changed)
    together = " together" if len(decisive or changed) > 1 else ""
    text = f"space allows {shown}{together}, which is not a valid run: {error}"
    choices = [key for key in decisive if isinstance(space[key], CategoricalDistribution)]
    if len(decisive) != 2 or len(choices) != 2:
        return text
    # What an error names first is what does not go with the rest.
    first, second = sorted(choices, key=str(error).find)
    for key, other in ((first, second), (second, first)):
        fitting = [
            value
            for value in ends[other]
            if all(is_valid({**changed, other: value, key: end}) for end in ends[key])
        ]
        if fitting and all(is_valid({**without(key), other: value}) for value in ends[other]):
            values = fitting[0] if len(fitting) == 1 else fitting
            return (
                f"{text} Search over {key} only where it fits: {key} = {{ …, when = {{ {other} = "
                f"{json.dumps(values)} }} }}, or in Python Conditional(…, "
                f"when={{{other!r}: {values!r}}})."
            )
    return text


def _either(values: Sequence[Any]) -> str:
    return " or ".join(dict.fromkeys(map(json.dumps, values)))
