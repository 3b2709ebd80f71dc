"""The grid: every arm × configuration × seed trained to the end once, each result kept."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from impon_hpo.console import Say
from impon_hpo.environment import environment, versions
from impon_hpo.errors import ConfigError, NonFiniteLossError, StorageError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.tuning.space import with_settings
from impon_hpo.tuning.study_file import StudyFile


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Args:
        arm: Name of the arm.
        params: The configuration.
        seed: Seed of split, weights, crops and batches.
        config: All settings.
        teaches: Whether what it observes is the prequential reference of the others of its seed, as
            the first trial of a study would be.
    """

    arm: str
    params: dict[str, Any]
    seed: int
    config: TrainingConfig
    teaches: bool = False

    @property
    def name(self) -> str:
        """A name that no other run of any grid has, nor the same run by another version."""
        made_by = versions()["impon-hpo"]
        said = json.dumps([made_by, self.config.identity()], sort_keys=True)
        return f"{self.arm}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


def cells(study_file: StudyFile, arms: list[str], n_seeds: int) -> list[Cell]:
    """Return the runs of a study's grid: seeds outermost, so that a part is a grid, too.

    The middle configuration of the first uniform arm teaches the others of its seed.

    Raises:
        ConfigError: The space is no grid: only categorical settings make one.
    """
    configurations = list(_configurations(study_file.space))
    middle = configurations[len(configurations) // 2]
    teachers = [arm for arm in arms if study_file.arms[arm].sampler == "uniform"][:1]
    return [
        Cell(
            arm,
            params,
            seed,
            with_settings(study_file.arms[arm], params | {"seed": seed}),
            teaches=arm in teachers and params == middle,
        )
        for seed in range(study_file.seed, study_file.seed + n_seeds)
        for params in configurations
        for arm in arms
    ]


def _configurations(space: dict[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
    choices = []
    for key, distribution in space.items():
        if not isinstance(distribution, CategoricalDistribution):
            raise ConfigError(
                f"space.{key}: compare-samplers trains every configuration of a grid, so every "
                'setting must be { type = "categorical", choices = […] }.'
            )
        choices.append([(key, choice) for choice in distribution.choices])
    for combination in itertools.product(*choices):
        yield dict(combination)


def run_grid(wanted: list[Cell], folder: Path, *, n_workers: int, say: Say) -> list[dict[str, Any]]:
    """Train what is not there yet and return the results of all, in the order of `wanted`.

    Each finished run is one file in `folder`; a grid that was stopped goes on where it was.

    Raises:
        ImponHpoError: A run met a mistake of the user's.
        StorageError: A result cannot be read or written.
    """
    missing = [cell for cell in wanted if not _path(folder, cell).exists()]
    if len(missing) < len(wanted):
        say(f"{len(wanted) - len(missing)} of {len(wanted)} runs are there already.")
    teachers = [cell for cell in missing if cell.teaches]
    others = [cell for cell in missing if not cell.teaches]
    lines = itertools.chain(
        _run_all(teachers, folder, n_workers), _run_all(others, folder, n_workers)
    )
    for n_done, line in enumerate(lines, start=1):
        say(f"[{n_done}/{len(missing)}] {line}")
    return [_read(_path(folder, cell)) for cell in wanted]


def _run_all(missing: list[Cell], folder: Path, n_workers: int) -> Iterator[str]:
    """Train all of them and yield a line about each as it is finished."""
    if n_workers == 1 or len(missing) == 1:
        for cell in missing:
            yield _run_cell(cell, folder)
    elif missing:
        pool = ProcessPoolExecutor(
            n_workers, mp_context=get_context("spawn"), initializer=_use_one_thread
        )
        with pool:
            futures = [pool.submit(_run_cell, cell, folder) for cell in missing]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _use_one_thread() -> None:
    """Two processes of one thread train faster than one of two, and do not wait for each other."""
    import torch

    torch.set_num_threads(1)


def _path(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell.name}.json"


def _run_cell(cell: Cell, folder: Path) -> str:
    """Train one run, keep its result and return a line about it."""
    from impon_hpo.training.device import find_device
    from impon_hpo.training.memory import RowMemory
    from impon_hpo.training.references import References, wants_reference, with_reference
    from impon_hpo.training.run import train_epochs

    device = find_device(cell.config.device)
    splits = _splits(cell.config, str(device))
    references = References(folder / "references", say=lambda line: None)
    memory = RowMemory(splits.train.labels, splits.n_classes) if cell.teaches else None
    reference_cost = 0
    if wants_reference(cell.config):
        kept = references.find(cell.config, splits)
        if kept is None:
            raise ConfigError(
                f"Arm '{cell.arm}': reference = 'prequential' comes from a uniform arm of the grid "
                "that learns, and there is none: add one, or use crossfit or a file."
            )
        reference_cost = kept.cost
        splits = with_reference(splits, kept)
    epochs: list[dict[str, Any]] = []
    ended = ""
    try:
        for epoch in train_epochs(cell.config, splits, memory=memory):
            epochs.append(dataclasses.asdict(epoch))
    except NonFiniteLossError as error:
        ended = str(error)
    if memory is not None and not ended:  # its word counts even if it learnt little: it is alone
        references.learn(
            cell.config.model_copy(update={"reference": "prequential"}), splits, memory
        )
    accuracy = f"{epochs[-1]['val_accuracy']:.4f}" if epochs else ended
    result = {
        "arm": cell.arm,
        "params": cell.params,
        "seed": cell.seed,
        "epochs": epochs,
        "ended": ended,
        "horizon": cell.config.epochs,
        "reference_cost": reference_cost,
        "environment": environment(str(device)),
    }
    _write(_path(folder, cell), result)
    said = " ".join(f"{key}={value}" for key, value in cell.params.items())
    return f"{cell.arm} {said} seed={cell.seed}: {accuracy}"


_kept_splits: dict[str, Any] = {}


def _splits(config: TrainingConfig, device: str) -> Any:
    """Load the data of a seed, or return what the last run of this process loaded."""
    import torch

    from impon_hpo.training.splits import load_splits

    shaping = ["dataset", "data_dir", "subset", "image_size", "validation_size", "augment"]
    shaping += ["batch_size", "seed"]
    key = json.dumps([device, *(getattr(config, name) for name in shaping)])
    if key not in _kept_splits:
        _kept_splits.clear()
        _kept_splits[key] = load_splits(config, torch.device(device))
    return _kept_splits[key]


def _write(path: Path, result: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.name, suffix=".tmp", delete=False
        ) as file:
            json.dump(result, file)
        Path(file.name).replace(path)
    except OSError as error:
        raise StorageError(f"'{path}' cannot be written: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StorageError(
            f"'{path}' cannot be read: {error}. Delete it, and it is made anew."
        ) from error
    return result
