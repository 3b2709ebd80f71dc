"""The card of a comparison: the answer, what to do, how sure that is, and what it rests on."""

from __future__ import annotations

import itertools
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from impon_hpo.comparing.arms import FRACTION, PLACEBO, SHORT, UNIFORM
from impon_hpo.comparing.verdict import REFUTED, SUPPORTED
from impon_hpo.comparing.words import better, between, not_shown, pruner_words
from impon_hpo.files import as_argument
from impon_hpo.tuning.protocol import IN_HAND, THEN, placebo_name
from impon_hpo.tuning.study_file import StudyFile


@dataclass(frozen=True)
class Rival:
    """A control of the claim.

    Args:
        name: Its name.
        beaten: Whether the claim is shown to beat it.
        gain: Bounds of the points that the claim is ahead of it.
        margin: As many points behind it is as good.
    """

    name: str
    beaten: bool
    gain: Mapping[str, float]
    margin: float

    @property
    def level(self) -> bool:
        """Whether it is as good as the claim, by the upper bound of the gain."""
        return self.gain["upper"] <= self.margin

    def rank(self) -> tuple[bool, int]:
        """Return its place among controls that are not beaten: level ones first, simple ones
        first."""
        kinds = (FRACTION, SHORT, PLACEBO)
        at = (place for place, kind in enumerate(kinds) if self.name.startswith(kind))
        return not self.level, next(at, len(kinds))

    @property
    def words(self) -> str:
        """What it is, to stand before a verb."""
        search, _, final = self.name.partition(" (")[0].partition(THEN)
        kind, _, share = search.partition("@")
        words = {
            FRACTION: f"{_part(share)} of the rows, at random",
            SHORT: f"{_part(share)} of the epochs",
            PLACEBO: "the same path without its scores",
        }.get(PLACEBO if kind.startswith(PLACEBO) else kind, kind)
        if final:
            words += ", then the pick in full"
        return f"{words}," if "," in words else words


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
    margin, in_hand = study_file.protocol.margin, study_file.protocol.endpoint == IN_HAND
    key, gain = ("way", "gain") if in_hand else ("control", "budget_gain")
    controls = [
        Rival(entry[key], entry["beats"], entry[gain], margin) for entry in verdict["controls"]
    ]
    rival = min((each for each in controls if not each.beaten), key=Rival.rank, default=None)
    answer, way = (_answer_in_hand if in_hand else _answer)(verdict, rival)
    if not in_hand and "@" in way:  # what was judged is the pick's worth, trained in full
        names, bracket, policy = way.partition(" (")
        way = f"{names}{THEN}{UNIFORM}{bracket}{policy}"
    what, command = _what_to_do(study_file, way, _settings(summary))
    return {
        "answer": answer,
        "what_to_do": what,
        "command": shlex.join(["impon-hpo", *command]),
        "how_sure": (_sure_in_hand if in_hand else _sure)(
            verdict, rival or next(iter(controls), None)
        ),
        **facts,
        "earned": verdict["word"] == SUPPORTED and bool(verdict["credit"]),
    }


def _answer_in_hand(verdict: Mapping[str, Any], rival: Rival | None) -> tuple[str, str]:
    """Return the answer, and the way to a model that follows from it."""
    gain, ratio, claim = verdict["gain"], verdict["ratio"], verdict["arm"]
    if verdict["word"] == SUPPORTED:
        what = (
            f"with {claim}, as good a model costs {ratio['point'] or 0:.2f} of uniform sampling's "
            f"study, and {ratio['own'] or 1:.2f} with uniform sampling itself"
        )
        if gain["above"]:
            what = f"with {claim}, the model in hand is {better(gain['point'])} for the same cost"
        return _supported(verdict, what, rival)
    if verdict["word"] == REFUTED:
        if gain["limit"]:
            what = f"a model that is more than {gain['limit']:g} points better"
            return f"No: for the same cost, {claim} does not hold {what}.", "uniform"
        return f"No: for the same cost, {claim} holds no better model.", "uniform"
    return f"Not shown: whether {claim} holds a better model is open.", "uniform"


def _answer(verdict: Mapping[str, Any], rival: Rival | None) -> tuple[str, str]:
    cost, claim = verdict["cost"], verdict["arm"]
    if verdict["word"] == SUPPORTED:
        what = (
            f"with {claim}, a study costs {cost['point']:.2f} of uniform sampling and picks as well"
        )
        return _supported(verdict, what, rival)
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
    if not rival.level:
        return f"Open: {what}; that {rival.words} does less is not shown.", claim
    return f"No: {rival.words} does as well as {claim}.", rival.name


def _part(share: str) -> str:
    return {"1/2": "half", "1/3": "a third", "1/4": "a quarter", "1/5": "a fifth"}.get(share, share)


