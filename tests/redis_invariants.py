"""What must be true of a Redis database of ours at any moment, whatever became of the processes that use it.

:func:`check_invariants` reads everything there is by plain commands and compares it with itself and with what the broker answers. It may be called
between any two steps of a test, as long as nobody writes meanwhile.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from jobqueue_core.attempt import DeadLetter, Execution, ExecutionState
from jobqueue_core.job import Job, JobState, Priority
from jobqueue_redis.keys import GROUP, NAMES, Place
from jobqueue_redis.times import from_us
from jobqueue_redis.values import read_value

if TYPE_CHECKING:
    from redis import Redis

    from jobqueue_core.broker import Broker, QueueStats

__all__ = ["Census", "check_invariants", "take_census"]

_FINISHED = {"c": JobState.COMPLETED, "d": JobState.DEAD, "x": JobState.CANCELLED}
_LETTERS = {"STREAM": "s", "READY": "r", "SUSPECT": "u", "DELAYED": "d", "RETRY": "t"}
_STATES = {"s": JobState.QUEUED, "r": JobState.QUEUED, "u": JobState.QUEUED, "d": JobState.SCHEDULED, "t": JobState.RETRYING}
_EXPIRE = ("RATE", "IDEMPOTENCY", "LISTENED")
"""Keys that must never be without an end."""
_ALL = 1_000_000


@attrs.frozen
class Spot:
    """One copy of a job that is not finished."""

    place: Place
    entry: str = ""
    """Its entry's id; empty in a sorted set."""
    delivered: bool = False
    """Whether the group has handed the entry out."""
    holder: str | None = None
    """The consumer that holds it."""
    score_us: int = 0

    @property
    def token(self) -> str:
        return f"{self.place.code} {self.entry}"


@attrs.define
class Census:
    """All that lies in the database."""

    spots: dict[str, list[Spot]] = attrs.field(factory=lambda: defaultdict(list))
    """Of each job, all its live copies."""
    records: dict[str, str] = attrs.field(factory=dict)
    """Of each job, what its record says: a letter and the place or queue, as ``w s2default 1-0``, ``d t2default``, ``f c default``."""
    keys: dict[str, list[str]] = attrs.field(factory=lambda: defaultdict(list))
    """All keys, by what they are (as in ``NAMES``), without prefix and name."""
    problems: list[str] = attrs.field(factory=list)

    def live(self, queue: str | None = None) -> list[tuple[str, Spot]]:
        """Every live copy: its job and where it is."""
        return [(job_id, spot) for job_id, spots in self.spots.items() for spot in spots if queue in (None, spot.place.queue)]


def check_invariants(server: Redis, broker: Broker, *, prefix: str = "", complete: bool = True) -> Census:
    """Fail with everything that is wrong.

    Args:
        server: A connection without decoding.
        broker: A broker on it.
        prefix: Of its keys.
        complete: Nothing has been forgotten yet (no record has expired) and nobody has acknowledged the outboxes: then totals, executions and dead
            letters must tell the same as the records.
    """
    census = take_census(server, prefix)
    jobs = _jobs_of(broker, sorted({*census.spots, *census.records}))
    executions = broker.outbox("history", _ALL).executions
    letters = broker.outbox("dead", _ALL).dead_letters
    _one_place_each(census)
    _answers_agree(census, jobs)
    _indexes_are_right(census, server, prefix, jobs)
    _keys_are_held(census, server, prefix, jobs)
    _outboxes_are_right(census, broker, executions, letters)
    by_name = {stats.name: stats for stats in broker.queues()}
    for stats in by_name.values():
        _depths_agree(census, stats)
        if complete:
            _totals_agree(census, stats, jobs, executions)
    census.problems += [f"queue {spot.place.queue} has jobs, but is not listed" for _, spot in census.live() if spot.place.queue not in by_name]
    if complete:
        _history_agrees(census, jobs, executions, letters)
    assert not census.problems, "\n".join(["the database is inconsistent:", *dict.fromkeys(census.problems)])
    return census


# Reading -------------------------------------------------------------------------------------------------------------------------------


