"""PgBouncer before a PostgreSQL, where that program is installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Final, Self

from .ports import free_port
from .postgres_data import give_away, unprivileged

__all__ = ["PgBouncer", "find_pgbouncer"]

_PATIENCE: Final = 20.0
_WATCH: Final = 'read nothing; kill -9 "$1"; rm -rf "$2"'
"""Run by a shell whose stdin ends with this process, also when that is killed."""
_CONFIG: Final = """\
[databases]
* = host={host} port={port} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
"""


def find_pgbouncer() -> Path | None:
    """The program, if there is one: on PATH, or where Debian has it, which is not on every user's."""
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    return Path(found) if found else None


class PgBouncer:
    """Shares *size* connections to the server on *port* among all clients: each has one of them only as long as its transaction lasts.

    Raises:
        LookupError: The program is not installed.
    """

    def __init__(self, port: int, *, size: int = 2, host: str = "127.0.0.1") -> None:
        if (program := find_pgbouncer()) is None:
            raise LookupError("no program pgbouncer")
        self.folder = Path(tempfile.mkdtemp(prefix="jobqueue-pgbouncer-"))
        self.port = free_port()
        config = self.folder / "pgbouncer.ini"
        config.write_text(_CONFIG.format(host=host, port=port, own_port=self.port, size=size))
        give_away(self.folder)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, config], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **unprivileged()
            )
        watch = ["sh", "-c", _WATCH, "watch", str(self._process.pid), str(self.folder)]
        self._watch = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)
        try:
            self._wait_until_up()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Of the server behind it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "log").read_text(errors="replace")

    def close(self) -> None:
        """End it, and with it all connections."""
        # The watch first: a process id may be given to another as soon as the program has been waited for.
        self._watch.kill()
        self._watch.communicate()
        self._process.kill()
        self._process.wait(_PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        pause = threading.Event()
        while not self._accepts():
            if (status := self._process.poll()) is not None or time.monotonic() > deadline:
                raise RuntimeError(f"pgbouncer did not come up (exit status {status}):\n{self.log[-4000:]}")
            pause.wait(0.005)

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except OSError:
            return False
        return True
