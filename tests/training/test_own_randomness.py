"""Global random numbers lent to a block: of its own inside, untouched outside, in a checkpoint."""

from __future__ import annotations

import io
import random
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from impon_hpo.training.checkpoint import pack, unpack
from impon_hpo.training.own_randomness import OwnRandomness

CPU = torch.device("cpu")


def drawn() -> list[Any]:
    """Draw from all three generators, also what they keep from one draw for the next."""
    return [
        torch.rand(3).tolist(),
        torch.randn(17).tolist(),
        np.random.rand(),
        np.random.randn(),
        random.random(),
        random.gauss(0, 1),
    ]


def test_draws_depend_on_the_seed_alone() -> None:
    first, second, other = (OwnRandomness(seed, CPU, python=True) for seed in (3, 3, 4))
    with first:
        expected = drawn()
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    with second:
        assert drawn() == expected
    with other:
        assert all(one != another for one, another in zip(drawn(), expected, strict=True))


def test_blocks_go_on_where_the_last_one_ended() -> None:
    whole, parts = OwnRandomness(3, CPU, python=True), OwnRandomness(3, CPU, python=True)
    with whole:
        expected = [drawn(), drawn()]
    found = []
    for _ in range(2):
        with parts:
            found.append(drawn())
        drawn()
    assert found == expected


def test_the_callers_numbers_do_not_depend_on_a_block() -> None:
    def three(own: OwnRandomness | None) -> list[Any]:
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        before = drawn()
        if own is not None:
            with own:
                drawn()
            with pytest.raises(ZeroDivisionError), own:
                drawn()
                raise ZeroDivisionError
        return [before, drawn()]

    assert three(OwnRandomness(3, CPU, python=True)) == three(None)


def test_goes_on_from_a_checkpoint_to_the_bit() -> None:
    own, loaded = OwnRandomness(3, CPU, python=True), OwnRandomness(4, CPU, python=True)
    with own:
        drawn()
    file = io.BytesIO()
    torch.save(pack(own.state_dict()), file)
    file.seek(0)
    state = unpack(torch.load(file, weights_only=True))
    with own:
        expected = drawn()
    loaded.load_state_dict(state)
    with loaded:
        assert drawn() == expected


def test_threads_wait_for_each_other() -> None:
    def blocks(seed: int, into: list[Any]) -> None:
        own = OwnRandomness(seed, CPU, python=True)
        for _ in range(5):
            with own:
                into.append(drawn())
                time.sleep(0.001)
                into.append(drawn())

    alone: list[list[Any]] = [[], []]
    beside: list[list[Any]] = [[], []]
    for seed in (0, 1):
        blocks(seed, alone[seed])
    threads = [threading.Thread(target=blocks, args=(seed, beside[seed])) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert beside == alone


def test_nested_in_itself_it_changes_nothing_more() -> None:
    whole, nested = OwnRandomness(3, CPU, python=True), OwnRandomness(3, CPU, python=True)
    with whole:
        expected = [drawn(), drawn()]
    with nested:
        found = [drawn()]
        with nested:
            found.append(drawn())
    assert found == expected


def test_python_numbers_are_left_alone_unless_asked_for() -> None:
    np.random.seed(1)
    random.seed(1)
    expected = [np.random.rand(), random.random()]
    np.random.seed(1)
    random.seed(1)
    own = OwnRandomness(3, CPU)
    assert own.state_dict() is None
    with own:
        assert [np.random.rand(), random.random()] == expected
    assert list(own.state_dict() or {}) == ["cpu"]
