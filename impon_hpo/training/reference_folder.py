"""The folder of references: each made or learnt once, kept in a file, and given to the runs that
read it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import torch

from impon_hpo.errors import CheckpointError, ConfigError
from impon_hpo.files import expanded
from impon_hpo.lookup import suggestion
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.table import sampler_class
from impon_hpo.training.augment_setting import augment_names
from impon_hpo.training.checkpoint import read_state, write_state
from impon_hpo.training.config import TrainingConfig, uniformly, wants_reference
from impon_hpo.training.crossfit import crossfit, crossfit_settings
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Splits

MAKERS = ("crossfit", "prequential")
FORMAT = "reference 1"


@dataclass(frozen=True)
class KeptReference:
    """A reference, what it cost, and which data it belongs to.

    Args:
        reference: What was learnt about each row.
        cost: Forward-equivalents of the study's model that it took; 0 for prequential.
        maker: "crossfit" or "prequential".
        settings: How it was made, as plain JSON values.
        data: The fingerprint of the training rows that it describes.
    """

    reference: Reference
    cost: int
    maker: str
    settings: dict[str, Any]
    data: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write the file: whole or not at all.

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
        """Read the file and check that it describes the training rows of `splits`.

        Raises:
            CheckpointError: The file is missing, broken, or of other data.
        """
        advice = "Delete it, and it is rebuilt."
        state = read_state(path, torch.device("cpu"), "Reference", advice)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise CheckpointError(f"'{path}' is not a '{FORMAT}' of impon-hpo.")
        missing = {"data", "loss", "probabilities", "cost", "maker", "settings"} - set(state)
        if missing:
            raise CheckpointError(f"Reference '{path}' is broken: it lacks {sorted(missing)}.")
        here = splits.fingerprint
        different = [
            f"{key} is {state['data'].get(key)!r} in the file and {value!r} here"
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
    """Finds, makes and stores references, by the hash of the data and of how they are made.

    Args:
        folder: The folder with a file for each; `~` is the user's own.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = expanded(folder)

    def key(
        self, config: TrainingConfig, splits: Splits, *, teacher: TrainingConfig | None = None
    ) -> str:
        """Return the name of the reference that `config` asks for on the data of `splits`.

        If the run that it comes from is known, all settings of this `teacher` are part of it.
        """
        settings: dict[str, Any] = {}
        if config.reference == "crossfit":
            settings = crossfit_settings(config).model_dump()
        elif config.reference == "prequential" and teacher is not None:
            settings = {"teacher": teacher.identity()}
        names = augment_names(config.augment, splits.augment)
        settings["augment"] = "+".join(names) or "none"
        if config.augment_options:
            settings["augment_options"] = config.augment_options
        text = json.dumps([FORMAT, splits.fingerprint, config.reference, settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def path(self, key: str) -> Path:
        """Return the file of a reference."""
        return self.folder / f"{key}.pt"

    def find(
        self, config: TrainingConfig, splits: Splits, *, teacher: TrainingConfig | None = None
    ) -> KeptReference | None:
        """Return the reference that `config` asks for, or None if it cannot be made yet.

        A crossfit one is made here, once. A prequential one comes from an earlier run: see `learn`.

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
            reference, cost = crossfit(config, splits)
            settings = crossfit_settings(config).model_dump()
            kept = KeptReference(reference, cost, "crossfit", settings, splits.fingerprint)
            kept.save(path)
            # The file has fewer digits: the run that made it reads what all later ones read.
            return KeptReference.load(path, splits)

    def learn(
        self,
        config: TrainingConfig,
        splits: Splits,
        memory: RowMemory,
        *,
        teacher: TrainingConfig | None = None,
    ) -> KeptReference:
        """Store what a finished run observed as the prequential reference, if there is none yet.

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
    """Return the settings and data to train a run with, and a memory if it makes a reference.

    A run that reads no reference stays as it is. If the reference exists, the run gets it. If not,
    the run is trained without, and what it sees becomes the reference of later runs.

    Args:
        config: The settings of the run.
        splits: The data, without a reference.
        kept: The reference, from `References.find`, or None.
    """
    if not wants_reference(config):
        return config, splits, None
    if kept is not None:
        return config, dataclasses.replace(splits, reference=kept.reference), None
    memory = RowMemory(splits.train.labels, splits.n_classes)
    return without_reference(config), splits, memory


def learnt_enough(val_accuracy: float, n_classes: int, metric: str = "accuracy") -> bool:
    """Return whether what a run saw can teach others: its accuracy must be at least a tenth of the
    way from guessing to the best.

    Args:
        val_accuracy: What `metric` says of the run's last epoch.
        n_classes: Number of classes.
        metric: The metric.
    """
    guessing, best = (-math.log(n_classes), 0) if metric == "loss" else (1 / n_classes, 1)
    return val_accuracy >= guessing + 0.1 * (best - guessing)


def without_reference(config: TrainingConfig) -> TrainingConfig:
    """Return `config` for a run without a reference: uniform, unless its sampler works without."""
    name = config.sampler
    if name == "placebo":
        name = config.sampler_options.get("of", "impon")
    return uniformly(config) if sampler_class(name).needs_reference else config
