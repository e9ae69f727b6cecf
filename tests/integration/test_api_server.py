"""How the API is served: real processes, real signals, real sockets.

What is served is mostly not the API but a small application in its place, which can be slow, endless or as large as a test needs it.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar

import pytest
from servers import RedisServer
from servers.ports import free_port

T = TypeVar("T")

PLUGIN = """
from jobqueue_core import hookimpl
from jobqueue_core.service import ServicePlugin

@hookimpl
def jobqueue_services():
    return [ServicePlugin(name="small", summary="serves what tests need", open=small, reloads=True)]

def small(app):
    from jobqueue_api.server import arbiter
    from jobqueue_api.server.service import ApiService
    from small_app import create_app
    arbiter.create_app = create_app
    return ApiService(app)
"""
APP = """
import os, time
from pathlib import Path
import falcon

def create_app(app, *, closing):
    section = app.settings.section("api")
    if Path("unbootable").exists():
        raise RuntimeError("as it should")

    class Answers:
        def on_get(self, req, resp):
            resp.media = {"pid": os.getpid(), "keys": [one.name for one in section.keys], "client": req.remote_addr}

        def on_post(self, req, resp):
            length = req.content_length
            if length is not None and length > section.max_body:
                raise falcon.HTTPContentTooLarge
            data = req.stream.read(section.max_body + 1 if length is None else length)
            resp.media = {"length": len(data), "sum": sum(data)}

    class Unread:
        def on_post(self, req, resp):
            resp.media = {"read": 0}

    class Slow:
        def on_get(self, req, resp):
            Path("slow").touch()
            while not Path("enough").exists():
                time.sleep(0.01)
            resp.media = {"pid": os.getpid()}

    class Large:
        def on_get(self, req, resp):
            resp.data = b"x" * req.get_param_as_int("bytes")

    class Stream:
        def on_get(self, req, resp):
            def events():
                yield b"began\\n"
                while not closing.wait(30):
                    pass
                yield b"ended\\n"
            resp.stream = events()

    class Broken:
        def on_get(self, req, resp):
            def pieces():
                yield b"began"
                raise RuntimeError("as it should")
            resp.stream = pieces()

    served = falcon.App()
    for path, resource in {"/": Answers(), "/unread": Unread(), "/slow": Slow(), "/large": Large(), "/stream": Stream(), "/broken": Broken()}.items():
        served.add_route(path, resource)
    return served
