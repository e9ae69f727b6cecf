"""Every operation of the broker, ready to be run while something goes wrong: what is there before it, the call, and what must be true after it.

An operation is a function that makes what must be there on a broker, and returns the call and the proof. The call is made on another broker, perhaps
twice, when the first gave no answer; the proof gets the last answer. Nothing in the proof may depend on how often the call was carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from jobqueue_core.attempt import Cancelled, Completed, Dead, ExecutionState, Lease, Outcome, Retrying, Returned, Snoozed
from jobqueue_core.broker import Broker, Enqueued, JobFilter, OutboxKind, Reclaimed, Renewal
from jobqueue_core.job import DeadReason, Idempotency, Job, JobState, NewJob, Priority, Progress
from jobqueue_core.testing.factories import completed, died, failed, log_line, new_job, new_jobs, release, report, settlement, worker_info

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["OPERATIONS", "WORKER", "Act", "Operation", "Prove", "begin", "lapse_all", "state_of", "take", "wait_until_due"]

Act = Callable[[Broker], Any]
Prove = Callable[[Any], None]
Operation = Callable[[Broker, "Redis", str], tuple[Act, Prove]]
"""Gets a broker, a connection to the same server and the prefix of its keys."""

OPERATIONS: Final[dict[str, Operation]] = {}
WORKER: Final = "worker-1"
_HOUR: Final = timedelta(hours=1)
_LEASE: Final = timedelta(seconds=30)


def _operation(make: Operation) -> Operation:
    OPERATIONS[make.__name__] = make
    return make


# Steps -----------------------------------------------------------------------------------------------------------------------------------


def put(broker: Broker, *jobs: NewJob) -> list[Job]:
    answers = broker.enqueue(jobs)
    assert [one.status for one in answers] == ["created"] * len(jobs)
    return [one.job for one in answers if one.job is not None]


def take(broker: Broker, limit: int = 100, *, queues: Sequence[str] = ("*",), worker_id: str = WORKER, lease_for: timedelta = _LEASE) -> list[Lease]:
    return broker.lease(queues, limit, worker_id=worker_id, lease_for=lease_for, wait=timedelta(0), suspects=100)


def begin(broker: Broker, count: int = 1, *, lease_for: timedelta = _LEASE, **options: Any) -> list[Lease]:
    """Enqueue jobs and lease them."""
    jobs = put(broker, *new_jobs(count, **options))
    leases = take(broker, count, queues=[jobs[0].queue], lease_for=lease_for)
    assert [lease.job.id for lease in leases] == [job.id for job in jobs]
    return leases


def state_of(broker: Broker, job_id: str) -> JobState | None:
    job = broker.get([job_id])[0]
    return job and job.state


def wait_until_due(broker: Broker, jobs: Sequence[Job | None]) -> None:
    """Return when all *jobs* are due by the broker's clock: it is a matter of a millisecond."""
    latest = max(job.scheduled_at for job in jobs if job is not None and job.scheduled_at is not None)
    while broker.now() <= latest:
        pass


def _crashed(broker: Broker, count: int) -> list[str]:
    """Jobs that wait and have crashed once."""
    ids = [one.job.id for one in begin(broker, count)]
    broker.reclaim_worker(WORKER, started=ids, error="killed", max_crashes=9)
    return ids


def lapse_all(server: Redis, prefix: str) -> None:
    """Make every lease look as if its holder had been silent for an hour."""
    for pattern in ("stream:*", "ready:*", "suspect:*"):
        for key in server.scan_iter(match=f"{prefix}{pattern}"):
            for one in server.xpending_range(key, "workers", "-", "+", 1000):
                server.xclaim(key, "workers", one["consumer"], 0, [one["message_id"]], idle=3_600_000, retrycount=one["times_delivered"], justid=True)


# Producers -------------------------------------------------------------------------------------------------------------------------------


