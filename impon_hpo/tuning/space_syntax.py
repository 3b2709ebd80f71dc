"""How a search space is written, in a study file or in Python, and what is told of a mistake."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, get_args

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.training.config import TrainingConfig
from impon_hpo.tuning.space import Distribution, Space, as_drawn

KINDS = {
    "float": ("high", "log", "low", "step"),
    "int": ("high", "log", "low", "step"),
    "categorical": ("choices",),
}
"""The types of an entry, and what else each of them takes."""
WORDS = {"type", *(word for words in KINDS.values() for word in words)}

WAYS = (
    "a list of choices, such as [16, 32], or a table such as "
    '{ type = "float", low = 1e-3, high = 0.5, log = true } '
    "(in Python also one of Optuna's distributions)"
)


@dataclass(frozen=True)
class Conditional:
    """A setting that is searched over only where other settings have certain values.

    Elsewhere it is not drawn, and keeps the value that `config` has. In a study file:
    `nesterov = { choices = [true, false], when = { optimizer = "sgd" } }`. A condition reads the
    settings that the trial is trained with, whether they were drawn or not.

    Args:
        distribution: What it is drawn from, as without a condition.
        when: The values of other settings, of the space or of `config`; all of them must hold. Of a
            list of values, any one.

    Example:
        >>> from optuna.distributions import FloatDistribution
        >>> from impon_hpo import Conditional, Objective, TrainingConfig
        >>> space = {
        ...     "optimizer": ["sgd", "adam"],
        ...     "lr": FloatDistribution(1e-4, 0.3, log=True),
        ...     "nesterov": Conditional([True, False], when={"optimizer": "sgd"}),
        ... }
        >>> Objective(TrainingConfig(dataset="digits"), space)
        Objective(sampler='uniform', space=['lr', 'nesterov', 'optimizer'])
    """

    distribution: Any
    when: Mapping[str, Any]


def parse_space(space: Any) -> Space:
    """Return the space that `[space]` of a study file or a dict of Python's stands for.

    A list is a choice among its values; `range(4, 17, 4)` is whole numbers. A table without `type`
    is a choice where it has `choices`, and else numbers of the kind that the setting takes. A
    setting inside of a table, such as `space.augment_options.mixup.alpha`, has the key
    "augment_options.mixup.alpha".

    Raises:
        ConfigError: What is written is wrong, or can be read in two ways.
    """
    if isinstance(space, Space):
        return space
    if not isinstance(space, Mapping):
        raise ConfigError(
            'A space must be a table of settings, such as { lr = [0.01, 0.1] } (in Python {"lr": '
            f"[0.01, 0.1]}}), or an empty one to repeat one configuration, but got {space!r}."
        )
    distributions: dict[str, Distribution] = {}
    conditions: dict[str, dict[str, tuple[Any, ...]]] = {}
    for key, entry in _flat(space):
        if isinstance(entry, Conditional):
            distributions[key] = _distribution(key, entry.distribution)
            conditions[key] = _condition(key, entry.when)
        elif isinstance(entry, Mapping) and "when" in entry:
            rest = {name: value for name, value in entry.items() if name != "when"}
            distributions[key] = _distribution(key, rest)
            conditions[key] = _condition(key, entry["when"])
        else:
            distributions[key] = _distribution(key, entry)
    for key, condition in conditions.items():
        for name, values in condition.items():
            if name in distributions:
                _check_drawn(key, name, values, distributions[name])
    parents = {key: [*conditions.get(key, ())] for key in distributions}
    try:
        order = [key for key in TopologicalSorter(parents).static_order() if key in distributions]
    except CycleError as error:
        chain = " → ".join(reversed(error.args[1]))
        raise ConfigError(
            f"space: conditions must not go round in a circle, but {chain} do. "
            "Leave out one `when`."
        ) from error
    return Space({key: distributions[key] for key in order}, conditions)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield key and entry of each setting, those inside of tables with the keys of all tables."""
    for name, entry in table.items():
        if not isinstance(name, str):
            raise ConfigError(f"The name of a setting must be a text, but got {name!r}.")
        if isinstance(entry, Mapping) and entry and not _is_entry(entry):
            yield from _flat(entry, f"{prefix}{name}.")
        else:
            yield prefix + name, entry


