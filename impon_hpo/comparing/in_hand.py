"""In hand: how good the model is that one holds at the end, for all that one has spent."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impon_hpo.comparing.arms import IMPORTANCE, PLACEBO, UNIFORM, Arm
from impon_hpo.comparing.outcomes import Outcome
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.comparing.verdict import INCONCLUSIVE, REFUTED, SUPPORTED, Estimate, estimate
from impon_hpo.comparing.ways import Holding, Way, holding, ways_of
from impon_hpo.tuning.protocol import Protocol, placebo_name

Numbers = NDArray[np.float64]

RATIOS = np.arange(1, 201) / 100
"""Shares of uniform sampling's cost at which an arm's model is compared with uniform's."""
COARSE = 10
"""So many of them at once are passed over first."""


@dataclass(frozen=True)
class Ratio:
    """The ratio of total costs at which a way holds as good a model as another one.

    It is read off from comparisons at many budgets: for r times the control's cost, the way's model
    is or is not shown to be as good as the control's (at most a margin worse). The control itself
    may be nearly as good for less; so what counts is that the way is ahead of it there.

    Args:
        point: The lowest share of the control's cost for as good a model; None: none recorded.
        lower: Up to that share, the model is shown not to be as good; 0 where it is nowhere.
        upper: From that share on, it is shown to be as good; None: nowhere.
        own: The lowest share for which the control itself holds as good a model.
        limit: What is claimed: at most that.
        ahead: Whether the way's model is shown to be better than the control's, both for the share
            `upper` of the cost, or for the limit where that is lower.
    """

    point: float | None
    lower: float
    upper: float | None
    own: float | None
    limit: float
    ahead: bool

    @property
    def below(self) -> bool:
        """Whether it is shown to be at most the limit, and not because less would do anyway."""
        return self.ahead and self.upper is not None and self.upper <= self.limit

    @property
    def above(self) -> bool:
        """Whether it is shown to be above the limit."""
        return self.lower > self.limit


@dataclass(frozen=True)
class InHand:
    """Whether a way holds a better model than another one at equal cost, or as good a one for less.

    Args:
        way: Its name.
        control: The way that it is compared with.
        blocks: The blocks that both have.
        gain: Points that its model is better, both at the control's cost.
        ratio: Ratio of the costs for as good a model.
        per_block: (blocks,) the gains.
        word: "supported": one of the two is shown to be as claimed. "refuted": both are shown not
            to be. "inconclusive": neither.
    """

    way: str
    control: str
    blocks: tuple[int, ...]
    gain: Estimate
    ratio: Ratio
    per_block: tuple[float, ...]
    word: str

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "word": self.word,
            "way": self.way,
            "control": self.control,
            "blocks": list(self.blocks),
            "gain": self.gain.plain(),
            "ratio": vars(self.ratio) | {"below": self.ratio.below, "above": self.ratio.above},
            "per_block": {"blocks": list(self.blocks), "gain": list(self.per_block)},
        }


def judge_in_hand(
    held: Holding, control: Holding, *, n_trials: int, gain: float, cost_ratio: float, margin: float
) -> InHand | None:
    """Judge a way against another over the blocks that both have; None where they are fewer than
    two.

    Args:
        held: The way.
        control: The other one.
        n_trials: Trials of the control's study, whose cost is the budget.
        gain: Claimed points, to be exceeded at that budget.
        cost_ratio: Claimed ratio of the costs for as good a model.
        margin: A model is as good that is at most so many points worse.
    """
    blocks = tuple(block for block in held.blocks if block in control.blocks)
    if len(blocks) < 2:
        return None
    goals = _goals(control, blocks, n_trials)
    differences = functools.partial(_differences, held, goals)
    at_budget = estimate(differences(1.0), gain)
    ratio = _ratio(differences, functools.partial(_differences, control, goals), cost_ratio, margin)
    word = INCONCLUSIVE
    if at_budget.above or ratio.below:
        word = SUPPORTED
    elif at_budget.below and ratio.above:
        word = REFUTED
    return InHand(
        way=held.way.name,
        control=control.way.name,
        blocks=blocks,
        gain=at_budget,
        ratio=ratio,
        per_block=tuple(differences(1.0).tolist()),
        word=word,
    )


