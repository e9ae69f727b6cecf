"""Handlers that run in processes of their own, for tests: another process has to find them by name."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs

from jobqueue_core import Discard, JobContext, Retry, Snooze, handler, lifespan
from jobqueue_core.middleware import Next

left = Path(os.environ.get("ISOLATED_LEFT", os.devnull))


@lifespan
async def resources() -> AsyncIterator[object]:
    """What each process has for itself."""
    ticks = asyncio.create_task(asyncio.sleep(3600))
    yield {"entered_in": os.getpid(), "ticks": ticks}
    await asyncio.to_thread(left.write_text, f"{os.getpid()}")


async def doubled(ctx: JobContext, call_next: Next) -> object:
    """Middleware that other processes find by its name."""
    result = await call_next(ctx)
    return {"inner": result, "middleware_in": os.getpid()}


@attrs.define
class Numbers:
    """A payload."""

    a: int
    b: int


@handler("iso.add", isolation="process", aliases=["iso.plus"])
def add(payload: Numbers, ctx: JobContext) -> dict[str, Any]:
    """Works as elsewhere."""
    ctx.progress(0.5, "halfway")
    ctx.logger.warning("adding in %d", os.getpid())
    return {
        "sum": payload.a + payload.b,
        "pid": os.getpid(),
        "resources": ctx.resources["entered_in"],
        "main": threading.current_thread() is threading.main_thread(),
        "attempt": ctx.attempt,
        "run": ctx.run,
        "worker": ctx.worker_id,
        "retries": ctx.max_retries,
    }


@handler("iso.async", isolation="process")
async def wait(payload: float, ctx: JobContext) -> dict[str, Any]:
    """Also an ``async def``."""
    await asyncio.sleep(payload)
    return {"pid": os.getpid(), "resources": ctx.resources["entered_in"]}


@handler("iso.raise", isolation="process", max_retries=1, discard_on=(KeyError,))
def fail(payload: str) -> None:
    """Every way to end by an exception."""
    raise {
        "value": ValueError("no"),
        "key": KeyError("no"),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "base": BaseException("base"),
        "retry": Retry("again", delay="1h"),
        "snooze": Snooze("1h"),
        "discard": Discard("enough"),
    }[payload]


@handler("iso.die", isolation="process")
def die(payload: str) -> None:
    """Every way to die."""
    match payload:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "fork":
            # What it has forked keeps its connection open.
            multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True).start()
            os._exit(4)


@handler("iso.stubborn", isolation="process", timeout="300ms", grace="200ms", max_retries=0)
def stubborn(payload: str) -> None:
    """Heeds nothing, and has started another process."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(payload).write_text(f"{os.getpid()} {child.pid}")
    while True:
        try:
            time.sleep(600)
        except BaseException:  # noqa: BLE001 - as it says
            continue


@handler("iso.heed", isolation="process", timeout="300ms", grace="10s", max_retries=0)
def heed(payload: object, ctx: JobContext) -> str:
    """Ends when it is asked to."""
    while not ctx.cancelled:
        time.sleep(0.01)
    return "ended as asked"


@handler("iso.until", isolation="process", timeout="1m", grace="300ms")
def until(payload: str, ctx: JobContext) -> str:
    """Runs until a file is there."""
    ctx.progress(0.25, "waiting")
    ctx.logger.error("waiting for the file")
    while not Path(payload).exists():
        time.sleep(0.01)
    return "done"


@handler("iso.cancelled", isolation="process", timeout="1m", max_retries=0)
async def cancelled(payload: str) -> None:
    """An ``async def`` that notes its cancellation."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.to_thread(Path(payload).write_text, "cancelled")
        raise


@handler("iso.memory", isolation="process", memory="150MiB", max_retries=0)
def memory(payload: str) -> int:
    """Takes more than it may."""
    if payload == "at once":
        return len(bytearray(4 << 30))
    held = []
    while True:
        held.append(bytearray(2 << 20))
        time.sleep(0.001)


@handler("iso.leak", isolation="process", memory="150MiB")
def leak(payload: int) -> int:
    """Leaves something behind in its process."""
    _leaked.append(bytearray(payload << 20))
    return os.getpid()


_leaked: list[bytearray] = []


@handler("iso.log", isolation="process")
def log(payload: object) -> None:
    """Logs by a logger of its own."""
    logging.getLogger("acme.client").warning("said by a library")


@handler("iso.result", isolation="process", max_retries=0)
def result(payload: object) -> object:
    """Returns what cannot be stored."""
    return object()


@handler("iso.signals", isolation="process")
def signals(payload: object) -> str:
    """What an operator's ``kill`` does to it."""
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(os.getpid(), one)
    inherited = subprocess.run([sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGTERM).name)"], capture_output=True, check=True)
    return inherited.stdout.decode().strip()


@handler("iso.fork", isolation="process")
def fork(payload: str) -> str:
    """Forks, and lets the copy go on instead of ending it."""
    if os.fork() == 0:
        if payload == "exit":
            sys.exit(0)
        if payload == "raise":
            raise ValueError("in the copy")
        time.sleep(0.2)
        return "of the copy"
    return "of the original"


@handler("iso.echo", isolation="process", timeout="400ms", grace="200ms", max_retries=0)
def echo(payload: object) -> object:
    """Answers with its payload, a little later than a copy would."""
    time.sleep(0.3)
    return payload


@handler("iso.terminate", isolation="process")
def terminate(payload: object) -> int | None:
    """Starts a process and ends it, as pools do."""
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join(10)
    return process.exitcode


@handler("iso.thread", isolation="process")
def leave_thread(payload: object) -> int:
    """Leaves a thread behind that keeps its process from ending."""
    threading.Thread(target=time.sleep, args=(60,)).start()
    return os.getpid()


@handler("iso.session", isolation="process", timeout="500ms", grace="100ms", max_retries=0)
def session(payload: str) -> None:
    """Has started a process that has a session of its own."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    Path(payload).write_text(f"{child.pid}")
    time.sleep(600)


@handler("iso.write", isolation="process")
def write(payload: object) -> None:
    """Writes into every connection it finds."""
    for number in range(3, 64):
        try:
            os.write(number, b"\x00\x00\x00\x04what")
        except OSError:
            continue
    time.sleep(60)
