"""What a proxy says of a request is believed if the proxy is trusted, and of nobody else."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Final

import falcon.testing
import pytest
from api_asking import ask, logged, prompt_site
from api_site import PREFIX, SECRETS, Result, links, refusal

from jobqueue_core.logs import JsonFormatter

FORWARDED: Final = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "queue.example.com", "X-Forwarded-For": "198.51.100.1"}


def _seen(
    tmp_path: Path, peer: str, headers: dict[str, str], *, trusted: tuple[str, ...] = ("10.0.0.0/8", "2001:db8::/32"), **section: Any
) -> tuple[str, str]:
    """The client as the log has it, and what links begin with, of a request that *peer* hands on."""
    written = io.StringIO()
    with prompt_site(tmp_path, trusted_proxies=trusted, **section) as site, logged(written, JsonFormatter()):
        site.queued(), site.queued()
        sent = {"Host": "localhost:8080", "Authorization": f"Bearer {SECRETS['read']}", **headers}
        environ = falcon.testing.create_environ(path=f"{PREFIX}/jobs", headers=sent, query_string="limit=1", remote_addr=peer)
        answered = falcon.testing.StartResponseMock()
        body = b"".join(site.wsgi(environ, answered))
        assert answered.status == "200 OK", body
        (url,) = links(Result([body], answered.status, answered.headers)).values()
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


def test_links_begin_with_what_a_trusted_proxy_was_asked_for(tmp_path: Path) -> None:
    assert _seen(tmp_path, "10.1.1.1", FORWARDED)[1] == "https://queue.example.com"


def test_links_go_where_a_prefix_is(tmp_path: Path) -> None:
    assert _seen(tmp_path, "10.1.1.1", {"X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "a b"})[1] == "http://localhost:8080"


@pytest.mark.parametrize("trusted", [(), ("192.0.2.0/24",)])
def test_nothing_that_is_forwarded_is_believed_of_others(tmp_path: Path, trusted: tuple[str, ...]) -> None:
    assert _seen(tmp_path, "10.1.1.1", FORWARDED, trusted=trusted) == ("10.1.1.1", "http://localhost:8080")


@pytest.mark.parametrize("trusted", [(), ("127.0.0.1",)])
def test_a_forwarded_name_of_this_machine_opens_nothing_without_keys(tmp_path: Path, trusted: tuple[str, ...]) -> None:
    with prompt_site(tmp_path, keys=(), trusted_proxies=trusted) as site:
        refusal(ask(site, "GET", f"{PREFIX}/jobs", {"Host": "evil.example", "X-Forwarded-Host": "localhost"}), 403)


def test_a_page_behind_a_trusted_proxy_is_our_own(tmp_path: Path) -> None:
    with prompt_site(tmp_path, trusted_proxies=("127.0.0.1",)) as site:
        headers = {**FORWARDED, "Origin": "https://queue.example.com", "Authorization": f"Bearer {SECRETS['admin']}"}
        assert ask(site, "POST", f"{PREFIX}/queues/mine/pause", headers).status_code == 200
        refusal(ask(site, "POST", f"{PREFIX}/queues/mine/pause", {**headers, "Origin": "http://localhost:8080"}), 403, "foreign_origin")
