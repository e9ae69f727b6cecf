"""The plugin ``sqlite``: the embedded default for broker and storage."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobqueue_core import ConfigError, hookimpl
from jobqueue_core.broker import BrokerPlugin
from jobqueue_core.storage import StoragePlugin
from jobqueue_core.urls import absolute_sqlite_url

if TYPE_CHECKING:
    from jobqueue_core.checks import Check
    from jobqueue_core.settings import Settings

    from .broker import SqliteBroker
    from .storage import SqliteStorage

_NAME: Final = "sqlite"
_DEFAULT_URL: Final = "sqlite:///jobqueue.db"


@hookimpl
def jobqueue_brokers() -> Iterable[BrokerPlugin]:
    """The broker in one file."""
    return [BrokerPlugin(name=_NAME, schemes=("sqlite",), default_url=_DEFAULT_URL, open=_open_broker)]


@hookimpl
def jobqueue_storages() -> Iterable[StoragePlugin]:
    """The storage in one file, by default the broker's."""
    return [StoragePlugin(name=_NAME, schemes=("sqlite",), default_url=_DEFAULT_URL, open=_open_storage)]


@hookimpl
def jobqueue_checks(settings: Settings) -> Iterable[Check]:
    """What ``doctor`` looks at when a file of ours is in use."""
    from .checks import checks

    return checks() if _NAME in (settings.broker.plugin, settings.storage.plugin) else []


def _open_broker(settings: Settings) -> SqliteBroker:
    from .broker import SqliteBroker

    path = _path(settings.broker.url, settings, "broker")
    return SqliteBroker(path, result_ttl=settings.job.result_ttl, max_pending=settings.history.max_pending)


def _open_storage(settings: Settings) -> SqliteStorage:
    from .storage import SqliteStorage

    return SqliteStorage(_path(settings.storage.url, settings, "storage"))


def _path(url: str, settings: Settings, table: str) -> Path:
    try:
        return Path(absolute_sqlite_url(url, settings.folder).removeprefix("sqlite:///"))
    except ValueError as error:
        raise ConfigError([f"{table}.url = {url!r}: {error}"]) from error
