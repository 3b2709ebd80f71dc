"""A kept reference: written whole, read back, and refused where it is broken or foreign."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from impon_hpo.errors import CheckpointError
from impon_hpo.training.checkpoint import unpack
from impon_hpo.training.images import Images
from impon_hpo.training.reference_folder import KeptReference
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
    torch.testing.assert_close(
        found.reference.trajectory, one.reference.trajectory, atol=1e-3, rtol=1e-3
    )
    assert found.reference.trajectory.dtype == found.reference.probabilities.dtype == torch.float32
    assert (found.cost, found.maker, found.settings) == (1234, "crossfit", {"folds": 2})
    assert [file.name for file in path.parent.iterdir()] == ["reference.pt"]


def test_reference_of_other_data_says_what_differs(tiny_splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "r.pt"
    kept(tiny_splits).save(path)
    train = tiny_splits.train
    fewer = dataclasses.replace(
        tiny_splits,
        train=Split(train.images.of(torch.arange(100)), train.labels[:100]),
        reference=None,
    )
    with pytest.raises(CheckpointError, match=r"rows is 320 in the file and 100 here; images"):
        KeptReference.load(path, fewer)
    relabelled = dataclasses.replace(
        tiny_splits, train=Split(train.images, train.labels.flip(0)), reference=None
    )
    with pytest.raises(CheckpointError, match=r"other data: labels is '\w+' in the file") as caught:
        KeptReference.load(path, relabelled)
    assert "images" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 10, 1000])
def test_file_cut_short_is_refused(length: int, tiny_splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "r.pt"
    kept(tiny_splits).save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"cannot be read: .*Delete it, and it is rebuilt"):
        KeptReference.load(path, tiny_splits)


def test_foreign_file_is_refused(tiny_splits: Splits, tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "r.pt")
    with pytest.raises(CheckpointError, match=r"is not a .reference 1. of impon-hpo"):
        KeptReference.load(tmp_path / "r.pt", tiny_splits)


def test_history_of_fewer_rows_is_refused(tiny_splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "r.pt"
    kept(tiny_splits).save(path)
    state = unpack(torch.load(path, weights_only=True))
    torch.save(state | {"loss": state["loss"][:50]}, path)
    with pytest.raises(CheckpointError, match="is broken: A reference has loss"):
        KeptReference.load(path, tiny_splits)


def test_folder_that_cannot_be_written_is_told(tiny_splits: Splits, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        kept(tiny_splits).save(tmp_path / "file" / "r.pt")


def test_reference_without_trajectory_has_none_when_loaded(
    tiny_splits: Splits, tmp_path: Path
) -> None:
    one = kept(tiny_splits)
    plain = dataclasses.replace(one.reference, trajectory=None)
    dataclasses.replace(one, reference=plain).save(tmp_path / "r.pt")
    assert KeptReference.load(tmp_path / "r.pt", tiny_splits).reference.trajectory is None


def test_reference_of_a_larger_image_says_so(tiny_splits: Splits, tmp_path: Path) -> None:
    kept(tiny_splits).save(tmp_path / "r.pt")
    images = tiny_splits.train.images[:].repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    larger = dataclasses.replace(
        tiny_splits, train=Split(Images.of_tensor(images), tiny_splits.train.labels)
    )
    with pytest.raises(CheckpointError, match=r"image is '8×8×1' in the file and '16×16×1' here"):
        KeptReference.load(tmp_path / "r.pt", larger)


def test_failing_write_leaves_the_former_file_whole_and_no_other(
    tiny_splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "r.pt"
    kept(tiny_splits).save(path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"Reference .*r\.pt' cannot be written: .*No space"):
        dataclasses.replace(kept(tiny_splits), cost=99).save(path)
    assert [file.name for file in path.parent.iterdir()] == ["r.pt"]
    assert KeptReference.load(path, tiny_splits).cost == 1234


def test_missing_file_is_told(tiny_splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pt' cannot be read: .*No such file"):
        KeptReference.load(tmp_path / "none.pt", tiny_splits)


@pytest.mark.parametrize("text", ["hello, this is no reference\n", "a,b\n1,2\n"])
def test_text_given_as_reference_is_refused(text: str, tiny_splits: Splits, tmp_path: Path) -> None:
    (tmp_path / "r.pt").write_text(text)
    with pytest.raises(CheckpointError, match="cannot be read"):
        KeptReference.load(tmp_path / "r.pt", tiny_splits)


def test_reference_that_lacks_something_is_refused(tiny_splits: Splits, tmp_path: Path) -> None:
    torch.save({"format": "reference 1", "data": {}}, tmp_path / "r.pt")
    with pytest.raises(CheckpointError, match=r"is broken: it lacks \['cost', 'loss'"):
        KeptReference.load(tmp_path / "r.pt", tiny_splits)
