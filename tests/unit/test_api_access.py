"""Who may do what over the REST API, and what is believed of a request."""

from __future__ import annotations

import base64
import inspect
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import falcon.inspect
import falcon.testing
import pytest
from api_site import KEYS, PREFIX, SECRETS, ApiSite, links, opened, refusal

from jobqueue_core import keys
from jobqueue_core.job import JobState
from jobqueue_core.keys import ApiKey, KeyRing
from jobqueue_core.logs import ConsoleFormatter, JsonFormatter

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "FOO")
OPEN: Final = ("/health", "/ready")
WRITERS: Final = frozenset(
    {
        ("POST", f"{PREFIX}/jobs"),
        ("POST", f"{PREFIX}/jobs/batch"),
        ("DELETE", f"{PREFIX}/jobs/{{job_id}}"),
        ("POST", f"{PREFIX}/dlq/retry"),
        ("POST", f"{PREFIX}/dlq/{{job_id}}/retry"),
        ("POST", f"{PREFIX}/schedules/{{name}}/run"),
    }
)
"""What a key of the role write may do beyond reading; whatever else changes something is for admins."""
UNKNOWN: Final = ("/", "/nope", PREFIX, f"{PREFIX}/nope", "/api/v2/jobs", "/docs/nope", "/static/x.js", "/.env", f"{PREFIX}/jobs/nope")
NOBODYS: Final[dict[str, dict[str, str]]] = {
    "no key": {},
    "a wrong key": {"Authorization": "Bearer wrong"},
    "an empty key": {"Authorization": "Bearer "},
    "no scheme": {"Authorization": SECRETS["admin"]},
    "another scheme": {"Authorization": f"Digest {SECRETS['admin']}"},
    "the start of a key": {"Authorization": f"Bearer {SECRETS['admin'][:-1]}"},
    "a key and more": {"Authorization": f"Bearer {SECRETS['admin']}x"},
    "two keys": {"Authorization": f"Bearer {SECRETS['admin']}, Bearer {SECRETS['read']}"},
    "a key in another case": {"Authorization": f"Bearer {SECRETS['admin'].upper()}"},
    "bytes": {"Authorization": "Bearer \xff\xfe"},
    "a digest": {"Authorization": f"Bearer {ApiKey(name='x', role='read', key=SECRETS['admin']).digest(Path()).hex()}"},
    "a broken password": {"Authorization": "Basic %%%"},
    "a password that is none": {"Authorization": "Basic " + base64.b64encode(b"admin:wrong").decode()},
    "a key as the user's name": {"Authorization": "Basic " + base64.b64encode(f"{SECRETS['admin']}:".encode()).decode()},
    "another header": {"X-API-Key": SECRETS["admin"]},
    "a cookie": {"Cookie": f"Authorization=Bearer {SECRETS['admin']}; key={SECRETS['admin']}"},
}
"""What lets nobody in."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    with _site(tmp_path_factory.mktemp("api")) as site:
        yield site


@contextmanager
def _site(folder: Path, **section: Any) -> Iterator[ApiSite]:
    with opened(ApiSite(folder, **section)) as site:
        # What would wait or stream ends at once, and log lines are written at once.
        site.closing.begin()
        yield site


def _routes(site: ApiSite) -> list[tuple[str, str]]:
    """Method and path of everything that is served, as the router says."""
    return [
        (method.method, re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path))
        for route in falcon.inspect.inspect_routes(site.wsgi)
        for method in route.methods
        if method.method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") and not method.internal
    ]


def _ask(site: ApiSite, method: str, path: str, headers: dict[str, str] | None = None, query: str = "") -> falcon.testing.Result:
    """Ask without the check of WSGI that test clients do, which takes only methods that it knows."""
    environ = falcon.testing.create_environ(
        path=path, method=method, headers={"Host": "localhost:8080", **(headers or {})}, query_string=query, root_path=""
    )
    answered = falcon.testing.StartResponseMock()
    body = b"".join(site.wsgi(environ, answered))
    return falcon.testing.Result([body], answered.status, answered.headers)


def _named(site: ApiSite, path: str) -> str:
    """*path* with the name of something that exists."""
    job = site.queued()
    return path.replace("{job_id}", job.id).replace("{name}", job.queue)


def _role(method: str, path: str) -> str:
    """What a request needs, as operators are told."""
    if method in ("GET", "HEAD"):
        return "read"
    return "write" if (method, path) in WRITERS else "admin"


# Keys ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", NOBODYS)
def test_without_a_key_every_route_answers_401_whatever_the_method(site: ApiSite, sent: str) -> None:
    paths = sorted({_named(site, path) for _method, path in _routes(site)} - set(OPEN))
    assert len(paths) > 25
    answers = {(method, path): _ask(site, method, path, NOBODYS[sent]) for path in (*paths, *UNKNOWN) for method in METHODS}
    assert {asked: answer.status for asked, answer in answers.items() if answer.status_code != 401} == {}
    for (method, _path), answer in answers.items():
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        if method != "HEAD":
            refusal(answer, 401, "unauthorized")


def test_a_key_in_the_query_string_is_no_key(site: ApiSite) -> None:
    secret = SECRETS["admin"]
    for query in (f"key={secret}", f"api_key={secret}", f"access_token={secret}", f"token={secret}", f"Authorization=Bearer%20{secret}"):
        answer = _ask(site, "GET", f"{PREFIX}/jobs", query=query)
        refusal(answer, 401, "unauthorized")
        assert secret not in answer.text


@pytest.mark.parametrize("path", OPEN)
def test_health_and_readiness_need_no_key(site: ApiSite, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert _ask(site, "GET", path, headers).status_code == 200
        assert _ask(site, "HEAD", path, headers).status_code == 200
        assert _ask(site, "GET", f"{path}/", headers).status_code == 200


@pytest.mark.parametrize("holder", ["read", "write", "admin"])
def test_a_key_may_do_what_its_role_says_and_no_more(tmp_path: Path, holder: str) -> None:
    ranks = ["read", "write", "admin"]
    with _site(tmp_path) as site:
        wrong = {}
        for method, path in _routes(site):
            needed = _role(method, path)
            answer = _ask(site, method, _named(site, path), {"Authorization": f"Bearer {SECRETS[holder]}"})
            is_allowed = answer.status_code not in (401, 403)
            if path not in OPEN and is_allowed is not (ranks.index(holder) >= ranks.index(needed)):
                wrong[method, path] = answer.status
            if answer.status_code == 403:
                assert f"'the-{holder}er'" in refusal(answer, 403, "forbidden")
        assert wrong == {}


def test_what_a_role_may_not_do_is_not_done(site: ApiSite) -> None:
    job, dead = site.queued(), site.dead()
    name = site.schedule("kept")
    reader, writer = site.client("read"), site.client("write")
    refusal(reader.simulate_delete(f"{PREFIX}/jobs/{job.id}"), 403)
    refusal(reader.simulate_post(f"{PREFIX}/dlq/{dead.id}/retry"), 403)
    refusal(writer.simulate_post(f"{PREFIX}/queues/{job.queue}/pause"), 403)
    refusal(writer.simulate_delete(f"{PREFIX}/queues/{job.queue}/jobs"), 403)
    refusal(writer.simulate_delete(f"{PREFIX}/dlq/{dead.id}"), 403)
    refusal(writer.simulate_delete(f"{PREFIX}/dlq"), 403)
    refusal(writer.simulate_patch(f"{PREFIX}/schedules/{name}", json={"paused": True}), 403)
    refusal(writer.simulate_delete(f"{PREFIX}/schedules/{name}"), 403)
    assert site.job(job.id).state is JobState.QUEUED
    assert not site.queue.operations.queue(job.queue).paused
    assert site.queue.operations.dead_letter(dead.id).state == "open"
    assert not site.queue.schedules.get(name).paused


def test_who_may_not_do_it_learns_nothing_of_what_would_be_wrong_with_it(site: ApiSite) -> None:
    refusal(site.client("read").simulate_post(f"{PREFIX}/jobs", body="{"), 403, "forbidden")
    refusal(site.client("write").simulate_delete(f"{PREFIX}/dlq", query_string="nope=1"), 403, "forbidden")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_may_be_written_in_any_case(site: ApiSite, scheme: str) -> None:
    assert _ask(site, "GET", f"{PREFIX}/jobs", {"Authorization": f"{scheme} {SECRETS['read']}"}).status_code == 200


def test_a_key_may_come_as_a_password_for_reading_only(site: ApiSite) -> None:
    """A browser sends a password by itself, also when a page of another site asks for it."""
    basic = {"Authorization": "Basic " + base64.b64encode(f"anybody:{SECRETS['admin']}".encode()).decode()}
    assert _ask(site, "GET", f"{PREFIX}/jobs", basic).status_code == 200
    for method, path in _routes(site):
        if method not in ("GET", "HEAD"):
            refusal(_ask(site, method, _named(site, path), basic), 403, "forbidden")


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/metrics", "/docs", "/api/v1/queues/default/stats"])
@pytest.mark.parametrize(
    "spelling",
    [
        lambda path: f"{path}/",
        lambda path: f"{path}//",
        lambda path: f"/{path}",
        lambda path: path.replace("/", "//"),
        lambda path: f"/health/..{path}",
        lambda path: f"/health/%2e%2e{path}",
        lambda path: f"/health/.{path}",
        lambda path: f"/health;{path}",
        lambda path: f"/health%2f..{path}",
        lambda path: f"/health/%2e%2e%2f{path[1:]}",
        lambda path: f"/health%00{path}",
        lambda path: f"/HEALTH/..{path}",
        lambda path: path.upper(),
        lambda path: f"{path}%20",
        lambda path: f"{path}?/health",
        lambda path: f"{path}#/health",
        lambda path: f"{path}/..;/health",
        lambda path: f"\\health\\..{path}",
    ],
)
def test_no_spelling_of_a_path_leads_past_the_gate(site: ApiSite, path: str, spelling: Callable[[str], str]) -> None:
    """As a server would hand it on: escapes decoded, and as it was sent."""
    for asked in {spelling(path), falcon.uri.decode(spelling(path), unquote_plus=False)}:
        for method in ("GET", "POST", "DELETE"):
            assert _ask(site, method, asked.partition("?")[0]).status_code == 401, (method, asked)


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_header_does_not_change_the_method(site: ApiSite, header: str) -> None:
    job = site.queued()
    reading = {"Authorization": f"Bearer {SECRETS['admin']}", header: "DELETE"}
    assert _ask(site, "GET", f"{PREFIX}/jobs/{job.id}", reading).json["state"] == "queued"
    refusal(_ask(site, "POST", f"{PREFIX}/jobs/{job.id}", reading), 405, "method_not_allowed")
    refusal(_ask(site, "POST", f"{PREFIX}/queues/{job.queue}/jobs", {**reading, header: "GET"}, query="_method=DELETE"), 405)
    assert site.job(job.id).state is JobState.QUEUED


def test_head_answers_what_get_would_without_the_body(site: ApiSite) -> None:
    headers = {"Authorization": f"Bearer {SECRETS['read']}"}
    for method, path in _routes(site):
        if method != "HEAD" or path == "/metrics":
            continue
        asked = _named(site, path)
        head, get = _ask(site, "HEAD", asked, headers), _ask(site, "GET", asked, headers)
        assert (head.status_code, head.content) == (get.status_code, b""), asked
        assert head.headers["content-type"] == get.headers["content-type"], asked


def test_a_method_that_a_path_does_not_have_is_405_with_what_it_has(site: ApiSite) -> None:
    answer = _ask(site, "PUT", f"{PREFIX}/jobs", {"Authorization": f"Bearer {SECRETS['read']}"})
    refusal(answer, 405, "method_not_allowed")
    assert {one.strip() for one in answer.headers["allow"].split(",")} >= {"GET", "POST"}


@pytest.mark.parametrize("path", UNKNOWN)
def test_what_does_not_exist_is_404_in_the_one_shape(site: ApiSite, path: str) -> None:
    refusal(_ask(site, "GET", path, {"Authorization": f"Bearer {SECRETS['read']}"}), 404, "not_found")


# Secrets -------------------------------------------------------------------------------------------------------------------------------


def test_keys_are_compared_in_constant_time_and_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    ring = KeyRing(KEYS, Path())
    for sent in (SECRETS["read"], SECRETS["admin"], "wrong"):
        compared.clear()
        ring.holder(sent)
        assert len(compared) == len(KEYS)
        assert {len(digest) for pair in compared for digest in pair} == {32}
    assert "==" not in inspect.getsource(KeyRing.holder)


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


def test_settings_do_not_show_keys(site: ApiSite) -> None:
    assert not [secret for secret in SECRETS.values() if secret in repr(site.app.settings) + repr(KEYS)]


# Without keys --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    with _site(tmp_path_factory.mktemp("keyless"), keys=()) as site:
        yield site


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "127.1.2.3", "[::1]", "[::1]:8080"])
def test_without_keys_whoever_names_this_machine_may_do_everything(keyless: ApiSite, host: str) -> None:
    assert _ask(keyless, "GET", f"{PREFIX}/jobs", {"Host": host}).status_code == 200
    assert _ask(keyless, "POST", f"{PREFIX}/queues/default/pause", {"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io:8080",
        "0.0.0.0:8080",
        "10.0.0.7",
        "[fe80::1]",
        "localhost@evil.example",
        "evil.example/localhost",
        "evil.example#localhost",
        "evil.example?localhost",
        "evil.example\\localhost",
        "2130706433",
        "",
    ],
)
def test_without_keys_a_foreign_host_name_is_refused_on_every_route(keyless: ApiSite, host: str) -> None:
    """The browser of whoever works on this machine may have been told that a foreign name leads here."""
    for method, path in _routes(keyless):
        if method != "HEAD":
            answer = _ask(keyless, method, _named(keyless, path), {"Host": host})
            assert answer.status_code in (400, 403), (method, path, answer.status)
            refusal(answer, answer.status_code)


@pytest.mark.parametrize(
    "host", ["[::1", "[zz]", "::1]", "[]", "[v1.x]", "\xff", "a b", 'localhost"><x', "localhost:abc", "localhost:8080:9", ":", "//"]
)
def test_what_is_no_host_is_refused_or_served_and_breaks_nothing(keyless: ApiSite, site: ApiSite, host: str) -> None:
    site.queued(), site.queued()
    headers = {"Host": host, "Authorization": f"Bearer {SECRETS['read']}"}
    for one in (keyless, site):
        answer = _ask(one, "GET", f"{PREFIX}/jobs", headers, "limit=1")
        assert answer.status_code < 500, answer.text
        assert not re.search(r"[\"\s<>]", links(answer).get("next", "")), "a link that is none"


def test_for_anonymous_on_purpose_any_host_name_will_do(tmp_path: Path) -> None:
    with _site(tmp_path, keys=(), host="0.0.0.0", allow_anonymous=True) as site:
        assert _ask(site, "GET", f"{PREFIX}/jobs", {"Host": "queue.example"}).status_code == 200


# Pages of other sites ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://localhost:8080", "http://localhost:8081", "http://localhost:8080.evil.example", ""]
)
def test_pages_of_other_sites_can_change_nothing(keyless: ApiSite, site: ApiSite, origin: str) -> None:
    for one in (keyless, site):
        for method, path in _routes(one):
            if method not in ("GET", "HEAD"):
                answer = _ask(one, method, _named(one, path), {"Origin": origin, "Authorization": f"Bearer {SECRETS['admin']}"})
                assert (answer.status_code, answer.json["code"]) == (403, "foreign_origin"), (method, path)


def test_our_own_page_can(keyless: ApiSite) -> None:
    assert _ask(keyless, "POST", f"{PREFIX}/queues/mine/pause", {"Origin": "http://localhost:8080"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://ops.example.com"])
def test_no_page_may_read_unless_it_is_configured(site: ApiSite, origin: str) -> None:
    answer = _ask(site, "GET", f"{PREFIX}/jobs", {"Origin": origin, "Authorization": f"Bearer {SECRETS['read']}"})
    assert answer.status_code == 200
    assert [name for name in answer.headers if name.lower().startswith("access-control-")] == []


def _preflight(site: ApiSite, origin: str, path: str = f"{PREFIX}/jobs") -> falcon.testing.Result:
    """What a browser asks before it sends a page's request with a key; it sends no key with this."""
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    return _ask(site, "OPTIONS", path, asked)


