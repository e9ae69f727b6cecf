"""What workers say of themselves, and of the types they serve."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from jobqueue_core.broker import WORKER_SHOWN, TypeInfo, WorkerInfo

from .steps import steps
from .times import duration_us, from_us

if TYPE_CHECKING:
    from .link import Link

__all__ = ["beat", "leave", "prune", "types", "workers"]

_WORKER_KEPT: Final = timedelta(hours=1)
_TYPE_KEPT: Final = timedelta(days=1)
_TYPES_A_SCRIPT: Final = 500

_encoder = msgspec.msgpack.Encoder()
_worker = msgspec.msgpack.Decoder(WorkerInfo)
_type = msgspec.msgpack.Decoder(TypeInfo)


def beat(link: Link, worker: WorkerInfo) -> None:
    """See ``Consumer.beat``."""
    # What is known of types is kept once, not with each worker.
    brief = tuple(TypeInfo(type=one.type, queue=one.queue, priority=one.priority) for one in worker.types)
    said = _encoder.encode(replace(worker, types=brief, last_beat=None))
    for some in steps(worker.types, _TYPES_A_SCRIPT) if worker.types else [()]:
        types = [part for one in some for part in (one.type, _encoder.encode(replace(one, last_seen=None)))]
        link.call("beat", link.home, worker.id, said, *types)


def leave(link: Link, worker_id: str) -> None:
    """See ``Consumer.leave``."""
    link.call("leave", link.home, worker_id)


def workers(link: Link) -> list[WorkerInfo]:
    """See ``Inspection.workers``."""
    flat = link.call("fleet", link.home, "workers", duration_us(WORKER_SHOWN))
    found = [replace(_worker.decode(said), last_beat=from_us(int(beat_us))) for beat_us, said in zip(flat[::2], flat[1::2], strict=True)]
    return sorted(found, key=lambda worker: (worker.started_at, worker.id))


def types(link: Link) -> list[TypeInfo]:
    """See ``Inspection.types``."""
    flat = link.call("fleet", link.home, "types", duration_us(_TYPE_KEPT))
    found = [replace(_type.decode(said), last_seen=from_us(int(seen_us))) for seen_us, said in zip(flat[::2], flat[1::2], strict=True)]
    return sorted(found, key=lambda one: one.type)


def prune(link: Link, limit: int) -> int:
    """Forget up to *limit* workers and types that have not been seen for long; says how many."""
    forgotten: int = link.call("prune_fleet", link.home, limit, duration_us(_WORKER_KEPT), duration_us(_TYPE_KEPT))
    return forgotten
