"""The commands that put arms side by side: `compare-samplers`."""

from __future__ import annotations

from typing import Annotated

import typer

from impon_hpo.commands.options import Format, Formatted, Set, Study, interrupted
from impon_hpo.console import loading, print_json, print_line, print_table, say


def compare_samplers(
    study: Study,
    arms: Annotated[
        list[str] | None, typer.Option("--arm", help="Only these arms; may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each configuration.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = 1,
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
        from impon_hpo.comparing.csv_file import write_epochs, write_rows
        from impon_hpo.comparing.curves import curves_of, table
        from impon_hpo.comparing.grid import cells, run_grid
        from impon_hpo.comparing.picture import write_picture
        from impon_hpo.tuning.study_file import read_study_file

    study_file = read_study_file(study, settings or [])
    chosen = [study_file.arm(arm) for arm in arms] if arms else list(study_file.arms)
    study_file.arm(control)
    if control not in chosen:
        chosen.insert(0, control)
    wanted = cells(study_file, chosen, seeds)
    folder = study_file.runs / "samplers"
    try:
        results = run_grid(wanted, folder, n_workers=workers, say=say)
    except KeyboardInterrupt:
        raise interrupted() from None
    curves = curves_of(results, chance=0.0)
    horizon = wanted[0].config.epochs
    rows = table(
        curves,
        control=control,
        epochs=[epoch for epoch in (1, 2, 3, 5, 9, 30) if epoch < horizon] + [horizon],
        targets=[epoch for epoch in (2, 4, 6) if epoch <= horizon],
    )
    write_epochs(folder / "epochs.csv", results)
    write_rows(folder / "table.csv", rows)
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
