"""The plain loop: what a user would write today from PyTorch's examples, as the other side.

Its parts are those of the CIFAR-10 tutorial and of examples/imagenet, and of Optuna's
pytorch_simple: PIL images as torchvision's CIFAR10 yields them, a `Compose` of transforms,
`DataLoader` with workers, float32, NCHW, `loss.item()` to be printed, all batches of the validation
rows under `torch.no_grad()`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from impon_hpo.training.augmentation import crop_padding
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.models import build_model
from impon_hpo.training.splits import Split, Splits


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images of an array, each handed out as `transform` makes it from a PIL image.

    Args:
        split: The images (n, H, W, 3) uint8 and their labels.
        transform: From a PIL image to a tensor.
    """

    def __init__(self, split: Split, transform: transforms.Compose) -> None:
        self.images: NDArray[np.uint8] = split.images.cpu().numpy()
        self.labels: list[int] = split.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.transform(Image.fromarray(self.images[index]))
        assert isinstance(image, Tensor)
        return image, self.labels[index]


@dataclass(frozen=True)
class PlainEpoch:
    """What one epoch reached, as in `EpochResult`."""

    train_loss: float
    val_accuracy: float
    rows_trained: int
    rows_validated: int


class PlainLoop:
    """One run of the plain loop with the model, sizes, optimiser and schedule of `config`.

    Args:
        config: The settings; the optimiser is SGD, the schedule cosine, whatever it says.
        splits: The data; their device is where it trains.
        n_workers: Processes that load and augment; 0: none but its own.
    """

    def __init__(self, config: TrainingConfig, splits: Splits, *, n_workers: int) -> None:
        self.device = splits.train.labels.device
        self.model = build_model(config, splits, config.seed).to(self.device)
        side = splits.train.images.shape[1]
        normalised = [
            transforms.ToTensor(),
            transforms.Normalize(
                (splits.mean.cpu() / 255).tolist(), (splits.std.cpu() / 255).tolist()
            ),
        ]
        changed = []
        padding = crop_padding(side, splits.augment)
        if padding:
            changed += [transforms.RandomCrop(side, padding=padding)]
        if "flip" in splits.augment:
            changed += [transforms.RandomHorizontalFlip()]
        on_gpu = self.device.type == "cuda"
        self.train_loader = DataLoader(
            PilImages(splits.train, transforms.Compose([*changed, *normalised])),
            batch_size=config.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=n_workers,
            pin_memory=on_gpu,
        )
        self.validation_loader = DataLoader(
            PilImages(splits.validation, transforms.Compose(normalised)),
            batch_size=config.batch_size,
            num_workers=n_workers,
            pin_memory=on_gpu,
        )
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, T_max=config.epochs * len(self.train_loader)
        )

    def train_epoch(self) -> PlainEpoch:
        """Train for one epoch and validate."""
        self.model.train()
        total, trained = 0.0, 0
        for loaded, loaded_labels in self.train_loader:
            images = loaded.to(self.device, non_blocking=True)
            labels = loaded_labels.to(self.device, non_blocking=True)
            self.optimizer.zero_grad()
            loss = cross_entropy(self.model(images), labels)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.item() * len(labels)
            trained += len(labels)
        self.model.eval()
        correct, validated = 0, 0
        with torch.no_grad():
            for images, labels in self.validation_loader:
                predicted = self.model(images.to(self.device)).argmax(1)
                correct += int((predicted == labels.to(self.device)).sum())
                validated += len(labels)
        return PlainEpoch(total / trained, correct / validated, trained, validated)
