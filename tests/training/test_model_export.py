"""An exported model: the same logits where neither impon-hpo nor the model's code is."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from impon_hpo.errors import ConfigError, StorageError
from impon_hpo.training.model_export import FACTS, export_model
from impon_hpo.training.trained_model import TrainedModel
from tests.settings import training_config

FILE = Path("model.pt2")

ELSEWHERE = """
import json, sys, torch
sys.modules["impon_hpo"] = sys.modules["tests"] = None  # an import of them fails
files = {"impon_hpo.json": ""}
program = torch.export.load("model.pt2", extra_files=files).module()
images = torch.load("images.pt")
torch.save([program(images[:n]) for n in (1, 2, len(images))], "logits.pt")
print(files["impon_hpo.json"])
"""


def elsewhere(images: Tensor) -> tuple[dict[str, Any], list[Tensor]]:
    """Return what the exported file says of itself, and its logits of the first one, the first two
    and all images, in a process of its own."""
    torch.save(images, "images.pt")
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), torch.load("logits.pt")


def model_of(network: nn.Module) -> TrainedModel:
    return TrainedModel(
        network,
        torch.tensor([120.0, 110, 100]),
        torch.tensor([60.0, 50, 40]),
        classes=("cat", "chien rusé"),
        image_shape=(3, 6, 5),
        config=training_config({"model": "my_nets:Net"}),
        epoch=0,
        value=math.nan,
    ).eval()


class Answers(nn.Module):
    """Answers with a mapping, as some do, and has other layers in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(48, 2)
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layers(images)}


class ByValue(Answers):
    """Looks at the pixels to decide what to do."""

    def forward(self, images: Tensor) -> Any:
        return self.layers(images if images.sum() > 0 else -images)


class OfTwo(Answers):
    """Takes two images at a time."""

    def forward(self, images: Tensor) -> Any:
        return self.layers(images.reshape(2, 3, 6, 5))


class Drawing(Answers):
    """Draws at random in evaluation mode, too."""

    def forward(self, images: Tensor) -> Any:
        return self.layers(images) + torch.rand(2)


def test_it_runs_where_impon_hpo_cannot_be_imported() -> None:
    torch.manual_seed(0)
    model = model_of(Answers())
    told = export_model(model, FILE, {"study": "pets", "trial": 7})
    images = torch.randint(0, 256, (5, 3, 6, 5), dtype=torch.uint8)
    facts, logits = elsewhere(images)
    with torch.no_grad():
        expected = model(images)
    for n, answer in zip((1, 2, 5), logits, strict=True):
        torch.testing.assert_close(answer, expected[:n])
    assert facts == told | {"value": None}  # JSON has no NaN
    assert (facts["study"], facts["trial"]) == ("pets", 7)
    assert facts["classes"] == ["cat", "chien rusé"]
    assert facts["input"]["shape"] == ["N", 3, 6, 5]
    assert facts["settings"]["model"] == "my_nets:Net"
    assert facts["versions"]["torch"] == version("torch")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (ByValue, "torch.export cannot take model 'my_nets:Net': Could not guard on data"),
        (OfTwo, r"Constraints violated \(batch\)! - You marked batch as dynamic"),
        (Drawing, "computes something else once it is exported"),
    ],
)
def test_model_that_cannot_be_exported_leaves_the_former_file(
    network: type[nn.Module], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    FILE.write_text("former")
    with pytest.raises(ConfigError, match=message) as caught:
        export_model(model_of(network()), FILE, {})
    assert "\n" not in str(caught.value)
    assert "load_model gives" in str(caught.value)
    assert FILE.read_text() == "former"
    assert [path.name for path in Path().iterdir()] == ["model.pt2"]
    assert capfd.readouterr() == ("", "")  # not the graph that torch prints


def test_former_file_is_replaced_and_a_place_that_cannot_be_written_is_told() -> None:
    FILE.write_text("former")
    export_model(model_of(Answers()), FILE, {})
    files = {FACTS: ""}
    torch.export.load(FILE, extra_files=files)
    assert json.loads(files[FACTS])["epoch"] == 0
    with pytest.raises(StorageError, match=r"model.pt2/inside.pt2' cannot be written"):
        export_model(model_of(Answers()), FILE / "inside.pt2", {})
