"""What is reported of predictions, against scikit-learn."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from impon_hpo.training.metrics import METRICS
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import TrainingRun
from tests.training.runs import config, results_of

N = 5
pairs = st.lists(st.tuples(st.integers(0, N - 1), st.integers(0, N - 1)), min_size=1, max_size=40)


def expected(metric: str, truth: list[int], guessed: list[int]) -> float:
    with warnings.catch_warnings():  # that a guess is of a class which no row has
        warnings.simplefilter("ignore")
        if metric == "accuracy":
            return float(accuracy_score(truth, guessed))
        if metric == "balanced-accuracy":
            return float(balanced_accuracy_score(truth, guessed))
        there = sorted(set(truth))
        return float(f1_score(truth, guessed, labels=there, average="macro", zero_division=0))


@pytest.mark.parametrize("metric", sorted(METRICS))
@given(pairs=pairs)
def test_metrics_are_scikit_learns(metric: str, pairs: list[tuple[int, int]]) -> None:
    truth, guessed = (list(one) for one in zip(*pairs, strict=True))
    right = [one for one, other in pairs if one == other]
    counts = [
        torch.bincount(torch.tensor(part).long(), minlength=N) for part in (right, truth, guessed)
    ]
    found = METRICS[metric](*counts)
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(expected(metric, truth, guessed), abs=1e-12)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_a_run_reports_its_metric(tiny_splits: Splits, metric: str) -> None:
    run = TrainingRun(config(metric=metric, epoch_fraction=1.0), tiny_splits)
    result = run.train_epoch()
    guessed = run.training_step.predict(tiny_splits.validation.images[:]).argmax(1).tolist()
    truth = tiny_splits.validation.labels.tolist()
    assert result.val_accuracy == pytest.approx(expected(metric, truth, guessed), abs=1e-12)


def test_a_loss_is_reported_as_minus_loss(tiny_splits: Splits) -> None:
    def apart(results: list[dict[str, Any]]) -> tuple[list[float], list[dict[str, Any]]]:
        return [one.pop("val_accuracy") for one in results], results

    values, rest = apart(results_of(tiny_splits, metric="loss"))
    assert values == [-one["val_loss"] for one in rest]
    assert rest == apart(results_of(tiny_splits))[1]
