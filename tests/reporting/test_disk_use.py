"""The disk that a study uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from impon_hpo.reporting.disk_use import disk_line, disk_use, said_bytes


def test_bytes_are_added_up_by_what_they_are() -> None:
    runs = Path("runs/some")
    (runs / "checkpoints" / "deep").mkdir(parents=True)
    (runs / "checkpoints" / "one.pt").write_bytes(b"x" * 1500)
    (runs / "checkpoints" / "deep" / "two.pt").write_bytes(b"x" * 500)
    (runs / "study.db").write_bytes(b"x" * 10)
    (runs / "link").symlink_to("/etc/passwd")
    assert disk_use(runs) == {"checkpoints": 2000, "study.db": 10, "link": 0}
    assert disk_line(runs) == (
        "on disk in runs/some: 2.01 kB (checkpoints 2 kB, study.db 10 B, link 0 B)"
    )


def test_study_without_a_folder_uses_none() -> None:
    assert disk_use(Path("runs/none")) == {}
    assert disk_line(Path("runs/none")) == "on disk in runs/none: 0 B"


@pytest.mark.parametrize(
    ("n", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (45_678_901, "45.7 MB")],
)
def test_bytes_are_said_as_people_write_them(n: int, said: str) -> None:
    assert said_bytes(n) == said
