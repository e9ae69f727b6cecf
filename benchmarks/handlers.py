"""The handlers that benchmarks run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec

from jobqueue_core import handler, lifespan

from .lag import Probe

__all__ = ["PAYLOAD", "Mail", "Ping", "arrivals", "probe"]


class Mail(msgspec.Struct):
    """A payload of some 100 bytes."""

    to: str
    subject: str
    number: int
    text: str = ""


class Ping(msgspec.Struct):
    """When a job was sent, by the clock that all processes of a machine share."""

    sent: float


PAYLOAD = {"to": "somebody@example.com", "subject": "Welcome", "number": 12345, "text": "a few words, as in life"}

probe = Probe()
arrivals: list[float] = []
"""How many seconds after it was sent each ping's handler started."""


@lifespan
async def watched() -> AsyncIterator[None]:
    task = asyncio.create_task(probe.run())
    yield
    task.cancel()


@handler("async", max_retries=0)
async def do_nothing(_payload: Mail) -> None:
    """A no-op in the event loop."""


@handler("thread", max_retries=0)
def do_nothing_in_a_thread(_payload: Mail) -> None:
    """A no-op in a thread."""


@handler("sleep", max_retries=0)
async def sleep(_payload: Mail) -> None:
    """A millisecond's wait, as for a quick database."""
    await asyncio.sleep(0.001)


@handler("ping", max_retries=0)
async def ping(payload: Ping) -> None:
    """Note how long it took to get here."""
    arrivals.append(time.monotonic() - payload.sent)


@handler("ping.thread", max_retries=0)
def ping_in_a_thread(payload: Ping) -> None:
    """As ``ping``, in a thread."""
    arrivals.append(time.monotonic() - payload.sent)