"""
WSGI = """
from jobqueue_api.server import ownserver
from small_app import create_app
ownserver.create_app = create_app
app = ownserver.OwnServer.from_config()
"""
CONFIG = """
[worker]
shutdown_timeout = "20s"
[api]
host = "127.0.0.1"
port = 0
threads = 4
max_body = "2MiB"
"""
RUN_SHELL = "import os, sys; os.execvp('sh', ['sh', *sys.argv[1:]])"
RUN = ("-m", "jobqueue_core.run", "-c", "jobqueue.toml")


class Api:
    """A server in a process group and a folder of its own."""

    def __init__(self, home: Path, command: tuple[str, ...]) -> None:
        self.home = home
        self._clients: list[Any] = []
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "COVERAGE_PROCESS_START", "COVERAGE_FILE"}}
        path = os.pathsep.join([str(home / "site"), *(entry for entry in sys.path if entry)])
        environ = {**kept, "PYTHONPATH": path, "JOBQUEUE_CONFIG": str(home / "jobqueue.toml"), "API_SERVER_TEST": str(home)}
        with (home / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command], cwd=home, env=environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.split("\n")[:-1] if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    @property
    def port(self) -> int:
        found = self.wait_for(lambda: re.search(r"http://(?:\[\S+?\]|[0-9.]+):(\d+)", self.log), "it to listen")
        return int(found[1])

    def connect(self, timeout: float = 20) -> http.client.HTTPConnection:
        self._clients.append(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout))
        return self._clients[-1]

    def raw(self, data: bytes = b"") -> socket.socket:
        """A socket on which *data* has been sent."""
        one = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        self._clients.append(one)
        one.sendall(data)
        return one

    def close_clients(self) -> None:
        while self._clients:
            self._clients.pop().close()

    def get(self, path: str = "/", **headers: str) -> tuple[int, Any]:
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def pids(self, count: int = 1, *, without: AbstractSet[int] = frozenset()) -> set[int]:
        """Wait until *count* processes serve, none of those named."""
        found: set[int] = set()

        def look() -> bool:
            found.add(self.get()[1]["pid"])
            return len(found - without) >= count

        self.wait_for(look, f"{count} processes that serve")
        return found - without

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_status(self, timeout: float = 20) -> int:
        return self.process.wait(timeout)

    def configure(self, old: str, new: str) -> None:
        path = self.home / "jobqueue.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def wait_for(self, look: Callable[[], T], what: str, timeout: float = 20.0) -> T:
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while not (found := look()):
            assert time.monotonic() < deadline, f"waited {timeout} s for {what}; log:\n{self.log}"
            pause.wait(0.01)
        return found

    def left_behind(self) -> list[int]:
        """The processes that live and were started for this test, by whomever."""
        mark, found = f"API_SERVER_TEST={self.home}\0".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes() and "State:\tZ" not in (entry / "status").read_text():
                    found.append(int(entry.name))
        return found

    def kill(self) -> None:
        self.close_clients()
        self.process.kill()
        self.process.wait()
        for pid in self.left_behind():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


Start = Callable[..., Api]


def prepare(home: Path) -> Path:
    """Give a folder a config file, and a distribution that offers the small application as a role."""
    metadata = home / "site" / "small-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[jobqueue.plugins]\nsmall = small_plugin\n")
    for name, text in {"small_plugin": PLUGIN, "small_app": APP, "small_wsgi": WSGI}.items():
        (home / "site" / f"{name}.py").write_text(text)
    (home / "jobqueue.toml").write_text(CONFIG)
    return home


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Api] = []
    prepare(tmp_path)

    def start(*arguments: str, command: tuple[str, ...] = RUN, config: str = "") -> Api:
        if config:
            (tmp_path / "jobqueue.toml").write_text(dedent(config))
        running.append(Api(tmp_path, (*command, *(arguments or ("small",)))))
        return running[-1]

    yield start
    for one in running:
        one.kill()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server of the small application, for tests that do it no harm."""
    one = Api(prepare(tmp_path_factory.mktemp("api")), (*RUN, "small"))
    one.pids()
    yield one
    one.signal(signal.SIGTERM)
    assert one.exit_status() == 0, one.log
    one.kill()


class Clients:
    """Clients that send one request after the other, by as few connections as the server lets them, until told to stop or refused.

    With *anew* each request has a connection of its own.
    """

    def __init__(self, api: Api, count: int = 4, *, anew: bool = False) -> None:
        self._anew = anew
        self.failures: list[BaseException] = []
        self.answers: list[int] = []
        self._enough = threading.Event()
        self._api = api
        self._port = api.port
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for one in self._threads:
            one.start()
        api.wait_for(lambda: len(self.answers) > 20, "answers")

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._enough.is_set():
            try:
                if connection.sock is None:
                    connection.connect()
            except ConnectionRefusedError:
                break
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                assert answer.status == 200
                self.answers.append(json.loads(answer.read())["pid"])
                if self._anew:
                    connection.close()
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append(error)
                connection.close()
        connection.close()

    def stop(self) -> None:
        self._enough.set()
        for one in self._threads:
            one.join(20)


def is_closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


# Stopping ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_the_group", [False, True], ids=["term", "ctrl-c"])
def test_a_graceful_stop_finishes_what_runs_ends_streams_and_exits_0(start: Start, to_the_group: bool) -> None:
    api = start()
    slow, stream = api.connect(), api.connect()
    stream.request("GET", "/stream")
    streaming = stream.getresponse()
    assert streaming.readline() == b"began\n"
    slow.request("GET", "/slow")
    api.wait_for((api.home / "slow").exists, "the slow request")
    port = api.port

    if to_the_group:
        os.killpg(api.process.pid, signal.SIGINT)
    else:
        api.signal(signal.SIGTERM)

    assert streaming.read() == b"ended\n"
    api.wait_for(lambda: is_closed(port), "the address to be closed")
    (api.home / "enough").touch()
    assert slow.getresponse().status == 200
    assert api.exit_status() == 0
    assert not api.left_behind()


