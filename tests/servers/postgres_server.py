"""A PostgreSQL server that a test may do anything to."""

from __future__ import annotations

import ctypes
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

import psycopg

from .ports import free_port
from .postgres_data import data_folder, postgres_data, unprivileged
from .process_tree import freeze, kill_tree, thaw
from .programs import Program, chosen_postgres

__all__ = ["PostgresServer"]

_PATIENCE: Final = 20.0
"""Seconds until a server that does not come up, or go, is given up."""
_WATCH: Final = """read nothing
kill -CONT "$1"
pkill -CONT -P "$1"
kill -QUIT "$1"
tries=100
while kill -0 "$1" && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
rm -rf "$2"
"""
"""Run by a shell whose stdin ends with this process, also when that is killed: no server outlives its tests. Upon SIGQUIT a server ends its
children (where there is no pkill: those that are paused after five seconds) and gives back its shared memory."""
_SIGNALS: Final = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_REMOVE: Final = 0
"""IPC_RMID."""


class PostgresServer:
    """A server of one's own, running once it is made; what it holds survives :meth:`kill` and :meth:`start`.

    Who connects from this machine is the superuser ``postgres``, without a password.

    Args:
        program: What to start; None: the chosen one.
        options: Settings as in ``postgresql.conf``, taken at each start. ``fsync`` is off: a killed server has lost nothing, only a machine
            loses what was not synced.
        tls: Accept TLS too, with a certificate of its own.

    Raises:
        LookupError: Something that is needed is not there: a program, or TLS in it.
    """

    def __init__(self, program: Program | None = None, *, options: Mapping[str, str] | None = None, tls: bool = False) -> None:
        self.program = program or chosen_postgres()
        self._installed = postgres_data(self.program)
        if tls and not self._installed.has_tls():
            raise LookupError(f"{self.program.path} was built without TLS")
        self.folder = data_folder()
        """Its data, its log, its socket and its certificate; gone when it is closed."""
        self.options: dict[str, str] = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            # In files, which go with the folder when the server is killed.
            "dynamic_shared_memory_type": "mmap",
            "fsync": "off",
            "synchronous_commit": "on",
            "full_page_writes": "off",
            "max_connections": "200",
            **(options or {}),
        }
        """Settings that the next start takes."""
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self.port = 0
        try:
            self._installed.copy_to(self.data)
            if tls:
                self._make_certificate()
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
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def unix_url(self) -> str:
        """The same server by its socket."""
        return f"postgresql://postgres@/postgres?host={self.folder}&port={self.port}"

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.folder / "data"

    @property
    def certificate(self) -> Path:
        """The certificate of a server with TLS, which is also that of who has signed it."""
        return self.folder / "certificate.pem"

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Its first process, which must be running."""
        assert self._process is not None, "the server has been stopped"
        return self._process.pid

    def start(self) -> None:
        """Start it (again), on the same port and data; returns when it takes connections."""
        assert self._process is None, "the server is running"
        words = ["-D", str(self.data), "-p", str(self.port)]
        for name, value in self.options.items():
            words += ["-c", f"{name}={value}"]
        # A session of its own: Ctrl-C is for pytest, which then ends the server.
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._installed.bin / "postgres", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **unprivileged()
            )
        watch = ["sh", "-c", _WATCH, "watch", str(self._process.pid), str(self.folder)]
        self._watch = subprocess.Popen(watch, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        self._wait_until_up()

    def stop(self, mode: Literal["fast", "immediate", "smart"] = "fast") -> None:
        """End it as its operator would (``pg_ctl stop -m``); returns when it has ended."""
        process = self._let_go()
        process.send_signal(_SIGNALS[mode])
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            process.wait(_PATIENCE)
            raise

    def kill(self) -> None:
        """SIGKILL all its processes, paused or not; returns when they have ended."""
        process = self._let_go()
        kill_tree(process.pid)
        process.wait(_PATIENCE)

    def pause(self) -> None:
        """SIGSTOP all its processes: connections stay, nothing is answered."""
        freeze(self.pid)

    def resume(self) -> None:
        """Let it go on after :meth:`pause`."""
        thaw(self.pid)

    def execute(self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement (without *params* also several), on a connection of its own; its rows, if it has any."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=int(_PATIENCE)) as connection:
            cursor = connection.execute(sql, params)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        """End it if it runs, and forget its data."""
        if self._process is not None:
            self.resume()
            self.stop("immediate")
        self._free_shared_memory()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_certificate(self) -> None:
        if (openssl := shutil.which("openssl")) is None:
            raise LookupError("no program openssl: it makes the certificate of a server")
        key = self.folder / "key.pem"
        command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", self.certificate]
        names = ["-subj", "/CN=jobqueue test", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        subprocess.run([*command, *names], check=True, capture_output=True, umask=0o077, **unprivileged())
        self.options |= {"ssl": "on", "ssl_cert_file": str(self.certificate), "ssl_key_file": str(key)}

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
        while not self._is_up():
            if (status := self._process.poll()) is not None or time.monotonic() > deadline:
                log = self.log
                self.kill()
                raise RuntimeError(f"{self._installed.bin / 'postgres'} did not come up (exit status {status}):\n{log[-4000:]}")
            pause.wait(0.005)

    def _is_up(self) -> bool:
        # The first line is the process: the file of a server that was killed is still there.
        match self._lock_file():
            case [pid, _, _, _, _, _, _, state, *_]:
                return int(pid) == self.pid and state.strip() in ("ready", "standby")
        return False

    def _lock_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _free_shared_memory(self) -> None:
        """Give back what a killed server has left, unless its folder is used again."""
        match self._lock_file():
            case [_, _, _, _, _, _, segment, *_] if segment.strip():
                ctypes.CDLL(None).shmctl(int(segment.split()[1]), _REMOVE, None)

    def _let_go(self) -> subprocess.Popen[bytes]:
        process, self._process = self._process, None
        watch, self._watch = self._watch, None
        assert process is not None, "the server has been stopped"
        # The watch first: a process id may be given to another as soon as the server has been waited for.
        if watch is not None:
            watch.kill()
            watch.communicate()
        return process
