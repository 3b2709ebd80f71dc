"""CITATION.cff says of the software what pyproject.toml and LICENSE say."""

from __future__ import annotations

import tomllib

import yaml

from tests.conftest import STUDIES

ROOT = STUDIES.parent
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_software_is_described_as_in_the_project_file() -> None:
    assert CITATION["version"] == PROJECT["version"]
    assert CITATION["title"] == PROJECT["name"]
    assert CITATION["abstract"] == PROJECT["description"]
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["keywords"] == PROJECT["keywords"]
    (authors,) = [author["name"] for author in CITATION["authors"]]
    assert authors in (ROOT / "LICENSE").read_text()


def test_paper_is_cited_as_in_the_readme() -> None:
    (paper,) = CITATION["references"]
    names = ", ".join(author["family-names"] for author in paper["authors"])
    cited = f"*{paper['title']}* ({names}, {paper['year']})"
    assert cited in (ROOT / "README.md").read_text()


def test_it_is_what_version_1_2_0_of_the_format_wants() -> None:
    required = {"cff-version", "message", "title", "authors"}
    optional = {"type", "abstract", "version", "license", "keywords", "references"}
    assert required <= set(CITATION) <= required | optional
    assert CITATION["cff-version"] == "1.2.0"
    lists = {"authors", "keywords", "references"}
    assert all(isinstance(CITATION[key], list if key in lists else str) for key in CITATION)
    for reference in CITATION["references"]:
        assert {"type", "title", "authors"} <= set(reference)
