"""The verdict: paired over blocks, with one-sided 95 % bounds: for and against what was claimed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from impon_hpo.comparing.outcomes import Outcome

Numbers = NDArray[np.float64]

LEVEL = 0.05
CAREFUL_LEVEL = 0.01
"""Of Student's bound. Losses are skewed: the pick is mostly as good and now and then far worse. In
simulated worlds whose mean loss is exactly the margin, bootstrap and sign flips alone called 10 to
17 % of comparisons supported; together with Student's bound at this level it is at most 5 %."""
RESAMPLES = 10_000
MOST_BLOCKS = 1000

SUPPORTED = "supported"
REFUTED = "refuted"
INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Estimate:
    """A mean over blocks, its one-sided 95 % bounds, and how it compares with a limit.

    Args:
        point: The mean.
        lower: Lower bound.
        upper: Upper bound.
        limit: What it is compared with.
        p_below: One-sided p-value of the exact sign-flip test for "below the limit".
        p_above: The same for "above the limit".
        careful_lower: Student's one-sided 99 % bound where values may be skewed, else `lower`.
        careful_upper: The other one.
        more_blocks: How many more blocks would decide at this mean and spread; None if none of up
            to a thousand would, 0 where it is decided.
    """

    point: float
    lower: float
    upper: float
    limit: float
    p_below: float
    p_above: float
    careful_lower: float
    careful_upper: float
    more_blocks: int | None

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return vars(self) | {"below": self.below, "above": self.above}

    @property
    def below(self) -> bool:
        """Whether it is shown to be at most the limit: by both bounds and by the test."""
        return max(self.upper, self.careful_upper) <= self.limit and self.p_below <= LEVEL

    @property
    def above(self) -> bool:
        """Whether it is shown to be above the limit."""
        return min(self.lower, self.careful_lower) > self.limit and self.p_above <= LEVEL


def estimate(values: Sequence[float] | Numbers, limit: float, *, skewed: bool = True) -> Estimate:
    """Estimate the mean of a value a block and compare it with `limit`.

    Bounds are bias-corrected and accelerated (BCa; Efron, 1987, "Better bootstrap confidence
    intervals") over the blocks with a fixed seed; the test flips the signs of value − limit. Where
    values may be `skewed`, Student's bound counts as well.
    """
    sample = np.asarray(values, dtype=np.float64)
    n = len(sample)
    point = float(sample.mean())
    lower = upper = point
    if np.ptp(sample) > 1e-12 * max(1.0, abs(point)):
        interval = stats.bootstrap(
            (sample,),
            np.mean,
            confidence_level=1 - 2 * LEVEL,
            n_resamples=RESAMPLES,
            method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval
        lower, upper = float(interval.low), float(interval.high)
    careful = (lower, upper)
    if skewed:
        reach = float(stats.t.ppf(1 - CAREFUL_LEVEL, n - 1) * sample.std(ddof=1)) / math.sqrt(n)
        careful = (point - reach, point + reach)
    result = Estimate(
        point=point,
        lower=lower,
        upper=upper,
        limit=limit,
        p_below=sign_flip_p(sample - limit, -1),
        p_above=sign_flip_p(sample - limit, 1),
        careful_lower=careful[0],
        careful_upper=careful[1],
        more_blocks=0,
    )
    if result.below or result.above:
        return result
    level = CAREFUL_LEVEL if skewed else LEVEL
    return dataclasses.replace(result, more_blocks=_more(sample, limit, level))


def sign_flip_p(differences: Numbers, side: int) -> float:
    """Return the p-value of the sign-flip test that the mean lies on `side` (-1 below, 1 above) of
    0: exact up to 12 values, of 10,000 random flips beyond."""
    differences = np.asarray(differences, dtype=np.float64) * side
    n = len(differences)
    if n <= 12:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1, 1], size=(RESAMPLES, n))
        signs[0] = 1  # what was observed is one of the flips
    # A relative tolerance, so that a sum in another order is not taken for a smaller one.
    sums = signs @ differences
    return float(np.mean(sums >= differences.sum() - 1e-9 * np.abs(differences).sum()))


