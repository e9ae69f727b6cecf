"""Handlers that do not end when they should, for a rig: ``rig.add_handlers("hostile_handlers", "endless_handlers")``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from hostile_handlers import note, wait_for_file

from jobqueue_core import JobContext, RetryPolicy, handler

AT_ONCE = RetryPolicy(base="10ms", jitter="none")


@handler("endless.thread", timeout="300ms", grace="200ms", max_retries=1, retry=AT_ONCE)
def loop_in_thread(payload: Any, ctx: JobContext) -> None:
    note(ctx, time.monotonic(), file="endless")
    while True:
        time.sleep(0.01)


@handler("endless.blocked", timeout="300ms", grace="200ms", max_retries=1, retry=AT_ONCE)
def blocked_in_c(payload: Any, ctx: JobContext) -> None:
    note(ctx, time.monotonic(), file="endless")
    time.sleep(3600)


@handler("endless.deaf", timeout="300ms", grace="200ms", max_retries=1, retry=AT_ONCE)
def deaf(payload: Any, ctx: JobContext) -> None:
    note(ctx, time.monotonic(), file="endless")
    while True:
        with contextlib.suppress(BaseException):
            while True:
                time.sleep(0.01)


@handler("endless.async", timeout="300ms", grace="200ms", max_retries=1, retry=AT_ONCE)
async def deaf_in_loop(payload: Any, ctx: JobContext) -> None:
    note(ctx, time.monotonic(), file="endless")
    while True:
        with contextlib.suppress(BaseException):
            while True:
                await asyncio.sleep(0.01)


@handler("endless.late.thread", timeout="300ms", grace="200ms", max_retries=0)
def late_in_thread(payload: Any, ctx: JobContext) -> str:
    """Return at last, long after it was given up."""
    note(ctx)
    with contextlib.suppress(BaseException):
        wait_for_file("open")
    with contextlib.suppress(BaseException):
        wait_for_file("open")
    note(ctx, file="late")
    return "late"


@handler("endless.late.async", timeout="300ms", grace="200ms", max_retries=0)
async def late_in_loop(payload: Any, ctx: JobContext) -> str:
    note(ctx)
    from hostile_handlers import RUNS

    while not RUNS.with_name("open").exists():
        with contextlib.suppress(BaseException):
            await asyncio.sleep(0.01)
    note(ctx, file="late")
    return "late"


@handler("endless.long", timeout="3s", grace="200ms", max_retries=0)
def long_in_thread(payload: Any, ctx: JobContext) -> None:
    """Endless within a timeout that is longer than a lease."""
    note(ctx)
    while True:
        time.sleep(0.01)
