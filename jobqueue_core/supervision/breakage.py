"""Telling what broke a service: in one line each time, and with its traceback the first time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from jobqueue_core.fingerprint import error_fingerprint

if TYPE_CHECKING:
    from jobqueue_core.supervision.started import StartedTable

__all__ = ["describe", "tell", "trim"]

_log = logging.getLogger("jobqueue.child")

_OURS: Final = str(Path(__file__).parent.parent) + os.sep
_PLUMBING: Final = (_OURS, "<frozen ", *(str(Path(module.__file__ or "").parent) + os.sep for module in (asyncio, concurrent.futures)))
_PIPES: Final = tuple(module.__file__ for module in (contextlib, threading))


def tell(error: BaseException, table: StartedTable, *, role: str) -> None:
    """Leave word in *table* of what broke this process; log it, unless the process before broke of the same: the supervisor repeats the line."""
    words = describe(error)
    before = table.words_before
    if not before or error_fingerprint(role, before) != error_fingerprint(role, words):
        facts = {"role": role, "pid": os.getpid(), "reason": words}
        trim(error)
        _log.error("broke", exc_info=error, extra={"fields": facts})
    table.say(words)


def describe(error: BaseException) -> str:
    """The error in a line, with its notes: they say where it comes from."""
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001 - an exception class of somebody else
        message = f"(its message cannot be read: {type(broken).__name__})"
    name = type(error).__qualname__
    parts = [f"{name}: {message}" if message else name, *map(str, getattr(error, "__notes__", ()))]
    return "; ".join(" ".join(part.split()) for part in parts)


def trim(error: BaseException) -> None:
    """Leave out of its traceback, and of those that led to it, what tells nobody anything."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        elsewhere = _from_elsewhere(following.__traceback__)
        if elsewhere is not None or following.__cause__ is not None:
            following.__traceback__ = elsewhere
        following = following.__cause__ or following.__context__


def _from_elsewhere(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not ours nor asyncio's."""
    frame = trace
    while frame is not None and _is_plumbing(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    return frame


def _is_plumbing(filename: str) -> bool:
    return filename in _PIPES or filename.startswith(_PLUMBING)
