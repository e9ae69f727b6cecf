"""The client: enqueue, many at once, from any thread and any event loop; ask, cancel and wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from jobqueue_core import Conflict, InvalidJob, Job, JobNotFound, JobQueue, JobState, Priority, Registry, WaitTimeout, handler
from jobqueue_core.broker import Enqueued, TypeInfo
from jobqueue_core.errors import BrokerUnavailable, QueueFull
from jobqueue_core.job import Idempotency, NewJob, new_job_id
from jobqueue_core.observers import Observer, Observers
from jobqueue_core.testing.factories import completed, worker_info
from jobqueue_sqlite.broker import SqliteBroker
from jobqueue_sqlite.storage import SqliteStorage

MIB = 1 << 20
UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


@attrs.define
class Payload:
    to: str


@handler("email.send", queue="mail", priority="high", aliases=["mail.send"])
def send(payload: Payload) -> None: ...


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[JobQueue]:
    path = tmp_path / "jobqueue.db"
    with JobQueue(SqliteBroker(path), SqliteStorage(path)) as queue:
        yield queue


class Producer:
    """A broker's producing half that counts calls and fails when told to."""

    def __init__(self) -> None:
        self.batches: list[list[NewJob]] = []
        self.fail: Callable[[int], Exception | None] = lambda _call: None
        self.types_asked = 0
        self.published: list[TypeInfo] = []
        self._recording = JobQueue.recording().broker

    def enqueue(self, jobs: Sequence[NewJob], *, not_after: datetime | None = None) -> list[Enqueued]:
        self.batches.append(list(jobs))
        error = self.fail(len(self.batches))
        if error is not None:
            raise error
        return self._recording.enqueue(jobs, not_after=not_after)

    def types(self) -> list[TypeInfo]:
        self.types_asked += 1
        return self.published

    def close(self) -> None: ...


def client(producer: Producer, **options: Any) -> JobQueue:
    return JobQueue(producer, **options)  # type: ignore[arg-type]  # as much of a broker as a producer meets


# One job -------------------------------------------------------------------------------------------------------------------------------


def test_enqueue_returns_the_job_as_the_broker_has_it(queue: JobQueue) -> None:
    job = queue.enqueue("email.send", {"to": "a@b.c"}, priority="high", delay="1h", metadata={"tenant": "acme"})
    assert (job.state, job.priority, job.payload, job.metadata) == (JobState.SCHEDULED, Priority.HIGH, {"to": "a@b.c"}, {"tenant": "acme"})
    assert queue.get(job.id) == job


def test_a_duplicate_returns_the_existing_job(queue: JobQueue) -> None:
    first = queue.enqueue("t", 1, unique_key="welcome:42")
    assert queue.enqueue("t", 2, unique_key="welcome:42").id == first.id
    assert queue.enqueue("t", 1, id=first.id).id == first.id


def test_repeating_an_idempotency_key_with_another_body_is_a_conflict(queue: JobQueue) -> None:
    first = queue.enqueue("t", 1, idempotency=Idempotency("key", "body-1"))
    assert queue.enqueue("t", 1, idempotency=Idempotency("key", "body-1")).id == first.id
    with pytest.raises(Conflict, match="Idempotency-Key") as caught:
        queue.enqueue("t", 2, idempotency=Idempotency("key", "body-2"))
    assert caught.value.code == "idempotency_conflict"


def test_an_id_that_another_job_has_is_a_conflict(queue: JobQueue) -> None:
    job = queue.enqueue("t", queue="one")
    with pytest.raises(Conflict, match="another job") as caught:
        queue.enqueue("u", queue="one", id=job.id)
    assert caught.value.code == "id_conflict"


def test_a_wrong_job_is_refused_before_anything_is_sent() -> None:
    producer = Producer()
    with pytest.raises(InvalidJob):
        client(producer).enqueue("t", {"n": float("nan")})
    assert producer.batches == []


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), BrokerUnavailable("away", maybe_accepted=False), QueueFull("full")])
def test_a_broker_that_fails_is_heard_at_once(error: Exception) -> None:
    producer = Producer()
    producer.fail = lambda _call: error
    with pytest.raises(type(error)) as caught:
        client(producer).enqueue("t", queue="q", priority="low")
    assert caught.value is error
    assert len(producer.batches) == 1


def test_observers_hear_of_new_jobs_and_not_of_duplicates() -> None:
    heard: list[str] = []

    class Ear(Observer):
        def enqueued(self, job: Job) -> None:
            heard.append(job.id)

    queue = client(Producer(), observers=Observers([Ear()]))
    one = queue.enqueue("t", unique_key="k")
    queue.enqueue("t", unique_key="k")
    two = [answer.job.id for answer in queue.enqueue_many([{"type": "t"}, {"type": "t", "unique_key": "k"}]) if answer.job]
    assert heard == [one.id, two[0]]


