"""What models answer with: logits, and while they train those of auxiliary heads, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

LOGITS = ("logits", "out")
"""Names under which a model answers with its logits."""


def read_answer(answer: Any) -> tuple[Tensor | None, list[Tensor]]:
    """Return the logits in what a model answers with, and those of its auxiliary heads.

    An answer is a tensor; a tuple, the logits first; or has them by name, as "logits" or "out", in
    a mapping, a named tuple or attributes, as Hugging Face's models do. Auxiliary are tensors of
    the same shape: the others of a tuple, or those by a name that begins with "aux".

    Args:
        answer: What the model returned.

    Returns:
        The logits, or None if there are none; and a list of further logits, often empty.

    Example:
        >>> import torch
        >>> logits, auxiliary = read_answer({"out": torch.zeros(2, 3), "aux": torch.ones(2, 3)})
        >>> logits.shape, len(auxiliary)
        (torch.Size([2, 3]), 1)
    """
    if isinstance(answer, Tensor):
        return answer, []
    fields = _fields(answer)
    for name in LOGITS:
        logits = fields.get(name)
        if isinstance(logits, Tensor):
            others = [value for key, value in fields.items() if key.startswith("aux")]
            return logits, _like(logits, others)
    if isinstance(answer, tuple | list) and answer and isinstance(answer[0], Tensor):
        return answer[0], _like(answer[0], answer[1:])
    return None, []


def auxiliary_share(n_heads: int) -> float:
    """Return the weight of the loss of each of so many auxiliary heads; that of the main one is 1.

    Source: 0.3 each for GoogLeNet's two, Szegedy et al. (2015), "Going deeper with convolutions";
    0.4 for the one of Inception v3, as TensorFlow's slim and PyTorch's tutorial on fine-tuning have
    it, since Szegedy et al. (2016) do not say.
    """
    return 0.4 if n_heads == 1 else 0.3


def _fields(answer: Any) -> Mapping[str, Any]:
    if isinstance(answer, Mapping):
        return answer
    if hasattr(answer, "_asdict"):
        named: dict[str, Any] = answer._asdict()
        return named
    return getattr(answer, "__dict__", {})


def _like(logits: Tensor, others: Any) -> list[Tensor]:
    return [one for one in others if isinstance(one, Tensor) and one.shape == logits.shape]
