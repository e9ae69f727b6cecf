"""nginx before the API, as docs/deploying.md has it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from cli_site import eventually
from deployment import ROOT
from servers.ports import free_port

PAGE: Final = (ROOT / "docs" / "deploying.md").read_text()
NGINX: Final = """
daemon off; master_process off; pid nginx.pid; error_log stderr;
events {{}}
http {{
access_log off;
client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
{site}
}}
"""


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[int]:
    """The port of nginx before an API, both configured as the page says, but without TLS."""
    if (nginx := shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")) is None:
        pytest.skip("no program nginx")
    api, front = free_port(), free_port()
    (trusting,) = [text for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "trusted_proxies" in text]
    (tmp_path / "jobqueue.toml").write_text(f"{trusting}port = {api}\n")
    site = re.sub(r" *ssl_certificate.*\n", "", PAGE.partition("```nginx\n")[2].partition("```")[0])
    site = site.replace("listen 443 ssl", f"listen 127.0.0.1:{front}").replace("127.0.0.1:8080", f"127.0.0.1:{api}")
    (tmp_path / "nginx.conf").write_text(NGINX.format(site=site))
    with (tmp_path / "log").open("wb") as log:
        running = [
            subprocess.Popen([sys.executable, "-m", "jobqueue_core.run", "-c", "jobqueue.toml", "api"], cwd=tmp_path, stderr=log),
            subprocess.Popen([nginx, "-p", tmp_path, "-c", "nginx.conf", "-e", "stderr"], cwd=tmp_path, stderr=log),
        ]
    try:
        eventually(lambda: b'"listening"' in (tmp_path / "log").read_bytes() and _connects(front))
        yield front
    finally:
        for process in running:
            process.terminate()
            process.wait()


def _connects(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def test_nginx_as_documented_passes_on_requests_and_who_sent_them(proxied: int, tmp_path: Path) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", proxied, timeout=20)) as connection:
        jobs = {"jobs": [{"type": "flaky.fetch", "payload": "x" * 600_000}] * 4}
        connection.request("POST", "/api/v1/jobs/batch", json.dumps(jobs), {"Content-Type": "application/json", "X-Forwarded-For": "203.0.113.7"})
        answer = connection.getresponse()
        assert (answer.status, len(json.loads(answer.read()))) == (200, 4)
        connection.request("GET", "/api/v1/jobs?limit=1")
        answer = connection.getresponse()
        answer.read()

    assert f"<http://127.0.0.1:{proxied}/api/v1/jobs?" in answer.headers["Link"]
    eventually(lambda: '"client":"203.0.113.7"' in (tmp_path / "log").read_text())
