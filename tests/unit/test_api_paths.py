"""What stands in a path names something, or is answered 404."""

from __future__ import annotations

import urllib.parse

import pytest
from api_asking import NOBODY, get
from api_site import PREFIX, ApiSite, refusal
from refusing_site import keep_unchanged, open_filled

filled = pytest.fixture(open_filled, scope="module")

site = pytest.fixture(keep_unchanged)


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e%2f",
        "%00",
        "a%00b",
        "%2fetc%2fpasswd",
        "a%0d%0ab",
        "a%20b",
        "%ff",
        "%ED%A0%80",
        "x" * 101,
        "-a",
        ".a",
        "\u00e4",
        "a;b",
        "a:b",
        "%2a",
        "~",
        "{name}",
        "$(id)",
        "a%5cb",
        "con%3a",
    ],
)
def test_a_path_that_can_name_nothing_is_404(site: ApiSite, name: str) -> None:
    client = site.client()
    decoded = urllib.parse.unquote(name)
    for path, suffixes in (("/queues", ("/stats", "/depth")), ("/schedules", ("", "/next", "/runs"))):
        for suffix in suffixes:
            for spelt in {name, decoded}:
                refusal(client.simulate_get(f"{PREFIX}{path}/{spelt}{suffix}".partition("?")[0]), 404, "not_found")
    refusal(client.simulate_post(f"{PREFIX}/queues/{name}/pause"), 404)
    refusal(client.simulate_delete(f"{PREFIX}/queues/{name}/jobs"), 404)


@pytest.mark.parametrize(
    "job_id",
    [
        "x" * 36,
        "0" * 36,
        "g" * 32,
        f"{{{NOBODY}}}",
        f"urn:uuid:{NOBODY}",
        f"{NOBODY}%00",
        f"{NOBODY}%0a",
        f"..%2f{NOBODY}",
        f"%20{NOBODY}",
        "0" * 31,
        "-" * 36,
        "\uff10" * 32,
        f"{NOBODY}x",
        f"{NOBODY[:-1]}\u0660",
        "1",
        "..",
        "%00",
    ],
)
def test_an_id_that_is_none_is_404(site: ApiSite, job_id: str) -> None:
    client = site.client()
    for method, path in (
        ("GET", "/jobs/{}"),
        ("DELETE", "/jobs/{}"),
        ("GET", "/jobs/{}/logs"),
        ("GET", "/dlq/{}"),
        ("POST", "/dlq/{}/retry"),
        ("DELETE", "/dlq/{}"),
        ("GET", "/executions/{}"),
    ):
        refusal(client.simulate_request(method, f"{PREFIX}{path.format(job_id)}"), 404, "not_found")


def test_an_id_may_be_written_in_capitals_or_without_hyphens(site: ApiSite) -> None:
    (job, *_rest) = get(site, "/jobs", "queue=kept").json
    for spelt in (job["id"].upper(), job["id"].replace("-", "")):
        assert get(site, f"/jobs/{spelt}").json == job