def take_census(server: Redis, prefix: str = "") -> Census:
    """Read everything."""
    census = Census()
    readers: Mapping[str, Callable[[Census, Redis, str, str, str], None]] = {
        "STREAM": _read_stream,
        "READY": _read_stream,
        "SUSPECT": _read_stream,
        "DELAYED": _read_zset,
        "RETRY": _read_zset,
        "JOB": _read_record,
    }
    for key in _scan(server, prefix):
        name = _name_of(key.removeprefix(prefix))
        if name is None:
            census.problems.append(f"key {key} is none of ours")
            continue
        rest = key.removeprefix(prefix).removeprefix(NAMES[name])
        census.keys[name].append(rest)
        if name in readers:
            readers[name](census, server, key, _LETTERS.get(name, ""), rest)
        elif name in _EXPIRE and server.pttl(key) < 0:
            census.problems.append(f"key {key} never expires")
    return census


def _scan(server: Redis, prefix: str) -> Iterator[str]:
    yield from sorted({key.decode() for key in server.scan_iter(match=f"{prefix}*", count=1000)})


def _name_of(key: str) -> str | None:
    exact = [name for name, text in NAMES.items() if key == text]
    begins = [name for name, text in NAMES.items() if text.endswith(":") and key.startswith(text)]
    return max([*exact, *begins], key=lambda name: len(NAMES[name]), default=None)


def _read_stream(census: Census, server: Redis, key: str, letter: str, rest: str) -> None:
    queue, _, priority = rest.rpartition(":")
    place = Place(letter, Priority(priority), queue)
    last, holders = _group_of(server, key)
    entries = server.xrange(key)
    for raw_id, fields in entries:
        entry = raw_id.decode()
        spot = Spot(place, entry, delivered=_order(entry) <= last, holder=holders.pop(entry, None))
        try:
            job, _ = read_value(fields[b"1"])
        except (ValueError, LookupError) as error:
            census.problems.append(f"entry {spot.token} cannot be read: {error}")
            continue
        census.spots[job.id].append(spot)
        if spot.delivered and spot.holder is None:
            census.problems.append(f"job {job.id} is stranded: {spot.token} was handed out, and nobody holds it")
    census.problems += [f"{holder} holds {place.code} {entry}, which is gone" for entry, holder in holders.items()]


def _group_of(server: Redis, key: str) -> tuple[tuple[int, int], dict[str, str]]:
    """The last entry a stream's group has handed out, and who holds which."""
    for group in server.xinfo_groups(key):
        if group["name"] == GROUP.encode():
            pending = server.xpending_range(key, GROUP, "-", "+", _ALL) if group["pending"] else []
            holders = {one["message_id"].decode(): one["consumer"].decode() for one in pending}
            return _order(group["last-delivered-id"].decode()), holders
    return (0, 0), {}


def _order(entry: str) -> tuple[int, int]:
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


def _read_zset(census: Census, server: Redis, key: str, letter: str, rest: str) -> None:
    for raw_id, score in server.zrange(key, 0, -1, withscores=True):
        # The priority is in the record alone.
        place = Place(letter, Priority.CRITICAL, rest)
        census.spots[raw_id.decode()].append(Spot(place, score_us=int(score)))


def _read_record(census: Census, server: Redis, key: str, _letter: str, rest: str) -> None:
    record = server.get(key)
    if record is None:
        return
    ends = server.pttl(key) >= 0
    kind, text = record[1:2].decode(errors="replace"), record[2:]
    match kind:
        case "w":
            census.records[rest] = f"w {text.decode()}"
        case "d":
            census.records[rest] = f"d {text.partition(b' ')[0].decode()}"
        case "f":
            head = text.partition(b" ")[0].decode()
            census.records[rest] = f"f {head[0]} {head[1:].partition(':')[2]}"
        case _:
            census.problems.append(f"record {key} is of no known kind: {record[:40]!r}")
            return
    if ends != (kind == "f"):
        census.problems.append(f"record {key} ({census.records[rest]}) {'will expire' if ends else 'never expires'}")


def _jobs_of(broker: Broker, ids: Sequence[str]) -> dict[str, Job]:
    found = [job for at in range(0, len(ids), 500) for job in broker.get(ids[at : at + 500])]
    return {job.id: job for job in found if job is not None}


# Comparing -----------------------------------------------------------------------------------------------------------------------------


