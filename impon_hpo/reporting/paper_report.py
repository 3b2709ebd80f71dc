"""The paper's figures as a page, pictures and Markdown, from their summary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from impon_hpo.console import finite
from impon_hpo.csv_table import write_csv
from impon_hpo.reporting.chart import CONTROL, DASHES, KNOWN, OTHERS, Chart, Series
from impon_hpo.reporting.draw_png import write_png
from impon_hpo.reporting.page import markdown_table, page, versions_of, write_text

COLOURS = (CONTROL, *OTHERS, *list(KNOWN.values())[1:])


def write_paper_report(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write the page, `report.md`, a PNG a figure, `summary.json` and `arms.csv`; return the
    page's path.

    Raises:
        StorageError: Something cannot be written.
    """
    charts = paper_charts(summary)
    for chart in charts:
        write_png(folder / f"{chart.key}.png", chart)
    rows = arms_table(summary)
    write_csv(folder / "arms.csv", rows)
    write_text(folder / "summary.json", json.dumps(finite(summary), indent=1) + "\n")
    lead = _lead(summary)
    facts = _facts(summary)
    text = [f"# {summary['study']}: {summary['dataset']}", "", lead, "", *markdown_table(rows), ""]
    for chart in charts:
        text += [f"![{chart.title}]({chart.key}.png)", ""]
    text += [f"- {what}: `{said}`" for what, said in facts]
    write_text(folder / "report.md", "\n".join(text) + "\n")
    made = page(
        title=f"{summary['study']}: {summary['dataset']}",
        lead=lead,
        paragraphs=[summary["question"]],
        tables=[("The arms at each learning rate", rows, EXPLAINED)],
        charts=charts,
        facts=facts,
    )
    path = folder / "index.html"
    write_text(path, made)
    return path


EXPLAINED = (
    "Last validation accuracy in points, mean over seeds and their range; the learning rate that "
    "the paper gives the arm is marked *."
)


def paper_charts(summary: Mapping[str, Any]) -> list[Chart]:
    """Return figures 2, 3 and 4, each in both views."""
    charts = []
    for number, view in enumerate(summary["views"], start=1):
        where = f"{summary['dataset']}, {view['title']}"
        charts.append(
            Chart(
                key=f"figure-2-accuracy-{number}",
                title=f"Figure 2: validation accuracy ({where})",
                x="epoch",
                y="validation accuracy (points)",
                series=_lines(view, "epoch", "accuracy"),
                note="Lines: mean over seeds; bands: their range.",
            )
        )
        charts.append(
            Chart(
                key=f"figure-3-loss-{number}",
                title=f"Figure 3: training loss ({where})",
                x="iteration",
                y="training loss of the rows picked",
                series=_lines(view, "iteration", "loss"),
                note="Of the rows that each sampler picked, so not of the same rows.",
            )
        )
        banks = view["banks"]
        if len(banks) > 1:
            charts.append(
                Chart(
                    key=f"figure-4-bank-{number}",
                    title=f"Figure 4: bank size ({where})",
                    x="bank size (rows)",
                    y="last validation accuracy (points)",
                    series=[
                        Series(
                            "impon",
                            [bank["bank_size"] for bank in banks],
                            [bank["mean"] for bank in banks],
                            [bank["low"] for bank in banks],
                            [bank["high"] for bank in banks],
                            colour=OTHERS[0],
                        )
                    ],
                    x_log=True,
                )
            )
    return charts


def _lines(view: Mapping[str, Any], x: str, y: str) -> list[Series]:
    return [
        Series(
            f"{line['arm']}, lr {line['lr']:g}",
            line[x],
            line[y]["mean"],
            line[y]["low"],
            line[y]["high"],
            colour=COLOURS[at % len(COLOURS)],
            dash=DASHES[at // len(COLOURS) % len(DASHES)],
        )
        for at, line in enumerate(view["lines"])
        if line[x]
    ]


def arms_table(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a row an arm: last accuracy at each learning rate."""
    papers = {line["arm"]: line["lr"] for line in summary["views"][0]["lines"]}
    rates = sorted({float(rate) for found in summary["learning_rates"].values() for rate in found})
    rows = []
    for arm, found in summary["learning_rates"].items():
        row = {"arm": arm}
        for rate in rates:
            runs = found.get(str(rate))
            mark = " *" if papers.get(arm) == rate else ""
            row[f"lr {rate:g}"] = (
                f"{sum(runs) / len(runs):.2f} [{min(runs):.2f}, {max(runs):.2f}]{mark}"
                if runs
                else ""
            )
        rows.append(row)
    return rows


def _lead(summary: Mapping[str, Any]) -> str:
    said = []
    for view in summary["views"]:
        ranked = sorted(view["lines"], key=lambda line: -line["last"]["mean"])
        best = "; ".join(
            f"{line['arm']} {line['last']['mean']:.1f} (lr {line['lr']:g})" for line in ranked
        )
        said.append(f"{view['title'].capitalize()}, last validation accuracy in points: {best}.")
    return " ".join(said)


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    run = summary["run"]
    settings = ", ".join(
        f"{key} {run[key]}"
        for key in ("model", "width", "epochs", "batch_size", "subset", "image_size", "schedule")
    )
    return [
        ("data set", summary["dataset"]),
        ("data", summary["data"] or "as the study file names them"),
        ("settings", settings),
        ("seeds", str(summary["seeds"])),
        *(("made with", versions_of(entry)) for entry in summary["environments"]),
    ]
