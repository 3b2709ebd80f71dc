"""Pretrained weights: torchvision's, and those of a file; their head and their normalisation."""

from __future__ import annotations

import logging
import urllib.error
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, WeightsEnum, list_models

from impon_hpo.errors import CheckpointError, ConfigError, DataError
from impon_hpo.training.fine_tuning import heads
from impon_hpo.training.models import build_model
from impon_hpo.training.pretrained import IMAGENET, own_normalisation
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_step import TrainingStep
from tests.settings import training_config
from tests.training.nets import Body
from tests.training.runs import config, results_of
from tests.training.test_models import splits

COLOURS = "tests.training.nets:colours"
BODY = "tests.training.nets:Body"


def torchvisions(name: str, *, n_classes: int = 7, weights: str = "DEFAULT", **given: Any) -> Any:
    """Return the model as it is built with torchvision's weights."""
    settings = {"model": f"torchvision.models:{name}", "model_options": {"weights": weights}}
    data = splits(size=64, n_classes=n_classes)
    return build_model(training_config(settings | given), data, seed=0)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """What torch hub's cache holds for resnet18: weights at random, in the place of ImageNet's."""
    torch.manual_seed(3)
    state: dict[str, Tensor] = torchvision.models.resnet18().state_dict()
    home = Path("hub")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(home))
    (home / "checkpoints").mkdir(parents=True)
    torch.save(state, home / "checkpoints" / Path(ResNet18_Weights.DEFAULT.url).name)
    return state


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.IMAGENET1K_V1"])
def test_pretrained_body_is_kept_and_the_head_is_new(
    fetched: dict[str, Tensor], weights: str
) -> None:
    state = torchvisions("resnet18", weights=weights).state_dict()
    assert tuple(state.pop("fc.weight").shape) == (7, 512)
    assert tuple(state.pop("fc.bias").shape) == (7,)
    assert all(torch.equal(value, fetched[name]) for name, value in state.items())


def test_head_is_drawn_from_the_seed(fetched: dict[str, Tensor]) -> None:
    first, second = (torchvisions("resnet18").fc.weight for _ in range(2))
    assert torch.equal(first, second)
    assert 0 < float(first.detach().std()) < 1


def test_as_many_classes_as_the_weights_have_keep_their_head(fetched: dict[str, Tensor]) -> None:
    model = torchvisions("resnet18", n_classes=1000)
    assert torch.equal(model.fc.weight, fetched["fc.weight"])


def test_model_by_name_is_found_too(fetched: dict[str, Tensor]) -> None:
    options = {"name": "resnet18", "weights": "DEFAULT"}
    model: Any = torchvisions("get_model", model_options=options)
    assert model.fc.out_features == 7
    assert torch.equal(model.conv1.weight, fetched["conv1.weight"])


def test_weights_that_are_not_there_are_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"'V3' is none .* There are: DEFAULT, IMAGENET1K_V1\."):
        torchvisions("resnet18", weights="V3")


def test_weights_without_a_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pretrained: .* Use weights = 'DEFAULT'\."):
        torchvisions("resnet18", model_options={"pretrained": True})


def test_what_cannot_be_fetched_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> Any:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: "hub")
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(DataError, match=r"cannot be fetched .*not known.*weights_file") as caught:
        torchvisions("resnet18")
    assert "\n" not in str(caught.value)


FAMILIES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "vgg11",
    "vit_b_32",
]
REST = [
    name
    for name in list_models(module=torchvision.models)
    if name not in FAMILIES and not name.startswith("regnet")  # which are built in full, and large
]


def replaced(name: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Return a model of torchvision's with another head, without its weights."""
    from impon_hpo.training.models import _user_model

    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **_: {})
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda self, *_, **__: None)
    given = {"model": f"torchvision.models:{name}", "model_options": {"weights": "DEFAULT"}}
    # A RegNet works its widths out in tensors.
    device = torch.device("cpu" if name.startswith("regnet") else "meta")
    with device, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return _user_model(training_config(given), 7)


