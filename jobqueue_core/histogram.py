"""A histogram of durations whose percentiles are right within 5 %, whatever their size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Histogram"]

_GROWTH: Final = math.log(1.1)
"""Each bucket's upper edge is 10 % above the last one's: a value read off its middle is at most 5 % wrong."""
_SMALLEST: Final = 0.01
"""Milliseconds; whatever is quicker falls into bucket 0."""
_LARGEST: Final = 1e9
"""Milliseconds, eleven days; whatever is slower falls into the last bucket."""


class Histogram:
    """Counts durations in buckets that grow by 10 %, after DDSketch (Masson, Rim and Lee, VLDB 2019)."""

    __slots__ = ("buckets", "count", "total_ms")

    def __init__(self, buckets: Mapping[int, int] | None = None, *, total_ms: float = 0.0) -> None:
        self.buckets: dict[int, int] = dict(buckets or {})
        self.count = sum(self.buckets.values())
        self.total_ms = total_ms

    @staticmethod
    def bucket(duration_ms: float) -> int:
        """In which bucket a duration in milliseconds is counted: 0 for nothing and for what is no duration, at most some 270."""
        if not duration_ms > _SMALLEST:
            return 0
        return math.ceil(math.log(min(duration_ms, _LARGEST) / _SMALLEST) / _GROWTH)

    def add(self, duration_ms: float) -> None:
        """Count one duration in milliseconds; one that is none counts as nothing, one that cannot be as the longest."""
        bucket = self.bucket(duration_ms)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        self.total_ms += min(duration_ms, _LARGEST) if duration_ms > 0 else 0.0

    def merge(self, others: Iterable[Histogram]) -> None:
        """Add what others have counted."""
        for other in others:
            for bucket, count in other.buckets.items():
                self.buckets[bucket] = self.buckets.get(bucket, 0) + count
            self.count += other.count
            self.total_ms += other.total_ms

    @property
    def mean_ms(self) -> float | None:
        """The mean in milliseconds; None when nothing was counted."""
        return self.total_ms / self.count if self.count else None

    def up_to(self, durations_ms: Sequence[float]) -> list[int]:
        """How many took no longer than each of some durations in milliseconds, which ascend; what is within 5 % of one may be on its other side."""
        found = []
        buckets, position, seen = sorted(self.buckets), 0, 0
        for duration_ms in durations_ms:
            # The last bucket whose middle is not beyond.
            last = math.floor(math.log(duration_ms / _SMALLEST) / _GROWTH + 0.5) if duration_ms > _SMALLEST else 0
            while position < len(buckets) and buckets[position] <= last:
                seen += self.buckets[buckets[position]]
                position += 1
            found.append(seen)
        return found

    def percentile(self, share: float) -> float | None:
        """The duration in milliseconds that *share* (0 to 1) of the runs did not exceed; None when nothing was counted."""
        if not self.count:
            return None
        wanted = max(1, math.ceil(share * self.count))
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return _SMALLEST if bucket == 0 else _SMALLEST * math.exp((bucket - 0.5) * _GROWTH)
        return None
