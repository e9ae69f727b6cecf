"""Jobs to run, made without a client."""

from __future__ import annotations

import msgspec

from jobqueue_core.job import NewJob, new_job_id

from . import handlers

__all__ = ["new_jobs"]


def new_jobs(job_type: str, count: int) -> list[NewJob]:
    """*count* jobs with a payload of some 100 bytes."""
    payload = msgspec.json.encode(handlers.PAYLOAD)
    return [NewJob(id=new_job_id("default"), type=job_type, payload_json=payload) for _ in range(count)]
