"""Enqueue and requeue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from msgspec.structs import replace

from jobqueue_core import lifecycle
from jobqueue_core.broker import Enqueued, Requeued
from jobqueue_core.errors import BrokerUnavailable, IncompatibleData, QueueFull
from jobqueue_core.job import Job, JobState, NewJob

from .keys import Place
from .steps import steps
from .times import duration_us, to_us
from .values import EPOCH, absolute, read_look, rest_of

if TYPE_CHECKING:
    from .keys import Shard
    from .link import Link

__all__ = ["enqueue", "requeue"]

_MOST_JOBS: Final = 500
"""How many jobs one script takes: about 2 ms of the server's time."""
_OPTION_COST: Final = 2048
"""About 5 µs."""
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""What lies before is relative to the time of a value (``values``): an instant that a producer names is moved up to it."""
_FAR: Final = _EARLIEST - EPOCH
_PATIENCE: Final = 4.0
"""Seconds after which a call that has failed in part sends nothing more, so that its answer comes in time."""

_encoder = msgspec.msgpack.Encoder()


# Enqueue -------------------------------------------------------------------------------------------------------------------------------


class _Request(msgspec.Struct, frozen=True):
    """A job as it is sent, and where in the call it stands."""

    index: int
    job: Job
    """The job as it will be, if the time were ``EPOCH``."""
    options: bytes
    rest: bytes
    cost: int
    """What it costs the server, in bytes that would take it as long."""


def enqueue(link: Link, jobs: Sequence[NewJob], *, not_after: datetime | None) -> list[Enqueued]:
    """See ``Producer.enqueue``.

    On a Redis Cluster each queue's jobs go to its shard. Where some were stored before something failed, the answer says for each of the others
    that it is ``unknown``, or ``refused`` by a server that is full; only if none was, the failure is raised.
    """
    intake = _Intake(link, "" if not_after is None else str(to_us(not_after)), len(jobs))
    by_shard: dict[Shard, list[_Request]] = {}
    far = any(_is_far(job.delay) or _is_far(job.expires_in) for job in jobs)
    now = link.now() if far else None
    for index, new in enumerate(jobs):
        by_shard.setdefault(link.shard_of(new.queue), []).append(_request(index, new, now))
    for shard, requests in by_shard.items():
        intake.send_all(shard, requests)
    return intake.answered()


class _Intake:
    """One ``enqueue``: what has been answered so far, and what has failed."""

    def __init__(self, link: Link, not_after: str, count: int) -> None:
        self._link = link
        self._not_after = not_after
        self._answers: list[Enqueued | None] = [None] * count
        self._failures: list[BrokerUnavailable | QueueFull] = []
        self._until = monotonic() + _PATIENCE

    def send_all(self, shard: Shard, requests: Sequence[_Request]) -> None:
        """Send the jobs of one shard; what fails is kept for :meth:`answered`."""
        for portion in steps(requests, _MOST_JOBS, size=_cost):
            if self._failures and monotonic() > self._until:
                return
            try:
                for queue in dict.fromkeys(request.job.queue for request in portion):
                    self._link.know(queue)
                self._send(shard, portion)
            except (BrokerUnavailable, QueueFull) as error:
                self._failures.append(error)
                return

    def answered(self) -> list[Enqueued]:
        """The answers.

        Raises:
            BrokerUnavailable: No job was answered for, and some may be stored.
            QueueFull: No job was stored.
        """
        answers = [answer for answer in self._answers if answer is not None]
        if len(answers) == len(self._answers):
            return answers
        # One that may have stored something says more than one that has not.
        failure = max(self._failures, key=lambda error: getattr(error, "maybe_accepted", False))
        if not answers:
            raise failure
        status: Literal["unknown", "refused"] = "refused" if isinstance(failure, QueueFull) else "unknown"
        missing = Enqueued(status=status, problem=f"{type(failure).__name__}: {failure}")
        return [answer or missing for answer in self._answers]

    def _send(self, shard: Shard, requests: Sequence[_Request]) -> None:
        """Send jobs of one shard until all have been dealt with: a script that has had much to do leaves the last ones."""
        while requests:
            ids = {request.job.id for request in requests}
            plain = len(ids) == len(requests) and not any(request.options for request in requests)
            arguments: list[str | bytes] = [self._not_after, "plain" if plain else "mixed"]
            for request in requests:
                job = request.job
                arguments += (job.id, f"s{job.priority.rank}{job.queue}", request.options, request.rest)
            now_us, done, *others = self._link.call("enqueue", shard, *arguments, replicate=True)
            self._take(requests[:done], int(now_us), others)
            requests = requests[done:]

    def _take(self, requests: Sequence[_Request], now_us: int, others: Sequence[Any]) -> None:
        there = {others[at] - 1: others[at + 1 : at + 4] for at in range(0, len(others), 4)}
        for number, request in enumerate(requests):
            found = there.get(number)
            self._answers[request.index] = _created(request.job, now_us) if found is None else _existing(request.job, *found)


def _request(index: int, new: NewJob, now: datetime | None) -> _Request:
    if now is not None:
        if new.delay is not None and _is_far(new.delay):
            new = replace(new, delay=None, scheduled_at=now + new.delay)
        if new.expires_in is not None and _is_far(new.expires_in):
            new = replace(new, expires_in=None, expires_at=now + new.expires_in)
    if new.scheduled_at is not None and new.scheduled_at < _EARLIEST:
        new = replace(new, scheduled_at=_EARLIEST)
    if new.expires_at is not None and new.expires_at < _EARLIEST:
        new = replace(new, expires_at=_EARLIEST)
    job = lifecycle.accept(new, EPOCH)
    rest = rest_of(job, keeps=new.idempotency is not None)
    options = _options(new)
    return _Request(index, job, _encoder.encode(options) if options else b"", rest, len(rest) + len(options) * _OPTION_COST)


def _options(new: NewJob) -> dict[str, Any]:
    """What the script is to do for a job beside putting it where it belongs."""
    options: dict[str, Any] = {}
    if new.scheduled_at is not None:
        options["due"] = to_us(new.scheduled_at)
    elif new.delay:
        options["due_in"] = duration_us(new.delay)
    if new.expires_at is not None:
        options["expires"] = to_us(new.expires_at)
    elif new.expires_in is not None:
        options["expires_in"] = duration_us(new.expires_in)
    if new.unique_key is not None:
        options["unique"] = new.unique_key
        if new.unique_for is not None:
            options["lasts"] = duration_us(new.unique_for)
    if new.idempotency is not None:
        options["key"] = new.idempotency.key
        options["fingerprint"] = new.idempotency.fingerprint
    return options


def _cost(request: _Request) -> int:
    return request.cost


def _is_far(duration: timedelta | None) -> bool:
    """Whether *duration* is too long to be told from an instant, so that it has to be made one beforehand."""
    return duration is not None and duration >= _FAR


def _created(job: Job, now_us: int) -> Enqueued:
    job = absolute(job, now_us)
    if job.scheduled_at is not None and job.scheduled_at <= job.created_at and job.state is JobState.SCHEDULED:
        job = replace(job, state=JobState.QUEUED)
    return Enqueued(status="created", job=job)


def _existing(wanted: Job, why: bytes, job_id: bytes, look: Sequence[Any] | None) -> Enqueued:
    if why == b"late":
        return Enqueued(status="refused", problem="late")
    known = read_look(job_id.decode(), look)
    job = None if known is None else known.job
    if why == b"conflict":
        return Enqueued(status="refused", job=job, problem="idempotency_conflict")
    if why == b"id" and known is not None and known.readable and (known.job.type, known.job.queue) != (wanted.type, wanted.queue):
        return Enqueued(status="refused", job=job, problem="id_conflict")
    return Enqueued(status="existing", job=job)


# Requeue -------------------------------------------------------------------------------------------------------------------------------


def requeue(link: Link, dead: Job, *, not_after: datetime | None) -> Requeued:
    """See ``Producer.requeue``."""
    link.know(dead.queue)
    created_at = max(dead.created_at, _EARLIEST)
    answer = _requeue(link, dead, lifecycle.requeue(replace(dead, created_at=created_at), created_at), not_after)
    if answer == b"unborn":
        answer = _requeue(link, dead, lifecycle.requeue(dead, EPOCH), not_after)
    if answer == b"newer":
        raise IncompatibleData(f"the record of job {dead.id} was written by a newer release: upgrade jobqueue")
    outcome: Requeued = answer.decode()
    return outcome


def _requeue(link: Link, dead: Job, job: Job, not_after: datetime | None) -> Any:
    is_born = job.created_at >= _EARLIEST
    held: int | str = ""
    if job.unique_for is not None:
        held = to_us(dead.created_at) + duration_us(job.unique_for)
    return link.call(
        "requeue",
        link.shard_of(job.queue),
        "" if not_after is None else to_us(not_after),
        to_us(job.created_at) if is_born else "",
        job.id,
        Place("s", job.priority, job.queue).code,
        dead.deaths,
        job.unique_key or "",
        held,
        rest_of(job, keeps=False),
        _encoder.encode(["requeued", {"id": job.id, "type": job.type, "queue": job.queue}]),
        replicate=True,
    )
