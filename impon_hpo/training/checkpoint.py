"""Checkpoints: the state of a run in one file, whole or not at all; reading it runs no code."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impon_hpo.errors import CheckpointError
from impon_hpo.files import replacing
from impon_hpo.sampling.features import flat_view
from impon_hpo.training.config import TrainingConfig

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


def write_state(path: Path, state: dict[str, Any], what: str) -> None:
    """Replace the file by `state`: temporary file, flush to disk, rename.

    Args:
        path: The file; its folder is made if need be.
        state: Tensors and plain values.
        what: What the file is, for the message.

    Raises:
        CheckpointError: It cannot be written (the former file is then still whole).
    """
    try:
        with replacing(path, durable=True) as file:
            torch.save(pack(state), file)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a full disk
        raise CheckpointError(f"{what} '{path}' cannot be written: {error}") from error


def read_state(path: Path, device: torch.device, what: str, advice: str) -> Any:
    """Return what `write_state` wrote, with its tensors on `device`; nothing in it is run as code.

    Args:
        path: The file.
        device: Where its tensors are wanted.
        what: What the file is, for the message.
        advice: What to do if it is broken, for the message.

    Raises:
        CheckpointError: It is missing or broken.
    """
    try:
        return unpack(torch.load(path, map_location=device, weights_only=True))
    except Exception as error:  # on files of other kinds torch's readers raise almost anything
        said = (str(error).splitlines() or ["it is cut short."])[0]
        raise CheckpointError(f"{what} '{path}' cannot be read: {said} {advice}") from error


JOINED, REST = "joined", "rest"
PLACE = "impon_hpo:tensor"
"""The key, of a mapping that has no other, of where a tensor is: group, begin, shape, strides."""


def pack(state: Any) -> dict[str, Any]:
    """Return `state` with its tensors joined, by dtype and device, on the CPU.

    `torch.save` takes up to 0.1 ms a tensor, and waits for a GPU at each; there are hundreds.

    Args:
        state: Tensors and plain values in dicts, lists and tuples.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    lengths = Counter[tuple[torch.dtype, torch.device]]()

    def put(tensor: Tensor) -> dict[str, Any]:
        tensor = tensor.detach()
        flat = flat_view(tensor)
        if flat is None:
            tensor = tensor.contiguous()
            flat = tensor.view(-1)
        key = tensor.dtype, tensor.device
        groups.setdefault(key, []).append(flat)
        at, begin = list(groups).index(key), lengths[key]
        lengths[key] += len(flat)
        return {PLACE: [at, begin, list(tensor.shape), list(tensor.stride())]}

    rest = _map(state, lambda value: put(value) if isinstance(value, Tensor) else value)
    return {JOINED: [torch.cat(flats).cpu() for flats in groups.values()], REST: rest}


def unpack(packed: Any) -> Any:
    """Return the state of `pack(state)`, each tensor with its own memory and its strides."""
    if not (isinstance(packed, dict) and packed.keys() == {JOINED, REST}):
        return packed  # of a version that did not pack
    joined: list[Tensor] = packed[JOINED]

    def take(value: Any) -> Any:
        if not (isinstance(value, dict) and value.keys() == {PLACE}):
            return value
        at, begin, shape, strides = value[PLACE]
        return joined[at].as_strided(shape, strides, begin).clone()

    return _map(packed[REST], take)


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return `value` with everything in it that `change` changes changed."""
    changed = change(value)
    if changed is not value:
        return changed
    if isinstance(value, dict):
        copied = copy.copy(value)  # a model's state has attributes, too
        for key, part in value.items():
            copied[key] = _map(part, change)
        return copied
    if isinstance(value, list | tuple):
        return type(value)(_map(part, change) for part in value)
    return value
