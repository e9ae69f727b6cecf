"""Lists of jobs: live ones from the broker, finished ones from history, no job twice and none left out, whatever becomes of jobs meanwhile."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from servers import joined_config

from jobqueue_core import InvalidJob, Job, JobQueue, JobState, joblists
from jobqueue_core.app import App
from jobqueue_core.attempt import Lease, Settlement
from jobqueue_core.broker import Broker, JobFilter, JobPage
from jobqueue_core.errors import StorageUnavailable
from jobqueue_core.recorder import Recorder
from jobqueue_core.storage import DeadLetterFilter, EndFilter, RecordPolicy, state_at_end
from jobqueue_core.testing import ManualClock
from jobqueue_core.testing.factories import cancelled, completed, died, failed, returned, snoozed, tampered
from jobqueue_sqlite.broker import SqliteBroker
from jobqueue_sqlite.storage import SqliteStorage

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
FINISHED = [state for state in JobState if state.finished]
ANY_OR_FINISHED = pytest.mark.parametrize("state", [None, *FINISHED], ids=str)


class Yard:
    """A queue on a file, a clock, and hands that do what workers and operators do."""

    def __init__(self, path: Path, *, record: RecordPolicy = "all") -> None:
        self.clock = ManualClock()
        self.broker = SqliteBroker(path, clock=self.clock, result_ttl=MINUTE)
        self.storage = SqliteStorage(path)
        self.queue = JobQueue(self.broker, self.storage)
        self.operations = self.queue.operations
        self.recorder = Recorder(broker=self.broker, storage=self.storage, record=record)

    def put(self, **options: Any) -> Job:
        return self.queue.enqueue("t", {"a": 1}, **options)

    def lease(self, limit: int = 1) -> list[Lease]:
        self.broker.promote(1000)
        return self.broker.lease(["default"], limit, worker_id="worker-1", lease_for=30 * SECOND, wait=timedelta(0), suspects=1)

    def settle(self, end: Callable[[Lease], Settlement]) -> Job | None:
        """Run the next job; None when there is none."""
        for lease in self.lease():
            assert self.broker.settle([end(lease)], worker_id="worker-1") == [True]
            return lease.job
        return None

    def ran(self, end: Callable[[Lease], Settlement] = completed, **options: Any) -> Job:
        """A new job that has run, and is recorded."""
        job = self.put(**options)
        done = self.settle(end)
        assert done is not None
        assert done.id == job.id
        self.pass_time()
        return job

    def pass_time(self, time: timedelta = SECOND) -> None:
        """Record what is there, and let time pass."""
        self.recorder.record_waiting()
        self.clock.advance(time)

    def forget(self) -> None:
        """Let the broker forget what finished more than a minute ago."""
        while self.broker.prune(1000):
            pass

    def pages(self, state: JobState | None = None, *, limit: int = 2, meanwhile: Callable[[], object] = lambda: None, **wanted: Any) -> list[JobPage]:
        """A whole walk; *meanwhile* happens after each page."""
        pages: list[JobPage] = []
        cursor = None
        while True:
            pages.append(self.operations.jobs(JobFilter(state=state, **wanted), cursor=cursor, limit=limit))
            assert len(pages[-1].jobs) <= limit
            assert len(pages) < 1000, "the walk did not come to an end"
            cursor = pages[-1].next
            if cursor is None:
                return pages
            meanwhile()

    def listed(self, state: JobState | None = None, *, limit: int = 2, meanwhile: Callable[[], object] = lambda: None, **wanted: Any) -> list[Job]:
        return [job for page in self.pages(state, limit=limit, meanwhile=meanwhile, **wanted) for job in page.jobs]

    def ids(self, state: JobState | None = None, *, limit: int = 2, meanwhile: Callable[[], object] = lambda: None) -> list[str]:
        return [job.id for job in self.listed(state, limit=limit, meanwhile=meanwhile)]


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(tmp_path / "jobqueue.db")
    with yard.queue:
        yield yard


def once(*meanwhile: Callable[[], object]) -> Callable[[], None]:
    """Each of *meanwhile* once, one after the other, and then nothing."""
    left = list(meanwhile)
    return lambda: left.pop(0)() and None if left else None


# What is listed ------------------------------------------------------------------------------------------------------------------------


def test_a_job_that_has_just_finished_is_listed_at_once_with_payload_and_result(yard: Yard) -> None:
    job = yard.put(metadata={"tenant": "acme"})
    yard.settle(lambda lease: completed(lease, b"7"))
    for state in (None, JobState.COMPLETED):
        (found,) = yard.listed(state)
        assert (found.id, found.state, found.payload, found.result, found.archived) == (job.id, JobState.COMPLETED, {"a": 1}, 7, False)


def test_a_finished_job_that_the_broker_has_forgotten_is_listed_as_history_remembers_it(yard: Yard) -> None:
    due = yard.clock() + SECOND
    job = yard.put(metadata={"tenant": "acme"}, scheduled_at=due)
    yard.clock.advance(2 * SECOND)
    yard.settle(lambda lease: completed(lease, b"7"))
    yard.pass_time(2 * MINUTE)
    yard.forget()
    for state in (None, JobState.COMPLETED):
        (found,) = yard.listed(state)
        assert (found.id, found.state, found.archived, found.payload, found.result) == (job.id, JobState.COMPLETED, True, None, None)
        assert (found.scheduled_at, found.metadata) == (due, {"tenant": "acme"})
    assert yard.operations.job(job.id) == found


def test_a_finished_job_that_history_has_is_listed_with_payload_and_result_while_the_broker_has_it(yard: Yard) -> None:
    job = yard.ran(lambda lease: completed(lease, b"7"))
    yard.pass_time(30 * SECOND)
    for state in (None, JobState.COMPLETED):
        (found,) = yard.listed(state)
        assert (found.id, found.payload, found.result, found.archived) == (job.id, {"a": 1}, 7, False)


@pytest.mark.parametrize("limit", [1, 3, 500])
def test_live_jobs_come_first_and_then_those_that_finished_last(yard: Yard, limit: int) -> None:
    first, second = yard.put(), yard.put()
    finished = [yard.settle(completed), yard.settle(completed)]
    assert {job.id for job in finished if job} == {first.id, second.id}
    yard.pass_time(2 * MINUTE)
    yard.forget()
    third = yard.ran()
    yard.pass_time(30 * SECOND)
    live = [yard.put(delay="1h") for _ in range(3)]
    found = yard.ids(limit=limit)
    assert sorted(found[:3]) == sorted(job.id for job in live)
    assert found[3] == third.id
    assert sorted(found[4:]) == sorted([first.id, second.id])


def test_finished_jobs_of_one_state_are_listed_by_when_they_finished(yard: Yard) -> None:
    jobs = [yard.put() for _ in range(6)]
    order = []
    for _ in jobs:
        done = yard.settle(died)
        assert done is not None
        order.insert(0, done.id)
        yard.pass_time(20 * SECOND)
    yard.forget()
    assert yard.ids(JobState.DEAD, limit=500) == order
    assert yard.ids(JobState.DEAD, limit=1) == order


@pytest.mark.parametrize("state", [None, JobState.CANCELLED], ids=str)
def test_a_page_is_in_order_whether_or_not_history_knows_its_jobs(yard: Yard, state: JobState | None) -> None:
    ends = []
    for _ in range(3):
        ends.append(yard.ran(cancelled).id)
        ends.append(yard.queue.cancel(yard.put().id).id)
        yard.pass_time()
    yard.pass_time(30 * SECOND)
    assert yard.ids(state, limit=500) == ends[::-1]


@pytest.mark.parametrize("policy", ["all", "failures", "none"])
@pytest.mark.parametrize("limit", [1, 4, 500])
def test_every_job_is_listed_once_whatever_history_records(tmp_path: Path, policy: RecordPolicy, limit: int) -> None:
    yard = Yard(tmp_path / "jobqueue.db", record=policy)
    with yard.queue:
        by_state = {
            JobState.COMPLETED: [yard.ran(completed).id for _ in range(3)],
            JobState.DEAD: [yard.ran(died).id for _ in range(3)],
            JobState.CANCELLED: [yard.ran(cancelled).id for _ in range(3)],
        }
        yard.pass_time(20 * SECOND)
        by_state[JobState.CANCELLED].append(yard.queue.cancel(yard.put(delay="1h").id).id)
        retrying = yard.ran(lambda lease: failed(lease, delay=MINUTE))
        by_state[JobState.CANCELLED].append(yard.queue.cancel(retrying.id).id)
        by_state[JobState.COMPLETED].append(yard.ran().id)
        by_state[JobState.SCHEDULED] = [yard.put(delay="1h").id for _ in range(3)]
        by_state[JobState.QUEUED] = [yard.put().id]
        yard.pass_time(20 * SECOND)
        for state, ids in by_state.items():
            assert sorted(yard.ids(state, limit=limit)) == sorted(ids), state
        assert sorted(yard.ids(limit=limit)) == sorted(job_id for ids in by_state.values() for job_id in ids)


@ANY_OR_FINISHED
def test_lists_can_be_narrowed_to_a_type_and_a_queue(yard: Yard, state: JobState | None) -> None:
    for queue in ("default", "mail"):
        for job_type in ("t", "u"):
            yard.queue.enqueue(job_type, None, queue=queue)
    for lease in yard.broker.lease(["*"], 4, worker_id="worker-1", lease_for=30 * SECOND, wait=timedelta(0), suspects=1):
        end = {None: completed, JobState.COMPLETED: completed, JobState.DEAD: died, JobState.CANCELLED: cancelled}[state]
        yard.broker.settle([end(lease)], worker_id="worker-1")
    for _ in range(3):
        assert len(yard.listed(state)) == 4
        assert {(job.type, job.queue) for job in yard.listed(state, type="u")} == {("u", "default"), ("u", "mail")}
        assert {(job.type, job.queue) for job in yard.listed(state, queue="mail")} == {("t", "mail"), ("u", "mail")}
        assert [(job.type, job.queue) for job in yard.listed(state, type="u", queue="mail")] == [("u", "mail")]
        yard.pass_time(40 * SECOND)
        yard.forget()


def test_without_a_storage_everything_comes_from_the_broker(yard: Yard) -> None:
    done, live = yard.ran(), yard.put()
    yard.pass_time(30 * SECOND)
    operations = JobQueue(yard.broker).operations
    assert {job.id for job in operations.jobs(JobFilter()).jobs} == {done.id, live.id}
    assert [job.id for job in operations.jobs(JobFilter(state=JobState.COMPLETED)).jobs] == [done.id]


# What happens meanwhile ----------------------------------------------------------------------------------------------------------------


def test_a_live_job_that_was_listed_and_finishes_is_not_listed_again(yard: Yard) -> None:
    old = [yard.ran().id for _ in range(4)]
    yard.pass_time(30 * SECOND)
    live = yard.put()

    def finish() -> None:
        yard.settle(completed)
        yard.pass_time()

    assert yard.ids(limit=1, meanwhile=once(finish)) == [live.id, *reversed(old)]


def test_a_live_job_that_finishes_before_it_is_listed_is_listed_even_so(yard: Yard) -> None:
    jobs = [yard.put(delay=timedelta(seconds=number)) for number in range(1, 5)]

    def finish() -> None:
        yard.pass_time(20 * SECOND)
        while yard.settle(completed):
            yard.recorder.record_waiting()

    assert sorted(yard.ids(limit=1, meanwhile=once(finish))) == sorted(job.id for job in jobs)


@ANY_OR_FINISHED
def test_a_dead_job_that_was_listed_and_lives_again_is_not_listed_again(yard: Yard, state: JobState | None) -> None:
    dead = [yard.ran(died).id for _ in range(3)]
    done = [yard.ran().id for _ in range(2)]
    yard.pass_time(30 * SECOND)

    def retry_all() -> None:
        yard.operations.retry_dead_letters(DeadLetterFilter())

    def kill_all() -> None:
        while yard.settle(died):
            yard.pass_time()

    found = yard.ids(state, limit=1, meanwhile=once(retry_all, kill_all, retry_all, kill_all))
    assert len(found) == len(set(found))
    assert set(found) <= {*dead, *done}
    if state is None:
        assert set(found) == {*dead, *done}


def test_a_dead_job_that_waits_to_be_tried_again_is_listed_as_the_live_job_that_it_is(yard: Yard) -> None:
    job = yard.ran(died)
    yard.pass_time(30 * SECOND)
    yard.operations.retry_dead_letter(job.id)
    assert [(one.id, one.state) for one in yard.listed()] == [(job.id, JobState.QUEUED)]
    assert yard.ids(JobState.DEAD) == []
    assert yard.ids(JobState.QUEUED) == [job.id]


def test_a_dead_job_that_was_tried_again_is_listed_under_its_last_end_only(yard: Yard) -> None:
    job = yard.ran(died)
    yard.operations.retry_dead_letter(job.id)
    yard.settle(completed)
    for _ in range(3):
        assert yard.ids() == [job.id]
        assert yard.ids(JobState.COMPLETED) == [job.id]
        assert yard.ids(JobState.DEAD) == []
        yard.pass_time(40 * SECOND)
        yard.forget()


def test_a_dead_job_that_was_tried_again_and_cancelled_before_it_ran_is_listed_as_cancelled(yard: Yard) -> None:
    job = yard.ran(died)
    yard.pass_time(30 * SECOND)
    yard.operations.retry_dead_letter(job.id)
    yard.queue.cancel(job.id)
    yard.pass_time(30 * SECOND)
    assert [(one.id, one.state) for one in yard.listed()] == [(job.id, JobState.CANCELLED)]
    assert yard.ids(JobState.CANCELLED) == [job.id]
    assert yard.ids(JobState.DEAD) == []


def test_a_job_that_the_broker_forgets_amid_the_walk_is_listed_once(yard: Yard) -> None:
    jobs = [yard.ran().id for _ in range(5)]
    yard.pass_time(50 * SECOND)

    def forget() -> None:
        yard.pass_time(MINUTE)
        yard.forget()

    assert sorted(yard.ids(limit=1, meanwhile=once(forget))) == sorted(jobs)


def test_a_new_job_with_the_id_of_a_forgotten_one_is_listed_once(yard: Yard) -> None:
    job_id = str(uuid.uuid4())
    yard.ran(id=job_id)
    yard.pass_time(2 * MINUTE)
    yard.forget()
    yard.put(id=job_id)
    assert [(job.id, job.state) for job in yard.listed()] == [(job_id, JobState.QUEUED)]
    yard.settle(completed)
    assert yard.ids() == [job_id]
    yard.pass_time(30 * SECOND)
    assert yard.ids() == [job_id]
    assert yard.ids(JobState.COMPLETED) == [job_id]


def test_a_new_job_with_the_id_of_a_forgotten_one_that_ends_without_a_run_is_listed_once(yard: Yard) -> None:
    job_id = str(uuid.uuid4())
    yard.ran(id=job_id)
    yard.pass_time(2 * MINUTE)
    yard.forget()
    yard.queue.cancel(yard.put(id=job_id).id)
    yard.pass_time(30 * SECOND)
    assert [(job.id, job.state) for job in yard.listed()] == [(job_id, JobState.CANCELLED)]
    assert yard.ids(JobState.CANCELLED) == [job_id]
    assert yard.ids(JobState.COMPLETED) == []


def test_a_job_that_storage_has_lost_is_listed_while_the_broker_has_it(yard: Yard, tmp_path: Path) -> None:
    job = yard.ran()
    yard.pass_time(30 * SECOND)
    emptied = SqliteStorage(tmp_path / "another.db")
    with JobQueue(yard.broker, emptied) as queue:
        for state in (None, JobState.COMPLETED):
            assert [one.id for one in queue.operations.jobs(JobFilter(state=state)).jobs] == [job.id]


# Anything at all -----------------------------------------------------------------------------------------------------------------------


@attrs.define
class Traffic:
    """Does at random what may happen to jobs."""

    yard: Yard
    random: random.Random
    ids: list[str] = attrs.field(factory=list)

    def step(self) -> None:
        """Let one thing happen; recording is never far behind."""
        if self.yard.broker.outbox_lag().oldest_age > 15 * SECOND:
            self.record()
        self.random.choice([self.put, self.put, self.run, self.run, self.run, self.cancel, self.retry, self.retry_all, self.record, self.forget])()

    def put(self) -> None:
        self.ids.append(self.yard.put(delay=self.random.choice([None, None, "3s"]), queue=self.random.choice(["default", "default", "other"])).id)

    def run(self) -> None:
        self.yard.settle(self.random.choice([completed, completed, died, died, failed, cancelled, snoozed, returned]))

    def cancel(self) -> None:
        if self.ids:
            self.yard.broker.cancel(self.random.choice(self.ids))

    def retry(self) -> None:
        letters = self.yard.storage.dead_letters(DeadLetterFilter(), cursor=None, offset=0, limit=50).dead_letters
        if letters:
            self.yard.operations.retry_dead_letter(self.random.choice(letters).job.id)

    def retry_all(self) -> None:
        if self.random.random() < 0.2:
            self.yard.operations.retry_dead_letters(DeadLetterFilter())

    def record(self) -> None:
        self.yard.recorder.record_waiting()

    def forget(self) -> None:
        self.yard.forget()

    def there(self) -> dict[str, Job]:
        """The jobs that a list should have: those the broker has, and those whose last run ended them."""
        found = {}
        for job_id in self.ids:
            runs = self.yard.storage.job_executions(job_id)
            job = self.yard.operations.find_job(job_id)
            if job is not None and (not job.archived or state_at_end(runs[-1]) is not None):
                found[job_id] = job
        return found


@ANY_OR_FINISHED
@pytest.mark.parametrize("seed", range(12))
def test_no_job_comes_twice_and_none_that_stays_is_missing_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: JobState | None, seed: int
) -> None:
    # So that forty jobs are a long walk.
    for name, value in {"_EXAMINED": 12, "_PORTION": 6, "_HISTORY_PAGES": 2}.items():
        monkeypatch.setattr(joblists, name, value)
    chance = random.Random(f"{seed} {state}")
    yard = Yard(tmp_path / "jobqueue.db", record=chance.choice(["all", "all", "failures"]))
    with yard.queue:
        traffic = Traffic(yard, chance)
        for _ in range(120):
            traffic.step()
            yard.clock.advance(chance.random() * 3 * SECOND)
        before, began = traffic.there(), yard.clock()

        def meanwhile() -> None:
            for _ in range(chance.randrange(6)):
                traffic.step()
            # A walk that outlasts what the broker keeps may miss what it has forgotten meanwhile.
            if yard.clock() - began < 20 * SECOND:
                yard.clock.advance(chance.random() * 3 * SECOND)

        pages = yard.pages(state, limit=chance.randrange(1, 5), meanwhile=meanwhile)
        found = [job.id for page in pages for job in page.jobs]
        assert len(found) == len(set(found)), "a job came twice"
        after = traffic.there()
        stayed = {job_id for job_id in before.keys() & after.keys() if state is None or before[job_id].state is after[job_id].state is state}
        if state is not None:
            stayed = {job_id for job_id in stayed if before[job_id].deaths == after[job_id].deaths}
        assert stayed <= set(found), "a job was left out"
        assert all(state in (None, job.state) for page in pages for job in page.jobs)


@ANY_OR_FINISHED
@pytest.mark.parametrize("seed", range(6))
def test_no_job_comes_twice_in_a_walk_that_outlasts_what_the_broker_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: JobState | None, seed: int
) -> None:
    for name, value in {"_EXAMINED": 12, "_PORTION": 6, "_HISTORY_PAGES": 2}.items():
        monkeypatch.setattr(joblists, name, value)
    chance = random.Random(f"long {seed} {state}")
    yard = Yard(tmp_path / "jobqueue.db")
    with yard.queue:
        traffic = Traffic(yard, chance)

        def happen() -> None:
            for _ in range(chance.randrange(6)):
                traffic.step()
            yard.clock.advance(chance.random() * 15 * SECOND)

        for _ in range(30):
            happen()
        found = yard.ids(state, limit=chance.randrange(1, 5), meanwhile=happen)
        assert len(found) == len(set(found))


# Bounds and faults ---------------------------------------------------------------------------------------------------------------------


def _counted(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each call of ``jobs`` answers with from now on."""
    sizes: list[int] = []
    real = broker.jobs

    def jobs(wanted: JobFilter, *, cursor: str | None, limit: int) -> JobPage:
        page = real(wanted, cursor=cursor, limit=limit)
        sizes.append(len(page.jobs))
        return page

    monkeypatch.setattr(broker, "jobs", jobs)
    return sizes


