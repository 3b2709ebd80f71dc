"""The context vector: features of rows by name or by a function, and the norm of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor, nn

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.features import (
    SMALL,
    WeightNorm,
    make_features,
    pca_features,
    pooled_features,
)
from impon_hpo.sampling.rows import Rows
from tests.sampling.courses import flat_rows, image_rows

SOME = torch.tensor([3, 0, 11, 3])


def row_means(inputs: Tensor) -> Tensor:
    """A user's function: the mean and the maximum of a row, as float64."""
    flat = inputs.flatten(1).double()
    return torch.stack([flat.mean(1), flat.amax(1)], dim=1)


def returns_a_list(inputs: Tensor) -> list[float]:
    return inputs.flatten().tolist()


def returns_a_vector(inputs: Tensor) -> Tensor:
    return inputs.flatten(1).sum(1)


def returns_images(inputs: Tensor) -> Tensor:
    return inputs


NOT_A_FUNCTION = 3


def planes(*pictures: NDArray[Any]) -> Rows:
    """Rows read as images (k, C, H, W), just as given."""
    images = torch.tensor(np.stack(pictures), dtype=torch.float32)
    return Rows(images, torch.arange(len(images)) % 2, 2)


def test_pixels_are_the_prepared_inputs_laid_flat() -> None:
    rows = image_rows(12)
    read, n_features = make_features("pixels", rows)
    assert n_features == 16
    expected = rows.inputs[:][SOME, :, :, 0].reshape(4, 16).double() / 255 - 0.5
    torch.testing.assert_close(read(SOME), expected.float())


def test_pooled_averages_the_cells_of_a_grid() -> None:
    picture = np.arange(16).reshape(1, 4, 4)
    both = np.concatenate([picture, 10 * picture])
    result = pooled_features(planes(both, 2 * both), side=2)(torch.tensor([1, 0]))
    cells = [2.5, 4.5, 10.5, 12.5]
    assert result[1].tolist() == cells + [10 * cell for cell in cells]
    assert result[0].tolist() == [2 * cell for cell in cells] + [20 * cell for cell in cells]


def test_pooled_has_sixteen_cells_a_channel() -> None:
    rows = image_rows(12, side=8)
    read, n_features = make_features("pooled", rows)
    assert n_features == 16
    blocks = rows.inputs[:][SOME, :, :, 0].double().reshape(4, 4, 2, 4, 2).mean((2, 4))
    torch.testing.assert_close(read(SOME), (blocks.reshape(4, 16) / 255 - 0.5).float())


def test_pooled_leaves_small_images_as_they_are() -> None:
    read, n_features = make_features("pooled", planes(np.arange(6).reshape(1, 2, 3)))
    assert n_features == 6
    assert read(torch.tensor([0])).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_pooled_needs_images() -> None:
    with pytest.raises(ConfigError, match=r"\(k, C, H, W\).*\(2, 5\)"):
        make_features("pooled", flat_rows(torch.zeros(4, 5)))


def decaying(n_rows: int, n_columns: int, seed: int = 0) -> Tensor:
    """Points whose variance falls by a quarter from one hidden direction to the next."""
    source = torch.Generator().manual_seed(seed)
    points = torch.randn(n_rows, n_columns, generator=source) * 0.75 ** torch.arange(n_columns)
    turn, _ = torch.linalg.qr(torch.randn(n_columns, n_columns, generator=source))
    return points.matmul(turn) + 3


