"""The deep model: sizes, shapes, seeds, and functions of the user's that go wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import find_modules_in
from impon_hpo.training.image_data import Augment
from impon_hpo.training.images import Images
from impon_hpo.training.models import SmallImageResNet18, build_model
from impon_hpo.training.splits import Split, Splits
from tests.settings import training_config

AUGMENT: Augment = "none"


def splits(*, size: int = 8, channels: int = 3, n_classes: int = 10) -> Splits:
    generator = torch.Generator().manual_seed(0)
    shape = (4, size, size, channels)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    part = Split(Images.of_tensor(images), torch.zeros(4, dtype=torch.int64))
    return Splits(part, part, part, tuple(str(i) for i in range(n_classes)), AUGMENT)


def build(name: str = "resnet18", *, seed: int = 0, data: Splits | None = None) -> nn.Module:
    return build_model(training_config({"model": name, "width": 4}), data or splits(), seed)


def n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def assert_same_weights(first: nn.Module, second: nn.Module) -> None:
    one, other = first.state_dict(), second.state_dict()
    assert list(one) == list(other)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_resnet18_of_width_64_has_the_known_number_of_parameters() -> None:
    assert n_parameters(SmallImageResNet18(10, width=64, in_channels=3)) == 11_173_962


def test_resnet18_of_width_1_has_the_parameters_worked_by_hand() -> None:
    # Convolutions: stem 9; stages of c channels entered by e: e·9c + 3·9c² and, below the first,
    # e·c for the shortcut. Two numbers a channel for each normalisation. Then 8·2 + 2 outputs.
    stem = 9 + 2
    first = 4 * (9 + 2)
    later = sum(9 * e * c + 3 * 9 * c * c + e * c + 5 * 2 * c for e, c in ((1, 2), (2, 4), (4, 8)))
    assert n_parameters(SmallImageResNet18(2, width=1, in_channels=1)) == stem + first + later + 18


def test_resnet18_is_torchvisions_but_for_the_stem() -> None:
    ours, theirs = SmallImageResNet18(10), resnet18(num_classes=10)
    difference = theirs.conv1.weight.numel() - ours.conv1.weight.numel()
    assert n_parameters(theirs) - n_parameters(ours) == difference == 64 * 3 * (49 - 9)
    assert len(list(ours.parameters())) == len(list(theirs.parameters()))


@pytest.mark.parametrize("size", [4, 8, 16, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_resnet18_gives_a_logit_a_class(size: int, channels: int) -> None:
    model = build(data=splits(size=size, channels=channels, n_classes=7))
    assert model(torch.zeros(3, channels, size, size)).shape == (3, 7)


def test_resnet18_keeps_full_resolution_in_its_first_stage() -> None:
    model = SmallImageResNet18(10, width=4)
    shapes = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, given, output: shapes.append(output.shape[1:]))
    model(torch.zeros(1, 3, 32, 32))
    assert [tuple(shape) for shape in shapes] == [
        *[(4, 32, 32)] * 2,
        *[(8, 16, 16)] * 2,
        *[(16, 8, 8)] * 2,
        *[(32, 4, 4)] * 2,
    ]


@pytest.mark.parametrize("side", [5, 8])
def test_resnet18_shortcuts_are_strided_convolutions(side: int) -> None:
    model = SmallImageResNet18(10, width=4)
    hidden = torch.randn(2, 4, side, side)
    shortcut = model.blocks[2].downsample
    assert isinstance(shortcut, nn.Sequential)
    weight = shortcut[1].weight
    assert isinstance(weight, Tensor)
    expected = nn.functional.conv2d(hidden, weight, stride=2)
    torch.testing.assert_close(shortcut[1](shortcut[0](hidden)), expected)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 8])
def test_narrow_resnet18_has_the_same_gradients_in_channels_last(width: int) -> None:
    torch.manual_seed(0)
    images = torch.randn(16, 3, 8, 8)
    exact = SmallImageResNet18(10, width=width).double()
    model = SmallImageResNet18(10, width=width)
    model.load_state_dict(exact.state_dict())
    model = model.to(memory_format=torch.channels_last)
    exact(images.double()).logsumexp(1).mean().backward()
    model(images.to(memory_format=torch.channels_last)).logsumexp(1).mean().backward()
    for found, expected in zip(model.parameters(), exact.parameters(), strict=True):
        assert found.grad is not None
        assert expected.grad is not None
        error = (found.grad - expected.grad).norm() / expected.grad.norm().clamp_min(1e-4)
        assert float(error) < 0.02  # what oneDNN got wrong, it got wrong by far


def test_resnet18_begins_with_gain_two_over_fan_out() -> None:
    torch.manual_seed(0)
    model = SmallImageResNet18(10, width=64)
    assert float(model.conv1.weight.detach().std()) == pytest.approx(
        (2 / (64 * 9)) ** 0.5, rel=0.05
    )


def test_imagenet_resnet18_is_torchvisions() -> None:
    model = build("resnet18-imagenet", seed=5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = resnet18(num_classes=10)
    assert type(model) is type(expected)
    assert_same_weights(model, expected)


def test_imagenet_resnet18_reads_gray_images() -> None:
    model = build("resnet18-imagenet", data=splits(size=32, channels=1, n_classes=3))
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("name", ["resnet18", "resnet18-imagenet", f"{__name__}:linear"])
def test_same_seed_same_weights_whatever_the_global_state(name: str) -> None:
    torch.manual_seed(1)
    first = build(name, seed=3)
    torch.manual_seed(2)
    assert_same_weights(first, build(name, seed=3))


@pytest.mark.parametrize("name", ["resnet18", f"{__name__}:linear"])
def test_other_seed_other_weights(name: str) -> None:
    one, other = (next(build(name, seed=seed).parameters()) for seed in (3, 4))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", ["resnet18", "resnet18-imagenet", f"{__name__}:linear"])
def test_global_random_state_is_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    build(name)
    assert torch.equal(torch.get_rng_state(), before)


def test_checking_the_output_does_not_touch_the_statistics() -> None:
    statistics = dict(build().named_buffers())
    assert int(statistics["bn1.num_batches_tracked"]) == 0
    assert torch.equal(statistics["bn1.running_mean"], torch.zeros(4))


def linear(n_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(n_classes))


def fails(n_classes: int) -> nn.Module:
    raise KeyError("no such layer")


def wants_more(n_classes: int, depth: int) -> nn.Module:
    return nn.Identity()


def no_module(n_classes: int) -> Any:
    return lambda images: images


def too_few_logits(n_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(n_classes - 1))


def no_flattening(n_classes: int) -> nn.Module:
    return nn.Conv2d(3, n_classes, 1)


class TwoOutputs(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.sum(), images


def two_outputs(n_classes: int) -> nn.Module:
    return TwoOutputs()


def wants_other_images(n_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(5, 1, 1), nn.Flatten(), nn.LazyLinear(n_classes))


NO_FUNCTION = 3


def test_function_of_the_users_makes_the_model() -> None:
    model = build(f"{__name__}:linear", data=splits(n_classes=6))
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 6)


def test_function_of_the_users_is_found_in_a_folder_that_was_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("nets_of_the_user.py").write_text(
        "from torch import nn\ndef wide(n): return nn.Sequential(nn.Flatten(), nn.Linear(192, n))\n"
    )
    find_modules_in(Path())
    try:
        assert n_parameters(build("nets_of_the_user:wide")) == 192 * 10 + 10
    finally:
        sys.modules.pop("nets_of_the_user", None)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("fails", r"calling it with 10 raised KeyError: 'no such layer'"),
        ("wants_more", r"calling it with 10 raised TypeError: .*depth"),
        ("NO_FUNCTION", r"calling it with 10 raised TypeError: .*not callable"),
        ("no_module", r"must return a torch\.nn\.Module, but returned function\."),
        ("too_few_logits", r"must return logits \(2, 10\), but returned \(2, 9\)\."),
        ("no_flattening", r"must return logits \(2, 10\), but returned \(2, 10, 8, 8\)\."),
        ("two_outputs", r"must return logits \(2, 10\), but returned \(\)\."),
        ("wants_other_images", r"fails on images of shape \(2, 3, 8, 8\): "),
    ],
)
def test_function_that_goes_wrong_is_named(function: str, said: str) -> None:
    name = f"{__name__}:{function}"
    with pytest.raises(ConfigError, match=rf"(?s)^Model '{name}' .*{said}"):
        build(name)


def test_module_that_does_not_import_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'no_such_module_here:wide' cannot be imported: Module"):
        build("no_such_module_here:wide")


def test_module_that_fails_while_it_is_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("nets_that_fail.py").write_text("1 / 0\n")
    find_modules_in(Path())
    with pytest.raises(ConfigError, match=r"'nets_that_fail:wide' .*ZeroDivisionError"):
        build("nets_that_fail:wide")


def test_function_that_the_module_has_not_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"has no 'linaer'\. Did you mean 'linear'"):
        build(f"{__name__}:linaer")


def test_unknown_model_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(ConfigError, match=r"Unknown model 'resnet'.*Known: resnet18, resnet18-im"):
        build("resnet")


def by_keyword(width: int = 3, num_classes: int = 1) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.Linear(width, num_classes))


def anything(**given: Any) -> nn.Module:
    return by_keyword(**given)


def in_place(n_classes: int, **given: Any) -> nn.Module:
    return by_keyword(num_classes=n_classes, **given)


def by_name(name: str, **given: Any) -> nn.Module:
    """As timm's create_model."""
    return {"keyword": by_keyword}[name](**given)