def _more(values: Numbers, limit: float, level: float) -> int | None:
    n, spread = len(values), float(values.std(ddof=1))
    distance = abs(float(values.mean()) - limit)
    numbers = np.arange(max(n + 1, 5), MOST_BLOCKS + 1)
    reach = stats.t.ppf(1 - level, numbers - 1) * spread / np.sqrt(numbers)
    enough = numbers[distance > reach]
    return int(enough[0]) - n if len(enough) else None


@dataclass(frozen=True)
class Verdict:
    """Whether an arm costs so much less than another one at a pick so nearly as good.

    Args:
        arm: Its name.
        control: The arm that it is compared with.
        blocks: The blocks that both have.
        cost: Cost ratio: of geometric means over blocks.
        loss: Truth of the control's pick minus truth of the arm's, in points.
        budget_gain: Truth of the arm's pick minus the control's, both stopped at the same budget.
        word: "supported", "refuted" or "inconclusive".
    """

    arm: str
    control: str
    blocks: tuple[int, ...]
    cost: Estimate
    loss: Estimate
    budget_gain: Estimate
    word: str

    @property
    def more_blocks(self) -> int | None:
        """How many more blocks would decide it; 0 where it is decided, None if none would."""
        if self.word != INCONCLUSIVE:
            return 0
        numbers = [self.cost.more_blocks, self.loss.more_blocks]
        return None if None in numbers else max(number for number in numbers if number is not None)

    @property
    def supported_from(self) -> float | None:
        """The lowest cost ratio, in hundredths, that would have been supported as a claim; None
        where the pick is not shown to be as good as claimed."""
        if not self.loss.below:
            return None
        return hundredth_above(max(self.cost.upper, self.cost.careful_upper))

    @property
    def beats(self) -> bool:
        """Whether the arm is better than the control: a better pick at the same budget, or one as
        good for less."""
        cheaper = max(self.cost.upper, self.cost.careful_upper) < 1
        return self.budget_gain.above or (self.loss.below and cheaper)

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "word": self.word,
            "arm": self.arm,
            "control": self.control,
            "blocks": len(self.blocks),
            "cost": self.cost.plain(),
            "loss": self.loss.plain(),
            "budget_gain": self.budget_gain.plain(),
            "beats": self.beats,
            "supported_from": self.supported_from,
            "more_blocks": self.more_blocks,
        }


def hundredth_above(bound: float) -> float:
    """Return the lowest hundredth above a bound: a limit at the bound itself is not met."""
    return (math.floor(100 * bound + 1e-9) + 1) / 100


def judge(arm: Outcome, control: Outcome, *, cost_ratio: float, margin: float) -> Verdict | None:
    """Judge an arm against a control over the blocks that both have; None where they are fewer than
    two.

    *Supported*: cost ratio and loss are both shown to be at most `cost_ratio` and `margin`.
    *Refuted*: one of them is shown to be above. *Inconclusive*: neither.
    """
    blocks = tuple(block for block in arm.blocks if block in control.blocks)
    if len(blocks) < 2:
        return None
    of_arm = [arm.blocks.index(block) for block in blocks]
    of_control = [control.blocks.index(block) for block in blocks]
    logs = estimate(
        np.log(arm.cost[of_arm] / control.cost[of_control]), math.log(cost_ratio), skewed=False
    )
    cost = dataclasses.replace(
        logs,
        point=math.exp(logs.point),
        lower=math.exp(logs.lower),
        upper=math.exp(logs.upper),
        careful_lower=math.exp(logs.careful_lower),
        careful_upper=math.exp(logs.careful_upper),
        limit=cost_ratio,
    )
    loss = estimate(control.quality[of_control] - arm.quality[of_arm], margin)
    gain = estimate(arm.budget_quality[of_arm] - control.budget_quality[of_control], 0.0)
    word = INCONCLUSIVE
    if logs.below and loss.below:
        word = SUPPORTED
    elif logs.above or loss.above:
        word = REFUTED
    return Verdict(arm.arm, control.arm, blocks, cost, loss, gain, word)
