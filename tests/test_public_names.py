"""The public names: listed, documented, imported on first use; old ones warn."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import tomllib
from typing import get_type_hints

import pytest

import impon_hpo
from tests.conftest import STUDIES

NAMES = [name for name in dir(impon_hpo) if name != "__version__"]


def test_they_are_listed_for_completion_and_in_help() -> None:
    assert {"Objective", "References", "make_sampler", "train_epochs"} <= set(NAMES)
    assert "__version__" in dir(impon_hpo)
    shown = pydoc.plain(pydoc.render_doc(impon_hpo))
    assert not [name for name in NAMES if name not in shown]


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_is(name: str) -> None:
    value = getattr(impon_hpo, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__name__ == name
        assert inspect.getdoc(value)


def test_all_that_an_objective_takes_is_public() -> None:
    hints = get_type_hints(impon_hpo.Objective.__init__)
    parts = {part for hint in hints.values() for part in (hint, *getattr(hint, "__args__", ()))}
    ours = {
        part.__name__
        for part in parts
        if inspect.isclass(part) and part.__module__.startswith("impon_hpo.")
    }
    assert ours >= {"TrainingConfig", "Splits", "References", "Checkpoints"}
    assert ours <= set(NAMES)
    assert set(impon_hpo.ArtifactStore.__args__) <= parts


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((STUDIES.parent / "pyproject.toml").read_text())["project"]
    assert impon_hpo.__version__ == project["version"]


@pytest.mark.parametrize(
    ("old", "new"), [("ImponBatchSampler", "LoaderBatchSampler"), ("WithRows", "IndexedDataset")]
)
def test_old_name_is_the_new_one_and_warns(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"{old} is now impon_hpo\.{new}"):
        assert getattr(impon_hpo, old) is getattr(impon_hpo, new)
    with pytest.warns(DeprecationWarning, match=new) as caught:
        exec(f"from impon_hpo import {old}", {})
    assert {warning.filename for warning in caught} == {"<string>"}
    assert old not in NAMES


def test_unknown_name_is_an_attribute_error_with_a_near_one() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Referenc'") as caught:
        importlib.import_module("impon_hpo").Referenc  # noqa: B018
    assert caught.value.obj is impon_hpo