Goals = tuple[tuple[int, float, float], ...]
"""Of each block: its number, what the control's study costs, and the accuracy that one holds."""


def _goals(control: Holding, blocks: Sequence[int], n_trials: int) -> Goals:
    goals = []
    for block in blocks:
        index = control.blocks.index(block)
        cost, accuracy = control.cost[index, n_trials - 1], control.accuracy[index, n_trials - 1]
        goals.append((block, float(cost), float(accuracy)))
    return tuple(goals)


def _differences(held: Holding, goals: Goals, share: float) -> Numbers:
    """Return (blocks,) points that a way is ahead of the goals, for a share of their cost."""
    return np.array([held.at(block, share * cost) - accuracy for block, cost, accuracy in goals])


def _ratio(
    differences: Callable[[float], Numbers],
    own: Callable[[float], Numbers],
    limit: float,
    margin: float,
) -> Ratio:
    # Where more trials bring nothing more, an equal model is never shown to be better: hence the
    # margin.
    def as_good(share: float) -> bool:
        return float(differences(share).mean()) >= -margin

    def shown_as_good(share: float) -> bool:
        return as_good(share) and estimate(differences(share), -margin).above

    def shown_worse(share: float) -> bool:
        return not as_good(share) and estimate(differences(share), -margin).below

    downwards = RATIOS[::-1]
    upper = _last(downwards, shown_as_good)
    share = limit if upper is None else min(limit, upper)
    return Ratio(
        point=_first(as_good),
        lower=_last(RATIOS, shown_worse) or 0.0,
        upper=upper,
        own=_first(lambda share: float(own(share).mean()) >= -margin),
        limit=limit,
        ahead=estimate(differences(share) - own(share), 0.0).above,
    )


def _first(holds: Callable[[float], bool]) -> float | None:
    """Return the lowest share of which `holds` is true, or None."""
    return next((float(share) for share in RATIOS if holds(share)), None)


def _last(shares: Numbers, holds: Callable[[float], bool]) -> float | None:
    """Return the last of the shares up to which `holds` is true, or None where it is not true of
    the first; first in large steps, then in small ones."""
    steps = len(shares) // COARSE
    far = next((step for step in range(steps) if not holds(shares[step * COARSE])), steps)
    if far == 0:
        return None
    begin = (far - 1) * COARSE
    end = min(begin + COARSE, len(shares))
    near = next((at for at in range(begin + 1, end) if not holds(shares[at])), end)
    return float(shares[near - 1])


def controls_in_hand(
    claim: Holding, holdings: Sequence[Holding], budget_of: Mapping[int, float]
) -> list[Holding]:
    """Return what a way has to beat before its gain is due to importance: under its policy, the
    placebos of its own arms, as few rows and as few epochs, each finished in its own best way
    without importance at this budget.

    Args:
        claim: The way.
        holdings: All ways.
        budget_of: Block → forward-equivalents; in other blocks nothing is compared.
    """
    best: dict[str, tuple[float, Holding]] = {}
    for held in holdings:
        blocks = [block for block in budget_of if block in held.blocks and block in claim.blocks]
        if len(blocks) < 2 or not _is_control(held.way, claim.way):
            continue
        # Paired with the claim: ways that have other blocks cannot be compared by their means.
        ahead = np.mean([held.at(b, budget_of[b]) - claim.at(b, budget_of[b]) for b in blocks])
        name = held.way.search.name
        if name not in best or ahead > best[name][0]:
            best[name] = (float(ahead), held)
    return [held for _, held in best.values()]


def _is_control(way: Way, claim: Way) -> bool:
    """Whether a way is without importance, and with no placebo but of the claim's own arms."""
    blind = {placebo_name(arm.name) for arm in claim.arms if arm.kind == IMPORTANCE}
    placebos = {arm.name for arm in way.arms if arm.kind == PLACEBO}
    return (
        way.search.policy == claim.search.policy
        and way.search.kind != UNIFORM
        and not way.importance
        and placebos <= blind
    )


