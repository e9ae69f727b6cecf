"""Dead letters that are retried and discarded in bulk: it ends, is broken off and repeated, and each job runs once more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import pytest
from operations_office import SECOND, Office, open_office

from jobqueue_core import Job
from jobqueue_core.attempt import DeadLetterState
from jobqueue_core.errors import BrokerUnavailable, StorageUnavailable
from jobqueue_core.operations import BulkResult
from jobqueue_core.storage import DeadLetterFilter

office = pytest.fixture(open_office)


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


def test_what_is_being_retried_by_somebody_is_left_to_them(office: Office) -> None:
    theirs, free = office.kill(), office.kill()
    assert office.storage.begin_requeues([(theirs.id, 1)], now=office.broker.now()) == [True]
    assert office.operations.retry_dead_letters(DeadLetterFilter()) == BulkResult(matched=1, done=1)
    assert office.operations.dead_letter(theirs.id).state is DeadLetterState.REQUEUEING
    assert [lease.job.id for lease in office.lease()] == [free.id]


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
