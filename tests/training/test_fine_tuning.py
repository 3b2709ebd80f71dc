"""Fine-tuning: what is trained, what is frozen, and what of it must not move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from impon_hpo.errors import ConfigError
from impon_hpo.training.fine_tuning import freeze, heads
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import TrainingRun
from tests.training.nets import Body
from tests.training.runs import config
from tests.training.test_training_run_resume import assert_resumes

BODY = "tests.training.nets:Body"


def run_of(splits: Splits, **given: Any) -> TrainingRun:
    return TrainingRun(config(model=BODY, **given), splits)


def trained(model: nn.Module) -> list[str]:
    return [name for name, one in model.named_parameters() if one.requires_grad]


FC = ["fc.weight", "fc.bias"]
CONV2, BN2 = ["layer2.0.weight", "layer2.0.bias"], ["layer2.1.weight", "layer2.1.bias"]


@pytest.mark.parametrize(
    ("names", "expected", "n_frozen_norms"),
    [
        ("fc", FC, 2),
        ("head", FC, 2),
        ("layer2, fc", CONV2 + BN2 + FC, 1),
        (" layer2 ,head,", CONV2 + BN2 + FC, 1),
        ("layer2.1", BN2, 1),
        ("layer2.0.weight", ["layer2.0.weight"], 2),
        ("bn1.weight,fc.bias", ["bn1.weight", "fc.bias"], 1),
    ],
)
def test_names_and_their_parts_are_trained(
    names: str, expected: list[str], n_frozen_norms: int
) -> None:
    model = Body(10)
    frozen = freeze(config(train_layers=names), model, 10)
    assert trained(model) == expected
    assert len(frozen) == n_frozen_norms


def test_all_is_as_it_was() -> None:
    model = Body(10)
    model.conv1.weight.requires_grad_(False)
    before = trained(model)
    assert freeze(config(train_layers="all"), model, 10) == []
    assert trained(model) == before


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("layer4", r"no parameter to train in 'layer4'\. Did you mean 'layer2'\?"),
        ("fc, layer", r"no parameter to train in 'layer'"),
        ("layer2.2", r"no parameter to train in 'layer2\.2'"),
        ("", r"train_layers is empty: .* has: all, head, conv1, bn1, layer2, fc, and"),
        (" , ", r"train_layers is empty"),
    ],
)
def test_names_of_nothing_are_refused(tiny_splits: Splits, names: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_of(tiny_splits, train_layers=names)


@pytest.mark.parametrize("weights", ["last", "ema"])
def test_what_is_frozen_does_not_move(tiny_splits: Splits, weights: str) -> None:
    run = run_of(tiny_splits, train_layers="layer2.0, head", eval_weights=weights)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train_epoch()
    run.train_epoch()
    moved = [
        name
        for name, value in run.model.state_dict().items()
        if not torch.equal(value, before[name])
    ]
    assert moved == CONV2 + FC
    if run.averaged is not None:
        averaged = run.averaged.module.state_dict()
        same = [name for name in averaged if torch.equal(averaged[name], before[name])]
        assert sorted(same) == sorted(set(before) - set(moved))


def test_scoring_in_between_leaves_frozen_normalisation_frozen(tiny_splits: Splits) -> None:
    run = run_of(tiny_splits, train_layers="head")
    run.training_step.begin_training()
    run.training_step.predict(tiny_splits.train.images[:4])
    modes = {name: module.training for name, module in run.model.named_modules()}
    assert [name for name, training in modes.items() if not training] == ["bn1", "layer2.1"]


def test_optimiser_holds_nothing_that_is_frozen(tiny_splits: Splits) -> None:
    run = run_of(tiny_splits, train_layers="head", optimizer="adam")
    run.train_epoch()
    held = [one for group in run.optimizer.param_groups for one in group["params"]]
    assert len(held) == len(run.optimizer.state) == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_resumed_run_with_a_rate_for_the_head_goes_on(
    tiny_splits: Splits, tmp_path: Path, optimizer: str, schedule: str
) -> None:
    given = config(
        model=BODY,
        train_layers="layer2, head",
        optimizer=optimizer,
        schedule=schedule,
        lr=0.01,
        lr_head=0.03,
    )
    assert_resumes(given, tiny_splits, tmp_path)


def named(model: nn.Module, n_outputs: int) -> list[str]:
    return list(heads(model, n_outputs))


class Convolved(nn.Module):
    """As SqueezeNet: a convolution gives the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 7, 3)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(7, 7, 1), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images)).mean((2, 3))  # type: ignore[no-any-return]


def test_head_is_the_last_layer_of_so_many_outputs() -> None:
    assert named(Body(4), 4) == ["fc"]  # and not a convolution of 4 channels
    assert named(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), 3) == ["1"]
    assert named(Convolved(), 7) == ["classifier.1"]
    assert named(Body(4), 5) == []


def test_auxiliary_heads_are_heads(tiny_splits: Splits) -> None:
    given = {"model": "tests.training.nets:with_auxiliary", "model_options": {"answer": "tuple"}}
    run = TrainingRun(config(train_layers="head", **given), tiny_splits)
    assert trained(run.model) == ["aux_fc.weight", "aux_fc.bias", *FC]


def headless(num_classes: int) -> nn.Module:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(64, 5), nn.Linear(64, num_classes - 5)

        def forward(self, images: Tensor) -> Tensor:
            pixels = images.flatten(1)
            return torch.cat([self.left(pixels), self.right(pixels)], 1)

    return Halves()


@pytest.mark.parametrize("given", [{"train_layers": "head"}, {"lr_head": 0.1}], ids=str)
def test_head_that_is_not_found_is_said(tiny_splits: Splits, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"has no nn\.Linear or nn\.Conv2d with 10 outputs"):
        TrainingRun(config(model=f"{__name__}:headless", **given), tiny_splits)
