"""Whatever is sent to the REST API, it names what is wrong, does nothing, and does not break."""

from __future__ import annotations

import base64
import io
import json
import urllib.parse
import uuid
from collections.abc import Iterator
from typing import Any, Final

import falcon.testing
import pytest
from api_site import PREFIX, SECRETS, ApiSite, Result, next_of, opened, refusal

from jobqueue_core.testing.factories import tampered

NOBODY: Final = str(uuid.UUID(int=0))
LARGEST: Final = 2 << 20
LISTS: Final = ("/jobs", "/dlq", "/dlq/groups", "/executions", "/schedules/nightly/runs")
WITH_CURSORS: Final = ("/jobs", "/dlq", "/executions")
TEXTS: Final = {
    "quote": "'",
    "or": "' OR '1'='1",
    "drop": "x'; DROP TABLE jobs; --",
    "union": "' UNION SELECT name, sql, 1, 2 FROM sqlite_master --",
    "double quote": '" OR ""="',
    "sleep": "1; SELECT pg_sleep(10)--",
    "like": "%",
    "underscores": "____",
    "glob": "*",
    "backslash": "\\",
    "regex": "(a+)+$" + "a" * 40,
    "nul": "a\x00b",
    "line": "a\r\nb",
    "format": "%s%n{0}${x}",
    "half a character": "\ud800",
    "far out": "\U0010ffff",
    "path": "../../etc/passwd",
    "long": "a" * 5000,
    "empty": "",
    "space": " ",
    "brackets": "[]",
    "none": "null",
    "lua": "') redis.call('FLUSHALL') --",
    "redis": "\r\nFLUSHALL\r\n",
}
"""What has broken others."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    with opened(ApiSite(tmp_path_factory.mktemp("api"), max_body=LARGEST)) as site:
        site.closing.begin()
        site.schedule()
        for number in range(3):
            site.queued(queue="kept")
            site.dead(error=f"OSError: {number}")
            site.archived()
        yield site


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="", errors="surrogatepass")


def _get(site: ApiSite, path: str, query: str = "") -> Result:
    return site.client("read").simulate_get(f"{PREFIX}{path}", query_string=query)


def _send(site: ApiSite, data: bytes, path: str = "/jobs", *, length: int | None = None, method: str = "POST", **headers: str) -> Result:
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
    return falcon.testing.Result([b"".join(site.wsgi(environ, answered))], answered.status, answered.headers)


def _send_json(site: ApiSite, data: bytes, path: str = "/jobs") -> Result:
    return _send(site, data, path, Content_Type="application/json")


@pytest.fixture
def creates() -> None:
    """For tests in which something may be made."""


@pytest.fixture(autouse=True)
def nothing_happens(request: pytest.FixtureRequest, site: ApiSite) -> Iterator[None]:
    """What is refused leaves everything as it was."""
    counted = (
        site.queue.operations.stats()["totals"]["enqueued"],
        site.queue.operations.stats()["dead_letter_count"],
        len(site.queue.schedules.all()),
    )
    yield
    if "creates" not in request.fixturenames:
        stats = site.queue.operations.stats()
        assert (stats["totals"]["enqueued"], stats["dead_letter_count"], len(site.queue.schedules.all())) == counted


# Query strings -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "limit",
    ["0", "-1", "501", "1000000000", "9" * 400, "abc", "", "1.5", "1e2", " 1", "+1", "0x10", "1_0", "\u0661", "\uff11", "null", "true", "1,2", "NaN"],
)
def test_a_limit_is_a_whole_number_from_1_to_500(site: ApiSite, path: str, limit: str) -> None:
    refusal(_get(site, path, f"limit={_quoted(limit)}"), 422, field="limit")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", ["1", "500", "007"])
def test_a_limit_within_bounds_is_kept(site: ApiSite, path: str, limit: str) -> None:
    answer = _get(site, path, f"limit={limit}")
    assert answer.status_code == 200
    assert len(answer.json) <= int(limit)


@pytest.mark.parametrize("path", ["/dlq", "/executions"])
@pytest.mark.parametrize(("offset", "status"), [("-1", 422), ("10001", 422), ("9" * 30, 422), ("x", 422), ("", 422), ("0", 200), ("10000", 200)])
def test_an_offset_is_at_most_10000(site: ApiSite, path: str, offset: str, status: int) -> None:
    answer = _get(site, path, f"offset={offset}")
    assert answer.status_code == status
    if status == 422:
        refusal(answer, 422, field="offset")


@pytest.mark.parametrize(
    "path", ["/jobs", "/queues", "/dlq", "/dlq/groups", "/executions", "/schedules", "/workers", "/types", "/stats", f"/jobs/{NOBODY}"]
)
@pytest.mark.parametrize("name", ["nope", "Limit", "limit ", "limit[]", "limit%00", "page", "__class__", "%F0%9F%92%A9", "a" * 500])
def test_a_parameter_that_is_none_is_named(site: ApiSite, path: str, name: str) -> None:
    """A filter with a slip in its name must not become no filter at all."""
    answer = _get(site, path, f"{name}=1")
    refusal(answer, 422)
    assert urllib.parse.unquote(name)[:20] in answer.json["details"][0]["field"]


def test_a_parameter_is_given_once(site: ApiSite) -> None:
    for query in ("limit=1&limit=2", "limit=1&limit=1", "type=a&type=b"):
        refusal(_get(site, "/jobs", query), 422, field=query.partition("=")[0])


@pytest.mark.parametrize("name", ["state", "type", "queue"])
@pytest.mark.parametrize("path", ["/jobs", "/dlq", "/executions"])
@pytest.mark.parametrize("text", TEXTS)
def test_no_text_in_a_filter_is_more_than_a_text(site: ApiSite, path: str, name: str, text: str) -> None:
    answer = _get(site, path, f"{name}={_quoted(TEXTS[text])}")
    if answer.status_code == 200:
        assert answer.json == [], "it is the name of nothing"
    else:
        refusal(answer, 422, field=name)


@pytest.mark.parametrize("name", ["type", "queue", "fingerprint", "since", "until"])
@pytest.mark.parametrize("text", TEXTS)
def test_no_text_in_a_filter_of_a_bulk_action_makes_it_act_on_anything(site: ApiSite, name: str, text: str) -> None:
    for method, path in (("POST", "/dlq/retry"), ("DELETE", "/dlq")):
        answer = site.client().simulate_request(method, f"{PREFIX}{path}", query_string=f"{name}={_quoted(TEXTS[text])}")
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
        refusal(_get(site, path, f"{name}={_quoted(text)}"), 422, field=name)


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2030-01-01T00:00:00+02:00", "2030-01-01T00:00:00.123456789Z"]
)
def test_a_time_may_be_as_early_or_late_as_there_are_times(site: ApiSite, text: str) -> None:
    for path in ("/dlq", "/dlq/groups", "/executions"):
        for name in ("since", "until"):
            assert _get(site, path, f"{name}={_quoted(text)}").status_code == 200


@pytest.mark.parametrize(
    "query", ["%", "%zz", "&&&", "=", "limit", "limit=%", "limit=1&%ff=%fe", "%00", "a=b=c", ";", "limit=1;type=a", "\xff", "&" * 5000]
)
def test_no_query_string_breaks_anything(site: ApiSite, query: str) -> None:
    answer = _get(site, "/jobs", query.encode("latin-1").decode("latin-1"))
    assert answer.status_code in (200, 422)
    if answer.status_code == 422:
        refusal(answer, 422)


# Cursors -------------------------------------------------------------------------------------------------------------------------------


def _cursor(site: ApiSite, path: str) -> str:
    """Where the first page of a list ended."""
    following = next_of(_get(site, path, "limit=1"))
    assert following is not None
    return urllib.parse.parse_qs(urllib.parse.urlsplit(following).query)["cursor"][0]


@pytest.mark.parametrize("path", WITH_CURSORS)
@pytest.mark.parametrize("text", [*TEXTS.values(), "~", "~~~", "W10", "bnVsbA", "e30", "WzFd", "=" * 8, "\u00e4", "a" * 4097], ids=ascii)
def test_what_no_page_has_given_is_no_cursor(site: ApiSite, path: str, text: str) -> None:
    refusal(_get(site, path, f"cursor={_quoted(text)}"), 422, field="cursor")


@pytest.mark.parametrize("path", WITH_CURSORS)
def test_a_cursor_that_was_tampered_with_shows_rows_of_the_list_or_is_refused(site: ApiSite, path: str) -> None:
    rows = [json.dumps(row) for row in _get(site, path, "limit=500").json]
    for cursor in tampered(_cursor(site, path)):
        answer = _get(site, path, f"cursor={_quoted(cursor)}")
        if answer.status_code == 200:
            assert {json.dumps(row) for row in answer.json} <= set(rows)
        else:
            refusal(answer, 422, field="cursor")


@pytest.mark.parametrize("path", WITH_CURSORS)
@pytest.mark.parametrize("other", WITH_CURSORS)
def test_a_cursor_of_another_list_breaks_nothing(site: ApiSite, path: str, other: str) -> None:
    answer = _get(site, path, f"cursor={_quoted(_cursor(site, other))}")
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
    answer = _get(site, "/jobs", f"cursor={base64.urlsafe_b64encode(walk).decode().rstrip('=')}")
    if answer.status_code != 200:
        refusal(answer, 422, field="cursor")


# Paths ---------------------------------------------------------------------------------------------------------------------------------


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
    (job, *_rest) = _get(site, "/jobs", "queue=kept").json
    for spelt in (job["id"].upper(), job["id"].replace("-", "")):
        assert _get(site, f"/jobs/{spelt}").json == job


# Bodies --------------------------------------------------------------------------------------------------------------------------------

BODIES: Final = ("/jobs", "/jobs/batch", "/schedules")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b'{"type": "a"',
        b'{"type": "a"} x',
        b'{"type": "a"}{"type": "b"}',
        b"{'type': 'a'}",
        b'{"type": "a",}',
        b'{"type": "a", "payload": NaN}',
        b'{"type": "a", "payload": Infinity}',
        b'{"type": "a", "payload": 01}',
        b'{"type": "a", "payload": "\xff\xfe"}',
        b'{"type": "a", "payload": "\n"}',
        b'\xef\xbb\xbf{"type": "a"}',
        '{"type": "a"}'.encode("utf-16"),
        '{"type": "a"}'.encode("utf-32"),
        b"\x1f\x8b\x08\x00",
        b"\x00" * 100,
        b"type=a",
        b'{"type": "a", "payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"type": "a", "payload": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_body_that_is_no_json_is_400(site: ApiSite, path: str, data: bytes) -> None:
    answer = _send_json(site, data, path)
    if path == "/jobs":
        refusal(answer, 400, "bad_json")
    else:
        # What does not fit may be found before what is no JSON.
        assert answer.status_code in (400, 422)
        refusal(answer, answer.status_code)


@pytest.mark.parametrize("path", BODIES)
def test_a_body_that_is_missing_is_400(site: ApiSite, path: str) -> None:
    refusal(_send_json(site, b"", path), 400, "body_missing")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("data", [b"null", b"[]", b'"a"', b"7", b"true", b'[{"type": "a"}]', b"[" * 100_000])
def test_a_body_of_another_kind_is_422(site: ApiSite, path: str, data: bytes) -> None:
    refusal(_send_json(site, data, path), 422)


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/jsonx",
        "json",
        "text/json",
        "*/*",
        "application/json, text/plain",
    ],
)
def test_a_body_must_be_json_by_its_content_type(site: ApiSite, kind: str) -> None:
    """A page of another site can send the other kinds without asking."""
    answer = _send(site, b'{"type": "a"}', **({"Content_Type": kind} if kind else {}))
    refusal(answer, 415)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "application/json; charset=utf-16"},
        {"Content_Type": "application/json; charset=latin-1"},
        {"Content_Type": "application/json", "Content_Encoding": "gzip"},
        {"Content_Type": "application/json", "Content_Encoding": "br, gzip"},
    ],
)
def test_a_body_that_is_encoded_is_415(site: ApiSite, headers: dict[str, str]) -> None:
    refusal(_send(site, b'{"type": "a"}', **headers), 415)


@pytest.mark.usefixtures("creates")
@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "application/json"},
        {"Content_Type": "application/json;charset=UTF-8"},
        {"Content_Type": 'Application/JSON ; charset="utf-8"'},
        {"Content_Type": "application/vnd.acme+json"},
        {"Content_Type": "application/json", "Content_Encoding": "identity"},
    ],
)
def test_json_may_be_named_in_all_its_ways(site: ApiSite, headers: dict[str, str]) -> None:
    assert _send(site, b'{"type": "a"}', **headers).status_code == 201


class _Unread(io.RawIOBase):
    """A body that nobody may read."""

    def read(self, size: int = -1, /) -> bytes:
        msg = f"read({size})"
        raise AssertionError(msg)


@pytest.mark.parametrize(
    "method_path",
    [
        "POST /jobs",
        "POST /jobs/batch",
        "POST /schedules",
        "PATCH /schedules/nightly",
        f"POST /dlq/{NOBODY}/retry",
        "DELETE /dlq",
        "POST /queues/kept/pause",
    ],
)
def test_a_body_that_is_too_large_is_not_read(site: ApiSite, method_path: str) -> None:
    method, _, path = method_path.partition(" ")
    headers = {"Host": "localhost:8080", "Authorization": f"Bearer {SECRETS['admin']}", "Content-Type": "application/json"}
    environ = falcon.testing.create_environ(path=f"{PREFIX}{path}", method=method, headers=headers)
    environ |= {"wsgi.input": _Unread(), "CONTENT_LENGTH": str(100 << 20)}
    answered = falcon.testing.StartResponseMock()
    body = b"".join(site.wsgi(environ, answered))
    refusal(falcon.testing.Result([body], answered.status, answered.headers), 413, "too_large")


class _Endless(io.RawIOBase):
    """A body of which nobody has said where it ends, and what was read of it."""

    def __init__(self) -> None:
        self.taken = 0

    def read(self, size: int = -1, /) -> bytes:
        assert 0 < size <= LARGEST + 1, "all at once"
        self.taken += size
        return b" " * size


def test_a_chunked_body_without_end_is_read_up_to_the_limit(site: ApiSite) -> None:
    headers = {
        "Host": "localhost:8080",
        "Authorization": f"Bearer {SECRETS['admin']}",
        "Content-Type": "application/json",
        "Transfer-Encoding": "chunked",
    }
    environ = falcon.testing.create_environ(path=f"{PREFIX}/jobs", method="POST", headers=headers)
    environ.pop("CONTENT_LENGTH", None)
    body = _Endless()
    environ |= {"wsgi.input": body, "wsgi.input_terminated": True}
    answered = falcon.testing.StartResponseMock()
    data = b"".join(site.wsgi(environ, answered))
    refusal(falcon.testing.Result([data], answered.status, answered.headers), 413, "too_large")
    assert body.taken <= LARGEST + 1


@pytest.mark.usefixtures("creates")
def test_a_chunked_body_within_the_limit_is_taken(site: ApiSite) -> None:
    assert _send(site, b'{"type": "a"}', Content_Type="application/json", Transfer_Encoding="chunked").status_code == 201


def test_a_body_that_ends_before_its_time_is_400(site: ApiSite) -> None:
    refusal(_send(site, b'{"type": "a"}', length=50, Content_Type="application/json"), 400, "body_cut_off")


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "", " ", "+5", "\u0661", "9" * 30])
def test_a_length_that_is_none_breaks_nothing(site: ApiSite, length: str) -> None:
    answer = _send(site, b"", length=length, Content_Type="application/json")
    assert answer.status_code in (400, 413)
    refusal(answer, answer.status_code)


@pytest.mark.parametrize(
    "asked",
    [
        "GET /jobs",
        "GET /dlq",
        "DELETE /dlq",
        "POST /dlq/retry",
        "POST /queues/kept/pause",
        "DELETE /queues/kept/jobs",
        f"DELETE /jobs/{NOBODY}",
        "POST /schedules/nightly/run",
        "DELETE /schedules/nightly",
    ],
)
def test_a_body_where_none_is_taken_is_not_passed_over(site: ApiSite, asked: str) -> None:
    """Unless it is a question, to which a body means nothing."""
    method, _, path = asked.partition(" ")
    answer = _send(site, b'{"type": "mail"}', path, method=method, Content_Type="application/json")
    if method == "GET":
        assert answer.status_code == 200
    else:
        refusal(answer, 400, "body_unexpected")


# Values --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("type", ["", "a b", "a" * 129, "\u00e4", "a\u0000", "a\n", "../a", None, 7, ["a"], {}, True]),
        ("queue", ["", "a b", "a" * 101, "a:b", "a\u0000", "a\n", "*", "{a}", 7, []]),
        ("priority", ["urgent", "HIGH", "", 1, [], "high\u0000"]),
        ("max_retries", [-1, 10_001, 1.5, "3", True, 10**400, [], -(2**63) - 1]),
        ("timeout", [0, -1, "", "x", "0s", "-1s", 1e300, 10**400, "1e3s", True, [], "10 s", "99999999999d"]),
        ("delay", [-1, "", "tomorrow", 1e300, 10**400, {}, "1y", "\u0661s"]),
        ("expires_in", [-1, "x", 1e300, [], 10**400]),
        ("unique_for", [-1, "x", 1e300]),
        ("scheduled_at", ["", "2030-01-01", "2030-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", 7, "now"]),
        ("expires_at", ["", "x", "2030-02-30T00:00:00Z", 1e10]),
        ("unique_key", ["", "a" * 256, "a\u0000b", "a\nb", "\u202e", 7, []]),
        ("id", ["", "7", "x" * 36, f"{{{NOBODY}}}", f"urn:uuid:{NOBODY}", NOBODY + "\u0000", 7, []]),
        ("metadata", [[], "x", {"": "a"}, {"a": 1}, {"a": None}, {"jobqueue.schedule": "x"}, {"a b": "x"}]),
        ("metadata", [{"a" * 129: "x"}, {"a": "x" * 5000}, {str(n): "x" for n in range(65)}]),
        ("metadata", [{"a\u0000": "x"}, {"\u00e4": "x"}, {"a\nb": "x"}]),
        ("headers", [[], {"a": 1}, {"jobqueue.codec": "x"}, {"a\u0000": "x"}, {"a": "x" * 5000}]),
        ("payload", ["x" * (1 << 20)]),
        ("nope", [None, 1]),
        ("Type", ["a"]),
        ("type ", ["a"]),
        ("__proto__", [{}]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_job_is_named(site: ApiSite, field: str, values: list[Any]) -> None:
    for value in values:
        wrong = {"type": "a", field: value, **({"unique_key": "k"} if field == "unique_for" else {})}
        for path, body, name in (("/jobs", wrong, field), ("/jobs/batch", {"jobs": [wrong]}, f"jobs[0].{field}")):
            answer = _send_json(site, json.dumps(body).encode(), path)
            refusal(answer, 422)
            assert answer.json["details"][0]["field"].startswith(name), (value, answer.text)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"delay": "1s", "scheduled_at": "2030-01-01T00:00:00Z"}, "delay"),
        ({"expires_in": "1s", "expires_at": "2030-01-01T00:00:00Z"}, "expires_in"),
        ({"unique_for": "1s"}, "unique_for"),
    ],
)
def test_what_cannot_be_together_is_named(site: ApiSite, options: dict[str, str], field: str) -> None:
    refusal(_send_json(site, json.dumps({"type": "a", **options}).encode()), 422, field=field)


@pytest.mark.parametrize("number", [b"1e400", b"-1e999", b"[1e400]", b'{"a": 1e5000}'])
def test_a_number_beyond_all_numbers_is_refused(site: ApiSite, number: bytes) -> None:
    answer = _send_json(site, b'{"type": "a", "payload": ' + number + b"}")
    assert answer.status_code in (400, 422)
    refusal(answer, answer.status_code)


@pytest.mark.usefixtures("creates")
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b"-0.0", -0.0),
        (b"1e-400", 0.0),
        (b"0.1", 0.1),
        (b"18446744073709551616", 18446744073709551616),
        (b'"\\u0000"', "\x00"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'{"\\u0000": ["\\uffff"]}', {"\x00": ["\uffff"]}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]", [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]),
        (b'""', ""),
        (b"null", None),
        (b"1" + b"0" * 400, 10**400),
    ],
)  # fmt: skip
def test_a_payload_comes_back_as_it_was_or_is_refused(site: ApiSite, written: bytes, meant: object) -> None:
    answer = _send_json(site, b'{"type": "a", "payload": ' + written + b"}")
    if answer.status_code == 201:
        assert repr(answer.json["payload"]) == repr(meant)
        assert repr(_get(site, f"/jobs/{answer.json['id']}").json["payload"]) == repr(meant)
    else:
        refusal(answer, 422 if answer.status_code == 422 else 400)


@pytest.mark.parametrize("half", [b'"\\ud800"', b'{"\\ud800": 1}', b'"\\udc00\\ud800"'])
def test_half_a_character_is_refused_wherever_it_stands(site: ApiSite, half: bytes) -> None:
    bodies = [b'{"type": "a", "payload": ' + half + b"}", b'{"type": "a", "payload": [' + half + b"]}"]
    if half.startswith(b'"'):
        bodies += [b'{"type": ' + half + b"}", b'{"type": "a", "unique_key": ' + half + b"}", b'{"type": "a", "metadata": {"a": ' + half + b"}}"]
    for body in bodies:
        answer = _send_json(site, body)
        assert answer.status_code in (400, 422), body
        refusal(answer, answer.status_code)


@pytest.mark.usefixtures("creates")
@pytest.mark.parametrize(
    "text", ["\x00", "a\r\nb", "\u2028", "\U0010ffff", "'; DROP TABLE jobs; --", "<script>alert(1)</script>", "\x1b[2J", "\u202e", "x" * 4096]
)
def test_any_text_in_metadata_comes_back_as_it_was_or_is_refused(site: ApiSite, text: str) -> None:
    answer = _send_json(site, json.dumps({"type": "a", "queue": "texts", "metadata": {"a": text}, "payload": text}).encode())
    if answer.status_code == 201:
        assert (answer.json["metadata"], answer.json["payload"]) == ({"a": text}, text)
        (listed,) = [job for job in _get(site, "/jobs", "queue=texts&limit=500").json if job["id"] == answer.json["id"]]
        assert listed["metadata"] == {"a": text}
    else:
        refusal(answer, 422, field="metadata.a")


def test_a_field_that_is_none_is_named_with_its_path(site: ApiSite) -> None:
    refusal(_send_json(site, b'{"jobs": [{"type": "a"}, {"type": "b", "nope": 1}]}', "/jobs/batch"), 422, field="jobs[1].nope")
    refusal(_send_json(site, b'{"jobs": [{"type": "a"}], "nope": 1}', "/jobs/batch"), 422, field="nope")
    refusal(_send(site, b'{"nope": 1}', "/schedules/nightly", method="PATCH", Content_Type="application/json"), 422, field="nope")


def test_a_name_that_is_none_makes_no_novel_of_the_answer(site: ApiSite) -> None:
    for data in (
        json.dumps({"a" * 100_000: 1}),
        json.dumps({"type": "a" * 100_000}),
        json.dumps({"type": "a", "queue": "\n" * 100_000}),
        json.dumps({"type": "a", "metadata": {"x" * 100_000: "y"}}),
    ):
        answer = _send_json(site, data.encode())
        refusal(answer, 422)
        assert len(answer.content) < 2000
