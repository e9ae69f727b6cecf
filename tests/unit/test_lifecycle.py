"""The state machine: whatever happens to a job, in whatever order, some things stay true."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from jobqueue_core import Job, JobState, Priority
from jobqueue_core.attempt import MAX_ERROR, Cancelled, Completed, Crashed, Dead, ExecutionState, Outcome, Retrying, Returned, Snoozed
from jobqueue_core.job import DeadReason, NewJob, Progress
from jobqueue_core.lifecycle import TRANSITIONS, Conclusion, accept, begin, cancel, conclude, crash, execution_id, expire, give_back, park, requeue

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MAX_CRASHES = 3


def new(**options: object) -> NewJob:
    return NewJob(**{"id": "01890a5d-ac96-774b-bcce-b302099a8057", "type": "t", "payload_json": b"{}", **options})  # type: ignore[arg-type]  # options of NewJob


def running(**fields: object) -> Job:
    job = begin(accept(new(), NOON), "worker-1", NOON)
    return replace(job, **fields)


def ended(job: Job, outcome: Outcome, *, cancel_requested: bool = False) -> Conclusion:
    return conclude(job, outcome, now=NOON + SECOND, duration=SECOND, cancel_requested=cancel_requested, max_retries=3)


def crashed(job: Job, *, counted: bool = True, cancel_requested: bool = False) -> Conclusion:
    return crash(job, now=NOON + SECOND, error="SIGKILL", counted=counted, cancel_requested=cancel_requested, max_crashes=MAX_CRASHES)


OUTCOMES: list[Outcome] = [
    Completed(result_json=b"1"),
    Retrying(delay=SECOND, error="ValueError: no"),
    Snoozed(delay=SECOND),
    Dead(reason=DeadReason.DISCARDED, error="Discard: no"),
    Cancelled(),
    Returned(),
    Crashed(error="handler process killed by SIGSEGV", max_crashes=MAX_CRASHES),
]
LOSSES = ["crash", "uncounted crash", "give back", "give back later", "park"]

# Any sequence of events ----------------------------------------------------------------------------------------------------------------

events = st.tuples(
    st.sampled_from(["end", *LOSSES]), st.sampled_from(OUTCOMES), st.booleans(), st.sampled_from(["run", "run", "run", "promote", "cancel", "expire"])
)


class Life:
    """One job through all that a broker may do with it; remembers what was remembered of it."""

    def __init__(self) -> None:
        self.now = NOON
        self.job = accept(new(), NOON)
        self.runs: list[int] = []
        self.deaths: list[int] = []

    def follow(self, after: Job) -> None:
        before, self.job = self.job, after
        assert after.state in TRANSITIONS[before.state]
        assert (after.id, after.type, after.payload_json, after.queue, after.created_at) == (
            before.id,
            before.type,
            before.payload_json,
            before.queue,
            before.created_at,
        )
        assert (after.completed_at is not None) == after.state.finished
        assert (after.dead_reason is not None) == (after.state is JobState.DEAD)
        assert not after.cancel_requested

    def conclude(self, conclusion: Conclusion) -> None:
        deaths = self.job.deaths
        self.follow(conclusion.job)
        died = conclusion.job.state is JobState.DEAD
        assert conclusion.job.deaths == deaths + died
        assert (conclusion.dead_letter is not None) == died
        if conclusion.dead_letter is not None:
            assert conclusion.dead_letter.job.deaths == conclusion.job.deaths
            self.deaths.append(conclusion.dead_letter.job.deaths)
        if conclusion.execution is not None:
            assert conclusion.execution.job_id == self.job.id
            self.runs.append(conclusion.execution.run)

    def happen(self, event: tuple[str, Outcome, bool, str]) -> None:
        how, outcome, cancel_requested, meanwhile = event
        self.now += SECOND
        state = self.job.state
        if state is JobState.DEAD:
            self.follow(requeue(self.job, self.now))
            assert (self.job.retry_count, self.job.crashes) == (0, 0)
        elif state is JobState.PROCESSING:
            self.end(how, outcome, cancel_requested=cancel_requested)
        elif meanwhile == "run" and not state.finished:
            self.follow(begin(self.job, "worker-1", self.now))
        elif meanwhile == "cancel" and not state.finished:
            self.follow(cancel(self.job, self.now))
        elif meanwhile == "expire" and not state.finished:
            self.follow(expire(self.job, self.now))
            assert self.job.last_error == "expired"
        elif meanwhile == "promote" and state in (JobState.SCHEDULED, JobState.RETRYING):
            self.follow(replace(self.job, state=JobState.QUEUED))

    def end(self, how: str, outcome: Outcome, *, cancel_requested: bool) -> None:
        before = self.job
        match how:
            case "end":
                self.conclude(conclude(before, outcome, now=self.now, duration=SECOND, cancel_requested=cancel_requested, max_retries=3))
                assert self.job.retry_count - before.retry_count == (self.job.state is JobState.RETRYING)
            case "crash" | "uncounted crash":
                counted = how == "crash"
                self.conclude(crash(before, now=self.now, error="lost", counted=counted, cancel_requested=cancel_requested, max_crashes=MAX_CRASHES))
                assert self.job.crashes == before.crashes + counted
                assert self.job.crashes < MAX_CRASHES or self.job.state in (JobState.DEAD, JobState.CANCELLED)
            case "park":
                self.follow(park(before, now=self.now, delay=SECOND, cancel_requested=cancel_requested))
                assert self.job.run == before.run - 1
            case _:
                delay = SECOND if how == "give back later" else timedelta(0)
                self.follow(give_back(before, now=self.now, delay=delay, cancel_requested=cancel_requested))
                assert self.job.run == before.run - 1
        if cancel_requested:
            # Asked to stop: it completes or is cancelled, and never runs again.
            assert self.job.state in (JobState.COMPLETED, JobState.CANCELLED)
        assert (self.job.retry_count, self.job.deaths) >= (before.retry_count, before.deaths)


@given(st.lists(events, max_size=60))
def test_whatever_happens_to_a_job_the_rules_hold(happenings: list[tuple[str, Outcome, bool, str]]) -> None:
    life = Life()
    for event in happenings:
        life.happen(event)
    assert life.runs == sorted(set(life.runs)), "(job, run) is unique, and runs are numbered upwards"
    assert life.deaths == list(range(1, life.job.deaths + 1)), "each death makes exactly one dead letter, counted from 1"
    assert life.job.run >= len(life.runs)


def test_every_transition_names_a_known_state_and_every_state_is_covered() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert all(after in JobState for afters in TRANSITIONS.values() for after in afters)
    assert [state for state in JobState if not TRANSITIONS[state]] == [JobState.COMPLETED, JobState.CANCELLED]


# What each event does ------------------------------------------------------------------------------------------------------------------


def test_a_job_with_a_delay_is_scheduled_by_the_brokers_clock() -> None:
    job = accept(new(delay=SECOND, expires_in=2 * SECOND), NOON)
    assert (job.state, job.scheduled_at, job.expires_at) == (JobState.SCHEDULED, NOON + SECOND, NOON + 2 * SECOND)


@pytest.mark.parametrize("options", [{}, {"delay": timedelta(0)}, {"scheduled_at": NOON}, {"scheduled_at": NOON - SECOND}])
def test_a_job_whose_time_has_come_is_queued(options: dict[str, object]) -> None:
    assert accept(new(**options), NOON).state is JobState.QUEUED


def test_a_lease_is_for_the_next_run_and_forgets_what_the_last_one_said() -> None:
    job = begin(replace(accept(new(), NOON), run=4, progress=Progress(0.5), priority=Priority.LOW), "worker-2", NOON + SECOND)
    assert (job.state, job.run, job.worker_id, job.started_at, job.progress) == (JobState.PROCESSING, 5, "worker-2", NOON + SECOND, None)


def test_completion_keeps_the_result() -> None:
    conclusion = ended(running(), Completed(result_json=b"42"))
    assert (conclusion.job.state, conclusion.job.result_json) == (JobState.COMPLETED, b"42")
    assert conclusion.execution is not None
    assert (conclusion.execution.state, conclusion.execution.duration_ms, conclusion.execution.attempt) == (ExecutionState.COMPLETED, 1000.0, 1)


def test_a_failed_run_spends_an_attempt() -> None:
    job = ended(running(), Retrying(delay=SECOND, error="ValueError: no")).job
    assert (job.state, job.retry_count, job.attempt, job.scheduled_at, job.retry_delay, job.last_error) == (
        JobState.RETRYING,
        1,
        2,
        NOON + 2 * SECOND,
        SECOND,
        "ValueError: no",
    )


@pytest.mark.parametrize(("outcome", "state"), [(Snoozed(delay=SECOND), JobState.SCHEDULED), (Returned(), JobState.QUEUED)])
def test_a_snoozed_or_returned_run_spends_no_attempt(outcome: Outcome, state: JobState) -> None:
    job = ended(running(), outcome).job
    assert (job.state, job.attempt, job.run) == (state, 1, 1)


def test_a_death_makes_a_dead_letter_that_holds_the_job_as_it_died() -> None:
    conclusion = ended(running(), Dead(reason=DeadReason.DISCARDED, error="Discard: no", traceback="trace"))
    letter = conclusion.dead_letter
    assert letter is not None
    assert (letter.job.deaths, letter.job.dead_reason, letter.error, letter.traceback) == (1, DeadReason.DISCARDED, "Discard: no", "trace")
    assert letter.fingerprint
    assert letter.job == conclusion.job
    assert letter.job.max_retries is None, "what was not given at enqueue stays unset, so that a retry asks the handler anew"
    assert conclusion.execution is not None
    assert conclusion.execution.max_retries == 3, "what counted for the run that died"


@pytest.mark.parametrize("outcome", [outcome for outcome in OUTCOMES if not isinstance(outcome, Completed)])
def test_a_run_that_was_asked_to_stop_cancels_its_job_unless_it_completes(outcome: Outcome) -> None:
    conclusion = ended(running(), outcome, cancel_requested=True)
    assert (conclusion.job.state, conclusion.dead_letter) == (JobState.CANCELLED, None)
    assert conclusion.execution is not None
    assert conclusion.execution.state is ExecutionState.CANCELLED


def test_a_run_that_completes_although_it_was_asked_to_stop_is_completed() -> None:
    assert ended(running(), Completed(), cancel_requested=True).job.state is JobState.COMPLETED


def test_crashes_are_counted_apart_from_failures_until_the_job_is_dead_as_worker_lost() -> None:
    job = running()
    for expected in (1, 2):
        job = crashed(job).job
        assert (job.state, job.crashes, job.retry_count) == (JobState.QUEUED, expected, 0)
        job = begin(job, "worker-1", NOON)
    conclusion = crashed(job)
    assert (conclusion.job.state, conclusion.job.dead_reason) == (JobState.DEAD, DeadReason.WORKER_LOST)
    assert conclusion.dead_letter is not None
    assert conclusion.execution is not None
    assert conclusion.execution.state is ExecutionState.LOST


def test_a_job_that_was_only_held_by_a_lost_worker_comes_back_uncounted() -> None:
    conclusion = crashed(running(), counted=False)
    assert (conclusion.job.state, conclusion.job.crashes, conclusion.execution) == (JobState.QUEUED, 0, None)


def test_a_lost_run_that_was_asked_to_stop_cancels_its_job() -> None:
    assert crashed(running(crashes=MAX_CRASHES - 1), cancel_requested=True).job.state is JobState.CANCELLED


def test_a_job_for_which_nobody_has_a_handler_remembers_since_when() -> None:
    once = park(running(), now=NOON, delay=SECOND, cancel_requested=False)
    again = park(begin(once, "worker-1", NOON + SECOND), now=NOON + SECOND, delay=SECOND, cancel_requested=False)
    assert (once.unknown_since, again.unknown_since, again.run, again.state) == (NOON, NOON, 0, JobState.SCHEDULED)
    assert ended(begin(again, "worker-1", NOON), Snoozed(delay=SECOND)).job.unknown_since is None


def test_a_dead_letter_retry_forgets_retries_and_crashes_but_goes_on_counting_runs_and_deaths() -> None:
    dead = ended(running(run=5, deaths=1, retry_count=3, crashes=2, expires_at=NOON), Dead(reason=DeadReason.RETRIES_EXHAUSTED, error="no")).job
    alive = requeue(dead, NOON + SECOND)
    assert (alive.state, alive.retry_count, alive.crashes, alive.run, alive.deaths) == (JobState.QUEUED, 0, 0, 5, 2)
    assert (alive.dead_reason, alive.completed_at, alive.expires_at, alive.retry_delay) == (None, None, None, None)


@pytest.mark.parametrize(
    "outcome",
    [Retrying(delay=SECOND, error="x" * 5000), Dead(reason=DeadReason.DISCARDED, error="x" * 5000), Cancelled(error="x" * 5000)],
)
def test_an_endless_error_is_cut(outcome: Outcome) -> None:
    conclusion = ended(running(), outcome)
    assert len(conclusion.job.last_error or "") == MAX_ERROR
    assert len(crashed(running()).job.last_error or "") <= MAX_ERROR


def test_the_records_of_two_runs_have_two_ids() -> None:
    first, second = (ended(running(), Completed()).execution for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.id != second.id


# Names of runs -------------------------------------------------------------------------------------------------------------------------


def test_each_execution_has_a_random_uuid_of_its_own() -> None:
    ids = [execution_id() for _ in range(2_000)]
    assert len(set(ids)) == len(ids)
    assert {(str(UUID(one)), UUID(one).version) for one in ids} == {(one, 4) for one in ids}


def test_a_forked_process_gives_its_executions_other_ids() -> None:
    script = """
import os
from jobqueue_core.lifecycle import execution_id
reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, execution_id().encode())
    os._exit(0)
print(execution_id(), os.read(reader, 36).decode())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    parent, child = done.stdout.split()
    assert parent != child