def test_the_limit_of_the_payload_is_the_queues_own() -> None:
    with pytest.raises(InvalidJob, match="10B"):
        client(Producer(), max_payload=10).enqueue("t", "x" * 9)


# Many jobs -----------------------------------------------------------------------------------------------------------------------------


def many(count: int, **options: object) -> list[dict[str, object]]:
    return [{"type": "t", "payload": number, "queue": "q", "priority": "low", **options} for number in range(count)]


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (500, [500]), (501, [500, 1]), (1200, [500, 500, 200])])
def test_many_jobs_are_sent_at_most_500_at_a_time(count: int, sizes: list[int]) -> None:
    producer = Producer()
    answers = client(producer).enqueue_many(many(count))
    assert [len(batch) for batch in producer.batches] == sizes
    assert [answer.status for answer in answers] == ["created"] * count
    assert [answer.job.payload for answer in answers if answer.job] == list(range(count)), "the answers are in order"


def test_many_jobs_are_sent_at_most_four_mebibytes_at_a_time() -> None:
    producer = Producer()
    client(producer).enqueue_many(many(10, payload="x" * (MIB - 2)))
    assert all(sum(len(job.payload_json) for job in batch) <= 4 * MIB for batch in producer.batches)
    assert sum(map(len, producer.batches)) == 10
    assert len(producer.batches) <= 4


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"type": "t", "queue": ":"}, "jobs[2].queue"),
        ({"type": "t", "payload": {"a": float("inf")}}, "jobs[2].payload.a"),
        ({"type": "no spaces"}, "jobs[2].type"),
        ({"payload": 1}, "jobs[2].type"),
        ({"type": "t", "prioritiy": "low"}, "jobs[2].prioritiy"),
        ({"type": "t", 3: "x"}, "jobs[2].3"),
        ({"type": "t", "metadata": {"a": 1}}, "jobs[2].metadata.a"),
        (None, "jobs[2]"),
        ("t", "jobs[2]"),
        (["t"], "jobs[2]"),
    ],
)
def test_many_jobs_are_checked_as_a_whole_before_anything_is_sent(wrong: Any, field: str) -> None:
    producer = Producer()
    with pytest.raises(InvalidJob) as caught:
        client(producer).enqueue_many([*many(2), wrong, *many(600)])
    assert caught.value.field == field
    assert producer.batches == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(BrokerUnavailable("away"), "unknown"), (BrokerUnavailable("away", maybe_accepted=False), "refused"), (QueueFull("full"), "refused")],
)
def test_each_job_has_an_answer_also_when_the_broker_goes_away_in_between(error: Exception, status: str) -> None:
    producer = Producer()
    producer.fail = lambda call: error if call == 2 else None
    answers = client(producer).enqueue_many(many(1_200))
    assert [answer.status for answer in answers] == ["created"] * 500 + [status] * 500 + ["created"] * 200
    lost = answers[700]
    assert producer.batches[1][200].id in (lost.problem or ""), "the answer names the id, so that it can be sent again"


def test_sending_the_same_ids_again_makes_no_second_job(queue: JobQueue) -> None:
    jobs = many(3)
    for job in jobs:
        job["id"] = new_job_id("q")
    first, again = queue.enqueue_many(jobs), queue.enqueue_many(jobs)
    assert [answer.status for answer in first + again] == ["created"] * 3 + ["existing"] * 3


def test_what_a_broker_refuses_is_an_answer_and_no_exception(queue: JobQueue) -> None:
    taken = queue.enqueue("u", queue="q")
    answers = queue.enqueue_many([*many(1), {"type": "t", "queue": "q", "id": taken.id}])
    assert [(answer.status, answer.problem) for answer in answers] == [("created", None), ("refused", "id_conflict")]


def test_functions_and_instances_may_stand_in_a_mapping() -> None:
    producer = Producer()
    client(producer).enqueue_many([{"type": send, "payload": Payload("a@b.c")}])
    assert [(job.type, job.queue) for job in producer.batches[0]] == [("email.send", "mail")]


# Where jobs go -------------------------------------------------------------------------------------------------------------------------


