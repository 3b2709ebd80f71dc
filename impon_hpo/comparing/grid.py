"""The grid of a comparison: every training × block × configuration, each run once."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution

from impon_hpo.comparing.arms import FRACTION, UNIFORM, Arm, arms_of, uniform_of
from impon_hpo.environment import versions
from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.storage.connect import quiet_studies
from impon_hpo.training.config import TrainingConfig, wants_reference
from impon_hpo.tuning.space import (
    Distribution,
    Space,
    ends_of,
    setting_of,
    suggest,
    walk,
    with_settings,
)
from impon_hpo.tuning.study_file import StudyFile

Key = tuple[str, int, int]
"""Of a run: name of the training, block, configuration."""

DRAWS_EACH = 50
"""How often, for each configuration wanted, another one is drawn before a space is exhausted."""


@dataclass(frozen=True)
class Training:
    """What is recorded in one study: settings under which configurations are trained.

    Args:
        name: Such as "memory@1/3 cosine".
        config: Its settings, before a configuration and a seed change them.
        part: Trainings of earlier parts are recorded in all blocks before those of later ones.
        numbers: The configurations that it trains in each block. One that is taught by its
            comparison lacks that of its teacher, whose run is its own, too.
        weights: Which weights are evaluated beside those of `config`: "last", "ema" or both.
        teaches: The configuration whose run is the reference of others, or None.
        taught_by: The name of the training whose run is its reference, or "".
    """

    name: str
    config: TrainingConfig
    part: int
    numbers: tuple[int, ...]
    weights: tuple[str, ...] = ()
    teaches: int | None = None
    taught_by: str = ""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a grid: a training's configuration in a block.

    Args:
        training: The training.
        block: From 0; its seed is the study's plus that.
        configuration: From 0.
    """

    training: Training
    block: int
    configuration: int

    @property
    def key(self) -> Key:
        """What tells it from every other run of its grid."""
        return self.training.name, self.block, self.configuration


@dataclass(frozen=True)
class Grid:
    """All runs of a comparison.

    Args:
        study: Name of the study.
        kind: "compare" or "compare-samplers".
        trainings: In the order in which a block is recorded.
        params: The configurations.
        space: What they are drawn from.
        seed: Seed of the first block.
        n_blocks: Blocks.
        test_size: Rows of the hidden test that are looked at, None for all, 0 for none.
        test_epochs: After which epochs: "all" or "last".
    """

    study: str
    kind: str
    trainings: tuple[Training, ...]
    params: Sequence[dict[str, Any]]
    space: Space
    seed: int
    n_blocks: int
    test_size: int | None = 0
    test_epochs: str = "all"

    def training(self, name: str) -> Training:
        """Return a training by name."""
        return next(training for training in self.trainings if training.name == name)

    def runs(self, training: Training) -> list[PlannedRun]:
        """Return the runs of a training, block by block."""
        pairs = itertools.product(range(self.n_blocks), training.numbers)
        return [PlannedRun(training, block, number) for block, number in pairs]

    def stretches(self) -> Iterator[tuple[Training, int]]:
        """Yield training and block in the order of recording: what is there is a comparison at any
        time."""
        for part in sorted({training.part for training in self.trainings}):
            for block in range(self.n_blocks):
                for training in self.trainings:
                    if training.part == part:
                        yield training, block

    def config(self, run: PlannedRun) -> TrainingConfig:
        """Return all settings of a run."""
        changed = self.params[run.configuration] | {"seed": self.seed + run.block}
        return with_settings(run.training.config, changed)

    def teacher(self, training: Training, block: int) -> PlannedRun | None:
        """Return the run that is the reference of a training in a block, if one is."""
        if not training.taught_by:
            return None
        teacher = self.training(training.taught_by)
        assert teacher.teaches is not None
        return PlannedRun(teacher, block, teacher.teaches)

    def identity(self, training: Training) -> dict[str, Any]:
        """Return what decides the numbers of a training's runs, as plain JSON values."""
        teacher = self.teacher(training, 0)
        return {
            "study": f"{self.study} {self.kind}",
            "arm": training.name,
            "seed": self.seed,
            "pruner": {"name": "NopPruner"},
            "run": training.config.identity(),
            "space": self.space.identity(),
            "configurations": [self.params[number] for number in training.numbers],
            "weights": list(training.weights),
            "test_size": self.test_size,
            "test_epochs": self.test_epochs,
            "teacher": None if teacher is None else self.config(teacher).identity(),
            "version": versions()["impon-hpo"],
        }


