"""The commands that put arms side by side: `plan`, `compare`, `report`, `compare-samplers`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impon_hpo.commands.options import Format, Formatted, Set, Study, interrupted, quiet_optuna
from impon_hpo.console import loading, print_json, print_line, print_rows, print_table, say

if TYPE_CHECKING:
    from impon_hpo.comparing.recordings import Recordings
    from impon_hpo.tuning.study_file import StudyFile

Workers = Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")]


def compare(
    study: Study,
    arms: Annotated[
        list[str] | None,
        typer.Option("--arm", help='Record only these, such as "memory@1/3"; may be repeated.'),
    ] = None,
    workers: Workers = 1,
    settings: Set = None,
    format: Formatted = Format.table,
) -> None:
    """Does importance sampling pay here? Record every arm, replay pruners, judge, and report.

    Every configuration is trained to its end in every arm and block, once. The same command again
    continues; started a second time beside the first, it takes its share of the runs.
    """
    with loading():
        from impon_hpo.comparing.record_study import record
        from impon_hpo.tuning.study_file import read_study_file

        quiet_optuna()
    study_file = read_study_file(study, settings or [])
    command = shlex.join(["impon-hpo", *sys.argv[1:]])
    try:
        recordings = record(study_file, only=arms, n_workers=workers, command=command, say=say)
    except KeyboardInterrupt as error:
        raise interrupted(error) from None
    _report(study_file, recordings, format)


def plan(
    study: Study,
    settings: Set = None,
    format: Formatted = Format.table,
) -> None:
    """What `compare` would record: runs, epochs, cost, time, and what cannot come out of it."""
    with loading():
        from impon_hpo.comparing.plan import plan_comparison
        from impon_hpo.tuning.plan import plan_rows
        from impon_hpo.tuning.study_file import read_study_file

        quiet_optuna()
    study_file = read_study_file(study, settings or [])
    facts = plan_comparison(study_file)
    if format is Format.json:
        print_json(facts)
    else:
        print_rows(f"{study_file.name}: nothing is run", plan_rows(facts))


def report(
    study: Study,
    recordings: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of a recordings.csv.xz; default: this machine's, else the study's own.",
        ),
    ] = None,
    settings: Set = None,
    format: Formatted = Format.table,
) -> None:
    """Make the report of a comparison again from what is recorded, without training."""
    with loading():
        from impon_hpo.comparing.record_study import gather
        from impon_hpo.tuning.study_file import read_study_file

        quiet_optuna()
    study_file = read_study_file(study, settings or [])
    _report(study_file, gather(study_file, recordings), format)


def _report(study_file: StudyFile, recordings: Recordings, format: Format) -> None:
    from impon_hpo.comparing.summary import summarise_comparison
    from impon_hpo.reporting.comparison_report import write_report
    from impon_hpo.reporting.comparison_tables import arms_table, warnings

    summary = summarise_comparison(study_file, recordings)
    page = write_report(study_file.runs / "report", summary)
    if format is Format.json:
        print_json(summary)
        return
    rows: list[dict[str, Any]] = [*arms_table(summary)]
    print_table(study_file.name, [{key: row[key] for key in SHOWN} for row in rows])
    for warning in warnings(summary):
        say(f"Mind: {warning}")
    print_line(summary["verdict"]["sentence"])
    if "credit_sentence" in summary["verdict"]:
        print_line(summary["verdict"]["credit_sentence"])
    print_line(f"report: {page}")


SHOWN = [
    "arm",
    "blocks",
    "cost ratio",
    "loss (points)",
    "gain at the budget",
    "best pruned",
    "verdict",
    "credit",
]


def compare_samplers(
    study: Study,
    arms: Annotated[
        list[str] | None, typer.Option("--arm", help="Only these arms; may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each configuration.")] = 3,
    workers: Workers = 1,
    control: Annotated[str, typer.Option(help="The arm that the others are held against.")] = (
        "uniform"
    ),
    settings: Set = None,
    format: Formatted = Format.table,
) -> None:
    """Train every arm on every configuration of a grid, without pruning, and compare the curves.

    The study's space must be a grid (categorical settings only). The same command again continues.
    """
    with loading():
        from impon_hpo.comparing.curves import curves_of, table
        from impon_hpo.comparing.epochs_file import write_epochs
        from impon_hpo.comparing.grid import cells, run_grid
        from impon_hpo.comparing.picture import write_picture
        from impon_hpo.csv_table import write_csv
        from impon_hpo.tuning.study_file import read_study_file

        quiet_optuna()
    study_file = read_study_file(study, settings or [])
    chosen = [study_file.arm(arm) for arm in arms] if arms else list(study_file.arms)
    study_file.arm(control)
    if control not in chosen:
        chosen.insert(0, control)
    wanted = cells(study_file, chosen, seeds)
    folder = study_file.runs / "samplers"
    try:
        results = run_grid(wanted, folder, n_workers=workers, say=say)
    except KeyboardInterrupt as error:
        raise interrupted(error) from None
    curves = curves_of(results, chance=0.0)
    horizon = wanted[0].config.epochs
    rows = table(
        curves,
        control=control,
        epochs=[epoch for epoch in (1, 2, 3, 5, 9, 30) if epoch < horizon] + [horizon],
        targets=[epoch for epoch in (2, 4, 6) if epoch <= horizon],
    )
    write_epochs(folder / "epochs.csv", results)
    write_csv(folder / "table.csv", rows)
    write_picture(
        folder / "accuracy-against-cost.html", curves, control=control, title=study_file.name
    )
    if format is Format.json:
        print_json(rows)
        return
    print_table(f"{study_file.name}: {len(wanted)} runs", rows)
    print_line(f"this table: {folder / 'table.csv'}")
    print_line(f"every epoch: {folder / 'epochs.csv'}")
    print_line(f"picture: {folder / 'accuracy-against-cost.html'}")
