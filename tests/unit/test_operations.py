"""Every action an operator can take, with its errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

from jobqueue_core import Conflict, InvalidJob, InvalidPayload, Job, JobNotFound, JobQueue, JobState
from jobqueue_core.attempt import DeadLetterState, Execution, ExecutionState, Lease
from jobqueue_core.broker import JobFilter
from jobqueue_core.errors import BrokerUnavailable, StorageUnavailable
from jobqueue_core.job import DeadReason
from jobqueue_core.operations import BulkResult, Operations
from jobqueue_core.recorder import Recorder
from jobqueue_core.storage import DeadLetterFilter, ExecutionFilter
from jobqueue_core.testing import ManualClock
from jobqueue_core.testing.factories import completed, died, execution, failed, snoozed
from jobqueue_sqlite.broker import SqliteBroker
from jobqueue_sqlite.storage import SqliteStorage

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"
SECOND = timedelta(seconds=1)
MALFORMED_IDS = pytest.mark.parametrize("job_id", ["x", "", "' OR 1=1"])


class Office:
    """A queue on a file, a clock, and hands that run jobs without a worker."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.broker = SqliteBroker(path, clock=self.clock, result_ttl=timedelta(minutes=1))
        self.storage = SqliteStorage(path)
        self.queue = JobQueue(self.broker, self.storage)
        self.operations: Operations = self.queue.operations.acting_as("cli:ada")
        self.recorder = Recorder(broker=self.broker, storage=self.storage)

    def lease(self, queue: str = "default", limit: int = 500) -> list[Lease]:
        self.broker.promote(1000)
        return self.broker.lease([queue], limit, worker_id="worker-1", lease_for=30 * SECOND, wait=timedelta(0), suspects=1)

    def kill(self, job_type: str = "t", payload: object = None, **options: Any) -> Job:
        """Enqueue a job and let it die."""
        job = self.queue.enqueue(job_type, payload, **options)
        self.kill_all(job.queue)
        return job

    def kill_all(self, queue: str = "default", error: str = "ValueError: no") -> int:
        """Let everything that waits die; says how many."""
        leases = self.lease(queue)
        assert all(self.broker.settle([died(lease, error=error) for lease in leases], worker_id="worker-1"))
        self.clock.advance(SECOND)
        self.recorder.record_waiting()
        return len(leases)

    def complete_all(self, queue: str = "default") -> list[Job]:
        leases = self.lease(queue)
        assert all(self.broker.settle([completed(lease, b"1") for lease in leases], worker_id="worker-1"))
        self.clock.advance(SECOND)
        self.recorder.record_waiting()
        return [lease.job for lease in leases]

    def forget(self) -> None:
        """Let the broker forget what has finished."""
        self.recorder.record_waiting()
        self.clock.advance(timedelta(minutes=2))
        while self.broker.prune(1000):
            pass


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path / "jobqueue.db")
    with office.queue:
        yield office


# Jobs ----------------------------------------------------------------------------------------------------------------------------------


def test_a_job_is_found_while_the_broker_has_it(office: Office) -> None:
    job = office.queue.enqueue("t", {"a": 1})
    assert office.operations.job(job.id) == job


def test_a_job_that_the_broker_has_forgotten_is_answered_from_history(office: Office) -> None:
    job = office.queue.enqueue("t", {"a": 1}, metadata={"tenant": "acme"})
    office.complete_all()
    office.forget()
    found = office.operations.job(job.id)
    assert (found.state, found.archived, found.payload, found.metadata, found.run) == (JobState.COMPLETED, True, None, {"tenant": "acme"}, 1)
    assert office.queue.wait(job.id, timeout="1s") == found


@pytest.mark.parametrize(
    ("last", "state"),
    [
        ({"state": ExecutionState.COMPLETED}, JobState.COMPLETED),
        ({"state": ExecutionState.DEAD, "dead_reason": DeadReason.DISCARDED}, JobState.DEAD),
        ({"state": ExecutionState.CANCELLED}, JobState.CANCELLED),
        ({"state": ExecutionState.LOST, "dead_reason": DeadReason.WORKER_LOST}, JobState.DEAD),
        ({"state": ExecutionState.LOST}, JobState.CANCELLED),
        ({"state": ExecutionState.FAILED}, JobState.CANCELLED),
        ({"state": ExecutionState.SNOOZED}, JobState.CANCELLED),
        ({"state": ExecutionState.RETURNED}, JobState.CANCELLED),
    ],
)
def test_history_tells_how_a_forgotten_job_ended(office: Office, last: dict[str, Any], state: JobState) -> None:
    runs: list[Execution] = [execution(job_id=UNKNOWN, run=1, state=ExecutionState.FAILED), execution(job_id=UNKNOWN, run=2, **last)]
    office.storage.record_executions(runs, record="all")
    found = office.operations.job(UNKNOWN)
    assert (found.state, found.run, found.archived) == (state, 2, True)
    assert found.state.finished


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


