"""The card of a comparison: the answer, what to do, how sure that is, and what it rests on."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from impon_hpo.comparing.arms import FRACTION, PLACEBO, SHORT
from impon_hpo.comparing.verdict import REFUTED, SUPPORTED
from impon_hpo.comparing.words import better, between, pruner_words
from impon_hpo.tuning.protocol import IN_HAND, THEN
from impon_hpo.tuning.study_file import StudyFile


def card(study_file: StudyFile, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lines of the card, the command that goes with them, and whether importance itself
    has earned what it says.

    Args:
        study_file: The study.
        summary: Its verdict, data, arms and recordings.
    """
    verdict = summary["verdict"]
    facts = {"rests_on": _rests_on(study_file, summary), "earned": False}
    if "credit" not in verdict:
        command = ["compare", _typed(study_file), *_settings(summary)]
        return {
            "answer": f"Not known yet: {verdict['arm']} is not recorded in two blocks.",
            "what_to_do": "Record more:",
            "command": shlex.join(["impon-hpo", *command]),
            "how_sure": "Nothing is judged yet.",
            **facts,
        }
    in_hand = study_file.protocol.endpoint == IN_HAND
    answer, way = (_answer_in_hand if in_hand else _answer)(verdict)
    what, command = _what_to_do(study_file, way)
    return {
        "answer": answer,
        "what_to_do": what,
        "command": shlex.join(["impon-hpo", *command, *_settings(summary)]),
        "how_sure": (_sure_in_hand if in_hand else _sure)(verdict),
        **facts,
        "earned": verdict["word"] == SUPPORTED and bool(verdict["credit"]),
    }


def _answer_in_hand(verdict: Mapping[str, Any]) -> tuple[str, str]:
    """Return the answer, and the way to a model that follows from it."""
    gain, ratio, claim = verdict["gain"], verdict["ratio"], verdict["arm"]
    if verdict["word"] == SUPPORTED:
        what = f"with {claim}, as good a model costs {ratio['point'] or 0:.2f} of uniform sampling"
        if gain["above"]:
            what = f"with {claim}, the model in hand is {better(gain['point'])} for the same cost"
        return _supported(verdict, what, _rival(verdict["controls"], "way", "gain"))
    if verdict["word"] == REFUTED:
        return f"No: for the same cost, {claim} holds no better model.", "uniform"
    return f"Not shown: whether {claim} holds a better model is open.", "uniform"


def _answer(verdict: Mapping[str, Any]) -> tuple[str, str]:
    cost, claim = verdict["cost"], verdict["arm"]
    if verdict["word"] == SUPPORTED:
        what = (
            f"with {claim}, a study costs {cost['point']:.2f} of uniform sampling and picks as well"
        )
        return _supported(verdict, what, _rival(verdict["controls"], "control", "budget_gain"))
    if verdict["word"] == REFUTED:
        if cost["above"]:
            return f"No: {claim} costs {cost['point']:.2f} of uniform sampling.", "uniform"
        return f"No: {claim} picks worse.", "uniform"
    return f"Not shown: whether {claim} saves what was claimed is open.", "uniform"


def _supported(verdict: Mapping[str, Any], what: str, rival: Rival | None) -> tuple[str, str]:
    """Return the answer where the claim is supported: whether importance has earned it."""
    claim = verdict["arm"]
    if verdict["credit"]:
        return f"Yes: {what}.", claim
    if rival is None:
        return f"Open: {what}, but not all of its controls are recorded.", claim
    if rival.behind:
        return f"Open: {what}; that {rival.words} does less is not shown.", claim
    return f"No: {rival.words} does as well as {claim}.", rival.name


@dataclass(frozen=True)
class Rival:
    """A control that a claim is not shown to beat.

    Args:
        name: Its name.
        words: What it is, to stand before a verb.
        behind: Whether it is behind the claim by both 95 % bounds, though not by all tests.
    """

    name: str
    words: str
    behind: bool


def _rival(controls: Sequence[Mapping[str, Any]], key: str, gain: str) -> Rival | None:
    """Return the simplest control that is not beaten, of those that are level if any is."""
    unbeaten = [entry for entry in controls if not entry["beats"]]
    if not unbeaten:
        return None
    entry = min(unbeaten, key=lambda entry: (entry[gain]["lower"] > 0, _simplicity(entry[key])))
    search, _, final = entry[key].partition(" (")[0].partition(THEN)
    kind, _, share = search.partition("@")
    words = {
        FRACTION: f"{_part(share)} of the rows, at random",
        SHORT: f"{_part(share)} of the epochs",
        PLACEBO: "the same path without its scores",
    }.get(PLACEBO if kind.startswith(PLACEBO) else kind, kind)
    if final:
        words += ", then the pick in full"
    return Rival(entry[key], f"{words}," if "," in words else words, entry[gain]["lower"] > 0)


