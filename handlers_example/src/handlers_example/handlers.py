"""The handlers of this package: each converts a payload into a result, and says how it wants to be run."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Literal, cast

import attrs

from handlers_example.csv_summary import CsvError, summarise
from handlers_example.mail import Email, InvalidEmail, Mailer, Undeliverable, mailer_from_environment
from jobqueue_core import Discard, JobContext, RetryPolicy, handler, lifespan

CHUNK: Final = 1 << 20
"""Bytes read at a time: small enough that a cancel is obeyed promptly."""


@lifespan
async def resources() -> AsyncIterator[Mailer]:
    """Read the mail settings once a process, before its first job; handlers find what this yields in ``ctx.resources``."""
    yield mailer_from_environment(os.environ)


@handler("email.send", priority="high", max_retries=5, timeout="30s", discard_on=(InvalidEmail, Undeliverable))
async def send_email(payload: Email, ctx: JobContext) -> dict[str, Any]:
    """Send an e-mail: by SMTP if SMTP_URL is set, else into a Maildir."""
    mailer = cast("Mailer", ctx.resources)
    message = payload.compose(sender=mailer.sender, message_id=ctx.job.id)
    # A job may be run again after its message went out (the worker died before it could say so). The Message-ID is the job's, so that whoever
    # receives it can tell; only a second or later run can be such a repeat.
    delivery = await asyncio.to_thread(mailer.deliver, message, maybe_repeated=ctx.run > 1)
    return {"message_id": str(message["Message-ID"]), "delivered_to": delivery.delivered_to, "refused": delivery.refused}


@attrs.frozen(kw_only=True)
class Checksum:
    """The payload of ``files.checksum``."""

    path: str
    algorithm: Literal["blake2b", "md5", "sha1", "sha256", "sha512"] = "sha256"


@handler("files.checksum", timeout="10m")
def checksum(payload: Checksum, ctx: JobContext) -> dict[str, Any]:
    """Compute the checksum of a file, reporting progress."""
    path = existing_file(payload.path)
    size = path.stat().st_size
    digest = hashlib.new(payload.algorithm, usedforsecurity=False)
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            stop_if_asked(ctx)
            digest.update(chunk)
            done += len(chunk)
            ctx.progress(done / max(size, 1), f"{done} of {size} bytes")
    return {"path": payload.path, payload.algorithm: digest.hexdigest(), "size": done}


@attrs.frozen(kw_only=True)
class CsvFile:
    """The payload of ``csv.summarise``; without a *delimiter* the header line tells."""

    path: str
    delimiter: str | None = None


@handler("csv.summarise", timeout="30m", discard_on=(CsvError,))
def summarise_csv(payload: CsvFile, ctx: JobContext) -> dict[str, Any]:
    """Summarise each column of a CSV file: its type, nulls, least, greatest and mean."""

    def progress(fraction: float, rows: int) -> None:
        stop_if_asked(ctx)
        ctx.progress(fraction, f"{rows} rows")

    return {"path": payload.path, **summarise(existing_file(payload.path), delimiter=payload.delimiter, progress=progress)}


@attrs.frozen(kw_only=True)
class Fetch:
    """The payload of ``flaky.fetch``: the first *failures* attempts fail."""

    url: str = "https://example.com/"
    failures: int = 0


@handler("flaky.fetch", max_retries=3, timeout="10s", retry=RetryPolicy(base="200ms", max="2s", jitter="none"))
async def fetch(payload: Fetch, ctx: JobContext) -> dict[str, Any]:
    """Pretend to fetch a URL, failing as often as the payload says: shows retries and dead letters."""
    ctx.logger.info("attempt %d of at most %d", ctx.attempt, ctx.max_retries + 1)
    if ctx.attempt <= payload.failures:
        # Any exception is a failure: the job is tried again after a delay, and becomes a dead letter when its retries are spent.
        raise ConnectionError(f"attempt {ctx.attempt} to fetch {payload.url} failed: the connection was reset")
    return {"url": payload.url, "attempts": ctx.attempt}


def existing_file(name: str) -> Path:
    """The regular file called *name*.

    Raises:
        Discard: There is none. Waiting would not make one, so the job is not tried again.
    """
    path = Path(name)
    if path.is_file():
        return path
    problem = "is a directory" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
    raise Discard(f"{name!r} {problem} (relative paths start at the worker's folder, {Path.cwd()})")


def stop_if_asked(ctx: JobContext) -> None:
    """End a run that was cancelled, has timed out, or must make way for a shutdown.

    A thread cannot be stopped from outside, so a handler that takes long looks for itself. How the job goes on is the worker's to decide: the
    exception only says that this run did not finish.

    Raises:
        InterruptedError: The run is asked to stop.
    """
    if ctx.cancelled:
        raise InterruptedError("stopped before the end, as asked")