def like_up_to_sign(result: Tensor, expected: NDArray[Any]) -> bool:
    signs = torch.sign((result * torch.tensor(expected)).sum(0))
    return np.allclose((result * signs).numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("n_columns", [6, 40])
def test_pca_is_that_of_sklearn_up_to_sign(n_columns: int) -> None:
    values = decaying(500, n_columns)
    read, n_features = make_features("pca", flat_rows(values))
    assert n_features == min(32, n_columns)
    result = read(torch.arange(500))[:, :6]
    assert result.dtype == torch.float32
    expected = PCA(n_components=6, svd_solver="full").fit_transform(values.double().numpy())
    assert like_up_to_sign(result, expected)
    assert not like_up_to_sign(result.flip(1), expected)


def test_pca_of_fewer_rows_than_components_has_as_many_as_rows() -> None:
    assert make_features("pca", flat_rows(decaying(5, 40)))[1] == 5
    assert make_features("pca", image_rows(1))[1] == 1


def test_pca_is_fitted_on_rows_from_everywhere() -> None:
    values = torch.zeros(1000, 2)
    values[:500, 0] = torch.linspace(-1, 1, 500)
    values[500:, 1] = torch.linspace(-5, 5, 500)
    read = pca_features(flat_rows(values), n_components=1, n_fitted=40)
    spread = read(torch.arange(1000))[:, 0]
    assert float(spread[500:].std()) > 2
    assert float(spread[:500].std()) < 0.1


def test_pca_in_parts_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = flat_rows(decaying(100, 8))
    whole = pca_features(rows, n_components=3)(SOME)
    monkeypatch.setattr("impon_hpo.sampling.features.CHUNK", 7)
    torch.testing.assert_close(pca_features(rows, n_components=3)(SOME), whole)


def test_pca_is_the_same_every_time_and_leaves_random_numbers_alone() -> None:
    rows = flat_rows(decaying(300, 100))  # more columns than can be fitted without chance
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make_features("pca", rows)[0](SOME)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(make_features("pca", rows)[0](SOME), first)


@pytest.mark.parametrize("given", [row_means, f"{__name__}:row_means"])
def test_function_of_the_user_gets_the_prepared_inputs(given: Any) -> None:
    rows = image_rows(12)
    read, n_features = make_features(given, rows)
    assert n_features == 2
    result = read(SOME)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, row_means(rows.read(SOME)).float())


@pytest.mark.parametrize("as_name", [True, False])
@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (returns_a_list, "returned list"),
        (returns_a_vector, r"returned \(2,\)"),
        (returns_images, r"returned \(2, 1, 4, 4\)"),
    ],
)
def test_function_that_returns_something_else_is_refused(
    function: Any, complaint: str, as_name: bool
) -> None:
    given = f"{__name__}:{function.__name__}" if as_name else function
    with pytest.raises(ConfigError, match=rf"{function.__name__}.*{complaint}"):
        make_features(given, image_rows(12))


@pytest.mark.parametrize("given", [f"{__name__}:NOT_A_FUNCTION", 3, None])
def test_what_is_no_function_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="a name or a function, but got"):
        make_features(given, image_rows(12))


@pytest.mark.parametrize(
    ("name", "suggested"), [("pixel", "pixels"), ("poolde", "pooled"), ("PCA", None)]
)
def test_unknown_name_lists_the_known_ones(name: str, suggested: str | None) -> None:
    with pytest.raises(ConfigError, match=f"Unknown features '{name}'") as caught:
        make_features(name, image_rows(12))
    assert "pca, pixels, pooled" in str(caught.value)
    assert (f"Did you mean '{suggested}'?" in str(caught.value)) is (suggested is not None)


def test_rows_dimension_must_be_kept() -> None:
    with pytest.raises(ConfigError, match=r"returned \(1, 4\) for two rows"):
        make_features(lambda inputs: inputs.mean(0, keepdim=True), flat_rows(torch.rand(5, 4)))


def expected(model: nn.Module) -> float:
    squares = [p.detach().double().square().sum() for p in model.parameters() if p.requires_grad]
    return math.sqrt(sum(map(float, squares)))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "small ones": lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)),
    "a large one": lambda: nn.Linear(SMALL // 64, 64, bias=False),
    "both": lambda: nn.Sequential(nn.Linear(SMALL // 64, 64), nn.Linear(64, 3)),
    "of two types": lambda: nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 3).double()),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_norm_is_that_of_all_parameters(name: str, memory: torch.memory_format) -> None:
    model = MODELS[name]()
    model.to(memory_format=memory)
    assert float(WeightNorm(model)()) == pytest.approx(expected(model), rel=1e-5)


def test_what_is_not_trained_does_not_count() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    assert float(WeightNorm(model)()) == pytest.approx(expected(model), rel=1e-6)
    assert float(WeightNorm(model.requires_grad_(False))()) == 0


@pytest.mark.parametrize("gaps", [False, True], ids=["dense", "with gaps in memory"])
def test_later_changes_are_seen(gaps: bool) -> None:
    model = nn.Linear(6, 4)
    if gaps:
        model.weight = nn.Parameter(torch.randn(4, 12)[:, ::2])
    norm = WeightNorm(model)
    before = float(norm())
    with torch.no_grad():
        model.weight.mul_(3)
    assert float(norm()) == pytest.approx(expected(model), rel=1e-6)
    model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()})
    assert float(norm()) == pytest.approx(expected(model), rel=1e-6)
    assert float(norm()) > before
    assert not norm().requires_grad
