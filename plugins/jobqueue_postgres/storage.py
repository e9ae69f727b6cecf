"""The PostgreSQL storage: each method is one transaction; what happens in it stands in the file named for its role."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from jobqueue_core.broker import PROTOCOL

from . import dead_letters, history, partitions, schedules
from . import statistics as rollups
from .connections import Connections
from .dead_letters import record as record_dead_letters

if TYPE_CHECKING:
    from jobqueue_core.attempt import DeadLetter, Execution
    from jobqueue_core.storage import (
        Claim,
        DeadLetterFilter,
        DeadLetterGroup,
        DeadLetterPage,
        EndFilter,
        ExecutionFilter,
        ExecutionPage,
        ExecutionStatistics,
        ExecutionTotals,
        RecordPolicy,
        Schedule,
        Tick,
    )

__all__ = ["PostgresStorage"]


_RECORDING: Final = timedelta(seconds=30)
"""A batch of a thousand rows, also on a server that is busy."""


_REFUSED_STEP: Final = 100


class PostgresStorage:
    """A storage in a PostgreSQL database. Making it connects to nothing: a server that is away keeps nobody from starting.

    Args:
        url: A libpq url.
        namespace: The schema in which the tables are; empty for the connection's own search path.
        pooled: *url* leads through a transaction pooler.
        retention: How long executions are kept: decides how long a partition is.
        timeout: How long a statement may take; recording may take longer.
    """

    PROTOCOL = PROTOCOL

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "",
        pooled: bool = False,
        retention: timedelta = timedelta(days=30),
        timeout: timedelta = timedelta(seconds=4),
    ) -> None:
        self.connections: Final = Connections(url, namespace=namespace, pooled=pooled, timeout=timeout)
        self._retention = retention

    def describe(self) -> str:
        """See ``Storage``."""
        return self.connections.where

    def close(self) -> None:
        """See ``Storage``."""
        self.connections.close()

    # History ---------------------------------------------------------------------------------------------------------------------------

    def record_executions(self, executions: Sequence[Execution], *, record: RecordPolicy) -> None:
        """See ``History``."""
        with self.connections.transaction(timeout=_RECORDING) as connection:
            history.record(connection, executions, policy=record)

    def executions(self, wanted: ExecutionFilter, *, cursor: str | None, offset: int, limit: int) -> ExecutionPage:
        """See ``History``."""
        with self.connections.transaction() as connection:
            return history.executions(connection, wanted, cursor=cursor, offset=offset, limit=limit)

    def job_executions(self, job_id: str) -> list[Execution]:
        """See ``History``."""
        with self.connections.transaction() as connection:
            return history.job_executions(connection, job_id)

    def ends(self, wanted: EndFilter, *, cursor: str | None, limit: int) -> ExecutionPage:
        """See ``History``."""
        with self.connections.transaction() as connection:
            return history.ends(connection, wanted, cursor=cursor, limit=limit)

    def have_ended(self, jobs: Sequence[tuple[str, datetime]], wanted: EndFilter) -> list[bool]:
        """See ``History``."""
        with self.connections.transaction() as connection:
            return history.have_ended(connection, jobs, wanted)

    def statistics(self, *, since: datetime, until: datetime) -> ExecutionStatistics:
        """See ``History``."""
        with self.connections.transaction() as connection:
            return rollups.statistics(connection, since=since, until=until)

    def totals(self, limit: int) -> ExecutionTotals:
        """See ``History``."""
        with self.connections.transaction() as connection:
            return rollups.totals(connection, limit)

    def prune_executions(self, before: datetime, limit: int) -> int:
        """See ``History``."""
        with self.connections.transaction() as connection:
            wanted = partitions.wanted(connection, before + self._retention, retention=self._retention)
        for starts_at, ends_at in wanted:
            with self.connections.transaction(timeout=_RECORDING) as connection:
                partitions.add(connection, starts_at, ends_at)
        with self.connections.transaction(timeout=_RECORDING) as connection:
            if partitions.drop(connection, before):
                return limit
        with self.connections.transaction(timeout=_RECORDING) as connection:
            forgotten = history.forget(connection, before, limit)
            return forgotten + rollups.forget(connection, before, limit - forgotten)

    # Dead letters ----------------------------------------------------------------------------------------------------------------------

    def record_dead_letters(self, dead_letters: Sequence[DeadLetter]) -> None:
        """See ``DeadLetters``."""
        with self.connections.transaction(timeout=_RECORDING) as connection:
            record_dead_letters(connection, dead_letters)

    def dead_letters(self, wanted: DeadLetterFilter, *, cursor: str | None, offset: int, limit: int) -> DeadLetterPage:
        """See ``DeadLetters``."""
        with self.connections.transaction() as connection:
            return dead_letters.page(connection, wanted, cursor=cursor, offset=offset, limit=limit)

    def dead_letter(self, job_id: str) -> DeadLetter | None:
        """See ``DeadLetters``."""
        with self.connections.transaction() as connection:
            return dead_letters.latest(connection, job_id)

    def dead_letter_groups(self, wanted: DeadLetterFilter, *, limit: int) -> list[DeadLetterGroup]:
        """See ``DeadLetters``."""
        with self.connections.transaction() as connection:
            return dead_letters.groups(connection, wanted, limit=limit)

    def count_dead_letters(self, wanted: DeadLetterFilter) -> int:
        """See ``DeadLetters``."""
        with self.connections.transaction() as connection:
            return dead_letters.count(connection, wanted)

    def begin_requeues(self, deaths: Sequence[tuple[str, int]], *, now: datetime) -> list[bool]:
        """See ``DeadLetters``."""
        with self.connections.transaction() as connection:
            return dead_letters.begin_requeues(connection, deaths, now=now)

    def finish_requeues(self, deaths: Sequence[tuple[str, int]], *, now: datetime, requeued: bool) -> None:
        """See ``DeadLetters``."""
        with self.connections.transaction() as connection:
            dead_letters.finish_requeues(connection, deaths, now=now, requeued=requeued)

    def stale_requeues(self, before: datetime, limit: int) -> list[DeadLetter]:
        """See ``DeadLetters``."""
        with self.connections.transaction() as connection:
            return dead_letters.stale(connection, before, limit)

    def discard(self, job_id: str, death: int) -> bool:
        """See ``DeadLetters``."""
        with self.connections.transaction() as connection:
            return dead_letters.discard(connection, job_id, death)

    def prune_dead_letters(self, before: datetime, limit: int) -> int:
        """See ``DeadLetters``."""
        with self.connections.transaction(timeout=_RECORDING) as connection:
            dead_letters.retry_refused(connection, _REFUSED_STEP)
        with self.connections.transaction() as connection:
            return dead_letters.prune(connection, before, limit)

    # Schedules -------------------------------------------------------------------------------------------------------------------------

    def schedules(self) -> list[Schedule]:
        """See ``Schedules``."""
        with self.connections.transaction() as connection:
            return schedules.everything(connection)

    def schedule(self, name: str) -> Schedule | None:
        """See ``Schedules``."""
        with self.connections.transaction() as connection:
            return schedules.get(connection, name)

    def put_schedule(self, schedule: Schedule, *, expected_version: int | None) -> bool:
        """See ``Schedules``."""
        with self.connections.transaction(timeout=_RECORDING) as connection:
            return schedules.put(connection, schedule, expected_version=expected_version)

    def delete_schedule(self, name: str) -> bool:
        """See ``Schedules``."""
        with self.connections.transaction() as connection:
            return schedules.delete(connection, name)

    def due_schedules(self, now: datetime, limit: int) -> list[Schedule]:
        """See ``Schedules``."""
        with self.connections.transaction() as connection:
            return schedules.due(connection, now, limit)

    def claim_ticks(self, claims: Sequence[Claim]) -> list[bool]:
        """See ``Schedules``."""
        with self.connections.transaction(timeout=_RECORDING) as connection:
            return schedules.claim_ticks(connection, claims)

    def unsent_ticks(self, before: datetime, limit: int) -> list[Tick]:
        """See ``Schedules``."""
        with self.connections.transaction() as connection:
            return schedules.unsent_ticks(connection, before, limit)

    def mark_sent(self, ticks: Sequence[tuple[str, datetime]]) -> None:
        """See ``Schedules``."""
        with self.connections.transaction() as connection:
            schedules.mark_sent(connection, ticks)

    def ticks(self, schedule: str, limit: int) -> list[Tick]:
        """See ``Schedules``."""
        with self.connections.transaction() as connection:
            return schedules.ticks(connection, schedule, limit)