def summarise_in_hand(
    protocol: Protocol,
    recorded: Sequence[Arm],
    outcomes: Mapping[str, Outcome],
    recordings: Recordings,
    arms: Sequence[Arm],
) -> dict[str, Any]:
    """Return each way beside uniform sampling under its policy, and the claim beside its controls.

    Args:
        protocol: What is claimed.
        recorded: The arms that are recorded.
        outcomes: By name of the arm, under one pruner.
        recordings: The recordings.
        arms: All arms of the comparison, recorded or not.
    """
    limits = {
        "gain": protocol.gain,
        "cost_ratio": protocol.cost_ratio,
        "margin": protocol.margin,
    }
    rows, claim = [], None
    for policy in dict.fromkeys(arm.policy for arm in recorded):
        ways = ways_of(recorded, policy, protocol.policies[0])
        holdings = [holding(way, outcomes[way.search.name], recordings) for way in ways]
        uniform = holdings[0]
        for held in holdings:
            judged = judge_in_hand(held, uniform, n_trials=protocol.n_trials, **limits)
            if judged is None:
                continue
            rows.append(_row(held, uniform, judged, protocol.n_trials))
            if held.way.name == protocol.claim:
                required = {
                    way.search.name
                    for way in ways_of(arms, policy, protocol.policies[0])
                    if _is_control(way, held.way)
                }
                claim = judged.plain() | _credit(
                    held, uniform, holdings, judged, protocol, required
                )
    return {"ways": rows, "claim": claim}


def _row(held: Holding, uniform: Holding, judged: InHand, n_trials: int) -> dict[str, Any]:
    at = [held.blocks.index(block) for block in judged.blocks]
    of_uniform = [uniform.blocks.index(block) for block in judged.blocks]
    cost, unit = held.cost[at, n_trials - 1], uniform.cost[of_uniform, n_trials - 1]
    row: dict[str, Any] = {
        "way": held.way.name,
        "importance": held.way.importance,
        "cost_ratio": float(np.exp(np.mean(np.log(cost / unit)))),
        "accuracy": float(held.accuracy[at, n_trials - 1].mean()),
        "accuracy_at_equal_cost": float(
            np.mean([held.at(block, u) for block, u in zip(judged.blocks, unit, strict=True)])
        ),
        "shares": (held.cost[at] / unit[:, None]).mean(0).tolist(),
        "accuracies": held.accuracy[at].mean(0).tolist(),
    }
    return row | ({} if held is uniform else {"verdict": judged.plain()})


def _credit(
    claim: Holding,
    uniform: Holding,
    holdings: Sequence[Holding],
    judged: InHand,
    protocol: Protocol,
    required: set[str],
) -> dict[str, Any]:
    """Return whether what the claim gains is due to importance: at the budget at which it is
    supported, it is shown to be better than each of its controls. `required` are the arms that
    search in them."""
    saves = judged.ratio.below and not judged.gain.above
    share = protocol.cost_ratio if saves else 1.0
    paid = share * uniform.cost[:, protocol.n_trials - 1]
    budgets = {block: float(paid[uniform.blocks.index(block)]) for block in judged.blocks}
    entries, compared = [], set()
    for control in controls_in_hand(claim, holdings, budgets):
        blocks = [block for block in judged.blocks if block in control.blocks]
        compared.add(control.way.search.name)
        ahead = [claim.at(b, budgets[b]) - control.at(b, budgets[b]) for b in blocks]
        gain = estimate(ahead, 0.0)
        entries.append(
            {
                "way": control.way.name,
                "kind": control.way.search.kind,
                "blocks": len(blocks),
                "gain": gain.plain(),
                "beats": gain.above,
            }
        )
    complete = compared >= required
    return {
        "controls": entries,
        "controls_complete": complete,
        "credit": complete and all(entry["beats"] for entry in entries),
        "budget_share": share,
    }
