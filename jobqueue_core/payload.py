"""Payloads, results and metadata: what may be in them, checked before anything is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from jobqueue_core.durations import format_size
from jobqueue_core.errors import InvalidJob, InvalidPayload

__all__ = ["MAX_DEPTH", "MAX_RESULT", "check_metadata", "decode_json", "encodable", "encode_payload", "encode_result", "shown_json"]

MAX_DEPTH: Final = 64
"""How deep arrays and objects may be nested."""
MAX_RESULT: Final = 1 << 20
"""The most bytes of JSON that a handler may return."""
_MAX_INT_BITS: Final = 1024
_MAX_METADATA: Final = 64
_MAX_METADATA_VALUE: Final = 4096
_METADATA_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/\-]{0,127}")

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode_payload(value: object, *, limit: int, field: str = "payload") -> bytes:
    """Check *value* and write it as JSON.

    *value* is a JSON value, or an attrs, dataclass or msgspec instance.

    Raises:
        InvalidPayload: It is not JSON (NaN and infinity are not), nested deeper than 64, or longer than *limit* bytes. The error's field is
            the path of the culprit.
    """
    try:
        _check(value, field, 0)
    except _Foreign:
        try:
            value = msgspec.to_builtins(value, str_keys=True, enc_hook=_plain)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidPayload(field, f"cannot be written as JSON: {_reason(error)}") from error
        _check(value, field, 0, foreign_ok=False)
    try:
        data = _encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidPayload(field, f"cannot be written as JSON: {_reason(error)}") from error
    if len(data) > limit:
        raise InvalidPayload(field, f"is {len(data)} bytes of JSON; at most {format_size(limit)} is allowed")
    return data


def encode_result(value: object) -> bytes | None:
    """Check what a handler returned and write it as JSON; None for None.

    Raises:
        InvalidPayload: As :func:`encode_payload`, with the field ``result``.
    """
    return None if value is None else encode_payload(value, limit=MAX_RESULT, field="result")


def decode_json(data: bytes | str, field: str = "payload") -> Any:
    """Read JSON text.

    Raises:
        InvalidPayload: It is not JSON.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidPayload(field, f"is not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidPayload(field, f"is nested deeper than {MAX_DEPTH}") from error


def shown_json(data: bytes | None) -> Any:
    """JSON text as a value, for people; as the text that it is where no decoder takes it: one such row must not hide the others of its list."""
    if not data:
        return None
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return data.decode(errors="replace")


def encodable(text: str) -> str:
    """*text* with half characters (lone surrogates, as in the name of a file that is not UTF-8) escaped: nothing that stores text takes them."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def check_metadata(metadata: object, field: str = "metadata", *, ours: bool = False) -> dict[str, str]:
    """Return a copy of *metadata* when it is legal.

    Args:
        metadata: At most 64 pairs of text; keys of 1 to 128 letters, digits, ``_ . : / -``, values of at most 4096 characters.
        field: Its path in error messages.
        ours: Allow the prefix ``jobqueue.``, which is the framework's own.

    Raises:
        InvalidJob: It is not.
    """
    if not isinstance(metadata, Mapping):
        raise InvalidJob(field, f"expected a mapping of text to text, got {type(metadata).__name__}")
    if len(metadata) > _MAX_METADATA:
        raise InvalidJob(field, f"has {len(metadata)} entries; at most {_MAX_METADATA} are allowed")
    for key, value in metadata.items():
        if not isinstance(key, str) or not _METADATA_KEY.fullmatch(key):
            raise InvalidJob(field, f"{key!r:.100} is not a metadata key: 1 to 128 letters, digits, '_', '.', ':', '/' or '-'")
        if key.startswith("jobqueue.") and not ours:
            raise InvalidJob(f"{field}.{key}", "the prefix 'jobqueue.' is reserved")
        if not isinstance(value, str) or len(value) > _MAX_METADATA_VALUE:
            raise InvalidJob(f"{field}.{key}", f"must be text of at most {_MAX_METADATA_VALUE} characters")
        if encodable(value) != value:
            raise InvalidJob(f"{field}.{key}", "has half a character in it (a lone surrogate)")
    return dict(metadata)


class _Foreign(Exception):
    """The value holds something that is not a plain JSON type, but may be convertible."""


def _check(value: object, path: str, depth: int, *, foreign_ok: bool = True) -> None:  # noqa: C901, PLR0912 - one branch a JSON type
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if value.bit_length() > _MAX_INT_BITS:  # type: ignore[attr-defined]  # kind says it is an int
            raise InvalidPayload(path, f"is an integer of more than {_MAX_INT_BITS} bits")
    elif kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]  # kind says it is a float
            raise InvalidPayload(path, f"{value} is not a JSON number")
    elif kind is dict or kind is list or kind is tuple:
        if depth >= MAX_DEPTH:
            raise InvalidPayload(path, f"is nested deeper than {MAX_DEPTH}")
        if kind is dict:
            for key, item in value.items():  # type: ignore[attr-defined]  # kind says it is a dict
                if type(key) is not str:
                    if foreign_ok and not isinstance(key, (int, float, bool)) and key is not None:
                        raise _Foreign
                    raise InvalidPayload(path, f"has the key {key!r:.50}, which is not a string")
                _check(item, f"{path}.{key}" if len(key) < 50 else path, depth + 1, foreign_ok=foreign_ok)
        else:
            for index, item in enumerate(value):  # type: ignore[arg-type]  # kind says it is a list or tuple
                _check(item, f"{path}[{index}]", depth + 1, foreign_ok=foreign_ok)
    elif foreign_ok:
        raise _Foreign
    else:
        raise InvalidPayload(path, f"{kind.__name__} is not a JSON type")


_JSON_KINDS: Final[tuple[type[Any], ...]] = (str, int, float, dict, list, tuple)


def _plain(value: object) -> object:
    """A subclass of a JSON type (an e-mail header, a translated text) as that type."""
    for kind in _JSON_KINDS:
        if isinstance(value, kind):
            return kind(value)
    msg = f"{type(value).__name__} is not a JSON type"
    raise TypeError(msg)


def _reason(error: Exception) -> str:
    return f"it is nested deeper than {MAX_DEPTH}" if isinstance(error, RecursionError) else str(error)
