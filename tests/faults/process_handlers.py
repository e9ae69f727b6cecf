"""Handlers in processes of their own, for a rig: ``rig.add_handlers("hostile_handlers", "process_handlers")``.

The process that they note is the handler process, not the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import mmap
import os
import signal
import subprocess
import sys
import time
from typing import Any

from hostile_handlers import RUNS, note, raise_as_told, wait_for_file

from jobqueue_core import JobContext, RetryPolicy, handler

AT_ONCE = RetryPolicy(base="10ms", jitter="none")
MEBIBYTE = 1 << 20
_PATIENCE = 60.0
_DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


@handler("process.sleep", isolation="process")
def sleep(payload: dict[str, float], ctx: JobContext) -> None:
    note(ctx)
    time.sleep(payload["seconds"])


@handler("process.gate", isolation="process")
def gate(payload: Any, ctx: JobContext) -> None:
    """Its first run ends when the test lets it."""
    note(ctx)
    if ctx.run == 1:
        wait_for_file("open")


@handler("process.gate.async", isolation="process")
async def gate_in_loop(payload: Any, ctx: JobContext) -> None:
    note(ctx)
    while ctx.run == 1 and not RUNS.with_name("open").exists():
        await asyncio.sleep(0.005)


@handler("process.segfault", isolation="process")
def segfault(payload: Any, ctx: JobContext) -> None:
    note(ctx)
    ctypes.string_at(0)


@handler("process.raise", isolation="process", max_retries=0)
def raise_it(payload: dict[str, str], ctx: JobContext) -> None:
    note(ctx)
    raise_as_told(payload["how"])


@handler("process.raise.async", isolation="process", max_retries=0)
async def raise_in_loop(payload: dict[str, str], ctx: JobContext) -> None:
    note(ctx)
    raise_as_told(payload["how"])


@handler("process.hang", isolation="process", grace="300ms")
def hang(payload: Any, ctx: JobContext) -> None:
    """Its first run hears nothing and does not end, nor does what it has started; the others end at once."""
    note(ctx)
    if ctx.run == 1:
        _never_end(payload["how"], ctx)


@handler("process.hang.async", isolation="process", grace="300ms")
async def hang_in_loop(payload: Any, ctx: JobContext) -> None:
    note(ctx)
    deadline = time.monotonic() + _PATIENCE
    while ctx.run == 1 and time.monotonic() < deadline:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(0.01)


@handler("process.timeout", isolation="process", timeout="500ms", grace="300ms", max_retries=0)
def run_into_timeout(payload: dict[str, str], ctx: JobContext) -> None:
    note(ctx)
    _never_end(payload["how"], ctx)


@handler("process.polite", isolation="process", grace="20s")
def polite(payload: Any, ctx: JobContext) -> None:
    """End when asked to."""
    note(ctx)
    deadline = time.monotonic() + _PATIENCE
    while not ctx.cancelled and time.monotonic() < deadline:
        time.sleep(0.01)
    note(ctx, ctx.cancelled, file="asked")
    raise InterruptedError


@handler("process.allocate", isolation="process", memory="256MiB", max_retries=1, retry=AT_ONCE)
def allocate(payload: Any, ctx: JobContext) -> None:
    note(ctx)
    taken = []
    while True:
        taken.append(bytearray(16 * MEBIBYTE))


@handler("process.grow", isolation="process", memory="256MiB", max_retries=1, retry=AT_ONCE)
def grow(payload: Any, ctx: JobContext) -> None:
    """Grow by memory that no allocation asks for: the pages of a mapping that is shared."""
    note(ctx)
    size = 768 * MEBIBYTE
    mapping = mmap.mmap(-1, size)
    for at in range(0, size, 16 * MEBIBYTE):
        mapping[at : at + 16 * MEBIBYTE] = b"x" * (16 * MEBIBYTE)
        time.sleep(0.05)
    note(ctx, file="grown")


def _never_end(how: str, ctx: JobContext) -> None:
    deadline = time.monotonic() + _PATIENCE
    match how:
        case "sleep":
            time.sleep(_PATIENCE)
        case "gil":
            # A call into C that lets no other thread of Python run, as a hopeless regular expression does.
            ctypes.PyDLL(None).sleep(int(_PATIENCE))
        case "deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            while time.monotonic() < deadline:
                with contextlib.suppress(BaseException):
                    time.sleep(0.01)
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(_PATIENCE)
        case "children":
            child = subprocess.Popen([sys.executable, "-c", _DEAF])
            note(ctx, child.pid, file="children")
            child.wait()
        case _:
            raise ValueError(how)
