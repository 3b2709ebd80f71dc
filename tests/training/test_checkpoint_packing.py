"""Packing: any state comes back as it was, and few tensors are written."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from impon_hpo.training.checkpoint import JOINED, pack, read_state, unpack, write_state

CPU = torch.device("cpu")

TENSORS = {
    "scalar": torch.tensor(3.5),
    "count": torch.tensor(7, dtype=torch.int64),
    "empty": torch.zeros(0, 4),
    "flags": torch.tensor([True, False]),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
    "double": torch.rand(3, 4, dtype=torch.float64),
    "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "transposed": torch.rand(3, 4).T,
    "with gaps": torch.rand(6, 4)[::2, 1:3],
    "overlapping": torch.rand(1, 4).expand(3, 4),
    "parameter": nn.Parameter(torch.rand(2, 2)),
}


def same(found: Tensor, expected: Tensor) -> bool:
    return found.dtype == expected.dtype and torch.equal(
        found.nan_to_num(-1.0), expected.detach().nan_to_num(-1.0)
    )


@pytest.mark.parametrize("name", list(TENSORS))
def test_tensor_comes_back(name: str) -> None:
    found = unpack(pack({"there": TENSORS[name], "before": torch.rand(3)}))["there"]
    assert found.shape == TENSORS[name].shape
    assert same(found, TENSORS[name])


@pytest.mark.parametrize("name", ["channels last", "transposed"])
def test_strides_without_gaps_come_back(name: str) -> None:
    assert unpack(pack({"it": TENSORS[name]}))["it"].stride() == TENSORS[name].stride()


def test_everything_else_comes_back_in_its_place() -> None:
    state = {"a": [1, (2.5, None)], "b": {"tensor": "a word"}, 0: "text", "d": {}}
    assert unpack(pack(state)) == state


def test_a_models_state_keeps_its_versions() -> None:
    state = nn.BatchNorm2d(3).state_dict()
    found = unpack(pack({"model": state}))["model"]
    assert isinstance(found, OrderedDict)
    assert vars(found) == vars(state)
    assert all(same(found[name], state[name]) for name in state)


def test_one_tensor_a_dtype_is_written() -> None:
    joined = pack(TENSORS)[JOINED]
    assert len(joined) == len({tensor.dtype for tensor in TENSORS.values()})
    assert sum(map(len, joined)) == sum(tensor.numel() for tensor in TENSORS.values())


def test_what_comes_back_has_memory_of_its_own() -> None:
    found = unpack(pack({"a": torch.zeros(2), "b": torch.zeros(2)}))
    found["a"] += 1
    assert found["b"].tolist() == [0, 0]
    assert found["a"].untyped_storage().nbytes() == 8


def test_state_is_not_changed_by_packing() -> None:
    listed, named = [torch.ones(2)], OrderedDict(tensor=torch.ones(1))
    pack({"listed": listed, "named": named})
    assert isinstance(listed[0], Tensor)
    assert isinstance(named["tensor"], Tensor)


def test_file_brings_it_back(tmp_path: Path) -> None:
    write_state(tmp_path / "state.pt", TENSORS | {"n": 3}, "State")
    found = read_state(tmp_path / "state.pt", CPU, "State", "")
    assert found.pop("n") == 3
    assert all(same(found[name], TENSORS[name]) for name in TENSORS)


def test_file_of_a_version_that_did_not_pack_is_read(tmp_path: Path) -> None:
    torch.save({"weights": torch.ones(2), "format": 3}, tmp_path / "state.pt")
    found = read_state(tmp_path / "state.pt", CPU, "State", "")
    assert found["format"] == 3
    assert found["weights"].tolist() == [1, 1]
