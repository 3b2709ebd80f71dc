"""Enqueued trials: whether what somebody wants to be tried is in the space."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial

from impon_hpo.errors import ConfigError, TrialSettingsError
from impon_hpo.lookup import suggestion
from impon_hpo.storage.trials import REASON
from impon_hpo.tuning.space import Distribution, Space, as_drawn


def frozen(trial: optuna.Trial) -> FrozenTrial:
    """Return a live trial as the storage has it."""
    return trial.storage.get_trial(trial._trial_id)


def enqueued_values(trial: FrozenTrial) -> dict[str, Any]:
    """Return the values of a trial that are known before a study sampler is asked: those that
    somebody enqueued, and those that it was begun with."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


@contextmanager
def blaming_settings(trial: optuna.trial.BaseTrial) -> Iterator[None]:
    """Let a `ConfigError` of a block be the fault of one trial, which is left its reason.

    Raises:
        TrialSettingsError: The settings of the trial are wrong.
    """
    try:
        yield
    except ConfigError as error:
        reason = " ".join(str(error).split())
        trial.set_user_attr(REASON, reason)
        raise TrialSettingsError(reason) from error


def check_enqueued(trial: FrozenTrial, space: Space) -> None:
    """Check the values that a trial has for settings of the space.

    Optuna takes values outside of a space with a warning.

    Raises:
        ConfigError: The space does not have one of them.
    """
    for key, value in enqueued_values(trial).items():
        if key in space:
            check_value(key, value, space[key])


def check_names(trial: FrozenTrial, space: Space) -> None:
    """Check that a trial has values for settings of the space alone.

    Raises:
        ConfigError: It has one for another.
    """
    for key in enqueued_values(trial):
        if key not in space:
            raise ConfigError(
                f"'{key}' is not in the space.{suggestion(key, space)} "
                f"The space has: {', '.join(space)}."
            )


def check_value(key: str, value: Any, distribution: Distribution) -> Any:
    """Return a value as a distribution has it.

    Raises:
        ConfigError: The distribution does not have it.
    """
    try:
        return as_drawn(distribution, value)
    except ValueError:  # None, "abc", NaN …
        raise ConfigError(f"{key} must be {_words(distribution)}, but got {value!r}.") from None


def _words(distribution: Distribution) -> str:
    """Say which values a distribution has."""
    if isinstance(distribution, CategoricalDistribution):
        return f"one of {', '.join(map(repr, distribution.choices))}"
    of_integers = isinstance(distribution, IntDistribution)
    kind = "a whole number" if of_integers else "a number"
    step = None if of_integers and distribution.step == 1 else distribution.step
    steps = "" if step is None else f" in steps of {step:g}"
    return f"{kind} from {distribution.low:g} to {distribution.high:g}{steps}"
