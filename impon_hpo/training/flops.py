"""The cost of a forward pass: multiplications of a model on one image, counted by torch."""

from __future__ import annotations

import torch
from torch import nn


def forward_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the floating-point operations of one image (C, H, W) through `model`.

    The model's mode is kept; its running statistics are not touched.
    """
    from torch.utils.flop_counter import FlopCounterMode  # which loads Triton

    parameter = next(model.parameters())
    image = torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)
    training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(training)
    return int(counter.get_total_flops())
