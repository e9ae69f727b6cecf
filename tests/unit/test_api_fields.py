"""The fields of a body: what is wrong with one is named with its path, and what is taken comes back as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from api_asking import NOBODY, get, send, send_json
from api_site import ApiSite, refusal
from refusing_site import keep_unchanged, open_filled

filled = pytest.fixture(open_filled, scope="module")

site = pytest.fixture(keep_unchanged)


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
            answer = send_json(site, json.dumps(body).encode(), path)
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
    refusal(send_json(site, json.dumps({"type": "a", **options}).encode()), 422, field=field)


@pytest.mark.parametrize("number", [b"1e400", b"-1e999", b"[1e400]", b'{"a": 1e5000}'])
def test_a_number_beyond_all_numbers_is_refused(site: ApiSite, number: bytes) -> None:
    answer = send_json(site, b'{"type": "a", "payload": ' + number + b"}")
    assert answer.status_code in (400, 422)
    refusal(answer, answer.status_code)


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
def test_a_payload_comes_back_as_it_was_or_is_refused(filled: ApiSite, written: bytes, meant: object) -> None:
    answer = send_json(filled, b'{"type": "a", "payload": ' + written + b"}")
    if answer.status_code == 201:
        assert repr(answer.json["payload"]) == repr(meant)
        assert repr(get(filled, f"/jobs/{answer.json['id']}").json["payload"]) == repr(meant)
    else:
        refusal(answer, 422 if answer.status_code == 422 else 400)


@pytest.mark.parametrize("half", [b'"\\ud800"', b'{"\\ud800": 1}', b'"\\udc00\\ud800"'])
def test_half_a_character_is_refused_wherever_it_stands(site: ApiSite, half: bytes) -> None:
    bodies = [b'{"type": "a", "payload": ' + half + b"}", b'{"type": "a", "payload": [' + half + b"]}"]
    if half.startswith(b'"'):
        bodies += [b'{"type": ' + half + b"}", b'{"type": "a", "unique_key": ' + half + b"}", b'{"type": "a", "metadata": {"a": ' + half + b"}}"]
    for body in bodies:
        answer = send_json(site, body)
        assert answer.status_code in (400, 422), body
        refusal(answer, answer.status_code)


@pytest.mark.parametrize(
    "text", ["\x00", "a\r\nb", "\u2028", "\U0010ffff", "'; DROP TABLE jobs; --", "<script>alert(1)</script>", "\x1b[2J", "\u202e", "x" * 4096]
)
def test_any_text_in_metadata_comes_back_as_it_was_or_is_refused(filled: ApiSite, text: str) -> None:
    answer = send_json(filled, json.dumps({"type": "a", "queue": "texts", "metadata": {"a": text}, "payload": text}).encode())
    if answer.status_code == 201:
        assert (answer.json["metadata"], answer.json["payload"]) == ({"a": text}, text)
        (listed,) = [job for job in get(filled, "/jobs", "queue=texts&limit=500").json if job["id"] == answer.json["id"]]
        assert listed["metadata"] == {"a": text}
    else:
        refusal(answer, 422, field="metadata.a")


def test_a_field_that_is_none_is_named_with_its_path(site: ApiSite) -> None:
    refusal(send_json(site, b'{"jobs": [{"type": "a"}, {"type": "b", "nope": 1}]}', "/jobs/batch"), 422, field="jobs[1].nope")
    refusal(send_json(site, b'{"jobs": [{"type": "a"}], "nope": 1}', "/jobs/batch"), 422, field="nope")
    refusal(send(site, b'{"nope": 1}', "/schedules/nightly", method="PATCH", Content_Type="application/json"), 422, field="nope")


def test_a_name_that_is_none_makes_no_novel_of_the_answer(site: ApiSite) -> None:
    for data in (
        json.dumps({"a" * 100_000: 1}),
        json.dumps({"type": "a" * 100_000}),
        json.dumps({"type": "a", "queue": "\n" * 100_000}),
        json.dumps({"type": "a", "metadata": {"x" * 100_000: "y"}}),
    ):
        answer = send_json(site, data.encode())
        refusal(answer, 422)
        assert len(answer.content) < 2000
