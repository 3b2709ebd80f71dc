"""What a trial's run returns to Optuna, and which directions its study must have for that."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.study import StudyDirection

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning.report_signal import METRIC, ReportSignal

MAXIMIZE, MINIMIZE = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE

DIRECTIONS = {
    "metric": MAXIMIZE,
    "cost": MINIMIZE,
    "parameters": MINIMIZE,
    "seconds": MINIMIZE,
}
"""Each value that a run has, and the direction that is better."""


def check_values(values: Sequence[str], signal: ReportSignal) -> None:
    """Check the names of the values that are asked for.

    Args:
        values: The names.
        signal: What is reported to the pruner.

    Raises:
        ConfigError: They are not names of values, one stands twice, or "metric" is not among them;
            or something is to be reported, where Optuna takes no reports.
    """
    for name in [values] if isinstance(values, str) else values:
        if name not in DIRECTIONS:
            raise ConfigError(
                f"values must be some of {', '.join(DIRECTIONS)}, but got {name!r}."
                f"{suggestion(str(name), DIRECTIONS)}"
            )
    if isinstance(values, str) or "metric" not in values or len(set(values)) < len(values):
        raise ConfigError(
            "values must be names in a tuple, each once, and 'metric' among them, such as "
            f"('metric', 'cost'), but got {values!r}."
        )
    if len(values) > 1 and signal != METRIC:
        raise ConfigError(
            f"Of several values nothing is reported, so report = '{signal.report}' has no effect. "
            "Leave it out, or ask for one value."
        )


def check_directions(study: optuna.Study, values: Sequence[str]) -> None:
    """Check that what is better is so for the study, too.

    Raises:
        ConfigError: The study has other directions, or more or fewer.
    """
    needed, directions = [DIRECTIONS[name] for name in values], study.directions
    if directions == needed:
        return
    had, words = ([one.name.lower() for one in some] for some in (directions, needed))
    given = f"the directions {had}" if len(had) > 1 else f"the direction '{had[0]}'"
    arguments = f'direction="{words[0]}"' if len(words) == 1 else f"directions={words}"
    several = ""
    if len(values) == 1 and len(directions) > 1:
        several = (
            f" Or ask for as many values, such as Objective(…, values=('metric', 'cost')), in the "
            f"order of the directions: {', '.join(DIRECTIONS)}."
        )
    raise ConfigError(
        f"Study '{study.study_name}' has {given}, but Objective returns {_meant(values)}. "
        f"Use optuna.create_study({arguments}).{several}"
    )


def _meant(values: Sequence[str]) -> str:
    better = {MAXIMIZE: "higher", MINIMIZE: "lower"}
    return ", ".join(f"'{name}', of which {better[DIRECTIONS[name]]} is better" for name in values)


def pruner_without_effect(study: optuna.Study) -> str:
    """Return that a study of several values never prunes, or "" where its pruner never does."""
    if isinstance(study.pruner, optuna.pruners.NopPruner):
        return ""
    return (
        f"{type(study.pruner).__name__} has no effect: Optuna prunes only where a trial has one "
        "value. create_study(…, pruner=optuna.pruners.NopPruner()) says so, too."
    )


def values_of(run: TrainingRun, values: Sequence[str]) -> float | tuple[float, ...]:
    """Return the values of a run that has come to its end, in the order in which they are asked
    for: a number where it is one, else a tuple."""
    numbers = {
        "metric": run.results[-1].val_accuracy,
        "cost": float(sum(result.cost for result in run.results)),
        "parameters": float(sum(parameter.numel() for parameter in run.model.parameters())),
        "seconds": sum(result.seconds for result in run.results),
    }
    asked = tuple(numbers[name] for name in values)
    return asked[0] if len(asked) == 1 else asked
