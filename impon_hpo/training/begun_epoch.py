"""An epoch of which some steps are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from impon_hpo.training.timing import PhaseTimer

PHASES = ("drawing", "stepping")


@dataclass
class BegunEpoch:
    """What an epoch has come to so far, beside what the moving parts of the run know themselves.

    Args:
        losses: (steps_per_epoch,) float64, the mean loss of each batch, 0 for those to come.
        timer: Has the seconds spent.
        steps: Steps taken.
        rows_scored: Rows scored.
    """

    losses: Tensor
    timer: PhaseTimer
    steps: int = 0
    rows_scored: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "losses": self.losses,
            "seconds": {phase: self.timer.seconds(phase) for phase in PHASES},
            "steps": self.steps,
            "rows_scored": self.rows_scored,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> BegunEpoch:
        """Return the epoch that `state_dict` describes."""
        timer = PhaseTimer(device, state["seconds"])
        return cls(state["losses"].to(device), timer, state["steps"], state["rows_scored"])
