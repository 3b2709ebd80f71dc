"""A file of tensors and plain values: written whole or not at all, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from impon_hpo.errors import CheckpointError
from impon_hpo.files import replacing
from impon_hpo.training.packing import pack, unpack


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
