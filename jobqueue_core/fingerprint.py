"""Group errors by what went wrong: two errors that differ only in their numbers, ids or quoted values have one fingerprint."""

from __future__ import annotations

import hashlib
import re

__all__ = ["error_fingerprint"]

_VARIABLE = re.compile(
    r"""
    0x[0-9a-fA-F]+                              # addresses
    | \b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b   # UUIDs
    | '(?:[^'\\\n]|\\.){0,500}'                 # quoted values
    | "(?:[^"\\\n]|\\.){0,500}"
    | \d+(?:\.\d+)?                             # numbers
    """,
    re.VERBOSE,
)
_FRAME = re.compile(r'^  File "(?P<path>[^"\n]*)", line \d+, in (?P<function>\S+)', re.MULTILINE)


def error_fingerprint(job_type: str, error: str, traceback: str | None = None) -> str:
    """A short name for the kind of error: 16 hexadecimal digits.

    It is a hash of the job type, the error's text with what varies taken out, and the innermost frame's function. Line numbers are left
    out, so that a deploy does not split a group.
    """
    frames = _FRAME.findall(traceback) if traceback else []
    where = f"{frames[-1][0].rsplit('/', 1)[-1]}:{frames[-1][1]}" if frames else ""
    text = "\n".join((job_type, _VARIABLE.sub("?", error), where))
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
