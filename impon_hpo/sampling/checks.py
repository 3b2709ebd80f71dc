"""The arguments of batch samplers: which ones there are, and the checks of their values."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NotRequired, TypedDict, get_args, get_origin, get_type_hints

from torch import nn

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion


class Common(TypedDict):
    """What every batch sampler takes besides the rows; `BatchSampler` explains each."""

    batch_size: int
    model: nn.Module
    seed: NotRequired[int]
    total_steps: NotRequired[int | None]


def options_of(sampler: Any) -> dict[str, Any]:
    """Return the options that a batch sampler takes besides those of all, with their types."""
    common = {"self", "rows", *Common.__annotations__}
    try:
        types = get_type_hints(sampler.__init__)
    except NameError:  # a user's sampler that imports its types for a type checker only
        types = {}
    parameters = inspect.signature(sampler.__init__).parameters
    return {
        name: types.get(name, Any)
        for name, parameter in parameters.items()
        if name not in common
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def check_known(name: str, sampler: type, options: Iterable[str]) -> None:
    """Raise `ConfigError` if batch sampler `name` does not have one of the options."""
    known = options_of(sampler)
    for option in options:
        if option not in known:
            listed = f"Its options: {', '.join(known)}." if known else "It has no options."
            raise ConfigError(
                f"Batch sampler '{name}' has no option '{option}'."
                f"{suggestion(option, known)} {listed}"
            )


def check_literals(sampler: type, options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` unless each option whose type is a `Literal` has one of its values."""
    types = options_of(sampler)
    for name, value in options.items():
        kind = types.get(name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            listed = ", ".join(repr(choice) for choice in get_args(kind))
            raise ConfigError(
                f"{name} must be one of {listed}, but got {name}={value!r}."
                f"{suggestion(str(value), map(str, get_args(kind)))}"
            )


def check_positive(name: str, value: float) -> None:
    """Raise `ConfigError` unless `value` is a finite number above 0."""
    if not 0 < value < float("inf"):
        raise ConfigError(f"{name} must be positive and finite, but got {name}={value}.")


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Raise `ConfigError` unless low ≤ value ≤ high."""
    if not low <= value <= high:
        raise ConfigError(f"{name} must be between {low:g} and {high:g}, but got {name}={value}.")


def check_share(name: str, value: float) -> None:
    """Raise `ConfigError` unless 0 < value ≤ 1."""
    if not 0 < value <= 1:
        raise ConfigError(f"{name} must be above 0 and at most 1, but got {name}={value}.")


def describe(thing: Any) -> str:
    """Return a short text for a tensor, "float32 (60, 3)", or for a dataclass that has tensors."""
    if hasattr(thing, "shape") and hasattr(thing, "dtype"):
        return f"{str(thing.dtype).removeprefix('torch.')} {tuple(thing.shape)}"
    if not dataclasses.is_dataclass(thing):
        return repr(thing)
    fields = [field.name for field in dataclasses.fields(thing)]
    values = ", ".join(f"{name}={describe(getattr(thing, name))}" for name in fields)
    return f"{type(thing).__name__}({values})"
