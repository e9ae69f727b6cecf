"""Handlers that do what they should not, for a rig: ``rig.add_handlers("hostile_handlers")``.

They note each start as the rig's own do: in a file opened with O_APPEND, outside of the queue.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Any

from jobqueue_core import JobContext, handler

RUNS = Path(os.environ["RIG_RUNS"])
_PATIENCE = 30.0
_leaks: list[object] = []


def note(ctx: JobContext, *facts: object, file: str = "runs") -> None:
    line = " ".join(map(str, (ctx.job.id, ctx.run, ctx.attempt, os.getpid(), *facts)))
    fd = os.open(RUNS.with_name(file), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


def wait_for_file(name: str) -> None:
    """Wait until the test has made a file, whatever anybody asks of this handler meanwhile."""
    deadline = time.monotonic() + _PATIENCE
    while not RUNS.with_name(name).exists() and time.monotonic() < deadline:
        time.sleep(0.005)


def raise_as_told(how: str) -> None:
    match how:
        case "SystemExit":
            raise SystemExit(3)
        case "KeyboardInterrupt":
            raise KeyboardInterrupt
        case "BaseException":
            raise BaseException("told to")  # noqa: TRY002 - it is what the job asks for
        case "GeneratorExit":
            raise GeneratorExit
        case "os._exit":
            os._exit(0)
        case _:
            raise ValueError(how)


@handler("hostile.raise.thread", max_retries=0)
def raise_in_thread(payload: dict[str, Any], ctx: JobContext) -> None:
    note(ctx)
    raise_as_told(payload["how"])


@handler("hostile.raise.async", max_retries=0)
async def raise_in_loop(payload: dict[str, Any], ctx: JobContext) -> None:
    note(ctx)
    raise_as_told(payload["how"])


@handler("hostile.gate")
def gate(payload: dict[str, list[int]] | None, ctx: JobContext) -> str:
    """Its first run ends when the test lets it; a run fails if the payload says so."""
    note(ctx)
    if ctx.run == 1:
        wait_for_file("open")
    if payload and ctx.run in payload["failing_runs"]:
        raise ValueError(f"run {ctx.run}")
    return f"run {ctx.run}"


@handler("hostile.gate.async")
async def gate_in_loop(payload: Any, ctx: JobContext) -> None:
    """Its first run ends when the test lets it."""
    note(ctx)
    while ctx.run == 1 and not RUNS.with_name("open").exists():
        await asyncio.sleep(0.005)


@handler("hostile.hang")
async def hang(payload: Any, ctx: JobContext) -> None:
    """Its first run does not end; the others do at once."""
    note(ctx)
    if ctx.run == 1:
        await asyncio.sleep(_PATIENCE)


@handler("hostile.single", concurrency=1)
async def single(payload: dict[str, float], ctx: JobContext) -> None:
    """One at a time: a worker holds the next one unstarted."""
    note(ctx)
    await asyncio.sleep(payload["seconds"])


@handler("hostile.segfault")
def segfault(payload: Any, ctx: JobContext) -> None:
    """Take the process down as soon as the test lets it."""
    note(ctx)
    wait_for_file(f"crash.{ctx.run}")
    ctypes.string_at(0)


@handler("hostile.abort")
def abort(payload: dict[str, float], ctx: JobContext) -> None:
    """Take the process down after a while, in which others of its kind could start."""
    note(ctx)
    time.sleep(payload["seconds"])
    os.abort()


@handler("hostile.block")
async def block(payload: dict[str, float], ctx: JobContext) -> str:
    """Keep the event loop for itself."""
    note(ctx)
    time.sleep(payload["seconds"])  # noqa: ASYNC251 - the fault
    return "kept"


@handler("hostile.leak")
def leak(payload: dict[str, float], ctx: JobContext) -> None:
    """Leave behind a file, a thread and memory, and say how much of each this process has."""
    fds, threads = sum(1 for _ in Path("/proc/self/fd").iterdir()), threading.active_count()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    note(ctx)
    note(ctx, fds, threads, resident, file="sizes")
    _leaks.append(os.open(os.devnull, os.O_RDONLY))
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    _leaks.append(os.urandom(1024) * int(payload["kibibytes"]))
    time.sleep(payload["seconds"])
