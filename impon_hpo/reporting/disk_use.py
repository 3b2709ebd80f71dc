"""The disk that a study uses, by what lies there."""

from __future__ import annotations

from pathlib import Path

UNITS = ("B", "kB", "MB", "GB", "TB")


def disk_use(runs: Path) -> dict[str, int]:
    """Return the bytes in `runs`, by the names of the files and folders in it, the largest first.

    What is deleted meanwhile, by a worker that runs, is left out.
    """
    if not runs.is_dir():
        return {}
    sizes = {place.name: _size(place) for place in runs.iterdir()}
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _size(place: Path) -> int:
    total = 0
    for path in [place, *place.rglob("*")]:
        try:
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
        except OSError:
            continue
    return total


def said_bytes(n: float) -> str:
    """Return a number of bytes as people write it, such as 1.2 MB."""
    at = 0
    while n >= 999.5 and at + 1 < len(UNITS):
        n /= 1000
        at += 1
    return f"{n:.0f} B" if at == 0 else f"{n:.3g} {UNITS[at]}"


def disk_line(runs: Path) -> str:
    """Return a line on the disk that `runs` uses."""
    sizes = disk_use(runs)
    listed = ", ".join(f"{name} {said_bytes(size)}" for name, size in sizes.items())
    return f"on disk in {runs}: {said_bytes(sum(sizes.values()))}" + (listed and f" ({listed})")