def test_cancelling_says_whether_it_has_happened_or_was_asked_for(office: Office) -> None:
    waiting, running = office.queue.enqueue("t", queue="a"), office.queue.enqueue("t", queue="b")
    assert len(office.lease("b")) == 1
    assert office.operations.cancel_job(waiting.id).status == "cancelled"
    cancellation = office.operations.cancel_job(running.id)
    assert (cancellation.status, cancellation.job.state) == ("requested", JobState.PROCESSING)


@pytest.mark.parametrize("forgotten", [False, True])
def test_cancelling_what_has_finished_is_a_conflict(office: Office, *, forgotten: bool) -> None:
    job = office.queue.enqueue("t")
    office.complete_all()
    if forgotten:
        office.forget()
    with pytest.raises(Conflict, match="completed") as caught:
        office.operations.cancel_job(job.id)
    assert caught.value.code == "finished"


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


# Queues --------------------------------------------------------------------------------------------------------------------------------


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


# Dead letters --------------------------------------------------------------------------------------------------------------------------


def test_a_dead_letter_retry_makes_the_job_live_again(office: Office) -> None:
    job = office.kill(payload={"n": 1.50, "big": 2**70})
    retried = office.operations.retry_dead_letter(job.id)
    assert (retried.state, retried.run, retried.deaths, retried.retry_count) == (JobState.QUEUED, 1, 1, 0)
    assert retried.payload_json == job.payload_json, "kept byte for byte"
    letter = office.operations.dead_letter(job.id)
    assert (letter.state, letter.requeued_at is not None) == (DeadLetterState.REQUEUED, True)
    assert [lease.job.run for lease in office.lease()] == [2]


def test_a_dead_letter_retry_may_replace_the_payload(office: Office) -> None:
    job = office.kill(payload={"to": "wrong"})
    assert office.operations.retry_dead_letter(job.id, payload={"to": "right"}).payload == {"to": "right"}
    other = office.kill(payload={"to": "wrong"})
    assert office.operations.retry_dead_letter(other.id, payload=None).payload is None, "None is a payload too"


def test_a_wrong_payload_changes_nothing(office: Office) -> None:
    job = office.kill()
    for wrong in (object(), float("nan"), "x" * (1 << 20)):
        with pytest.raises(InvalidPayload):
            office.operations.retry_dead_letter(job.id, payload=wrong)
    assert office.operations.dead_letter(job.id).state is DeadLetterState.OPEN


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_dead_letter_is_retried_also_after_the_broker_has_forgotten_its_job(office: Office, *, forgotten: bool) -> None:
    job = office.kill()
    if forgotten:
        office.forget()
        found = office.queue.get(job.id)
        assert found is not None
        assert (found.archived, found.state) == (True, JobState.DEAD)
    assert office.operations.retry_dead_letter(job.id).state is JobState.QUEUED
    assert [lease.job.id for lease in office.lease()] == [job.id]


def test_a_dead_letter_that_is_not_open_is_a_conflict(office: Office) -> None:
    retried, discarded = office.kill(), office.kill()
    office.operations.retry_dead_letter(retried.id)
    office.operations.discard_dead_letter(discarded.id)
    for job in (retried, discarded):
        for act in (office.operations.retry_dead_letter, office.operations.discard_dead_letter):
            with pytest.raises(Conflict, match="not open") as caught:
                act(job.id)
            assert caught.value.code == "not_open"


def test_a_job_that_died_again_has_a_dead_letter_that_can_be_retried_again(office: Office) -> None:
    job = office.kill()
    office.operations.retry_dead_letter(job.id)
    office.kill_all()
    assert office.operations.dead_letter(job.id).job.deaths == 2
    assert office.operations.retry_dead_letter(job.id).deaths == 2
    assert [one.run for one in office.operations.job_executions(job.id)] == [1, 2]


