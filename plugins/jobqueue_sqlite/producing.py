"""Enqueue and requeue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from jobqueue_core import lifecycle
from jobqueue_core.broker import Enqueued, Requeued
from jobqueue_core.job import Idempotency, Job, JobState, NewJob

from .records import JobRow, rows_by_id, show
from .statements import statement
from .times import duration_us, to_us

if TYPE_CHECKING:
    from .ledger import Ledger

__all__ = ["enqueue", "requeue"]

_IDEMPOTENCY_KEPT: Final = timedelta(hours=24)


def enqueue(ledger: Ledger, jobs: Sequence[NewJob], *, not_after: datetime | None) -> list[Enqueued]:
    """See ``Producer.enqueue``."""
    if not_after is not None and ledger.now > not_after:
        return [Enqueued(status="refused", problem="late") for _ in jobs]
    intake = _Intake(ledger, [job.id for job in jobs])
    answers = [intake.take(job) for job in jobs]
    intake.write()
    return answers


def requeue(ledger: Ledger, dead: Job, *, not_after: datetime | None) -> Requeued:
    """See ``Producer.requeue``."""
    if not_after is not None and ledger.now > not_after:
        return "late"
    keys = _Keys(ledger)
    row = keys.row(dead.id)
    if row is not None:
        if row.state == JobState.COMPLETED:
            return "completed"
        if row.state != JobState.DEAD or row.deaths != dead.deaths:
            return "already"
    if dead.unique_key is not None:
        holder = keys.holder(dead.queue, dead.unique_key)
        if holder is not None and holder.id != dead.id:
            return "key_taken"
        keys.take(dead)
    job = lifecycle.requeue(dead, ledger.now)
    if row is None:
        ledger.insert(job)
    else:
        ledger.place(row.number, row.state, job)
    keys.write()
    ledger.event("requeued", id=job.id, type=job.type, queue=job.queue)
    return "requeued"


class _Keys:
    """Unique and idempotency keys, as they stand in the database and as this call changes them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._unique: dict[tuple[str, str], dict[str, Any]] = {}
        self._idempotency: dict[str, dict[str, Any]] = {}

    def row(self, job_id: str) -> JobRow | None:
        """The row of a job; None when it is unknown."""
        return rows_by_id(self._ledger.connection, [job_id]).get(job_id)

    def taken(self, queue: str, key: str) -> str | None:
        """The id of the job of this call that has taken a unique key."""
        held = self._unique.get((queue, key))
        return None if held is None else str(held["job_id"])

    def holder(self, queue: str, key: str) -> JobRow | None:
        """The job of a former call that holds a unique key; None when nobody does, or its holder is gone."""
        held = self._ledger.connection.execute(statement("unique_keys_get"), {"queue": queue, "key": key}).fetchone()
        if held is None:
            return None
        job_id, until_us = held
        row = self.row(job_id)
        if row is None or (JobState(row.state).finished and (until_us is None or until_us <= self._ledger.now_us)):
            return None
        return row

    def take(self, job: Job) -> int | None:
        """Take the job's unique key; until when it is held whatever becomes of the job."""
        if job.unique_key is None:
            return None
        until_us = None if job.unique_for is None else to_us(job.created_at) + duration_us(job.unique_for)
        self._unique[job.queue, job.unique_key] = {"queue": job.queue, "key": job.unique_key, "job_id": job.id, "until_us": until_us}
        return until_us

    def remembered(self, idempotency: Idempotency) -> tuple[str, bool] | None:
        """The job that an idempotency key made, and whether it came with the same body; None when the key is unknown."""
        held = self._idempotency.get(idempotency.key)
        if held is not None:
            return held["job_id"], held["fingerprint"] == idempotency.fingerprint
        wanted = {"key": idempotency.key, "now_us": self._ledger.now_us}
        found = self._ledger.connection.execute(statement("idempotency_keys_get"), wanted).fetchone()
        return None if found is None else (found[0], found[1] == idempotency.fingerprint)

    def remember(self, idempotency: Idempotency | None, job_id: str) -> int | None:
        """Remember that the key stands for the job; until when."""
        if idempotency is None:
            return None
        until_us = self._ledger.now_us + duration_us(_IDEMPOTENCY_KEPT)
        self._idempotency[idempotency.key] = {
            "key": idempotency.key,
            "fingerprint": idempotency.fingerprint,
            "job_id": job_id,
            "until_us": until_us,
        }
        return until_us

    def write(self) -> None:
        """Write what was taken."""
        for name, rows in (("unique_keys_put", self._unique), ("idempotency_keys_put", self._idempotency)):
            if rows:
                self._ledger.connection.executemany(statement(name), rows.values())


class _Intake:
    """One ``enqueue``: decides job by job, and lets earlier jobs hold ids and keys against later ones."""

    def __init__(self, ledger: Ledger, job_ids: Sequence[str]) -> None:
        self._ledger = ledger
        self._keys = _Keys(ledger)
        self._rows = rows_by_id(ledger.connection, job_ids)
        self._created: dict[str, Job] = {}

    def take(self, new: NewJob) -> Enqueued:
        """Store *new*, or say what stands in its way."""
        if new.idempotency is not None and (found := self._keys.remembered(new.idempotency)) is not None:
            job_id, same = found
            job = self._created.get(job_id) or self._stored(job_id)
            if job is not None:
                return Enqueued(status="existing", job=job) if same else Enqueued(status="refused", job=job, problem="idempotency_conflict")
        if (job := self._known(new.id)) is not None:
            if (job.type, job.queue) != (new.type, new.queue):
                return Enqueued(status="refused", job=job, problem="id_conflict")
            return Enqueued(status="existing", job=job)
        if new.unique_key is not None and (job := self._holder(new.queue, new.unique_key)) is not None:
            self._keys.remember(new.idempotency, job.id)
            return Enqueued(status="existing", job=job)
        return Enqueued(status="created", job=self._create(new))

    def write(self) -> None:
        """Write the keys taken; the jobs are in the ledger."""
        self._keys.write()

    def _create(self, new: NewJob) -> Job:
        job = lifecycle.accept(new, self._ledger.now)
        unique_until_us = self._keys.take(job)
        idempotent_until_us = self._keys.remember(new.idempotency, job.id)
        self._ledger.insert(job, held_until_us=max(unique_until_us or 0, idempotent_until_us or 0) or None)
        self._ledger.count(job.queue, "enqueued")
        self._created[job.id] = job
        return job

    def _known(self, job_id: str) -> Job | None:
        if (job := self._created.get(job_id)) is not None:
            return job
        row = self._rows.get(job_id)
        return None if row is None else show(row, self._ledger.now)

    def _stored(self, job_id: str) -> Job | None:
        row = self._keys.row(job_id)
        return None if row is None else show(row, self._ledger.now)

    def _holder(self, queue: str, key: str) -> Job | None:
        taken = self._keys.taken(queue, key)
        if taken is not None:
            return self._created[taken]
        row = self._keys.holder(queue, key)
        return None if row is None else show(row, self._ledger.now)