@pytest.mark.parametrize("anew", [False, True], ids=["kept-alive", "connecting-anew"])
def test_sigint_to_the_whole_group_drops_no_request(start: Start, anew: bool) -> None:
    api = start()
    clients = Clients(api, anew=anew)

    os.killpg(api.process.pid, signal.SIGINT)

    assert api.exit_status() == 0
    clients.stop()
    assert not clients.failures


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can have clients come later")
def test_who_comes_while_the_address_closes_is_told_to_come_later_and_nobody_is_reset(start: Start) -> None:
    api = start()
    api.pids()
    address = ("127.0.0.1", api.port)
    api.signal(signal.SIGTERM)

    later: list[socket.socket] = []
    errors: set[int] = set()
    while errno.ECONNREFUSED not in errors:
        client = socket.socket()
        client.settimeout(0)
        # With nothing between the two, a connection is there at once or refused at once; only one whose packets are dropped is on its way.
        error = client.connect_ex(address)
        if error == errno.EINPROGRESS and not select.select([], [client], [], 0.01)[1]:
            later.append(client)
            continue
        with client:
            errors.add(error := client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            client.settimeout(20)
            if not error:
                client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")

    assert later
    assert errors <= {0, errno.ECONNREFUSED}
    assert api.exit_status() == 0
    for client in later:
        with client:
            assert select.select([], [client], [], 20)[1]
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_a_request_that_outlasts_the_grace_is_cut_off_and_makes_status_3(start: Start) -> None:
    api = start(config=CONFIG.replace("20s", "300ms"))
    slow = api.connect()
    slow.request("GET", "/slow")
    api.wait_for((api.home / "slow").exists, "the slow request")

    api.signal(signal.SIGTERM)

    assert api.exit_status() == 3
    assert [line["requests"] for line in api.events("requests cut off")] == [1]


def test_a_second_signal_ends_requests_at_once_with_status_4(start: Start) -> None:
    api = start()
    slow = api.connect()
    slow.request("GET", "/slow")
    api.wait_for((api.home / "slow").exists, "the slow request")

    api.signal(signal.SIGTERM)
    api.wait_for(lambda: api.events("stopping"), "the first signal to be heard")
    api.signal(signal.SIGINT)

    assert api.exit_status() == 4
    assert not api.left_behind()


# Reloading -----------------------------------------------------------------------------------------------------------------------------


def test_a_reload_under_load_fails_no_request_and_takes_a_new_key(start: Start) -> None:
    api = start()
    former = api.pids()
    clients = Clients(api)
    api.configure("threads = 4", 'threads = 4\nkeys = [{name = "new", role = "read", key = "a-new-key"}]')

    api.signal(signal.SIGHUP)

    api.wait_for(lambda: len([pid for pid in clients.answers[-50:] if pid not in former]) >= 50, "other processes to answer")
    api.wait_for(lambda: set(api.left_behind()).isdisjoint(former), "the former ones to end")
    clients.stop()
    assert not clients.failures
    assert api.get()[1]["keys"] == ["new"]
    assert "a-new-key" not in api.log


def test_a_config_that_has_become_wrong_is_named_and_the_former_one_serves_on(start: Start) -> None:
    api = start()
    former = api.pids()
    api.configure("threads = 4", "threads = 1\nprot = 8080")

    api.signal(signal.SIGHUP)

    api.wait_for(lambda: len(api.events("cannot reload")) == 2, "both problems")
    problems = " ".join(line["problem"] for line in api.events("cannot reload"))
    assert "api.threads" in problems
    assert "prot" in problems
    os.kill(min(former), signal.SIGKILL)
    assert api.pids(without=former)


def test_a_key_file_that_is_gone_at_a_reload_keeps_the_former_keys(start: Start) -> None:
    api = start()
    api.pids()
    api.configure("threads = 4", 'threads = 4\nkeys = [{name = "new", role = "read", key_file = "missing"}]')

    api.signal(signal.SIGHUP)

    api.wait_for(lambda: "missing" in str(api.events("cannot reload")), "the problem")
    assert api.get()[1]["keys"] == []


def test_a_reload_takes_no_keys_away_where_others_reach_it(start: Start) -> None:
    api = start(config=CONFIG.replace('host = "127.0.0.1"', 'host = "0.0.0.0"\nkeys = [{name = "only", role = "read", key = "k"}]'))
    api.pids()
    api.configure('host = "0.0.0.0"\nkeys = [{name = "only", role = "read", key = "k"}]', 'host = "127.0.0.1"')

    api.signal(signal.SIGHUP)

    api.wait_for(lambda: "no keys any more" in str(api.events("cannot reload")), "the problem")
    assert api.get()[1]["keys"] == ["only"]


def test_processes_that_cannot_start_after_a_reload_leave_the_former_ones_alone(start: Start) -> None:
    api = start()
    former = api.pids()
    (api.home / "unbootable").touch()

    api.signal(signal.SIGHUP)

    api.wait_for(lambda: len(api.events("cannot serve")) >= 2, "two attempts")
    assert api.get()[1]["pid"] in former
    (api.home / "unbootable").unlink()
    assert api.pids(without=former)


# Dying ---------------------------------------------------------------------------------------------------------------------------------


def test_processes_that_are_killed_are_replaced(start: Start) -> None:
    api = start(config=CONFIG + "workers = 2\n")
    former = api.pids(2)

    for pid in former:
        os.kill(pid, signal.SIGKILL)

    assert api.pids(2, without=former)


def test_when_the_arbiter_is_killed_its_processes_let_go_and_the_next_one_listens_on_the_same_port(start: Start) -> None:
    port = free_port()
    api = start(config=CONFIG.replace("port = 0", f"port = {port}"))
    former = api.pids()
    slow = api.connect()
    slow.request("GET", "/slow")
    api.wait_for((api.home / "slow").exists, "the slow request")
    (arbiter,) = {line["pid"] for line in api.events("process started")}

    os.kill(arbiter, signal.SIGKILL)

    assert api.wait_for(lambda: len(api.events("listening")) == 2, "the next one")
    assert api.pids(without=former)
    (api.home / "enough").touch()
    assert slow.getresponse().status == 200
    api.wait_for(lambda: set(api.left_behind()).isdisjoint(former), "the former ones to end")


def test_an_address_in_use_is_named_and_makes_status_2(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        api = start(config=CONFIG.replace("port = 0", f"port = {port}"))

        assert api.exit_status() == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in api.log


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_is_listened_on(start: Start, host: str) -> None:
    api = start(config=CONFIG.replace("127.0.0.1", host))

    with socket.create_connection(("::1", api.port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.0 200 OK\r\n")


def test_a_socket_for_both_kinds_of_addresses_shows_those_of_ipv4_as_such(start: Start) -> None:
    api = start(config=CONFIG.replace('"127.0.0.1"', '"::"\nallow_anonymous = true'))

    assert api.get()[1]["client"] == "127.0.0.1"


# Connections ---------------------------------------------------------------------------------------------------------------------------


def test_requests_in_one_packet_are_answered_in_order_on_one_connection(api: Api) -> None:
    post = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    unread = b"POST /unread HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n"
    last = b"GET /large?bytes=2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"

    answers = read_all(api.raw(post + unread + post + last))

    assert [body.rpartition(b"\r\n\r\n")[2] for body in answers.split(b"HTTP/1.1 200 OK")[1:]] == [
        b'{"length": 3, "sum": 294}',
        b'{"read": 0}',
        b'{"length": 3, "sum": 294}',
        b"xx",
    ]


def test_a_connection_is_kept_and_says_nothing_of_versions(api: Api) -> None:
    connection = api.connect()
    connection.request("GET", "/")
    first = connection.getresponse()
    first.read()
    sock = connection.sock
    connection.request("GET", "/")
    second = connection.getresponse()
    second.read()

    assert (first.headers["Connection"], connection.sock) == ("keep-alive", sock)
    assert not re.search(r"\d", first.headers["Server"])


@pytest.mark.parametrize("size", [0, 1, 70_000, 2 << 20])
def test_bodies_arrive_whole_by_either_framing(api: Api, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"a" * (size % 256)
    for body in (data, iter([data[:1000], data[1000:]] if size > 1000 else [data] if data else [])):
        connection = api.connect()
        connection.request("POST", "/", body)
        assert json.loads(connection.getresponse().read()) == {"length": size, "sum": sum(data)}


def test_a_client_that_waits_to_be_told_is_told_to_send_a_body_that_is_wanted(api: Api) -> None:
    wanted = api.raw(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert wanted.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    wanted.sendall(b"abc")
    assert wanted.recv(1000).startswith(b"HTTP/1.1 200 OK")

    unwanted = api.raw(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3000000\r\n\r\n")
    assert unwanted.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_giant_body_is_refused_before_it_is_read_and_costs_no_memory(api: Api) -> None:
    (pid,) = api.pids()
    before = resident(pid)
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for head, piece in ((b"Content-Length: 1000000000", b"x" * 65536), (b"Transfer-Encoding: chunked", chunk)):
        for _ in range(5):
            client = api.raw(b"POST / HTTP/1.1\r\nHost: h\r\n" + head + b"\r\n\r\n")
            sent = send_until_cut_off(client, piece, most=100 << 20)
            assert sent < 60 << 20
            assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
            api.close_clients()

    assert resident(pid) - before < 40 << 20


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.0\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000, 431),
    ],
)
def test_what_is_no_request_is_refused_in_the_shape_of_errors(api: Api, request_: bytes, status: int) -> None:
    answer = read_all(api.raw(request_))

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert set(json.loads(body)) == {"error", "code", "details"}


def test_an_answer_that_breaks_off_is_cut_off_and_logged(api: Api) -> None:
    connection = api.connect()
    connection.request("GET", "/broken")

    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    api.wait_for(lambda: api.events("a request failed"), "a line in the log")


@pytest.mark.parametrize(
    "opening",
    [
        b"GET / HTTP/1.1\r\nX: ",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000,
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
        b"GET /large?bytes=4000000 HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
    ids=["heads", "bodies", "large bodies", "chunks", "readers"],
)
def test_slow_clients_hold_no_threads(api: Api, opening: bytes) -> None:
    slow = [api.raw(opening) for _ in range(12 if b"large" in opening else 200)]

    durations = []
    for _ in range(200):
        began = time.perf_counter()
        assert api.get()[0] == 200
        durations.append(time.perf_counter() - began)

    assert sorted(durations)[180] < 0.1
    # They are still waited for.
    assert len(slow) == sum(is_open(one) for one in slow)
    api.close_clients()


def test_large_bodies_that_stall_are_bounded_and_hold_no_threads(start: Start) -> None:
    api = start(config=CONFIG.replace("2MiB", "16MiB"))
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 15000000\r\n\r\n"
    stalled = [api.raw(head) for _ in range(12)]
    refused = []
    for one in stalled:
        with contextlib.suppress(OSError):
            # One that is refused is answered in the middle of it, and closed.
            one.sendall(b" " * 10_000_000)
        one.settimeout(0.3)
        with contextlib.suppress(OSError):
            refused.append(one.recv(4096))

    assert 4 <= len(refused) <= 8
    assert {answer.split(b" ")[1] for answer in refused} == {b"503"}
    assert all(b"\r\nRetry-After: " in answer for answer in refused)
    assert api.get()[0] == 200


def test_when_there_are_too_many_connections_the_one_that_waited_longest_makes_room(start: Start) -> None:
    api = start("-c", f"ulimit -n 100; exec {sys.executable} -m jobqueue_core.run -c jobqueue.toml small", command=("-c", RUN_SHELL))
    waiting = [api.raw() for _ in range(120)]

    assert api.get()[0] == 200
    api.wait_for(lambda: not is_open(waiting[0]), "the first to be closed")
    assert is_open(waiting[-1])


@pytest.mark.slow
@pytest.mark.parametrize("opening", [b"GET / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"], ids=["head", "body"])
def test_a_byte_a_second_is_waited_for_ten_seconds(api: Api, opening: bytes) -> None:
    client = api.raw(opening)
    client.settimeout(1)
    began = time.monotonic()
    answer = b""
    while not answer and time.monotonic() - began < 20:
        client.sendall(b"x")
        with contextlib.suppress(TimeoutError):
            answer = client.recv(1000)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 9 < time.monotonic() - began < 14


def read_all(client: socket.socket) -> bytes:
    pieces = []
    while piece := client.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def is_open(client: socket.socket) -> bool:
    client.settimeout(0)
    try:
        return bool(client.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def send_until_cut_off(client: socket.socket, piece: bytes, *, most: int) -> int:
    """Send until an answer comes; says how much that was."""
    sent = 0
    while sent < most and not select.select([client], [], [], 0)[0]:
        client.sendall(piece)
        sent += len(piece)
    return sent


def resident(pid: int) -> int:
    """How much memory a process has, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# The API itself ------------------------------------------------------------------------------------------------------------------------


def test_while_the_broker_is_away_the_api_serves_and_it_recovers_by_itself(start: Start, redis_server: RedisServer) -> None:
    redis_server.kill()
    api = start("api", config=f'[broker]\nplugin = "redis"\nurl = "{redis_server.url}"\n{CONFIG}')

    assert api.get("/health")[0] == 200
    status, body = api.get("/ready")
    assert (status, [one["field"] for one in body["details"]]) == (503, ["broker"])
    redis_server.start()
    api.wait_for(lambda: api.get("/ready")[0] == 200, "the broker's return")
    assert api.get("/api/v1/queues") == (200, [])


def test_what_listens_is_logged_in_our_format_and_gunicorn_is_quiet(api: Api) -> None:
    (listening,) = api.events("listening")

    assert (listening["logger"], listening["level"]) == ("jobqueue.api", "info")
    assert listening["url"] == f"http://127.0.0.1:{api.port}"
    assert all(line.startswith("{") for line in api.log.splitlines())
    assert "gunicorn" not in api.log.lower().replace("jobqueue_api.gunicorn", "")


# Under gunicorn itself -----------------------------------------------------------------------------------------------------------------

GUNICORN = ("-m", "gunicorn", "--no-control-socket", "--graceful-timeout", "15")


THREADS = ("-k", "gthread", "--threads", "4")


@pytest.mark.parametrize("flags", [pytest.param(THREADS, marks=pytest.mark.slow), (*THREADS, "--preload"), ("-k", "sync")])
def test_under_plain_gunicorn_streams_end_at_sigterm(start: Start, flags: tuple[str, ...]) -> None:
    api = start(*flags, "--bind", "127.0.0.1:0", "small_wsgi:app", command=GUNICORN)
    stream = api.connect()
    stream.request("GET", "/stream")
    streaming = stream.getresponse()
    assert streaming.readline() == b"began\n"
    began = time.monotonic()

    api.signal(signal.SIGTERM)

    assert streaming.read() == b"ended\n"
    assert api.exit_status() == 0
    assert time.monotonic() - began < 10


def test_under_plain_gunicorn_the_api_is_served_and_logged_in_our_format(start: Start) -> None:
    api = start("-k", "gthread", "--threads", "4", "--bind", "127.0.0.1:0", "jobqueue_api.wsgi:app", command=GUNICORN)

    assert api.get("/ready")[0] == 200
    api.wait_for(lambda: api.events("request"), "a line of ours")


@pytest.mark.parametrize("preload", [False, True])
def test_under_plain_gunicorn_other_machines_need_a_key(start: Start, preload: bool) -> None:
    api = start(*(["--preload"] if preload else []), "-k", "gthread", "--bind", "0.0.0.0:0", "small_wsgi:app", command=GUNICORN)

    if preload:
        with contextlib.suppress(json.JSONDecodeError):
            assert api.get()[0] == 500
    else:
        assert api.exit_status() != 0
    assert "0.0.0.0 can be reached from other machines: add [[api.keys]]" in api.log
