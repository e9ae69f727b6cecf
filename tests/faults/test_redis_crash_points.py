"""Crash points: every operation of the Redis broker is cut off before each request, and within and after each reply (FAULTS R4, R5, E2).

Then either the same client goes on, or its process has died and another repeats the call, or nobody does. Whatever happens, each job is in
exactly one place, every count is right, nothing is doubled, and every job can still be brought to its end.
"""

from __future__ import annotations

import itertools
import secrets
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import attrs
import pytest
from redis import Redis
from redis_invariants import check_invariants
from redis_operations import OPERATIONS, WORKER, put, take
from servers import RedisServer

from jobqueue_core.errors import BrokerError, BrokerUnavailable
from jobqueue_core.job import Job, JobState
from jobqueue_core.testing.factories import completed, new_jobs
from jobqueue_redis.broker import RedisBroker

if TYPE_CHECKING:
    from servers import Program

    from jobqueue_core.broker import Broker

_PATIENCE = 15.0
_SECOND = timedelta(seconds=1)
_READERS = ("acknowledge_history", "acknowledge_dead_letters")
"""After these the outboxes do not tell everything any more."""


# Cutting -------------------------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Cut:
    """Where a connection ends: at the request with this number, before the server gets it (*passes* is None) or after so many bytes of the reply."""

    exchange: int
    passes: int | None
    silent: bool = False
    """Nothing is closed, but nothing passes any more, on any connection: the client might as well be dead."""

    def __str__(self) -> str:
        where = "before the request" if self.passes is None else f"after {self.passes} bytes of the reply"
        return f"exchange {self.exchange}, {where}{', and for good' if self.silent else ''}"


class Knife:
    """A TCP proxy that cuts at one given point; it takes everything from the client until the server has answered for one request."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._cut: Cut | None = None
        self.done = threading.Event()
        self.sizes: list[int] = []
        """The length of each reply since the last :meth:`arm`."""
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, cut: Cut | None) -> None:
        """Count from here, and cut there."""
        with self._lock:
            self._cut, self.sizes = cut, []
            self.done.clear()

    def close(self) -> None:
        """Close every connection, and refuse new ones."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for one in self._sockets:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._server) as server:
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}
            try:
                self._pass(client, server)
            finally:
                with self._lock:
                    self._sockets -= {client, server}

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        number = -1
        answering = True
        while True:
            for one in select.select([client, server], [], [])[0]:
                data = one.recv(1 << 16)
                if not data:
                    return
                if one is client:
                    if answering:
                        number, answering = self._begin(), False
                    allowed = self._allowed(number, None, len(data))
                else:
                    answering = True
                    allowed = self._allowed(number, self._passed(number), len(data))
                    self._count(number, len(data))
                (server if one is client else client).sendall(data[:allowed])
                if allowed < len(data):
                    silent = self._cut is not None and self._cut.silent
                    self.done.set()
                    if not silent:
                        return

    def _begin(self) -> int:
        with self._lock:
            self.sizes.append(0)
            return len(self.sizes) - 1

    def _passed(self, number: int) -> int:
        with self._lock:
            return self.sizes[number] if number < len(self.sizes) else 0

    def _count(self, number: int, length: int) -> None:
        with self._lock:
            if number < len(self.sizes):
                self.sizes[number] += length

    def _allowed(self, number: int, passed: int | None, length: int) -> int:
        """How many of *length* bytes may pass: of a request when *passed* is None, else of a reply of which so many have passed."""
        with self._lock:
            cut = self._cut
            if cut is None:
                return length
            if self.done.is_set():
                return 0 if cut.silent else length
            if number != cut.exchange or (passed is None) != (cut.passes is None):
                return length
            return 0 if passed is None or cut.passes is None else min(length, cut.passes - passed)


# The stage -----------------------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Stage:
    """A server, and for each case a broker straight on it and one behind a knife."""

    host: RedisServer
    server: Redis

    @contextmanager
    def case(self) -> Iterator[Case]:
        """A case, in a namespace of its own."""
        self.server.flushdb()
        namespace = f"case-{secrets.token_hex(4)}"
        knife = Knife(self.host.port)
        with closing(RedisBroker(self.host.url, namespace=namespace)) as broker:
            cut_off = RedisBroker(f"redis://127.0.0.1:{knife.port}", namespace=namespace)
            cut_off.now()
            try:
                yield Case(self.server, f"{namespace}:", broker, cut_off, knife)
            finally:
                knife.close()  # first, so that nobody waits for an answer
                cut_off.close()


@attrs.frozen
class Case:
    """One run of one operation."""

    server: Redis
    prefix: str
    broker: Broker
    cut_off: Broker
    knife: Knife

    def check(self, *, complete: bool = True) -> None:
        check_invariants(self.server, self.broker, prefix=self.prefix, complete=complete)

    def drain(self) -> list[Job]:
        """Bring every job to an end, as workers would; what the caller held is given back, for it may be dead."""
        broker = self.broker
        for stats in broker.queues():
            broker.resume(stats.name)
        for worker in (WORKER, "worker-2"):
            broker.reclaim_worker(worker, started=(), error="killed", max_crashes=9)
        while leases := take(broker, worker_id="drainer"):
            assert broker.settle([completed(one) for one in leases], worker_id="drainer") == [True] * len(leases)
        for stats in broker.queues():
            while broker.purge(stats.name, 100):
                pass
        census = check_invariants(self.server, broker, prefix=self.prefix, complete=False)
        assert not census.live(), "a job cannot be brought to its end"
        jobs = broker.get(sorted(census.records))
        return [job for job in jobs if job is not None]


