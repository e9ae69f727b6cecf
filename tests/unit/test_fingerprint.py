"""Errors are grouped by what went wrong."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue_core.fingerprint import error_fingerprint

TRACE = """Traceback (most recent call last):
  File "/srv/app/handlers.py", line 10, in send
    deliver()
  File "/srv/app/mail.py", line 20, in deliver
    raise ValueError
ValueError: no
"""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ValueError: row 17 of 20", "ValueError: row 3 of 4"),
        ("KeyError: 'ada'", "KeyError: 'grace'"),
        ('no "a"', 'no "b \\" c"'),
        ("job 01890a5d-ac96-774b-bcce-b302099a8057 is gone", "job 11111111-2222-3333-4444-555555555555 is gone"),
        ("<object at 0x7f00dead>", "<object at 0xabc>"),
        ("took 1.5 s", "took 20 s"),
    ],
)
def test_errors_that_differ_in_values_only_are_one_group(one: str, other: str) -> None:
    assert error_fingerprint("t", one) == error_fingerprint("t", other)


def test_another_text_type_or_place_is_another_group() -> None:
    same = error_fingerprint("t", "ValueError: no", TRACE)
    assert same != error_fingerprint("t", "ValueError: yes", TRACE)
    assert same != error_fingerprint("u", "ValueError: no", TRACE)
    assert same != error_fingerprint("t", "ValueError: no", TRACE.replace("in deliver", "in post"))


def test_a_deploy_that_moves_lines_and_folders_splits_no_group() -> None:
    moved = TRACE.replace("line 20", "line 99").replace("/srv/app/", "/opt/v2/")
    assert error_fingerprint("t", "ValueError: no", TRACE) == error_fingerprint("t", "ValueError: no", moved)


@given(st.text(st.characters()), st.text(st.characters()), st.none() | st.text(st.characters()))
def test_any_text_has_a_fingerprint_of_sixteen_digits(job_type: str, error: str, traceback: str | None) -> None:
    assert re.fullmatch("[0-9a-f]{16}", error_fingerprint(job_type, error, traceback))


@pytest.mark.parametrize(
    "error", ["'" * 20_000, "0x" * 20_000, "'\\" * 10_000, "1." * 20_000, "a-" * 20_000], ids=["quotes", "hex", "escapes", "numbers", "dashes"]
)
@pytest.mark.timeout(10)
def test_no_text_makes_it_slow(error: str) -> None:
    assert error_fingerprint("t", error, error)
