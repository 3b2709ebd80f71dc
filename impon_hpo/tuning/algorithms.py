"""Optuna's pruners and study samplers, by their own names and arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import find, suggestion
from impon_hpo.storage.connect import no_experimental_warnings
from impon_hpo.tuning.promotion import PROMOTE, promotion_of

Base = TypeVar("Base", BasePruner, BaseSampler)

FIXED_ORDER = ("GridSampler", "QMCSampler")
"""Study samplers whose seed decides an order that all workers go through together."""


def make_pruner(table: Mapping[str, Any], *, epochs: int) -> BasePruner:
    """Make the pruner that `[pruner]` describes: `name` and the arguments of that class.

    Resources that Optuna would guess from the first trials are set: `min_resource` to 1 epoch,
    Hyperband's `max_resource` to the horizon. A wrapped pruner is a table of the same kind.
    Under "promote" no pruner decides: trials wait.

    Raises:
        ConfigError: The name or an argument is unknown, or a value does not fit.
    """
    promotion = promotion_of(table, epochs=epochs)
    if promotion is not None:
        if not promotion.rungs:
            raise ConfigError(
                f"pruner.min_resource must be below the epochs of a run ({epochs}), since trials "
                f"wait at that epoch, but got {promotion.min_resource}."
            )
        return optuna.pruners.NopPruner()
    if any(isinstance(value, dict) and value.get("name") == PROMOTE for value in table.values()):
        raise ConfigError(
            f"'{PROMOTE}' decides which trials go on; it is not a pruner that another one can wrap."
        )
    known = {"SuccessiveHalvingPruner": {"min_resource": 1}} | {
        "HyperbandPruner": {"min_resource": 1, "max_resource": epochs}
    }
    arguments = known.get(str(table.get("name")), {}) | {
        key: make_pruner(value, epochs=epochs) if isinstance(value, dict) else value
        for key, value in table.items()
    }
    return _make(optuna.pruners, BasePruner, arguments, "pruner")


def make_study_sampler(table: Mapping[str, Any], *, seed: int, number: int) -> BaseSampler:
    """Make the study sampler that `[study_sampler]` describes: `name` and that class's arguments.

    Args:
        table: The table; an argument that is a table itself is a study sampler of its own.
        seed: The study's seed.
        number: Of the trial that is to be proposed. The generator depends on seed and number,
            so that an interrupted study proposes what it would have otherwise, and workers do not
            propose the same. Samplers that go through a fixed order, which is in the storage, get
            the same generator for all trials.

    Raises:
        ConfigError: The name or an argument is unknown, or a value does not fit.
    """
    if "seed" in table:
        raise ConfigError("study_sampler.seed is derived: set the study's `seed` instead.")
    arguments = {
        key: make_study_sampler(value, seed=seed, number=number)
        if isinstance(value, dict) and "name" in value
        else value
        for key, value in table.items()
    }
    cls = find(_family(optuna.samplers, BaseSampler), str(table.get("name")), "study sampler")
    if callable(cls) and "seed" in inspect.signature(cls).parameters:
        drawn = [seed, 0 if table.get("name") in FIXED_ORDER else number]
        arguments["seed"] = int(np.random.SeedSequence(drawn).generate_state(1)[0])
    return _make(optuna.samplers, BaseSampler, arguments, "study sampler")


def _family(module: ModuleType, base: type[Base]) -> dict[str, type[Base]]:
    # __dict__ and not dir(): some of Optuna's names import optional packages when touched.
    members = {name: getattr(module, name) for name in module.__all__}
    return {
        name: member
        for name, member in members.items()
        if inspect.isclass(member) and issubclass(member, base) and member is not base
    }


def _make(module: ModuleType, base: type[Base], table: Mapping[str, Any], kind: str) -> Base:
    if not isinstance(table.get("name"), str):
        raise ConfigError(
            f"[{kind.replace(' ', '_')}] must have a name, such as "
            f"{sorted(_family(module, base))}, but got {dict(table)}."
        )
    name = table["name"]
    known_names = _family(module, base) | ({PROMOTE: base} if base is BasePruner else {})
    cls = find(known_names, name, kind)
    arguments = {key: value for key, value in table.items() if key != "name"}
    if not callable(cls):
        raise ConfigError(f"{kind} '{name}' must be a class, but is {cls!r}.")
    known = inspect.signature(cls).parameters
    for argument in arguments:
        if argument not in known:
            raise ConfigError(
                f"{name} has no argument '{argument}'.{suggestion(argument, known)} "
                f"It takes: {', '.join(known)}."
            )
    try:
        with no_experimental_warnings():
            algorithm = cls(**arguments)
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"{name}: {error}") from error
    if not isinstance(algorithm, base):
        raise ConfigError(
            f"{kind} '{name}' must be an optuna {base.__name__}, but is {algorithm!r}."
        )
    return algorithm
