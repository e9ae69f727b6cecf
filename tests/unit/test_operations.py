"""What holds for every operation: what it refuses, what it does without a storage, what it logs, and the figures that show it."""

from __future__ import annotations

import logging

import msgspec
import pytest
from operations_office import UNKNOWN, Office, open_office

from jobqueue_core import Conflict, InvalidJob, JobNotFound, JobQueue
from jobqueue_core.broker import JobFilter
from jobqueue_core.storage import DeadLetterFilter, ExecutionFilter

MALFORMED_IDS = pytest.mark.parametrize("job_id", ["x", "", "' OR 1=1"])

office = pytest.fixture(open_office)


def test_what_nobody_knows_is_not_found(office: Office) -> None:
    assert office.operations.find_job(UNKNOWN) is None
    for ask in (office.operations.job, office.operations.job_logs, office.operations.cancel_job, office.operations.dead_letter):
        with pytest.raises(JobNotFound, match=UNKNOWN):
            ask(UNKNOWN)


@MALFORMED_IDS
def test_what_is_no_id_is_refused_everywhere(office: Office, job_id: str) -> None:
    operations = office.operations
    for ask in (
        operations.job,
        operations.job_logs,
        operations.cancel_job,
        operations.dead_letter,
        operations.retry_dead_letter,
        operations.discard_dead_letter,
        operations.job_executions,
    ):
        with pytest.raises(InvalidJob):
            ask(job_id)


@pytest.mark.parametrize("limit", [0, -1, 501])
def test_a_limit_out_of_bounds_is_refused(office: Office, limit: int) -> None:
    operations = office.operations
    for ask in (
        lambda: operations.jobs(JobFilter(), limit=limit),
        lambda: operations.dead_letters(DeadLetterFilter(), limit=limit),
        lambda: operations.dead_letter_groups(DeadLetterFilter(), limit=limit),
        lambda: operations.executions(ExecutionFilter(), limit=limit),
    ):
        with pytest.raises(InvalidJob) as caught:
            ask()
        assert caught.value.field == "limit"


@pytest.mark.parametrize("offset", [-1, 10_001])
def test_an_offset_out_of_bounds_is_refused(office: Office, offset: int) -> None:
    for ask in (
        lambda: office.operations.dead_letters(DeadLetterFilter(), offset=offset),
        lambda: office.operations.executions(ExecutionFilter(), offset=offset),
    ):
        with pytest.raises(InvalidJob) as caught:
            ask()
        assert caught.value.field == "offset"


def test_a_foreign_cursor_is_refused(office: Office) -> None:
    for ask in (
        lambda: office.operations.jobs(JobFilter(), cursor="~~~"),
        lambda: office.operations.dead_letters(DeadLetterFilter(), cursor="~~~"),
        lambda: office.operations.executions(ExecutionFilter(), cursor="~~~"),
    ):
        with pytest.raises(InvalidJob) as caught:
            ask()
        assert caught.value.field == "cursor"


def test_without_a_storage_what_needs_one_is_a_conflict_and_the_rest_works(office: Office) -> None:
    operations = JobQueue(office.broker).operations
    job = office.queue.enqueue("t")
    assert operations.job(job.id) == job
    assert operations.find_job(UNKNOWN) is None
    assert operations.stats()["executions_24h"] is None
    for ask in (
        lambda: operations.dead_letter(job.id),
        lambda: operations.executions(ExecutionFilter()),
        lambda: operations.retry_dead_letters(DeadLetterFilter()),
    ):
        with pytest.raises(Conflict) as caught:
            ask()
        assert caught.value.code == "no_storage"


def test_what_an_operator_does_is_logged_with_who_did_it(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    job = office.kill()
    with caplog.at_level(logging.INFO, logger="jobqueue.operations"):
        office.operations.pause_queue("default")
        office.operations.retry_dead_letter(job.id)
        office.operations.purge_queue("default")
    assert [record.getMessage() for record in caplog.records] == ["queue paused", "dead letter retried", "queue purged"]
    assert {record.__dict__["fields"]["actor"] for record in caplog.records} == {"cli:ada"}


def test_the_figures_add_up(office: Office) -> None:
    office.kill()
    office.queue.enqueue_many([{"type": "t"}, {"type": "t", "delay": "1h"}, {"type": "u", "queue": "b"}])
    office.complete_all("b")
    stats = office.operations.stats()
    assert stats["jobs"] == {"waiting": 1, "processing": 0, "scheduled": 1, "retrying": 0}
    assert stats["totals"] == {"enqueued": 4, "completed": 1, "failed": 0, "dead": 1, "cancelled": 0}
    assert (stats["executions_24h"]["total"], stats["executions_24h"]["completed"], stats["executions_24h"]["dead"]) == (2, 1, 1)
    assert (stats["dead_letter_count"], stats["outbox_lag"]["history"]) == (1, 0)
    msgspec.json.encode(stats)