def first_in_place(n: int, /) -> nn.Module:
    return linear(n)


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("by_keyword", {}),
    ("by_keyword", {"width": 5}),
    ("anything", {"width": 5}),
    ("in_place", {}),
    ("in_place", {"width": 5}),
    ("by_name", {"name": "keyword", "width": 5}),
    ("first_in_place", {}),
]


@pytest.mark.parametrize(("function", "options"), OPTIONS)
def test_function_is_called_as_it_wants_to_be(function: str, options: dict[str, Any]) -> None:
    settings = {"model": f"{__name__}:{function}", "model_options": options}
    model = build_model(training_config(settings), splits(n_classes=6), 0)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 6)
    if "width" in options:
        assert model[1].out_features == options["width"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (
            "by_keyword",
            {"widht": 5},
            r"Unknown key 'model_options\.widht'\. Did you mean 'width'\? .* takes: width, num_cl",
        ),
        ("anything", {"widht": 5}, r"calling it with num_classes=10, widht=5 raised TypeError"),
        ("by_keyword", {"num_classes": 5}, r"num_classes comes from the data, which have 10"),
    ],
)
def test_options_that_do_not_fit_are_named(
    function: str, options: dict[str, Any], said: str
) -> None:
    settings = {"model": f"{__name__}:{function}", "model_options": options}
    with pytest.raises(ConfigError, match=said):
        build_model(training_config(settings), splits(), 0)


def test_options_without_a_function_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model_options are arguments of a function"):
        training_config({"model_options": {"weights": "DEFAULT"}})


def test_torchvisions_model_gets_its_classes_not_weights() -> None:
    data = splits(size=32, n_classes=4)
    model: Any = build("torchvision.models:resnet18", data=data)
    assert model.fc.out_features == 4