def _simplicity(name: str) -> int:
    kinds = (FRACTION, SHORT, PLACEBO)
    return next((at for at, kind in enumerate(kinds) if name.startswith(kind)), len(kinds))


def _part(share: str) -> str:
    return {"1/2": "half", "1/3": "a third", "1/4": "a quarter", "1/5": "a fifth"}.get(share, share)


def _what_to_do(study_file: StudyFile, way: str) -> tuple[str, list[str]]:
    """Return what to do and the words of its command."""
    search, _, final = way.partition(" (")[0].partition(THEN)
    command = ["tune", _typed(study_file), *_arm(study_file, search)]
    if not final:
        what = {"uniform": "Keep uniform sampling:"}.get(search, f"Tune with {search}:")
        return what, command
    return (
        f"Tune with {search}, then train the settings that it prints with `train` and "
        f"`{shlex.join(_arm(study_file, final))}`:",
        command,
    )


def _arm(study_file: StudyFile, name: str) -> list[str]:
    """Return the options that make an arm of a comparison one of `tune`."""
    base, _, share = name.partition("@")
    words: list[str] = []
    if base not in study_file.arms:  # a control: uniform sampling, or a placebo, which is no advice
        base = next(
            (arm for arm, config in study_file.arms.items() if config.sampler == "uniform"), ""
        )
        if not base:
            base = "uniform"
            words = ["--set", "arms.uniform.sampler=uniform"]
    words = ["--arm", base, *words]
    if share and name.startswith(SHORT):
        epochs = max(1, int(study_file.run.epochs * Fraction(share)))
        words += ["--set", f"epochs={epochs}"]
    elif share:
        fraction = study_file.run.epoch_fraction * float(Fraction(share))
        words += ["--set", f"epoch_fraction={fraction:.4g}"]
    return words


def _typed(study_file: StudyFile) -> str:
    """Return the study's folder as one would type it here."""
    folder = os.path.relpath(study_file.folder)
    return str(study_file.folder) if folder.startswith("..") else Path(folder).as_posix()


def _settings(summary: Mapping[str, Any]) -> list[str]:
    """Return the settings that the comparison was given, so that a command has them, too."""
    words = shlex.split(str(summary["recordings"].get("command", "")))
    pairs = itertools.pairwise(words)
    return [word for option, value in pairs if option == "--set" for word in (option, value)]


def _sure_in_hand(verdict: Mapping[str, Any]) -> str:
    gain, ratio = verdict["gain"], verdict["ratio"]
    upper = "without an upper bound" if ratio["upper"] is None else f"at most {ratio['upper']:.2f}"
    sentences = [
        f"Over {len(verdict['blocks'])} blocks, each bound at 95 %: the model is "
        f"{between(gain['lower'], gain['upper'])} than uniform sampling's for the same cost; as "
        f"good a one costs at least {ratio['lower']:.2f} of it, {upper}."
    ]
    rival = _named(verdict["controls"], "way", "gain")
    if rival is not None:
        bounds = rival["gain"]
        sentences.append(
            f"Beside {rival['way']} it is {between(bounds['lower'], bounds['upper'])}."
        )
    return " ".join(sentences)


def _sure(verdict: Mapping[str, Any]) -> str:
    cost, loss = verdict["cost"], verdict["loss"]
    sentences = [
        f"Over {verdict['blocks']} blocks, each bound at 95 %: it costs between "
        f"{cost['lower']:.2f} and {cost['upper']:.2f} of uniform sampling, and its pick is "
        f"{between(-loss['upper'], -loss['lower'])}."
    ]
    rival = _named(verdict["controls"], "control", "budget_gain")
    if rival is not None:
        bounds = rival["budget_gain"]
        sentences.append(
            f"Beside {rival['control']}, for the same cost, its pick is "
            f"{between(bounds['lower'], bounds['upper'])}."
        )
    return " ".join(sentences)


def _named(controls: Sequence[Mapping[str, Any]], key: str, gain: str) -> Mapping[str, Any] | None:
    """Return the control that the answer names, or the first where all are beaten."""
    rival = _rival(controls, key, gain)
    name = rival.name if rival else None
    return next((entry for entry in controls if name in (None, entry[key])), None)


def _rests_on(study_file: StudyFile, summary: Mapping[str, Any]) -> str:
    protocol, run = study_file.protocol, study_file.run
    blocks = max((len(row["blocks"]) for row in summary["arms"]), default=0)
    rows = "all rows" if run.subset is None else f"{run.subset:,} rows"
    model = f"{run.model} of width {run.width}" if run.model == "resnet18" else run.model
    return (
        f"{protocol.data or run.dataset}; {rows}, {model}, {run.epochs} epochs; "
        f"{protocol.n_configurations} configurations in {blocks} blocks, studies of "
        f"{protocol.n_trials} trials under {pruner_words(str(protocol.pruner['name']))}."
    )
