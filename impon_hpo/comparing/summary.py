"""The summary of a comparison: everything that its report says, as plain JSON values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from impon_hpo.comparing.arms import (
    IMPORTANCE,
    UNIFORM,
    Arm,
    arms_of,
    controls_of,
    uniform_of,
)
from impon_hpo.comparing.card import card
from impon_hpo.comparing.curves import cost_to_reach
from impon_hpo.comparing.fidelity import Fidelity, fidelity
from impon_hpo.comparing.in_hand import summarise_in_hand
from impon_hpo.comparing.other_pruners import under_other_pruners
from impon_hpo.comparing.outcomes import Outcome, Truth, outcome
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.comparing.verdict import SUPPORTED, judge
from impon_hpo.comparing.words import (
    claim_words,
    credit_sentence,
    in_hand_credit_sentence,
    in_hand_sentence,
    verdict_sentence,
)
from impon_hpo.settings import metric_words, report_words
from impon_hpo.tuning.protocol import IN_HAND, Protocol
from impon_hpo.tuning.study_file import StudyFile

BUDGETS = 40


def summarise_comparison(
    study_file: StudyFile, recordings: Recordings, *, other_pruners: bool = True
) -> dict[str, Any]:
    """Replay the recordings and return all that the report says.

    Args:
        study_file: The study.
        recordings: Its recordings, whole or in part: arms are judged over the blocks they have.
        other_pruners: Whether to replay the claim under the other pruners, too.

    Raises:
        ConfigError: Fewer than two blocks of uniform sampling are recorded.
    """
    protocol = study_file.protocol
    arms = arms_of(study_file)
    truth = Truth(recordings, arms[0], protocol.n_configurations)
    measured = {arm.name: fidelity(recordings, arm, truth) for arm in arms}
    policies = {
        arm.policy for arm in arms if arm.kind == UNIFORM and measured[arm.name] is not None
    }
    recorded = [arm for arm in arms if arm.policy in policies and measured[arm.name] is not None]
    faithful = {name: curves for name, curves in measured.items() if curves is not None}
    unit = float(faithful[arms[0].name].cost[0])
    grid = unit * np.geomspace(1, protocol.n_configurations * arms[0].config.epochs, BUDGETS)

    def replayed(arm: Arm, pruner: Mapping[str, Any], n_orders: int, **more: Any) -> Outcome:
        budgets: dict[str, Any] = {"budgets": {}, "budget_grid": ()} | more
        n_trials = protocol.n_trials
        return outcome(
            recordings, arm, truth, pruner, n_trials=n_trials, n_orders=n_orders, **budgets
        )

    outcomes: dict[str, Outcome] = {}
    for arm in recorded:
        if arm.kind == UNIFORM:  # first of its policy: its cost is the others' budget
            alone = replayed(arm, protocol.pruner, protocol.orders)
            budgets = dict(zip(alone.blocks, protocol.cost_ratio * alone.cost, strict=True))
        outcomes[arm.name] = replayed(
            arm, protocol.pruner, protocol.orders, budgets=budgets, budget_grid=grid.tolist()
        )
    rows = [_row(arm, recorded, outcomes, faithful, study_file) for arm in recorded]
    in_hand: dict[str, Any] = {"ways": [], "claim": None}
    if protocol.endpoint == IN_HAND:
        in_hand = summarise_in_hand(protocol, recorded, outcomes, recordings, arms)
    summary = {
        "study": study_file.name,
        "study_arms": list(study_file.arms),
        "question": study_file.question,
        "metric": metric_words(study_file.run.metric),
        "data": protocol.data,
        "protocol": protocol.identity(),
        "claim": claim_words(protocol.identity()),
        "searching": protocol.searching,
        "pruner": protocol.pruner,
        "reported": report_words(study_file.identity(study_file.arm(None))),
        "recordings": recordings.about,
        "verdict": _verdict(protocol, rows, in_hand["claim"]),
        "arms": rows,
        "in_hand": in_hand["ways"],
        "budgets": (grid / unit).tolist(),
        "unit": unit,
        "configurations": _configurations(recordings, truth),
        "random_pick": float(truth.by_block.mean()),
        "policies": _policies(recorded, outcomes, faithful, study_file, replayed),
        "pruners": (
            under_other_pruners(protocol, recorded, recordings, replayed) if other_pruners else []
        ),
    }
    return summary | {"card": card(study_file, summary)}


def _verdict(
    protocol: Protocol, rows: Sequence[Mapping[str, Any]], in_hand: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the verdict on the claim: of the choice, or of the model in hand."""
    choice = next((row.get("verdict") for row in rows if row["arm"] == protocol.searching), None)
    verdict: Mapping[str, Any] | None = choice
    if protocol.endpoint == IN_HAND and in_hand is not None:
        verdict = {
            **in_hand,
            "choice": choice,
            "sentence": in_hand_sentence(in_hand, str(protocol.pruner["name"]), protocol.margin),
            "credit_sentence": in_hand_credit_sentence(in_hand),
        }
    elif protocol.endpoint == IN_HAND:
        verdict = None
    if verdict is None:
        verdict = {
            "word": "not recorded yet",
            "sentence": f"'{protocol.claim}' is not recorded in two blocks yet: there is no "
            "verdict.",
        }
    return {**verdict, "arm": protocol.claim}


