"""Tests of the residual block: to the bit what torchvision's is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock as TorchvisionBlock

from impon_hpo.training.basic_block import BasicBlock


@pytest.mark.parametrize(("entering", "leaving", "stride"), [(4, 4, 1), (4, 8, 2)])
def test_it_is_torchvisions_to_the_bit(entering: int, leaving: int, stride: int) -> None:
    def made(kind: type[nn.Module]) -> nn.Module:
        torch.manual_seed(3)
        shortcut = None if stride == 1 else nn.Conv2d(entering, leaving, 1, stride=stride)
        return kind(entering, leaving, stride, shortcut)

    ours, theirs = made(BasicBlock), made(TorchvisionBlock)
    assert list(ours.state_dict()) == list(theirs.state_dict())  # checkpoints fit both
    assert [name for name, _ in ours.named_modules()] == [
        name for name, _ in theirs.named_modules()
    ]
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    for model in (ours, theirs):
        model.train()
        images = torch.linspace(-1, 1, 2 * entering * 36).view(2, entering, 6, 6)
        model(images).square().sum().backward()
    images = torch.rand(2, entering, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(images), theirs(images))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        assert torch.equal(mine.grad, other.grad)
    for model in (ours, theirs):
        model.eval()
    assert torch.equal(ours(images), theirs(images))
