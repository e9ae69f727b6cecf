"""Each handler called as the plain function that it is."""

from __future__ import annotations

import asyncio
import hashlib
import mailbox
from collections.abc import Callable
from pathlib import Path

import pytest
from handlers_example.handlers import Checksum, CsvFile, Fetch
from handlers_example.mail import Email, MaildirMailer

from handlers_example import handlers
from jobqueue_core import Discard, JobContext, Registry

Context = Callable[..., JobContext]


def test_each_handler_is_found_and_describes_itself() -> None:
    registry = Registry.of(handlers)

    assert [spec.type for spec in registry] == ["csv.summarise", "email.send", "files.checksum", "flaky.fetch"]
    assert all(spec.function.__doc__ for spec in registry)


def test_an_email_without_a_server_lands_in_the_maildir(tmp_path: Path, context: Context) -> None:
    ctx = context(resources=MaildirMailer(folder=tmp_path / "maildir", sender="jobs@example.com"))

    result = asyncio.run(handlers.send_email(Email(to="user@example.com"), ctx))

    assert result == {"message_id": f"<{ctx.job.id}@example.com>", "delivered_to": ["user@example.com"], "refused": {}}
    assert len(mailbox.Maildir(tmp_path / "maildir", create=False)) == 1


def test_an_email_whose_run_is_repeated_is_written_once(tmp_path: Path, context: Context) -> None:
    mailer = MaildirMailer(folder=tmp_path / "maildir", sender="jobs@example.com")

    first = asyncio.run(handlers.send_email(Email(to="user@example.com"), context(run=1, resources=mailer)))
    second = asyncio.run(handlers.send_email(Email(to="user@example.com"), context(run=2, resources=mailer)))

    assert first == second
    assert len(mailbox.Maildir(tmp_path / "maildir", create=False)) == 1


def test_an_email_whose_first_run_wrote_nothing_is_written_by_the_second(tmp_path: Path, context: Context) -> None:
    mailer = MaildirMailer(folder=tmp_path / "maildir", sender="jobs@example.com")

    asyncio.run(handlers.send_email(Email(to="user@example.com"), context(run=2, resources=mailer)))

    assert len(mailbox.Maildir(tmp_path / "maildir", create=False)) == 1


@pytest.mark.parametrize("algorithm", ["blake2b", "md5", "sha1", "sha256", "sha512"])
def test_a_checksum_is_that_of_the_whole_file(tmp_path: Path, context: Context, algorithm: str) -> None:
    content = b"jobqueue" * (handlers.CHUNK // 4)
    path = tmp_path / "file"
    path.write_bytes(content)

    result = handlers.checksum(Checksum(path=str(path), algorithm=algorithm), context())  # type: ignore[arg-type]  # one of the literals

    assert result == {"path": str(path), algorithm: hashlib.new(algorithm, content).hexdigest(), "size": len(content)}


def test_a_checksum_reports_how_far_it_is(tmp_path: Path, context: Context) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    ctx = context()

    handlers.checksum(Checksum(path=str(path)), ctx)

    report = ctx.take_report()
    assert report is not None
    assert report[0] is not None
    assert (report[0].fraction, report[0].message) == (1.0, "10 of 10 bytes")


def test_an_empty_file_has_a_checksum(tmp_path: Path, context: Context) -> None:
    path = tmp_path / "empty"
    path.touch()

    assert handlers.checksum(Checksum(path=str(path)), context())["sha256"] == hashlib.sha256().hexdigest()


def test_a_checksum_stops_between_chunks_when_it_is_asked_to(tmp_path: Path, context: Context) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    ctx = context()
    ctx.stop_reason = "cancel"

    with pytest.raises(InterruptedError):
        handlers.checksum(Checksum(path=str(path)), ctx)


def test_a_summary_stops_when_it_is_asked_to(tmp_path: Path, context: Context) -> None:
    path = tmp_path / "file.csv"
    path.write_text("a\n1\n")
    ctx = context()
    ctx.stop_reason = "shutdown"

    with pytest.raises(InterruptedError):
        handlers.summarise_csv(CsvFile(path=str(path)), ctx)


@pytest.mark.parametrize(("name", "problem"), [("missing", "does not exist"), (".", "is a directory"), ("nul\0", "does not exist")])
def test_a_file_that_cannot_be_read_is_given_up_at_once(tmp_path: Path, context: Context, name: str, problem: str) -> None:
    path = f"{tmp_path}/{name}"

    with pytest.raises(Discard, match=problem):
        handlers.checksum(Checksum(path=path), context())
    with pytest.raises(Discard, match=problem):
        handlers.summarise_csv(CsvFile(path=path), context())


def test_a_flaky_fetch_fails_as_often_as_asked(context: Context) -> None:
    payload = Fetch(url="https://example.com/slow", failures=2)

    for retry_count in (0, 1):
        with pytest.raises(ConnectionError, match=f"attempt {retry_count + 1} to fetch https://example.com/slow failed"):
            asyncio.run(handlers.fetch(payload, context(retry_count=retry_count)))
    assert asyncio.run(handlers.fetch(payload, context(retry_count=2))) == {"url": "https://example.com/slow", "attempts": 3}