def study_name(grid: Grid, training: Training, recorded: Collection[Key] = ()) -> str:
    """Return the name of a training's study in the storage: other settings make another study.

    Args:
        grid: The grid.
        training: One of its trainings.
        recorded: Runs that a table has already, so that the study lacks them.
    """
    lacking = sorted(key for key in recorded if key[0] == training.name)
    text = json.dumps([grid.identity(training), lacking], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return f"{grid.study}-{grid.kind}-{training.name}-{digest}"


def configurations(study_file: StudyFile, n: int) -> list[dict[str, Any]]:
    """Return the n configurations of a comparison, the same in all arms and blocks, each once.

    The first one is the middle of the space, as one would queue by hand what is known to work; the
    others are what Optuna's RandomSampler draws with the study's seed.

    Raises:
        ConfigError: The space has not so many.
    """
    space, run = study_file.space, study_file.run
    with quiet_studies():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=study_file.seed))
    drawn = list(walk(space, run, {key: [_middle(space[key])] for key in space}))
    n_draws = 0
    while len(drawn) < n and n_draws < DRAWS_EACH * n:
        n_draws += 1
        params = suggest(study.ask(), space, run)
        if params not in drawn:
            drawn.append(params)
    if len(drawn) < n:
        raise ConfigError(
            f"compare.configurations must be at most {len(drawn)}, which is all that [space] has, "
            f"but got {n}."
        )
    return drawn


