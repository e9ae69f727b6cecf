"""What stands in a query string is a filter that was meant, or is refused by name."""

from __future__ import annotations

import urllib.parse

import pytest
from api_asking import NOBODY, get, quoted
from api_site import PREFIX, ApiSite, refusal
from refusing_site import TEXTS, keep_unchanged, open_filled

filled = pytest.fixture(open_filled, scope="module")

site = pytest.fixture(keep_unchanged)


@pytest.mark.parametrize(
    "path", ["/jobs", "/queues", "/dlq", "/dlq/groups", "/executions", "/schedules", "/workers", "/types", "/stats", f"/jobs/{NOBODY}"]
)
@pytest.mark.parametrize("name", ["nope", "Limit", "limit ", "limit[]", "limit%00", "page", "__class__", "%F0%9F%92%A9", "a" * 500])
def test_a_parameter_that_is_none_is_named(site: ApiSite, path: str, name: str) -> None:
    """A filter with a slip in its name must not become no filter at all."""
    answer = get(site, path, f"{name}=1")
    refusal(answer, 422)
    assert urllib.parse.unquote(name)[:20] in answer.json["details"][0]["field"]


def test_a_parameter_is_given_once(site: ApiSite) -> None:
    for query in ("limit=1&limit=2", "limit=1&limit=1", "type=a&type=b"):
        refusal(get(site, "/jobs", query), 422, field=query.partition("=")[0])


@pytest.mark.parametrize("name", ["state", "type", "queue"])
@pytest.mark.parametrize("path", ["/jobs", "/dlq", "/executions"])
@pytest.mark.parametrize("text", TEXTS)
def test_no_text_in_a_filter_is_more_than_a_text(site: ApiSite, path: str, name: str, text: str) -> None:
    answer = get(site, path, f"{name}={quoted(TEXTS[text])}")
    if answer.status_code == 200:
        assert answer.json == [], "it is the name of nothing"
    else:
        refusal(answer, 422, field=name)


@pytest.mark.parametrize("name", ["type", "queue", "fingerprint", "since", "until"])
@pytest.mark.parametrize("text", TEXTS)
def test_no_text_in_a_filter_of_a_bulk_action_makes_it_act_on_anything(site: ApiSite, name: str, text: str) -> None:
    for method, path in (("POST", "/dlq/retry"), ("DELETE", "/dlq")):
        answer = site.client().simulate_request(method, f"{PREFIX}{path}", query_string=f"{name}={quoted(TEXTS[text])}")
        if answer.status_code == 200:
            assert answer.json["matched"] == 0
        else:
            refusal(answer, 422, field=name)


@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2030-01-01",
        "2030-01-01T00:00:00",
        "2030-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "1735689600",
        "",
    ],
)
def test_a_time_that_is_none_is_refused(site: ApiSite, name: str, text: str) -> None:
    for path in ("/dlq", "/dlq/groups", "/executions"):
        refusal(get(site, path, f"{name}={quoted(text)}"), 422, field=name)


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2030-01-01T00:00:00+02:00", "2030-01-01T00:00:00.123456789Z"]
)
def test_a_time_may_be_as_early_or_late_as_there_are_times(site: ApiSite, text: str) -> None:
    for path in ("/dlq", "/dlq/groups", "/executions"):
        for name in ("since", "until"):
            assert get(site, path, f"{name}={quoted(text)}").status_code == 200


@pytest.mark.parametrize(
    "query", ["%", "%zz", "&&&", "=", "limit", "limit=%", "limit=1&%ff=%fe", "%00", "a=b=c", ";", "limit=1;type=a", "\xff", "&" * 5000]
)
def test_no_query_string_breaks_anything(site: ApiSite, query: str) -> None:
    answer = get(site, "/jobs", query.encode("latin-1").decode("latin-1"))
    assert answer.status_code in (200, 422)
    if answer.status_code == 422:
        refusal(answer, 422)
