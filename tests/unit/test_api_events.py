"""The stream of events: nothing is lost or told twice, whoever is slow or comes back holds nothing up, and all of it ends."""

from __future__ import annotations

import logging
import random
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import falcon
import falcon.testing
import msgspec
import pytest
from api_site import PREFIX, ApiSite, opened, refusal
from event_reader import ReceivedEvent, Tap, events_of

from jobqueue_api.streaming import eventhub
from jobqueue_api.streaming.clientwatch import ClientWatch
from jobqueue_api.streaming.evententries import BrokerEventObject, Entry, JobEventObject, Mark, QueueEventObject, Told, entries
from jobqueue_api.streaming.eventring import EventRing
from jobqueue_core.broker import Event
from jobqueue_core.errors import BrokerUnavailable
from jobqueue_core.job import Job
from jobqueue_core.testing.factories import completed, died, failed, returned, snoozed

SECOND = timedelta(seconds=1)
PATIENCE = 20.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ApiSite]:
    with opened(ApiSite(tmp_path, threads=16)) as site:
        yield site


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.005)


def settle(site: ApiSite, count: int, queue: str = "mail", **options: Any) -> list[str]:
    """Let so many jobs be completed in one batch; their ids in order."""
    site.queue.enqueue_many([{"type": "email.send", "queue": queue, **options} for _ in range(count)])
    leases = site.broker.lease([queue], count, worker_id="worker-1", lease_for=30 * SECOND, wait=timedelta(0), suspects=count)
    assert len(leases) == count
    assert all(site.broker.settle([completed(lease) for lease in leases], worker_id="worker-1"))
    return [lease.job.id for lease in leases]


def ids(events: Sequence[ReceivedEvent]) -> list[str]:
    return [event.job_id for event in events]


# The answer ----------------------------------------------------------------------------------------------------------------------------


def test_it_is_a_stream_that_no_proxy_keeps_back_and_that_a_browser_takes_up_again(site: ApiSite) -> None:
    events, tap = events_of(site, "timeout=0")
    assert events == []
    assert tap.headers["content-type"] == "text/event-stream"
    assert tap.headers["cache-control"] == "no-store"
    assert tap.headers["x-accel-buffering"] == "no"
    assert tap.reader.retry == 2000
    assert tap.reader.last_id


def test_a_stream_has_no_head(site: ApiSite) -> None:
    assert site.client("read").simulate_head(f"{PREFIX}/events").status_code == 405


def test_what_happens_once_the_answer_has_begun_is_told(site: ApiSite) -> None:
    with closing(Tap(site, "timeout=10s")) as tap:
        # Not even the first byte of the body has been asked for.
        done = settle(site, 2)
        assert ids(tap.begin().take(2)) == done


def test_what_happened_before_is_not_told_unless_asked_for(site: ApiSite) -> None:
    _, first = events_of(site, "timeout=0")
    done = settle(site, 2)
    assert events_of(site, "timeout=0")[0] == []
    assert ids(events_of(site, "timeout=0", last_event_id=first.reader.last_id)[0]) == done


def test_an_event_comes_at_once_and_not_with_the_next(site: ApiSite) -> None:
    with closing(Tap(site, "timeout=60s").begin()) as tap:
        for _ in range(3):
            began = time.monotonic()
            (done,) = settle(site, 1)
            assert ids(tap.take(1)) == [done]
            assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("kind=nonsense", "kind"),
        ("state=busy", "state"),
        ("type=a b", "type"),
        ("queue=-", "queue"),
        ("job_id=17", "job_id"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("timeout=soon", "timeout"),
        ("timeout=-1", "timeout"),
        ("last_event_id=" + "1" * 4097, "last_event_id"),
        ("kinds=settled", "kinds"),
        ("kind=settled&kind=paused", "kind"),
    ],
)
def test_a_wrong_parameter_is_refused_and_holds_nothing(site: ApiSite, query: str, field: str) -> None:
    for _ in range(9):
        refusal(site.client("read").simulate_get(f"{PREFIX}/events", query_string=query), 422, field=field)
    assert events_of(site, "timeout=0")[1].status == 200


# What is told --------------------------------------------------------------------------------------------------------------------------


