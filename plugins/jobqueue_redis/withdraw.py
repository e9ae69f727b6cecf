"""Ending jobs that nobody has: those that wait, are scheduled or retrying."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import Job, JobState, check_job_id

from .steps import steps
from .times import to_us
from .values import EPOCH, Known, bury, extra, rest_of

if TYPE_CHECKING:
    from jobqueue_core.attempt import DeadLetter

    from .keys import Place, Shard
    from .link import Link

__all__ = ["Withdrawal", "bury_entry", "bury_member", "withdraw"]

_log = logging.getLogger("jobqueue.redis")
_MOST_JOBS: Final = 100
"""How many jobs one script takes: about 2 ms of the server's time."""
_MOVED, _DONE = 0, 1

_encoder = msgspec.msgpack.Encoder()

Withdrawal = tuple[Known, Job, "DeadLetter | None"]
"""A job as it is known, as it is afterwards (computed as if the time were ``EPOCH``), and the dead letter if it becomes one."""
Telling = Callable[[Sequence[Withdrawal]], tuple[str, dict[str, Any]]]


def withdraw(
    link: Link, shard: Shard, withdrawals: Sequence[Withdrawal], *, ttl_ms: int, purged: str = "", event: Telling | None = None
) -> list[bool]:
    """End jobs of one shard, each only if it is still where it is known to be; for each, whether that was so (now, or at an earlier try of the call).

    Args:
        link: The server.
        shard: Whose jobs.
        withdrawals: What is to become of which job.
        ttl_ms: How long finished jobs are kept.
        purged: The queue that is being purged, which is told as an event.
        event: Makes what else to tell of those that are ended: its kind, and facts. It is given all of them, as many as go into one call; of ``jobs``
            among the facts those are left out that were not ended.
    """
    answers: list[bool] = []
    for some in steps(withdrawals, _MOST_JOBS, size=_size):
        arguments: list[str | bytes | int] = [ttl_ms, purged, b"" if event is None else _encoder.encode(event(some))]
        for one in some:
            arguments += _arguments(*one)
        for (known, _, letter), answer in zip(some, link.call("withdraw", shard, *arguments), strict=True):
            answers.append(answer != _MOVED)
            if answer == _DONE and letter is not None:
                _log.warning("%.80r of queue %s became dead letter %s: %s", known.entry, letter.job.queue, letter.job.id, letter.error)
    return answers


def _arguments(known: Known, after: Job, letter: DeadLetter | None) -> tuple[str | bytes | int, ...]:
    if known.place is None:
        msg = f"job {known.job.id} is nowhere to be withdrawn from"
        raise ValueError(msg)
    due: str | int = ""
    if known.entry is None and known.readable:
        # Each retry makes it later: what has been retried meanwhile is not taken for what is known.
        due = to_us(known.job.scheduled_at or EPOCH)
    return (
        known.place.code,
        (known.entry or known.job.id).encode("utf-8", "surrogateescape"),
        due,
        after.id,
        "d" if after.state is JobState.DEAD else "x",
        extra(after, keeps=known.keeps),
        rest_of(after, keeps=known.keeps),
        b"" if letter is None else _encoder.encode(letter),
    )


def _size(withdrawal: Withdrawal) -> int:
    _, after, letter = withdrawal
    raw = b"" if letter is None or letter.raw is None else letter.raw
    return len(after.payload_json) + len(after.result_json or b"") + len(raw)


def bury_member(place: Place, member: bytes, record: bytes | None) -> Withdrawal:
    """What becomes of a member of a sorted set that is no delayed job: its *record* is missing, or cannot be read."""
    problem = "its record is missing" if record is None else "its record cannot be read"
    text = member.decode("utf-8", "surrogateescape")
    letter = bury(place, EPOCH, problem, raw=record, job_id=text if _is_id(text) else None)
    return Known(job=letter.job, place=place, entry=text, readable=False), letter.job, letter


def bury_entry(place: Place, entry: str, fields: Sequence[bytes] | None, *, job_id: str) -> Withdrawal:
    """What becomes of a job in a stream whose entry is missing, or whose *fields* cannot be read."""
    problem = "its entry is missing from the stream" if fields is None else "its entry cannot be read"
    raw = None if fields is None else fields[1] if len(fields) == 2 else _encoder.encode(fields)
    letter = bury(place, EPOCH, problem, raw=raw, job_id=job_id)
    return Known(job=letter.job, place=place, entry=entry, readable=False), letter.job, letter


def _is_id(text: str) -> bool:
    try:
        return check_job_id(text) == text
    except InvalidJob:
        return False
