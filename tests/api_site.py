"""An installation whose REST API a test asks in its own process: with keys, and with hands that run jobs without a worker."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import attrs
import falcon
import falcon.testing
from servers import PostgresPlace, RedisPlace

from jobqueue_api.application import create_app
from jobqueue_api.section import ApiSection
from jobqueue_api.server.closing import Closing
from jobqueue_core import JobQueue
from jobqueue_core.app import App
from jobqueue_core.attempt import DeadLetter, Lease, LogLine, Settlement
from jobqueue_core.broker import Broker
from jobqueue_core.fingerprint import error_fingerprint
from jobqueue_core.job import DeadReason, Job, JobState, Progress
from jobqueue_core.keys import ApiKey
from jobqueue_core.plugins import Plugins
from jobqueue_core.recorder import Recorder
from jobqueue_core.settings import load_settings
from jobqueue_core.storage import Storage
from jobqueue_core.testing.clock import ManualClock
from jobqueue_core.testing.factories import completed, dead_job, died, execution, failed, log_line, report, type_info, worker_info
from jobqueue_sqlite import SqliteBroker, SqliteStorage

__all__ = ["KEYS", "PREFIX", "SECRETS", "ApiSite", "Client", "Result", "links", "next_of", "opened", "refusal", "walk"]

PREFIX: Final = "/api/v1"
SECOND: Final = timedelta(seconds=1)
SECRETS: Final = {role: f"{role}-key-8d0d1b2c" for role in ("read", "write", "admin")}
KEYS: Final = tuple(ApiKey(name=f"the-{role}er", role=role, key=secret) for role, secret in SECRETS.items())

Client = falcon.testing.TestClient
Result = falcon.testing.Result


class ApiSite:
    """The API on a broker and a storage of its own: by default on one SQLite file, whose clock stands still until it is moved.

    Args:
        folder: Where the SQLite file is.
        overrides: Settings as on a command line; with a ``broker.url`` that broker is used, and with a ``storage.url`` that storage.
        result_ttl: How long the SQLite broker keeps finished jobs.
        section: Fields of ``ApiSection``; by default there are the three keys in ``SECRETS``.
    """

    def __init__(
        self, folder: Path, *, overrides: Mapping[str, object] | None = None, result_ttl: timedelta = timedelta(days=1), **section: Any
    ) -> None:
        file = folder / "jobqueue.db"
        here = {"broker.url": f"sqlite:///{file}", "storage.url": f"sqlite:///{file}"}
        plugins = Plugins.load()
        settings = load_settings(None, environ={}, overrides={**here, **(overrides or {})}, plugins=plugins)
        api = ApiSection(**{"keys": KEYS, **section})
        self.app = App(attrs.evolve(settings, offered={**settings.offered, "api": api}), plugins)
        self.clock = ManualClock()
        if settings.broker.url == here["broker.url"]:
            self.app._broker = SqliteBroker(file, clock=self.clock, result_ttl=result_ttl)
        if settings.storage.url == here["storage.url"]:
            self.app._storage = SqliteStorage(file)
        self.closing = Closing()
        self.wsgi = create_app(self.app, closing=self.closing)
        self._numbers = itertools.count(1)

    @classmethod
    def on(cls, folder: Path, broker: RedisPlace | None = None, storage: PostgresPlace | None = None, **section: Any) -> ApiSite:
        """The same on other servers."""
        overrides: dict[str, object] = {}
        for table, place in (("broker", broker), ("storage", storage)):
            if place is not None:
                overrides |= {f"{table}.plugin": "redis" if table == "broker" else "postgres", f"{table}.url": place.url}
                overrides["run.namespace"] = place.namespace
        return cls(folder, overrides=overrides, **section)

    # Asking ----------------------------------------------------------------------------------------------------------------------------

    def client(self, role: str | None = "admin", **headers: str) -> Client:
        """A client with the key of that role; None: with none."""
        key = {} if role is None else {"Authorization": f"Bearer {SECRETS[role]}"}
        return Client(self.wsgi, headers={"Host": "localhost:8080", **key, **headers})

    @property
    def queue(self) -> JobQueue:
        return self.app.queue

    @property
    def broker(self) -> Broker:
        return self.app.broker

    @property
    def storage(self) -> Storage:
        return self.app.storage

    # Jobs in each state ----------------------------------------------------------------------------------------------------------------

    def queued(self, type: str = "test.job", payload: object = None, **options: Any) -> Job:
        """A job that waits; of a queue that nobody else has, unless it is given."""
        return self.queue.enqueue(type, payload, **{"queue": f"queue-{next(self._numbers)}", **options})

    def scheduled(self, **options: Any) -> Job:
        return self.queued(**{"delay": "1h", **options})

    def leased(self, **options: Any) -> Lease:
        """The lease of a job that a worker has just taken."""
        return self.lease(self.queued(**options))

    def lease(self, job: Job) -> Lease:
        """Take the next job of its queue, which is that job."""
        self.broker.promote(1000)
        (lease,) = self.broker.lease([job.queue], 1, worker_id="worker-1", lease_for=30 * SECOND, wait=timedelta(0), suspects=1)
        assert lease.job.id == job.id
        return lease

    def settle(self, settlement: Settlement) -> Job:
        """Let a run end so, and be recorded."""
        assert self.broker.settle([settlement], worker_id="worker-1") == [True]
        self.record()
        return self.job(settlement.lease.job.id)

    def processing(self, *, lines: Sequence[LogLine] | None = None, **options: Any) -> Job:
        """A job that runs, has said how far it is, and has logged a line."""
        lease = self.leased(**options)
        said = [log_line("half of it is done")] if lines is None else lines
        self.broker.report([report(lease, progress=Progress(0.5, "half"), lines=said)], worker_id="worker-1")
        return self.job(lease.job.id)

    def retrying(self, **options: Any) -> Job:
        return self.settle(failed(self.leased(**options), delay=3600 * SECOND, traceback="Traceback: here"))

    def completed(self, result_json: bytes | None = b'{"sent": true}', **options: Any) -> Job:
        return self.settle(completed(self.leased(**options), result_json))

    def dead(self, *, error: str = "ValueError: no", reason: DeadReason = DeadReason.RETRIES_EXHAUSTED, **options: Any) -> Job:
        return self.settle(died(self.leased(**options), reason=reason, error=error, traceback=f"Traceback: there\n{error}"))

    def cancelled(self, **options: Any) -> Job:
        job = self.queued(**options)
        assert self.broker.cancel(job.id) == "cancelled"
        return self.job(job.id)

    def archived(self, **fields: Any) -> str:
        """The id of a job that only history remembers."""
        one = execution(**{"finished_at": self.broker.now() - 3600 * SECOND, "scheduled_at": self.broker.now() - 7200 * SECOND, **fields})
        self.storage.record_executions([one], record="all")
        return one.job_id

    def undecodable(self, raw: bytes = b"\xff\x00not a job", **fields: Any) -> str:
        """The id of a dead letter of something that could not be read."""
        defaults = {"type": "unknown", "payload_json": b"", "dead_reason": DeadReason.UNDECODABLE, "died_at": self.broker.now()}
        job = dead_job(**{**defaults, **fields})
        error = "undecodable record: it has no format number"
        letter = DeadLetter(
            job=job, died_at=job.completed_at or self.broker.now(), error=error, fingerprint=error_fingerprint(job.type, error), raw=raw
        )
        self.storage.record_dead_letters([letter])
        return job.id

    def one_of_each(self) -> dict[JobState, Job]:
        """A job in each state that there is."""
        found = [self.queued(), self.scheduled(), self.processing(), self.retrying(), self.completed(), self.dead(), self.cancelled()]
        by_state = {job.state: job for job in found}
        assert set(by_state) == set(JobState)
        return by_state

    # The rest --------------------------------------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> Job:
        return self.queue.operations.job(job_id)

    def record(self) -> None:
        """Bring what waits in the outbox to storage."""
        Recorder(broker=self.broker, storage=self.storage).record_waiting()

    def worker(self, worker_id: str = "worker-1", **type_fields: Any) -> None:
        """Let a worker beat that serves ``test.job``."""
        schema = {"type": "object", "properties": {"to": {"type": "string"}}}
        served = type_info(**{"payload_schema": schema, "description": "For tests.", **type_fields})
        self.broker.beat(worker_info(worker_id, types=(served,)))

    def schedule(self, name: str = "nightly", **fields: Any) -> str:
        """The name of a schedule that has just been added."""
        self.queue.schedules.add(name, **{"expression": "0 3 * * *", "type": "test.job", "payload": {"n": 1}, **fields})
        return name

    def config_schedule(self, name: str = "from-file", **fields: Any) -> str:
        """The name of a schedule that stands in a config file."""
        self.queue.schedules.synchronise({name: {"expression": "@hourly", "type": "test.job", **fields}})
        return name

    def close(self) -> None:
        self.closing.begin()
        self.app.close()


@contextmanager
def opened(site: ApiSite) -> Iterator[ApiSite]:
    """*site*, closed at the end."""
    try:
        yield site
    finally:
        site.close()


# Answers -------------------------------------------------------------------------------------------------------------------------------


def refusal(result: Result, status: int, code: str | None = None, field: str | None = None) -> str:
    """That it is an error of the one shape; what it says to people.

    Args:
        result: What was answered.
        status: What should be.
        code: The word for programs; None: any.
        field: What the details should name; None: no matter.
    """
    shown = f"{result.status_code} {result.text[:500]}"
    assert result.status_code == status, shown
    assert result.headers["content-type"].startswith("application/json"), shown
    body = json.loads(result.content)
    assert set(body) == {"error", "code", "details"}, shown
    assert isinstance(body["error"], str), shown
    assert body["error"], shown
    assert body["code"].replace("_", "").isalpha(), shown
    assert code in (None, body["code"]), shown
    assert all(set(one) == {"field", "problem"} and one["problem"] for one in body["details"]), shown
    if status == 422:
        assert body["details"], f"no field is named: {shown}"
    if field is not None:
        assert field in [one["field"] for one in body["details"]], shown
    if status in (429, 503):
        assert int(result.headers["retry-after"]) >= 1, shown
    return str(body["error"])


def links(result: Result) -> dict[str, str]:
    """Relation -> url, of the header ``Link``."""
    found = {}
    for one in filter(None, result.headers.get("link", "").split(", ")):
        url, _, relation = one.partition(">; rel=")
        found[relation.strip('"')] = url.removeprefix("<")
    return found


def next_of(result: Result) -> str | None:
    """Path and query of the next page; None at the end."""
    url = links(result).get("next")
    return None if url is None else url.removeprefix("http://localhost:8080")


def walk(client: Client, path: str) -> list[list[Any]]:
    """All pages of a list, by following its links."""
    pages: list[list[Any]] = []
    following: str | None = path
    while following is not None:
        page = client.simulate_get(following)
        assert page.status_code == 200, page.text
        pages.append(page.json)
        following = next_of(page)
        assert len(pages) < 200, "a walk that does not end"
    return pages
