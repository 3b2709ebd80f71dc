"""Tests of the picture of diagnostics: a panel each, with whatever numbers there are."""

from __future__ import annotations

import numpy as np
import pytest

from impon_hpo.tuning.diagnostics_picture import HEAD, HEIGHT, diagnostics_picture


@pytest.mark.parametrize(
    ("epochs", "lines"),
    [
        ([{"a": 0.5}], 1),
        ([{"a": 0.5}, {"a": 0.5}], 1),
        ([{"a": 0.1, "b": 1e9, "c": -1e-9}, {"a": 0.2, "b": 3.0, "c": 0.0}], 2),
        ([{"a": 0.1}, {"a": 0.3, "late": 0.2}, {"a": 0.2}], 1),
    ],
    ids=["one", "flat", "three", "gaps"],
)
def test_every_diagnostic_has_its_panel(epochs: list[dict[str, float]], lines: int) -> None:
    picture = diagnostics_picture("trial 0", epochs)
    assert picture.height == HEAD + HEIGHT * lines


def test_curve_is_drawn() -> None:
    pixels = np.asarray(diagnostics_picture("", [{"a": 0.0}, {"a": 1.0}]).convert("RGB"), dtype=int)
    assert (pixels[..., 2] > pixels[..., 0] + 60).sum() > 100
