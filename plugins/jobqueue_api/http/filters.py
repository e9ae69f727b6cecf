"""Filters of lists, as query strings write them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from jobqueue_core.job import JOB_TYPE_PATTERN, QUEUE_PATTERN

__all__ = ["Fingerprint", "Queue", "Type"]

Type = Annotated[str, Meta(pattern=f"^{JOB_TYPE_PATTERN}$", description="Only of this job type.")]
Queue = Annotated[str, Meta(pattern=f"^{QUEUE_PATTERN}$", description="Only of this queue.")]
Fingerprint = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_\-]{1,64}$", description="Only deaths by this error, as the groups name it.")]