def test_without_configuration_a_preflight_needs_a_key_like_everything(site: ApiSite) -> None:
    refusal(_preflight(site, "https://ops.example.com"), 401)


def test_configured_pages_may_read_and_write(tmp_path: Path) -> None:
    page = "https://ops.example.com"
    with _site(tmp_path, cors_origins=(page, "http://localhost:3000")) as site:
        before = _preflight(site, page)
        assert before.status_code == 200
        assert before.headers["access-control-allow-origin"] == page
        assert "POST" in before.headers["access-control-allow-methods"]
        assert "authorization" in before.headers["access-control-allow-headers"].lower()
        headers = {"Origin": page, "Authorization": f"Bearer {SECRETS['admin']}"}
        answer = _ask(site, "POST", f"{PREFIX}/queues/mine/pause", headers)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, page)
        assert "access-control-allow-credentials" not in answer.headers
        exposed = _ask(site, "GET", f"{PREFIX}/jobs", headers).headers["access-control-expose-headers"].lower()
        assert {"link", "retry-after", "x-request-id"} <= {one.strip() for one in exposed.split(",")}


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://ops.example.com.evil.example", "http://ops.example.com"])
def test_other_pages_than_those_configured_may_neither_read_nor_write(tmp_path: Path, origin: str) -> None:
    with _site(tmp_path, cors_origins=("https://ops.example.com",)) as site:
        headers = {"Origin": origin, "Authorization": f"Bearer {SECRETS['admin']}"}
        for answer in (_preflight(site, origin), _ask(site, "GET", f"{PREFIX}/jobs", headers)):
            assert "access-control-allow-origin" not in answer.headers
        refusal(_ask(site, "POST", f"{PREFIX}/queues/mine/pause", headers), 403, "foreign_origin")


