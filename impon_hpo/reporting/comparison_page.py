"""The report of a comparison: a page, Markdown, PNG files, JSON and CSV, from its summary."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from impon_hpo.console import finite
from impon_hpo.errors import as_typed, describing
from impon_hpo.files import write_csv, write_file
from impon_hpo.reporting.comparison_charts import comparison_charts, curves_chart, views
from impon_hpo.reporting.html import call_of, card_lines, markdown_table, page, versions_of
from impon_hpo.reporting.render import png
from impon_hpo.storage.trials import LABELS_PICTURE

if TYPE_CHECKING:
    from impon_hpo.comparing.curves import Curves

HEADINGS = {
    "cost": "cost (uniform epochs)",
    "cost_ratio": "cost ratio",
    "loss": "loss (points)",
    "budget_gain": "gain at the budget",
    "pick": "pick (points)",
    "own_test": "its own test",
    "best_pruned": "best pruned",
    "top_3_pruned": "top 3 pruned",
    "tau_first": "τ-b first",
    "tau_last": "τ-b last",
    "tau_by_epoch": "τ-b by epoch",
    "supported_from": "supported from",
    "cost_ratio_to_first": "cost ratio to the first",
    "loss_to_first": "loss to the first (points)",
    "gain_at_first_cost": "gain at the first's cost",
    "gain": "gain at equal cost (points)",
    "ratio": "cost of as good a model",
    "accuracy": "accuracy in hand",
}
"""Headings of the columns; a column that is not listed has its key as its heading, with spaces."""

SHORT = (
    "arm",
    "blocks",
    "cost_ratio",
    "loss",
    "budget_gain",
    "best_pruned",
    "verdict",
    "credit",
)
"""The columns of the arms' table that fit in a terminal."""

TABLE_NOTE = (
    "Cost counts forward passes (backward = 2), with scoring, validation and references. Cost "
    "ratio and loss are paired over blocks; brackets hold one-sided 95 % bounds. Loss: truth of "
    "uniform's pick minus truth of the arm's pick, in points. Truth: hidden-test {metric} after "
    "full uniform training in the other blocks. Gain at the budget: both studies stop at the "
    "claimed share of uniform's cost. τ-b: agreement of validation {metric} and truth after the "
    "first epoch and after the last. A verdict needs more than the bounds shown: the exact "
    "sign-flip test and, since losses are skewed, Student's 99 % bound of the loss. Supported "
    "from: the lowest cost ratio that would be supported, where the pick is good enough. Only the "
    "claim was fixed beforehand; the other rows are not corrected for their number."
)
IN_HAND = "What one holds in the end"
IN_HAND_NOTE = (
    "Ways to a model: an arm that searches, and, after 'then', the arm that trains its pick in "
    "full, which is charged. Accuracy: hidden test, of the model itself. Gain: points ahead of "
    "uniform sampling for the cost of its study; a way that costs less per trial tries more "
    "configurations. Cost of as good a model: share of uniform sampling's cost at which the model "
    "is as good as uniform's. Brackets hold one-sided 95 % bounds. Only the claim was fixed "
    "beforehand."
)
POLICIES = "What the policy alone does"
PRUNERS = "Under other pruners"


