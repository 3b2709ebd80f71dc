"""The report of a comparison: a page, Markdown, pictures, JSON and CSV, from its summary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from impon_hpo.console import finite
from impon_hpo.files import write_csv
from impon_hpo.reporting.comparison_charts import comparison_charts
from impon_hpo.reporting.comparison_curves import views
from impon_hpo.reporting.comparison_tables import (
    EXPLAINED,
    arms_table,
    facts,
    policies_table,
    pruners_table,
    warnings,
)
from impon_hpo.reporting.draw_png import write_png
from impon_hpo.reporting.page import markdown_table, page, write_text

POLICIES = "How much is due to the policy alone"
PRUNERS = "Under other pruners"


def write_report(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write `index.html` (one file that works without network), `report.md`, a PNG a chart,
    `summary.json`, `arms.csv` and `pruners.csv`, and return the page's path.

    Raises:
        StorageError: Something cannot be written.
    """
    charts = comparison_charts(summary)
    for chart in charts:
        write_png(folder / f"{chart.key}.png", chart)
    write_csv(folder / "arms.csv", arms_table(summary))
    write_csv(folder / "pruners.csv", pruners_table(summary))
    write_text(folder / "summary.json", json.dumps(finite(summary), indent=1) + "\n")
    write_text(folder / "report.md", markdown(summary))
    path = folder / "index.html"
    write_text(path, html(summary))
    return path


def html(summary: Mapping[str, Any]) -> str:
    """Return the page; whatever names or texts contain is escaped."""
    verdict = summary["verdict"]
    credit = [verdict["credit_sentence"]] if "credit_sentence" in verdict else []
    return page(
        title=f"{summary['study']}: does importance sampling pay?",
        lead=verdict["sentence"],
        word=verdict["word"],
        paragraphs=[*credit, summary["question"]],
        warnings=warnings(summary),
        tables=[
            ("The arms", arms_table(summary), EXPLAINED),
            (POLICIES, policies_table(summary), ""),
            (PRUNERS, pruners_table(summary), ""),
        ],
        charts=comparison_charts(summary),
        views=list(views(summary)),
        facts=facts(summary),
    )


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the report in Markdown, with the pictures beside it."""
    verdict = summary["verdict"]
    lines = [
        f"# {summary['study']}",
        "",
        f"**{verdict['sentence']}** {verdict.get('credit_sentence', '')}".rstrip(),
        "",
        str(summary["question"]),
        "",
        *(f"Mind: {warning}\n" for warning in warnings(summary)),
        *markdown_table(arms_table(summary)),
        "",
        EXPLAINED,
        "",
    ]
    for title, rows in (
        (POLICIES, policies_table(summary)),
        (PRUNERS, pruners_table(summary)),
    ):
        if rows:
            lines += [f"## {title}", "", *markdown_table(rows), ""]
    for chart in comparison_charts(summary):
        lines += [f"![{chart.title}]({chart.key}.png)", "", chart.note, ""]
    lines += ["## What it rests on", ""]
    lines += [f"- {what}: `{said}`" for what, said in facts(summary)]
    return "\n".join(lines) + "\n"
