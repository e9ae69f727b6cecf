"""Every request has an id and makes one line in the log, which nobody can forge and no key stands in."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from api_asking import ask, logged, open_prompt
from api_site import PREFIX, SECRETS, ApiSite, refusal

from jobqueue_core.logs import ConsoleFormatter, JsonFormatter

site = pytest.fixture(open_prompt, scope="module")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    with logged(stream, JsonFormatter()):
        yield stream


def _lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


# Lines ---------------------------------------------------------------------------------------------------------------------------------


def test_every_request_makes_one_line_that_says_who_did_what(site: ApiSite, log: io.StringIO) -> None:
    job = site.queued()
    answer = site.client("write").simulate_delete(f"{PREFIX}/jobs/{job.id}")
    (line,) = [one for one in _lines(log) if one["logger"] == "jobqueue.api.access"]
    found = {name: line[name] for name in ("request_id", "method", "path", "status", "actor", "client")}
    assert found == {
        "request_id": answer.headers["x-request-id"],
        "method": "DELETE",
        "path": f"{PREFIX}/jobs/{job.id}",
        "status": 200,
        "actor": "the-writeer",
        "client": "127.0.0.1",
    }
    assert line["duration_ms"] >= 0


def test_what_is_done_is_logged_with_who_did_it(site: ApiSite, log: io.StringIO) -> None:
    site.client("admin").simulate_post(f"{PREFIX}/queues/mail/pause")
    assert [(one["event"], one["actor"], one["queue"]) for one in _lines(log) if "queue" in one] == [("queue paused", "api:the-adminer", "mail")]


@pytest.mark.parametrize("status", [401, 403, 404, 405, 422])
def test_a_refusal_makes_a_line_too(site: ApiSite, log: io.StringIO, status: int) -> None:
    role, method, path = {
        401: (None, "GET", "/jobs"),
        403: ("read", "POST", "/jobs"),
        404: ("read", "GET", "/nope"),
        405: ("read", "PUT", "/jobs"),
        422: ("read", "GET", "/jobs?limit=0"),
    }[status]
    answer = site.client(role).simulate_request(method, f"{PREFIX}{path}")
    assert answer.status_code == status
    assert [one["status"] for one in _lines(log)] == [status]
    assert _lines(log)[0]["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("formatter", [JsonFormatter(), ConsoleFormatter()], ids=["json", "console"])
@pytest.mark.parametrize(
    "path",
    [
        '/a\n{"event":"forged"}',
        "/a\r\nforged",
        "/a\u2028b",
        "/a\x1b[2Jb",
        "/a\x00b",
        "/\u00e4\u4e2d",
        f"{PREFIX}/jobs/a\nb",
        f"{PREFIX}/queues/a\nb/stats",
        "/" + "a" * 9000,
    ],
    ids=ascii,
)
def test_no_path_forges_a_line_of_the_log(site: ApiSite, formatter: logging.Formatter, path: str) -> None:
    stream = io.StringIO()
    with logged(stream, formatter):
        refusal(ask(site, "GET", path, {"Authorization": f"Bearer {SECRETS['read']}"}), 404)
    line, end, rest = stream.getvalue().partition("\n")
    assert (end, rest) == ("\n", "")
    assert not [one for one in line if ord(one) < 32 or ord(one) == 127]


def test_no_key_stands_in_logs_or_answers(site: ApiSite, log: io.StringIO) -> None:
    for role in SECRETS:
        client = site.client(role)
        for path in ("/jobs", "/jobs?key=x", "/nope", "/openapi.json", "/stats", "/workers"):
            answer = client.simulate_get(f"{PREFIX}{path}")
            assert SECRETS[role] not in answer.text + repr(answer.headers)
        client.simulate_post(f"{PREFIX}/jobs", json={"type": "!"})
        client.simulate_get(f"{PREFIX}/jobs", query_string=f"key={SECRETS[role]}")
        client.simulate_get(f"{PREFIX}/jobs", headers={"Authorization": f"Bearer {SECRETS[role]}x"})
        client.simulate_get(f"{PREFIX}/jobs", headers={"Authorization": SECRETS[role]})
    written = log.getvalue()
    assert written.count("\n") >= 30
    assert not [secret for secret in SECRETS.values() if secret in written]


# Request ids ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["a", "req-1", "4bf92f3577b34da6a3ce929d0e0e4736", "A" * 128])
def test_a_request_id_that_is_sent_is_kept(site: ApiSite, log: io.StringIO, given: str) -> None:
    answer = ask(site, "GET", f"{PREFIX}/jobs", {"X-Request-ID": given})
    assert (answer.headers["x-request-id"], _lines(log)[0]["request_id"]) == (given, given)


@pytest.mark.parametrize("given", ["", "a b", "a\r\nSet-Cookie: x=1", "A" * 129, "\xff", '"', "<script>", "a\x00b", "{}"])
def test_a_request_id_that_is_none_is_replaced(site: ApiSite, log: io.StringIO, given: str) -> None:
    answers = [ask(site, "GET", "/health", {"X-Request-ID": given}) for _ in range(2)]
    made = [answer.headers["x-request-id"] for answer in answers]
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in made)
    assert made[0] != made[1]
    assert [one["request_id"] for one in _lines(log)] == made
    assert "set-cookie" not in answers[0].headers
