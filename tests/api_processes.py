"""Servers of the role ``api`` as processes, and clients of theirs.

What they serve is mostly not the API but a small application in its place, which can be slow, endless or as large as a test needs it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
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


def open_start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers of the small application, for a fixture."""
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


def open_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
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
