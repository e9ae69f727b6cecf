"""The plugin ``redis``: a broker for any number of hosts."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from jobqueue_core import PluginError, hookimpl
from jobqueue_core.broker import BrokerPlugin

from .addresses import SCHEMES, url_problems

if TYPE_CHECKING:
    from jobqueue_core.checks import Check
    from jobqueue_core.settings import Settings

    from .broker import RedisBroker

_NAME: Final = "redis"
_DRIVER: Final = 8
"""The oldest major version of the driver whose connections do as ``wire.py`` says."""


@hookimpl
def jobqueue_brokers() -> Iterable[BrokerPlugin]:
    """The broker on Redis or Valkey."""
    return [
        BrokerPlugin(
            name=_NAME,
            schemes=tuple(SCHEMES),
            default_url="redis://localhost:6379/0",
            url_variable="REDIS_URL",
            url_problems=url_problems,
            open=_open,
        )
    ]


@hookimpl
def jobqueue_checks(settings: Settings) -> Iterable[Check]:
    """What ``doctor`` looks at when jobs are in Redis."""
    if settings.broker.plugin != _NAME or not _has_driver():
        return []
    from .checks import checks

    return checks()


def _open(settings: Settings) -> RedisBroker:
    if not _has_driver():
        raise PluginError("needs the extra 'redis': pip install 'jobqueue[redis]'", plugin=_NAME)
    from .broker import RedisBroker

    return RedisBroker(
        settings.broker.url,
        namespace=settings.run.namespace,
        result_ttl=settings.job.result_ttl,
        max_pending=settings.history.max_pending,
        allow_eviction=settings.broker.allow_eviction,
        wait_replicas=settings.broker.wait_replicas,
    )


def _has_driver() -> bool:
    try:
        major = version("redis").partition(".")[0]
    except PackageNotFoundError:
        return False
    return major.isdecimal() and int(major) >= _DRIVER
