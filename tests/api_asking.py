"""Ways to ask an ``ApiSite``: what it shows, every route that it has, and requests that no client library would send.

The sites to ask are fixtures; a module names those that it uses: ``site = pytest.fixture(open_own)``.
"""

from __future__ import annotations

import io
import logging
import re
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import falcon.inspect
import falcon.testing
import pytest
from api_site import PREFIX, SECRETS, ApiSite, Result, opened

__all__ = [
    "NOBODY",
    "UNKNOWN",
    "ask",
    "get",
    "get_json",
    "logged",
    "named",
    "open_keyless",
    "open_own",
    "open_prompt",
    "open_shared",
    "prompt_site",
    "quoted",
    "routes",
    "send",
    "send_json",
]

NOBODY: Final = str(uuid.UUID(int=0))
"""The id of no job."""
UNKNOWN: Final = ("/", "/nope", PREFIX, f"{PREFIX}/nope", "/api/v2/jobs", "/docs/nope", "/static/x.js", "/.env", f"{PREFIX}/jobs/nope")
"""Paths at which there is nothing."""

# Sites ---------------------------------------------------------------------------------------------------------------------------------


def open_own(tmp_path: Path) -> Iterator[ApiSite]:
    """A site of the test's own."""
    with opened(ApiSite(tmp_path)) as site:
        yield site


def open_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    """A site of a module, for tests that keep to queues and ids of their own."""
    with opened(ApiSite(tmp_path_factory.mktemp("api"))) as site:
        yield site


@contextmanager
def prompt_site(folder: Path, **section: Any) -> Iterator[ApiSite]:
    """A site that keeps nobody waiting, with these fields of ``ApiSection``."""
    with opened(ApiSite(folder, **section)) as site:
        # What would wait or stream ends at once, and log lines are written at once.
        site.closing.begin()
        yield site


def open_prompt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    """A site of a module, that keeps nobody waiting."""
    with prompt_site(tmp_path_factory.mktemp("api")) as site:
        yield site


def open_keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    """The same without keys."""
    with prompt_site(tmp_path_factory.mktemp("keyless"), keys=()) as site:
        yield site


# Reading -------------------------------------------------------------------------------------------------------------------------------


def get(site: ApiSite, path: str, query: str = "") -> Result:
    """What somebody who may only read is answered."""
    return site.client("read").simulate_get(f"{PREFIX}{path}", query_string=query)


def get_json(site: ApiSite, path: str, status: int = 200) -> Any:
    """What somebody who may only read is shown; it is answered with that status."""
    answer = site.client("read").simulate_get(f"{PREFIX}{path}")
    assert answer.status_code == status, answer.text
    return answer.json


def quoted(text: str) -> str:
    """*text* as it stands in a URL, whatever it is."""
    return urllib.parse.quote(text, safe="", errors="surrogatepass")


# Every route ---------------------------------------------------------------------------------------------------------------------------


def routes(site: ApiSite) -> list[tuple[str, str]]:
    """Method and path of everything that is served, as the router says."""
    return [
        (method.method, re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path))
        for route in falcon.inspect.inspect_routes(site.wsgi)
        for method in route.methods
        if method.method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") and not method.internal
    ]


def named(site: ApiSite, path: str) -> str:
    """*path* with the name of something that exists."""
    job = site.queued()
    return path.replace("{job_id}", job.id).replace("{name}", job.queue)


# Any request ---------------------------------------------------------------------------------------------------------------------------


def ask(site: ApiSite, method: str, path: str, headers: dict[str, str] | None = None, query: str = "") -> Result:
    """Ask without the check of WSGI that test clients do, which takes only methods that it knows."""
    environ = falcon.testing.create_environ(
        path=path, method=method, headers={"Host": "localhost:8080", **(headers or {})}, query_string=query, root_path=""
    )
    answered = falcon.testing.StartResponseMock()
    body = b"".join(site.wsgi(environ, answered))
    return Result([body], answered.status, answered.headers)


def send(site: ApiSite, data: bytes, path: str = "/jobs", *, length: int | None = None, method: str = "POST", **headers: str) -> Result:
    """Send *data*, and as many headers as are given, as they are."""
    sent = {
        "Host": "localhost:8080",
        "Authorization": f"Bearer {SECRETS['admin']}",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    environ = falcon.testing.create_environ(path=f"{PREFIX}{path}", method=method, headers=sent, body=data)
    environ["wsgi.input"] = io.BytesIO(data)
    environ.pop("CONTENT_LENGTH", None)
    if "Transfer_Encoding" not in headers:
        environ["CONTENT_LENGTH"] = str(len(data) if length is None else length)
    answered = falcon.testing.StartResponseMock()
    return Result([b"".join(site.wsgi(environ, answered))], answered.status, answered.headers)


def send_json(site: ApiSite, data: bytes, path: str = "/jobs") -> Result:
    """Send *data*, and say that it is JSON."""
    return send(site, data, path, Content_Type="application/json")


# What is logged ------------------------------------------------------------------------------------------------------------------------


@contextmanager
def logged(stream: io.StringIO, formatter: logging.Formatter) -> Iterator[None]:
    """Write what the API logs to *stream*."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger("jobqueue")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
