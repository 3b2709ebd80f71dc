"""A cell: one run of a grid, trained to its end once and kept as one file."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impon_hpo.environment import environment, versions
from impon_hpo.errors import ConfigError, NonFiniteLossError, StorageError
from impon_hpo.training.config import TrainingConfig

if TYPE_CHECKING:
    from impon_hpo.training.run import TrainingRun
    from impon_hpo.training.splits import Splits

LOSSES_AN_EPOCH = 20
"""How many training losses of an epoch a result keeps."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Args:
        arm: Name of the arm.
        params: The configuration.
        seed: Seed of split, weights, crops and batches.
        config: All settings.
        teaches: Whether what it observes is the prequential reference of the others of its school,
            as the first trial of a study would be.
        school: Names teacher and taught: a run learns from the teacher of its own school.
        weights: Which weights are evaluated, beside those of `config`: "last", "ema" or both.
        test_size: Rows of the test split to look at, None for all, 0 for none.
        test_epochs: After which epochs: "all" or "last".
    """

    arm: str
    params: dict[str, Any]
    seed: int
    config: TrainingConfig
    teaches: bool = False
    school: str = ""
    weights: tuple[str, ...] = ()
    test_size: int | None = 0
    test_epochs: str = "all"

    @property
    def name(self) -> str:
        """A name that no other run of any grid has, nor the same run by another version."""
        made_by = versions()["impon-hpo"]
        said: list[Any] = [made_by, self.config.identity()]
        if self.school:
            said += [self.school, self.weights, self.test_size, self.test_epochs]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.arm}-{digest}".replace("/", "_").replace(" ", "_")

    def path(self, folder: Path) -> Path:
        """Return the file of its result."""
        return folder / f"{self.name}.json"


def school(teacher: TrainingConfig) -> str:
    """Return the name of the school of a teacher with these settings."""
    said = json.dumps(teacher.identity(), sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def train_cell(cell: Cell, folder: Path) -> str | None:
    """Train one run, keep its result and return a line about it; None where another process is at
    it or has done it.

    Raises:
        ImponHpoError: It met a mistake of the user's.
    """
    path = cell.path(folder)
    with _only_me(path.with_suffix(".lock")) as mine:
        if not mine or path.exists():
            return None
        result = _train(cell, folder)
        _write(path, result)
    epochs = result["epochs"]
    accuracy = f"{epochs[-1]['val_accuracy']:.4f}" if epochs else result["ended"]
    said = " ".join(f"{key}={_short(value)}" for key, value in cell.params.items())
    return f"{cell.arm} {said} seed={cell.seed}: {accuracy}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _train(cell: Cell, folder: Path) -> dict[str, Any]:
    from impon_hpo.training.device import find_device
    from impon_hpo.training.memory import RowMemory
    from impon_hpo.training.references import References, wants_reference, with_reference
    from impon_hpo.training.run import TrainingRun

    device = find_device(cell.config.device)
    splits = _splits(cell.config, str(device))
    of_school = cell.teaches or cell.config.reference == "prequential"
    home = folder / "references" / (cell.school if of_school else "")
    references = References(home, say=lambda line: None)
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
    run = TrainingRun(cell.config, splits, memory)
    test = _hidden(splits, cell)
    epochs: list[dict[str, Any]] = []
    step_losses: list[list[float]] = []
    ended, ended_cost = "", 0
    try:
        while run.epoch < cell.config.epochs:
            epochs.append(dataclasses.asdict(run.train_epoch()) | _looks(run, cell, test))
            step_losses.append(_thinned(run.step_losses.tolist()))
    except NonFiniteLossError as error:
        ended, ended_cost = str(error), error.cost
    if memory is not None:  # its word counts even if it learnt little: it is alone
        references.learn(
            cell.config.model_copy(update={"reference": "prequential"}), splits, memory
        )
    return {
        "arm": cell.arm,
        "params": cell.params,
        "seed": cell.seed,
        "epochs": epochs,
        "steps_per_epoch": run.steps_per_epoch,
        "step_losses": step_losses,
        "ended": ended,
        "ended_cost": ended_cost,
        "horizon": cell.config.epochs,
        "reference_cost": reference_cost,
        "environment": environment(str(device)),
    }


def _thinned(losses: list[float]) -> list[float]:
    """Return the means of at most `LOSSES_AN_EPOCH` stretches of an epoch's steps."""
    n = min(LOSSES_AN_EPOCH, len(losses))
    ends = [len(losses) * at // n for at in range(n + 1)]
    stretches = (losses[begin:end] for begin, end in itertools.pairwise(ends))
    return [round(sum(stretch) / len(stretch), 5) for stretch in stretches]


def _hidden(splits: Splits, cell: Cell) -> Any:
    """Return the part of the test split that is looked at, or None; the same for all arms."""
    import numpy as np
    import torch

    from impon_hpo.training.splits import Split

    if cell.test_size == 0:
        return None
    order = np.random.default_rng([cell.seed, 1]).permutation(len(splits.test))
    rows = torch.from_numpy(np.sort(order[: cell.test_size])).to(splits.test.labels.device)
    return Split(splits.test.images[rows], splits.test.labels[rows])


def _looks(run: TrainingRun, cell: Cell, test: Any) -> dict[str, float]:
    """Return the accuracies of an epoch by split and weights, such as `val_accuracy_ema`."""
    found = {}
    for weights in cell.weights:
        if weights == cell.config.eval_weights:  # judged already
            found[f"val_accuracy_{weights}"] = run.results[-1].val_accuracy
        else:
            found[f"val_accuracy_{weights}"] = run.evaluate(run.splits.validation, weights)[0]
        if test is not None and (cell.test_epochs == "all" or run.epoch == cell.config.epochs):
            found[f"test_accuracy_{weights}"] = run.evaluate(test, weights)[0]
    return found


_kept_splits: dict[str, Any] = {}


def _splits(config: TrainingConfig, device: str) -> Splits:
    """Load the data of a seed, or return what the last run of this process loaded."""
    import torch

    from impon_hpo.training.splits import load_splits

    shaping = ["dataset", "data_dir", "subset", "image_size", "validation_size", "augment"]
    shaping += ["batch_size", "seed"]
    key = json.dumps([device, *(getattr(config, name) for name in shaping)])
    if key not in _kept_splits:
        _kept_splits.clear()
        _kept_splits[key] = load_splits(config, torch.device(device))
    found: Splits = _kept_splits[key]
    return found


@contextmanager
def _only_me(lock: Path) -> Iterator[bool]:
    """Try for a lock that the kernel releases when this process ends, however it ends."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise StorageError(f"'{lock}' cannot be written: {error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
        # Whoever waits for the file by its name finds the result instead.
        lock.unlink(missing_ok=True)


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


def read_cell(cell: Cell, folder: Path) -> dict[str, Any]:
    """Return the kept result of a run.

    Raises:
        StorageError: It cannot be read.
    """
    path = cell.path(folder)
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StorageError(
            f"'{path}' cannot be read: {error}. Delete it, and it is made anew."
        ) from error
    return result
