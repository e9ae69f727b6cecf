"""While Redis or PostgreSQL is away the REST API says so within 5 seconds, pretends nothing, and needs no restart once it is back."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import falcon.inspect
import pytest
from api_site import PREFIX, ApiSite, Result, opened, refusal
from servers import PostgresPlace, PostgresServer, Program, Proxy, RedisPlace, RedisServer

from jobqueue_core.job import new_job_id

PATIENCE: Final = 5.5
"""Seconds: the 5 that are promised, and what a machine with much to do takes besides."""
ALWAYS: Final = (
    "/health",
    "/metrics",
    "/docs",
    "/docs/swagger.js",
    "/docs/swagger.css",
    "/docs/start.js",
    f"{PREFIX}/openapi.json",
    f"{PREFIX}/openapi.yaml",
)
"""What depends on neither, or tells of both what it can."""


class Installation:
    """A site on servers of its own, behind networks that can fail, with something of everything in it."""

    def __init__(self, site: ApiSite, server: RedisServer | PostgresServer, proxy: Proxy) -> None:
        self.site = site
        self.server = server
        self.proxy = proxy
        self.live = site.scheduled(queue="mail").id
        self.dead = site.dead(queue="mail", error="OSError: no").id
        self.name = site.schedule()
        site.queue.schedules.run(self.name)

    def path(self, path: str) -> str:
        """*path* with names of what exists."""
        return path.format(dead=self.dead, job_id=self.live, name=self.name)

    def operations(self) -> list[tuple[str, str]]:
        """Method and path of everything that is served."""
        return [
            (
                method.method,
                self.path(
                    re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path).replace("queues/{name}", "queues/mail").replace("dlq/{job_id}", "dlq/{dead}")
                ),
            )
            for route in falcon.inspect.inspect_routes(self.site.wsgi)
            for method in route.methods
            if method.method not in ("HEAD", "OPTIONS") and not method.internal and not route.path.endswith("/events")
        ]

    def ask(self, method: str, path: str) -> Result:
        """Ask, with a body where one is needed; no answer may take longer than is promised."""
        body = {"/jobs": {"type": "a"}, "/jobs/batch": {"jobs": [{"type": "a"}]}, "/schedules": {"name": "new", "expression": "@hourly", "type": "a"}}
        began = time.monotonic()
        given = body.get(path.removeprefix(PREFIX)) if method == "POST" else {"queue": "other"} if method == "PATCH" else None
        answer = self.site.client().simulate_request(method, path, **({} if given is None else {"json": given}))
        assert time.monotonic() - began < PATIENCE, (method, path, time.monotonic() - began)
        return answer

    def get(self, path: str) -> Result:
        return self.ask("GET", f"{PREFIX}{self.path(path)}")

    def answers(self, asked: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Result]:
        """All at once, for each may take its 5 seconds."""
        with ThreadPoolExecutor(50) as pool:
            waiting = {one: pool.submit(self.ask, *one) for one in asked}
            return {one: answer.result() for one, answer in waiting.items()}

    def is_ready(self) -> bool:
        return self.ask("GET", "/ready").status_code == 200

    def comes_back(self) -> None:
        """Wait until it serves again, of itself."""
        deadline = time.monotonic() + 5
        while not self.is_ready():
            assert time.monotonic() < deadline, "it needs a restart"


@pytest.fixture(scope="module")
def on_redis(tmp_path_factory: pytest.TempPathFactory, redis_program: Program | None) -> Iterator[Installation]:
    with (
        RedisServer(redis_program) as server,
        Proxy(server.port) as proxy,
        opened(ApiSite.on(tmp_path_factory.mktemp("api"), broker=RedisPlace(proxy.url, "outages"))) as site,
    ):
        yield Installation(site, server, proxy)


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory: pytest.TempPathFactory, postgres_program: Program | None) -> Iterator[Installation]:
    with PostgresServer(postgres_program) as server, Proxy(server.port) as proxy:
        PostgresPlace(server.url, "outages").migrate()
        with opened(ApiSite.on(tmp_path_factory.mktemp("api"), storage=PostgresPlace(proxy.postgres_url, "outages"))) as site:
            yield Installation(site, server, proxy)


@contextmanager
def _stopped(one: Installation) -> Iterator[None]:
    one.server.stop()
    try:
        yield
    finally:
        one.server.start()


@contextmanager
def _silent(one: Installation) -> Iterator[None]:
    one.proxy.halt()
    try:
        yield
    finally:
        one.proxy.pass_on()


def _is_of_storage(path: str) -> bool:
    return path.startswith((f"{PREFIX}/dlq", f"{PREFIX}/executions", f"{PREFIX}/schedules"))


def test_without_redis_what_storage_has_is_shown_and_nothing_is_pretended(on_redis: Installation) -> None:
    # What changes storage only is done, and so left out here.
    asked = [(method, path) for method, path in on_redis.operations() if method == "GET" or not _is_of_storage(path)]
    asked += [("POST", f"{PREFIX}{on_redis.path(path)}") for path in ("/dlq/{dead}/retry", "/dlq/retry", "/schedules/{name}/run")]
    with _stopped(on_redis):
        answers = on_redis.answers(asked)
        began = time.monotonic()
        refusal(on_redis.get("/queues"), 503, "broker_unavailable")
        assert time.monotonic() - began < 1, "what has just been found out need not be found out again"
        for (method, path), answer in answers.items():
            if path in ALWAYS:
                assert answer.status_code == 200, path
            elif path == "/ready":
                refusal(answer, 503, "not_ready", "broker")
            elif method == "GET" and _is_of_storage(path) and answer.status_code == 200:
                assert answer.json, f"nothing is to be seen at {path}"
            else:
                refusal(answer, 503, "broker_unavailable")
    on_redis.comes_back()
    assert on_redis.get("/jobs/{job_id}").json["state"] == "scheduled"
    assert [letter["job_id"] for letter in on_redis.get("/dlq").json] == [on_redis.dead], "what could not be retried is open again"
    assert on_redis.ask("POST", f"{PREFIX}/jobs").status_code == 201


def test_without_postgres_jobs_are_served_and_nothing_is_pretended(on_postgres: Installation) -> None:
    with _stopped(on_postgres):
        for (method, path), answer in on_postgres.answers(on_postgres.operations()).items():
            if _is_of_storage(path) or (method, path) == ("GET", f"{PREFIX}/jobs"):
                refusal(answer, 503, "storage_unavailable")
            elif path == "/ready":
                refusal(answer, 503, "not_ready", "storage")
            else:
                assert answer.status_code < 300, (method, path, answer.text)
        numbers = on_postgres.get("/stats").json
        assert numbers["storage_error"]
        assert [numbers[name] for name in ("executions_24h", "dead_letter_count", "types_24h")] == [None] * 3
        assert numbers["totals"]["enqueued"] > 0
        refusal(on_postgres.get(f"/jobs/{new_job_id('mail')}"), 503, "storage_unavailable")
        assert on_postgres.get("/jobs?state=queued").json, "jobs that live are the broker's to tell"
    on_postgres.comes_back()
    assert [letter["job_id"] for letter in on_postgres.get("/dlq").json] == [on_postgres.dead]
    assert on_postgres.get("/stats").json["dead_letter_count"] == 1


SILENT: Final[dict[str, tuple[str, ...]]] = {
    "broker": ("POST /jobs", "POST /jobs/batch", "GET /jobs", "GET /jobs/{job_id}", "GET /queues", "GET /workers", "GET /stats"),
    "storage": ("GET /jobs", "GET /dlq", "DELETE /dlq", "GET /executions", "POST /schedules", "POST /dlq/{dead}/retry"),
}


def test_a_server_that_says_nothing_keeps_nobody_for_longer_than_5_seconds(on_redis: Installation, on_postgres: Installation) -> None:
    """Both at once, to wait once."""
    with _silent(on_redis), _silent(on_postgres), ThreadPoolExecutor(20) as pool:
        answers = []
        for one, what in ((on_redis, "broker"), (on_postgres, "storage")):
            asked = [(method, f"{PREFIX}{one.path(path)}") for method, _, path in (line.partition(" ") for line in SILENT[what])]
            answers += [(pool.submit(one.ask, *each), f"{what}_unavailable") for each in asked]
            answers.append((pool.submit(one.ask, "GET", "/ready"), "not_ready"))
        numbers = pool.submit(on_postgres.get, "/stats")
        began = time.monotonic()
        assert on_redis.ask("GET", "/health").status_code == on_postgres.ask("GET", "/health").status_code == 200
        assert time.monotonic() - began < 1
        for waiting, code in answers:
            refusal(waiting.result(), 503, code)
        assert numbers.result().json["storage_error"]
    on_redis.comes_back()
    on_postgres.comes_back()


def test_what_is_away_when_the_process_starts_is_found_once_it_comes(tmp_path: Path, on_redis: Installation, on_postgres: Installation) -> None:
    broker, storage = RedisPlace(on_redis.proxy.url, "outages"), PostgresPlace(on_postgres.proxy.postgres_url, "outages")
    with opened(ApiSite.on(tmp_path, broker=broker, storage=storage)) as site:
        started = Installation.__new__(Installation)
        started.site = site
        with _stopped(on_redis), _stopped(on_postgres):
            asked = [("GET", "/ready"), ("GET", f"{PREFIX}/jobs"), ("POST", f"{PREFIX}/jobs"), ("GET", "/health"), ("GET", f"{PREFIX}/openapi.json")]
            answers = list(started.answers(asked).values())
            assert [answer.status_code for answer in answers] == [503, 503, 503, 200, 200]
            assert [detail["field"] for detail in answers[0].json["details"]] == ["broker", "storage"]
        started.comes_back()
        assert started.ask("POST", f"{PREFIX}/jobs").status_code == 201


def test_a_broker_without_room_refuses_jobs_and_shows_those_it_has(on_redis: Installation) -> None:
    assert isinstance(on_redis.server, RedisServer)
    on_redis.server.config(maxmemory="1")
    try:
        refusal(on_redis.ask("POST", f"{PREFIX}/jobs"), 503, "broker_full")
        assert on_redis.get("/jobs/{job_id}").json["id"] == on_redis.live
    finally:
        on_redis.server.config(maxmemory="0")
    assert on_redis.ask("POST", f"{PREFIX}/jobs").status_code == 201
