"""The worker's books: how much to ask for, what may start, what is given back."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest

from jobqueue_core import Job, JobState, Priority, handler
from jobqueue_core.attempt import Completed, Dead, Lease
from jobqueue_core.handlers import inspect_handler
from jobqueue_core.job import DeadReason, new_job_id
from jobqueue_core.worker.holdings import Holdings
from jobqueue_core.worker.plan import JobDefaults, Plan
from jobqueue_core.worker.run import Run

LATER = timedelta(seconds=1)


class Table:
    def __init__(self) -> None:
        self.slots: dict[int, str] = {}

    def set(self, slot: int, job_id: str) -> None:
        assert slot not in self.slots
        self.slots[slot] = job_id

    def clear(self, slot: int) -> None:
        del self.slots[slot]


def plan(name: str = "t", **options: Any) -> Plan:
    def plain(payload: object) -> None: ...

    return Plan(inspect_handler(handler(name, **options)(plain)), middleware=(), defaults=JobDefaults())


def run(of: Plan, *, crashes: int = 0, valid_for: float = 30.0) -> Run:
    job = Job(
        id=new_job_id("default"),
        type=of.spec.type,
        payload_json=b"{}",
        queue="default",
        priority=Priority.MEDIUM,
        state=JobState.PROCESSING,
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
        run=1,
        crashes=crashes,
    )
    now = monotonic()
    return Run(Lease(job=job, token=job.id), of, sent_at=now, valid_until=now + valid_for)


def holdings(concurrency: int = 2, **options: Any) -> Holdings:
    return Holdings(concurrency=concurrency, margin=0.1, worker_id="worker-1", **options)


def take_all(books: Holdings) -> list[Run]:
    taken = []
    while (one := books.take("thread")) is not None:
        taken.append(one)
    return taken


def finish(books: Holdings, runs: Iterable[Run]) -> None:
    for one in runs:
        assert books.finish(one, Completed())


def settle(books: Holdings) -> list[Run]:
    """As the settle thread does: everything that waits, taking its time."""
    ended = [one for one, _, _ in books.outcomes(1_000)]
    books.settled(ended, 0.01)
    return ended


def given_back(books: Holdings) -> dict[str, timedelta]:
    return {release.lease.token: release.delay for release in books.releases()}


def test_free_slots_are_asked_for_and_no_more() -> None:
    books = holdings(3)
    assert books.room() == (3, 1)
    books.add([run(plan()), run(plan())])
    assert books.room()[0] == 1
    started = take_all(books)
    assert (len(started), books.room()[0]) == (2, 1)
    finish(books, started)
    assert books.room()[0] == 3


def test_a_run_whose_lease_may_have_passed_is_given_back_and_not_started() -> None:
    books, good = holdings(), run(plan())
    stale, nearly = run(plan(), valid_for=-1), run(plan(), valid_for=0.05)
    books.add([stale, nearly, good])
    assert take_all(books) == [good]
    assert set(given_back(books)) == {stale.lease.token, nearly.lease.token}
    assert set(books.held) == {good.lease.token}


def test_a_renewal_lets_a_run_start_later() -> None:
    books, one = holdings(), run(plan(), valid_for=0.05)
    books.add([one])
    books.renewed([one.lease.token, "unknown"], sent_at=monotonic(), valid_until=monotonic() + 30)
    assert take_all(books) == [one]


def test_no_more_than_the_concurrency_is_started_over_both_kinds() -> None:
    books = holdings(2)

    async def waiting(payload: object) -> None: ...

    asynchronous = Plan(inspect_handler(handler("a")(waiting)), middleware=(), defaults=JobDefaults())
    books.add([run(plan()), run(asynchronous), run(plan()), run(asynchronous)])
    first, second = books.take("async"), books.take("thread")
    assert first is not None
    assert second is not None
    assert (books.take("async"), books.take("thread")) == (None, None)
    finish(books, [first])
    assert books.take("thread") is not None


def test_what_is_started_and_unsettled_is_at_most_twice_the_concurrency() -> None:
    books = holdings(2)
    books.add([run(plan()) for _ in range(20)])
    for _ in range(5):
        finish(books, take_all(books))
    assert books.waiting_outcomes() == 4
    assert take_all(books) == []
    assert len(settle(books)) == 4
    assert len(take_all(books)) == 2


def test_of_two_suspects_one_runs_and_the_other_is_given_back_for_later() -> None:
    books, (first, second), other = holdings(4), (run(plan(), crashes=1) for _ in range(2)), run(plan())
    books.add([first, second, other])
    assert books.room()[1] == 0
    assert take_all(books) == [first, other]
    assert given_back(books) == {second.lease.token: LATER}
    assert books.room()[1] == 0
    finish(books, [first])
    assert books.room()[1] == 1


def test_a_lease_thread_that_asked_without_suspects_is_told_when_one_may_run_again() -> None:
    told: list[str] = []
    books, suspect, other = holdings(4, ask_again=lambda: told.append("again")), run(plan(), crashes=1), run(plan())
    books.add([suspect, other])
    take_all(books)
    books.room()
    finish(books, [other])
    assert told == []
    finish(books, [suspect])
    assert told == ["again"]


def test_the_limit_of_a_type_is_kept_and_what_is_beyond_it_waits_here_or_is_given_back() -> None:
    limited, books = plan("limited", concurrency=1), holdings(4)
    first, second, third = (run(limited) for _ in range(3))
    other = run(plan("other"))
    books.add([first, second, third, other])
    assert take_all(books) == [first, other]
    assert given_back(books) == {third.lease.token: LATER}
    finish(books, [first])
    assert take_all(books) == [second]


def test_a_limited_run_whose_lease_passed_while_it_waited_holds_up_no_others() -> None:
    limited, books = plan("limited", concurrency=1), holdings(4)
    first, second = run(limited), run(limited, valid_for=30)
    books.add([first, second])
    assert take_all(books) == [first]
    second.valid_until = monotonic() - 1
    finish(books, [first])
    assert take_all(books) == []
    assert set(given_back(books)) == {second.lease.token}
    third = run(limited)
    books.add([third])
    assert take_all(books) == [third]


def test_a_lost_lease_is_dropped_unless_it_runs_and_then_it_is_named() -> None:
    books, running, waiting, dead = holdings(1), run(plan()), run(plan()), run(plan())
    books.add([running, waiting])
    take_all(books)
    books.settle_unstarted(dead, Dead(reason=DeadReason.NO_HANDLER, error="no handler"))
    assert books.lost([running.lease.token, waiting.lease.token, dead.lease.token, "unknown"]) == [running]
    assert set(books.held) == {running.lease.token, dead.lease.token}
    finish(books, [running])
    assert take_all(books) == []
    assert len(settle(books)) == 2
    assert books.idle()


def test_stopping_gives_back_what_has_not_started_and_takes_nothing_in() -> None:
    limited, books = plan("limited", concurrency=1), holdings(2)
    running, limited_waiting, waiting, late, ended = (run(limited), run(limited), run(plan()), run(plan()), run(plan()))
    books.add([running, limited_waiting])
    take_all(books)
    books.add([waiting])
    books.settle_unstarted(ended, Dead(reason=DeadReason.NO_HANDLER, error="no handler"))
    books.stop_starting()
    books.add([late])
    assert books.room()[0] == 0
    assert take_all(books) == []
    assert set(given_back(books)) == {limited_waiting.lease.token, waiting.lease.token, late.lease.token}
    finish(books, [running])
    assert set(settle(books)) == {running, ended}
    assert books.idle()


def test_giving_back_spares_what_has_started_or_ended() -> None:
    books, running, waiting = holdings(1), run(plan()), run(plan())
    books.add([running, waiting])
    take_all(books)
    books.give_back([running, waiting])
    assert given_back(books) == {waiting.lease.token: timedelta(0)}
    finish(books, [running])
    books.give_back([running])
    assert given_back(books) == {}


def test_when_handlers_become_slow_what_they_will_not_start_soon_is_given_back_the_least_urgent_first() -> None:
    books, runs = holdings(2), [run(plan()) for _ in range(10)]
    books.add(runs)
    started = take_all(books)
    for one in runs:
        one.buffered_at -= 1
    books._pace._measured_at -= 1  # a second in which nothing has ended
    books.trim()
    assert list(given_back(books)) == [one.lease.token for one in runs[2:]]
    assert set(books.held) == {one.lease.token for one in started}


def test_what_was_just_leased_or_has_a_slot_is_not_given_back_for_that() -> None:
    books, runs = holdings(4), [run(plan()) for _ in range(8)]
    books.add(runs)
    books._pace._measured_at -= 1
    books.trim()
    assert given_back(books) == {}
    for one in runs:
        one.buffered_at -= 1
    books.trim()
    assert list(given_back(books)) == [one.lease.token for one in runs[4:]]


def test_a_run_that_was_written_off_counts_once_whatever_it_returns_later() -> None:
    books, one = holdings(1), run(plan())
    books.add([one])
    take_all(books)
    assert books.write_off(one, Dead(reason=DeadReason.RETRIES_EXHAUSTED, error="timed out"))
    assert books.finish(one, Completed()) is False
    assert [type(outcome) for _, outcome, _ in books.outcomes(10)] == [Dead]


def test_the_table_says_what_is_running_and_nothing_else() -> None:
    table = Table()
    books, runs = holdings(2, table=table), [run(plan()) for _ in range(3)]
    books.add(runs)
    assert table.slots == {}
    started = take_all(books)
    assert sorted(table.slots.values()) == sorted(one.lease.job.id for one in started)
    finish(books, started)
    assert table.slots == {}


def test_the_jobs_own_timeout_sets_the_deadline() -> None:
    books, one = holdings(), run(plan(timeout="1h"))
    books.add([one])
    take_all(books)
    assert one.deadline - one.started_at == pytest.approx(3600)


def test_nothing_more_is_asked_for_while_too_many_outcomes_wait() -> None:
    books = holdings(600)
    runs = [run(plan()) for _ in range(600)]
    books.add(runs)
    finish(books, take_all(books))
    assert books.waiting_outcomes() == 600
    assert books.room()[0] == 0
    settle(books)
    assert books.room()[0] > 0


def test_an_idle_runner_is_woken_once_for_each_run_it_can_take() -> None:
    books, woken = holdings(2), []
    books.serve("thread", woken.append)
    assert (books.take("thread"), books.take("thread"), books.take("thread")) == (None, None, None)
    books.add([run(plan()) for _ in range(5)])
    assert woken == [2]


@pytest.mark.timeout(30)
def test_many_threads_run_each_job_once() -> None:  # noqa: C901 - one closure a thread
    table = Table()
    books = holdings(8, table=table)
    total, bell = 2_000, threading.Semaphore(0)
    books.serve("thread", lambda count: [bell.release() for _ in range(count)])
    lock = threading.Lock()
    done = threading.Event()
    seen: set[str] = set()

    def handle() -> None:
        while not done.is_set():
            one = books.take("thread")
            if one is None:
                bell.acquire(timeout=0.05)
                continue
            with lock:
                assert one.lease.token not in seen
                seen.add(one.lease.token)
            books.finish(one, Completed())

    def settler() -> None:
        while not done.is_set():
            books.wait_for_outcomes(0.01)
            settle(books)
            books.releases()
            if len(seen) >= total and books.idle():
                done.set()

    threads = [threading.Thread(target=handle) for _ in range(8)] + [threading.Thread(target=settler)]
    for thread in threads:
        thread.start()
    sent, plans = 0, [plan("a"), plan("b"), plan("c")]
    while sent < total and not done.is_set():
        want, _ = books.room()
        if not want:
            books.wait_for_room(0.01)
            continue
        batch = [run(plans[(sent + number) % 3]) for number in range(min(want, total - sent))]
        sent += len(batch)
        books.add(batch)
    for thread in threads:
        thread.join(20)
    assert (len(seen), len(books.running), table.slots) == (total, 0, {})


# Swapping and waking -------------------------------------------------------------------------------------------------------------------


def test_a_swap_ends_one_run_and_starts_the_next_in_its_place() -> None:
    table = Table()
    books, (first, second) = holdings(1, table=table), (run(plan()) for _ in range(2))
    books.add([first, second])
    assert books.take("thread") is first
    assert books.swap(first, Completed()) is second
    assert list(table.slots.values()) == [second.lease.job.id]
    assert books.swap(second, Completed()) is None
    assert settle(books) == [first, second]


def test_a_swap_with_nothing_left_to_start_wakes_the_other_kind() -> None:
    async def waiting(payload: object) -> None: ...

    books, woken = holdings(1), list[int]()
    one, other = run(plan()), run(Plan(inspect_handler(handler("a")(waiting)), middleware=(), defaults=JobDefaults()))
    books.serve("async", woken.append)
    books.add([one, other])
    assert books.take("thread") is one
    assert books.take("async") is None
    assert books.swap(one, Completed()) is None
    assert woken == [1]


def test_a_runner_whose_run_was_written_off_gets_no_other_and_is_not_waited_for() -> None:
    books, woken = holdings(1), list[int]()
    stuck, following = run(plan()), run(plan())
    books.serve("thread", woken.append)
    books.add([stuck])
    books.take("thread")
    assert books.write_off(stuck, Completed())
    assert books.swap(stuck, Completed()) is None
    assert stuck.written_off
    books.add([following])
    assert woken == []


def test_a_run_that_has_ended_by_itself_is_not_written_off() -> None:
    books, one = holdings(1), run(plan())
    books.add([one])
    books.take("thread")
    books.swap(one, Completed())
    assert not books.write_off(one, Dead(reason=DeadReason.WORKER_LOST, error="stuck"))
    assert not one.written_off


def test_runners_that_find_more_than_they_take_wake_others_until_all_are_at_work() -> None:
    books, woken = holdings(10), list[int]()
    books.serve("thread", woken.append)
    for _ in range(10):
        assert books.take("thread") is None
    books.add([run(plan()) for _ in range(10)])
    started = 0
    while started < sum(woken):
        assert books.take("thread") is not None
        started += 1
    assert (started, sum(woken), max(woken)) == (10, 10, 2)


def test_one_runner_that_does_all_the_work_leaves_the_others_asleep() -> None:
    books, woken = holdings(10), list[int]()
    books.serve("thread", woken.append)
    for _ in range(10):
        assert books.take("thread") is None
    books.add([run(plan()) for _ in range(10)])
    one = books.take("thread")
    while one is not None:
        one = books.swap(one, Completed())
    assert sum(woken) == 4