def test_all_pages_never_means_with_credentials(tmp_path: Path) -> None:
    with _site(tmp_path, cors_origins=("*",)) as site:
        for origin in ("https://any.example", "null"):
            for answer in (_preflight(site, origin), _ask(site, "GET", f"{PREFIX}/jobs", {"Origin": origin})):
                assert answer.headers["access-control-allow-origin"] == "*"
                assert "access-control-allow-credentials" not in answer.headers


def test_a_refusal_can_be_read_by_a_configured_page(tmp_path: Path) -> None:
    """Else its script cannot tell a wrong key from a server that is away."""
    with _site(tmp_path, cors_origins=("https://ops.example.com",)) as site:
        answer = _ask(site, "GET", f"{PREFIX}/jobs", {"Origin": "https://ops.example.com", "Authorization": "Bearer wrong"})
        refusal(answer, 401)
        assert answer.headers["access-control-allow-origin"] == "https://ops.example.com"


# Proxies -------------------------------------------------------------------------------------------------------------------------------


def _seen(
    tmp_path: Path, peer: str, headers: dict[str, str], *, trusted: tuple[str, ...] = ("10.0.0.0/8", "2001:db8::/32"), **section: Any
) -> tuple[str, str]:
    """The client as the log has it, and what links begin with, of a request that *peer* hands on."""
    written = io.StringIO()
    with _site(tmp_path, trusted_proxies=trusted, **section) as site, _logged(written, JsonFormatter()):
        site.queued(), site.queued()
        sent = {"Host": "localhost:8080", "Authorization": f"Bearer {SECRETS['read']}", **headers}
        environ = falcon.testing.create_environ(path=f"{PREFIX}/jobs", headers=sent, query_string="limit=1", remote_addr=peer)
        answered = falcon.testing.StartResponseMock()
        body = b"".join(site.wsgi(environ, answered))
        assert answered.status == "200 OK", body
        (url,) = links(falcon.testing.Result([body], answered.status, answered.headers)).values()
    (line,) = [one for one in map(json.loads, written.getvalue().splitlines()) if one["logger"] == "jobqueue.api.access"]
    return line["client"], url.partition("/api/v1")[0]


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.1.1.1", "198.51.100.1", "198.51.100.1"),
        ("10.1.1.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        ("10.1.1.1", "6.6.6.6, 198.51.100.1, 10.2.2.2", "198.51.100.1"),
        ("10.1.1.1", "10.3.3.3, 10.2.2.2", "10.3.3.3"),
        ("::ffff:10.1.1.1", "198.51.100.1", "198.51.100.1"),
        ("2001:db8::1", "2001:db9::5", "2001:db9::5"),
        ("2001:db9::1", "198.51.100.1", "2001:db9::1"),
        ("10.1.1.1", "2001:db9::5, ::ffff:10.2.2.2", "2001:db9::5"),
        ("10.1.1.1", 'evil"\\r\\nx', "10.1.1.1"),
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "unknown, 10.2.2.2", "10.2.2.2"),
    ],
)
def test_the_client_is_the_last_address_that_no_trusted_proxy_has(tmp_path: Path, peer: str, chain: str, client: str) -> None:
    """What stands before it anybody may have written."""
    assert _seen(tmp_path, peer, {"X-Forwarded-For": chain})[0] == client


