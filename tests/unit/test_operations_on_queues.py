"""Queues as an operator pauses, resumes and purges them."""

from __future__ import annotations

import pytest
from operations_office import SECOND, Office, open_office

from jobqueue_core import InvalidJob, JobNotFound, JobState
from jobqueue_core.testing.factories import failed, snoozed

office = pytest.fixture(open_office)


def test_a_paused_queue_gives_nothing_until_it_is_resumed(office: Office) -> None:
    office.operations.pause_queue("default")
    office.queue.enqueue("t")
    assert office.lease() == []
    assert office.operations.queue("default").paused
    office.operations.resume_queue("default")
    assert len(office.lease()) == 1


def test_an_unknown_queue_is_not_found_and_a_wrong_name_is_refused(office: Office) -> None:
    for ask in (office.operations.queue, office.operations.purge_queue):
        with pytest.raises(JobNotFound, match="nowhere"):
            ask("nowhere")
    for refuse in (office.operations.queue, office.operations.purge_queue, office.operations.pause_queue, office.operations.resume_queue):
        with pytest.raises(InvalidJob):
            refuse("a:b")


def test_purge_cancels_what_waits_is_scheduled_or_retrying_and_nothing_else(office: Office) -> None:
    running, retrying, snoozing = (office.queue.enqueue("t", unique_key=str(n)) for n in range(3))
    leases = {lease.job.id: lease for lease in office.lease()}
    office.broker.settle([failed(leases[retrying.id], delay=60 * SECOND), snoozed(leases[snoozing.id], delay=60 * SECOND)], worker_id="worker-1")
    waiting, delayed = office.queue.enqueue("t"), office.queue.enqueue("t", delay="1h")
    elsewhere = office.queue.enqueue("t", queue="other")
    assert office.operations.purge_queue("default") == 4
    states = {job.id: (office.queue.get(job.id) or job).state for job in (running, retrying, snoozing, waiting, delayed, elsewhere)}
    assert [job_id for job_id, state in states.items() if state is JobState.CANCELLED] == [retrying.id, snoozing.id, waiting.id, delayed.id]
    assert (states[running.id], states[elsewhere.id]) == (JobState.PROCESSING, JobState.QUEUED)


def test_purge_ends_also_while_a_producer_goes_on(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.queue.enqueue_many([{"type": "t"}] * 450)
    steps: list[int] = []
    purge = office.broker.purge

    def purge_and_produce(queue: str, limit: int) -> int:
        steps.append(limit)
        assert len(steps) < 20, "it does not end"
        office.queue.enqueue_many([{"type": "t"}] * limit)
        return purge(queue, limit)

    monkeypatch.setattr(office.broker, "purge", purge_and_produce)
    assert office.operations.purge_queue("default") == 450
    assert steps == [200, 200, 50], "in bounded steps"
