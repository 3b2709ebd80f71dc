"""The commands that only look."""

from __future__ import annotations

import json

import pytest

from impon_hpo.commands.looks import samplers
from impon_hpo.commands.options import Format
from impon_hpo.sampling.table import SAMPLERS


def test_every_batch_sampler_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    samplers()
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split("\t") == ["name", "source", "forward", "state", "weights", "use"]
    assert [line.split("\t")[0] for line in lines] == list(SAMPLERS)
    assert all(all(cell for cell in line.split("\t")) for line in lines)


def test_batch_samplers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    samplers(format=Format.json)
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == list(SAMPLERS)
    assert {one["name"]: one["weights"] for one in listed}["impon"] == "none"
