"""Executions and dead letters on their way to storage.

An entry of ``outbox:history`` holds the executions of one batch of settlements, and is read and removed as a whole where that is possible. Of one
that is larger than what a reader wants a part is read: the first rows that are not gone yet. How many of an entry's rows are gone (acknowledged, or
dropped) is kept beside the streams. A receipt names entry, rows that storage has then, rows of the entry, and shard; so it does not matter who
acknowledges what, how often, and in which order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, assert_never

import attrs
import msgspec
from msgspec.structs import force_setattr, replace

from jobqueue_core.attempt import DeadLetter, Execution
from jobqueue_core.broker import OutboxBatch, OutboxKind, OutboxLag
from jobqueue_core.errors import IncompatibleData

from .keys import Shard
from .steps import steps
from .values import EPOCH, FORMAT, absolute

if TYPE_CHECKING:
    from .link import Link

__all__ = ["acknowledge", "lag", "read", "trim"]

_MOST_BYTES: Final = 16 << 20
"""How much is read at once, whatever the number of rows."""
_ACKNOWLEDGED: Final = 500
"""How many entries one script takes."""
_TRIMS: Final = 200
"""How many scripts a call spends on dropping what is too much: each drops 64 entries."""
_RELATIVE: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Instants before this are relative to the entry's time, as in ``values``."""
_FIELD: Final = str(FORMAT).encode()

_executions = msgspec.msgpack.Decoder(list[Execution])
_dead_letter = msgspec.msgpack.Decoder(DeadLetter)


@attrs.define
class _Reading:
    """What has been read so far."""

    kind: OutboxKind
    limit: int
    rows: list[Any] = attrs.field(factory=list)
    receipt: list[str] = attrs.field(factory=list)
    malformed: int = 0
    bytes_read: int = 0

    @property
    def done(self) -> bool:
        return len(self.rows) >= self.limit or self.bytes_read >= _MOST_BYTES

    def batch(self) -> OutboxBatch:
        rows, receipt = tuple(self.rows), tuple(self.receipt)
        match self.kind:
            case "history":
                return OutboxBatch(kind=self.kind, executions=rows, receipt=receipt, malformed=self.malformed)
            case "dead":
                return OutboxBatch(kind=self.kind, dead_letters=rows, receipt=receipt, malformed=self.malformed)
            case _:
                assert_never(self.kind)


def read(link: Link, kind: OutboxKind, limit: int) -> OutboxBatch:
    """See ``Outbox.outbox``.

    Raises:
        IncompatibleData: The oldest entry was written by a newer release.
    """
    reading = _Reading(kind, limit)
    for shard in _oldest_first(link, kind):
        if reading.done or not _read(link, shard, reading):
            break
    return reading.batch()


def acknowledge(link: Link, batch: OutboxBatch) -> None:
    """See ``Outbox.acknowledge``."""
    by_shard: dict[Shard, list[Sequence[str]]] = {}
    for one in batch.receipt:
        *item, prefix = one.split(" ", 3)
        by_shard.setdefault(Shard(prefix), []).append(item)
    for shard, items in by_shard.items():
        for some in steps(items, _ACKNOWLEDGED):
            link.call("outbox_acknowledge", shard, batch.kind, *(part for item in some for part in item))


def lag(link: Link) -> OutboxLag:
    """See ``Outbox.outbox_lag``."""
    replies = link.calls([("outbox_lag", shard, ()) for shard in link.shards()])
    history, dead, dropped = (sum(reply[n] for reply in replies) for n in range(3))
    age_us = max((int(reply[3]) for reply in replies), default=0)
    return OutboxLag(history=history, dead=dead, dropped=dropped, oldest_age=timedelta(microseconds=age_us))


def trim(link: Link, max_pending: int) -> None:
    """Drop the oldest executions of each shard until no more than *max_pending* wait."""
    shards = link.shards()
    for _ in range(_TRIMS):
        replies = link.calls([("outbox_trim", shard, (max_pending,)) for shard in shards])
        shards = [shard for shard, more in zip(shards, replies, strict=True) if more]
        if not shards:
            return


# Reading -------------------------------------------------------------------------------------------------------------------------------


def _oldest_first(link: Link, kind: OutboxKind) -> Sequence[Shard]:
    """The shards that may have something to read."""
    shards = link.shards()
    if len(shards) <= 1:
        return shards
    number = 0 if kind == "history" else 1
    replies = link.calls([("outbox_lag", shard, ()) for shard in shards])
    waiting = [(int(reply[3]), shard) for shard, reply in zip(shards, replies, strict=True) if reply[number]]
    return [shard for _, shard in sorted(waiting, key=lambda one: one[0], reverse=True)]


def _read(link: Link, shard: Shard, reading: _Reading) -> bool:
    """Read from one shard; False when an entry of a newer release is in the way."""
    after = b""
    ended = 0
    while not ended and not reading.done:
        ended, flat, entries = link.call("outbox_read", shard, reading.kind, after, reading.limit - len(reading.rows))
        gone = {entry: int(rows) for entry, rows in zip(flat[::2], flat[1::2], strict=True)}
        for entry, fields in entries:
            if reading.done:
                break
            try:
                _take(reading, shard, entry, dict(zip(fields[::2], fields[1::2], strict=True)), gone.get(entry, 0))
            except IncompatibleData:
                if not reading.receipt:
                    raise
                return False
            after = entry
    return True


def _take(reading: _Reading, shard: Shard, entry: bytes, fields: dict[bytes, bytes], gone: int) -> None:
    """Add the rows of an entry, as many as are wanted."""
    reading.bytes_read += sum(map(len, fields.values()))
    newer = [name for name in fields if name.isdigit() and int(name) > FORMAT]
    if newer and _FIELD not in fields:
        raise IncompatibleData(f"an outbox entry has format {int(newer[0])}; this release reads up to {FORMAT}: upgrade jobqueue")
    try:
        rows = _executions_of(fields) if reading.kind == "history" else [_letter_of(fields)]
    except (KeyError, ValueError):
        total = _number(fields.get(b"n", b"1"))
        reading.malformed += 1
        reading.receipt.append(f"{entry.decode()} {total} {total} {shard.prefix}")
        return
    until = min(gone + reading.limit - len(reading.rows), len(rows))
    reading.rows += rows[gone:until]
    reading.receipt.append(f"{entry.decode()} {until} {len(rows)} {shard.prefix}")


def _executions_of(fields: dict[bytes, bytes]) -> Sequence[Execution]:
    at = EPOCH + timedelta(microseconds=int(fields[b"t"]))
    rows = _executions.decode(fields[_FIELD])
    if refused := fields.get(b"x"):
        numbers = frozenset(map(int, refused.split(b",")))
        rows = [row for number, row in enumerate(rows) if number not in numbers]
    for row in rows:
        if row.finished_at < _RELATIVE:
            # Nobody else has seen it yet.
            force_setattr(row, "finished_at", at + (row.finished_at - EPOCH))
    return rows


def _letter_of(fields: dict[bytes, bytes]) -> DeadLetter:
    time_us = int(fields[b"t"])
    letter = _dead_letter.decode(fields[_FIELD])
    died_at = letter.died_at
    if died_at < _RELATIVE:
        died_at += timedelta(microseconds=time_us)
    return replace(letter, job=absolute(letter.job, time_us), died_at=died_at)


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() else 0
