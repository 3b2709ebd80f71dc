"""A page of a report: one HTML file that works without network, on paper, and in the dark."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from impon_hpo.reporting.chart import Chart
from impon_hpo.reporting.render import fragments

Table = tuple[str, Sequence[Mapping[str, Any]], str]
"""Heading, rows (by the headings of their columns) and a note on how to read them."""


def card_rows(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the lines of a comparison's card, as (title, text); the command is not among them.

    Args:
        card: `summary["card"]`.
    """
    titles = {
        "answer": "Answer",
        "what_to_do": "What to do",
        "how_sure": "How sure",
        "rests_on": "Rests on",
    }
    return [(title, card[key]) for key, title in titles.items()]


def card_lines(card: Mapping[str, Any]) -> list[str]:
    """Return the card in Markdown."""
    lines = []
    for title, text in card_rows(card):
        more = f" `{card['command']}`" if title == "What to do" else ""
        lines += [f"**{title}:** {text}{more}", ""]
    return lines


def page(
    *,
    title: str,
    lead: str = "",
    card: Mapping[str, Any] | None = None,
    paragraphs: Sequence[str] = (),
    warnings: Sequence[str] = (),
    tables: Sequence[Table] = (),
    charts: Sequence[Chart] = (),
    views: Sequence[str] = (),
    pictures: Sequence[tuple[str, bytes]] = (),
    facts: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the page; all text is escaped.

    Args:
        title: Title of the page.
        lead: The finding, in a sentence or two, where there is no card.
        card: The card that the page opens with.
        paragraphs: What follows it.
        warnings: What a reader must know before trusting the page.
        tables: Shown in their order, the first one before the charts.
        charts: Drawn by Plotly, whose whole source is in the page.
        views: Names of the views that a reader can choose from; the page opens with the first.
        pictures: PNG files with their titles, shown below the tables.
        facts: The data and settings behind the page, as (name, value).
    """
    from jinja2 import Environment

    source = files("impon_hpo.reporting").joinpath("page.html").read_text(encoding="utf-8")
    return (
        Environment(autoescape=True)
        .from_string(source)
        .render(
            title=title,
            lead=lead,
            card=card,
            card_rows=card_rows(card) if card else [],
            paragraphs=paragraphs,
            warnings=warnings,
            tables=[table for table in tables if table[1]],
            charts=list(zip(charts, fragments(charts), strict=True)),
            views=views,
            pictures=[(name, b64encode(content).decode()) for name, content in pictures],
            facts=facts,
        )
    )


def markdown_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    if not rows:
        return []
    cells = [[name.replace("|", "\\|") for name in rows[0]]]
    cells += [[str(cell).replace("|", "\\|") for cell in row.values()] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def versions_of(environment: Mapping[str, Any]) -> str:
    """Return versions and hardware as one line."""
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    device = environment.get("gpu") or environment["cpu"]
    return f"{versions}; {device}; threads: {environment['threads']}"


def call_of(table: Mapping[str, Any]) -> str:
    """Return a table of a study file, such as `[pruner]`, as the call that it stands for."""
    arguments = ", ".join(f"{key}={value!r}" for key, value in table.items() if key != "name")
    return f"{table['name']}({arguments})"
