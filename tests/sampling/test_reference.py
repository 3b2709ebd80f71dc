"""The reference: shapes that agree, finite numbers only, and its way to another device."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.reference import Reference
from tests.sampling.courses import DEVICES


def reference(*, epochs: int | None = 2) -> Reference:
    """Four rows of three classes."""
    trajectory = None if epochs is None else torch.arange(4.0 * epochs).reshape(epochs, 4)
    return Reference(torch.arange(4.0), torch.full((4, 3), 1 / 3), trajectory)


def test_reference_is_as_long_as_its_losses() -> None:
    assert len(reference()) == 4
    assert len(reference(epochs=None)) == 4
    assert len(reference(epochs=1)) == 4


@pytest.mark.parametrize(
    ("loss", "probabilities", "trajectory"),
    [
        ((4,), (5, 3), None),
        ((4,), (3, 3), (2, 4)),
        ((4,), (4,), None),
        ((4,), (4, 3, 1), None),
        ((4, 1), (4, 3), None),
        ((4,), (4, 3), (4,)),
        ((4,), (4, 3), (4, 2)),
        ((4,), (4, 3), (2, 5)),
        ((4,), (4, 3), (2, 4, 1)),
    ],
)
def test_shapes_that_do_not_agree_are_refused(
    loss: tuple[int, ...], probabilities: tuple[int, ...], trajectory: tuple[int, ...] | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        Reference(
            torch.zeros(loss),
            torch.zeros(probabilities),
            None if trajectory is None else torch.zeros(trajectory),
        )
    assert str(caught.value).endswith(f"but got {loss}, {probabilities} and {trajectory}.")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["loss", "probabilities", "trajectory"])
def test_number_that_is_not_finite_is_refused(field: str, bad: float) -> None:
    values = getattr(reference(), field).clone()
    values.flatten()[-1] = bad
    with pytest.raises(ConfigError, match=f"finite numbers, but its {field} does not"):
        dataclasses.replace(reference(), **{field: values})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("epochs", [None, 2])
def test_reference_is_the_same_on_another_device(device: str, epochs: int | None) -> None:
    moved = reference(epochs=epochs).to(torch.device(device))
    assert moved.loss.device.type == moved.probabilities.device.type == device
    assert moved.loss.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert torch.equal(moved.probabilities.cpu(), torch.full((4, 3), 1 / 3))
    if epochs is None:
        assert moved.trajectory is None
    else:
        assert moved.trajectory is not None
        assert moved.trajectory.device.type == device
        assert moved.trajectory.tolist() == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]


def test_reference_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        reference().loss = torch.zeros(4)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("loss", "trajectory", "complaint"),
    [
        (torch.tensor(1.0), None, "has loss"),
        (torch.tensor([1.0, -0.5]), None, "at least 0, but one is -0.5"),
        (torch.ones(2), torch.zeros(0, 2), "has loss"),
    ],
)
def test_what_is_no_reference_is_refused(
    loss: torch.Tensor, trajectory: torch.Tensor | None, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Reference(loss, torch.full((2, 3), 1 / 3), trajectory)
