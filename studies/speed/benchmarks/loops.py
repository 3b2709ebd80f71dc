"""The training loops that ours is compared with: a plain one, and the recipe of speed runs.

The plain loop is what a user would write today from PyTorch's examples. Its parts are those of the
CIFAR-10 tutorial, of examples/imagenet and of Optuna's pytorch_simple: PIL images as torchvision's
CIFAR10 yields them, a `Compose` of transforms, `DataLoader` with workers, float32, NCHW,
`loss.item()` to be printed, all batches of the validation rows under `torch.no_grad()`.

The recipe loop is how speed runs on CIFAR train, the fastest loop there is. What it does is public
knowledge (Jordan, "94 % on CIFAR-10 in 3.29 seconds", 2024, arXiv 2404.00498, and those before
it): all images on the device, normalised once, cropped and flipped for a whole epoch at once;
weights in half precision except for batch normalisation; channels last; a fused optimiser; no
waiting from step to step; cuDNN's benchmark mode; compiled with CUDA graphs. It cannot choose
batches by their losses, resume, or be judged epoch by epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from impon_hpo import Splits, TrainingConfig
from impon_hpo.training.augment_setting import augment_names
from impon_hpo.training.augmentation import crop_padding
from impon_hpo.training.models import build_model
from impon_hpo.training.optimization import make_optimizer, make_schedule
from impon_hpo.training.splits import Split


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images of an array, each handed out as `transform` makes it from a PIL image.

    Args:
        split: The images (n, H, W, 3) uint8 and their labels.
        transform: From a PIL image to a tensor.
    """

    def __init__(self, split: Split, transform: transforms.Compose) -> None:
        self.images: NDArray[np.uint8] = split.images[:].cpu().numpy()
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
    """The result of one epoch, as in `EpochResult`."""

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
        names = augment_names(config.augment, splits.augment)
        padding = crop_padding(side, names)
        if padding:
            changed += [transforms.RandomCrop(side, padding=padding)]
        if "flip" in names:
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


VALIDATION_BATCH = 2000

RECIPES = {"eager": None, "compiled": "reduce-overhead", "tuned": "max-autotune"}
"""Modes of `torch.compile` on a GPU; "max-autotune" takes minutes for each input shape."""


class RecipeLoop:
    """One run of the recipe loop with the model, sizes, optimiser and schedule of `config`.

    It sets `torch.backends.cudnn.benchmark`, so give it a process of its own.

    Args:
        config: The settings.
        splits: The data; their device is where it trains: a GPU in bfloat16, a CPU in float32.
        recipe: A key of `RECIPES`: how torch compiles the model for training. Validation is not
            compiled: that would take as long again.
    """

    def __init__(self, config: TrainingConfig, splits: Splits, recipe: str) -> None:
        device = splits.train.labels.device
        on_gpu = device.type == "cuda"
        torch.backends.cudnn.benchmark = True
        self.batch_size = config.batch_size
        self.side = splits.train.images.shape[1]
        names = augment_names(config.augment, splits.augment)
        self.padding = crop_padding(self.side, names)
        self.flips = "flip" in names
        self.dtype = torch.bfloat16 if on_gpu else torch.float32
        self.model = build_model(config, splits, config.seed).to(device, self.dtype)
        self.model = self.model.to(memory_format=torch.channels_last)
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.float()
        self.forward: Callable[[Tensor], Tensor] = self.model
        if recipe != "eager":
            self.forward = torch.compile(self.model, mode=RECIPES[recipe] if on_gpu else None)
        self.images = self._prepared(splits, splits.train)
        self.images = pad(self.images, [self.padding] * 4)
        self.labels = splits.train.labels
        self.validation_images = self._prepared(splits, splits.validation)
        self.validation_labels = splits.validation.labels
        self.n_steps = len(self.labels) // self.batch_size
        self.optimizer = make_optimizer(config, self.model)
        self.schedule = make_schedule(config, self.optimizer, self.n_steps)

    def train_epoch(self) -> PlainEpoch:
        """Train for one epoch and validate."""
        self.model.train()
        images = self.augmented()
        order = torch.randperm(len(self.labels), device=self.labels.device)
        total = torch.zeros((), device=self.labels.device)
        for rows in order.split(self.batch_size)[: self.n_steps]:
            loss = cross_entropy(self.forward(images[rows]).float(), self.labels[rows])
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad(set_to_none=True)
            total += loss.detach()
        self.model.eval()
        correct = torch.zeros((), dtype=torch.int64, device=self.labels.device)
        parts = zip(
            self.validation_images.split(VALIDATION_BATCH),
            self.validation_labels.split(VALIDATION_BATCH),
            strict=True,
        )
        with torch.no_grad():
            for part, labels in parts:
                correct += (self.model(part).argmax(1) == labels).sum()
        validated = len(self.validation_labels)
        trained = self.n_steps * self.batch_size
        return PlainEpoch(float(total) / self.n_steps, int(correct) / validated, trained, validated)

    def augmented(self) -> Tensor:
        """Return all training images (n, C, H, W), each cropped and flipped at random."""
        images = self.images
        for dim in (2, 3) if self.padding else ():
            shifts = torch.randint(2 * self.padding + 1, (len(images),), device=images.device)
            shape = list(images.shape)
            shape[dim] = self.side
            cropped = torch.empty(
                shape,
                dtype=images.dtype,
                device=images.device,
                memory_format=torch.channels_last,
            )
            for shift in range(2 * self.padding + 1):
                rows = (shifts == shift).nonzero()[:, 0]
                cropped[rows] = images[rows].narrow(dim, shift, self.side)
            images = cropped
        if self.flips:
            flipped = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            images = torch.where(flipped, images.flip(3), images)
        return images

    def _prepared(self, splits: Splits, split: Split) -> Tensor:
        parts = [splits.normalise(part).to(self.dtype) for part in split.images.split(4096)]
        return torch.cat(parts).contiguous(memory_format=torch.channels_last)
