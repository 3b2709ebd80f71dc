"""The folder of references: each made once, by one process while others wait, then found again."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

from impon_hpo.errors import CheckpointError, ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.sampling.table import sampler_class
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.crossfit import crossfit, crossfit_settings
from impon_hpo.training.memory import RowMemory
from impon_hpo.training.reference import KeptReference, reference_key
from impon_hpo.training.splits import Splits

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
        say: Gets a line when one is made.
    """

    def __init__(self, folder: Path, *, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say

    def key(self, config: TrainingConfig, splits: Splits) -> str:
        """Return the name of the reference that `config` asks for on the data of `splits`."""
        settings = crossfit_settings(config).model_dump() if config.reference == "crossfit" else {}
        settings["augment"] = splits.augment
        return reference_key(splits.fingerprint, config.reference, settings)

    def path(self, key: str) -> Path:
        """Return the file of a reference."""
        return self.folder / f"{key}.pt"

    def find(self, config: TrainingConfig, splits: Splits) -> KeptReference | None:
        """Return the reference that `config` asks for, made if need be; None if it cannot be yet.

        A prequential one comes from an earlier run (see `learn`), and until then there is none.

        Raises:
            ConfigError: `reference` or its options are wrong.
            CheckpointError: A file is broken, of other data, or cannot be written.
        """
        check_reference(config)
        if config.reference not in MAKERS:
            return KeptReference.load(Path(config.reference), splits)
        path = self.path(self.key(config, splits))
        with self._only_me(path):
            if path.exists():
                return KeptReference.load(path, splits)
            if config.reference == "prequential":
                return None
            kept = crossfit(config, splits, say=self.say)
            kept.save(path)
            return kept

    def learn(self, config: TrainingConfig, splits: Splits, memory: RowMemory) -> KeptReference:
        """Keep what a finished run observed as the prequential reference, if it is the first.

        Raises:
            CheckpointError: It cannot be written.
        """
        path = self.path(self.key(config, splits))
        with self._only_me(path):
            if path.exists():
                return KeptReference.load(path, splits)
            kept = KeptReference(memory.reference(), 0, "prequential", {}, splits.fingerprint)
            kept.save(path)
            return kept

    @contextlib.contextmanager
    def _only_me(self, path: Path) -> Iterator[None]:
        """Hold a lock that the kernel releases when this process ends, however it ends."""
        lock = path.with_suffix(".lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("w")
        except OSError as error:
            raise CheckpointError(f"'{lock}' cannot be written: {error}") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


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