def _one_place_each(census: Census) -> None:
    for job_id in {*census.spots, *census.records}:
        spots, record = census.spots.get(job_id, []), census.records.get(job_id, "")
        found = [f"w {spot.token}" if spot.entry else f"d {spot.place.letter}?{spot.place.queue}" for spot in spots]
        if record.startswith("d "):
            record = f"{record[:3]}?{record[4:]}"  # the sorted set does not tell the priority
        expected = [record] if record[:1] in ("w", "d") else []
        if found != expected:
            census.problems.append(f"job {job_id} is at {found or 'no place'}, its record says {census.records.get(job_id, 'nothing')!r}")


def _answers_agree(census: Census, jobs: Mapping[str, Job]) -> None:
    for job_id in {*census.spots, *census.records}:
        job, spots = jobs.get(job_id), census.spots.get(job_id, [])
        if spots:
            state = JobState.PROCESSING if spots[0].holder else _STATES[spots[0].place.letter]
        else:
            state = _FINISHED.get(census.records[job_id][2:3], JobState.QUEUED)
        if job is None or job.state is not state:
            census.problems.append(f"job {job_id} is {state}, the broker answers {job.state if job else 'that it does not know it'}")


def _indexes_are_right(census: Census, server: Redis, prefix: str, jobs: Mapping[str, Job]) -> None:
    """What only points: a queue that is missing in it is never looked at, and its jobs wait for ever."""

    def members(name: str) -> set[str]:
        return {one.decode() for one in server.smembers(f"{prefix}{NAMES[name]}")}

    work, suspected, held, known = members("WORK"), members("SUSPECTED"), members("HELD"), members("QUEUES")
    due = {queue.decode(): int(score) for queue, score in server.zrange(f"{prefix}{NAMES['DUE']}", 0, -1, withscores=True)}
    for job_id, spot in census.live():
        queue = spot.place.queue
        if queue not in known:
            census.problems.append(f"queue {queue} is not in {NAMES['QUEUES']}")
        if not spot.entry and due.get(queue, _ALL**4) > spot.score_us:
            census.problems.append(f"job {job_id} is due at {from_us(spot.score_us)}, {NAMES['DUE']} has {queue} at {due.get(queue)}")
        told, registry = (suspected, "SUSPECTED") if spot.place.letter == "u" else (work, "WORK")
        if spot.entry and not spot.delivered and queue not in told:
            census.problems.append(f"job {job_id} waits in {queue}, which is not in {NAMES[registry]}: no worker is told of it")
        if (spot.place.letter == "u") != (jobs[job_id].crashes > 0) and spot.entry:
            census.problems.append(f"job {job_id}, which has crashed {jobs[job_id].crashes} times, waits at {spot.place.code}")
        if spot.holder and queue not in held:
            census.problems.append(f"job {job_id} is held in {queue}, which is not in {NAMES['HELD']}: nobody would reclaim it")
    tokens = {spot.token for _, spot in census.live() if spot.holder}
    progress = {token.decode() for token in server.hkeys(f"{prefix}{NAMES['PROGRESS']}")}
    census.problems += [f"{one} is in cancels or progress, and is no lease" for one in (members("CANCELS") | progress) - tokens]
    census.problems += [f"{NAMES['LOGGED']} has {one}, which has ended" for one in members("LOGGED") if one not in census.spots]
    for job_id in census.keys["LOGS"]:
        if (server.pttl(f"{prefix}{NAMES['LOGS']}{job_id}") >= 0) == (job_id in census.spots):
            state = jobs[job_id].state if job_id in jobs else "unknown"
            census.problems.append(f"the logs of job {job_id} ({state}) must expire when it has ended, not before")


def _keys_are_held(census: Census, server: Redis, prefix: str, jobs: Mapping[str, Job]) -> None:
    seconds, microseconds = server.time()
    now_us = seconds * 1_000_000 + microseconds
    holders = {key: server.get(f"{prefix}{NAMES['UNIQUE']}{key}") for key in census.keys["UNIQUE"]}
    for key, value in holders.items():
        if value is None:
            continue
        job_id, until_us = value[:36].decode(), int(value[36:] or b"0")
        job = jobs.get(job_id)
        if until_us <= now_us and (job is None or job.state.finished):
            census.problems.append(f"unique key {key} is held by {job_id}, which is {job.state if job else 'unknown'}")
        if job is not None and not job.state.finished and server.pttl(f"{prefix}{NAMES['UNIQUE']}{key}") >= 0:
            census.problems.append(f"unique key {key} expires while {job_id} lives")
    for job_id, job in jobs.items():
        if job.unique_key is not None and not job.state.finished:
            value = holders.get(f"{job.queue}:{job.unique_key}") or b""
            if value[:36].decode() != job_id:
                census.problems.append(f"job {job_id} lives, and {value!r} holds its unique key {job.unique_key}")


