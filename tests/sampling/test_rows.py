"""Rows: what they refuse, and how they are read."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.rows import Rows, as_float
from tests.sampling.courses import image_rows


def labels(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def test_rows_are_as_many_as_labels_and_lie_where_they_lie() -> None:
    rows = Rows(torch.zeros(3, 2), labels(0, 1, 0), 2)
    assert len(rows) == 3
    assert rows.device == torch.device("cpu")


def test_inputs_are_read_as_unscaled_floats_by_default() -> None:
    inputs = torch.tensor([[7, 255], [1, 0], [3, 4]], dtype=torch.uint8)
    read = Rows(inputs, labels(0, 1, 0), 2).read(torch.tensor([2, 0, 2]))
    assert read.dtype == torch.float32
    assert read.tolist() == [[3.0, 4.0], [7.0, 255.0], [3.0, 4.0]]
    assert as_float(inputs).tolist() == inputs.tolist()


def test_inputs_are_prepared_after_they_are_picked() -> None:
    shapes = []

    def prepare(picked: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(picked.shape))
        return picked.float() * 10

    rows = Rows(torch.arange(5)[:, None], labels(0, 1, 0, 1, 0), 2, prepare)
    assert rows.read(torch.tensor([4, 1])).tolist() == [[40.0], [10.0]]
    assert shapes == [(2, 1)]


@pytest.mark.parametrize(("n_inputs", "n_labels"), [(3, 2), (2, 3), (0, 0), (0, 1)])
def test_unequal_or_no_rows_are_refused(n_inputs: int, n_labels: int) -> None:
    with pytest.raises(ConfigError, match=rf"\({n_inputs}, 4\) and \({n_labels},\)"):
        Rows(torch.zeros(n_inputs, 4), torch.zeros(n_labels, dtype=torch.int64), 2)


def test_labels_of_two_dimensions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(3, 1\)"):
        Rows(torch.zeros(3, 1), torch.zeros(3, 1, dtype=torch.int64), 2)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.uint8])
def test_labels_of_another_type_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ConfigError, match=str(dtype)):
        Rows(torch.zeros(3, 1), torch.zeros(3, dtype=dtype), 2)


def test_rows_cannot_be_changed() -> None:
    rows = Rows(torch.zeros(3, 2), labels(0, 1, 0), 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        rows.n_classes = 3  # type: ignore[misc]


def test_reference_of_other_data_is_refused() -> None:
    rows, fewer = image_rows(6), image_rows(5)
    with pytest.raises(ConfigError, match=r"5 rows and 3 classes.* 6 rows and 3 classes"):
        dataclasses.replace(rows, reference=fewer.reference)
    with pytest.raises(ConfigError, match=r"6 rows and 2 classes.* 6 rows and 3 classes"):
        dataclasses.replace(rows, reference=image_rows(6, n_classes=2).reference)


def test_short_texts_show_shapes_and_no_values() -> None:
    rows = dataclasses.replace(image_rows(6), reference=None)
    shown = "inputs=uint8 (6, 4, 4, 1), labels=int64 (6,), n_classes=3, device=cpu"
    assert repr(rows) == f"Rows({shown})"
    reference = image_rows(6).reference
    shown_reference = (
        "Reference(loss=float32 (6,), probabilities=float32 (6, 3), trajectory=float32 (4, 6))"
    )
    assert repr(reference) == shown_reference
    assert repr(image_rows(6)) == f"Rows({shown}, reference={shown_reference})"
