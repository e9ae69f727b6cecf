"""Dead letters, until someone retries or discards them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
import psycopg
from msgspec.structs import replace

from jobqueue_core.attempt import DeadLetter, DeadLetterState
from jobqueue_core.broker import split_cursor
from jobqueue_core.errors import InvalidJob, StorageRejected
from jobqueue_core.job import decode_job, encode_job
from jobqueue_core.storage import DeadLetterFilter, DeadLetterGroup, DeadLetterPage

from .filters import filtered
from .statements import statement
from .texts import escaped, payload_columns, payload_of, unescaped
from .times import cursor_instant, instant_of_cursor

if TYPE_CHECKING:
    from .connections import Connection

__all__ = ["begin_requeues", "count", "discard", "finish_requeues", "groups", "latest", "page", "prune", "record", "stale"]

_DONE: Final = (DeadLetterState.REQUEUED, DeadLetterState.DISCARDED)
_MOST_DEATH: Final = 2**31 - 1

_json = msgspec.json.Encoder()


# Storing -------------------------------------------------------------------------------------------------------------------------------


def record(connection: Connection, letters: Sequence[DeadLetter]) -> None:
    """See ``DeadLetters.record_dead_letters``."""
    try:
        rows = [_row(letter, payload_columns(letter.job.payload_json)) for letter in letters]
    except (ValueError, OverflowError) as error:
        raise StorageRejected(f"a dead letter cannot be written down: {error}") from error
    if len(rows) != 1:
        _add(connection, rows)
        return
    try:
        with connection.transaction():
            _add(connection, rows)
    except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded):
        # What PostgreSQL does not take for JSON (nested too deep, say) is kept all the same: as bytes.
        _add(connection, [_row(letters[0], (None, letters[0].job.payload_json))])


def _add(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(statement("dead_letters_add"), rows)


def _row(letter: DeadLetter, payload: tuple[str | None, bytes | None]) -> dict[str, Any]:
    job = letter.job
    return {
        "job_id": uuid.UUID(job.id),
        "death": job.deaths,
        "died_at": letter.died_at,
        "type": escaped(job.type),
        "queue": escaped(job.queue),
        "priority": job.priority.value,
        "state": letter.state.value,
        "dead_reason": None if job.dead_reason is None else job.dead_reason.value,
        "error": escaped(letter.error),
        "traceback": escaped(letter.traceback),
        "fingerprint": escaped(letter.fingerprint),
        "payload": payload[0],
        "payload_raw": payload[1],
        "raw": letter.raw,
        "metadata": _json.encode(job.metadata).decode(),
        "unique_key": escaped(job.unique_key),
        "attempts": job.attempt,
        "max_retries": job.max_retries,
        "run": job.run,
        "crashes": job.crashes,
        "worker_id": escaped(job.worker_id),
        "created_at": job.created_at,
        "scheduled_at": job.scheduled_at,
        "started_at": job.started_at,
        "requeued_at": letter.requeued_at,
        "requeue_count": letter.requeue_count,
        "record": encode_job(replace(job, payload_json=b"")),
    }


# Finding -------------------------------------------------------------------------------------------------------------------------------


def page(connection: Connection, wanted: DeadLetterFilter, *, cursor: str | None, offset: int, limit: int) -> DeadLetterPage:
    """See ``DeadLetters.dead_letters``."""
    after_at, after_id, after_death = (None, None, None) if cursor is None else _cursor(cursor)
    conditions = _conditions(wanted) | {"after_death": after_death}
    bound = conditions | {
        "states": _states(wanted),
        "after_at": after_at,
        "after_id": after_id,
        "limit": limit + 1,
        "offset": offset,
    }
    rows = connection.execute(_with_columns(filtered("dead_letters_list", conditions)), bound).fetchall()
    shown = [_letter(row) for row in rows[:limit]]
    following = None
    if len(rows) > limit:
        last = shown[-1]
        following = f"{cursor_instant(last.died_at)}~{last.job.id}~{last.job.deaths}"
    return DeadLetterPage(dead_letters=tuple(shown), next=following)


def latest(connection: Connection, job_id: str) -> DeadLetter | None:
    """See ``DeadLetters.dead_letter``."""
    row = connection.execute(_with_columns(statement("dead_letters_of_job")), {"job_id": job_id}).fetchone()
    return None if row is None else _letter(row)


def stale(connection: Connection, before: datetime, limit: int) -> list[DeadLetter]:
    """See ``DeadLetters.stale_requeues``."""
    rows = connection.execute(_with_columns(statement("dead_letters_stale")), {"before": before, "limit": limit}).fetchall()
    return [_letter(row) for row in rows]


def count(connection: Connection, wanted: DeadLetterFilter) -> int:
    """See ``DeadLetters.count_dead_letters``."""
    conditions = _conditions(wanted)
    # Counters are kept by state, type, queue and fingerprint; what is narrowed by time is counted along an index.
    name = "dead_letters_count" if _by_time(wanted) else "dead_letters_count_kept"
    row = connection.execute(filtered(name, conditions), conditions | {"states": _states(wanted)}).fetchone()
    return 0 if row is None else int(row[0])


def groups(connection: Connection, wanted: DeadLetterFilter, *, limit: int) -> list[DeadLetterGroup]:
    """See ``DeadLetters.dead_letter_groups``."""
    conditions = _conditions(wanted)
    name = "dead_letters_sizes" if _by_time(wanted) else "dead_letters_sizes_kept"
    text = filtered("dead_letters_groups", conditions).replace("/*sizes*/", filtered(name, conditions))
    rows = connection.execute(text, conditions | {"states": _states(wanted), "limit": limit}).fetchall()
    return [
        DeadLetterGroup(
            fingerprint=unescaped(fingerprint),
            type=unescaped(job_type),
            count=int(size),
            first_died_at=first,
            last_died_at=last,
            example_job_id=job_id,
            example_error=unescaped(error),
        )
        for fingerprint, size, first, last, job_type, job_id, error in rows
    ]


# Changing ------------------------------------------------------------------------------------------------------------------------------


def begin_requeues(connection: Connection, deaths: Sequence[tuple[str, int]], *, now: datetime) -> list[bool]:
    """See ``DeadLetters.begin_requeues``."""
    begun = set(connection.execute(statement("dead_letters_begin_requeues"), _keys(deaths) | {"now": now}).fetchall())
    answers = []
    for key in deaths:
        answers.append(key in begun)
        begun.discard(key)
    return answers


def finish_requeues(connection: Connection, deaths: Sequence[tuple[str, int]], *, now: datetime, requeued: bool) -> None:
    """See ``DeadLetters.finish_requeues``."""
    name = "dead_letters_finish_requeues" if requeued else "dead_letters_reopen"
    connection.execute(statement(name), _keys(deaths) | {"now": now})


def discard(connection: Connection, job_id: str, death: int) -> bool:
    """See ``DeadLetters.discard``."""
    return connection.execute(statement("dead_letters_discard"), {"job_id": job_id, "death": death}).rowcount == 1


def prune(connection: Connection, before: datetime, limit: int) -> int:
    """See ``DeadLetters.prune_dead_letters``."""
    pruned = 0
    for state in _DONE:
        bound = {"state": state.value, "before": before, "limit": limit - pruned}
        pruned += connection.execute(statement("dead_letters_forget"), bound).rowcount
    if pruned:
        connection.execute(statement("dead_letters_forget_counts"))
    return pruned


# Rows and conditions -------------------------------------------------------------------------------------------------------------------


def _keys(deaths: Sequence[tuple[str, int]]) -> dict[str, Any]:
    return {"job_ids": [job_id for job_id, _death in deaths], "deaths": [death for _job_id, death in deaths]}


def _states(wanted: DeadLetterFilter) -> list[str]:
    return [state.value for state in DeadLetterState] if wanted.state is None else [wanted.state.value]


def _by_time(wanted: DeadLetterFilter) -> bool:
    return wanted.died_after is not None or wanted.died_before is not None


def _conditions(wanted: DeadLetterFilter) -> dict[str, Any]:
    return {
        "letter_type": escaped(wanted.type),
        "letter_queue": escaped(wanted.queue),
        "letter_fingerprint": escaped(wanted.fingerprint),
        "died_after": wanted.died_after,
        "died_before": wanted.died_before,
    }


def _with_columns(text: str) -> str:
    return text.replace("/*columns*/", statement("dead_letters_columns"))


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    record_, payload, payload_raw, died_at, error, traceback, fingerprint, raw, state, requeued_at, requeue_count = row
    return DeadLetter(
        job=replace(decode_job(record_), payload_json=payload_of(payload, payload_raw)),
        died_at=died_at,
        error=unescaped(error),
        traceback=unescaped(traceback),
        fingerprint=unescaped(fingerprint),
        raw=raw,
        state=DeadLetterState(state),
        requeued_at=requeued_at,
        requeue_count=requeue_count,
    )


def _cursor(cursor: str) -> tuple[datetime, str, int]:
    instant, job_id, death = split_cursor(cursor, 3)
    died_at = instant_of_cursor(instant, cursor)
    try:
        if death.isascii() and death.isdecimal() and len(death) <= 10 and int(death) <= _MOST_DEATH:
            return died_at, str(uuid.UUID(job_id)), int(death)
    except ValueError:
        pass
    raise InvalidJob("cursor", f"{cursor!r:.60} is not a cursor of this list")
