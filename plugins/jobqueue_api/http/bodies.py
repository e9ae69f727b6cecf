"""What requests bring: the bodies of the operations that take one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from jobqueue_core.job import JOB_TYPE_PATTERN, QUEUE_PATTERN, Idempotency, Priority
from jobqueue_core.objects import JsonValue
from jobqueue_core.requests import JobOptions
from jobqueue_core.scheduling.definition import Misfire, Overlap

__all__ = ["JobBatch", "JobRequest", "NewSchedule", "Replacement", "ScheduleChanges", "duration_of"]

AS_SCHEMA: Final = "x-as"
"""Where a type says what it is in JSON Schema, when that is not what would be made of it."""

_CENTURY: Final = 36_500 * 86_400
_DURATION: Final = {
    "anyOf": [
        {
            "type": "string",
            "pattern": r"^(?=[0-9])(?:[0-9]{1,4}d)?(?:[0-9]{1,5}h)?(?:[0-9]{1,5}m)?(?:[0-9]{1,6}(?:\.[0-9]{1,3})?s)?(?:[0-9]{1,6}ms)?$",
        },
        {"type": "number", "minimum": 0, "maximum": _CENTURY},
    ]
}
_LONGER_THAN_ZERO: Final = {
    "anyOf": [
        {"type": "string", "pattern": r"^(?:[1-9][0-9]{0,3}d)?(?:[1-9][0-9]{0,4}h)?(?:[1-9][0-9]{0,4}m)?[1-9][0-9]{0,5}m?s$"},
        {"type": "number", "exclusiveMinimum": 0.001, "maximum": _CENTURY},
    ]
}
Duration = Annotated[
    str | int | float,
    Meta(
        description='A duration: "500ms", "30s", "1h30m", or a number of seconds.',
        examples=["30s", 90],
        extra_json_schema={AS_SCHEMA: _DURATION},
    ),
]
Timeout = Annotated[
    str | int | float,
    Meta(
        description='For one run: "30s", "1h30m", or a number of seconds; longer than zero.',
        examples=["30s", 90],
        extra_json_schema={AS_SCHEMA: _LONGER_THAN_ZERO},
    ),
]
UniqueKey = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 255, "pattern": "^[!-~ ]*$"})]
Retries = Annotated[int, Meta(ge=0, le=10_000)]
TypeName = Annotated[
    str,
    Meta(
        description="The job's type, by which its handler is found.",
        examples=["email.send"],
        extra_json_schema={"pattern": f"^{JOB_TYPE_PATTERN}$"},
    ),
]
QueueName = Annotated[
    str,
    Meta(
        description="Where it goes; not given: as its handler declares, else default.",
        extra_json_schema={"pattern": f"^{QUEUE_PATTERN}$"},
    ),
]
Texts = Annotated[
    dict[str, str],
    Meta(
        extra_json_schema={
            "maxProperties": 64,
            "propertyNames": {"pattern": r"^(?!jobqueue\.)[A-Za-z0-9][A-Za-z0-9_.:/\-]{0,127}$"},
            "additionalProperties": {"type": "string", "maxLength": 4_096},
        }
    ),
]

MAX_BATCH: Final = 1_000


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A job to enqueue. What is not given is decided by its handler, then by the worker's configuration."""

    type: TypeName
    payload: JsonValue = None
    queue: QueueName | None = None
    priority: Priority | None = None
    delay: Annotated[Duration, Meta(description="Run it that much later.")] | None = None
    scheduled_at: Annotated[datetime, Meta(tz=True, description="Run it at that time.")] | None = None
    expires_in: Annotated[Duration, Meta(description="Cancel it if no run has started by then.")] | None = None
    expires_at: Annotated[datetime, Meta(tz=True, description="The same as a time.")] | None = None
    max_retries: Retries | None = None
    timeout: Timeout | None = None
    unique_key: (
        Annotated[UniqueKey, Meta(description="At most one unfinished job of the queue has this key; a duplicate answers the existing job.")] | None
    ) = None
    unique_for: Annotated[Duration, Meta(description="Hold the key at least that long.")] | None = None
    metadata: Annotated[Texts, Meta(description="Text to keep with the job.")] | None = None
    headers: Annotated[Texts, Meta(description="Reserved for trace context and codecs.")] | None = None
    id: Annotated[str, Meta(description="A UUID of yours; a job that has it already is answered.", extra_json_schema={"format": "uuid"})] | None = (
        None
    )

    def options(self, idempotency: Idempotency | None) -> JobOptions:
        """The options of the enqueue."""
        given = _arguments(self)
        del given["type"], given["payload"]
        return JobOptions(**given, idempotency=idempotency)

    def as_mapping(self, idempotency: Idempotency | None) -> dict[str, Any]:
        """The job as ``enqueue_many`` takes it."""
        return {**_arguments(self), "idempotency": idempotency}


class JobBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Jobs to enqueue together."""

    jobs: Annotated[list[JobRequest], Meta(min_length=1, max_length=MAX_BATCH)]


class Replacement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a dead job is tried again."""

    payload: Annotated[Any, Meta(description="Replaces the job's payload; not given: that stays byte for byte.")] = msgspec.UNSET


_TIMING: Final = "Five cron fields, or six with seconds first, or @hourly and the like."


class NewSchedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A schedule to add."""

    name: Annotated[
        str,
        Meta(
            description="1 to 100 letters, digits, '_', '.' or '-'.",
            examples=["nightly-report"],
            extra_json_schema={"pattern": f"^{QUEUE_PATTERN}$"},
        ),
    ]
    expression: Annotated[str, Meta(description=_TIMING, max_length=1_000, examples=["*/5 * * * *"])]
    type: TypeName
    payload: JsonValue = None
    timezone: Annotated[str, Meta(description="By whose clocks it is due: an IANA time zone.", max_length=100, examples=["Europe/Berlin"])] = "UTC"
    queue: QueueName | None = None
    priority: Priority | None = None
    max_retries: Retries | None = None
    timeout: Timeout | None = None
    enabled: bool = True
    misfire: Annotated[Misfire, Meta(description="What to do about missed ticks: fire the latest, none, or all.")] = "once"
    misfire_limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    overlap: Annotated[Overlap, Meta(description="Whether to fire while the last job has not ended.")] = "allow"
    jitter: Annotated[Duration, Meta(description="Let each job wait a random time up to this.")] | None = None
    start: Annotated[datetime, Meta(tz=True, description="Not due before.")] | None = None
    end: Annotated[datetime, Meta(tz=True, description="Not due after.")] | None = None

    def arguments(self) -> dict[str, Any]:
        """What ``ScheduleOperations.add`` takes."""
        return _arguments(self)


class ScheduleChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to change of a schedule; what is not given stays, null unsets what may be unset."""

    paused: (
        Annotated[bool, Meta(description="True: make no jobs until it is false again. Alone, for a schedule of a config file too.")]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    expression: Annotated[str, Meta(description=_TIMING, max_length=1_000)] | msgspec.UnsetType = msgspec.UNSET
    type: TypeName | msgspec.UnsetType = msgspec.UNSET
    payload: JsonValue = msgspec.UNSET
    timezone: Annotated[str, Meta(max_length=100)] | msgspec.UnsetType = msgspec.UNSET
    queue: QueueName | msgspec.UnsetType | None = msgspec.UNSET
    priority: Priority | msgspec.UnsetType | None = msgspec.UNSET
    max_retries: Retries | msgspec.UnsetType | None = msgspec.UNSET
    timeout: Timeout | msgspec.UnsetType | None = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    misfire: Misfire | msgspec.UnsetType = msgspec.UNSET
    misfire_limit: Annotated[int, Meta(ge=1, le=1_000)] | msgspec.UnsetType = msgspec.UNSET
    overlap: Overlap | msgspec.UnsetType = msgspec.UNSET
    jitter: Duration | msgspec.UnsetType | None = msgspec.UNSET
    start: Annotated[datetime, Meta(tz=True)] | msgspec.UnsetType | None = msgspec.UNSET
    end: Annotated[datetime, Meta(tz=True)] | msgspec.UnsetType | None = msgspec.UNSET

    def given(self) -> dict[str, Any]:
        """Field -> its new value."""
        return {name: value for name, value in _arguments(self).items() if value is not msgspec.UNSET}


_DURATIONS: Final = ("delay", "expires_in", "timeout", "unique_for", "jitter")


def _arguments(body: msgspec.Struct) -> dict[str, Any]:
    """The fields of *body* as the core takes them: durations not as numbers of seconds."""
    given = msgspec.structs.asdict(body)
    for name in _DURATIONS:
        if given.get(name) is not None:
            given[name] = duration_of(given[name])
    return given


def duration_of(written: Any) -> Any:
    """A number of seconds as a timedelta; anything else as it is, and what is too long as text: the core says what is wrong with it."""
    if not isinstance(written, int | float):
        return written
    try:
        return timedelta(seconds=written)
    except OverflowError:
        return "a number of seconds beyond all bounds"
