"""Keys of the REST API: without one nothing is told, and with one what its role says may be done and no more."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Final

import falcon
import pytest
from api_asking import UNKNOWN, ask, named, open_prompt, prompt_site, routes
from api_site import KEYS, PREFIX, SECRETS, ApiSite, refusal

from jobqueue_core import keys
from jobqueue_core.job import JobState
from jobqueue_core.keys import ApiKey, KeyRing

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

site = pytest.fixture(open_prompt, scope="module")


def _role(method: str, path: str) -> str:
    """What a request needs, as operators are told."""
    if method in ("GET", "HEAD"):
        return "read"
    return "write" if (method, path) in WRITERS else "admin"


# Without a key -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", NOBODYS)
def test_without_a_key_every_route_answers_401_whatever_the_method(site: ApiSite, sent: str) -> None:
    paths = sorted({named(site, path) for _method, path in routes(site)} - set(OPEN))
    assert len(paths) > 25
    answers = {(method, path): ask(site, method, path, NOBODYS[sent]) for path in (*paths, *UNKNOWN) for method in METHODS}
    assert {asked: answer.status for asked, answer in answers.items() if answer.status_code != 401} == {}
    for (method, _path), answer in answers.items():
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        if method != "HEAD":
            refusal(answer, 401, "unauthorized")


def test_a_key_in_the_query_string_is_no_key(site: ApiSite) -> None:
    secret = SECRETS["admin"]
    for query in (f"key={secret}", f"api_key={secret}", f"access_token={secret}", f"token={secret}", f"Authorization=Bearer%20{secret}"):
        answer = ask(site, "GET", f"{PREFIX}/jobs", query=query)
        refusal(answer, 401, "unauthorized")
        assert secret not in answer.text


@pytest.mark.parametrize("path", OPEN)
def test_health_and_readiness_need_no_key(site: ApiSite, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert ask(site, "GET", path, headers).status_code == 200
        assert ask(site, "HEAD", path, headers).status_code == 200
        assert ask(site, "GET", f"{path}/", headers).status_code == 200


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
            assert ask(site, method, asked.partition("?")[0]).status_code == 401, (method, asked)


# Roles ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holder", ["read", "write", "admin"])
def test_a_key_may_do_what_its_role_says_and_no_more(tmp_path: Path, holder: str) -> None:
    ranks = ["read", "write", "admin"]
    with prompt_site(tmp_path) as site:
        wrong = {}
        for method, path in routes(site):
            needed = _role(method, path)
            answer = ask(site, method, named(site, path), {"Authorization": f"Bearer {SECRETS[holder]}"})
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
    assert ask(site, "GET", f"{PREFIX}/jobs", {"Authorization": f"{scheme} {SECRETS['read']}"}).status_code == 200


def test_a_key_may_come_as_a_password_for_reading_only(site: ApiSite) -> None:
    """A browser sends a password by itself, also when a page of another site asks for it."""
    basic = {"Authorization": "Basic " + base64.b64encode(f"anybody:{SECRETS['admin']}".encode()).decode()}
    assert ask(site, "GET", f"{PREFIX}/jobs", basic).status_code == 200
    for method, path in routes(site):
        if method not in ("GET", "HEAD"):
            refusal(ask(site, method, named(site, path), basic), 403, "forbidden")


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


def test_settings_do_not_show_keys(site: ApiSite) -> None:
    assert not [secret for secret in SECRETS.values() if secret in repr(site.app.settings) + repr(KEYS)]
