"""The handlers run by a real worker: retries, dead letters and payload conversion included."""

from __future__ import annotations

import mailbox
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers_example import handlers
from jobqueue_core import JobState
from jobqueue_core.testing import Harness


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    for name in ("SMTP_URL", "MAIL_FROM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MAILDIR", str(tmp_path / "maildir"))
    with Harness([handlers]) as harness:
        yield harness


def test_an_email_needs_nothing_but_to(harness: Harness, tmp_path: Path) -> None:
    job = harness.run("email.send", {"to": "user@example.com"})

    assert job.state is JobState.COMPLETED, job.last_error
    assert job.result == {"message_id": f"<{job.id}@localhost>", "delivered_to": ["user@example.com"], "refused": {}}
    [message] = mailbox.Maildir(tmp_path / "maildir", create=False)
    assert message["Message-ID"] == job.result["message_id"]


def test_an_email_with_a_forged_header_is_discarded(harness: Harness) -> None:
    job = harness.run("email.send", {"to": "user@example.com", "subject": "Hello\r\nBcc: victim@example.com"})

    assert (job.state, job.dead_reason, job.run) == (JobState.DEAD, "discarded", 1)


def test_a_payload_that_does_not_fit_is_dead_at_once_and_names_the_field(harness: Harness) -> None:
    job = harness.run("files.checksum", {"path": "README.md", "algorithm": "crc32"})

    assert (job.state, job.dead_reason) == (JobState.DEAD, "invalid_payload")
    assert job.last_error is not None
    assert "payload.algorithm" in job.last_error


def test_a_checksum_is_the_result_of_its_job(harness: Harness, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")

    job = harness.run("files.checksum", {"path": str(path)})

    assert job.result == {"path": str(path), "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "size": 3}


def test_a_ragged_csv_file_is_discarded_with_its_line(harness: Harness, tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("a,b\n1\n")

    job = harness.run("csv.summarise", {"path": str(path)})

    assert (job.state, job.dead_reason) == (JobState.DEAD, "discarded")
    assert job.last_error is not None
    assert "line 2: 1 fields where the header has 2" in job.last_error


def test_a_fetch_that_fails_twice_succeeds_on_the_third_attempt(harness: Harness) -> None:
    job = harness.run("flaky.fetch", {"url": "https://example.com/", "failures": 2})

    assert (job.state, job.run) == (JobState.COMPLETED, 3)
    assert job.result == {"url": "https://example.com/", "attempts": 3}


def test_a_fetch_that_fails_more_often_than_it_may_becomes_a_dead_letter(harness: Harness) -> None:
    job = harness.run("flaky.fetch", {"failures": 4})

    assert (job.state, job.dead_reason, job.run) == (JobState.DEAD, "retries_exhausted", 4)
    assert job.last_error is not None
    assert "attempt 4 to fetch" in job.last_error
