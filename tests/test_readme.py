"""Tests of the README: its code runs, its tables are true, its links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from impon_hpo.training.config import TrainingConfig
from impon_hpo.tuning.promotion import promotion_of
from tests.conftest import STUDIES
from tests.studies import small_study

ROOT = STUDIES.parent
README = (ROOT / "README.md").read_text()
REFERENCE = (STUDIES / "README.md").read_text()


def _blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 200


@pytest.mark.parametrize("code", _blocks("python"), ids=["objective", "own-loop"])
def test_the_examples_run(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_example_study_file_is_valid() -> None:
    (example,) = _blocks("toml")
    _, halving, compare = _blocks("toml", REFERENCE)
    text = f'{example}\n[arms.memory]\nsampler = "impon-memory"\n{compare}'
    assert tomllib.loads(text)
    study = small_study(text=text)
    assert study.arms["impon"].sampler_options == {"bank_size": 200}
    assert study.arms["impon"].epochs == 9
    assert promotion_of(tomllib.loads(halving)["pruner"], epochs=27)


def test_the_table_of_settings_is_the_one_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (.*) \|$", REFERENCE, flags=re.MULTILINE)
    fields = {
        name: (str(field.default), field.description)
        for name, field in TrainingConfig.model_fields.items()
        if name not in ("sampler", "sampler_options")
    }
    assert {name: (default, said) for name, default, said in rows} == fields


PAGES = [ROOT / "README.md", *sorted(STUDIES.glob("**/README.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert all(link.startswith("http") or (page.parent / link).exists() for link in links)


def test_every_study_has_a_page_and_its_row() -> None:
    table = (STUDIES / "README.md").read_text()
    rows = re.findall(r"^\| \[(.+?)\]\((.+?)\) \| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    studies = sorted(folder.name for folder in STUDIES.iterdir() if folder.is_dir())
    assert sorted(name for name, *_ in rows) == studies
    assert all(link == f"{name}/README.md" for name, link, *_ in rows)
    assert all(question.strip().endswith("?") and answer.strip() for *_, question, answer in rows)


def test_pictures_are_small_and_shown() -> None:
    shown = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text())
    }
    pictures = set(STUDIES.resolve().glob("*/*.png"))
    assert pictures == {path for path in shown if path.suffix == ".png"}
    assert all(path.stat().st_size <= 60_000 for path in pictures)
