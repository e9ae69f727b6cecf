"""Executions and dead letters on their way to storage."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar, assert_never

import msgspec

from jobqueue_core.attempt import DeadLetter, Execution
from jobqueue_core.broker import OutboxBatch, OutboxKind, OutboxLag
from jobqueue_core.errors import IncompatibleData

from .ledger import OUTBOX_FORMAT, Ledger
from .records import as_json
from .statements import statement

__all__ = ["acknowledge", "lag", "read"]

Entry = TypeVar("Entry", Execution, DeadLetter)

_execution = msgspec.msgpack.Decoder(Execution)
_dead_letter = msgspec.msgpack.Decoder(DeadLetter)


def read(connection: sqlite3.Connection, kind: OutboxKind, limit: int) -> OutboxBatch:
    """See ``Outbox.outbox``."""
    rows = connection.execute(statement(f"outbox_{kind}_read"), {"limit": limit}).fetchall()
    receipt = tuple(str(number) for number, _ in rows)
    match kind:
        case "history":
            executions = _decode(_execution, rows)
            return OutboxBatch(kind=kind, executions=executions, receipt=receipt, malformed=len(rows) - len(executions))
        case "dead":
            letters = _decode(_dead_letter, rows)
            return OutboxBatch(kind=kind, dead_letters=letters, receipt=receipt, malformed=len(rows) - len(letters))
        case _:
            assert_never(kind)


def acknowledge(ledger: Ledger, batch: OutboxBatch) -> None:
    """See ``Outbox.acknowledge``."""
    numbers = as_json(int(number) for number in batch.receipt)
    removed = ledger.connection.execute(statement(f"outbox_{batch.kind}_remove"), {"numbers": numbers}).rowcount
    if removed:
        ledger.take_numbers(f"outbox_{batch.kind}", -removed)


def lag(connection: sqlite3.Connection, now_us: int) -> OutboxLag:
    """See ``Outbox.outbox_lag``."""
    history, dead, dropped, *oldest = connection.execute(statement("outbox_lag")).fetchone()
    waits = [now_us - at_us for at_us in oldest if at_us is not None]
    return OutboxLag(history=history, dead=dead, dropped=dropped, oldest_age=timedelta(microseconds=max([*waits, 0])))


def _decode(decoder: msgspec.msgpack.Decoder[Entry], rows: Sequence[tuple[int, object]]) -> tuple[Entry, ...]:
    """What can be read of *rows*.

    Raises:
        IncompatibleData: An entry was written by a newer release.
    """
    found = []
    for _, record in rows:
        if not isinstance(record, bytes) or record[:1] < OUTBOX_FORMAT:
            continue
        if record[:1] > OUTBOX_FORMAT:
            raise IncompatibleData(f"an outbox entry has format {record[0]}; this release reads up to {OUTBOX_FORMAT[0]}: upgrade jobqueue")
        try:
            found.append(decoder.decode(memoryview(record)[1:]))
        except msgspec.DecodeError:
            continue
    return tuple(found)
