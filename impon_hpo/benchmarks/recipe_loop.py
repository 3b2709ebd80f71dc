"""The recipe loop: how speed runs on CIFAR train, as the fastest other side there is.

What it does is public knowledge of such recipes (Jordan, "94 % on CIFAR-10 in 3.29 seconds", 2024,
arXiv 2404.00498, and those before it): all images on the device, normalised once, cropped and
flipped for a whole epoch at once; weights in half precision but for batch normalisation;
channels last; a fused optimiser; no waiting from step to step; cuDNN's benchmark mode; compiled
with CUDA graphs. It cannot choose batches by their losses, resume, or be judged epoch by epoch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from impon_hpo.benchmarks.plain_loop import PlainEpoch
from impon_hpo.training.augmentation import crop_padding
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.models import build_model
from impon_hpo.training.optimization import make_optimizer, make_schedule
from impon_hpo.training.splits import Split, Splits

VALIDATION_BATCH = 2000

RECIPES = {"eager": None, "compiled": "reduce-overhead", "tuned": "max-autotune"}
"""The modes of `torch.compile` on a GPU; the last one takes minutes for each input shape."""


class RecipeLoop:
    """One run of the recipe loop with the model, sizes, optimiser and schedule of `config`.

    It sets `torch.backends.cudnn.benchmark`, so let it have a process of its own.

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
        self.padding = crop_padding(self.side, splits.augment)
        self.flips = "flip" in splits.augment
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
        """Return all training images (n, C, H, W), each cropped and flipped anew."""
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