@pytest.fixture(scope="module")
def host(redis_program: Program | None) -> Iterator[RedisServer]:
    """A server of our own, for some of these tests flush its scripts."""
    with RedisServer(redis_program, appendonly=False) as server:
        # After a start nothing is reclaimed for one lease length (DESIGN R9).
        while server.command("INFO", "server")["uptime_in_seconds"] < 3:
            time.sleep(0.05)
        yield server


@pytest.fixture
def stage(host: RedisServer) -> Iterator[Stage]:
    """The server, empty."""
    with Redis.from_url(host.url) as server:
        yield Stage(host, server)


After = Literal["the client goes on", "another repeats it", "nobody repeats it"]


def run(stage: Stage, name: str, cut: Cut | None, after: After, *, cold: bool = False) -> list[int]:
    """Run an operation and cut it off there; the lengths of the replies, empty when that point was never reached."""
    with stage.case() as case:
        return _run(case, name, cut, after, cold=cold)


def _run(case: Case, name: str, cut: Cut | None, after: After, *, cold: bool) -> list[int]:
    act, prove = OPERATIONS[name](case.broker, case.server, case.prefix)
    if cold:
        case.server.script_flush()
    case.knife.arm(cut)
    if cut is not None and cut.silent:
        thread = threading.Thread(target=_die_trying, args=(act, case), daemon=True)
        thread.start()
        while thread.is_alive() and not case.knife.done.wait(0.001):
            pass
        if case.knife.done.is_set() and after == "another repeats it":
            prove(act(case.broker))
    else:
        try:
            answer = act(case.cut_off)
        except BrokerUnavailable:
            answer = act(case.cut_off)
        prove(answer)
    sizes, reached = list(case.knife.sizes), case.knife.done.is_set() or cut is None
    case.check(complete=name not in _READERS)
    assert all(job.state.finished and job.crashes <= 1 for job in case.drain())
    return sizes if reached else []


def _die_trying(act: Any, case: Case) -> None:
    with suppress(BrokerError):
        act(case.cut_off)


# The tests -----------------------------------------------------------------------------------------------------------------------------

_operations = pytest.mark.parametrize("name", OPERATIONS)


def at_each_point(stage: Stage, name: str, after: After, *, cold: bool = False, every_byte: bool = False) -> int:
    """Run an operation once for each point at which it can be cut off; how many requests it has."""
    run(stage, name, None, after)
    for exchange in itertools.count():
        for cut in _cuts(exchange, after):
            sizes = _run_noted(stage, name, cut, after, cold=cold)
            if not sizes:
                return exchange
        if after == "the client goes on" and not cold:
            size = sizes[exchange]
            for passes in range(1, size) if every_byte else {1, size // 2, size - 1} - {0}:
                _run_noted(stage, name, Cut(exchange, passes), after)
    return 0


def _cuts(exchange: int, after: After) -> list[Cut]:
    if after == "the client goes on":
        return [Cut(exchange, None), Cut(exchange, 0)]
    return [Cut(exchange, 0, silent=True)]  # before the next request is after this one's reply


def _run_noted(stage: Stage, name: str, cut: Cut, after: After, *, cold: bool = False) -> list[int]:
    try:
        return run(stage, name, cut, after, cold=cold)
    except BaseException as error:
        error.add_note(f"the connection was cut at {cut}")
        raise


@_operations
def test_an_operation_whose_connection_is_cut_is_carried_out_once(stage: Stage, name: str) -> None:
    assert at_each_point(stage, name, "the client goes on") >= 1


@_operations
def test_an_operation_is_carried_out_once_although_the_server_has_forgotten_its_scripts(stage: Stage, name: str) -> None:
    assert at_each_point(stage, name, "the client goes on", cold=True) >= 1


@_operations
def test_an_operation_that_another_client_repeats_after_a_death_is_carried_out_once(stage: Stage, name: str) -> None:
    assert at_each_point(stage, name, "another repeats it") >= 1


@_operations
def test_an_operation_that_dies_half_way_leaves_nothing_broken(stage: Stage, name: str) -> None:
    assert at_each_point(stage, name, "nobody repeats it") >= 1


@pytest.mark.parametrize("fate", ["lives", "dies"])
def test_a_job_whose_lease_was_lost_on_the_way_comes_back_with_one_crash_at_most(stage: Stage, fate: str) -> None:
    with stage.case() as case:
        broker = case.broker
        ids = {job.id for job in put(broker, *new_jobs(12))}
        for passes in (None, 0, 1, 5, 20, 60):
            case.knife.arm(Cut(0, passes))
            with suppress(BrokerUnavailable):
                arrived = take(case.cut_off, 1, lease_for=_SECOND)
                assert broker.settle([completed(one) for one in arrived], worker_id=WORKER) == [True] * len(arrived)
            assert case.knife.done.is_set()
        case.check()

        worker, name = (case.cut_off, WORKER) if fate == "lives" else (broker, "worker-2")
        deadline = time.monotonic() + _PATIENCE
        while any(job.state is not JobState.COMPLETED for job in broker.get(sorted(ids)) if job is not None):
            assert time.monotonic() < deadline, "a job is stranded"
            if leases := worker.lease(["*"], 100, worker_id=name, lease_for=_SECOND, wait=_SECOND / 10, suspects=100):
                assert worker.settle([completed(one) for one in leases], worker_id=name) == [True] * len(leases)
            broker.reclaim(100, max_crashes=3)
        jobs = [job for job in broker.get(sorted(ids)) if job is not None]
        assert len(jobs) == 12
        assert {job.crashes for job in jobs} <= ({0} if fate == "lives" else {0, 1})
        case.check()


@pytest.mark.slow
@pytest.mark.timeout(600)
@_operations
def test_a_reply_may_end_after_any_of_its_bytes(stage: Stage, name: str) -> None:
    assert at_each_point(stage, name, "the client goes on", every_byte=True) >= 1