def write_report(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write `index.html` (one file that works without network), `report.md`, a PNG file for each
    chart, `summary.json`, `arms.csv` and `pruners.csv`, and return the path of the page. A chart
    that cannot be drawn is logged.

    Raises:
        StorageError: Another file cannot be written.
    """
    for chart in comparison_charts(summary):
        path = folder / f"{chart.key}.png"
        with describing(f"Picture '{path}' could not be drawn", "The rest of the report stands."):
            write_file(path, png(chart))
    write_csv(folder / "arms.csv", arms_table(summary))
    write_csv(folder / "pruners.csv", pruners_table(summary))
    write_file(folder / "summary.json", json.dumps(finite(summary), indent=1) + "\n")
    write_file(folder / "report.md", markdown(summary))
    path = folder / "index.html"
    write_file(path, html(summary, labels_pictures(folder.parent)))
    return path


def labels_pictures(runs: Path) -> list[tuple[str, bytes]]:
    """Return the picture that `impon-hpo labels` has left in runs/<study>, if there is one."""
    picture = runs / LABELS_PICTURE
    return [("Images whose labels look wrong", picture.read_bytes())] if picture.is_file() else []


def write_curves(
    path: Path,
    curves: Mapping[str, Curves],
    rows: Sequence[Mapping[str, Any]],
    *,
    control: str,
    title: str,
    metric: str,
) -> None:
    """Write the page of `compare-samplers`: its table, and accuracy against cost.

    Args:
        path: The HTML file.
        curves: The curves of each arm.
        rows: The table, a row for each arm.
        control: The arm that the others are compared with.
        title: Title of the page.
        metric: What the accuracies are, in words.

    Raises:
        StorageError: The file cannot be written.
    """
    chart = curves_chart(curves, control=control, metric=metric)
    tables = [(f"The arms beside {control}", with_headings(rows), "")]
    write_file(path, page(title=title, tables=tables, charts=[chart]))


def table_note(summary: Mapping[str, Any]) -> str:
    """Return how the table of the arms is to be read."""
    return TABLE_NOTE.format(metric=summary["metric"])


def html(summary: Mapping[str, Any], pictures: Sequence[tuple[str, bytes]] = ()) -> str:
    """Return the page; names and texts from the study file are escaped. `pictures` are PNG files
    with their titles."""
    verdict = summary["verdict"]
    credit = [verdict["credit_sentence"]] if "credit_sentence" in verdict else []
    return page(
        title=f"{summary['study']}: does importance sampling pay?",
        card=_card(summary),
        paragraphs=[summary["question"], " ".join([verdict["sentence"], *credit])],
        warnings=warnings(summary),
        tables=[
            (IN_HAND, with_headings(in_hand_table(summary)), IN_HAND_NOTE),
            ("The arms", with_headings(arms_table(summary)), table_note(summary)),
            (POLICIES, with_headings(policies_table(summary)), ""),
            (PRUNERS, with_headings(pruners_table(summary)), ""),
        ],
        charts=comparison_charts(summary),
        views=list(views(summary)),
        pictures=pictures,
        facts=facts(summary),
    )


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the report in Markdown; it shows the PNG files beside it."""
    verdict = summary["verdict"]
    lines = [
        f"# {summary['study']}",
        "",
        *card_lines(_card(summary)),
        str(summary["question"]),
        "",
        f"**{verdict['sentence']}** {verdict.get('credit_sentence', '')}".rstrip(),
        "",
        *(f"Warning: {warning}\n" for warning in warnings(summary)),
        *markdown_table(with_headings(arms_table(summary))),
        "",
        table_note(summary),
        "",
    ]
    if summary["in_hand"]:
        rows_in_hand = markdown_table(with_headings(in_hand_table(summary)))
        lines += [f"## {IN_HAND}", "", *rows_in_hand, "", IN_HAND_NOTE, ""]
    for title, rows in (
        (POLICIES, policies_table(summary)),
        (PRUNERS, pruners_table(summary)),
    ):
        if rows:
            lines += [f"## {title}", "", *markdown_table(with_headings(rows)), ""]
    for chart in comparison_charts(summary):
        lines += [f"![{chart.title}]({chart.key}.png)", "", chart.note, ""]
    lines += ["## Data and settings", ""]
    lines += [f"- {name}: `{value}`" for name, value in facts(summary)]
    return "\n".join(lines) + "\n"


def _card(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card with its command as whoever makes the report types it."""
    card = summary["card"]
    return {**card, "command": as_typed(card["command"])}


def with_headings(
    rows: Sequence[Mapping[str, Any]], keys: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return rows of a table with headings for people in place of keys, and only columns `keys`."""
    return [
        {HEADINGS.get(key, key.replace("_", " ")): row[key] for key in keys or row} for row in rows
    ]


def arms_table(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a row for each arm, formatted."""
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
                "cost": f"{np.mean(study['cost']) / unit:.1f}",
                "cost_ratio": _bounds(verdict["cost"]) if verdict else "1",
                "loss": _bounds(verdict["loss"], "+") if verdict else "0",
                "budget_gain": _bounds(verdict["budget_gain"], "+") if verdict else "0",
                "pick": f"{np.mean(study['quality']):.2f}",
                "own_test": f"{np.mean(study['own']):.2f}",
                "best_pruned": f"{100 * np.mean(study['lost_best']):.0f} %",
                "top_3_pruned": f"{100 * np.mean(study['lost_top']):.0f} %",
                "complete": f"{study['complete']:.1f}",
                "tau_first": f"{tau[0]:.2f}",
                "tau_last": f"{tau[-1]:.2f}",
                **{
                    f"to_epoch_{epoch}": f"{ratio:.2f}" if ratio < math.inf else "never"
                    for epoch, ratio in row["cost_to_reach"].items()
                },
                "verdict": verdict["word"] if verdict else "",
                "supported_from": _ratio(verdict),
                "credit": _credit(verdict),
            }
        )
    return rows


def in_hand_table(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a row for each way to a model, formatted; empty where that was not asked."""
    rows = []
    for row in summary["in_hand"]:
        verdict = row.get("verdict")
        rows.append(
            {
                "way": row["way"],
                "cost_ratio": f"{row['cost_ratio']:.2f}",
                "accuracy": f"{row['accuracy']:.2f}",
                "gain": _bounds(verdict["gain"], "+") if verdict else "0",
                "ratio": _cost_of_as_good(verdict["ratio"]) if verdict else "1",
                "verdict": verdict["word"] if verdict else "",
            }
        )
    return rows


def _cost_of_as_good(ratio: Mapping[str, Any]) -> str:
    point = "never" if ratio["point"] is None else f"{ratio['point']:.2f}"
    upper = "" if ratio["upper"] is None else f"{ratio['upper']:.2f}"
    return f"{point} [{ratio['lower']:.2f}, {upper}]"


def policies_table(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a row for each policy: what uniform sampling alone does under it, to the end and
    stopped at what the first policy's study costs (where more configurations may fit); empty with
    one policy."""
    if len(summary["policies"]) < 2:
        return []
    rows = []
    for row in summary["policies"]:
        verdict = row["against_first"]
        rows.append(
            {
                "policy": row["policy"],
                "cost_ratio_to_first": _bounds(verdict["cost"]) if verdict else "",
                "loss_to_first": _bounds(verdict["loss"], "+") if verdict else "",
                "gain_at_first_cost": _bounds(verdict["budget_gain"], "+") if verdict else "",
                "pick": f"{row['quality']:.2f}",
                "best_pruned": f"{100 * row['lost_best']:.0f} %",
                "tau_by_epoch": " ".join(f"{tau:.2f}" for tau in row["tau"]),
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
                "cost": f"{row['cost'] / summary['unit']:.1f}",
                "cost_ratio": _bounds(verdict["cost"]) if verdict else "1",
                "loss": _bounds(verdict["loss"], "+") if verdict else "0",
                "pick": f"{row['quality']:.2f}",
                "best_pruned": f"{100 * row['lost_best']:.0f} %",
                "verdict": verdict["word"] if verdict else "",
                **({"gain": _gain(row)} if summary["in_hand"] else {}),
            }
        )
    return rows


def _gain(row: Mapping[str, Any]) -> str:
    return _bounds(row["in_hand"]["gain"], "+") if row.get("in_hand") else ""


def _credit(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None or "credit" not in verdict:
        return ""
    return "importance" if verdict["credit"] else "no"


def _ratio(verdict: Mapping[str, Any] | None) -> str:
    ratio = verdict["supported_from"] if verdict else None
    return "" if ratio is None else f"{ratio:.2f}"


def _bounds(estimate: Mapping[str, Any], sign: str = "") -> str:
    point, lower, upper = (f"{estimate[key]:{sign}.2f}" for key in ("point", "lower", "upper"))
    return f"{point} [{lower}, {upper}]"


def facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the data and settings behind the report, as (name, value)."""
    protocol, about = summary["protocol"], summary["recordings"]
    return [
        ("data", summary["data"] or "as the study file names them"),
        ("data set", about["dataset"]),
        ("command", about["command"]),
        ("pruner", f"{call_of(summary['pruner'])}, which sees {summary['reported']}"),
        ("claim", summary["claim"]),
        ("configurations", f"{protocol['n_configurations']}, the same in all arms and blocks"),
        ("trials of a study", f"{protocol['n_trials']} of them"),
        ("blocks planned", str(protocol["n_blocks"])),
        ("orders per block", str(protocol["orders"])),
        ("policies", "; ".join(protocol["policies"])),
        ("hash of the protocol", about["digest"]),
        ("fixed before recording on", about["fixed"]),
        *(("recorded with", versions_of(entry)) for entry in about["environments"]),
    ]


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know before trusting the report."""
    about, protocol = summary["recordings"], summary["protocol"]
    sentences = []
    if about["digest"] != about["fixed_digest"]:
        sentences.append(
            "the study file was changed after recording had begun (protocol "
            f"{about['fixed_digest']} then, {about['digest']} now), so nothing here was fixed "
            "beforehand."
        )
    least = min((len(row["blocks"]) for row in summary["arms"]), default=0)
    if least < protocol["n_blocks"]:
        sentences.append(
            f"the recordings are incomplete: some arms have {least} of {protocol['n_blocks']} "
            "blocks."
        )
    return sentences
