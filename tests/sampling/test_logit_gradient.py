"""The gradient at the logits, by hand and against autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from impon_hpo.sampling.logit_gradient import logit_gradient_norm


def test_norms_are_those_worked_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]] * 2).log()
    # The differences are (-0.5, 0.3, 0.2) and (0.5, 0.3, -0.8).
    found = logit_gradient_norm(logits, torch.tensor([0, 2]))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([math.sqrt(0.38), math.sqrt(0.98)])


def test_norms_are_those_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 7, generator=generator)
    labels = torch.randint(7, (50,), generator=generator)
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(leaf, labels, reduction="sum"), leaf)
    torch.testing.assert_close(logit_gradient_norm(logits, labels), gradient.norm(dim=1))


def test_rows_learnt_almost_perfectly_keep_their_differences() -> None:
    logits = torch.tensor([[20.0, 0.0], [22.0, 0.0]])
    found = logit_gradient_norm(logits, torch.tensor([0, 0]))
    # √2 / (1 + e²⁰) and √2 / (1 + e²²); 1 - p itself is 0 in float32
    assert found.tolist() == pytest.approx([2.914911e-9, 3.944903e-10], rel=1e-4)


def test_norms_of_half_precision_are_computed_in_float32() -> None:
    logits = torch.tensor([[2.0, 0.0]], dtype=torch.bfloat16)
    # √2 / (1 + e²)
    found = logit_gradient_norm(logits, torch.tensor([0]))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(0.1685789, rel=1e-5)


def test_norms_without_meaning_are_nan() -> None:
    logits = torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [1.0, 1.0]])
    found = logit_gradient_norm(logits, torch.tensor([1, 1, 1]))
    assert found.isnan().tolist() == [True, True, False]
