"""What is answered when a request cannot be served: one table from errors to statuses, one shape for all of them.

``{"error": "for people", "code": "for_programs", "details": [{"field": "jobs[3].queue", "problem": "..."}]}``
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, TypedDict

import attrs
import falcon
import msgspec
from msgspec import Meta

from jobqueue_core.errors import (
    BrokerUnavailable,
    Conflict,
    IncompatibleData,
    InvalidJob,
    JobNotFound,
    JobQueueError,
    PluginError,
    QueueFull,
    StorageRejected,
    StorageUnavailable,
)

__all__ = ["ErrorDetailObject", "ErrorObject", "Problem", "Refusal", "answer_errors", "problem_of"]

_log = logging.getLogger("jobqueue.api")
_RETRY_AFTER: Final = 2
"""Seconds after which a dependency that is away is worth another try."""

_encoder = msgspec.json.Encoder()


class ErrorDetailObject(TypedDict):
    """One thing that is wrong with a request."""

    field: Annotated[str, Meta(description="The path of what is wrong.", examples=["jobs[3].queue"])]
    problem: str


class ErrorObject(TypedDict):
    """Why a request was not served."""

    error: Annotated[str, Meta(description="For people.")]
    code: Annotated[str, Meta(description="A stable word, for programs.", examples=["not_found"])]
    details: list[ErrorDetailObject]


class Refusal(JobQueueError):
    """A request that is refused for what is HTTP's own: a key, a media type, a size.

    Args:
        status: The HTTP status.
        code: A stable word for programs.
        message: For people.
        headers: Of the answer.
        details: The fields that are wrong.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: dict[str, str] | None = None,
        details: Sequence[ErrorDetailObject] = (),
    ) -> None:
        self.status = status
        self.code = code
        self.headers = headers or {}
        self.details = list(details)
        super().__init__(message)


@attrs.frozen
class Problem:
    """An answer that says why there is none."""

    status: int
    body: ErrorObject
    headers: Mapping[str, str]


_TABLE: Final[Sequence[tuple[type[JobQueueError], int, str]]] = (
    (JobNotFound, 404, "not_found"),
    (StorageRejected, 422, "storage_rejected"),
    (BrokerUnavailable, 503, "broker_unavailable"),
    (QueueFull, 503, "broker_full"),
    (StorageUnavailable, 503, "storage_unavailable"),
    (IncompatibleData, 503, "incompatible_data"),
    (PluginError, 503, "plugin_missing"),
)
_UNFORESEEN: Final = "an error that nobody foresaw; the log has it under this answer's X-Request-ID"


def problem_of(error: Exception) -> Problem:
    """What is answered for *error*."""
    match error:
        case Refusal():
            return _problem(error.status, error.code, str(error), details=error.details, headers=error.headers)
        case falcon.HTTPError():
            return _of_falcon(error)
        case InvalidJob():
            return _problem(422, "invalid", str(error), details=[{"field": error.field, "problem": error.problem}])
        case Conflict():
            return _problem(409, error.code, str(error))
        case _:
            for kind, status, code in _TABLE:
                if isinstance(error, kind):
                    return _problem(status, code, str(error), headers={"Retry-After": str(_RETRY_AFTER)} if status == 503 else {})
            return _problem(500, "internal", _UNFORESEEN)


def _problem(status: int, code: str, message: str, *, details: Sequence[ErrorDetailObject] = (), headers: Mapping[str, str] | None = None) -> Problem:
    return Problem(status, {"error": message, "code": code, "details": list(details)}, headers or {})


_WORDS: Final = {404: ("not_found", "there is nothing here"), 405: ("method_not_allowed", "this cannot be done here; Allow says what can")}


def _of_falcon(error: falcon.HTTPError) -> Problem:
    """What falcon refuses by itself: a path, a method, a request that cannot be read."""
    status = HTTPStatus(error.status_code)
    code, message = _WORDS.get(status, (re.sub(r"[^a-z]+", "_", status.phrase.lower()), error.description or error.title or status.phrase))
    headers: Any = error.headers or {}
    return _problem(status, code, message, headers=dict(headers))


def answer_errors(app: falcon.App[falcon.Request, falcon.Response]) -> None:
    """Have *app* answer every error by the table."""

    def answer(req: falcon.Request, resp: falcon.Response, error: Exception, _path: dict[str, Any]) -> None:
        problem = problem_of(error)
        if problem.status == 500:
            _log.error("a request failed", extra={"fields": {"request_id": req.context.get("request_id"), "path": req.path}}, exc_info=error)
        resp.status = problem.status
        resp.content_type = falcon.MEDIA_JSON
        resp.stream = None
        resp.data = _encoder.encode(problem.body)
        for name, value in problem.headers.items():
            resp.set_header(name, value)

    app.add_error_handler(Exception, answer)
    # What falcon raises by itself has a handler already, which this replaces.
    app.add_error_handler(falcon.HTTPError, answer)
