"""Image data before the split: shapes, types and labels that fit, and messages where not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from impon_hpo.errors import DataError
from impon_hpo.training.image_data import ImageData


def images(count: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.zeros((count, 4, 5, channels), dtype=np.uint8)


def labels(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def test_classes_are_counted_and_named_by_index() -> None:
    data = ImageData(images(9), labels(0, 1, 2, 0, 1, 2, 0, 1, 2))
    assert data.n_classes == 3
    assert data.class_names == ("0", "1", "2")


def test_names_that_are_given_are_kept() -> None:
    data = ImageData(images(6), labels(0, 0, 0, 1, 1, 1), class_names=("cat", "dog"))
    assert data.class_names == ("cat", "dog")
    assert data.n_classes == 2


def test_unsigned_and_narrow_labels_will_do() -> None:
    narrow: Any = np.array([0, 0, 0, 1, 1, 1], dtype=np.uint8)
    assert ImageData(images(6), narrow).n_classes == 2


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((6, 4, 5, 3), dtype=np.float32),
        np.zeros((6, 4, 5), dtype=np.uint8),
        [[0, 1], [1, 0]],
    ],
)
def test_images_of_another_type_or_shape_are_refused(wrong: Any) -> None:
    with pytest.raises(DataError, match=r"training images must be uint8 \(n, H, W, C\), but got"):
        ImageData(wrong, labels(0, 0, 0, 1, 1, 1))


@pytest.mark.parametrize(
    "wrong", [np.zeros(6), np.zeros((6, 1), dtype=np.int64), [0, 0, 0, 1, 1, 1]]
)
def test_labels_of_another_type_or_shape_are_refused(wrong: Any) -> None:
    with pytest.raises(DataError, match=r"training labels must be integers \(n,\), but got"):
        ImageData(images(6), wrong)


def test_as_many_labels_as_images_are_needed() -> None:
    with pytest.raises(DataError, match="but got 6 and 5"):
        ImageData(images(6), labels(0, 0, 0, 1, 1))


def test_no_image_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="but got 0 and 0"):
        ImageData(images(0), labels())


def test_negative_label_is_refused() -> None:
    with pytest.raises(DataError, match="must not be negative, but got -1"):
        ImageData(images(6), labels(0, 0, 0, 1, 1, -1))


def test_label_without_a_name_is_refused() -> None:
    with pytest.raises(DataError, match="Labels of training go up to 2, but there are 2 classes"):
        ImageData(images(6), labels(0, 0, 1, 1, 2, 2), class_names=("a", "b"))


def test_single_class_is_refused() -> None:
    with pytest.raises(DataError, match="at least 2 classes"):
        ImageData(images(6), labels(0, 0, 0, 0, 0, 0))


def test_class_of_two_images_is_too_small_where_a_test_split_is_taken_off() -> None:
    with pytest.raises(DataError, match=r"at least 3 images .* but class 'dog' has 2\."):
        ImageData(images(5), labels(0, 0, 0, 1, 1), class_names=("cat", "dog"))


def test_class_of_two_images_will_do_beside_a_test_split() -> None:
    data = ImageData(images(4), labels(0, 0, 1, 1), images(1), labels(1))
    assert data.n_classes == 2


def test_class_of_one_image_is_too_small() -> None:
    with pytest.raises(DataError, match=r"at least 2 images .* but class '1' has 1\."):
        ImageData(images(4), labels(0, 0, 0, 1), images(1), labels(1))


def test_name_without_any_image_is_refused() -> None:
    with pytest.raises(DataError, match="class 'c' has 0"):
        ImageData(images(6), labels(0, 0, 0, 1, 1, 1), class_names=("a", "b", "c"))


def test_test_images_without_labels_are_refused() -> None:
    with pytest.raises(DataError, match="given together, or neither"):
        ImageData(images(4), labels(0, 0, 1, 1), images(2))
    with pytest.raises(DataError, match="given together, or neither"):
        ImageData(images(4), labels(0, 0, 1, 1), None, labels(0, 1))


def test_test_images_are_checked_too() -> None:
    with pytest.raises(DataError, match="as many test images as labels"):
        ImageData(images(4), labels(0, 0, 1, 1), images(2), labels(0))


def test_class_that_only_the_test_split_has_is_refused() -> None:
    with pytest.raises(DataError, match="Labels of test go up to 2, but there are 2 classes"):
        ImageData(images(4), labels(0, 0, 1, 1), images(1), labels(2))


def test_test_images_with_other_channels_are_refused() -> None:
    with pytest.raises(DataError, match="same number of channels"):
        ImageData(images(4), labels(0, 0, 1, 1), images(1, channels=1), labels(0))


def test_names_are_the_row_numbers_or_those_given_each_once() -> None:
    assert ImageData(images(6), labels(0, 0, 0, 1, 1, 1)).names == ("0", "1", "2", "3", "4", "5")
    named = ImageData(images(6), labels(0, 0, 0, 1, 1, 1), names=tuple("abcdef"))
    assert named.names == tuple("abcdef")
    for wrong in ("abcde", "abcdea"):
        with pytest.raises(DataError, match="a name of its own"):
            ImageData(images(6), labels(0, 0, 0, 1, 1, 1), names=tuple(wrong))
