"""The public names of the package: old names still work, and say what they are called now."""

from __future__ import annotations

import importlib

import pytest

import impon_hpo


@pytest.mark.parametrize(
    ("old", "new"), [("ImponBatchSampler", "LoaderBatchSampler"), ("WithRows", "IndexedDataset")]
)
def test_old_name_is_the_new_one_and_warns(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"{old} is now impon_hpo\.{new}"):
        assert getattr(impon_hpo, old) is getattr(impon_hpo, new)
    with pytest.warns(DeprecationWarning, match=new) as caught:
        exec(f"from impon_hpo import {old}", {})
    assert {warning.filename for warning in caught} == {"<string>"}
    assert old not in impon_hpo.__all__


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'WithRow'"):
        importlib.import_module("impon_hpo").WithRow  # noqa: B018
