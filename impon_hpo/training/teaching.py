"""Teaching: what earlier training learnt about each row, kept as references, and the one rule by
which a run gets one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.nn.functional import cross_entropy

from impon_hpo.errors import CheckpointError, ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.table import sampler_class
from impon_hpo.training.checkpoint import read_state, write_state
from impon_hpo.training.config import TrainingConfig, explain
from impon_hpo.training.memory import RowMemory
from impon_hpo.training.models import build_model, forward_flops
from impon_hpo.training.run import VALIDATION_BATCH, TrainingRun
from impon_hpo.training.splits import Split, Splits, resize
from impon_hpo.training.timing import PhaseTimer

log = logging.getLogger("impon_hpo")


FORMAT = "reference 1"


@dataclass(frozen=True)
class KeptReference:
    """A reference with what was paid for it and what it is of.

    Args:
        reference: What was learnt about each row.
        cost: Forward-equivalents of the study's model that making it took; 0 where it came free.
        maker: "crossfit" or "prequential".
        settings: How it was made, as plain JSON values.
        data: The fingerprint of the training rows that it is of.
    """

    reference: Reference
    cost: int
    maker: str
    settings: dict[str, Any]
    data: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write the file: temporary file, flush to disk, rename.

        Raises:
            CheckpointError: It cannot be written.
        """
        state = {
            "format": FORMAT,
            "cost": self.cost,
            "maker": self.maker,
            "settings": self.settings,
            "data": self.data,
            "loss": self.reference.loss.cpu(),
            "probabilities": self.reference.probabilities.half().cpu(),
        }
        if self.reference.trajectory is not None:
            state["trajectory"] = self.reference.trajectory.half().cpu()
        write_state(path, state, "Reference")

    @classmethod
    def load(cls, path: Path, splits: Splits) -> KeptReference:
        """Read the file and check that it is of the training rows of `splits`.

        Raises:
            CheckpointError: The file is missing, broken, or of other data.
        """
        advice = "Delete it, and it is made anew."
        state = read_state(path, torch.device("cpu"), "Reference", advice)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise CheckpointError(f"'{path}' is no '{FORMAT}' of impon-hpo.")
        missing = {"data", "loss", "probabilities", "cost", "maker", "settings"} - set(state)
        if missing:
            raise CheckpointError(f"Reference '{path}' is broken: it lacks {sorted(missing)}.")
        here = splits.fingerprint
        different = [
            f"{key} is {state['data'].get(key)!r} there and {value!r} here"
            for key, value in here.items()
            if state["data"].get(key) != value
        ]
        if different:
            raise CheckpointError(
                f"Reference '{path}' was made of other data: {'; '.join(different)}."
            )
        try:
            trajectory = state.get("trajectory")
            reference = Reference(
                state["loss"],
                state["probabilities"].float(),
                None if trajectory is None else trajectory.float(),
            )
        except ConfigError as error:
            raise CheckpointError(f"Reference '{path}' is broken: {error}") from error
        device = splits.train.labels.device
        return cls(
            reference.to(device), state["cost"], state["maker"], state["settings"], state["data"]
        )