def _is_entry(table: Mapping[str, Any]) -> bool:
    """Return whether a table is that of a setting, and not one that has settings inside of it."""
    inside = (Mapping, list, BaseDistribution, Conditional)
    words = {name: table[name] for name in WORDS if name in table}
    says = any(not isinstance(value, inside) for value in words.values())
    return says or isinstance(table.get("choices"), list) or table.keys() == {"when"}


def _distribution(key: str, entry: Any) -> Distribution:
    entry = _plain(entry)
    if isinstance(entry, Mapping):
        return _from_table(key, entry)
    if isinstance(entry, CategoricalDistribution):
        return _choice(key, entry.choices)
    if isinstance(entry, FloatDistribution | IntDistribution):  # those of Optuna 2, too
        maker = FloatDistribution if isinstance(entry, FloatDistribution) else IntDistribution
        return _numbers(key, maker, entry.low, entry.high, entry.log, entry.step)
    if isinstance(entry, range) and entry:
        low, high = sorted((entry[0], entry[-1]))
        return IntDistribution(low, high, step=abs(entry.step))
    if isinstance(entry, tuple):
        entry = tuple(map(_plain, entry))
    if isinstance(entry, tuple) and _could_be_range(entry):
        name = (
            "IntDistribution" if all(isinstance(x, int) for x in entry[:2]) else "FloatDistribution"
        )
        low, high = entry[:2]
        raise ConfigError(
            f"space.{key} = {entry!r} could be a range or a choice. Write {name}({low!r}, {high!r})"
            f" for all from {low!r} to {high!r}, or {list(entry)!r} for a choice among its values."
        )
    if isinstance(entry, list | tuple):
        return _choice(key, entry)
    if isinstance(entry, str | int | float):
        value = json.dumps(entry)
        raise ConfigError(
            f"space.{key} = {value} is a single value, so nothing is searched. Set it in [run] (in "
            f"Python in the TrainingConfig), or make it {WAYS}."
        )
    raise ConfigError(f"space.{key} must be {WAYS}, but got {entry!r}.")


