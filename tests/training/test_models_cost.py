"""The cost of a forward pass, worked by hand."""

from __future__ import annotations

import torch
from torch import nn

from impon_hpo.training.models import forward_flops


def test_layers_cost_two_operations_a_multiplication() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 7))
    assert forward_flops(linear, (3, 4, 5)) == 2 * 60 * 7
    convolution = nn.Conv2d(3, 8, 3, padding=1)
    assert forward_flops(convolution, (3, 4, 5)) == 2 * 3 * 3 * 3 * 8 * 4 * 5


def test_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    forward_flops(model, (1, 4, 4))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_model_in_evaluation_mode_stays_there() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    model.eval()
    forward_flops(model, (1, 4, 4))
    assert not any(module.training for module in model.modules())
    model.train()
    forward_flops(model, (1, 4, 4))
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
