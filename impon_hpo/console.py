"""The console: data on standard output, talk on standard error, tables only in a terminal."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.status import Status
from rich.table import Table
from rich.text import Text


class _Talk(Console):
    """Standard error; who listens to it may go, and what is run goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        # Or else what is left in the buffer fails once more when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, unless where it goes to, such as a log on a full disk, takes nothing now."""
        try:
            super().print(*objects, **options)
        except OSError:
            with suppress(OSError):
                self.begin_capture()
                self.end_capture()  # what could not be printed is not tried again


data = Console()
talk = _Talk(stderr=True)


def say(line: str) -> None:
    """Print one line of talk."""
    talk.print(line, markup=False, highlight=False, soft_wrap=True)


class _SayHandler(logging.Handler):
    """Prints what the library logs as talk."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def say_what_is_logged() -> None:
    """From here on, what the library logs is printed on standard error; for a command line."""
    log = logging.getLogger("impon_hpo")
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _SayHandler) for handler in log.handlers):
        log.addHandler(_SayHandler())


def loading() -> Status:
    """Show, while what is inside runs, that torch is being loaded; in a terminal only."""
    return talk.status("loading torch")


def print_json(value: Any) -> None:
    """Print data as JSON; what JSON has no number for becomes null."""
    print(json.dumps(finite(value), indent=2, allow_nan=False))


def finite(value: Any) -> Any:
    """Return plain data in which null stands for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_line(line: str) -> None:
    """Print one line of data."""
    data.print(line, markup=False, highlight=False, soft_wrap=True)


def print_card(rows: list[tuple[str, str]], command: str, *, good: bool) -> None:
    """Print the card that a comparison opens with: framed in a terminal, green where it is `good`
    news, and a plain line each elsewhere; the command stands on a line of its own, to be copied."""
    if not data.is_terminal:
        for title, text in rows:
            print_line(f"{title}: {text}")
            if title == "What to do":
                print_line(f"  {command}")
        return
    colour = "green" if good else "default"
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for title, text in rows:
        first = title == rows[0][0]
        grid.add_row(title, Text(text, style=f"bold {colour}" if first else ""))
        if title == "What to do":
            grid.add_row("", Text(command, style="cyan"))
    data.print(Panel(grid, border_style=colour, expand=False))


def print_rows(title: str, rows: list[tuple[str, str]]) -> None:
    """Print a table in a terminal, and a plain line a row elsewhere."""
    if data.is_terminal:
        table = Table(title=title, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        data.print(table)
        return
    print_line(title)
    for name, value in rows:
        print_line(f"  {name}: {value}")


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows with the same keys: a table in a terminal, tab-separated lines elsewhere."""
    if not rows:
        return
    if data.is_terminal:
        table = Table(*rows[0], title=title)
        for row in rows:
            table.add_row(*(escape(str(cell)) for cell in row.values()))
        data.print(table)
        return
    print("\t".join(rows[0]))  # Rich would turn tabs into spaces
    for row in rows:
        print("\t".join(str(cell) for cell in row.values()))
