"""Jobs as an operator finds and cancels them, those that the broker has forgotten too."""

from __future__ import annotations

from typing import Any

import pytest
from operations_office import UNKNOWN, Office, open_office

from jobqueue_core import Conflict, JobState
from jobqueue_core.attempt import Execution, ExecutionState
from jobqueue_core.job import DeadReason
from jobqueue_core.testing.factories import execution

office = pytest.fixture(open_office)


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
