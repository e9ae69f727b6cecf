"""The core's own sections of the config file. A plugin offers its sections by the hook ``jobqueue_settings``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final, Literal

import attrs

from jobqueue_core.durations import format_duration
from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import check_queue
from jobqueue_core.options import OptionError, Rule, Size, at_least, between, matching, option
from jobqueue_core.retry import Jitter
from jobqueue_core.storage import RecordPolicy
from jobqueue_core.urls import redact

__all__ = [
    "CORE_SECTIONS",
    "BrokerSection",
    "HistorySection",
    "JobSection",
    "LogSection",
    "PluginsSection",
    "RetrySection",
    "RunSection",
    "SchedulerSection",
    "StorageSection",
    "WorkerSection",
]

_DEFAULT_URL: Final = "sqlite:///jobqueue.db"
_MILLISECOND: Final = timedelta(milliseconds=1)


def _are_queues(queues: tuple[str, ...]) -> bool:
    try:
        for queue in queues:
            if queue != "*":
                check_queue(queue)
    except InvalidJob:
        return False
    return bool(queues) and len(set(queues)) == len(queues) and "*" not in queues[:-1]


def _shown_url(url: str | None) -> str:
    return "None" if url is None else repr(redact(url))


_QUEUES: Final = Rule('at least one and each once, valid queue names; "*" (all others) only last', _are_queues)
_DIFFERENT: Final = Rule("each once", lambda names: len(set(names)) == len(names))


@attrs.frozen(kw_only=True)
class RunSection:
    """What ``jobqueue-run`` runs, and in which namespace."""

    roles: tuple[str, ...] = option(
        (), rule=_DIFFERENT, help="Roles to run when the command line names none. Empty: those of `worker`, `scheduler` and `api` that are installed."
    )
    namespace: str = option(
        "",
        rule=matching(r"(?:[A-Za-z][A-Za-z0-9_-]{0,39})?", "empty or up to 40 letters, digits, '_' or '-' beginning with a letter"),
        help="Keeps several installations apart on one server: prefix of Redis keys, PostgreSQL schema, metric label. Empty: none of these.",
    )


@attrs.frozen(kw_only=True)
class BrokerSection:
    """The broker: carries jobs to workers and knows their state."""

    plugin: str = option("sqlite", help="Which broker: `sqlite`, or another that an installed plugin offers.")
    url: str = option(_DEFAULT_URL, show=_shown_url, help="Where it is. A SQLite path is relative to the config file's folder.")
    allow_eviction: bool = option(default=False, help="Redis: start although its `maxmemory-policy` may evict jobs.")
    wait_replicas: int = option(0, rule=at_least(0), help="Redis: how many replicas must have a job before its enqueue is answered.")


@attrs.frozen(kw_only=True)
class StorageSection:
    """The storage: remembers executions, dead letters and schedules."""

    plugin: str = option("sqlite", help="Which storage: `sqlite`, or another that an installed plugin offers.")
    url: str = option(_DEFAULT_URL, show=_shown_url, help="Where it is. Not given: the file of the SQLite broker, if that is the broker.")
    migrate_url: str | None = option(
        None, show=_shown_url, help="PostgreSQL: a direct connection for migrations, where `url` leads through a pooler. Not given: `url`."
    )
    pooled: bool = option(default=False, help="PostgreSQL: `url` leads through a transaction pooler such as PgBouncer.")


@attrs.frozen(kw_only=True)
class WorkerSection:
    """Workers: which queues they serve, and how many jobs at once."""

    queues: tuple[str, ...] = option(
        ("critical", "default", "low"),
        rule=_QUEUES,
        env="WORKER_QUEUES",
        help='Queues to serve, most urgent first. `"*"` means all others. In the environment: separated by commas.',
    )
    concurrency: int = option(10, rule=between(1, 10_000), env="WORKER_CONCURRENCY", help="How many jobs a worker process runs at once.")
    processes: int = option(1, rule=between(1, 256), help="How many worker processes to run.")
    poll_interval: timedelta = option(
        timedelta(seconds=1),
        rule=at_least(10 * _MILLISECOND),
        env="WORKER_POLL_INTERVAL",
        help="How often to look for work where nothing wakes a waiting worker.",
    )
    shutdown_timeout: timedelta = option(
        timedelta(seconds=30), env="WORKER_SHUTDOWN_TIMEOUT", help="How long running jobs may take to finish when a worker is told to stop."
    )
    lease: timedelta = option(
        timedelta(seconds=30),
        rule=at_least(timedelta(seconds=1)),
        help="How long a worker may be silent before its jobs are given to others; renewed while it lives.",
    )
    max_jobs: int | None = option(None, rule=at_least(1), help="Replace a worker process after this many jobs. Not given: never.")
    max_rss: Size | None = option(
        None,
        rule=Rule("at least 1MiB", lambda size: size >= 1 << 20),
        help="Replace a worker process once it uses this much memory. Not given: never.",
    )
    name: str | None = option(
        None,
        rule=matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", "1 to 100 letters, digits, '_', '.' or '-', beginning with a letter or digit"),
        help="A label for this worker in lists and logs. Not given: made of host and process.",
    )


@attrs.frozen(kw_only=True)
class JobSection:
    """What holds for jobs whose producer and handler say nothing else."""

    default_timeout: timedelta = option(timedelta(minutes=5), rule=at_least(_MILLISECOND), env="JOB_DEFAULT_TIMEOUT", help="How long a run may take.")
    default_max_retries: int = option(
        3, rule=between(0, 10_000), env="JOB_DEFAULT_MAX_RETRIES", help="How many times a failed job is tried again before it is dead."
    )
    max_crashes: int = option(3, rule=between(1, 10_000), help="How many times a job may take its worker down before it is dead (`worker_lost`).")
    unknown_type_after: timedelta = option(
        timedelta(days=1), help="How long a job whose type no worker knows waits before it is dead (`no_handler`)."
    )
    result_ttl: timedelta = option(
        timedelta(days=1), rule=at_least(timedelta(minutes=1)), help="How long the broker keeps a finished job and its result."
    )
    max_payload: Size = option(
        Size(1 << 20), rule=Rule("1KiB to 256MiB", lambda size: 1 << 10 <= size <= 256 << 20), help="The largest payload, as JSON."
    )


@attrs.frozen(kw_only=True)
class RetrySection:
    """How long a failed job waits before it is tried again."""

    base: timedelta = option(timedelta(seconds=10), env="JOB_RETRY_BASE_DELAY", help="The delay before the first retry; it doubles with each.")
    max: timedelta = option(timedelta(hours=1), help="The longest delay; not below `base`.")
    jitter: Jitter = option("full", help="How the delay is spread, so that jobs that failed together are not tried again together.")

    def __attrs_post_init__(self) -> None:
        if self.max < self.base:
            raise OptionError("max", f"is {format_duration(self.max)}, and must not be below retry.base, which is {format_duration(self.base)}")


@attrs.frozen(kw_only=True)
class SchedulerSection:
    """The role ``scheduler``."""

    poll_interval: timedelta = option(
        timedelta(seconds=1),
        rule=at_least(10 * _MILLISECOND),
        env="SCHEDULER_POLL_INTERVAL",
        help="How often to look for what is due where nothing wakes the scheduler.",
    )


@attrs.frozen(kw_only=True)
class HistorySection:
    """What storage remembers of executions."""

    record: RecordPolicy = option("all", help="Which executions to keep. Statistics count all of them whatever is kept.")
    retention: timedelta = option(timedelta(days=30), rule=at_least(timedelta(minutes=1)), help="How long to keep them.")
    max_pending: int = option(
        1_000_000, rule=at_least(1), help="How many may wait in the broker while storage is away; beyond, the oldest are dropped, dead letters never."
    )


@attrs.frozen(kw_only=True)
class LogSection:
    """The log, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = option(
        "info", env="LOG_LEVEL", spellings={"warn": "warning"}, help="The least level to log."
    )
    format: Literal["json", "console"] = option("json", env="LOG_FORMAT", help="One JSON object a line, or text for people.")


@attrs.frozen(kw_only=True)
class PluginsSection:
    """Which plugins to leave out."""

    disable: tuple[str, ...] = option(
        (), rule=_DIFFERENT, help="Plugins and handler packages to leave out, by name; or one middleware of a plugin, as `plugin.function`."
    )


CORE_SECTIONS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "run": RunSection,
        "broker": BrokerSection,
        "storage": StorageSection,
        "worker": WorkerSection,
        "job": JobSection,
        "retry": RetrySection,
        "scheduler": SchedulerSection,
        "history": HistorySection,
        "log": LogSection,
        "plugins": PluginsSection,
    }
)
"""Table name -> section class."""
