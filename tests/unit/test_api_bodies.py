"""A body is JSON, says so, is as long as it says and no longer than it may, and comes only where one is taken."""

from __future__ import annotations

import io
from typing import Final

import falcon.testing
import pytest
from api_asking import NOBODY, send, send_json
from api_site import PREFIX, SECRETS, ApiSite, Result, refusal
from refusing_site import LARGEST, keep_unchanged, open_filled

BODIES: Final = ("/jobs", "/jobs/batch", "/schedules")

filled = pytest.fixture(open_filled, scope="module")
site = pytest.fixture(keep_unchanged)

# JSON ----------------------------------------------------------------------------------------------------------------------------------


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
    answer = send_json(site, data, path)
    if path == "/jobs":
        refusal(answer, 400, "bad_json")
    else:
        # What does not fit may be found before what is no JSON.
        assert answer.status_code in (400, 422)
        refusal(answer, answer.status_code)


@pytest.mark.parametrize("path", BODIES)
def test_a_body_that_is_missing_is_400(site: ApiSite, path: str) -> None:
    refusal(send_json(site, b"", path), 400, "body_missing")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("data", [b"null", b"[]", b'"a"', b"7", b"true", b'[{"type": "a"}]', b"[" * 100_000])
def test_a_body_of_another_kind_is_422(site: ApiSite, path: str, data: bytes) -> None:
    refusal(send_json(site, data, path), 422)


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
    answer = send(site, b'{"type": "a"}', **({"Content_Type": kind} if kind else {}))
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
    refusal(send(site, b'{"type": "a"}', **headers), 415)


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
def test_json_may_be_named_in_all_its_ways(filled: ApiSite, headers: dict[str, str]) -> None:
    assert send(filled, b'{"type": "a"}', **headers).status_code == 201


# Lengths -------------------------------------------------------------------------------------------------------------------------------


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
    refusal(Result([body], answered.status, answered.headers), 413, "too_large")


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
    refusal(Result([data], answered.status, answered.headers), 413, "too_large")
    assert body.taken <= LARGEST + 1


def test_a_chunked_body_within_the_limit_is_taken(filled: ApiSite) -> None:
    assert send(filled, b'{"type": "a"}', Content_Type="application/json", Transfer_Encoding="chunked").status_code == 201


def test_a_body_that_ends_before_its_time_is_400(site: ApiSite) -> None:
    refusal(send(site, b'{"type": "a"}', length=50, Content_Type="application/json"), 400, "body_cut_off")


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "", " ", "+5", "\u0661", "9" * 30])
def test_a_length_that_is_none_breaks_nothing(site: ApiSite, length: str) -> None:
    answer = send(site, b"", length=length, Content_Type="application/json")
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
    answer = send(site, b'{"type": "mail"}', path, method=method, Content_Type="application/json")
    if method == "GET":
        assert answer.status_code == 200
    else:
        refusal(answer, 400, "body_unexpected")
