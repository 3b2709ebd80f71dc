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
    """The file that a training run continues from. Loading it never runs code from it.

    Args:
        path: The file. Its folder is made when something is saved.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from impon_hpo import Checkpoint, TrainingConfig, load_splits, train_epochs
        >>> config = TrainingConfig(subset=64, width=4, epochs=2, batch_size=32)
        >>> splits = load_splits(config, torch.device("cpu"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoint = Checkpoint(Path(folder) / "run.pt")
        ...     first = next(train_epochs(config, splits, checkpoint))  # and is interrupted
        ...     rest = list(train_epochs(config, splits, checkpoint))
        >>> first.epoch, [result.epoch for result in rest]
        (1, [2])
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Checkpoint('{self.path}')"

    @property
    def size(self) -> int:
        """Bytes of the file; 0 if there is none."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file by `state`, whole or not at all.

        Args:
            state: Tensors and plain values, such as `TrainingRun.state_dict()`.

        Raises:
            CheckpointError: It cannot be written. The former file is then still there.
        """
        write_state(self.path, {"format": FORMAT} | state, "Checkpoint")

    def delete(self) -> None:
        """Delete the file, if it exists, and what a killed process left of an unfinished one."""
        for path in (self.path, *self.path.parent.glob(f"{self.path.name}*.tmp")):
            path.unlink(missing_ok=True)

    def load(self, config: TrainingConfig, device: torch.device) -> dict[str, Any] | None:
        """Return the saved state with its tensors on `device`, or None if there is no file.

        Raises:
            CheckpointError: The file is broken, or of a run with other settings.
        """
        if not self.path.exists():
            return None
        advice = "Delete it to train from the start."
        state = read_state(self.path, device, "Checkpoint", advice)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise CheckpointError(
                f"'{self.path}' is not a checkpoint of format {FORMAT} of impon-hpo. {advice}"
            )
        settings = config.identity()
        kept = state["config"]
        different = [key for key in kept | settings if kept.get(key) != settings.get(key)]
        if different:
            listed = ", ".join(f"{key} = {kept.get(key)!r}" for key in different)
            raise CheckpointError(
                f"Checkpoint '{self.path}' is of a run with {listed}. Delete it to train from the "
                "start, or train with its settings."
            )
        return dict(state)


def write_state(path: Path, state: dict[str, Any], what: str) -> None:
    """Replace the file by `state`, whole or not at all.

    Args:
        path: The file. Its folder is made if it does not exist.
        state: Tensors and plain values.
        what: What the file is, for the message.

    Raises:
        CheckpointError: It cannot be written. The former file is then still there.
    """
    try:
        with replacing(path, durable=True) as file:
            torch.save(pack(state), file)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a full disk
        raise CheckpointError(f"{what} '{path}' cannot be written: {error}") from error


def read_state(path: Path, device: torch.device, what: str, advice: str) -> Any:
    """Return what `write_state` wrote. Reading never runs code from the file.

    Args:
        path: The file.
        device: The tensors are put there.
        what: What the file is, for the message.
        advice: What to do if it is broken, for the message.

    Raises:
        CheckpointError: It is missing or broken.
    """
    try:
        return unpack(torch.load(path, map_location=device, weights_only=True))
    except Exception as error:  # torch raises almost anything for a file of another kind
        reason = (str(error).splitlines() or ["it is cut short"])[0].split(". ")[0].rstrip(".")
        raise CheckpointError(f"{what} '{path}' cannot be read: {reason}. {advice}") from error


JOINED, REST = "joined", "rest"
PLACE = "impon_hpo:tensor"
"""A mapping with only this key stands for a tensor: group, begin, shape, strides."""


def pack(state: Any) -> dict[str, Any]:
    """Return `state` with its tensors joined, by dtype and device, on the CPU.

    `torch.save` takes up to 0.1 ms for each of hundreds of tensors, and waits for a GPU each time.

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
    """Return `value` with `change` applied to everything in it."""
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
