"""A REST API without keys serves whoever is on this machine and asks for it by its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from api_asking import ask, named, open_keyless, open_prompt, prompt_site, routes
from api_site import PREFIX, SECRETS, ApiSite, links, refusal

site = pytest.fixture(open_prompt, scope="module")
keyless = pytest.fixture(open_keyless, scope="module")


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "127.1.2.3", "[::1]", "[::1]:8080"])
def test_without_keys_whoever_names_this_machine_may_do_everything(keyless: ApiSite, host: str) -> None:
    assert ask(keyless, "GET", f"{PREFIX}/jobs", {"Host": host}).status_code == 200
    assert ask(keyless, "POST", f"{PREFIX}/queues/default/pause", {"Host": host}).status_code == 200


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
    for method, path in routes(keyless):
        if method != "HEAD":
            answer = ask(keyless, method, named(keyless, path), {"Host": host})
            assert answer.status_code in (400, 403), (method, path, answer.status)
            refusal(answer, answer.status_code)


@pytest.mark.parametrize(
    "host", ["[::1", "[zz]", "::1]", "[]", "[v1.x]", "\xff", "a b", 'localhost"><x', "localhost:abc", "localhost:8080:9", ":", "//"]
)
def test_what_is_no_host_is_refused_or_served_and_breaks_nothing(keyless: ApiSite, site: ApiSite, host: str) -> None:
    site.queued(), site.queued()
    headers = {"Host": host, "Authorization": f"Bearer {SECRETS['read']}"}
    for one in (keyless, site):
        answer = ask(one, "GET", f"{PREFIX}/jobs", headers, "limit=1")
        assert answer.status_code < 500, answer.text
        assert not re.search(r"[\"\s<>]", links(answer).get("next", "")), "a link that is none"


@pytest.mark.parametrize(
    ("client", "status"), [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("192.0.2.2", 403), ("::ffff:192.0.2.2", 403)]
)
def test_without_keys_other_machines_are_refused_whatever_name_they_use(keyless: ApiSite, client: str, status: int) -> None:
    answer = keyless.client(None).simulate_get(f"{PREFIX}/queues", remote_addr=client)
    assert answer.status_code == status
    if status != 200:
        refusal(answer, 403, "foreign_client")


def test_for_anonymous_on_purpose_any_host_name_will_do(tmp_path: Path) -> None:
    with prompt_site(tmp_path, keys=(), host="0.0.0.0", allow_anonymous=True) as site:
        assert ask(site, "GET", f"{PREFIX}/jobs", {"Host": "queue.example"}).status_code == 200
