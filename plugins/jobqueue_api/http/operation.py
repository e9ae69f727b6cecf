"""Operations: what a responder takes and answers, declared beside it.

From one declaration come who may do it, how query and body are read and checked, how the answer is written, and what the OpenAPI document says
of it all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, Concatenate, Final, Generic, Literal, ParamSpec, TypeVar, cast

import attrs
import falcon
import msgspec

from jobqueue_api.backend import Backend
from jobqueue_core.keys import Principal, Role
from jobqueue_core.operations import Operations

from .body import JSON, read_body, refuse_body
from .problems import Refusal
from .querystring import Query, read_query

__all__ = ["Answer", "Call", "Document", "Nothing", "Operation", "Reply", "Stream", "Streamed", "operation", "operation_of"]

_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_encoder = msgspec.json.Encoder()

Q = TypeVar("Q")
B = TypeVar("B")
R = TypeVar("R")
P = ParamSpec("P")


@attrs.frozen
class Streamed:
    """What a stream is: an answer without an end, of which each piece tells one of some objects."""

    content_type: str
    objects: tuple[type, ...]
    """The types of what is told."""


@attrs.frozen(kw_only=True)
class Operation:
    """The declaration of one operation."""

    id: str
    """Its name in generated clients."""
    summary: str
    description: str
    tag: str
    role: Role | None
    """What a key must allow; None: no key is needed."""
    query: type[Query] | None
    body: Any
    """The type of the body; None: it takes none."""
    answers: Mapping[int, Any]
    """Status -> the type of what is answered; None for nothing, text for a media type of its own, ``Streamed`` for a stream."""
    problems: tuple[int, ...]
    """Statuses of errors, beyond those that any operation may have."""
    headers: tuple[str, ...]
    """Request headers that it reads."""


@attrs.frozen
class Call(Generic[Q, B]):
    """A request that has been checked."""

    request: falcon.Request
    principal: Principal
    query: Q
    body: B
    sent: bytes
    """The body as it was sent."""
    backend: Backend

    @property
    def operations(self) -> Operations:
        """The service layer, acting for who sent the request. Raises what opening broker and storage raises."""
        return Operations(self.backend.queue, actor=f"api:{self.principal.name}")


@attrs.frozen
class Answer:
    """A JSON value."""

    content: object
    status: int = attrs.field(default=200, kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict, kw_only=True)

    def write(self, resp: falcon.Response) -> None:
        """Put it into *resp*."""
        resp.content_type = JSON
        resp.data = _encoder.encode(self.content)


@attrs.frozen
class Document:
    """Bytes of another media type."""

    data: bytes
    content_type: str
    status: int = attrs.field(default=200, kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict, kw_only=True)

    def write(self, resp: falcon.Response) -> None:
        """Put it into *resp*."""
        resp.content_type = self.content_type
        resp.data = self.data


@attrs.frozen
class Stream:
    """Bytes that come over time; *chunks* is closed when the client has gone."""

    chunks: Iterator[bytes]
    content_type: str
    status: int = attrs.field(default=200, kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict, kw_only=True)

    def write(self, resp: falcon.Response) -> None:
        """Put it into *resp*."""
        resp.content_type = self.content_type
        resp.stream = self.chunks


@attrs.frozen
class Nothing:
    """Done, and nothing to say."""

    status: int = attrs.field(default=204, kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict, kw_only=True)

    def write(self, resp: falcon.Response) -> None:
        """Put it into *resp*."""


Reply = Answer | Document | Stream | Nothing


def operation(
    id: str,
    summary: str,
    *,
    tag: str,
    role: Literal["read", "write", "admin"] | None,
    answers: Mapping[int, Any],
    query: type[Query] | None = None,
    body: Any = None,
    problems: tuple[int, ...] = (),
    headers: tuple[str, ...] = (),
) -> Callable[[Callable[Concatenate[R, Any, P], Reply]], Callable[..., None]]:
    """Declare what a responder does; its docstring becomes the description.

    Args:
        id: The operation's name in generated clients.
        summary: A few words.
        tag: Under which heading the documentation shows it.
        role: What a key must allow; None: no key is needed.
        answers: Status -> type of the answer; None for nothing, a media type as text for what is not JSON, ``Streamed`` for a stream.
        query: The struct of its parameters.
        body: The type of its body.
        problems: Statuses of errors, beyond those that any operation may have.
        headers: Request headers that it reads.
    """

    def decorate(function: Callable[Concatenate[R, Any, P], Reply]) -> Callable[..., None]:
        declared = Operation(
            id=id,
            summary=summary,
            description=function.__doc__ or "",
            tag=tag,
            role=None if role is None else Role(role),
            query=query,
            body=body,
            answers=answers,
            problems=problems,
            headers=headers,
        )

        @wraps(function)
        def responder(resource: R, req: falcon.Request, resp: falcon.Response, *args: P.args, **path: P.kwargs) -> None:
            reply = function(resource, _call(declared, req), *args, **path)
            resp.status = reply.status
            for name, value in reply.headers.items():
                resp.set_header(name, value)
            reply.write(resp)

        responder.__dict__["operation"] = declared
        return responder

    return decorate


def operation_of(responder: object) -> Operation | None:
    """The declaration of a responder; None when it has none."""
    return cast("Operation | None", getattr(responder, "operation", None))


def _call(declared: Operation, req: falcon.Request) -> Call[Any, Any]:
    principal: Principal = req.context.principal
    if declared.role is not None and not principal.role.allows(declared.role):
        message = f"the key {principal.name!r} has the role {principal.role}; this needs {declared.role}"
        raise Refusal(403, "forbidden", message)
    query = read_query(declared.query or Query, req.params)
    body, sent = None, b""
    if declared.body is not None:
        body, sent = read_body(req, declared.body, limit=req.context.max_body)
    elif req.method not in _BODILESS:
        refuse_body(req, limit=req.context.max_body)
    return Call(req, principal, query, body, sent, req.context.backend)
