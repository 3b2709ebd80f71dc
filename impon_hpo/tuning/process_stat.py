"""What Linux says of a process in /proc/<pid>/stat."""

from __future__ import annotations

from pathlib import Path


def process_stat(pid: int | str) -> tuple[str, list[str]] | None:
    """Return the name of a process and what proc(5) lists behind it, from its state (the 3rd field)
    on; None if there is no such process."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name stands in parentheses, and may have some of its own.
    name, _, fields = said.partition("(")[2].rpartition(")")
    return name, fields.split()
