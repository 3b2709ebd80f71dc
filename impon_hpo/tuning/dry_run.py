"""The plan of an arm: what would be run, and whether it can be, before anything is spent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from impon_hpo.errors import ConfigError, DataMissingError, NothingYetError
from impon_hpo.sampling.reference import Reference
from impon_hpo.settings import report_words
from impon_hpo.storage.connect import check_places, open_storage, without_secrets
from impon_hpo.storage.trials import StudyRecord, read_studies, space_words
from impon_hpo.training.augment_setting import augment_names
from impon_hpo.training.config import TrainingConfig, uniformly, wants_reference
from impon_hpo.training.device import find_device
from impon_hpo.training.epoch_result import forward_equivalents
from impon_hpo.training.image_data import ImageData
from impon_hpo.training.reference_folder import check_reference
from impon_hpo.training.splits import Splits, by_size, load_splits, split_data
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning.algorithms import make_pruner, make_study_sampler
from impon_hpo.tuning.enqueued import check_enqueued, check_names
from impon_hpo.tuning.promotion import promotion_of
from impon_hpo.tuning.rehearsal import rehearse
from impon_hpo.tuning.report_signal import MEASURED
from impon_hpo.tuning.space import SHAPING, Space, corners, with_settings
from impon_hpo.tuning.study_file import StudyFile
from impon_hpo.tuning.trackers import make_tracker
from impon_hpo.tuning.warm_start import Earlier, left_to_enqueue

MADE_UP = {
    "subset": None,
    "validation_size": 0.1,
    "relabel": None,
    "exclude": None,
    "groups": None,
}
"""Settings of which rows are meant, for images that are made up."""


def check_fit(
    config: TrainingConfig,
    space: Space,
    splits_of: Callable[[TrainingConfig], Splits],
) -> None:
    """Build model, batch sampler and augmentation at every bound of the space once.

    A sampler that wants a reference is built on a made-up one, since none may be there yet.

    Args:
        config: The settings.
        space: What is searched.
        splits_of: Returns the data at the `image_size` of given settings.

    Raises:
        ConfigError: One of them does not fit the data.
    """
    if wants_reference(config):
        check_reference(config)
    shapes: list[dict[str, Any]] = [{}]
    for corner in corners(space, config):
        fitting = (*SHAPING, "augment", "augment_options")
        shape = {key: value for key, value in corner.items() if key.split(".")[0] in fitting}
        if shape not in shapes:
            shapes.append(shape)
    for shape in shapes:
        shaped = with_settings(config, shape)
        splits = splits_of(shaped)
        if wants_reference(config):
            splits = dataclasses.replace(splits, reference=made_up_reference(splits))
        TrainingRun(shaped, splits)


def plan(
    study_file: StudyFile,
    arm: str,
    n_trials: int,
    address: str,
    earlier: Sequence[Earlier] = (),
) -> dict[str, Any]:
    """Return what `tune` would run, checked as far as this machine allows.

    `cost_at_most` counts forward-equivalents, without those of scoring.

    `will_fail` lists trials that wait with values outside of the space.

    `enqueued` lists those configurations of `earlier` that the study does not have yet.

    What this machine lacks (a GPU, the data) is listed under `missing_here`; model and batch
    sampler are then checked on made-up images.

    Raises:
        ConfigError: Model, batch sampler, pruner or study sampler do not fit.
        StorageError: The storage cannot be opened.
    """
    config = study_file.arms[arm]
    rehearse(study_file, arm)
    combinations = study_file.combinations(arm)
    if combinations is not None:
        n_trials = min(n_trials, len(combinations))
    missing = []
    try:
        device = find_device(config.device)
    except ConfigError as error:
        missing.append(str(error))
        device = torch.device("cpu")
        config = with_settings(config, {"compile": "auto"})  # which may ask for a GPU, too
    splits_of = by_size(partial(load_splits, device=device))
    try:
        splits = splits_of(config)
        rows: Any = {
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
            "image": list(splits.train.images.shape[1:]),
            "classes": splits.n_classes,
            "augmentation": "+".join(augment_names(config.augment, splits.augment)) or "none",
        }
    except DataMissingError as error:
        missing.append(str(error))
        splits_of = by_size(partial(_made_up, device=device))
        splits = splits_of(config)
        rows = "not known: the data are not here"
    check_fit(config, study_file.space, splits_of)
    run = TrainingRun(uniformly(config), splits)
    rows_trained = run.steps_per_epoch * config.batch_size
    begun = _begun(study_file, arm, address)
    if begun is None:
        check_places(address, study_file.artifacts)
    facts: dict[str, Any] = {
        "study": study_file.name,
        "arm": arm,
        "question": study_file.question,
        "storage": without_secrets(address),
        "finished_already": 0 if begun is None else begun.n_finished,
        "trials": n_trials,
        "epochs_at_most": n_trials * config.epochs,
    }
    if earlier:
        trials = [] if begun is None else begun.optuna_study.get_trials(deepcopy=False)
        facts["enqueued"] = {
            f"{one.study} trial {one.trial}": one.params for one in left_to_enqueue(trials, earlier)
        }
    if will_fail := _failing(begun, study_file.space):
        facts["will_fail"] = will_fail
    pruner = _describe(make_pruner(study_file.pruner, epochs=config.epochs))
    promotion = promotion_of(study_file.pruner, epochs=config.epochs)
    if promotion is not None:
        facts["epochs_expected"] = promotion.expected_epochs(n_trials)
        pruner = promotion.model_dump(exclude={"epochs"}) | {"rungs": list(promotion.rungs)}
    looks = 1 if study_file.signal.extra_weights(config) is None else 2
    if isinstance(rows, dict):
        facts["cost_at_most"] = (
            n_trials
            * config.epochs
            * forward_equivalents(rows_trained, 0, looks * len(splits.validation))
        )
        facts["steps_per_epoch"] = run.steps_per_epoch
    facts |= {
        "device": str(device),
        "rows": rows,
        "model": config.model,
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "batch_sampler": {"name": config.sampler} | config.sampler_options,
        "pruner": pruner,
        "tracked": _tracked(study_file),
        "reported": report_words(study_file.identity(arm)) + _measured(study_file),
        "study_sampler": _describe(
            make_study_sampler(study_file.study_sampler, seed=study_file.seed, number=0)
        ),
        "space": {key: space_words(text) for key, text in study_file.space.identity().items()},
        "run": config.identity(),
        "missing_here": missing,
    }
    return facts


def plan_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a plan as (what, how) for people: a row for each entry of a table within it."""
    rows = []
    for key, value in facts.items():
        name = key.replace("_", " ")
        if isinstance(value, dict) and value:
            rows += [(f"{name}: {entry}", str(value[entry])) for entry in value]
        elif isinstance(value, list):
            rows += [(name, str(entry)) for entry in value]
        elif value == {}:
            rows.append((name, "nothing"))
        else:
            rows.append((name, str(value)))
    return rows


