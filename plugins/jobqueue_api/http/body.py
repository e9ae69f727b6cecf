"""Bodies of requests: measured before they are read, then made into what an operation declares."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from gunicorn.http.errors import ParseException

from jobqueue_core.durations import format_size
from jobqueue_core.errors import InvalidJob

from .problems import Refusal

if TYPE_CHECKING:
    import falcon

__all__ = ["JSON", "read_body", "refuse_body"]

JSON: Final = "application/json"
_JSON_TYPE: Final = re.compile(r"application/(?:[a-z0-9.+-]+\+)?json", re.IGNORECASE | re.ASCII)


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def read_body(req: falcon.Request, kind: Any, *, limit: int) -> tuple[Any, bytes]:
    """The body as a *kind*, and as it was sent; None when there is none and *kind* allows for that.

    Args:
        req: The request.
        kind: What the operation declares.
        limit: The most bytes.

    Raises:
        Refusal: It is too large, no JSON, or of another media type.
        InvalidJob: It does not fit *kind*; with the path of what is wrong.
    """
    data = _read(req, limit)
    if data:
        _check_type(req)
    try:
        value = _decoder(kind).decode(data or b"null")
    except msgspec.ValidationError as error:
        if not data:
            raise Refusal(400, "body_missing", f"this operation needs a body of {JSON}") from error
        raise _placed(error) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refusal(400, "bad_json", f"the body is not JSON: {why}") from error
    if value is None and data:
        raise InvalidJob("body", "must be an object, or not be there at all")
    return value, data


def refuse_body(req: falcon.Request, *, limit: int) -> None:
    """Refuse a body where an operation takes none: a filter that was put there must not be passed over.

    Args:
        req: The request.
        limit: The most bytes of a body where one is taken.

    Raises:
        Refusal: There is one.
    """
    if (req.content_length or 0) > limit:
        raise _too_large(limit)
    if req.content_length or ("HTTP_TRANSFER_ENCODING" in req.env and _receive(req, 1)):
        raise Refusal(400, "body_unexpected", "this operation takes no body; parameters stand in the query string")


def _read(req: falcon.Request, limit: int) -> bytes:
    length = req.content_length
    if length is None and "HTTP_TRANSFER_ENCODING" not in req.env:
        return b""
    if length is not None and length > limit:
        raise _too_large(limit)
    # Of a chunked body nobody says how long it is; the server ends it.
    data = _receive(req, limit + 1 if length is None else length)
    if len(data) > limit:
        raise _too_large(limit)
    if length is not None and len(data) < length:
        raise Refusal(400, "body_cut_off", f"the body ended after {len(data)} of {length} bytes")
    return data


def _receive(req: falcon.Request, size: int) -> bytes:
    try:
        data: bytes = req.stream.read(size)
    except (OSError, ParseException) as error:
        raise Refusal(400, "body_unreadable", f"the body cannot be read: {error}") from error
    return data


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "too_large", f"the body is larger than {format_size(limit)}, [api] max_body")


def _check_type(req: falcon.Request) -> None:
    if req.content_type == JSON and req.env.get("HTTP_CONTENT_ENCODING") is None:
        return
    media, _, parameters = (req.content_type or "").partition(";")
    if not _JSON_TYPE.fullmatch(media.strip()):
        shown = f", not {media.strip()[:60]}" if media.strip() else ""
        raise Refusal(415, "unsupported_media_type", f"the body must be {JSON}{shown}: say so by Content-Type", headers={"Accept": JSON})
    charset = re.search(r'charset="?([^";\s]+)', parameters, re.IGNORECASE)
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise Refusal(415, "unsupported_media_type", f"JSON is UTF-8, not {charset[1][:60]}")
    if (encoding := req.get_header("Content-Encoding", default="identity").lower()) != "identity":
        raise Refusal(415, "unsupported_encoding", f"the body must not be encoded, and is {encoding[:60]}", headers={"Accept-Encoding": "identity"})


def _placed(error: msgspec.ValidationError) -> InvalidJob:
    """The error with its place as a path: ``Expected `int` - at `$.jobs[3].max_retries``` is of the field jobs[3].max_retries."""
    problem, _, place = str(error).partition(" - at `$")
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", problem, re.DOTALL):
        return InvalidJob(".".join(filter(None, [_path(place), found[1][:60]])), "is not a field of this object")
    if found := re.fullmatch(r"Object missing required field `(.*)`", problem, re.DOTALL):
        return InvalidJob(".".join(filter(None, [_path(place), found[1]])), "is missing")
    return InvalidJob(_path(place) or "body", problem.replace("`", ""))


def _path(place: str) -> str:
    return place.rstrip("`").lstrip(".")