FORWARDED: Final = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "queue.example.com", "X-Forwarded-For": "198.51.100.1"}


def test_links_begin_with_what_a_trusted_proxy_was_asked_for(tmp_path: Path) -> None:
    assert _seen(tmp_path, "10.1.1.1", FORWARDED)[1] == "https://queue.example.com"


def test_links_go_where_a_prefix_is(tmp_path: Path) -> None:
    assert _seen(tmp_path, "10.1.1.1", {"X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "a b"})[1] == "http://localhost:8080"


@pytest.mark.parametrize("trusted", [(), ("192.0.2.0/24",)])
def test_nothing_that_is_forwarded_is_believed_of_others(tmp_path: Path, trusted: tuple[str, ...]) -> None:
    assert _seen(tmp_path, "10.1.1.1", FORWARDED, trusted=trusted) == ("10.1.1.1", "http://localhost:8080")


@pytest.mark.parametrize("trusted", [(), ("127.0.0.1",)])
def test_a_forwarded_name_of_this_machine_opens_nothing_without_keys(tmp_path: Path, trusted: tuple[str, ...]) -> None:
    with _site(tmp_path, keys=(), trusted_proxies=trusted) as site:
        refusal(_ask(site, "GET", f"{PREFIX}/jobs", {"Host": "evil.example", "X-Forwarded-Host": "localhost"}), 403)


def test_a_page_behind_a_trusted_proxy_is_our_own(tmp_path: Path) -> None:
    with _site(tmp_path, trusted_proxies=("127.0.0.1",)) as site:
        headers = {**FORWARDED, "Origin": "https://queue.example.com", "Authorization": f"Bearer {SECRETS['admin']}"}
        assert _ask(site, "POST", f"{PREFIX}/queues/mine/pause", headers).status_code == 200
        refusal(_ask(site, "POST", f"{PREFIX}/queues/mine/pause", {**headers, "Origin": "http://localhost:8080"}), 403, "foreign_origin")


@pytest.mark.parametrize(
    ("client", "status"), [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("192.0.2.2", 403), ("::ffff:192.0.2.2", 403)]
)
def test_without_keys_other_machines_are_refused_whatever_name_they_use(keyless: ApiSite, client: str, status: int) -> None:
    answer = keyless.client(None).simulate_get(f"{PREFIX}/queues", remote_addr=client)
    assert answer.status_code == status
    if status != 200:
        refusal(answer, 403, "foreign_client")


@pytest.mark.parametrize(("origin", "status"), [("https://ops.example.com", 200), ("https://evil.example", 401)])
def test_only_pages_that_may_use_the_api_can_ask_what_they_may_send(tmp_path: Path, origin: str, status: int) -> None:
    with _site(tmp_path, cors_origins=("https://ops.example.com",)) as site:
        headers = {"Host": "localhost:8080", "Origin": origin, "Access-Control-Request-Method": "POST"}
        assert _ask(site, "OPTIONS", f"{PREFIX}/jobs", headers).status_code == status


# A prefix ------------------------------------------------------------------------------------------------------------------------------


def test_with_a_prefix_everything_is_there_and_nowhere_else(tmp_path: Path) -> None:
    with _site(tmp_path, path_prefix="/queue/a") as site:
        client = site.client()
        assert _ask(site, "GET", "/queue/a/health").status_code == 200
        assert _ask(site, "GET", "/health").status_code == 401
        assert _ask(site, "GET", f"/queue/a{PREFIX}/jobs").status_code == 401
        refusal(client.simulate_get("/health"), 404)
        refusal(client.simulate_get(f"{PREFIX}/jobs"), 404)
        created = client.simulate_post(f"/queue/a{PREFIX}/jobs", json={"type": "a"})
        assert created.headers["location"] == f"/queue/a{PREFIX}/jobs/{created.json['id']}"
        assert client.simulate_get(created.headers["location"]).json == created.json
        client.simulate_post(f"/queue/a{PREFIX}/jobs", json={"type": "a"})
        page = client.simulate_get(f"/queue/a{PREFIX}/jobs?limit=1")
        assert links(page)["next"].startswith(f"http://localhost:8080/queue/a{PREFIX}/jobs?")
        assert client.simulate_get(f"/queue/a{PREFIX}/openapi.json").json["servers"] == [{"url": "/queue/a"}]


# Request ids and the log ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _logged(stream: io.StringIO, formatter: logging.Formatter) -> Iterator[None]:
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


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    with _logged(stream, JsonFormatter()):
        yield stream


def _lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


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


@pytest.mark.parametrize("given", ["a", "req-1", "4bf92f3577b34da6a3ce929d0e0e4736", "A" * 128])
def test_a_request_id_that_is_sent_is_kept(site: ApiSite, log: io.StringIO, given: str) -> None:
    answer = _ask(site, "GET", f"{PREFIX}/jobs", {"X-Request-ID": given})
    assert (answer.headers["x-request-id"], _lines(log)[0]["request_id"]) == (given, given)


@pytest.mark.parametrize("given", ["", "a b", "a\r\nSet-Cookie: x=1", "A" * 129, "\xff", '"', "<script>", "a\x00b", "{}"])
def test_a_request_id_that_is_none_is_replaced(site: ApiSite, log: io.StringIO, given: str) -> None:
    answers = [_ask(site, "GET", "/health", {"X-Request-ID": given}) for _ in range(2)]
    made = [answer.headers["x-request-id"] for answer in answers]
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in made)
    assert made[0] != made[1]
    assert [one["request_id"] for one in _lines(log)] == made
    assert "set-cookie" not in answers[0].headers


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
    with _logged(stream, formatter):
        refusal(_ask(site, "GET", path, {"Authorization": f"Bearer {SECRETS['read']}"}), 404)
    line, end, rest = stream.getvalue().partition("\n")
    assert (end, rest) == ("\n", "")
    assert not [one for one in line if ord(one) < 32 or ord(one) == 127]


def test_answers_are_not_kept_by_caches_or_guessed_at_by_browsers(site: ApiSite) -> None:
    for role, path in (("read", f"{PREFIX}/jobs"), (None, f"{PREFIX}/jobs"), (None, "/health")):
        headers = site.client(role).simulate_get(path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


def test_a_page_of_the_documentation_may_load_nothing_from_elsewhere(site: ApiSite) -> None:
    answer = site.client("read").simulate_get("/docs")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", answer.text)