def test_a_route_is_found_here_then_among_running_workers_then_by_default() -> None:
    producer = Producer()
    producer.published = [
        TypeInfo(type="email.send", queue="elsewhere", priority=Priority.LOW),
        TypeInfo(type="remote", queue="far", priority=Priority.CRITICAL, aliases=("old.remote",)),
    ]
    queue = client(producer, registry=Registry.of(send))
    routes = {
        name: (job.queue, job.priority) for name in ("email.send", "mail.send", "remote", "old.remote", "unknown") for job in [queue.enqueue(name)]
    }
    assert routes == {
        "email.send": ("mail", Priority.HIGH),
        "mail.send": ("mail", Priority.HIGH),
        "remote": ("far", Priority.CRITICAL),
        "old.remote": ("far", Priority.CRITICAL),
        "unknown": ("default", Priority.MEDIUM),
    }
    explicit = queue.enqueue("remote", queue="mine", priority="low")
    assert (explicit.queue, explicit.priority) == ("mine", Priority.LOW)


def test_workers_are_asked_for_their_types_once_in_a_while_and_never_needlessly() -> None:
    producer = Producer()
    queue = client(producer, registry=Registry.of(send))
    queue.enqueue(send, Payload("a"))
    queue.enqueue("t", queue="q", priority="low")
    assert producer.types_asked == 0
    for _ in range(100):
        queue.enqueue("t")
    assert producer.types_asked == 1


def test_a_producer_needs_no_handlers_once_a_worker_has_published_its_types(queue: JobQueue) -> None:
    queue.broker.beat(worker_info("worker-1", types=(TypeInfo(type="email.send", queue="mail", priority=Priority.HIGH),)))
    assert queue.enqueue("email.send").queue == "mail"


def test_while_the_route_cannot_be_asked_nothing_is_enqueued_to_the_wrong_queue() -> None:
    class Silent(Producer):
        def types(self) -> list[TypeInfo]:
            raise BrokerUnavailable("away")

    producer = Silent()
    with pytest.raises(BrokerUnavailable, match="which queue") as caught:
        client(producer).enqueue("t")
    assert caught.value.maybe_accepted is False
    assert producer.batches == []


def test_the_registry_is_made_when_it_is_first_needed() -> None:
    made: list[str] = []

    def make() -> Registry:
        made.append("made")
        return Registry.of(send)

    queue = client(Producer(), registry=make)
    assert made == []
    assert queue.enqueue("email.send").queue == "mail"
    queue.enqueue("email.send")
    assert made == ["made"]


# Asking --------------------------------------------------------------------------------------------------------------------------------


def finish(queue: JobQueue, job: Job, result: bytes = b"42") -> None:
    leases = queue.broker.lease([job.queue], 1, worker_id="worker-1", lease_for=timedelta(seconds=30), wait=timedelta(seconds=5), suspects=1)
    assert queue.broker.settle([completed(leases[0], result)], worker_id="worker-1") == [True]


def test_waiting_returns_the_finished_job(queue: JobQueue) -> None:
    job = queue.enqueue("t")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.wait, job.id, timeout="10s")
        finish(queue, job)
        assert (waiting.result().state, waiting.result().result) == (JobState.COMPLETED, 42)
    assert queue.wait(job.id, timeout="0s").state is JobState.COMPLETED


@pytest.mark.parametrize("timeout", ["0s", "30ms", timedelta(milliseconds=70)])
def test_waiting_in_vain_ends_in_time_and_the_job_goes_on(queue: JobQueue, timeout: Any) -> None:
    job = queue.enqueue("t")
    began = time.monotonic()
    with pytest.raises(WaitTimeout, match=job.id) as caught:
        queue.wait(job.id, timeout=timeout)
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - began < 1
    assert queue.get(job.id) == job


def test_what_nobody_knows_cannot_be_waited_for_or_cancelled(queue: JobQueue) -> None:
    assert queue.get(UNKNOWN) is None
    for ask in (queue.wait, queue.cancel):
        with pytest.raises(JobNotFound, match=UNKNOWN):
            ask(UNKNOWN)


@pytest.mark.parametrize("job_id", ["x", None, 3, ""])
def test_what_is_no_id_is_refused(queue: JobQueue, job_id: Any) -> None:
    for ask in (queue.get, queue.cancel, queue.wait):
        with pytest.raises(InvalidJob):
            ask(job_id)


def test_a_waiting_job_is_cancelled_at_once_and_a_finished_one_is_a_conflict(queue: JobQueue) -> None:
    job = queue.enqueue("t")
    assert queue.cancel(job.id).state is JobState.CANCELLED
    with pytest.raises(Conflict) as caught:
        queue.cancel(job.id)
    assert caught.value.code == "finished"


def test_ids_are_taken_in_any_spelling(queue: JobQueue) -> None:
    job = queue.enqueue("t")
    assert queue.get(job.id.upper().replace("-", "")) == job


