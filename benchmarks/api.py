"""How many requests a second one process of the REST API serves, beside a bare Falcon route under gunicorn's own thread worker. Needs wrk."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .servers import empty
from .tables import Results, Row, interleaved

if TYPE_CHECKING:
    from .options import Options

__all__ = ["run"]

_THREADS = 8
_SECONDS = 5
_CONNECTIONS = 16
_BODY = json.dumps({"type": "email.send", "payload": {"to": "user@example.com", "subject": "welcome", "number": 42}})
_POST = f"""\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = {json.dumps(_BODY)}
"""
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def run(options: Options, url: str) -> Results:
    """The table."""
    if shutil.which("wrk") is None:
        raise SystemExit("api needs wrk on the PATH")
    namespace = f"benchmark-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="jobqueue-benchmark-") as folder, _ours(Path(folder), url, namespace) as api, _bare() as bare:
        (script := Path(folder) / "post.lua").write_text(_POST, encoding="utf-8")
        job = _create(f"{api}/api/v1/jobs")
        rows = [
            Row("bare Falcon, GET", partial(_load, bare)),
            Row("get a job", partial(_load, f"{api}/api/v1/jobs/{job}")),
            Row("health", partial(_load, f"{api}/health")),
            Row("bare Falcon, POST", partial(_load, bare, script)),
            Row("enqueue", partial(_load, f"{api}/api/v1/jobs", script)),
        ]
        results = interleaved(f"api: one process, {_THREADS} threads, {_CONNECTIONS} connections", rows, options.repeats)
    empty(url, namespace)
    return results


@contextmanager
def _ours(folder: Path, url: str, namespace: str) -> Iterator[str]:
    """The REST API, as ``jobqueue-run`` starts it; its log goes to a file, as it would."""
    plugin = "sqlite" if url.startswith("sqlite:") else "redis"
    config = folder / "jobqueue.toml"
    with (folder / "api.log").open("wb") as log:
        config.write_text(
            f'[run]\nnamespace = "{namespace}"\n[broker]\nplugin = "{plugin}"\nurl = "{url}"\n'
            f'[storage]\nurl = "sqlite:///{folder}/history.db"\n[api]\nport = 0\nthreads = {_THREADS}\n',
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "jobqueue_core.run", "api", "-c", str(config)]
        with _running(command, log) as process:
            yield _address(process, folder / "api.log", r'"url":"http://127\.0\.0\.1:(\d+)"')


@contextmanager
def _bare() -> Iterator[str]:
    """A route that does nothing."""
    with tempfile.TemporaryFile() as log, tempfile.NamedTemporaryFile() as told:
        command = [sys.executable, "-m", "gunicorn", "benchmarks.bareapi:app", "-k", "gthread", "--threads", str(_THREADS)]
        command += ["-b", "127.0.0.1:0", "--keep-alive", "65", "--log-file", told.name, "--no-control-socket"]
        with _running(command, log) as process:
            yield _address(process, Path(told.name), r"http://127\.0\.0\.1:(\d+)")


@contextmanager
def _running(command: list[str], log: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=log, stderr=log)  # type: ignore[call-overload]  # a file is one
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _address(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    """Where it listens, once it does."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(pattern, log.read_text(encoding="utf-8")):
            return f"http://127.0.0.1:{found[1]}"
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} does not serve: {log.read_text(encoding='utf-8')[-2000:]}")


def _create(url: str) -> str:
    request = urllib.request.Request(url, _BODY.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(json.load(answer)["id"])


def _load(url: str, script: Path | None = None) -> dict[str, float]:
    """One run of wrk."""
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{_SECONDS}s", "--latency", *(["-s", str(script)] if script else []), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if failed := re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", output):
        raise SystemExit(f"{url}: {failed[0]}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    late = re.search(r"99%\s+([\d.]+)(us|ms|s)", output)
    if rate is None or late is None:
        raise SystemExit(f"wrk said nothing of {url}: {output}")
    return {"requests/s": float(rate[1]), "p99 ms": float(late[1]) * _UNITS[late[2]]}
