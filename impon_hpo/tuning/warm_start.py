"""Warm starts: the best configurations of an earlier study are the first that a study tries."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from impon_hpo.errors import ConfigError, StorageError
from impon_hpo.lookup import suggestion
from impon_hpo.storage.trials import FROM, IDENTITY, INTERRUPTED, REASON, is_finished, space_words
from impon_hpo.tuning.lease import claim
from impon_hpo.tuning.space import Space, as_drawn
from impon_hpo.tuning.space_syntax import parse_space

log = logging.getLogger("impon_hpo")

N_BEST = 5
"""Configurations of an earlier study that are tried unless told otherwise."""


@dataclass(frozen=True)
class Earlier:
    """A configuration that an earlier study has tried, as far as another one's space has it.

    Args:
        study: Name of the earlier study.
        trial: Its number there.
        params: Its values, of those settings that the space has and at which they are possible.
    """

    study: str
    trial: int
    params: dict[str, Any]


def enqueue_best(
    study: optuna.Study,
    from_study: optuna.Study,
    space: Mapping[str, Any],
    n: int = N_BEST,
) -> list[dict[str, Any]]:
    """Have a study try the best configurations of another one first.

    They are those of its complete trials, the best first, no two alike. Settings that `space` does
    not have, and values outside of it, are left out, which is logged; the study sampler draws what
    is left open. What the study has tried or enqueued already is not enqueued again. Each trial has
    the user attribute `impon:from`: the name of the other study and the number of the trial there.

    Args:
        study: The study that is to try them.
        from_study: The other study, from any storage, of either direction.
        space: Settings that each trial draws, by name, as `Objective` takes them.
        n: How many at most.

    Returns:
        What was enqueued, in that order.

    Raises:
        ConfigError: `from_study` has several objectives, so that no trial is the best.

    Example:
        >>> import optuna
        >>> from optuna.distributions import FloatDistribution
        >>> from impon_hpo import enqueue_best
        >>> optuna.logging.set_verbosity(optuna.logging.ERROR)
        >>> def loss(trial):
        ...     return trial.suggest_int("k", 0, 1) + (trial.suggest_float("lr", 0, 1) - 0.3) ** 2
        >>> earlier = optuna.create_study(study_name="earlier")
        >>> for lr in (0.1, 0.25, 0.9):
        ...     earlier.enqueue_trial({"lr": lr, "k": 0})
        >>> earlier.optimize(loss, n_trials=3)
        >>> study = optuna.create_study(direction="maximize")
        >>> enqueue_best(study, earlier, {"lr": FloatDistribution(0.01, 0.5)}, n=2)
        [{'lr': 0.25}, {'lr': 0.1}]
        >>> study.trials[0].user_attrs["impon:from"]
        {'study': 'earlier', 'trial': 1}
    """
    earlier, notes = best_of(from_study, parse_space(space), n)
    for note in notes:
        log.info(note)
    return [one.params for one in enqueue(study, earlier, log.info)]


def best_of(study: optuna.Study, space: Space, n: int) -> tuple[list[Earlier], list[str]]:
    """Return the best configurations of a study as far as a space has them, the best first, no two
    alike; and what is left out of them, in words.

    Trials that break a constraint are no candidates.

    Args:
        study: The study.
        space: The space.
        n: How many at most.

    Raises:
        ConfigError: The study has several objectives.
    """
    name = study.study_name
    if len(study.directions) > 1:
        raise ConfigError(
            f"Study '{name}' has {len(study.directions)} objectives, so none of its trials is the "
            "best. Give one with a single objective."
        )
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
    complete = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if all(value <= 0 for value in trial.constraints.values())
    ]
    complete.sort(key=lambda trial: (sign * (trial.value or 0.0), trial.number))
    earlier: dict[str, Earlier] = {}
    unknown: dict[str, None] = {}
    outside: list[str] = []
    for trial in complete:
        if len(earlier) == n:
            break
        params = {}
        for key, value in trial.params.items():
            if key not in space:
                unknown[key] = None
                continue
            try:
                params[key] = as_drawn(space[key], value)
            except ValueError:
                words = space_words(distribution_to_json(space[key]))
                outside.append(f"{key} = {value!r} of trial {trial.number} (here: {words})")
        if params:
            earlier.setdefault(_text(params), Earlier(name, trial.number, params))
    notes = []
    if unknown:
        notes.append(f"Of study '{name}', this space does not have: {', '.join(unknown)}.")
    if outside:
        notes.append(f"Of study '{name}', outside of this space: {'; '.join(outside)}.")
    return list(earlier.values()), notes


def left_to_enqueue(trials: Sequence[FrozenTrial], earlier: Sequence[Earlier]) -> list[Earlier]:
    """Return those configurations that none of a study's trials has tried or is to try."""
    known = {_text(_given(trial)) for trial in trials}
    return [one for one in earlier if _text(one.params) not in known]


