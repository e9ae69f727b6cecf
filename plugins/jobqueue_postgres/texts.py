"""Texts as columns of PostgreSQL hold them, which know no NUL; and payloads, which are JSON unless they are not."""

from __future__ import annotations

import hashlib
import re
from typing import Final, overload

import msgspec

__all__ = ["escaped", "indexed", "payload_columns", "payload_of", "unescaped"]

_DLE: Final = "\x10"
"""Data Link Escape: it escapes NUL, and itself."""
_ESCAPED: Final = re.compile(f"{_DLE}([0{_DLE}])")
_INDEXED_BYTES: Final = 500
"""What a name may have in an index, where an entry of several has at most a third of a page. Those that are legal have far less."""


@overload
def escaped(text: str) -> str: ...
@overload
def escaped(text: None) -> None: ...
@overload
def escaped(text: str | None) -> str | None: ...
def escaped(text: str | None) -> str | None:
    """*text* without NUL and lone surrogates; None stays None."""
    if text is None or text.isprintable():
        return text
    return text.replace(_DLE, _DLE * 2).replace("\0", f"{_DLE}0").encode("utf-8", "replace").decode("utf-8")


@overload
def unescaped(text: str) -> str: ...
@overload
def unescaped(text: None) -> None: ...
@overload
def unescaped(text: str | None) -> str | None: ...
def unescaped(text: str | None) -> str | None:
    """What :func:`escaped` was given."""
    if text is None or _DLE not in text:
        return text
    return _ESCAPED.sub(lambda match: "\0" if match[1] == "0" else _DLE, text)


@overload
def indexed(text: str) -> str: ...
@overload
def indexed(text: None) -> None: ...
@overload
def indexed(text: str | None) -> str | None: ...
def indexed(text: str | None) -> str | None:
    """As :func:`escaped`, for a column that is in an index: of what is too long for one the beginning, and a hash of all of it."""
    whole = escaped(text)
    if whole is None or len(whole) * 4 <= _INDEXED_BYTES or len(whole.encode()) <= _INDEXED_BYTES:
        return whole
    return f"{whole[:100]}...{hashlib.sha256(whole.encode()).hexdigest()}"


def payload_columns(payload: bytes) -> tuple[str | None, bytes | None]:
    """*payload* for a column of type json, byte for byte; or, when it is no JSON, for one of type bytea."""
    try:
        msgspec.json.decode(payload)
        return payload.decode(), None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, payload


def payload_of(payload: str | None, raw: bytes | None) -> bytes:
    """What :func:`payload_columns` was given. The column must have been read as text: ``payload::text``."""
    if payload is not None:
        return payload.encode()
    return raw or b""
