"""Dead letters, until someone retries or discards them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from jobqueue_core.attempt import DeadLetter, DeadLetterState
from jobqueue_core.broker import split_cursor
from jobqueue_core.errors import InvalidJob
from jobqueue_core.storage import DeadLetterFilter, DeadLetterGroup, DeadLetterPage

from .filters import filtered
from .statements import statement
from .times import from_us, to_us

__all__ = ["begin_requeues", "count", "discard", "finish_requeues", "groups", "latest", "page", "prune", "record", "stale"]

_DONE: Final = (DeadLetterState.REQUEUED, DeadLetterState.DISCARDED)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(DeadLetter)


def record(connection: sqlite3.Connection, letters: Sequence[DeadLetter]) -> None:
    """See ``DeadLetters.record_dead_letters``."""
    rows = [
        {
            "job_id": letter.job.id,
            "death": letter.job.deaths,
            "died_us": to_us(letter.died_at),
            "type": letter.job.type,
            "queue": letter.job.queue,
            "fingerprint": letter.fingerprint,
            "state": letter.state.value,
            "requeued_us": to_us(letter.requeued_at),
            "requeue_count": letter.requeue_count,
            "record": _encoder.encode(letter),
        }
        for letter in letters
    ]
    connection.executemany(statement("dead_letters_add"), rows)


def page(connection: sqlite3.Connection, wanted: DeadLetterFilter, *, cursor: str | None, offset: int, limit: int) -> DeadLetterPage:
    """See ``DeadLetters.dead_letters``."""
    after_us, after_id, after_death = (None, None, None) if cursor is None else _cursor(cursor)
    conditions = _conditions(wanted) | {"after_death": after_death}
    bound = conditions | {"after_us": after_us, "after_id": after_id, "limit": limit + 1, "offset": offset}
    rows = connection.execute(filtered("dead_letters_list", conditions), bound).fetchall()
    shown = rows[:limit]
    following = "~".join(map(str, shown[-1][:3])) if len(rows) > limit else None
    return DeadLetterPage(dead_letters=tuple(map(_letter, shown)), next=following)


def latest(connection: sqlite3.Connection, job_id: str) -> DeadLetter | None:
    """See ``DeadLetters.dead_letter``."""
    row = connection.execute(statement("dead_letters_of_job"), {"job_id": job_id}).fetchone()
    return None if row is None else _letter(row)


def groups(connection: sqlite3.Connection, wanted: DeadLetterFilter, *, limit: int) -> list[DeadLetterGroup]:
    """See ``DeadLetters.dead_letter_groups``."""
    conditions = _conditions(wanted)
    rows = connection.execute(filtered("dead_letters_groups", conditions), conditions | {"limit": limit}).fetchall()
    return [_group(connection, conditions, row) for row in rows]


def count(connection: sqlite3.Connection, wanted: DeadLetterFilter) -> int:
    """See ``DeadLetters.count_dead_letters``."""
    conditions = _conditions(wanted)
    # Counters are kept by state, type and queue; anything finer is counted along an index.
    finer = wanted.fingerprint is not None or wanted.died_after is not None or wanted.died_before is not None
    text = filtered("dead_letters_count", conditions) if finer else statement("dead_letters_count_kept")
    found: int = connection.execute(text, conditions).fetchone()[0]
    return found


def begin_requeues(connection: sqlite3.Connection, deaths: Sequence[tuple[str, int]], *, now: datetime) -> list[bool]:
    """See ``DeadLetters.begin_requeues``."""
    bound = [{"job_id": job_id, "death": death, "now_us": to_us(now)} for job_id, death in deaths]
    return [connection.execute(statement("dead_letters_begin_requeue"), one).rowcount == 1 for one in bound]


def finish_requeues(connection: sqlite3.Connection, deaths: Sequence[tuple[str, int]], *, now: datetime, requeued: bool) -> None:
    """See ``DeadLetters.finish_requeues``."""
    name = "dead_letters_finish_requeue" if requeued else "dead_letters_reopen"
    connection.executemany(statement(name), [{"job_id": job_id, "death": death, "now_us": to_us(now)} for job_id, death in deaths])


def stale(connection: sqlite3.Connection, before: datetime, limit: int) -> list[DeadLetter]:
    """See ``DeadLetters.stale_requeues``."""
    return [_letter(row) for row in connection.execute(statement("dead_letters_stale"), {"before_us": to_us(before), "limit": limit}).fetchall()]


def discard(connection: sqlite3.Connection, job_id: str, death: int) -> bool:
    """See ``DeadLetters``."""
    return connection.execute(statement("dead_letters_discard"), {"job_id": job_id, "death": death}).rowcount == 1


def prune(connection: sqlite3.Connection, before: datetime, limit: int) -> int:
    """See ``DeadLetters.prune_dead_letters``."""
    pruned = 0
    for state in _DONE:
        bound = {"state": state.value, "before_us": to_us(before), "limit": limit - pruned}
        pruned += connection.execute(statement("dead_letters_forget"), bound).rowcount
    return pruned


def _conditions(wanted: DeadLetterFilter) -> dict[str, Any]:
    return {
        "type": wanted.type,
        "queue": wanted.queue,
        "state": None if wanted.state is None else wanted.state.value,
        "fingerprint": wanted.fingerprint,
        "died_after_us": to_us(wanted.died_after),
        "died_before_us": to_us(wanted.died_before),
    }


def _group(connection: sqlite3.Connection, conditions: dict[str, Any], row: tuple[Any, ...]) -> DeadLetterGroup:
    fingerprint, job_type, size, last_us, job_id, death = row
    one = conditions | {"fingerprint": fingerprint}
    first_us = connection.execute(filtered("dead_letters_group_first", one), one).fetchone()[0]
    example = connection.execute(statement("dead_letters_one"), {"job_id": job_id, "death": death}).fetchone()
    return DeadLetterGroup(
        fingerprint=fingerprint,
        type=job_type,
        count=size,
        first_died_at=from_us(first_us),
        last_died_at=from_us(last_us),
        example_job_id=job_id,
        example_error=_letter(example).error,
    )


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    *_, record_, state, requeued_us, requeue_count = row
    return replace(_decoder.decode(record_), state=DeadLetterState(state), requeued_at=from_us(requeued_us), requeue_count=requeue_count)


def _cursor(cursor: str) -> tuple[int, str, int]:
    instant, job_id, death = split_cursor(cursor, 3)
    if any(not number.isascii() or not number.isdigit() or len(number) > 18 for number in (instant, death)):
        raise InvalidJob("cursor", f"{cursor!r:.60} is not a cursor of this list")
    return int(instant), job_id, int(death)
