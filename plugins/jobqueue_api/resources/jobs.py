"""Jobs: creating, finding, cancelling them, and waiting for them."""

from __future__ import annotations

import hashlib
import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from jobqueue_api.http.bodies import JobBatch, JobRequest
from jobqueue_api.http.filters import Queue, Type
from jobqueue_api.http.links import next_link
from jobqueue_api.http.operation import Answer, Call, operation
from jobqueue_api.http.querystring import Cursor, Limit, Query, read_duration
from jobqueue_core.broker import JobFilter
from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import Idempotency, Job, JobState
from jobqueue_core.objects import EnqueuedObject, JobObject, LogLineObject

if TYPE_CHECKING:
    from jobqueue_api.http.held import Held
    from jobqueue_api.server.closing import Closing
    from jobqueue_core.operations import Operations

__all__ = ["JobBatches", "JobLogs", "Jobs", "SingleJob"]

IDEMPOTENCY: Final = "Idempotency-Key"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,180}", re.ASCII)
_LONGEST_WAIT: Final = timedelta(seconds=30)
_FIRST_PAUSE: Final = 0.02
_LAST_PAUSE: Final = 0.25


class JobsQuery(Query):
    """Which jobs to list."""

    state: Annotated[JobState, Meta(description="Only in this state.")] | None = None
    type: Type | None = None
    queue: Queue | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class WaitQuery(Query):
    """How long to wait."""

    wait: (
        Annotated[
            str,
            Meta(
                max_length=40,
                description='Answer when the job has finished, or after that time, at most 30s, as it is then: "10s", or a number of seconds.',
                examples=["10s"],
                extra_json_schema={"pattern": r"^(?:(?:[0-9]|[12][0-9])(?:\.[0-9]{1,3})?s?|30s?|[0-9]{1,4}ms)$"},
            ),
        ]
        | None
    ) = None


class Jobs:
    """All jobs."""

    @operation(
        "createJob",
        "Enqueue a job",
        tag="jobs",
        role="write",
        body=JobRequest,
        answers={201: JobObject, 200: JobObject},
        problems=(400, 409, 413, 415),
        headers=(IDEMPOTENCY,),
    )
    def on_post(self, call: Call[None, JobRequest]) -> Answer:
        """Enqueue a job. It is answered once the broker has it: 201 when it is new, 200 with the job that was there before when it is a duplicate.

        A duplicate has the `id` or the `unique_key` of another job, or the `Idempotency-Key` header of a former request. Such a key is kept for 24
        hours; with another body it is a conflict.
        """
        idempotency = idempotency_of(call)
        answer = call.operations.create_job(call.body.type, call.body.payload, call.body.options(idempotency))
        job = _present(answer.job)
        location = f"{call.request.root_path}{call.request.path.rstrip('/')}/{job.id}"
        return Answer(job.to_dict(), status=201 if answer.status == "created" else 200, headers={"Location": location})

    @operation("listJobs", "List jobs", tag="jobs", role="read", query=JobsQuery, answers={200: list[JobObject]})
    def on_get(self, call: Call[JobsQuery, None]) -> Answer:
        """List jobs. Those that have not ended come from the broker, those that have from history, which lags by up to 2 s.

        A page may be short, even empty, and still have a next one: the `Link` header says so. What comes from history has no payload and no result.
        """
        wanted = JobFilter(state=call.query.state, type=call.query.type, queue=call.query.queue)
        page = call.operations.jobs(wanted, cursor=call.query.cursor, limit=call.query.limit)
        return Answer([job.to_dict() for job in page.jobs], headers=next_link(call, page.next))


class JobBatches:
    """Jobs that are enqueued together."""

    @operation(
        "createJobs",
        "Enqueue many jobs",
        tag="jobs",
        role="write",
        body=JobBatch,
        answers={200: list[EnqueuedObject]},
        problems=(400, 409, 413, 415),
        headers=(IDEMPOTENCY,),
    )
    def on_post(self, call: Call[None, JobBatch]) -> Answer:
        """Enqueue up to 1,000 jobs. All are checked before anything is sent; then each has an answer of its own, in order.

        With an `Idempotency-Key` a repeated batch makes no second jobs; another batch under it is a conflict.
        """
        whole = idempotency_of(call)
        jobs = [one.as_mapping(_numbered(whole, index)) for index, one in enumerate(call.body.jobs)]
        return Answer([answer.to_dict() for answer in call.operations.create_jobs(jobs)])