def run(site: ApiSite, outcome: Callable[..., Any], **options: Any) -> str:
    lease = site.leased(type="email.send", queue="mail", **options)
    assert site.broker.settle([outcome(lease)], worker_id="worker-1") == [True]
    return lease.job.id


def lost(site: ApiSite) -> str:
    lease = site.leased(type="email.send", queue="mail")
    site.broker.reclaim_worker("worker-1", started=[lease.job.id], error="killed", max_crashes=3)
    return lease.job.id


def cancel(site: ApiSite, job: Job) -> str:
    site.queue.cancel(job.id)
    return job.id


def requeue(site: ApiSite) -> str:
    job = site.dead(type="email.send", queue="mail")
    site.queue.operations.retry_dead_letter(job.id)
    return job.id


def expire(site: ApiSite) -> str:
    job = site.queued(type="email.send", queue="mail", expires_in="1s")
    site.clock.advance(2 * SECOND)
    assert lease_nothing(site)
    return job.id


def spoil(site: ApiSite) -> str:
    job = site.queued(type="email.send", queue="mail")
    with closing(sqlite3.connect(site.app.settings.broker.url.removeprefix("sqlite:///"))) as connection, connection:
        assert connection.execute("UPDATE jobs SET record = x'00' WHERE id = ?", [job.id]).rowcount == 1
    assert lease_nothing(site)
    return job.id


def lease_nothing(site: ApiSite) -> bool:
    return site.broker.lease(["mail"], 9, worker_id="worker-1", lease_for=30 * SECOND, wait=timedelta(0), suspects=9) == []


TOLD: dict[str, tuple[Callable[[ApiSite], str], str, str]] = {
    "a completion": (lambda site: run(site, completed), "settled", "completed"),
    "a failure": (lambda site: run(site, failed), "settled", "retrying"),
    "a death": (lambda site: run(site, died), "settled", "dead"),
    "a snooze": (lambda site: run(site, snoozed), "settled", "scheduled"),
    "a return": (lambda site: run(site, returned), "settled", "queued"),
    "an expiry": (expire, "settled", "cancelled"),
    "a job that cannot be read": (spoil, "settled", "dead"),
    "a lost worker": (lost, "reclaimed", "queued"),
    "a cancel": (lambda site: cancel(site, site.queued(type="email.send", queue="mail")), "cancelled", "cancelled"),
    "a cancel of what waits for its time": (lambda site: cancel(site, site.scheduled(type="email.send", queue="mail")), "cancelled", "cancelled"),
    "a cancel of what runs": (lambda site: cancel(site, site.processing(type="email.send", queue="mail")), "cancel_requested", "processing"),
    "another try of a dead letter": (requeue, "requeued", "queued"),
}


@pytest.mark.parametrize("what", TOLD)
def test_what_happens_to_a_job_is_told_as_declared(site: ApiSite, what: str) -> None:
    happen, kind, state = TOLD[what]
    tap = Tap(site, f"limit=1&timeout=60s&kind={kind}").begin()
    before = site.broker.now()
    job_id = happen(site)
    (event,) = tap.rest()
    assert event.kind == kind
    told = msgspec.convert(event.data, JobEventObject)
    assert told == {"kind": kind, "at": told["at"], "job_id": job_id, "type": "email.send", "queue": "mail", "state": state}
    assert before <= datetime.fromisoformat(told["at"]).astimezone(UTC) <= site.broker.now()


def test_what_is_done_to_a_queue_is_told_as_declared(site: ApiSite) -> None:
    site.queued(queue="mail")
    site.queued(queue="mail")
    tap = Tap(site, "limit=3&timeout=10s").begin()
    site.broker.pause("mail")
    site.broker.resume("mail")
    site.broker.purge("mail", 10)
    events = tap.rest()
    told = [msgspec.convert(event.data, QueueEventObject) for event in events]
    assert [(one["kind"], one["queue"], one["count"]) for one in told] == [("paused", "mail", None), ("resumed", "mail", None), ("purged", "mail", 2)]
    assert [event.kind for event in events] == ["paused", "resumed", "purged"]
    assert [set(event.data) for event in events] == [set(QueueEventObject.__annotations__)] * 3


def test_a_broker_that_has_lost_its_data_is_told_as_declared() -> None:
    (entry,) = entries([event(1, "data_lost", {"broker": "redis://here"})], Mark("0"))
    (told,) = entry.told
    assert set(BrokerEventObject.__annotations__) == {"kind", "at", "broker"}
    assert b'"broker":"redis://here"' in told.text


