"""The broker under test: a server of the benchmark's own or a given one, opened through the broker's class."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobqueue_core.broker import Broker

__all__ = ["cpu_reader", "empty", "open_broker", "server"]

_PATIENCE = 10.0


@contextmanager
def server(kind: str, url: str | None) -> Iterator[str]:
    """The url to use: the given one, else that of a fresh Redis server without persistence, or of a fresh SQLite file."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="jobqueue-benchmark-") as folder:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/jobqueue.db"
            return
        with _redis(Path(folder)) as started:
            yield started


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        msg = "no redis-server on PATH: install one, or give --url"
        raise SystemExit(msg)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([program, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def open_broker(url: str, namespace: str) -> Broker:
    """The broker behind *url*."""
    if url.startswith("sqlite:"):
        from jobqueue_sqlite.broker import SqliteBroker

        return SqliteBroker(url.removeprefix("sqlite:///"))
    from jobqueue_redis.broker import RedisBroker

    return RedisBroker(url, namespace=namespace)


def connect(url: str, *, hiredis: bool = True) -> Any:
    """A bare connection to a Redis server, with the parser in C where there is one, or without."""
    from redis import Redis
    from redis._parsers import _RESP2Parser

    return Redis.from_url(url) if hiredis else Redis.from_url(url, parser_class=_RESP2Parser, protocol=2)


def cpu_reader(url: str) -> Callable[[], float] | None:
    """Reads how many CPU seconds the server's main thread has used; None where there is no server."""
    if url.startswith("sqlite:"):
        return None
    client = connect(url)

    def read() -> float:
        info = client.info("cpu")
        if "used_cpu_user_main_thread" in info:
            return float(info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"])
        return float(info["used_cpu_user"] + info["used_cpu_sys"])

    return read


def empty(url: str, namespace: str) -> None:
    """Remove what a run has left behind."""
    if url.startswith("sqlite:"):
        for path in Path(url.removeprefix("sqlite:///")).parent.glob(Path(url).name + "*"):
            path.unlink()
        return
    with connect(url) as client:
        keys = list(client.scan_iter(match=f"{namespace}:*", count=10_000))
        for start in range(0, len(keys), 5_000):
            client.unlink(*keys[start : start + 5_000])


def describe(url: str) -> str:
    """What server it is."""
    if url.startswith("sqlite:"):
        import sqlite3

        return f"SQLite {sqlite3.sqlite_version}"
    with connect(url) as client:
        info = client.info("server")
    return f"{'Valkey ' + info['valkey_version'] if 'valkey_version' in info else 'Redis ' + info['redis_version']}"