def assert_replaced(model: nn.Module) -> None:
    assert heads(model, 7)
    assert not heads(model, 1000)
    auxiliary = [name for name, one in model.named_modules() if "aux" in name.lower() and one]
    assert not auxiliary or any(name in heads(model, 7) for name in auxiliary)


@pytest.mark.parametrize("name", FAMILIES)
def test_head_of_every_kind_of_model_is_replaced(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_replaced(replaced(name, monkeypatch))


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_head_of_every_other_model_is_replaced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_replaced(replaced(name, monkeypatch))


def test_squeezenet_answers_through_its_new_head() -> None:
    model = torchvision.models.squeezenet1_1()
    from impon_hpo.training.pretrained import replace_heads

    replace_heads(training_config({}), model, 1000, 3)
    assert model.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


def saved(state: Any, name: str = "w.pth") -> str:
    torch.save(state, name)
    return name


def loaded(file: str, **given: Any) -> nn.Module:
    data = splits(channels=1)
    return build_model(training_config({"model": BODY, "weights_file": file} | given), data, seed=0)


def other_body(n_classes: int = 10) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return Body(n_classes).state_dict()


WRAPPINGS: list[Any] = [
    lambda state: state,
    lambda state: {"state_dict": state, "epoch": 3},
    lambda state: {"model": state, "optimizer": {}},
    lambda state: {f"module.{name}": value for name, value in state.items()},
    lambda state: {"model": {f"module._orig_mod.{name}": one for name, one in state.items()}},
]


@pytest.mark.parametrize("wrap", WRAPPINGS)
def test_state_dict_of_a_file_is_loaded_however_it_was_saved(wrap: Any) -> None:
    state = other_body()
    found = loaded(saved(wrap(state))).state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_checkpoint_of_a_run_is_such_a_file(tiny_splits: Splits) -> None:
    from impon_hpo.training.checkpoint import Checkpoint
    from impon_hpo.training.training_run import train_epochs

    checkpoint = Checkpoint(Path("run.pt"))
    next(train_epochs(config(model=BODY), tiny_splits, checkpoint))
    state = checkpoint.load(config(model=BODY), torch.device("cpu"))
    assert state is not None
    assert torch.equal(loaded("run.pt").state_dict()["fc.weight"], state["model"]["fc.weight"])


@pytest.mark.parametrize("how", ["other size", "none"])
def test_head_that_does_not_fit_is_left_out_and_said(how: str, said: list[str]) -> None:
    state = other_body(1000)
    if how == "none":
        del state["fc.weight"], state["fc.bias"]
    fresh = build_model(training_config({"model": BODY}), splits(channels=1), seed=0).state_dict()
    found = loaded(saved(state)).state_dict()
    for name, value in found.items():
        assert torch.equal(value, fresh[name] if name.startswith("fc.") else state[name])
    assert any("the head 'fc' for 10 classes begins at random" in line for line in said)


def lacks(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("layer2")}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lacks, r"it lacks layer2\.0\.weight, layer2\.0\.bias, layer2\.1\.weight … \(6 in all\)"),
        (lambda state: state | {"x": torch.ones(1)}, r"it has, and the model has not, x\."),
        (
            lambda state: state | {"conv1.weight": torch.ones(4, 3, 3, 3)},
            r"of another shape are conv1\.weight\.",
        ),
    ],
)
def test_file_that_does_not_fit_is_refused_with_names(change: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"does not fit model '{BODY}': .*{expected}"):
        loaded(saved(change(other_body())))


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 3}, torch.ones(2)], ids=str)
def test_file_without_a_state_dict_is_refused(content: Any) -> None:
    with pytest.raises(ConfigError, match="is no state dict"):
        loaded(saved(content))


def test_file_that_would_run_code_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"weights_file 'w\.pth' cannot be read"):
        loaded(saved(Body(10)))


def test_content_of_the_file_is_part_of_the_identity() -> None:
    def identity(name: str) -> dict[str, Any]:
        return training_config({"model": BODY, "weights_file": name}).identity()

    first = identity(saved(other_body(), "a.pth"))
    Path("b.pth").write_bytes(Path("a.pth").read_bytes())
    assert identity("b.pth") == first
    assert identity(saved(other_body(3), "a.pth")) != first
    with pytest.raises(ConfigError, match=r"weights_file = 'c\.pth' must be a file of weights"):
        identity("c.pth")


