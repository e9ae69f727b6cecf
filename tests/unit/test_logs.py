from __future__ import annotations

import io
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.config import dictConfig
from logging.handlers import MemoryHandler, QueueHandler, QueueListener
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import pytest

from jobqueue_core import Job, JobContext, JobState, Priority
from jobqueue_core.context import current_run
from jobqueue_core.logs import ConsoleFormatter, JobContextFilter, JsonFormatter, configure
from jobqueue_core.settings.sections import LogSection

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


FACTS = ("job_id", "type", "queue", "attempt", "run")
PING = {"job_id": "j1", "type": "ping", "queue": "mail", "attempt": 3, "run": 5}


@contextmanager
def inside_a_run(job_id: str = "j1") -> Iterator[JobContext]:
    """As a handler is called."""
    job = Job(
        id=job_id,
        type="ping",
        payload_json=b'"secret"',
        queue="mail",
        priority=Priority.MEDIUM,
        state=JobState.PROCESSING,
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
        retry_count=2,
        run=5,
    )
    context = JobContext(job)
    token = current_run.set(context)
    try:
        yield context
    finally:
        current_run.reset(token)


def record(
    message: str = "completed",
    *args: object,
    level: int = logging.INFO,
    name: str = "jobqueue.worker",
    fields: object = None,
    exc_info: ExcInfo | None = None,
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, __file__, 1, message, args, exc_info)
    made.created = datetime(2026, 3, 1, 12, 0, 1, 123456, UTC).timestamp()
    if fields is not None:
        made.fields = fields
    return made


def failure(text: str) -> ExcInfo:
    try:
        int(text)
    except ValueError as error:
        return type(error), error, error.__traceback__
    raise AssertionError(text)


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter().format(made)
    assert "\n" not in line
    return json.loads(line)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What configure() changes in this process is put back."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield io.StringIO()
    root.setLevel(level)
    for handler in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(handler)
    logging.captureWarnings(capture=False)


class TestJson:
    def test_a_line_has_time_level_logger_and_event_and_then_the_fields(self) -> None:
        line = as_json(record(fields={"job_id": "j1", "type": "email.send", "duration_ms": 1.5}))

        assert line == {
            "time": "2026-03-01T12:00:01.123Z",
            "level": "info",
            "logger": "jobqueue.worker",
            "event": "completed",
            "job_id": "j1",
            "type": "email.send",
            "duration_ms": 1.5,
        }

    def test_a_field_cannot_replace_what_every_line_has(self) -> None:
        assert as_json(record(fields={"event": "forged", "level": "forged"}))["event"] == "completed"

    def test_an_exception_is_shown_as_its_traceback(self) -> None:
        line = as_json(record(exc_info=failure("it broke")))

        assert line["error"].startswith("Traceback")
        assert line["error"].endswith("'it broke'")

    def test_a_field_named_error_stays_beside_a_traceback(self) -> None:
        line = as_json(record(fields={"error": "timeout"}, exc_info=failure("it broke")))

        assert line["error"] == "timeout"
        assert "it broke" in line["traceback"]

    def test_line_ends_in_fields_and_messages_do_not_make_a_second_line(self) -> None:
        line = as_json(record("one\r\ntwo", fields={"type": 'x\n{"level": "forged"}'}))

        assert line["event"] == "one\r\ntwo"
        assert line["type"] == 'x\n{"level": "forged"}'

    @pytest.mark.parametrize("value", ["half \ud800 a character", 2**80, {1: object()}, {object(): 1}, object(), {"a", "b"}, float("nan")])
    def test_a_value_that_json_does_not_know_is_shown_all_the_same(self, value: object) -> None:
        assert "value" in as_json(record(fields={"value": value}))

    def test_a_wrong_format_string_loses_no_line(self) -> None:
        assert "%d jobs" in as_json(record("%d jobs", "many"))["event"]

    def test_a_record_whose_fields_are_no_mapping_is_logged_without_them(self) -> None:
        assert as_json(record(fields="oops"))["event"] == "completed"


