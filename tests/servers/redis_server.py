"""A Redis or Valkey server that a test may do anything to."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .ports import free_port
from .programs import Program, chosen_redis

__all__ = ["RedisServer"]

_PATIENCE: Final = 20.0
"""Seconds until a server that does not come up, or go, is given up."""
_WATCH: Final = 'read nothing; kill -9 "$1"; rm -rf "$2"'
"""Run by a shell whose stdin ends with this process, also when that is killed: no server outlives its tests."""


class RedisServer:
    """A server of one's own, running once it is made; what it holds survives :meth:`kill` and :meth:`start`.

    Args:
        program: What to start; None: the chosen one.
        appendonly: Keep data in a file, which makes it survive a restart.
        appendfsync: ``always``, ``everysec`` or ``no``. A killed server has lost nothing with any of them: only a machine loses what was not synced.
        options: More directives as in ``redis.conf``; a directive of several words is a tuple.
    """

    def __init__(
        self,
        program: Program | None = None,
        *,
        appendonly: bool = True,
        appendfsync: str = "everysec",
        options: Mapping[str, str | tuple[str, ...]] | None = None,
    ) -> None:
        self.program = program or chosen_redis()
        self.folder = Path(tempfile.mkdtemp(prefix="jobqueue-redis-"))
        """Its data, its log and its socket; gone when it is closed."""
        self._options: dict[str, str | tuple[str, ...]] = {
            "bind": "127.0.0.1",
            "unixsocket": str(self.folder / "socket"),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": appendfsync,
            **({"enable-debug-command": "yes"} if self.program.version >= (7,) else {}),
            **(options or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self.port = 0
        try:
            self._first_start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __str__(self) -> str:
        return f"{self.program} at {self.url}"

    @property
    def url(self) -> str:
        """Where it listens; the same after a restart."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The same server by its socket."""
        return f"unix://{self.folder / 'socket'}"

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Its process, which must be running."""
        assert self._process is not None, "the server has been stopped"
        return self._process.pid

    def start(self) -> None:
        """Start it (again), on the same port and data; returns when it answers."""
        assert self._process is None, "the server is running"
        words = ["--port", str(self.port)]
        for name, value in self._options.items():
            words += [f"--{name}", *((value,) if isinstance(value, str) else value)]
        # A session of its own: Ctrl-C is for pytest, which then ends the server.
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self.program.path, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        watch = ["sh", "-c", _WATCH, "watch", str(self._process.pid), str(self.folder)]
        self._watch = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)
        self._wait_until_up()

    def stop(self) -> None:
        """End it as its operator would; returns when it has ended."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL it, paused or not; returns when it has ended."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP it: connections stay, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after :meth:`pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def command(self, *words: Any) -> Any:
        """Run one command, on a connection of its own; replies are not decoded."""
        with redis.Redis(port=self.port, socket_timeout=_PATIENCE, retry=Retry(NoBackoff(), 0)) as client:
            return client.execute_command(*words)

    def config(self, **directives: str) -> None:
        """Change directives as long as it runs; an underscore stands for the hyphen in their names."""
        for name, value in directives.items():
            self.command("CONFIG", "SET", name.replace("_", "-"), value)

    def be_a_cluster(self) -> None:
        """Serve all slots alone, when started with ``cluster-enabled``; returns when the cluster is up."""
        self.command("CLUSTER", "ADDSLOTS", *range(16_384))
        deadline = time.monotonic() + _PATIENCE
        pause = threading.Event()
        while b"cluster_state:ok" not in self.command("CLUSTER", "INFO"):
            assert time.monotonic() < deadline, self.log
            pause.wait(0.02)

    def close(self) -> None:
        """End it if it runs, and forget its data."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _first_start(self) -> None:
        # Somebody else may take the port between the question and the start.
        for attempt in range(5):
            self.port = free_port()
            try:
                self.start()
            except RuntimeError:
                if attempt == 4 or "already in use" not in self.log:
                    raise
            else:
                return

    def _wait_until_up(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _PATIENCE
        pause = threading.Event()
        while not self._answers():
            if (status := self._process.poll()) is not None or time.monotonic() > deadline:
                log = self.log
                self._end(signal.SIGKILL)
                raise RuntimeError(f"{self.program.path} did not come up (exit status {status}):\n{log[-4000:]}")
            pause.wait(0.005)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                # Not while it reads its data (-LOADING); with a password it is up too (-NOAUTH).
                return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        watch, self._watch = self._watch, None
        assert process is not None, "the server has been stopped"
        # The watch first: a process id may be given to another as soon as the server has been waited for.
        if watch is not None:
            watch.kill()
            watch.communicate()
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_PATIENCE)
            raise
