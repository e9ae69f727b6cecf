"""Making due jobs ready."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from .keys import Place
from .withdraw import bury_member, withdraw

if TYPE_CHECKING:
    from .keys import Shard
    from .link import Link

__all__ = ["promote"]

_STEP: Final = 200
"""How many jobs one script takes: about 2 ms of the server's time."""
_ROUNDS: Final = 100
"""How often one call goes on although it meets nothing but what is no delayed job."""
_DAY_MS: Final = 86_400_000


def promote(link: Link, limit: int, *, ttl_ms: int = _DAY_MS) -> int:
    """See ``Upkeep.promote``. What stands among delayed jobs and is none becomes a dead letter, kept for *ttl_ms*."""
    promoted = 0
    for shard in _due(link):
        promoted += _promote(link, shard, limit - promoted, ttl_ms)
        if promoted >= limit:
            break
    return promoted


def _due(link: Link) -> Iterable[Shard]:
    """The shards that have something due, those due first before the others."""
    shards = link.shards()
    if len(shards) == 1:
        return shards
    answers = link.calls([("promote", shard, (0,)) for shard in shards])
    due = [(float(first), number) for number, (_, first, *_) in enumerate(answers) if first]
    return [shards[number] for _, number in sorted(due)]


def _promote(link: Link, shard: Shard, limit: int, ttl_ms: int) -> int:
    promoted = fruitless = 0
    while promoted < limit and fruitless < _ROUNDS:
        count, more, changed, *odd = link.call("promote", shard, min(limit - promoted, _STEP))
        promoted += count
        fruitless = 0 if count else fruitless + 1
        found = [odd[at : at + 3] for at in range(0, len(odd), 3)]
        withdrawals = [bury_member(Place.from_code(code.decode()), member, record) for code, member, record in found]
        buried = any(withdraw(link, shard, withdrawals, ttl_ms=ttl_ms))
        if not more or not (changed or buried):
            break
    return promoted
