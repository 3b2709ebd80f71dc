"""The protocol of a comparison: what is fixed before anything is recorded, with its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.training.config import TrainingConfig, explain

Schedule = Literal["constant", "cosine", "one-cycle", "rungs"]
Weights = Literal["last", "ema"]


@dataclass(frozen=True)
class Policy:
    """How a run is trained and judged, whatever its batch sampler: the same for all arms.

    Args:
        schedule: Of the learning rate.
        weights: Which weights are evaluated: the last ones or their moving average.
        arms: The arms that are recorded under it, such as "memory@1/3", with their controls.
    """

    schedule: str
    weights: str
    arms: tuple[str, ...]

    def name(self, arm: str, first: Policy) -> str:
        """Return how an arm under this policy is called; `first` is the policy of the truth."""
        return arm if self == first else f"{arm} ({self})"

    def fractions(self) -> list[Fraction]:
        """Return the shares of an epoch that its arms have, largest first."""
        found = {Fraction(arm.partition("@")[2] or 1) for arm in self.arms}
        return sorted(found, reverse=True)

    def __str__(self) -> str:
        return f"{self.schedule}, {self.weights}"


class _Table(BaseModel):
    """`[compare]` of a study file, as it stands there."""

    model_config = ConfigDict(extra="forbid", strict=True)

    configurations: Annotated[int, Field(ge=2)] | None = None
    trials: Annotated[int, Field(ge=2)] | None = None
    blocks: int = Field(default=6, ge=2)
    arms: list[str] | None = None
    epoch_fractions: list[str | float | int] = Field(default=[1, "1/2", "1/3"], min_length=1)
    placebo: str | None = None
    claim: str | None = None
    cost_ratio: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    margin: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    policies: list[dict[str, Any]] | None = Field(default=None, min_length=1)
    orders: int = Field(default=50, ge=1)
    test_size: Annotated[int, Field(ge=1)] | None = None
    test_epochs: Literal["all", "last"] = "all"
    data: str = ""


@dataclass(frozen=True)
class Protocol:
    """What a comparison fixes before it records.

    Args:
        n_configurations: Configurations, the same in all arms and blocks.
        n_trials: Trials of a replayed study: so many of the configurations, others in each order.
        n_blocks: Blocks; block k has the study's seed plus k.
        placebo: The arm whose whole path the placebo pays for.
        claim: The arm that the verdict is about, such as "memory@1/3".
        cost_ratio: The verdict asks for at most this share of uniform sampling's cost.
        margin: How many points of accuracy the pick may be worse.
        policies: Training policies, each with its arms; the first one is that of the truth.
        orders: Random orders of the configurations in which a block is replayed.
        test_size: Rows of the hidden test split looked at, or None for all.
        test_epochs: After which epochs it is looked at: "all" or "last".
        data: What the data are, in words.
    """

    n_configurations: int
    n_trials: int
    n_blocks: int
    placebo: str
    claim: str
    cost_ratio: float
    margin: float
    policies: tuple[Policy, ...]
    orders: int
    test_size: int | None
    test_epochs: str
    data: str

    def identity(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        policies = {str(policy): list(policy.arms) for policy in self.policies}
        return vars(self) | {"policies": policies}

    def digest(self, asked: dict[str, Any]) -> str:
        """Return the hash of the protocol and of all else that decides the verdict."""
        said = json.dumps([self.identity(), asked], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def parse_protocol(
    table: dict[str, Any], *, n_trials: int, run: TrainingConfig, arms: dict[str, TrainingConfig]
) -> Protocol:
    """Turn `[compare]` of a study file into a protocol; every key has a default.

    Raises:
        ConfigError: A key, a value, an arm or a policy is wrong.
    """
    try:
        asked = _Table(**table)
    except ValidationError as error:
        known = list(_Table.model_fields)
        raise ConfigError("\n".join(explain(error, known, "compare."))) from None
    chosen = asked.arms
    if chosen is None:
        chosen = [name for name, arm in arms.items() if arm.sampler not in CONTROLS]
    for name in chosen:
        _check_arm("compare.arms", name, arms)
    _check_once("compare.arms", chosen)
    if not chosen:
        raise ConfigError("compare.arms must name an arm to hold against uniform sampling.")
    fractions = sorted({_fraction(entry) for entry in asked.epoch_fractions}, reverse=True)
    names = [arm_name(name, fraction) for name in chosen for fraction in fractions]
    policies = _policies(asked.policies, run, names)
    claims = [policy.name(arm, policies[0]) for policy in policies for arm in policy.arms]
    claim = asked.claim or policies[0].arms[-1]
    _check_known("compare.claim", claim, claims)
    placebo = asked.placebo or claim.partition(" (")[0].partition("@")[0]
    _check_arm("compare.placebo", placebo, arms)
    n_configurations = asked.configurations or n_trials
    if n_configurations < 2:
        raise ConfigError("compare.configurations must be at least 2; by default it is n_trials.")
    if asked.trials is not None and asked.trials > n_configurations:
        raise ConfigError(
            f"compare.trials must be at most compare.configurations ({n_configurations}), but got "
            f"{asked.trials}."
        )
    return Protocol(
        n_configurations=n_configurations,
        n_trials=asked.trials or max(2, -(-2 * n_configurations // 3)),
        n_blocks=asked.blocks,
        placebo=placebo,
        claim=claim,
        cost_ratio=asked.cost_ratio,
        margin=asked.margin,
        policies=policies,
        orders=asked.orders,
        test_size=asked.test_size,
        test_epochs=asked.test_epochs,
        data=asked.data,
    )


CONTROLS = ("uniform", "uniform-fraction", "placebo")
"""Batch samplers that a comparison adds by itself."""
_RESERVED = (*CONTROLS, "uniform-short")
"""Names that arms of its own have."""


def arm_name(name: str, fraction: Fraction) -> str:
    """Return how an arm at a share of an epoch is called: "memory@1/3", or "memory" at 1."""
    return name if fraction == 1 else f"{name}@{fraction}"


def _check_known(key: str, name: str, known: Sequence[str] | dict[str, Any]) -> None:
    if name not in known:
        raise ConfigError(
            f"{key}: there is no '{name}'.{suggestion(name, known)} There are: {', '.join(known)}."
        )


def _check_arm(key: str, name: str, arms: dict[str, TrainingConfig]) -> None:
    _check_known(key, name, arms)
    if name in _RESERVED or arms[name].sampler in CONTROLS:
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
    tables: list[dict[str, Any]] | None, run: TrainingConfig, arms: list[str]
) -> tuple[Policy, ...]:
    known = {"schedule": get_args(Schedule), "weights": get_args(Weights)}
    found: list[Policy] = []
    for table in tables or [{}]:
        asked = {"schedule": run.schedule, "weights": run.eval_weights, "arms": arms} | table
        for key, value in asked.items():
            if key != "arms" and (key not in known or value not in known[key]):
                raise ConfigError(
                    'compare.policies must be such as [{ schedule = "cosine", weights = "ema" }] '
                    f"with schedule one of {', '.join(known['schedule'])} and weights last or ema, "
                    f"but got {table}."
                )
        wanted = asked["arms"]
        if not (isinstance(wanted, list) and wanted and all(isinstance(n, str) for n in wanted)):
            raise ConfigError(f"compare.policies: arms must be a list of arms, but got {table}.")
        for name in wanted:
            _check_known("compare.policies", name, arms)
        _check_once("compare.policies.arms", wanted)
        policy = Policy(asked["schedule"], asked["weights"], tuple(wanted))
        if any(str(policy) == str(other) for other in found):
            raise ConfigError(f"compare.policies has '{policy}' twice.")
        found.append(policy)
    return tuple(found)
