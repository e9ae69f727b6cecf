"""Lists page by page: their links show everything once, and no limit, offset or cursor shows more or breaks anything."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import pytest
from api_asking import get, get_json, quoted
from api_site import PREFIX, ApiSite, next_of, opened, refusal, walk
from refusing_site import TEXTS, keep_unchanged, open_filled

from jobqueue_core.attempt import ExecutionState
from jobqueue_core.testing.factories import tampered

LISTS: Final = ("/jobs", "/dlq", "/dlq/groups", "/executions", "/schedules/nightly/runs")
WITH_CURSORS: Final = ("/jobs", "/dlq", "/executions")
HOUR: Final = timedelta(hours=1)

filled = pytest.fixture(open_filled, scope="module")
site = pytest.fixture(keep_unchanged)

# Limits and offsets --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "limit",
    ["0", "-1", "501", "1000000000", "9" * 400, "abc", "", "1.5", "1e2", " 1", "+1", "0x10", "1_0", "\u0661", "\uff11", "null", "true", "1,2", "NaN"],
)
def test_a_limit_is_a_whole_number_from_1_to_500(site: ApiSite, path: str, limit: str) -> None:
    refusal(get(site, path, f"limit={quoted(limit)}"), 422, field="limit")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", ["1", "500", "007"])
def test_a_limit_within_bounds_is_kept(site: ApiSite, path: str, limit: str) -> None:
    answer = get(site, path, f"limit={limit}")
    assert answer.status_code == 200
    assert len(answer.json) <= int(limit)


@pytest.mark.parametrize("path", ["/dlq", "/executions"])
@pytest.mark.parametrize(("offset", "status"), [("-1", 422), ("10001", 422), ("9" * 30, 422), ("x", 422), ("", 422), ("0", 200), ("10000", 200)])
def test_an_offset_is_at_most_10000(site: ApiSite, path: str, offset: str, status: int) -> None:
    answer = get(site, path, f"offset={offset}")
    assert answer.status_code == status
    if status == 422:
        refusal(answer, 422, field="offset")


# Cursors -------------------------------------------------------------------------------------------------------------------------------


def _cursor(site: ApiSite, path: str) -> str:
    """Where the first page of a list ended."""
    following = next_of(get(site, path, "limit=1"))
    assert following is not None
    return urllib.parse.parse_qs(urllib.parse.urlsplit(following).query)["cursor"][0]


@pytest.mark.parametrize("path", WITH_CURSORS)
@pytest.mark.parametrize("text", [*TEXTS.values(), "~", "~~~", "W10", "bnVsbA", "e30", "WzFd", "=" * 8, "\u00e4", "a" * 4097], ids=ascii)
def test_what_no_page_has_given_is_no_cursor(site: ApiSite, path: str, text: str) -> None:
    refusal(get(site, path, f"cursor={quoted(text)}"), 422, field="cursor")


@pytest.mark.parametrize("path", WITH_CURSORS)
def test_a_cursor_that_was_tampered_with_shows_rows_of_the_list_or_is_refused(site: ApiSite, path: str) -> None:
    rows = [json.dumps(row) for row in get(site, path, "limit=500").json]
    for cursor in tampered(_cursor(site, path)):
        answer = get(site, path, f"cursor={quoted(cursor)}")
        if answer.status_code == 200:
            assert {json.dumps(row) for row in answer.json} <= set(rows)
        else:
            refusal(answer, 422, field="cursor")


@pytest.mark.parametrize("path", WITH_CURSORS)
@pytest.mark.parametrize("other", WITH_CURSORS)
def test_a_cursor_of_another_list_breaks_nothing(site: ApiSite, path: str, other: str) -> None:
    answer = get(site, path, f"cursor={quoted(_cursor(site, other))}")
    if answer.status_code != 200:
        refusal(answer, 422, field="cursor")


@pytest.mark.parametrize(
    "walk",
    [
        b'["2026-01-01T00:00:00Z","","",false]',
        b'["2026-01-01T00:00:00Z","x\\u0000~\'","",false]',
        b'["0001-01-01T00:00:00Z",null,"9~9",true]',
        b'["9999-12-31T23:59:59Z","","~",false]',
        b'["2026-01-01T00:00:00+14:00",null,null,false]',
        b"[" * 3000,
    ],
)
def test_a_forged_cursor_of_the_two_sources_breaks_nothing(site: ApiSite, walk: bytes) -> None:
    """It is base64 of JSON, which anybody can write."""
    answer = get(site, "/jobs", f"cursor={base64.urlsafe_b64encode(walk).decode().rstrip('=')}")
    if answer.status_code != 200:
        refusal(answer, 422, field="cursor")


# Walking through lists -----------------------------------------------------------------------------------------------------------------


def _long(site: ApiSite) -> None:
    """Lists of some length."""
    for number in range(9):
        site.dead(queue="walk", error=f"OSError: {number}")
        site.archived(queue="walk", state=list(ExecutionState)[number % 2])
        # What no filter wants.
        site.dead(type="other", queue="other")
        site.clock.advance(timedelta(seconds=number % 2))
    for number in range(9):
        site.queued(queue="walk", payload=number)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    with opened(ApiSite(tmp_path_factory.mktemp("api"))) as site:
        _long(site)
        site.clock.advance(HOUR)
        yield site


@pytest.mark.parametrize(
    "path", ["/jobs", "/jobs?queue=walk", "/dlq", "/dlq?queue=walk&state=all", "/executions", "/executions?queue=walk&type=test.job"]
)
@pytest.mark.parametrize("limit", [1, 4, 9, 500])
def test_following_the_links_shows_everything_once(walked: ApiSite, path: str, limit: int) -> None:
    separator = "&" if "?" in path else "?"
    pages = walk(walked.client("read"), f"{PREFIX}{path}{separator}limit={limit}")
    rows = [json.dumps(row) for page in pages for row in page]
    assert sorted(rows) == sorted(json.dumps(row) for row in get_json(walked, f"{path}{separator}limit=500"))
    assert len(set(rows)) == len(rows) >= 9
    assert max(map(len, pages)) <= limit


def test_a_walk_keeps_its_filters_however_they_are_written(walked: ApiSite) -> None:
    died = [one["died_at"] for one in get_json(walked, "/dlq?limit=500&queue=walk")]
    since = min(died).replace("Z", "+00:00")
    pages = walk(walked.client("read"), f"{PREFIX}/dlq?limit=2&since={since.replace('+', '%2B')}&queue=walk")
    assert [one["died_at"] for page in pages for one in page] == died


def test_a_walk_that_began_at_an_offset_goes_on_from_there(walked: ApiSite) -> None:
    whole = get_json(walked, "/executions?limit=500")
    pages = walk(walked.client("read"), f"{PREFIX}/executions?limit=3&offset=5")
    assert [row for page in pages for row in page] == whole[5:]


def test_the_last_page_has_no_link(walked: ApiSite) -> None:
    assert next_of(walked.client("read").simulate_get(f"{PREFIX}/executions?limit=500")) is None
    assert next_of(walked.client("read").simulate_get(f"{PREFIX}/dlq?queue=nobody")) is None
