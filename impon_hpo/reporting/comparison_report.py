"""The report of a comparison: a page, Markdown, pictures, JSON and CSV, from its summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from impon_hpo.console import finite
from impon_hpo.csv_table import write_csv
from impon_hpo.errors import StorageError
from impon_hpo.reporting.comparison_charts import comparison_charts
from impon_hpo.reporting.comparison_tables import (
    EXPLAINED,
    arms_table,
    facts,
    policies_table,
    pruners_table,
    warnings,
)
from impon_hpo.reporting.draw_page import fragments
from impon_hpo.reporting.draw_png import write_png


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
    _write(folder / "summary.json", json.dumps(finite(summary), indent=1) + "\n")
    _write(folder / "report.md", markdown(summary))
    page = folder / "index.html"
    _write(page, html(summary))
    return page


def html(summary: Mapping[str, Any]) -> str:
    """Return the page; whatever names or texts contain is escaped."""
    from jinja2 import Environment

    charts = comparison_charts(summary)
    source = files("impon_hpo.reporting").joinpath("comparison.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True).from_string(source)
    return template.render(
        summary=summary,
        table=arms_table(summary),
        policies=policies_table(summary),
        pruners=pruners_table(summary),
        explained=EXPLAINED,
        charts=list(zip(charts, fragments(charts), strict=True)),
        facts=facts(summary),
        warnings=warnings(summary),
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
        *_table(arms_table(summary)),
        "",
        EXPLAINED,
        "",
    ]
    for title, rows in (
        ("How much is due to the policy alone", policies_table(summary)),
        ("Under other pruners", pruners_table(summary)),
    ):
        if rows:
            lines += [f"## {title}", "", *_table(rows), ""]
    for chart in comparison_charts(summary):
        lines += [f"![{chart.title}]({chart.key}.png)", "", chart.note, ""]
    lines += ["## What it rests on", ""]
    lines += [f"- {what}: `{said}`" for what, said in facts(summary)]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    if not rows:
        return []
    cells = [[name.replace("|", "\\|") for name in rows[0]]]
    cells += [[str(cell).replace("|", "\\|") for cell in row.values()] for row in rows]
    drawn = [f"| {' | '.join(row)} |" for row in cells]
    return [drawn[0], "|" + "---|" * len(rows[0]), *drawn[1:]]


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"'{path}' cannot be written: {error}") from error
