"""Rules that hold for the whole project and that no tool checks for us."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

from jobqueue_core import logs

ROOT = Path(__file__).parents[2]
FOLDERS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]


def modules() -> list[str]:
    """Every module of the project, by its import name."""
    names = []
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            names.append(".".join((package, *(part for part in parts if part != "__init__"))))
    return [name for name in names if not name.endswith("__main__")]


MODULES = modules()


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """``jobqueue_api.wsgi``, the one module whose import has effects, configures the log."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for added in [one for one in root.handlers if isinstance(one, logs._LogHandler) and one not in handlers]:
        root.removeHandler(added)
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    public = getattr(module, "__all__", [])
    missing = [one for one in public if not hasattr(module, one)]
    assert missing == []
    own = [getattr(module, one) for one in public if getattr(getattr(module, one), "__module__", None) == name]
    assert [one.__qualname__ for one in own if isinstance(one, type | FunctionType) and not inspect.getdoc(one)] == []


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_listed_once(name: str) -> None:
    public = list(getattr(importlib.import_module(name), "__all__", []))
    assert len(public) == len(set(public))


def test_every_sql_and_lua_file_is_used() -> None:
    """A file is used when its name, without the suffix, is a text in its package, or fits an f-string there, or another file's "use" line names it.

    Migrations are read as a folder.
    """
    unused = []
    for folder in FOLDERS.values():
        nodes = [node for path in (ROOT / folder).rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
        names = {node.value.rpartition("/")[2] for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        uses = [re.findall(r"^-- use: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) for path in (ROOT / folder).rglob("*.lua")]
        names.update(name.strip() for lines in uses for line in lines for name in line.split(","))
        patterns = [pattern for node in nodes if isinstance(node, ast.JoinedStr) and (pattern := pattern_of(node))]
        files = [*(ROOT / folder).rglob("*.sql"), *(ROOT / folder).rglob("*.lua")]
        unused += [
            path.relative_to(ROOT).as_posix()
            for path in files
            if path.parent.name != "migrations" and path.stem not in names and not any(re.fullmatch(one, path.stem) for one in patterns)
        ]
    assert unused == []


def pattern_of(text: ast.JoinedStr) -> str | None:
    """What an f-string may become; None when nearly everything."""
    parts = [one.value if isinstance(one, ast.Constant) else None for one in text.values]
    if sum(len(part) for part in parts if isinstance(part, str)) < 4:
        return None
    return "".join(r"\w+" if part is None else re.escape(str(part)) for part in parts)


def imported_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has imported after *statement*."""
    check = f"import sys; before = set(sys.modules); {statement}; print('\\n'.join(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


FRAMEWORKS = {"cattrs", "click", "rich", "redis", "psycopg", "falcon", "gunicorn", "mcp", "croniter", "pytest"}


def test_importing_the_front_door_imports_no_driver_and_no_framework() -> None:
    assert imported_by("import jobqueue_core") & {*FRAMEWORKS, "sqlite3", "multiprocessing", "unittest"} == set()


def test_loading_all_plugins_imports_no_driver_and_no_framework() -> None:
    assert imported_by("from jobqueue_core.plugins import Plugins; Plugins.load().brokers()") & FRAMEWORKS == set()


def test_importing_the_front_door_does_not_import_the_worker_or_the_client() -> None:
    unwanted = {f"jobqueue_core.{name}" for name in ("app", "client", "worker", "run", "supervisor", "settings", "plugins")}
    assert imported_by("import jobqueue_core") & unwanted == set()


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [name for name in MODULES if name.rpartition(".")[2] in {"utils", "helpers", "base", "common", "misc"}] == []
