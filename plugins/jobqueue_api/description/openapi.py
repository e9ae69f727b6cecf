"""The OpenAPI 3.1 document, made from the routes and what their operations declare."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from jobqueue_api.http.body import JSON
from jobqueue_api.http.operation import Streamed
from jobqueue_api.http.paths import PARAMETERS
from jobqueue_api.http.problems import ErrorObject
from jobqueue_core._version import __version__

from .schemas import REFERENCE, Schemas

if TYPE_CHECKING:
    from jobqueue_api.http.operation import Operation
    from jobqueue_api.routes import Route

__all__ = ["document"]

_TAGS: Final[Mapping[str, str]] = {
    "jobs": "Requests to run a handler.",
    "queues": "Named lanes of jobs.",
    "dead letters": "Jobs that failed for good.",
    "executions": "Runs of jobs, as history remembers them.",
    "schedules": "Jobs at the times that an expression names.",
    "workers": "Who runs jobs, and of which types.",
    "statistics": "The whole in numbers.",
    "events": "What happens, as it happens.",
    "monitoring": "For those who keep it running.",
}
_PROBLEMS: Final[Mapping[int, str]] = {
    400: "The body is missing, cut off or no JSON, or there is one where none is taken.",
    401: "The key is missing or unknown.",
    403: "The key's role is too low, or a page of another site sent this.",
    404: "Nobody knows it.",
    409: "It is in a state that does not allow this; `code` says which.",
    413: "The body is too large.",
    415: "The body is not JSON by its Content-Type.",
    422: "A parameter or a field is wrong; `details` says which.",
    429: "Too many requests wait already.",
    431: "There are too many or too large headers, or the address is too long.",
    503: "The broker or the storage does not answer, or is full; `Retry-After` says when to try again.",
}
_USUAL: Final = (401, 403, 422, 431, 503)
_TEXT: Final[Mapping[str, Any]] = {"type": "string"}
_HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Idempotency-Key": {
        "description": "A key of yours for this request, kept 24 hours: repeated with it, the request makes no second job.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 180, "pattern": "^[!-~]+$"},
    },
    "Last-Event-ID": {"description": "The id of the last event that was seen: the stream goes on behind it.", "schema": {"type": "string"}},
}


def document(table: Sequence[Route], *, server: str = "/") -> dict[str, Any]:
    """The document of all operations in *table*.

    Args:
        table: The routes.
        server: The path under which they are mounted.
    """
    shown = [route for route in table if route.is_documented]
    operations = [declared for route in shown for _method, declared in route.operations()]
    schemas = Schemas(_types(operations))
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        for method, declared in route.operations():
            path, parameters = _path(route.path)
            paths.setdefault(path, {})[method] = _operation(declared, parameters, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jobqueue",
            "version": __version__,
            "summary": "Background jobs that you can operate.",
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "security": [{"key": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas.components(without=[one.query for one in operations if one.query is not None]),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key. Without keys in its configuration a server asks for none."}
            },
        },
    }


_DESCRIPTION: Final = """\
- Lists are arrays; `Link: <...>; rel="next"` leads to the next page.
- Errors are `{"error", "code", "details"}`: text for people, a stable word for programs, and which fields are wrong.
- Times are RFC 3339 in UTC; durations are text such as "30s", and may be given as a number of seconds.
- Every answer has an `X-Request-ID`, which the log has too; one that you send is kept.\
"""
_JOB: Final = {"type": "email.send", "payload": {"to": "user@example.com"}}
_EXAMPLES: Final[Mapping[str, Any]] = {
    "JobRequest": _JOB,
    "JobBatch": {"jobs": [_JOB, {**_JOB, "priority": "low", "delay": "5m"}]},
    "Replacement": {},
    "NewSchedule": {"name": "nightly-report", "expression": "30 2 * * *", "timezone": "Europe/Berlin", "type": "report.make"},
    "ScheduleChanges": {"paused": True},
}
"""What a page that tries operations out begins with, by the name of the body; otherwise it makes one up that has every field."""


def _types(operations: Iterable[Operation]) -> Iterator[Any]:
    """All types that they declare."""
    yield ErrorObject
    for declared in operations:
        for one in (declared.query, declared.body, *declared.answers.values()):
            if isinstance(one, Streamed):
                yield from one.objects
            elif one is not None and not isinstance(one, str):
                yield one


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter: it is either there or not, so null is no value of it."""
    described = dict(schema)
    description = described.pop("description", "")
    choices = [one for one in described.pop("anyOf", ()) if one != {"type": "null"}]
    described |= choices[0] if len(choices) == 1 else {"anyOf": choices} if choices else {}
    return {"name": name, "in": "query", "description": description, "schema": described}