def test_run_begins_with_the_weights_of_the_file(tiny_splits: Splits) -> None:
    file = saved(other_body())
    step = TrainingStep(
        config(model=BODY, weights_file=file), tiny_splits, weights_seed=0, crop_seed=0
    )
    assert torch.equal(step.model.state_dict()["fc.weight"], other_body()["fc.weight"])


class Declares(nn.Sequential):
    """As timm's models, which say how their images were normalised."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))
        self.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3), "url": ""}


def normalised(images: Tensor, mean: Any, std: Any) -> Tensor:
    shape = (1, 3, 1, 1)
    scaled = images.permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


def of_step(settings: dict[str, Any], data: Splits) -> Tensor:
    step = TrainingStep(training_config(settings), data, weights_seed=0, crop_seed=0)
    return step.normalise(data.train.images[:])


def test_moments_that_a_model_declares_are_used() -> None:
    data = splits()
    found = of_step({"model": f"{__name__}:Declares"}, data)
    expected = normalised(data.train.images[:], (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    told = of_step({"model": f"{__name__}:Declares", "normalisation": "data"}, data)
    assert torch.equal(told, data.normalise(data.train.images[:]))


@pytest.mark.parametrize("declared", [None, {}, {"mean": 0.5, "std": 0.5}, "imagenet"], ids=str)
def test_what_declares_no_moments_is_normalised_by_the_datas_own(declared: Any) -> None:
    model = Declares(10)
    model.pretrained_cfg = declared
    assert own_normalisation(training_config({"model": COLOURS}), model, splits()) is None


def test_moments_of_torchvisions_weights_are_used(fetched: dict[str, Tensor]) -> None:
    data = splits(size=64)
    given = {"model": "torchvision.models:resnet18", "model_options": {"weights": "DEFAULT"}}
    expected = normalised(data.train.images[:], *IMAGENET)
    torch.testing.assert_close(of_step(given, data), expected, rtol=1e-5, atol=1e-5)


def test_imagenets_moments_are_used_where_they_are_asked_for() -> None:
    data = splits()
    found = of_step({"model": COLOURS, "normalisation": "imagenet"}, data)
    expected = normalised(data.train.images[:], *IMAGENET)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(of_step({"model": COLOURS}, data), data.normalise(data.train.images[:]))


def test_samplers_read_rows_by_the_datas_own_moments() -> None:
    data = splits()
    before = data.rows().read(torch.arange(2))
    of_step({"model": COLOURS, "normalisation": "imagenet"}, data)
    assert torch.equal(data.rows().read(torch.arange(2)), before)


def test_imagenets_moments_want_three_channels() -> None:
    given = {"normalisation": "imagenet", "width": 4}
    with pytest.raises(ConfigError, match=r"images with 3 channels, and these have 1"):
        of_step(given, splits(channels=1))
    declares = training_config({"model": f"{__name__}:Declares"})
    model = Declares(10)
    assert own_normalisation(declares, model, splits(channels=1)) is None


def test_file_of_weights_does_not_say_how_and_a_line_tells_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = splits()
    state = build_model(training_config({"model": COLOURS}), data, seed=1).state_dict()
    with caplog.at_level(logging.INFO, "impon_hpo"):
        of_step({"model": BODY, "weights_file": saved(other_body())}, splits(channels=1))
        assert "normalisation" not in caplog.text
        of_step({"model": COLOURS, "weights_file": saved(state)}, data)
    assert "set normalisation = 'imagenet'" in caplog.text


def test_at_the_defaults_numbers_are_as_before(tiny_splits: Splits) -> None:
    named = {"model_options": {}, "normalisation": "data", "train_layers": "all"}
    assert results_of(tiny_splits, **named) == results_of(tiny_splits)


@pytest.mark.parametrize("options", [{}, {"name": 3}, {"name": "nope"}])
def test_model_of_torchvisions_that_is_not_named_is_told(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model_options: torchvision knows no weights for"):
        torchvisions("get_model", model_options=options | {"weights": "DEFAULT"})
