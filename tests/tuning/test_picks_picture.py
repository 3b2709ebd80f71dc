"""Tests of the picture of what was picked: which rows it shows, and that any data fit into it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from impon_hpo.tuning.picks_picture import (
    SHOWN,
    TILE,
    Picks,
    picked_least,
    picked_most,
    picks_picture,
)


def picks_of(
    visits: NDArray[np.int32], n_classes: int = 4, size: int = 8, channels: int = 3
) -> Picks:
    labels = np.arange(len(visits)) % n_classes
    images = np.full((len(visits), size, size, channels), 200, dtype=np.uint8)
    return Picks(
        visits=visits,
        labels=labels,
        class_names=[f"class {label}" for label in range(n_classes)],
        class_picks=[np.bincount(labels, visits, n_classes).astype(int).tolist()],
        read=lambda rows: images[rows],
    )


def test_those_picked_most_come_first_and_only_if_they_were_picked() -> None:
    visits = np.array([0, 3, 1, 3, 9, 0], dtype=np.int32)
    assert picked_most(visits).tolist() == [4, 1, 3, 2]
    assert len(picked_most(np.ones(100, dtype=np.int32))) == SHOWN


def test_those_never_picked_come_from_all_over_the_data() -> None:
    visits = np.zeros(1000, dtype=np.int32)
    visits[500] = 1
    least = picked_least(visits)
    assert len(least) == SHOWN
    assert least[0] == 0
    assert least[-1] == 999
    assert (visits[least] == 0).all()
    assert picked_least(np.array([2, 1, 3], dtype=np.int32)).tolist() == [1, 0, 2]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 8, 300])
def test_images_of_any_shape_are_drawn(channels: int, size: int) -> None:
    visits = np.array([5, 0, 2], dtype=np.int32)
    picture = picks_picture("any", picks_of(visits, size=size, channels=channels)).convert("RGB")
    first = picture.getpixel((14 + TILE // 2, 58 + TILE // 2))  # in the middle of the first image
    assert first == (200, 200, 200)


def test_many_classes_and_epochs_stay_on_one_page() -> None:
    visits = np.arange(5000, dtype=np.int32) % 7
    picks = picks_of(visits, n_classes=1000)
    epochs = [picks.class_picks[0]] * 200
    long = Picks(picks.visits, picks.labels, picks.class_names, epochs, picks.read)
    assert picks_picture("many", long).height < 1200


def test_run_that_has_picked_everything_or_nothing_is_drawn() -> None:
    for visits in (np.ones(3, dtype=np.int32), np.zeros(3, dtype=np.int32)):
        assert picks_picture("some", picks_of(visits)).height > TILE
