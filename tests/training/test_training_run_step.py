"""The steps, scores and validation of a training run, against plain PyTorch."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from impon_hpo.sampling.base import Draw, Forward
from impon_hpo.sampling.methods.uniform import Uniform
from impon_hpo.training import splits as splits_module
from impon_hpo.training.images import Images
from impon_hpo.training.splits import Split, Splits
from impon_hpo.training.training_run import TrainingRun
from tests.training.runs import (
    config,
    linear,
    results_of,
)

LINEAR = "tests.training.runs:linear"


class Peeking(Uniform):
    """Scores rows and forgets the scores: the run must be that of `uniform`."""

    needs_forward = True
    seen: ClassVar[list[dict[str, Any]]] = []

    def _draw(self, forward: Forward | None) -> Draw:
        assert forward is not None
        rows = torch.arange(7)
        before = {name: value.clone() for name, value in self.model.named_buffers()}
        losses, logits = forward(rows)
        after = dict(self.model.named_buffers())
        self.seen.append(
            {
                "losses": losses,
                "logits": logits,
                "training": self.model.training,
                "buffers kept": all(torch.equal(before[name], after[name]) for name in before),
            }
        )
        return super()._draw(None)


class Weightless(Uniform):
    """Gives every row the weight 0."""

    def _draw(self, forward: Forward | None) -> Draw:
        return Draw(super()._draw(None).rows, torch.zeros(self.batch_size))


class Doubled(Uniform):
    """Gives every row the weight 2."""

    def _draw(self, forward: Forward | None) -> Draw:
        return Draw(super()._draw(None).rows, torch.full((self.batch_size,), 2.0))


class Noting(Uniform):
    """Notes the rows that it draws."""

    drawn: ClassVar[list[Tensor]] = []

    def _draw(self, forward: Forward | None) -> Draw:
        draw = super()._draw(None)
        self.drawn.append(draw.rows)
        return draw


@pytest.fixture(autouse=True)
def _empty_notes() -> None:
    Peeking.seen.clear()
    Noting.drawn.clear()


def test_scoring_leaves_the_model_and_its_statistics_as_they_are(tiny_splits: Splits) -> None:
    peeking = results_of(tiny_splits, sampler=f"{__name__}:Peeking")
    plain = results_of(tiny_splits)
    assert len(Peeking.seen) == 9
    assert all(one["training"] and one["buffers kept"] for one in Peeking.seen)
    for with_scores, without in zip(peeking, plain, strict=True):
        assert with_scores.pop("rows_scored") == 3 * 7
        assert with_scores.pop("cost") == without.pop("cost") + 3 * 7
        assert without.pop("rows_scored") == 0
        assert with_scores == without


def test_scores_are_the_losses_in_evaluation_mode_without_gradients(tiny_splits: Splits) -> None:
    run = TrainingRun(config(sampler=f"{__name__}:Peeking"), tiny_splits)
    run.model.eval()
    with torch.no_grad():
        inputs = tiny_splits.normalise(tiny_splits.train.images[:7])
        logits = run.model(inputs.contiguous(memory_format=torch.channels_last))
    run.train_epoch()
    first = Peeking.seen[0]
    assert not first["losses"].requires_grad
    assert not first["logits"].requires_grad
    torch.testing.assert_close(first["logits"], logits)
    expected = -logits.log_softmax(1)[torch.arange(7), tiny_splits.train.labels[:7]]
    torch.testing.assert_close(first["losses"], expected)


def parameters_of(run: TrainingRun) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in run.model.parameters()]


def test_weights_of_zero_leave_the_parameters_unchanged(tiny_splits: Splits) -> None:
    still = config(sampler=f"{__name__}:Weightless", weight_decay=0.0, momentum=0.0)
    run = TrainingRun(still, tiny_splits)
    before = parameters_of(run)
    result = run.train_epoch()
    assert all(
        torch.equal(old, new) for old, new in zip(before, run.model.parameters(), strict=True)
    )
    assert result.train_loss > 1.0  # the losses are told as they are


def test_weights_of_two_are_twice_the_learning_rate(tiny_splits: Splits) -> None:
    # Doubling is exact in binary, so the runs agree to the bit, the unweighted losses too.
    doubled = results_of(tiny_splits, sampler=f"{__name__}:Doubled", lr=0.05, weight_decay=0.0)
    plain = results_of(tiny_splits, lr=0.1, weight_decay=0.0)
    assert doubled == plain
    assert doubled != results_of(tiny_splits, lr=0.05, weight_decay=0.0)


def test_steps_are_those_of_plain_pytorch(tiny_splits: Splits) -> None:
    noting = config(
        model=LINEAR,
        autocast=False,
        sampler=f"{__name__}:Noting",
        schedule="constant",
        momentum=0.5,
    )
    run = TrainingRun(noting, dataclasses.replace(tiny_splits, augment="none"))
    model = linear(10)
    model.load_state_dict(run.model.state_dict())
    run.train_epoch()

    pixels = tiny_splits.train.images[:].float().permute(0, 3, 1, 2)
    inputs = (pixels - pixels.mean()) / pixels.std(correction=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5, weight_decay=5e-4)
    assert len(Noting.drawn) == 3
    for rows in Noting.drawn:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[rows]), tiny_splits.train.labels[rows]).backward()
        optimizer.step()
    for expected, found in zip(model.parameters(), run.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_training_loss_is_the_mean_over_the_rows(smoothing: float, tiny_splits: Splits) -> None:
    still = config(
        model=LINEAR,
        autocast=False,
        lr=1e-30,
        weight_decay=0.0,
        epoch_fraction=1.0,
        label_smoothing=smoothing,
    )
    run = TrainingRun(still, dataclasses.replace(tiny_splits, augment="none"))
    result = run.train_epoch()
    with torch.no_grad():
        log_p = run.model(tiny_splits.normalise(tiny_splits.train.images[:])).log_softmax(1)
        val_log_p = run.model(tiny_splits.normalise(tiny_splits.validation.images[:])).log_softmax(
            1
        )
    of_label = -log_p.gather(1, tiny_splits.train.labels[:, None])[:, 0]
    expected = (1 - smoothing) * of_label.mean() + smoothing * -log_p.mean()
    assert result.train_loss == pytest.approx(float(expected), rel=1e-5)
    # Validation is never smoothed.
    of_label = -val_log_p.gather(1, tiny_splits.validation.labels[:, None])[:, 0]
    assert result.val_loss == pytest.approx(float(of_label.mean()), rel=1e-5)


def test_validation_is_that_of_plain_pytorch(tiny_splits: Splits) -> None:
    run = TrainingRun(config(epoch_fraction=1.0), tiny_splits)
    result = run.train_epoch()
    train, validation = tiny_splits.train, tiny_splits.validation
    pixels = train.images[:].double()
    inputs = (validation.images[:].double() - pixels.mean()) / pixels.std(correction=0)
    run.model.eval()
    with torch.no_grad():
        logits = run.model(inputs.permute(0, 3, 1, 2).float())
    hits = [int(row.argmax()) == int(label) for row, label in zip(logits, validation.labels)]  # noqa: B905
    losses = [
        float(row.logsumexp(0) - row[label])
        for row, label in zip(logits, validation.labels.tolist(), strict=True)
    ]
    assert result.val_accuracy == sum(hits) / 162
    assert result.val_loss == pytest.approx(sum(losses) / 162, rel=1e-4)


def test_validation_in_parts_is_that_of_the_whole(
    tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrainingRun(config(), tiny_splits)
    run.train_epoch()
    whole = run.evaluate(tiny_splits.validation)
    monkeypatch.setattr(splits_module, "PASS_ROWS", 50)
    accuracy, loss = run.evaluate(tiny_splits.validation)
    assert accuracy == whole[0]
    assert loss == pytest.approx(whole[1], rel=1e-5)


def balanced_run(splits: Splits, **given: Any) -> TrainingRun:
    """A run that judges balanced accuracy and has learnt to tell some classes apart."""
    run = TrainingRun(config(metric="balanced-accuracy", epoch_fraction=1.0, **given), splits)
    for _ in range(3):
        run.train_epoch()
    return run


@pytest.mark.parametrize("classes", [range(10), [0, 1, 7], [3]], ids=str)
def test_balanced_accuracy_is_scikit_learns(tiny_splits: Splits, classes: Sequence[int]) -> None:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score

    run = balanced_run(tiny_splits)
    test = tiny_splits.test
    # Ever fewer rows of the later classes, and none of some.
    rows = torch.cat(
        [(test.labels == label).nonzero()[: 17 - 2 * at, 0] for at, label in enumerate(classes)]
    )
    split = Split(test.images.of(rows), test.labels[rows])
    truth = split.labels.tolist()
    guessed = run.training_step.predict(split.images[:]).argmax(1).tolist()
    assert len(set(guessed)) > 1
    with warnings.catch_warnings():  # that a guess is of a class which no row has
        warnings.simplefilter("ignore", UserWarning)
        expected = balanced_accuracy_score(truth, guessed)
    assert run.evaluate(split)[0] == pytest.approx(expected, abs=1e-12)
    plain = TrainingRun(config(), tiny_splits)
    plain.model.load_state_dict(run.model.state_dict())
    assert plain.evaluate(split) == (accuracy_score(truth, guessed), run.evaluate(split)[1])


def test_metric_changes_what_is_validated_and_nothing_else(tiny_splits: Splits) -> None:
    labels = tiny_splits.validation.labels
    few = torch.cat([(labels == label).nonzero()[: label + 1, 0] for label in range(10)])
    validation = Split(tiny_splits.validation.images.of(few), labels[few])
    splits = dataclasses.replace(tiny_splits, validation=validation)
    plain, balanced = results_of(splits), results_of(splits, metric="balanced-accuracy")
    assert [epoch.pop("val_accuracy") for epoch in plain] != [
        epoch.pop("val_accuracy") for epoch in balanced
    ]
    assert plain == balanced


def test_balanced_accuracy_of_the_averaged_weights_in_parts_is_that_of_the_whole(
    tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = balanced_run(tiny_splits, eval_weights="ema")
    whole = {weights: run.evaluate(tiny_splits.test, weights)[0] for weights in ("ema", "last")}
    assert whole["ema"] != whole["last"]
    monkeypatch.setattr(splits_module, "PASS_ROWS", 50)
    for weights, accuracy in whole.items():
        assert run.evaluate(tiny_splits.test, weights)[0] == accuracy


def test_validation_changes_nothing(tiny_splits: Splits) -> None:
    run = TrainingRun(config(), tiny_splits)
    run.train_epoch()
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.evaluate(tiny_splits.validation)
    after = run.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_training_never_learns_from_the_validation_rows(tiny_splits: Splits) -> None:
    validation = tiny_splits.validation
    other = dataclasses.replace(
        tiny_splits,
        validation=Split(Images.of_tensor(255 - validation.images[:]), validation.labels.flip(0)),
    )
    first, second = results_of(tiny_splits), results_of(other)
    assert [one["train_loss"] for one in first] == [one["train_loss"] for one in second]
    assert [one["val_loss"] for one in first] != [one["val_loss"] for one in second]


def test_training_rows_are_not_changed(tiny_splits: Splits) -> None:
    before = tiny_splits.train.images[:].clone()
    results_of(dataclasses.replace(tiny_splits, augment="crop+flip"))
    assert torch.equal(tiny_splits.train.images[:], before)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_autocast_and_memory_format_are_as_told(
    autocast: bool, channels_last: bool, tiny_splits: Splits
) -> None:
    given = config(autocast=autocast, channels_last=channels_last, epochs=1)
    run = TrainingRun(given, tiny_splits)
    kinds: set[torch.dtype] = set()
    layer = run.model.get_submodule("blocks.4.conv1")

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        kinds.add(output.dtype)

    layer.register_forward_hook(note)
    result = run.train_epoch()
    assert kinds == {torch.bfloat16 if autocast else torch.float32}
    # Not of the outputs: those of images of one channel are in both formats at once.
    weight = layer.get_parameter("weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) is channels_last
    assert math.isfinite(result.train_loss)
    assert math.isfinite(result.val_loss)
    assert run.training_step.predict(tiny_splits.validation.images[:2]).dtype == torch.float32
    assert all(parameter.dtype == torch.float32 for parameter in run.model.parameters())


def test_autocast_changes_the_loss_by_little(tiny_splits: Splits) -> None:
    exact, rough = (
        results_of(tiny_splits, autocast=autocast, epochs=1)[0]["train_loss"]
        for autocast in (False, True)
    )
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.1)
