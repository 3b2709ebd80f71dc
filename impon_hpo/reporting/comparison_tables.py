"""The tables of a comparison's report, from its summary: numbers with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from impon_hpo.reporting.page import versions_of

EXPLAINED = (
    "Cost counts forward passes (backward = 2) with scoring, validation and references; ratio and "
    "loss are paired over blocks, with one-sided 95 % bounds in brackets. Loss: truth of uniform's "
    "pick minus truth of the arm's, in points; truth is the hidden-test accuracy after full "
    "uniform training in the other blocks. Gain at the budget: both studies stopped at the asked "
    "share of uniform's cost. τ-b: agreement of validation accuracy and truth after the first "
    "epoch and at the end. A verdict asks for more than the bounds shown: for the exact sign-flip "
    "test and, since losses are skewed, for Student's 99 % bound of the loss. Supported from: the "
    "lowest cost ratio that would be supported, where the pick is good enough. Only the claim was "
    "fixed beforehand; the other rows are not corrected for their number."
)


def arms_table(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a row an arm, formatted."""
    unit = summary["unit"]
    rows = []
    for row in summary["arms"]:
        verdict = row.get("verdict")
        study, curves = row["study"], row["curves"]
        tau = np.mean(curves["tau"], axis=0)
        rows.append(
            {
                "arm": row["arm"],
                "blocks": str(len(row["blocks"])),
                "cost (uniform epochs)": f"{np.mean(study['cost']) / unit:.1f}",
                "cost ratio": _bounds(verdict["cost"]) if verdict else "1",
                "loss (points)": _bounds(verdict["loss"], "+") if verdict else "0",
                "gain at the budget": _bounds(verdict["budget_gain"], "+") if verdict else "0",
                "pick (points)": f"{np.mean(study['quality']):.2f}",
                "its own test": f"{np.mean(study['own']):.2f}",
                "best pruned": f"{100 * np.mean(study['lost_best']):.0f} %",
                "top 3 pruned": f"{100 * np.mean(study['lost_top']):.0f} %",
                "complete": f"{study['complete']:.1f}",
                "τ-b first": f"{tau[0]:.2f}",
                "τ-b last": f"{tau[-1]:.2f}",
                **{
                    f"to epoch {epoch}": f"{ratio:.2f}" if ratio < math.inf else "never"
                    for epoch, ratio in row["cost_to_reach"].items()
                },
                "verdict": verdict["word"] if verdict else "",
                "supported from": _ratio(verdict),
                "credit": _credit(verdict),
            }
        )
    return rows


def _credit(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None or "credit" not in verdict:
        return ""
    return "importance" if verdict["credit"] else "no"


def _ratio(verdict: Mapping[str, Any] | None) -> str:
    ratio = verdict["supported_from"] if verdict else None
    return "" if ratio is None else f"{ratio:.2f}"


def _bounds(found: Mapping[str, Any], sign: str = "") -> str:
    return f"{found['point']:{sign}.2f} [{found['lower']:{sign}.2f}, {found['upper']:{sign}.2f}]"


def policies_table(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a row a policy: what uniform sampling alone does under it, to the end and stopped at
    what the first policy's study costs (there more configurations may fit); empty with one."""
    if len(summary["policies"]) < 2:
        return []
    rows = []
    for row in summary["policies"]:
        held = row["against_first"]
        rows.append(
            {
                "policy": row["policy"],
                "cost ratio to the first": _bounds(held["cost"]) if held else "",
                "loss to the first (points)": _bounds(held["loss"], "+") if held else "",
                "gain at the first's cost": _bounds(held["budget_gain"], "+") if held else "",
                "pick (points)": f"{row['quality']:.2f}",
                "best pruned": f"{100 * row['lost_best']:.0f} %",
                "τ-b by epoch": " ".join(f"{tau:.2f}" for tau in row["tau"]),
            }
        )
    return rows


def pruners_table(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a row for each pruner and arm that the claim was replayed under."""
    rows = []
    for row in summary["pruners"]:
        verdict = row.get("verdict")
        rows.append(
            {
                "pruner": row["pruner"],
                "arm": row["arm"],
                "cost (uniform epochs)": f"{row['cost'] / summary['unit']:.1f}",
                "cost ratio": _bounds(verdict["cost"]) if verdict else "1",
                "loss (points)": _bounds(verdict["loss"], "+") if verdict else "0",
                "pick (points)": f"{row['quality']:.2f}",
                "best pruned": f"{100 * row['lost_best']:.0f} %",
                "verdict": verdict["word"] if verdict else "",
            }
        )
    return rows


def facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the report rests on, as (what, said)."""
    protocol, about = summary["protocol"], summary["recordings"]
    found = [
        ("data", summary["data"] or "as the study file names them"),
        ("data set", about["dataset"]),
        ("command", about["command"]),
        ("pruner", _call(summary["pruner"])),
        (
            "claim",
            f"{protocol['claim']}: cost ratio at most {protocol['cost_ratio']:g}, "
            f"at most {protocol['margin']:g} points worse",
        ),
        ("configurations", f"{protocol['n_configurations']}, the same in all arms and blocks"),
        ("trials of a study", f"{protocol['n_trials']} of them"),
        ("blocks wanted", str(protocol["n_blocks"])),
        ("orders a block", str(protocol["orders"])),
        ("policies", "; ".join(protocol["policies"])),
        ("hash of the protocol", about["digest"]),
        ("fixed before recording on", about["fixed"]),
    ]
    found += [("made with", versions_of(entry)) for entry in about["environments"]]
    return found


def _call(table: Mapping[str, Any]) -> str:
    given = ", ".join(f"{key}={value}" for key, value in table.items() if key != "name")
    return f"{table['name']}({given})"


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """Return what a reader has to mind."""
    about, protocol = summary["recordings"], summary["protocol"]
    found = []
    if about["digest"] != about["fixed_digest"]:
        found.append(
            "the study file was changed after recording had begun (protocol "
            f"{about['fixed_digest']} then, {about['digest']} now), so nothing here was fixed "
            "beforehand."
        )
    least = min((len(row["blocks"]) for row in summary["arms"]), default=0)
    if least < protocol["n_blocks"]:
        found.append(
            f"not all is recorded yet: some arms have {least} of {protocol['n_blocks']} blocks."
        )
    return found
