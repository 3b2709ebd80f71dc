"""The commands `labels` and `duplicates`: which images look mislabelled or alike, as tables that a
person edits and a study file takes."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import typer

from impon_hpo.cli.options import (
    Format,
    Formatted,
    Set,
    Storage,
    Study,
    interrupted,
    quiet_optuna,
    read_study,
)
from impon_hpo.console import loading, print_json, print_line, print_table
from impon_hpo.environment import keep_freed_memory
from impon_hpo.errors import NothingYetError, describing


def labels(
    study: Study,
    storage: Storage = None,
    settings: Set = None,
    every: Annotated[
        bool, typer.Option("--all", help="List every row, not only those that look wrong.")
    ] = False,
    rows: Annotated[int, typer.Option(min=0, help="Rows that are printed, worst first.")] = 20,
    format: Formatted = Format.table,
) -> None:
    r"""Which labels of the training and validation images look wrong? A CSV file, worst first.

    Uses what the study's first trial saw of each row where an arm with a memory has kept it, and
    else trains one uniform run of the middle configuration. Edit the column label of the file, move
    it beside study.toml, and give it back with relabel = "labels.csv" in \[run].
    """
    with loading():
        from impon_hpo.comparing.grid import configurations
        from impon_hpo.tuning.space import with_settings
        from impon_hpo.tuning.wrong_labels import find_wrong_labels

        quiet_optuna()
    keep_freed_memory()
    study_file = read_study(study, settings)
    (middle,) = configurations(study_file, 1)
    config = with_settings(study_file.run, middle)
    try:
        facts = find_wrong_labels(study_file, config, every=every, n_shown=rows)
    except KeyboardInterrupt as error:
        raise interrupted(error) from None
    if format is Format.json:
        print_json(facts)
    else:
        _print(study_file.name, facts)
    _attach(study_file.name, storage or study_file.storage, study_file.artifacts, facts)


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
        if facts["own_splits"] and facts["across_splits"]:
            print_line(
                "the data set has splits of its own, which groups do not change: leave out one of "
                'each pair, listed in a CSV file with the column file: exclude = "left-out.csv"'
            )
        else:
            print_line(
                "to keep each group in one split: move it beside study.toml, and set groups = "
                '"duplicates.csv" in [run]'
            )


def _print(study: str, facts: dict[str, Any]) -> None:
    shown = [
        {key: "cannot be told" if row[key] is None else row[key] for key in row if key != "label"}
        for row in facts["worst"]
    ]
    print_table(f"{study}: labels that look wrong", shown)
    print_line(facts["sentence"])
    if facts["listed"]:
        print_line(f"table: {facts['csv']}, picture: {facts['picture']}")
        print_line(
            "to correct them: edit its column label (no label: left out), move it beside "
            'study.toml, and set relabel = "labels.csv" in [run]'
        )


def _attach(study: str, address: str, artifacts: str, facts: dict[str, Any]) -> None:
    """Leave the finding with the arms that the storage holds, for the dashboard."""
    from impon_hpo.storage.connect import READER_SECONDS, artifact_store, open_storage
    from impon_hpo.storage.trials import read_studies
    from impon_hpo.tuning.wrong_labels import attach

    with suppress(NothingYetError):
        opened = open_storage(address, create=False, patience=READER_SECONDS)
        records = read_studies(opened, study)
        for record in records:
            what = f"The finding could not be left with arm '{record.identity['arm']}'"
            with describing(what, "What is printed here stands."):
                attach(record.optuna_study, facts, artifact_store(artifacts))
