"""Recording: every configuration of a comparison, in every arm and block, trained once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from impon_hpo.comparing.arms import FRACTION, UNIFORM, Arm
from impon_hpo.comparing.cell import Cell, school
from impon_hpo.errors import ConfigError
from impon_hpo.storage.connect import quiet_studies
from impon_hpo.storage.trials import EPOCH_SECONDS
from impon_hpo.training.config import TrainingConfig
from impon_hpo.tuning.space import suggest, with_settings
from impon_hpo.tuning.study_file import StudyFile

DRAWS_EACH = 50
"""How often, for each configuration wanted, another one is drawn before a space is exhausted."""


def configurations(study_file: StudyFile, n: int) -> list[dict[str, Any]]:
    """Return the n configurations of a comparison, the same in all arms and blocks, each once.

    The first one is the middle of the space, as one would queue by hand what is known to work; the
    others are what Optuna's RandomSampler draws with the study's seed.

    Raises:
        ConfigError: The space has not so many.
    """
    space = study_file.space
    with quiet_studies():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=study_file.seed))
    found = [{key: _middle(distribution) for key, distribution in space.items()}]
    n_draws = 0
    while len(found) < n and n_draws < DRAWS_EACH * n:
        n_draws += 1
        drawn = suggest(study.ask(), space)
        if drawn not in found:
            found.append(drawn)
    if len(found) < n:
        raise ConfigError(
            f"compare.configurations must be at most {len(found)}, which is all that [space] has, "
            f"but got {n}."
        )
    return found


def _middle(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    middle = (low * high) ** 0.5 if distribution.log else (low + high) / 2
    if distribution.step is not None:
        steps = round((middle - low) / distribution.step)
        middle = low + steps * distribution.step
    return int(middle) if isinstance(distribution, IntDistribution) else float(middle)


def recording_cells(
    study_file: StudyFile, arms: Sequence[Arm], params: Sequence[dict[str, Any]]
) -> list[Cell]:
    """Return the runs to record: the first policy's schedule block by block, then in each block
    those of the others, so that what is there is a comparison at any time.

    Arms that differ in the evaluated weights only share their training. An arm that is taught has
    no run of its own for the first configuration: it is its teacher's.
    """
    protocol = study_file.protocol
    trainings: dict[str, list[Arm]] = {}
    for arm in arms:
        trainings.setdefault(arm.training, []).append(arm)
    weights = {
        training: tuple(sorted({arm.policy.weights for arm in sharing}))
        for training, sharing in trainings.items()
    }
    # Whether or not an arm is taught so far: one that is added later finds what it learns from.
    teachers = {arm.training for arm in arms if arm.kind in (UNIFORM, FRACTION)}

    def settings(training: str, number: int, seed: int) -> TrainingConfig:
        ema = "ema" if "ema" in weights[training] else "last"
        changed = {"seed": seed, "eval_weights": ema}
        return with_settings(trainings[training][0].config, params[number] | changed)

    found = []
    seeds = range(study_file.seed, study_file.seed + protocol.n_blocks)
    first, *others = dict.fromkeys(arm.policy.schedule for arm in arms)
    parts = [*itertools.product(seeds, [first]), *itertools.product(seeds, others)]
    for seed, schedule in parts:
        for training, sharing in trainings.items():
            if sharing[0].policy.schedule != schedule:
                continue
            teacher = sharing[0].teacher if sharing[0].taught else training
            for number, configuration in enumerate(params):
                if sharing[0].taught and number == 0:
                    continue
                found.append(
                    Cell(
                        training,
                        configuration,
                        seed,
                        settings(training, number, seed),
                        teaches=training in teachers and number == 0,
                        school=school(settings(teacher, 0, seed)),
                        weights=weights[training],
                        test_size=protocol.test_size,
                        test_epochs=protocol.test_epochs,
                    )
                )
    return found


def recorded_rows(
    study_file: StudyFile, params: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the table of a recording: a row for every epoch of every run.

    An epoch whose loss was not finite has no accuracy, what it cost, and `ended`.
    """
    rows = []
    for result in results:
        head = {
            "training": result["arm"],
            "block": result["seed"] - study_file.seed,
            "configuration": params.index(result["params"]),
            **result["params"],
        }
        for epoch in result["epochs"]:
            rows.append(head | {"reference_cost": result["reference_cost"]} | _row(epoch))
        if result["ended"]:
            rows.append(
                head
                | {"reference_cost": result["reference_cost"]}
                | {"epoch": len(result["epochs"]) + 1, "cost": result["ended_cost"]}
                | {"ended": result["ended"]}
            )
    return rows


def _row(epoch: dict[str, Any]) -> dict[str, Any]:
    kept = ["epoch", "train_loss", "rows_trained", "rows_scored", "rows_validated", "cost"]
    kept += [key for key in epoch if key.startswith(("val_accuracy_", "test_accuracy_"))]
    row = {key: epoch[key] for key in (*kept, *EPOCH_SECONDS)}
    for key in ("train_loss", *EPOCH_SECONDS):
        row[key] = round(row[key], 4)
    return row
