"""Averaged weights: an exponential moving average of the model, for evaluation only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from impon_hpo.training.config import TrainingConfig


def average_weights(
    config: TrainingConfig, model: nn.Module, steps_per_epoch: int
) -> AveragedModel | None:
    """Return a copy of `model` whose weights follow it, or None where `eval_weights` is "last".

    Call `update_parameters(model)` after each step. The average forgets with a time constant of
    `ema_epochs`, and faster at first, so that the random beginning does not linger: a step keeps
    min(exp(-1 / steps), n / (n + 1)) of n before. Running statistics are averaged like weights.
    """
    if config.eval_weights == "last":
        return None
    longest = math.exp(-1 / (config.ema_epochs * steps_per_epoch))

    @torch.no_grad()
    def follow(
        averaged: Sequence[Tensor], current: Sequence[Tensor], n_averaged: Tensor | int
    ) -> None:
        n = int(n_averaged)  # kept on the CPU, so nothing is waited for
        kept = min(longest, n / (n + 1))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(list(averaged), list(current), 1 - kept)
        else:  # counts of batches: as they are
            torch._foreach_copy_(list(averaged), list(current))

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
