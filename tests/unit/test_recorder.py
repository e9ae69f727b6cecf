"""The recorder: outbox to storage, nothing lost, nothing doubled, nothing held up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobqueue_core.attempt import DeadLetter, DeadLetterState, Execution
from jobqueue_core.broker import OutboxBatch
from jobqueue_core.errors import BrokerUnavailable, IncompatibleData, StorageRejected, StorageUnavailable
from jobqueue_core.recorder import Recorder
from jobqueue_core.service import Exit, Stop
from jobqueue_core.storage import DeadLetterFilter, ExecutionFilter
from jobqueue_core.testing import ManualClock
from jobqueue_core.testing.factories import completed, dead_letter, died, execution, failed, new_jobs
from jobqueue_sqlite.broker import SqliteBroker
from jobqueue_sqlite.storage import SqliteStorage

SECOND = timedelta(seconds=1)


class Storage:
    """A real storage that can be away, and can refuse single rows for good."""

    def __init__(self, storage: SqliteStorage) -> None:
        self._storage = storage
        self.away = False
        self.failure: Exception | None = None
        self.poison: set[str] = set()
        self.calls = 0
        self.on_call: Callable[[str], object] = lambda _name: None
        self.most = 10_000
        self.refuses_letters = False

    def _check(self, ids: Sequence[str]) -> None:
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        if self.away or len(ids) > self.most:
            raise StorageUnavailable("away")
        if self.poison.intersection(ids):
            raise StorageRejected("poison")

    def record_executions(self, executions: Sequence[Execution], *, record: Any) -> None:
        self.on_call("record_executions")
        self._check([one.job_id for one in executions])
        self._storage.record_executions(executions, record=record)

    def record_dead_letters(self, dead_letters: Sequence[DeadLetter]) -> None:
        if self.refuses_letters:
            raise StorageUnavailable("too slow")
        self._check([one.job.id for one in dead_letters])
        self._storage.record_dead_letters(dead_letters)

    def prune_executions(self, *args: Any) -> int:
        self.on_call("prune_executions")
        return self._storage.prune_executions(*args)

    def finish_requeues(self, *args: Any, **options: Any) -> None:
        self.on_call("finish_requeues")
        self._storage.finish_requeues(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class Desk:
    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.broker = SqliteBroker(path / "broker.db", clock=self.clock)
        self.storage = Storage(SqliteStorage(path / "storage.db"))
        self.recorder = self.another()

    def another(self, **options: Any) -> Recorder:
        return Recorder(broker=self.broker, storage=self.storage, clock=self.clock, **options)  # type: ignore[arg-type]  # by delegation

    def run(self, count: int, *, dying: bool = False) -> list[str]:
        """Let jobs run, and return their ids in the order of their records."""
        self.broker.enqueue(new_jobs(count))
        ids: list[str] = []
        while leases := self.broker.lease(["default"], 200, worker_id="w", lease_for=30 * SECOND, wait=timedelta(0), suspects=0):
            assert all(self.broker.settle([died(one) if dying else completed(one) for one in leases], worker_id="w"))
            ids += [one.job.id for one in leases]
        return ids

    def recorded(self) -> list[str]:
        cursor, found = None, []
        while True:
            page = self.storage.executions(ExecutionFilter(), cursor=cursor, offset=0, limit=500)
            found += [one.job_id for one in page.executions]
            cursor = page.next
            if cursor is None:
                return found

    def letters(self) -> list[str]:
        page = self.storage.dead_letters(DeadLetterFilter(), cursor=None, offset=0, limit=500)
        return [letter.job.id for letter in page.dead_letters]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.broker.close()
    desk.storage.close()


def test_all_that_waits_is_moved_once(desk: Desk) -> None:
    ids = desk.run(30) + desk.run(20, dying=True)
    assert desk.recorder.record_waiting() == 70, "50 executions and 20 dead letters"
    assert sorted(desk.recorded()) == sorted(ids)
    assert sorted(desk.letters()) == sorted(ids[30:])
    assert desk.recorder.record_waiting() == 0
    assert (desk.broker.outbox_lag().history, desk.broker.outbox_lag().dead) == (0, 0)


def test_more_than_one_batch_is_moved(desk: Desk) -> None:
    ids = desk.run(2_300)
    assert desk.recorder.record_waiting() == 2_300
    assert sorted(desk.recorded()) == sorted(ids)


@pytest.mark.parametrize("positions", [[0], [49], [0, 1, 2], [7, 23, 41], [*range(50)]], ids=str)
def test_rows_that_storage_refuses_hold_up_no_others(desk: Desk, positions: list[int]) -> None:
    ids = desk.run(50, dying=True)
    desk.storage.poison = {ids[position] for position in positions}
    desk.recorder.record_waiting()
    taken = sorted(set(ids) - desk.storage.poison)
    assert sorted(desk.recorded()) == sorted(desk.letters()) == taken
    assert desk.broker.outbox_lag().history == 0


def test_one_bad_row_among_a_thousand_costs_few_calls(desk: Desk) -> None:
    ids = desk.run(1_000)
    desk.storage.poison = {ids[613]}
    desk.recorder.record_waiting()
    assert len(desk.recorded()) == 999
    assert desk.storage.calls < 30


def test_while_storage_is_away_everything_waits_and_afterwards_everything_is_there(desk: Desk) -> None:
    desk.storage.away = True
    ids = desk.run(10, dying=True)
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            desk.recorder.record_waiting()
    assert (desk.broker.outbox_lag().history, desk.broker.outbox_lag().dead) == (10, 10)
    desk.storage.away = False
    desk.recorder.record_waiting()
    assert sorted(desk.recorded()) == sorted(desk.letters()) == sorted(ids)


def test_a_crash_between_storing_and_acknowledging_doubles_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = desk.run(10, dying=True)

    def away(_batch: OutboxBatch) -> None:
        raise BrokerUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(desk.broker, "acknowledge", away)
        for _ in range(2):
            with pytest.raises(BrokerUnavailable):
                desk.recorder.record_waiting()
    desk.recorder.record_waiting()
    assert sorted(desk.recorded()) == sorted(desk.letters()) == sorted(ids)


def test_several_recorders_at_once_double_nothing(desk: Desk) -> None:
    ids = desk.run(500, dying=True)
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        desk.another().record_waiting()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(desk.recorded()) == sorted(desk.letters()) == sorted(ids)
    assert desk.storage.statistics(since=desk.clock() - timedelta(hours=1), until=desk.clock() + timedelta(hours=1)).overall.total == 500


def test_entries_that_cannot_be_read_hold_up_no_others(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    good = execution()
    batches = [OutboxBatch(kind="history", receipt=("1",), malformed=1), OutboxBatch(kind="history", executions=(good,), receipt=("2",))]
    acknowledged: list[tuple[str, ...]] = []

    def outbox(kind: str, _limit: int) -> OutboxBatch:
        return batches.pop(0) if kind == "history" and batches else OutboxBatch(kind="dead")

    monkeypatch.setattr(desk.broker, "outbox", outbox)
    monkeypatch.setattr(desk.broker, "acknowledge", lambda batch: acknowledged.append(batch.receipt))
    desk.recorder.record_waiting()
    assert acknowledged == [("1",), ("2",)]
    assert desk.recorded() == [good.job_id]


@pytest.mark.parametrize(("record", "rows"), [("all", 2), ("failures", 1), ("none", 0)])
def test_what_becomes_a_row_is_a_choice_and_what_is_counted_is_not(desk: Desk, record: Any, rows: int) -> None:
    desk.run(1)
    desk.run(1, dying=True)
    desk.another(record=record).record_waiting()
    assert len(desk.recorded()) == rows
    assert len(desk.letters()) == 1
    assert desk.storage.statistics(since=desk.clock() - timedelta(hours=1), until=desk.clock() + timedelta(hours=1)).overall.total == 2


# Half-done retries ---------------------------------------------------------------------------------------------------------------------


def half_done(desk: Desk) -> DeadLetter:
    desk.run(1, dying=True)
    desk.recorder.record_waiting()
    letter = desk.storage.dead_letter(desk.letters()[0])
    assert letter is not None
    assert desk.storage.begin_requeues([(letter.job.id, letter.job.deaths)], now=desk.clock())
    return letter


def state(desk: Desk, letter: DeadLetter) -> DeadLetterState:
    found = desk.storage.dead_letter(letter.job.id)
    assert found is not None
    return found.state


def test_a_retry_that_never_reached_the_broker_is_open_again_after_half_a_minute(desk: Desk) -> None:
    letter = half_done(desk)
    desk.clock.advance(29 * SECOND)
    desk.recorder.tidy()
    assert state(desk, letter) is DeadLetterState.REQUEUEING
    desk.clock.advance(2 * SECOND)
    desk.recorder.tidy()
    desk.recorder.tidy()
    assert state(desk, letter) is DeadLetterState.OPEN


def test_a_retry_that_reached_the_broker_is_known_as_done(desk: Desk) -> None:
    letter = half_done(desk)
    assert desk.broker.requeue(letter.job) == "requeued"
    desk.clock.advance(31 * SECOND)
    desk.recorder.tidy()
    assert state(desk, letter) is DeadLetterState.REQUEUED


def test_a_retry_whose_job_the_broker_does_not_know_is_open_again(desk: Desk) -> None:
    letter = dead_letter(died_at=desk.clock())
    desk.storage.record_dead_letters([letter])
    assert desk.storage.begin_requeues([(letter.job.id, letter.job.deaths)], now=desk.clock())
    desk.clock.advance(31 * SECOND)
    desk.recorder.tidy()
    assert state(desk, letter) is DeadLetterState.OPEN


def test_a_retry_whose_job_has_finished_and_been_forgotten_since_is_known_as_done(desk: Desk) -> None:
    letter = half_done(desk)
    assert desk.broker.requeue(letter.job) == "requeued"
    assert desk.run(0) == [letter.job.id]
    desk.recorder.record_waiting()
    desk.clock.advance(timedelta(days=2))
    desk.broker.prune(100)
    assert desk.broker.get([letter.job.id]) == [None]
    desk.recorder.tidy()
    assert state(desk, letter) is DeadLetterState.REQUEUED


def test_rows_past_their_retention_are_forgotten_and_open_dead_letters_never(desk: Desk) -> None:
    desk.run(5)
    desk.run(1, dying=True)
    desk.recorder.record_waiting()
    desk.clock.advance(timedelta(days=31))
    desk.another(retention=timedelta(days=30)).tidy()
    assert (desk.recorded(), len(desk.letters())) == ([], 1)


def test_a_broker_whose_clock_has_jumped_ahead_makes_nothing_old(desk: Desk) -> None:
    ids = desk.run(5)
    desk.recorder.record_waiting()
    desk.recorder.clock = lambda: now
    now = desk.clock()
    desk.clock.advance(timedelta(days=365))
    desk.recorder.tidy()
    assert sorted(desk.recorded()) == sorted(ids)


def test_a_retry_whose_run_still_waits_in_the_outbox_is_not_opened_again(desk: Desk) -> None:
    letter = half_done(desk)
    assert desk.broker.requeue(letter.job) == "requeued"
    desk.run(0)
    desk.clock.advance(timedelta(days=2))
    desk.broker.prune(100)
    assert desk.broker.get([letter.job.id]) == [None], "the broker has forgotten it"
    assert not desk.recorder.tidy(), "there is more to do"
    assert state(desk, letter) is DeadLetterState.REQUEUEING
    desk.recorder.record_waiting()
    assert desk.recorder.tidy()
    assert state(desk, letter) is DeadLetterState.REQUEUED


def test_a_recorder_that_was_cut_off_from_storage_does_not_open_what_was_retried_meanwhile(desk: Desk) -> None:
    desk.recorder.run(_stopped())
    letter = half_done(desk)
    desk.recorder.run(_stopped())
    assert desk.broker.requeue(letter.job) == "requeued"
    desk.run(0)
    desk.storage.away = True
    desk.recorder.run(_stopped())
    desk.clock.advance(timedelta(days=2))
    desk.broker.prune(100)
    desk.storage.away = False
    for _ in range(2):
        desk.recorder._tidy_at = float("-inf")
        desk.recorder.run(_stopped())
    assert state(desk, letter) is DeadLetterState.REQUEUED


def test_a_retry_whose_job_died_again_before_storage_heard_of_it_is_known_as_done(desk: Desk) -> None:
    letter = half_done(desk)
    assert desk.broker.requeue(letter.job) == "requeued"
    desk.run(0, dying=True)
    desk.clock.advance(31 * SECOND)
    desk.recorder.tidy()
    assert state(desk, letter) is DeadLetterState.REQUEUED
    desk.recorder.record_waiting()
    assert state(desk, letter) is DeadLetterState.OPEN, "its second death"


@pytest.mark.parametrize("ran", [False, True])
def test_a_retry_whose_job_the_broker_has_lost_with_all_its_data_is_open_again(desk: Desk, tmp_path: Path, *, ran: bool) -> None:
    letter = half_done(desk)
    assert desk.broker.requeue(letter.job) == "requeued"
    if ran:
        (lease,) = desk.broker.lease(["default"], 1, worker_id="w", lease_for=30 * SECOND, wait=timedelta(0), suspects=0)
        assert desk.broker.settle([failed(lease, delay=60 * SECOND)], worker_id="w") == [True]
        desk.recorder.record_waiting()
        assert [one.run for one in desk.storage.job_executions(letter.job.id)] == [1, 2]
    desk.broker.close()
    desk.broker = SqliteBroker(tmp_path / "empty.db", clock=desk.clock)
    desk.clock.advance(31 * SECOND)
    desk.another().tidy()
    assert state(desk, letter) is DeadLetterState.OPEN


def test_many_half_done_retries_are_settled_together(desk: Desk) -> None:
    desk.run(250, dying=True)
    desk.recorder.record_waiting()
    letters = [desk.storage.dead_letter(job_id) for job_id in desk.letters()]
    assert all(desk.storage.begin_requeues([(one.job.id, one.job.deaths) for one in letters], now=desk.clock()))
    assert {desk.broker.requeue(one.job) for one in letters[:120]} == {"requeued"}
    desk.clock.advance(31 * SECOND)
    desk.recorder.tidy()
    assert {state(desk, one) for one in letters[:120]} == {DeadLetterState.REQUEUED}
    assert {state(desk, one) for one in letters[120:]} == {DeadLetterState.OPEN}


def test_a_retry_that_is_begun_anew_while_a_recorder_looks_is_left_to_who_began_it(desk: Desk) -> None:
    letter = half_done(desk)
    desk.clock.advance(31 * SECOND)
    recorder = desk.another()

    def meanwhile(name: str) -> None:
        if name == "finish_requeues":
            desk.storage.on_call = lambda _name: None
            desk.recorder.tidy()
            assert state(desk, letter) is DeadLetterState.OPEN
            desk.clock.advance(SECOND)
            assert desk.storage.begin_requeues([(letter.job.id, letter.job.deaths)], now=desk.clock()) == [True]

    desk.storage.on_call = meanwhile
    recorder.tidy()
    assert state(desk, letter) is DeadLetterState.REQUEUEING


@pytest.mark.parametrize("record", ["failures", "none"])
def test_a_retry_whose_job_died_again_and_is_forgotten_is_known_as_done_whatever_is_recorded(desk: Desk, record: Any) -> None:
    recorder = desk.recorder = desk.another(record=record)
    letter = half_done(desk)
    assert desk.broker.requeue(letter.job) == "requeued"
    desk.run(0, dying=True)
    recorder.record_waiting()
    desk.clock.advance(timedelta(days=2))
    desk.broker.prune(100)
    recorder.tidy()
    states = [one.state for one in desk.storage.dead_letters(DeadLetterFilter(state=None), cursor=None, offset=0, limit=5).dead_letters]
    assert states == [DeadLetterState.OPEN, DeadLetterState.REQUEUED]


def test_what_storage_does_not_manage_at_once_is_moved_in_smaller_parts(desk: Desk) -> None:
    ids = desk.run(300)
    desk.storage.most = 20
    for _ in range(60):
        desk.recorder._step()
    assert sorted(desk.recorded()) == sorted(ids)


def test_dead_letters_that_storage_does_not_manage_keep_no_history_back(desk: Desk) -> None:
    ids = desk.run(3)
    dying = desk.run(2, dying=True)
    desk.storage.refuses_letters = True
    desk.recorder.run(_stopped())
    assert sorted(desk.recorded()) == sorted(ids + dying)
    assert desk.letters() == []
    desk.storage.refuses_letters = False
    desk.recorder.run(_stopped())
    assert sorted(desk.letters()) == sorted(dying)


# As a service --------------------------------------------------------------------------------------------------------------------------


def test_it_goes_on_when_storage_comes_back_and_records_what_is_there_when_it_is_stopped(desk: Desk) -> None:
    desk.storage.away = True
    ids = desk.run(3)
    stop, ends = Stop(), []
    thread = threading.Thread(target=lambda: ends.append(desk.recorder.run(stop)))
    thread.start()
    _until(lambda: desk.storage.calls >= 2)
    desk.storage.away = False
    _until(lambda: len(desk.recorded()) == 3)
    ids += desk.run(2)
    stop.request()
    thread.join(10)
    assert ends == [Exit.OK]
    assert sorted(desk.recorded()) == sorted(ids)


def test_room_is_made_before_anything_is_recorded(desk: Desk) -> None:
    desk.run(3)
    calls: list[str] = []
    desk.storage.on_call = calls.append
    desk.recorder.run(_stopped())
    assert calls.index("prune_executions") < calls.index("record_executions")


def test_rows_are_recorded_although_tidying_up_fails(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    ids = desk.run(3)

    def refuse(name: str) -> None:
        if name == "prune_executions":
            raise StorageUnavailable("no lock")

    desk.storage.on_call = refuse
    for _ in range(3):
        desk.recorder.run(_stopped())
    assert sorted(desk.recorded()) == sorted(ids)
    assert [one.getMessage() for one in caplog.records if "tidying" in one.getMessage()] == ["tidying up waits: no lock"]


def test_who_falls_behind_says_so_once_a_minute_and_when_it_has_caught_up(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "jobqueue.recorder")
    desk.run(2)
    desk.clock.advance(61 * SECOND)
    desk.storage.away = True
    for _ in range(3):
        tidy_now(desk)
    assert said(caplog, "behind") == ["recording is behind"]
    desk.storage.away = False
    for _ in range(3):
        tidy_now(desk)
    assert said(caplog, "behind", "caught up") == ["recording is behind", "recording has caught up"]


def test_who_stays_behind_says_so_again(desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue_core.recorder._REMIND", 0.0)
    desk.run(2)
    desk.clock.advance(61 * SECOND)
    desk.storage.away = True
    for _ in range(3):
        tidy_now(desk)
    assert said(caplog, "behind") == ["recording is behind"] * 3


def test_storage_that_is_away_is_said_once_and_that_recording_goes_on(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "jobqueue.recorder")
    desk.run(2)
    desk.storage.away = True
    for _ in range(3):
        desk.recorder._step()
    desk.storage.away = False
    for _ in range(3):
        desk.recorder._step()
    assert said(caplog, "recording") == ["recording waits: away", "recording goes on"]


def test_a_schema_that_does_not_fit_is_an_error_said_each_minute_also_when_storage_was_away_before(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = desk.run(2)
    desk.storage.failure = StorageUnavailable("away")
    desk.recorder._step()
    desk.storage.failure = IncompatibleData("too old: run 'jobqueue migrate'")
    for _ in range(3):
        desk.recorder._step()
    assert said(caplog, "waits") == ["recording waits: away", "recording waits: too old: run 'jobqueue migrate'"]
    assert caplog.records[-1].levelname == "ERROR"
    monkeypatch.setattr("jobqueue_core.recorder._REMIND", 0.0)
    desk.recorder._waits._again_at = 0.0
    for _ in range(2):
        desk.recorder._step()
    assert len(said(caplog, "jobqueue migrate")) == 3
    desk.storage.failure = None
    desk.recorder._step()
    desk.recorder._step()
    assert sorted(desk.recorded()) == sorted(ids), "it goes on without a restart"


def test_a_storage_that_now_and_then_does_not_manage_is_said_no_more_than_once_a_minute(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.run(300)
    desk.storage.most = 20
    for _ in range(60):
        desk.recorder._step()
    assert said(caplog, "recording") == ["recording waits: away"]


def tidy_now(desk: Desk) -> None:
    desk.recorder._tidy_at = float("-inf")
    desk.recorder._step()


def said(caplog: pytest.LogCaptureFixture, *words: str) -> list[str]:
    return [one.getMessage() for one in caplog.records if any(word in one.getMessage() for word in words)]


def test_history_that_the_broker_dropped_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(tmp_path)
    desk.broker = SqliteBroker(tmp_path / "broker.db", clock=desk.clock, max_pending=5)
    recorder = desk.recorder = desk.another()
    recorder.run(_stopped())
    desk.run(20)
    desk.broker.prune(100)
    recorder._tidy_at = float("-inf")
    recorder.run(_stopped())
    assert "dropped history" in caplog.text


def test_a_row_that_is_refused_for_good_is_named(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    (job_id,) = desk.run(1)
    desk.storage.poison = {job_id}
    desk.recorder.record_waiting()
    (said,) = [one for one in caplog.records if "refuses a row" in one.getMessage()]
    assert said.fields == {"job_id": job_id, "run": 1, "type": "test.job", "queue": "default"}  # type: ignore[attr-defined]  # by our logging


def _stopped() -> Stop:
    stop = Stop()
    stop.request()
    return stop


def _until(true: Any) -> None:
    for _ in range(1_000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen within 10 s")
