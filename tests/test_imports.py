"""The rooms' contracts, the size and the names of files, and what an import loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import impon_hpo
from tests.conftest import STUDIES

PACKAGE = Path(impon_hpo.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.rglob("*.py"))

CEILING = 450
FLOOR = 60
EXCEPTIONS = {"errors.py", "storage/journal.py"}


def test_imports_keep_the_contracts() -> None:
    # In a process of its own: it disables all loggers.
    linter = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    done = subprocess.run(linter, capture_output=True, text=True, check=False, cwd=STUDIES.parent)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=str)
def test_file_says_first_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "the first line of a file says what it is"
    assert text.startswith('"""')
    assert docstring.split("\n\n")[0].endswith((".", ":"))


def test_a_file_is_one_thing_to_search_for() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {path: n for path, n in lines.items() if n > CEILING}, "split it"
    small = {
        str(path.relative_to(PACKAGE))
        for path, n in lines.items()
        if n < FLOOR
        and path.stem not in {"__init__", "__main__"}
        and path.parent != PACKAGE / "sampling" / "methods"
    }
    assert not small - EXCEPTIONS, "it belongs in the file that uses it"


def test_no_name_stands_twice() -> None:
    names = Counter(path.name for path in FILES if path.stem != "__init__")
    assert not {name for name, n in names.items() if n > 1}


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["impon_hpo", "impon_hpo.cli.app"])
def test_help_is_instant_since_nothing_heavy_is_imported(module: str) -> None:
    heavy = {"matplotlib", "numpy", "optuna", "sklearn", "torch", "torchvision"}
    assert not modules_after(f"import {module}") & heavy


def test_reporting_loads_no_torch_not_even_through_libraries() -> None:
    names = [path.stem for path in (PACKAGE / "reporting").glob("*.py") if path.stem != "__init__"]
    loaded = modules_after(f"import {', '.join(f'impon_hpo.reporting.{name}' for name in names)}")
    assert "optuna" in loaded
    assert not loaded & {"torch", "torchvision"}
