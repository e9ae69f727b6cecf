"""What ``jobqueue doctor`` looks at in every installation. Plugins offer checks of their own by the hook ``jobqueue_checks``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from jobqueue_cli.rendering import short_duration
from jobqueue_cli.wording import counted
from jobqueue_core.broker import JobFilter, QueueStats, WorkerInfo
from jobqueue_core.checks import Check, Finding
from jobqueue_core.errors import BrokerUnavailable, JobQueueError, StorageError
from jobqueue_core.job import JobState
from jobqueue_core.recorder import Recorder
from jobqueue_core.storage import DeadLetterFilter

if TYPE_CHECKING:
    from jobqueue_core.app import App
    from jobqueue_core.settings import Settings

__all__ = ["Examination"]

_SKEW: Final = timedelta(seconds=2)
_LATE: Final = timedelta(minutes=1)
_LOOK_AT: Final = 200
_NO_WORKER: Final = "start a worker: jobqueue-run worker"


class Examination:
    """The checks of one call of the doctor. Those that need the broker say nothing once it has been found away.

    Args:
        settings: What is to be examined.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._broker_answers = False
        self._storage_answers = False

    def checks(self) -> list[Check]:
        """All of them, in the order in which they are to run."""
        with_broker = {"clock": _clock, "workers": _workers, "queues": _queues, "types": _types}
        return [
            Check(name="settings", run=self._settings_check),
            Check(name="plugins", run=_plugins),
            Check(name="handlers", run=_handlers),
            Check(name="broker", run=self._broker),
            Check(name="storage", run=self._storage),
            *(Check(name=name, run=self._if_broker_answers(look)) for name, look in with_broker.items()),
            Check(name="outbox", run=self._outbox),
        ]

    def _settings_check(self, _app: App, _fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of a check
        source = self._settings.source
        found = f"the config file {source} is valid" if source else "no config file: the defaults hold"
        return [_warning(text) for text in self._settings.warnings] or [_ok(found)]

    def _broker(self, app: App, _fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of a check
        try:
            app.broker.now()
        except BrokerUnavailable:
            raise
        except JobQueueError as error:
            return [_error(str(error), "see that it runs, and that [broker] says where")]
        self._broker_answers = True
        return [_ok(f"{app.broker.describe()} answers")]

    def _storage(self, app: App, _fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of a check
        try:
            app.storage.count_dead_letters(DeadLetterFilter())
        except JobQueueError as error:
            return [_error(str(error), "see that it runs, that [storage] says where, and that it is migrated")]
        self._storage_answers = True
        return [_ok(f"{app.storage.describe()} answers")]

    def _if_broker_answers(self, look: Callable[[App], list[Finding]]) -> Callable[[App, bool], list[Finding]]:
        return lambda app, _fix: look(app) if self._broker_answers else []

    def _outbox(self, app: App, fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of a check
        if not self._broker_answers:
            return []
        lag = app.broker.outbox_lag()
        waiting = f"{counted(lag.history, 'execution')} and {counted(lag.dead, 'dead letter')} wait for storage"
        findings = []
        if lag.dropped:
            findings.append(_warning(f"{counted(lag.dropped, 'execution')} dropped because more than [history] max_pending waited"))
        if lag.oldest_age < _LATE:
            return findings or [_ok(waiting if lag.history or lag.dead else "storage has everything")]
        waiting += f", the oldest for {short_duration(lag.oldest_age)}"
        if not fix or not self._storage_answers:
            return [*findings, _warning(waiting, "run a worker or scheduler, which record; --fix records them now")]
        try:
            moved = _recorder(app).record_waiting()
        except StorageError as error:
            return [*findings, _error(f"{waiting}, and storage does not take them: {error}")]
        return [*findings, Finding(level="ok", text=f"{waiting}: recorded {moved}", fixed=True)]


def _ok(text: str) -> Finding:
    return Finding(level="ok", text=text)


def _warning(text: str, remedy: str | None = None) -> Finding:
    return Finding(level="warning", text=text, remedy=remedy)


def _error(text: str, remedy: str | None = None) -> Finding:
    return Finding(level="error", text=text, remedy=remedy)


def _recorder(app: App) -> Recorder:
    history = app.settings.history
    return Recorder(broker=app.broker, storage=app.storage, record=history.record, retention=history.retention)


def _plugins(app: App, _fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of a check
    # Asked for here, because only a plugin that has been asked can be at fault.
    app.middleware()
    _ = app.observers
    remedy = "upgrade or uninstall it, or name it in [plugins] disable"
    return [_warning(str(fault), remedy) for fault in app.plugins.faults] or [_ok("all plugins can be used")]


def _handlers(app: App, _fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of a check
    found = counted(len(app.registry), "handler")
    remedy = "a worker does not start with it: repair or uninstall it, or name it in [plugins] disable"
    return [_error(str(fault), remedy) for fault in app.handler_faults] or [_ok(f"{found} found")]


def _clock(app: App) -> list[Finding]:
    before = datetime.now(UTC)
    there = app.broker.now()
    after = datetime.now(UTC)
    # The truth lies between the two readings, so what is outside of them is skew for certain.
    skew = max(before - there, there - after, timedelta(0))
    if skew <= _SKEW:
        return [_ok("this host and the broker agree on the time")]
    side = "behind" if there > after else "ahead of"
    return [_warning(f"this host's clock is {short_duration(skew)} {side} the broker's", "keep both in step by NTP; jobs obey the broker's clock")]


def _workers(app: App) -> list[Finding]:
    workers = app.broker.workers()
    if not workers:
        return [_warning("no worker is running", _NO_WORKER)]
    findings = [_ok(f"{counted(len(workers), 'worker')} running")]
    versions = sorted({one.version for one in workers})
    if len(versions) > 1:
        findings.append(_warning(f"workers of different releases are running: {', '.join(versions)}", "finish the upgrade"))
    return findings


def _queues(app: App) -> list[Finding]:
    workers = app.broker.workers()
    findings = []
    for queue in app.broker.queues():
        pending = queue.waiting + queue.scheduled + queue.retrying
        jobs = counted(pending, "job")
        if queue.paused:
            findings.append(_warning(f"queue {queue.name!r} is paused, with {jobs} waiting", f"jobqueue queue resume {queue.name}"))
        elif pending and not any(_serves(worker, queue) for worker in workers):
            remedy = f'add it to [worker] queues of a worker (or "*", all others); or {_NO_WORKER}' if workers else _NO_WORKER
            findings.append(_error(f"queue {queue.name!r} has {jobs} and no worker serves it", remedy))
    return findings or [_ok("no queue waits in vain")]


def _serves(worker: WorkerInfo, queue: QueueStats) -> bool:
    return "*" in worker.queues or queue.name in worker.queues


def _types(app: App) -> list[Finding]:
    # A worker that finds no handler puts a job off, so such jobs are scheduled ones; a look at the newest costs the same whatever waits.
    page = app.broker.jobs(JobFilter(state=JobState.SCHEDULED), cursor=None, limit=_LOOK_AT)
    homeless = Counter(job.type for job in page.jobs if job.unknown_since is not None)
    remedy = "install its handler package where the workers run; 'jobqueue workers --json' shows the types they serve"
    return [
        _error(f"no worker has a handler for type {job_type!r}: {counted(count, 'job')} waiting for one", remedy)
        for job_type, count in sorted(homeless.items())
    ] or [_ok("no job waits for a handler")]
