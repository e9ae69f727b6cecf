"""The plugin ``postgres``: a storage for any number of hosts and rows, and the command ``migrate``."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from jobqueue_core import PluginError, hookimpl
from jobqueue_core.service import CommandPlugin
from jobqueue_core.storage import StoragePlugin

from .addresses import url_problems

if TYPE_CHECKING:
    from jobqueue_core.checks import Check
    from jobqueue_core.settings import Settings

    from .storage import PostgresStorage

_NAME: Final = "postgres"
_DRIVER: Final = (3, 3)
"""The oldest version of the driver that can wait for an answer for so long and no longer."""


@hookimpl
def jobqueue_storages() -> Iterable[StoragePlugin]:
    """The storage on PostgreSQL."""
    return [
        StoragePlugin(
            name=_NAME,
            schemes=("postgresql",),
            url_variable="DATABASE_URL",
            url_aliases={"postgres": "postgresql"},
            url_problems=url_problems,
            open=_open,
            probe=_probe,
        )
    ]


@hookimpl
def jobqueue_commands() -> Iterable[CommandPlugin]:
    """The command that makes and changes the schema."""
    return [
        CommandPlugin(name="migrate", help="Make or change the schema of a PostgreSQL storage.", target="jobqueue_postgres.migrate_command:migrate")
    ]


@hookimpl
def jobqueue_checks(settings: Settings) -> Iterable[Check]:
    """What ``doctor`` looks at when history is in PostgreSQL."""
    if settings.storage.plugin != _NAME or not has_driver():
        return []
    from .checks import checks

    return checks()


def _open(settings: Settings) -> PostgresStorage:
    _require_driver()
    from .storage import PostgresStorage

    return PostgresStorage(
        settings.storage.url,
        namespace=settings.run.namespace,
        pooled=settings.storage.pooled,
        retention=settings.history.retention,
    )


def _probe(settings: Settings) -> None:
    _require_driver()
    from .probe import probe

    probe(settings.storage.url, namespace=settings.run.namespace, pooled=settings.storage.pooled)


def _require_driver() -> None:
    if not has_driver():
        raise PluginError("needs the extra 'postgres': pip install 'jobqueue[postgres]'", plugin=_NAME)


def has_driver() -> bool:
    """Whether the driver is installed, in a version that will do."""
    try:
        found = version("psycopg").split(".")[:2]
    except PackageNotFoundError:
        return False
    return all(part.isdecimal() for part in found) and tuple(map(int, found)) >= _DRIVER
