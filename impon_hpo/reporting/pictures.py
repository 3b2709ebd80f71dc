"""Pictures of what came of a study: small PNG files for a README, drawn from what is stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.artifacts import get_all_artifact_meta

from impon_hpo.errors import StorageError
from impon_hpo.reporting.chart import Palette
from impon_hpo.reporting.comparison_charts import comparison_charts
from impon_hpo.reporting.draw_png import write_png
from impon_hpo.reporting.study_charts import study_charts
from impon_hpo.storage.connect import ArtifactStore
from impon_hpo.storage.trials import IMAGES, StudyRecord

COMPARED = ("accuracy-against-cost", "regret-against-cost", "pareto")
"""The charts of a comparison that show what it says; its report has the others."""
OF_ALL_ARMS = ("best-so-far", "early-and-final")


def trial_pictures(
    folder: Path,
    records: Sequence[StudyRecord],
    arms: Collection[str],
    palette: Palette,
    store: ArtifactStore,
) -> list[Path]:
    """Draw the dashboard's graphs, write beside them which images the best trial of each arm
    picked, and return the paths.

    Args:
        folder: Where they go.
        records: All arms; graphs that lay arms side by side have all of them.
        arms: Those whose own graphs and images are wanted.
        palette: Colours of the arms.
        store: Where the files of the trials lie.

    Raises:
        StorageError: A file cannot be written, or not be fetched.
    """
    written: dict[Path, None] = {}  # graphs of all arms come with every arm
    for record in records:
        arm = record.identity["arm"]
        if arm not in arms:
            continue
        for chart in study_charts(record, records, palette):
            name = chart.key if chart.key in OF_ALL_ARMS else f"{chart.key}-{arm}"
            path = folder / f"{name}.png"
            if path not in written:
                write_png(path, chart)
                written[path] = None
        images = _images(record, store)
        if images is not None:
            path = folder / f"which-images-{arm}.png"
            _write(path, images)
            written[path] = None
    return list(written)


def comparison_pictures(folder: Path, summary: Mapping[str, Any]) -> list[Path]:
    """Draw those charts of a comparison that show what it says, and return the paths.

    Raises:
        StorageError: A file cannot be written.
    """
    charts = {chart.key: chart for chart in comparison_charts(summary)}
    written = []
    for key in COMPARED:
        if key in charts:
            path = folder / f"{key}.png"
            write_png(path, charts[key])
            written.append(path)
    return written


def _images(record: StudyRecord, store: ArtifactStore) -> bytes | None:
    """Return the picture of which images an arm's best trial picked, if it left one."""
    best = record.best
    if best is None:
        return None
    study = record.optuna_study
    trial = study.get_trials(deepcopy=False)[best.number]
    for meta in get_all_artifact_meta(trial, storage=study._storage):
        if meta.filename == IMAGES:
            try:
                with store.open_reader(meta.artifact_id) as file:
                    return file.read()
            except Exception as error:  # every store has its own
                raise StorageError(
                    f"{IMAGES} of trial {best.number} cannot be fetched: {error}"
                ) from error
    return None


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise StorageError(f"'{path}' cannot be written: {error}") from error
