"""The arms of a comparison: each of the study's, at each share of an epoch, beside its controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from impon_hpo.errors import ConfigError
from impon_hpo.training.config import TrainingConfig, uniformly, wants_reference
from impon_hpo.tuning.protocol import (
    IN_HAND,
    Policy,
    Protocol,
    arm_name,
    is_quota,
    name_and_fraction,
    placebo_name,
)
from impon_hpo.tuning.report_signal import METRIC, ReportSignal
from impon_hpo.tuning.space import with_settings
from impon_hpo.tuning.study_file import StudyFile

UNIFORM = "uniform"
FRACTION = "uniform-fraction"
SHORT = "uniform-short"
PLACEBO = "placebo"
QUOTA = "quota"
IMPORTANCE = "importance"


@dataclass(frozen=True)
class Arm:
    """One arm under one policy.

    Args:
        name: As it is shown, such as "memory@1/3" or, under another policy than the first one,
            "memory@1/3 (rungs, ema)".
        kind: "uniform", "uniform-fraction", "uniform-short", "placebo", "quota" (an arm of the
            study that draws by class alone) or "importance".
        fraction: Share of a full epoch's steps that its epoch has; of uniform-short, share of the
            epochs.
        policy: Schedule and evaluated weights.
        training: What it shares with arms that differ in the evaluated weights only.
        taught: Whether its first configuration is trained uniformly, and what that run sees of the
            rows is the reference of the others.
        config: Its settings, before a configuration and a seed change them.
        signal: What its pruner sees.
    """

    name: str
    kind: str
    fraction: Fraction
    policy: Policy
    training: str
    taught: bool
    config: TrainingConfig
    signal: ReportSignal = METRIC

    @property
    def teacher(self) -> str:
        """The training that its first configuration has instead, if it is `taught`."""
        base = UNIFORM if self.fraction == 1 else FRACTION
        return _training(arm_name(base, self.fraction), self.policy)

    @property
    def trainings(self) -> list[str]:
        """What has to be recorded for it."""
        return [self.training, self.teacher] if self.taught else [self.training]


def arms_of(study_file: StudyFile) -> list[Arm]:
    """Return the arms of a comparison, uniform sampling first, policy by policy.

    Raises:
        ConfigError: An arm sets what a comparison sets for all arms.
    """
    protocol = study_file.protocol
    _check_own_settings(study_file, protocol)
    arms = []
    for policy in protocol.policies:
        for kind, base, fraction, config in _bases(study_file, policy):
            name = arm_name(base, fraction)
            settings: dict[str, Any] = {"schedule": policy.schedule}
            settings["eval_weights"] = policy.weights
            if kind == SHORT:
                settings["epochs"] = epochs = max(1, int(config.epochs * fraction))
                settings["warmup_epochs"] = config.warmup_epochs * epochs / config.epochs
            else:
                settings["epoch_fraction"] = config.epoch_fraction * float(fraction)
            taught = wants_reference(config) and config.reference == "prequential"
            changed = with_settings(config, settings)
            study_file.signal.check(changed, study_file.space)
            arms.append(
                Arm(
                    name=policy.name(name, protocol.policies[0]),
                    kind=kind,
                    fraction=fraction,
                    policy=policy,
                    training=_training(name, policy),
                    taught=taught,
                    config=changed,
                    signal=study_file.signal,
                )
            )
    return arms


def _bases(
    study_file: StudyFile, policy: Policy
) -> Iterator[tuple[str, str, Fraction, TrainingConfig]]:
    """Yield kind, name, fraction and settings of each arm of a policy."""
    protocol, uniform = study_file.protocol, uniformly(study_file.run)
    yield UNIFORM, UNIFORM, Fraction(1), uniform
    for fraction in protocol.fractions(policy):
        if fraction < 1:
            # With so many steps an epoch, `uniform` takes a fresh random share of the rows each.
            yield FRACTION, FRACTION, fraction, uniform
            yield SHORT, SHORT, fraction, uniform
    named = [name_and_fraction(arm) for arm in policy.arms]
    quotas = [arm for arm in named if is_quota(arm[0], study_file.arms)]
    importance = [arm for arm in named if arm not in quotas]
    for name, fraction in quotas:
        yield QUOTA, name, fraction, study_file.arms[name]
    if protocol.endpoint == IN_HAND:
        for name, fraction in importance:
            yield PLACEBO, placebo_name(name), fraction, _blind(study_file.arms[name])
    else:
        blind = _blind(study_file.arms[protocol.placebo])
        for fraction in policy.fractions():
            yield PLACEBO, PLACEBO, fraction, blind
    for name, fraction in importance:
        yield IMPORTANCE, name, fraction, study_file.arms[name]


def _blind(config: TrainingConfig) -> TrainingConfig:
    options: dict[str, Any] = {"of": config.sampler}
    if config.sampler_options:
        options["options"] = config.sampler_options
    return config.model_copy(update={"sampler": "placebo", "sampler_options": options})


def _training(name: str, policy: Policy) -> str:
    return f"{name} {policy.schedule}"


def _check_own_settings(study_file: StudyFile, protocol: Protocol) -> None:
    """Refuse what would make an arm differ from uniform sampling in more than its batches."""
    free = {"sampler", "sampler_options", "reference", "reference_options"}
    names = {name_and_fraction(arm)[0] for policy in protocol.policies for arm in policy.arms}
    for name in sorted({*names, protocol.placebo} - {""}):
        common, settings = study_file.run.model_dump(), study_file.arms[name].model_dump()
        for key, value in settings.items():
            if key not in free and value != common[key]:
                raise ConfigError(
                    f"arms.{name}.run.{key}: all arms of a comparison have the same settings but "
                    "for batch sampler and reference. Set it in [run], or schedule and evaluated "
                    "weights in compare.policies."
                )


def controls_of(arm: Arm, arms: Sequence[Arm]) -> list[Arm]:
    """Return what an arm has to beat before a saving is due to importance: as few rows without it,
    as few epochs, its own path without its scores, and drawing by class alone where that is
    there."""
    kinds = (PLACEBO, QUOTA) if arm.fraction == 1 else (FRACTION, SHORT, PLACEBO, QUOTA)
    return [
        other
        for other in arms
        if other.kind in kinds
        and (other.fraction, other.policy) == (arm.fraction, arm.policy)
        and not _is_placebo_of_another(other, arm)
    ]


def _is_placebo_of_another(other: Arm, arm: Arm) -> bool:
    return other.name.startswith(placebo_name("")) and other.name != placebo_name(arm.name)


def uniform_of(arm: Arm, arms: Sequence[Arm]) -> Arm:
    """Return uniform sampling under an arm's policy."""
    return next(other for other in arms if other.kind == UNIFORM and other.policy == arm.policy)
