"""Batch samplers inside a DataLoader: rows arrive with the batch, losses go back in order."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.loader import IndexedDataset, LoaderBatchSampler
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.table import SAMPLERS, make_sampler
from tests.sampling.courses import deep_model, image_rows

N_ROWS, BATCH = 240, 16


MODEL = deep_model().eval()
ROWS = image_rows(N_ROWS)


def batches_of(name: str, **options: Any) -> tuple[LoaderBatchSampler, Rows]:
    sampler = make_sampler(
        name, ROWS, options, batch_size=BATCH, model=MODEL, seed=3, total_steps=45
    )
    return LoaderBatchSampler(sampler, forward=losses_of), ROWS


def losses_of(rows: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        logits = MODEL(ROWS.read(rows))
    return cross_entropy(logits, ROWS.labels[rows], reduction="none"), logits


def loader_of(batches: LoaderBatchSampler, rows: Rows, **options: Any) -> DataLoader[Any]:
    data = IndexedDataset(TensorDataset(rows.inputs[:], rows.labels))
    return DataLoader(data, batch_sampler=batches, **options)


@pytest.mark.parametrize("name", SAMPLERS)
def test_without_workers_it_draws_what_a_plain_loop_draws(name: str) -> None:
    batches, rows = batches_of(name)
    plain, _ = batches_of(name)
    loader = loader_of(batches, rows)
    assert len(loader) == N_ROWS // BATCH
    for epoch in (1, 2, 3):
        plain.sampler.start_epoch(epoch)
        for drawn, (inputs, labels) in loader:
            expected = plain.sampler.draw(losses_of)
            assert torch.equal(drawn, expected.rows)
            assert torch.equal(inputs, rows.inputs[drawn])
            assert torch.equal(labels, rows.labels[drawn])
            weights = batches.draw(drawn).weights
            assert (weights is None) == (expected.weights is None)
            batches.observe(drawn, *losses_of(drawn))
            plain.sampler.observe(expected, *losses_of(drawn))


def test_workers_ask_for_at_most_their_prefetch_ahead() -> None:
    batches, rows = batches_of("impon")
    loader = loader_of(batches, rows, num_workers=2, prefetch_factor=2)
    ahead = []
    for drawn, _ in loader:
        batches.observe(drawn, *losses_of(drawn))
        ahead.append(len(batches._open))
    assert len(ahead) == N_ROWS // BATCH
    assert 0 < max(ahead) <= 2 * 2
    assert ahead[-1] == 0


def test_batches_are_observed_in_their_order() -> None:
    batches, _ = batches_of("impon")
    first, second = (torch.tensor(rows) for rows in islice(batches, 2))
    with pytest.raises(ConfigError, match="in the order in which they arrived"):
        batches.observe(second, *losses_of(second))
    batches.observe(first, *losses_of(first))
    batches.observe(second, *losses_of(second))
    with pytest.raises(ConfigError, match="no batch that has not been observed"):
        batches.observe(second, *losses_of(second))


def test_wrong_length_of_losses_loses_nothing() -> None:
    batches, _ = batches_of("impon")
    rows = torch.tensor(next(iter(batches)))
    with pytest.raises(ConfigError, match=r"\(16,\).*\(3,\)"):
        batches.observe(rows, torch.zeros(3))
    batches.observe(rows, *losses_of(rows))


def test_an_epoch_left_in_the_middle_is_forgotten() -> None:
    batches, _ = batches_of("impon")
    next(iter(batches))
    rows = torch.tensor(next(iter(batches)))
    batches.observe(rows, *losses_of(rows))
    assert not batches._open


def test_steps_of_an_epoch_can_be_chosen_and_must_be_there() -> None:
    batches, _ = batches_of("uniform")
    assert len(list(LoaderBatchSampler(batches.sampler, n_steps=4))) == 4
    with pytest.raises(ConfigError, match="n_steps=0"):
        LoaderBatchSampler(batches.sampler, n_steps=0)


def test_scoring_samplers_need_a_forward_function() -> None:
    batches, _ = batches_of("rho-loss")
    with pytest.raises(ConfigError, match="needs forward="):
        LoaderBatchSampler(batches.sampler)