def _path(falcon_path: str) -> tuple[str, list[dict[str, Any]]]:
    """A route's path as OpenAPI writes it, and its parameters."""
    names = re.findall(r"\{(\w+):\w+\}", falcon_path)
    parameters = [{"name": name, "in": "path", "required": True, **PARAMETERS[name]} for name in names]
    return re.sub(r"\{(\w+):\w+\}", r"{\1}", falcon_path), parameters


def _operation(declared: Operation, parameters: Sequence[dict[str, Any]], schemas: Schemas) -> dict[str, Any]:
    all_parameters = [*parameters, *({"name": name, "in": "header", **_HEADERS[name]} for name in declared.headers)]
    if declared.query is not None:
        all_parameters += [_parameter(name, schema) for name, schema in schemas.fields(declared.query).items()]
    described: dict[str, Any] = {
        "operationId": declared.id,
        "summary": declared.summary,
        "description": _unindented(declared.description),
        "tags": [declared.tag],
        "responses": _responses(declared, schemas),
    }
    if all_parameters:
        described["parameters"] = all_parameters
    if declared.role is None:
        described["security"] = []
    else:
        described["x-role"] = declared.role.value
    if declared.body is not None:
        schema = schemas.of(declared.body)
        optional = {"type": "null"} in schema.get("anyOf", ())
        if optional:
            schema = next(one for one in schema["anyOf"] if one != {"type": "null"})
        example = _EXAMPLES[schema["$ref"].removeprefix(REFERENCE)]
        described["requestBody"] = {"required": not optional, "content": {JSON: {"schema": schema, "example": example}}}
    return described


def _responses(declared: Operation, schemas: Schemas) -> dict[str, Any]:
    answers: dict[str, Any] = {str(status): _answer(status, kind, schemas) for status, kind in declared.answers.items()}
    usual = _USUAL if declared.role is not None else (422, 431, 503)
    for status in sorted({*usual, *declared.problems}):
        answers[str(status)] = {
            "description": _PROBLEMS[status],
            "content": {JSON: {"schema": schemas.of(ErrorObject)}},
        }
        if status in (429, 503):
            answers[str(status)]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return answers


def _answer(status: int, kind: Any, schemas: Schemas) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if isinstance(kind, str):
        answer["content"] = {kind: {"schema": dict(_TEXT)}}
    elif isinstance(kind, Streamed):
        answer["content"] = {kind.content_type: {"schema": _streamed(kind, schemas)}}
    elif kind is not None:
        schema = schemas.of(kind)
        answer["content"] = {JSON: {"schema": schema}}
        if schema.get("type") == "array":
            answer["headers"] = {"Link": {"description": 'The next page, as rel="next".', "schema": dict(_TEXT)}}
    return answer


def _streamed(kind: Streamed, schemas: Schemas) -> dict[str, Any]:
    """To OpenAPI 3.1 a stream is text; JSON Schema says what is in it, for those who read that."""
    told = {"type": "array", "items": {"anyOf": [schemas.of(one) for one in kind.objects]}}
    return {**_TEXT, "contentMediaType": kind.content_type, "contentSchema": told}


def _unindented(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())