def reference_key(data: dict[str, Any], maker: str, settings: dict[str, Any]) -> str:
    """Return a short hash of what decides the content of a reference."""
    said = json.dumps([FORMAT, data, maker, settings], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


MAKERS = ("crossfit", "prequential")


def wants_reference(config: TrainingConfig) -> bool:
    """Return whether the batch sampler of `config` reads a reference."""
    return sampler_class(config.sampler).wants_reference(config.sampler_options)


def check_reference(config: TrainingConfig) -> None:
    """Raise `ConfigError` unless `reference` is a maker or a file, and its options fit."""
    if config.reference == "crossfit":
        crossfit_settings(config)
    elif config.reference_options:
        raise ConfigError(
            f"reference = '{config.reference}' has no reference_options, but got "
            f"{config.reference_options}."
        )
    elif config.reference != "prequential" and not Path(config.reference).is_file():
        raise ConfigError(
            f"reference must be {' or '.join(MAKERS)} or an existing file, but got "
            f"'{config.reference}'.{suggestion(config.reference, MAKERS)}"
        )


class References:
    """Finds, makes and keeps references, by the hash of the data and of how they are made.

    Args:
        folder: Where they are kept, one file each.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(
        self, config: TrainingConfig, splits: Splits, *, teacher: TrainingConfig | None = None
    ) -> str:
        """Return the name of the reference that `config` asks for on the data of `splits`; one that
        comes from a known run has all settings of this `teacher` in it."""
        settings: dict[str, Any] = {}
        if config.reference == "crossfit":
            settings = crossfit_settings(config).model_dump()
        elif config.reference == "prequential" and teacher is not None:
            settings = {"teacher": teacher.identity()}
        settings["augment"] = splits.augment
        return reference_key(splits.fingerprint, config.reference, settings)

    def path(self, key: str) -> Path:
        """Return the file of a reference."""
        return self.folder / f"{key}.pt"

    def find(
        self, config: TrainingConfig, splits: Splits, *, teacher: TrainingConfig | None = None
    ) -> KeptReference | None:
        """Return the reference that `config` asks for, made if need be; None if it cannot be yet.

        A prequential one comes from an earlier run (see `learn`), and until then there is none.

        Raises:
            ConfigError: `reference` or its options are wrong.
            CheckpointError: A file is broken, of other data, or cannot be written.
        """
        check_reference(config)
        if config.reference not in MAKERS:
            return KeptReference.load(Path(config.reference), splits)
        path = self.path(self.key(config, splits, teacher=teacher))
        with self._only_me(path):
            if path.exists():
                return KeptReference.load(path, splits)
            if config.reference == "prequential":
                return None
            kept = crossfit(config, splits)
            kept.save(path)
            return kept

    def learn(
        self,
        config: TrainingConfig,
        splits: Splits,
        memory: RowMemory,
        *,
        teacher: TrainingConfig | None = None,
    ) -> KeptReference:
        """Keep what a finished run observed as the prequential reference, if it is the first.

        Raises:
            CheckpointError: It cannot be written.
        """
        path = self.path(self.key(config, splits, teacher=teacher))
        with self._only_me(path):
            if path.exists():
                return KeptReference.load(path, splits)
            kept = KeptReference(memory.reference(), 0, "prequential", {}, splits.fingerprint)
            kept.save(path)
            return kept

    def _only_me(self, path: Path) -> filelock.FileLock:
        """Return a lock that the kernel releases when this process ends, however it ends."""
        lock = path.with_suffix(".lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.touch()
        except OSError as error:
            raise CheckpointError(f"'{lock}' cannot be written: {error}") from error
        return filelock.FileLock(lock)


def prepare(
    config: TrainingConfig, splits: Splits, kept: KeptReference | None
) -> tuple[TrainingConfig, Splits, RowMemory | None]:
    """Return settings and data of a run, and a memory where it is to learn a reference.

    A run that reads no reference stays as it is. One whose reference is there gets it. One whose
    reference is not there yet is trained without, and gathers it for later ones.
    """
    if not wants_reference(config):
        return config, splits, None
    if kept is not None:
        return config, with_reference(splits, kept), None
    memory = RowMemory(splits.train.labels, splits.n_classes)
    return without_reference(config), splits, memory


def learnt_enough(val_accuracy: float, n_classes: int) -> bool:
    """Return whether a run got so far above guessing that what it saw can teach others: a tenth of
    the way to 1."""
    return val_accuracy >= 1 / n_classes + 0.1 * (1 - 1 / n_classes)


def with_reference(splits: Splits, kept: KeptReference | None) -> Splits:
    """Return `splits` with the reference, if there is one."""
    return splits if kept is None else dataclasses.replace(splits, reference=kept.reference)


def without_reference(config: TrainingConfig) -> TrainingConfig:
    """Return `config` for a run that has no reference yet: uniform, unless its sampler says how."""
    return uniformly(config) if sampler_class(config.sampler).needs_reference else config


def uniformly(config: TrainingConfig) -> TrainingConfig:
    """Return `config` with the batch sampler `uniform`."""
    return config.model_copy(update={"sampler": "uniform", "sampler_options": {}})


class CrossfitSettings(BaseModel):
    """How the small models are trained; the keys of `reference_options` for "crossfit".

    Args:
        folds: Parts of the rows; each is judged by a model trained on the others.
        width: Channels of the first stage of their ResNet18; default a quarter of the study's.
        image_size: Side in pixels of their images; default that of the study.
        epochs: Their epochs.
        batch_size: Their batch.
        lr: Their peak learning rate (SGD, one cycle).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    folds: int = Field(default=2, ge=2, le=20)
    width: int | None = Field(default=None, ge=1, le=1024)
    image_size: int | None = Field(default=None, ge=4, le=1024)
    epochs: int = Field(default=6, ge=1)
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=0.05, gt=0, allow_inf_nan=False)


