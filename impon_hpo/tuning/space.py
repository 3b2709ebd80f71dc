"""The search space: which training settings a study searches over, and under which conditions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import FixedTrial, FrozenTrial

from impon_hpo.training.config import TrainingConfig

Distribution = FloatDistribution | IntDistribution | CategoricalDistribution

SHAPING = ("model", "width", "batch_size", "train_layers", "image_size")
"""Settings that decide the shapes of a run: of its model, of its batches and of its gradients."""

FIXED = {
    "dataset": "all trials are judged on the same rows",
    "data_dir": "all trials are judged on the same rows",
    "download": "all trials are judged on the same rows",
    "relabel": "all trials are judged on the same rows",
    "exclude": "all trials are judged on the same rows",
    "groups": "all trials are judged on the same rows",
    "subset": "all trials are judged on the same rows",
    "skip_broken": "all trials are judged on the same rows",
    "weights_file": "its content is part of what makes two runs the same",
    "metric": "it is what trials are compared by",
    "validation_size": "all trials are judged on the same rows",
    "seed": "all trials are judged on the same rows",
    "epochs": "a pruner compares trials at the same epoch of the same horizon",
    "epoch_fraction": "a pruner compares trials at the same epoch of the same horizon",
    "device": "it changes no result that is searched for",
    "sampler": "each batch sampler is an arm of its own",
    "sampler_options": "each batch sampler is an arm of its own",
}
"""Settings that cannot be searched over, and why."""


@dataclass(frozen=True)
class Space(Mapping[str, Distribution]):
    """A search space, as `parse_space` makes it: what each setting is drawn from, by key. A setting
    inside of a table has a key such as "augment_options.mixup.alpha".

    Args:
        distributions: The distributions; a conditional one comes after those that its condition
            names.
        conditions: Of each conditional setting: the values, one of which each of the named settings
            must have in a trial, whether it is searched over or stands in `[run]`. Where that does
            not hold, the conditional setting is not drawn and keeps the value of `[run]`.
    """

    distributions: Mapping[str, Distribution]
    conditions: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Distribution:
        return self.distributions[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.distributions)

    def __len__(self) -> int:
        return len(self.distributions)

    def identity(self) -> dict[str, str]:
        """Return what makes it the same space, a JSON text for each setting."""
        texts = {key: distribution_to_json(value) for key, value in self.items()}
        for key, when in self.conditions.items():
            texts[key] = json.dumps(json.loads(texts[key]) | {"when": when})
        return texts


def is_active(space: Space, key: str, config: TrainingConfig, chosen: Mapping[str, Any]) -> bool:
    """Return whether the condition of a setting holds.

    Args:
        space: The space.
        key: The setting.
        config: The settings of every trial.
        chosen: What a trial has drawn so far.
    """
    for name, values in space.conditions.get(key, {}).items():
        value = chosen[name] if name in chosen else setting_of(config, name)
        if not any(is_same(value, wanted) for wanted in values):
            return False
    return True


def setting_of(config: TrainingConfig, key: str) -> Any:
    """Return the value of a setting, or None where a table has no such key."""
    name, *inside = key.split(".")
    value = getattr(config, name)
    for part in inside:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def is_same(value: Any, other: Any) -> bool:
    """Return whether two values are the same; 1 is not true."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def suggest(
    trial: optuna.Trial | FixedTrial | FrozenTrial, space: Space, config: TrainingConfig
) -> dict[str, Any]:
    """Ask the trial for a value of each setting whose condition holds.

    Args:
        trial: The trial.
        space: The space.
        config: The settings of every trial, which conditions may name.
    """
    params: dict[str, Any] = {}
    for key, distribution in space.items():
        if not is_active(space, key, config, params):
            continue
        if isinstance(distribution, CategoricalDistribution):
            drawn = trial.suggest_categorical(key, distribution.choices)
            # An enqueued 16.0, as pandas has it, is the choice 16 to Optuna, but is returned as is.
            params[key] = distribution.choices[distribution.choices.index(drawn)]
            continue
        is_float = isinstance(distribution, FloatDistribution)
        suggest_number: Any = trial.suggest_float if is_float else trial.suggest_int
        low, high, step = distribution.low, distribution.high, distribution.step
        params[key] = suggest_number(key, low, high, log=distribution.log, step=step)
    return params


