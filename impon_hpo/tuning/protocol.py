"""The protocol of a comparison: what is fixed before anything is recorded, with its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Final, Literal

from pydantic import Field, Strict

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.settings import Settings
from impon_hpo.training.config import TrainingConfig

Schedule = Literal["constant", "cosine", "one-cycle", "rungs"]
Weights = Literal["last", "ema"]
Names = Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]

CHOICE: Final = "choice"
IN_HAND: Final = "in-hand"
THEN = " then "
"""Between the arm that searches and the one that trains its pick in full."""

FROM_STUDY: Any = None
"""Default of what depends on the study: `resolve_protocol` fills it in."""


class Policy(Settings):
    """How a run is trained and judged, whatever its batch sampler: the same for all arms.

    Args:
        schedule: Of the learning rate.
        weights: Which weights are evaluated: the last ones or their moving average.
        arms: The arms that are recorded under it, such as "memory@1/3", with their controls.
    """

    schedule: Schedule = Field(default=FROM_STUDY)
    weights: Weights = Field(default=FROM_STUDY)
    arms: Names = Field(default=FROM_STUDY)

    def name(self, arm: str, first: Policy) -> str:
        """Return how an arm under this policy is called; `first` is the policy of the truth."""
        return arm if self == first else f"{arm} ({self})"

    def fractions(self) -> list[Fraction]:
        """Return the shares of an epoch that its arms have, largest first."""
        return sorted({name_and_fraction(arm)[1] for arm in self.arms}, reverse=True)

    def __str__(self) -> str:
        return f"{self.schedule}, {self.weights}"


class Protocol(Settings):
    """What a comparison fixes before it records: `[compare]` of a study file.

    Args:
        n_configurations: Configurations, the same in all arms and blocks; default: n_trials of the
            study. Called `configurations` in the file.
        endpoint: What the verdict is about. "choice": the quality of the configuration that a study
            picks, and what the study costs. "in-hand": the model that one holds at the end, as its
            arm trained it, everything charged; see `gain`.
        n_trials: Trials of a replayed study: so many of the configurations, others in each order;
            default: two thirds of them. Called `trials` in the file.
        n_blocks: Blocks; block k has the study's seed plus k. Called `blocks` in the file.
        placebo: The arm whose whole path the placebo pays for; default: that of the claim. In hand,
            each importance arm has a placebo of its own.
        claim: The arm that the verdict is about, such as "memory@1/3"; default: the last one of the
            first policy. In hand also "A then B": A searches, and B, an arm at all rows, trains the
            pick in full.
        cost_ratio: The verdict asks for at most this share of uniform sampling's cost; in hand: for
            as good a model.
        margin: How many points of accuracy the pick may be worse; in hand: the model that counts as
            as good.
        gain: In hand, the verdict asks for more than so many points at uniform sampling's cost.
        policies: Training policies, each with its arms; the first one is that of the truth.
        orders: Random orders of the configurations in which a block is replayed.
        test_size: Rows of the hidden test split looked at, or None for all.
        test_epochs: After which epochs it is looked at: "all" or "last".
        data: What the data are, in words.
        pruner: What the recordings are replayed under, as `[pruner]` has it; default: that.
        arms: Arms of the study that are compared; default: all but the controls.
        epoch_fractions: Shares of an epoch at which they are compared, 1/100 … 1.
    """

    endpoint: Literal["choice", "in-hand"] = CHOICE
    n_configurations: int = Field(default=FROM_STUDY, alias="configurations", ge=2)
    n_trials: int = Field(default=FROM_STUDY, alias="trials", ge=2)
    n_blocks: int = Field(default=6, alias="blocks", ge=2)
    placebo: str = Field(default=FROM_STUDY)
    claim: str = Field(default=FROM_STUDY)
    cost_ratio: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    margin: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    gain: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    policies: Annotated[tuple[Policy, ...], Strict(False)] = Field(default=FROM_STUDY, min_length=1)
    orders: int = Field(default=50, ge=1)
    test_size: Annotated[int, Field(ge=1)] | None = None
    test_epochs: Literal["all", "last"] = "all"
    data: str = ""
    pruner: dict[str, Any] = Field(default=FROM_STUDY)
    arms: Annotated[tuple[str, ...], Strict(False)] | None = None
    epoch_fractions: Annotated[tuple[str | float | int, ...], Strict(False)] = Field(
        default=(1, "1/2", "1/3"), min_length=1
    )

    def identity(self) -> dict[str, Any]:
        """Return it as plain JSON values; `policies` says which arms there are, at what shares.

        The pruner is not among them: `digest` has it from the study as well.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        del values["arms"], values["epoch_fractions"], values["pruner"]
        if self.endpoint == CHOICE:  # these are younger than most recordings, whose hashes stand
            del values["endpoint"], values["gain"]
        else:
            del values["placebo"]
            values["epoch_fractions"] = [str(fraction) for fraction in self.declared_fractions()]
        return values | {"policies": {str(policy): list(policy.arms) for policy in self.policies}}

    @property
    def searching(self) -> str:
        """The arm of the claim that searches: "A" where the claim is "A then B"."""
        names, bracket, policy = self.claim.partition(" (")
        return names.partition(THEN)[0] + bracket + policy

    def declared_fractions(self) -> list[Fraction]:
        """Return the shares of an epoch at which arms are compared, largest first."""
        return sorted({_fraction(entry) for entry in self.epoch_fractions}, reverse=True)

    def fractions(self, policy: Policy) -> list[Fraction]:
        """Return the shares of an epoch that the controls of a policy have, largest first."""
        if self.endpoint == CHOICE:
            return policy.fractions()
        return sorted({*self.declared_fractions(), *policy.fractions()}, reverse=True)

    def digest(self, decisive: dict[str, Any]) -> str:
        """Return the hash of the protocol and of all else that decides the verdict."""
        text = json.dumps([self.identity(), decisive], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def resolve_protocol(
    declared: Protocol,
    *,
    n_trials: int,
    pruner: dict[str, Any],
    run: TrainingConfig,
    arms: dict[str, TrainingConfig],
) -> Protocol:
    """Return the protocol of a study with all defaults filled in.

    Args:
        declared: `[compare]` as it stands in the study file.
        n_trials: Trials of the study.
        pruner: `[pruner]` of the study.
        run: `[run]` of the study.
        arms: The arms of the study.

    Raises:
        ConfigError: An arm or a policy is wrong.
    """
    names = declared.arms
    if names is None:
        names = tuple(name for name, arm in arms.items() if arm.sampler not in CONTROLS)
    for name in names:
        _check_arm("compare.arms", name, arms)
    _check_once("compare.arms", names)
    if not names:
        raise ConfigError("compare.arms must name an arm to compare with uniform sampling.")
    fractions = declared.declared_fractions()
    offered = tuple(arm_name(name, fraction) for name in names for fraction in fractions)
    policies = _policies(declared.policies or (Policy(),), run, offered)
    ruled = [arm for arm in policies[0].arms if not is_quota(arm, arms)]
    claim = declared.claim or (ruled or policies[0].arms)[-1]
    claims = _claims(declared, policies, arms)
    if claim not in claims:
        arms_and_more = [name for name in claims if THEN not in name]
        if declared.endpoint == IN_HAND:
            arms_and_more.append("'A then B' of an arm that searches and one that trains its pick")
        raise ConfigError(
            f"compare.claim: there is no '{claim}'.{suggestion(claim, claims)} There are: "
            f"{', '.join(arms_and_more)}."
        )
    placebo = declared.placebo or claim.partition(" (")[0].partition("@")[0]
    if declared.endpoint == IN_HAND:
        if declared.placebo:
            raise ConfigError(
                "compare.placebo must be left out with compare.endpoint = 'in-hand': there each "
                "importance arm has a placebo of its own."
            )
        placebo = ""
    else:
        if declared.gain:
            raise ConfigError("compare.gain needs compare.endpoint = 'in-hand'.")
        _check_arm("compare.placebo", placebo, arms)
    n_configurations = declared.n_configurations or n_trials
    if n_configurations < 2:
        raise ConfigError("compare.configurations must be at least 2; by default it is n_trials.")
    n_tried = declared.n_trials or max(2, -(-2 * n_configurations // 3))
    if n_tried > n_configurations:
        raise ConfigError(
            f"compare.trials must be at most compare.configurations ({n_configurations}), but got "
            f"{n_tried}."
        )
    return declared.model_copy(
        update={
            "n_configurations": n_configurations,
            "n_trials": n_tried,
            "placebo": placebo,
            "claim": claim,
            "policies": policies,
            "pruner": declared.pruner or pruner,
        }
    )


CONTROLS = ("uniform", "uniform-fraction", "placebo")
"""Batch samplers that a comparison adds by itself."""
QUOTA = "class-balanced"
"""The batch sampler that draws by class alone: an arm that has it is a control."""
SHARES = ("uniform-fraction", "uniform-short")
"""Controls that spend a share of what uniform sampling spends."""
_RESERVED = ("uniform", *SHARES, "placebo")
"""Names that arms of its own have."""


def arm_name(name: str, fraction: Fraction) -> str:
    """Return how an arm at a share of an epoch is called: "memory@1/3", or "memory" at 1."""
    return name if fraction == 1 else f"{name}@{fraction}"


def name_and_fraction(arm: str) -> tuple[str, Fraction]:
    """Return what `arm_name` was made of: ("memory", 1/3) of "memory@1/3"."""
    name, _, fraction = arm.partition("@")
    return name, Fraction(fraction or 1)


def placebo_name(arm: str) -> str:
    """Return how the placebo of an arm is called: "placebo-of-memory@1/3"."""
    return f"placebo-of-{arm}"


def is_quota(arm: str, arms: Mapping[str, TrainingConfig]) -> bool:
    """Return whether an arm such as "quota@1/3" draws by class alone: a control, like the
    comparison's own."""
    return arms[name_and_fraction(arm)[0]].sampler == QUOTA


def _claims(
    declared: Protocol, policies: Sequence[Policy], arms: Mapping[str, TrainingConfig]
) -> list[str]:
    """Return what a verdict can be about."""
    claims = []
    for policy in policies:
        ruled = [arm for arm in policy.arms if not is_quota(arm, arms)]
        names = list(ruled)
        if declared.endpoint == IN_HAND:
            finals = ["uniform", *(arm for arm in ruled if "@" not in arm)]
            shares = [share for share in declared.fractions(policy) if share < 1]
            controls = [arm_name(kind, f) for kind in SHARES for f in shares]
            searches = ["uniform", *controls, *ruled]
            names += [
                f"{search}{THEN}{final}"
                for search in searches
                for final in finals
                if search != final and {search, final} & set(ruled)
            ]
        claims += [policy.name(name, policies[0]) for name in names]
    return claims


def _check_known(key: str, name: str, known: Sequence[str] | dict[str, Any]) -> None:
    if name not in known:
        raise ConfigError(
            f"{key}: there is no '{name}'.{suggestion(name, known)} There are: {', '.join(known)}."
        )


def _check_arm(key: str, name: str, arms: dict[str, TrainingConfig]) -> None:
    _check_known(key, name, arms)
    if name in _RESERVED or name.startswith(placebo_name("")) or arms[name].sampler in CONTROLS:
        raise ConfigError(
            f"{key}: '{name}' is a control: a comparison has {', '.join(_RESERVED)} by itself."
        )


def _check_once(key: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{key} has '{name}' twice.")


def _fraction(entry: str | float) -> Fraction:
    try:
        exact = Fraction(entry)
    except (ValueError, ZeroDivisionError, OverflowError):
        exact = Fraction(0)
    if not Fraction(1, 100) <= exact <= 1:
        raise ConfigError(
            f'compare.epoch_fractions must be from 1/100 to 1, such as "1/3" or 0.5, '
            f"but got {entry!r}."
        )
    return exact.limit_denominator(100)


def _policies(
    declared: Sequence[Policy], run: TrainingConfig, arms: tuple[str, ...]
) -> tuple[Policy, ...]:
    policies: list[Policy] = []
    for stated in declared:
        usual = {"schedule": run.schedule, "weights": run.eval_weights, "arms": arms}
        missing = {key: usual[key] for key in usual.keys() - stated.model_fields_set}
        policy = stated.model_copy(update=missing)
        for name in policy.arms:
            _check_known("compare.policies", name, arms)
        _check_once("compare.policies.arms", policy.arms)
        if any(str(policy) == str(other) for other in policies):
            raise ConfigError(f"compare.policies has '{policy}' twice.")
        policies.append(policy)
    return tuple(policies)
