"""What is answered to what is no request: in the API's shape of errors, before there is anything that an application could answer."""

from __future__ import annotations

from typing import Any, Final

import attrs
import msgspec
from gunicorn.http.errors import ExpectationFailed, LimitRequestHeaders, ParseException, UnsupportedTransferCoding

from .received import Progress

__all__ = ["BUSY", "INTERNAL", "TOO_SLOW", "RawAnswer", "answer_to"]

_encoder = msgspec.json.Encoder()


@attrs.frozen
class RawAnswer:
    """An answer that ends the connection."""

    status: int
    reason: str
    code: str
    message: str
    retry_after: int | None = None
    """Seconds."""

    def encode(self) -> bytes:
        """The whole answer."""
        body: dict[str, Any] = {"error": self.message, "code": self.code, "details": []}
        data = _encoder.encode(body)
        again = f"Retry-After: {self.retry_after}\r\n" if self.retry_after else ""
        head = f"HTTP/1.1 {self.status} {self.reason}\r\nConnection: close\r\nContent-Type: application/json\r\n{again}Content-Length: {len(data)}"
        return f"{head}\r\n\r\n".encode("ascii") + data


BUSY: Final = RawAnswer(503, "Service Unavailable", "too_many_uploads", "too many large bodies are on their way already", 2)
TOO_SLOW: Final = RawAnswer(408, "Request Timeout", "request_timeout", "the request did not come in time")
INTERNAL: Final = RawAnswer(500, "Internal Server Error", "internal", "an error that nobody foresaw")
_MALFORMED: Final = RawAnswer(400, "Bad Request", "bad_request", "this is no request of HTTP/1.1")
_HEAD_TOO_LARGE: Final = RawAnswer(431, "Request Header Fields Too Large", "headers_too_large", "the request has too many or too large headers")
_BODY_TOO_LARGE: Final = RawAnswer(413, "Content Too Large", "too_large", "the body is larger than [api] max_body")
_NOT_EXPECTED: Final = RawAnswer(417, "Expectation Failed", "expectation_failed", "nothing can be expected but 100-continue")
_CODING: Final = RawAnswer(400, "Bad Request", "unsupported_encoding", "there is no transfer encoding here but chunked")


def answer_to(problem: Progress | BaseException) -> RawAnswer:  # noqa: PLR0911 - the table
    """The answer to what the loop, or gunicorn's parser, has found."""
    match problem:
        case Progress.HEAD_TOO_LARGE | LimitRequestHeaders():
            return _HEAD_TOO_LARGE
        case Progress.BODY_TOO_LARGE:
            return _BODY_TOO_LARGE
        case UnsupportedTransferCoding():
            return _CODING
        case ExpectationFailed():
            return _NOT_EXPECTED
        case Progress.MALFORMED | ParseException():
            return _MALFORMED
        case TimeoutError():
            return TOO_SLOW
        case _:
            return INTERNAL
