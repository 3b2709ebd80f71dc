"""The folder of references: each made once, found again, and learnt from a run."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import sys
from pathlib import Path

import pytest
import torch

from impon_hpo.errors import CheckpointError, ConfigError
from impon_hpo.training import reference_folder as folder_module
from impon_hpo.training.crossfit import crossfit_settings
from impon_hpo.training.reference_folder import (
    KeptReference,
    References,
    check_reference,
    learnt_enough,
    without_reference,
)
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.single import train
from impon_hpo.training.splits import Split, Splits, load_splits
from impon_hpo.training.training_run import train_epochs
from tests.training.runs import CPU, config
from tests.tuning.forks import Forked

CROSSFIT = {"reference": "crossfit", "reference_options": {"epochs": 1, "width": 2}}


def folder() -> References:
    return References(Path("references"))


def test_crossfit_is_made_once_and_then_found(
    tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = folder().find(config(**CROSSFIT), tiny_splits)
    assert first is not None
    monkeypatch.setattr(folder_module, "crossfit", lambda *_, **__: pytest.fail("made again"))
    again = folder().find(config(**CROSSFIT, lr=0.3, seed=5), tiny_splits)
    assert again is not None
    assert torch.equal(again.reference.loss, first.reference.loss)
    assert len(list(Path("references").glob("*.pt"))) == 1


def test_prequential_is_learnt_from_the_first_run_and_kept(tiny_splits: Splits) -> None:
    given = config(sampler="impon-memory")
    assert folder().find(given, tiny_splits) is None
    memory = RowMemory(tiny_splits.train.labels, tiny_splits.n_classes)
    list(train_epochs(config(), tiny_splits, memory=memory))
    folder().learn(given, tiny_splits, memory)
    found = folder().find(given, tiny_splits)
    assert found is not None
    assert (found.cost, found.maker) == (0, "prequential")
    assert torch.equal(found.reference.loss, memory.reference().loss)
    other = RowMemory(tiny_splits.train.labels, tiny_splits.n_classes)
    other.add(torch.arange(5), torch.zeros(5, 10))
    again = folder().learn(given, tiny_splits, other)
    assert torch.equal(again.reference.loss, found.reference.loss)


def test_key_follows_data_and_settings_and_nothing_else(tiny_splits: Splits) -> None:
    key = folder().key(config(**CROSSFIT), tiny_splits)
    searched = config(**CROSSFIT, lr=0.3, seed=5, sampler="impon-memory", epochs=9)
    assert folder().key(searched, tiny_splits) == key
    train = tiny_splits.train
    relabelled = dataclasses.replace(tiny_splits, train=Split(train.images, train.labels.flip(0)))
    more = {"reference": "crossfit", "reference_options": {"epochs": 2, "width": 2}}
    others = {
        folder().key(config(**CROSSFIT), relabelled),
        folder().key(config(**more), tiny_splits),
        folder().key(config(), tiny_splits),
        folder().key(config(reference="crossfit"), tiny_splits),
        folder().key(config(reference="crossfit", width=64), tiny_splits),  # its quarter is 16
    }
    assert len(others | {key}) == 6


def test_failing_crossfit_keeps_nothing_and_is_made_the_next_time(
    tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "crossfit", stop)
        with pytest.raises(KeyboardInterrupt):
            folder().find(config(**CROSSFIT), tiny_splits)
    assert not list(Path("references").glob("*.pt"))
    assert folder().find(config(**CROSSFIT), tiny_splits) is not None


def test_train_says_which_reference_it_used(said: list[str]) -> None:
    given = config(**CROSSFIT, sampler="impon-memory")
    first = train(given, Path("runs/train"), name="memory")
    settings = crossfit_settings(given).model_dump()
    (path,) = Path("runs/references").glob("*.pt")
    cost = KeptReference.load(path, load_splits(given, CPU)).cost
    assert cost > 0
    assert first["reference"] == {"maker": "crossfit", "cost": cost, "settings": settings}
    assert sum(line.startswith("reference: model") for line in said) == 2
    kept = json.loads((Path(first["checkpoint"]).parent / "result.json").read_text())
    assert kept["reference"] == first["reference"]
    plain = train(config(), Path("runs/train"), name="uniform")
    assert plain["reference"] is None


def test_train_learns_for_the_next_run(said: list[str]) -> None:
    enough = {"sampler": "rho-loss", "epochs": 4, "epoch_fraction": 1.0}
    first = train(config(**enough), Path("runs/train"), name="rho")
    assert first["reference"] is None
    assert first["settings"]["sampler"] == "uniform"
    assert "this run is trained with 'uniform'" in said[0]
    assert first["val_accuracy"] >= 0.19  # else it would teach nobody
    second = train(config(**enough, lr=0.02), Path("runs/train"), name="rho")
    assert second["reference"] == {"maker": "prequential", "cost": 0, "settings": {}}
    assert second["settings"]["sampler"] == "rho-loss"


def test_file_is_taken_as_it_is(tiny_splits: Splits) -> None:
    made = folder().find(config(**CROSSFIT), tiny_splits)
    assert made is not None
    made.save(Path("mine.pt"))
    found = folder().find(config(reference="mine.pt"), tiny_splits)
    assert found is not None
    assert torch.equal(found.reference.loss, made.reference.loss)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"reference": "crosfit"}, "Did you mean 'crossfit'"),
        ({"reference": "no/such/file.pt"}, "an existing file, but got 'no/such/file.pt'"),
        ({"reference": "prequential", "reference_options": {"folds": 2}}, "no reference_options"),
    ],
)
def test_what_is_no_maker_and_no_file_is_refused(
    given: dict[str, object], complaint: str, tiny_splits: Splits
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        check_reference(config(**given))
    with pytest.raises(ConfigError, match=complaint):
        folder().find(config(**given), tiny_splits)


def test_augmentation_is_part_of_the_key(tiny_splits: Splits) -> None:
    plain = dataclasses.replace(tiny_splits, augment="none")
    assert tiny_splits.augment != "none"
    for given in (config(**CROSSFIT), config(reference="prequential")):
        assert folder().key(given, tiny_splits) != folder().key(given, plain)
        asked = given.model_copy(update={"augment": "none"})
        assert folder().key(asked, tiny_splits) == folder().key(given, plain)
        options = given.model_copy(update={"augment_options": {"rand": {"magnitude": 3}}})
        assert folder().key(options, tiny_splits) != folder().key(given, tiny_splits)


def test_folder_that_cannot_be_made_is_told(tiny_splits: Splits) -> None:
    Path("references").write_text("a file")
    with pytest.raises(CheckpointError, match="cannot be written"):
        folder().find(config(**CROSSFIT), tiny_splits)


def test_run_without_a_reference_is_uniform_unless_its_sampler_says_how() -> None:
    options = {"ratio": 0.5}
    plain = without_reference(config(sampler="rho-loss", sampler_options=options))
    assert (plain.sampler, plain.sampler_options) == ("uniform", {})
    assert without_reference(config(sampler="impon-memory")).sampler == "impon-memory"


def test_run_that_hardly_beats_guessing_teaches_nobody() -> None:
    assert not learnt_enough(0.18, 10)
    assert learnt_enough(0.2, 10)
    assert learnt_enough(0.55, 2)
    assert not learnt_enough(0.54, 2)
    guessing = math.log(10)
    assert not learnt_enough(-0.91 * guessing, 10, "loss")
    assert learnt_enough(-0.89 * guessing, 10, "loss")


def test_two_processes_at_once_make_it_once(tiny_splits: Splits) -> None:
    def find() -> None:
        logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout, force=True)
        References(Path("both")).find(config(**CROSSFIT), tiny_splits)

    processes = [Forked(find) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    # One made both models, the other waited and found them.
    assert sorted(len(process.out.splitlines()) for process in processes) == [0, 2]