def _depths_agree(census: Census, stats: QueueStats) -> None:
    spots = [spot for _, spot in census.live(stats.name)]
    waiting = Counter(spot.place.priority for spot in spots if spot.entry and not spot.holder)
    letters = Counter(spot.place.letter for spot in spots)
    found = {"depth": dict(waiting), "processing": sum(1 for spot in spots if spot.holder), "scheduled": letters["d"], "retrying": letters["t"]}
    told = {
        "depth": {priority: count for priority, count in stats.depth.items() if count},
        "processing": stats.processing,
        "scheduled": stats.scheduled,
        "retrying": stats.retrying,
    }
    if found != told:
        census.problems.append(f"queue {stats.name} has {found}, the broker answers {told}")


def _totals_agree(census: Census, stats: QueueStats, jobs: Mapping[str, Job], executions: Sequence[Execution]) -> None:
    mine = [job for job in jobs.values() if job.queue == stats.name]
    states = Counter(job.state for job in mine)
    found = {
        "enqueued": len(mine),
        "completed": states[JobState.COMPLETED],
        "cancelled": states[JobState.CANCELLED],
        "dead": sum(job.deaths for job in mine),
        "failed": sum(1 for one in executions if one.queue == stats.name and one.state is ExecutionState.FAILED),
    }
    told = {name: getattr(stats, name) for name in found}
    if found != told:
        census.problems.append(f"queue {stats.name} has had {found}, its totals say {told}")


def _outboxes_are_right(census: Census, broker: Broker, executions: Sequence[Execution], letters: Sequence[DeadLetter]) -> None:
    twice: list[tuple[str, Any]] = []
    twice += [("executions of one run", key) for key, count in Counter((one.job_id, one.run) for one in executions).items() if count > 1]
    twice += [("executions with one id", key) for key, count in Counter(one.id for one in executions).items() if count > 1]
    twice += [("dead letters of one death", key) for key, count in Counter((one.job.id, one.job.deaths) for one in letters).items() if count > 1]
    census.problems += [f"two {what}: {key}" for what, key in twice]
    lag = broker.outbox_lag()
    if (lag.history, lag.dead) != (len(executions), len(letters)):
        found = f"{len(executions)} executions and {len(letters)} dead letters"
        census.problems.append(f"the outboxes hold {found}, the lag says {lag.history} and {lag.dead}")


def _history_agrees(census: Census, jobs: Mapping[str, Job], executions: Sequence[Execution], letters: Sequence[DeadLetter]) -> None:
    runs: dict[str, list[Execution]] = defaultdict(list)
    for one in executions:
        runs[one.job_id].append(one)
    deaths = Counter(letter.job.id for letter in letters)
    for job_id, job in jobs.items():
        mine = runs[job_id]
        completed = [one.run for one in mine if one.state is ExecutionState.COMPLETED]
        if completed != ([job.run] if job.state is JobState.COMPLETED else []):
            census.problems.append(f"job {job_id} is {job.state} in run {job.run}, and runs {completed} completed")
        latest = job.run - (job.state is JobState.PROCESSING)
        if any(one.run > latest for one in mine):
            census.problems.append(f"job {job_id} has begun {job.run} runs ({job.state}), and executions of {[one.run for one in mine]}")
        if deaths[job_id] != job.deaths:
            census.problems.append(f"job {job_id} has died {job.deaths} times, and has {deaths[job_id]} dead letters")
        if sum(1 for one in mine if one.state is ExecutionState.LOST) < job.crashes:
            census.problems.append(f"job {job_id} has crashed {job.crashes} times, and no executions tell of it")
    census.problems += [f"an execution of {job_id}, which nobody knows" for job_id in runs if job_id not in jobs]
