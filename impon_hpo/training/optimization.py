"""Optimiser and learning rate schedule, from torch, as the configuration names them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from impon_hpo.sampling import captured
from impon_hpo.training.config import TrainingConfig


def make_optimizer(config: TrainingConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Make SGD, Adam or AdamW in its fused form; weight decay applies to every parameter.

    On a GPU the learning rate is a tensor, so that a captured step reads what it is by then.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    on_gpu = bool(parameters) and captured.graph_on(parameters[0].device) is not None
    lr = torch.tensor(config.lr, device=parameters[0].device) if on_gpu else config.lr
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=True,
        )
    adam = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return adam(
        parameters,
        lr=lr,
        betas=(config.momentum, 0.999),
        weight_decay=config.weight_decay,
        fused=True,
        capturable=on_gpu,
    )


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state, of a run on whatever device, and keep the learning rate in its place."""
    places = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, place in zip(optimizer.param_groups, places, strict=True):
        if isinstance(place, Tensor):
            group["lr"] = place.fill_(group["lr"])
        else:
            group["lr"] = float(group["lr"])


def make_schedule(
    config: TrainingConfig, optimizer: torch.optim.Optimizer, steps_per_epoch: int
) -> LRScheduler:
    """Make the schedule that is stepped after every optimiser step.

    `constant`, `cosine` (to zero at the end of the last epoch) and `rungs` (to zero at the end of
    each rung, and then from the top again) rise linearly over `warmup_epochs`; `one-cycle` is
    `torch.optim.lr_scheduler.OneCycleLR` with its cosine annealing, rising over `warmup_epochs`
    (default: 30 % of the run), at constant momentum.
    """
    for group in optimizer.param_groups:  # a number, also where the learning rate is a tensor
        group["initial_lr"] = config.lr
    total = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "one-cycle":
        return OneCycleLR(
            optimizer,
            max_lr=config.lr,
            # OneCycleLR counts the step before the first one, too, and refuses fewer than two.
            total_steps=total + 1,
            pct_start=warmup / total if warmup else 0.3,
            cycle_momentum=False,
        )

    ends = [rung * steps_per_epoch for rung in rungs(config.epochs, config.rung_factor)]
    if config.schedule == "cosine":
        ends = [total]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if config.schedule == "constant":
            return 1.0
        end = next((end for end in ends if step < end), total)
        begin = max([warmup, *(earlier for earlier in ends if earlier < end)])
        return (1 + math.cos(math.pi * (step - begin) / max(1, end - begin))) / 2

    return LambdaLR(optimizer, factor)


def rungs(epochs: int, factor: int) -> list[int]:
    """Return the epochs at which successive halving decides: …, epochs / factor², epochs / factor,
    epochs, rounded down, from 1 on."""
    found = [epochs]
    while found[0] // factor >= 1:
        found.insert(0, found[0] // factor)
    return found
