"""One tree of errors.

::

    JobQueueError
    ├── ConfigError                 the config file, environment or flags are wrong (all problems at once)
    ├── PluginError                 a plugin or handler package cannot be used
    ├── HandlerError                a handler is declared wrongly
    │   └── DuplicateHandler        two handlers for one type
    ├── InvalidJob (ValueError)     a job was refused before anything was sent
    │   ├── InvalidPayload          its payload does not fit
    │   └── InvalidSchedule         not a job but a schedule was refused
    ├── JobNotFound (LookupError)   no job, dead letter, queue or schedule has that name
    ├── Conflict                    the thing is in a state that does not allow this
    ├── WaitTimeout (TimeoutError)  the job did not finish in the time given
    ├── BrokerError                 what a broker may raise
    │   ├── BrokerUnavailable       it did not answer
    │   ├── QueueFull               it has no room
    │   └── IncompatibleData        its data has a format this release cannot read
    └── StorageError                what a storage may raise
        ├── StorageUnavailable      it did not answer
        └── StorageRejected         it refuses these rows, and would again

A driver's exception never leaves its plugin: it becomes one of these, with the driver's as ``__cause__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BrokerError",
    "BrokerUnavailable",
    "ConfigError",
    "Conflict",
    "DuplicateHandler",
    "HandlerError",
    "IncompatibleData",
    "InvalidJob",
    "InvalidPayload",
    "InvalidSchedule",
    "JobNotFound",
    "JobQueueError",
    "PluginError",
    "QueueFull",
    "StorageError",
    "StorageRejected",
    "StorageUnavailable",
    "WaitTimeout",
]


class JobQueueError(Exception):
    """The root: catch it to catch everything this framework raises on purpose."""


class ConfigError(JobQueueError):
    """The configuration is wrong; carries every problem found, not just the first."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class PluginError(JobQueueError):
    """A plugin or handler package cannot be used."""

    def __init__(self, message: str, *, plugin: str, distribution: str | None = None) -> None:
        self.plugin = plugin
        self.distribution = distribution
        origin = f" (from {distribution})" if distribution else ""
        super().__init__(f"plugin {plugin!r}{origin}: {message}")


class HandlerError(JobQueueError):
    """A handler is declared wrongly."""


class DuplicateHandler(HandlerError):
    """Two handlers claim one job type."""

    def __init__(self, job_type: str, first: str, second: str) -> None:
        self.job_type = job_type
        self.first = first
        self.second = second
        super().__init__(f"job type {job_type!r} has two handlers: {first} and {second}; rename one or uninstall its package")


class InvalidJob(JobQueueError, ValueError):
    """A job was refused before anything was sent; *field* is the path of what is wrong (``jobs[3].queue``)."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        self.problem = problem
        super().__init__(f"{field}: {problem}")


class InvalidPayload(InvalidJob):
    """A payload is not JSON, too big, too deep, or does not fit the handler's annotation."""


class InvalidSchedule(InvalidJob):
    """A schedule was refused before anything was stored; *field* is what is wrong (``expression``, ``timezone``)."""


class JobNotFound(JobQueueError, LookupError):
    """No job, dead letter, queue or schedule has that name."""

    def __init__(self, what: str, name: str) -> None:
        self.what = what
        self.name = name
        super().__init__(f"no {what} {name!r}")


class Conflict(JobQueueError):
    """The thing is in a state that does not allow this; *code* is a stable word for programs."""

    def __init__(self, message: str, *, code: str) -> None:
        self.code = code
        super().__init__(message)


class WaitTimeout(JobQueueError, TimeoutError):
    """The job did not finish in the time given; it goes on."""


class BrokerError(JobQueueError):
    """The root of what a broker may raise."""


class BrokerUnavailable(BrokerError):
    """The broker did not answer.

    Attributes:
        maybe_accepted: True when the request may have been carried out although no answer came. Repeating it with the same job id or key
            never makes a second job.
    """

    def __init__(self, message: str, *, maybe_accepted: bool = True) -> None:
        self.maybe_accepted = maybe_accepted
        super().__init__(message)

    def again(self) -> BrokerUnavailable:
        """The same failure, for somebody who has not even sent anything."""
        return BrokerUnavailable(str(self), maybe_accepted=False)


class QueueFull(BrokerError):
    """The broker has no room (memory or disk). Nothing was stored."""


class IncompatibleData(BrokerError):
    """A record, database or schema has a format this release cannot read."""


class StorageError(JobQueueError):
    """The root of what a storage may raise."""


class StorageUnavailable(StorageError):
    """The storage did not answer. What was sent may have been stored; sending it again is safe."""

    def again(self) -> StorageUnavailable:
        """The same failure, for somebody else."""
        return StorageUnavailable(str(self))


class StorageRejected(StorageError):
    """The storage refuses these rows and would refuse them again; nothing of the call was stored."""
