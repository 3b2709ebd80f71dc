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


@pytest.mark.parametrize("shape", [(6, 3, 32, 32), (6, 1, 8, 8), (6, 4, 20, 30), (6, 3, 224, 200)])
def test_channels_that_come_first_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"channels last, but .* Give images\.transpose"):
        ImageData(np.zeros(shape, dtype=np.uint8), labels(0, 0, 0, 1, 1, 1))


@pytest.mark.parametrize("shape", [(6, 32, 32, 13), (6, 4, 4, 13), (6, 3, 3, 4), (6, 1, 9, 2)])
def test_channels_that_come_last_will_do_whatever_their_number(shape: tuple[int, ...]) -> None:
    data = ImageData(np.zeros(shape, dtype=np.uint8), labels(0, 0, 0, 1, 1, 1))
    assert data.images.shape == shape


def test_images_without_pixels_are_refused() -> None:
    with pytest.raises(DataError, match="must have pixels"):
        ImageData(np.zeros((6, 0, 5, 3), dtype=np.uint8), labels(0, 0, 0, 1, 1, 1))


def test_huge_labels_and_gaps_are_refused_and_no_memory_is_asked_for() -> None:
    message = r"without a gap, but 2 different ones go up to 1000000000\. Give np\.unique"
    with pytest.raises(DataError, match=message):
        ImageData(images(6), labels(0, 0, 0, 10**9, 10**9, 10**9))
    with pytest.raises(DataError, match="without a gap, but 2 different ones go up to 2"):
        ImageData(images(6), labels(0, 0, 0, 2, 2, 2))
    huge: Any = np.array([0, 0, 0, 2**63, 2**63, 2**63], dtype=np.uint64)
    with pytest.raises(DataError, match=f"go up to {2**63}, but there are 2 classes"):
        ImageData(images(6), huge, class_names=("a", "b"))
    for kind in ("test", "validation"):
        given: Any = {f"{kind}_images": images(1), f"{kind}_labels": labels(10**9)}
        with pytest.raises(DataError, match=f"Labels of {kind} go up to 1000000000, but"):
            ImageData(images(6), labels(0, 0, 0, 1, 1, 1), **given)


def test_labels_become_int64() -> None:
    narrow: Any = np.array([0, 0, 0, 1, 1, 1], dtype=np.uint64)
    assert ImageData(images(6), narrow).labels.dtype == np.int64


@pytest.mark.parametrize(
    "names", [(1, 2), [1, 2], np.array([1, 2]), (np.int64(1), "2"), np.array(["1", "2"])]
)
def test_names_of_classes_become_text(names: Any) -> None:
    data = ImageData(images(6), labels(0, 0, 0, 1, 1, 1), class_names=names)
    assert data.class_names == ("1", "2")
    assert all(type(name) is str for name in data.class_names)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ((None, "b"), r"must be a tuple of text or integers, but got None \(NoneType\)"),
        (("a", b"b"), r"but got b'b' \(bytes\)"),
        ((0.5, 1.5), r"but got 0\.5 \(float\)"),
        ("ab", r"but got 'ab' \(str\)"),
        (("a", "a"), "'a' is the name of several"),
        ((1, "1"), "'1' is the name of several"),
        (("a", " "), "one of them is empty"),
    ],
)
def test_names_of_classes_that_are_none_are_refused(names: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        ImageData(images(6), labels(0, 0, 0, 1, 1, 1), class_names=names)


def test_names_are_kept_on_one_line_of_utf_8() -> None:
    odd = ("a\nb", "caf\udce9", "d\te", "é ü", "\u2028", "😀")
    data = ImageData(
        images(6), labels(0, 0, 0, 1, 1, 1), class_names=("two\nlines", "b"), names=odd
    )
    assert data.class_names == ("two\\nlines", "b")
    assert data.names == ("a\\nb", "caf\\udce9", "d\\te", "é ü", "\\u2028", "😀")


def with_validation(*of_validation: int, **given: Any) -> ImageData:
    return ImageData(
        images(6),
        labels(0, 0, 0, 1, 1, 1),
        validation_images=images(len(of_validation)),
        validation_labels=labels(*of_validation),
        **given,
    )


def test_validation_images_are_named_by_their_number_or_as_given() -> None:
    assert with_validation(0, 1).validation_names == ("validation/0", "validation/1")
    named = with_validation(0, 1, validation_names=("a.png", "b.png"))
    assert named.validation_names == ("a.png", "b.png")
    assert "validation_images=uint8 (2, 4, 5, 3), test_images=None" in repr(named)


def test_test_images_are_named_by_their_number_or_as_given_and_unlike_others() -> None:
    own: Any = {"test_images": images(2), "test_labels": labels(0, 1)}
    assert with_validation(0, **own).test_names == ("test/0", "test/1")
    assert with_validation(0, **own, test_names=("a", "b")).test_names == ("a", "b")
    for names in (("a",), ("a", "a"), ("a", "3"), ("a", "validation/0")):
        with pytest.raises(DataError, match="Each image must have a name of its own"):
            with_validation(0, **own, test_names=names)
    with pytest.raises(DataError, match="names of test images, but no such images"):
        with_validation(0, test_names=("a",))


def test_validation_images_are_checked_as_the_others_are() -> None:
    with pytest.raises(DataError, match="Validation images and validation labels must be given"):
        ImageData(images(6), labels(0, 0, 0, 1, 1, 1), validation_images=images(2))
    with pytest.raises(DataError, match="as many validation images as labels"):
        ImageData(
            images(6),
            labels(0, 0, 0, 1, 1, 1),
            validation_images=images(2),
            validation_labels=labels(0),
        )
    with pytest.raises(DataError, match="names of validation images, but no such images"):
        ImageData(images(6), labels(0, 0, 0, 1, 1, 1), validation_names=("a",))
    for names in (("a",), ("a", "a"), ("a", "3")):  # "3" is a training image
        with pytest.raises(DataError, match="name of its own"):
            with_validation(0, 1, validation_names=names)


def test_each_class_needs_an_image_for_each_split_that_is_drawn() -> None:
    own: Any = {"validation_images": images(1), "validation_labels": labels(0)}
    with_test: Any = {"test_images": images(1), "test_labels": labels(0)}
    assert ImageData(images(2), labels(0, 1), **own, **with_test).n_classes == 2
    with pytest.raises(DataError, match=r"at least 2 images for training and test, .* has 1\."):
        ImageData(images(3), labels(0, 0, 1), **own)
    with pytest.raises(DataError, match="at least 1 images for training, but class 'c' has 0"):
        ImageData(images(2), labels(0, 1), class_names=("a", "b", "c"), **own, **with_test)


def test_classes_that_a_split_of_the_users_lacks_are_told(said: list[str]) -> None:
    with_validation(1, 1, 1)
    assert said == [
        "The 3 images of validation have none of 1 of 2 classes, which it does not judge: '0'"
    ]