def _middle(distribution: Distribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    low, high = distribution.low, distribution.high
    middle = (low * high) ** 0.5 if distribution.log else (low + high) / 2
    if distribution.step is not None:
        steps = round((middle - low) / distribution.step)
        middle = low + steps * distribution.step
    return int(middle) if isinstance(distribution, IntDistribution) else float(middle)


def comparison_grid(study_file: StudyFile, only: Sequence[str] = ()) -> Grid:
    """Return the runs of `compare`.

    Arms that differ in the evaluated weights only share their training. An arm that is taught has
    no run of its own for the first configuration: it is its teacher's.

    Args:
        study_file: The study.
        only: Names of arms, such as "memory@1/3"; default: all. Uniform sampling, under the first
            policy and their own, and what teaches them come with them.

    Raises:
        ConfigError: An arm is not known, or the space has too few configurations.
    """
    _check_points(study_file.run)
    protocol = study_file.protocol
    arms = arms_of(study_file)
    names = _trainings_of(arms, only)
    sharing: dict[str, list[Arm]] = {}
    for arm in arms:
        sharing.setdefault(arm.training, []).append(arm)
    schedules = list(dict.fromkeys(arm.policy.schedule for arm in arms))
    trainings = []
    for name, sharers in sharing.items():
        first = sharers[0]
        judged: set[str] = {arm.policy.weights for arm in sharers}
        extra = (arm.signal.extra_weights(arm.config) for arm in sharers)
        weights = tuple(sorted(judged.union(name for name in extra if name is not None)))
        numbers = range(1 if first.taught else 0, protocol.n_configurations)
        trainings.append(
            Training(
                name=name,
                config=with_settings(
                    first.config, {"eval_weights": "ema" if "ema" in weights else "last"}
                ),
                # The first policy's schedule comes first in every block, the others follow.
                part=int(first.policy.schedule != schedules[0]),
                numbers=tuple(numbers),
                weights=weights,
                # Whether or not an arm is taught so far: one added later finds its reference.
                teaches=0 if first.kind in (UNIFORM, FRACTION) else None,
                taught_by=first.teacher if first.taught else "",
            )
        )
    _check_arms_agree(study_file.space, [study_file.run, *(each.config for each in trainings)])
    trainings.sort(key=lambda training: schedules.index(sharing[training.name][0].policy.schedule))
    return Grid(
        study=study_file.name,
        kind="compare",
        trainings=tuple(training for training in trainings if training.name in names),
        params=configurations(study_file, protocol.n_configurations),
        space=study_file.space,
        seed=study_file.seed,
        n_blocks=protocol.n_blocks,
        test_size=protocol.test_size,
        test_epochs=protocol.test_epochs,
    )


def _check_points(run: TrainingConfig) -> None:
    """Raise `ConfigError` if what is compared has no points, 0 … 100."""
    if run.metric == "loss":
        raise ConfigError(
            "metric = 'loss': a comparison counts points, 0 … 100, which a loss has not. Use "
            "accuracy, balanced-accuracy or macro-f1."
        )


def _trainings_of(arms: Sequence[Arm], only: Sequence[str]) -> set[str]:
    """Return the names of the trainings that some arms need."""
    if not only:
        return {arm.training for arm in arms}
    known = {arm.name: arm for arm in arms}
    for name in only:
        if name not in known:
            raise ConfigError(
                f"The comparison has no arm '{name}'.{suggestion(name, known)} "
                f"Its arms: {', '.join(known)}."
            )
    names = {arms[0].training}
    for name in only:
        names |= {uniform_of(known[name], arms).training, *known[name].trainings}
    return names


def samplers_grid(study_file: StudyFile, arms: Sequence[str], n_seeds: int) -> Grid:
    """Return the runs of `compare-samplers`: every arm on every configuration of the space.

    The middle configuration of the first uniform arm teaches the others of its seed.

    Raises:
        ConfigError: The space is not a grid: only categorical settings make one. Or an arm needs a
            teacher, and there is none.
    """
    _check_points(study_file.run)
    configs = [study_file.arms[arm] for arm in arms]
    _check_arms_agree(study_file.space, configs)
    params = list(_every_configuration(study_file.space, configs[0]))
    teacher = next((arm for arm in arms if study_file.arms[arm].sampler == "uniform"), "")
    trainings = []
    for arm in arms:
        config = study_file.arms[arm]
        taught = wants_reference(config) and config.reference == "prequential"
        if taught and not teacher:
            raise ConfigError(
                f"Arm '{arm}': reference = 'prequential' comes from a uniform arm of the grid "
                "that learns, and there is none. Add one, or use crossfit or a file."
            )
        trainings.append(
            Training(
                name=arm,
                config=config,
                part=0,
                numbers=tuple(range(len(params))),
                teaches=len(params) // 2 if arm == teacher else None,
                taught_by=teacher if taught else "",
            )
        )
    return Grid(
        study=study_file.name,
        kind="compare-samplers",
        trainings=tuple(trainings),
        params=params,
        space=study_file.space,
        seed=study_file.seed,
        n_blocks=n_seeds,
    )


def _every_configuration(space: Space, config: TrainingConfig) -> Iterator[dict[str, Any]]:
    for key, distribution in space.items():
        if not isinstance(distribution, CategoricalDistribution):
            raise ConfigError(
                f"space.{key}: compare-samplers trains every configuration of a grid, so every "
                "setting must be a list of choices, such as lr = [0.01, 0.1] "
                '({ type = "categorical", choices = […] }).'
            )
    return walk(space, config, {key: ends_of(space[key]) for key in space})


def _check_arms_agree(space: Space, configs: Sequence[TrainingConfig]) -> None:
    """Refuse a condition that holds in some arms only: all train the same configurations."""
    for key, condition in space.conditions.items():
        for name in condition:
            values = {json.dumps(setting_of(config, name), default=str) for config in configs}
            if name not in space and len(values) > 1:
                raise ConfigError(
                    f"space.{key}.when.{name}: all arms of a comparison train the same "
                    f"configurations, but they differ in {name} ({', '.join(sorted(values))}). "
                    "Let the condition name another setting."
                )
