"""What models answer with: logits and auxiliary heads, and what of them is trained."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models import googlenet

from impon_hpo.errors import ConfigError
from impon_hpo.training.answers import auxiliary_share, read_answer
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import TrainingRun
from tests.training.nets import ANSWERS, N_AUXILIARY
from tests.training.runs import config, results_of

AUXILIARY = "tests.training.nets:with_auxiliary"


def run_of(splits: Splits, answer: str, **given: Any) -> TrainingRun:
    options = {"answer": answer}
    return TrainingRun(config(model=AUXILIARY, model_options=options, **given), splits)


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_logits_and_auxiliary_heads_are_read(name: str) -> None:
    main, aux = torch.randn(2, 3), torch.randn(2, 3)
    logits, others = read_answer(ANSWERS[name](main, aux))
    assert logits is main
    assert len(others) == N_AUXILIARY[name]
    assert all(one.shape == main.shape for one in others)


@pytest.mark.parametrize("answer", [None, "logits", (), (1, 2), {"loss": torch.ones(())}, object()])
def test_an_answer_without_logits_has_none(answer: Any) -> None:
    assert read_answer(answer) == (None, [])


def test_hidden_states_beside_the_logits_are_no_auxiliary_heads() -> None:
    assert read_answer((torch.ones(2, 3), torch.ones(2, 7)))[1] == []
    assert read_answer({"logits": torch.ones(2, 3), "aux_loss": torch.ones(())})[1] == []


@pytest.mark.parametrize("name", sorted(ANSWERS))
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_that_of_the_losses_added_and_what_is_told_is_the_main_one(
    tiny_splits: Splits, name: str, weighted: bool
) -> None:
    plain = dataclasses.replace(tiny_splits, augment="none")
    run = run_of(plain, name, label_smoothing=0.1, autocast=False)
    step, model = run.training_step, run.model
    step.begin_training()
    images, labels = tiny_splits.train.batch(torch.arange(8))
    weights = torch.linspace(0.5, 2, 8) if weighted else None
    begun = step.train(images, labels, weights)
    losses, logits, mean = next(begun)
    inputs = tiny_splits.normalise(images)
    main, others = read_answer(model(inputs))
    assert main is not None

    def loss(of: Tensor) -> Tensor:
        return cross_entropy(of, labels, reduction="none", label_smoothing=0.1)

    torch.testing.assert_close(losses, loss(main).detach())
    torch.testing.assert_close(logits, main.detach())
    assert float(mean) == pytest.approx(float(losses.mean()))
    shares = {0: 0.0, 1: 0.4, 2: 0.3}
    added = loss(main) + shares[N_AUXILIARY[name]] * sum(loss(one) for one in others)
    counted = added if weights is None else weights * added
    expected = torch.autograd.grad(counted.mean(), list(model.parameters()), allow_unused=True)
    grads: dict[str, Tensor | None] = {}

    def keep(*_: Any) -> None:
        grads.update({name: one.grad for name, one in model.named_parameters()})

    run.optimizer.register_step_pre_hook(keep)
    assert next(begun, None) is None
    for grad, wanted in zip(grads.values(), expected, strict=True):
        assert (grad is None) == (wanted is None)
        if grad is not None and wanted is not None:
            torch.testing.assert_close(grad, wanted)


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_run_with_an_auxiliary_head_learns(tiny_splits: Splits, name: str) -> None:
    given = {"model": AUXILIARY, "model_options": {"answer": name}}
    results = results_of(tiny_splits, epoch_fraction=1.0, **given)
    assert results[-1]["val_accuracy"] > 0.5


def test_shares_are_googlenets_and_inceptions() -> None:
    assert (auxiliary_share(1), auxiliary_share(2)) == (0.4, 0.3)


class FailsInTraining(nn.Module):
    def __init__(self, num_classes: int, how: str) -> None:
        super().__init__()
        self.fc, self.how = nn.Linear(64, num_classes), how

    def forward(self, images: Tensor) -> Any:
        logits = self.fc(images.flatten(1))
        if not self.training:
            return logits
        if self.how == "raises":
            raise ValueError("labels are needed")
        return {"loss": logits.sum()} if self.how == "no logits" else logits[:, 1:]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raises", r"fails in training mode on images of shape \(2, 1, 8, 8\): labels are needed"),
        ("no logits", r"must return logits \(2, 10\) in training mode, but returned dict\."),
        ("fewer", r"must return logits \(2, 10\) in training mode, but returned \(2, 9\)\."),
    ],
)
def test_answer_in_training_mode_is_checked_before_the_first_step(
    tiny_splits: Splits, how: str, said: str
) -> None:
    model = f"{__name__}:FailsInTraining"
    with pytest.raises(ConfigError, match=said):
        TrainingRun(config(model=model, model_options={"how": how}), tiny_splits)


def test_check_in_training_mode_leaves_everything_as_it_was(tiny_splits: Splits) -> None:
    before = torch.get_rng_state()
    run = TrainingRun(config(), tiny_splits)
    assert torch.equal(torch.get_rng_state(), before)
    statistics = dict(run.model.named_buffers())
    assert int(statistics["bn1.num_batches_tracked"]) == 0
    assert torch.equal(statistics["bn1.running_mean"], torch.zeros(4))
    assert torch.equal(statistics["bn1.running_var"], torch.ones(4))
    assert not run.model.training


def test_googlenet_of_torchvision_is_read() -> None:
    with warnings.catch_warnings():  # that its initial weights will be drawn in another way
        warnings.simplefilter("ignore", FutureWarning)
        with torch.device("meta"):
            model = googlenet(num_classes=3, aux_logits=True, init_weights=False)
            images = torch.zeros(2, 3, 64, 64)
    logits, others = read_answer(model(images))
    assert logits is not None
    assert [one.shape for one in (logits, *others)] == [(2, 3)] * 3
    logits, others = read_answer(model.eval()(images))
    assert logits is not None
    assert (logits.shape, others) == ((2, 3), [])
