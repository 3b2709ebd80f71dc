"""The search space: over which training settings a study searches, as Optuna distributions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FixedTrial, FrozenTrial

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.training.config import TrainingConfig

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

_MAKERS: dict[str, tuple[type[BaseDistribution], set[str]]] = {
    "float": (FloatDistribution, {"low", "high", "log", "step"}),
    "int": (IntDistribution, {"low", "high", "log", "step"}),
    "categorical": (CategoricalDistribution, {"choices"}),
}


def parse_space(table: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Turn `[space]` of a study file into Optuna distributions.

    A setting inside of a table, such as `space.augment_options.mixup.alpha`, has the key
    "augment_options.mixup.alpha".

    Raises:
        ConfigError: A key, a type or a bound is wrong.
    """
    return {key: _parse_one(key, entry) for key, entry in _flat(table)}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, entry in table.items():
        holds_tables = isinstance(entry, dict) and all(isinstance(x, dict) for x in entry.values())
        if holds_tables and entry:
            yield from _flat(entry, f"{prefix}{key}.")
        else:
            yield prefix + key, entry


def _parse_one(key: str, entry: Any) -> BaseDistribution:
    if not isinstance(entry, dict) or "type" not in entry:
        raise ConfigError(
            f"space.{key} must be a table such as "
            '{ type = "float", low = 1e-3, high = 0.5, log = true }, '
            f"but got {entry!r}."
        )
    kind = entry["type"]
    if kind not in _MAKERS:
        raise ConfigError(
            f"space.{key}.type must be 'float', 'int' or 'categorical', but got {kind!r}."
        )
    maker, allowed = _MAKERS[kind]
    arguments = {name: value for name, value in entry.items() if name != "type"}
    for name in arguments:
        if name not in allowed:
            raise ConfigError(
                f"Unknown key 'space.{key}.{name}'.{suggestion(name, allowed)} "
                f"A {kind} takes: {', '.join(sorted(allowed))}."
            )
    if kind != "categorical":
        for name in ("low", "high"):
            if isinstance(arguments.get(name), bool) or not isinstance(
                arguments.get(name), int | float
            ):
                raise ConfigError(
                    f"space.{key}.{name} must be a number, but got {arguments.get(name)!r}."
                )
    elif not isinstance(arguments.get("choices"), list):
        raise ConfigError(
            f"space.{key}.choices must be a list, but got {arguments.get('choices')!r}."
        )
    try:
        return maker(**arguments)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"space.{key}: {error}") from error


def check_space(config: TrainingConfig, space: Mapping[str, BaseDistribution]) -> None:
    """Check that every setting of the space exists, can be searched over, and fits at its bounds.

    Raises:
        ConfigError: A setting does not exist or is fixed, or a bound is not a valid setting.
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
    for changed in corners(space):
        try:
            with_settings(config, changed)
        except ConfigError as error:
            raise ConfigError(
                f"space allows {changed}, which is not a valid run: {error}"
            ) from error


def corners(space: Mapping[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
    """Yield each bound and each choice of each setting alone, then all lowest and all highest."""
    lowest, highest = {}, {}
    for key, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            ends: tuple[Any, ...] = distribution.choices
        else:
            assert isinstance(distribution, FloatDistribution | IntDistribution)
            ends = (distribution.low, distribution.high)
        for end in ends:
            yield {key: end}
        lowest[key], highest[key] = ends[0], ends[-1]
    yield lowest
    yield highest


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


def suggest(
    trial: optuna.Trial | FixedTrial | FrozenTrial, space: Mapping[str, BaseDistribution]
) -> dict[str, Any]:
    """Ask the trial for a value of each setting of the space."""
    params: dict[str, Any] = {}
    for key, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            params[key] = trial.suggest_categorical(key, distribution.choices)
            continue
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        is_float = isinstance(distribution, FloatDistribution)
        suggest_number: Any = trial.suggest_float if is_float else trial.suggest_int
        low, high, step = distribution.low, distribution.high, distribution.step
        params[key] = suggest_number(key, low, high, log=distribution.log, step=step)
    return params
