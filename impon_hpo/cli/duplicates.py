"""The command `duplicates`: which pictures look alike, as groups that a study file takes."""

from __future__ import annotations

from typing import Annotated

import typer

from impon_hpo.cli.options import Format, Formatted, Set, Study, quiet_optuna, read_study
from impon_hpo.console import loading, print_json, print_line, print_table
from impon_hpo.environment import keep_freed_memory


def duplicates(
    study: Study,
    settings: Set = None,
    rows: Annotated[int, typer.Option(min=0, help="Pictures that are printed.")] = 20,
    format: Formatted = Format.table,
) -> None:
    r"""Which pictures look alike: copies, crops, bursts? A CSV file of them in groups.

    Those in several splits come first. Move the file beside study.toml, and keep each group in one
    split with groups = "duplicates.csv" in \[run].
    """
    with loading():
        from impon_hpo.tuning.duplicates import find_duplicates

        quiet_optuna()
    keep_freed_memory()
    facts = find_duplicates(read_study(study, settings), n_shown=rows)
    if format is Format.json:
        print_json(facts)
        return
    print_table(f"{facts['study']}: pictures that look alike", facts["shown"])
    print_line(
        f"{facts['alike']:,} of {facts['pictures']:,} pictures look like another, in "
        f"{facts['groups']:,} groups; {facts['across_splits']:,} groups are in several splits, "
        f"{facts['several_classes']:,} have pictures of several classes."
    )
    if facts["alike"]:
        print_line(f"table: {facts['csv']}")
        print_line(
            "to keep each group in one split: move it beside study.toml, and set groups = "
            '"duplicates.csv" in [run]'
        )
