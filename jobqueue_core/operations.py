"""Operations: every action an operator can take, with its checks. REST, MCP and the command line are thin skins on it."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
from msgspec.structs import replace

from jobqueue_core.attempt import DeadLetter, DeadLetterState, Execution, LogLine
from jobqueue_core.client import accepted, not_sent
from jobqueue_core.errors import BrokerUnavailable, Conflict, InvalidJob, JobNotFound
from jobqueue_core.job import DeadReason, Job, check_job_id, check_queue
from jobqueue_core.joblists import archived, list_jobs
from jobqueue_core.overview import overview
from jobqueue_core.payload import encode_payload
from jobqueue_core.requeueing import REQUEUE_STEP, requeue
from jobqueue_core.scheduling.operations import ScheduleOperations

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from jobqueue_core.broker import Enqueued, JobFilter, JobPage, QueueStats, TypeInfo, WorkerInfo
    from jobqueue_core.client import JobQueue
    from jobqueue_core.objects import BulkResultObject, StatisticsObject
    from jobqueue_core.requests import JobOptions
    from jobqueue_core.storage import DeadLetterFilter, DeadLetterGroup, DeadLetterPage, ExecutionFilter, ExecutionPage, Storage

__all__ = ["BulkResult", "Cancellation", "Operations"]

_log = logging.getLogger("jobqueue.operations")
_PURGE_STEP: Final = 200
_MAX_LIMIT: Final = 500
_MAX_OFFSET: Final = 10_000


@attrs.frozen(kw_only=True)
class Cancellation:
    """What a cancel did: *requested* means that a running handler was asked to stop."""

    status: Literal["cancelled", "requested"]
    job: Job


@attrs.frozen(kw_only=True)
class BulkResult:
    """What a bulk action did with the dead letters that were open when it began; with *dry_run* what it would do."""

    matched: int = 0
    done: int = 0
    skipped: int = 0
    """Someone else acted on them meanwhile, their unique key is taken, they could not be read, or the broker took too long."""
    dry_run: bool = False

    def to_dict(self) -> BulkResultObject:
        """The result as ``--json`` and the REST API show it."""
        return {"matched": self.matched, "done": self.done, "skipped": self.skipped, "dry_run": self.dry_run}


class Operations:
    """The service layer.

    Args:
        queue: The queue to operate.
        actor: Who acts, for the log: ``cli:ada``, ``api:key-name``.
    """

    def __init__(self, queue: JobQueue, *, actor: str = "client") -> None:
        self._queue = queue
        self._broker = queue.broker
        self._actor = actor

    def acting_as(self, actor: str) -> Operations:
        """The same operations under another actor."""
        return Operations(self._queue, actor=actor)

    @property
    def _history(self) -> Storage:
        return self._playing("executions", "keeps no history")

    @property
    def _dead_letters(self) -> Storage:
        return self._playing("dead_letters", "keeps no dead letters")

    def _playing(self, method: str, lack: str) -> Storage:
        """Storage, when it plays the role that *method* belongs to."""
        storage = self._storage
        if not hasattr(storage, method):
            msg = f"this storage {lack}: {storage.describe()}"
            raise Conflict(msg, code="no_storage")
        return storage

    @property
    def _storage(self) -> Storage:
        if self._queue.storage is None:
            msg = "there is no storage: choose one by [storage] plugin"
            raise Conflict(msg, code="no_storage")
        return self._queue.storage

    def _did(self, action: str, **facts: object) -> None:
        _log.info(action, extra={"fields": {"actor": self._actor, **facts}})

    @property
    def schedules(self) -> ScheduleOperations:
        """Schedules, and what can be done with them."""
        storage = self._playing("due_schedules", "keeps no schedules")
        return ScheduleOperations(self._queue, storage, did=self._did)

    # Jobs ------------------------------------------------------------------------------------------------------------------------------

    def create_job(self, job_type: str, payload: object, options: JobOptions) -> Enqueued:
        """Enqueue a job, and say whether it is new. The answer has a job.

        Raises:
            InvalidJob: Something about it is wrong; nothing was sent.
            Conflict: The id belongs to another job, or the idempotency key was used with another body.
            BrokerUnavailable: No answer; ``maybe_accepted`` says whether the job may be stored.
            QueueFull: The broker has no room.
        """
        answer = self._queue.send_one(self._queue.build(job_type, payload, options))
        accepted(answer)
        return answer

    def create_jobs(self, jobs: Sequence[Mapping[str, Any]]) -> list[Enqueued]:
        """Enqueue many jobs, and answer for each of them.

        Where they have idempotency keys, that of the first stands for all: with another body under it nothing is sent.

        Raises:
            InvalidJob: One is wrong (``jobs[3].queue``); nothing was sent.
            Conflict: The idempotency key was used with another body.
            BrokerUnavailable, QueueFull: None was accepted, for certain.
        """
        built = self._queue.build_many(jobs)
        first = 1 if built and built[0].idempotency is not None else 0
        answers, failure = self._queue.send_many(built[:first])
        for answer in answers:
            if answer.problem == "idempotency_conflict":
                accepted(answer)
        if failure is None:
            others, failure = self._queue.send_many(built[first:])
            answers += others
        else:
            answers += [not_sent(job, failure) for job in built[first:]]
        if failure is not None and all(answer.status == "refused" for answer in answers):
            raise failure
        return answers

    def find_job(self, job_id: str) -> Job | None:
        """The job as the broker has it, else as history remembers it (``archived``), else None."""
        found = self._broker.get([job_id])[0]
        if found is not None or self._queue.storage is None:
            return found
        executions = self._queue.storage.job_executions(job_id)
        return archived(executions[-1]) if executions else None

    def job(self, job_id: str) -> Job:
        """As :meth:`find_job`.

        Raises:
            InvalidJob: *job_id* is not a UUID.
            JobNotFound: Nobody knows it.
        """
        known = check_job_id(job_id)
        job = self.find_job(known)
        if job is None:
            raise JobNotFound("job", known)
        return job

    def jobs(self, wanted: JobFilter, *, cursor: str | None = None, limit: int = 50) -> JobPage:
        """List jobs: live ones newest first, then finished ones, those that ended last first (:func:`~jobqueue_core.joblists.list_jobs`).

        No job comes twice in a walk, whatever becomes of jobs meanwhile. A page may be short and still have a *next*.

        Raises:
            InvalidJob: Limit or cursor is wrong.
            StorageError: Storage failed, and the page would lack finished jobs.
        """
        storage = self._queue.storage
        is_live = wanted.state is not None and not wanted.state.finished
        # Storage is of roles that one may lack; where live jobs are wanted it is not even asked for that, and may be away.
        history = None if storage is None or is_live or not hasattr(storage, "ends") else storage
        return list_jobs(self._broker, history, wanted, cursor=cursor, limit=_limit(limit))

    def job_logs(self, job_id: str) -> list[LogLine]:
        """What a job's handlers logged. Raises as :meth:`job`."""
        return self._broker.logs(self.job(job_id).id)

    def cancel_job(self, job_id: str) -> Cancellation:
        """Cancel a job.

        Raises:
            JobNotFound: Nobody knows it.
            Conflict: It has finished (code ``finished``).
        """
        known = check_job_id(job_id)
        answer = self._broker.cancel(known)
        job = self.find_job(known)
        if job is None:
            raise JobNotFound("job", known)
        if answer == "finished" or answer == "unknown":  # noqa: PLR1714 - so that the type checker follows
            msg = f"job {known} has finished: it is {job.state}"
            raise Conflict(msg, code="finished")
        self._did("job cancelled", job_id=known, status=answer)
        return Cancellation(status=answer, job=job)

    # Queues ----------------------------------------------------------------------------------------------------------------------------

    def queues(self) -> list[QueueStats]:
        """All queues in numbers, by name."""
        return self._broker.queues()

    def queue(self, name: str) -> QueueStats:
        """One queue in numbers.

        Raises:
            JobNotFound: It has never had a job.
        """
        stats = self._broker.queue(check_queue(name))
        if stats is None:
            raise JobNotFound("queue", name)
        return stats

    def pause_queue(self, name: str) -> None:
        """Hand out nothing more from a queue; one that has no jobs yet may be paused too."""
        self._broker.pause(check_queue(name))
        self._did("queue paused", queue=name)

    def resume_queue(self, name: str) -> None:
        """Undo :meth:`pause_queue`."""
        self._broker.resume(check_queue(name))
        self._did("queue resumed", queue=name)

    def purge_queue(self, name: str) -> int:
        """Cancel all waiting, scheduled and retrying jobs of a queue, in bounded steps; says how many.

        Raises:
            JobNotFound: It has never had a job.
        """
        # What was there when it began bounds the loop: a producer that goes on meanwhile must not keep it going.
        stats = self.queue(name)
        budget = stats.waiting + stats.scheduled + stats.retrying
        purged = 0
        while purged < budget:
            step = self._broker.purge(name, min(_PURGE_STEP, budget - purged))
            if not step:
                break
            purged += step
        self._did("queue purged", queue=name, jobs=purged)
        return purged

    # Dead letters ----------------------------------------------------------------------------------------------------------------------

    def dead_letters(self, wanted: DeadLetterFilter, *, cursor: str | None = None, offset: int = 0, limit: int = 50) -> DeadLetterPage:
        """List dead letters, latest death first.

        Raises:
            InvalidJob: Limit, offset or cursor is wrong.
        """
        return self._dead_letters.dead_letters(wanted, cursor=cursor, offset=_offset(offset), limit=_limit(limit))

    def dead_letter_groups(self, wanted: DeadLetterFilter, *, limit: int = 50) -> list[DeadLetterGroup]:
        """Dead letters by error fingerprint, largest group first."""
        return self._dead_letters.dead_letter_groups(wanted, limit=_limit(limit))

    def dead_letter(self, job_id: str) -> DeadLetter:
        """The latest death of a job.

        Raises:
            InvalidJob: *job_id* is not a UUID.
            JobNotFound: It has none.
        """
        known = check_job_id(job_id)
        letter = self._dead_letters.dead_letter(known)
        if letter is None:
            raise JobNotFound("dead letter", known)
        return letter

    def retry_dead_letter(self, job_id: str, *, payload: object = ...) -> Job:
        """Make a dead job live again, perhaps with another payload (DESIGN R20).

        Args:
            job_id: The job.
            payload: Replaces its payload; leave it out to keep that byte for byte.

        Raises:
            InvalidPayload: *payload* is not JSON or too big.
            JobNotFound: It has no dead letter.
            Conflict: It is not open any more (code ``not_open``), has completed since (``completed``), another job holds its unique key
                (``key_taken``), or it could not be read, and *payload* is left out (``undecodable``).
            BrokerUnavailable: No answer; within two minutes a recorder opens the dead letter again, or finds that its retry has happened.
        """
        letter = self.dead_letter(job_id)
        job = letter.job
        if payload is not ...:
            job = replace(job, payload_json=encode_payload(payload, limit=self._queue.max_payload))
        elif job.dead_reason is DeadReason.UNDECODABLE:
            msg = f"job {job.id} could not be read, and so has no payload to be tried again with: give it one"
            raise Conflict(msg, code="undecodable")
        (outcome,) = requeue(self._broker, self._dead_letters, [job])
        if outcome == "late":
            msg = f"the broker took too long to take job {job.id} back; its dead letter is open again"
            raise BrokerUnavailable(msg, maybe_accepted=False)
        messages = {
            "not_open": f"the dead letter of job {job.id} is {letter.state}, not open",
            "completed": f"job {job.id} has completed since",
            "key_taken": f"another unfinished job of queue {job.queue!r} holds the unique key {job.unique_key!r}",
        }
        if outcome in messages:
            raise Conflict(messages[outcome], code=outcome)
        self._did("dead letter retried", job_id=job.id, death=job.deaths)
        return self.job(job.id)

    def retry_dead_letters(
        self, wanted: DeadLetterFilter, *, dry_run: bool = False, progress: Callable[[BulkResult], None] | None = None
    ) -> BulkResult:
        """Retry every matching dead letter that is open now, in bounded steps; one that dies again meanwhile is not retried again.

        Those of jobs that could not be read have no payload, and are left. After an error repeat it: what has been retried is not open any more,
        and what was under way is, within two minutes, if its job does not live.

        Raises:
            BrokerError: The broker failed amid a step. What was not sent is open again.
            StorageError: Storage did.
        """

        def retry(letters: Sequence[DeadLetter]) -> Generator[bool, None, None]:
            jobs = [letter.job for letter in letters if letter.job.dead_reason is not DeadReason.UNDECODABLE]
            yield from [False] * (len(letters) - len(jobs))
            late = 0
            with closing(requeue(self._broker, self._dead_letters, jobs)) as outcomes:
                for outcome in outcomes:
                    late += outcome == "late"
                    yield outcome in ("requeued", "already")
            if late:
                _log.warning("the broker took too long to take jobs back; their dead letters are open again", extra={"fields": {"jobs": late}})

        return self._each("dead letters retried", wanted, retry, dry_run=dry_run, progress=progress)

    def discard_dead_letter(self, job_id: str) -> None:
        """Mark a dead letter as discarded: it is not listed or retried any more.

        Raises:
            JobNotFound: The job has no dead letter.
            Conflict: It is not open (code ``not_open``).
        """
        letter = self.dead_letter(job_id)
        if not self._dead_letters.discard(letter.job.id, letter.job.deaths):
            msg = f"the dead letter of job {letter.job.id} is {letter.state}, not open"
            raise Conflict(msg, code="not_open")
        self._did("dead letter discarded", job_id=letter.job.id, death=letter.job.deaths)

    def discard_dead_letters(
        self, wanted: DeadLetterFilter, *, dry_run: bool = False, progress: Callable[[BulkResult], None] | None = None
    ) -> BulkResult:
        """Discard every matching dead letter that is open now, in bounded steps."""

        def discard(letters: Sequence[DeadLetter]) -> Generator[bool, None, None]:
            return (self._dead_letters.discard(letter.job.id, letter.job.deaths) for letter in letters)

        return self._each("dead letters discarded", wanted, discard, dry_run=dry_run, progress=progress)

    def _each(
        self,
        action: str,
        wanted: DeadLetterFilter,
        act: Callable[[Sequence[DeadLetter]], Generator[bool, None, None]],
        *,
        dry_run: bool,
        progress: Callable[[BulkResult], None] | None,
    ) -> BulkResult:
        began = self._broker.now()
        before = began if wanted.died_before is None else min(began, wanted.died_before)
        wanted = attrs.evolve(wanted, state=DeadLetterState.OPEN, died_before=before)
        result = BulkResult(matched=self._dead_letters.count_dead_letters(wanted), dry_run=dry_run)
        if dry_run:
            return result
        cursor: str | None = None
        try:
            while True:
                page = self._dead_letters.dead_letters(wanted, cursor=cursor, offset=0, limit=REQUEUE_STEP)
                try:
                    with closing(act(page.dead_letters)) as answers:
                        for is_done in answers:
                            result = attrs.evolve(result, done=result.done + is_done, skipped=result.skipped + (not is_done))
                finally:
                    # Also when it is broken off: how far it came must be known then.
                    if progress is not None:
                        progress(result)
                cursor = page.next
                if cursor is None:
                    return result
        finally:
            self._did(action, done=result.done, skipped=result.skipped)

    # History, workers, statistics ------------------------------------------------------------------------------------------------------

    def executions(self, wanted: ExecutionFilter, *, cursor: str | None = None, offset: int = 0, limit: int = 50) -> ExecutionPage:
        """List executions, newest first.

        Raises:
            InvalidJob: Limit, offset or cursor is wrong.
        """
        return self._history.executions(wanted, cursor=cursor, offset=_offset(offset), limit=_limit(limit))

    def job_executions(self, job_id: str) -> list[Execution]:
        """All executions of a job, by run; empty for a job that has not run. Raises InvalidJob when *job_id* is not a UUID."""
        return self._history.job_executions(check_job_id(job_id))

    def workers(self) -> list[WorkerInfo]:
        """The workers that live."""
        return self._broker.workers()

    def types(self) -> list[TypeInfo]:
        """The job types that workers serve."""
        return self._broker.types()

    def stats(self) -> StatisticsObject:
        """The whole in numbers (``overview``)."""
        return overview(self._broker, self._queue.storage)


def _limit(limit: int) -> int:
    if not 1 <= limit <= _MAX_LIMIT:
        raise InvalidJob("limit", f"must be from 1 to {_MAX_LIMIT}, not {limit}")
    return limit


def _offset(offset: int) -> int:
    if not 0 <= offset <= _MAX_OFFSET:
        raise InvalidJob("offset", f"must be from 0 to {_MAX_OFFSET}, not {offset}; use the cursor to go further")
    return offset
