"""How a worker works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import attrs

from jobqueue_core.durations import to_timedelta
from jobqueue_core.middleware import Middleware
from jobqueue_core.settings.sections import LogSection

__all__ = ["HandlerProcessOptions", "WorkerOptions"]


@attrs.frozen(kw_only=True)
class WorkerOptions:
    """How a worker works; the defaults are those of ``[worker]``."""

    queues: tuple[str, ...] = attrs.field(default=("critical", "default", "low"), validator=attrs.validators.min_len(1))
    concurrency: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    lease: timedelta = attrs.field(default=timedelta(seconds=30), converter=to_timedelta, validator=attrs.validators.ge(timedelta(seconds=1)))
    poll_interval: timedelta = attrs.field(default=timedelta(seconds=1), converter=to_timedelta)
    shutdown_timeout: timedelta = attrs.field(default=timedelta(seconds=30), converter=to_timedelta)
    upkeep_interval: timedelta = attrs.field(default=timedelta(seconds=1), converter=to_timedelta)
    name: str | None = None
    max_jobs: int | None = None
    max_rss: int | None = None
    """Bytes of resident memory beyond which the worker asks for a fresh process."""


@attrs.frozen(kw_only=True)
class HandlerProcessOptions:
    """What handlers with ``isolation="process"`` find in their processes beside themselves. It is pickled."""

    middleware: Callable[[], Sequence[Middleware]]
    """Makes the middleware, in each process anew."""
    log: LogSection | None = None
    """How to log; None leaves it to the handlers' modules."""
