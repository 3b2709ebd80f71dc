"""The norm of the weights: of all that is trained, however it lies in memory, and up to date."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from impon_hpo.sampling.weight_norm import SMALL, WeightNorm


def expected(model: nn.Module) -> float:
    squares = [p.detach().double().square().sum() for p in model.parameters() if p.requires_grad]
    return math.sqrt(sum(map(float, squares)))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "small ones": lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)),
    "a large one": lambda: nn.Linear(SMALL // 64, 64, bias=False),
    "both": lambda: nn.Sequential(nn.Linear(SMALL // 64, 64), nn.Linear(64, 3)),
    "of two types": lambda: nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 3).double()),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_norm_is_that_of_all_parameters(name: str, memory: torch.memory_format) -> None:
    model = MODELS[name]()
    model.to(memory_format=memory)
    assert float(WeightNorm(model)()) == pytest.approx(expected(model), rel=1e-5)


def test_what_is_not_trained_does_not_count() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    assert float(WeightNorm(model)()) == pytest.approx(expected(model), rel=1e-6)
    assert float(WeightNorm(model.requires_grad_(False))()) == 0


@pytest.mark.parametrize("gaps", [False, True], ids=["dense", "with gaps in memory"])
def test_later_changes_are_seen(gaps: bool) -> None:
    model = nn.Linear(6, 4)
    if gaps:
        model.weight = nn.Parameter(torch.randn(4, 12)[:, ::2])
    norm = WeightNorm(model)
    before = float(norm())
    with torch.no_grad():
        model.weight.mul_(3)
    assert float(norm()) == pytest.approx(expected(model), rel=1e-6)
    model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()})
    assert float(norm()) == pytest.approx(expected(model), rel=1e-6)
    assert float(norm()) > before
    assert not norm().requires_grad