def event(number: int, kind: str, data: dict[str, Any]) -> Event:
    return Event(str(number), datetime(2026, 1, 1, tzinfo=UTC) + number * SECOND, kind, data)


def test_what_a_newer_release_tells_is_passed_on_and_what_cannot_be_told_passed_over() -> None:
    written = [
        event(1, "promoted", {"jobs": [{"id": "a", "shard": 7}, "rubbish", {"id": "b", "at": "elsewhere"}]}),
        event(2, "rebalanced", {"to": [1, {"two": b"\xff"}], "ext": msgspec.msgpack.Ext(1, b"x")}),
        event(3, "with\nid: 9\n", {"queue": "mail"}),
        event(4, "", {}),
        event(5, "settled", {"jobs": []}),
        event(6, "settled", {"jobs": None, "queue": "a\nb\r\n"}),
    ]
    found = entries(written, Mark("0"))
    assert [entry.position for entry in found] == ["1", "2", "3", "4", "5", "6"]
    assert [len(entry.told) for entry in found] == [2, 1, 0, 0, 0, 1]
    # One line each, whatever is in it.
    for told in (one for entry in found for one in entry.told):
        assert [line.split(b": ")[0] for line in told.text.splitlines()] == [b"id", b"event", b"data", b""], told.text
    assert [told.job_id for told in found[0].told] == ["a", "b"]


# Choosing ------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def varied(site: ApiSite) -> tuple[ApiSite, str, list[Job]]:
    """A batch of jobs of two types that ended in two ways, then more of another queue, and a pause; and the position before all that."""
    _, tap = events_of(site, "timeout=0")
    leases = [site.leased(type=one, queue="mail") for one in ("email.send", "email.draft") for _ in range(2)]
    outcomes = [completed(leases[0]), died(leases[1]), completed(leases[2]), died(leases[3])]
    assert all(site.broker.settle(outcomes, worker_id="worker-1"))
    settle(site, 2, "other")
    site.broker.pause("mail")
    return site, tap.reader.last_id, [lease.job for lease in leases]


@pytest.mark.parametrize(
    ("query", "jobs", "others"),
    [
        ("", [0, 1, 2, 3], 3),
        ("kind=settled", [0, 1, 2, 3], 2),
        ("kind=paused", [], 1),
        ("type=email.draft", [2, 3], 0),
        ("queue=mail", [0, 1, 2, 3], 1),
        ("queue=other", [], 2),
        ("state=dead", [1, 3], 0),
        ("state=completed", [0, 2], 2),
        ("state=dead&type=email.draft", [3], 0),
        ("type=nobody", [], 0),
    ],
)
def test_a_filter_narrows_what_is_in_a_batch(varied: tuple[ApiSite, str, list[Job]], query: str, jobs: list[int], others: int) -> None:
    site, position, of_batch = varied
    events, _ = events_of(site, f"timeout=0&{query}", last_event_id=position)
    wanted = [of_batch[number].id for number in jobs]
    assert [one for event in events if (one := event.data.get("job_id")) in {job.id for job in of_batch}] == wanted
    assert len(events) - len(wanted) == others


def test_one_job_can_be_followed_by_its_id_however_it_is_written(varied: tuple[ApiSite, str, list[Job]]) -> None:
    site, position, jobs = varied
    for written in (jobs[2].id, jobs[2].id.upper(), jobs[2].id.replace("-", "")):
        events, _ = events_of(site, f"timeout=0&job_id={written}", last_event_id=position)
        assert ids(events) == [jobs[2].id]


