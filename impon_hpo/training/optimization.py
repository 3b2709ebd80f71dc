"""Optimiser, learning rate schedule and averaged weights, as the configuration names them."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from impon_hpo.sampling import captured
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.fine_tuning import the_heads


def make_optimizer(
    config: TrainingConfig, model: nn.Module, n_classes: int = 0
) -> torch.optim.Optimizer:
    """Make SGD, Adam or AdamW in its fused form; weight decay applies to every parameter.

    With `lr_head`, the parameters of the heads are a second group. A group keeps its peak learning
    rate as "initial_lr". On a GPU the learning rate is a tensor, so that a captured step reads its
    current value.

    Args:
        config: The settings.
        model: The model. Parameters that are frozen stay out.
        n_classes: Number of its logits, by which its heads are found.

    Raises:
        ConfigError: `lr_head` is set, and no head is found.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    on_gpu = bool(trained) and captured.graph_on(trained[0].device) is not None
    parts = [(config.lr, trained)]
    if config.lr_head is not None:
        layers = the_heads(config, model, n_classes).values()
        head = {id(parameter) for layer in layers for parameter in layer.parameters()}
        rest = [parameter for parameter in trained if id(parameter) not in head]
        parts = [
            (config.lr, rest),
            (config.lr_head, [parameter for parameter in trained if id(parameter) in head]),
        ]
    groups: list[dict[str, Any]] = [
        {"params": parameters, "lr": torch.tensor(lr, device=trained[0].device) if on_gpu else lr}
        for lr, parameters in parts
        if parameters
    ]
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            groups,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=True,
        )
    else:
        adam = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        optimizer = adam(
            groups,
            betas=(config.momentum, 0.999),
            weight_decay=config.weight_decay,
            fused=True,
            capturable=on_gpu,
        )
    for group, (lr, _) in zip(
        optimizer.param_groups, [part for part in parts if part[1]], strict=True
    ):
        group["initial_lr"] = lr  # a number, also where the learning rate is a tensor
    return optimizer


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state from a run on any device; the learning rate stays a tensor or a number."""
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
    """Make the schedule that is stepped after every optimiser step, of `make_optimizer`.

    All groups follow it in proportion to their peak learning rate.

    `constant`, `cosine` (to zero at the end of the last epoch) and `rungs` (to zero at the end of
    each rung, and then from the top again) rise linearly over `warmup_epochs`; `one-cycle` is
    `torch.optim.lr_scheduler.OneCycleLR` with its cosine annealing, rising over `warmup_epochs`
    (default: 30 % of the run), at constant momentum.
    """
    total = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "one-cycle":
        return OneCycleLR(
            optimizer,
            max_lr=[group["initial_lr"] for group in optimizer.param_groups],
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
    ends = [epochs]
    while ends[0] // factor >= 1:
        ends.insert(0, ends[0] // factor)
    return ends


class AveragedWeights:
    """A copy of a model whose weights are a moving average of the model's.

    After n updates, the next one keeps the share min(longest, n / (n + 1)) of the average, so that
    the random initial weights are soon forgotten. Running statistics are averaged like weights;
    counts are copied. torch's `AveragedModel` lists the tensors at every step, which takes the host
    ten times as long.

    Args:
        model: The model. Its tensors are listed once, and must be changed in place.
        longest: The largest share that an update keeps, 0 … 1.
    """

    def __init__(self, model: nn.Module, longest: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.longest = longest
        self.n_averaged = 0
        self._averaged, self._averaged_counts = _tensors(self.module)
        self._current, self._current_counts = _tensors(model)

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the average."""
        share = min(self.longest, self.n_averaged / (self.n_averaged + 1))
        torch._foreach_lerp_(self._averaged, self._current, 1 - share)
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
    """Return the averaged weights of `model`, or None if `eval_weights` is "last".

    Call `update()` after each step. `ema_epochs` is the time constant: a step keeps at most
    exp(-1 / (ema_epochs · steps_per_epoch)) of the average.
    """
    if config.eval_weights == "last":
        return None
    return AveragedWeights(model, math.exp(-1 / (config.ema_epochs * steps_per_epoch)))


def _tensors(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return the weights and running statistics of a model, and its counts."""
    tensors = [*(parameter.detach() for parameter in model.parameters()), *model.buffers()]
    moving = [tensor for tensor in tensors if tensor.is_floating_point()]
    return moving, [tensor for tensor in tensors if not tensor.is_floating_point()]
