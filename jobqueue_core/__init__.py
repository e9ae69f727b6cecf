"""Background jobs for Python: the front door.

Handler authors and producers import from here and nowhere else::

    from jobqueue_core import handler, JobContext

    @handler("email.send", queue="mail")
    async def send_email(payload: EmailPayload, ctx: JobContext) -> dict: ...

Plugin authors find the hooks' markers here too, and what they implement or return in modules named for it: ``broker``, ``storage``,
``attempt``, ``lifecycle``, ``service``, ``middleware``, ``observers``, ``checks``, ``options``.

What needs more than the core's own vocabulary (the client, the worker) is imported when it is first asked for, so that importing this package
stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobqueue_core._version import __version__
from jobqueue_core.context import JobContext
from jobqueue_core.durations import Duration
from jobqueue_core.errors import (
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    Conflict,
    HandlerError,
    InvalidJob,
    InvalidPayload,
    JobNotFound,
    JobQueueError,
    PluginError,
    QueueFull,
    StorageError,
    StorageUnavailable,
    WaitTimeout,
)
from jobqueue_core.handlers import Registry, handler, lifespan
from jobqueue_core.hookspecs import hookimpl, hookspec
from jobqueue_core.job import Job, JobState, Priority
from jobqueue_core.retry import RetryPolicy
from jobqueue_core.signals import Discard, Interrupted, Retry, Snooze

if TYPE_CHECKING:
    from jobqueue_core.client import JobQueue
    from jobqueue_core.settings import Settings, load_settings
    from jobqueue_core.worker import Worker

__all__ = [
    "BrokerError",
    "BrokerUnavailable",
    "ConfigError",
    "Conflict",
    "Discard",
    "Duration",
    "HandlerError",
    "Interrupted",
    "InvalidJob",
    "InvalidPayload",
    "Job",
    "JobContext",
    "JobNotFound",
    "JobQueue",
    "JobQueueError",
    "JobState",
    "PluginError",
    "Priority",
    "QueueFull",
    "Registry",
    "Retry",
    "RetryPolicy",
    "Settings",
    "Snooze",
    "StorageError",
    "StorageUnavailable",
    "WaitTimeout",
    "Worker",
    "__version__",
    "handler",
    "hookimpl",
    "hookspec",
    "lifespan",
    "load_settings",
]

_LATER = {"JobQueue": "client", "Worker": "worker", "Settings": "settings", "load_settings": "settings"}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(f"jobqueue_core.{_LATER[name]}"), name)
