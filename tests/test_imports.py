"""The import laws of the rooms, read from the source; the size of files; what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import impon_hpo

PACKAGE = Path(impon_hpo.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.rglob("*.py"))
SCRIPTS = sorted((PACKAGE.parent / "studies").rglob("*.py"))

# A room may import itself and what stands here: the data flows sampling → training → tuning, and
# reporting reads only what they leave behind.
MAY_IMPORT = {
    "sampling": {"errors", "lookup"},
    "training": {"errors", "files", "lookup", "environment", "console", "sampling"},
    "tuning": {
        "files",
        "live_table",
        "errors",
        "lookup",
        "environment",
        "console",
        "storage",
        "sampling",
        "training",
    },
    "comparing": {
        "files",
        "errors",
        "lookup",
        "environment",
        "console",
        "storage",
        "sampling",
        "training",
        "tuning",
    },
    "reporting": {
        "files",
        "live_table",
        "errors",
        "lookup",
        "environment",
        "console",
        "storage",
    },
    "files": {"errors"},
    "live_table": {"storage"},
    "errors": set(),
    "lookup": {"errors"},
    "environment": {"errors"},
    "console": {"errors"},
    "storage": {"errors"},
}
MUST_NOT_IMPORT = {
    "sampling": {"torchvision", "optuna", "optuna_dashboard"},
    "training": {"optuna", "optuna_dashboard"},
    "tuning": {"optuna_dashboard"},
    "reporting": {"torch", "torchvision"},
    "storage": {"torch", "torchvision"},
    "files": {"torch", "torchvision", "optuna"},
    "live_table": {"torch", "torchvision"},
}


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the modules that a file imports, anywhere in it, by their full names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            module = node.module or ""
            for alias in node.names:
                inner = PACKAGE.parent / module.replace(".", "/") / f"{alias.name}.py"
                found.add(f"{module}.{alias.name}" if inner.is_file() else module)
    return frozenset(found)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_run_with_the_data(path: Path) -> None:
    room = room_of(module_of(path))
    if room not in MAY_IMPORT:  # the command line and what stands above all rooms
        assert room in {"", "cli", "commands", "doctor", "__main__"}, (
            f"say in MAY_IMPORT what {room} may import"
        )
        return
    for module in imports(path):
        if module.split(".")[0] == "impon_hpo":
            target = room_of(module)
            assert target == room or target in MAY_IMPORT[room], f"{room} imports {module}"
        assert module.split(".")[0] not in MUST_NOT_IMPORT.get(room, set()), module


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_import_their_siblings_directly(path: Path) -> None:
    names = (
        "sampling",
        "training",
        "storage",
        "tuning",
        "comparing",
        "reporting",
        "commands",
    )
    rooms = {f"impon_hpo.{name}" for name in names}
    assert not imports(path) & (rooms | {"impon_hpo"}) or path.name in {
        "__init__.py",
        "cli.py",
        "doctor.py",
    }


def test_imports_make_no_circle() -> None:
    paths = {module_of(path): path for path in FILES}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " → ".join([*above, module])
        if module in done:
            return
        for target in imports(paths[module]):
            if target in paths and target != "impon_hpo":
                visit(target, (*above, module))
        done.add(module)

    for module in paths:
        visit(module, ())


@pytest.mark.parametrize("path", [*FILES, *SCRIPTS, *TESTS], ids=str)
def test_file_says_first_what_it_is_and_stays_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "the first line of a file says what it is"
    assert text.startswith('"""')
    assert docstring.split("\n\n")[0].endswith((".", ":"))
    if path not in TESTS:
        assert len(text.splitlines()) <= 450, "a file is one thing to search for: split it"


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_package_does_not_know_the_scripts_of_the_studies() -> None:
    scripts = {path.stem for path in SCRIPTS} | {path.parent.name for path in SCRIPTS}
    for path in FILES:
        assert not {module.split(".")[0] for module in imports(path)} & scripts, path


@pytest.mark.parametrize("module", ["impon_hpo", "impon_hpo.cli"])
def test_help_is_instant_since_nothing_heavy_is_imported(module: str) -> None:
    assert not modules_after(f"import {module}") & {"torch", "torchvision", "optuna", "sklearn"}


def test_reporting_never_imports_torch_not_even_through_others() -> None:
    reporting = [module_of(path) for path in (PACKAGE / "reporting").glob("*.py")]
    loaded = modules_after(f"import {', '.join(reporting)}")
    assert "optuna" in loaded
    assert not loaded & {"torch", "torchvision"}


def test_sampling_needs_nothing_but_torch() -> None:
    sampling = [module_of(path) for path in (PACKAGE / "sampling").glob("*.py")]
    loaded = modules_after(f"import {', '.join(sampling)}")
    assert "torch" in loaded
    assert not loaded & {"torchvision", "optuna", "sklearn", "pydantic", "typer"}