def enqueue(
    study: optuna.Study,
    earlier: Sequence[Earlier],
    tell: Callable[[str], None],
    *,
    n_trials: int | None = None,
) -> list[Earlier]:
    """Enqueue those of some configurations that a study does not have yet, and return them.

    Args:
        study: The study.
        earlier: The configurations, all of one study, in the order in which they are to be tried.
        tell: Gets a line on what is enqueued, and one on what is not.
        n_trials: Trials that the study is to have in all: none is enqueued above that.
    """
    trials = study.get_trials(deepcopy=False)
    left = left_to_enqueue(trials, earlier)
    if not left:
        return []
    room = len(left)
    if n_trials is not None:
        uncounted = sum(trial.state.is_finished() and not is_finished(trial) for trial in trials)
        room = max(0, n_trials + uncounted - len(trials))
    added = left[:room]
    for one in added:
        study.enqueue_trial(one.params, user_attrs={FROM: {"study": one.study, "trial": one.trial}})
    _drop_twins(study)
    if added:
        begun = (
            f"This study has begun, trials so far: {len(trials)}. Tried next"
            if trials
            else "Tried first"
        )
        tell(f"{begun}: {_named(added)}.")
    if len(left) > room:
        tell(
            f"Left out: {_named(left[room:])}, since this study is to have {n_trials} trials. Ask "
            "for more with --trials."
        )
    return added


def find_study(
    storage: BaseStorage, name: str, *, arm: str, place: str, exact: bool
) -> optuna.Study:
    """Return the study that `--from` means.

    Args:
        storage: Where it is.
        name: Its name, or that of a study of ours with several arms.
        arm: The arm that is wanted of a study of ours.
        place: What to call the storage in a message.
        exact: Whether a study of that very name is meant first.

    Raises:
        ConfigError: A study of ours has no such arm.
        StorageError: There is no such study.
    """
    summaries = {summary.study_name: summary for summary in storage.get_all_studies()}
    identities = {key: one.user_attrs.get(IDENTITY, {}) for key, one in summaries.items()}
    if not (exact and name in summaries):
        arms = {one["arm"]: key for key, one in identities.items() if one.get("study") == name}
        if not arms:
            raise StorageError(
                f"There is no study '{name}' in {place}.{suggestion(name, summaries)} "
                f"It has: {', '.join(summaries) or 'none'}."
            )
        if arm not in arms:
            raise ConfigError(
                f"Study '{name}' has no arm '{arm}' in {place}.{suggestion(arm, arms)} It has: "
                f"{', '.join(arms)}. Say which one with --from-arm."
            )
        name = arms[arm]
    return optuna.load_study(study_name=name, storage=storage)


def _named(earlier: Sequence[Earlier]) -> str:
    numbers = ", ".join(str(one.trial) for one in earlier)
    return f"trial{'s' if len(earlier) > 1 else ''} {numbers} of study '{earlier[0].study}'"


def _given(trial: FrozenTrial) -> dict[str, Any]:
    """Return the values that a trial was enqueued with, or those that it has drawn."""
    params: dict[str, Any] = trial.system_attrs.get("fixed_params", trial.params)
    return params


def _text(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def _drop_twins(study: optuna.Study) -> None:
    """End what two processes have enqueued at the same moment; of twins, the first one stays."""
    first = set[str]()
    for trial in study.get_trials(deepcopy=False):
        if FROM not in trial.user_attrs:
            continue
        text = _text(_given(trial))
        # Only who gets it ends it, and whoever trains a trial holds it.
        if text in first and trial.state == TrialState.WAITING and claim(study, trial._trial_id):
            study._storage.set_trial_user_attr(trial._trial_id, REASON, INTERRUPTED)
            with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another one was faster
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        first.add(text)