def _accepted(broker: Broker, jobs: Sequence[NewJob], state: JobState | None = None) -> tuple[Act, Prove]:
    def prove(answers: list[Enqueued]) -> None:
        assert {one.status for one in answers} <= {"created", "existing"}
        assert [one.job.id for one in answers if one.job] == [job.id for job in jobs]
        assert state is None or [state_of(broker, job.id) for job in jobs] == [state] * len(jobs)

    return lambda client: client.enqueue(jobs), prove


@_operation
def enqueue(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    return _accepted(broker, new_jobs(3), JobState.QUEUED)


@_operation
def enqueue_delayed(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    return _accepted(broker, new_jobs(3, delay=_HOUR), JobState.SCHEDULED)


@_operation
def enqueue_to_many_queues(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    options: list[dict[str, Any]] = [
        {},
        {"delay": _HOUR},
        {"unique_key": "key"},
        {"expires_in": _HOUR},
        {"unique_key": "other", "unique_for": _HOUR, "delay": _HOUR},
    ]
    places = zip("abcab", (*Priority, Priority.LOW), options, strict=True)
    return _accepted(broker, [new_job(queue=queue, priority=priority, **more) for queue, priority, more in places])


@_operation
def enqueue_unique(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    return _accepted(broker, [new_job(unique_key="key")], JobState.QUEUED)


@_operation
def enqueue_a_duplicate_of_a_unique_job(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    (holder,) = put(broker, new_job(unique_key="key"))
    duplicate, other = new_job(unique_key="key"), new_job(unique_key="other")

    def prove(answers: list[Enqueued]) -> None:
        assert [one.job.id for one in answers if one.job] == [holder.id, other.id]
        assert answers[0].status == "existing"
        assert broker.get([duplicate.id]) == [None]

    return lambda client: client.enqueue([duplicate, other]), prove


@_operation
def enqueue_with_an_idempotency_key(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    key = Idempotency("request-1", "a" * 64)

    def act(client: Broker) -> list[str]:
        # A caller that has no answer makes a new id, and the key tells that it is the same request.
        return [one.job.id for one in client.enqueue([new_job(idempotency=key)]) if one.job]

    def prove(answer: list[str]) -> None:
        (waiting,) = broker.jobs(JobFilter(), cursor=None, limit=10).jobs
        assert answer == [waiting.id]

    return act, prove


def _dead(broker: Broker, **options: Any) -> Job:
    (lease,) = begin(broker, **options)
    assert broker.settle([died(lease)], worker_id=WORKER) == [True]
    (job,) = broker.get([lease.job.id])
    assert job is not None
    return job


@_operation
def requeue(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    dead = _dead(broker, unique_key="key")

    def prove(answer: str) -> None:
        assert answer in ("requeued", "already")
        (job,) = broker.get([dead.id])
        assert job is not None
        assert (job.state, job.deaths, job.run) == (JobState.QUEUED, 1, 1)

    return lambda client: client.requeue(dead), prove


# Workers ---------------------------------------------------------------------------------------------------------------------------------


@_operation
def lease(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    jobs = put(broker, *(new_job(queue=queue, priority=priority) for queue in ("default", "other") for priority in Priority))

    def prove(leases: list[Lease]) -> None:
        # What was handed out in an answer that never came is held for us, or will lapse: nobody else has it, and it is not doubled.
        assert len({one.token for one in leases}) == len(leases)
        assert {one.job.id for one in leases} <= {job.id for job in jobs}
        assert [state_of(broker, one.job.id) for one in leases] == [JobState.PROCESSING] * len(leases)
        assert {one.job.run for one in leases} <= {1}

    return lambda client: take(client, 3, queues=["default", "*"]), prove


@_operation
def lease_what_has_crashed(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    suspects = _crashed(broker, 3)
    (innocent,) = put(broker, new_job(priority=Priority.LOW))

    def prove(leases: list[Lease]) -> None:
        assert {one.job.id for one in leases} <= {innocent.id, *suspects}
        assert sum(one.job.id in suspects for one in leases) <= 1

    return lambda client: client.lease(["*"], 4, worker_id=WORKER, lease_for=_LEASE, wait=timedelta(0), suspects=1), prove


@_operation
def lease_what_has_expired(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    expired = put(broker, *new_jobs(2, expires_in=timedelta(milliseconds=1)))
    (good,) = put(broker, new_job(priority=Priority.LOW))
    while broker.now() <= max(job.expires_at for job in expired if job.expires_at is not None):
        pass

    def prove(leases: list[Lease]) -> None:
        assert {one.job.id for one in leases} <= {good.id}

    return lambda client: take(client, 5), prove


@_operation
def renew(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    leases = begin(broker, 3)
    broker.cancel(leases[1].job.id)
    tokens = [one.token for one in leases]

    def prove(answer: Renewal) -> None:
        assert answer == Renewal(lost=frozenset(), cancel_requested=frozenset({leases[1].token}))

    return lambda client: client.renew(tokens, worker_id=WORKER, lease_for=_LEASE), prove


def _settled(outcome: Outcome, state: JobState, run: ExecutionState) -> Operation:
    def make(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
        (lease,) = begin(broker, unique_key="key")
        settlements = [settlement(lease, outcome)]

        def prove(answer: list[bool]) -> None:
            assert answer == [True]
            assert state_of(broker, lease.job.id) is state
            assert [one.state for one in broker.outbox("history", 10).executions] == [run]
            assert len(broker.outbox("dead", 10).dead_letters) == (state is JobState.DEAD)

        return lambda client: client.settle(settlements, worker_id=WORKER), prove

    return make


OPERATIONS |= {
    "settle_completed": _settled(Completed(result_json=b"[1]"), JobState.COMPLETED, ExecutionState.COMPLETED),
    "settle_retrying": _settled(Retrying(delay=_HOUR, error="no"), JobState.RETRYING, ExecutionState.FAILED),
    "settle_snoozed": _settled(Snoozed(delay=_HOUR), JobState.SCHEDULED, ExecutionState.SNOOZED),
    "settle_dead": _settled(Dead(reason=DeadReason.DISCARDED, error="no"), JobState.DEAD, ExecutionState.DEAD),
    "settle_cancelled": _settled(Cancelled(), JobState.CANCELLED, ExecutionState.CANCELLED),
    "settle_returned": _settled(Returned(), JobState.QUEUED, ExecutionState.RETURNED),
}


@_operation
def settle_many(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    leases = [*begin(broker, 6), *begin(broker, 3, queue="other", priority=Priority.HIGH)]
    outcomes = [
        Completed(),
        Retrying(delay=_HOUR, error="no"),
        Dead(reason=DeadReason.RETRIES_EXHAUSTED, error="no"),
        Returned(),
        Snoozed(delay=_HOUR),
    ]
    settlements = [settlement(one, outcomes[number % 5]) for number, one in enumerate(leases)]

    def prove(answer: list[bool]) -> None:
        assert answer == [True] * 9
        assert len(broker.outbox("history", 100).executions) == 9
        assert len(broker.outbox("dead", 100).dead_letters) == 2

    return lambda client: client.settle(settlements, worker_id=WORKER), prove


@_operation
def settle_what_was_to_be_cancelled(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    leases = begin(broker, 3)
    for one in leases:
        assert broker.cancel(one.job.id) == "requested"
    settlements = [failed(leases[0]), completed(leases[1]), died(leases[2])]

    def prove(answer: list[bool]) -> None:
        assert answer == [True] * 3
        assert [state_of(broker, one.job.id) for one in leases] == [JobState.CANCELLED, JobState.COMPLETED, JobState.CANCELLED]

    return lambda client: client.settle(settlements, worker_id=WORKER), prove


@_operation
def settle_what_was_lost(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    old = begin(broker, 3)
    broker.reclaim_worker(WORKER, started=[one.job.id for one in old], error="killed", max_crashes=9)
    new = take(broker, worker_id="worker-2")
    assert len(new) == 3

    def prove(answer: list[bool]) -> None:
        assert answer == [False] * 3
        assert [job and (job.state, job.run) for job in broker.get([one.job.id for one in old])] == [(JobState.PROCESSING, 2)] * 3
        assert broker.settle([completed(one) for one in new], worker_id="worker-2") == [True] * 3

    return lambda client: client.settle([completed(old[0]), failed(old[1]), died(old[2])], worker_id=WORKER), prove


def _released(delay: timedelta, state: JobState, *, unknown_type: bool = False, stops: bool = False) -> Operation:
    def make(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
        leases = begin(broker, 2, unique_key=None)
        if stops:
            assert [broker.cancel(one.job.id) for one in leases] == ["requested"] * 2
        releases = [release(one, delay=delay, unknown_type=unknown_type) for one in leases]

        def prove(answer: list[bool]) -> None:
            assert answer == [True, True]
            assert [job and (job.state, job.run) for job in broker.get([one.job.id for one in leases])] == [(state, 0)] * 2

        return lambda client: client.release(releases, worker_id=WORKER), prove

    return make


OPERATIONS |= {
    "release": _released(timedelta(0), JobState.QUEUED),
    "release_delayed": _released(_HOUR, JobState.SCHEDULED),
    "release_of_unknown_type": _released(_HOUR, JobState.SCHEDULED, unknown_type=True),
    "release_what_was_to_be_cancelled": _released(timedelta(0), JobState.CANCELLED, stops=True),
}


@_operation
def report_progress_and_logs(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    (lease,) = begin(broker)
    reports = [report(lease, progress=Progress(0.5, "half"), lines=[log_line("one"), log_line("two")])]

    def prove(_answer: None) -> None:
        (job,) = broker.get([lease.job.id])
        assert job is not None
        assert job.progress == Progress(0.5, "half")
        assert [line.message for line in broker.logs(job.id)] == ["one", "two"]

    return lambda client: client.report(reports, worker_id=WORKER), prove


@_operation
def beat(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    def prove(_answer: None) -> None:
        assert [one.id for one in broker.workers()] == [WORKER]

    return lambda client: client.beat(worker_info(id=WORKER)), prove


@_operation
def leave(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    broker.beat(worker_info(id=WORKER))

    def prove(_answer: None) -> None:
        assert broker.workers() == []

    return lambda client: client.leave(WORKER), prove


# Upkeep ----------------------------------------------------------------------------------------------------------------------------------


@_operation
def promote(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    moment = timedelta(milliseconds=1)
    retrying = begin(broker, 2, priority=Priority.HIGH)
    broker.settle([failed(one, delay=moment) for one in retrying], worker_id=WORKER)
    jobs = put(broker, *new_jobs(3, delay=moment), *new_jobs(1, delay=_HOUR), *new_jobs(1, queue="other", delay=moment))
    ids = [*(one.job.id for one in retrying), *(job.id for job in jobs)]
    wait_until_due(broker, [*broker.get(ids[:5]), broker.get(ids[6:])[0]])

    def prove(answer: int) -> None:
        assert answer <= 6
        assert [state_of(broker, one) for one in ids] == [JobState.QUEUED] * 5 + [JobState.SCHEDULED, JobState.QUEUED]
        assert broker.promote(100) == 0

    return lambda client: client.promote(100), prove


@_operation
def promote_what_has_crashed(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    ids = _crashed(broker, 2)
    broker.settle([failed(one, delay=timedelta(milliseconds=1)) for one in take(broker)], worker_id=WORKER)
    wait_until_due(broker, broker.get(ids))

    def prove(answer: int) -> None:
        assert answer <= 2
        assert [state_of(broker, one) for one in ids] == [JobState.QUEUED] * 2
        assert len(broker.lease(["*"], 9, worker_id=WORKER, lease_for=_LEASE, wait=timedelta(0), suspects=1)) == 1

    return lambda client: client.promote(100), prove


def _reclaimed(max_crashes: int, state: JobState, *, stops: bool = False) -> Operation:
    def make(broker: Broker, server: Redis, prefix: str) -> tuple[Act, Prove]:
        leases = [*begin(broker, 2, lease_for=timedelta(seconds=1)), *begin(broker, 2, queue="other", lease_for=timedelta(seconds=1))]
        if stops:
            assert [broker.cancel(one.job.id) for one in leases] == ["requested"] * 4
        lapse_all(server, prefix)

        def prove(answer: Reclaimed) -> None:
            assert answer.requeued + answer.dead + answer.cancelled <= 4
            assert [job and (job.state, job.crashes, job.run) for job in broker.get([one.job.id for one in leases])] == [(state, 1, 1)] * 4
            assert [one.state for one in broker.outbox("history", 100).executions] == [ExecutionState.LOST] * 4

        return lambda client: client.reclaim(100, max_crashes=max_crashes), prove

    return make


OPERATIONS |= {
    "reclaim": _reclaimed(3, JobState.QUEUED),
    "reclaim_to_death": _reclaimed(1, JobState.DEAD),
    "reclaim_what_was_to_be_cancelled": _reclaimed(3, JobState.CANCELLED, stops=True),
}


@_operation
def reclaim_worker(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    leases = [*begin(broker, 2), *begin(broker, 2, queue="other")]
    ids = [one.job.id for one in leases]

    def prove(answer: Reclaimed) -> None:
        assert answer.requeued <= 2
        assert answer.dead <= 2
        found = [job and (job.state, job.crashes, job.deaths) for job in broker.get(ids)]
        assert found == [(JobState.DEAD, 1, 1), (JobState.QUEUED, 0, 0)] * 2

    return lambda client: client.reclaim_worker(WORKER, started=ids[::2], error="killed", max_crashes=1), prove


@_operation
def prune(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    moment = timedelta(milliseconds=1)
    gone = put(broker, *new_jobs(2, expires_in=moment), new_job(queue="other", delay=_HOUR, expires_in=moment))
    (stays,) = put(broker, new_job(expires_in=_HOUR))
    while broker.now() <= max(job.expires_at for job in gone if job.expires_at is not None):
        pass

    def act(client: Broker) -> None:
        # An answer that was lost and asked for again says less than was done, as upkeep allows for.
        for _ in range(5):
            client.prune(2)

    def prove(_answer: None) -> None:
        # What was found and not cancelled is looked at again within a minute; until then it only must not run.
        found = [job for job in broker.get([job.id for job in gone]) if job is not None]
        assert {(job.state, job.last_error) for job in found if job.state.finished} <= {(JobState.CANCELLED, "expired")}
        assert [one.job.id for one in take(broker)] == [stays.id]

    return act, prove


# Control ---------------------------------------------------------------------------------------------------------------------------------


def _cancelled(broker: Broker, job_id: str) -> tuple[Act, Prove]:
    def prove(answer: str) -> None:
        assert answer in ("cancelled", "finished")
        assert state_of(broker, job_id) is JobState.CANCELLED

    return lambda client: client.cancel(job_id), prove


@_operation
def cancel_waiting(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    return _cancelled(broker, put(broker, new_job(), new_job(unique_key="key"), new_job())[1].id)


@_operation
def cancel_scheduled(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    return _cancelled(broker, put(broker, *new_jobs(2, delay=_HOUR))[0].id)


@_operation
def cancel_retrying(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    leases = begin(broker, 2)
    broker.settle([failed(one, delay=_HOUR) for one in leases], worker_id=WORKER)
    return _cancelled(broker, leases[0].job.id)


@_operation
def cancel_what_has_crashed(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    return _cancelled(broker, _crashed(broker, 2)[0])


@_operation
def cancel_running(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    leases = begin(broker, 2)

    def prove(answer: str) -> None:
        assert answer == "requested"
        assert [job and job.cancel_requested for job in broker.get([one.job.id for one in leases])] == [True, False]
        assert broker.settle([failed(one, delay=_HOUR) for one in leases], worker_id=WORKER) == [True, True]
        assert [state_of(broker, one.job.id) for one in leases] == [JobState.CANCELLED, JobState.RETRYING]

    return lambda client: client.cancel(leases[0].job.id), prove


@_operation
def pause(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    put(broker, new_job(), new_job(queue="other"))

    def prove(_answer: None) -> None:
        assert [(one.name, one.paused) for one in broker.queues()] == [("default", True), ("other", False)]
        assert [one.job.queue for one in take(broker)] == ["other"]

    return lambda client: client.pause("default"), prove


@_operation
def resume(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    broker.pause("default")
    (job,) = put(broker, new_job())
    assert take(broker) == []

    def prove(_answer: None) -> None:
        assert [one.job.id for one in take(broker)] == [job.id]

    return lambda client: client.resume("default"), prove


@_operation
def purge(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    running, retrying = begin(broker, 2)
    broker.settle([failed(retrying, delay=_HOUR)], worker_id=WORKER)
    jobs = put(broker, *new_jobs(3, priority=Priority.HIGH), new_job(unique_key="key"), *new_jobs(2, delay=_HOUR))
    (elsewhere,) = put(broker, new_job(queue="other"))

    def act(client: Broker) -> None:
        for _ in range(5):
            client.purge("default", 4)

    def prove(_answer: None) -> None:
        assert [state_of(broker, one) for one in (*(job.id for job in jobs), retrying.job.id)] == [JobState.CANCELLED] * 7
        assert [state_of(broker, one) for one in (running.job.id, elsewhere.id)] == [JobState.PROCESSING, JobState.QUEUED]

    return act, prove


# Inspection and outbox ---------------------------------------------------------------------------------------------------------------------


@_operation
def inspect(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
    one, two, _ = begin(broker, 3, metadata={"a": "b"})
    broker.report([report(one, lines=[log_line("one")])], worker_id=WORKER)
    broker.settle([completed(one, b'{"a": 1}'), died(two)], worker_id=WORKER)
    put(broker, *new_jobs(3, delay=_HOUR))

    def look(client: Broker) -> object:
        page = client.jobs(JobFilter(), cursor=None, limit=4)
        rest = client.jobs(JobFilter(), cursor=page.next, limit=4)
        outboxes = [(batch.executions, batch.dead_letters) for batch in (client.outbox(kind, 10) for kind in _KINDS)]
        found = client.get([job.id for job in page.jobs])
        return page.jobs, rest.jobs, found, client.queue("default"), client.logs(one.job.id), outboxes

    def prove(answer: Any) -> None:
        assert answer == look(broker)

    return look, prove


_KINDS: Final[tuple[OutboxKind, ...]] = ("history", "dead")


def _acknowledged(kind: OutboxKind) -> Operation:
    def make(broker: Broker, _server: Redis, _prefix: str) -> tuple[Act, Prove]:
        broker.settle([died(one) for one in begin(broker, 3)], worker_id=WORKER)
        broker.settle([died(one) for one in begin(broker, 3)], worker_id=WORKER)
        before = broker.outbox(kind, 10)
        batch = broker.outbox(kind, 4)

        def prove(_answer: None) -> None:
            after = broker.outbox(kind, 10)
            assert (after.executions, after.dead_letters) == (before.executions[4:], before.dead_letters[4:])

        return lambda client: client.acknowledge(batch), prove

    return make


OPERATIONS |= {"acknowledge_history": _acknowledged("history"), "acknowledge_dead_letters": _acknowledged("dead")}
