"""A reference in a file: made once, written whole or not at all, checked against the data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from impon_hpo.errors import CheckpointError, ConfigError
from impon_hpo.sampling.reference import Reference
from impon_hpo.training.checkpoint import read_state, write_state
from impon_hpo.training.splits import Splits

FORMAT = "reference 1"


@dataclass(frozen=True)
class KeptReference:
    """A reference, what it cost, and which data it belongs to.

    Args:
        reference: What was learnt about each row.
        cost: Forward-equivalents of the study's model that it took; 0 for prequential.
        maker: "crossfit" or "prequential".
        settings: How it was made, as plain JSON values.
        data: The fingerprint of the training rows that it describes.
    """

    reference: Reference
    cost: int
    maker: str
    settings: dict[str, Any]
    data: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write the file: whole or not at all.

        Raises:
            CheckpointError: It cannot be written.
        """
        state = {
            "format": FORMAT,
            "cost": self.cost,
            "maker": self.maker,
            "settings": self.settings,
            "data": self.data,
            "loss": self.reference.loss.cpu(),
            "probabilities": self.reference.probabilities.half().cpu(),
        }
        if self.reference.trajectory is not None:
            state["trajectory"] = self.reference.trajectory.half().cpu()
        write_state(path, state, "Reference")

    @classmethod
    def load(cls, path: Path, splits: Splits) -> KeptReference:
        """Read the file and check that it describes the training rows of `splits`.

        Raises:
            CheckpointError: The file is missing, broken, or of other data.
        """
        advice = "Delete it, and it is rebuilt."
        state = read_state(path, torch.device("cpu"), "Reference", advice)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise CheckpointError(f"'{path}' is not a '{FORMAT}' of impon-hpo.")
        missing = {"data", "loss", "probabilities", "cost", "maker", "settings"} - set(state)
        if missing:
            raise CheckpointError(f"Reference '{path}' is broken: it lacks {sorted(missing)}.")
        here = splits.fingerprint
        different = [
            f"{key} is {state['data'].get(key)!r} in the file and {value!r} here"
            for key, value in here.items()
            if state["data"].get(key) != value
        ]
        if different:
            raise CheckpointError(
                f"Reference '{path}' was made of other data: {'; '.join(different)}."
            )
        try:
            trajectory = state.get("trajectory")
            reference = Reference(
                state["loss"],
                state["probabilities"].float(),
                None if trajectory is None else trajectory.float(),
            )
        except ConfigError as error:
            raise CheckpointError(f"Reference '{path}' is broken: {error}") from error
        device = splits.train.labels.device
        return cls(
            reference.to(device), state["cost"], state["maker"], state["settings"], state["data"]
        )


def reference_key(data: dict[str, Any], maker: str, settings: dict[str, Any]) -> str:
    """Return a short hash of what decides the content of a reference."""
    text = json.dumps([FORMAT, data, maker, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
