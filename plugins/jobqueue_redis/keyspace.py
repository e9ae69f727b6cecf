"""Going through all jobs, of which there is no index: it would cost memory and time for each job.

SCAN goes through Redis's hash table in an order that depends on keys alone, not on when they were written: by the bits of a key's hash, the lowest
first, and its cursor says how far it has come. So a walk can be cut in *parts*: those keys whose hash begins with certain bits. A part is always read
from beginning to end, and then nothing can be in two parts, or twice in one, for as long as the table has more buckets than there are parts. It has,
by far (a part holds thousands of keys), unless it shrinks in the middle of a walk to a thousandth of its size.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from .keys import Shard
    from .link import Link

__all__ = ["EXAMINED", "Part", "Scanner", "glob"]

EXAMINED: Final = 10_000
"""The most jobs that one call looks at."""
_STEP: Final = 1_000
"""How many keys one SCAN is to look at: less than half a millisecond of the server's time."""
_MOST_STEPS: Final = 100
"""The most steps for one part, where keys are mostly other things than jobs."""
_BITS: Final = 64
_DEEPEST: Final = 24
_ID: Final = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SPECIAL: Final = re.compile(r"([*?\[\]\\^-])")


@attrs.frozen
class Part:
    """One of 2 ** *level* parts of all keys."""

    level: int = 0
    index: int = 0

    @property
    def start(self) -> int:
        """Where it begins in the order of SCAN, of 2 ** 64 places."""
        return self.index << (_BITS - self.level)

    @property
    def end(self) -> int:
        """Where it ends."""
        return (self.index + 1) << (_BITS - self.level)

    def halves(self) -> tuple[Part, Part]:
        """Its two halves."""
        return Part(self.level + 1, 2 * self.index), Part(self.level + 1, 2 * self.index + 1)


class Scanner:
    """Reads the ids of jobs from the names of their records, and counts the effort."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.steps = 0
        """How often it has asked for keys."""

    @property
    def is_tired(self) -> bool:
        """Whether it has looked at as many keys as one call may."""
        return self.steps >= _MOST_STEPS

    def ids(self, shard: Shard, part: Part) -> set[str] | None:
        """The ids of all jobs in a part of a shard; None when one call may not look at so many."""
        found: set[str] = set()
        position, count = part.start, _STEP
        while position < part.end:
            cursor, ids = self.scan(shard, _mirrored(position), count)
            reached = _mirrored(cursor) if cursor else 1 << _BITS
            if reached > part.end:
                if count == 1:
                    # What comes together after some empty buckets is in the last of them, and that lies behind the end.
                    break
                count = max(count // 4, 1)
                continue
            is_first = position == part.start
            position = reached
            found |= ids
            share = (position - part.start) / (part.end - part.start)
            if part.level < _DEEPEST and (len(found) > EXAMINED or (is_first and (1 / share > _MOST_STEPS or len(found) / share > EXAMINED * 1.1))):
                return None
        return found

    def scan(self, shard: Shard, cursor: int, count: int) -> tuple[int, set[str]]:
        """The ids of some jobs, and the cursor for the next; 0 at the end. What Redis says of its SCAN holds: a job may come again."""
        self.steps += 1
        record = shard.key("JOB")
        after, keys = self._link.command(shard, "SCAN", cursor, "MATCH", f"{glob(record)}*", "COUNT", count)
        start = len(record.encode())
        return int(after), {key[start:].decode() for key in keys if _ID.fullmatch(key, start)}


def glob(text: str) -> str:
    """A pattern for SCAN that matches *text*."""
    return _SPECIAL.sub(r"\\\1", text)


def _mirrored(number: int) -> int:
    """*number* with its 64 bits in reverse order: of a cursor its place in the order of SCAN, and the other way round."""
    return int(f"{number:0{_BITS}b}"[::-1], 2)
