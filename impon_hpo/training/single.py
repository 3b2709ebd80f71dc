"""A single run from start to end: trained or continued, tested once, and its result written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from impon_hpo.environment import environment
from impon_hpo.errors import describing
from impon_hpo.files import write_file
from impon_hpo.settings import metric_words
from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.config import TrainingConfig, wants_reference
from impon_hpo.training.device import find_device
from impon_hpo.training.reference_folder import References, learnt_enough, prepare
from impon_hpo.training.splits import load_splits
from impon_hpo.training.training_run import TrainingRun, train_epochs

log = logging.getLogger("impon_hpo")


def train(config: TrainingConfig, folder: Path, *, name: str) -> dict[str, Any]:
    """Train `config`, or continue its run, test the model, and return the result.

    Checkpoint and `result.json` are in `folder/<name>-<hash of the settings>`, so that runs with
    different settings do not touch each other.

    Args:
        config: The settings.
        folder: The folder of all runs; references are in a folder beside it.
        name: A name for this run.

    Returns:
        The batch sampler that the run was trained with, which without a reference may be another
        than the arm's; validation and test accuracy, which are what `metric` says, cost, every
        epoch, settings, environment and the path of the checkpoint, as plain JSON values.

    Raises:
        ConfigError: Device, model or batch sampler do not fit.
        DataError: The data are missing or broken.
        CheckpointError: A checkpoint or reference cannot be read or written.
        StorageError: The result cannot be written.
        NonFiniteLossError: Training diverged.
    """
    device = find_device(config.device)
    splits = load_splits(config, device)
    references = References(folder.parent / "references")
    requested = config
    kept = references.find(config, splits) if wants_reference(config) else None
    key = None if kept is None else references.key(config, splits)
    config, splits, memory = prepare(config, splits, kept)
    if memory is not None:
        log.info(
            "There is no reference yet: this run is trained with '%s', and what it sees of the "
            "rows becomes the reference of later ones.",
            config.sampler,
        )
    # A run with a reference is not the run without one that came before it.
    text = json.dumps([requested.identity(), key], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    home = folder / f"{name}-{digest}"
    checkpoint = Checkpoint(home / "checkpoint.pt")
    if checkpoint.path.exists():
        log.info(f"continuing from {checkpoint.path}")
    metric = metric_words(config.metric)
    for result in train_epochs(config, splits, checkpoint, memory):
        log.info(
            f"epoch {result.epoch}/{config.epochs}  train loss {result.train_loss:.4f}  "
            f"val {metric} {result.val_accuracy:.4f}  val loss {result.val_loss:.4f}  "
            f"seen {result.share_seen:.1%}  {result.rows_trained / result.seconds:,.0f} rows/s"
        )
    run = TrainingRun(config, splits, memory)
    run.continue_from(checkpoint)
    reached = run.results[-1].val_accuracy
    if memory is not None and learnt_enough(reached, splits.n_classes, config.metric):
        with describing("What this run has learnt could not be kept", "Its result stands."):
            references.learn(requested, splits, memory)
    test_accuracy, test_loss = run.evaluate(splits.test)
    outcome = {
        "arm": name,
        "sampler": config.sampler,
        "val_accuracy": reached,
        "test_accuracy": test_accuracy,
        "test_loss": test_loss,
        "metric": config.metric,
        "cost": sum(result.cost for result in run.results),
        "reference": None
        if kept is None
        else {"maker": kept.maker, "cost": kept.cost, "settings": kept.settings},
        "epochs": [dataclasses.asdict(result) for result in run.results],
        "settings": config.identity(),
        "environment": environment(str(device)),
        "checkpoint": str(checkpoint.path),
    }
    write_file(home / "result.json", json.dumps(outcome, indent=2) + "\n")
    return outcome
