"""What the storage holds of a trial as a worker takes it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from impon_hpo.storage.trials import PRUNED, UNTIL, USED, epochs_of


@dataclass(frozen=True)
class Past:
    """What the storage holds of a trial as it begins or goes on: it may have been interrupted, or
    have lost its worker.

    Args:
        epochs: What is recorded of its epochs, by number.
        reported: The epochs whose accuracy Optuna has.
        used: Key of the reference that it used, or "".
        pruned: Why it is to end, or "": the pruner said so, or nothing can promote it any more.
        until: The epoch at which it waits to be promoted, or None.
    """

    epochs: Mapping[int, Mapping[str, Any]]
    reported: frozenset[int]
    used: str = ""
    pruned: str = ""
    until: int | None = None

    @classmethod
    def of(cls, trial: optuna.Trial) -> Past:
        """Return the past of a live trial."""
        frozen = trial.storage.get_trial(trial._trial_id)
        return cls(
            epochs=epochs_of(frozen.user_attrs),
            reported=frozenset(frozen.intermediate_values),
            used=frozen.user_attrs.get(USED, ""),
            pruned=frozen.user_attrs.get(PRUNED, ""),
            until=frozen.user_attrs.get(UNTIL),
        )
