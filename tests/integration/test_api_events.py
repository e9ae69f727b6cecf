"""The stream of events as clients have it: over HTTP, from the API's own server, with the broker on Redis."""

from __future__ import annotations

import http.client
import json
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pytest
from api_site import ApiSite, opened
from event_reader import EventReader, ReceivedEvent, Tap, events_of
from servers import RedisPlace, RedisServer
from servers.ports import free_port

from jobqueue_core.testing.factories import completed, new_jobs
from jobqueue_redis.broker import RedisBroker

PATIENCE = 60.0
EVENTS = "/api/v1/events"


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.02)


class Served:
    """``jobqueue-run api`` on a Redis."""

    def __init__(self, folder: Path, config: str, url: str, namespace: str = "") -> None:
        self.port = free_port()
        self.log = folder / "log"
        (folder / "jobqueue.toml").write_text(f'{config}[storage]\nurl = "sqlite:///here.db"\n[api]\nport = {self.port}\nthreads = 4\n')
        command = [sys.executable, "-m", "jobqueue_core.run", "-c", "jobqueue.toml", "api"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        self.broker = RedisBroker(url, namespace=namespace)

    def status(self, path: str) -> int:
        """The status of a short answer; 0 when there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as answer:
                answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def settle(self, count: int) -> list[str]:
        """Let so many jobs be completed in one batch; their ids in order."""
        self.broker.enqueue(new_jobs(count))
        wanted: dict[str, Any] = {"worker_id": "worker-1", "lease_for": timedelta(seconds=30), "wait": timedelta(0), "suspects": count}
        leases = self.broker.lease(["default"], count, **wanted)
        assert len(leases) == count
        assert all(self.broker.settle([completed(lease) for lease in leases], worker_id="worker-1"))
        return [lease.job.id for lease in leases]

    def __enter__(self) -> Self:
        eventually(lambda: self.process.poll() is not None or self.status("/ready") == 200)
        assert self.process.poll() is None, self.log.read_text()
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)


class Refused(Exception):
    """No more streams now."""


class Client:
    """One connection to the stream.

    Raises:
        Refused: There are as many as may be.
    """

    def __init__(self, served: Served, *, last_event_id: str = "", query: str = "") -> None:
        self.reader = EventReader()
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
        self._connection.request("GET", EVENTS + query, headers={"Last-Event-ID": last_event_id} if last_event_id else {})
        self._answer = self._connection.getresponse()
        if self._answer.status == 503:
            self.close()
            raise Refused
        assert self._answer.status == 200, self._answer.read()
        self._waiting: list[ReceivedEvent] = []

    def take(self, count: int) -> list[ReceivedEvent]:
        """The next so many events; fewer where the stream ends."""
        while len(self._waiting) < count and (data := self._answer.read1(997)):
            self._waiting += self.reader.feed(data)
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    def until_comment(self, comment: str) -> None:
        """Read until there is that comment, and no event before."""
        while comment not in self.reader.comments:
            assert list(self.reader.feed(self._answer.read1(997))) == []

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


def connected(served: Served, *, last_event_id: str = "") -> Client:
    """A client, as soon as the server has noticed that former ones have gone."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return Client(served, last_event_id=last_event_id)
        except Refused:
            assert time.monotonic() < deadline, "no stream is given back"
            threading.Event().wait(0.02)


@pytest.fixture(scope="module")
def served(module_redis_place: RedisPlace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = module_redis_place
    with Served(tmp_path_factory.mktemp("served"), place.config, place.url, place.namespace) as served:
        yield served


def ids(events: list[ReceivedEvent]) -> list[str]:
    return [event.job_id for event in events]


def test_what_happens_after_the_answer_has_begun_is_told_at_once(served: Served) -> None:
    with closing(Client(served)) as client:
        # The head has come, and nothing of the body has been read.
        began = time.monotonic()
        done = served.settle(3)
        assert ids(client.take(3)) == done
        assert time.monotonic() - began < 5


def test_who_reconnects_while_jobs_are_settled_loses_nothing_and_is_told_nothing_twice(served: Served) -> None:
    with closing(Client(served, query="?timeout=0")) as client:
        client.take(1)
        start = client.reader.last_id
    total = 1500

    def settle_all() -> list[str]:
        random_ = random.Random(3)
        done: list[str] = []
        while len(done) < total:
            done += served.settle(min(random_.randint(1, 60), total - len(done)))
        return done

    def read(seed: int) -> list[str]:
        random_ = random.Random(seed)
        seen: list[str] = []
        position = start
        while len(seen) < total:
            with closing(connected(served, last_event_id=position)) as client:
                events = client.take(min(random_.randint(1, 200), total - len(seen)))
            assert {event.kind for event in events} == {"settled"}
            seen += ids(events)
            position = events[-1].id
        return seen

    with ThreadPoolExecutor(2) as pool:
        settling, reading = pool.submit(settle_all), pool.submit(read, 1)
        done = settling.result(PATIENCE)
        assert reading.result(PATIENCE) == done


def test_streams_leave_threads_for_requests_and_give_theirs_back_when_their_clients_leave(served: Served) -> None:
    for _ in range(3):
        clients = [connected(served), connected(served)]
        assert served.status(EVENTS) == 503
        began = time.monotonic()
        for _ in range(20):
            assert served.status("/api/v1/queues") == 200
        assert time.monotonic() - began < 5
        for client in clients:
            client.close()


def test_on_a_cluster_a_stream_goes_on_behind_whichever_event_was_seen_last(redis_cluster_url: str, own_namespace: str, tmp_path: Path) -> None:
    queues = [f"queue-{number}" for number in range(4)]
    with opened(ApiSite.on(tmp_path, RedisPlace(redis_cluster_url, own_namespace), threads=8)) as site:
        for queue in queues:
            site.queued(queue=queue)
        _, tap = events_of(site, "timeout=0")

        def settle(queue: str) -> list[str]:
            ids: list[str] = []
            for count in (3, 1, 5, 2, 4) * 4:
                site.queue.enqueue_many([{"type": "email.send", "queue": queue} for _ in range(count)])
                leases = site.broker.lease([queue], count, worker_id=queue, lease_for=timedelta(seconds=30), wait=timedelta(0), suspects=count)
                assert all(site.broker.settle([completed(lease) for lease in leases], worker_id=queue))
                ids += [lease.job.id for lease in leases]
            return ids

        random_ = random.Random(5)
        seen: list[ReceivedEvent] = []
        position = tap.reader.last_id
        with ThreadPoolExecutor(4) as pool:
            settling = [pool.submit(settle, queue) for queue in queues]
            while len(seen) < 4 * 60:
                with closing(Tap(site, "timeout=60s", last_event_id=position).begin()) as tap:
                    seen += tap.take(min(random_.randint(1, 40), 4 * 60 - len(seen)))
                position = seen[-1].id
            for queue, one in zip(queues, settling, strict=True):
                assert [event.job_id for event in seen if event.data["queue"] == queue] == one.result(PATIENCE)
        assert {event.kind for event in seen} == {"settled"}


@pytest.fixture
def restarted(redis_server: RedisServer, tmp_path: Path) -> Iterator[tuple[Served, RedisServer]]:
    config = f'[broker]\nplugin = "redis"\nurl = "{redis_server.url}"\n'
    with Served(tmp_path, config, redis_server.url) as served:
        yield served, redis_server


def test_a_stream_outlives_its_broker_and_ends_with_its_process(restarted: tuple[Served, RedisServer]) -> None:
    served, server = restarted
    with closing(Client(served)) as client:
        done = served.settle(2)
        assert ids(client.take(2)) == done
        server.kill()
        client.until_comment("the broker does not answer")
        server.start()
        began = time.monotonic()
        done = served.settle(3)
        assert ids(client.take(3)) == done
        assert time.monotonic() - began < 10
        resumed = client.reader.last_id
        served.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert client.take(1) == []
        assert time.monotonic() - began < 5
    assert client.reader.last_id == resumed
    assert served.process.wait(PATIENCE) == 0, served.log.read_text()
    warnings = [json.loads(line) for line in served.log.read_text().splitlines() if '"level":"warning"' in line]
    assert [one["event"] for one in warnings if one["logger"] == "jobqueue.api"] == ["events cannot be read"]
