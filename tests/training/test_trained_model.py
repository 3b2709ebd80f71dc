"""A trained model in programs of people's own: weights, normalisation, images, mistakes."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from impon_hpo.errors import CheckpointError, ConfigError
from impon_hpo.training.checkpoint import Checkpoint, read_state, write_state
from impon_hpo.training.models import build_model, build_without_weights
from impon_hpo.training.pretrained import without_pretrained
from impon_hpo.training.splits import Splits
from impon_hpo.training.trained_model import USE, load_model
from impon_hpo.training.training_run import TrainingRun, train_epochs
from tests.settings import training_config
from tests.training.runs import config
from tests.training.test_models import splits as made_up_splits

PATH = Path("run.pt")


def trained(splits: Splits, **given: Any) -> TrainingRun:
    """Train a run with a checkpoint, and return it as it ended."""
    settings = config(**{"epochs": 1, "autocast": False} | given)
    list(train_epochs(settings, splits, Checkpoint(PATH)))
    run = TrainingRun(settings, splits)
    run.continue_from(Checkpoint(PATH))
    return run


def pictures(splits: Splits) -> Tensor:
    """Return the test images as `torchvision.io` has images: (N, C, H, W) uint8."""
    return splits.test.images[:].permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"eval_weights": "ema"},
        {"model": "tests.training.nets:dropping"},
        {"model": "tests.training.nets:dropping", "model_options": {"share": 0.1}},
    ],
)
def test_logits_are_those_that_the_run_was_judged_by(
    tiny_splits: Splits, given: dict[str, Any]
) -> None:
    run = trained(tiny_splits, **given)
    expected = torch.cat([logits for logits, _ in run.predictions(tiny_splits.test)])
    model = load_model(PATH)
    assert not model.training
    images = pictures(tiny_splits)
    with torch.inference_mode():
        logits = model(images)
        of_floats = model(images / 255)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(of_floats, expected, rtol=1e-4, atol=1e-4)
    right = (logits.argmax(1) == tiny_splits.test.labels).double().mean()
    assert float(right) == run.evaluate(tiny_splits.test)[0]
    assert not torch.equal(logits[0], logits[1])


def test_it_knows_classes_shape_settings_and_how_far_it_was_trained(tiny_splits: Splits) -> None:
    run = trained(tiny_splits, eval_weights="ema")
    model = load_model(str(PATH))
    assert model.classes == tuple(map(str, range(10)))
    assert model.image_shape == (1, 8, 8)
    assert model.config == run.config
    assert (model.epoch, model.value) == (1, run.results[-1].val_accuracy)


def test_settings_whose_files_are_gone_are_told_all_the_same(tiny_splits: Splits) -> None:
    Path("left-out.csv").write_text("file\n0\n")
    trained(tiny_splits, exclude="left-out.csv")
    Path("left-out.csv").unlink()
    assert load_model(PATH).config.exclude == "left-out.csv"


def test_half_of_the_precision_is_for_the_asking(tiny_splits: Splits) -> None:
    trained(tiny_splits)
    model = load_model(PATH)
    with torch.inference_mode():
        full = model(pictures(tiny_splits))
        half = model.bfloat16()(pictures(tiny_splits))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 8, 8), r"but have \(1, 8, 8\)\. For one image, give image\[None\]"),
        (torch.zeros(5, 8, 8, 1), r"Channels come first: give images\.permute\(0, 3, 1, 2\)"),
        (torch.zeros(5, 1, 9, 9), "Resize them to 8 × 8"),
        (torch.zeros(5, 3, 8, 8), r"must have the shape \(N, 1, 8, 8\), but have \(5, 3, 8, 8\)"),
        (torch.zeros(5, 1, 8, 8, dtype=torch.int64), "uint8 from 0 to 255 or floating point"),
    ],
)
def test_images_of_another_kind_are_refused(
    tiny_splits: Splits, images: Tensor, message: str
) -> None:
    trained(tiny_splits)
    with pytest.raises(ConfigError, match=message):
        load_model(PATH)(images)


def test_checkpoint_of_before_still_resumes_and_says_what_it_lacks(tiny_splits: Splits) -> None:
    settings = config(epochs=2)
    first = next(train_epochs(settings, tiny_splits, Checkpoint(PATH)))
    state = read_state(PATH, torch.device("cpu"), "Checkpoint", "")
    del state[USE]
    write_state(PATH, state, "Checkpoint")
    with pytest.raises(CheckpointError, match=r"lacks the names of the classes.*continue it; else"):
        load_model(PATH)
    rest = list(train_epochs(settings, tiny_splits, Checkpoint(PATH)))
    assert [first.epoch, *(result.epoch for result in rest)] == [1, 2]
    assert load_model(PATH).epoch == 2


def test_what_is_no_checkpoint_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no file 'run\.pt'\. Give the path of a checkpoint"):
        load_model(PATH)
    torch.save({"fc.weight": torch.zeros(2)}, PATH)
    with pytest.raises(CheckpointError, match="is not a checkpoint of format"):
        load_model(PATH)


def test_module_that_is_not_there_and_code_that_has_changed_are_sentences(
    tiny_splits: Splits,
) -> None:
    trained(tiny_splits, model="tests.training.nets:dropping")
    state = read_state(PATH, torch.device("cpu"), "Checkpoint", "")
    state[USE]["settings"]["model"] = "away_nets:dropping"
    write_state(PATH, state, "Checkpoint")
    with pytest.raises(ConfigError, match="'away_nets:dropping' cannot be imported"):
        load_model(PATH)
    state[USE]["settings"]["model"] = "tests.training.nets:drop_path"
    write_state(PATH, state, "Checkpoint")
    with pytest.raises(CheckpointError, match=r"do not fit model .* with the code that it was"):
        load_model(PATH)


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something is fetched")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "empty")


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", ["squeezenet1_1", "googlenet"])
def test_network_of_pretrained_weights_is_built_without_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same network as with the weights, so that those of the checkpoint fit into it."""
    given = {"model": f"torchvision.models:{name}", "model_options": {"weights": "DEFAULT"}}
    settings = training_config(given)
    built = build_without_weights(settings, 7, 3)
    weights: Any = torchvision.models.get_model_weights(name)
    with torch.random.fork_rng(), monkeypatch.context() as patch:
        kind = {"googlenet": {"init_weights": False}}.get(name, {})
        fresh = torchvision.models.get_model(name, num_classes=1000, **kind).state_dict()
        patch.setattr(weights, "get_state_dict", lambda *_, **__: fresh)
        model = build_model(settings, made_up_splits(size=64, n_classes=7), seed=0)
    assert {key: value.shape for key, value in built.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    assert getattr(built, "transform_input", None) == getattr(model, "transform_input", None)


def test_size_that_weights_bring_along_is_kept() -> None:
    options = {"weights": "IMAGENET1K_SWAG_E2E_V1"}
    given = {"model": "torchvision.models:vit_b_16", "model_options": options}
    assert without_pretrained(training_config(given)) == {"image_size": 384}


def test_other_functions_pretrained_argument_is_turned_off() -> None:
    given = {"model": f"{__name__}:of_timms_kind", "model_options": {"pretrained": True}}
    assert isinstance(build_without_weights(training_config(given), 7, 3), torch.nn.Linear)


def of_timms_kind(num_classes: int, *, pretrained: bool = False) -> torch.nn.Module:
    assert not pretrained
    return torch.nn.Linear(3, num_classes)
