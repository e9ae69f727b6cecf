"""What has been received of a request: just enough of HTTP to know when it is whole, so that no thread has to wait for the rest.

The parser that counts is gunicorn's, which reads the request once it is whole. Should the two ever disagree about where a request ends, the
connection is closed.
"""

from __future__ import annotations

import enum
import re
import sys
from typing import Final

__all__ = ["HEAD_LIMIT", "Progress", "Received"]

HEAD_LIMIT: Final = 64 << 10
"""The most bytes before the body."""
_LINE_LIMIT: Final = 8192
"""The most bytes of the line before a chunk, and of the trailers after the last."""
_FEW_CHUNKS: Final = 10_000
"""So many chunks may be as small as they like."""
_SMALL_CHUNK: Final = 64
"""Bytes that the others must have on average."""
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding[ \t]*:", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)
_EXPECTS: Final = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
_CHUNK: Final = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?", re.DOTALL)


def _length(digits: bytes) -> int:
    """What a Content-Length says; one beyond all bounds as the largest there is."""
    significant = digits.lstrip(b"0")
    return int(significant or b"0") if len(significant) <= 18 else sys.maxsize


class Progress(enum.Enum):
    """How far a request has come."""

    HEAD = enum.auto()
    """Its head is not complete."""
    BODY = enum.auto()
    """Its body is not complete."""
    WHOLE = enum.auto()
    """It is complete; or so large by its own account that it will be refused unread."""
    MALFORMED = enum.auto()
    """It will never be one."""
    HEAD_TOO_LARGE = enum.auto()
    BODY_TOO_LARGE = enum.auto()


class Received:
    """The bytes of a request and of what comes behind it, taken by one side after the other: the loop adds, then a thread takes.

    Args:
        max_body: The most bytes of a body.
    """

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._begin(b"")

    def _begin(self, data: bytes) -> None:
        self._data = bytearray(data)
        self._searched = 0
        self._head: int | None = None
        """Where the body begins."""
        self._end: int | None = None
        """Where the request ends, once that is known."""
        self._chunk: int | None = None
        """Where the next chunk of the body begins, or will."""
        self._decoded = 0
        """The length of the body, as far as it is known."""
        self._chunks = 0
        self._taken = 0
        self.whole = False
        """Whether all of it is here."""
        self.expects = False
        """Whether the client waits to be told to send the body."""

    def __len__(self) -> int:
        return len(self._data)

    def add(self, data: bytes) -> Progress:
        """Add what has come, and say how far that goes."""
        self._data += data
        if self._head is None and (progress := self._find_head()) is not None:
            return progress
        if self._chunk is not None and self._end is None:
            return self._follow_chunks(self._chunk)
        return self._whole() if self._end is not None and len(self._data) >= self._end else Progress.BODY

    def _whole(self) -> Progress:
        self.whole = self._decoded <= self._max_body
        return Progress.WHOLE

    def _find_head(self) -> Progress | None:
        at = self._data.find(b"\r\n\r\n", max(0, self._searched - 3), HEAD_LIMIT)
        if at < 0:
            # A bare line feed never ends a line here; the client would wait for an answer that its empty line has asked for.
            malformed = self._data.find(b"\n\n", max(0, self._searched - 1)) >= 0
            self._searched = len(self._data)
            if malformed:
                return Progress.MALFORMED
            return Progress.HEAD_TOO_LARGE if len(self._data) >= HEAD_LIMIT else Progress.HEAD
        self._head = at + 4
        head = bytes(self._data[: at + 2])
        if _CHUNKED.search(head):
            self._chunk = self._head
        else:
            found = _LENGTH.search(head)
            self._decoded = _length(found[1]) if found else 0
            # What is too large by its own account is not waited for: the application refuses it without reading.
            self._end = self._head + (self._decoded if self._decoded <= self._max_body else 0)
        if self._end != self._head and _EXPECTS.search(head):
            # Before HTTP 1.1 nobody knows what the answer means.
            self.expects = head[: head.find(b"\r\n", 2)].endswith(b"HTTP/1.1")
        return None

    def _follow_chunks(self, at: int) -> Progress:
        """Step over the chunks that are there."""
        while (line_end := self._data.find(b"\r\n", at)) >= 0:
            found = _CHUNK.fullmatch(self._data, at, line_end)
            if found is None:
                return Progress.MALFORMED
            size = int(found[1], 16)
            if size == 0:
                return self._find_end(line_end)
            self._decoded += size
            self._chunks += 1
            # Chunks of a byte each are much work for little.
            if self._decoded > self._max_body or self._chunks > _FEW_CHUNKS + self._decoded // _SMALL_CHUNK:
                return Progress.BODY_TOO_LARGE
            self._chunk = at = line_end + 2 + size + 2
        if len(self._data) - at > _LINE_LIMIT:
            return Progress.MALFORMED
        # So are those with long extensions.
        return Progress.BODY_TOO_LARGE if len(self._data) > 2 * self._max_body + HEAD_LIMIT else Progress.BODY

    def _find_end(self, last_line_end: int) -> Progress:
        """Trailers end with an empty line, which may come at once."""
        at = self._data.find(b"\r\n\r\n", last_line_end)
        if at < 0:
            return Progress.MALFORMED if len(self._data) - last_line_end > _LINE_LIMIT else Progress.BODY
        self._end = at + 4
        return self._whole()

    def take(self, size: int) -> bytes:
        """Take up to *size* bytes; none are left when it is empty."""
        taken = bytes(memoryview(self._data)[self._taken : self._taken + size])
        self._taken += len(taken)
        return taken

    def proceed(self, unread: bytes) -> Progress | None:
        """Go on to the next request, of which something may be there.

        Args:
            unread: What was taken and not used.

        Returns:
            How far it has come; None when nobody knows where it begins.
        """
        left = unread + bytes(memoryview(self._data)[self._taken :])
        if self._end is None or not self.whole or len(left) != len(self._data) - self._end:
            return None
        self._begin(b"")
        return self.add(left) if left else Progress.HEAD
