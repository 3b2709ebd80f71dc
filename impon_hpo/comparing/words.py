"""The words of a verdict: what was found, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    pruner = pruner_words(pruner)
    cost, loss = verdict.cost, verdict.loss
    head = {
        SUPPORTED: f"Supported: under {pruner}, a study with {verdict.arm}",
        REFUTED: f"Refuted: under {pruner}, a study with {verdict.arm}",
        INCONCLUSIVE: f"Inconclusive: under {pruner}, a study with {verdict.arm}",
    }[verdict.word]
    facts = (
        f"costs {cost.point:.2f} of one with {verdict.control} (95 % bounds {cost.lower:.2f} and "
        f"{cost.upper:.2f}; claim: at most {cost.limit:.2f}) and its pick is {better(-loss.point)} "
        f"({between(-loss.upper, -loss.lower)}; claim: at most {loss.limit:g} worse), over "
        f"{len(verdict.blocks)} blocks."
    )
    return " ".join([head, facts, *_instead(verdict)])


def pruner_words(name: str) -> str:
    """Return what a pruner is called in a sentence."""
    return "halving that promotes" if name == PROMOTE else name


def claim_words(protocol: Mapping[str, Any]) -> str:
    """Return what was claimed before recording, in words.

    Args:
        protocol: `Protocol.identity()`.
    """
    if "gain" not in protocol:
        return (
            f"{protocol['claim']}: cost ratio at most {protocol['cost_ratio']:g}, "
            f"at most {protocol['margin']:g} points worse"
        )
    return (
        f"{protocol['claim']}: the model in hand is more than {protocol['gain']:g} points better "
        "than that of uniform sampling for the same cost, or as good a one (at most "
        f"{protocol['margin']:g} points worse) costs at most {protocol['cost_ratio']:g} of its cost"
    )


def in_hand_sentence(claim: Mapping[str, Any], pruner: str, margin: float) -> str:
    """Return what one holds at the end on a way, in one or two sentences.

    Args:
        claim: `InHand.plain()`.
        pruner: The name of the pruner, as `[pruner]` has it.
        margin: How many points worse a model may be that counts as as good.
    """
    gain = claim["gain"]
    return (
        f"{str(claim['word']).capitalize()}: under {pruner_words(pruner)}, for what a study with "
        f"{claim['control']} costs, {claim['way']} holds a model that is {better(gain['point'])} "
        f"(95 % bounds: {between(gain['lower'], gain['upper'])}; claim: more than "
        f"{gain['limit']:g} better), over {len(claim['blocks'])} blocks.{not_shown(gain)} "
        f"{_ratio_sentence(claim['ratio'], margin)}"
    )


def not_shown(gain: Mapping[str, Any]) -> str:
    """Return why a gain whose 95 % bound is above its limit is not shown, and how many more blocks
    would decide it, as a sentence after a space; "" where it is shown, or below."""
    if gain["above"] or gain["lower"] <= gain["limit"]:
        return ""
    reason = "so few blocks cannot pass the exact sign-flip test"
    if gain["careful_lower"] <= gain["limit"]:
        reason = f"by Student's 99 % bound it may be {better(gain['careful_lower'])}"
    return f" It is not shown, since {reason}. {_more(gain['more_blocks'])}"


def _more(blocks: int | None) -> str:
    if blocks is None:
        return "No number of blocks that could be paid for would decide it."
    return (
        f"About {blocks} more block{'' if blocks == 1 else 's'} would decide it, if means and "
        "spread stay."
    )


def _ratio_sentence(ratio: Mapping[str, Any], margin: float) -> str:
    if ratio["point"] is None:
        return "As good a model was not reached at any cost recorded."
    upper = "no upper bound" if ratio["upper"] is None else f"at most {ratio['upper']:.2f}"
    own = "" if ratio["own"] is None else f", with uniform sampling {ratio['own']:.2f}"
    return (
        f"As good a model (at most {margin:g} worse) costs {ratio['point']:.2f} of that (95 % "
        f"bounds: at least {ratio['lower']:.2f}, {upper}; claim: at most {ratio['limit']:.2f})"
        f"{own}.{_not_ahead(ratio)}"
    )


def _not_ahead(ratio: Mapping[str, Any]) -> str:
    """Return why a ratio within its limit does not support the claim, or ""."""
    if ratio["upper"] is None or ratio["upper"] > ratio["limit"] or ratio["ahead"]:
        return ""
    return " This does not count: uniform sampling is not shown to be behind it there."


def in_hand_credit_sentence(claim: Mapping[str, Any]) -> str:
    """Return to what a better model in hand is due.

    Args:
        claim: `InHand.plain()` with `controls`, `controls_complete` and `credit`.
    """
    if not claim["controls_complete"]:
        return (
            "Whether importance deserves the credit is not judged: not all of its controls are "
            "recorded."
        )
    beaten = [entry["way"] for entry in claim["controls"] if entry["beats"]]
    unbeaten = [entry["way"] for entry in claim["controls"] if not entry["beats"]]
    if claim["credit"] and claim["word"] == SUPPORTED:
        what = "gain" if claim["gain"]["above"] else "saving"
        return f"The {what} is due to importance: {claim['way']} beats {_listed(beaten)} as well."
    if claim["credit"]:
        return (
            f"{claim['way']} beats {_listed(beaten)}; but beside {claim['control']} it is not "
            "shown to be as claimed."
        )
    also = f" (it does beat {_listed(beaten)})" if beaten else ""
    rest = f"{_listed(unbeaten)}{also}"
    return f"Importance earns no credit: {claim['way']} is not shown to beat {rest}."


def better(points: float) -> str:
    """Return a difference in words, such as "0.66 points better"."""
    if abs(points) < 0.005:
        return "as good"
    return f"{abs(points):.2f} points {'better' if points > 0 else 'worse'}"


def between(lower: float, upper: float) -> str:
    """Return two bounds of a difference in words; each says its direction where they differ."""
    if lower >= 0 or upper <= 0:
        low, high = sorted((abs(lower), abs(upper)))
        return f"between {low:.2f} and {high:.2f} points {'better' if upper > 0 else 'worse'}"
    return f"between {abs(lower):.2f} points worse and {upper:.2f} points better"


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
        sentences.append(_more(verdict.more_blocks))
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
