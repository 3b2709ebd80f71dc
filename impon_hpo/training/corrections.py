"""Corrections of a data set by hand: CSV files that give images another label or leave them out."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from impon_hpo.errors import ConfigError
from impon_hpo.files import expanded
from impon_hpo.lookup import suggestion
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.image_data import ImageData

log = logging.getLogger("impon_hpo")

IMAGES = "the images of training and validation"


def corrected(
    data: ImageData, config: TrainingConfig
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the labels (n,) of the images after `config.relabel`, and which of them (n,) are kept:
    first the training images, and behind them the validation images that the data set has.

    Left out are the images that `config.exclude` names, and those without a label in
    `config.relabel`.

    Raises:
        ConfigError: A file cannot be read, lacks a column, or has an image or a class that the data
            set does not have, or two labels for an image; or a class has no image left.
    """
    labels = data.labels
    if data.validation_labels is not None:
        labels = np.concatenate([labels, data.validation_labels])
    before, kept = labels, np.ones(len(labels), dtype=np.bool_)
    if config.relabel is None and config.exclude is None:
        return labels, kept
    row_of = {name: row for row, name in enumerate(data.names + data.validation_names)}
    class_of = {name: label for label, name in enumerate(data.class_names)}
    if config.relabel is not None:
        labels = labels.copy()
        given: dict[str, str] = {}
        for place, file, written in csv_rows(config.relabel, "label"):
            label = written if written in class_of else written.strip()
            row = find_name(row_of, file, f"{place} has the image", IMAGES)
            if given.setdefault(file, label) != label:
                raise ConfigError(
                    f"{place} gives '{file}' the label '{label}', but a line above gives it "
                    f"'{given[file]}'. Keep one of them."
                )
            kept[row] = label != ""
            if label:
                labels[row] = find_name(class_of, label, f"{place} has the class", "the data set")
    if config.exclude is not None:
        for place, file, _ in csv_rows(config.exclude):
            kept[find_name(row_of, file, f"{place} has the image", IMAGES)] = False
    training = slice(len(data.labels))
    sizes = np.bincount(labels[training][kept[training]], minlength=data.n_classes)
    if not sizes.all():
        empty = [name for name, size in zip(data.class_names, sizes, strict=True) if size == 0]
        raise ConfigError(
            f"After relabel and exclude, each class must have an image left, but {empty} have none."
        )
    log.info(
        "corrections: %d labels changed, %d images left out",
        int((labels != before).sum()),
        int((~kept).sum()),
    )
    return labels, kept


def csv_rows(path: str, column: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield for each row of a CSV file where it stands, its `file`, and what is in `column`."""
    columns = ["file", column] if column else ["file"]
    try:
        # Spreadsheets write a mark in front of UTF-8.
        with expanded(path).open(encoding="utf-8-sig", newline="") as opened:
            rows = csv.DictReader(opened)
            names = rows.fieldnames or []
            if not set(columns) <= set(names):
                raise ConfigError(
                    f"'{path}' must have the columns {' and '.join(columns)}, separated by commas, "
                    f"but its first line is '{','.join(names)}'."
                )
            for row in rows:
                place = f"'{path}', line {rows.line_num},"
                if row["file"] is None:
                    raise ConfigError(
                        f"{place} has no file: it has fewer values than the first line has columns."
                    )
                yield place, row["file"], (row[column] or "") if column else ""
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"'{path}' must be encoded as UTF-8. In a spreadsheet, save it as CSV UTF-8."
        ) from error
    except (OSError, csv.Error) as error:
        raise ConfigError(f"'{path}' cannot be read as a CSV file: {error}") from error


def find_name(known: dict[str, int], name: str, what: str, whole: str) -> int:
    """Return the number of a name, or raise `ConfigError`."""
    if name not in known:
        close = suggestion(name, known) if len(known) < 10_000 else ""  # it compares with every one
        raise ConfigError(f"{what} '{name}', which is not one of {whole}.{close}")
    return known[name]