def test_who_wants_little_is_told_how_far_the_log_has_come(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue_api.streaming.eventstream._PING", 0.05)
    with closing(Tap(site, "queue=quiet").begin()) as tap:
        start = tap.reader.last_id
        settle(site, 3)
        for piece in tap.pieces:
            assert list(tap.reader.feed(piece)) == []
            if tap.reader.last_id != start:
                break
        assert tap.reader.comments[-1] == "ping"
    assert events_of(site, "timeout=0", last_event_id=tap.reader.last_id)[0] == []


def test_a_stream_that_ends_says_how_far_it_has_come(site: ApiSite) -> None:
    _, tap = events_of(site, "timeout=0")
    start = tap.reader.last_id
    settle(site, 3)
    events, tap = events_of(site, "queue=quiet&timeout=0", last_event_id=start)
    assert events == []
    assert tap.reader.last_id != start
    assert events_of(site, "timeout=0", last_event_id=tap.reader.last_id)[0] == []


# Coming back ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_header", [True, False])
def test_a_stream_goes_on_behind_whichever_event_was_seen_last(site: ApiSite, *, by_header: bool) -> None:
    _, tap = events_of(site, "timeout=0")
    done = settle(site, 4) + settle(site, 1) + settle(site, 3)
    events, _ = events_of(site, "timeout=0", last_event_id=tap.reader.last_id)
    assert ids(events) == done
    assert len({event.id for event in events}) == len(done)
    for number, event in enumerate(events, 1):
        if by_header:
            again, _ = events_of(site, "timeout=0&last_event_id=0", last_event_id=event.id)
        else:
            again, _ = events_of(site, f"timeout=0&last_event_id={event.id}")
        assert ids(again) == done[number:]
        assert [one.id for one in again] == [one.id for one in events[number:]]


def test_a_stream_ends_after_so_many_events_and_goes_on_there(site: ApiSite) -> None:
    _, tap = events_of(site, "timeout=0")
    position = tap.reader.last_id
    done = settle(site, 5) + settle(site, 2)
    seen: list[str] = []
    while len(seen) < len(done):
        some, tap = events_of(site, "limit=3&timeout=0&type=email.send", last_event_id=position)
        assert 1 <= len(some) <= 3
        seen += ids(some)
        position = tap.reader.last_id
    assert seen == done


def test_a_stream_ends_in_time(site: ApiSite) -> None:
    began = time.monotonic()
    assert events_of(site, "timeout=300ms")[0] == []
    assert 0.29 <= time.monotonic() - began < 10


@pytest.mark.parametrize("position", ["nonsense", "99999", "-1", "0~5~1", "~", "1~1", "%00", "99~999999~9999999999999999999"])
def test_a_position_that_is_not_in_the_log_is_answered_by_a_reset_and_the_stream_goes_on(site: ApiSite, position: str) -> None:
    events_of(site, "timeout=0")
    settle(site, 1)
    with closing(Tap(site, f"timeout=10s&last_event_id={position}").begin()) as tap:
        done = settle(site, 2)
        reset, *events = tap.take(3)
        assert (reset.kind, reset.data) == ("reset", {"position": reset.id})
        assert ids(events) == done
    assert ids(events_of(site, "timeout=0", last_event_id=reset.id)[0]) == done


def test_who_comes_back_too_late_is_told_so(site: ApiSite) -> None:
    _, tap = events_of(site, "timeout=0")
    site.clock.advance(timedelta(minutes=5))
    settle(site, 1)
    events, _ = events_of(site, "timeout=0", last_event_id=tap.reader.last_id)
    assert [event.kind for event in events] == ["reset"]


def test_whoever_joins_while_much_happens_loses_nothing_and_is_told_nothing_twice(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    # Little is kept in memory, so that those who join have to read the log, and meet what is kept only later.
    monkeypatch.setattr(eventhub, "EventRing", partial(EventRing, most=3000))
    total = 1200
    with closing(Tap(site, "queue=nothing").begin()) as first:
        start = first.reader.last_id
        done: list[str] = []

        def settle_all() -> None:
            random_ = random.Random(7)
            while len(done) < total:
                done.extend(settle(site, min(random_.randint(1, 40), total - len(done))))

        def read(seed: int) -> list[str]:
            """Read with many reconnections, each behind the event that happened to be the last."""
            random_ = random.Random(seed)
            seen: list[str] = []
            position = start
            while len(seen) < total:
                with closing(Tap(site, "timeout=60s", last_event_id=position).begin()) as tap:
                    events = tap.take(min(random_.randint(1, 150), total - len(seen)))
                assert {event.kind for event in events} == {"settled"}
                seen += ids(events)
                position = events[-1].id
            return seen

        with ThreadPoolExecutor(5) as pool:
            settling = pool.submit(settle_all)
            reading = [pool.submit(read, seed) for seed in range(4)]
            settling.result(PATIENCE * 4)
            for one in reading:
                assert one.result(PATIENCE * 4) == done


def test_who_comes_back_from_far_behind_is_told_all_without_anything_new(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventhub, "EventRing", partial(EventRing, most=500))
    monkeypatch.setattr(eventhub, "_PAGE", 5)
    with closing(Tap(site, "timeout=60s").begin()) as present:
        start = present.reader.last_id
        done = [job_id for _ in range(40) for job_id in settle(site, 1)]
        assert ids(present.take(40)) == done
        began = time.monotonic()
        with closing(Tap(site, "timeout=60s", last_event_id=start).begin()) as late:
            assert ids(late.take(40)) == done
        assert time.monotonic() - began < 10


def test_a_slow_client_loses_nothing_that_is_in_the_log_and_nobody_keeps_it_for_him(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventhub, "EventRing", partial(EventRing, most=500))
    with closing(Tap(site, "timeout=60s").begin()) as slow, closing(Tap(site, "timeout=60s").begin()) as quick:
        done = []
        for _ in range(30):
            done += settle(site, 2)
            assert ids(quick.take(2)) == done[-2:]
        assert ids(slow.take(60)) == done


def test_a_client_that_is_slower_than_the_log_is_long_is_told_so(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventhub, "EventRing", partial(EventRing, most=500))
    monkeypatch.setattr("jobqueue_sqlite.ledger.MAX_EVENTS", 5)
    monkeypatch.setattr("jobqueue_sqlite.events.MAX_EVENTS", 5)
    with closing(Tap(site, "timeout=60s").begin()) as slow, closing(Tap(site, "timeout=60s").begin()) as quick:
        for _ in range(20):
            settle(site, 1)
            quick.take(1)
        (reset,) = slow.take(1)
        assert reset.kind == "reset"
        done = settle(site, 1)
        assert ids(slow.take(1)) == done


# What is held --------------------------------------------------------------------------------------------------------------------------


def test_half_of_the_threads_may_stream_and_one_more_is_refused_until_one_has_ended(tmp_path: Path) -> None:
    with opened(ApiSite(tmp_path, threads=5)) as site:
        first, second = Tap(site).begin(), Tap(site)
        asked = site.client("read").simulate_get
        refusal(asked(f"{PREFIX}/events"), 503, "too_many_streams")
        assert asked(f"{PREFIX}/queues").status_code == 200
        # One that was begun and one that never was.
        for tap in (second, first):
            tap.close()
            tap.close()
            assert events_of(site, "timeout=0")[1].status == 200
        third, fourth = Tap(site).begin(), Tap(site).begin()
        refusal(asked(f"{PREFIX}/events"), 503, "too_many_streams")
        third.close()
        fourth.close()


def test_a_client_that_has_gone_is_noticed_without_an_event(site: ApiSite) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(Tap(site, **{"gunicorn.socket": ours}).begin()) as tap, ThreadPoolExecutor(1) as pool:
        ending = pool.submit(tap.rest)
        theirs.close()
        assert ending.result(PATIENCE) == []


def test_a_client_that_sends_on_has_not_gone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watch = ClientWatch(request_by(ours))
        assert not watch.is_gone
        theirs.send(b"GET / HTTP/1.1\r\n")
        assert not watch.is_gone
        assert ours.recv(100) == b"GET / HTTP/1.1\r\n"
        theirs.close()
        assert watch.is_gone


def request_by(connection: object) -> falcon.Request:
    request = falcon.testing.create_req()
    request.env["gunicorn.socket"] = connection
    return request


def test_where_no_connection_is_shown_nobody_is_taken_for_gone() -> None:
    assert not ClientWatch(falcon.testing.create_req()).is_gone


def test_streams_end_at_once_when_the_process_is_told_to_stop(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue_api.streaming.eventstream._GLANCE", 30.0)
    taps = [Tap(site).begin() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        ending = [pool.submit(tap.rest) for tap in taps]
        began = time.monotonic()
        site.closing.begin()
        assert [one.result(PATIENCE) for one in ending] == [[]] * 4
        assert time.monotonic() - began < 5
    assert events_of(site)[0] == []
    for tap in taps:
        tap.close()


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "jobqueue-events"]


def test_all_streams_of_a_process_share_one_reader_that_goes_when_nobody_listens(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    eventually(lambda: not readers())
    monkeypatch.setattr(eventhub, "_LINGER", 0.2)
    monkeypatch.setattr(eventhub, "_WAIT", 0.05 * SECOND)
    for _ in range(2):
        taps = [Tap(site).begin() for _ in range(4)]
        assert len(readers()) == 1
        done = settle(site, 1)
        assert [ids(tap.take(1)) for tap in taps] == [done] * 4
        for tap in taps:
            tap.close()
        eventually(lambda: not readers())


# A broker that is away -----------------------------------------------------------------------------------------------------------------


class Away:
    """Stands before a broker's log, and fails while it is told to."""

    def __init__(self, site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
        self.problem: Exception | None = None
        self.asked = 0
        self._events = site.broker.events
        monkeypatch.setattr(site.broker, "events", self.events)

    def events(self, *args: Any, **options: Any) -> Any:
        self.asked += 1
        if self.problem is not None:
            raise self.problem
        page = self._events(*args, **options)
        if self.problem is not None:
            raise self.problem
        return page


@pytest.mark.parametrize("problem", [BrokerUnavailable("no answer"), RuntimeError("a bug")])
def test_while_the_broker_is_away_streams_stay_and_go_on_where_they_were(
    site: ApiSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, problem: Exception
) -> None:
    away = Away(site, monkeypatch)
    monkeypatch.setattr(eventhub, "_WAIT", 0.05 * SECOND)
    with closing(Tap(site, "timeout=60s").begin()) as tap, caplog.at_level(logging.WARNING, "jobqueue.api"):
        away.problem = problem
        list(tap.reader.feed(next(tap.pieces)))
        assert tap.reader.comments[-1] == "the broker does not answer"
        asked = away.asked
        eventually(lambda: away.asked > asked + 1)
        done = settle(site, 3)
        away.problem = None
        assert ids(tap.take(3)) == done
        assert tap.reader.comments[-1] == "the broker answers again"
        assert len([one for one in caplog.records if one.message == "events cannot be read"]) == 1


def test_a_stream_whose_process_was_cut_off_for_long_is_told_that_it_has_missed_something(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    away = Away(site, monkeypatch)
    monkeypatch.setattr(eventhub, "_WAIT", 0.05 * SECOND)
    with closing(Tap(site, "timeout=60s").begin()) as tap:
        heard = settle(site, 1)
        assert ids(tap.take(1)) == heard
        away.problem = BrokerUnavailable("no answer")
        list(tap.reader.feed(next(tap.pieces)))
        site.clock.advance(timedelta(minutes=5))
        settle(site, 1)
        away.problem = None
        assert [event.kind for event in tap.take(1)] == ["reset"]
        done = settle(site, 1)
        assert ids(tap.take(1)) == done


def test_a_stream_that_would_begin_while_the_broker_is_away_is_refused_and_holds_nothing(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    away = Away(site, monkeypatch)
    away.problem = BrokerUnavailable("no answer")
    for _ in range(9):
        refusal(site.client("read").simulate_get(f"{PREFIX}/events"), 503, "broker_unavailable")
    away.problem = None
    assert events_of(site, "timeout=0")[1].status == 200


# What is kept --------------------------------------------------------------------------------------------------------------------------


def entry(number: int, size: int = 10) -> Entry:
    return Entry(str(number), [Told("settled", "a", "b", "c", "d", str(number), b"x" * size)], size)


def test_what_is_kept_is_found_by_position_as_long_as_there_is_room() -> None:
    ring = EventRing("0", most=50)
    assert ring.after("0", most=1000) == []
    ring.add([entry(number) for number in range(1, 8)])
    assert ring.after("1", most=1000) is None
    assert ring.after("other", most=1000) is None
    for number in range(2, 8):
        assert ring.after(str(number), most=1000) == [entry(one) for one in range(number + 1, 8)]
        assert ring.after(str(number), most=25) == [entry(one) for one in range(number + 1, min(8, number + 3))]


def test_an_entry_larger_than_all_room_is_kept_alone_and_given_alone() -> None:
    ring = EventRing("0", most=50)
    ring.add([entry(1), entry(2, 500)])
    assert ring.after("0", most=1000) is None
    assert ring.after("1", most=5) == [entry(2, 500)]
    ring.add([entry(3), entry(4)])
    assert ring.after("1", most=1000) is None
    assert ring.after("2", most=1000) == [entry(3), entry(4)]
