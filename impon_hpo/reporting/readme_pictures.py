"""Small PNG files for a README: the charts of a study and the images that its trials picked."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.artifacts import get_all_artifact_meta

from impon_hpo.errors import StorageError
from impon_hpo.files import write_file
from impon_hpo.reporting.chart import Palette
from impon_hpo.reporting.comparison_charts import comparison_charts
from impon_hpo.reporting.render import png
from impon_hpo.reporting.study_charts import class_picks, study_charts
from impon_hpo.storage.connect import ArtifactStore
from impon_hpo.storage.trials import CLASS_PICKS, IMAGES, StudyRecord

COMPARED = ("in-hand", "accuracy-against-cost", "regret-against-cost", "pareto")
"""The charts that show the finding of a comparison; its report has the others."""
OF_ALL_ARMS = ("best-so-far", "early-and-final")


def trial_pictures(
    folder: Path,
    records: Sequence[StudyRecord],
    arms: Collection[str],
    palette: Palette,
    store: ArtifactStore,
) -> list[Path]:
    """Draw the dashboard's graphs and what the best trial of each arm picked, and return the paths.

    Args:
        folder: Folder of the PNG files.
        records: All arms; the graphs that lay arms side by side show all of them.
        arms: The arms whose own graphs and picks are drawn.
        palette: Colours of the arms.
        store: The artifacts of the trials.

    Raises:
        StorageError: A file cannot be written, or an artifact cannot be read.
    """
    contents: dict[Path, bytes] = {}  # graphs of all arms come with every arm
    for record in records:
        arm = record.identity["arm"]
        if arm not in arms:
            continue
        for chart in study_charts(record, records, palette):
            name = chart.key if chart.key in OF_ALL_ARMS else f"{chart.key}-{arm}"
            path = folder / f"{name}.png"
            if path not in contents:
                contents[path] = png(chart)
        files = _files_of_best(record, store)
        if CLASS_PICKS in files:
            rows = list(csv.DictReader(io.StringIO(files[CLASS_PICKS].decode(), newline="")))
            chart = class_picks(f"Picks by class, best trial of arm {arm}", rows)
            contents[folder / f"{chart.key}-{arm}.png"] = png(chart)
        if IMAGES in files:
            contents[folder / f"which-images-{arm}.png"] = files[IMAGES]
    for path, content in contents.items():
        write_file(path, content)
    return list(contents)


def comparison_pictures(folder: Path, summary: Mapping[str, Any]) -> list[Path]:
    """Draw the charts that show the finding of a comparison, and return the paths.

    Raises:
        StorageError: A file cannot be written.
    """
    charts = {chart.key: chart for chart in comparison_charts(summary)}
    paths = []
    for key in COMPARED:
        if key in charts:
            path = folder / f"{key}.png"
            write_file(path, png(charts[key]))
            paths.append(path)
    return paths


def _files_of_best(record: StudyRecord, store: ArtifactStore) -> dict[str, bytes]:
    """Return what an arm's best trial attached on its picks, by the name of the file."""
    best = record.best
    if best is None:
        return {}
    study = record.optuna_study
    trial = study.get_trials(deepcopy=False)[best.number]
    files = {}
    for meta in get_all_artifact_meta(trial, storage=study._storage):
        if meta.filename in (IMAGES, CLASS_PICKS):
            try:
                with store.open_reader(meta.artifact_id) as file:
                    files[meta.filename] = file.read()
            except Exception as error:  # each store raises errors of its own
                raise StorageError(
                    f"{meta.filename} of trial {best.number} cannot be read: {error}"
                ) from error
    return files
