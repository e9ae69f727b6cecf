"""Filters of lists, as query strings write them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

__all__ = ["Fingerprint", "Queue", "Type"]

Type = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:\-]{0,127}$", description="Only of this job type.")]
Queue = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$", description="Only of this queue.")]
Fingerprint = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_\-]{1,64}$", description="Only deaths by this error, as the groups name it.")]
