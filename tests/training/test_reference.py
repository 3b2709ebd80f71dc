"""A kept reference: written whole, read back, and refused where it is broken or foreign."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from impon_hpo.errors import CheckpointError
from impon_hpo.training.reference import KeptReference, reference_key
from impon_hpo.training.splits import Split, Splits


def kept(splits: Splits) -> KeptReference:
    assert splits.reference is not None
    return KeptReference(splits.reference, 1234, "crossfit", {"folds": 2}, splits.fingerprint)


def test_what_is_saved_is_what_is_loaded(tiny_splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "reference.pt"
    one = kept(tiny_splits)
    one.save(path)
    found = KeptReference.load(path, tiny_splits)
    assert torch.equal(found.reference.loss, one.reference.loss)
    torch.testing.assert_close(
        found.reference.probabilities, one.reference.probabilities, atol=1e-3, rtol=1e-3
    )
    assert found.reference.trajectory is not None
    assert (found.cost, found.maker, found.settings) == (1234, "crossfit", {"folds": 2})
    assert [file.name for file in path.parent.iterdir()] == ["reference.pt"]


def test_reference_of_other_data_says_what_differs(tiny_splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "r.pt"
    kept(tiny_splits).save(path)
    train = tiny_splits.train
    fewer = dataclasses.replace(
        tiny_splits, train=Split(train.images[:100], train.labels[:100]), reference=None
    )
    with pytest.raises(CheckpointError, match=r"rows is 320 there and 100 here; images"):
        KeptReference.load(path, fewer)
    relabelled = dataclasses.replace(
        tiny_splits, train=Split(train.images, train.labels.flip(0)), reference=None
    )
    with pytest.raises(CheckpointError, match=r"other data: labels is '\w+' there") as caught:
        KeptReference.load(path, relabelled)
    assert "images" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 10, 1000])
def test_file_cut_short_is_refused(length: int, tiny_splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "r.pt"
    kept(tiny_splits).save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"cannot be read: .*Delete it, and it is made anew"):
        KeptReference.load(path, tiny_splits)


def test_foreign_file_is_refused(tiny_splits: Splits, tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "r.pt")
    with pytest.raises(CheckpointError, match="no reference of format 1"):
        KeptReference.load(tmp_path / "r.pt", tiny_splits)


def test_history_of_fewer_rows_is_refused(tiny_splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "r.pt"
    kept(tiny_splits).save(path)
    state = torch.load(path, weights_only=True)
    torch.save(state | {"loss": state["loss"][:50]}, path)
    with pytest.raises(CheckpointError, match="is broken: A reference has loss"):
        KeptReference.load(path, tiny_splits)


def test_folder_that_cannot_be_written_is_told(tiny_splits: Splits, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        kept(tiny_splits).save(tmp_path / "file" / "r.pt")


def test_key_follows_data_maker_and_settings(tiny_splits: Splits) -> None:
    data = tiny_splits.fingerprint
    key = reference_key(data, "crossfit", {"folds": 2})
    assert key == reference_key(dict(data), "crossfit", {"folds": 2})
    others = {
        reference_key(data | {"rows": 1}, "crossfit", {"folds": 2}),
        reference_key(data, "prequential", {"folds": 2}),
        reference_key(data, "crossfit", {"folds": 3}),
    }
    assert len(others | {key}) == 4
