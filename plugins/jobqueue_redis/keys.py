"""The names of all keys, in one place: for Python as functions, for Lua as constants that ``scripts`` puts before each script.

A *shard* is the part of the keyspace that one script may touch: everything on a single server, one queue (by its hash tag) on Redis Cluster.
Within a shard a key is the shard's prefix, the name of what it is, and what it is of.
"""

from __future__ import annotations

from typing import Final

import attrs

from jobqueue_core.job import Priority

__all__ = ["GROUP", "HOME_TAG", "NAMES", "Place", "Shard", "lua_constants"]

GROUP: Final = "workers"
"""The consumer group of every stream."""

HOME_TAG: Final = "{.jobqueue}"
"""The hash tag, on Redis Cluster, of what belongs to no queue: workers, types and the list of queues. No queue can be called so."""

NAMES: Final = {
    # of a queue and a priority
    "STREAM": "stream:",  # jobs that were never started, and what was promoted
    "READY": "ready:",  # jobs given back or reclaimed: taken before those
    "SUSPECT": "suspect:",  # jobs that have crashed, given back or reclaimed: before those, a few at a time
    # of a queue
    "DELAYED": "delayed:",  # zset: scheduled jobs by when they are due (µs)
    "RETRY": "retry:",  # zset: retrying jobs likewise
    "UNIQUE": "unique:",  # of a queue and a key: the job that holds it, and until when at least
    "PAUSED": "paused:",  # there while the queue is paused
    "WAKE": "wake:",  # stream of one entry: rung when the queue has work again; "wake:*" for all queues
    "STATS": "stats:",  # hash: totals since the queue exists
    "RATE": "rate:",  # of a queue and a time slot: hash of what happened in it; expires
    # of a job
    "JOB": "job:",  # where the job is, or what became of it
    "LOGS": "logs:",  # list: lines its handlers logged
    # of the shard
    "IDEMPOTENCY": "idempotency:",  # of a key: the job it made, and a hash of the request; expires
    "QUEUES": "queues",  # set: all queues that ever had a job or were paused
    "WORK": "work",  # set: queues whose streams may hold jobs that nobody has
    "SUSPECTED": "suspected",  # set: queues whose streams may hold jobs that have crashed and that nobody has
    "HELD": "held",  # set: queues whose streams may hold leased jobs
    "GROUPED": "grouped",  # set: places (codes) whose streams have had their group: one that lacks it now has been tampered with
    "DUE": "due",  # zset: queues by the earliest time in delayed: and retry:
    "EXPIRING": "expiring",  # zset: waiting jobs that expire, by when
    "CANCELS": "cancels",  # set: tokens of leases whose job someone asked to cancel
    "PROGRESS": "progress",  # hash: token of a lease -> what the run last said
    "LOGGED": "logged",  # set: unfinished jobs that have logs
    "HISTORY": "outbox:history",  # stream: a batch of executions an entry
    "DEAD": "outbox:dead",  # stream: a dead letter an entry
    "LAG": "outbox:lag",  # hash: rows in both, and rows dropped
    "EVENTS": "events",  # stream: what happened, while someone listens
    "LISTENED": "events:listened",  # where listening began; expires
    "WORKERS": "workers",  # hash: worker id -> what it last said
    "BEATS": "workers:beats",  # zset: worker ids by their last beat (µs)
    "TYPES": "types",  # hash: job type -> what workers said of it
    "TYPES_SEEN": "types:seen",  # zset: job types by when a worker last served them (µs)
    "GENERATION": "generation",  # made with the first connection: gone when someone emptied the database
}

_PRIORITIES: Final = tuple(Priority)


@attrs.frozen
class Shard:
    """The keys that one script may touch: those that begin with *prefix*."""

    prefix: str

    @property
    def route(self) -> str:
        """A key of the shard, which tells Redis Cluster where to send a script."""
        return self.key("QUEUES")

    def key(self, name: str, *of: str) -> str:
        """The key called *name* (as in ``NAMES``) of a queue, job or whatever it is of."""
        return f"{self.prefix}{NAMES[name]}{':'.join(of)}"


@attrs.frozen
class Place:
    """Where an unfinished job is: in a stream or a sorted set of its queue. As text (``code``) it is part of records and of tokens.

    *letter* is ``s`` for ``stream:``, ``r`` for ``ready:``, ``u`` for ``suspect:``, ``d`` for ``delayed:`` and ``t`` for ``retry:``.
    """

    letter: str
    priority: Priority
    queue: str

    @property
    def code(self) -> str:
        """As it is written down: ``s2default``."""
        return f"{self.letter}{self.priority.rank}{self.queue}"

    @classmethod
    def from_code(cls, code: str) -> Place:
        """What :attr:`code` came from.

        Raises:
            ValueError: It is no such text.
        """
        if len(code) < 3 or code[0] not in "srudt" or code[1] not in "0123":
            msg = f"not a place: {code!r:.60}"
            raise ValueError(msg)
        return cls(code[0], _PRIORITIES[int(code[1])], code[2:])


def lua_constants(source: str) -> str:
    """Lua that defines the names which *source* uses, as ``K_STREAM`` for the key prefix of ``STREAM``."""
    lines = [f"local K_{name} = P .. '{text}'" for name, text in NAMES.items() if f"K_{name}" in source]
    return "\n".join([f"local GROUP = '{GROUP}'", *lines])
