"""What browsers are told: which sites' pages may ask, what is kept or guessed at, and what a page may load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from api_asking import ask, named, open_keyless, open_prompt, prompt_site, routes
from api_site import PREFIX, SECRETS, ApiSite, Result, refusal

site = pytest.fixture(open_prompt, scope="module")
keyless = pytest.fixture(open_keyless, scope="module")

# Pages of other sites ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://localhost:8080", "http://localhost:8081", "http://localhost:8080.evil.example", ""]
)
def test_pages_of_other_sites_can_change_nothing(keyless: ApiSite, site: ApiSite, origin: str) -> None:
    for one in (keyless, site):
        for method, path in routes(one):
            if method not in ("GET", "HEAD"):
                answer = ask(one, method, named(one, path), {"Origin": origin, "Authorization": f"Bearer {SECRETS['admin']}"})
                assert (answer.status_code, answer.json["code"]) == (403, "foreign_origin"), (method, path)


def test_our_own_page_can(keyless: ApiSite) -> None:
    assert ask(keyless, "POST", f"{PREFIX}/queues/mine/pause", {"Origin": "http://localhost:8080"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://ops.example.com"])
def test_no_page_may_read_unless_it_is_configured(site: ApiSite, origin: str) -> None:
    answer = ask(site, "GET", f"{PREFIX}/jobs", {"Origin": origin, "Authorization": f"Bearer {SECRETS['read']}"})
    assert answer.status_code == 200
    assert [name for name in answer.headers if name.lower().startswith("access-control-")] == []


def _preflight(site: ApiSite, origin: str, path: str = f"{PREFIX}/jobs") -> Result:
    """What a browser asks before it sends a page's request with a key; it sends no key with this."""
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    return ask(site, "OPTIONS", path, asked)


def test_without_configuration_a_preflight_needs_a_key_like_everything(site: ApiSite) -> None:
    refusal(_preflight(site, "https://ops.example.com"), 401)


@pytest.mark.parametrize(("origin", "status"), [("https://ops.example.com", 200), ("https://evil.example", 401)])
def test_only_pages_that_may_use_the_api_can_ask_what_they_may_send(tmp_path: Path, origin: str, status: int) -> None:
    with prompt_site(tmp_path, cors_origins=("https://ops.example.com",)) as site:
        headers = {"Host": "localhost:8080", "Origin": origin, "Access-Control-Request-Method": "POST"}
        assert ask(site, "OPTIONS", f"{PREFIX}/jobs", headers).status_code == status


def test_configured_pages_may_read_and_write(tmp_path: Path) -> None:
    page = "https://ops.example.com"
    with prompt_site(tmp_path, cors_origins=(page, "http://localhost:3000")) as site:
        before = _preflight(site, page)
        assert before.status_code == 200
        assert before.headers["access-control-allow-origin"] == page
        assert "POST" in before.headers["access-control-allow-methods"]
        assert "authorization" in before.headers["access-control-allow-headers"].lower()
        headers = {"Origin": page, "Authorization": f"Bearer {SECRETS['admin']}"}
        answer = ask(site, "POST", f"{PREFIX}/queues/mine/pause", headers)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, page)
        assert "access-control-allow-credentials" not in answer.headers
        exposed = ask(site, "GET", f"{PREFIX}/jobs", headers).headers["access-control-expose-headers"].lower()
        assert {"link", "retry-after", "x-request-id"} <= {one.strip() for one in exposed.split(",")}


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://ops.example.com.evil.example", "http://ops.example.com"])
def test_other_pages_than_those_configured_may_neither_read_nor_write(tmp_path: Path, origin: str) -> None:
    with prompt_site(tmp_path, cors_origins=("https://ops.example.com",)) as site:
        headers = {"Origin": origin, "Authorization": f"Bearer {SECRETS['admin']}"}
        for answer in (_preflight(site, origin), ask(site, "GET", f"{PREFIX}/jobs", headers)):
            assert "access-control-allow-origin" not in answer.headers
        refusal(ask(site, "POST", f"{PREFIX}/queues/mine/pause", headers), 403, "foreign_origin")


def test_all_pages_never_means_with_credentials(tmp_path: Path) -> None:
    with prompt_site(tmp_path, cors_origins=("*",)) as site:
        for origin in ("https://any.example", "null"):
            for answer in (_preflight(site, origin), ask(site, "GET", f"{PREFIX}/jobs", {"Origin": origin})):
                assert answer.headers["access-control-allow-origin"] == "*"
                assert "access-control-allow-credentials" not in answer.headers


def test_a_refusal_can_be_read_by_a_configured_page(tmp_path: Path) -> None:
    """Else its script cannot tell a wrong key from a server that is away."""
    with prompt_site(tmp_path, cors_origins=("https://ops.example.com",)) as site:
        answer = ask(site, "GET", f"{PREFIX}/jobs", {"Origin": "https://ops.example.com", "Authorization": "Bearer wrong"})
        refusal(answer, 401)
        assert answer.headers["access-control-allow-origin"] == "https://ops.example.com"


# Answers -------------------------------------------------------------------------------------------------------------------------------


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
