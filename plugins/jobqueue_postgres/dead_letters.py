"""Dead letters, until someone retries or discards them."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
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

from .faults import REFUSED
from .filters import filtered
from .statements import statement
from .texts import escaped, indexed, payload_columns, payload_of, unescaped
from .times import cursor_instant, instant_of_cursor

if TYPE_CHECKING:
    from .connections import Connection

__all__ = [
    "begin_requeues",
    "count",
    "discard",
    "finish_requeues",
    "groups",
    "latest",
    "page",
    "prune",
    "record",
    "refused",
    "retry_refused",
    "stale",
]

_DONE: Final = (DeadLetterState.REQUEUED, DeadLetterState.DISCARDED)
_MOST_DEATH: Final = 2**31 - 1
_STATEMENT_BYTES: Final = 32 << 20
"""What one statement brings, roughly: a server takes no more than 1 GB at once."""

_FORMAT: Final = b"\x01"
"""The first byte of a record of the table ``dead_letters_refused``: the number of its format."""

_log = logging.getLogger("jobqueue.postgres")
_json = msgspec.json.Encoder()
_encoder = msgspec.msgpack.Encoder()
_whole = msgspec.msgpack.Decoder(DeadLetter)


# Storing -------------------------------------------------------------------------------------------------------------------------------


def record(connection: Connection, letters: Sequence[DeadLetter]) -> None:
    """See ``DeadLetters.record_dead_letters``. One that comes alone is never refused: what the table does not take is put aside."""
    if len(letters) == 1:
        _record_alone(connection, letters[0])
        return
    for some in _by_size(letters):
        _add(connection, [_row(letter, payload_columns(letter.job.payload_json)) for letter in some])


def _record_alone(connection: Connection, letter: DeadLetter) -> None:
    problem = _refusal(connection, letter)
    if problem is None:
        return
    _log.error("a dead letter is refused, and kept aside: %s", problem, extra={"fields": {"job_id": letter.job.id, "death": letter.job.deaths}})
    bound = {
        "job_id": indexed(letter.job.id),
        "death": letter.job.deaths,
        "died_at": letter.died_at,
        "problem": escaped(problem),
        "record": _FORMAT + _encoder.encode(letter),
    }
    connection.execute(statement("dead_letters_refused_add"), bound)


def _refusal(connection: Connection, letter: DeadLetter) -> str | None:
    """Store one dead letter; None when it is stored, else why the table does not take it."""
    payload = letter.job.payload_json
    problem = ""
    # What PostgreSQL does not take for JSON (nested too deep, say) is kept all the same: as bytes.
    for columns in (payload_columns(payload), (None, payload)):
        try:
            with connection.transaction():
                _add(connection, [_row(letter, columns)])
        except StorageRejected as error:
            problem = str(error)
        except psycopg.Error as error:
            if (error.sqlstate or "")[:2] not in REFUSED:
                raise
            problem = error.diag.message_primary or type(error).__name__
        else:
            return None
    return problem


def retry_refused(connection: Connection, limit: int) -> int:
    """Try up to *limit* dead letters again that were refused; says how many are stored now."""
    stored = 0
    for job_id, death, found in connection.execute(statement("dead_letters_refused_some"), {"limit": limit}).fetchall():
        if found[:1] == _FORMAT and _refusal(connection, _whole.decode(found[1:])) is None:
            connection.execute(statement("dead_letters_refused_forget"), {"job_id": job_id, "death": death})
            stored += 1
    return stored


def refused(connection: Connection) -> tuple[int, str | None]:
    """How many dead letters are kept aside, and why the latest."""
    row = connection.execute(statement("dead_letters_refused_count")).fetchone()
    return (0, None) if row is None else (row[0], unescaped(row[1]))


def _by_size(letters: Sequence[DeadLetter]) -> Iterator[Sequence[DeadLetter]]:
    begin = size = 0
    for number, letter in enumerate(letters):
        brought = len(letter.job.payload_json) + len(letter.raw or b"")
        if number > begin and size + brought > _STATEMENT_BYTES:
            yield letters[begin:number]
            begin, size = number, 0
        size += brought
    if letters:
        yield letters[begin:]


def _add(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    connection.execute(statement("dead_letters_add"), {name: [row[name] for row in rows] for name in rows[0]})


def _row(letter: DeadLetter, payload: tuple[str | None, bytes | None]) -> dict[str, Any]:
    job = letter.job
    return {
        "job_id": _uuid(job.id),
        "death": job.deaths,
        "died_at": letter.died_at,
        "type": indexed(job.type),
        "queue": indexed(job.queue),
        "priority": job.priority.value,
        "state": letter.state.value,
        "dead_reason": None if job.dead_reason is None else job.dead_reason.value,
        "error": escaped(letter.error),
        "traceback": escaped(letter.traceback),
        "fingerprint": indexed(letter.fingerprint),
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
    after = {"after_death": after_death, "after_at": after_at, "after_id": after_id}
    if wanted.fingerprint is not None and (wanted.type is not None or wanted.queue is not None):
        text = filtered("dead_letters_list_of_kinds", _times(wanted) | {"after_death": after_death}).replace("/*kinds*/", _kinds(wanted))
    else:
        text = filtered("dead_letters_list", _names("letter", wanted) | _times(wanted) | {"after_death": after_death})
    rows = _rows(connection, _with_columns(text), _bound(wanted) | after | {"limit": limit + 1, "offset": offset})
    shown = [_letter(row) for row in rows[:limit]]
    following = None
    if len(rows) > limit:
        last = shown[-1]
        following = f"{cursor_instant(last.died_at)}~{last.job.id}~{last.job.deaths}"
    return DeadLetterPage(dead_letters=tuple(shown), next=following)


def latest(connection: Connection, job_id: str) -> DeadLetter | None:
    """See ``DeadLetters.dead_letter``."""
    rows = _rows(connection, _with_columns(statement("dead_letters_of_job")), {"job_id": job_id})
    return _letter(rows[0]) if rows else None


def stale(connection: Connection, before: datetime, limit: int) -> list[DeadLetter]:
    """See ``DeadLetters.stale_requeues``."""
    rows = _rows(connection, _with_columns(statement("dead_letters_stale")), {"before": before, "limit": limit})
    return [_letter(row) for row in rows]


def count(connection: Connection, wanted: DeadLetterFilter) -> int:
    """See ``DeadLetters.count_dead_letters``."""
    # Counters are kept by state and all names; what is narrowed by time is counted along an index.
    if _has_time(wanted):
        text = filtered("dead_letters_count", _names("letter", wanted) | _times(wanted))
    else:
        text = filtered("dead_letters_count_kept", _names("kind", wanted))
    found: int = _rows(connection, text, _bound(wanted))[0][0]
    return found


def groups(connection: Connection, wanted: DeadLetterFilter, *, limit: int) -> list[DeadLetterGroup]:
    """See ``DeadLetters.dead_letter_groups``."""
    name = "dead_letters_sizes" if _has_time(wanted) else "dead_letters_sizes_kept"
    sizes = filtered(name, _names("letter", wanted) | _times(wanted))
    text = filtered("dead_letters_groups", _times(wanted)).replace("/*kinds*/", _kinds(wanted)).replace("/*sizes*/", sizes)
    return [_group(row) for row in _rows(connection, text, _bound(wanted) | {"limit": limit})]


# Changing ------------------------------------------------------------------------------------------------------------------------------


def begin_requeues(connection: Connection, deaths: Sequence[tuple[str, int]], *, now: datetime) -> list[bool]:
    """See ``DeadLetters.begin_requeues``."""
    begun = set(connection.execute(statement("dead_letters_begin_requeues"), _keys(deaths) | {"now": now}).fetchall())
    answers = []
    for job_id, death in deaths:
        key = (_uuid(job_id), death)
        answers.append(key in begun)
        begun.discard(key)
    return answers


def finish_requeues(connection: Connection, deaths: Sequence[tuple[str, int]], *, now: datetime, requeued: bool) -> None:
    """See ``DeadLetters.finish_requeues``."""
    name = "dead_letters_finish_requeues" if requeued else "dead_letters_reopen"
    connection.execute(statement(name), _keys(deaths) | {"now": now})


def discard(connection: Connection, job_id: str, death: int) -> bool:
    """See ``DeadLetters.discard``."""
    return connection.execute(statement("dead_letters_discard"), {"job_id": _uuid(job_id), "death": death}).rowcount == 1


def prune(connection: Connection, before: datetime, limit: int) -> int:
    """See ``DeadLetters.prune_dead_letters``."""
    bound = {"states": [state.value for state in _DONE], "before": before, "limit": limit}
    pruned = connection.execute(statement("dead_letters_forget"), bound).rowcount
    if pruned:
        connection.execute(statement("dead_letters_forget_counts"))
    return pruned


# Conditions and rows -------------------------------------------------------------------------------------------------------------------


def _rows(connection: Connection, text: str, bound: dict[str, Any]) -> list[tuple[Any, ...]]:
    # Planned for these values each time: a plan for any would not know how few rows a page has. Binary: the records are.
    return connection.execute(text, bound, prepare=False, binary=True).fetchall()


def _names(alias: str, wanted: DeadLetterFilter) -> dict[str, Any]:
    found = {"type": wanted.type, "queue": wanted.queue, "fingerprint": wanted.fingerprint}
    return {f"{alias}_{name}": indexed(text) for name, text in found.items()}


def _times(wanted: DeadLetterFilter) -> dict[str, Any]:
    return {"died_after": wanted.died_after, "died_before": wanted.died_before}


def _has_time(wanted: DeadLetterFilter) -> bool:
    return wanted.died_after is not None or wanted.died_before is not None


def _kinds(wanted: DeadLetterFilter) -> str:
    return filtered("dead_letters_kinds", _names("kind", wanted))


def _bound(wanted: DeadLetterFilter) -> dict[str, Any]:
    states = list(DeadLetterState) if wanted.state is None else [wanted.state]
    return {"states": [state.value for state in states]} | _names("letter", wanted) | _names("kind", wanted) | _times(wanted)


def _keys(deaths: Sequence[tuple[str, int]]) -> dict[str, Any]:
    return {"job_ids": [_uuid(job_id) for job_id, _death in deaths], "deaths": [death for _job_id, death in deaths]}


def _uuid(job_id: str) -> uuid.UUID:
    try:
        return uuid.UUID(job_id)
    except ValueError as error:
        raise StorageRejected(f"{job_id!r:.60} is not a UUID: no dead letter can be kept under it") from error


def _cursor(cursor: str) -> tuple[datetime, str, int]:
    instant, job_id, death = split_cursor(cursor, 3)
    died_at = instant_of_cursor(instant, cursor)
    try:
        if death.isascii() and death.isdecimal() and len(death) <= 10 and int(death) <= _MOST_DEATH:
            return died_at, str(uuid.UUID(job_id)), int(death)
    except ValueError:
        pass
    raise InvalidJob("cursor", f"{cursor!r:.60} is not a cursor of this list")


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


def _group(row: tuple[Any, ...]) -> DeadLetterGroup:
    fingerprint, size, first_died_at, last_died_at, record_, error = row
    example = decode_job(record_)
    return DeadLetterGroup(
        fingerprint=unescaped(fingerprint),
        type=example.type,
        count=size,
        first_died_at=first_died_at,
        last_died_at=last_died_at,
        example_job_id=example.id,
        example_error=unescaped(error),
    )
