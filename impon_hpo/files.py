"""Files that are written whole or not at all; tables, as CSV; sizes and names, for people."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from impon_hpo.errors import ConfigError, StorageError

UNITS = ("B", "kB", "MB", "GB", "TB")


def expanded(path: str | Path) -> Path:
    """Return a path in which `~` is the user's own folder, and `~ann` that of ann.

    Raises:
        ConfigError: There is no such user here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"The path '{path}' begins with the home folder of a user, which is not known on this "
            "machine. Write the folder out, or ./~… for a folder of that name."
        ) from None


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its place when the block ends.

    If the block raises, the temporary file is deleted, and what was at `path` stays as it was.

    Args:
        path: The file. Its folder is made if it does not exist. Everybody may read it (mode 0644).
        durable: Whether the content must be on the disk before the file takes its place, so that
            it survives a power cut.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=path.name, suffix=".tmp", delete=False
    ) as file:
        temporary = Path(file.name)
        try:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            temporary.chmod(0o644)  # a temporary file is readable by its owner only
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; text is written as UTF-8, with an escape for what UTF-8
    does not have, as a file name may contain it.

    Raises:
        StorageError: The file cannot be written.
    """
    try:
        with replacing(path) as file:
            file.write(
                content.encode(errors="backslashreplace") if isinstance(content, str) else content
            )
    except OSError as error:
        raise StorageError(f"'{path}' cannot be written: {error}") from error


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Return rows as the text of a CSV file, with `columns`, and one for each other name in a row.

    What a row lacks is left empty.
    """
    fields = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a CSV file, whole or not at all.

    Raises:
        StorageError: The file cannot be written.
    """
    write_file(path, csv_text(rows))


def readable_bytes(n: float) -> str:
    """Return a number of bytes as people write it, such as 1.2 MB."""
    at = 0
    while n >= 999.5 and at + 1 < len(UNITS):
        n /= 1000
        at += 1
    return f"{n:.0f} B" if at == 0 else f"{n:.3g} {UNITS[at]}"


def free_disk(folder: Path) -> int:
    """Return the bytes that are free on the disk of a folder, which need not exist yet."""
    there = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    return shutil.disk_usage(there).free


def as_argument(path: str) -> str:
    """Return a path as a command line takes it, where a dash begins an option.

    Example:
        >>> from impon_hpo.files import as_argument
        >>> as_argument("small"), as_argument("-small")
        ('small', './-small')
    """
    return f"./{path}" if path.startswith("-") else path


_UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def readable_name(name: str) -> str:
    r"""Return a name in which line breaks, control characters and bytes that are not UTF-8 are
    written as Python writes them, so that it can be printed on one line and stored anywhere.

    Example:
        >>> from impon_hpo.files import readable_name
        >>> readable_name("two\nlines"), readable_name("caf\udce9 crème")
        ('two\\nlines', 'caf\\udce9 crème')
    """
    return _UNREADABLE.sub(lambda found: repr(found[0])[1:-1], name)
