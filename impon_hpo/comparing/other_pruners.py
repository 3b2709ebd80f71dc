"""The other pruners: what becomes of the claim under each of Optuna's, and under a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from impon_hpo.comparing.arms import Arm, controls_of, uniform_of
from impon_hpo.comparing.in_hand import judge_in_hand
from impon_hpo.comparing.outcomes import FINISH_BEST, Outcome
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.comparing.verdict import judge
from impon_hpo.comparing.ways import holding, ways_of
from impon_hpo.tuning.protocol import IN_HAND, Protocol

OTHER_PRUNERS: dict[str, tuple[dict[str, Any], int]] = {
    "none": ({"name": "NopPruner"}, 1),
    "successive halving, η 3": ({"name": "SuccessiveHalvingPruner", "reduction_factor": 3}, 20),
    "halving that promotes, η 3": ({"name": "promote", "reduction_factor": 3}, 20),
    "hyperband, η 3": ({"name": "HyperbandPruner", "reduction_factor": 3}, 10),
    "median": ({"name": "MedianPruner", "n_startup_trials": 3}, 5),
    "percentile 25": (
        {"name": "PercentilePruner", "percentile": 25.0, "n_startup_trials": 3},
        5,
    ),
    "patient median": (
        {
            "name": "PatientPruner",
            "wrapped_pruner": {"name": "MedianPruner", "n_startup_trials": 3},
            "patience": 1,
        },
        5,
    ),
    "wilcoxon": ({"name": "WilcoxonPruner", "n_startup_steps": 2}, 1),
    "one epoch, then the best quarter": ({"name": FINISH_BEST}, 20),
}
"""What the claim is replayed under beside the study's own pruner, and in how many orders a block:
fewer where a pruner is slow."""


def under_other_pruners(
    protocol: Protocol,
    recorded: Sequence[Arm],
    recordings: Recordings,
    replayed: Callable[[Arm, Mapping[str, Any], int], Outcome],
) -> list[dict[str, Any]]:
    """Return the claim and its controls under the other pruners.

    Args:
        protocol: What is compared, and the claim.
        recorded: The arms that are recorded.
        recordings: Their runs.
        replayed: Replays an arm under a pruner in so many orders.
    """
    arm = next((arm for arm in recorded if arm.name == protocol.searching), None)
    if arm is None:
        return []
    uniform = uniform_of(arm, recorded)
    rows = []
    for name, (pruner, n_orders) in OTHER_PRUNERS.items():
        control = replayed(uniform, pruner, n_orders)
        others = {other.name: other for other in (uniform, *controls_of(arm, recorded), arm)}
        for other in others.values():
            outcome = control if other is uniform else replayed(other, pruner, n_orders)
            row = {
                "pruner": name,
                "arm": other.name,
                "cost": float(outcome.cost.mean()),
                "epochs": float(outcome.epochs.mean()),
                "quality": float(outcome.quality.mean()),
                "lost_best": float(outcome.lost_best.mean()),
            }
            verdict = judge(
                outcome, control, cost_ratio=protocol.cost_ratio, margin=protocol.margin
            )
            if verdict is not None and other is not uniform:
                row["verdict"] = verdict.plain()
            if other is arm and protocol.endpoint == IN_HAND:
                row["in_hand"] = _in_hand(protocol, recorded, recordings, control, outcome)
            rows.append(row)
    return rows


def _in_hand(
    protocol: Protocol,
    recorded: Sequence[Arm],
    recordings: Recordings,
    control: Outcome,
    outcome: Outcome,
) -> dict[str, Any] | None:
    """Return the claim in hand under a pruner; None where the arm that trains is not recorded."""
    policy = next(arm.policy for arm in recorded if arm.name == outcome.arm)
    ways = {way.name: way for way in ways_of(recorded, policy, protocol.policies[0])}
    if protocol.claim not in ways:
        return None
    judged = judge_in_hand(
        holding(ways[protocol.claim], outcome, recordings),
        holding(ways[control.arm], control, recordings),
        n_trials=protocol.n_trials,
        gain=protocol.gain,
        cost_ratio=protocol.cost_ratio,
        margin=protocol.margin,
    )
    return None if judged is None else judged.plain()