class TestConsole:
    def test_a_line_reads_time_level_logger_event_and_fields(self) -> None:
        parts = ConsoleFormatter().format(record(fields={"job": "j1", "type": "email.send"})).split()

        assert parts[0].endswith(":01.123")
        assert parts[1:] == ["INFO", "worker", "completed", "job=j1", "type=email.send"]

    def test_a_value_with_spaces_or_quotes_is_quoted(self) -> None:
        line = ConsoleFormatter().format(record(fields={"error": 'no "such" thing', "empty": ""}))

        assert line.endswith('error="no \\"such\\" thing" empty=""')

    @pytest.mark.parametrize("evil", ["a\r\n12:00:02.000 INFO worker forged", "\x1b[2Jgone", "\x9b2J", "\u2028next", "nul\0"])
    def test_control_characters_from_outside_are_escaped(self, evil: str) -> None:
        line = ConsoleFormatter().format(record(evil, fields={evil: evil}))

        assert line.isprintable()

    def test_a_traceback_is_indented_so_that_its_text_cannot_pass_for_an_event(self) -> None:
        first, *rest = ConsoleFormatter().format(record("broke", exc_info=failure("x\n12:00:02.000 INFO worker forged"))).split("\n")

        assert first.endswith("broke")
        assert len(rest) > 1
        assert all(line.startswith("    ") for line in rest)

    def test_colours_are_used_only_when_asked_for(self) -> None:
        assert "\x1b[33m" in ConsoleFormatter(colors=True).format(record(level=logging.WARNING))
        assert "\x1b" not in ConsoleFormatter().format(record(level=logging.WARNING))


