"""From an exception to what the operator reads, a code for programs, and the exit status."""

from __future__ import annotations

import json
from typing import Any, Final

import attrs
import click

from jobqueue_cli.wording import one_line
from jobqueue_core.errors import (
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    Conflict,
    HandlerError,
    IncompatibleData,
    InvalidJob,
    InvalidPayload,
    InvalidSchedule,
    JobNotFound,
    JobQueueError,
    PluginError,
    QueueFull,
    StorageError,
    StorageRejected,
    StorageUnavailable,
    WaitTimeout,
)

__all__ = ["Failure", "failure_of"]

_FAILED: Final = 1
_USAGE: Final = 2

# The first that fits counts, so children stand before their parents. A conflict has a code of its own.
_KINDS: Final[tuple[tuple[type[Exception], str, int], ...]] = (
    (ConfigError, "config", _USAGE),
    (PluginError, "plugin", _USAGE),
    (HandlerError, "handler", _USAGE),
    (InvalidPayload, "invalid_payload", _USAGE),
    (InvalidSchedule, "invalid_schedule", _USAGE),
    (InvalidJob, "invalid_job", _USAGE),
    (JobNotFound, "not_found", _FAILED),
    (WaitTimeout, "timeout", _FAILED),
    (BrokerUnavailable, "broker_unavailable", _FAILED),
    (QueueFull, "queue_full", _FAILED),
    (IncompatibleData, "incompatible_data", _FAILED),
    (BrokerError, "broker", _FAILED),
    (StorageUnavailable, "storage_unavailable", _FAILED),
    (StorageRejected, "storage_rejected", _FAILED),
    (StorageError, "storage", _FAILED),
    (JobQueueError, "failed", _FAILED),
    (click.UsageError, "usage", _USAGE),
    (click.FileError, "file", _USAGE),
    (click.ClickException, "failed", _FAILED),
    (click.Abort, "aborted", _FAILED),
)


@attrs.frozen(kw_only=True)
class Failure:
    """What went wrong: *lines* for people, *code* for programs."""

    lines: tuple[str, ...]
    code: str
    status: int

    def to_dict(self) -> dict[str, Any]:
        """The failure as ``--json`` shows it on stderr, in the shape of the REST API's errors."""
        answer: dict[str, Any] = {"error": "; ".join(self.lines), "code": self.code}
        return answer | ({"details": list(self.lines)} if len(self.lines) > 1 else {})

    def show(self, *, as_json: bool) -> None:
        """Write it to stderr, one line for each problem, and with *as_json* once more as one line of JSON."""
        for line in self.lines:
            click.echo(f"error: {one_line(line)}", err=True)
        if as_json:
            click.echo(json.dumps(self.to_dict()), err=True)


def failure_of(error: Exception) -> Failure | None:
    """What *error* means to an operator; None for one that is a bug and deserves its traceback."""
    if isinstance(error, ModuleNotFoundError) and error.name == "rich":
        return Failure(lines=("tables need the extra 'cli': pip install 'jobqueue[cli]'",), code="plugin", status=_USAGE)
    for kind, code, status in _KINDS:
        if isinstance(error, kind):
            return Failure(lines=_lines(error), code=error.code if isinstance(error, Conflict) else code, status=status)
    return None


def _lines(error: Exception) -> tuple[str, ...]:
    match error:
        case ConfigError():
            return error.problems
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "jobqueue"
            return (f"{error.format_message()} (see '{path} --help')",)
        case click.ClickException():
            return (error.format_message(),)
        case click.Abort():
            return ("stopped before it was done",)
        case _:
            return (str(error),)
