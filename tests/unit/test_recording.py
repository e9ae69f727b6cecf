"""The queue for tests: it checks and collects jobs instead of sending them."""

from __future__ import annotations

import asyncio

import attrs
import pytest

from jobqueue_core import Conflict, InvalidJob, JobNotFound, JobQueue, JobState, Priority, Registry, handler

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@attrs.define
class Payload:
    to: str


@handler("email.send", queue="mail", priority="high")
def send(payload: Payload) -> None: ...


def test_it_collects_jobs_in_the_order_of_their_enqueueing() -> None:
    queue = JobQueue.recording()
    queue.enqueue("a", {"n": 1}, delay="1h")
    queue.enqueue_many([{"type": "b", "payload": 2}, {"type": "a"}])
    assert [job.type for job in queue.jobs] == ["a", "b", "a"]
    assert queue.payloads("a") == [{"n": 1}, None]
    assert [job.state for job in queue.jobs] == [JobState.SCHEDULED, JobState.QUEUED, JobState.QUEUED]


def test_it_refuses_what_a_real_queue_refuses() -> None:
    queue = JobQueue.recording()
    with pytest.raises(InvalidJob):
        queue.enqueue("a", object())
    with pytest.raises(InvalidJob):
        queue.enqueue_many([{"type": "a"}, {"type": "b", "queue": ":"}])
    assert queue.jobs == []


def test_it_routes_by_the_registry() -> None:
    job = JobQueue.recording(Registry.of(send)).enqueue("email.send", Payload("a@b.c"))
    assert (job.queue, job.priority, job.payload) == ("mail", Priority.HIGH, {"to": "a@b.c"})


def test_a_duplicate_returns_the_job_that_was_there() -> None:
    queue = JobQueue.recording()
    first = queue.enqueue("a", unique_key="k")
    assert queue.enqueue("a", unique_key="k") == first
    assert queue.enqueue("a", id=first.id) == first
    assert queue.enqueue("a", unique_key="k", queue="other").id != first.id
    assert len(queue.jobs) == 2


def test_an_id_of_another_job_is_a_conflict_as_in_a_real_queue() -> None:
    queue = JobQueue.recording()
    queue.enqueue("a", id=ID)
    with pytest.raises(Conflict) as caught:
        queue.enqueue("b", id=ID)
    assert caught.value.code == "id_conflict"


def test_jobs_can_be_looked_up_and_cancelled() -> None:
    queue = JobQueue.recording()
    job = queue.enqueue("a", unique_key="k")
    assert queue.get(job.id) == job
    assert queue.cancel(job.id).state is JobState.CANCELLED
    assert queue.enqueue("a", unique_key="k").id != job.id, "the key is free again"
    with pytest.raises(Conflict):
        queue.cancel(job.id)
    with pytest.raises(JobNotFound):
        queue.cancel(ID)
    assert queue.get(ID) is None


def test_the_asynchronous_twins_record_too() -> None:
    queue = JobQueue.recording()

    async def main() -> None:
        job = await queue.aenqueue("a", 1)
        assert await queue.aget(job.id) == job

    with queue:
        asyncio.run(main())
    assert queue.payloads("a") == [1]


def test_it_can_be_cleared() -> None:
    queue = JobQueue.recording()
    queue.enqueue("a", unique_key="k")
    queue.clear()
    assert queue.jobs == []
    queue.enqueue("a", unique_key="k")
    assert len(queue.jobs) == 1