def _many(yard: Yard, count: int) -> None:
    """So many completed jobs that broker and history both have."""
    yard.queue.enqueue_many([{"type": "t"} for _ in range(count)])
    while leases := yard.lease(500):
        yard.broker.settle([completed(lease) for lease in leases], worker_id="worker-1")
    yard.pass_time(30 * SECOND)


def test_pages_are_full_also_when_the_broker_has_many_that_history_lists(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    _many(yard, 3000)
    examined = _counted(yard.broker, monkeypatch)
    page = yard.operations.jobs(JobFilter(), limit=50)
    assert len(page.jobs) == 50
    assert sum(examined) <= 1000
    assert all(job.result_json is None and job.payload_json == b"null" for job in page.jobs)


@pytest.mark.parametrize("state", [None, JobState.COMPLETED], ids=str)
def test_a_call_examines_a_bounded_number_of_jobs_and_the_walk_comes_to_an_end(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, state: JobState | None
) -> None:
    monkeypatch.setattr(joblists, "_EXAMINED", 1000)
    _many(yard, 3000)
    examined = _counted(yard.broker, monkeypatch)
    most = []

    def count() -> None:
        most.append(sum(examined))
        examined.clear()

    assert len(yard.listed(state, limit=500, meanwhile=count)) == 3000
    assert 0 < max(most) <= 2000, "the bound, what is left of a step, and a step that did not fit"
    assert len(most) < 30


class _Away:
    """History that does not answer."""

    def __getattr__(self, name: str) -> object:
        # One that is opened when it is first needed cannot even say what it has.
        raise StorageUnavailable("away")


@pytest.fixture
def without_storage(yard: Yard) -> JobQueue:
    """The yard's queue when storage is away."""
    storage: Any = _Away()
    return JobQueue(yard.broker, storage)


@pytest.mark.parametrize("state", [state for state in JobState if not state.finished])
def test_live_states_are_listed_while_storage_is_away(yard: Yard, without_storage: JobQueue, state: JobState) -> None:
    yard.ran()
    yard.ran(lambda lease: failed(lease, delay=MINUTE))
    running = yard.put()
    yard.lease()
    yard.put(delay="1h")
    yard.put()
    found = without_storage.operations.jobs(JobFilter(state=state)).jobs
    assert [job.state for job in found] == [state]
    assert (found[0].id == running.id) == (state is JobState.PROCESSING)


@ANY_OR_FINISHED
def test_a_list_that_would_lack_finished_jobs_is_an_error_while_storage_is_away(
    yard: Yard, without_storage: JobQueue, state: JobState | None
) -> None:
    yard.ran()
    with pytest.raises(StorageUnavailable):
        without_storage.operations.jobs(JobFilter(state=state))


@ANY_OR_FINISHED
def test_a_cursor_that_no_page_gave_is_refused(yard: Yard, state: JobState | None) -> None:
    for _ in range(4):
        yard.ran(died if state is JobState.DEAD else completed)
    yard.pass_time(30 * SECOND)
    for cursor in ("nonsense", "~", "", "W10", "e30", "WyIyMDMwLTAxLTAxIl0", "\u0000", "ö", "=", "A" * 5000):
        with pytest.raises(InvalidJob) as caught:
            yard.operations.jobs(JobFilter(state=state), cursor=cursor)
        assert caught.value.field == "cursor"


@ANY_OR_FINISHED
def test_a_cursor_that_was_tampered_with_is_refused_or_read_and_breaks_nothing(yard: Yard, state: JobState | None) -> None:
    for _ in range(6):
        yard.ran(died if state is JobState.DEAD else completed)
    yard.pass_time(30 * SECOND)
    cursors = {page.next for page in yard.pages(state, limit=1) if page.next} or {"none"}
    refused = 0
    for cursor in cursors:
        for forged in tampered(cursor):
            try:
                yard.operations.jobs(JobFilter(state=state), cursor=forged)
            except InvalidJob as error:
                assert error.field == "cursor"
                refused += 1
    assert refused


# What it stands on ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [completed, died, cancelled])
def test_a_job_and_the_run_that_ended_it_finished_at_one_moment(tmp_path: Path, broker_config: str, end: Callable[[Lease], Settlement]) -> None:
    config = tmp_path / "jobqueue.toml"
    config.write_text(broker_config)
    with App.from_config(config, environ={}) as app:
        jobs: Sequence[Job] = [app.queue.enqueue("t") for _ in range(3)]
        leases = app.broker.lease(["default"], 3, worker_id="worker-1", lease_for=30 * SECOND, wait=SECOND, suspects=1)
        assert app.broker.settle([end(lease) for lease in leases], worker_id="worker-1") == [True] * 3
        runs = {run.job_id: run.finished_at for run in app.broker.outbox("history", 10).executions}
        assert {job.id: job.completed_at for job in app.broker.get([job.id for job in jobs]) if job} == runs


def test_a_walk_goes_through_history_of_any_storage_and_broker(tmp_path: Path, broker_config: str, storage_config: str) -> None:
    config = tmp_path / "jobqueue.toml"
    config.write_text(joined_config(broker_config, storage_config))
    with App.from_config(config, environ={}) as app:
        done = app.queue.enqueue("t")
        for lease in app.broker.lease(["default"], 1, worker_id="worker-1", lease_for=30 * SECOND, wait=SECOND, suspects=1):
            app.broker.settle([completed(lease)], worker_id="worker-1")
        Recorder(broker=app.broker, storage=app.storage).record_waiting()
        live = app.queue.enqueue("t", delay="1h")
        later = app.broker.now() + MINUTE
        assert [run.job_id for run in app.storage.ends(EndFilter(until=later), cursor=None, limit=5).executions] == [done.id]
        page = app.operations.jobs(JobFilter())
        assert ([job.id for job in page.jobs], page.next) == ([live.id, done.id], None)
