"""The REST API as users have it: ``jobqueue-run api worker`` on the embedded default, the example's handlers, and a port of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from cli_site import Site, eventually
from servers.ports import free_port

__all__ = ["ServedSite", "served"]


@attrs.frozen
class ServedSite:
    """A server that runs."""

    site: Site
    url: str

    def ask(self, path: str, body: object = None, *, method: str | None = None) -> tuple[int, Any]:
        """Status and JSON of an answer; 0 when there is none."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"} if data else {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())
        except OSError:
            return 0, None

    def create(self, **fields: Any) -> str:
        """The id of a new job."""
        status, job = self.ask("/api/v1/jobs", fields)
        assert status == 201, job
        return str(job["id"])

    def dead(self) -> str:
        """The id of a job that has just died, and whose dead letter is listed."""
        job_id = self.create(type="flaky.fetch", payload={"failures": 1}, max_retries=0)
        eventually(lambda: self.ask(f"/api/v1/dlq/{job_id}")[0] == 200)
        return job_id


@contextlib.contextmanager
def served(folder: Path, *, api: str = "") -> Iterator[ServedSite]:
    """Serve from *folder* until the block ends.

    Args:
        folder: For the config file, the database and the log.
        api: More lines of the table ``[api]``.
    """
    port = free_port()
    (folder / "jobqueue.toml").write_text(f'[worker]\nlease = "5s"\n[api]\nport = {port}\n{api}\n')
    found = ServedSite(Site(folder, config="jobqueue.toml"), f"http://localhost:{port}")
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "jobqueue_core.run", "-c", "jobqueue.toml", "api", "worker"]
        process = subprocess.Popen(command, cwd=folder, env=found.site.environ, stdout=log, stderr=log)
    try:
        eventually(lambda: process.poll() is not None or found.ask("/ready")[0] == 200)
        assert process.poll() is None, (folder / "log").read_text()
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
