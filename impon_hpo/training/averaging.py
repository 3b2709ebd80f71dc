"""Averaged weights: an exponential moving average of the model, for evaluation only."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from impon_hpo.training.config import TrainingConfig


class AveragedWeights:
    """A copy of a model whose weights follow it; torch's `AveragedModel`, which lists the tensors
    anew at every step, takes the host ten times as long.

    A step keeps min(longest, n / (n + 1)) of the average of n before, so that the random beginning
    does not linger. Running statistics are averaged like weights, counts are taken as they are.

    Args:
        model: The model; its tensors are listed once, and must be changed in place.
        longest: The most that a step keeps, 0 … 1.
    """

    def __init__(self, model: nn.Module, longest: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.longest = longest
        self.n_averaged = 0
        self._averaged, self._averaged_counts = _tensors(self.module)
        self._current, self._current_counts = _tensors(model)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        kept = min(self.longest, self.n_averaged / (self.n_averaged + 1))
        torch._foreach_lerp_(self._averaged, self._current, 1 - kept)
        if self._current_counts:
            torch._foreach_copy_(self._averaged_counts, self._current_counts)
        self.n_averaged += 1

    def state_dict(self) -> dict[str, Any]:
        return {"n_averaged": self.n_averaged, "module": self.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.n_averaged = state["n_averaged"]
        self.module.load_state_dict(state["module"])


def average_weights(
    config: TrainingConfig, model: nn.Module, steps_per_epoch: int
) -> AveragedWeights | None:
    """Return what averages the weights of `model`, or None where `eval_weights` is "last".

    Call `update()` after each step. The average forgets with a time constant of `ema_epochs`: a
    step keeps at most exp(-1 / steps) of it.
    """
    if config.eval_weights == "last":
        return None
    return AveragedWeights(model, math.exp(-1 / (config.ema_epochs * steps_per_epoch)))


def _tensors(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return the weights and running statistics of a model, and its counts."""
    tensors = [*(parameter.detach() for parameter in model.parameters()), *model.buffers()]
    moving = [tensor for tensor in tensors if tensor.is_floating_point()]
    return moving, [tensor for tensor in tensors if not tensor.is_floating_point()]
