"""Dead letters as an operator lists, retries and discards them, one at a time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from operations_office import SECOND, Office, open_office

from jobqueue_core import Conflict, InvalidPayload, JobState
from jobqueue_core.attempt import DeadLetterState
from jobqueue_core.errors import BrokerUnavailable
from jobqueue_core.job import DeadReason
from jobqueue_core.storage import DeadLetterFilter
from jobqueue_core.testing.factories import died

office = pytest.fixture(open_office)


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