def crossfit_settings(config: TrainingConfig) -> CrossfitSettings:
    """Return the settings that `config.reference_options` ask for, defaults filled in.

    Raises:
        ConfigError: A key is unknown or a value does not fit.
    """
    try:
        settings = CrossfitSettings(**config.reference_options)
    except ValidationError as error:
        known = list(CrossfitSettings.model_fields)
        raise ConfigError("\n".join(explain(error, known, "reference_options."))) from None
    if settings.width is None:
        settings = settings.model_copy(update={"width": max(4, config.width // 4)})
    return settings


def crossfit(config: TrainingConfig, splits: Splits) -> KeptReference:
    """Make a reference: split the rows into folds, train on all but one, judge that one.

    The loss and the probabilities of a row are means over the second half of the epochs; its
    trajectory has an entry an epoch. Rows are judged without augmentation. What is charged counts
    the small models' passes in forward passes of the study's model, by floating-point operations.

    Args:
        config: The settings of the study's runs; `reference_options` are those of the small ones.
        splits: The data; only `train` is read.

    Raises:
        ConfigError: `reference_options` do not fit, or fit these data not.
    """
    settings = crossfit_settings(config)
    small = _small_config(config, settings)
    images, labels = splits.train.images, splits.train.labels
    if settings.image_size is not None:
        images = torch.cat([resize(part, settings.image_size) for part in images.split(4096)])
    device = labels.device
    generator = torch.Generator(device=device).manual_seed(0)
    fold_of = torch.randperm(len(labels), generator=generator, device=device) % settings.folds
    smallest = len(labels) - -(-len(labels) // settings.folds)
    if settings.batch_size > smallest:
        raise ConfigError(
            f"reference_options.batch_size must be at most the rows outside a fold ({smallest}), "
            f"but is {settings.batch_size}."
        )
    trajectory = torch.zeros(settings.epochs, len(labels), device=device)
    probabilities = torch.zeros(len(labels), splits.n_classes, device=device)
    first_counted = settings.epochs // 2
    rows_trained = rows_judged = 0
    for fold in range(settings.folds):
        outside, inside = (fold_of != fold).nonzero()[:, 0], (fold_of == fold).nonzero()[:, 0]
        held_out = Split(images[inside], labels[inside])
        part = dataclasses.replace(
            splits,
            train=Split(images[outside], labels[outside]),
            validation=held_out,
            test=held_out,
            reference=None,
        )
        run = TrainingRun(small.model_copy(update={"seed": fold}), part)
        for epoch in range(settings.epochs):
            run.train_rows(epoch + 1, PhaseTimer(device))
            rows_trained += run.steps_per_epoch * settings.batch_size
            logits = _logits(run, held_out)
            rows_judged += len(held_out)
            losses = cross_entropy(logits, held_out.labels, reduction="none")
            # A row that a small model is sure to get wrong must not outweigh all others.
            trajectory[epoch, inside] = losses.nan_to_num(20.0).clamp(0, 20)
            if epoch >= first_counted:
                probabilities[inside] += logits.softmax(1).nan_to_num(1 / splits.n_classes)
        right = float((logits.argmax(1) == held_out.labels).double().mean())
        log.info("reference: model %d/%d, held-out accuracy %.4f", fold + 1, settings.folds, right)
    n_counted = settings.epochs - first_counted
    reference = Reference(trajectory[first_counted:].mean(0), probabilities / n_counted, trajectory)
    share = _relative_flops(config, splits, small, images)
    return KeptReference(
        reference=reference,
        cost=round(share * (3 * rows_trained + rows_judged)),
        maker="crossfit",
        settings=settings.model_dump(),
        data=splits.fingerprint,
    )


def _small_config(config: TrainingConfig, settings: CrossfitSettings) -> TrainingConfig:
    changed: dict[str, Any] = {
        "model": "resnet18",
        "width": settings.width,
        "epochs": settings.epochs,
        "epoch_fraction": 1.0,
        "batch_size": settings.batch_size,
        "lr": settings.lr,
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "schedule": "one-cycle",
        "warmup_epochs": 0.0,
        "label_smoothing": 0.0,
        "compile": "auto",
        "sampler": "uniform",
        "sampler_options": {},
    }
    return config.model_copy(update=changed)


def _logits(run: TrainingRun, split: Split) -> Tensor:
    parts = split.images.split(VALIDATION_BATCH)
    return torch.cat([run.training_step.predict(part) for part in parts])


def _relative_flops(
    config: TrainingConfig, splits: Splits, small: TrainingConfig, small_images: Tensor
) -> float:
    """Return the cost of a forward pass of a small model in those of the study's model."""
    _, height, width, channels = splits.train.images.shape
    _, small_height, small_width, _ = small_images.shape
    full = forward_flops(build_model(config, splits, seed=0), (channels, height, width))
    little = forward_flops(
        build_model(small, splits, seed=0), (channels, small_height, small_width)
    )
    return little / full