def _plain(value: Any) -> Any:
    """Return numpy's numbers and arrays as Python's numbers and lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _could_be_range(values: tuple[Any, ...]) -> bool:
    """Return whether these are two numbers, perhaps with a word on how to draw between them."""
    numbers = [_is_number(value) for value in values]
    return numbers[:2] == [True, True] and (len(numbers) == 2 or not all(numbers))


def _from_table(key: str, table: Mapping[str, Any]) -> Distribution:
    table = {name: _plain(value) for name, value in table.items()}
    kind = table.pop("type", None) or _kind_of(key, table)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(
            f"space.{key}.type must be 'float', 'int' or 'categorical', but got {kind!r}."
        )
    for name in table:
        if name not in KINDS[kind]:
            raise ConfigError(
                f"Unknown key 'space.{key}.{name}'.{suggestion(name, KINDS[kind])} "
                f"A {kind} takes: {', '.join(KINDS[kind])}, when."
            )
    if kind == "categorical":
        choices = table.get("choices")
        if not isinstance(choices, list | tuple):
            raise ConfigError(f"space.{key}.choices must be a list, but got {choices!r}.")
        return _choice(key, choices)
    maker = FloatDistribution if kind == "float" else IntDistribution
    step = table.get("step", None if kind == "float" else 1)
    return _numbers(key, maker, table.get("low"), table.get("high"), table.get("log", False), step)


def _kind_of(key: str, table: Mapping[str, Any]) -> str:
    """Return the type of a table that does not say it, where that is plain."""
    if "choices" in table:
        return "categorical"
    numbers = [table[name] for name in ("low", "high", "step") if name in table]
    if not numbers:
        raise ConfigError(f"space.{key} must be {WAYS}, but got {dict(table)!r}.")
    if any(isinstance(number, float) for number in numbers):
        return "float"
    if key not in TrainingConfig.model_fields:
        raise ConfigError(f'space.{key} needs a type: "int" for whole numbers only, or "float".')
    return "float" if float in _types_in(TrainingConfig.model_fields[key].annotation) else "int"


def _types_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _types_in(part)


def _choice(key: str, values: Iterable[Any]) -> CategoricalDistribution:
    choices = [_plain(value) for value in values]
    if not choices:
        raise ConfigError(f"space.{key} must have at least one choice, but got {choices!r}.")
    for choice in choices:
        if not isinstance(choice, str | int | float | None):
            raise ConfigError(
                f"space.{key}: a choice must be a text, a number, or true or false, which every "
                f"storage keeps, but got {choice!r}. Search over a setting inside of a table by "
                "its path, such as space.augment_options.mixup.alpha."
            )
    twice = [choice for at, choice in enumerate(choices) if choice in choices[:at]]
    if twice:
        raise ConfigError(
            f"space.{key}: every choice must be there once, but {twice[0]!r} is there "
            f"{choices.count(twice[0])} times (Optuna takes 1, 1.0 and true for the same): "
            f"{choices!r}."
        )
    return CategoricalDistribution(choices)


def _numbers(
    key: str,
    maker: type[FloatDistribution] | type[IntDistribution],
    low: Any,
    high: Any,
    log: Any,
    step: Any,
) -> FloatDistribution | IntDistribution:
    whole = maker is IntDistribution
    what = "a whole number" if whole else "a number"
    bounds = {"low": low, "high": high} | ({} if step is None else {"step": step})
    for name, value in bounds.items():
        fits = _is_number(value) and math.isfinite(value) and not (whole and value != int(value))
        if not fits:
            raise ConfigError(f"space.{key}.{name} must be {what}, but got {value!r}.")
    if not isinstance(log, bool):
        raise ConfigError(f"space.{key}.log must be true or false, but got {log!r}.")
    if low > high:
        raise ConfigError(
            f"space.{key}: low must be at most high, but got low = {low} and high = {high}."
        )
    if log and low <= 0:
        raise ConfigError(f"space.{key}: log = true needs low above 0, but got low = {low}.")
    if step is not None and step <= 0:
        raise ConfigError(f"space.{key}.step must be above 0, but got {step}.")
    if log and step not in ((1,) if whole else (None,)):
        raise ConfigError(
            f"space.{key}: log = true and step = {step} exclude each other. Leave out one of them."
        )
    return maker(low, high, log=log, step=step)


def _condition(key: str, when: Any) -> dict[str, tuple[Any, ...]]:
    """Return the values that a condition wants, by setting: the same text for the same meaning."""
    if not isinstance(when, Mapping) or not when:
        raise ConfigError(
            f"space.{key}.when must be a table of settings and their values, such as "
            f'{{ optimizer = "sgd" }}, but got {when!r}.'
        )
    condition = {}
    for name, values in _flat_values(when):
        wanted = (
            [_plain(value) for value in values] if isinstance(values, list | tuple) else [values]
        )
        if not wanted or not all(isinstance(value, str | int | float | None) for value in wanted):
            raise ConfigError(
                f"space.{key}.when.{name} must be a value or a list of values, but got {values!r}."
            )
        condition[name] = tuple(sorted(wanted, key=json.dumps))
    return dict(sorted(condition.items()))


def _flat_values(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat_values(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _plain(value)


def _check_drawn(key: str, name: str, values: tuple[Any, ...], distribution: Distribution) -> None:
    """Refuse a condition on values that the space does not have."""
    choices: list[Any] = []
    if isinstance(distribution, FloatDistribution):
        raise ConfigError(
            f"space.{key}.when.{name}: {name} is drawn from a range of numbers, which hits none "
            "of them exactly. A condition may name choices and whole numbers."
        )
    if isinstance(distribution, CategoricalDistribution):
        choices = list(distribution.choices)
        known = ", ".join(map(json.dumps, choices))
    else:
        step = "" if distribution.step == 1 else f" in steps of {distribution.step}"
        known = f"whole numbers from {distribution.low} to {distribution.high}{step}"
    for value in values:
        try:
            as_drawn(distribution, value)
        except ValueError:
            raise ConfigError(
                f"space.{key}.when.{name} must be among what space.{name} has ({known}), but got "
                f"{json.dumps(value)}.{suggestion(str(value), map(str, choices))}"
            ) from None
