"""What a trial had come to before: it may have been interrupted, or have lost its worker."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import optuna

from impon_hpo.storage.trials import EPOCH_SECONDS, EPOCHS, PRUNED, USED, WASTED


@dataclass(frozen=True)
class Begun:
    """What the storage holds of a trial as it begins or goes on.

    Args:
        epochs: A mapping an epoch, with the fields of `EpochResult`.
        reported: The epochs whose accuracy Optuna has.
        used: Key of the reference that it used, or "".
        pruned: Why it was to end when its worker was lost, or "".
    """

    epochs: tuple[dict[str, Any], ...] = ()
    reported: frozenset[int] = frozenset()
    used: str = ""
    pruned: str = ""

    def trained_again(self, trial: optuna.Trial, *, n_kept: int) -> Begun:
        """Write down as wasted what was trained after the first `n_kept` epochs and is lost."""
        lost = self.epochs[n_kept:]
        before = trial.user_attrs.get(WASTED, {})
        seconds = sum(epoch[key] for epoch in lost for key in EPOCH_SECONDS)
        trial.set_user_attr(
            WASTED,
            {
                "epochs": before.get("epochs", 0) + len(lost),
                "cost": before.get("cost", 0) + sum(epoch["cost"] for epoch in lost),
                "seconds": before.get("seconds", 0.0) + seconds,
            },
        )
        return dataclasses.replace(self, epochs=self.epochs[:n_kept])


def begun_trial(trial: optuna.Trial | optuna.trial.FixedTrial) -> Begun:
    """Return what a live trial had come to before it was asked for."""
    if not isinstance(trial, optuna.Trial):  # a FixedTrial has no past
        return Begun()
    found = trial.storage.get_trial(trial._trial_id)
    return Begun(
        epochs=tuple(found.user_attrs.get(EPOCHS, ())),
        reported=frozenset(found.intermediate_values),
        used=found.user_attrs.get(USED, ""),
        pruned=found.user_attrs.get(PRUNED, ""),
    )
