"""Combinations: what `GridSampler` and `BruteForceSampler` try, each once, until all are tried.

Optuna's own samplers of a grid stop `Study.optimize` and nothing else, and two workers that ask at
the same moment may get the same combination. Here it follows from the numbers of the trials, which
the storage gives out once: a trial gets the first combination that no trial before it has. So it
does not matter who asks, when, and how often a trial is taken up again.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import BruteForceSampler, GridSampler, PartialFixedSampler
from optuna.trial import FrozenTrial

from impon_hpo.errors import ConfigError, TrialSettingsError
from impon_hpo.lookup import suggestion
from impon_hpo.storage.trials import is_finished
from impon_hpo.training.config import TrainingConfig
from impon_hpo.tuning.algorithms import sampler_class
from impon_hpo.tuning.enqueued import check_value, enqueued_values
from impon_hpo.tuning.space import Distribution, Space, is_active

MOST = 10_000
"""More combinations than that are left to Optuna's own sampler: no study comes to their end."""


class Combinations:
    """The combinations that a study tries, in its order.

    Args:
        values: The values of each setting of the space.
        space: The space.
        config: The settings of every trial, which conditions of the space may name.
        seed: Decides the order.

    Example:
        >>> from impon_hpo import TrainingConfig
        >>> from impon_hpo.tuning.combinations import Combinations
        >>> from impon_hpo.tuning.space_syntax import parse_space
        >>> space = parse_space({"width": [4, 8, 16]})
        >>> combinations = Combinations({"width": [4, 8]}, space, TrainingConfig(), seed=0)
        >>> len(combinations), combinations.n_trials([])
        (2, 2)
    """

    def __init__(
        self,
        values: Mapping[str, Sequence[Any]],
        space: Space,
        config: TrainingConfig,
        *,
        seed: int,
    ) -> None:
        self._values, self._space, self._config, self._seed = values, space, config, seed

    @cached_property
    def _all(self) -> dict[str, dict[str, Any]]:
        # Made when it is needed: every command that reads a study file has checked the values.
        product = [
            dict(zip(self._values, each, strict=True))
            for each in itertools.product(*self._values.values())
        ]
        random.Random(self._seed).shuffle(product)
        # Of two that differ only in a setting that is not asked for, one.
        asked_for = (self._asked_for(each) or each for each in product)
        return {_key(each): each for each in asked_for}

    def __len__(self) -> int:
        return len(self._all)

    def of(self, number: int, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        """Return the combination of a trial.

        Args:
            number: The trial's number.
            trials: Trials of the study, all of those before it among them.

        Raises:
            TrialSettingsError: No combination is left for it.
        """
        params = self._given_out(trials)[number]
        if params is None:
            raise TrialSettingsError(
                f"No combination is left for it: all {len(self)} of the grid are tried, or are "
                "being tried."
            )
        return params

    def n_trials(self, trials: Sequence[FrozenTrial]) -> int:
        """Return how many trials count when all combinations are tried: those that do already, or
        will, and one for each combination that none of them has."""
        return sum(map(_counts, trials)) + self._n_left(trials)

    def all_tried(self, trials: Sequence[FrozenTrial]) -> bool:
        """Return whether all of them are tried, and no trial is to be finished any more."""
        return all(trial.state.is_finished() for trial in trials) and not self._n_left(trials)

    @property
    def exhausted(self) -> str:
        """The line that says so."""
        if len(self) == 1:
            return "The one combination of the grid is tried."
        return f"All {len(self)} combinations of the grid are tried."

    def _n_left(self, trials: Sequence[FrozenTrial]) -> int:
        given = zip(self._given_out(trials), trials, strict=True)
        had = {_key(params) for params, trial in given if params is not None and _counts(trial)}
        return sum(key not in had for key in self._all)

    def _given_out(self, trials: Sequence[FrozenTrial]) -> list[dict[str, Any] | None]:
        """Return the combination of each trial; None: it has none."""
        given: list[dict[str, Any] | None] = []
        taken: set[str] = set()
        for trial in trials:
            params = self._first_free(trial, taken)
            given.append(params)
            if params is not None and _counts(trial):
                taken.add(_key(params))
        return given

    def _first_free(self, trial: FrozenTrial, taken: set[str]) -> dict[str, Any] | None:
        """Return the first combination with the values that a trial has already that is not taken;
        one that has ended has what it has."""
        known = enqueued_values(trial)
        whole = self._asked_for(known) if known else None
        if whole is not None or trial.state.is_finished():
            return whole
        for key, each in self._all.items():
            if key not in taken and known.items() <= each.items():
                return each
        # Somebody wants values beside the grid. One that changes a condition may leave a setting
        # without a value: that is no combination.
        beside = (self._asked_for({**each, **known}) for each in self._all.values() if known)
        return next((each for each in filter(None, beside) if _key(each) not in taken), None)

    def _asked_for(self, known: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return those of the known values that a trial asks for, be they in the space or not; None
        if it asks for more."""
        asked: dict[str, Any] = {}
        for key in self._space:
            if not is_active(self._space, key, self._config, asked):
                continue
            if key not in known:
                return None
            asked[key] = known[key]
        return asked


def combinations_of(
    table: Mapping[str, Any], space: Space, config: TrainingConfig, *, seed: int
) -> Combinations | None:
    """Return the combinations that the study sampler of `[study_sampler]` tries; None: it does not
    go through combinations, or there are too many for an end.

    Raises:
        ConfigError: Its grid or what it fixes does not fit the space.
    """
    fixed: dict[str, Any] = {}
    cls = sampler_class(table)
    while cls is PartialFixedSampler:
        given = _flat(table.get("fixed_params"))
        given = {key: _checked("fixed_params", key, given[key], space) for key in given}
        fixed = given | fixed  # the outermost one decides
        base = table.get("base_sampler")
        table = base if isinstance(base, Mapping) else {"name": base}
        cls = sampler_class(table)
    if cls is GridSampler:
        values = _flat(table.get("search_space"))
        for key, entry in values.items():
            if not isinstance(entry, list) or not entry:
                raise ConfigError(
                    f"study_sampler.search_space.{key} must be a list of values, but got {entry!r}."
                )
            values[key] = [_checked("search_space", key, value, space) for value in entry]
        lacking = [
            key
            for key, distribution in space.items()
            if key not in values and key not in fixed and not distribution.single()
        ]
        if lacking:
            raise ConfigError(
                f"study_sampler.search_space lacks {', '.join(lacking)}: a grid has values for "
                "each setting of [space]."
            )
    elif cls is BruteForceSampler:
        values = {}
    else:
        return None
    values |= {key: candidates(key, space[key]) for key in space if key not in values | fixed}
    values |= {key: [value] for key, value in fixed.items()}
    n = 1
    for entry in values.values():
        n *= len(entry)
    return Combinations(values, space, config, seed=seed) if n <= MOST else None


def candidates(key: str, distribution: Distribution) -> Sequence[Any]:
    """Return all values of a distribution.

    Raises:
        ConfigError: They cannot be counted.
    """
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if distribution.single():
        return [distribution.low]
    if distribution.step is None:
        raise ConfigError(
            f"BruteForceSampler tries all combinations, so space.{key} must have a step, or "
            "choices, but it is any number of a range."
        )
    # As text has them: 0.1 + 2 * 0.1 is another number than 0.3.
    low, high, step = (
        Decimal(str(number)) for number in (distribution.low, distribution.high, distribution.step)
    )
    return [float(low + index * step) for index in range(int((high - low) / step) + 1)]


def _checked(argument: str, key: str, value: Any, space: Space) -> Any:
    """Return a value as a trial has it: of a whole number, 16 and not 16.0."""
    if key not in space:
        raise ConfigError(
            f"study_sampler.{argument} has '{key}', which is not in [space]."
            f"{suggestion(key, space)}"
        )
    try:
        return check_value(key, value, space[key])
    except ConfigError as error:
        raise ConfigError(f"study_sampler.{argument}: {error}") from error


def _flat(table: Any, prefix: str = "") -> dict[str, Any]:
    """Return a table by keys as [space] has them: `augment_options.mixup.alpha`."""
    flat: dict[str, Any] = {}
    for key, entry in dict(table or {}).items():
        flat |= (
            _flat(entry, f"{prefix}{key}.") if isinstance(entry, dict) else {prefix + key: entry}
        )
    return flat


def _counts(trial: FrozenTrial) -> bool:
    # What was stopped under Optuna's own `optimize` has tried nothing.
    return is_finished(trial) or not trial.state.is_finished()


def _key(params: Mapping[str, Any]) -> str:
    numbers = (int, float)
    return json.dumps(
        {key: float(value) if type(value) in numbers else value for key, value in params.items()},
        sort_keys=True,
        default=str,
    )