def _tracked(study_file: StudyFile) -> str:
    """Return where trials are shown, once that can be done."""
    tracker = make_tracker(study_file.track, study_file.runs)
    return "nowhere else" if tracker is None else str(study_file.track["to"])


def _measured(study_file: StudyFile) -> str:
    return f". {MEASURED}" if study_file.report == "train-loss" else ""


def _begun(study_file: StudyFile, arm: str, address: str) -> StudyRecord | None:
    try:
        records = read_studies(open_storage(address, create=False), study_file.name)
    except NothingYetError:
        return None
    return next((record for record in records if record.identity["arm"] == arm), None)


def _failing(begun: StudyRecord | None, space: Space) -> dict[str, str]:
    """Return the trials that wait with values that cannot be, and why not."""
    reasons = {}
    for trial in [] if begun is None else begun.optuna_study.get_trials(deepcopy=False):
        if trial.state == TrialState.WAITING:
            try:
                check_names(trial, space)
                check_enqueued(trial, space)
            except ConfigError as error:
                reasons[f"trial {trial.number}"] = str(error)
    return reasons


def _made_up(config: TrainingConfig, device: torch.device) -> Splits:
    side = config.image_size or 32
    images = np.zeros((10_000, side, side, 3), dtype=np.uint8)
    labels = np.arange(len(images), dtype=np.int64) % 10
    whole = config.model_copy(update=MADE_UP)
    return split_data(ImageData(images, labels), whole, device)


def made_up_reference(splits: Splits) -> Reference:
    """Return a reference that says nothing, to build samplers on that want one."""
    device = splits.train.labels.device
    losses = torch.zeros(1, len(splits.train), device=device)
    probabilities = torch.full(
        (len(splits.train), splits.n_classes), 1 / splits.n_classes, device=device
    )
    return Reference(losses[0], probabilities, losses)


def _describe(algorithm: object) -> dict[str, Any]:
    """Return class and plain-valued attributes of a pruner or study sampler, and of those that it
    was given."""
    described: dict[str, Any] = {"name": type(algorithm).__name__}
    for attribute, value in vars(algorithm).items():
        name = attribute.lstrip("_")
        if isinstance(value, str | int | float | bool) or attribute == "_fixed_params":
            described[name] = value
        elif isinstance(value, BasePruner | BaseSampler):
            described |= {f"{name}.{key}": part for key, part in _describe(value).items()}
    return described
