"""Pieces of paths that name things: what cannot name one leads nowhere."""

from __future__ import annotations

from typing import Any, Final

from falcon.routing import BaseConverter

from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import QUEUE_PATTERN, check_job_id, check_queue

__all__ = ["CONVERTERS", "PARAMETERS"]


class _JobId(BaseConverter):
    """A UUID, in its canonical form."""

    def convert(self, value: str) -> str | None:
        """The id; None for what is none, and then there is no such path."""
        try:
            return check_job_id(value)
        except InvalidJob:
            return None


class _Name(BaseConverter):
    """The name of a queue or a schedule: both follow one pattern."""

    def convert(self, value: str) -> str | None:
        """The name; None for what is none."""
        try:
            return check_queue(value)
        except InvalidJob:
            return None


CONVERTERS: Final[dict[str, type[BaseConverter]]] = {"job": _JobId, "name": _Name}
"""What routes call them -> what reads them."""

PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "job_id": {"schema": {"type": "string", "format": "uuid"}, "description": "The job's id."},
    "name": {"schema": {"type": "string", "pattern": f"^{QUEUE_PATTERN}$"}, "description": "Its name."},
}
"""What OpenAPI says of them."""
