"""The plan of a comparison: runs, epochs, cost and time, before any of it is spent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

from optuna.storages import BaseStorage

from impon_hpo.comparing.arms import SHORT, Arm, arms_of
from impon_hpo.comparing.evidence import read_fixed, read_trials
from impon_hpo.comparing.grid import comparison_grid
from impon_hpo.comparing.words import claim_words
from impon_hpo.errors import DataError
from impon_hpo.training.config import TrainingConfig, uniformly, wants_reference
from impon_hpo.training.device import find_device
from impon_hpo.training.epoch_result import forward_equivalents
from impon_hpo.training.splits import Splits, by_size, load_splits
from impon_hpo.training.timing import PhaseTimer
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning.dry_run import check_fit, made_up_reference
from impon_hpo.tuning.protocol import CHOICE
from impon_hpo.tuning.study_file import StudyFile

CALIBRATION_STEPS = 20
LEAST_BLOCKS = 5
"""The sign-flip test of n blocks cannot give less than 1 / 2^n."""


def cost_ratio_of_an_epoch(trained: float, scored: float, validation: float) -> float:
    """Return what an arm's epoch costs of a full uniform epoch.

    With b rows trained, s scored and v of validation, in units of the rows that uniform sampling
    trains on in an epoch, it is (3b + s + v) / (3 + v).
    """
    return (3 * trained + scored + validation) / (3 + validation)


def plan_comparison(
    study_file: StudyFile, storage: BaseStorage | None, *, calibrate: bool = True
) -> dict[str, Any]:
    """Return what `compare` would record, what it would cost, and what cannot come out of it.

    Costs are forward-equivalents; `seconds_left` is for one process, from a few steps here.

    Args:
        study_file: The study.
        storage: Its storage, where there is one.
        calibrate: Whether to time a few steps here, to estimate seconds.

    Raises:
        ConfigError: The study or its device does not fit.
        DataError: The data are not here.
    """
    protocol = study_file.protocol
    grid = comparison_grid(study_file)
    recorded = set()
    fixed = None if storage is None else read_fixed(study_file, storage)
    if fixed is not None and storage is not None:
        recorded = {*fixed.recorded, *read_trials(grid, storage, fixed.recorded)[0]}
    device = find_device(study_file.run.device)
    splits_of = by_size(partial(load_splits, device=device))
    try:
        splits = splits_of(study_file.run)
    except DataError as error:
        raise DataError(f"{error} A plan counts the rows, so it needs the data.") from error
    for arm in study_file.arms.values():
        check_fit(arm, study_file.space, splits_of)
    arms = arms_of(study_file)
    scored = {arm.training: _scored_share(arm.config, splits) for arm in arms}
    runs = [run for training in grid.trainings for run in grid.runs(training)]
    costs = {run.key: _cost(grid.config(run), splits, scored[run.training.name]) for run in runs}
    cost_left = sum(cost for key, cost in costs.items() if key not in recorded)
    facts: dict[str, Any] = {
        "study": study_file.name,
        "question": study_file.question,
        "claim": claim_words(protocol.identity()),
        "arms": [arm.name for arm in arms],
        "configurations": protocol.n_configurations,
        "blocks": protocol.n_blocks,
        "runs": len(runs),
        "runs_recorded_already": len(recorded & costs.keys()),
        "epochs": sum(run.training.config.epochs for run in runs),
        "cost": sum(costs.values()),
        "cost_left": cost_left,
        "cost_of_a_uniform_run": _cost(uniformly(study_file.run), splits, 0.0),
        "device": str(device),
    }
    if calibrate:
        seconds = _seconds(study_file.run, splits)
        facts["seconds_left"] = round(seconds * cost_left)
    claimed = next(arm for arm in arms if arm.name == protocol.searching)
    ratio = _ratio(claimed, scored[claimed.training], splits)
    facts["cost_ratio_of_an_epoch"] = round(ratio, 4)
    facts["warnings"] = _warnings(study_file, ratio)
    return facts


def plan_notes(facts: Mapping[str, Any]) -> list[str]:
    """Return how the numbers of a plan are to be read, a line each."""
    uniform = facts["cost_of_a_uniform_run"]
    return [
        "a run: one configuration, trained to its last epoch in one arm or control and one block",
        f"a cost: forward-equivalents, of which a row has 1 for its forward and 2 for its backward "
        f"pass; with {uniform:,} for a full uniform run, all of it is as much as "
        f"{facts['cost'] / uniform:.1f} of them",
    ]


def _cost(config: TrainingConfig, splits: Splits, scored_share: float) -> int:
    """Return the forward-equivalents of a run: all that is charged, without hidden tests."""
    full = len(splits.train) // config.batch_size
    rows = max(1, round(config.epoch_fraction * full)) * config.batch_size
    return config.epochs * forward_equivalents(
        rows, round(rows * scored_share), len(splits.validation)
    )


def _scored_share(config: TrainingConfig, splits: Splits) -> float:
    """Return rows scored per row trained, counted over a few steps."""
    if wants_reference(config):
        splits = dataclasses.replace(splits, reference=made_up_reference(splits))
    run = TrainingRun(config, splits)
    if not run.sampler.needs_forward:
        return 0.0
    run.steps_per_epoch = CALIBRATION_STEPS
    _, rows_scored = run.train_rows(1, PhaseTimer(run.device))
    return rows_scored / (CALIBRATION_STEPS * config.batch_size)


def _seconds(config: TrainingConfig, splits: Splits) -> float:
    """Return seconds a forward-equivalent, from a few uniform steps here."""
    run = TrainingRun(uniformly(config), splits)
    run.steps_per_epoch = CALIBRATION_STEPS
    run.train_rows(1, PhaseTimer(run.device))  # the first steps are slower
    timer = PhaseTimer(run.device)
    run.train_rows(2, timer)
    spent = timer.seconds("drawing") + timer.seconds("stepping")
    return spent / forward_equivalents(CALIBRATION_STEPS * config.batch_size, 0, 0)


def _ratio(arm: Arm, scored_share: float, splits: Splits) -> float:
    share = 1.0 if arm.kind == SHORT else float(arm.fraction)  # fewer epochs, all of them whole
    full = len(splits.train) * arm.config.epoch_fraction / share
    validation = len(splits.validation) / full
    return cost_ratio_of_an_epoch(share, share * scored_share, validation)


def _warnings(study_file: StudyFile, ratio: float) -> list[str]:
    protocol = study_file.protocol
    warnings = []
    if protocol.endpoint == CHOICE and ratio > protocol.cost_ratio:
        warnings.append(
            f"An epoch of {protocol.claim} costs {ratio:.2f} of a uniform one, so with as many "
            f"epochs a cost ratio of {protocol.cost_ratio:g} is arithmetically impossible. Lower "
            "its share of an epoch, or validate on fewer rows."
        )
    if protocol.n_blocks < LEAST_BLOCKS:
        warnings.append(
            f"With {protocol.n_blocks} blocks nothing can be supported or refuted: the exact test "
            f"reaches 0.05 with {LEAST_BLOCKS} or more."
        )
    return warnings
