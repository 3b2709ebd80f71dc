"""Optuna's pruners and study samplers, by their own names and arguments."""

from __future__ import annotations

import collections.abc
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import optuna
import sqlalchemy.exc
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from impon_hpo.errors import ConfigError, ImponHpoError
from impon_hpo.lookup import find, suggestion
from impon_hpo.settings import WORDS
from impon_hpo.storage.connect import no_experimental_warnings
from impon_hpo.tuning.promotion import PROMOTE, promotion_of

Base = TypeVar("Base", BasePruner, BaseSampler)

FIXED_ORDER = ("GridSampler", "QMCSampler")
"""Study samplers whose seed decides an order that all workers go through together."""

NONE = "none"
"""What an argument is set to that is to be None, which TOML does not have."""


def make_pruner(table: Mapping[str, Any], *, epochs: int) -> BasePruner:
    """Make the pruner that `[pruner]` describes: `name` and the arguments of that class.

    Resources that Optuna would guess from the first trials are set: `min_resource` to 1 epoch,
    Hyperband's `max_resource` to the horizon. A wrapped pruner is a table of the same kind, or its
    name; "none" is None. Under "promote" no pruner decides: trials wait.

    Raises:
        ConfigError: The name or an argument is unknown or missing, or a value does not fit.
    """
    promotion = promotion_of(table, epochs=epochs)
    if promotion is not None:
        if not promotion.rungs:
            raise ConfigError(
                f"pruner.min_resource must be below the epochs of a run ({epochs}), since trials "
                f"wait at that epoch, but got {promotion.min_resource}."
            )
        return optuna.pruners.NopPruner()
    return _pruner(table, epochs)


def _pruner(table: Mapping[str, Any], epochs: int, *, inner: bool = False) -> BasePruner:
    if inner and table.get("name") == PROMOTE:
        raise ConfigError(
            f"'{PROMOTE}' decides which trials go on; it is not a pruner that another one can wrap."
        )
    known = {"SuccessiveHalvingPruner": {"min_resource": 1}} | {
        "HyperbandPruner": {"min_resource": 1, "max_resource": epochs}
    }
    cls = _class_of(optuna.pruners, BasePruner, table, "pruner")
    arguments = known.get(cls.__name__, {}) | dict(table)
    return _made(
        cls, BasePruner, arguments, "pruner", lambda part: _pruner(part, epochs, inner=True)
    )


def make_study_sampler(table: Mapping[str, Any], *, seed: int, number: int) -> BaseSampler:
    """Make the study sampler that `[study_sampler]` describes: `name` and that class's arguments.

    Args:
        table: The table; an argument that is a study sampler of its own is a table of the same
            kind, or its name; "none" is None.
        seed: The study's seed.
        number: Of the trial that is to be proposed. The generator depends on seed and number,
            so that an interrupted study proposes what it would have otherwise, and workers do not
            propose the same. Samplers that go through a fixed order, which is in the storage, get
            the same generator for all trials.

    Raises:
        ConfigError: The name or an argument is unknown or missing, or a value does not fit.
    """
    if "seed" in table:
        raise ConfigError("study_sampler.seed is derived: set the study's `seed` instead.")
    arguments = dict(table)
    cls = sampler_class(table)
    if "seed" in inspect.signature(cls).parameters:
        drawn = [seed, 0 if cls.__name__ in FIXED_ORDER else number]
        arguments["seed"] = int(np.random.SeedSequence(drawn).generate_state(1)[0])
    return _made(
        cls,
        BaseSampler,
        arguments,
        "study sampler",
        lambda part: make_study_sampler(part, seed=seed, number=number),
    )


def sampler_class(table: Mapping[str, Any]) -> type[BaseSampler]:
    """Return the class that `[study_sampler]` names.

    Raises:
        ConfigError: There is none of that name.
    """
    return _class_of(optuna.samplers, BaseSampler, table, "study sampler")


def proposing(params: Mapping[str, Any]) -> BaseSampler:
    """Return a study sampler that proposes these values."""
    with no_experimental_warnings():
        return PartialFixedSampler(dict(params), RandomSampler())


def _family(module: ModuleType, base: type[Base]) -> dict[str, type[Base]]:
    # __dict__ and not dir(): some of Optuna's names import optional packages when touched.
    members = {name: getattr(module, name) for name in module.__all__}
    return {
        name: member
        for name, member in members.items()
        if inspect.isclass(member) and issubclass(member, base) and not inspect.isabstract(member)
    }


def _class_of(
    module: ModuleType, base: type[Base], table: Mapping[str, Any], kind: str
) -> type[Base]:
    name = table.get("name")
    if not isinstance(name, str):
        raise ConfigError(
            f"[{kind.replace(' ', '_')}] must have a name, such as "
            f"{sorted(_family(module, base))}, but got {dict(table)}."
        )
    known_names = _family(module, base) | ({PROMOTE: base} if base is BasePruner else {})
    cls = find(known_names, name, kind)
    if not callable(cls):
        raise ConfigError(f"{kind} '{name}' must be a class, but is {cls!r}.")
    return cls


