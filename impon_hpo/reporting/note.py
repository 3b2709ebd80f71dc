"""The note on an arm's page of the dashboard, in Markdown: question, cost, result and settings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from impon_hpo.reporting.html import call_of, card_lines, markdown_table, versions_of
from impon_hpo.reporting.status import summarise
from impon_hpo.settings import metric_words, report_words
from impon_hpo.storage.trials import StudyRecord, space_words

LETTERS = 90
"""Letters of a command that fit on one line of the dashboard's page."""


def read_card(runs: Path) -> Mapping[str, Any] | None:
    """Return the card that `impon-hpo compare` wrote into a study's folder, or None.

    Args:
        runs: runs/<study>.
    """
    try:
        card = json.loads((runs / "report" / "summary.json").read_text())["card"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return card if isinstance(card, dict) and "answer" in card else None


def note(
    record: StudyRecord,
    records: Sequence[StudyRecord],
    card: Mapping[str, Any] | None = None,
) -> str:
    """Return the note on one arm.

    Args:
        record: The arm.
        records: All arms of its study.
        card: The card of the study's comparison, if there is one.
    """
    facts = summarise(record)
    identity = record.identity
    run = identity["run"]
    trials = facts["trials"]
    lines = [
        f"# {identity['study']}: arm `{identity['arm']}`",
        "",
        *([] if card is None else [escape(line, quote=False) for line in card_lines(card)]),
        escape(record.question, quote=False),  # Markdown lets HTML through
        "",
        f"{trials['complete']} trials complete, {trials['pruned']} pruned, "
        f"{trials['fail']} failed{_waiting(facts)}. "
        f"Spent: {facts['epochs']} epochs of {facts['epochs_without_pruning']} without pruning, "
        f"{facts['cost']:,.0f} forward-equivalents of {facts['cost_without_pruning']:,.0f}"
        f"{_saved(facts)}.",
        "",
        *_origins(facts),
        *_labels(record),
        *_arms(records),
        *_commands(facts),
        "## What was run",
        "",
        f"**Batch sampler** `{run['sampler']}` {_options(run['sampler_options'])} on "
        f"`{run['dataset']}`, {run['model']} of width {run['width']}, {run['epochs']} epochs.",
        "",
        f"**Pruner** `{call_of(identity['pruner'])}`, which sees {report_words(identity)}.",
        "",
        f"**Study sampler** `{call_of(identity['study_sampler'])}`, seed {identity['seed']}.",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {key} | `{json.dumps(value)}` |" for key, value in run.items()),
        *(
            f"| {key} (searched) | {space_words(value)} |"
            for key, value in identity["space"].items()
        ),
        "",
    ]
    for environment in record.environments:
        lines.append(f"Run with {versions_of(environment)}.")
    return "\n".join(lines) + "\n"


def _waiting(facts: Mapping[str, Any]) -> str:
    waiting = facts["waiting_at_rungs"]
    if not waiting:
        return ""
    first = waiting[0]
    return (
        f", {len(waiting)} waiting to be promoted (the first of them: trial {first['trial']}, "
        f"place {first['place']} of {first['of']} at epoch {first['epoch']})"
    )


def _saved(facts: Mapping[str, Any]) -> str:
    ratio = facts["cost_ratio"]
    return "" if ratio is None else f": {1 - ratio:.0%} saved by pruning"


def _origins(facts: Mapping[str, Any]) -> list[str]:
    """Return which trials were enqueued from earlier studies."""
    if not facts["from"]:
        return []
    listed = ", ".join(
        f"trial {entry['trial']} from {escape(entry['from'], quote=False)}"
        for entry in facts["from"]
    )
    return [f"Enqueued from earlier studies: {listed}.", ""]


def _labels(record: StudyRecord) -> list[str]:
    """Return what was found of wrong labels, with its picture."""
    if record.labels is None:
        return []
    lines = ["## Labels", "", escape(record.labels["sentence"], quote=False), ""]
    artifact = record.labels["artifact"]
    if artifact is not None:
        place = f"/artifacts/{record.optuna_study._study_id}/{artifact}"
        lines += [f"![images whose labels look wrong]({place})", ""]
    return lines


def _arms(records: Sequence[StudyRecord]) -> list[str]:
    """Return the table of all arms, and the link to the dashboard's page that compares them."""
    rows = []
    for record in records:
        facts = summarise(record)
        best, trials = facts["best"], facts["trials"]
        ratio = facts["cost_ratio"]
        rows.append(
            {
                "arm": f"`{facts['arm']}`",
                "complete / pruned": f"{trials['complete']} / {trials['pruned']}",
                f"best validation {record.metric}": f"{best['val_accuracy']:.4f}" if best else "",
                "best trial": str(best["trial"]) if best else "",
                "cost (forward-equivalents)": f"{facts['cost']:,.0f}",
                "of the cost without pruning": "" if ratio is None else f"{ratio:.0%}",
            }
        )
    lines = ["## Arms", "", *markdown_table(rows), ""]
    if len(records) > 1:
        numbers = ",".join(str(record.optuna_study._study_id) for record in records)
        lines += [f"[Side by side](/dashboard/compare-studies?ids={numbers})", ""]
    return lines


def _commands(facts: Mapping[str, Any]) -> list[str]:
    lines = ["## Commands", ""]
    best = facts["best"]
    if best is not None:
        lines += [
            f"The best is trial {best['trial']}, with validation "
            f"{metric_words(facts['metric'])} {best['val_accuracy']:.4f}. To train it again:",
            "",
            "```sh",
            _folded(best["retrain"]),
            "```",
            "",
        ]
    return [
        *lines,
        "To continue or to repeat this arm:",
        "",
        "```sh",
        _folded(facts["continue"]),
        "```",
        "",
    ]


def _folded(command: str) -> str:
    """Return a long command with one option on each line, so that no page has to be scrolled."""
    if len(command) <= LETTERS:
        return command
    lines: list[list[str]] = [[]]
    for word in shlex.split(command):
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n  ".join(shlex.join(line) for line in lines)


def _options(options: dict[str, Any]) -> str:
    return f"({', '.join(f'{key} = {value}' for key, value in options.items())})" if options else ""
