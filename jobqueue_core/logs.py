"""The log: one event a line on stderr, as JSON for machines or as text for people.

Any logger may be used. Facts travel beside the message, in a dict that both formats show::

    log.warning("dead", extra={"fields": {"job_id": job.id, "type": job.type}})

A line that is logged while a handler runs, by whatever logger, also shows which run that is: job_id, type, queue, attempt, run.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec

from jobqueue_core.context import run_facts

if TYPE_CHECKING:
    from jobqueue_core.settings.sections import LogSection

__all__ = ["ConsoleFormatter", "JobContextFilter", "JsonFormatter", "configure"]

_RUN: Final = "jobqueue_run"
"""The attribute of a record that keeps the facts of its run, once they have been looked up."""
_FACTS: Final = ("job_id", "type", "queue", "attempt", "run")
_OURS: Final = "jobqueue."
_RESET: Final = "\x1b[0m"
_DIM: Final = "\x1b[2m"
_COLORS: Final = ((logging.ERROR, "\x1b[31m"), (logging.WARNING, "\x1b[33m"), (logging.INFO, "\x1b[32m"))


def configure(settings: LogSection, stream: TextIO | None = None) -> None:
    """Send the log to *stream*, in place of where a former call sent it; None means stderr.

    All loggers are shown from the configured level on, those of handlers and libraries too: a logger that is to say less is given a level of
    its own. Python's warnings become log lines.
    """
    target = sys.stderr if stream is None else stream
    handler = _LogHandler(target)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else ConsoleFormatter(colors=_wants_colors(target)))
    root = logging.getLogger()
    for former in [one for one in root.handlers if isinstance(one, _LogHandler)]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    logging.captureWarnings(capture=True)


class _LogHandler(logging.StreamHandler[TextIO]):
    """A class of its own, so that ``configure`` knows what it has added."""


def _wants_colors(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _event(record: logging.LogRecord) -> str:
    """The message; a wrong format string in someone's code loses no line."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} {record.args!r}"


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """The facts of the run that the record was logged in, and its own fields, which count for more."""
    own = getattr(record, "fields", None)
    if not isinstance(own, Mapping):
        own = {}
    # Looked up once: where records are handed on, the next to ask may be another run.
    facts = record.__dict__.get(_RUN)
    if facts is None:
        facts = record.__dict__[_RUN] = run_facts()
    if not facts or own.get("job_id", facts["job_id"]) != facts["job_id"]:
        # What is said of another job, as of one that the handler has enqueued, must not get this one's attempt and run.
        return own
    return {**facts, **own}


class JobContextFilter(logging.Filter):
    """Lets every record pass, and gives it the attributes ``job_id``, ``type``, ``queue``, ``attempt`` and ``run``, for formatters of your own.

    Put it on handlers, not on loggers: a logger's filter does not see what its children log. The formatters of this module need it only behind a
    handler that hands records on to another thread or keeps them (``QueueHandler``, ``MemoryHandler``): put it on that one. Attributes that a
    record has already are left alone.

    Args:
        outside: What the attributes are where no job is concerned.
    """

    def __init__(self, outside: object = None) -> None:
        super().__init__()
        self._outside = outside

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes."""
        fields = _fields(record)
        for name in _FACTS:
            record.__dict__.setdefault(name, fields.get(name, self._outside))
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, then the record's fields, and an exception's traceback as ``error``."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = msgspec.json.Encoder(enc_hook=str)

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _event(record),
        }
        for key, value in _fields(record).items():
            line.setdefault(str(key), value)
        if trace := _traceback(self, record):
            line["traceback" if "error" in line else "error"] = trace
        try:
            return self._encoder.encode(line).decode()
        except (TypeError, ValueError, OverflowError, RecursionError):
            # Half a character, a key that is no text, a loop: shown as well as it can be.
            return self._encoder.encode({key: _printable(str(value)) for key, value in line.items()}).decode()


class ConsoleFormatter(logging.Formatter):
    """``12:00:01.123 INFO     worker  completed  job_id=... type=...``, in local time; a traceback follows, indented.

    Args:
        colors: Mark levels by colour.
    """

    def __init__(self, *, colors: bool = False) -> None:
        super().__init__()
        self._colors = colors

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, without its end, and its traceback."""
        time = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        level = self._paint(f"{record.levelname:<7}", next((color for least, color in _COLORS if record.levelno >= least), _DIM))
        parts = [time, level, f"{_printable(record.name.removeprefix(_OURS)):<10}", _printable(_event(record))]
        parts += [f"{self._paint(_printable(str(key)) + '=', _DIM)}{_quoted(value)}" for key, value in _fields(record).items()]
        # Indented, a line of an exception's text cannot pass for an event.
        trace = [f"    {_printable(line)}" for line in _traceback(self, record).splitlines()]
        return "\n".join([" ".join(parts), *trace])

    def _paint(self, text: str, color: str) -> str:
        return f"{color}{text}{_RESET}" if self._colors else text


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _printable(text: str) -> str:
    """*text* with line ends, control characters and half characters escaped: what comes from outside cannot forge a line or move the cursor."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _quoted(value: object) -> str:
    text = str(value)
    shown = _printable(text)
    if shown and shown == text and not any(one in text for one in " =\"'"):
        return shown
    return '"' + shown.replace('"', '\\"') + '"'
