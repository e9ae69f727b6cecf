"""What a handler is told about its run, and what it may say of itself."""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import pytest

from jobqueue_core import Job, JobContext, JobState, Priority
from jobqueue_core.job import Progress

LOGGER = "jobqueue.job"


def context(**options: Any) -> JobContext:
    job = Job(
        id="01890a5d-ac96-774b-bcce-b302099a8057",
        type="t",
        payload_json=b"{}",
        queue="default",
        priority=Priority.MEDIUM,
        state=JobState.PROCESSING,
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
        retry_count=2,
        run=7,
    )
    return JobContext(job, max_retries=3, worker_id="worker-1", **options)


def test_it_says_which_attempt_and_which_run_this_is() -> None:
    ctx = context(resources="pool")
    assert (ctx.attempt, ctx.run, ctx.max_retries, ctx.worker_id, ctx.resources, ctx.cancelled) == (3, 7, 3, "worker-1", "pool", False)


def test_the_deadline_is_a_time_or_none() -> None:
    assert context().deadline is None
    deadline = context(timeout=timedelta(minutes=1)).deadline
    assert deadline is not None
    assert timedelta(seconds=50) < deadline - datetime.now(UTC) <= timedelta(seconds=61)


@pytest.mark.parametrize("reason", ["timeout", "cancel", "shutdown"])
def test_it_is_cancelled_once_there_is_a_reason_to_stop(reason: Any) -> None:
    ctx = context()
    ctx.stop_reason = reason
    assert ctx.cancelled


@pytest.mark.parametrize(("given", "kept"), [(0.25, 0.25), (-1, 0.0), (2, 1.0), (math.inf, 1.0), (-math.inf, 0.0), (math.nan, 0.0), (1, 1.0)])
def test_progress_is_brought_between_nothing_and_all(given: float, kept: float) -> None:
    ctx = context()
    ctx.progress(given)
    report = ctx.take_report()
    assert report is not None
    assert report[0] == Progress(kept)


@pytest.mark.parametrize(("given", "kept"), [("x" * 500, "x" * 200), (None, None), (3, "3"), ("\ud800", "\\ud800")])
def test_a_progress_message_is_short_and_can_be_stored(given: Any, kept: str | None) -> None:
    ctx = context()
    ctx.progress(0.5, given)
    assert ctx.take_report() == (Progress(0.5, kept), ())


def test_news_are_told_once() -> None:
    ctx = context()
    assert ctx.take_report() is None
    ctx.progress(0.1)
    ctx.progress(0.2)
    assert ctx.take_report() == (Progress(0.2), ())
    assert ctx.take_report() is None


def test_lines_are_kept_with_the_job_in_their_order_and_carry_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    ctx = context()
    with caplog.at_level(logging.INFO, logger=LOGGER):
        ctx.logger.info("sent %d of %d", 1, 2)
        ctx.logger.warning("100 %")
        ctx.logger.debug("not enabled")
    report = ctx.take_report()
    assert report is not None
    assert [(line.run, line.level, line.message) for line in report[1]] == [(7, "info", "sent 1 of 2"), (7, "warning", "100 %")]
    fields = caplog.records[0].__dict__["fields"]
    assert (fields["job_id"], fields["type"], fields["attempt"], fields["run"]) == (ctx.job.id, "t", 3, 7)
    assert caplog.records[0].funcName == "test_lines_are_kept_with_the_job_in_their_order_and_carry_its_facts"


class Broken:
    def __str__(self) -> NoReturn:
        raise LookupError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("arguments", [("%d", "a"), ("%s %s", "a"), ("%(a)s", 1), ("%s", Broken()), (Broken(),), ("half \ud800",)])
def test_a_line_that_cannot_be_made_fails_no_job(arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger(LOGGER)
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [logging.NullHandler()])
    ctx = context()
    ctx.logger.warning(*arguments)
    report = ctx.take_report()
    assert report is not None
    for line in report[1]:
        line.message.encode()


def test_an_exception_is_logged_at_error(caplog: pytest.LogCaptureFixture) -> None:
    ctx = context()
    try:
        raise ValueError("no")
    except ValueError:
        ctx.logger.exception("could not send")
    assert caplog.records[-1].exc_info is not None
    report = ctx.take_report()
    assert report is not None
    assert report[1][0].level == "error"


def test_the_latest_thousand_lines_are_kept_each_of_bounded_length() -> None:
    ctx = context()
    for number in range(1_500):
        ctx.keep_line("info", f"{number} " + "x" * 5_000)
    report = ctx.take_report()
    assert report is not None
    assert [line.message.split()[0] for line in (report[1][0], report[1][-1])] == ["500", "1499"]
    assert max(len(line.message) for line in report[1]) == 2_000
