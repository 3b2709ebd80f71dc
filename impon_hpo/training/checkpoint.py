"""A checkpoint: the state of a training run in one file, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from impon_hpo.errors import CheckpointError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.state_file import read_state, write_state

FORMAT = 5


class Checkpoint:
    """The file that a training run continues from; nothing in it is ever unpickled as code.

    Args:
        path: The file; its folder is made when something is saved.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file by `state`: temporary file, flush to disk, rename.

        Raises:
            CheckpointError: It cannot be written (the former file is then still whole).
        """
        write_state(self.path, {"format": FORMAT} | state, "Checkpoint")

    def delete(self) -> None:
        """Remove the file, if it is there, and what a process that was killed left of it."""
        for path in (self.path, *self.path.parent.glob(f"{self.path.name}*.tmp")):
            path.unlink(missing_ok=True)

    def load(self, config: TrainingConfig, device: torch.device) -> dict[str, Any] | None:
        """Return the saved state with its tensors on `device`, or None where there is no file.

        Raises:
            CheckpointError: The file is broken, or of a run with other settings.
        """
        if not self.path.exists():
            return None
        advice = "Delete it to train from the start."
        state = read_state(self.path, device, "Checkpoint", advice)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise CheckpointError(
                f"'{self.path}' is no checkpoint of format {FORMAT} of impon-hpo. {advice}"
            )
        asked = config.identity()
        different = [key for key in asked if state["config"].get(key) != asked[key]]
        if different:
            listed = ", ".join(f"{key} = {state['config'].get(key)!r}" for key in different)
            raise CheckpointError(
                f"Checkpoint '{self.path}' is of a run with {listed}. Delete it to train from the "
                "start, or train with its settings."
            )
        return dict(state)
