"""The memory of a run, worked by hand, and the same after a resume."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import torch

from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import train_epochs
from tests.training.runs import assert_same_state, config


def logits(*probabilities: float) -> torch.Tensor:
    """Logits of two classes of which the first has these probabilities."""
    p = torch.tensor(probabilities)
    return torch.stack([p.log(), (1 - p).log()], dim=1)


def test_loss_and_probabilities_are_means_over_the_visits() -> None:
    memory = RowMemory(torch.tensor([0, 1, 0]), 2)
    memory.add(torch.tensor([0, 1]), logits(0.5, 0.2))
    memory.add(torch.tensor([0, 2]), logits(0.25, 0.8))
    reference = memory.reference()
    expected = [(math.log(2) + math.log(4)) / 2, -math.log(0.8), -math.log(0.8)]
    torch.testing.assert_close(reference.loss, torch.tensor(expected))
    torch.testing.assert_close(reference.probabilities[:, 0], torch.tensor([0.375, 0.2, 0.8]))
    assert memory.share_seen == 1.0


def test_row_never_visited_gets_the_mean_of_its_class() -> None:
    memory = RowMemory(torch.tensor([0, 0, 0, 1]), 2)
    memory.add(torch.tensor([0, 1]), logits(0.5, 0.25))
    reference = memory.reference()
    assert memory.share_seen == 0.5
    torch.testing.assert_close(reference.loss[2], torch.tensor(1.5 * math.log(2)))
    torch.testing.assert_close(reference.probabilities[2], torch.tensor([0.375, 0.625]))
    assert reference.loss[3] == 0  # of its class nothing is known at all


def test_logits_that_are_not_finite_are_no_visit() -> None:
    memory = RowMemory(torch.tensor([0, 1]), 2)
    memory.add(torch.tensor([0, 1]), torch.tensor([[math.nan, 0.0], [0.0, math.inf]]))
    assert memory.share_seen == 0.0
    assert bool(torch.isfinite(memory.reference().loss).all())


def test_resumed_run_remembers_what_the_whole_one_does(tiny_splits: Splits, tmp_path: Path) -> None:
    def fresh() -> RowMemory:
        return RowMemory(tiny_splits.train.labels, tiny_splits.n_classes)

    whole, first, second = fresh(), fresh(), fresh()
    list(train_epochs(config(), tiny_splits, memory=whole))
    checkpoint = Checkpoint(tmp_path / "c.pt")
    list(islice(train_epochs(config(), tiny_splits, checkpoint, first), 1))
    list(train_epochs(config(), tiny_splits, checkpoint, second))
    assert_same_state(second.state_dict(), whole.state_dict())


def test_trajectory_has_each_epoch_s_losses_and_keeps_those_of_rows_left_out() -> None:
    memory = RowMemory(torch.tensor([0, 0, 0]), 2)
    memory.add(torch.tensor([0, 1]), logits(0.5, 0.25))
    memory.end_epoch()
    memory.add(torch.tensor([0, 0]), logits(0.25, 0.125))
    memory.end_epoch()
    trajectory = memory.reference().trajectory
    assert trajectory is not None
    bits = trajectory / math.log(2)
    # Row 2 was never visited: the mean of its class, (1 + 2 + 2 + 3) / 4 bits.
    expected = torch.tensor([[1.0, 2.0, 2.0], [2.5, 2.0, 2.0]])
    torch.testing.assert_close(bits, expected)


def test_memory_changes_no_number_of_the_run(tiny_splits: Splits) -> None:
    memory = RowMemory(tiny_splits.train.labels, tiny_splits.n_classes)
    with_memory = [result.val_loss for result in train_epochs(config(), tiny_splits, memory=memory)]
    assert with_memory == [result.val_loss for result in train_epochs(config(), tiny_splits)]


def test_visit_that_is_not_finite_leaves_the_means_of_the_others() -> None:
    memory = RowMemory(torch.tensor([0, 1]), 2)
    memory.add(torch.tensor([0, 1]), logits(0.5, 0.2))
    memory.add(torch.tensor([0, 1]), torch.tensor([[math.nan, 0.0], [math.inf, 0.0]]))
    memory.add(torch.tensor([0]), logits(0.25))
    reference = memory.reference()
    expected = [1.5 * math.log(2), -math.log(0.8)]
    torch.testing.assert_close(reference.loss, torch.tensor(expected))
    torch.testing.assert_close(reference.probabilities[:, 0], torch.tensor([0.375, 0.2]))


def test_state_goes_into_another_memory_and_is_no_window_on_it() -> None:
    one, other = RowMemory(torch.tensor([0, 1]), 2), RowMemory(torch.tensor([0, 1]), 2)
    one.add(torch.tensor([0, 1]), logits(0.5, 0.2))
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.reference().loss, one.reference().loss)
    one.add(torch.tensor([0]), logits(0.25))
    torch.testing.assert_close(float(other.reference().loss[0]), math.log(2))


def test_loss_that_overflows_is_no_visit() -> None:
    memory = RowMemory(torch.tensor([1, 0]), 2)
    memory.add(torch.tensor([0]), torch.tensor([[3e38, -3e38]]))
    assert memory.share_seen == 0.0
    assert bool(torch.isfinite(memory.reference().loss).all())
