"""The words of a verdict: what was found, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from impon_hpo.comparing.verdict import (
    INCONCLUSIVE,
    REFUTED,
    SUPPORTED,
    Verdict,
    hundredth_above,
)
from impon_hpo.tuning.promotion import PROMOTE


def verdict_sentence(verdict: Verdict, pruner: str) -> str:
    """Return the verdict in one sentence, and what would be true instead where it is not met.

    Args:
        verdict: The verdict.
        pruner: The name of the pruner, as `[pruner]` has it.
    """
    pruner = "halving that promotes" if pruner == PROMOTE else pruner
    cost, loss = verdict.cost, verdict.loss
    head = {
        SUPPORTED: f"Supported: under {pruner}, a study with {verdict.arm}",
        REFUTED: f"Refuted: under {pruner}, a study with {verdict.arm}",
        INCONCLUSIVE: f"Inconclusive: under {pruner}, a study with {verdict.arm}",
    }[verdict.word]
    facts = (
        f"costs {cost.point:.2f} of one with {verdict.control} (95 % bounds {cost.lower:.2f} and "
        f"{cost.upper:.2f}; claim: at most {cost.limit:.2f}) and its pick is {_worse(loss.point)} "
        f"({loss.lower:+.2f} and {loss.upper:+.2f}; claim: at most {loss.limit:g} worse), over "
        f"{len(verdict.blocks)} blocks."
    )
    return " ".join([head, facts, *_instead(verdict)])


def _worse(points: float) -> str:
    if abs(points) < 0.005:
        return "as good"
    return f"{abs(points):.2f} points {'worse' if points > 0 else 'better'}"


def _instead(verdict: Verdict) -> list[str]:
    cost, loss = verdict.cost, verdict.loss
    sentences = []
    ratio = verdict.supported_from
    if ratio is not None and not cost.below and ratio > cost.limit:
        sentences.append(f"It would be supported at a ratio of {ratio:.2f}.")
    margin = max(loss.upper, loss.careful_upper)
    if cost.below and not loss.below and margin > loss.limit:
        margin = hundredth_above(margin)
        sentences.append(
            f"At this cost it would be supported with a margin of {margin:.2f} points."
        )
    if verdict.word == INCONCLUSIVE:
        more = verdict.more_blocks
        sentences.append(
            "No number of blocks that could be paid for would decide it."
            if more is None
            else f"About {more} more block{'' if more == 1 else 's'} would decide it, if means and "
            "spread stay."
        )
    return sentences


def credit_sentence(supported: bool, verdicts: Sequence[Verdict], n_controls: int, arm: str) -> str:
    """Return to what a saving is due: to importance, or to using fewer rows."""
    if len(verdicts) < n_controls:
        return (
            "Whether importance deserves the credit is not judged: its controls are not recorded."
        )
    beaten = [verdict.control for verdict in verdicts if verdict.beats]
    unbeaten = [verdict.control for verdict in verdicts if not verdict.beats]
    if not unbeaten:
        what = "The saving is due to importance" if supported else "Importance does contribute"
        return f"{what}: {arm} beats {_listed(beaten)} as well."
    what = "Importance earns no credit"
    if supported:
        rows = "using fewer rows" if n_controls > 1 else "the sampler's path"
        what = f"The saving comes from {rows}, not from importance"
    also = f" (it does beat {_listed(beaten)})" if beaten else ""
    return f"{what}: {arm} is not shown to beat {_listed(unbeaten)}{also}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