class SingleJob:
    """One job.

    Args:
        held: Budget of threads that may wait.
        closing: Ends the waiting.
    """

    def __init__(self, held: Held, closing: Closing) -> None:
        self._held = held
        self._closing = closing

    @operation("getJob", "Get a job", tag="jobs", role="read", query=WaitQuery, answers={200: JobObject}, problems=(404, 429))
    def on_get(self, call: Call[WaitQuery, None], job_id: str) -> Answer:
        """Get a job as it is now, with its result and progress; with `wait`, once it has finished or that time has passed.

        Where as many requests wait or stream as a process allows, one more is answered 429 with `Retry-After`.
        """
        wait = _wait(call.query.wait)
        operations = call.operations
        job = operations.job(job_id)
        if wait and not job.state.finished:
            with self._held.held(429, "too_many_waits", "waits"):
                job = self._finished(operations, job, wait)
        return Answer(job.to_dict())

    def _finished(self, operations: Operations, job: Job, wait: timedelta) -> Job:
        """The job once it has finished, or time is up."""
        deadline = time.monotonic() + wait.total_seconds()
        pause = _FIRST_PAUSE
        while not job.state.finished and (left := deadline - time.monotonic()) > 0:
            if self._closing.wait(min(pause, left)):
                return job
            pause = min(pause * 1.5, _LAST_PAUSE)
            job = operations.job(job.id)
        return job

    @operation("cancelJob", "Cancel a job", tag="jobs", role="write", answers={200: JobObject, 202: JobObject}, problems=(400, 404, 409))
    def on_delete(self, call: Call[None, None], job_id: str) -> Answer:
        """Cancel a job that waits, at once (200), or ask one that runs to stop (202). One that has finished is a conflict."""
        answer = call.operations.cancel_job(job_id)
        return Answer(answer.job.to_dict(), status=200 if answer.status == "cancelled" else 202)


class JobLogs:
    """What the handlers of a job have logged."""

    @operation("getJobLogs", "What a job's handlers have logged", tag="jobs", role="read", answers={200: list[LogLineObject]}, problems=(404,))
    def on_get(self, call: Call[None, None], job_id: str) -> Answer:
        """The latest 1,000 lines, oldest first."""
        return Answer([line.to_dict() for line in call.operations.job_logs(job_id)])


def idempotency_of(call: Call[None, JobRequest] | Call[None, JobBatch]) -> Idempotency | None:
    """What the header ``Idempotency-Key`` says; keys of different holders are different ones.

    Raises:
        InvalidJob: It cannot be a key.
    """
    key = call.request.get_header(IDEMPOTENCY)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise InvalidJob(IDEMPOTENCY, "must be 1 to 180 characters of printable ASCII without spaces")
    # Whoever repeats a request may write its JSON in another order.
    canonical = msgspec.json.encode(msgspec.json.decode(call.sent), order="sorted")
    return Idempotency(key=f"{call.principal.name}:{key}", fingerprint=hashlib.sha256(canonical).hexdigest())


def _numbered(whole: Idempotency | None, index: int) -> Idempotency | None:
    # No key has a space, so that none is that of a batch's job.
    return None if whole is None else Idempotency(key=f"{whole.key} {index}", fingerprint=whole.fingerprint)


def _wait(text: str | None) -> timedelta:
    wait = read_duration(text, "wait") or timedelta(0)
    if wait > _LONGEST_WAIT:
        raise InvalidJob("wait", "must be at most 30s")
    return wait


def _present(job: Job | None) -> Job:
    if job is None:
        msg = "the broker accepted a job and did not say which"
        raise RuntimeError(msg)
    return job
