"""The jobs of the demonstration, and how each is expected to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from jobqueue_core import JobState


@attrs.frozen(kw_only=True)
class Step:
    """One job to enqueue."""

    label: str
    type: str
    payload: dict[str, Any]
    expected: JobState = JobState.COMPLETED


def plan(docs: Path) -> list[Step]:
    """A checksum for each file under *docs*, and one or two jobs of each other type."""
    orders = Path(__file__).with_name("orders.csv")
    files = [path for path in sorted(docs.rglob("*")) if path.is_file()]
    return [
        *(Step(label=str(path.relative_to(docs)), type="files.checksum", payload={"path": str(path)}) for path in files),
        Step(label="to user@example.com", type="email.send", payload={"to": "user@example.com", "subject": "Hello", "body": "A job sent this."}),
        Step(label=orders.name, type="csv.summarise", payload={"path": str(orders)}),
        Step(label="fails twice", type="flaky.fetch", payload={"url": "https://example.com/slow", "failures": 2}),
        Step(label="always fails", type="flaky.fetch", payload={"url": "https://example.com/gone", "failures": 100}, expected=JobState.DEAD),
    ]
