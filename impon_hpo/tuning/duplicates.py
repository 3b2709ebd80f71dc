"""Duplicates: which pictures of a data set look alike, as groups that a study file takes."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from impon_hpo.files import csv_text, write_file
from impon_hpo.training.data import load_dataset
from impon_hpo.training.near_duplicates import twins
from impon_hpo.training.splits import split_data
from impon_hpo.tuning.space import with_settings
from impon_hpo.tuning.study_file import StudyFile

COLUMNS = ("file", "group", "split", "class")


def find_duplicates(study_file: StudyFile, *, n_shown: int = 20) -> dict[str, Any]:
    """Find the pictures that look alike in all splits of a study, write them as groups to
    `duplicates.csv` in its folder in `runs`, and return the facts as plain JSON values.

    Groups that are in several splits come first, then large ones.

    Args:
        study_file: The study.
        n_shown: How many pictures of the table are among the facts.

    Raises:
        ImponHpoError: The data or the settings are wrong, or the table cannot be written.
    """
    config = with_settings(study_file.run, {"subset": None, "batch_size": 2})  # nothing is trained
    data = load_dataset(config)
    splits = split_data(data, config, torch.device("cpu"))
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    begins = np.cumsum([0, *map(len, parts.values())])
    placed = list(zip(parts.values(), begins[:-1], strict=True))
    links = [np.zeros((2, 0), np.int64)]
    for (part, begin), (other, other_begin) in combinations_with_replacement(placed, 2):
        rows, same = twins(other.images, part.images, splits.train.images)
        links.append(np.stack([rows + other_begin, same + begin]))
    rows, same = np.concatenate(links, 1)
    n = int(begins[-1])
    graph = coo_array((np.ones(len(rows)), (rows, same)), shape=(n, n))
    _, group_of = connected_components(graph, directed=False)
    pictures = [
        (name, split, splits.class_names[label])
        for split, part in parts.items()
        for name, label in zip(part.names, part.labels.tolist(), strict=True)
    ]
    members: dict[int, list[tuple[str, str, str]]] = {}
    for picture, group in zip(pictures, group_of.tolist(), strict=True):
        members.setdefault(group, []).append(picture)
    groups = [group for group in members.values() if len(group) > 1]
    groups.sort(key=lambda group: (len({split for _, split, _ in group}) == 1, -len(group)))
    lines = [
        dict(zip(COLUMNS, (name, number, split, label), strict=True))
        for number, group in enumerate(groups, 1)
        for name, split, label in group
    ]
    table = study_file.runs / "duplicates.csv"
    write_file(table, csv_text(lines, COLUMNS))
    return {
        "study": study_file.name,
        "pictures": n,
        "alike": len(lines),
        "groups": len(groups),
        "across_splits": sum(len({split for _, split, _ in group}) > 1 for group in groups),
        "own_splits": data.validation_images is not None or data.test_images is not None,
        "several_classes": sum(len({label for _, _, label in group}) > 1 for group in groups),
        "csv": str(table),
        "shown": lines[:n_shown],
    }