def _row(
    arm: Arm,
    recorded: Sequence[Arm],
    outcomes: Mapping[str, Outcome],
    faithful: Mapping[str, Fidelity],
    study_file: StudyFile,
) -> dict[str, Any]:
    """Return everything about one arm under the study's own pruner."""
    protocol = study_file.protocol
    study, curves, uniform = outcomes[arm.name], faithful[arm.name], uniform_of(arm, recorded)
    control = faithful[uniform.name]
    row: dict[str, Any] = {
        "arm": arm.name,
        "kind": arm.kind,
        "fraction": str(arm.fraction),
        "policy": str(arm.policy),
        "blocks": list(study.blocks),
        "study": {
            "cost": study.cost.tolist(),
            "quality": study.quality.tolist(),
            "own": study.own.tolist(),
            "budget_quality": study.budget_quality.tolist(),
            "epochs": study.epochs.tolist(),
            "complete": study.n_complete,
            "lost_best": study.lost_best.tolist(),
            "lost_top": study.lost_top.tolist(),
            "stopped": study.stopped.tolist(),
            "regret": study.regret.tolist(),
        },
        "curves": {
            "cost": curves.cost.tolist(),
            "accuracy": curves.accuracy.tolist(),
            "tau": curves.tau.tolist(),
            "overlap": curves.overlap.tolist(),
            "regret": curves.regret.tolist(),
            "regret_of_3": curves.regret_of_3.tolist(),
            "last": curves.last.tolist(),
            "seconds": curves.seconds,
        },
        "cost_to_reach": {
            str(epoch): cost_to_reach(
                curves.accuracy.mean(0), curves.cost, float(control.accuracy[:, epoch - 1].mean())
            )
            / float(control.cost[epoch - 1])
            for epoch in (2, 4, 6)
            if epoch <= len(control.cost)
        },
    }
    if arm.kind == UNIFORM:
        return row
    limits = {"cost_ratio": protocol.cost_ratio, "margin": protocol.margin}
    verdict = judge(study, outcomes[uniform.name], **limits)
    if verdict is None:
        return row
    entry = verdict.plain()
    entry["sentence"] = verdict_sentence(verdict, str(protocol.pruner["name"]))
    entry["per_block"] = {
        "blocks": list(verdict.blocks),
        "cost": [
            _at(study, b, "cost") / _at(outcomes[uniform.name], b, "cost") for b in verdict.blocks
        ],
        "loss": [
            _at(outcomes[uniform.name], b, "quality") - _at(study, b, "quality")
            for b in verdict.blocks
        ],
    }
    if arm.kind == IMPORTANCE:
        verdicts = [
            judge(study, outcomes[other.name], **limits) for other in controls_of(arm, recorded)
        ]
        judged = [verdict for verdict in verdicts if verdict is not None]
        n_controls = len(controls_of(arm, arms_of(study_file)))
        entry["controls"] = [each.plain() for each in judged]
        entry["credit"] = len(judged) == n_controls and all(each.beats for each in judged)
        entry["credit_sentence"] = credit_sentence(
            verdict.word == SUPPORTED, judged, n_controls, arm.name
        )
    return row | {"verdict": entry}


def _at(study: Outcome, block: int, measure: str) -> float:
    return float(getattr(study, measure)[study.blocks.index(block)])


def _configurations(recordings: Recordings, truth: Truth) -> list[dict[str, Any]]:
    """Return each configuration with its truth over all blocks."""
    params: list[dict[str, Any]] = recordings.about["configurations"]
    return [
        {"configuration": number, **entry, "truth": float(truth.by_block[:, number].mean())}
        for number, entry in enumerate(params)
    ]


def _policies(
    recorded: Sequence[Arm],
    outcomes: Mapping[str, Outcome],
    faithful: Mapping[str, Fidelity],
    study_file: StudyFile,
    replayed: Callable[..., Outcome],
) -> list[dict[str, Any]]:
    """Return what uniform sampling alone does under each policy, against the first one: to the end
    of its study, and stopped where the first one's study is at its end."""
    uniform = [arm for arm in recorded if arm.kind == UNIFORM]
    first = outcomes[uniform[0].name]
    budgets = dict(zip(first.blocks, first.cost, strict=True))
    protocol = study_file.protocol
    pruner, orders = protocol.pruner, protocol.orders
    stopped = [replayed(arm, pruner, orders, budgets=budgets) for arm in uniform]
    rows = []
    for arm, outcome_at_budget in zip(uniform, stopped, strict=True):
        verdict = judge(outcome_at_budget, stopped[0], cost_ratio=1.0, margin=1.0)
        rows.append(
            {
                "policy": str(arm.policy),
                "arm": arm.name,
                "tau": faithful[arm.name].tau.mean(0).tolist(),
                "quality": float(outcomes[arm.name].quality.mean()),
                "lost_best": float(outcomes[arm.name].lost_best.mean()),
                "against_first": None if verdict is None else verdict.plain(),
            }
        )
    return rows
