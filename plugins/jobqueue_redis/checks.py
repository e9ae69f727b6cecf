"""What ``jobqueue doctor`` looks at on a Redis server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

from jobqueue_core.checks import Check, Finding
from jobqueue_core.durations import format_duration
from jobqueue_core.errors import BrokerError

from . import audit
from .broker import RedisBroker
from .times import duration_ms

if TYPE_CHECKING:
    from jobqueue_core.app import App

    from .link import Link

__all__ = ["checks"]

_SHOWN: Final = 20
_PORTION: Final = 100
_NEARLY_FULL: Final = 0.9
_FIX: Final = "run: jobqueue doctor --fix"


def checks() -> list[Check]:
    """All checks of this plugin."""
    return [
        Check(name="redis server", run=_on_redis(_check_server)),
        Check(name="redis queues", run=_on_redis(_check_queues)),
        Check(name="redis jobs", run=_on_redis(_check_jobs)),
        Check(name="redis leases", run=_on_redis(_check_leases)),
    ]


def _on_redis(look: Callable[[App, RedisBroker, bool], list[Finding]]) -> Callable[[App, bool], list[Finding]]:
    def run(app: App, fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of Check.run
        return look(app, app.broker, fix) if isinstance(app.broker, RedisBroker) else []

    return run


# The server ----------------------------------------------------------------------------------------------------------------------------


def _check_server(app: App, broker: RedisBroker, _fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of Check.run
    link = broker.link
    info = _info(link)
    if info is None:
        return [Finding(level="warning", text="the server tells nothing of itself: our user may not do INFO", remedy="grant it +info")]
    return [_version(info), *_eviction(app, info), *_memory(info), *_persistence(link, info), *_replicas(app, info)]


def _version(info: Mapping[str, str]) -> Finding:
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info.get('redis_version', 'of unknown version')}"
    return Finding(level="ok", text=f"{name}, {info.get('redis_mode', 'standalone')}, up for {info.get('uptime_in_days', '?')} days")


def _eviction(app: App, info: Mapping[str, str]) -> Iterable[Finding]:
    policy = info.get("maxmemory_policy", "noeviction")
    remedy = "CONFIG SET maxmemory-policy noeviction, and in redis.conf"
    if policy.startswith("allkeys"):
        level: Literal["warning", "error"] = "warning" if app.settings.broker.allow_eviction else "error"
        yield Finding(level=level, text=f"maxmemory-policy is {policy}: a full server throws jobs away unseen", remedy=remedy)
    elif policy.startswith("volatile"):
        text = f"maxmemory-policy is {policy}: a full server forgets results, unique keys and idempotency keys before their time"
        yield Finding(level="warning", text=text, remedy=remedy)


def _memory(info: Mapping[str, str]) -> Iterable[Finding]:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if most and used > most * _NEARLY_FULL:
        remedy = "raise maxmemory, shorten [job] result_ttl, or let more workers run what waits"
        yield Finding(level="warning", text=f"memory is {used / most:.0%} full: at 100% enqueueing is refused", remedy=remedy)


def _persistence(link: Link, info: Mapping[str, str]) -> Iterable[Finding]:
    if info.get("aof_enabled") == "1":
        loses = {"always": "nothing", "no": "up to some 30 s of jobs"}.get(_config(link, "appendfsync") or "", "up to some 2 s of jobs")
        yield Finding(level="ok", text=f"appendonly is on: when its machine crashes the server loses {loses}; when only the server does, hardly any")
        if info.get("aof_last_write_status", "ok") != "ok":
            yield Finding(level="error", text="the last write to the append only file failed", remedy="free disk space; see the server's log")
        return
    save = _config(link, "save")
    if save is None:
        text = "appendonly is off; whether snapshots are made our user may not see (CONFIG GET)"
    elif save:
        text = f"only snapshots are made (save {save}): a crash of the server loses all jobs since the last"
    else:
        text = "nothing is written to disk: a crash of the server loses all jobs"
    yield Finding(level="warning", text=text, remedy="CONFIG SET appendonly yes, and in redis.conf")


def _replicas(app: App, info: Mapping[str, str]) -> Iterable[Finding]:
    wanted, there = app.settings.broker.wait_replicas, int(info.get("connected_slaves", 0))
    if there < wanted:
        text = f"[broker] wait_replicas is {wanted}, and {there} replicas are connected: every enqueue fails"
        yield Finding(level="error", text=text, remedy="connect replicas, or lower wait_replicas")


def _info(link: Link) -> Mapping[str, str] | None:
    try:
        text: bytes = link.command(link.home, "INFO")
    except BrokerError:
        return None
    lines = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _config(link: Link, name: str) -> str | None:
    """A setting of the server; None when it does not tell."""
    try:
        found = link.command(link.home, "CONFIG", "GET", name)
    except BrokerError:
        return None
    return found[1].decode("utf-8", "replace") if found else None


# What is in it -------------------------------------------------------------------------------------------------------------------------

_NEGLECTED: Final = {
    "work": "queue {} has jobs that no worker is told of",
    "held": "queue {} has leased jobs that nobody would take back",
    "due": "queue {} has delayed jobs that nobody would promote in time",
    "group": "the consumer group of {} is gone: somebody has destroyed it; what was leased may run twice",
}


def _check_queues(_app: App, broker: RedisBroker, fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of Check.run
    found = audit.neglected(broker.link, mend=fix)
    remedy = None if fix else _FIX
    return [Finding(level="error", text=_NEGLECTED[one.kind].format(one.what), remedy=remedy, fixed=fix) for one in found] or [
        Finding(level="ok", text="all queues are looked after")
    ]


def _check_jobs(app: App, broker: RedisBroker, fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of Check.run
    if fix and (waiting := broker.outbox_lag().dead):
        # A dead letter has the number of the job's death, and storage knows the last.
        text = f"nothing is mended while {waiting} dead letters wait for storage"
        return [Finding(level="warning", text=text, remedy="run a worker or scheduler, which record, then this again")]
    # Of a job that a worker runs the entry may be gone: it ends all the same.
    running = {job.job_id for worker in broker.workers() for job in worker.running}
    found = (one for one in audit.strays(broker.link) if one.job_id not in running)
    findings: list[Finding] = []
    count = 0
    while some := list(islice(found, _PORTION)):
        if fix:
            audit.mend(broker.link, some, ttl_ms=duration_ms(app.settings.job.result_ttl), last_death=partial(_last_death, app))
        findings += [_stray(one, fix=fix) for one in some[: _SHOWN - len(findings)]]
        count += len(some)
    if count > len(findings):
        findings.append(Finding(level="error", text=f"and {count - len(findings)} more jobs", remedy=None if fix else _FIX, fixed=fix))
    return [*(findings or [Finding(level="ok", text="all jobs are where their records say")]), *_leftovers(broker.link, fix=fix)]


def _stray(one: audit.Stray, *, fix: bool) -> Finding:
    text = f"job {one.job_id}: {one.problem}"
    if one.withdrawal is None and one.restores is None:
        return Finding(level="error", text=text, remedy="nothing tells what it was: delete the record (DEL)")
    return Finding(level="error", text=text, remedy=None if fix else _FIX, fixed=fix)


def _leftovers(link: Link, *, fix: bool) -> Iterable[Finding]:
    found = audit.leftovers(link, remove=fix)
    for count, what in ((found.unique, "unique keys of jobs that are gone"), (found.logs, "logs of jobs that are gone")):
        if count:
            yield Finding(level="warning", text=f"{count} {what}: they harm nothing, and take room", remedy=None if fix else _FIX, fixed=fix)


def _last_death(app: App, job_id: str) -> int:
    letter = app.storage.dead_letter(job_id)
    return 0 if letter is None else letter.job.deaths


def _check_leases(_app: App, broker: RedisBroker, _fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of Check.run
    idle, stuck = audit.leases(broker.link)
    findings = []
    remedy = "run a worker or scheduler: both take jobs back from workers that are gone"
    for one in stuck:
        where = f"queue {one.place.queue} ({one.place.priority})"
        silent = format_duration(timedelta(seconds=one.longest_ms // 1000))
        text = f"{one.count} leases in {where} were not taken back when they had run out: silent for up to {silent}"
        findings.append(Finding(level="error", text=text, remedy=remedy))
    known = f"{idle} consumers hold nothing: workers that wait, and those gone for less than a minute" if idle else "no consumer is left over"
    return findings or [Finding(level="ok", text=f"no lease is overdue; {known}")]