# From threads and event loops ----------------------------------------------------------------------------------------------------------


def test_a_queue_is_used_from_eight_threads_at_once(queue: JobQueue) -> None:
    start = threading.Barrier(8)

    def produce(thread: int) -> list[str]:
        start.wait()
        ids = [queue.enqueue("t", [thread, number]).id for number in range(10)]
        ids += [answer.job.id for answer in queue.enqueue_many(many(10)) if answer.job]
        assert all(queue.get(job_id) for job_id in ids)
        queue.cancel(ids[0])
        return ids

    with ThreadPoolExecutor(8) as pool:
        ids = {job_id for made in pool.map(produce, range(8)) for job_id in made}
    assert len(ids) == 160
    assert sum(stats.waiting for stats in queue.operations.queues()) == 152


def test_the_asynchronous_twins_do_the_same(queue: JobQueue) -> None:
    async def main() -> None:
        job = await queue.aenqueue("t", {"n": 1}, delay="1h")
        assert await queue.aget(job.id) == job
        answers = await queue.aenqueue_many(many(3))
        assert [answer.status for answer in answers] == ["created"] * 3
        assert (await queue.acancel(job.id)).state is JobState.CANCELLED
        assert (await queue.await_job(job.id, timeout="1s")).state is JobState.CANCELLED
        with pytest.raises(WaitTimeout):
            await queue.await_job(answers[0].job.id if answers[0].job else "", timeout="1ms")
        with pytest.raises(InvalidJob):
            await queue.aenqueue("t", queue=":")
        with pytest.raises(TypeError, match="prioritiy"):
            await queue.aenqueue("t", prioritiy="high")

    asyncio.run(main())


def test_asynchronous_callers_in_flight_at_once_share_round_trips() -> None:
    producer = Producer()
    queue = client(producer)

    async def main() -> list[Job]:
        return await asyncio.gather(*(queue.aenqueue("t", number) for number in range(500)))

    jobs = asyncio.run(main())
    queue.close()
    assert [job.payload for job in jobs] == list(range(500)), "each caller has its own job"
    assert sum(map(len, producer.batches)) == 500
    assert len(producer.batches) < 250


def test_a_duplicate_among_asynchronous_callers_is_the_same_job() -> None:
    queue = client(Producer())

    async def main() -> set[str]:
        return {job.id for job in await asyncio.gather(*(queue.aenqueue("t", unique_key="k") for _ in range(20)))}

    assert len(asyncio.run(main())) == 1
    queue.close()


def test_a_conflict_hits_the_caller_whose_it_is_only() -> None:
    queue = client(Producer())
    taken = queue.enqueue("other")

    async def main() -> list[Job | BaseException]:
        calls = [queue.aenqueue("t"), queue.aenqueue("t", id=taken.id), queue.aenqueue("t")]
        return await asyncio.gather(*calls, return_exceptions=True)

    assert [type(answer) for answer in asyncio.run(main())] == [Job, Conflict, Job]
    queue.close()


def test_all_who_wait_for_one_question_about_a_type_have_its_failure() -> None:
    asked = threading.Event()
    answer = threading.Event()
    calls = []

    class Broker(Producer):
        def types(self) -> list[TypeInfo]:
            calls.append(1)
            asked.set()
            answer.wait(10)
            raise BrokerUnavailable("away")

    queue = JobQueue(Broker(), None)  # type: ignore[arg-type]  # the producing half is enough
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(queue.enqueue, "some.type")
        assert asked.wait(10)
        others = [pool.submit(queue.enqueue, "some.type") for _ in range(7)]
        while sum(future.running() for future in others) < 7:
            time.sleep(0.001)
        threading.Timer(0.2, answer.set).start()
        failures = [future.exception(timeout=10) for future in (first, *others)]
    assert {type(failure) for failure in failures} == {BrokerUnavailable}
    assert len(calls) < 4, "each would have waited for its own"


def test_after_a_failure_that_took_long_nothing_more_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Producer()
    now = [100.0]

    def slow(_call: int) -> Exception:
        now[0] += 5.0
        return BrokerUnavailable("away")

    broker.fail = slow
    monkeypatch.setattr("jobqueue_core.client.time.monotonic", lambda: now[0])
    queue = JobQueue(broker, None)  # type: ignore[arg-type]  # the producing half is enough
    answers = queue.enqueue_many([{"type": "some.type", "queue": "a", "priority": "low"}] * 1600)
    assert [len(batch) for batch in broker.batches] == [500]
    assert [one.status for one in answers] == ["unknown"] * 500 + ["refused"] * 1100
    assert "not sent" in str(answers[-1].problem)
