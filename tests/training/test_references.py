"""The folder of references: each made once, found again, and learnt from a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from impon_hpo.errors import CheckpointError, ConfigError
from impon_hpo.training import references as references_module
from impon_hpo.training.memory import RowMemory
from impon_hpo.training.references import (
    References,
    check_reference,
    learnt_enough,
    wants_reference,
    with_reference,
    without_reference,
)
from impon_hpo.training.run import train_epochs
from impon_hpo.training.splits import Splits
from tests.training.runs import config

CROSSFIT = {"reference": "crossfit", "reference_options": {"epochs": 1, "width": 2}}


def quiet(line: str) -> None:
    assert line


def folder() -> References:
    return References(Path("references"), say=quiet)


def test_crossfit_is_made_once_and_then_found(
    tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = folder().find(config(**CROSSFIT), tiny_splits)
    assert first is not None
    monkeypatch.setattr(references_module, "crossfit", lambda *_, **__: pytest.fail("made again"))
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


def test_file_is_taken_as_it_is(tiny_splits: Splits) -> None:
    made = folder().find(config(**CROSSFIT), tiny_splits)
    assert made is not None
    made.save(Path("mine.pt"))
    found = folder().find(config(reference="mine.pt"), tiny_splits)
    assert found is not None
    assert torch.equal(found.reference.loss, made.reference.loss)
    assert with_reference(tiny_splits, found).reference is found.reference
    assert with_reference(tiny_splits, None) is tiny_splits


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


def test_folder_that_cannot_be_made_is_told(tiny_splits: Splits) -> None:
    Path("references").write_text("a file")
    with pytest.raises(CheckpointError, match="cannot be written"):
        folder().find(config(**CROSSFIT), tiny_splits)


def test_run_without_a_reference_is_uniform_unless_its_sampler_says_how() -> None:
    options = {"ratio": 0.5}
    plain = without_reference(config(sampler="rho-loss", sampler_options=options))
    assert (plain.sampler, plain.sampler_options) == ("uniform", {})
    assert without_reference(config(sampler="impon-memory")).sampler == "impon-memory"


def test_who_wants_a_reference() -> None:
    own = {"difficulty": f"{__name__}:quiet"}
    assert wants_reference(config(sampler="impon-memory"))
    assert wants_reference(config(sampler="curriculum"))
    assert not wants_reference(config(sampler="curriculum", sampler_options=own))
    assert not wants_reference(config(sampler="impon"))


def test_run_that_hardly_beats_guessing_teaches_nobody() -> None:
    assert not learnt_enough(0.18, 10)
    assert learnt_enough(0.2, 10)
    assert learnt_enough(0.55, 2)
    assert not learnt_enough(0.54, 2)


def test_two_processes_at_once_make_it_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from impon_hpo.training.references import References\n"
        "from impon_hpo.training.splits import load_splits\n"
        "from tests.training.runs import config\n"
        "from tests.training.test_references import CROSSFIT\n"
        "given = config(**CROSSFIT); splits = load_splits(given, torch.device('cpu'))\n"
        "References(Path(sys.argv[1]), say=print).find(given, splits)\n"
    )
    root = Path(__file__).parents[2]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "both")],
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert sorted(map(len, said)) == [0, 2]  # one made both models, the other waited and found