def _what_to_do(study_file: StudyFile, way: str, settings: list[str]) -> tuple[str, list[str]]:
    """Return what to do and the words of its command. `settings` were given to the comparison; what
    makes the arm comes after them, so that it counts."""
    names, _, policy = way.partition(" (")
    search, _, final = names.partition(THEN)
    search, final = _advised(search), _advised(final)
    arm, changes = _arm(study_file, search)
    changes += _policy_changes(study_file, policy.removesuffix(")"))
    judged = [*changes, *_pruner_changes(study_file)]
    command = ["tune", _typed(study_file), "--arm", arm, *settings, *_set(judged)]
    if not final:
        what = {UNIFORM: "Keep uniform sampling:"}.get(search, f"Tune with {search}:")
        return what, command
    arm, changes = _arm(study_file, final)
    changes += _policy_changes(study_file, policy.removesuffix(")"))
    options = shlex.join(["--arm", arm, *settings, *_set(changes)])
    return (
        f"Tune with {search}, then `train` its pick in full: with `{options}` and, of the settings "
        f"that it prints, only {', '.join(study_file.space)}:",
        command,
    )


def _advised(arm: str) -> str:
    """Return an arm; for a placebo, which is no advice, uniform sampling of as many rows."""
    base, _, share = arm.partition("@")
    if base != PLACEBO and not base.startswith(placebo_name("")):
        return arm
    return f"{FRACTION}@{share}" if share else UNIFORM


def _arm(study_file: StudyFile, name: str) -> tuple[str, list[str]]:
    """Return the arm of `tune` that an arm of a comparison is, and the settings that it takes."""
    base, _, share = name.partition("@")
    changes: list[str] = []
    if base not in study_file.arms:  # uniform sampling
        base = next(
            (arm for arm, config in study_file.arms.items() if config.sampler == "uniform"), ""
        )
        if not base:
            base = "uniform"
            changes = ["arms.uniform.sampler=uniform"]
    run = study_file.run
    if share and name.startswith(SHORT):
        epochs = max(1, int(run.epochs * Fraction(share)))
        changes.append(f"epochs={epochs}")
        if run.warmup_epochs:
            changes.append(f"warmup_epochs={run.warmup_epochs * epochs / run.epochs:.4g}")
    elif share:
        changes.append(f"epoch_fraction={run.epoch_fraction * float(Fraction(share)):.4g}")
    return base, changes


def _policy_changes(study_file: StudyFile, name: str) -> list[str]:
    """Return the settings of a policy that are not those of [run]; "" is the first one."""
    policies = study_file.protocol.policies
    policy = next((policy for policy in policies if str(policy) == name), policies[0])
    wanted = {"schedule": policy.schedule, "eval_weights": policy.weights}
    return [
        f"{key}={value}" for key, value in wanted.items() if value != getattr(study_file.run, key)
    ]


def _pruner_changes(study_file: StudyFile) -> list[str]:
    """Return the pruner that was judged, where that is not the study's."""
    pruner = study_file.protocol.pruner
    if pruner == study_file.pruner:
        return []
    return [f"pruner={{{', '.join(f'{key}={json.dumps(pruner[key])}' for key in pruner)}}}"]


def _set(changes: Sequence[str]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def _typed(study_file: StudyFile) -> str:
    """Return the study's folder as one would type it here."""
    folder = os.path.relpath(study_file.folder)
    if folder.startswith(".."):
        return str(study_file.folder)
    return as_argument(Path(folder).as_posix())


def _settings(summary: Mapping[str, Any]) -> list[str]:
    """Return the settings that the comparison was given, so that a command has them, too."""
    words = shlex.split(str(summary["recordings"].get("command", "")))
    return _set(
        [value for option, value in itertools.pairwise(words) if option == "--set"]
        + [word.removeprefix("--set=") for word in words if word.startswith("--set=")]
    )


def _sure_in_hand(verdict: Mapping[str, Any], rival: Rival | None) -> str:
    gain, ratio = verdict["gain"], verdict["ratio"]
    upper = "without an upper bound" if ratio["upper"] is None else f"at most {ratio['upper']:.2f}"
    sentences = [
        f"Over {len(verdict['blocks'])} blocks, each bound at 95 %: the model of {verdict['arm']} "
        f"is {between(gain['lower'], gain['upper'])} than uniform sampling's for the same cost."
        f"{not_shown(gain)}",
        f"As good a one costs at least {ratio['lower']:.2f} of it, {upper}.",
    ]
    if rival is not None:
        bounds, share = rival.gain, verdict["budget_share"]
        cost = "for the same cost" if share == 1 else f"for {share:.2f} of that cost"
        sentences.append(
            f"Beside that of {rival.name}, {cost}, it is "
            f"{between(bounds['lower'], bounds['upper'])}."
        )
    return " ".join(sentences)


def _sure(verdict: Mapping[str, Any], rival: Rival | None) -> str:
    cost, loss = verdict["cost"], verdict["loss"]
    sentences = [
        f"Over {verdict['blocks']} blocks, each bound at 95 %: a study with {verdict['arm']} costs "
        f"between {cost['lower']:.2f} and {cost['upper']:.2f} of one with uniform sampling, and "
        f"its pick is {between(-loss['upper'], -loss['lower'])}."
    ]
    if rival is not None:
        bounds = rival.gain
        sentences.append(
            f"Beside that of {rival.name}, for the same cost, it is "
            f"{between(bounds['lower'], bounds['upper'])}."
        )
    return " ".join(sentences)


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