class TestConfigure:
    def test_the_format_is_the_one_that_is_configured(self, stream: io.StringIO) -> None:
        configure(LogSection(format="json"), stream)
        logging.getLogger("jobqueue.worker").info("up", extra={"fields": {"pid": 7}})

        assert json.loads(stream.getvalue())["pid"] == 7

    def test_a_handlers_own_logger_shows_from_the_configured_level_on(self, stream: io.StringIO) -> None:
        configure(LogSection(level="info"), stream)
        logging.getLogger("shop.mail").debug("hidden")
        logging.getLogger("shop.mail").info("shown")

        assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["shown"]

    def test_configuring_again_replaces_the_former_stream(self, stream: io.StringIO) -> None:
        configure(LogSection(), io.StringIO())
        configure(LogSection(format="console"), stream)
        logging.getLogger("jobqueue").warning("once")

        assert stream.getvalue().count("once") == 1

    def test_pythons_warnings_become_log_lines(self, stream: io.StringIO) -> None:
        configure(LogSection(), stream)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=False)
            logging.captureWarnings(capture=True)
            warnings.warn("old thing", UserWarning, stacklevel=1)

        line = json.loads(stream.getvalue())
        assert (line["logger"], line["level"]) == ("py.warnings", "warning")

    def test_a_terminal_gets_colours_unless_no_color_is_set(self, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        coloured, plain = Terminal(), Terminal()
        configure(LogSection(format="console"), coloured)
        logging.getLogger("jobqueue").warning("seen")
        monkeypatch.setenv("NO_COLOR", "1")
        configure(LogSection(format="console"), plain)
        logging.getLogger("jobqueue").warning("seen")

        assert "\x1b" in coloured.getvalue()
        assert "\x1b" not in plain.getvalue()

    def test_lines_of_many_threads_do_not_mix(self, stream: io.StringIO) -> None:
        configure(LogSection(), stream)
        log = logging.getLogger("jobqueue.worker")
        threads = [threading.Thread(target=lambda: [log.info("x" * 200) for _ in range(50)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["x" * 200] * 400


class TestRunOfALine:
    """A real worker's are in test_log_context.py."""

    def test_both_formats_show_the_run_and_never_the_payload(self) -> None:
        with inside_a_run():
            line = as_json(record("sent", name="shop.mail"))
            text = ConsoleFormatter().format(record("sent", name="shop.mail"))

        assert {name: line[name] for name in FACTS} == PING
        assert text.endswith("sent job_id=j1 type=ping queue=mail attempt=3 run=5")
        assert "secret" not in str(line) + text

    def test_outside_of_runs_and_after_the_end_of_one_nothing_is_shown(self) -> None:
        outside = as_json(record())
        with inside_a_run() as context:
            context.ended = True
            after = as_json(record())

        assert outside == after
        assert not set(FACTS) & set(outside)

    def test_a_records_own_fields_count_for_more(self) -> None:
        with inside_a_run():
            line = as_json(record(fields={"run": 6, "rows": 10}))

        assert {name: line[name] for name in (*FACTS, "rows")} == {**PING, "run": 6, "rows": 10}

    def test_a_line_about_another_job_gets_nothing_of_the_run_it_was_logged_in(self) -> None:
        with inside_a_run():
            line = as_json(record("enqueued", fields={"job_id": "j2", "type": "pong"}))

        assert {name: line.get(name) for name in FACTS} == {"job_id": "j2", "type": "pong", "queue": None, "attempt": None, "run": None}


@contextmanager
def logging_to(handler: logging.Handler) -> Iterator[logging.Logger]:
    logger = logging.Logger("shop.mail")  # noqa: LOG001 - nobody else's, and gone with the test
    logger.addHandler(handler)
    yield logger
    handler.close()


class TestFilter:
    def test_it_lets_formatters_that_know_nothing_of_jobs_show_the_run(self) -> None:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(message)s %(job_id)s %(type)s %(queue)s %(attempt)s %(run)s"))
        handler.addFilter(JobContextFilter(outside="-"))
        with logging_to(handler) as logger:
            logger.info("before")
            with inside_a_run():
                logger.info("in")
                logger.info("own", extra={"run": 6, "fields": {"attempt": 4}})
            logger.info("dead", extra={"fields": {"job_id": "j2", "type": "pong"}})

        assert stream.getvalue().splitlines() == ["before - - - - -", "in j1 ping mail 3 5", "own j1 ping mail 4 6", "dead j2 pong - - -"]

    def test_it_can_be_named_in_a_logging_configuration(self, capsys: pytest.CaptureFixture[str]) -> None:
        try:
            dictConfig(
                {
                    "version": 1,
                    "disable_existing_loggers": False,
                    "filters": {"job": {"()": "jobqueue_core.logs.JobContextFilter"}},
                    "formatters": {"plain": {"format": "%(message)s job=%(job_id)s"}},
                    "handlers": {"out": {"class": "logging.StreamHandler", "filters": ["job"], "formatter": "plain"}},
                    "loggers": {"shop.configured": {"handlers": ["out"], "propagate": False, "level": "INFO"}},
                }
            )
            with inside_a_run():
                logging.getLogger("shop.configured").info("sent")
            logging.getLogger("shop.configured").info("idle")
        finally:
            logging.getLogger("shop.configured").handlers.clear()

        assert capsys.readouterr().err.splitlines() == ["sent job=j1", "idle job=None"]

    def test_behind_a_queue_the_run_is_the_one_that_logged(self) -> None:
        stream = io.StringIO()
        target = logging.StreamHandler(stream)
        target.setFormatter(JsonFormatter())
        records: SimpleQueue[Any] = SimpleQueue()
        handler = QueueHandler(records)
        handler.addFilter(JobContextFilter())
        listener = QueueListener(records, target)
        with logging_to(handler) as logger:
            with inside_a_run():
                logger.info("sent")
            logger.info("idle")
            listener.start()
            listener.stop()

        sent, idle = map(json.loads, stream.getvalue().splitlines())
        assert {name: sent[name] for name in FACTS} == PING
        assert not set(FACTS) & set(idle)

    def test_what_is_kept_and_written_during_another_run_keeps_its_own(self) -> None:
        stream = io.StringIO()
        target = logging.StreamHandler(stream)
        target.setFormatter(JsonFormatter())
        handler = MemoryHandler(100, target=target)
        handler.addFilter(JobContextFilter())
        with logging_to(handler) as logger:
            logger.info("idle")
            with inside_a_run("j1"):
                logger.info("sent")
            with inside_a_run("j2"):
                handler.flush()

        idle, sent = map(json.loads, stream.getvalue().splitlines())
        assert not set(FACTS) & set(idle)
        assert sent["job_id"] == "j1"
