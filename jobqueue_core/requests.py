"""From what a producer writes to what a broker is sent: options checked, defaults found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import attrs

from jobqueue_core.durations import Duration, to_timedelta
from jobqueue_core.errors import InvalidJob
from jobqueue_core.handlers import HandlerSpec, options_of
from jobqueue_core.job import Idempotency, NewJob, Priority, check_job_id, check_job_type, check_queue, new_job_id
from jobqueue_core.payload import check_metadata, encode_payload

__all__ = [
    "DEFAULT_QUEUE",
    "JobOptions",
    "Routing",
    "build_job",
    "check_count",
    "check_duration",
    "check_instant",
    "check_priority",
]

DEFAULT_QUEUE: Final = "default"
_MAX_KEY: Final = 255


@attrs.frozen(kw_only=True)
class JobOptions:
    """The options of an enqueue, as they were given; None means not given."""

    queue: str | None = None
    priority: Priority | str | None = None
    delay: Duration | None = None
    scheduled_at: datetime | None = None
    expires_in: Duration | None = None
    expires_at: datetime | None = None
    max_retries: int | None = None
    timeout: Duration | None = None
    unique_key: str | None = None
    unique_for: Duration | None = None
    metadata: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    id: object = None
    idempotency: Idempotency | None = None


OPTION_NAMES: Final = frozenset(attrs.fields_dict(JobOptions))


class Routing(Protocol):
    """Finds where jobs of a type go when the producer has not said."""

    def route(self, job_type: str) -> tuple[str | None, Priority | None]:
        """The queue and priority declared for *job_type*; None for what nobody has declared."""


def build_job(
    job_type: str | Callable[..., object],
    payload: object,
    options: JobOptions,
    *,
    routing: Routing,
    max_payload: int,
    at: str = "",
    ours: bool = False,
) -> NewJob:
    """Check everything about a job and make it ready to send.

    Args:
        job_type: The type's name, or a decorated function.
        payload: A JSON value, or an instance of the handler's payload class.
        options: What the producer said.
        routing: Where to look for what it did not.
        max_payload: The most bytes of JSON.
        at: What to put before field names in errors: ``jobs[3].``.
        ours: Allow metadata in the framework's own namespace.

    Raises:
        InvalidJob: Something is wrong with it; the first thing found.
    """
    if not isinstance(job_type, str):
        declared = options_of(job_type)
        if declared is None:
            raise InvalidJob(f"{at}type", f"{job_type!r} is not decorated with @handler")
        name, queue, priority = declared.type, declared.queue, declared.priority
    else:
        name, queue, priority = check_job_type(job_type, f"{at}type"), None, None
    if options.queue is not None:
        queue = check_queue(options.queue, f"{at}queue")
    if options.priority is not None:
        priority = check_priority(options.priority, f"{at}priority")
    if queue is None or priority is None:
        routed_queue, routed_priority = routing.route(name)
        queue = queue or routed_queue or DEFAULT_QUEUE
        priority = priority or routed_priority or Priority.MEDIUM
    for one, other in (("delay", "scheduled_at"), ("expires_in", "expires_at")):
        if getattr(options, one) is not None and getattr(options, other) is not None:
            raise InvalidJob(f"{at}{one}", f"cannot be given together with {other}")
    if options.unique_for is not None and options.unique_key is None:
        raise InvalidJob(f"{at}unique_for", "needs a unique_key")
    return NewJob(
        id=new_job_id(queue) if options.id is None else check_job_id(options.id, f"{at}id"),
        type=name,
        payload_json=encode_payload(payload, limit=max_payload, field=f"{at}payload"),
        queue=queue,
        priority=priority,
        delay=check_duration(options.delay, f"{at}delay"),
        scheduled_at=check_instant(options.scheduled_at, f"{at}scheduled_at"),
        expires_in=check_duration(options.expires_in, f"{at}expires_in"),
        expires_at=check_instant(options.expires_at, f"{at}expires_at"),
        max_retries=check_count(options.max_retries, f"{at}max_retries"),
        timeout=check_duration(options.timeout, f"{at}timeout", positive=True),
        unique_key=_key(options.unique_key, f"{at}unique_key"),
        unique_for=check_duration(options.unique_for, f"{at}unique_for"),
        metadata={} if options.metadata is None else check_metadata(options.metadata, f"{at}metadata", ours=ours),
        headers={} if options.headers is None else check_metadata(options.headers, f"{at}headers", ours=ours),
        idempotency=_idempotency(options.idempotency, f"{at}idempotency"),
    )


class HandlerRouting:
    """Routing by a registry of handlers."""

    def __init__(self, handlers: Callable[[str], HandlerSpec | None]) -> None:
        self._handlers = handlers

    def route(self, job_type: str) -> tuple[str | None, Priority | None]:
        """What the handler's decorator declares."""
        spec = self._handlers(job_type)
        return (None, None) if spec is None else (spec.options.queue, spec.options.priority)


def check_priority(value: Priority | str, field: str) -> Priority:
    """Return *value* as a priority. Raises InvalidJob when it is none."""
    try:
        return Priority(value)
    except ValueError:
        raise InvalidJob(field, f"{value!r:.60} is not one of {', '.join(Priority)}") from None


def check_duration(value: Duration | None, field: str, *, positive: bool = False) -> timedelta | None:
    """Return *value* as a plain timedelta. Raises InvalidJob when it is not a duration, or with *positive* when it is zero."""
    if value is None:
        return None
    try:
        duration = to_timedelta(value)
    except (ValueError, TypeError) as error:
        raise InvalidJob(field, str(error)[:200]) from error
    if positive and not duration:
        raise InvalidJob(field, "must be longer than zero")
    return duration


def check_instant(value: Any, field: str) -> datetime | None:
    """Return *value* in UTC. Raises InvalidJob when it is not a time, or does not say in which zone."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidJob(field, f"expected a datetime, got {type(value).__name__}")
    if value.utcoffset() is None:
        raise InvalidJob(field, f"{value.isoformat()} has no time zone; give an aware datetime, such as datetime.now(UTC)")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise InvalidJob(field, f"{value.isoformat()} lies outside of the years 1 to 9999") from error


def check_count(value: object, field: str) -> int | None:
    """Return *value* when it is a whole number from 0 to 10,000. Raises InvalidJob when it is not."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 10_000:
        raise InvalidJob(field, f"must be a whole number from 0 to 10000, not {value!r:.60}")
    return value


def _idempotency(value: object, field: str) -> Idempotency | None:
    if value is None:
        return None
    if not isinstance(value, Idempotency):
        raise InvalidJob(field, f"expected an Idempotency, got {type(value).__name__}")
    _key(value.key, f"{field}.key")
    _key(value.fingerprint, f"{field}.fingerprint")
    return value


def _key(value: object, field: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_KEY or not value.isprintable():
        raise InvalidJob(field, f"must be 1 to {_MAX_KEY} printable characters")
    return value