def _made(
    cls: type[Base],
    base: type[Base],
    table: Mapping[str, Any],
    kind: str,
    make: Callable[[Mapping[str, Any]], Base],
) -> Base:
    """Make a pruner or study sampler; `make` makes those among its arguments."""
    name = table["name"]
    arguments = {key: value for key, value in table.items() if key != "name"}
    known = inspect.signature(cls).parameters
    takes = f"It takes: {', '.join(known)}." if known else "It takes no arguments."
    open_ended = any(each.kind == each.VAR_KEYWORD for each in known.values())
    for argument in arguments:
        if argument not in known and not open_ended:
            raise ConfigError(
                f"{name} has no argument '{argument}'.{suggestion(argument, known)} {takes}"
            )
    for argument, parameter in known.items():
        needed = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if needed and argument not in arguments:
            raise ConfigError(f"{name} needs {argument}. {takes}")
    types = _types(cls)
    for argument, value in arguments.items():
        arguments[argument] = _argument(
            f"{name}: {argument}", value, types.get(argument, Any), base, make
        )
    try:
        with no_experimental_warnings():
            algorithm = cls(**arguments)
    except Exception as error:  # a class of the user's may raise anything
        raise ConfigError(f"{name}: {str(error) or type(error).__name__}") from error
    if not isinstance(algorithm, base):
        raise ConfigError(
            f"{kind} '{name}' must be an optuna {base.__name__}, but is {algorithm!r}."
        )
    return algorithm


def _argument(
    where: str,
    value: Any,
    wanted: Any,
    base: type[Base],
    make: Callable[[Mapping[str, Any]], Base],
) -> Any:
    """Return an argument as its annotation wants it; Optuna itself looks at few of them.

    Raises:
        ConfigError: The value is of another type.
    """
    kinds = typing.get_args(wanted) or (wanted,)
    optional = type(None) in kinds
    if value == NONE and optional:
        return None
    if any(inspect.isclass(kind) and issubclass(kind, base) for kind in kinds):
        if isinstance(value, Mapping):
            return make(value)
        if isinstance(value, str):
            return make({"name": value})
        or_none = ' or "none"' if optional else ""
        raise ConfigError(
            f"{where} = {value!r} must be a name, a table with a name and arguments{or_none}."
        )
    try:
        strict = TypeAdapter(wanted, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
        strict.validate_python(value)
    except (PydanticSchemaGenerationError, PydanticUserError):
        pass  # an annotation that only a type checker understands
    except ValidationError as error:
        reasons = dict.fromkeys(
            WORDS.get(mistake["type"], mistake["msg"])
            for mistake in error.errors()
            if mistake["type"] != "none_required"
        )
        words = ", or: ".join(reasons).replace("an instance of Sequence", "a list")
        raise ConfigError(f"{where} = {value!r}: {words}.") from None
    return value


def _types(cls: type) -> dict[str, Any]:
    """Return the annotations of a class's arguments that are more than text."""
    names = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    # What a module imports for type checkers only.
    usual = vars(collections.abc) | vars(typing) | {"FrozenTrial": FrozenTrial}
    types: dict[str, Any] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.annotation is parameter.empty:
            continue
        holder = SimpleNamespace(__annotations__={name: parameter.annotation})
        try:
            types |= typing.get_type_hints(holder, usual | names)
        except (NameError, TypeError, AttributeError, SyntaxError):
            continue
    return types


class BlamedSampler(BaseSampler):
    """A study sampler whose errors say whose they are: no trial has failed by them.

    Args:
        sampler: The study sampler.
    """

    def __init__(self, sampler: BaseSampler) -> None:
        self._sampler = sampler

    def reseed_rng(self) -> None:
        """As `BaseSampler` has it."""
        self._sampler.reseed_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As `BaseSampler` has it."""
        with self._blamed():
            return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As `BaseSampler` has it."""
        with self._blamed():
            return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """As `BaseSampler` has it."""
        with self._blamed():
            return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """As `BaseSampler` has it."""
        with self._blamed():
            self._sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """As `BaseSampler` has it."""
        with self._blamed():
            self._sampler.after_trial(study, trial, state, values)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        try:
            yield
        # The storage's errors are not the sampler's, which only reads it.
        except (ImponHpoError, optuna.exceptions.OptunaError, sqlalchemy.exc.SQLAlchemyError):
            raise
        except OSError:
            raise
        except Exception as error:
            raise ImponHpoError(
                f"The study sampler {type(self._sampler).__name__} fails: "
                f"{type(error).__name__}: {error}. No trial is lost. Mend the cause and run the "
                "same command again, or take another [study_sampler] and another --storage."
            ) from error