def walk(
    space: Space, config: TrainingConfig, values: Mapping[str, Sequence[Any]]
) -> Iterator[dict[str, Any]]:
    """Yield each configuration once that some values of each setting make: a setting whose
    condition does not hold is not in it. The last setting changes fastest.

    Args:
        space: The space.
        config: The settings of every trial.
        values: The values of each setting.
    """
    keys = list(space)

    def onward(at: int, chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if at == len(keys):
            yield chosen
        elif is_active(space, keys[at], config, chosen):
            for value in values[keys[at]]:
                yield from onward(at + 1, chosen | {keys[at]: value})
        else:
            yield from onward(at + 1, chosen)

    return onward(0, {})


def ends_of(distribution: Distribution) -> tuple[Any, ...]:
    """Return the choices, or the lowest and the highest value."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return (distribution.low, distribution.high)


def edges(space: Space) -> dict[str, list[Any]]:
    """Return the ends of each setting, and what else of it a condition names."""
    values = {key: list(ends_of(distribution)) for key, distribution in space.items()}
    for when in space.conditions.values():
        for name in when.keys() & values.keys():
            values[name] += [value for value in when[name] if value not in values[name]]
    return values


def corners(space: Space, config: TrainingConfig) -> Iterator[dict[str, Any]]:
    """Yield each bound and each choice of each setting alone, then all lowest and all highest.

    With a conditional setting come those that make its condition hold; one whose condition never
    does is left out.
    """
    for key, distribution in space.items():
        context = context_of(space, key, config)
        if context is not None:
            for end in ends_of(distribution):
                yield context | {key: end}
    for at in (0, -1):
        yield from walk(space, config, {key: [ends_of(space[key])[at]] for key in space})


def context_of(space: Space, key: str, config: TrainingConfig) -> dict[str, Any] | None:
    """Return values of the settings that a setting's condition depends on, with which it holds; or
    None where it never does."""
    above = Space({name: space[name] for name in ancestors(space, key)}, space.conditions)
    chosen = walk(above, config, edges(above))
    return next((each for each in chosen if is_active(space, key, config, each)), None)


def ancestors(space: Space, key: str) -> list[str]:
    """Return the settings of the space that a condition depends on, those of their own first."""
    names: list[str] = []
    for name in space.conditions.get(key, {}):
        if name in space:
            names += [*ancestors(space, name), name]
    return list(dict.fromkeys(names))


def as_drawn(distribution: Distribution, value: Any) -> Any:
    """Return a value as a distribution has it: of a whole number, 16 and not 16.0.

    Raises:
        ValueError: The distribution does not have it.
    """
    if isinstance(distribution, CategoricalDistribution):
        for choice in distribution.choices:
            if is_same(choice, value):
                return choice
        raise ValueError(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(value)
    low, high, step = distribution.low, distribution.high, distribution.step
    if not low <= value <= high:  # nor is NaN
        raise ValueError(value)
    if step is not None and not math.isclose(steps := (value - low) / step, round(steps)):
        raise ValueError(value)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def with_settings(config: TrainingConfig, changed: Mapping[str, Any]) -> TrainingConfig:
    """Return `config` with some settings changed, by keys as `parse_space` has them.

    The batch sampler and its options are checked only where they change.

    Raises:
        ConfigError: The changed settings do not fit.
    """
    context = {"check_samplers": bool(changed.keys() & {"sampler", "sampler_options"})}
    settings = config.model_dump()
    for key, value in changed.items():
        *path, name = key.split(".")
        table = settings
        for part in path:
            table = table.setdefault(part, {})
        table[name] = value
    return TrainingConfig.checked(settings, context=context)