def test_a_unique_key_that_another_job_holds_now_is_a_conflict_and_leaves_the_dead_letter_open(office: Office) -> None:
    job = office.kill(unique_key="k")
    holder = office.queue.enqueue("t", unique_key="k")
    assert holder.id != job.id
    with pytest.raises(Conflict, match="unique key 'k'") as caught:
        office.operations.retry_dead_letter(job.id)
    assert caught.value.code == "key_taken"
    assert office.operations.dead_letter(job.id).state is DeadLetterState.OPEN
    office.complete_all()
    assert office.operations.retry_dead_letter(job.id).state is JobState.QUEUED
    assert office.queue.enqueue("t", unique_key="k").id == job.id, "it has taken the key again"


def test_a_broker_that_goes_away_in_a_retry_is_heard_and_the_dead_letter_is_open_again_in_time(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = office.kill()

    def away(*_arguments: object, **_options: object) -> None:
        raise BrokerUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(office.broker, "requeue", away)
        with pytest.raises(BrokerUnavailable):
            office.operations.retry_dead_letter(job.id)
    assert office.operations.dead_letter(job.id).state is DeadLetterState.REQUEUEING
    office.clock.advance(timedelta(seconds=31))
    office.recorder.tidy()
    assert office.operations.retry_dead_letter(job.id).state is JobState.QUEUED


def test_a_retry_that_comes_too_late_changes_nothing_and_says_so(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    job = office.kill()
    requeue = office.broker.requeue

    def slow(*arguments: Any, **options: Any) -> Any:
        office.clock.advance(timedelta(minutes=1))
        return requeue(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(office.broker, "requeue", slow)
        with pytest.raises(BrokerUnavailable) as caught:
            office.operations.retry_dead_letter(job.id)
    assert caught.value.maybe_accepted is False
    assert office.operations.dead_letter(job.id).state is DeadLetterState.OPEN
    assert office.lease() == []


# In bulk -------------------------------------------------------------------------------------------------------------------------------


def test_a_bulk_retry_of_a_type_that_dies_again_ends_and_has_run_each_job_once_more(office: Office) -> None:
    jobs = [office.queue.enqueue("t") for _ in range(450)]
    assert office.kill_all() == 450
    # While the bulk action is at work, what it has retried dies again at once.
    again: list[int] = []
    result = office.operations.retry_dead_letters(DeadLetterFilter(type="t"), progress=lambda _: again.append(office.kill_all()))
    assert result == BulkResult(matched=450, done=450, skipped=0)
    assert sum(again) == 450
    assert len(again) < 10, "in bounded steps, and it ends"
    assert {office.operations.dead_letter(job.id).job.deaths for job in jobs} == {2}
    assert {len(office.operations.job_executions(job.id)) for job in jobs} == {2}


def test_a_bulk_action_ends_also_when_it_is_asked_for_deaths_up_to_a_later_time(office: Office) -> None:
    office.queue.enqueue_many([{"type": "t"}] * 300)
    office.kill_all()
    steps: list[int] = []

    def die_again(_: BulkResult) -> None:
        steps.append(office.kill_all())
        assert len(steps) < 10, "it does not end"

    wanted = DeadLetterFilter(died_before=office.clock() + timedelta(days=1))
    assert office.operations.retry_dead_letters(wanted, progress=die_again) == BulkResult(matched=300, done=300)
    assert sum(steps) == 300


def test_a_dry_run_only_counts(office: Office) -> None:
    job = office.kill()
    for act in (office.operations.retry_dead_letters, office.operations.discard_dead_letters):
        assert act(DeadLetterFilter(), dry_run=True) == BulkResult(matched=1, dry_run=True)
    assert office.operations.dead_letter(job.id).state is DeadLetterState.OPEN


def test_a_bulk_action_takes_what_matches_and_is_open(office: Office) -> None:
    wanted, other_type, other_queue, done = office.kill("a"), office.kill("b"), office.kill("a", queue="other"), office.kill("a")
    office.operations.discard_dead_letter(done.id)
    assert office.operations.discard_dead_letters(DeadLetterFilter(type="a", queue="default")) == BulkResult(matched=1, done=1)
    states = {job.id: office.operations.dead_letter(job.id).state for job in (wanted, other_type, other_queue)}
    assert states == {wanted.id: DeadLetterState.DISCARDED, other_type.id: DeadLetterState.OPEN, other_queue.id: DeadLetterState.OPEN}


def test_a_bulk_retry_skips_what_it_may_not_retry(office: Office) -> None:
    office.kill(unique_key="k")
    free = office.kill()
    office.queue.enqueue("t", unique_key="k")
    result = office.operations.retry_dead_letters(DeadLetterFilter())
    assert (result.matched, result.done, result.skipped) == (2, 1, 1)
    assert office.operations.dead_letter(free.id).state is DeadLetterState.REQUEUED


def test_a_broker_that_fails_amid_a_page_leaves_nothing_behind_but_the_one_nobody_knows_of(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [office.kill() for _ in range(6)]
    requeue, sent = office.broker.requeue, []

    def fail_at_the_third(job: Job, **options: Any) -> Any:
        if len(sent) == 2:
            raise BrokerUnavailable("away")
        sent.append(job.id)
        return requeue(job, **options)

    with monkeypatch.context() as patch:
        patch.setattr(office.broker, "requeue", fail_at_the_third)
        with pytest.raises(BrokerUnavailable):
            office.operations.retry_dead_letters(DeadLetterFilter())
    states = {job.id: office.operations.dead_letter(job.id).state for job in jobs}
    (unknown,) = [job_id for job_id, state in states.items() if state is DeadLetterState.REQUEUEING]
    assert {job_id for job_id, state in states.items() if state is DeadLetterState.REQUEUED} == set(sent)
    assert len([one for one in states.values() if one is DeadLetterState.OPEN]) == 3

    assert office.operations.retry_dead_letters(DeadLetterFilter()) == BulkResult(matched=3, done=3)
    office.clock.advance(31 * SECOND)
    office.recorder.tidy()
    assert office.operations.dead_letter(unknown).state is DeadLetterState.OPEN
    assert office.operations.retry_dead_letters(DeadLetterFilter()) == BulkResult(matched=1, done=1)
    assert {lease.job.id for lease in office.lease()} == {job.id for job in jobs}


def test_storage_that_fails_at_the_end_of_a_page_loses_and_doubles_nothing(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [office.kill() for _ in range(3)]

    def away(*_args: Any, **_options: Any) -> None:
        raise StorageUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(office.storage, "finish_requeues", away)
        with pytest.raises(StorageUnavailable):
            office.operations.retry_dead_letters(DeadLetterFilter())
    assert office.operations.retry_dead_letters(DeadLetterFilter()) == BulkResult(), "they are nobody else's to retry"
    office.clock.advance(31 * SECOND)
    office.recorder.tidy()
    assert {office.operations.dead_letter(job.id).state for job in jobs} == {DeadLetterState.REQUEUED}
    assert len(office.lease()) == 3


@pytest.mark.parametrize("error", [BrokerUnavailable, StorageUnavailable, KeyboardInterrupt])
def test_a_bulk_retry_that_is_broken_off_says_how_far_it_came_and_repeated_retries_each_job_once(
    office: Office, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    jobs = [office.kill() for _ in range(130)]
    requeue, sent = office.broker.requeue, []

    def break_off(job: Job, **options: Any) -> Any:
        answer = requeue(job, **options)
        sent.append(job.id)
        if len(sent) == 113:
            raise error("it was done all the same")
        return answer

    steps: list[BulkResult] = []
    with monkeypatch.context() as patch:
        patch.setattr(office.broker, "requeue", break_off)
        with pytest.raises(error):
            office.operations.retry_dead_letters(DeadLetterFilter(), progress=steps.append)
    assert steps == [BulkResult(matched=130, done=100), BulkResult(matched=130, done=112)]
    assert office.operations.retry_dead_letters(DeadLetterFilter()) == BulkResult(matched=17, done=17)
    office.clock.advance(31 * SECOND)
    office.recorder.tidy()
    assert {office.operations.dead_letter(job.id).state for job in jobs} == {DeadLetterState.REQUEUED}
    assert sorted(lease.job.id for lease in office.lease()) == sorted(job.id for job in jobs)


def test_an_interrupt_between_two_answers_leaves_nothing_behind(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [office.kill() for _ in range(3)]

    evolve = attrs.evolve

    def interrupted(it: Any, **changes: Any) -> Any:
        if "done" in changes:
            raise KeyboardInterrupt
        return evolve(it, **changes)

    monkeypatch.setattr(attrs, "evolve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        office.operations.retry_dead_letters(DeadLetterFilter())
    states = sorted(office.operations.dead_letter(job.id).state for job in jobs)
    assert states == [DeadLetterState.OPEN, DeadLetterState.OPEN, DeadLetterState.REQUEUED]


def test_a_step_that_takes_too_long_is_begun_anew_and_retries_all(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [office.kill() for _ in range(7)]
    requeue, begin, begun = office.broker.requeue, office.storage.begin_requeues, []

    def slow(*arguments: Any, **options: Any) -> Any:
        office.clock.advance(12 * SECOND)
        return requeue(*arguments, **options)

    def counted(deaths: Any, **options: Any) -> Any:
        begun.append(len(deaths))
        return begin(deaths, **options)

    monkeypatch.setattr(office.broker, "requeue", slow)
    monkeypatch.setattr(office.storage, "begin_requeues", counted)
    assert office.operations.retry_dead_letters(DeadLetterFilter()) == BulkResult(matched=7, done=7)
    assert begun == [7, 5, 3, 1], "two fit into half a minute"
    assert {office.operations.dead_letter(job.id).state for job in jobs} == {DeadLetterState.REQUEUED}
    assert len(office.lease()) == 7


def test_a_job_that_alone_takes_too_long_is_skipped_and_said(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slow_one, *others = [office.kill() for _ in range(3)]
    requeue = office.broker.requeue

    def slow(job: Job, **options: Any) -> Any:
        if job.id == slow_one.id:
            office.clock.advance(31 * SECOND)
        return requeue(job, **options)

    monkeypatch.setattr(office.broker, "requeue", slow)
    assert office.operations.retry_dead_letters(DeadLetterFilter()) == BulkResult(matched=3, done=2, skipped=1)
    assert office.operations.dead_letter(slow_one.id).state is DeadLetterState.OPEN
    assert {lease.job.id for lease in office.lease()} == {job.id for job in others}
    assert [one.getMessage() for one in caplog.records if one.levelname == "WARNING" and "took too long" in one.getMessage()] != []


def test_who_comes_too_late_does_not_finish_the_retry_that_somebody_else_has_begun_since(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    job = office.kill()
    key = (job.id, 1)
    requeue = office.broker.requeue

    def hang(*arguments: Any, **options: Any) -> Any:
        office.clock.advance(31 * SECOND)
        office.recorder.tidy()
        assert office.storage.begin_requeues([key], now=office.broker.now()) == [True]
        return requeue(*arguments, **options)

    monkeypatch.setattr(office.broker, "requeue", hang)
    with pytest.raises(BrokerUnavailable):
        office.operations.retry_dead_letter(job.id)
    assert office.operations.dead_letter(job.id).state is DeadLetterState.REQUEUEING


def test_what_is_being_retried_by_somebody_is_left_to_them(office: Office) -> None:
    theirs, free = office.kill(), office.kill()
    assert office.storage.begin_requeues([(theirs.id, 1)], now=office.broker.now()) == [True]
    assert office.operations.retry_dead_letters(DeadLetterFilter()) == BulkResult(matched=1, done=1)
    assert office.operations.dead_letter(theirs.id).state is DeadLetterState.REQUEUEING
    assert [lease.job.id for lease in office.lease()] == [free.id]


def test_a_job_that_could_not_be_read_is_tried_again_only_with_a_payload(office: Office) -> None:
    office.queue.enqueue("t", {"a": 1})
    (lease,) = office.lease()
    assert office.broker.settle([died(lease, reason=DeadReason.UNDECODABLE)], worker_id="worker-1") == [True]
    office.recorder.record_waiting()
    result = office.operations.retry_dead_letters(DeadLetterFilter())
    assert (result.matched, result.done, result.skipped) == (1, 0, 1)
    with pytest.raises(Conflict) as caught:
        office.operations.retry_dead_letter(lease.job.id)
    assert caught.value.code == "undecodable"
    assert office.operations.dead_letter(lease.job.id).state is DeadLetterState.OPEN
    assert office.operations.retry_dead_letter(lease.job.id, payload={"a": 2}).payload == {"a": 2}


def test_dead_letters_are_listed_and_grouped(office: Office) -> None:
    office.queue.enqueue_many([{"type": "t"}] * 3)
    office.kill_all(error="ValueError: row 17")
    office.queue.enqueue("t")
    office.kill_all(error="ValueError: row 18")
    office.queue.enqueue("t")
    office.kill_all(error="KeyError: 'a'")
    groups = office.operations.dead_letter_groups(DeadLetterFilter())
    assert [group.count for group in groups] == [4, 1]
    page = office.operations.dead_letters(DeadLetterFilter(), limit=2)
    assert page.next is not None
    rest = office.operations.dead_letters(DeadLetterFilter(), limit=50, cursor=page.next)
    assert len({letter.job.id for letter in (*page.dead_letters, *rest.dead_letters)}) == 5


# The rest ------------------------------------------------------------------------------------------------------------------------------


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
